"""The parts of the configuration that belong to studies of reward models: `w2s rewards run` and `w2s rewards curve`."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from w2s.config.values import Count, InnerShare, MethodOf, Positive


@dataclass(frozen=True)
class Curve:
    """`w2s rewards curve`: a policy's samples on hard questions, judged by reward models and by gold.

    The reward models learn from its samples (`writing.samples` and `temperature`) on easy_holdout.
    """

    policy: Literal["learner", "student"] = "learner"
    """Who samples: the first learner or the student's base, either fitted on the easy gold."""
    pairs: Count = 100
    """Pairs of a correct and a wrong sample that reward models are trained on, at most one per question."""
    questions: Count = 300
    """Questions of hard_test that the policy samples texts for."""
    samples: Count = 64
    """Texts per question; best-of-n is reported for n = 1, 2, 4, ... up to this number."""
    temperature: Positive = 1.0
    """Sampling temperature of these texts."""
    optimised: list[str] = field(default_factory=lambda: ["member", "mean", "worst", "uncertainty"])
    """Where student.objective is grpo or rloo: the aggregators that serve RL as its reward, one run each; member = a
    single reward model."""


@dataclass(frozen=True)
class RewardPool:
    """Recorded answers of many models, each with its true preference, among which reward models choose."""

    outputs: str | None = None
    """A folder with outputs.* (columns id, model, text, preference from 0 to 1) and questions.* (id, prompt), or the
    outputs file itself; relative to data.root where that is set. Null: no best-of-n."""
    instructions: Count | None = None
    """How many instructions to draw, for each seed, among those that nothing was trained on. Null: all of them."""
    probes: list[str] = field(default_factory=list)
    """Models of the pool that were made to fool judges: each joins the others in turn."""


@dataclass(frozen=True)
class RewardStudy:
    """`w2s rewards run`: reward models on preference data (`rewards.pairs: {name: preferences, ...}`).

    `rewards.members` separate models are always trained, whatever `rewards.kind` says.
    """

    suites: list[Annotated[dict, MethodOf("preferences")]] = field(default_factory=list)
    """Further preference data to judge on, each {name, options}: alpaca_eval, hh_rlhf, autoj, pandalm, ..."""
    compare: list[Literal["warm", "heads", "adapters"]] = field(default_factory=list)
    """Kinds of ensemble to train beside the separate members."""
    shared_start: bool = False
    """The separate members start from one trained head: warm is then their mean, and no other models are trained for
    it. False: each draws its own head, and warm has members of its own."""
    held_out: InnerShare = 0.25
    """Share of the pairs, by instruction, that models are judged on and never trained on."""
    pool: RewardPool = field(default_factory=RewardPool)
