"""Scorers: the probability that a member's answer is right, from all that is known without gold.

A logistic regression for each member on the prompt's features, the question's group, the member's own confidence (as a
rank: scales differ) and its answer; and one for each pair that also sees the answer of the member asked before.
"""

from itertools import combinations

import numpy as np
from scipy.special import expit

from w2s.pools.confidence import confidence, fit_quantiles, ranks
from w2s.pools.features import described, fit_described
from w2s.pools.logistic import fit_one
from w2s.pools.records import ABSTAINED, NOT_ASKED, Learned, Opinions
from w2s.store.records import candidate_mask

KNOTS = 256  # a member's confidence is read as its rank among these quantiles of the fit questions
LEAST_IN_GROUP = 50
ENOUGH = 4_000  # questions for some thirty coefficients: more take time and change nothing


def fold_of(ids: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """fold_N: the fold of each question, by its id, not its position; -1 beyond the `ENOUGH` that are fitted on."""
    rank_N = np.argsort(np.argsort(ids, kind="stable"), kind="stable")
    drawn_N = np.random.default_rng(seed).permutation(len(ids))[rank_N]
    return np.where(drawn_N < ENOUGH, drawn_N % folds, -1)


def fit_evidence(opinions: Opinions, dimensions: int, seed: int) -> Learned:
    """The arrays with which `evidence` describes new questions and answers in the same way."""
    arrays = {}
    if opinions.features_ND is not None or any(opinions.prompt_N):
        arrays = fit_described(opinions, dimensions=dimensions, seed=seed)
        features_ND = described(arrays, opinions)
        mean_D = features_ND.mean(0)
        _, vectors_DD = np.linalg.eigh((features_ND - mean_D).T @ (features_ND - mean_D))
        arrays |= {"axes_DF": vectors_DD[:, ::-1][:, :dimensions], "mean_D": mean_D}
    groups, count = np.unique(opinions.group_N, return_counts=True)
    groups = groups[count >= LEAST_IN_GROUP]
    arrays["groups_G"] = groups if len(groups) > 1 else groups[:0]
    score_MN = confidence(opinions)
    if score_MN is not None:
        arrays["knots_MQ"] = fit_quantiles(score_MN, KNOTS)
    return arrays


def evidence(opinions: Opinions, arrays: Learned) -> np.ndarray:
    """evidence_MNF: a constant, the prompt's features, the group, the confidence's rank, the answer; 0 if unknown."""
    members, rows = opinions.answer_MN.shape
    shared = [np.ones((rows, 1)), opinions.group_N[:, None] == arrays["groups_G"]]
    if "axes_DF" in arrays:
        shared.append((described(arrays, opinions) - arrays["mean_D"]) @ arrays["axes_DF"])
    own = np.zeros((members, rows, 10))
    given_MN = opinions.answer_MN >= 0
    score_MN = confidence(opinions)
    if score_MN is not None and "knots_MQ" in arrays:
        own[:, :, 0] = ranks(score_MN, arrays["knots_MQ"], middle=True)
        # Hinges: a member's confidence need not be linear in its log-odds of being right.
        own[:, :, 1:4] = np.maximum(own[:, :, :1] - [-0.25, 0, 0.25], 0)
    place_MN = opinions.answer_MN / np.maximum(opinions.count_N - 1, 1) - 0.5
    own[:, :, 4] = np.where(given_MN, place_MN, 0)
    own[:, :, 5] = own[:, :, 4] * own[:, :, 0]
    own[:, :, 6] = given_MN
    mask_NK = candidate_mask(np.maximum(opinions.count_N, 1))
    length_NK = np.zeros(mask_NK.shape)
    length_NK[mask_NK] = np.log1p([len(text) for texts in opinions.texts_N for text in texts or [""]])
    place_NM = np.maximum(opinions.answer_MN, 0).astype(int).T
    own[:, :, 7] = np.where(given_MN, np.take_along_axis(length_NK, place_NM, axis=1).T, 0)
    if opinions.output_MN is not None:
        lengths = [[len(text) if isinstance(text, str) else 0 for text in row] for row in opinions.output_MN]
        own[:, :, 8] = np.log1p(lengths)
    if opinions.check_MN is not None:
        own[:, :, 9] = np.nan_to_num(opinions.check_MN)
    shared_NF = np.concatenate(shared, axis=1)
    return np.concatenate([np.broadcast_to(shared_NF, (members, *shared_NF.shape)), own], axis=2)


def fit_scorers(
    opinions: Opinions, right_MN: np.ndarray, arrays: Learned, fold_N: np.ndarray, l2: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scorers of a member asked first (coef_MF), of m after j (coef_MMF[j, m]); their scores out of fold.

    score_MMN[j, m] is the probability that m's answer is right if j was asked before it, score_MMN[m, m] if no member
    was; -1 where m gave no answer.
    """
    size, (x_MNF, usable_MN) = len(opinions.members), (evidence(opinions, arrays), np.isfinite(right_MN))
    usable_MN &= answered(opinions)
    fits = [cross_fit(x_MNF[m], right_MN[m], usable_MN[m], fold_N, l2) for m in range(size)]
    coef, logit_MN = zip(*fits, strict=True)
    score_MMN = np.full((size, size, len(fold_N)), -1.0)
    coef_MMF = np.zeros((size, size, 6))
    for before, at in [(m, m) for m in range(size)] + list(combinations(range(size), 2)):
        logit_N = logit_MN[at]
        if before != at:
            x_NF = after(opinions, np.array(logit_MN), before, at)
            coef_MMF[before, at], logit_N = cross_fit(x_NF, right_MN[at], usable_MN[at], fold_N, l2)
        score_MMN[before, at] = np.where(answered(opinions)[at], probability(logit_N), -1)
    return np.array(coef), coef_MMF, score_MMN


def after(opinions: Opinions, logit_MN: np.ndarray, before: int, at: int) -> np.ndarray:
    """What the scorer of `at` sees once `before` was asked: its own log-odds, and the other's where they (dis)agree."""
    first_N, second_N = opinions.answer_MN[[before, at]]
    both_N = (first_N >= 0) & (second_N >= 0)
    same_N, differ_N = both_N & (first_N == second_N), both_N & (first_N != second_N)
    columns = [np.ones(len(both_N)), logit_MN[at], same_N, same_N * logit_MN[before]]
    return np.stack([*columns, differ_N, differ_N * logit_MN[before]], axis=1)


def probability(logit_N: np.ndarray) -> np.ndarray:
    """Logits as probabilities, rounded so that sums in another order of the questions give the same thresholds."""
    return np.round(expit(logit_N), 9)


def answered(opinions: Opinions) -> np.ndarray:
    """answered_MN: asked, and did not abstain (an answer that was not recorded counts)."""
    return (opinions.answer_MN != ABSTAINED) & (opinions.answer_MN != NOT_ASKED)


def cross_fit(
    x_NF: np.ndarray, target_N: np.ndarray, usable_N: np.ndarray, fold_N: np.ndarray, l2: float
) -> tuple[np.ndarray, np.ndarray]:
    """A logistic regression on the usable rows with a fold, and log-odds (N) from fits that did not see the row."""
    scale_F = np.where(np.ptp(x_NF, axis=0) > 1e-12, np.maximum(x_NF.std(0), 1e-12), 1)
    x_NF, usable_N = x_NF / scale_F, usable_N & (fold_N >= 0)
    coef_F = fit_one(x_NF[usable_N], target_N[usable_N], l2, np.zeros(x_NF.shape[1]))
    logit_N = x_NF @ coef_F
    for fold in range(fold_N.max() + 1):
        rest_N, here_N = usable_N & (fold_N != fold), fold_N == fold
        logit_N[here_N] = x_NF[here_N] @ fit_one(x_NF[rest_N], target_N[rest_N], l2, coef_F)
    return coef_F / scale_F, logit_N
