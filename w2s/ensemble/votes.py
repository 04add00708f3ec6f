"""Counting votes: the weight behind each candidate, and who wins."""

import numpy as np

BLOCK = 16_384  # questions counted at once: a block stays in the processor's cache


def count_votes(answer_RN: np.ndarray, size: int, weight: np.ndarray | None = None) -> np.ndarray:
    """total_NK, K = size: the summed weights of the voters for each candidate. An answer below 0 is no vote.

    weight is (R,), one per voter, or (R, N), which may change from question to question; None: one vote each. The
    weights are added in the order of the voters.
    """
    weight = np.ones(len(answer_RN)) if weight is None else np.asarray(weight)
    weight_RN = np.broadcast_to(weight if weight.ndim == 2 else weight[:, None], answer_RN.shape)
    total_NK = np.zeros((answer_RN.shape[1], size))
    for first in range(0, len(total_NK), BLOCK):
        rows = slice(first, first + BLOCK)
        cell_RB = vote_cells(answer_RN[:, rows], size)
        flat = np.bincount(cell_RB.ravel(), weight_RN[:, rows].ravel(), minlength=cell_RB.shape[1] * (size + 1))
        total_NK[rows] = flat.reshape(-1, size + 1)[:, 1:]
    return total_NK


def vote_cells(answer_RN: np.ndarray, size: int) -> np.ndarray:
    """The place of each answer in a flat (N, 1 + size) table, whose first column takes the missing answers."""
    return np.maximum(answer_RN, -1) + (1 + (size + 1) * np.arange(answer_RN.shape[1]))


def split_winners(total_NK: np.ndarray) -> np.ndarray:
    """One vote for the candidate with the most votes, split equally between ties; a row without votes is all 0."""
    best_NK = (total_NK == total_NK.max(1, keepdims=True, initial=0)) & (total_NK > 0)
    return best_NK / np.maximum(best_NK.sum(1, keepdims=True), 1)


def vote_shares(total_NK: np.ndarray) -> np.ndarray:
    """Votes as a distribution; a row without votes is all 0."""
    total_N1 = total_NK.sum(1, keepdims=True)
    return total_NK / np.where(total_N1 > 0, total_N1, 1)
