"""The data of a pool's pictures: accuracy by number of members and by cost, agreement, and shared errors."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from w2s.ensemble import dependence
from w2s.ensemble.ballots import Ballots
from w2s.ensemble.votes import count_votes
from w2s.evaluation.pools.judging import Judged, as_list, scores
from w2s.evaluation.statistics import contrast, rate, wilson
from w2s.pools import bounds, frontier
from w2s.pools.records import Opinions, Truth

MOST_MEMBERS = 40  # as many as a picture can name
MOST_ROWS = 200_000  # questions, evenly spaced, tell an accuracy to 0.1 points


def by_number(opinions: Opinions, truth: Truth, halves: Sequence[np.ndarray], evidence: Ballots) -> dict[str, Any]:
    """Accuracy of the plurality and of the log-odds vote of the best 1, 2, ... members, found on the other half."""
    number = min(len(opinions.members), MOST_MEMBERS)
    every = np.arange(len(opinions.ids)) % -(-len(opinions.ids) // MOST_ROWS) == 0
    rows_N, lines = (truth.gold_N > -2) & every, {"plurality": np.zeros(number), "accuracy_log_odds": np.zeros(number)}
    for half in halves:
        for here, there in ((half & rows_N, ~half & rows_N), (~half & rows_N, half & rows_N)):
            error_M = (opinions.answer_MN[:, there] != truth.gold_N[there]).mean(1)
            order = np.argsort(error_M, kind="stable")[:number]
            odds_M = np.log((1 - error_M + 0.01) / (error_M + 0.01)) + np.log(max(opinions.count_N.mean() - 1, 1))
            answer_MN, gold_N = opinions.answer_MN[:, here], truth.gold_N[here]
            for name, alpha_M in (("plurality", 1 + 1e-6 * odds_M), ("accuracy_log_odds", np.maximum(odds_M, 0))):
                total_NK = np.zeros((here.sum(), opinions.mask_NK.shape[1]))
                for at, member in enumerate(order):
                    total_NK += count_votes(answer_MN[[member]], total_NK.shape[1], alpha_M[[member]])
                    hit_N = (total_NK.argmax(1) == gold_N) & total_NK.any(1)
                    lines[name][at] += hit_N.mean() / (2 * len(halves))
    shown, numbers = {name: line.tolist() for name, line in lines.items()}, list(range(1, number + 1))
    # What equally correlated voters of the pool's mean error could reach by majority, up to an error of 1/2.
    error, rho = float(evidence.wrong_RN.mean()), bounds.mean_correlation(evidence.wrong_RN[:MOST_MEMBERS])
    hopeful = 0 < error < 0.5 and 0 < rho < 1
    floor = (1 - bounds.copula_curve(error, rho, numbers)).tolist() if hopeful else None
    return {"number": numbers, "lines": shown, "floor": floor}


def by_cost(judged: Sequence[Judged], opinions: Opinions, truth: Truth, rows_N: np.ndarray) -> dict[str, Any] | None:
    """Accuracy against dollars per 1,000 questions: single members, their hull, every method's operating points.

    Choosing members at random reaches every point of the hull, so a method is worth its cost only above it. `over_hull`
    is the paired difference to the mixture of members with the same cost, at each point and at the price the method
    chose; `over_hull_all` is the mean over a method's points: one test for a whole curve. The hull picks its members
    with hindsight, the method does not.
    """
    if opinions.cost_MN is None:
        return None
    cost_M = 1000 * np.nan_to_num(opinions.cost_MN[:, rows_N]).mean(1)
    right_MN = np.nan_to_num(truth.right_MN[:, rows_N])
    right_M = right_MN.mean(1)
    corners = frontier.hull(cost_M, right_M)
    low, high = float(cost_M[corners[0]]), float(cost_M[corners[-1]])
    shown = {"methods": {}, "over_hull": {}, "over_hull_all": {}, "aiq": {}}
    for method in judged:
        cost_P = 1000 * method.cost_PRN[:, :, rows_N].mean((1, 2))
        mixture_PN = np.array([frontier.mixture(cost_M, right_M, cost) for cost in cost_P]) @ right_MN
        right_PRN = method.right_PRN[:, :, rows_N]
        points = []
        for at, point in enumerate(method.points):
            accuracy = dict(zip(("accuracy", "low", "high"), as_list(rate(scores([right_PRN[at]]))), strict=True))
            over_hull = over_mixture(right_PRN[at], mixture_PN[at])
            points.append({"point": point, "cost": float(cost_P[at]), **accuracy, "over_hull": over_hull})
        shown["methods"][method.name] = points
        shown["over_hull_all"][method.name] = over_mixture(right_PRN.mean(0), mixture_PN.mean(0))
        own_N = frontier.mixture(cost_M, right_M, 1000 * float(method.cost_RN[:, rows_N].mean())) @ right_MN
        shown["over_hull"][method.name] = over_mixture(method.right_RN[:, rows_N], own_N)
        if low < high:
            shown["aiq"][method.name] = frontier.aiq(cost_P, right_PRN.mean((1, 2)), low, high)
    if low < high:
        shown["aiq"]["hull of the single members"] = frontier.aiq(cost_M, right_M, low, high)
    members = zip(opinions.members.tolist(), cost_M.tolist(), right_M.tolist(), strict=True)
    singles = [dict(zip(("name", "cost", "accuracy"), member, strict=True)) for member in members]
    return {"singles": singles, "hull": [[float(cost_M[at]), float(right_M[at])] for at in corners], **shown}


def over_mixture(right_RN: np.ndarray, mixture_N: np.ndarray) -> list[float]:
    """The paired difference of a method to a mixture of members, with its interval."""
    return as_list(contrast(scores([right_RN, np.broadcast_to(mixture_N, right_RN.shape)]), [1, -1]))


def agreement(opinions: Opinions, truth: Truth, rows_N: np.ndarray) -> list[dict[str, float]]:
    """Coverage and precision of the answers that at least a share of all members gave, for each share that occurs."""
    known = opinions.questions(rows_N)
    share_NK = count_votes(known.answer_MN, known.mask_NK.shape[1]) / len(known.members)
    # Rounded once for both: 2/3 rounded up would not cover its own questions.
    most_N, right_N = share_NK.max(1).round(6), share_NK.argmax(1) == truth.gold_N[rows_N]
    line = []
    for threshold in np.unique(most_N[most_N > 0]):
        covered_N = most_N >= threshold
        low, high = wilson(right_N[covered_N].sum(), int(covered_N.sum()))
        row = {"threshold": float(threshold), "coverage": float(covered_N.mean()), "low": low, "high": high}
        line.append(row | {"precision": float(right_N[covered_N].mean()), "n": int(covered_N.sum())})
    return line if len(line) <= 60 else [line[at] for at in np.linspace(0, len(line) - 1, 60).astype(int)]


def correlation(evidence: Ballots, members: np.ndarray) -> dict[str, Any]:
    """phi of the errors of the first members (as many as a picture can name), and the effective number of voters."""
    phi_RR = dependence.error_correlation(evidence.wrong_RN)
    size = len(phi_RR)
    mean = float((phi_RR.sum() - size) / (size * (size - 1))) if size > 1 else 0.0
    shown = {"members": members[:MOST_MEMBERS].tolist(), "phi": phi_RR[:MOST_MEMBERS, :MOST_MEMBERS].round(4).tolist()}
    worth = {"effective_voters": dependence.effective_voters(phi_RR), "mean": mean}
    return shown | worth | {"warning": dependence.warning(phi_RR, members.tolist())}
