"""Counting votes: what every vote, cascade, label model and stack of recorded answers begins with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BLOCK = 16_384  # questions: a block's arrays stay in the processor's cache


def tally(answer_MN: np.ndarray, size: int, weight: np.ndarray | None = None) -> np.ndarray:
    """The weights of the members that voted for each candidate, summed: (N, size). An answer below 0 is no vote.

    weight is (M,), one per member, or (M, N), one per answer; None: one vote each. The sums run over the members in
    their order.
    """
    total_NK = np.zeros((answer_MN.shape[1], size))
    weight = np.ones(len(answer_MN)) if weight is None else np.asarray(weight)
    weight_MN = np.broadcast_to(weight if weight.ndim == 2 else weight[:, None], answer_MN.shape)
    for rows in blocks(len(total_NK)):
        cell_MB = cells(answer_MN[:, rows], size)
        length = cell_MB.shape[1] * (size + 1)
        flat = np.bincount(cell_MB.ravel(), weight_MN[:, rows].ravel(), minlength=length)
        total_NK[rows] = flat.reshape(-1, size + 1)[:, 1:]
    return total_NK


def cells(answer_MB: np.ndarray, size: int) -> np.ndarray:
    """The position of each answer in a flattened (B, 1 + size) table whose first column takes the missing answers."""
    return np.maximum(answer_MB, -1) + (1 + (size + 1) * np.arange(answer_MB.shape[1]))


def shares(votes_NK: np.ndarray) -> np.ndarray:
    """Votes as a distribution over the candidates; all 0 where there is no vote."""
    total_N1 = votes_NK.sum(1, keepdims=True)
    return votes_NK / np.where(total_N1 > 0, total_N1, 1)


def winners(votes_NK: np.ndarray) -> np.ndarray:
    """One vote for the candidate with the most votes, split equally between ties; all 0 where there is no vote."""
    best_NK = (votes_NK == votes_NK.max(1, keepdims=True, initial=0)) & (votes_NK > 0)
    return best_NK / np.maximum(best_NK.sum(1, keepdims=True), 1)


def blocks(rows: int) -> Iterator[slice]:
    """Slices of at most BLOCK that cover the questions in order."""
    return (slice(first, min(first + BLOCK, rows)) for first in range(0, rows, BLOCK))
