"""Hedge and the other online baselines: each question is predicted before its label is revealed (prequential).

Every prediction uses only the questions before it: predict, then see.
Sources: Freund and Schapire 1997 (Hedge); Cesa-Bianchi and Lugosi 2006, theorems 2.2 and 2.3 (rates and bounds).
"""

import numpy as np

from w2s.ensemble.ballots import NotApplicable
from w2s.ensemble.votes import count_votes
from w2s.pools.records import Decision, Opinions, Truth, ballots, rightness
from w2s.pools.stacking import apply_logistic, logistic
from w2s.store.records import BadInput, softmax


def hedge(loss_MN: np.ndarray) -> np.ndarray:
    """weight_MN, columns that sum to 1: how far each member is trusted at each question, from those before it.

    loss_MN: what each member loses on each question, 0 to 1, in the order of arrival. A member's weight is
    proportional to exp(-rate · its loss so far). The rate is sqrt(8 ln M / n) at the n-th question, which needs no
    horizon: the expected loss of drawing members by weight exceeds the best member's by at most
    sqrt(2 N ln M) + sqrt(ln(M) / 8).
    """
    loss_MN = np.asarray(loss_MN, dtype=np.float64)
    if loss_MN.ndim != 2 or not loss_MN.size or not ((loss_MN >= 0) & (loss_MN <= 1)).all():
        raise ValueError("losses must be members by questions, at least one of each, from 0 to 1")
    members, questions = loss_MN.shape
    rate = np.sqrt(8 * np.log(members) / np.arange(1, questions + 1))
    return softmax((-rate * losses_before(loss_MN)).T, np.ones((questions, members), dtype=bool)).T


def losses_before(loss_MN: np.ndarray) -> np.ndarray:
    return np.cumsum(np.c_[np.zeros(len(loss_MN)), loss_MN[:, :-1]], axis=1)


def prequential(opinions: Opinions, truth: Truth, *, every: int = 100) -> dict[str, np.ndarray]:
    """The baselines of online fusion, name -> right_N, 0 to 1, of the questions in the given order.

    best_single: the member that turns out best (in hindsight: a reference, not a method); leader: the best so far;
    plurality; stacking: `stacking.logistic`, refitted on the past after each `every` questions (plurality before);
    hedge: a member drawn by weight (expected rightness), abstentions losing as much as guesses; hedge_vote: the vote
    by those weights. NotApplicable if any question's gold is unknown or no answers were recorded.
    """
    if every < 1:
        raise BadInput(f"every: {every!r} given; allowed: a whole number above 0")
    if (truth.gold_N < -1).any():
        raise NotApplicable("online, the gold of each question must be known")
    loss_MN = ballots(opinions, truth).wrong_RN
    right_MN = (opinions.answer_MN == truth.gold_N) & (opinions.answer_MN >= 0)
    weight_MN, before_MN = hedge(loss_MN), losses_before(loss_MN)
    leads_MN = before_MN <= before_MN.min(0) + 1e-9
    plurality_N = judged_vote(opinions, truth, np.ones_like(weight_MN))
    return {
        "best_single": right_MN[loss_MN.sum(1).argmin()].astype(np.float64),
        "leader": (right_MN * leads_MN).sum(0) / leads_MN.sum(0),
        "plurality": plurality_N,
        "stacking": np.concatenate([plurality_N[:every], _refitted(opinions, truth, every)]),
        "hedge": (weight_MN * right_MN).sum(0),
        "hedge_vote": judged_vote(opinions, truth, weight_MN),
    }


def judged_vote(opinions: Opinions, truth: Truth, weight_MN: np.ndarray) -> np.ndarray:
    """right_N of the vote with weights that may differ by question; 1/t if t candidates tie for the best with gold."""
    votes_NK = count_votes(opinions.answer_MN, opinions.mask_NK.shape[1], weight_MN)
    return rightness(Decision(~votes_NK.any(1), votes_NK), truth)


def _refitted(opinions: Opinions, truth: Truth, every: int) -> np.ndarray:
    right = [np.zeros(0)]
    for start in range(every, len(truth.gold_N), every):
        past, now = slice(0, start), slice(start, start + every)
        block, gold = opinions.questions(now), truth.questions(now)
        try:
            fitted = logistic(opinions.questions(past), truth.questions(past))
            right.append(rightness(apply_logistic(fitted, block, 0), gold))
        except NotApplicable:  # no right answer was given so far
            right.append(judged_vote(block, gold, np.ones(block.answer_MN.shape)))
    return np.concatenate(right)
