"""The jobs of workers: one frozen dataclass per worker, written to and read from job.json in the job's folder.

A path in a job is absolute or relative to the job's folder. `path` is where an untrained model is read from: a folder
or a hub name. "A file of X" is what store.records writes for the record X. train.precision is float32 or bfloat16;
`auto`, which stages.precision resolves, means float32 here. Stages import this file, so it must not need torch; `serve`
imports a worker's module by its name in WORKERS.
"""

import math
import typing
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from w2s.config.fields import Learner, Runtime, Train, Writing
from w2s.workers.together import Average, Experts, Merge, Search


@dataclass(frozen=True)
class Base:
    """An untrained model."""

    learner: Learner
    path: str | None = None
    """Null: learner.model.path."""


@dataclass(frozen=True)
class Pretrain:
    """Make a tiny base model of the embedded world and train it on lines of text -> model/, train.json."""

    builtin: str
    """The name of a builtin model."""
    corpus: str
    """A text file, one example per line."""
    seed: int
    train: Train = field(default_factory=Train)
    """steps 0: random weights, which each learner draws for itself; batch: lines per step."""
    runtime: Runtime = field(default_factory=Runtime)


@dataclass(frozen=True)
class Dequantise:
    """The model in a GGUF file as a folder of safetensors -> model/."""

    file: str
    runtime: Runtime = field(default_factory=Runtime)


@dataclass(frozen=True)
class Finetune:
    """Train a learner or a student on labels over candidates -> model/, train.json."""

    learner: Learner
    seed: int
    examples: str
    """A file of Examples whose choices are the labels' candidates; it may hold more rows than there are labels."""
    labels: str
    """A file of PseudoLabels; rows of weight 0 are dropped."""
    path: str | None = None
    order: str | None = None
    """A file of Weights: the boosting weights of the rows."""
    tokens: str | None = None
    """A file of TokenWeights, made with any tokenizer: replaces `order` for written answers."""
    soft: str | None = None
    """A file of TokenTargets: soft targets for written answers."""
    states: str | None = None
    """For kinds that read hidden states: the folder that an Embed job wrote. Null: they are made in this job."""
    weighting: Literal["resample", "loss"] = "loss"
    """resample: rows are drawn in proportion to the boosting weights; loss: these multiply the loss."""
    runtime: Runtime = field(default_factory=Runtime)


def count_steps(train: Train, rows: int) -> int:
    """Optimizer steps of a fit on this many labelled rows, of which `train.holdout_share` is kept apart."""
    kept = rows - int(rows * train.holdout_share)
    return train.steps or math.ceil(train.epochs * kept / train.batch)


@dataclass(frozen=True)
class Predict:
    """One model's distribution over each example's candidates -> NAME.npz (Predictions) for each set."""

    examples: dict[str, str]
    """Name of a set -> its file of Examples; the result keeps their order."""
    by: str
    """The model's name in the result."""
    model: str | None = None
    """A saved model's folder. Null: the untrained `base`."""
    base: Base | None = None
    only: dict[str, list[str]] | None = None
    """Name of a set -> the ids of the only examples to use."""
    states: str | None = None
    """As for Finetune."""
    runtime: Runtime = field(default_factory=Runtime)


@dataclass(frozen=True)
class Embed:
    """A frozen model's hidden state for each candidate -> states.npy, rows.npz (see models.states)."""

    learner: Learner
    examples: str
    """A file of Examples."""
    path: str | None = None
    runtime: Runtime = field(default_factory=Runtime)


@dataclass(frozen=True)
class Rank:
    """How models rank the right tokens of written answers, for a committee that grows round by round.

    -> NAME-r.npz (TokenRanks) for each set and each round r: under the mixture of rounds 0 to r.
    """

    stages: list[list[str | None]]
    """The model folders of each round; null is the untrained `base`."""
    alphas: list[float]
    """One per round; its models share it equally."""
    examples: dict[str, str]
    """Name of a set -> its file of Examples, one candidate each; the result keeps their order."""
    mixture: Literal["linear", "log_linear"] = "linear"
    base: Base | None = None
    only: dict[str, list[str]] | None = None
    """Name of a set -> the ids of the only examples to use."""
    runtime: Runtime = field(default_factory=Runtime)


@dataclass(frozen=True)
class Sample:
    """Texts that a model, or a committee token by token, writes for prompts -> samples.jsonl and, if `top`, soft.npz.

    samples.jsonl has a line {"id", "texts", "logps", "ended"} per example, in order. soft.npz holds TokenTargets of
    each example's first text; a text that has not ended, or that the tokenizer cuts into other tokens, has none.
    done.json counts both kinds ("unfinished", "untargeted").
    """

    models: list[str | None]
    """Model folders; null is the untrained `base`."""
    alphas: list[float]
    """One per model."""
    examples: str
    """A file of Examples."""
    max_new_tokens: int
    samples: int
    """Texts per example."""
    temperature: float
    """0 is greedy."""
    stop: list[str]
    """Texts that end an answer."""
    seed: int
    top: int = 0
    """How many of the most probable next tokens soft.npz holds."""
    mixture: Literal["linear", "log_linear"] = "linear"
    mix: Literal["all", "disagree"] = "all"
    base: Base | None = None
    one_base: bool = False
    """All models are LoRA adapters of `base` and share its weights."""
    runtime: Runtime = field(default_factory=Runtime)


@dataclass(frozen=True)
class Pairs:
    """Preferences to learn from."""

    examples: str
    """A file of Examples with two candidates each."""
    labels: str
    """A file of PseudoLabels over them."""


@dataclass(frozen=True)
class Judges:
    """The reward models whose scores a student learns from."""

    models: list[str]
    """Folders of plain models of kind pair, or of ensembles."""
    aggregate: dict
    """{name, options} of the aggregator of their members' scores."""
    centre_M: list[float] | None = None
    """What is subtracted from each member's scores. Null: 0."""
    scale_M: list[float] | None = None
    """What the results are divided by. Null: 1."""


@dataclass(frozen=True)
class Objective:
    """Continue a student's training, on pairs (dpo) or rewards of its texts (grpo, rloo) -> model/, train.json.

    With rewards also rollouts.jsonl: a line per text, {"step": steps done before it, "id", "text", "rewards": by member
    (null: not judged), "reward": what the student learned from}.
    """

    objective: dict
    """{name, options}; see `w2s methods objectives`."""
    learner: Learner
    seed: int
    path: str | None = None
    """The student after its labels; also the reference."""
    pairs: Pairs | None = None
    examples: str | None = None
    """With rewards: a file of the Examples to answer."""
    rewards: Judges | None = None
    writing: Writing = field(default_factory=Writing)
    """Only max_new_tokens and stop are used."""
    runtime: Runtime = field(default_factory=Runtime)


@dataclass(frozen=True)
class Reward:
    """Train an ensemble of reward models whose members share a trunk -> model/, train.json.

    A single reward model is a Finetune job of kind pair; separate members are several such jobs.
    """

    learner: Learner
    seed: int
    examples: str
    """A file of Examples with at least two candidates each."""
    labels: str
    """A file of PseudoLabels over them."""
    path: str | None = None
    kind: Literal["heads", "adapters"] = "heads"
    members: int = 4
    layers: int | None = None
    """How many of the last layers have adapters. Null: all."""
    rank: int = 8
    diversity: float = 0.0
    """Weight of the term that keeps adapters apart."""
    bootstrap: bool = False
    """Each member draws its own rows, with replacement."""
    runtime: Runtime = field(default_factory=Runtime)


@dataclass(frozen=True)
class Score:
    """Every reward model's scores of every candidate -> NAME.npz (Rewards) for each set.

    The members of an ensemble are named NAME/0, NAME/1, ...
    """

    models: list[str]
    """Folders of plain models of kind pair, or of ensembles."""
    examples: dict[str, str]
    """Name of a set -> its file of Examples; the result keeps their order."""
    names: list[str] | None = None
    """The models' names in the result. Null: their folders."""
    runtime: Runtime = field(default_factory=Runtime)


Job = (
    Pretrain | Dequantise | Finetune | Predict | Embed | Rank | Sample | Objective | Reward | Score
    | Average | Merge | Search | Experts
)  # fmt: skip


class Worker(NamedTuple):
    """The type of a worker's jobs, and the module whose `run(folder, job, world)` does one and returns its summary."""

    job: type
    module: str


WORKERS = {kind.__name__.lower(): Worker(kind, f"w2s.workers.{kind.__name__.lower()}") for kind in typing.get_args(Job)}
