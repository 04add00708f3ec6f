"""Rows of different lengths as one padded array."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def within(length_N: Sequence[int] | np.ndarray, width: int) -> np.ndarray:
    """(N, width), true at the first length_N[n] places of row n."""
    return np.arange(width) < np.asarray(length_N)[:, None]


def pad(rows: Sequence[np.ndarray], length_R: np.ndarray, fill: int) -> np.ndarray:
    """Rows as one array (R, T), filled up on the right."""
    padded_RT = np.full((len(rows), int(length_R.max())), fill, dtype=np.int64)
    padded_RT[within(length_R, padded_RT.shape[1])] = np.concatenate(rows)
    return padded_RT


def pad_left(rows: Sequence[Sequence[int]], fill: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows padded on the left, so that a text is continued from the last column, and the mask of their real tokens."""
    longest = max(map(len, rows))
    tokens = [[fill] * (longest - len(row)) + list(row) for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(tokens, dtype=torch.long, device=device), torch.tensor(mask, dtype=torch.long, device=device)


def positions(mask_BT: Tensor) -> Tensor:
    """position_BT of each real token in its row; 0 in the padding before it."""
    return (mask_BT.cumsum(1) - 1).clamp(min=0)


def mean_states(hidden_RTD: Tensor, mask_RT: Tensor) -> Tensor:
    """The mean (R, D) of the states of each row's real tokens."""
    mask_RT1 = mask_RT[..., None].to(hidden_RTD.dtype)
    return (hidden_RTD * mask_RT1).sum(1) / mask_RT1.sum(1).clamp(min=1)
