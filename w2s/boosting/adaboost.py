"""One round of AdaBoost: from right and wrong to an alpha and the next round's weights.

There is no loop here, because in the pipeline every round is a stage of its own. Nothing here knows what a learner is:
it sees the weights of the samples (rows, or tokens: `boosting.tokens`) and how wrong the learner was on each.

`wrong_N` is 0 (right), 1 (wrong) or between: a tie between two candidates, one of them right, is 0.5 wrong. It should
come from predictions on rows that the learner did not train on: a fine-tuned model remembers its training rows, so its
in-sample error is near 0 and would end the boosting at once.

Sums are exact (math.fsum), so the order of the rows changes no bit of a result.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from w2s.store.records import BadInput, Round

EPSILON = float(np.finfo(np.float64).eps)


def wrongness(probs_NK: np.ndarray, mask_NK: np.ndarray, gold_N: np.ndarray) -> np.ndarray:
    """wrong_N, 0 to 1: how wrong the most probable candidate is; 1 - 1/t if t candidates tie, gold among them.

    So a learner that abstains (a uniform row) errs as often as chance, wherever the right answer stands. Raises a
    ValueError where gold_N is not the position of a candidate.
    """
    probs_NK = np.where(mask_NK, probs_NK, -np.inf)
    best_NK = probs_NK == probs_NK.max(1, keepdims=True)
    gold_N = np.asarray(gold_N, dtype=int)
    if (gold_N < 0).any() or not np.take_along_axis(np.asarray(mask_NK), gold_N[:, None], 1).all():
        raise ValueError("gold: a right answer is not among the candidates of its row")
    return 1 - np.take_along_axis(best_NK, gold_N[:, None], 1)[:, 0] / best_NK.sum(1)


def weighted_error(weight_N: np.ndarray, wrong_N: np.ndarray) -> float:
    """Σ w·wrong / Σ w, 0 to 1. The weights need not be normalised; no rows, or a NaN, is a ValueError."""
    weight_N, wrong_N = check_weights(weight_N), check_wrong(wrong_N, len(weight_N))
    return min(1.0, math.fsum(weight_N * wrong_N) / math.fsum(weight_N))


def chance_error(weight_N: np.ndarray, count_N: np.ndarray) -> float:
    """The error of guessing: the weighted mean of (K_i - 1)/K_i, where row i has K_i = count_N[i] >= 2 candidates.

    With the same K everywhere it is SAMME's (K-1)/K; a mix of questions with 3 to 5 choices needs the mean.
    """
    if np.min(count_N, initial=2) < 2:
        raise ValueError("a row has fewer than 2 candidates: there is nothing to choose")
    return weighted_error(weight_N, 1 - 1 / np.asarray(count_N, dtype=np.float64))


def log_odds_gain(error: float, reference_error: float, *, shrinkage: float, clip: Sequence[float] | None) -> float:
    """shrinkage · clip(ln((1-e)/e) - ln((1-e_ref)/e_ref)), finite for every e from 0 to 1."""
    if not shrinkage > 0 or not math.isfinite(shrinkage):
        raise BadInput(f"shrinkage: {shrinkage!r} given; allowed: a number above 0")
    if clip is not None and (len(clip) != 2 or not clip[0] < clip[1]):
        raise BadInput(f"clip: {clip!r} given; allowed: null or [lowest, highest]")
    if not 0 <= error <= 1 or not 0 <= reference_error <= 1:
        raise ValueError(f"error {error} and reference error {reference_error} must lie between 0 and 1")
    # An error of exactly 0 or 1 is moved by the float64 epsilon: alpha stays within about ±36 + prior.
    error, reference_error = (min(max(value, EPSILON), 1 - EPSILON) for value in (error, reference_error))
    alpha = math.log((1 - error) / error) - math.log((1 - reference_error) / reference_error)
    if clip is not None:
        alpha = min(max(alpha, clip[0]), clip[1])
    return shrinkage * alpha


# A booster is (error, chance_error, untrained_error) -> (alpha, reference_error). The errors are weighted, 0 to 1.
# reference_error is what the learner has to beat; None: there is nothing to beat, and the weights stay as they are.


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

    Zhu, Zou, Rosset and Hastie 2009, algorithm 2 (not SAMME.R: it needs only right or wrong). `shrinkage` is
    scikit-learn's learning_rate. `clip` bounds alpha before the shrinkage; a lower bound above 0 keeps learners that
    are no better than chance and lets boosting continue. `perfect_alpha` is the alpha of a learner without errors:
    1 in scikit-learn; null, the default, gives it the largest alpha of all.
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

    Agrawal et al., arXiv 2410.04571. The paper's alpha carries a prior term, quoted as ln(1/(1-ε) - 1). Our reading:
    ε is the error of the untrained base model on the same rows and weights, which makes alpha the log-odds gain over
    that model, above 0 exactly when the round beats it. `reference` names e_ref: `untrained`, `chance` (this is SAMME),
    `half` (two-class AdaBoost without a prior: Freund and Schapire 1997), or a number above 0 and below 1.
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

    The learners differ in their bootstrap sample (`bootstrap`) and their seed.
    """
    return 1.0, None


def reweight(weight_N: np.ndarray, wrong_N: np.ndarray, alpha: float) -> np.ndarray:
    """w · exp(alpha · wrong), computed in log space, sum 1. A weight above 0 stays above 0; a weight of 0 stays 0."""
    weight_N, wrong_N = check_weights(weight_N), check_wrong(wrong_N, len(weight_N))
    if not math.isfinite(alpha):
        raise ValueError(f"alpha is {alpha}")
    with np.errstate(divide="ignore"):
        log_N = np.log(weight_N) + alpha * wrong_N
    new_N = normalise(np.exp(log_N - log_N.max()))
    return np.where((weight_N > 0) & (new_N < EPSILON), EPSILON, new_N)  # as in scikit-learn, see its issue 20320


def effective_share(weight_N: np.ndarray) -> float:
    """Kish's effective sample size (Σw)² / Σw², over N: 1 for uniform weights, 1/N when one row has all the weight."""
    weight_N = normalise(check_weights(weight_N))
    return min(1.0, 1 / (len(weight_N) * math.fsum(weight_N**2)))


def keep_effective_share(weight_N: np.ndarray, floor: float) -> tuple[np.ndarray, float]:
    """The weights tempered, w <- w^0.9 repeatedly, until their effective share is at least `floor` (0 to 1).

    Returns the weights (sum 1) and the total exponent (1: unchanged). This keeps a few rows, often mislabelled ones,
    from becoming all that the next learner sees. A floor that rows of weight 0 put out of reach is a BadInput.
    """
    weight_N = normalise(check_weights(weight_N))
    if (share := np.mean(weight_N > 0)) < floor:
        raise BadInput(f"effective sample share: {floor} given, but only {share:.3f} of the rows have weight")
    log_N, exponent = np.log(np.where(weight_N > 0, weight_N / weight_N.max(), 1)), 1.0
    while effective_share(weight_N) < floor - 1e-9:
        exponent *= 0.9
        weight_N = normalise(np.where(weight_N > 0, np.exp(exponent * log_N), 0))
    return weight_N, exponent


def bootstrap(weight_N: np.ndarray, size: int, seed: int) -> np.ndarray:
    """`size` row positions (with repeats, sorted), each drawn independently in proportion to its weight."""
    weight_N, rng = normalise(check_weights(weight_N)), np.random.default_rng(seed)
    return np.sort(rng.choice(len(weight_N), size=size, p=weight_N))


def stop_reason(
    error: float, alpha: float, reference: float | None, share: float, *, name: str = "chance", least_share: float = 0.0
) -> str | None:
    """Why no further round should follow this one, in words, or None.

    `reference` is the error to beat, called `name`; `share` the effective share of the weights that the round leaves,
    before tempering. Bagging (no reference) never stops.
    """
    if reference is None:
        return None
    if alpha <= 0:
        return f"error {error:.3f} is not better than {name} {reference:.3f}"
    if error <= 0:
        return "error 0: nothing is left to learn from"
    if share < least_share:
        return f"effective sample size {share:.3f} of the rows is below {least_share:.3f}"
    return None


def stale_reason(committee_accuracy_R: Sequence[float], *, patience: int) -> str | None:
    """Why no further round should follow, if the committee has not improved for `patience` >= 1 rounds; else None.

    committee_accuracy_R is its accuracy on validation after 1, 2, ... rounds (`diagnostics.accuracy_by_rounds`).
    """
    best = best_rounds(committee_accuracy_R)
    if len(committee_accuracy_R) - best < patience:
        return None
    top = committee_accuracy_R[best - 1]
    return f"the committee has not improved on {top:.3f} on validation (round {best}) for {patience} rounds"


def best_rounds(committee_accuracy_R: Sequence[float]) -> int:
    """How many rounds to keep: the fewest that reach the best accuracy on validation (never on the test)."""
    accuracy_R = np.asarray(committee_accuracy_R, dtype=np.float64)
    if np.isnan(accuracy_R).any():
        raise ValueError("the accuracy of a committee is NaN")
    return int(np.argmax(accuracy_R)) + 1 if len(accuracy_R) else 0


class Samples(NamedTuple):
    """What one round learns from: S rows, or tokens of answers.

    weight_S: the weights that the learner was fitted with. wrong_S, untrained_wrong_S: how wrong the learner and the
    untrained base are, 0 to 1. count_S: the number of possible answers, >= 2. judged_S (bool): the samples on which
    errors are measured, those that the learner did not train on. None: not measured, and all.
    """

    weight_S: np.ndarray
    wrong_S: np.ndarray
    count_S: np.ndarray
    untrained_wrong_S: np.ndarray | None = None
    judged_S: np.ndarray | None = None


def boosting_round(
    index: int, learner: str, samples: Samples, *, booster: Callable, share_floor: float = 0.0, least_share: float = 0.0
) -> tuple[Round, np.ndarray]:
    """One round's Round record and the next round's weights (sum 1).

    Errors are measured on the judged samples; the weights of all samples are updated, then tempered to an effective
    share of at least `share_floor`. The boosting stops if that share is below `least_share` before tempering. A learner
    with alpha <= 0 is not in the committee, and leaves the weights as they were.
    """
    rows_S = np.full(len(samples.weight_S), True) if samples.judged_S is None else np.asarray(samples.judged_S, bool)
    weight_J, wrong_J, count_J = (np.asarray(values_S)[rows_S] for values_S in samples[:3])
    error, chance, untrained = weighted_error(weight_J, wrong_J), chance_error(weight_J, count_J), None
    if samples.untrained_wrong_S is not None:
        untrained = weighted_error(weight_J, np.asarray(samples.untrained_wrong_S)[rows_S])
    alpha, reference = booster(error, chance, untrained)
    new_S = reweight(samples.weight_S, samples.wrong_S, 0.0 if reference is None else max(alpha, 0.0))
    share = effective_share(new_S)
    name = {untrained: "the untrained model's", chance: "chance"}.get(reference, "the reference")
    stop = stop_reason(error, alpha, reference, share, name=name, least_share=least_share)
    tempered_S, _ = keep_effective_share(new_S, share_floor)
    return Round(index, learner, error, alpha, share, stop), tempered_S


def normalise(weight_N: np.ndarray) -> np.ndarray:
    """The weights, scaled to sum to 1."""
    return weight_N / math.fsum(weight_N)


def check_weights(weight_N: np.ndarray) -> np.ndarray:
    """The weights as float64; a ValueError unless they are finite, not negative and not all 0."""
    weight_N = np.asarray(weight_N, dtype=np.float64)
    if weight_N.ndim != 1 or not np.isfinite(weight_N).all() or (weight_N < 0).any() or not weight_N.any():
        raise ValueError("weights must be one finite number >= 0 for each row, and not all of them 0")
    return weight_N


def check_wrong(wrong_N: np.ndarray, length: int) -> np.ndarray:
    """How wrong each row is, as float64; a ValueError unless there is one value from 0 to 1 for each row."""
    wrong_N = np.asarray(wrong_N, dtype=np.float64)
    if wrong_N.shape != (length,) or not ((wrong_N >= 0) & (wrong_N <= 1)).all():
        raise ValueError(f"wrong must be {length} numbers from 0 (right) to 1 (wrong)")
    return wrong_N


BOOSTERS = {"samme": samme, "ensemw2s": ensemw2s, "bagging": bagging}
