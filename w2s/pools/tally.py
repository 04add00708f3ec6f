"""Counting votes: what every vote, cascade and stack of recorded answers begins with."""

from __future__ import annotations

import numpy as np

BLOCK = 200_000  # questions counted at once: the votes on ten million are counted in some MB


def tally(answer_MN: np.ndarray, size: int, weight: np.ndarray | None = None) -> np.ndarray:
    """The weights of the members that voted for each candidate, summed: (N, size). An answer below 0 is no vote.

    weight is (M,), a member's own, or (M, N), which may change from question to question; None: one vote each.
    """
    total_NK = np.zeros((answer_MN.shape[1], size))
    weight = np.ones(len(answer_MN)) if weight is None else np.asarray(weight)
    weight_MN = np.broadcast_to(weight if weight.ndim == 2 else weight[:, None], answer_MN.shape)
    for answer_N, weight_N in zip(answer_MN, weight_MN, strict=True):
        for first in range(0, len(answer_N), BLOCK):
            answer_B = answer_N[first : first + BLOCK]
            voted = np.flatnonzero(answer_B >= 0)
            total_NK[first + voted, answer_B[voted]] += weight_N[first : first + BLOCK][voted]
    return total_NK
