"""Bounds that no vote can exceed: the recorded answers themselves, and errors that come together.

right_MN and wrong_RN are those of `records.Truth` and `ballots.Ballots`; a member fails where wrong is 0.5 or more.
"""

from typing import NamedTuple

import numpy as np
from scipy import special

from w2s.ensemble.diversity import failed

LATENT = np.linspace(-8.5, 8.5, 2001)  # the common factor; the trapezoid rule is exact to 1e-12 on so smooth a curve
DENSITY = np.exp(-(LATENT**2) / 2) / np.exp(-(LATENT**2) / 2).sum()


class Share(NamedTuple):
    """A share of n questions with its exact 95% interval."""

    rate: float
    low: float
    high: float
    n: int


class Tail(NamedTuple):
    """How often all members fail at once: measured, and by a Gaussian copula with one correlation."""

    measured: Share
    copula: float
    correlation: float


def all_wrong(right_MN: np.ndarray) -> Share:
    """The share of questions on which no member is right at all, with its exact interval (Clopper and Pearson 1934).

    A method that takes one of the given answers is right on at most 1 - this share: at most 1 - low of the population
    with 97.5% confidence. Questions without known rightness are left out; a member that was not asked is not right.
    """
    right_MN = np.asarray(right_MN, dtype=np.float64)
    known_N = np.isfinite(right_MN).any(0)
    if not known_N.any():
        raise ValueError("an empty set has no rate")
    best_N = np.nan_to_num(right_MN[:, known_N]).max(0)
    count, n = int((best_N <= 0).sum()), len(best_N)
    return Share(count / n, *clopper_pearson(count, n), n)


def clopper_pearson(count: int, n: int) -> tuple[float, float]:
    """The exact 95% interval of a rate, `count` of n: its coverage is at least 95% for any rate."""
    if n < 1:
        raise ValueError("an empty set has no rate")
    low = special.betaincinv(count, n - count + 1, 0.025) if count else 0.0
    high = special.betaincinv(count + 1, n - count, 0.975) if count < n else 1.0
    return float(low), float(high)


def copula_floor(error: float, rho: float) -> float:
    """The error to which a binary majority of ever more, equally correlated voters falls, Φ(Φ⁻¹(error)/√rho).

    arXiv 2602.08003. `error` is each voter's, above 0 and below 1/2; `rho` from 0 to 1 correlates the latent normal
    variables of any two voters (each errs where its own falls below Φ⁻¹(error)). Independent voters have no floor: 0.
    It rests on two assumptions, normal latent variables and one correlation: `joint_tail` shows how far to trust them.
    """
    return float(special.ndtr(special.ndtri(error) / np.sqrt(rho))) if rho > 0 else 0.0


def copula_curve(error: float, rho: float, sizes: list[int] | np.ndarray) -> np.ndarray:
    """error_S of a binary majority of equally correlated voters, by number of voters in `sizes`; a tie counts half.

    It falls to `copula_floor`, with the same assumptions: given the common factor, the voters err independently.
    """
    sizes_S1 = np.asarray(sizes, dtype=np.float64)[:, None]
    wrong_G = _given_factor(np.array([error]), rho)[0]
    # More than half of M err, and half of M for even M: an odd majority of M - 1 decides exactly as M with ties halved.
    odd_S1 = sizes_S1 - (sizes_S1 % 2 == 0)
    return special.bdtrc((odd_S1 - 1) // 2, odd_S1.astype(int), wrong_G) @ DENSITY


def tetrachoric(wrong_RN: np.ndarray) -> np.ndarray:
    """rho_RR, -1 to 1: the latent correlation of each pair of members' errors (Pearson 1900), 1 on the diagonal.

    At this correlation two standard normals fall below both members' thresholds Φ⁻¹(error) as often as both members
    fail. NaN for a member that never or always fails.
    """
    fails_RN = failed(wrong_RN)
    error_R, both_RR = fails_RN.mean(1), fails_RN @ fails_RN.T / fails_RN.shape[1]
    row, column = np.triu_indices(len(fails_RN), 1)
    edge_R = special.ndtri(np.where((error_R > 0) & (error_R < 1), error_R, np.nan))
    low_P, high_P = np.full(len(row), -1.0), np.full(len(row), 1.0)
    for _ in range(40):  # bisection: the joint share grows with the correlation
        middle_P = (low_P + high_P) / 2
        less_P = both_below(edge_R[row], edge_R[column], middle_P) < both_RR[row, column]
        low_P, high_P = np.where(less_P, middle_P, low_P), np.where(less_P, high_P, middle_P)
    rho_RR = np.eye(len(fails_RN))
    rho_RR[row, column] = rho_RR[column, row] = np.where(np.isnan(edge_R[row] + edge_R[column]), np.nan, middle_P)
    return rho_RR


def mean_correlation(wrong_RN: np.ndarray) -> float:
    """The mean latent correlation over the pairs (`tetrachoric`); 0 if no pair has one."""
    rho_RR = tetrachoric(wrong_RN)
    pairs = rho_RR[np.triu_indices(len(rho_RR), 1)]
    return float(np.nanmean(pairs)) if np.isfinite(pairs).any() else 0.0


def joint_tail(wrong_RN: np.ndarray) -> Tail:
    """How often all fail at once, beside a Gaussian copula with each member's own error and the mean correlation.

    If the copula's share lies below the measured interval, it underestimates the joint tail: some questions defeat
    every member in a way that pairwise correlations do not show, and `copula_floor` is then too optimistic. Real pools
    lie on either side.
    """
    fails_RN = failed(wrong_RN)
    rho = min(max(mean_correlation(fails_RN), 0.0), 1.0)
    joint = float(np.prod(_given_factor(fails_RN.mean(1), rho), axis=0) @ DENSITY)
    return Tail(all_wrong(1 - fails_RN), joint, rho)


def both_below(x_P: np.ndarray, y_P: np.ndarray, rho_P: np.ndarray) -> np.ndarray:
    """P(X < x, Y < y) of standard normals with correlation rho, to about 1e-6.

    Φ(x)Φ(y) + (1/2π) ∫ exp(-(x² + y² - 2xy sin θ) / (2 cos² θ)) dθ from 0 to arcsin rho (Drezner and Wesolowsky 1990),
    by Gauss-Legendre with 48 points.
    """
    x_P, y_P, rho_P = (np.asarray(part, dtype=np.float64) for part in (x_P, y_P, rho_P))
    point_G, weight_G = np.polynomial.legendre.leggauss(48)
    end_P1 = np.arcsin(rho_P)[..., None]
    angle_PG = end_P1 * (point_G + 1) / 2
    x_P1, y_P1 = x_P[..., None], y_P[..., None]
    square_PG = (x_P1**2 + y_P1**2 - 2 * x_P1 * y_P1 * np.sin(angle_PG)) / (2 * np.cos(angle_PG) ** 2)
    area_P = (np.exp(-square_PG) * weight_G).sum(-1) * end_P1[..., 0] / 2
    return special.ndtr(x_P) * special.ndtr(y_P) + area_P / (2 * np.pi)


def _given_factor(error_R: np.ndarray, rho: float) -> np.ndarray:
    """wrong_RG: the chance that each voter errs at each value of the common factor (a step for rho = 1)."""
    edge_R1 = special.ndtri(error_R)[:, None]
    return special.ndtr((edge_R1 - np.sqrt(rho) * LATENT) / np.sqrt(max(1 - rho, 1e-12)))
