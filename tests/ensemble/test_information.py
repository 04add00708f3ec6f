import itertools

import numpy as np
import pytest
from scipy.stats import binom

from w2s.ensemble.ballots import Ballots
from w2s.ensemble.information import STRENGTH, add, gather, nothing, step


def ballots(answer_RN, gold_N, choices=4):
    """Ballots as `opinions.ballots` makes them; an answer below 0 is none."""
    answer_RN, gold_N = np.asarray(answer_RN), np.asarray(gold_N)
    count_N = np.broadcast_to(choices, gold_N.shape)
    wrong_RN = np.where(answer_RN >= 0, answer_RN != gold_N, 1 - 1 / count_N).astype(float)
    return Ballots(answer_RN, wrong_RN, gold_N, count_N)


def information(pool, chosen):
    """Bits, I(Y; X_S), of these voters together, taken in the order of their accuracy; 0 for none."""
    evidence = gather(pool)
    known = nothing(evidence)
    for voter in sorted(map(int, chosen), key=lambda at: (pool.wrong_RN[at].mean(), at)):
        known = add(evidence, known, voter, STRENGTH)
    return known.bits


def vote(rng, gold_N, skill, choices=4):
    """Answers that are right with this chance and otherwise any other choice."""
    other_N = (gold_N + rng.integers(1, choices, size=len(gold_N))) % choices
    return np.where(rng.random(len(gold_N)) < skill, gold_N, other_N)


def entropy(share):
    share = np.array([p for p in np.ravel(share) if p > 0])
    return -(share * np.log2(share)).sum()


def told_by_symmetric_voters(skills):
    """I(Y; X) of independent voters between two choices, by enumerating all their answers."""
    bits = 0.0
    for right in itertools.product([0, 1], repeat=len(skills)):
        one = np.prod([s if r else 1 - s for s, r in zip(skills, right, strict=True)])
        other = np.prod([1 - s if r else s for s, r in zip(skills, right, strict=True)])
        bits += (one + other) / 2 * (1 - entropy([one / (one + other), other / (one + other)]))
    return bits


def test_one_voter_tells_what_its_confusion_tells():
    rng = np.random.default_rng(0)
    gold_N = rng.integers(5, size=20_000)
    answer_N = vote(rng, gold_N, 0.6, 5)
    rate = (answer_N == gold_N).mean()
    exact = np.log2(5) - entropy([rate, 1 - rate]) - (1 - rate) * np.log2(4)
    assert information(ballots([answer_N], gold_N, 5), [0]) == pytest.approx(exact, abs=1e-3)


@pytest.mark.parametrize("skills", [(0.8,), (0.7, 0.6), (0.7, 0.7, 0.7), (0.9, 0.6, 0.55, 0.8)])
def test_two_choices_and_symmetric_voters_agree_with_exact_enumeration(skills):
    rng = np.random.default_rng(1)
    gold_N = rng.integers(2, size=60_000)
    found = information(ballots([vote(rng, gold_N, s, 2) for s in skills], gold_N, 2), range(len(skills)))
    assert found == pytest.approx(told_by_symmetric_voters(skills), abs=0.01)


def test_equal_voters_tell_what_the_count_of_agreeing_votes_tells():
    rng, size, skill = np.random.default_rng(2), 5, 0.65
    gold_N = rng.integers(2, size=60_000)
    count = np.arange(size + 1)
    one, other = binom.pmf(count, size, skill), binom.pmf(count, size, 1 - skill)
    exact = 1 - sum((a + b) / 2 * entropy([a / (a + b), b / (a + b)]) for a, b in zip(one, other, strict=True))
    found = information(ballots([vote(rng, gold_N, skill, 2) for _ in range(size)], gold_N, 2), range(size))
    assert found == pytest.approx(exact, abs=0.01)


def test_a_voter_that_knows_everything_leaves_nothing_to_know():
    gold_N = np.arange(3000) % 4
    assert information(ballots([gold_N], gold_N), [0]) == pytest.approx(2, abs=0.01)
    assert information(ballots([gold_N], gold_N), []) == 0


@pytest.mark.parametrize("n", [100, 2000])
def test_a_copy_adds_nothing(n):
    rng = np.random.default_rng(3)
    gold_N = rng.integers(4, size=n)
    first, second = vote(rng, gold_N, 0.6), vote(rng, gold_N, 0.5)
    pool = ballots([first, second, first], gold_N)
    assert information(pool, [0, 2]) == pytest.approx(information(pool, [0]), abs=1e-9)
    assert information(pool, [0, 1, 2]) == pytest.approx(information(pool, [0, 1]), abs=1e-9)


def test_the_copy_of_a_voter_with_other_names_for_the_choices_adds_nothing():
    rng = np.random.default_rng(4)
    gold_N = rng.integers(4, size=500)
    pool = ballots([vote(rng, gold_N, 0.6), vote(rng, gold_N, 0.5)], gold_N)
    turned = rng.integers(4, size=500)  # each question's choices in another order
    other = ballots((pool.answer_RN + turned) % 4, (gold_N + turned) % 4)
    assert information(other, [0, 1]) == pytest.approx(information(pool, [0, 1]), abs=1e-9)


def test_twenty_coins_do_not_look_informative_on_200_questions():
    told = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        gold_N = rng.integers(4, size=200)
        coins = ballots(rng.integers(4, size=(20, 200)), gold_N)
        told.append(information(coins, range(20)))
        assert max(information(coins, [r]) for r in range(20)) < 0.05
        with_one = ballots(np.vstack([vote(rng, gold_N, 0.7), coins.answer_RN]), gold_N)
        assert information(with_one, range(21)) < information(with_one, [0]) + 0.05
    assert np.mean(told) < 0.02  # of 2 bits
    assert max(told) < 0.06


def test_the_plain_plug_in_is_fooled_by_coins():
    rng = np.random.default_rng(5)
    gold_N = rng.integers(4, size=200)
    answer_RN = rng.integers(4, size=(20, 200))
    patterns = np.unique(answer_RN == answer_RN[:1], axis=1).shape[1]
    assert patterns > 190  # each question is alone with its partition, so counting says that all is known
    assert information(ballots(answer_RN, gold_N), range(20)) < 0.06


def test_independent_voters_add_up_on_large_samples():
    rng = np.random.default_rng(6)
    gold_N = rng.integers(4, size=30_000)
    pool = ballots([vote(rng, gold_N, s) for s in (0.7, 0.6, 0.5, 0.4)], gold_N)
    told = [information(pool, range(size)) for size in range(5)]
    assert (np.diff(told) > 0.005).all()
    assert (np.diff(told, 2) < 0).all()  # each adds less than the one before


def test_dependent_voters_tell_less_than_independent_ones_and_more_than_one():
    rng = np.random.default_rng(7)
    gold_N, hard_N = rng.integers(4, size=20_000), rng.random(20_000)
    other_N = (gold_N + rng.integers(1, 4, size=20_000)) % 4

    def herd(own):  # all err on the same questions, with the same wrong answer
        return np.where(np.where(rng.random(20_000) < own, rng.random(20_000), hard_N) < 0.6, gold_N, other_N)

    independent = information(ballots([vote(rng, gold_N, 0.6) for _ in range(3)], gold_N), range(3))
    dependent = ballots([herd(0.3) for _ in range(3)], gold_N)
    assert information(dependent, [0]) + 0.02 < information(dependent, range(3)) < independent - 0.2


def test_ten_voters_tell_more_than_three_also_where_most_partitions_are_seen_once():
    rng = np.random.default_rng(8)
    gold_N = rng.integers(4, size=2000)
    pool = ballots([vote(rng, gold_N, 0.5) for _ in range(10)], gold_N)
    assert information(pool, range(10)) > information(pool, range(3)) + 0.3


def test_a_voter_that_abstains_where_it_would_guess_tells_more_than_one_that_guesses():
    rng = np.random.default_rng(9)
    gold_N, knows_N = rng.integers(4, size=20_000), rng.random(20_000) < 0.5
    silent = np.where(knows_N, gold_N, -1)
    guesses = np.where(knows_N, gold_N, rng.integers(4, size=20_000))
    assert information(ballots([silent], gold_N), [0]) == pytest.approx(1.0, abs=0.03)
    assert information(ballots([guesses], gold_N), [0]) < 0.75


def test_gold_that_nobody_named_is_one_choice_more():
    rng = np.random.default_rng(10)
    gold_N = np.where(rng.random(8000) < 0.5, 0, -1)
    knows = np.where(gold_N == 0, 0, 1)  # right where it can be, and elsewhere its own answer
    pool = ballots([knows], gold_N, 2)
    assert information(pool, [0]) == pytest.approx(np.log2(3) - 1 - 0.5 * 1, abs=0.01)
    assert np.isfinite(information(ballots([knows, knows], np.full(8000, -1), 2), [0, 1]))


def test_questions_may_have_different_numbers_of_choices():
    rng = np.random.default_rng(11)
    count_N = np.where(np.arange(40_000) % 2, 2, 5)
    gold_N = rng.integers(count_N)
    sure = information(ballots([gold_N], gold_N, count_N), [0])
    assert sure == pytest.approx((1 + np.log2(5)) / 2, abs=0.01)


def test_neither_the_order_of_questions_nor_of_voters_changes_anything():
    rng = np.random.default_rng(12)
    gold_N = rng.integers(4, size=300)
    answer_RN = np.array([vote(rng, gold_N, s) for s in (0.7, 0.55, 0.6, 0.4)])
    rows, voters = rng.permutation(300), np.array([2, 0, 3, 1])
    there = information(ballots(answer_RN, gold_N), [0, 1, 2])
    back = information(ballots(answer_RN[voters][:, rows], gold_N[rows]), [1, 0, 3])
    assert there == pytest.approx(back, abs=1e-9)


def test_the_probabilities_told_sum_to_one_and_a_step_foretells_what_adding_gives():
    rng = np.random.default_rng(13)
    gold_N = rng.integers(4, size=400)
    answer_RN = np.array([vote(rng, gold_N, s) for s in (0.7, 0.5, 0.6)])
    answer_RN[:, :50] = -1
    evidence = gather(ballots(answer_RN, gold_N))
    known = nothing(evidence)
    for voter in range(3):
        foretold = step(evidence, known, voter).bits
        known = add(evidence, known, voter)
        assert known.bits == foretold
        assert known.share_CN.min() > 0
        # A question's own gold is left out of its counts, which takes at most one count of `strength`.
        assert known.share_CN.sum(0) == pytest.approx(1, abs=1e-9)
        gold_share_N = known.share_CN[gold_N, np.arange(400)]
        assert known.bits == pytest.approx(2 + np.log2(gold_share_N).mean())
