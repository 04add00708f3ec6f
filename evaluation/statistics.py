"""Intervals that keep their coverage with few questions and few seeds. NumPy and SciPy only.

Input everywhere: one `Scores` per seed, whose columns are models, so that every difference is paired by question.

Which interval, and why:

- One rate, one seed: Wilson (1927).
- A difference of two columns of right and wrong, one seed: the score interval for paired rates (Tango 1998). Where few
  questions tell the two apart the bootstrap covers too little: 93.4% where 5 of 50 do, and this one 96.4%.
- Anything else of one seed, such as the mean of the tasks' shares of passes: two more rows, spread evenly over all
  corners of what the columns can be (Agresti & Min 2005; 0.5 in each cell of two columns), and a t interval around the
  mean of all rows. Few tasks of which most fail show too little spread, and miss on one side: a percentile bootstrap of
  shares of mean 0.1 covered 60, 77, 86, 90% with 3, 5, 10, 20 tasks; this one covers 94 to 100% from 3 tasks on, and
  from 100 on is hardly wider (tests/evaluation/test_coverage.py). It covers the questions, not the training run.
- Several seeds: each seed is a training run of its own, and mostly has questions of its own. The plain two-level
  bootstrap is wrong both ways there: with 5 seeds it sees 126 distinct resamples and misses seed variance by (S-1)/S
  and by z in place of t, and where it also resamples items inside a seed it counts their variance twice (Davison &
  Hinkley 1997, section 3.8). So: variance from the seeds' own differences, with a t quantile at S-1 degrees of freedom,
  plus the covariance of questions that several seeds share (two-way clusters, Cameron, Gelbach & Miller 2011), which
  has many degrees of freedom and gets z; the two are joined as in Graybill & Wang (1980):

      half-width^2 = t^2 * var_seed + z^2 * (var_question - var_both),

  and the interval never ends inside the one that the questions alone, each the mean of its seeds, would give.
  With no shared question this is the t interval on per-seed differences. The simulation in tests/evaluation covers
  94 to 99% for 2, 3 and 5 seeds, shared or own questions, with and without seed variance.
- A ratio (PGR): the set of r for which the interval of `top - r * bottom` includes 0 (Fieller 1954). It is bounded
  exactly where the interval of `bottom` excludes 0; otherwise there is no number, and the reason is given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

Z95 = 1.959963984540054


@dataclass(frozen=True)
class Scores:
    """M models' results on the N questions of one seed: values_NM in [0, 1] (or [0, top]), paired by row."""

    ids: np.ndarray
    values_NM: np.ndarray


@dataclass(frozen=True)
class Interval:
    """A value with its 95% interval over n different questions; `reason` says why a value is None."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    reason: str | None = None


def wilson(right: float, n: int) -> tuple[float, float]:
    """95% Wilson score interval of a rate: `right` of n, not necessarily whole (a tie shares its point)."""
    if n < 1:
        raise ValueError("an empty set has no rate")
    rate, z2 = right / n, Z95**2
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * np.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def tango(plus: int, minus: int, n: int) -> tuple[float, float]:
    """95% score interval of a paired difference of rates (Tango 1998): `plus` of n questions for it, `minus` against.
    The differences d for which plus - minus - n·d is at most 1.96 of its standard deviations, at the likeliest rates
    that differ by d."""
    if n < 1:
        raise ValueError("an empty set has no rate")

    def score(d: float) -> float:
        half, mixed = ((2 * n - plus + minus) * d - plus - minus) / 2, 2 * n * minus * d * (1 - d)
        against = (np.sqrt(max(half**2 + mixed, 0.0)) - half) / (2 * n)  # the likeliest rate of `minus`
        return (plus - minus - n * d) / np.sqrt(max(n * (2 * against + d * (1 - d)), 1e-300))

    def edge(bound: float, end: float) -> float:
        """Where the score, which falls as d grows, passes `bound` between the observed difference and `end`."""
        value, inside = (plus - minus) / n, end * (1 - 1e-9)
        if value == end or abs(score(inside)) <= abs(bound):
            return end
        return float(optimize.brentq(lambda d: score(d) - bound, *sorted((value, inside))))

    return edge(Z95, -1.0), edge(-Z95, 1.0)


def rate(scores: Sequence[Scores], column: int = 0) -> Interval:
    """The mean of one column: Wilson for one seed, over seeds as `contrast`."""
    if len(scores) > 1:
        return contrast([Scores(s.ids, s.values_NM[:, [column]]) for s in scores], [1.0])
    _check(scores)
    values_N = scores[0].values_NM[:, column]
    return Interval(float(values_N.mean()), *wilson(values_N.sum(), len(values_N)), len(values_N))


def contrast(scores: Sequence[Scores], weight_M: Sequence[float], *, top: float = 1.0) -> Interval:
    """sum_m weight_m * mean of model m, with its 95% interval; [1, -1] is a paired difference. Seeds count equally.
    `top` is the largest possible value; the interval is cut to possible values. If all rows are equal, the interval
    is what n unanimous questions leave open (1 - 0.025^(1/n), the "rule of three")."""
    weight_M = np.asarray(weight_M, dtype=float)
    n = _check(scores)
    value, low, high = _bounds(scores, top)(weight_M)
    if np.ptp(_by_question(scores) @ weight_M) < 1e-12:
        silence = top * (1 - 0.025 ** (1 / n))
        low, high = min(low, value - silence), max(high, value + silence)
    least, most = top * weight_M.clip(max=0).sum(), top * weight_M.clip(min=0).sum()
    return Interval(value, max(low, float(least)), min(high, float(most)), n)


UNCLEAR = "the divisor cannot be told from 0"


def ratio(
    scores: Sequence[Scores], top_M: Sequence[float], bottom_M: Sequence[float], *, unclear: str = UNCLEAR
) -> Interval:
    """(top contrast) / (bottom contrast), joint over all models: PGR is [student - floor] / [ceiling - floor]. None,
    with `unclear` and the figures as the reason, where the 95% interval of the bottom includes 0."""
    top_M, bottom_M = np.asarray(top_M, dtype=float), np.asarray(bottom_M, dtype=float)
    n = _check(scores)
    bounds = _bounds(scores, 1.0)
    bottom, low, high = bounds(bottom_M)
    if low <= 0 <= high:
        figures = f"difference {100 * bottom:.1f} points, 95% CI {100 * low:.1f} to {100 * high:.1f}"
        return Interval(None, None, None, n, f"{unclear}: {figures}")
    if bottom < 0:  # the same ratio, with a divisor above 0: then `top - r * bottom` falls as r grows
        top_M, bottom_M, bottom = -top_M, -bottom_M, -bottom
    value = bounds(top_M)[0] / bottom

    def edge(side: int) -> float:
        """Where the interval of top - r * bottom begins (side 2, r too low) or ceases (side 1) to hold 0."""

        def gap(r: float) -> float:
            return bounds(top_M - r * bottom_M)[side]

        if abs(gap(value)) < 1e-12:
            return value
        step = 1.0
        while gap(value + (step if side == 2 else -step)) * gap(value) > 0:
            step *= 2
            if step > 1e9:
                return np.inf if side == 2 else -np.inf
        return float(optimize.brentq(gap, *sorted((value, value + (step if side == 2 else -step))), xtol=1e-9))

    return Interval(float(value), edge(1), edge(2), n)


def smallest_difference(scores: Sequence[Scores], weight_M: Sequence[float]) -> float | None:
    """The least true difference that this set would show with 80% power at the two-sided 5% level. From the spread that
    was observed: for one seed of right or wrong answers sqrt((discordant share - d^2) / n) times 1.96 + 0.84; over
    seeds t quantiles take the place of z for the seeds' part. None where nothing differs."""
    weight_M = np.asarray(weight_M, dtype=float)
    _check(scores)
    seed_MM, item_MM, shared_MM = _variances(scores)
    item, shared = (weight_M @ part @ weight_M for part in (item_MM, shared_MM))
    z = Z95 + special.ndtri(0.8)
    squared = z**2 * item
    if len(scores) > 1:
        df = len(scores) - 1
        t = special.stdtrit(df, 0.975) + special.stdtrit(df, 0.8)
        squared = max(squared, t**2 * (weight_M @ seed_MM @ weight_M) + z**2 * max(shared, 0.0))
    return float(np.sqrt(squared)) if squared > 1e-24 else None


def pass_at_k(samples_N: np.ndarray, passed_N: np.ndarray, k: int) -> np.ndarray:
    """Unbiased pass@k of each task, 1 - C(n-c, k) / C(n, k) (Chen et al. 2021, equation 1), by its stable product. A
    task is one row of `Scores`, so that an interval over tasks takes the samples of a task as one cluster."""
    samples_N, passed_N = np.asarray(samples_N), np.asarray(passed_N)
    if not len(samples_N):
        raise ValueError("an empty set has no pass@k")
    if k < 1 or (samples_N < k).any():
        raise ValueError(f"pass@{k} needs at least {k} samples of each task; the least is {samples_N.min()}")
    if (passed_N < 0).any() or (passed_N > samples_N).any():
        raise ValueError("more samples passed than there are")
    i_k = np.arange(k)
    failing_Nk = (samples_N - passed_N)[:, None] - i_k
    return 1 - np.prod(np.clip(failing_Nk, 0, None) / (samples_N[:, None] - i_k), axis=1)


def _check(scores: Sequence[Scores]) -> int:
    """The number of distinct questions; ValueError for an empty set or a question twice in one seed."""
    if not scores or any(not len(one.ids) for one in scores):
        raise ValueError("an empty set has no accuracy")
    different = {id(one.ids): one.ids for one in scores}.values()
    repeated = any(not (ids[1:] > ids[:-1]).all() and len(np.unique(ids)) < len(ids) for ids in different)
    if repeated or any(len(one.ids) != len(one.values_NM) for one in scores):
        raise ValueError("each question must have one row")
    return _places(scores)[0]


def _places(scores: Sequence[Scores]) -> tuple[int, np.ndarray]:
    """How many different questions there are, and which_J: the place of each seed's rows, in turn, among them."""
    ids = scores[0].ids
    if all(one.ids is ids for one in scores):  # where it is one array nothing need be sorted: a second per million
        return len(ids), np.tile(np.arange(len(ids)), len(scores))
    ids_U, which_J = np.unique(np.concatenate([one.ids for one in scores]), return_inverse=True)
    return len(ids_U), which_J


def _bounds(scores: Sequence[Scores], top: float) -> Callable[[np.ndarray], tuple[float, float, float]]:
    """weight_M -> (value, low, high), prepared once so that many contrasts share the same variances."""
    mean_M = np.mean([one.values_NM.mean(0) for one in scores], axis=0)
    rows_UM, parts = _by_question(scores), _variances(scores) if len(scores) > 1 else None
    n = len(rows_UM)

    def bounds(weight_M):
        value, used = float(mean_M @ weight_M), np.flatnonzero(weight_M)
        values_U, centre = rows_UM @ weight_M, top * weight_M.sum() / 2
        two = parts is None and len(used) == 2 and weight_M[used].sum() == 0 and np.isin(rows_UM[:, used], (0, 1)).all()
        if two and values_U.any():
            scale = abs(weight_M[used[0]])
            return value, *(scale * edge for edge in tango((values_U > 0).sum(), (values_U < 0).sum(), n))
        middle = (values_U.sum() + 2 * centre) / (n + 2)
        squares = ((values_U - middle) ** 2).sum() + 2 * (centre - middle) ** 2 + top**2 * (weight_M**2).sum() / 2
        half = special.stdtrit(n + 1, 0.975) * np.sqrt(squares) / (n + 2)
        low, high = middle - half, middle + half
        if parts is not None:
            between, _, shared = (weight_M @ part @ weight_M for part in parts)
            t = special.stdtrit(len(scores) - 1, 0.975)
            half = np.sqrt(t**2 * max(between, 0.0) + Z95**2 * max(shared, 0.0))
            low, high = min(low, value - half), max(high, value + half)
        return value, float(low), float(high)

    return bounds


def _by_question(scores: Sequence[Scores]) -> np.ndarray:
    """rows_UM: each different question's part in the mean over seeds, so that the mean of the rows is that mean."""
    size, which_J = _places(scores)
    parts = [one.values_NM * (size / (len(one.ids) * len(scores))) for one in scores]
    return _sums(size, which_J, np.concatenate(parts))


def _sums(size: int, which_J: np.ndarray, values_JM: np.ndarray) -> np.ndarray:
    """The values of each place, summed: (size, M)."""
    return np.array([np.bincount(which_J, values_J, size) for values_J in values_JM.T]).T


def _variances(scores: Sequence[Scores]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Covariances (M, M) of the mean over seeds: by seed, by question, and by questions that several seeds share. The
    last is var_question - var_both: 0 where no question occurs in two seeds."""
    mean_SM = np.array([one.values_NM.mean(0) for one in scores])
    residuals = [(s.values_NM - mean_M) / (len(s.ids) * len(scores)) for s, mean_M in zip(scores, mean_SM, strict=True)]
    residual_JM = np.concatenate(residuals)
    size, which_J = _places(scores)
    by_item_UM = _sums(size, which_J, residual_JM)
    item_MM = by_item_UM.T @ by_item_UM
    centred_SM = mean_SM - mean_SM.mean(0)
    seed_MM = centred_SM.T @ centred_SM / (len(scores) * max(len(scores) - 1, 1))
    return seed_MM, item_MM, item_MM - residual_JM.T @ residual_JM
