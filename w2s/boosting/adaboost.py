"""AdaBoost on whole answers: how one round turns right and wrong into an alpha and the next round's weights.

The loop is kept apart from one round, because in the pipeline every round is a stage of its own. Nothing here knows
what a learner is: it sees the weights of the rows and how wrong the learner was on each of them.

`wrong_N` is 0 (right), 1 (wrong) or a number between: a tie between two candidates of which one is right is 0.5 wrong.
It should come from predictions that the learner did not train on: a fine-tuned model remembers its rows, so that
its in-sample error is near 0 and ends the boosting at once.

Sums are exact (math.fsum), so the order of the rows changes no bit of a result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from w2s.store.records import BadInput, Round

EPSILON = float(np.finfo(np.float64).eps)


def wrongness(probs_NK: np.ndarray, mask_NK: np.ndarray, gold_N: np.ndarray) -> np.ndarray:
    """How wrong the most probable candidate is, 0 to 1; of t tied ones, gold among them, 1 - 1/t.

    So a learner that abstains (a uniform row) errs as often as chance, wherever the right answer stands.
    """
    probs_NK = np.where(mask_NK, probs_NK, -np.inf)
    best_NK = probs_NK == probs_NK.max(1, keepdims=True)
    gold_N = np.asarray(gold_N, dtype=int)
    if (gold_N < 0).any() or not np.take_along_axis(np.asarray(mask_NK), gold_N[:, None], 1).all():
        raise ValueError("gold: a right answer is not among the candidates of its row")
    return 1 - np.take_along_axis(best_NK, gold_N[:, None], 1)[:, 0] / best_NK.sum(1)


def weighted_error(weight_N: np.ndarray, wrong_N: np.ndarray) -> float:
    """Sum of w·wrong over sum of w, 0 to 1. Weights need not be normalised; no rows, or NaN, is a ValueError."""
    weight_N, wrong_N = check_weights(weight_N), check_wrong(wrong_N, len(weight_N))
    return min(1.0, math.fsum(weight_N * wrong_N) / math.fsum(weight_N))


def chance_error(weight_N: np.ndarray, count_N: np.ndarray) -> float:
    """The error of guessing: the weighted mean of (K_i - 1)/K_i, where row i has count_N[i] = K_i >= 2 candidates.

    With the same K everywhere it is SAMME's (K-1)/K; questions with 3 to 5 choices side by side need the mean.
    """
    if np.min(count_N, initial=2) < 2:
        raise ValueError("a row has fewer than 2 candidates: there is nothing to choose")
    return weighted_error(weight_N, 1 - 1 / np.asarray(count_N, dtype=np.float64))


def log_odds_gain(error: float, reference_error: float, *, shrinkage: float, clip: Sequence[float] | None) -> float:
    """shrinkage · clip(ln((1-e)/e) - ln((1-e_ref)/e_ref)); finite for every e from 0 to 1."""
    if not shrinkage > 0 or not math.isfinite(shrinkage):
        raise BadInput(f"shrinkage: {shrinkage!r} given; allowed: a number above 0")
    if clip is not None and (len(clip) != 2 or not clip[0] < clip[1]):
        raise BadInput(f"clip: {clip!r} given; allowed: null or [lowest, highest]")
    if not 0 <= error <= 1 or not 0 <= reference_error <= 1:
        raise ValueError(f"error {error} and reference error {reference_error} must lie between 0 and 1")
    # An error of exactly 0 or 1 counts as one that float64 can just tell from it: alpha stays within about ±36 + prior.
    error, reference_error = (min(max(value, EPSILON), 1 - EPSILON) for value in (error, reference_error))
    alpha = math.log((1 - error) / error) - math.log((1 - reference_error) / reference_error)
    if clip is not None:
        alpha = min(max(alpha, clip[0]), clip[1])
    return shrinkage * alpha


# A booster: (error, chance_error, untrained_error) -> (alpha, reference_error). The errors are weighted, 0 to 1;
# reference_error is the one that the learner has to beat, or None where rows keep their weights and nothing is to beat.


def samme(
    error: float,
    chance_error: float,
    untrained_error: float | None = None,
    *,
    shrinkage: float = 1.0,
    clip: tuple[float, float] | None = None,
    perfect_alpha: float | None = None,
) -> tuple[float, float | None]:
    """SAMME: alpha = ln((1-e)/e) + ln(K-1), the log-odds gain over chance.

    Zhu, Zou, Rosset and Hastie 2009, algorithm 2 (not SAMME.R: only right or wrong is needed). `shrinkage` is
    scikit-learn's learning_rate. `clip` bounds alpha before the shrinkage; a lower bound above 0 keeps learners that
    are no better than chance and lets the boosting go on. `perfect_alpha` is the alpha of a learner without any error:
    scikit-learn gives it 1; null, the default, gives it the largest alpha of all.
    """
    if error <= 0 and perfect_alpha is not None:
        return perfect_alpha, chance_error
    return log_odds_gain(error, chance_error, shrinkage=shrinkage, clip=clip), chance_error


def ensemw2s(
    error: float,
    chance_error: float,
    untrained_error: float | None = None,
    *,
    reference: float | Literal["untrained", "chance", "half"] = "untrained",
    shrinkage: float = 1.0,
    clip: tuple[float, float] | None = None,
) -> tuple[float, float | None]:
    """EnsemW2S: two-class AdaBoost on right or wrong, alpha = ln((1-e)/e) - ln((1-e_ref)/e_ref).

    Agrawal et al., arXiv 2410.04571. The paper's alpha carries a prior term that is quoted as ln(1/(1-ε) - 1). This is
    our reading of it: with ε = the error of the untrained base model on the same rows and weights it is the log-odds
    gain over that model, above 0 exactly when the round beats it. `reference` names e_ref: `untrained`, `chance`
    (which is SAMME), `half` (the AdaBoost of two classes, no prior: Freund and Schapire 1997), or a number above 0 and
    below 1.
    """
    known = {"untrained": untrained_error, "chance": chance_error, "half": 0.5}
    reference_error = known.get(reference, reference) if isinstance(reference, str) else reference
    if reference_error is None:
        raise BadInput("reference: 'untrained' given, but the error of the untrained model was not measured")
    if isinstance(reference_error, str) or not 0 <= reference_error <= 1 or reference in (0, 1):
        raise BadInput(f"reference: {reference!r} given; allowed: {', '.join(known)}, or a number above 0 and below 1")
    return log_odds_gain(error, reference_error, shrinkage=shrinkage, clip=clip), reference_error


def bagging(error: float, chance_error: float, untrained_error: float | None = None) -> tuple[float, float | None]:
    """Bagging: every alpha is 1 and the weights stay as they are.

    What differs between the learners is the bootstrap sample (`resample`, multinomial) and the seed.
    """
    return 1.0, None


def reweight(weight_N: np.ndarray, wrong_N: np.ndarray, alpha: float) -> np.ndarray:
    """w · exp(alpha · wrong), in log space, summing to 1. A weight above 0 stays above 0; one of 0 stays 0."""
    weight_N, wrong_N = check_weights(weight_N), check_wrong(wrong_N, len(weight_N))
    if not math.isfinite(alpha):
        raise ValueError(f"alpha is {alpha}")
    with np.errstate(divide="ignore"):
        log_N = np.log(weight_N) + alpha * wrong_N
    new_N = normalise(np.exp(log_N - log_N.max()))
    return np.where((weight_N > 0) & (new_N < EPSILON), EPSILON, new_N)  # as scikit-learn does, its issue 20320


def effective_share(weight_N: np.ndarray) -> float:
    """Kish's effective sample size (Σw)² / Σw² over N: 1 for uniform weights, 1/N when one row has it all."""
    weight_N = normalise(check_weights(weight_N))
    return min(1.0, 1 / (len(weight_N) * math.fsum(weight_N**2)))


def keep_effective_share(weight_N: np.ndarray, floor: float) -> tuple[np.ndarray, float]:
    """Weights tempered, w <- w^0.9 again and again, until their effective share is at least `floor` (0 to 1).

    Returns the weights (sum 1) and the exponent that was needed in all (1: they were fine). It keeps a few rows, often
    mislabelled ones, from becoming all that the next learner sees.
    """
    if not 0 <= floor <= 1:
        raise BadInput(f"effective sample share: {floor!r} given; allowed: 0 to 1")
    weight_N = normalise(check_weights(weight_N))
    if np.mean(weight_N > 0) < floor:
        raise BadInput(
            f"effective sample share: {floor} asked, but only {np.mean(weight_N > 0):.3f} of rows weigh anything"
        )
    log_N, exponent = np.log(np.where(weight_N > 0, weight_N / weight_N.max(), 1)), 1.0
    while effective_share(weight_N) < floor - 1e-9:
        exponent *= 0.9
        weight_N = normalise(np.where(weight_N > 0, np.exp(exponent * log_N), 0))
    return weight_N, exponent


def resample(
    weight_N: np.ndarray, size: int, seed: int, *, how: Literal["systematic", "multinomial"] = "systematic"
) -> np.ndarray:
    """`size` row positions (with repeats, sorted), each drawn in proportion to its weight.

    Systematic by default: a row appears floor or ceil of size·w times, so that next to no noise is added to what the
    weights say (Kitagawa 1996); the rows are shuffled first, so that neighbours are not tied together. For a bootstrap
    it would be useless, because under uniform weights every row appears once: take `multinomial` there.
    """
    weight_N, rng = normalise(check_weights(weight_N)), np.random.default_rng(seed)
    if how == "multinomial":
        return np.sort(rng.choice(len(weight_N), size=size, p=weight_N))
    order_N = rng.permutation(len(weight_N))
    cumulative_N = np.cumsum(weight_N[order_N])
    points = (np.arange(size) + rng.random()) / size * cumulative_N[-1]
    # A point can round up to the very end: the last row that weighs anything takes it.
    last = int(np.flatnonzero(weight_N[order_N])[-1])
    return np.sort(order_N[np.minimum(np.searchsorted(cumulative_N, points, side="right"), last)])


def stop_reason(
    error: float,
    alpha: float,
    reference_error: float | None,
    share: float,
    *,
    reference_name: str = "chance",
    least_share: float = 0.0,
) -> str | None:
    """Why no further round should follow this one, in words, or None.

    `share` is the effective share of the weights as they came out of the round. Bagging (reference_error None) has
    nothing to stop for.
    """
    if reference_error is None:
        return None
    if alpha <= 0:
        return f"error {error:.3f} is not better than {reference_name} {reference_error:.3f}"
    if error <= 0:
        return "error 0: nothing is left to learn from"
    if share < least_share:
        return f"effective sample size {share:.3f} of the rows is below {least_share:.3f}"
    return None


def stale_reason(committee_accuracy_R: Sequence[float], *, patience: int) -> str | None:
    """Why no further round should follow, where the committee has not improved for `patience` >= 1 rounds, or None.

    committee_accuracy_R is its accuracy on validation after 1, 2, ... rounds (`diagnostics.staged_accuracy`).
    """
    if patience < 1:
        raise BadInput(f"patience: {patience!r} given; allowed: a whole number above 0")
    best = best_rounds(committee_accuracy_R)
    if len(committee_accuracy_R) - best < patience:
        return None
    top = committee_accuracy_R[best - 1]
    return f"the committee has not improved on {top:.3f} on validation (round {best}) for {patience} rounds"


def best_rounds(committee_accuracy_R: Sequence[float]) -> int:
    """How many rounds to keep: the fewest that reach the best accuracy on validation, never on the test."""
    accuracy_R = np.asarray(committee_accuracy_R, dtype=np.float64)
    if np.isnan(accuracy_R).any():
        raise ValueError("the accuracy of a committee is NaN")
    return int(np.argmax(accuracy_R)) + 1 if len(accuracy_R) else 0


def boosting_round(
    index: int,
    learner: str,
    weight_N: np.ndarray,
    wrong_N: np.ndarray,
    count_N: np.ndarray,
    untrained_wrong_N: np.ndarray | None = None,
    judged_N: np.ndarray | None = None,
    *,
    booster: Callable,
    share_floor: float = 0.0,
    least_share: float = 0.0,
) -> tuple[Round, np.ndarray]:
    """One round: the weights the learner was fitted with and how wrong it was -> its Round and the next weights.

    count_N is the number of candidates of each row. judged_N (bool) marks the rows on which the errors are measured,
    those the learner did not train on; all of them by default (cross-fitted). The weights of all rows are updated.
    They are tempered to an effective share of `share_floor`; below `least_share` before tempering, boosting stops. A
    learner with alpha <= 0 is no member of the committee, and the weights are then as they were.
    """
    judged_N = np.ones(len(weight_N), dtype=bool) if judged_N is None else np.asarray(judged_N, dtype=bool)
    rows = np.asarray(weight_N)[judged_N]
    error, chance = (
        weighted_error(rows, np.asarray(wrong_N)[judged_N]),
        chance_error(rows, np.asarray(count_N)[judged_N]),
    )
    untrained = None if untrained_wrong_N is None else weighted_error(rows, np.asarray(untrained_wrong_N)[judged_N])
    alpha, reference = booster(error, chance, untrained)
    step = 0.0 if reference is None else max(alpha, 0.0)
    new_N = reweight(weight_N, wrong_N, step)
    share = effective_share(new_N)
    name = {untrained: "the untrained model's", chance: "chance"}.get(reference, "the reference")
    stop = stop_reason(error, alpha, reference, share, reference_name=name, least_share=least_share)
    tempered_N, _ = keep_effective_share(new_N, share_floor)
    return Round(index, learner, error, alpha, share, stop), tempered_N


def boost(
    fit: Callable[[int, np.ndarray], np.ndarray],
    weight_N: np.ndarray,
    count_N: np.ndarray,
    *,
    booster: Callable,
    rounds: int,
    share_floor: float = 0.0,
) -> tuple[list[Round], np.ndarray]:
    """The whole loop, for learners that fit in memory: fit(index, weight_N) -> wrong_N. Returns rounds, weight_RN."""
    found, history = [], [normalise(check_weights(weight_N))]
    while len(found) < rounds and (not found or found[-1].stop is None):
        index, weight_N = len(found), history[-1]
        one, new_N = boosting_round(
            index, str(index), weight_N, fit(index, weight_N), count_N, booster=booster, share_floor=share_floor
        )
        found, history = [*found, one], [*history, new_N]
    return found, np.array(history[:-1])


def normalise(weight_N: np.ndarray) -> np.ndarray:
    """Weights that sum to 1."""
    return weight_N / math.fsum(weight_N)


def check_weights(weight_N: np.ndarray) -> np.ndarray:
    """The weights as float64; a ValueError unless they are finite, not negative, and not all 0."""
    weight_N = np.asarray(weight_N, dtype=np.float64)
    if weight_N.ndim != 1 or not np.isfinite(weight_N).all() or (weight_N < 0).any() or not weight_N.any():
        raise ValueError("weights must be one finite number >= 0 for each row, and not all of them 0")
    return weight_N


def check_wrong(wrong_N: np.ndarray, length: int) -> np.ndarray:
    """How wrong each row is as float64; a ValueError unless there is one value from 0 to 1 for each of the rows."""
    wrong_N = np.asarray(wrong_N, dtype=np.float64)
    if wrong_N.shape != (length,) or not ((wrong_N >= 0) & (wrong_N <= 1)).all():
        raise ValueError(f"wrong must be {length} numbers from 0 (right) to 1 (wrong)")
    return wrong_N


BOOSTERS = {"samme": samme, "ensemw2s": ensemw2s, "bagging": bagging}
