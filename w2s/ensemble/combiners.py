"""Combiners: how the opinions of R learners become one.

A combiner is `(probs_RNK, mask_NK, alpha_R, abstained_RN=None, *, options) -> probs_NK`. probs_RNK are the learners'
distributions over each row's candidates, mask_NK marks the real candidates, alpha_R >= 0 weighs the learners (only
their proportions matter) and abstained_RN marks the rows on which a learner abstains and has no say. A row on which all
abstain comes out uniform. Rows sum to 1 over the real candidates and are 0 elsewhere.

No result depends on the order of candidates, learners or rows: a learner whose best candidates tie splits its vote.
`uniform_vote`, `plurality` and `mean_probability` ignore alpha_R. The uniform control of any other combiner is that
combiner with alphas of 1.
"""

import numpy as np
from numpy import ndarray as Array

from w2s.store.records import BadInput, softmax


def soft_vote(
    probs_RNK: Array, mask_NK: Array, alpha_R: Array, abstained_RN: Array | None = None, *, temperature: float = 1.0
) -> Array:
    """Alpha-weighted mean of the probabilities, Σ alpha·p / Σ alpha.

    EnsemW2S (Agrawal et al., arXiv 2410.04571). Each learner's distribution is first raised to the power 1/temperature:
    a temperature above 1 softens overconfident learners.
    """
    return pool(sharpen(probs_RNK, mask_NK, temperature), mask_NK, alpha_R, abstained_RN)


def mean_probability(
    probs_RNK: Array, mask_NK: Array, alpha_R: Array, abstained_RN: Array | None = None, *, temperature: float = 1.0
) -> Array:
    """Plain mean of the probabilities: the soft vote with equal alphas."""
    return soft_vote(probs_RNK, mask_NK, np.ones(len(probs_RNK)), abstained_RN, temperature=temperature)


def weighted_vote(probs_RNK: Array, mask_NK: Array, alpha_R: Array, abstained_RN: Array | None = None) -> Array:
    """Each learner votes for its best candidate with its alpha; the shares of the votes.

    SAMME's committee (Zhu et al. 2009, algorithm 2): its decision is the largest share.
    """
    return pool(votes(probs_RNK, mask_NK), mask_NK, alpha_R, abstained_RN)


def uniform_vote(probs_RNK: Array, mask_NK: Array, alpha_R: Array, abstained_RN: Array | None = None) -> Array:
    """Each learner has one vote for its best candidate; the shares of the votes."""
    return weighted_vote(probs_RNK, mask_NK, np.ones(len(probs_RNK)), abstained_RN)


def plurality(probs_RNK: Array, mask_NK: Array, alpha_R: Array, abstained_RN: Array | None = None) -> Array:
    """Each learner has one vote and the winner takes all: probability 1 for the candidate with the most votes.

    Ties go to the candidate with the higher mean probability; candidates that still tie share the 1 equally.
    """
    share_NK = uniform_vote(probs_RNK, mask_NK, alpha_R, abstained_RN)
    mean_NK = mean_probability(probs_RNK, mask_NK, alpha_R, abstained_RN)
    # Shares and means are summed in the order of the learners: differences within rounding are ties.
    most_NK = share_NK >= share_NK.max(1, keepdims=True) - 1e-12
    mean_NK = np.where(most_NK & mask_NK, mean_NK, -1)
    winner_NK = mean_NK >= mean_NK.max(1, keepdims=True) - 1e-12
    return winner_NK / winner_NK.sum(1, keepdims=True)


def log_odds(
    probs_RNK: Array,
    mask_NK: Array,
    alpha_R: Array,
    abstained_RN: Array | None = None,
    *,
    temperature: float = 1.0,
    least_prob: float = 1e-6,
) -> Array:
    """Alpha-weighted mean of the log-probabilities (a logarithmic opinion pool).

    Genest and Zidek 1986. A temperature of 1 is the weighted geometric mean; 1/R, with equal alphas, is naive Bayes,
    which assumes independent learners. `least_prob` bounds each probability from below, so that no learner has a veto.
    """
    if not 0 < least_prob < 1:
        raise BadInput(f"least_prob: {least_prob!r} given; allowed: above 0 and below 1")
    check_temperature(temperature)
    log_RNK = np.log(np.maximum(np.asarray(probs_RNK, dtype=np.float64), least_prob))
    return softmax(weighted_mean(log_RNK, alpha_R, abstained_RN) / temperature, mask_NK)


def votes(probs_RNK: Array, mask_NK: Array) -> Array:
    """One vote for the most probable candidate, split equally between ties. Works for (N, K) as well."""
    probs_RNK = np.where(mask_NK, probs_RNK, -np.inf)
    best_RNK = probs_RNK == probs_RNK.max(-1, keepdims=True)
    return best_RNK / best_RNK.sum(-1, keepdims=True)


def sharpen(probs_RNK: Array, mask_NK: Array, temperature: float) -> Array:
    """p^(1/temperature), normalised, in log space. Works for (N, K) as well."""
    check_temperature(temperature)
    probs_RNK = np.asarray(probs_RNK, dtype=np.float64)
    if temperature == 1:
        return probs_RNK
    with np.errstate(divide="ignore"):
        log_RNK = np.log(np.where(mask_NK, probs_RNK, 0)) / temperature
    sharp_RNK = np.exp(log_RNK - log_RNK.max(-1, keepdims=True))
    return sharp_RNK / sharp_RNK.sum(-1, keepdims=True)


def pool(opinions_RNK: Array, mask_NK: Array, alpha_R: Array, abstained_RN: Array | None) -> Array:
    """The weighted mean of distributions as a distribution; uniform where no learner has a say."""
    pooled_NK = np.where(mask_NK, weighted_mean(opinions_RNK, alpha_R, abstained_RN), 0)
    total_N1 = pooled_NK.sum(1, keepdims=True)
    uniform_NK = mask_NK / np.sum(mask_NK, axis=1, keepdims=True)
    return np.where(total_N1 > 0, pooled_NK / np.where(total_N1 > 0, total_N1, 1), uniform_NK)


def weighted_mean(values_RNK: Array, alpha_R: Array, abstained_RN: Array | None) -> Array:
    """Σ alpha·values / Σ alpha over the learners that have a say in the row; 0 where none has."""
    values_RNK, alpha_R = np.asarray(values_RNK, dtype=np.float64), np.asarray(alpha_R, dtype=np.float64)
    if alpha_R.shape != values_RNK.shape[:1]:
        raise ValueError(f"{len(values_RNK)} learners, but alphas of shape {alpha_R.shape}")
    if not np.isfinite(alpha_R).all() or (alpha_R < 0).any() or not alpha_R.any():
        raise ValueError(f"alphas must be finite, not negative, and not all of them 0: {alpha_R}")
    if not np.isfinite(values_RNK).all():
        raise ValueError("a learner's probability is not finite")
    alpha_RN = np.repeat(alpha_R[:, None] / alpha_R.max(), values_RNK.shape[1], axis=1)
    if abstained_RN is not None:
        alpha_RN = np.where(abstained_RN, 0, alpha_RN)
    total_N1 = alpha_RN.sum(0)[:, None]
    return np.einsum("rn,rnk->nk", alpha_RN, values_RNK) / np.where(total_N1 > 0, total_N1, 1)


def check_temperature(temperature: float) -> None:
    """Raise a BadInput unless it is a finite number above 0."""
    if not 0 < temperature < np.inf:
        raise BadInput(f"temperature: {temperature!r} given; allowed: a number above 0")


ALL = (uniform_vote, plurality, mean_probability, soft_vote, weighted_vote, log_odds)
COMBINERS = {combiner.__name__: combiner for combiner in ALL}
