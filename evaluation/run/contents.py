"""What a report shows, as plain records.

The records know nothing of HTML; `report.py` turns them into pages.
"""

from dataclasses import dataclass, field
from typing import Any

from w2s.store.records import Metric


@dataclass(frozen=True)
class Step:
    """One box of the flow: what it is ('transfer pool'), how many ('4,000 questions'), a remark ('no gold')."""

    name: str
    count: str
    note: str = ""


@dataclass(frozen=True)
class HeavyRow:
    """A question with a high boosting weight. `weights`: its weight x N by round, so 1 is average; `alike`: how many
    questions have these weights in every round."""

    id: str
    prompt: str
    gold: str
    weights: tuple[float, ...]
    seed: int | None = None
    alike: int = 1


@dataclass(frozen=True)
class Training:
    """The history of a fit, as (step, value) by quantity. `who`: a model, or 'round 3' of the committee; held_loss and
    agreement (0 to 1): on held-out labels; reward, margin and kl: of a student trained by an objective."""

    who: str
    seed: int
    loss: tuple[tuple[int, float], ...] = ()
    held_loss: tuple[tuple[int, float], ...] = ()
    agreement: tuple[tuple[int, float], ...] = ()
    reward: tuple[tuple[int, float], ...] = ()
    margin: tuple[tuple[int, float], ...] = ()
    kl: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Taught:
    """What a student was taught, over all seeds: its labels (how many were kept, the share right, mean confidence, ECE,
    log-loss in nats; None where unknown; their temperature), and its steps: taken, allowed, and of the best checkpoint.
    """

    model: str
    kept: str
    right: float | None
    confidence: float | None
    ece: float | None
    log_loss: float | None
    temperature: str
    steps: str
    most_steps: str
    best_step: str
    stopped: str


@dataclass(frozen=True)
class Mixture:
    """A mixture of experts: its parameters, those that a token passes through, and those of the dense model it was made
    of; `load`: see models.experts.measure (None: not trained); `condition`: of routers turned towards examples."""

    model: str
    seed: int
    parameters: int
    active: int
    dense: int
    load: dict[str, Any] | None = None
    condition: float | None = None


@dataclass(frozen=True)
class Cost:
    """The cost of a stage, over all seeds; `tokens`: None if no model read any."""

    stage: str
    seconds: float
    tokens: int | None = None


@dataclass(frozen=True)
class LabelCost:
    """A model that may label: how many models read each question (the mean over seeds), the seconds of their jobs per
    1,000 questions, its accuracy, and the difference to the committee's, if it is another model."""

    model: str
    passes: float
    seconds: float
    accuracy: Metric
    gap: Metric | None = None


@dataclass(frozen=True)
class Vote:
    """One model's answer to a question, its probability (0 to 1) by the model, and whether it is right."""

    learner: str
    answer: str
    probability: float | None = None
    right: bool | None = None


@dataclass(frozen=True)
class Sample:
    """One question of a suite or of the transfer pool, with the models' answers; `why`: why its label was kept."""

    id: str
    prompt: str
    choices: tuple[str, ...] = ()
    votes: tuple[Vote, ...] = ()
    label: str = ""
    why: str = ""
    gold: str = ""


@dataclass(frozen=True)
class Reproduce:
    """The command line, the config as text (secrets redacted), package versions, the commit, the sandbox's tier, and
    each model's number format, by path."""

    command: str = ""
    config: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    commit: str = ""
    sandbox: str = ""
    precisions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportData:
    """Everything that the report shows. A section with an empty field is left out.

    run: the run's name · suite: the hard suite that the verdict, the ladder and the curve are about · written: whether
    its questions have no choices, so that answers and programs are texts that models wrote · metrics: all of them, from
    `metrics.measure` over all suites · synthetic: a sentence where the questions are made up or the run is a smoke run,
    else "" · flow: the boxes in order · duplicates: {what was removed from which split: how many} · controls_off: names
    of MODELS that the config switched off · committees: {seed: its committee.json} · dependence: the committee.json
    that tells how far learners err together · difficulty_bins: labels in the order easy to hard
    (`metrics.difficulty_bins`), with difficulty_name saying what they count · calibration: {model:
    `metrics.calibration_bins`} · merges: sentences about the merged learners · answers: what models answered to the
    suite · samples: labels of the pool · notes: warnings of the run, one sentence each.
    """

    run: str
    suite: str
    metrics: tuple[Metric, ...]
    written: bool = False
    synthetic: str = ""
    flow: tuple[Step, ...] = ()
    duplicates: dict[str, int] = field(default_factory=dict)
    controls_off: tuple[str, ...] = ()
    committees: dict[int, dict[str, Any]] = field(default_factory=dict)
    dependence: dict[str, Any] | None = None
    heaviest: tuple[HeavyRow, ...] = ()
    difficulty_bins: tuple[str, ...] = ()
    difficulty_name: str = "difficulty, easy to hard"
    calibration: dict[str, list[tuple[float, float, int]]] = field(default_factory=dict)
    taught: tuple[Taught, ...] = ()
    mixtures: tuple[Mixture, ...] = ()
    label_costs: tuple[LabelCost, ...] = ()
    merges: tuple[str, ...] = ()
    costs: tuple[Cost, ...] = ()
    answers: tuple[Sample, ...] = ()
    samples: tuple[Sample, ...] = ()
    training: tuple[Training, ...] = ()
    reproduce: Reproduce = field(default_factory=Reproduce)
    notes: tuple[str, ...] = ()
