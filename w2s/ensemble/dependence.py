"""How far the learners err together, and how many voters they are worth.

Boosted models share a base. Copies of one voter add votes but no knowledge: nine voters, five of them near copies of
the worst, can be far below the best one. Everything is measured on rows with gold that no learner trained on.

wrong_RN is `adaboost.wrongness` of each learner: 0 right, 1 wrong.
"""

from collections.abc import Sequence

import numpy as np
from scipy.sparse.csgraph import connected_components

NEAR_COPY = 0.7


def error_correlation(wrong_RN: np.ndarray) -> np.ndarray:
    """phi_RR, -1 to 1: the correlation between the errors of each pair of learners (phi coefficient).

    A learner that is right (or wrong) on every row has a correlation of 0 with the others.
    """
    centred_RN = check_wrong(wrong_RN) - np.mean(wrong_RN, axis=1, keepdims=True)
    norm_R = np.sqrt((centred_RN**2).sum(1))
    # A constant row's rounding errors, about 1e-16 per value, are not variance.
    norm_R = np.where(norm_R > 1e-9, norm_R, np.inf)
    phi_RR = np.clip(centred_RN @ centred_RN.T / np.outer(norm_R, norm_R), -1, 1)
    np.fill_diagonal(phi_RR, 1)
    return phi_RR


def effective_voters(phi_RR: np.ndarray) -> float:
    """1 to R: how many independent voters a uniform vote of these learners is worth, R / (1 + (R-1)·mean phi).

    Kish's design effect (1965): the mean of that number of independent votes has the same variance as theirs.
    """
    size = len(phi_RR)
    mean = (np.sum(phi_RR) - size) / (size * (size - 1)) if size > 1 else 0.0
    return float(size / (1 + (size - 1) * max(mean, 0.0)))


def effective_directions(phi_RR: np.ndarray) -> float:
    """1 to R: the number of independent ways in which the learners err, (Σλ)² / Σλ² over the eigenvalues λ of phi.

    The effective degrees of freedom of Bretherton et al. 1999, equation 5. Copies count as one here: if this is far
    above the effective voters, weighting the learners (`decorrelated`) can win votes back.
    """
    return float(len(phi_RR) ** 2 / np.sum(np.square(phi_RR)))  # Σλ² is the sum of the squares of the matrix


def near_copies(phi_RR: np.ndarray, *, threshold: float = NEAR_COPY) -> list[list[int]]:
    """Groups of two or more learners, by position, linked by error correlations above `threshold`; largest first."""
    count, group_R = connected_components(phi_RR > threshold, directed=False)
    groups = [np.flatnonzero(group_R == group).tolist() for group in range(count)]
    return sorted((group for group in groups if len(group) > 1), key=len, reverse=True)


def warning(phi_RR: np.ndarray, names: Sequence[str] = ()) -> str | None:
    """A sentence if learners are near copies or worth less than half their number of voters; else None.

    Without `names` they are learners, numbered from 1; with names, members of a pool.
    """
    who = "members" if names else "learners"
    names = list(names) or [str(at + 1) for at in range(len(phi_RR))]
    size, worth, groups = len(phi_RR), effective_voters(phi_RR), near_copies(phi_RR)
    worth_words = f"the {size} {who} are worth {worth:.1f} independent voters"
    if groups:
        named = "; ".join(", ".join(names[at] for at in group) for group in groups)
        many = sum(map(len, groups))
        copies = f"{many} of {size} {who} are near copies (errors correlate above {NEAR_COPY}: {who} {named})"
        return f"{copies}; {worth_words}"
    return f"the {who} err together: {worth_words}" if worth < size / 2 else None


def check_wrong(wrong_RN: np.ndarray) -> np.ndarray:
    """wrong_RN as float64; a ValueError unless it is R > 0 learners by N > 0 rows (or more axes), from 0 to 1."""
    wrong_RN = np.asarray(wrong_RN, dtype=np.float64)
    if wrong_RN.ndim < 2 or not wrong_RN.size or not ((wrong_RN >= 0) & (wrong_RN <= 1)).all():
        raise ValueError("wrong must be learners by rows, at least one of each, from 0 (right) to 1 (wrong)")
    return wrong_RN
