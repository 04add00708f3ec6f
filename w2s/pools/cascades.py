"""Cascades: cheap members answer first, and an expensive one is asked only where they cannot be trusted.

Trust needs no gold: it comes from agreement among their samples (`consistency`), or from the examples in a programming
task's docstring (`checked`). The cascade with a learned scorer is `frugal`.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import groupby, islice
from typing import Literal

import numpy as np

from w2s.config.values import Count, Share
from w2s.ensemble.ballots import NotApplicable
from w2s.ensemble.votes import count_votes, split_winners, vote_shares
from w2s.pools.records import NOT_ASKED, Decision, Fitted, Learned, Opinions, Truth, rightness
from w2s.store.records import BadInput

MOST_POINTS = 100


def consistency(
    opinions: Opinions,
    truth: Truth,
    *,
    weak: list[str] | None = None,
    strong: list[str] | None = None,
    by: Literal["vote", "verification"] = "vote",
    samples: Count | None = None,
    abstentions: bool = True,
    tolerance: Share = 0.0,
    escalate: Share | None = None,
) -> Fitted:
    """Consistency cascade: the weak samples' vote where they agree, else the strong members' vote.

    Mixtures of thought (Yue et al., arXiv 2310.03094). `weak` and `strong` name models, a model being the part of a
    member's name before '#' (a prompt kind); wildcards are allowed. The agreement is, by vote, the share of the
    weak samples that gave the most frequent answer; by verification, the share of the weak models whose own most
    frequent answer is that of most models (with two: they are the same, or not). Abstentions are part of the whole
    unless `abstentions` is false; `samples`: use only this many samples of each weak model, the first ones. Where no
    weak sample answers, the strong ones are always asked, and the weak vote stands where no strong one answers.

    Every distinct agreement of the fit questions is a threshold and a point. The default point is the one with the
    least escalation whose accuracy is within `tolerance` (0 to 1) of the best; with `escalate` (0 to 1), the most
    accurate one that escalates at most this share of the fit questions. By default `strong` is the most accurate model
    and `weak` all models with more samples than that.
    """
    if not (opinions.answer_MN >= 0).any() or not (truth.gold_N > -2).any():
        raise NotApplicable("it needs recorded answers and questions with gold")
    model_M = np.array([name.split("#")[0] for name in opinions.members.tolist()])
    weak_M, strong_M = choose_sides(model_M, truth, weak, strong)
    weak_at = first_samples(opinions.members, model_M, np.flatnonzero(weak_M), samples)
    members = opinions.members[np.r_[weak_at, np.flatnonzero(strong_M)]]
    # -1 marks the strong members; the others have the number of their prompt kind.
    kind_M = np.r_[np.unique(model_M[weak_at], return_inverse=True)[1], np.full(strong_M.sum(), -1)]
    meta = {"by": by, "abstentions": abstentions}
    known = truth.gold_N > -2
    arrays = make_curve(count_both(opinions.only(members).questions(known), kind_M, meta), truth.questions(known))
    point = choose_point(arrays["accuracy_P"], arrays["escalated_P"], tolerance, escalate)
    names = [f"agreement {threshold:.3g}" if threshold <= 1 else "always" for threshold in arrays["threshold_P"]]
    points = (f"{name}: {share:.0%} escalated" for name, share in zip(names, arrays["escalated_P"], strict=True))
    return Fitted("consistency", members, {"kind_M": kind_M, **arrays}, meta, tuple(points), point)


def apply_consistency(fitted: Fitted, opinions: Opinions, point: int) -> Decision:
    """The shares of the deciding votes; the cost is all weak samples, and the strong ones where escalated."""
    kind_M, threshold = fitted.arrays["kind_M"], fitted.arrays["threshold_P"][point]
    weak_NK, agreement_N, strong_NK = count_both(opinions, kind_M, fitted.meta)
    escalated_N = agreement_N < threshold
    votes_NK = np.where((escalated_N & strong_NK.any(1))[:, None], strong_NK, weak_NK)
    asked_MN = ((kind_M >= 0)[:, None] | escalated_N) & (opinions.answer_MN != NOT_ASKED)
    return Decision(~votes_NK.any(1), votes_NK, asked_MN=asked_MN)


def count_both(opinions: Opinions, kind_M: np.ndarray, meta: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(weak vote shares (N, K), agreement_N (0 to 1; -1 if no weak sample answered), strong vote shares (N, K))."""
    answer_MN, mask_NK = opinions.answer_MN, opinions.mask_NK
    if meta["by"] == "vote":
        weak_NK = count_votes(answer_MN[kind_M >= 0], mask_NK.shape[1])
        voters_N = (answer_MN[kind_M >= 0] > (NOT_ASKED if meta["abstentions"] else -1)).sum(0)
    else:
        counts = [count_votes(answer_MN[kind_M == kind], mask_NK.shape[1]) for kind in range(kind_M.max() + 1)]
        by_kind = [split_winners(count_NK) for count_NK in counts]
        weak_NK = np.sum(by_kind, axis=0)
        voters_N = len(by_kind) if meta["abstentions"] else sum(vote_NK.any(1) for vote_NK in by_kind)
    # Sums in another order of the members differ by rounding, and the thresholds are among these numbers.
    agreement_N = np.round(weak_NK.max(1, initial=0) / np.maximum(voters_N, 1), 9)
    agreement_N = np.where(weak_NK.any(1), agreement_N, -1)
    return vote_shares(weak_NK), agreement_N, vote_shares(count_votes(answer_MN[kind_M < 0], mask_NK.shape[1]))


def make_curve(votes: tuple[np.ndarray, np.ndarray, np.ndarray], truth: Truth) -> Learned:
    """threshold_P: the distinct agreements, and a value above them all; escalated_P and accuracy_P, 0 to 1, at each."""
    weak_NK, agreement_N, strong_NK = votes
    strong_NK = np.where(strong_NK.any(1, keepdims=True), strong_NK, weak_NK)
    weak_N, strong_N = (rightness(Decision(~one_NK.any(1), one_NK), truth) for one_NK in (weak_NK, strong_NK))
    threshold_P = np.unique(agreement_N[agreement_N >= 0])
    if len(threshold_P) >= MOST_POINTS:
        threshold_P = threshold_P[np.linspace(0, len(threshold_P) - 1, MOST_POINTS - 1).astype(int)]
    threshold_P = np.r_[threshold_P, 1.1]
    escalated_NP = agreement_N[:, None] < threshold_P
    accuracy_P = np.where(escalated_NP, strong_N[:, None], weak_N[:, None]).mean(0)
    return {"threshold_P": threshold_P, "escalated_P": escalated_NP.mean(0), "accuracy_P": accuracy_P}


def choose_point(accuracy_P: np.ndarray, escalated_P: np.ndarray, tolerance: float, escalate: float | None) -> int:
    """The first point (from least to most escalated) that meets the target."""
    if escalate is None:
        return int(np.argmax(accuracy_P >= accuracy_P.max() - tolerance - 1e-12))
    allowed_P = escalated_P <= escalate + 1e-12
    # Where no weak sample answers there is no choice: the least escalation may be above the target.
    return int(np.argmax(np.where(allowed_P, np.round(accuracy_P, 12), -1))) if allowed_P.any() else 0


def choose_sides(
    model_M: np.ndarray, truth: Truth, weak: list[str] | None, strong: list[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    """weak_M and strong_M. Raises BadInput for names that match no model, NotApplicable if there is no default."""
    models, count = np.unique(model_M, return_counts=True)
    if strong is None:
        right_M = mean_known(truth.right_MN)
        if weak is not None:
            right_M = np.where(find_members("weak", weak, model_M), -1, right_M)
        right = np.array([round(right_M[model_M == model].mean(), 12) for model in models])
        strong_M = model_M == models[np.argmax(right)]
    else:
        strong_M = find_members("strong", strong, model_M)
    if weak is None:
        weak_M = np.isin(model_M, models[count > strong_M.sum()]) & ~strong_M
        if not weak_M.any():
            raise NotApplicable("no model has more samples than the strong one: name the weak and the strong models")
    else:
        weak_M = find_members("weak", weak, model_M)
    if (weak_M & strong_M).any():
        raise BadInput(f"weak: {str(model_M[weak_M & strong_M][0])!r} is among the strong members too")
    return weak_M, strong_M


def find_members(option: str, patterns: Sequence[str], name_M: np.ndarray) -> np.ndarray:
    """Which members the names or wildcards match; one that matches none is a BadInput."""
    if not patterns:
        raise BadInput(f"{option}: no member is named")
    named_M = np.zeros(len(name_M), bool)
    for pattern in patterns:
        fits_M = name_M == pattern
        if not fits_M.any():
            fits_M = np.array([fnmatchcase(name, pattern) for name in name_M.tolist()])
        if not fits_M.any():
            raise BadInput(f"{option}: {pattern!r} given; there are: {', '.join(np.unique(name_M)[:9].tolist())}")
        named_M |= fits_M
    return named_M


def first_samples(members: np.ndarray, model_M: np.ndarray, at: np.ndarray, samples: int | None) -> np.ndarray:
    """Of the members `at`, the first `samples` of each model, by model and number of the sample."""

    def number(place: int) -> tuple:
        tail = members[place].partition("#")[2]
        return model_M[place], int(tail) if tail.isdigit() else 0, members[place]

    by_model = groupby(sorted(at.tolist(), key=number), key=lambda place: model_M[place])
    return np.array([place for _, places in by_model for place in islice(places, samples)])


def checked(opinions: Opinions, truth: Truth, *, order: list[str] | None = None, length: Count = 3) -> Fitted:
    """Test cascade for code: the first program to pass the visible checks, cheapest member first; else the last.

    `order` names the members. By default, the `length` most accurate members that have checks, cheapest first by mean
    cost or, if no costs are recorded, least accurate first.
    """
    if opinions.check_MN is None or not np.isfinite(opinions.check_MN).any():
        raise NotApplicable("no checks were recorded (does a program pass the examples in its task?)")
    if order is not None:
        if not order:
            raise BadInput("order: no member is named")
        model_M = np.array([name.split("#")[0] for name in opinions.members.tolist()])
        places = [np.flatnonzero((opinions.members == name) | (model_M == name)) for name in order]
        for name, place in zip(order, places, strict=True):
            if len(place) != 1:
                raise BadInput(f"order: {name!r} given; {len(place)} members have this name")
        return Fitted("checked", opinions.members[np.concatenate(places).astype(int)], {})
    right_M = mean_known(truth.right_MN)
    cost_M = right_M if opinions.cost_MN is None else mean_known(opinions.cost_MN)
    able = np.flatnonzero(np.isfinite(opinions.check_MN).any(1)).tolist()
    best = sorted(able, key=lambda at: (-right_M[at], opinions.members[at]))[:length]
    best.sort(key=lambda at: (cost_M[at], right_M[at], opinions.members[at]))
    return Fitted("checked", opinions.members[best], {})


def apply_checked(fitted: Fitted, opinions: Opinions, point: int) -> Decision:
    """Whose program is taken, and who was asked: all members up to that one."""
    passed_MN = np.zeros(opinions.answer_MN.shape, bool) if opinions.check_MN is None else opinions.check_MN == 1
    return first_accepted(passed_MN, opinions.answer_MN)


def first_accepted(accepted_MN: np.ndarray, answer_MN: np.ndarray) -> Decision:
    """The first member whose answer is accepted; if none is, the last that answered. Members: cheapest first."""
    answered_MN = (answer_MN != -1) & (answer_MN != NOT_ASKED)
    accepted_MN = accepted_MN & answered_MN
    size = len(answer_MN)
    last_N = size - 1 - np.argmax(answered_MN[::-1], axis=0)
    found_N = accepted_MN.any(0)
    member_N = np.where(found_N, np.argmax(accepted_MN, axis=0), last_N)
    reached_N = np.where(found_N, member_N, size - 1)
    asked_MN = (np.arange(size)[:, None] <= reached_N) & (answer_MN != NOT_ASKED)
    return Decision(~answered_MN.any(0), member_N=member_N, asked_MN=asked_MN)


def mean_known(values_MN: np.ndarray) -> np.ndarray:
    """The mean of each member's recorded values, rounded so that the order of the questions breaks no tie."""
    found_MN = np.isfinite(values_MN)
    return np.round(np.where(found_MN, values_MN, 0).sum(1, dtype=np.float64) / np.maximum(found_MN.sum(1), 1), 12)


METHODS = {"consistency": consistency, "checked": checked}
APPLY = {"consistency": apply_consistency, "checked": apply_checked}
