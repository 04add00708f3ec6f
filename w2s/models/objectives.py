"""Objectives: what a student learns after its labels, from pairs (dpo) or from rewards of its own texts (grpo, rloo).

An objective is `(*, options) -> Objective`: the settings of a TRL trainer. No torch here: `trl` makes the trainer.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from w2s.config.fields import Learner, Train
from w2s.config.values import Count, NotNegative, Positive, Range
from w2s.store.records import BadInput

Smoothing = Annotated[float, Range("at least 0, below 0.5", at_least=0, below=0.5)]
Group = Annotated[int, Range("at least 2: a text is compared with the others of its question", at_least=2)]
Weight, Steps, Rate = NotNegative, Count | None, Positive | None


@dataclass(frozen=True)
class Objective:
    """TRL's trainer (none for sft), fields of its config, and steps and learning rate in place of the student's."""

    reads: Literal["nothing", "pairs", "rewards"] = "nothing"
    trainer: Literal["", "DPO", "GRPO", "RLOO"] = ""
    fields: dict[str, Any] = field(default_factory=dict)
    steps: int | None = None
    lr: float | None = None

    @property
    def generations(self) -> int:
        """Completions per question in a step."""
        return self.fields.get("num_generations", 1)

    def training(self, train: Train) -> Train:
        """The student's training settings, with the objective's steps and learning rate where set."""
        return replace(train, steps=self.steps or train.steps, lr=self.lr or train.lr)


def sft() -> Objective:
    """Labels only, by train.loss."""
    return Objective()


def dpo(
    *,
    beta: Positive = 0.1,
    label_smoothing: Smoothing = 0.0,
    loss: Literal["sigmoid", "hinge", "ipo", "robust"] = "sigmoid",
    steps: Steps = None,
    lr: Rate = None,
) -> Objective:
    """Pairs that committee and rewards agree on: -log sigmoid of beta times the margin (arXiv 2305.18290).

    The margin is how much more than the reference the student prefers chosen to rejected, in nats; `beta` > 0 (for ipo
    its tau, arXiv 2310.12036). `label_smoothing` in [0, 0.5): the assumed share of reversed pairs; with sigmoid it is
    conservative DPO (Mitchell 2023), (1 - e) L(margin) + e L(-margin), with robust the unbiased loss of arXiv
    2403.00409. `steps`, `lr`: null = those of student.train.
    """
    if label_smoothing and loss not in ("sigmoid", "robust"):
        raise BadInput(f"label_smoothing: {label_smoothing} given for loss {loss}; allowed: 0, or loss sigmoid, robust")
    fields = {"beta": beta, "label_smoothing": label_smoothing, "loss_type": [loss], "loss_weights": None}
    if label_smoothing and loss == "sigmoid":
        # TRL's sigmoid loss has no smoothing (trl 1.16). Its robust loss is ((1 - e) L(m) - e L(-m)) / (1 - 2e), so
        # 2 (1 - e) L(m) - (1 - 2e) robust is the conservative loss.
        weights = [2 * (1 - label_smoothing), 2 * label_smoothing - 1]
        fields |= {"loss_type": ["sigmoid", "robust"], "loss_weights": weights}
    return Objective("pairs", "DPO", fields, steps, lr)


def grpo(
    *, beta: Weight = 0.04, generations: Group = 4, temperature: Positive = 1.0, steps: Steps = None, lr: Rate = None
) -> Objective:
    """Rewards of sampled texts, each relative to the others of its question (arXiv 2402.03300).

    `beta` >= 0 weighs the KL divergence from the reference in the loss, token by token; `generations` texts are sampled
    per question at `temperature`. Advantages are divided by their group's standard deviation; the loss is TRL's
    default, a mean over all tokens of a step (DAPO, arXiv 2503.14476). `steps`, `lr`: null = those of student.train,
    whose batch counts texts.
    """
    fields = {"beta": beta, "num_generations": generations, "temperature": temperature}
    return Objective("rewards", "GRPO", fields, steps, lr)


def rloo(
    *, beta: Weight = 0.05, generations: Group = 4, temperature: Positive = 1.0, steps: Steps = None, lr: Rate = None
) -> Objective:
    """Rewards of sampled texts, each minus the mean reward of the others of its question (arXiv 2402.14740).

    `beta` >= 0 times a text's log-ratio to the reference is subtracted from its reward; otherwise as grpo.
    """
    fields = {"beta": beta, "num_generations": generations, "temperature": temperature}
    return Objective("rewards", "RLOO", fields, steps, lr)


def check(objective: Objective, learner: Learner, key: str = "student") -> None:
    """BadInput if the learner cannot be trained with this objective."""
    if objective.reads != "nothing" and learner.model.kind != "lm":
        raise BadInput(f"{key}.model.kind: {learner.model.kind!r} given; allowed with any objective but sft: lm")
    if learner.train.batch % objective.generations:
        allowed = f"a multiple of the objective's generations, {objective.generations}"
        raise BadInput(f"{key}.train.batch: {learner.train.batch} given; allowed: {allowed}")


OBJECTIVES = {"sft": sft, "dpo": dpo, "grpo": grpo, "rloo": rloo}
