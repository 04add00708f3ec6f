"""Judge every way of combining a pool on questions that it was not fitted on.

Each repeat cuts the questions into random halves, with the same share of every group in each; a method is fitted on one
half and judged on the other, and the other way round. So every repeat judges every question once, by a fit that has not
seen it, and all methods on the same questions: differences are paired.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from w2s.ensemble.ballots import NotApplicable
from w2s.evaluation.statistics import Interval, Scores
from w2s.pools import hedge
from w2s.pools.methods import apply, fit
from w2s.pools.records import Decision, Opinions, Truth, rightness, spent
from w2s.store.log import progress
from w2s.store.records import BadInput


@dataclass
class Judged:
    """One method, judged on every question in every repeat (R repeats, P operating points, N questions).

    right: 0 to 1, NaN where a question cannot be judged for this method; cost: US dollars, or None. Those of (R, N) are
    at the operating point that each fit chose for itself, those of (P, R, N) at every point of the curve (`points` are
    the names of one fit's; the others' lie close by). asked_RN: members paid for. Of the first repeat: the answered
    candidate (-1: none or unknown), its probability (NaN: unknown) and the member whose answer it is (-1: several).
    """

    name: str
    options: dict[str, Any]
    points: tuple[str, ...]
    right_RN: np.ndarray
    cost_RN: np.ndarray | None
    right_PRN: np.ndarray
    cost_PRN: np.ndarray | None
    asked_RN: np.ndarray
    abstained_N: np.ndarray
    candidate_N: np.ndarray
    confidence_N: np.ndarray
    member_N: np.ndarray
    seconds: float


def judge(
    specs: Sequence[Mapping[str, Any] | str], opinions: Opinions, truth: Truth, *, repeats: int = 5, seed: int = 0
) -> tuple[list[Judged], dict[str, str]]:
    """Every method judged on random halves, and by name why methods that cannot work on this data were left out."""
    if repeats < 1:
        raise BadInput(f"repeats: {repeats!r} given; allowed: a whole number above 0")
    if truth.known_N.sum() < 4:
        raise BadInput(f"questions: {truth.known_N.sum()} of {len(truth.ids)} can be judged; at least 4 are needed")
    halves = splits(opinions, truth, repeats, seed)
    specs = [{"name": spec} if isinstance(spec, str) else dict(spec) for spec in specs]
    running: list[str] = []
    with progress(len(specs), "methods") as advance:

        def judge_spec(spec: dict[str, Any]) -> Judged | NotApplicable:
            running.append(spec["name"])
            advance(0, note=f"in work: {', '.join(running)}")
            try:
                return judge_one(spec, opinions, truth, halves)
            except NotApplicable as reason:
                return reason
            finally:
                running.remove(spec["name"])
                advance(note=f"in work: {', '.join(running) or 'none'}")

        results = map_on_cores(judge_spec, specs)
    named = zip(specs, results, strict=True)
    left_out = {spec["name"]: str(result) for spec, result in named if isinstance(result, NotApplicable)}
    return [result for result in results if isinstance(result, Judged)], left_out


def map_on_cores(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """work(item) of each item, one per core at a time. NumPy releases the interpreter lock, so threads suffice."""
    from threadpoolctl import threadpool_limits

    # BLAS' own threads would compete for the same cores and spin.
    with threadpool_limits(limits=1), ThreadPoolExecutor(len(os.sched_getaffinity(0))) as workers:
        return list(workers.map(work, items))


def judge_one(spec: dict[str, Any], opinions: Opinions, truth: Truth, halves: list[np.ndarray]) -> Judged:
    """One method on each half of each repeat; seconds are those of one fit and of one judged half."""
    began, shape = time.perf_counter(), (len(halves), len(opinions.ids))
    fits = [[fit(spec, opinions.questions(rows), truth.questions(rows)) for rows in (~half, half)] for half in halves]
    points = min((fitted.points for pair in fits for fitted in pair), key=len)
    right_PRN, cost_PRN = np.full((2, len(points), *shape), np.nan)
    right_RN, cost_RN, asked_RN = np.full((3, *shape), np.nan)
    size = shape[1]
    answers = [np.zeros(size, dtype=bool), np.full(size, -1), np.full(size, np.nan), np.full(size, -1)]
    for repeat, (half, pair) in enumerate(zip(halves, fits, strict=True)):
        for rows, fitted in zip((half, ~half), pair, strict=True):
            here, gold = opinions.questions(rows), truth.questions(rows)
            own = apply(fitted, here)
            asked_RN[repeat, rows] = own.asked_MN.sum(0)
            right_RN[repeat, rows], cost_RN[repeat, rows] = chosen = outcome(own, here, gold)
            for point in range(len(points)):
                # A fit with more points than another gives up some in between.
                taken = round(point * (len(fitted.points) - 1) / max(len(points) - 1, 1))
                other = chosen if taken == fitted.point else outcome(apply(fitted, here, taken), here, gold)
                right_PRN[point, repeat, rows], cost_PRN[point, repeat, rows] = other
            if repeat == 0:
                for whole, part in zip(answers, (own.abstained_N, *find_answers(own, here)), strict=True):
                    whole[rows] = part
    options = {key: value for key, value in spec.items() if key != "name"}
    costs = (None, None) if opinions.cost_MN is None else (cost_RN, cost_PRN)
    seconds = (time.perf_counter() - began) / (2 * len(halves))
    measured = (right_RN, costs[0], right_PRN, costs[1], asked_RN)
    return Judged(spec["name"], options, points, *measured, *answers, seconds)


def outcome(decision: Decision, here: Opinions, gold: Truth) -> tuple[np.ndarray, np.ndarray | float]:
    """right_N and cost_N; NaN for costs that were not recorded."""
    return rightness(decision, gold), np.nan if here.cost_MN is None else spent(decision, here)


def judge_online(
    opinions: Opinions, truth: Truth, *, method: Callable[..., dict[str, np.ndarray]] | None, repeats: int, seed: int
) -> dict[str, np.ndarray]:
    """name -> right_RN of the online protocol, in `repeats` random orders: predict, then see the label.

    method: an online protocol (`methods.online`) that takes part beside the baselines; it returns both. Questions
    without gold are left out.
    """
    known = np.flatnonzero(truth.gold_N > -2)
    columns: dict[str, np.ndarray] = {}
    with progress(repeats, "random orders") as advance:
        for repeat in range(repeats):
            rows = np.random.default_rng(seed + repeat).permutation(known[np.argsort(opinions.ids[known])])
            here, gold = opinions.questions(rows), truth.questions(rows)
            right = hedge.prequential(here, gold) if method is None else method(here, gold, seed=seed + repeat)
            for name, right_N in right.items():
                columns.setdefault(name, np.full((repeats, len(opinions.ids)), np.nan))[repeat, rows] = right_N
            advance()
    return columns


def find_answers(decision: Decision, here: Opinions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Candidate, probability and member of each answer, as `Judged` has them."""
    size = len(here.ids)
    if decision.member_N is not None:
        answer_N = here.answer_MN[decision.member_N, np.arange(size)].astype(int)
        return np.where(decision.abstained_N, -1, np.maximum(answer_N, -1)), np.full(size, np.nan), decision.member_N
    candidate_N = np.where(decision.abstained_N, -1, decision.probs_NK.argmax(1))
    confidence_N = np.where(candidate_N >= 0, decision.probs_NK.max(1), np.nan)
    return candidate_N, confidence_N, np.full(size, -1)


def splits(opinions: Opinions, truth: Truth, repeats: int, seed: int) -> list[np.ndarray]:
    """half_N of each repeat, true for a random half of each group's judgeable questions; by id, not by their order."""
    order = np.argsort(opinions.ids, kind="stable")
    _, group_N = np.unique(opinions.group_N.astype(str), return_inverse=True)
    dealt_N = 2 * group_N + ~truth.known_N
    halves = []
    for repeat in range(repeats):
        rng, half_N = np.random.default_rng(seed + repeat), np.zeros(len(order), dtype=bool)
        shuffled = order[rng.permutation(len(order))]
        # Dealt alternately within each group; a stable sort by group keeps the random order inside it.
        half_N[shuffled[np.argsort(dealt_N[shuffled], kind="stable")][rng.integers(2) :: 2]] = True
        halves.append(half_N)
    return halves


def common(judged: Sequence[Judged]) -> np.ndarray:
    """Which questions every method was judged on, in every repeat."""
    return np.all([np.isfinite(method.right_RN).all(0) for method in judged], axis=0)


def picked(judged: Sequence[Judged], halves: Sequence[np.ndarray], rows_N: np.ndarray) -> np.ndarray:
    """right_RN of an honest choice among the methods: on each half, the one that did best on the other half.

    The best of many methods looks better than it is, since part of its lead is luck; this row's lead is not.
    """
    right_JRN = np.array([method.right_RN for method in judged])
    best_RN = np.empty(right_JRN.shape[1:])
    for repeat, half in enumerate(halves):
        for rows, others in ((half, ~half), (~half, half)):
            best = right_JRN[:, repeat, others & rows_N].sum(1).argmax()
            best_RN[repeat, rows] = right_JRN[best, repeat, rows]
    return best_RN


def scores(columns_RN: Sequence[np.ndarray], rows_N: np.ndarray | None = None) -> list[Scores]:
    """Columns of (R, N) as the statistics want them: one `Scores` for each repeat, all of the same questions."""
    at = np.arange(columns_RN[0].shape[1]) if rows_N is None else np.flatnonzero(rows_N)
    return [Scores(at, np.array([row_N[at] for row_N in row_CN]).T) for row_CN in zip(*columns_RN, strict=True)]


def as_list(interval: Interval) -> list[float]:
    """[value, low, high]."""
    return [interval.value, interval.low, interval.high]
