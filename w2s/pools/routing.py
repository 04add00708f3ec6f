"""Routers: each question goes to the one member whose answer is worth its price.

All estimate, from the question alone, how likely each member is to be right (`estimators.ESTIMATORS`) and what it will
cost, and take the member with the most `quality - price · cost`. The price, in right answers per dollar, is 1 over the
willingness to pay; it is also the Lagrange multiplier of "as many right answers as this budget buys". Every price is an
operating point, named by what the fit questions cost there; the default is the one with the best quality on questions
that the estimates were not fitted on. Without recorded costs there is one point: the member that is most likely right.
For two members without costs (a strong and a weak one, as in RouteLLM) a call of the more accurate one costs 1, and
the points are shares of calls to it.

No result depends on the order of questions or members: questions are sorted by id and members by accuracy before
anything is fitted, and ties go to the more accurate member.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from w2s.config.values import Count, Positive
from w2s.ensemble.ballots import NotApplicable
from w2s.pools.estimators import ESTIMATORS
from w2s.pools.features import described, fit_described
from w2s.pools.records import ABSTAINED, NOT_ASKED, Decision, Fitted, Learned, Opinions, Truth

FOLDS = 4  # 2 for many questions
ENOUGH = 4_000
TIE = 1e-9


def knn(
    opinions: Opinions,
    truth: Truth,
    *,
    neighbours: Count = 100,
    prior: Positive = 10.0,
    dimensions: Count = 64,
    points: Count = 20,
    seed: int = 0,
) -> Fitted:
    """Route by k nearest questions: willingness to pay · share they were right on - cost.

    RouterBench (Hu et al. 2024, arXiv 2403.12031, section 4), with neighbours weighted by cosine and `prior` questions
    of mean quality mixed in.
    """
    estimators = {"neighbours": {"neighbours": neighbours, "prior": prior}}
    return fit_router(opinions, truth, estimators, dimensions, points, None, seed)


def classifier(
    opinions: Opinions,
    truth: Truth,
    *,
    penalty: Positive = 5.0,
    dimensions: Count = 64,
    points: Count = 20,
    seed: int = 0,
) -> Fitted:
    """Route by a multi-label classifier: one logistic regression per member on the question's features.

    Shnitzer et al. 2023 (arXiv 2309.15789): one binary classifier of "is it right" for each model.
    """
    return fit_router(opinions, truth, {"logistic": {"penalty": penalty}}, dimensions, points, None, seed)


def matrix_factorisation(
    opinions: Opinions,
    truth: Truth,
    *,
    rank: Count = 8,
    penalty: Positive = 0.4,
    dimensions: Count = 64,
    points: Count = 20,
    seed: int = 0,
) -> Fitted:
    """Route by matrix factorisation: a vector for each member, times a projection of the question.

    RouteLLM (Ong et al. 2024, arXiv 2406.18665, section 4.2): score = w · (v_m * W q). Each model's right and wrong
    replaces its preferences between two models, so w is absorbed into v_m and the score is a logit, fitted by L-BFGS.
    """
    estimators = {"factors": {"rank": rank, "penalty": penalty}}
    return fit_router(opinions, truth, estimators, dimensions, points, None, seed)


def budgeted(
    opinions: Opinions,
    truth: Truth,
    *,
    budgets_per_1000: list[Positive] | None = None,
    neighbours: Count = 100,
    prior: Positive = 10.0,
    penalty: Positive = 5.0,
    dimensions: Count = 64,
    points: Count = 20,
    seed: int = 0,
) -> Fitted:
    """Predict quality, then choose as many right answers as a mean budget in dollars buys.

    Routoo (arXiv 2401.13979): a predictor of performance and a cost-aware selector. The predictor here is the mean of
    the classifier's and the neighbours' estimates; the selector is the linear programme over all fit questions at once,
    whose solution is one Lagrange multiplier. budgets_per_1000: dollars per 1,000 questions (default: `points` budgets
    from the cheapest member's cost up). Raises NotApplicable without costs.
    """
    if opinions.cost_MN is None:
        raise NotApplicable("no costs were recorded")
    estimators = {"neighbours": {"neighbours": neighbours, "prior": prior}, "logistic": {"penalty": penalty}}
    budgets = np.sort(np.array(budgets_per_1000, dtype=float)) / 1000 if budgets_per_1000 else None
    return fit_router(opinions, truth, estimators, dimensions, points, budgets, seed)


def best_per_group(
    opinions: Opinions, truth: Truth, *, prior: Positive = 5.0, points: Count = 20, seed: int = 0
) -> Fitted:
    """The best member of each task (or subject), without reading text: what every router has to beat.

    `prior` questions of the member's mean quality are mixed into each group; a new group gets the best overall.
    """
    if len(set(opinions.group_N.tolist())) < 2:
        raise NotApplicable("the questions have no groups")
    return fit_router(opinions, truth, {"groups": {"prior": prior}}, None, points, None, seed)


def apply_router(fitted: Fitted, opinions: Opinions, point: int) -> Decision:
    """Each question's member at this operating point; a member without a row for a question is not chosen for it."""
    quality_MN = predict(fitted.arrays, fitted.meta["estimators"], read_known(fitted, opinions))
    open_MN = opinions.answer_MN != NOT_ASKED
    quality_MN = np.where(open_MN | ~open_MN.any(0), quality_MN, -np.inf)
    member_N = choose(quality_MN, estimate_cost(fitted, opinions), fitted.arrays["price_P"][point])
    asked_MN = member_N == np.arange(len(fitted.members))[:, None]
    answer_N = opinions.answer_MN[member_N, np.arange(len(member_N))]
    return Decision(abstained_N=np.isin(answer_N, (ABSTAINED, NOT_ASKED)), member_N=member_N, asked_MN=asked_MN)


def estimate_cost(fitted: Fitted, opinions: Opinions) -> np.ndarray:
    """cost_MN, US dollars: from ridge regression on the features, or each member's mean in the group; 0 if unknown."""
    if fitted.meta["cost"] is None:
        return np.zeros(opinions.answer_MN.shape)
    return ESTIMATORS[fitted.meta["cost"]][1](part(fitted.arrays, "cost"), read_known(fitted, opinions))


def read_known(fitted: Fitted, opinions: Opinions) -> np.ndarray:
    """What a router may read: the groups, or the features of the prompts."""
    return opinions.group_N if "groups" in fitted.meta["estimators"] else described(fitted.arrays, opinions)


def choose(quality_MN: np.ndarray, cost_MN: np.ndarray, price: float) -> np.ndarray:
    """member_N with the most quality - price · cost; ties, within rounding, go to the first, most accurate member."""
    worth_MN = quality_MN - price * cost_MN
    return (worth_MN >= worth_MN.max(0) - TIE).argmax(0)


def fit_router(
    opinions: Opinions,
    truth: Truth,
    estimators: dict[str, dict[str, float]],
    dimensions: int | None,
    points: int,
    budgets_P: np.ndarray | None,
    seed: int,
) -> Fitted:
    """Fit estimators (with their options), costs, prices and the default point. dimensions None: groups, no text."""
    opinions, truth = canonical(opinions, truth)
    arrays = {} if dimensions is None else fit_described(opinions, dimensions=dimensions, seed=seed)
    fitted = Fitted("router", opinions.members, arrays, {"estimators": list(estimators), "cost": None})
    what_N = read_known(fitted, opinions)
    arrays |= learn(estimators, what_N, truth.right_MN) | {"price_P": np.zeros(1)}
    cost_MN = opinions.cost_MN
    if cost_MN is None and len(opinions.members) == 2:
        cost_MN = np.repeat([[1.0], [0.0]], len(what_N), axis=1)
    if cost_MN is None:
        return fitted
    name, chosen = ("linear", {"penalty": 1.0}) if dimensions else ("groups", estimators["groups"])
    costs = ESTIMATORS[name][0](what_N, cost_MN, **chosen)
    arrays |= {f"cost/{array}": value for array, value in costs.items()}
    fitted = dataclasses.replace(fitted, meta=fitted.meta | {"cost": name})
    rows, unseen_MN = cross_fit(estimators, what_N, truth.right_MN, seed)
    # Prices are found with the final estimates: those from fewer questions are flatter, so they would spend less.
    quality_MN, cost_MN = predict(arrays, estimators, what_N[rows]), estimate_cost(fitted, opinions.questions(rows))
    price_P, paid_P = sweep(quality_MN, cost_MN, points, budgets_P)
    if opinions.cost_MN is None:
        names = [f"{paid:.1%} to {opinions.members[0]}" for paid in paid_P]
    else:
        names = [f"{1000 * paid:#.3g} per 1,000" for paid in paid_P]
    kept = sorted({name: at for at, name in reversed(list(enumerate(names)))}.values())
    arrays["price_P"] = price_P[kept]
    member_PN = np.stack([choose(unseen_MN, cost_MN, price) for price in price_P[kept]])
    right_P = np.nanmean(truth.right_MN[member_PN, rows], axis=1)
    best = int(np.flatnonzero(right_P >= right_P.max() - TIE)[0])
    return dataclasses.replace(fitted, points=tuple(names[at] for at in kept), point=best)


def canonical(opinions: Opinions, truth: Truth) -> tuple[Opinions, Truth]:
    """The questions with known rightness, by id, and the members with known rightness, best first."""
    rows = np.flatnonzero(np.isfinite(truth.right_MN).any(0))
    if not len(rows):
        raise NotApplicable("which answers are right is not known")
    rows = rows[np.argsort(opinions.ids[rows])]
    opinions, truth = opinions.questions(rows), truth.questions(rows)
    known = np.flatnonzero(np.isfinite(truth.right_MN).any(1))
    cost_M = np.zeros(len(known))
    if opinions.cost_MN is not None:
        if not np.isfinite(opinions.cost_MN[known]).any(1).all():
            raise NotApplicable("costs were recorded for some members only")
        cost_M = np.nanmean(opinions.cost_MN[known], axis=1)
    best = np.lexsort((opinions.members[known], cost_M, -np.nanmean(truth.right_MN[known], axis=1)))
    opinions = opinions.only(opinions.members[known[best]])
    return opinions, dataclasses.replace(truth, right_MN=truth.right_MN[known[best]])


def learn(options: dict[str, dict[str, float]], what_N: np.ndarray, right_MN: np.ndarray) -> Learned:
    """The arrays of all estimators, each under its name."""
    learnt = {name: ESTIMATORS[name][0](what_N, right_MN, **chosen) for name, chosen in options.items()}
    return {f"{name}/{array}": value for name, arrays in learnt.items() for array, value in arrays.items()}


def predict(arrays: Learned, estimators: Iterable[str], what_N: np.ndarray) -> np.ndarray:
    """quality_MN: the mean of the estimators."""
    return np.mean([ESTIMATORS[name][1](part(arrays, name), what_N) for name in estimators], axis=0)


def cross_fit(
    options: dict[str, dict[str, float]], what_N: np.ndarray, right_MN: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(rows, quality_MN): estimates for at most 4,000 questions, each by estimators that did not see it."""
    rng = np.random.default_rng(seed)
    folds = FOLDS if len(what_N) < ENOUGH else 2
    fold_N = rng.permutation(len(what_N)) % min(folds, len(what_N))
    rows = np.sort(rng.permutation(len(what_N))[:ENOUGH])
    mean_M1 = np.nanmean(right_MN, axis=1, keepdims=True)
    quality_MN = np.empty((len(right_MN), len(rows)))
    for fold in range(fold_N.max() + 1):
        others_N = (fold_N != fold) | (fold_N.max() == 0)
        target_MN = right_MN[:, others_N]
        # For a member that is known in the left-out fold alone, only the mean is left.
        target_MN = np.where(np.isfinite(target_MN).any(1, keepdims=True), target_MN, mean_M1)
        arrays = learn(options, what_N[others_N], target_MN)
        quality_MN[:, fold_N[rows] == fold] = predict(arrays, options, what_N[rows[fold_N[rows] == fold]])
    return rows, quality_MN


def sweep(
    quality_MN: np.ndarray, cost_MN: np.ndarray, points: int, budgets_P: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """price_P, falling, and the mean cost paid_P at each: for every budget the lowest price that keeps within it.

    The mean cost falls with the price, so bisection finds it. Default budgets: `points` steps of equal ratio (equal
    size if the cheapest is free) from the cheapest choices to the best. A budget below all prices gets the cheapest.
    """
    rows, unit = np.arange(quality_MN.shape[1]), 1 / max(cost_MN.max(), 1e-300)

    def paid(price: float) -> float:
        return cost_MN[choose(quality_MN, cost_MN, price), rows].mean()

    coarse = np.log(unit) + np.linspace(np.log(1e-6), np.log(1e6), 33)
    coarse_paid = np.array([paid(np.exp(log_price)) for log_price in coarse])
    most = paid(0.0)

    def multiplier(budget: float) -> float:
        if most <= budget * (1 + TIE):
            return 0.0
        at = int((coarse_paid > budget * (1 + TIE)).sum())  # the first of the falling costs within the budget
        low, high = coarse[max(at - 1, 0)], coarse[min(at, len(coarse) - 1)]
        for _ in range(10):  # to a thousandth of the price
            middle = (low + high) / 2
            low, high = (middle, high) if paid(np.exp(middle)) > budget * (1 + TIE) else (low, middle)
        return float(np.exp(high))

    if budgets_P is None:
        least = paid(1e6 * unit)
        between = np.geomspace if least > 0 else np.linspace
        budgets_P = between(least, max(least, most), points)
        # The ends hold for new questions too: the cheapest at any quality, and the best at any cost.
        prices = [1e6 * unit, *map(multiplier, budgets_P[1:-1]), 0.0]
    else:
        prices = list(map(multiplier, budgets_P))
    price_P = np.unique(prices)[::-1]
    return price_P, np.array([paid(price) for price in price_P])


def part(arrays: Learned, name: str) -> Learned:
    """The arrays of one estimator, under their own names."""
    return {key.removeprefix(name + "/"): value for key, value in arrays.items() if key.startswith(name + "/")}


METHODS = {method.__name__: method for method in (knn, classifier, matrix_factorisation, budgeted, best_per_group)}
APPLY = {"router": apply_router}
