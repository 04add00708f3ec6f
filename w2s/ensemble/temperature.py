"""The temperature at which a distribution over candidates fits right answers best."""

from typing import NamedTuple

import numpy as np
from numpy import ndarray as Array

LEAST, MOST = 0.05, 20.0
"""Bounds of a fitted temperature: an opinion that is always right would want 0, one that knows nothing infinity."""


class FittedTemperature(NamedTuple):
    """A temperature, and the mean -ln p(right) in nats of the rows it was fitted on, at temperature 1 and at this one.

    rows: how many they were; a row whose right answer has probability 0 does not count, as no temperature changes it.
    """

    temperature: float
    loss_at_1: float | None
    loss: float | None
    rows: int


def fit_temperature(probs_NK: Array, mask_NK: Array, gold_N: Array) -> FittedTemperature:
    """The temperature T from LEAST to MOST for which p^(1/T), normalised, gives gold_N the least log-loss.

    Temperature scaling (Guo et al. 2017, arXiv 1706.04599). The loss is convex in 1/T: its slope, the mean of
    E_q[ln p] - ln p(gold) under q ~ p^(1/T), rises, so bisection finds its zero to float precision. Without rows, or if
    every row is uniform over the candidates it leaves possible, T is 1.
    """
    probs_NK, gold_N = np.where(mask_NK, probs_NK, 0.0), np.asarray(gold_N, dtype=int)
    possible_N = np.take_along_axis(probs_NK, gold_N[:, None], 1)[:, 0] > 0
    probs_NK, gold_N = probs_NK[possible_N], gold_N[possible_N]
    if not len(gold_N):
        return FittedTemperature(1.0, None, None, 0)
    log_NK = np.log(np.where(probs_NK > 0, probs_NK, 1))
    gold_log_N = np.take_along_axis(log_NK, gold_N[:, None], 1)[:, 0]
    most_N1 = np.where(probs_NK > 0, log_NK, -np.inf).max(1, keepdims=True)

    def raised(inverse: float) -> Array:
        return np.where(probs_NK > 0, np.exp(inverse * (np.minimum(log_NK - most_N1, 0))), 0)

    def slope(inverse: float) -> float:
        raised_NK = raised(inverse)
        return float(((raised_NK * log_NK).sum(1) / raised_NK.sum(1) - gold_log_N).mean())

    def loss(inverse: float) -> float:
        return float((np.log(raised(inverse).sum(1)) - inverse * (gold_log_N - most_N1[:, 0])).mean())

    low, high = 1 / MOST, 1 / LEAST
    flat = np.ptp(np.where(probs_NK > 0, log_NK, most_N1), axis=1).max() < 1e-12
    if flat:
        low = high = 1.0
    elif slope(high) <= 0:
        low = high
    elif slope(low) >= 0:
        high = low
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return FittedTemperature(1 / high, loss(1.0), loss(high), len(gold_N))
