"""How much the answers of some voters tell about which candidate is right, in bits, and what one more voter adds.

A candidate's position carries no meaning, so what the voters of a set S tell is who agrees with whom: the partition of
S by answer, with abstaining voters apart. Gold lies in one of its blocks or among the candidates that nobody named, and
I(Y; X_S) = H(Y) - H(Y | partition), with H(Y) = mean log2 K (arXiv 2602.08003, here for more than two choices).

H(Y | partition) is the mean surprise of each question's gold under what the *other* questions tell (leave one out), so
that guessing voters gain nothing by making many partitions. What they tell is a plug-in estimate, the counts of gold
within the partition, shrunk by a Dirichlet prior worth `strength` questions. The prior's mean is what the voters so far
tell, moved by the new voter's log odds as if it were independent of them, to the power (of POWERS; 0 ignores it) with
the least surprise. Shrunk straight to the independent-voters posterior, ten dependent voters seem to tell less than
three.
"""

from dataclasses import dataclass

import numpy as np

from w2s.ensemble.ballots import Ballots
from w2s.ensemble.dependence import check_wrong

STRENGTH = 50.0
POWERS = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class Evidence:
    """Prepared ballots.

    For each voter and question: cast_RN and right_RN, whether it has an answer and whether that is right; place_RN,
    the place of the candidate it named in a flat (C, N) array; log_odds_RN, what its vote adds to the log odds of that
    candidate, ln(a·(K-1)/(1-a)), estimated from the other questions (0 without a vote). gold_N: gold's place.
    """

    cast_RN: np.ndarray
    right_RN: np.ndarray
    place_RN: np.ndarray
    log_odds_RN: np.ndarray
    gold_N: np.ndarray
    choices_N: np.ndarray


@dataclass(frozen=True)
class Known:
    """What some voters tell about each question, and how many bits that is.

    pattern_N: the number of its partition; seen_N: how many other questions have it; block_CN: the block of each
    candidate (0: nobody named it); blocks_N: the number of blocks; share_CN: the probability that a candidate is right.
    """

    bits: float
    pattern_N: np.ndarray
    seen_N: np.ndarray
    block_CN: np.ndarray
    blocks_N: np.ndarray
    share_CN: np.ndarray


@dataclass(frozen=True)
class Step:
    """The partition with one more voter: its bits, and the power that the voter's log odds are best taken to."""

    bits: float
    power: float
    pattern_N: np.ndarray
    seen_N: np.ndarray
    fresh_N: np.ndarray
    block_N: np.ndarray
    blocks_N: np.ndarray
    cell_N: np.ndarray


def gather(ballots: Ballots) -> Evidence:
    """Prepare ballots; if any gold is not a candidate, every question gets the choice 'another answer'."""
    check_wrong(ballots.wrong_RN)
    outside = int((ballots.gold_N < 0).any())
    gold_N = np.where(ballots.gold_N < 0, int(ballots.count_N.max()), ballots.gold_N).astype(np.int64)
    choices_N = np.maximum(ballots.count_N + outside, 1)
    cast_RN, right_RN = ballots.answer_RN >= 0, ballots.answer_RN == gold_N
    # Rates from the other questions alone, so that a question does not vouch for itself, plus one guess.
    hits_RN = right_RN.sum(1, keepdims=True) - right_RN + 1 / choices_N
    misses_RN = cast_RN.sum(1, keepdims=True) - cast_RN + 1 - hits_RN
    odds_RN = hits_RN * np.maximum(choices_N - 1, 1e-9) / np.maximum(misses_RN, 1e-9)
    n, row_N = len(gold_N), np.arange(len(gold_N))
    place_RN = np.maximum(ballots.answer_RN, 0) * np.int64(n) + row_N
    return Evidence(cast_RN, right_RN, place_RN, np.log(odds_RN) * cast_RN, gold_N * n + row_N, choices_N)


def nothing(evidence: Evidence) -> Known:
    """What is known without any voter."""
    n = len(evidence.gold_N)
    none_N, most = np.zeros(n, np.int64), int(max(evidence.gold_N.max(), evidence.place_RN.max())) // n + 1
    block_CN, share_CN = np.zeros((most, n), np.int64), np.tile(1 / evidence.choices_N, (most, 1))
    return Known(0.0, none_N, none_N + n - 1, block_CN, none_N, share_CN)


def add(evidence: Evidence, known: Known, voter: int, strength: float = STRENGTH) -> Known:
    """What is known with one more voter."""
    new, place_N, cast_N = step(evidence, known, voter, strength), evidence.place_RN[voter], evidence.cast_RN[voter]
    block_CN, share_CN = known.block_CN.copy(), known.share_CN.copy()
    block_CN.ravel()[place_N[cast_N]] = new.block_N[cast_N]
    odds_N = np.exp(new.power * evidence.log_odds_RN[voter])
    named_N = share_CN.ravel()[place_N]
    share_CN.ravel()[place_N] *= odds_N
    share_CN /= 1 + named_N * (odds_N - 1)
    gold_block_N = block_CN.ravel()[evidence.gold_N]
    first_N = new.cell_N - gold_block_N
    count_CN = np.bincount(new.cell_N, minlength=int(first_N.max() + block_CN.max()) + 1)[first_N + block_CN]
    # Candidates that nobody named share the count of their cell, as they share its probability.
    left_CN = np.where(block_CN > 0, 1, np.maximum(evidence.choices_N - new.blocks_N, 1))
    count_CN = new.fresh_N * (count_CN - (block_CN == gold_block_N)) / left_CN
    share_CN = (count_CN + strength * share_CN) / (new.fresh_N * new.seen_N + strength)
    return Known(new.bits, new.pattern_N, new.seen_N, block_CN, new.blocks_N, share_CN)


def step(evidence: Evidence, known: Known, voter: int, strength: float = STRENGTH) -> Step:
    """The partition with one more voter, and the bits that would then be known."""
    place_N, right_N = evidence.place_RN[voter], evidence.right_RN[voter]
    width = int(known.blocks_N.max()) + 2
    block_N = known.block_CN.ravel()[place_N] * evidence.cast_RN[voter]
    new_N = evidence.cast_RN[voter] & (block_N == 0)
    blocks_N = known.blocks_N + new_N
    block_N += blocks_N * new_N
    code_N = known.pattern_N * width + block_N
    pattern_N = (np.cumsum(np.bincount(code_N) > 0) - 1)[code_N]  # numbered without gaps
    seen_N = np.bincount(pattern_N)[pattern_N] - 1
    # Counts that earlier voters already had are not used twice: a copy of one of them changes nothing.
    fresh_N = (seen_N < known.seen_N) | new_N
    gold_block_N = known.block_CN.ravel()[evidence.gold_N]
    gold_block_N += (block_N - gold_block_N) * right_N
    cell_N = pattern_N * width + gold_block_N
    left_N = np.where(gold_block_N > 0, 1, evidence.choices_N - blocks_N)
    both_N, seen_fresh_N = fresh_N * (np.bincount(cell_N)[cell_N] - 1) / left_N, fresh_N * seen_N + strength
    gold_share_N, named_share_N = (known.share_CN.ravel()[at] for at in (evidence.gold_N, place_N))
    base, best, log_odds_N = float(np.mean(np.log2(evidence.choices_N))), (-np.inf, 0.0), evidence.log_odds_RN[voter]
    gold_log_odds_N = log_odds_N * right_N
    for power in POWERS:
        prior_N = gold_share_N * np.exp(power * gold_log_odds_N)
        prior_N /= 1 + named_share_N * (np.exp(power * log_odds_N) - 1)
        bits = base + float(np.mean(np.log2((both_N + strength * prior_N) / seen_fresh_N)))
        best = max(best, (bits, -power))  # ties go to the least power
    return Step(best[0], -best[1], pattern_N, seen_N, fresh_N, block_N, blocks_N, cell_N)
