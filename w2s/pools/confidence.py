"""Members' confidences as ranks among their own confidences: scales differ from member to member."""

import numpy as np

from w2s.pools.records import Opinions


def confidence(opinions: Opinions) -> np.ndarray | None:
    """score_MN or, if that was not recorded, the recorded probability of the given answer; None without either."""
    if opinions.score_MN is not None or opinions.probs_MNK is None:
        return opinions.score_MN
    place_MN1 = np.maximum(opinions.answer_MN, 0)[:, :, None].astype(int)
    prob_MN = np.take_along_axis(opinions.probs_MNK, place_MN1, axis=2)[:, :, 0]
    return np.where(opinions.answer_MN >= 0, prob_MN, np.nan)


def fit_quantiles(score_MN: np.ndarray, size: int) -> np.ndarray:
    """quantiles_MQ: `size` quantiles of each member's scores, without NaN."""
    # Quantiles of nothing are NaN, with a warning: a member without any score here has rank 0 anyway.
    score_MN = np.where(np.isfinite(score_MN).any(1, keepdims=True), score_MN, 0)
    return np.nanquantile(score_MN, np.linspace(0, 1, size), axis=1).T


def ranks(score_MN: np.ndarray, quantiles_MQ: np.ndarray, *, middle: bool = False) -> np.ndarray:
    """rank_MN, -0.5 to 0.5, of scores among their member's quantiles; 0 where a score is NaN.

    A score among equal quantiles takes the lowest of their ranks, or with `middle` their mean.
    """
    left_MN = np.array([np.searchsorted(q, s) for q, s in zip(quantiles_MQ, score_MN, strict=True)])
    size = quantiles_MQ.shape[1]
    if middle:
        right_MN = np.array([np.searchsorted(q, s, side="right") for q, s in zip(quantiles_MQ, score_MN, strict=True)])
        rank_MN = (left_MN + right_MN) / (2 * size) - 0.5
    else:
        rank_MN = np.minimum(left_MN / (size - 1), 1) - 0.5
    return np.where(np.isfinite(score_MN), rank_MN, 0)
