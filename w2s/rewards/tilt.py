"""How rewards change labels: they tilt a committee's distribution, and accept or reject its labels."""

from typing import Literal, NamedTuple

import numpy as np

from w2s.ensemble.combiners import votes
from w2s.ensemble.selection import explain
from w2s.store.records import BadInput

STRENGTHS = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
TEMPERATURES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)


class ChosenStrength(NamedTuple):
    """The chosen strength, and gold's mean log-likelihood (nats) at each strength of the grid and its best temperature.

    rows: how many questions were used; in the others gold has probability 0, which no tilt can change.
    """

    strength: float
    grid_G: np.ndarray
    likelihood_G: np.ndarray
    rows: int


def tilt(probs_NK: np.ndarray, mask_NK: np.ndarray, rewards_NK: np.ndarray, *, strength: float = 1.0) -> np.ndarray:
    """probs_NK tilted by the rewards: p · exp(strength · reward), renormalised.

    This maximises the expected reward minus the divergence from p divided by strength. A reward's zero does not matter,
    its unit does. A candidate without a reward (nan) gets the mean reward of its question's others; a question
    without any reward is unchanged. Probability 0 stays 0. strength >= 0; 0 changes nothing.
    """
    return np.exp(log_tilted(probs_NK, mask_NK, rewards_NK, strength))


def choose_strength(
    probs_NK: np.ndarray, mask_NK: np.ndarray, rewards_NK: np.ndarray, gold_N: np.ndarray
) -> ChosenStrength:
    """The strength of STRENGTHS that makes the right candidates (gold_N) of validation questions most likely.

    Each strength is judged at its best temperature: otherwise an underconfident committee would gain from any reward
    that raises its confidence, and lose accuracy. 0 is always tried, and ties go to the smaller strength, so rewards
    that do not help do nothing.
    """
    gold_N, rows_N = np.asarray(gold_N, dtype=int), np.arange(len(gold_N))
    if not len(gold_N):
        raise ValueError("choose_strength: there is no validation question")
    if (gold_N < 0).any() or not np.asarray(mask_NK)[rows_N, gold_N].all():
        raise ValueError("choose_strength: a gold index belongs to no candidate")
    grid_G = np.unique([0.0, *STRENGTHS])
    possible_N = np.asarray(probs_NK)[rows_N, gold_N] > 0
    if not possible_N.any():
        return ChosenStrength(0.0, grid_G, np.full(len(grid_G), -np.inf), 0)
    rows_N, gold_N = rows_N[possible_N], gold_N[possible_N]

    def likelihood(strength: float) -> float:
        log_NK = log_tilted(probs_NK, mask_NK, rewards_NK, strength)
        return max(log_normalised(log_NK / temperature)[rows_N, gold_N].mean() for temperature in TEMPERATURES)

    likelihood_G = np.array([likelihood(strength) for strength in grid_G])
    best = np.argmax(likelihood_G >= likelihood_G.max() - 1e-12)  # the smallest; smaller differences are rounding
    return ChosenStrength(float(grid_G[best]), grid_G, likelihood_G, int(possible_N.sum()))


def accept(
    probs_NK: np.ndarray,
    mask_NK: np.ndarray,
    rewards_NK: np.ndarray,
    *,
    of: Literal["reward", "margin"] = "margin",
    least: float | None = None,
    quantile: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Labels whose best candidate has at least a certain reward, or margin over the reward of the best other one.

    The best candidate is the label's (the most probable; where several tie, their mean reward counts), so a negative
    margin means that the rewards prefer another one. The bound is `least` (in units of the rewards) or the `quantile`
    (0 to 1) of the set's values. Returns (keep_N, why_N), as selectors do. A label without a reward is rejected; one
    without a rewarded rival has no margin and is accepted.
    """
    if of not in ("reward", "margin"):
        raise BadInput(f"of: {of!r} given; allowed: reward, margin")
    if (least is None) == (quantile is None):
        raise BadInput("least: give exactly one of least and quantile")
    if quantile is not None and not 0 <= quantile <= 1:
        raise BadInput(f"quantile: {quantile!r} given; allowed: 0 to 1")
    best_NK = votes(probs_NK, mask_NK)
    value_N = np.where(best_NK > 0, np.nan_to_num(rewards_NK) * best_NK, 0).sum(1)
    unknown_N = (np.isnan(rewards_NK) & (best_NK > 0)).any(1)
    if of == "margin":
        rival_NK = np.asarray(mask_NK, dtype=bool) & (best_NK == 0) & ~np.isnan(rewards_NK)
        value_N = value_N - np.where(rival_NK, rewards_NK, -np.inf).max(1, initial=-np.inf)
    bound = least
    if bound is None:
        # The value of some label: no interpolation between two, since one may be infinite.
        known = np.sort(value_N[~unknown_N])
        bound = known[int(quantile * (len(known) - 1))] if len(known) else 0.0
    keep_N = ~unknown_N & (value_N >= bound)
    why_N = explain(keep_N, f"the {of} is {{:.3f}}, below {bound:.3f}", value_N)
    return keep_N, np.where(unknown_N, "no reward model judged it", why_N)


def log_tilted(probs_NK: np.ndarray, mask_NK: np.ndarray, rewards_NK: np.ndarray, strength: float) -> np.ndarray:
    """ln of `tilt`, exact where its exponent is 0 in float64; −inf where the probability is 0."""
    if not 0 <= strength < np.inf:
        raise BadInput(f"strength: {strength!r} given; allowed: a number of 0 or more")
    probs_NK, mask_NK = np.asarray(probs_NK, dtype=np.float64), np.asarray(mask_NK, dtype=bool)
    if not np.shape(rewards_NK) == probs_NK.shape == mask_NK.shape:
        raise ValueError(f"probs of shape {probs_NK.shape} and rewards of shape {np.shape(rewards_NK)} do not fit")
    rewards_NK = np.where(mask_NK, np.asarray(rewards_NK, dtype=np.float64), np.nan)
    if np.isinf(rewards_NK).any():
        raise ValueError(f"{int(np.isinf(rewards_NK).sum())} rewards are infinite")
    count_N1 = (~np.isnan(rewards_NK)).sum(1, keepdims=True)
    mean_N1 = np.nansum(rewards_NK, axis=1, keepdims=True) / np.maximum(count_N1, 1)
    possible_NK = mask_NK & (probs_NK > 0)
    rewards_NK = np.where(np.isnan(rewards_NK), mean_N1, rewards_NK)
    # Only differences matter. Relative to the best possible candidate they are <= 0, so that no strength overflows.
    highest_N1 = np.where(possible_NK, rewards_NK, -np.inf).max(1, keepdims=True)
    behind_NK = np.where(possible_NK, rewards_NK - highest_N1, 0)
    with np.errstate(divide="ignore", over="ignore"):
        log_NK = np.log(np.where(possible_NK, probs_NK, 0)) + strength * behind_NK
    return log_normalised(log_NK)


def log_normalised(log_NK: np.ndarray) -> np.ndarray:
    """Rows of log-probabilities, shifted so that their exponentials sum to 1."""
    most_N1 = log_NK.max(1, keepdims=True)
    return log_NK - most_N1 - np.log(np.exp(log_NK - most_N1).sum(1, keepdims=True))
