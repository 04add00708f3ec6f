"""How differently the members of an ensemble fail, measured by right and wrong alone, on rows with gold.

wrong_MN is 0 (right) to 1 (wrong); a member fails where it is 0.5 or more, so a member that abstains fails.
"""

import numpy as np

from w2s.ensemble.dependence import check_wrong


def failed(wrong_MN: np.ndarray) -> np.ndarray:
    """Where a member fails, as float64 0 or 1; raises like `check_wrong`."""
    return (check_wrong(wrong_MN) >= 0.5).astype(np.float64)


def focal_diversities(wrong_MN: np.ndarray, chosen_SM: np.ndarray) -> np.ndarray:
    """diversity_S, 0 (all fail together) to 1 (no two fail together): the focal diversity of S ensembles.

    chosen_SM marks the members of each. wrong may also be (S, M, N), another window of questions for each ensemble.

    For each member k of an ensemble of M, the focal one: over the questions that k fails, p_i is the share where
    exactly i of the M fail, and λ_k = 1 - Σ i(i-1)/(M(M-1)) p_i / Σ (i/M) p_i; the mean of λ_k over k (RL-Focal, arXiv
    2502.04492; LLM-TOPLA, arXiv 2410.03953). Ours, where that is 0/0: a member that never fails is left out of the
    mean, an ensemble in which none fails has 1, and an ensemble of one member or none has 0.
    """
    fails, chosen_SM = failed(wrong_MN), np.asarray(chosen_SM, dtype=np.float64)
    if chosen_SM.ndim != 2 or chosen_SM.shape[1] != fails.shape[-2]:
        raise ValueError(f"chosen must be subsets by members, {fails.shape[-2]} of them: {chosen_SM.shape}")
    one_SM, two_SM = _moments(fails, chosen_SM)
    size_S1 = chosen_SM.sum(1, keepdims=True)
    # Over the questions that k fails, Σ i(i-1)/(M(M-1)) p_i / Σ (i/M) p_i is Σ_n i(i-1) / ((M-1) Σ_n i).
    focal_SM = (chosen_SM > 0) & (one_SM > 0)
    together_SM = (two_SM - one_SM) / np.where(focal_SM, one_SM * np.maximum(size_S1 - 1, 1), 1)
    mean_S = np.where(focal_SM, together_SM, 0).sum(1) / np.maximum(focal_SM.sum(1), 1)
    return np.where(size_S1[:, 0] > 1, 1 - mean_S, 0.0)


def _moments(fails: np.ndarray, chosen_SM: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Σ i and Σ i² over the questions that each member fails, where i of the chosen fail: (S, M) both."""
    if fails.ndim == 3:
        count_SN = np.einsum("sm,smn->sn", chosen_SM, fails)
        return np.einsum("sn,smn->sm", count_SN, fails), np.einsum("sn,smn->sm", count_SN * count_SN, fails)
    if len(chosen_SM) <= len(fails):
        count_SN = chosen_SM @ fails
        return count_SN @ fails.T, (count_SN * count_SN) @ fails.T
    # Many subsets: counting once how often any three members fail together makes the rest independent of N.
    two_MS = [((chosen_SM @ ((fails * one_N) @ fails.T)) * chosen_SM).sum(1) for one_N in fails]
    return chosen_SM @ (fails @ fails.T), np.stack(two_MS, axis=1)
