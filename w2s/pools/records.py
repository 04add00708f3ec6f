"""Recorded opinions: the answers of a pool of models that cannot be trained here, and the decisions of combining them.

Letters: N questions, K candidates per question (padded), M members. A member is a model, or one prompt or one sample of
a model: prompt ensembles and self-consistency are pools like any other. As everywhere, gold is a record of its own.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from w2s.ensemble.ballots import Ballots, NotApplicable
from w2s.store.files import open_whole
from w2s.store.records import BadInput, candidate_mask, load_arrays

# The values of an answer that are no candidate's position.
ABSTAINED = -1  # a row without a readable answer
NOT_ASKED = -2  # no row
NOT_RECORDED = -3  # rightness is known, the answer is not

Learned = dict[str, np.ndarray]  # the arrays of a fitted method, by name


@dataclass(frozen=True)
class Opinions:
    """The answers of M members to N questions; it holds no gold.

    The candidates of a question are its choices or, if it has none, the distinct answers that the members gave
    (`texts_N`; count_N of them). answer_MN (int16) is a candidate's position, or ABSTAINED, NOT_ASKED, NOT_RECORDED.
    group_N: task or subject ('' if none). prompt_N: '' if unknown. An array that was not recorded is None; single gaps
    in arrays are NaN. probs_MNK: choice probabilities; score_MN: a member's own confidence in its answer, on its own
    scale; cost_MN: US dollars per answer; check_MN: 1 where the answer passed a check that needs no gold (the
    examples in a programming task's docstring), else 0; output_MN: the raw texts; features_ND: of the prompts.
    """

    ids: np.ndarray
    members: np.ndarray
    answer_MN: np.ndarray
    count_N: np.ndarray
    texts_N: np.ndarray
    group_N: np.ndarray
    prompt_N: np.ndarray
    probs_MNK: np.ndarray | None = None
    score_MN: np.ndarray | None = None
    cost_MN: np.ndarray | None = None
    check_MN: np.ndarray | None = None
    output_MN: np.ndarray | None = None
    features_ND: np.ndarray | None = None

    @property
    def mask_NK(self) -> np.ndarray:
        """True for the real candidates; K is the largest count_N."""
        return candidate_mask(self.count_N)

    def questions(self, rows: np.ndarray | slice) -> Opinions:
        """Only these questions (positions, a mask or a slice)."""
        if isinstance(rows, np.ndarray) and rows.dtype == bool and rows.all():
            return self  # no copy: a million questions of ten members take a quarter of a GB
        whole = {n: array for n, array in vars(self).items() if n != "members" and array is not None}
        parts = {name: array[:, rows] if "_M" in name else array[rows] for name, array in whole.items()}
        return dataclasses.replace(self, **parts)

    def only(self, members: Sequence[str] | np.ndarray) -> Opinions:
        """Only these members, in this order. An unknown member is a BadInput."""
        place = {name: at for at, name in enumerate(self.members.tolist())}
        if missing := [name for name in members if name not in place]:
            known = ", ".join(list(place)[:9])
            raise BadInput(f"member {str(missing[0])!r}: it has no answers here; there are: {known}")
        at = np.array([place[name] for name in members], dtype=int)
        by_member = {name: array[at] for name, array in vars(self).items() if "_M" in name and array is not None}
        return dataclasses.replace(self, members=self.members[at], **by_member)


@dataclass(frozen=True)
class Truth:
    """What is known of right and wrong. A separate record: no method sees it when it is applied.

    gold_N: the right candidate's position, -1 where no member gave the gold answer, -2 where gold is unknown.
    right_MN: 0 (wrong) to 1 (right) of each answer as recorded or graded (also a share, e.g. of samples that passed),
    0 where the member abstained, NaN where it was not asked or nothing is known.
    """

    ids: np.ndarray
    gold_N: np.ndarray
    right_MN: np.ndarray

    def questions(self, rows: np.ndarray) -> Truth:
        """Only these questions (positions or a mask)."""
        return Truth(self.ids[rows], self.gold_N[rows], self.right_MN[:, rows])

    @property
    def known_N(self) -> np.ndarray:
        """Whether a question can be judged at all."""
        return (self.gold_N > -2) | np.isfinite(self.right_MN).any(0)


@dataclass(frozen=True)
class Decision:
    """A method's answers to N questions: candidates (probs_NK), or the answers of chosen members (member_N).

    Exactly one of the two is set. asked_MN: whose answers it paid for (None: everyone's). abstained_N: no answer.
    """

    abstained_N: np.ndarray
    probs_NK: np.ndarray | None = None
    member_N: np.ndarray | None = None
    asked_MN: np.ndarray | None = None


@dataclass(frozen=True)
class Fitted:
    """A fitted method: `kind` says how it is applied (`methods.APPLY`), `arrays` hold all that was learned.

    `members` are its members, in the order of the arrays. `points` names its operating points, cheapest first, if it
    trades cost for quality (only '' otherwise); `point` is the default one.
    """

    kind: str
    members: np.ndarray
    arrays: Learned
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)
    points: tuple[str, ...] = ("",)
    point: int = 0


def rightness(decision: Decision, truth: Truth) -> np.ndarray:
    """right_N, 0 to 1, NaN where it cannot be judged; 1/t if t candidates tie for the best, gold among them.

    No answer is a miss if the question can be judged. A candidate can be judged only if gold is known.
    """
    rows = np.arange(len(decision.abstained_N))
    if decision.member_N is not None:
        right_N = np.where(decision.member_N >= 0, truth.right_MN[decision.member_N, rows], np.nan)
        return np.where(np.isnan(right_N) & truth.known_N, 0.0, right_N)
    best_NK = (decision.probs_NK >= decision.probs_NK.max(1, keepdims=True) - 1e-12) & (decision.probs_NK > 0)
    hit_N = (truth.gold_N >= 0) & ~decision.abstained_N & best_NK[rows, np.maximum(truth.gold_N, 0)]
    return np.where(truth.gold_N == -2, np.nan, hit_N / np.maximum(best_NK.sum(1), 1))


def spent(decision: Decision, opinions: Opinions) -> np.ndarray | None:
    """cost_N, US dollars per question: the sum over the members that were asked; None without recorded costs."""
    if opinions.cost_MN is None:
        return None
    cost_MN = np.nan_to_num(opinions.cost_MN)
    return (cost_MN if decision.asked_MN is None else np.where(decision.asked_MN, cost_MN, 0)).sum(0)


def ballots(opinions: Opinions, truth: Truth) -> Ballots:
    """The votes on the questions whose gold is known. Raises NotApplicable if there are none."""
    rows = truth.gold_N > -2
    if rows.all():
        rows = slice(None)  # no copy: ten million questions take gigabytes
    if not (opinions.answer_MN >= 0).any():
        raise NotApplicable("the answers were not recorded")
    if not isinstance(rows, slice) and not rows.any():
        raise NotApplicable("no question has gold")
    answer_MN, count_N = opinions.answer_MN[:, rows], opinions.count_N[rows]
    # A member that abstains where all others agree on an open question has not guessed right: `Ballots.chance_N`.
    chance_N = 1 - 1 / np.maximum(count_N, 2)
    wrong_MN = np.where(answer_MN >= 0, answer_MN != truth.gold_N[rows], chance_N.astype(np.float32))
    cost_M = None
    if opinions.cost_MN is not None:
        times_M = np.isfinite(opinions.cost_MN).sum(1)
        cost_M = np.where(times_M > 0, np.nansum(opinions.cost_MN, axis=1) / np.maximum(times_M, 1), np.nan)
    return Ballots(answer_MN, wrong_MN, truth.gold_N[rows], count_N, cost_M)


def write_fitted(path: Path, fitted: Fitted) -> None:
    """Write one `.npz` without pickles: the arrays, and the rest as JSON text."""
    rest = {"kind": fitted.kind, "members": fitted.members.tolist(), "meta": fitted.meta}
    rest |= {"points": list(fitted.points), "point": fitted.point}
    with open_whole(path, "wb") as file:
        # Texts may be an array of objects, which only a pickle could hold; an array of text needs none.
        plain = {name: np.array(a.tolist()) if a.dtype == object else a for name, a in fitted.arrays.items()}
        np.savez(file, **{f"array:{name}": array for name, array in plain.items()}, rest=json.dumps(rest))


def read_fitted(path: Path) -> Fitted:
    """What `write_fitted` wrote; anything else is a BadInput."""
    try:
        content = load_arrays(path)
        rest = json.loads(str(content["rest"]))
        arrays = {name.removeprefix("array:"): array for name, array in content.items() if name.startswith("array:")}
        members, points = np.array(rest["members"]), tuple(rest["points"])
        return Fitted(rest["kind"], members, arrays, rest["meta"], points, rest["point"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: not a fitted combiner that `w2s combine` wrote ({error})") from None
