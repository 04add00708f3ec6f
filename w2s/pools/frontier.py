"""Curves of quality against cost, and the hull of the single models that a method has to beat.

Asking model A a random share of the questions and model B the rest reaches every point on the line between them,
without knowing which question is hard. So the bar is not each single model but their non-decreasing convex hull
(RouterBench, Hu et al. 2024, arXiv 2403.12031, section 3.2). P points, N questions, M members.
"""

import numpy as np


def hull(cost_P: np.ndarray, quality_P: np.ndarray) -> np.ndarray:
    """Positions of the hull's corners, cheapest first: cost and quality rise strictly, the slope falls strictly.

    The first is the cheapest point (the best at that cost), the last the cheapest of the best quality. Raises a
    ValueError unless costs (0 or more) and qualities are finite, of equal number, and at least one.
    """
    if cost_P.shape != quality_P.shape or cost_P.ndim != 1 or not len(cost_P):
        raise ValueError(f"{cost_P.shape} costs and {quality_P.shape} qualities: one of each for each point")
    if not (np.isfinite(cost_P).all() and np.isfinite(quality_P).all() and (cost_P >= 0).all()):
        raise ValueError("costs and qualities of points must be finite, costs not negative")
    corners: list[int] = []
    for at in np.lexsort((-quality_P, cost_P)):
        if corners and quality_P[at] <= quality_P[corners[-1]]:
            continue
        while len(corners) > 1:
            # Slopes as products: costs may be equal.
            (run_12, run_23), (rise_12, rise_23) = (np.diff(v[[*corners[-2:], at]]) for v in (cost_P, quality_P))
            if rise_12 * run_23 > rise_23 * run_12:
                break  # the slope falls at the last corner
            corners.pop()
        corners.append(int(at))
    return np.array(corners)


def interpolate(cost_P: np.ndarray, quality_P: np.ndarray, at_Q: np.ndarray) -> np.ndarray:
    """quality_Q of the hull at the costs at_Q: NaN below the cheapest point, constant above the best one."""
    corners = hull(cost_P, quality_P)
    return np.interp(at_Q, cost_P[corners], quality_P[corners], left=np.nan)


def aiq(cost_P: np.ndarray, quality_P: np.ndarray, low: float, high: float) -> float:
    """Average improvement in quality: the mean height of the hull over the costs from `low` to `high`.

    RouterBench, section 3.2. Below the cheapest point the hull extends to (0, 0): no answer costs nothing. Curves are
    comparable only over the same range. Raises ValueError unless 0 <= low < high.
    """
    if not 0 <= low < high < np.inf:
        raise ValueError(f"a range of costs from {low} to {high}: it must rise from 0 or more")
    cost_P, quality_P = np.append(cost_P, 0.0), np.append(quality_P, 0.0)
    corners = hull(cost_P, quality_P)
    inside = cost_P[corners][(cost_P[corners] > low) & (cost_P[corners] < high)]
    knots = np.concatenate([[low], inside, [high]])
    return float(np.trapezoid(interpolate(cost_P, quality_P, knots), knots) / (high - low))


def mixture(cost_M: np.ndarray, quality_M: np.ndarray, cost: float) -> np.ndarray:
    """share_M: how often the hull asks each member so that a question costs `cost` on average; at most two members.

    Below the cheapest member's cost, that member alone (at more than `cost`); above the best member's, the best alone.
    """
    corners = hull(cost_M, quality_M)
    share_M = np.zeros(len(cost_M))
    share_M[corners] = [np.interp(cost, cost_M[corners], row) for row in np.eye(len(corners))]
    return share_M
