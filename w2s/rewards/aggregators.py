"""Aggregators: how the scores of M reward models become one.

An aggregator is `(scores_MNK, mask_NK, *, options) -> scores_NK`. mask_NK marks the real candidates. A nan for a real
candidate means that the member could not judge it: the member is left out there, and `unjudged` counts it. The result
is nan for a candidate that no member judged, and for padding.

Reward models are fitted to differences, so the zero and the unit of their scores mean nothing: `standardise` comes
first, as a step of its own, and every aggregator except `rank_average` depends on it. No result depends on the order of
members, questions or candidates. The scores of a single member are returned unchanged, except by `rank_average`, which
returns its ranks.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from w2s.store.records import BadInput


def mean(scores_MNK: np.ndarray, mask_NK: np.ndarray) -> np.ndarray:
    """The mean of the members' scores."""
    scores_MNK, count_NK = judged(scores_MNK, mask_NK)
    return np.nansum(scores_MNK, axis=0) / at_least_one(count_NK)


def median(scores_MNK: np.ndarray, mask_NK: np.ndarray) -> np.ndarray:
    """The median of the members' scores: a single outlier, up or down, has little influence."""
    scores_MNK, count_NK = judged(scores_MNK, mask_NK)
    middle_NK = np.nanmedian(np.where(count_NK > 0, scores_MNK, 0), axis=0)
    return np.where(count_NK > 0, middle_NK, np.nan)


def worst(scores_MNK: np.ndarray, mask_NK: np.ndarray) -> np.ndarray:
    """The lowest of the members' scores: every member must like the candidate. Coste et al., arXiv 2310.02743 (WCO)."""
    scores_MNK, count_NK = judged(scores_MNK, mask_NK)
    return np.where(count_NK > 0, np.where(np.isnan(scores_MNK), np.inf, scores_MNK).min(0), np.nan)


def uncertainty(scores_MNK: np.ndarray, mask_NK: np.ndarray, *, strength: float = 0.5) -> np.ndarray:
    """The mean minus `strength` times the variance between members. Coste et al., arXiv 2310.02743 (UWO).

    The variance divides by the number of members, as in the paper. strength >= 0; 0 is the mean.
    """
    check_not_negative("strength", strength)
    return mean(scores_MNK, mask_NK) - strength * disagreement(scores_MNK, mask_NK) ** 2


def lower_bound(scores_MNK: np.ndarray, mask_NK: np.ndarray, *, z: float = 1.645) -> np.ndarray:
    """The mean minus `z` standard errors: a lower bound on the mean of many such members (95% at z = 1.645).

    The standard error is s / √m over the m members that judged the candidate, where s² divides by m − 1. A single
    member has no spread, so the result is the mean. z >= 0.
    """
    check_not_negative("z", z)
    _, count_NK = judged(scores_MNK, mask_NK)
    # From the deviation, which divides by m, to the standard error: √(m / (m − 1)) / √m.
    error_NK = disagreement(scores_MNK, mask_NK) / np.sqrt(np.maximum(count_NK - 1, 1))
    return mean(scores_MNK, mask_NK) - z * error_NK


def rank_average(scores_MNK: np.ndarray, mask_NK: np.ndarray) -> np.ndarray:
    """The mean of the members' ranks of a question's candidates, 0 (worst) to 1 (best); ties share their ranks.

    Needs no standardising. A member ranks the candidates that it judged; a single one has rank 0.5.
    """
    from scipy.stats import rankdata  # imported here: it takes half a second, and only this aggregator needs it

    scores_MNK, _ = judged(scores_MNK, mask_NK)
    rank_MNK = rankdata(scores_MNK, axis=2, nan_policy="omit") if scores_MNK.size else scores_MNK
    last_MN1 = (~np.isnan(scores_MNK)).sum(2, keepdims=True) - 1
    place_MNK = np.where(last_MN1 > 0, (rank_MNK - 1) / np.maximum(last_MN1, 1), 0.5 + 0 * scores_MNK)
    return mean(place_MNK, mask_NK).round(12)  # so that thirds added in another order still tie


def standardise(
    scores_MNK: np.ndarray, mask_NK: np.ndarray, *, by: Literal["question", "set"] = "question"
) -> np.ndarray:
    """scores_MNK with mean 0 and variance 1 for each member, over each question's candidates or over the whole set.

    `question` keeps only how a member compares the candidates of one question (Bradley-Terry training determines no
    more), and suits the choice of one of several candidates. `set` keeps which questions the member finds well
    answered, as a bound on rewards requires. The variance divides by the count. A member with constant scores prefers
    nothing: all 0. Unjudged candidates stay nan, padding becomes nan.
    """
    if by not in ("question", "set"):
        raise BadInput(f"by: {by!r} given; allowed: question, set")
    scores_MNK, _ = judged(scores_MNK, mask_NK)
    axes = 2 if by == "question" else (1, 2)
    count = at_least_one((~np.isnan(scores_MNK)).sum(axes, keepdims=True))
    # Scaled first, so that no square of a large score overflows.
    largest = np.abs(np.nan_to_num(scores_MNK)).max(axes, keepdims=True, initial=0)
    scaled_MNK = scores_MNK / np.where(largest > 0, largest, 1)
    centred_MNK = scaled_MNK
    for _ in range(2):  # the second time removes the rounding error of the first
        centred_MNK = centred_MNK - np.nansum(centred_MNK, axis=axes, keepdims=True) / count
    deviation = np.sqrt(np.nansum(centred_MNK**2, axis=axes, keepdims=True) / count)
    varied = deviation > 1e-12  # below that is the rounding of equal scores
    even_MNK = np.where(varied, centred_MNK / np.where(varied, deviation, 1), 0 * centred_MNK)
    return even_MNK.round(12)  # so that two members who disagree about a pair cancel out


def make_spec(name: str, aggregate: Mapping[str, Any]) -> Mapping[str, Any]:
    """The spec of aggregator `name`, with the options of `aggregate` (rewards.aggregate) if that names it."""
    return aggregate if name == aggregate["name"] else {"name": name}


def disagreement(scores_MNK: np.ndarray, mask_NK: np.ndarray) -> np.ndarray:
    """deviation_NK >= 0: the standard deviation between the members' scores of each candidate, divided by their count.

    In units of the scores (standardise first); 0 with one member, nan where no member judged.
    """
    scores_MNK, count_NK = judged(scores_MNK, mask_NK)
    centred_MNK = scores_MNK - mean(scores_MNK, mask_NK)
    return np.sqrt(np.nansum(centred_MNK**2, axis=0) / at_least_one(count_NK))


def unjudged(scores_MNK: np.ndarray, mask_NK: np.ndarray) -> np.ndarray:
    """count_M: how many of the real candidates each member could not judge."""
    return (np.isnan(scores_MNK) & np.asarray(mask_NK, dtype=bool)).sum((1, 2))


def judged(scores_MNK: np.ndarray, mask_NK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(scores_MNK in float64, nan outside the mask; count_NK of the members that judged each candidate)."""
    scores_MNK, mask_NK = np.asarray(scores_MNK, dtype=np.float64), np.asarray(mask_NK, dtype=bool)
    if scores_MNK.ndim != 3 or scores_MNK.shape[1:] != mask_NK.shape or not len(scores_MNK):
        raise ValueError(f"rewards of shape {scores_MNK.shape} do not fit a mask of shape {mask_NK.shape}")
    scores_MNK = np.where(mask_NK, scores_MNK, np.nan)
    if np.isinf(scores_MNK).any():
        raise ValueError(f"{int(np.isinf(scores_MNK).sum())} rewards are infinite")
    return scores_MNK, (~np.isnan(scores_MNK)).sum(0)


def at_least_one(count: np.ndarray) -> np.ndarray:
    """The counts, with nan for 0, so that a quotient is undefined there."""
    return np.where(count > 0, count, np.nan)


def check_not_negative(option: str, value: float) -> None:
    if not 0 <= value < np.inf:
        raise BadInput(f"{option}: {value!r} given; allowed: a number of 0 or more")


AGGREGATORS = {method.__name__: method for method in (mean, median, worst, uncertainty, lower_bound, rank_average)}
