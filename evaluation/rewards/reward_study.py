"""Reward models' preferences against those of people or a judge: the numbers of `w2s rewards run`.

A pair gives a point to a scorer that scores the preferred text higher, and half a point if the scores are equal, a text
was not judged, or the pair itself is a tie. All points are in one table (N pairs by M names), so that every difference
is paired. Intervals are over instructions (meta `group`), whose pairs share errors, and seeds.
"""

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from w2s.config.registry import pick
from w2s.evaluation.run.metrics import make_metric
from w2s.evaluation.statistics import Interval, Scores, contrast, wilson
from w2s.rewards import best_of_n
from w2s.rewards.aggregators import AGGREGATORS, disagreement, make_spec, standardise, unjudged
from w2s.store.records import Example, Metric, Rewards

SEPARATE, MEMBER, BEST, LENGTH, RANDOM, ORACLE = "separate", "member", "best_member", "length", "random", "oracle"
PAIRS = "pairs"  # the model of metrics that describe the pairs themselves
OTHERS = "other subsets"
SMALLEST = 30  # pairs of a subset with its own row
LENGTH_BINS = 3
HELD_OUT, POOL = "held_out", "pool"


class ScoredPairs(NamedTuple):
    """One set of pairs in one seed: name -> scores_N2 of every scorer, ensemble -> scores_MN2 of its members."""

    examples: Sequence[Example]
    gold_N: np.ndarray
    scores: dict[str, np.ndarray]
    members: dict[str, np.ndarray]

    @property
    def groups_N(self) -> np.ndarray:
        return np.array([str(row.meta["group"]) for row in self.examples])

    @property
    def points(self) -> dict[str, np.ndarray]:
        """name -> point_N in {0, 1/2, 1}; `member`: the mean over the separate members."""
        tie_N = np.array([bool(row.meta.get("tie")) for row in self.examples])
        found = {name: np.where(tie_N, 0.5, points(one, self.gold_N)) for name, one in self.scores.items()}
        return {MEMBER: np.mean([found[name] for name in member_names(self.members)], axis=0), **found}


Seeds = Mapping[int, ScoredPairs]


class Pool(NamedTuple):
    """The pool in one seed: preference_NK, the candidates' writers (models_NK) and every ensemble's scores."""

    ids: np.ndarray
    preference_NK: np.ndarray
    models_NK: np.ndarray
    length_NK: np.ndarray
    rewards: dict[str, Rewards]


def member_names(members: Mapping[str, np.ndarray]) -> list[str]:
    return [f"member {at + 1}" for at in range(len(members[SEPARATE]))]


def points(scores_N2: np.ndarray, gold_N: np.ndarray) -> np.ndarray:
    """1 where the preferred text has the higher score, 0 where the other has, else (equal or not judged) 1/2."""
    rows_N = np.arange(len(gold_N))
    ahead_N = scores_N2[rows_N, gold_N] - scores_N2[rows_N, 1 - gold_N]
    return (np.sign(np.nan_to_num(ahead_N)) + 1) / 2


def proxies(
    rewards: Mapping[str, Rewards], mask_NK: np.ndarray, length_NK: np.ndarray, *, by: str, aggregate: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(name -> scores_NK of every scorer, ensemble -> its members' standardised scores_MNK). Scorers: the separate
    members, ensembles as one (see `join`), and the length in characters."""
    members = {kind: np.where(mask_NK, one.scores_MNK, np.nan) for kind, one in rewards.items()}
    members, joint = join(members, mask_NK, by=by, aggregate=aggregate)
    single = dict(zip(member_names(members), members[SEPARATE], strict=True))
    return {**single, **joint, LENGTH: np.where(mask_NK, length_NK, np.nan)}, members


def join(
    members: Mapping[str, np.ndarray], mask_NK: np.ndarray, *, by: str, aggregate: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(ensemble -> its members' standardised scores_MNK, name -> aggregated scores_NK). Aggregated: every aggregator
    over the separate members (`aggregate` with its options), and the mean of other ensembles."""
    if by != "none":
        members = {kind: standardise(scores_MNK, mask_NK, by=by) for kind, scores_MNK in members.items()}
    methods = {name: pick(AGGREGATORS, make_spec(name, aggregate)) for name in AGGREGATORS}
    joint = {name: method(members[SEPARATE], mask_NK) for name, method in methods.items()}
    others = {kind: AGGREGATORS["mean"](one, mask_NK) for kind, one in members.items() if kind != SEPARATE}
    return dict(members), joint | others


def combined(names: Sequence[str]) -> list[str]:
    """The names that stand for an ensemble."""
    return [one for one in names if one not in (MEMBER, BEST, LENGTH, RANDOM, ORACLE) and not one.startswith("member ")]


def measure_pairs(suite: str, by_seed: Seeds, best: Mapping[int, str] | None) -> list[Metric]:
    """Every metric of one set over its seeds. `best`: by seed, the member that did best on other pairs."""
    tables = {seed: one.points for seed, one in by_seed.items()}
    if best is not None:
        tables = {seed: {BEST: table[best[seed]], **table} for seed, table in tables.items()}
    names = list(next(iter(tables.values())))
    columns = {name: {seed: table[name] for seed, table in tables.items()} for name in names}
    metric = functools.partial(measure_mean, suite, by_seed)
    found = [metric(name, "accuracy", column) for name, column in columns.items()]
    count = len({row.id for one in by_seed.values() for row in one.examples})
    found.append(Metric(suite, RANDOM, "accuracy", 0.5, *wilson(count / 2, count), count, tuple(by_seed)))
    against = [MEMBER, *([BEST] if best is not None else []), LENGTH]
    gaps = [(name, other) for name in [*combined(names), MEMBER] for other in against if name != other]
    gaps += [(name, "mean") for name in combined(names) if name != "mean"]
    for name, other in gaps:
        gap = {seed: table[name] - table[other] for seed, table in tables.items()}
        found.append(metric(name, f"accuracy_minus_{other}", gap, signed=True))
    for part, rows in parts_of(by_seed).items():
        found += [metric(name, f"accuracy@{part}", keep(column, rows)) for name, column in columns.items()]
        if not part.startswith("subset: "):
            found.append(metric(PAIRS, f"share@{part}", {s: row_N.astype(float) for s, row_N in rows.items()}))
    return [*found, *agreements(by_seed, metric), *counted(suite, by_seed)]


Values = Mapping[int, np.ndarray]  # seed -> a value of each pair (N)


def measure_mean(
    suite: str, by_seed: Seeds, model: str, name: str, values: Values, *, top: float = 1.0, signed: bool = False
) -> Metric:
    """The mean of values by pair (nan: left out), with its interval over instructions and seeds. top: the most a value
    can be; signed: and -top the least, else 0."""
    scores, ids = [], set()
    for seed, value_N in values.items():
        one, kept_N = by_seed[seed], ~np.isnan(value_N)
        if kept_N.any():
            scores.append(clustered(one.groups_N[kept_N], value_N[kept_N]))
            ids |= {one.examples[at].id for at in np.flatnonzero(kept_N)}
    if not scores:
        return make_metric(suite, model, name, Interval(None, None, None, 0, "no pair"), by_seed)
    if signed:  # two columns, so that the interval is cut where a difference ends
        scores = [Scores(one.ids, np.column_stack([one.values_NM[:, 0], np.zeros(len(one.ids))])) for one in scores]
    mean = contrast(scores, [1.0, -1.0] if signed else [1.0], top=top)
    return make_metric(suite, model, name, dataclasses.replace(mean, n=len(ids)), by_seed)


def keep(values: Values, masks: Values) -> Values:
    """nan where the mask is False."""
    return {seed: np.where(masks[seed], value_N, np.nan) for seed, value_N in values.items()}


def clustered(groups_N: np.ndarray, value_N: np.ndarray) -> Scores:
    """A row per instruction, so that their mean is the mean over pairs and their spread that of its estimate. The
    mean over pairs is a ratio (sum of values over count of pairs) of two sums over instructions; the rows are its
    linearisation (Cochran 1977, section 6.3): mean + (sum_g - mean · count_g) / mean count."""
    ids, which_N, count_G = np.unique(groups_N, return_inverse=True, return_counts=True)
    sum_G, mean = np.bincount(which_N, value_N), value_N.mean()
    return Scores(ids, (mean + (sum_G - mean * count_G) / count_G.mean())[:, None])


def parts_of(by_seed: Seeds) -> dict[str, dict[int, np.ndarray]]:
    """name of a part of the pairs -> seed -> mask_N: subsets, and differences in length by which text is preferred."""
    rows = {row.id: row for one in by_seed.values() for row in one.examples}
    subset = {key: str(row.meta.get("subset") or "") for key, row in rows.items()}
    counts = Counter(subset.values())
    large = sorted(name for name, count in counts.items() if count >= SMALLEST)
    place: dict[str, Callable[[Example, int], bool]] = {}
    if len(counts) > 1 and large:
        place |= {f"subset: {name}": lambda row, _, name=name: subset[row.id] == name for name in large}
        place[f"subset: {OTHERS}"] = lambda row, _: subset[row.id] not in large
    differences = [abs(row.meta["length_difference"]) for row in rows.values() if row.meta["length_difference"]]
    edges = [int(one) for one in np.quantile(differences, np.linspace(0, 1, LENGTH_BINS + 1))] if differences else [0]
    for (low, high), longer in itertools.product(itertools.pairwise(edges), (True, False)):
        last = high == edges[-1]
        words = f"length: {'longer' if longer else 'shorter'} by {low} to {high - (not last)}"
        place[words] = lambda row, gold, low=low, high=high, last=last, longer=longer: (
            low <= abs(row.meta["length_difference"]) < high + last
            and (row.meta["length_difference"] > 0) == ((gold == 0) == longer)
            and row.meta["length_difference"] != 0
            and not row.meta.get("tie")
        )
    pairs = {seed: list(zip(one.examples, one.gold_N.tolist(), strict=True)) for seed, one in by_seed.items()}
    parts = {
        name: {seed: np.array([inside(*pair) for pair in rows]) for seed, rows in pairs.items()}
        for name, inside in place.items()
    }
    return {name: masks for name, masks in parts.items() if any(mask_N.any() for mask_N in masks.values())}


def agreements(by_seed: Seeds, metric: Callable[..., Metric]) -> list[Metric]:
    """How often members agree on a pair's order, how often all prefer the longer text, accuracy where they differ."""
    found, first = [], next(iter(by_seed.values()))
    for kind in [kind for kind, members in first.members.items() if len(members) > 1]:
        orders = {seed: orders_of(one.members[kind]) for seed, one in by_seed.items()}
        found.append(metric(kind, "agreement", {seed: agree(order_MN) for seed, order_MN in orders.items()}))
        masks = {seed: np.abs(order_MN.sum(0)) == len(order_MN) for seed, order_MN in orders.items()}
        found.append(metric(kind, "unanimous", {seed: mask_N.astype(float) for seed, mask_N in masks.items()}))
        spread = {seed: disagreement_of(one.members[kind]) for seed, one in by_seed.items()}
        found.append(metric(kind, "disagreement", spread, top=max(one.max() for one in spread.values()) or 1.0))
        who = "mean" if kind == SEPARATE else kind
        right = {seed: one.points[who] for seed, one in by_seed.items()}
        found.append(metric(who, "accuracy@unanimous", keep(right, masks)))
        found.append(metric(who, "accuracy@divided", keep(right, {s: ~mask_N for s, mask_N in masks.items()})))
    gaps = {seed: np.diff(one.scores[LENGTH])[:, 0] for seed, one in by_seed.items()}
    for name in [MEMBER, *combined(list(first.scores))]:
        sides = {}
        for seed, one in by_seed.items():
            names = member_names(one.members) if name == MEMBER else [name]
            side_N = np.mean([points(one.scores[n], (gaps[seed] > 0).astype(int)) for n in names], axis=0)
            sides[seed] = np.where(gaps[seed] == 0, 0.5, side_N)
        found.append(metric(name, "prefers_longer", sides))
    return found


def orders_of(scores_MN2: np.ndarray) -> np.ndarray:
    """order_MN of each pair by each member: 1 where the second text is above, -1 below, 0 level or not judged."""
    return np.sign(np.nan_to_num(np.diff(scores_MN2)[..., 0]))


def agree(order_MN: np.ndarray) -> np.ndarray:
    """share_N of pairs of members that order a pair alike; 1/2 where one of them has no order."""
    return np.mean([(a_N * b_N + 1) / 2 for a_N, b_N in itertools.combinations(order_MN, 2)], axis=0)


def agreement_matrix(by_seed: Seeds, kind: str = SEPARATE) -> np.ndarray:
    """share_MM of the pairs that two members order alike, the mean over seeds; 1 on the diagonal."""
    orders = [orders_of(one.members[kind]) for one in by_seed.values()]
    share_MM = np.mean([((order_MN[:, None] * order_MN[None]).mean(2) + 1) / 2 for order_MN in orders], axis=0)
    np.fill_diagonal(share_MM, 1)
    return share_MM


def disagreement_of(scores_MN2: np.ndarray) -> np.ndarray:
    """By pair: the deviation between the members' (standardised) differences of the two scores; 0 where not judged."""
    gap_MN1 = np.diff(scores_MN2)
    return np.nan_to_num(disagreement(gap_MN1, np.ones(gap_MN1.shape[1:], bool))[:, 0])


def counted(suite: str, by_seed: Seeds) -> list[Metric]:
    """How many texts members could not judge (scores not finite), and how many pairs are ties, over all seeds."""
    sets, seeds, found = list(by_seed.values()), tuple(by_seed), []
    for kind in sets[0].members:
        scores = [one.members[kind] for one in sets]
        missing = sum(int(unjudged(one_MN2, np.ones(one_MN2.shape[1:], bool)).sum()) for one_MN2 in scores)
        texts = sum(one_MN2.size for one_MN2 in scores)
        found.append(Metric(suite, kind, "unjudged", float(missing), None, None, texts, seeds))
    ties = sum(bool(row.meta.get("tie")) for one in sets for row in one.examples)
    count = sum(len(one.examples) for one in sets)
    return [*found, Metric(suite, PAIRS, "ties", float(ties), None, None, count, seeds)]


def best_members(held_out: Seeds) -> dict[int, str]:
    """By seed, the separate member with the highest accuracy on the held-out pairs; of equals the first."""
    return {s: max(member_names(one.members), key=lambda name: one.points[name].mean()) for s, one in held_out.items()}


def measure_pool(pools: Mapping[int, Pool], probes: Sequence[str], best: Mapping[int, str], **how: Any) -> list[Metric]:
    """Best-of-n among the ordinary models' answers, and how often each probe is picked when it joins them.
    preference@n: the expected true preference of the pick. picked:PROBE@n: how likely the probe is picked when it is
    one of the n for sure. how: `by` and `aggregate`, as of `proxies`."""

    def everyone(seed: int, mask_NK: np.ndarray) -> dict[str, np.ndarray]:
        """Name -> scores_NK of everyone who chooses; candidates outside the mask are ignored."""
        scores, _ = proxies(pools[seed].rewards, mask_NK, pools[seed].length_NK, **how)
        return {**scores, BEST: scores[best[seed]], RANDOM: np.where(mask_NK, 0.0, np.nan)}

    ordinary = {seed: ~np.isnan(one.preference_NK) & ~np.isin(one.models_NK, probes) for seed, one in pools.items()}
    sizes = best_of_n.doublings(min(int(mask_NK.sum(1).min()) for mask_NK in ordinary.values()))
    by_seed: dict[int, dict[str, np.ndarray]] = {}
    for seed, mask_NK in ordinary.items():
        gold_NK = pools[seed].preference_NK
        choosers = everyone(seed, mask_NK) | {ORACLE: gold_NK}
        curves = {name: best_of_n.curve(one, gold_NK, mask_NK, sizes=sizes).gold_SN for name, one in choosers.items()}
        by_seed[seed] = curves | {MEMBER: mean_of_members(curves)}

    def tell(name: str, what: str, values: Sequence[np.ndarray], weight=(1.0,)) -> Metric:
        rows = [np.reshape(value, (len(weight), -1)).T for value in values]
        scores = [Scores(one.ids, row_NM) for one, row_NM in zip(pools.values(), rows, strict=True)]
        return make_metric(POOL, name, what, contrast(scores, list(weight)), pools)

    found = []
    for name, (at, n) in itertools.product(next(iter(by_seed.values())), enumerate(sizes)):
        found.append(tell(name, f"preference@{n}", [one[name][at] for one in by_seed.values()]))
        for other in (RANDOM, LENGTH, MEMBER):
            if other != name and n > 1:
                both = [np.array([one[name][at], one[other][at]]) for one in by_seed.values()]
                found.append(tell(name, f"preference@{n}_minus_{other}", both, (1.0, -1.0)))
    return found + [metric for probe in probes for metric in picked(probe, pools, ordinary, sizes, everyone)]


def mean_of_members(values: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.mean([value for name, value in values.items() if name.startswith("member ")], axis=0)


Masks = Mapping[int, np.ndarray]  # seed -> mask_NK of the pool's candidates


def picked(
    probe: str, pools: Mapping[int, Pool], ordinary: Masks, sizes: Sequence[int], everyone: Callable[..., dict]
) -> list[Metric]:
    """How often the probe is picked as one of n, of whom the others are ordinary; where it has no answer, no row."""
    shares: dict[str, dict[int, np.ndarray]] = {}
    ids, found = {}, []
    for seed, one in pools.items():
        is_probe_NK = (one.models_NK == probe) & ~np.isnan(one.preference_NK)
        rows_N, mask_NK = is_probe_NK.any(1), ordinary[seed] | is_probe_NK
        if not rows_N.any():
            continue
        ids[seed], share_of = one.ids[rows_N], {}
        for name, proxy_NK in everyone(seed, mask_NK).items():
            picks = [best_of_n.pick_probs_if_drawn(proxy_NK[rows_N], mask_NK[rows_N], n) for n in sizes]
            share_of[name] = np.array([pick_NK[is_probe_NK[rows_N]] for pick_NK in picks])
        for name, share_SN in (share_of | {MEMBER: mean_of_members(share_of)}).items():
            shares.setdefault(name, {})[seed] = share_SN
    for (name, by_seed), (at, n) in itertools.product(shares.items(), enumerate(sizes)):
        scores = [Scores(ids[seed], np.clip(share_SN[at], 0, 1)[:, None]) for seed, share_SN in by_seed.items()]
        share = contrast(scores, [1.0])
        if name == RANDOM:  # known, not estimated
            share = Interval(1 / n, None, None, share.n)
        found.append(make_metric(POOL, name, f"picked:{probe}@{n}", share, by_seed))
    return found
