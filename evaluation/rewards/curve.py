"""Over-optimisation in numbers: gold and proxy of reward models' choices, against best-of-n and against RL steps.

A *way* is how rewards become one proxy: `member` (one reward model; every member alone, then their mean), each
aggregator over the members, `heads` (the mean of the heads of one body) and `warm` (the mean of weights).

Letters: N questions, S samples of each, M reward models, L sizes (n = 1, 2, 4, ...), D distinct texts of a question.
"""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from w2s.evaluation.rewards.reward_study import MEMBER, SEPARATE, join
from w2s.evaluation.run.metrics import make_metric
from w2s.evaluation.statistics import Interval, Scores, contrast
from w2s.rewards import best_of_n
from w2s.store.records import Metric

SUITE, RL = "best_of_n", "rl"
PARTS = 10
"""Number of parts that summarise an RL run, since a single step has few texts."""


@dataclass(frozen=True)
class Samples:
    """One seed's samples: gold_NS (0 or 1) and each kind of ensemble's scores_MNS (nan: an empty text). kinds has
    `separate` and, where they were trained, `heads` and `warm`."""

    ids: np.ndarray
    gold_NS: np.ndarray
    kinds: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Chosen:
    """What one way chooses for each question and size: gold_NL and proxy_NL in expectation, and how well it ranks.
    ranked_N: how often a right sample is above a wrong one, ties as half; nan if a question has only one kind."""

    gold_NL: np.ndarray
    proxy_NL: np.ndarray
    ranked_N: np.ndarray


def ways_of(samples: Samples, by: str, aggregate: Mapping[str, Any] | None = None) -> dict[str, list[np.ndarray]]:
    """way -> its proxies (N, S): one for each reward model of `member`, else one. by: rewards.standardise; aggregate:
    rewards.aggregate, whose options that aggregator has here too."""
    mask_NS = np.ones(samples.gold_NS.shape, dtype=bool)
    kinds = dict(sorted(samples.kinds.items()))
    members, joint = join(kinds, mask_NS, by=by, aggregate=aggregate or {"name": "mean"})
    return {MEMBER: list(members[SEPARATE])} | {way: [proxy_NS] for way, proxy_NS in joint.items()}


def chosen(samples: Samples, proxies: Sequence[np.ndarray], sizes: Sequence[int]) -> Chosen:
    """What each of the proxies chooses, averaged over them."""
    each = [one_chooses(samples.gold_NS, proxy_NS, sizes) for proxy_NS in proxies]
    return Chosen(*(np.mean(values, axis=0) for values in zip(*each, strict=True)))


def one_chooses(gold_NS: np.ndarray, proxy_NS: np.ndarray, sizes: Sequence[int]) -> tuple[np.ndarray, ...]:
    """(gold_NL, proxy_NL, ranked_N) of one proxy. The proxy's own score is the mean over picks with a score: a draw of
    only empty texts has none."""
    mask_NS, known_NS = np.ones(gold_NS.shape, dtype=bool), np.isfinite(proxy_NS)
    gold_LN, proxy_LN = [], []
    for n in sizes:
        picks_NS = best_of_n.pick_probs(proxy_NS, mask_NS, n)
        gold_LN.append(best_of_n.expected(gold_NS, picks_NS))
        scored_N = (picks_NS * known_NS).sum(1)
        total_N = (picks_NS * np.where(known_NS, proxy_NS, 0)).sum(1)
        proxy_LN.append(total_N / np.where(scored_N > 0, scored_N, np.nan))
    return np.array(gold_LN).T, np.array(proxy_LN).T, ranked(gold_NS, proxy_NS)


def ranked(gold_NS: np.ndarray, proxy_NS: np.ndarray) -> np.ndarray:
    """share_N of a question's (right, wrong) samples that the proxy puts in that order, ties as half; nan without. A
    sample without score is below all that have one."""
    known_NS = np.where(np.isfinite(proxy_NS), proxy_NS, -np.inf)
    found_N = np.full(len(gold_NS), np.nan)
    for row, (gold_S, proxy_S) in enumerate(zip(gold_NS, known_NS, strict=True)):
        right_R, wrong_W = proxy_S[gold_S == 1], np.sort(proxy_S[gold_S == 0])
        if len(right_R) and len(wrong_W):
            below_R, upto_R = (np.searchsorted(wrong_W, right_R, side=side) for side in ("left", "right"))
            found_N[row] = (below_R + upto_R).mean() / (2 * len(wrong_W))
    return found_N


def measure_best_of_n(
    seeds: Mapping[int, Samples], *, by: str, sizes: Sequence[int], aggregate: Mapping[str, Any] | None = None
) -> list[Metric]:
    """Every number of the curve against best-of-n, as metrics of the suite `best_of_n`, model = way.

    gold@n, proxy@n (in the unit of `by`), peak (n with the most gold), turn_down (gold at the peak - gold at the last
    n), turn_down_minus_member, gain (gold at the peak - gold at n = 1), last_minus_member, and ranked (see `ranked`).

    The peak of a difference is chosen on other questions and, with several seeds, by other seeds' reward models (see
    `crossed_peaks`): chosen on the same ones, it would never be below the last n.
    """
    by_way: dict[str, list[Chosen]] = {}
    for one in seeds.values():
        for way, ways_proxies in ways_of(one, by, aggregate).items():
            by_way.setdefault(way, []).append(chosen(one, ways_proxies, sizes))
    ids = [one.ids for one in seeds.values()]
    count, found = len(np.unique(np.concatenate(ids))), []

    def tell(way: str, name: str, value: Interval) -> None:
        found.append(make_metric(SUITE, way, name, value, seeds))

    ends = {way: first_peak_last(ids, [one.gold_NL for one in each]) for way, each in by_way.items()}
    for way, each in by_way.items():
        for at, n in enumerate(sizes):
            tell(way, f"gold@{n}", compare(ids, [1], [one.gold_NL[:, at] for one in each]))
            tell(way, f"proxy@{n}", mean_of_any(ids, [one.proxy_NL[:, at] for one in each]))
        tell(way, "ranked", mean_of_any(ids, [one.ranked_N for one in each]))
        mean_L = np.mean([one.gold_NL.mean(0) for one in each], axis=0)
        tell(way, "peak", Interval(float(sizes[int(mean_L.round(12).argmax())]), None, None, count))
        first, peak, last = ends[way]
        tell(way, "turn_down", compare(ids, [1, -1], peak, last))
        tell(way, "gain", compare(ids, [1, -1], peak, first))
        if way != MEMBER:
            _, member_peak, member_last = ends[MEMBER]
            gap = compare(ids, [1, -1, -1, 1], peak, last, member_peak, member_last)
            tell(way, "turn_down_minus_member", gap)
            tell(way, "last_minus_member", compare(ids, [1, -1], last, member_last))
    return found


BySeed = list[np.ndarray]  # for each seed, a value for each of its questions (N)


def compare(ids: BySeed, weights: Sequence[float], *columns: BySeed) -> Interval:
    """The contrast of some quantities, paired by question."""
    seeds = zip(ids, zip(*columns, strict=True), strict=True)
    return contrast([Scores(ids_N, np.stack(values, axis=1)) for ids_N, values in seeds], weights)


def first_peak_last(ids: BySeed, golds: Sequence[np.ndarray]) -> tuple[BySeed, BySeed, BySeed]:
    """The gold at n = 1, at the peak (see `crossed_peaks`) and at the last n, from each seed's gold_NL."""
    peaks = crossed_peaks(list(zip(ids, golds, strict=True)))
    at_peak = [gold_NL[np.arange(len(gold_NL)), peak_N] for gold_NL, peak_N in zip(golds, peaks, strict=True)]
    return [gold_NL[:, 0] for gold_NL in golds], at_peak, [gold_NL[:, -1] for gold_NL in golds]


def crossed_peaks(seeds: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """For each seed's questions, the position of the peak on the other half of the other seeds' questions. A seed's
    reward models are the same for both halves and would bias the choice; a single seed has only its own. A question is
    in the same half in every seed; seeds count equally. If a half is empty, the other one chooses."""
    odd = [np.array([hashlib.sha256(key.encode()).digest()[0] % 2 == 1 for key in ids.tolist()]) for ids, _ in seeds]
    found = []
    for at, odd_N in enumerate(odd):
        others = [one for one in range(len(seeds)) if one != at] or [at]
        best = {half: best_place([seeds[one][1][odd[one] == half] for one in others]) for half in (False, True)}
        found.append(np.array([best[not one] if best[not one] is not None else best[one] for one in odd_N]))
    return found


def best_place(golds: Sequence[np.ndarray]) -> int | None:
    """The position of the size with the most gold, seeds (gold_NL) weighted equally; None without questions."""
    means = [gold_NL.mean(0) for gold_NL in golds if len(gold_NL)]
    return int(np.mean(means, axis=0).round(12).argmax()) if means else None


def mean_of_any(ids: BySeed, values: BySeed) -> Interval:
    """The mean of any numbers (N) with its interval; nan are left out. Shifted to begin at 0, as `contrast` needs."""
    seeds = zip(ids, values, strict=True)
    known = [(ids_N[np.isfinite(value_N)], value_N[np.isfinite(value_N)]) for ids_N, value_N in seeds]
    if any(not len(ids_N) for ids_N, _ in known):
        return Interval(None, None, None, 0, "nothing to measure it on")
    low = min(value_N.min() for _, value_N in known)
    top = max(value_N.max() for _, value_N in known) - low
    if top < 1e-9:
        return Interval(float(low), float(low), float(low), sum(len(ids_N) for ids_N, _ in known))
    found = contrast([Scores(ids_N, value_N[:, None] - low) for ids_N, value_N in known], [1], top=top)
    return Interval(found.value + low, found.low + low, found.high + low, found.n)


@dataclass(frozen=True)
class Rollouts:
    """The texts of one seed's policy during RL, a row each, and its KL by step. gold_T: 0 or 1 (nan: not judged);
    reward_T: what it learned from; kl_S: nats per text, before each step."""

    step_T: np.ndarray
    gold_T: np.ndarray
    reward_T: np.ndarray
    kl_S: np.ndarray


def parts_of(one: Rollouts, parts: int) -> np.ndarray:
    """value_3P: mean gold, reward and KL of each of `parts` equal shares of the steps, in order."""
    part_S = np.arange(len(one.kl_S)) * parts // len(one.kl_S)
    part_T = part_S[one.step_T]
    gold_T, known_T = np.nan_to_num(one.gold_T), np.isfinite(one.gold_T)
    gold_P = np.bincount(part_T, gold_T, parts) / np.bincount(part_T, known_T, parts)
    reward_P = np.bincount(part_T, one.reward_T, parts) / np.bincount(part_T, minlength=parts)
    kl_P = np.bincount(part_S, one.kl_S, parts) / np.bincount(part_S, minlength=parts)
    return np.array([gold_P, reward_P, kl_P])


def measure_rl(ways: Mapping[str, Mapping[int, Rollouts]], parts: int = PARTS) -> list[Metric]:
    """Every number of the curve against RL steps, as metrics of the suite `rl`, model = way.

    gold@, reward@ and kl@STEP (the last step of a part), peak (a step), turn_down (gold at the peak - gold in the last
    part), turn_down_minus_member and last_minus_member.

    A seed is one training run: intervals are t over seeds, and one seed has none. The peak of a seed's turn_down is
    chosen on the other seeds.
    """
    steps = min(len(one.kl_S) for seeds in ways.values() for one in seeds.values())
    parts = min(parts, steps)
    ends = [-(-(at + 1) * steps // parts) for at in range(parts)]
    parts_by_way = {way: {seed: parts_of(one, parts) for seed, one in seeds.items()} for way, seeds in ways.items()}
    found, drops = [], {}
    for way, seeds in parts_by_way.items():
        value_S3P = np.array(list(seeds.values()))
        for (at, end), (which, name) in itertools.product(enumerate(ends), enumerate(("gold", "reward", "kl"))):
            found.append(over_runs(way, f"{name}@{end}", dict(zip(seeds, value_S3P[:, which, at], strict=True))))
        gold_SP = value_S3P[:, 0]
        texts = sum(len(one.step_T) for one in ways[way].values())
        found.append(Metric(RL, way, "peak", ends[int(gold_SP.mean(0).argmax())], None, None, texts, tuple(seeds)))
        others = [np.delete(gold_SP, at, axis=0) if len(gold_SP) > 1 else gold_SP for at in range(len(gold_SP))]
        drop = [gold_P[one.mean(0).argmax()] - gold_P[-1] for gold_P, one in zip(gold_SP, others, strict=True)]
        values = {"turn_down": drop, "last": gold_SP[:, -1]}
        drops[way] = {name: dict(zip(seeds, value_S, strict=True)) for name, value_S in values.items()}
        found.append(over_runs(way, "turn_down", drops[way]["turn_down"]))
    member = drops.pop(MEMBER, {})
    for way, name in itertools.product(drops, member):
        gap = {s: value - member[name][s] for s, value in drops[way][name].items() if s in member[name]}
        found.append(over_runs(way, f"{name}_minus_member", gap))
    return found


def over_runs(way: str, name: str, value: Mapping[int, float]) -> Metric:
    """The mean over training runs with its t interval; no interval for one run, no value if any run has nan."""
    value_S, n = np.array(list(value.values())), len(value)
    mean = float(value_S.mean())
    if np.isnan(mean):
        interval = Interval(None, None, None, 0, "not known in every training run")
    elif n < 2:
        interval = Interval(mean, None, None, 1, "one training run has no interval")
    else:
        half = float(stdtrit(n - 1, 0.975) * value_S.std(ddof=1) / np.sqrt(n))
        interval = Interval(mean, mean - half, mean + half, n)
    return make_metric(RL, way, name, interval, value)
