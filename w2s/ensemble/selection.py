"""Selectors: which pseudo-labels the student is trained on, and why the others are not.

A selector is `(ids, probs_NK, mask_NK, votes_RNK, sources_N, *, options) -> (keep_N, why_N)`. probs_NK is the
committee's distribution, votes_RNK each learner's vote (`combiners.votes`, zeros where it abstained), sources_N the
name of the data set of each row. Where a share is asked for, exactly that many rows are kept (rounded, at least 1);
among equals a hash of the id decides, so that neither the order of the rows nor a seed has a say.
"""

from __future__ import annotations

import hashlib

import numpy as np

from w2s.ensemble.combiners import sharpen, votes
from w2s.store.records import BadInput, PseudoLabels

KEPT = "kept"


def everything(
    ids: np.ndarray, probs_NK: np.ndarray, mask_NK: np.ndarray, votes_RNK: np.ndarray, sources_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Every label is kept."""
    return np.ones(len(ids), dtype=bool), np.full(len(ids), KEPT)


def confidence(
    ids: np.ndarray,
    probs_NK: np.ndarray,
    mask_NK: np.ndarray,
    votes_RNK: np.ndarray,
    sources_N: np.ndarray,
    *,
    keep_share: float = 0.5,
    by_source: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """The most confident labels: a share of all, or (by_source) the same share of each data set.

    Confidence is the committee's probability of its best candidate.
    """
    confidence_N = np.max(probs_NK, axis=1)
    groups_N = np.asarray(sources_N) if by_source else np.zeros(len(ids), dtype=int)
    keep_N = np.zeros(len(ids), dtype=bool)
    for group in np.unique(groups_N):
        rows = np.flatnonzero(groups_N == group)
        order = np.lexsort((lots(np.asarray(ids)[rows]), -confidence_N[rows]))
        keep_N[rows[order[: count_of(keep_share, len(rows))]]] = True
    words = "confidence {:.3f} is not in the top " + f"{keep_share:.0%}" + (" of its source" if by_source else "")
    return keep_N, explain(keep_N, words, confidence_N)


def agreement(
    ids: np.ndarray,
    probs_NK: np.ndarray,
    mask_NK: np.ndarray,
    votes_RNK: np.ndarray,
    sources_N: np.ndarray,
    *,
    threshold: float = 0.6,
) -> tuple[np.ndarray, np.ndarray]:
    """The labels that at least `threshold` (0 to 1) of the learners voted for, of those that did not abstain."""
    if not 0 <= threshold <= 1:
        raise BadInput(f"threshold: {threshold!r} given; allowed: 0 to 1")
    cast_N = np.sum(votes_RNK, axis=(0, 2))
    for_winner_N = (np.sum(votes_RNK, axis=0) * votes(probs_NK, mask_NK)).sum(1)
    share_N = for_winner_N / np.where(cast_N > 0, cast_N, 1)
    keep_N = share_N >= threshold - 1e-12  # three thirds need not make one in float64
    return keep_N, explain(keep_N, "{:.3f} of the learners agree, below " + f"{threshold}", share_N)


def per_class(
    ids: np.ndarray,
    probs_NK: np.ndarray,
    mask_NK: np.ndarray,
    votes_RNK: np.ndarray,
    sources_N: np.ndarray,
    *,
    keep_share: float = 0.5,
) -> tuple[np.ndarray, np.ndarray]:
    """The most confident labels of each predicted position, as equally many of each as there are.

    For labels whose positions mean something (yes and no) and a committee that leans to one of them.
    """
    confidence_N, winner_N, lots_N = np.max(probs_NK, axis=1), np.argmax(probs_NK, axis=1), lots(ids)
    place_N = np.zeros(len(ids), dtype=int)
    for winner in np.unique(winner_N):
        rows = np.flatnonzero(winner_N == winner)
        place_N[rows[np.lexsort((lots_N[rows], -confidence_N[rows]))]] = np.arange(len(rows))
    # All the firsts of their position, then all the seconds, ...: as balanced as the positions' sizes allow.
    order_N = np.lexsort((lots_N, -confidence_N, place_N))
    keep_N = np.zeros(len(ids), dtype=bool)
    keep_N[order_N[: count_of(keep_share, len(ids))]] = True
    return keep_N, explain(keep_N, "number {:.0f} by confidence of its position: others came first", place_N + 1)


def make_labels(
    ids: np.ndarray,
    probs_NK: np.ndarray,
    mask_NK: np.ndarray,
    keep_N: np.ndarray,
    why_N: np.ndarray,
    *,
    soft: bool = True,
    temperature: float = 1.0,
) -> PseudoLabels:
    """The committee's distributions as training targets; dropped rows stay, with weight 0 and the reason.

    Soft targets are p^(1/temperature), normalised: below 1 sharper. Hard ones put 1 on the best candidate, shared
    equally where several tie.
    """
    target_NK = sharpen(probs_NK, mask_NK, temperature) if soft else votes(probs_NK, mask_NK)
    return PseudoLabels(np.asarray(ids), target_NK, np.asarray(keep_N, dtype=np.float64), np.asarray(why_N))


def count_of(keep_share: float, size: int) -> int:
    """How many rows a share (above 0, up to 1) of `size` rows is: rounded half up, at least 1."""
    if not 0 < keep_share <= 1:
        raise BadInput(f"keep_share: {keep_share!r} given; allowed: above 0, up to 1")
    return min(size, max(1, int(np.floor(keep_share * size + 0.5))))


def lots(ids: np.ndarray) -> np.ndarray:
    """A number for each id, as if drawn by lot, and always the same."""
    return np.array([int(hashlib.sha256(str(key).encode()).hexdigest()[:15], 16) for key in ids], dtype=np.int64)


def explain(keep_N: np.ndarray, words: str, value_N: np.ndarray) -> np.ndarray:
    """why_N: 'kept', or the words with the row's value put in."""
    return np.array(
        [KEPT if keep else words.format(value) for keep, value in zip(keep_N, value_N, strict=True)], dtype=str
    )


SELECTORS = {"everything": everything, "confidence": confidence, "agreement": agreement, "per_class": per_class}
