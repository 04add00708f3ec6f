"""Selectors: which pseudo-labels the student is trained on, and why not the others.

A selector is `(ids, probs_NK, mask_NK, votes_RNK, sources_N, *, options) -> (keep_N, why_N)`. probs_NK is the
committee's distribution, votes_RNK each learner's vote (`combiners.votes`, zeros where it abstained), sources_N the
name of each row's dataset. A share keeps exactly that many rows (rounded, at least 1); ties are broken by a hash of the
id, so that neither the order of the rows nor a seed matters.
"""

import hashlib

import numpy as np
from numpy import ndarray as Array

from w2s.ensemble.combiners import sharpen, votes
from w2s.store.records import BadInput, PseudoLabels

KEPT = "kept"


def everything(ids: Array, probs_NK: Array, mask_NK: Array, votes_RNK: Array, sources_N: Array) -> tuple[Array, Array]:
    """Every label."""
    return np.ones(len(ids), dtype=bool), np.full(len(ids), KEPT)


def confidence(
    ids: Array,
    probs_NK: Array,
    mask_NK: Array,
    votes_RNK: Array,
    sources_N: Array,
    *,
    keep_share: float = 0.5,
    by_source: bool = False,
) -> tuple[Array, Array]:
    """The most confident labels: a share of all, or (by_source) the same share of each dataset.

    Confidence is the committee's probability of its best candidate.
    """
    confidence_N = np.max(probs_NK, axis=1)
    groups_N = np.asarray(sources_N) if by_source else np.zeros(len(ids), dtype=int)
    keep_N = np.zeros(len(ids), dtype=bool)
    for group in np.unique(groups_N):
        rows = np.flatnonzero(groups_N == group)
        order = np.lexsort((lots(np.asarray(ids)[rows]), -confidence_N[rows]))
        keep_N[rows[order[: count_kept(keep_share, len(rows))]]] = True
    words = "confidence {:.3f} is not in the top " + f"{keep_share:.0%}" + (" of its source" if by_source else "")
    return keep_N, explain(keep_N, words, confidence_N)


def agreement(
    ids: Array, probs_NK: Array, mask_NK: Array, votes_RNK: Array, sources_N: Array, *, threshold: float = 0.6
) -> tuple[Array, Array]:
    """The labels that at least `threshold` (0 to 1) of the learners that did not abstain voted for."""
    if not 0 <= threshold <= 1:
        raise BadInput(f"threshold: {threshold!r} given; allowed: 0 to 1")
    cast_N = np.sum(votes_RNK, axis=(0, 2))
    for_winner_N = (np.sum(votes_RNK, axis=0) * votes(probs_NK, mask_NK)).sum(1)
    share_N = for_winner_N / np.where(cast_N > 0, cast_N, 1)
    keep_N = share_N >= threshold - 1e-12  # three thirds need not sum to 1 in float64
    return keep_N, explain(keep_N, "{:.3f} of the learners agree, below " + f"{threshold}", share_N)


def per_class(
    ids: Array, probs_NK: Array, mask_NK: Array, votes_RNK: Array, sources_N: Array, *, keep_share: float = 0.5
) -> tuple[Array, Array]:
    """The most confident labels of each predicted position, in numbers as equal as possible.

    For labels whose positions mean something (yes and no) and a committee that leans to one of them.
    """
    confidence_N, winner_N, lots_N = np.max(probs_NK, axis=1), np.argmax(probs_NK, axis=1), lots(ids)
    place_N = np.zeros(len(ids), dtype=int)
    for winner in np.unique(winner_N):
        rows = np.flatnonzero(winner_N == winner)
        place_N[rows[np.lexsort((lots_N[rows], -confidence_N[rows]))]] = np.arange(len(rows))
    # The first of every position, then the second of every position, ...: as balanced as their sizes allow.
    order_N = np.lexsort((lots_N, -confidence_N, place_N))
    keep_N = np.zeros(len(ids), dtype=bool)
    keep_N[order_N[: count_kept(keep_share, len(ids))]] = True
    return keep_N, explain(keep_N, "number {:.0f} by confidence of its position: others came first", place_N + 1)


def make_labels(
    ids: Array,
    probs_NK: Array,
    mask_NK: Array,
    keep_N: Array,
    why_N: Array,
    *,
    soft: bool = True,
    temperature: float = 1.0,
) -> PseudoLabels:
    """The committee's distributions as training targets; dropped rows stay, with weight 0 and the reason.

    Soft targets are p^(1/temperature), normalised: sharper below 1. Hard targets put 1 on the best candidate, split
    equally between ties.
    """
    target_NK = sharpen(probs_NK, mask_NK, temperature) if soft else votes(probs_NK, mask_NK)
    return PseudoLabels(np.asarray(ids), target_NK, np.asarray(keep_N, dtype=np.float64), np.asarray(why_N))


def count_kept(keep_share: float, size: int) -> int:
    """How many of `size` rows a share (above 0, up to 1) keeps: rounded half up, at least 1."""
    if not 0 < keep_share <= 1:
        raise BadInput(f"keep_share: {keep_share!r} given; allowed: above 0, up to 1")
    return min(size, max(1, int(np.floor(keep_share * size + 0.5))))


def lots(ids: Array) -> Array:
    """A pseudo-random number for each id, always the same."""
    return np.array([int(hashlib.sha256(str(key).encode()).hexdigest()[:15], 16) for key in ids], dtype=np.int64)


def explain(keep_N: Array, words: str, value_N: Array) -> Array:
    """why_N: 'kept', or `words` formatted with the row's value."""
    why = [KEPT if keep else words.format(value) for keep, value in zip(keep_N, value_N, strict=True)]
    return np.array(why, dtype=str)


SELECTORS = {"everything": everything, "confidence": confidence, "agreement": agreement, "per_class": per_class}
