"""Label models with one number per member, how often it is right, estimated from the answers alone.

No function here reads the truth. All are expectation-maximisation: what the right answers probably are, given how
reliable the members are, and the reverse, in turns. Only sums over the questions are kept between two turns, and a turn
goes through the questions by blocks: ten million questions need no more memory than their answers do. A member that
abstained or was not asked does not count.

Letters beside those of `records`: B questions of one block. A question without choices has its members' distinct
answers as candidates. A group with a question of a single candidate must be of that kind, since choice questions have
at least two.
"""

from collections.abc import Iterator
from typing import Annotated, NamedTuple

import numpy as np

from w2s.config.values import Count, NotNegative, Range
from w2s.ensemble.alphas import decorrelated
from w2s.ensemble.ballots import Ballots, NotApplicable
from w2s.ensemble.dependence import NEAR_COPY, near_copies
from w2s.ensemble.votes import count_votes, vote_cells
from w2s.pools.records import Decision, Fitted, Opinions, Truth

BLOCK = 16_384  # questions: a block's arrays stay in the processor's cache
Candidates = Annotated[int, Range("2 or more", at_least=2)]


class Votes(NamedTuple):
    """The data that coins are fitted on. room_N: candidates per question; members of a cluster share one vote."""

    answer_MN: np.ndarray
    count_N: np.ndarray
    room_N: np.ndarray
    cluster_M: np.ndarray


def one_coin(
    opinions: Opinions,
    truth: Truth,
    *,
    iterations: Count = 50,
    tolerance: NotNegative = 1e-5,
    open_candidates: Candidates = 10,
) -> Fitted:
    """One-coin Dawid-Skene: one reliability per member, wrong answers even over the other candidates; without gold.

    Zhang et al. 2016, with an even prior over each question's own K candidates, so that their order and number may
    differ from question to question. A question without choices is taken to have `open_candidates`, including those
    that no member gave. One right and one wrong answer are added to each member, so that none is certain.
    """
    answer_MN, count_N, open_N, groups = select_voted(opinions)
    room_N = count_room(count_N, open_N, open_candidates)
    reliability_M = fit_coins(Votes(answer_MN, count_N, room_N, np.arange(len(answer_MN))), iterations, tolerance)
    meta = {"open_groups": groups, "open_candidates": open_candidates}
    return Fitted("coins", opinions.members, {"reliability_M": reliability_M}, meta)


def apply_coins(fitted: Fitted, opinions: Opinions, point: int) -> Decision:
    """The probability of each candidate: softmax of Σ log(r·(K-1)/(1-r)) over the members that gave it."""
    open_N = without_choices(opinions.group_N, fitted.meta["open_groups"]) | (opinions.count_N == 1)
    room_N = count_room(opinions.count_N, open_N, fitted.meta["open_candidates"])
    reliability_M = fitted.arrays["reliability_M"]
    probs_NK = np.zeros(opinions.mask_NK.shape)
    for rows in blocks(len(probs_NK)):
        answer_MB, count_B = opinions.answer_MN[:, rows], opinions.count_N[rows]
        weight_MB = log_odds(reliability_M, room_N[rows])
        score_BK = count_votes(answer_MB, probs_NK.shape[1], weight_MB)
        probs_NK[rows], _ = normalise(score_BK, opinions.mask_NK[rows], room_N[rows] - count_B)
    return decide(probs_NK, opinions)


def dependent_coins(
    opinions: Opinions,
    truth: Truth,
    *,
    threshold: Annotated[float, Range("above 0, up to 1", above=0, at_most=1)] = NEAR_COPY,
    iterations: Count = 50,
    tolerance: NotNegative = 1e-5,
    open_candidates: Candidates = 10,
    most_questions: Count = 200_000,
) -> Fitted:
    """Weighted vote in which members that err together share their weight, found without gold. Ours.

    Votes cannot tell five copies of a bad member from five good ones, so members whose agreement beyond chance exceeds
    `threshold` are one coin with one vote among them while the reliabilities are found, as in `one_coin`. Then each
    member is judged by the posterior of the others (copies excluded), and the alphas are those of the inverse
    covariance of these errors (`alphas.decorrelated`). At most `most_questions` are used, evenly spaced.
    """
    answer_MN, count_N, open_N, _ = select_voted(opinions)
    room_N = count_room(count_N, open_N, open_candidates)
    step = -(-len(count_N) // most_questions)
    answer_MN, count_N, room_N = np.ascontiguousarray(answer_MN[:, ::step]), count_N[::step], room_N[::step]
    cluster_M = np.arange(len(answer_MN))
    for copies in near_copies(measure_agreement(answer_MN, room_N), threshold=threshold):
        cluster_M[copies] = copies[0]
    votes = Votes(answer_MN, count_N, room_N, cluster_M)
    wrong_MN = judge_by_others(votes, fit_coins(votes, iterations, tolerance))
    nobody_knows_N = np.full(len(count_N), -2)
    alpha_M = decorrelated(np.ones(len(answer_MN)), Ballots(answer_MN, wrong_MN, nobody_knows_N, room_N))
    used = np.flatnonzero(alpha_M > 0)
    return Fitted("vote", opinions.members[used], {"alpha_M": alpha_M[used]})


def measure_agreement(answer_MN: np.ndarray, room_N: np.ndarray) -> np.ndarray:
    """agreement_MM, up to 1: the share of equal answers, where both answered, scaled so that guessing gives 0."""
    members = len(answer_MN)
    agreement_MM, beyond_N = np.eye(members), 1 - 1 / room_N
    voted_MN = answer_MN >= 0
    for first in range(members):
        for second in range(first):
            both_N = voted_MN[first] & voted_MN[second]
            most = beyond_N @ both_N
            differs = np.count_nonzero(both_N & (answer_MN[first] != answer_MN[second]))
            agreement_MM[first, second] = agreement_MM[second, first] = 1 - differs / most if most else 0
    return agreement_MM


def judge_by_others(votes: Votes, reliability_M: np.ndarray) -> np.ndarray:
    """wrong_MN, 0 to 1: the probability of being wrong by the answers of other clusters; without an answer, chance."""
    answer_MN, count_N, room_N, cluster_M = votes
    wrong_MN, size = np.empty(answer_MN.shape), int(count_N.max())
    for rows in blocks(len(count_N)):
        answer_MB, count_B, room_B = answer_MN[:, rows], count_N[rows], room_N[rows]
        cell_MB, mask_BK = vote_cells(answer_MB, size), np.arange(size) < count_B[:, None]
        weight_MB = share_votes(answer_MB, cluster_M) * log_odds(reliability_M, room_B)
        score_BK = count_votes(answer_MB, size, weight_MB)
        for cluster in np.unique(cluster_M):
            own = np.flatnonzero(cluster_M == cluster)
            rest_BK = score_BK - count_votes(answer_MB[own], size, weight_MB[own])
            likely_BK, _ = normalise(rest_BK, mask_BK, room_B - count_B)
            wrong_MN[own, rows] = np.where(answer_MB[own] >= 0, 1 - credit(likely_BK, cell_MB[own]), 1 - 1 / room_B)
    return wrong_MN


def fit_coins(votes: Votes, iterations: int, tolerance: float) -> np.ndarray:
    """reliability_M, between 0 and 1, equal within a cluster, whose answering members share one vote."""
    same_MM = votes.cluster_M[:, None] == votes.cluster_M
    reliability_M, last = None, -np.inf
    for _ in range(iterations + 1):
        right_M, times_M, likelihood = coin_turn(votes, reliability_M)
        reliability_M = (same_MM @ right_M + 1) / (same_MM @ times_M + 2)
        if likelihood - last < tolerance:
            break
        last = likelihood
    return reliability_M


def coin_turn(votes: Votes, reliability_M: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, float]:
    """One turn: (how often each member is probably right, its votes, log-likelihood of a question).

    Without reliabilities the shares of the votes stand for the posterior, and the likelihood is -infinity.
    """
    answer_MN, count_N, room_N, cluster_M = votes
    size, total = int(count_N.max()), -np.inf if reliability_M is None else 0.0
    right_M, times_M = np.zeros(len(answer_MN)), np.zeros(len(answer_MN))
    for rows in blocks(len(count_N)):
        answer_MB, count_B, room_B = answer_MN[:, rows], count_N[rows], room_N[rows]
        cell_MB, share_MB = vote_cells(answer_MB, size), share_votes(answer_MB, cluster_M)
        if reliability_M is None:
            likely_BK = count_votes(answer_MB, size, share_MB)
            likely_BK /= likely_BK.sum(1, keepdims=True)
        else:
            score_BK = count_votes(answer_MB, size, share_MB * log_odds(reliability_M, room_B))
            likely_BK, log_B = normalise(score_BK, np.arange(size) < count_B[:, None], room_B - count_B)
            # What the scores leave out: a wrong answer has probability (1-r)/(K-1), a candidate a priori 1/K.
            wrong_B = np.log1p(-reliability_M) @ share_MB - share_MB.sum(0) * np.log(room_B - 1)
            total += (log_B + wrong_B - np.log(room_B)).sum()
        right_M += (share_MB * credit(likely_BK, cell_MB)).sum(1)
        times_M += share_MB.sum(1)
    return right_M, times_M, total / len(count_N)


def share_votes(answer_MB: np.ndarray, cluster_M: np.ndarray) -> np.ndarray:
    """Each answer's share of its cluster's one vote; 0 without an answer."""
    voted_MB = (answer_MB >= 0).astype(np.float64)
    if len(np.unique(cluster_M)) == len(cluster_M):
        return voted_MB
    return voted_MB / np.maximum((cluster_M[:, None] == cluster_M) @ voted_MB, 1)


def log_odds(reliability_M: np.ndarray, room_B: np.ndarray) -> np.ndarray:
    """log(r·(K-1)/(1-r)), (M, B): what an answer adds to its candidate's score."""
    return np.log(reliability_M / (1 - reliability_M))[:, None] + np.log(room_B - 1)


def credit(likely_BK: np.ndarray, cell_MB: np.ndarray) -> np.ndarray:
    """The probability of each given answer; 0 without an answer."""
    return np.pad(likely_BK, ((0, 0), (1, 0))).ravel()[cell_MB]


def normalise(log_BK: np.ndarray, mask_BK: np.ndarray, others_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-scores as probabilities, and the log of their sum; `others_B` more candidates have a score of 0."""
    log_BK = np.where(mask_BK, log_BK, -np.inf)
    most_B = np.maximum(log_BK.max(1, initial=-np.inf), np.where(others_B > 0, 0, -np.inf))
    most_B = np.where(np.isfinite(most_B), most_B, 0)[:, None]
    likely_BK = np.exp(log_BK - most_B)
    sum_B = likely_BK.sum(1, keepdims=True) + others_B[:, None] * np.exp(-most_B)
    likely_BK /= np.where(sum_B > 0, sum_B, 1)
    return likely_BK, (np.log(np.where(sum_B > 0, sum_B, 1)) + most_B)[:, 0]


def select_voted(opinions: Opinions) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """(answer_MN, count_N, open_N: no choices, the groups without choices) of the questions with a vote."""
    some_N = (opinions.answer_MN >= 0).any(0)
    if not some_N.any():
        raise NotApplicable("the answers were not recorded")
    some = slice(None) if some_N.all() else some_N  # a slice copies nothing
    answer_MN, count_N, group_N = opinions.answer_MN[:, some], opinions.count_N[some], opinions.group_N[some]
    groups = sorted({str(group) for group in group_N[count_N == 1]})
    return answer_MN, count_N, without_choices(group_N, groups), groups


def without_choices(group_N: np.ndarray, groups: list[str]) -> np.ndarray:
    """open_N: whether each question is in one of these groups."""
    return np.isin(group_N.astype(str), groups) if groups else np.zeros(len(group_N), dtype=bool)


def count_room(count_N: np.ndarray, open_N: np.ndarray, open_candidates: int) -> np.ndarray:
    """room_N: the candidates of each question, including those that no member gave; at least 2."""
    return np.maximum(np.where(open_N, np.maximum(count_N + 1, open_candidates), count_N), 2)


def decide(probs_NK: np.ndarray, opinions: Opinions) -> Decision:
    """The probabilities as a Decision; a question that no member answers is an abstention."""
    silent_N = ~(opinions.answer_MN >= 0).any(0)
    return Decision(silent_N, np.where(silent_N[:, None], 0, probs_NK))


def blocks(rows: int) -> Iterator[slice]:
    """Slices of at most BLOCK questions that cover all of them in order."""
    return (slice(first, min(first + BLOCK, rows)) for first in range(0, rows, BLOCK))


METHODS = {"one_coin": one_coin, "dependent_coins": dependent_coins}
APPLY = {"coins": apply_coins}
