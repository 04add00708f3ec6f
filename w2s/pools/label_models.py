"""Label models: how each member errs, found from the answers alone. No function here reads the truth.

These have a confusion matrix per member, for choices whose positions mean something; `one_coin` has those with one
number per member. confusion_MKK: axes member, true candidate, given candidate; B are a block's questions.
"""

import numpy as np
from scipy.sparse import csr_matrix
from scipy.special import digamma

from w2s.config.values import Count, NotNegative
from w2s.ensemble.ballots import NotApplicable
from w2s.pools import one_coin
from w2s.pools.one_coin import blocks, decide, normalise, select_voted
from w2s.pools.records import Decision, Fitted, Opinions, Truth

MOST_POSITIONS = 100
LEAST = 1e-10  # lower bound of the confusion matrices' counts, so that no answer is impossible


def dawid_skene(opinions: Opinions, truth: Truth, *, iterations: Count = 50, tolerance: NotNegative = 1e-5) -> Fitted:
    """Dawid-Skene: each member's confusion matrix over the candidates' positions, found without gold.

    Dawid and Skene 1979, from the shares of the votes. For choices whose positions mean the same in every question
    (positive, negative); elsewhere it finds who prefers which letter. It ends after `iterations`, or when the log-
    likelihood of a question gains less than `tolerance`. Raises NotApplicable for questions without choices.
    """
    answer_MN, count_N = positions(opinions)
    confusion_MKK = prior_K = None
    last = -np.inf
    for _ in range(iterations + 1):
        given_MKK, prior_K, likelihood = expectation(answer_MN, count_N, confusion_MKK, prior_K)
        given_MKK = np.maximum(given_MKK, LEAST)
        confusion_MKK = given_MKK / given_MKK.sum(2, keepdims=True)
        if likelihood - last < tolerance:
            break
        last = likelihood
    return Fitted("confusion", opinions.members, {"confusion_MKK": confusion_MKK, "prior_K": prior_K})


def mace(opinions: Opinions, truth: Truth, *, iterations: Count = 50, tolerance: NotNegative = 1e-5) -> Fitted:
    """MACE: how often each member guesses, and which positions it guesses, found without gold.

    Hovy et al. 2013, variational, with their priors (0.5 for guessing and for knowing, 10 for each position). A member
    knows the right answer or draws one from its habit. Only for choices, like `dawid_skene`, but habits do not depend
    on the right answer: ten candidates need 11 numbers per member instead of 90.
    """
    answer_MN, count_N = positions(opinions)
    members, size = len(answer_MN), int(count_N.max())
    guess_M2, habit_MK = np.full((members, 2), 0.5), np.full((members, size), 1 / size)
    even_K = np.full(size, 1 / size)
    given_MKK, _, _ = expectation(answer_MN, count_N, None, None)
    last = -np.inf
    for _ in range(iterations):
        guess_M2, habit_MK = guessing(given_MKK, guess_M2, habit_MK)
        given_MKK, _, likelihood = expectation(answer_MN, count_N, guesses(guess_M2, habit_MK), even_K)
        if likelihood - last < tolerance:
            break
        last = likelihood
    arrays = {"confusion_MKK": guesses(guess_M2, habit_MK), "prior_K": even_K}
    return Fitted("confusion", opinions.members, arrays)


def guessing(given_MKK: np.ndarray, guess_M2: np.ndarray, habit_MK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """MACE's variational step: (guesses, knows) and habits that fit the answers given to each probable truth."""
    right_MK = np.diagonal(given_MKK, axis1=1, axis2=2)
    by_luck_MK = guess_M2[:, :1] * habit_MK
    luck_MK = right_MK * by_luck_MK / (by_luck_MK + guess_M2[:, 1:])
    drawn_MK = given_MKK.sum(1) - right_MK + luck_MK
    guess_M2 = np.stack([drawn_MK.sum(1), (right_MK - luck_MK).sum(1)], axis=1)
    return variational(guess_M2, 0.5), variational(drawn_MK, 10.0)


def guesses(guess_M2: np.ndarray, habit_MK: np.ndarray) -> np.ndarray:
    """MACE's members as confusion matrices."""
    return (guess_M2[:, :1] * habit_MK)[:, None] + guess_M2[:, 1, None, None] * np.eye(habit_MK.shape[1])


def variational(times_MK: np.ndarray, prior: float) -> np.ndarray:
    """exp(E[log share]) under the Dirichlet posterior of the counts times_MK."""
    times_MK = times_MK + prior
    return np.exp(digamma(times_MK) - digamma(times_MK.sum(1, keepdims=True)))


def apply_confusion(fitted: Fitted, opinions: Opinions, point: int) -> Decision:
    """The probability of each candidate given all answers; positions unseen at the fit are ignored."""
    confusion_MKK, prior_K = fitted.arrays["confusion_MKK"], fitted.arrays["prior_K"]
    size, known = opinions.mask_NK.shape[1], len(prior_K)
    probs_NK = np.zeros((len(opinions.ids), size))
    count_N = np.minimum(opinions.count_N, known)
    for rows in blocks(len(opinions.ids)):
        answer_MB = np.where(opinions.answer_MN[:, rows] < known, opinions.answer_MN[:, rows], -1)
        likely_BK, _ = posterior(votes(answer_MB, known), count_N[rows], confusion_MKK, prior_K)
        probs_NK[rows, : min(size, known)] = likely_BK[:, :size]
    return decide(probs_NK, opinions)


def positions(opinions: Opinions) -> tuple[np.ndarray, np.ndarray]:
    """answer_MN and count_N of the questions with a vote, where candidates' positions may mean something."""
    answer_MN, count_N, open_N = select_voted(opinions)[:3]
    if open_N.any():
        raise NotApplicable("positions mean nothing if the candidates are the members' own answers")
    if count_N.max() > MOST_POSITIONS:
        raise NotApplicable(f"more than {MOST_POSITIONS} candidates are too many for a confusion matrix")
    return answer_MN, count_N


def expectation(
    answer_MN: np.ndarray, count_N: np.ndarray, confusion_MKK: np.ndarray | None, prior_K: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, float]:
    """One turn: (expected times that each member gave each answer to each truth, mean posterior, log-likelihood).

    Without a confusion matrix the shares of the votes stand for the posterior, and the likelihood is -infinity. The
    likelihood is per question. Every question must have a vote.
    """
    members, size, total = len(answer_MN), int(count_N.max()), -np.inf if confusion_MKK is None else 0.0
    given_VK, prior = np.zeros((members * size + 1, size)), np.zeros(size)
    for rows in blocks(answer_MN.shape[1]):
        votes_BV = votes(answer_MN[:, rows], size)
        if confusion_MKK is None:
            each_VK = np.append(np.tile(np.eye(size), (members, 1)), np.zeros((1, size)), axis=0)
            likely_BK = votes_BV @ each_VK
            likely_BK /= likely_BK.sum(1, keepdims=True)
        else:
            likely_BK, log_B = posterior(votes_BV, count_N[rows], confusion_MKK, prior_K)
            total += log_B.sum()
        given_VK += votes_BV.T @ likely_BK
        prior += likely_BK.sum(0)
    given_MKK = given_VK[:-1].reshape(members, size, size).transpose(0, 2, 1)
    return given_MKK, prior / len(count_N), total / len(count_N)


def votes(answer_MB: np.ndarray, size: int) -> csr_matrix:
    """(B, M·K + 1): a 1 for each answer, in column member·K + position; the last column takes the missing ones."""
    members, rows = answer_MB.shape
    column_MB = np.where(answer_MB >= 0, answer_MB + size * np.arange(members, dtype=np.int32)[:, None], members * size)
    starts = np.arange(0, members * rows + 1, members, dtype=np.int32)
    return csr_matrix((np.ones(members * rows), column_MB.T.ravel(), starts), shape=(rows, members * size + 1))


def posterior(
    votes_BV: csr_matrix, count_B: np.ndarray, confusion_MKK: np.ndarray, prior_K: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(P(truth | answers), log-likelihood of the answers) of each question."""
    size = len(prior_K)
    log_VK = np.log(confusion_MKK).transpose(0, 2, 1).reshape(-1, size)
    log_BK = votes_BV @ np.append(log_VK, np.zeros((1, size)), axis=0) + np.log(np.maximum(prior_K, LEAST))
    mask_BK = np.arange(size) < count_B[:, None]
    return normalise(log_BK, mask_BK, np.zeros(len(count_B)))


METHODS = {"dawid_skene": dawid_skene, "mace": mace, **one_coin.METHODS}
APPLY = {"confusion": apply_confusion, **one_coin.APPLY}
