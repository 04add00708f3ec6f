"""Which few of many voters to ask: at most k of them, for at most `dollars` per question.

Functions for the table ALPHAS: `(alpha_R, ballots, *, k, dollars, ...) -> alpha_R`; the incoming alphas are not used.
The chosen voters get 1 each, plus a little by rank of accuracy (0.01, 0.005, ...: together less than a vote), so that a
weighted vote is their plurality with ties going to the side of the best member; the others get 0. `dollars` bounds the
sum of the chosen voters' mean costs. Equally accurate voters are ordered by cost, then by how much they err with the
crowd, then by position. A voter without an answer has no vote, and a plurality without votes is wrong.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from w2s.ensemble.ballots import Ballots, NotApplicable
from w2s.ensemble.diversity import focal_diversities
from w2s.ensemble.information import STRENGTH, add, gather, nothing, step
from w2s.store.records import BadInput

MOST_SUBSETS = 20_000


class Budget(NamedTuple):
    """The voters, most accurate first, what each costs, and what may be spent."""

    order: list[int]
    cost_R: np.ndarray
    k: int
    dollars: float

    def allows(self, chosen: list[int], voter: int) -> bool:
        """Whether one more voter is affordable (k is not checked)."""
        return self.cost_R[[*chosen, voter]].sum() <= self.dollars * (1 + 1e-9)


def top_k(alpha_R: np.ndarray, ballots: Ballots, *, k: int = 3, dollars: float | None = None) -> np.ndarray:
    """The k most accurate voters, each with one vote."""
    budget, chosen = _budget(ballots, k, dollars), []
    for voter in budget.order:
        if len(chosen) < budget.k and budget.allows(chosen, voter):
            chosen.append(voter)
    return _alphas(budget, chosen)


def greedy_information(
    alpha_R: np.ndarray,
    ballots: Ballots,
    *,
    k: int = 3,
    dollars: float | None = None,
    strength: float = STRENGTH,
    exact: int = 10,
) -> np.ndarray:
    """Voters taken one by one, each time the one whose answers add most information about the right answer.

    Greedy maximisation of I(Y; X_S) (arXiv 2602.08003) as `information` estimates it; it ends when no voter adds
    anything. Past `exact` members a voter's gain is approximated by pairs: its least gain over one member,
    min over j of I(Y; X_r | X_j) (CMIM, Fleuret 2004). Under `dollars` it runs twice, by gain and by gain per dollar,
    and the set that tells more is taken (Leskovec et al. 2007).
    """
    if not strength > 0:
        raise BadInput(f"strength: {strength!r} given; allowed: above 0")
    if exact < 1:
        raise BadInput(f"exact: {exact!r} given; allowed: 1 or more")
    ballots = ballots.some()
    budget = _budget(ballots, k, dollars)
    if len(budget.order) == 1:
        return _alphas(budget, budget.order)
    sets = [_informative(budget, ballots, strength, exact, np.ones(len(budget.cost_R)))]
    if dollars is not None and budget.cost_R.min() > 0:
        sets.append(_informative(budget, ballots, strength, exact, budget.cost_R))
    return _alphas(budget, max(sets, key=lambda chosen_bits: chosen_bits[1])[0])


def focal_diversity(
    alpha_R: np.ndarray,
    ballots: Ballots,
    *,
    k: int = 3,
    dollars: float | None = None,
    weight: float = 0.2,
    most_subsets: int = MOST_SUBSETS,
) -> np.ndarray:
    """The k voters with the best mix of their plurality's accuracy and their focal diversity.

    weight · focal diversity + (1 - weight) · accuracy, as LLM-TOPLA prunes ensembles (arXiv 2410.03953; RL-Focal,
    arXiv 2502.04492, rewards both); `weight` is 0 to 1. Only teams of equal size are compared (Wu et al. 2021, CVPR):
    of k, or of as many as `dollars` allow. All teams are searched if there are at most `most_subsets`. Otherwise (ours)
    the best team of the largest size (at least 3) that can be searched, among the most accurate voters, is grown voter
    by voter. The default weight is ours too: at 0.5 the worst voters of a mixed pool come in.
    """
    if not 0 <= weight <= 1:
        raise BadInput(f"weight: {weight!r} given; allowed: 0 to 1")
    if most_subsets < 1:
        raise BadInput(f"most_subsets: {most_subsets!r} given; allowed: 1 or more")
    ballots = ballots.some()
    budget = _budget(ballots, k, dollars)

    def best(teams: list[list[int]], accuracy_S: np.ndarray) -> list[int]:
        chosen_SR = np.zeros((len(teams), len(budget.cost_R)))
        for chosen_R, team in zip(chosen_SR, teams, strict=True):
            chosen_R[team] = 1
        score_S = weight * focal_diversities(ballots.wrong_RN, chosen_SR) + (1 - weight) * accuracy_S
        return teams[_first_best(budget, teams, np.round(score_S, 12))]

    size, pool = _searchable(len(budget.order), budget.k, most_subsets)
    box_RCN = _boxes(ballots, size)
    sets, accuracy_S = _every(budget._replace(k=size, order=budget.order[:pool]), box_RCN)
    largest = max(map(len, sets))
    teams = [at for at, team in enumerate(sets) if len(team) == largest]
    chosen = best([sets[at] for at in teams], accuracy_S[teams])
    weight_R = _alphas(budget, budget.order)
    while len(chosen) < budget.k:
        wider = [[*chosen, v] for v in budget.order if v not in chosen and budget.allows(chosen, v)]
        if not wider:
            break
        votes_CN = sum(box_RCN[voter] * weight_R[voter] for voter in chosen)
        rates = [_accuracy(votes_CN + box_RCN[team[-1]] * weight_R[team[-1]]) for team in wider]
        chosen = best(wider, np.array(rates))
    return _alphas(budget, chosen)


def exhaustive(
    alpha_R: np.ndarray, ballots: Ballots, *, k: int = 3, dollars: float | None = None, most_subsets: int = MOST_SUBSETS
) -> np.ndarray:
    """Of all subsets of at most k voters, the one whose plurality is right most often.

    For small pools: NotApplicable if there are more than `most_subsets`. Of equally good subsets, the smallest.
    """
    ballots = ballots.some()
    budget = _budget(ballots, k, dollars)
    if (count := _count(len(budget.order), budget.k)) > most_subsets:
        raise NotApplicable(f"there are {count:,} subsets of at most {budget.k} voters, more than {most_subsets:,}")
    sets, accuracy_S = _every(budget, _boxes(ballots, budget.k))
    return _alphas(budget, sets[_first_best(budget, sets, accuracy_S)])


def _budget(ballots: Ballots, k: int, dollars: float | None) -> Budget:
    """The checked options, and the voters in order."""
    if k < 1:
        raise BadInput(f"k: {k!r} given; allowed: 1 or more")
    if dollars is not None and ballots.cost_R is None:
        raise NotApplicable("a budget in dollars needs costs, and none were recorded")
    wrong_RN = ballots.wrong_RN
    if dollars is not None and np.isnan(ballots.cost_R).any():
        raise NotApplicable("costs were recorded for some members only")
    cost_R = np.zeros(len(wrong_RN)) if ballots.cost_R is None else np.nan_to_num(np.asarray(ballots.cost_R, float))
    if dollars is not None and not dollars >= cost_R.min():
        cheapest = f"{cost_R.min():.3g}, what the cheapest voter costs per question"
        raise BadInput(f"dollars: {dollars!r} given; allowed: at least {cheapest}")
    crowd_R = np.round(wrong_RN @ wrong_RN.sum(0), 6)
    order = np.lexsort((crowd_R, cost_R, np.round(wrong_RN.mean(1), 12))).tolist()
    return Budget(order, cost_R, min(k, len(order)), np.inf if dollars is None else float(dollars))


def _alphas(budget: Budget, chosen: list[int]) -> np.ndarray:
    alpha_R = np.zeros(len(budget.cost_R))
    for place, voter in enumerate(voter for voter in budget.order if voter in chosen):
        alpha_R[voter] = 1 + 0.01 * 0.5**place
    return alpha_R


def _informative(
    budget: Budget, ballots: Ballots, strength: float, exact: int, price_R: np.ndarray
) -> tuple[list[int], float]:
    """The greedy set, by gain per price, and the bits that it tells."""
    evidence = gather(ballots)
    known = first = nothing(evidence)
    chosen, least_R = [], np.full(len(price_R), np.inf)
    bits = 0.0
    while len(chosen) < budget.k:
        left = [v for v in budget.order if v not in chosen and budget.allows(chosen, v)]
        if len(chosen) < exact:
            gain_V = np.array([step(evidence, known, v, strength).bits - known.bits for v in left])
        else:
            for member in chosen if len(chosen) == exact else chosen[-1:]:
                alone = add(evidence, first, member, strength)
                pair_V = np.array([step(evidence, alone, v, strength).bits - alone.bits for v in left])
                least_R[left] = np.minimum(least_R[left], pair_V)
            gain_V = least_R[left]
        if not left or (chosen and gain_V.max() <= 1e-12):
            break
        voter = left[int((gain_V / price_R[left]).argmax())]
        bits += gain_V[left.index(voter)]
        chosen.append(voter)
        if len(chosen) < exact:
            known = add(evidence, known, voter, strength)
    return chosen, bits


def _count(voters: int, k: int) -> int:
    """How many subsets of 1 to k voters there are."""
    return sum(math.comb(voters, size) for size in range(1, k + 1))


def _first_best(budget: Budget, sets: list[list[int]], score_S: np.ndarray) -> int:
    """The position of the best set; ties go to the smallest, then the cheapest, then the first."""
    best = np.flatnonzero(score_S >= score_S.max())
    return min(best.tolist(), key=lambda at: (len(sets[at]), round(budget.cost_R[sets[at]].sum(), 15), at))


def _searchable(voters: int, k: int, most: int) -> tuple[int, int]:
    """The largest team size, up to k, that can be searched exhaustively, and the number of voters to search."""
    size = max([size for size in range(1, k + 1) if _count(voters, size) <= most], default=1)
    size = max(size, min(k, 3))
    return size, max([pool for pool in range(1, voters + 1) if _count(pool, size) <= most], default=1)


def _every(budget: Budget, box_RCN: np.ndarray) -> tuple[list[list[int]], np.ndarray]:
    """Every affordable subset of at most k voters, and the accuracy of its plurality."""
    sets, accuracy = zip(*_walk(budget, box_RCN, 0, [], 0), strict=True)
    return list(sets), np.array(accuracy)


def _walk(
    budget: Budget, box_RCN: np.ndarray, votes_CN: np.ndarray | int, chosen: list[int], first: int
) -> Iterator[tuple[list[int], float]]:
    """The subsets that begin with `chosen`, whose votes are already counted."""
    # A whole vote, and a bit that outweighs the bits of all less accurate voters.
    vote = box_RCN.dtype.type(2**budget.k + 2 ** (budget.k - 1 - len(chosen)))
    now_CN = np.empty_like(box_RCN[0])  # reused: new memory for each subset takes five times as long
    for place in range(first, len(budget.order)):
        voter = budget.order[place]
        if budget.allows(chosen, voter):
            np.multiply(box_RCN[voter], vote, out=now_CN)
            now_CN += votes_CN
            yield [*chosen, voter], _accuracy(now_CN)
            if len(chosen) + 1 < budget.k:
                yield from _walk(budget, box_RCN, now_CN, [*chosen, voter], place + 1)


def _boxes(ballots: Ballots, k: int) -> np.ndarray:
    """box_RCN: 1 if the voter named that candidate. Gold has box 0, any other candidate c has box c + 1."""
    answer_RN = np.where(ballots.answer_RN == ballots.gold_N, 0, ballots.answer_RN + 1)
    kind = np.int16 if k <= 10 else np.int32 if k <= 25 else np.int64  # the smallest that holds k votes
    box_RCN = np.zeros((len(answer_RN), int(ballots.count_N.max()) + 1, answer_RN.shape[1]), kind)
    voter_V, row_V = np.nonzero(ballots.answer_RN >= 0)
    box_RCN[voter_V, answer_RN[voter_V, row_V], row_V] = 1
    return box_RCN


def _accuracy(votes_CN: np.ndarray) -> float:
    return float(np.count_nonzero(votes_CN[0] > votes_CN[1:].max(0)) / votes_CN.shape[1])


SUBSETS = {subset.__name__: subset for subset in (top_k, greedy_information, focal_diversity, exhaustive)}
