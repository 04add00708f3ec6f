"""Pairs of candidates that a committee and its reward models agree on."""

import numpy as np
from scipy.stats import rankdata

AGREED, APART, NONE_BELOW = "agreed", "they put different candidates first", "no candidate is below it for both"


def find_agreed_pairs(
    probs_NK: np.ndarray, mask_NK: np.ndarray, rewards_NK: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(chosen_N, rejected_N, why_N): positions of candidates, -1 where there is no pair, and why (AGREED with one).

    Chosen is the single candidate that both rank first, alone or tied. Rejected is the candidate with the lowest sum of
    ranks among those that both rank below it; ties go to the lower probability, then the lower reward. A candidate
    without a reward (nan) is never rejected; if the committee ranks it first, there is no pair.
    """
    probs_NK, rewards_NK = np.asarray(probs_NK, dtype=np.float64), np.asarray(rewards_NK, dtype=np.float64)
    mask_NK = np.asarray(mask_NK, dtype=bool)
    if not probs_NK.shape == rewards_NK.shape == mask_NK.shape:
        raise ValueError(f"probs {probs_NK.shape}, rewards {rewards_NK.shape} and mask {mask_NK.shape} do not fit")
    known_NK = mask_NK & ~np.isnan(rewards_NK)
    probable_NK, good_NK = np.where(mask_NK, probs_NK, -np.inf), np.where(known_NK, rewards_NK, -np.inf)
    best_N1, top_N1 = (score_NK.max(1, keepdims=True, initial=-np.inf) for score_NK in (probable_NK, good_NK))
    both_NK = known_NK & (probable_NK == best_N1) & (good_NK == top_N1)
    below_NK = known_NK & (probable_NK < best_N1) & (good_NK < top_N1)
    # Ranks among the candidates with a reward; the others rank above all of them, out of the way.
    rank_NK = sum(rankdata(np.where(known_NK, score_NK, np.inf), axis=1) for score_NK in (probs_NK, rewards_NK))
    first_N, any_N = both_NK.sum(1) == 1, below_NK.any(1)
    why_N = np.where(first_N & any_N, AGREED, np.where(first_N, NONE_BELOW, APART))
    agreed_N = why_N == AGREED
    chosen_N = np.where(agreed_N, both_NK.argmax(1), -1) if len(mask_NK) else np.zeros(0, dtype=int)
    rejected_N = np.full(len(mask_NK), -1)
    for at in np.flatnonzero(agreed_N):
        places = np.flatnonzero(below_NK[at])
        order = np.lexsort((rewards_NK[at, places], probs_NK[at, places], rank_NK[at, places]))
        rejected_N[at] = places[order[0]]
    return chosen_N, rejected_N, why_N
