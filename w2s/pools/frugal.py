"""FrugalGPT: a cascade whose members' answers are accepted by a learned scorer (Chen et al. 2023, arXiv 2305.05176).

Members are asked cheapest first. The scorer gives the probability that an answer is right; the first answer whose
score reaches its stage's threshold is taken, the last without a threshold.
"""

from itertools import combinations

import numpy as np

from w2s.ensemble.ballots import NotApplicable
from w2s.pools.cascades import first_accepted, mean_known
from w2s.pools.records import NOT_ASKED, Decision, Fitted, Opinions, Truth
from w2s.pools.scorers import after, answered, evidence, fit_evidence, fit_scorers, fold_of, probability
from w2s.store.records import BadInput


def frugal(
    opinions: Opinions,
    truth: Truth,
    *,
    budget: float | None = None,
    points: int = 12,
    length: int = 3,
    pool: int = 8,
    thresholds: int = 16,
    dimensions: int = 4,
    folds: int = 5,
    l2: float = 1.0,
    costs: dict[str, float] | None = None,
    seed: int = 0,
) -> Fitted:
    """FrugalGPT cascade: a learned scorer of (question, answer), at most three members, thresholds by budget.

    Chen et al. 2023, arXiv 2305.05176. There is a point for each budget (US dollars per question, mean of the fit
    questions) of a geometric grid of `points`: the most accurate list and thresholds within it. The default point
    spends at most `budget`, by default the mean cost of the most accurate member. At most `pool` members are tried
    (those that the fewest others beat in both cost and accuracy), in lists of at most `length` (1 to 3), each threshold
    one of `thresholds` quantiles. The scorer is a logistic regression with penalty `l2` on `dimensions` features of the
    prompt, the group, the member's confidence, its answer and whether it agrees with the one asked before; its scores
    in the search are out of fold (`folds`). Few dimensions, because the features are distributed differently on the
    prompts they were learned from than on new ones, which shifts the share passed on. `costs` (member: dollars per
    question) replaces the recorded costs.
    """
    limits = {"points": (points, 1, 1000), "length": (length, 1, 3), "pool": (pool, 1, 64), "folds": (folds, 2, 100)}
    limits |= {"thresholds": (thresholds, 1, 1000), "dimensions": (dimensions, 1, 10_000), "l2": (l2, 1e-6, 1e9)}
    for name, (value, least, most) in (limits | {"budget": (budget or 0, 0, 1e9)}).items():
        if not least <= value <= most:
            raise BadInput(f"{name}: {value!r} given; allowed: {least:g} to {most:g}")
    known_N = truth.known_N
    if known_N.sum() < folds:
        raise NotApplicable(f"fewer than {folds} questions can be judged")
    opinions, cost_MN, right_MN = candidates(opinions.questions(known_N), truth.questions(known_N), costs, pool)
    arrays = fit_evidence(opinions, dimensions, seed)
    coef_MF, coef_MMF, score_MMN = fit_scorers(opinions, right_MN, arrays, fold_of(opinions.ids, folds, seed), l2)
    grid = search(score_MMN, answered(opinions), right_MN, cost_MN, length, thresholds)
    chosen, budget_P, point = choose(grid, budget, points)
    list_P3 = grid["list_C3"][chosen]
    used = np.unique(list_P3[list_P3 >= 0])
    if "knots_MQ" in arrays:
        arrays["knots_MQ"] = arrays["knots_MQ"][used]
    arrays |= {"coef_MF": coef_MF[used], "coef_MMF": coef_MMF[np.ix_(used, used)]}
    arrays |= {"list_P3": np.where(list_P3 < 0, -1, np.searchsorted(used, list_P3)), "budget_P": budget_P}
    arrays |= {"threshold_P2": grid["threshold_C2"][chosen]}
    arrays |= {"quality_P": grid["quality_C"][chosen], "cost_P": grid["cost_C"][chosen]}
    points_P = tuple(f"at most {spend:.3g}" for spend in budget_P)
    return Fitted("frugal", opinions.members[used], arrays, {}, points_P, point)


def apply_frugal(fitted: Fitted, opinions: Opinions, point: int) -> Decision:
    """Whose answer is taken, and who was asked: all of the point's list up to that member."""
    arrays = fitted.arrays
    listed = arrays["list_P3"][point]
    listed = listed[listed >= 0]
    shown = opinions.only(fitted.members[listed])
    if "knots_MQ" in arrays:
        arrays = arrays | {"knots_MQ": arrays["knots_MQ"][listed]}
    logit_MN = np.einsum("mnf,mf->mn", evidence(shown, arrays), arrays["coef_MF"][listed])
    accepted_MN = np.zeros(logit_MN.shape, bool)
    for stage, at in enumerate(listed[:-1].tolist()):
        if stage:
            logit_N = after(shown, logit_MN, stage - 1, stage) @ arrays["coef_MMF"][listed[stage - 1], at]
        else:
            logit_N = logit_MN[0]
        accepted_MN[stage] = probability(logit_N) >= arrays["threshold_P2"][point, stage]
    decision = first_accepted(accepted_MN, shown.answer_MN)
    asked_MN = np.zeros(opinions.answer_MN.shape, bool)
    asked_MN[listed] = decision.asked_MN
    return Decision(decision.abstained_N, member_N=listed[decision.member_N], asked_MN=asked_MN)


def candidates(
    opinions: Opinions, truth: Truth, costs: dict[str, float] | None, pool: int
) -> tuple[Opinions, np.ndarray, np.ndarray]:
    """The `pool` members to try, cheapest first, the costs of their answers, cost_MN, and right_MN."""
    if costs is None:
        if opinions.cost_MN is None:
            raise NotApplicable("no costs were recorded: give one price per member (`costs`)")
        priced_M = np.isfinite(opinions.cost_MN).any(1)
        mean_M = mean_known(opinions.cost_MN)
        cost_MN = np.where(np.isfinite(opinions.cost_MN), opinions.cost_MN, mean_M[:, None])
    else:
        for name, price in costs.items():
            if name not in opinions.members:
                raise BadInput(f"costs: {name!r} given; there are: {', '.join(opinions.members[:9].tolist())}")
            if isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price < np.inf:
                raise BadInput(f"costs: {name}: {price!r} given; allowed: dollars per question, 0 or more")
        priced_M = np.isin(opinions.members, list(costs))
        mean_M = np.array([float(costs.get(name, 0)) for name in opinions.members.tolist()])
        cost_MN = np.repeat(mean_M[:, None], len(opinions.ids), axis=1)
    right_M = mean_known(truth.right_MN)
    able = np.flatnonzero(priced_M & np.isfinite(truth.right_MN).any(1))
    if not len(able):
        raise NotApplicable("no member has both a cost and answers that can be judged")
    cheaper_MM = (mean_M[able] <= mean_M[able, None]) & (right_M[able] >= right_M[able, None])
    beaten_M = cheaper_MM.sum(1) - 1
    rank = sorted(range(len(able)), key=lambda at: (beaten_M[at], -right_M[able[at]], opinions.members[able[at]]))
    kept = sorted(able[rank[:pool]], key=lambda at: (mean_M[at], right_M[at], opinions.members[at]))
    cost_MN = np.where(opinions.answer_MN == NOT_ASKED, 0, cost_MN)[kept].astype(np.float64)
    return opinions.only(opinions.members[kept]), cost_MN, truth.right_MN[kept].astype(np.float64)


def search(
    score_MMN: np.ndarray,
    answered_MN: np.ndarray,
    right_MN: np.ndarray,
    cost_MN: np.ndarray,
    length: int,
    quantiles: int,
) -> dict[str, np.ndarray]:
    """Every list of at most `length` members (cheapest first) with every pair of thresholds, judged on all questions.

    list_C3 (-1: no further member), threshold_C2 (probabilities), quality_C (share right), cost_C (mean dollars).
    score_MMN as from `fit_scorers`; a threshold is one of `quantiles` quantiles of the scores of its stage.
    """
    right_MN = np.nan_to_num(right_MN)
    size, rows = right_MN.shape
    share_Q = np.arange(1, quantiles + 1) / (quantiles + 1)

    def stage(before: int, at: int) -> tuple[np.ndarray, np.ndarray]:
        """The thresholds, and how many of them each score reaches: it is accepted at q if that is above q."""
        score_N = score_MMN[before, at]
        threshold_Q = np.quantile(score_N[answered_MN[at]], share_Q) if answered_MN[at].any() else share_Q
        return threshold_Q, np.searchsorted(threshold_Q, score_N, side="right")

    def note(listed: tuple[int, ...], threshold_C2, quality_C, cost_C) -> None:
        parts.append((np.tile([*listed, -1, -1][:3], (len(quality_C), 1)), threshold_C2, quality_C, cost_C))

    parts = []
    for a in range(size):
        note((a,), np.full((1, 2), np.nan), right_MN[a].sum(keepdims=True), cost_MN[a].sum(keepdims=True))
    for a, b in combinations(range(size), 2) if length > 1 else ():
        (first_Q, first_N), (second_Q, second_N) = stage(a, a), stage(a, b)
        last_N = np.where(answered_MN[b], right_MN[b], right_MN[a])
        taken_Q = right_MN[a].sum() - below(first_N, right_MN[a], quantiles)
        cost_Q = cost_MN[a].sum() + below(first_N, cost_MN[b], quantiles)
        note((a, b), np.c_[first_Q, np.full(quantiles, np.nan)], taken_Q + below(first_N, last_N, quantiles), cost_Q)
        second_QQ = below2(first_N, second_N, right_MN[b], quantiles)
        taken_QQ = (taken_Q + below(first_N, right_MN[b], quantiles))[:, None] - second_QQ
        grid_C2 = np.stack(np.meshgrid(first_Q, second_Q, indexing="ij"), axis=2).reshape(-1, 2)
        for c in range(b + 1, size) if length > 2 else ():
            final_N = np.where(answered_MN[c], right_MN[c], last_N)
            quality_QQ = taken_QQ + below2(first_N, second_N, final_N, quantiles)
            cost_QQ = cost_Q[:, None] + below2(first_N, second_N, cost_MN[c], quantiles)
            note((a, b, c), grid_C2, quality_QQ.ravel(), cost_QQ.ravel())
    list_C3, threshold_C2, quality_C, cost_C = (np.concatenate(part) for part in zip(*parts, strict=True))
    # Sums in another order of the questions differ by rounding, which must not break ties.
    dear = max(cost_C.max(), 1e-300)
    quality_C, cost_C = np.round(quality_C / rows, 9), np.round(cost_C / dear, 9) * (dear / rows)
    return {"list_C3": list_C3, "threshold_C2": threshold_C2, "quality_C": quality_C, "cost_C": cost_C}


def below(bin_N: np.ndarray, value_N: np.ndarray, quantiles: int) -> np.ndarray:
    """sum_Q of the values of the questions that are not accepted at each threshold."""
    return np.cumsum(np.bincount(bin_N, value_N, quantiles + 1))[:quantiles]


def below2(first_N: np.ndarray, second_N: np.ndarray, value_N: np.ndarray, quantiles: int) -> np.ndarray:
    """sum_QQ of the values of the questions that neither stage accepts, at each pair of thresholds."""
    cells = np.bincount(first_N * (quantiles + 1) + second_N, value_N, (quantiles + 1) ** 2)
    return cells.reshape(quantiles + 1, -1).cumsum(0).cumsum(1)[:quantiles, :quantiles]


def choose(grid: dict[str, np.ndarray], budget: float | None, points: int) -> tuple[np.ndarray, np.ndarray, int]:
    """(positions in the grid of the best within each budget, the budgets, the position of the default point)."""
    quality_C, cost_C = grid["quality_C"], grid["cost_C"]
    if budget is None:
        alone = np.flatnonzero(grid["list_C3"][:, 1] < 0)
        budget = cost_C[alone[np.lexsort((cost_C[alone], -quality_C[alone]))[0]]]
    best_first = np.lexsort((np.arange(len(cost_C)), cost_C, -quality_C))
    top, least = cost_C[best_first[0]], cost_C.min()
    budget = max(budget, least)
    spending = np.geomspace(max(least, top / 1000), top, points) if top > 0 else [0.0]
    budget_P = np.unique(np.r_[least, spending[1:], budget])
    within = [best_first[np.argmax(cost_C[best_first] <= spend * (1 + 1e-9))] for spend in budget_P]
    kept = np.r_[True, np.diff(within) != 0]
    point = int(np.cumsum(kept)[np.searchsorted(budget_P, budget)]) - 1
    return np.array(within)[kept], budget_P[kept], point


METHODS = {"frugal": frugal}
APPLY = {"frugal": apply_frugal}
