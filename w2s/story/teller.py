"""The Teller, by which one seed declares its stages, and the records that the functions of the story hand on.

A function of the story takes a Teller and stages and returns stages: whoever descends from whom can be read off its
arguments. Nothing is kept between two calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from w2s.config.fields import Boosting, Config, Learner
from w2s.stages import Tools
from w2s.store.artifacts import Stage

FIT, HOLDOUT, TRANSFER, TEST = "easy_fit", "easy_holdout", "transfer", "hard_test"
UNSEEDED = None
"""The tag `seed` of a stage that all seeds share."""


@dataclass(frozen=True)
class Teller:
    """One seed of a run: what its stages are declared with."""

    config: Config
    seed: int
    tools: Tools
    declare: Callable[..., Stage]
    """(work, title, parents=, options=, tags=) -> the stage; the same stage where it was declared before."""

    @property
    def student(self) -> Learner:
        """The student without its objective: what it learns from labels is the same whatever comes after."""
        return Learner(self.config.student.model, self.config.student.train)

    def tell(
        self,
        work: Callable,
        title: str,
        *,
        parents: Mapping[str, Stage],
        options: Mapping[str, Any],
        tags: Mapping[str, Any] | None = None,
    ) -> Stage:
        """Declare a stage of this seed.

        parents: by the role in which `work` reads them. options: keyword arguments of `work`, all part of the stage's
        key. tags: by which evaluation finds the stage; no part of the key.
        """
        tags = {"seed": self.seed, **(tags or {})}
        return self.declare(work, f"seed {self.seed} · {title}", parents=parents, options=options, tags=tags)


@dataclass(frozen=True)
class Sets:
    """The questions of one seed, and their gold under lock."""

    questions: Stage
    """All four splits."""
    gold: Mapping[str, Stage]
    """easy (easy_fit and easy_holdout), transfer, hard_test -> its gold."""
    suites: Mapping[str, Stage]
    """Name -> a further suite whose questions have choices."""
    written_suites: Mapping[str, tuple[Stage, Stage]]
    """Name -> a further suite whose answers are written, and its gold."""


@dataclass(frozen=True)
class Speaker:
    """A model that is asked: a learner (or the student) as `model` has it, or its untrained base."""

    name: str
    learner: Learner
    model: Stage | None = None
    is_student: bool = False


@dataclass(frozen=True)
class Answers:
    """What somebody says of the transfer pool."""

    by: str
    stages: Mapping[str, Stage]
    """The parents of labels that are made of these answers, by role."""
    accept: Mapping[str, Any] | None = None
    """The bound by which rewards accept or reject a label, where they have a say."""


@dataclass(frozen=True)
class Fitted:
    """A trained model, and its answers where it was asked about the transfer pool."""

    model: Stage
    answers: Answers | None


@dataclass(frozen=True)
class Learners:
    """The learners of one boosting: `name` is that of the committee that they are fitted for."""

    name: str
    rounds: Mapping[str, Stage]
    """round-0, round-1, ... -> the stage of the round."""
    opinions: tuple[Mapping[str, Stage], ...] = ()
    """Of each learner: set -> its opinion. Empty where answers are written."""


@dataclass(frozen=True)
class Committee:
    """Learners with their alphas."""

    name: str
    learners: Learners
    voters: Stage
    """Who votes, and with which alpha."""
    answers: Answers | None = None


class Form(Protocol):
    """What differs between questions with choices (`story.choices`) and without (`story.written`)."""

    def ask(self, teller: Teller, sets: Sets, speaker: Speaker, splits: tuple[str, ...] = (TEST,)) -> Answers | None:
        """Ask one model about splits and every further suite."""

    def boost(self, teller: Teller, sets: Sets, name: str, boosting: Boosting, labels: Stage) -> Learners:
        """The rounds of a booster, each with the rounds before it as parents."""

    def combine(
        self, teller: Teller, sets: Sets, name: str, learners: Learners, alphas: dict, *, best_alone: bool = False
    ) -> Committee:
        """Make one voice of many learners, or of the best of them alone, and ask it about every set."""

    def find_candidates(self, teller: Teller, sets: Sets, committee: Committee, on: str) -> dict[str, Stage]:
        """The stage that holds the candidates of a set, by role: the set's name, or questions."""

    def find_opinion(self, teller: Teller, sets: Sets, committee: Committee, on: str) -> Stage:
        """The opinion of the committee on the candidates of transfer, hard_test or easy_holdout."""

    def take_opinion(self, teller: Teller, sets: Sets, committee: Committee, by: str, opinion: Stage) -> Answers:
        """The answers of `by`, who has this opinion on the committee's candidates."""

    def label(self, teller: Teller, sets: Sets, answers: Answers, *, shuffled: bool = False) -> Stage:
        """Pseudo-labels for the transfer pool."""


def number(role: str, stages: Mapping[str, Stage]) -> dict[str, Stage]:
    """The stages as parents: ROLE-00, ROLE-01, ..."""
    return {f"{role}-{at:02}": stage for at, stage in enumerate(stages.values())}
