"""The Teller, with which one seed declares its stages, and the records that the functions of the story pass on.

A function of the story takes a Teller and stages and returns stages: its arguments show which stage descends from
which. No state is kept between calls.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from w2s.config.fields import Config, Learner
from w2s.stages import Tools
from w2s.store.artifacts import Stage

FIT, HOLDOUT, TRANSFER, TEST = "easy_fit", "easy_holdout", "transfer", "hard_test"
UNSEEDED = None
"""The tag `seed` of a stage that all seeds share."""
Form = ModuleType
"""`story.choices` (questions with choices) or `story.written` (without). Both have the functions ask, boost, combine,
find_candidates, find_opinion, take_opinion and label, with the same arguments."""
Stages = Mapping[str, Stage]
"""Stages by role, round or name."""


@dataclass(frozen=True)
class Teller:
    """Declares the stages of one seed of a run."""

    config: Config
    seed: int
    tools: Tools
    declare: Callable[..., Stage]
    """(work, title, parents, options, tags) -> the stage; the same one if it was declared before."""
    start: Stages = field(default_factory=dict)
    """Parents of every student of this seed; a `base` among them replaces the student's own."""

    @property
    def student(self) -> Learner:
        """The student without its objective, which does not affect training on labels."""
        return Learner(self.config.student.model, self.config.student.train)

    @property
    def fits_temperature(self) -> bool:
        """Whether a teacher's labels have a temperature fitted on its opinion of easy_holdout."""
        return self.config.label.soft and self.config.label.temperature is None

    def tell(
        self, work: Callable, title: str, parents: Stages, options: Mapping[str, Any], tags: Mapping | None = None
    ) -> Stage:
        """Declare a stage of this seed.

        parents: by the role in which `work` reads them. options: keyword arguments of `work`, all part of the stage's
        key. tags: for evaluation to find the stage; not part of the key.
        """
        return self.declare(work, f"seed {self.seed} · {title}", parents, options, {"seed": self.seed, **(tags or {})})


@dataclass(frozen=True)
class Sets:
    """The questions of one seed, and their gold under lock."""

    questions: Stage
    """All four splits."""
    gold: Stages
    """easy (easy_fit and easy_holdout), transfer, hard_test -> its gold."""
    suites: Stages
    """Name -> a further suite with choices."""
    written_suites: Mapping[str, tuple[Stage, Stage]]
    """Name -> a further suite with written answers, and its gold."""
    shots: Stage | None = None
    """The solved examples that prompts show, if any learner or the student draws some."""


@dataclass(frozen=True)
class Speaker:
    """A model that answers: a learner (or the student) as trained in `model`, or its untrained base."""

    name: str
    learner: Learner
    model: Stage | None = None
    is_student: bool = False


@dataclass(frozen=True)
class Answers:
    """A model's or committee's answers to the transfer pool."""

    by: str
    stages: Stages
    """The parents of labels made from these answers, by role."""
    holdout: Stages = field(default_factory=dict)
    """Where a temperature is fitted: the same opinion on easy_holdout as `holdout`, and candidates that were sampled
    for it as `easy_holdout`."""
    accept: Mapping[str, Any] | None = None
    """The bound by which rewards accept or reject a label, if any."""


@dataclass(frozen=True)
class Learners:
    """The learners of one boosting run; `name` is their committee's."""

    name: str
    rounds: Stages
    """round-0, round-1, ... -> the stage of the round."""
    opinions: tuple[Stages, ...] = ()
    """For each learner: set -> its opinion. Empty if answers are written."""


@dataclass(frozen=True)
class Committee:
    """Learners with their alphas."""

    name: str
    learners: Learners
    voters: Stage
    """The stage that says who votes, and with which alpha."""
    answers: Answers | None = None


def number(role: str, stages: Stages) -> dict[str, Stage]:
    """The stages as parents: ROLE-00, ROLE-01, ..."""
    return {f"{role}-{at:02}": stage for at, stage in enumerate(stages.values())}
