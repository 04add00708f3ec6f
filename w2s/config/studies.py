"""The parts of the configuration that studies of reward models by themselves need: `w2s rewards run` and `curve`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Curve:
    """`w2s rewards curve`: a policy's samples on hard questions, judged by reward models and by gold.

    The reward models learn from its samples (`writing.samples` and `temperature`) on easy_holdout.
    """

    policy: Literal["learner", "student"] = "learner"
    """Who samples: the first learner or the student's base, either fitted on the easy gold."""
    pairs: int = 100
    """Pairs of a right and a wrong sample that reward models are trained on, at most one for a question."""
    questions: int = 300
    """Questions of hard_test that the policy samples texts for."""
    samples: int = 64
    """Texts for each; best-of-n is told for n = 1, 2, 4, ... up to it."""
    temperature: float = 1.0
    """Of these texts."""
    optimised: list[str] = field(default_factory=lambda: ["member", "mean", "worst", "uncertainty"])
    """Where student.objective is grpo or rloo: the aggregators that RL has as its reward, a run for each; member = one
    reward model."""


@dataclass(frozen=True)
class RewardPool:
    """Recorded answers of many models, each with its true preference, among which reward models choose."""

    outputs: str | None = None
    """A folder with outputs.* (columns id, model, text, preference from 0 to 1) and questions.* (id, prompt), or the
    outputs' file; relative to data.root where there is one. Null: no best-of-n."""
    instructions: int | None = None
    """So many instructions, drawn for each seed among those that nothing was trained on. Null: all of these."""
    probes: list[str] = field(default_factory=list)
    """Models of the pool that were made to fool judges: each joins the others by itself."""


@dataclass(frozen=True)
class RewardSuites:
    """`w2s rewards run`: reward models on preference data (`rewards.pairs: {name: preferences, ...}`).

    `rewards.members` separate models are always trained; whatever `rewards.kind` says.
    """

    suites: list[dict] = field(default_factory=list)
    """Further preference data to judge on, each {name, options}: alpaca_eval, hh_rlhf, autoj, pandalm, ..."""
    compare: list[Literal["warm", "heads", "adapters"]] = field(default_factory=list)
    """Kinds of ensemble beside the separate members."""
    shared_start: bool = False
    """The separate members start from one trained head: warm is then their mean, and no other models are trained for
    it. False: each draws its own head, and warm has members of its own."""
    held_out: float = 0.25
    """Share of the pairs, by instruction, that are judged on and never trained on."""
    pool: RewardPool = field(default_factory=RewardPool)
