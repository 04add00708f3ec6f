"""Labels tilted, accepted and rejected by rewards."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s.ensemble.selection import KEPT
from w2s.rewards.tilt import accept, choose_strength, tilt
from w2s.store.records import BadInput, softmax

NAN = np.nan


def case(seed, rows=6, holes=False):
    """probs_NK (some 0), mask_NK, rewards_NK."""
    rng = np.random.default_rng(seed)
    mask_NK = np.arange(5) < rng.integers(2, 6, rows)[:, None]
    probs_NK = softmax(rng.normal(size=(rows, 5)), mask_NK)
    probs_NK[:, 1] *= rng.random(rows) < 0.8
    rewards_NK = rng.normal(size=(rows, 5)) * 3
    if holes:
        rewards_NK[rng.random(rewards_NK.shape) < 0.3] = NAN
    return probs_NK / probs_NK.sum(1, keepdims=True), mask_NK, rewards_NK


def test_a_tilt_as_computed_by_hand():
    probs_NK, mask_NK = np.array([[0.5, 0.25, 0.25, 0.0]]), np.array([[True, True, True, False]])
    rewards_NK = np.array([[0.0, np.log(2), np.log(4), NAN]])
    np.testing.assert_allclose(tilt(probs_NK, mask_NK, rewards_NK, strength=1), [[0.25, 0.25, 0.5, 0]])
    np.testing.assert_allclose(tilt(probs_NK, mask_NK, rewards_NK, strength=2), [[2 / 22, 4 / 22, 16 / 22, 0]])


@given(seed=st.integers(0, 10**6), strength=st.floats(0, 20), zero=st.floats(-100, 100))
def test_a_tilt_is_the_formula_whatever_the_zero_of_the_rewards(seed, strength, zero):
    probs_NK, mask_NK, rewards_NK = case(seed)
    wanted_NK = np.where(mask_NK, probs_NK * np.exp(strength * (rewards_NK - rewards_NK.max())), 0)
    total_N1 = wanted_NK.sum(1, keepdims=True)
    found_NK = tilt(probs_NK, mask_NK, rewards_NK + zero, strength=strength)
    np.testing.assert_allclose(found_NK.sum(1), 1)
    assert (found_NK[~mask_NK] == 0).all()
    assert (found_NK[probs_NK == 0] == 0).all()
    rows = total_N1[:, 0] > 1e-250  # where the plain formula does not underflow
    np.testing.assert_allclose(found_NK[rows], (wanted_NK / np.where(total_N1 > 0, total_N1, 1))[rows], atol=1e-8)


@given(seed=st.integers(0, 10**6))
def test_no_strength_changes_nothing_and_two_tilts_are_one(seed):
    probs_NK, mask_NK, rewards_NK = case(seed, holes=True)
    np.testing.assert_allclose(tilt(probs_NK, mask_NK, rewards_NK, strength=0), probs_NK, atol=1e-12)
    rewards_NK = np.nan_to_num(rewards_NK)
    once_NK = tilt(probs_NK, mask_NK, rewards_NK, strength=0.5)
    np.testing.assert_allclose(
        tilt(once_NK, mask_NK, rewards_NK, strength=1.5),
        tilt(probs_NK, mask_NK, rewards_NK, strength=2.0),
        atol=1e-9,
    )


@given(seed=st.integers(0, 10**6))
def test_tilted_labels_permute_with_rows_and_candidates(seed):
    probs_NK, mask_NK, rewards_NK = case(seed, holes=True)
    rng = np.random.default_rng(seed)
    row, column = rng.permutation(6), rng.permutation(5)
    again_NK = tilt(probs_NK[row][:, column], mask_NK[row][:, column], rewards_NK[row][:, column], strength=2)
    np.testing.assert_allclose(again_NK, tilt(probs_NK, mask_NK, rewards_NK, strength=2)[row][:, column], atol=1e-9)


def test_a_huge_strength_takes_the_best_possible_candidate():
    probs_NK, mask_NK = np.array([[0.9, 0.1, 0.0]]), np.ones((1, 3), dtype=bool)
    assert tilt(probs_NK, mask_NK, np.array([[0.0, 1e300, 2e300]]), strength=1e300).tolist() == [[0, 1, 0]]


def test_a_candidate_without_reward_counts_as_the_mean_and_a_question_without_any_stays():
    probs_NK, mask_NK = np.array([[0.2, 0.3, 0.5], [0.2, 0.3, 0.5]]), np.ones((2, 3), dtype=bool)
    found_NK = tilt(probs_NK, mask_NK, np.array([[1.0, NAN, 3.0], [NAN, NAN, NAN]]), strength=1)
    np.testing.assert_allclose(
        found_NK, [tilt(probs_NK[:1], mask_NK[:1], np.array([[1.0, 2.0, 3.0]]), strength=1)[0], [0.2, 0.3, 0.5]]
    )


def choose_from(*data, **constants):
    with mock.patch.multiple("w2s.rewards.tilt", **constants):
        return choose_strength(*data)


def test_the_strength_that_the_labels_were_made_with_is_found():
    rng = np.random.default_rng(0)
    mask_NK = np.ones((4000, 4), dtype=bool)
    probs_NK = softmax(rng.normal(size=(4000, 4)), mask_NK)
    rewards_NK = rng.normal(size=(4000, 4))
    truth_NK = tilt(probs_NK, mask_NK, rewards_NK, strength=2)
    gold_N = (truth_NK.cumsum(1) < rng.random((4000, 1))).sum(1)
    found = choose_strength(probs_NK, mask_NK, rewards_NK, gold_N)
    assert found.strength == 2
    assert found.rows == 4000
    by_hand = np.log(probs_NK[np.arange(4000), gold_N]).mean()
    assert found.likelihood_G[0] >= by_hand
    plain = choose_from(probs_NK, mask_NK, rewards_NK, gold_N, TEMPERATURES=[1.0])
    assert plain.likelihood_G[0] == pytest.approx(by_hand)


def test_rewards_that_only_make_an_unsure_committee_surer_get_no_strength():
    rng = np.random.default_rng(0)
    mask_NK, gold_N = np.ones((2000, 4), dtype=bool), rng.integers(4, size=2000)
    right_NK = np.arange(4) == gold_N[:, None]
    score_NK = rng.normal(size=(2000, 4)) + 3 * right_NK
    probs_NK = softmax(0.4 * score_NK, mask_NK)  # right far more often than it says
    rewards_NK = score_NK + 2 * rng.normal(size=(2000, 4))  # the same, and noise
    assert choose_from(probs_NK, mask_NK, rewards_NK, gold_N, TEMPERATURES=[1.0]).strength > 0
    assert choose_strength(probs_NK, mask_NK, rewards_NK, gold_N).strength == 0
    knowing_NK = rng.normal(size=(2000, 4)) + 3 * right_NK  # as good as the committee, with errors of its own
    assert choose_strength(probs_NK, mask_NK, knowing_NK, gold_N).strength > 0


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_rewards_that_say_nothing_or_the_contrary_get_no_strength(seed):
    probs_NK, mask_NK, rewards_NK = case(seed)
    gold_N = np.argmax(np.where(mask_NK & (probs_NK > 0), -rewards_NK, -np.inf), axis=1)
    assert choose_strength(probs_NK, mask_NK, rewards_NK, gold_N).strength == 0
    assert choose_from(probs_NK, mask_NK, 0 * rewards_NK, gold_N, STRENGTHS=[1, 2]).strength == 0
    assert choose_from(probs_NK, mask_NK, -rewards_NK, gold_N, STRENGTHS=[1, 50], TEMPERATURES=[1]).strength == 50


def test_a_question_that_gives_gold_no_probability_does_not_decide():
    probs_NK, mask_NK = np.array([[1.0, 0.0], [0.5, 0.5]]), np.ones((2, 2), dtype=bool)
    found = choose_from(probs_NK, mask_NK, np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([1, 1]), STRENGTHS=[1])
    assert (found.strength, found.rows) == (1, 1)
    none = choose_strength(probs_NK[:1], mask_NK[:1], np.array([[1.0, 0.0]]), np.array([1]))
    assert (none.strength, none.rows) == (0, 0)


PROBS = np.array([[0.7, 0.3, 0.0], [0.1, 0.6, 0.3], [0.5, 0.5, 0.0], [0.2, 0.8, 0.0], [1.0, 0.0, 0.0]])
REAL = np.array([[1, 1, 0], [1, 1, 1], [1, 1, 0], [1, 1, 0], [1, 0, 0]], dtype=bool)
REWARDS = np.array([[2.0, 1.0, 9.0], [0.0, 0.5, 1.5], [1.0, 3.0, 9.0], [1.0, NAN, 9.0], [-1.0, 9.0, 9.0]])


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"of": "reward", "least": 1.0}, [1, 0, 1, 0, 0]),  # rewards 2, 0.5, 2 (the mean of a tie), none, -1
        ({"of": "reward", "least": -5.0}, [1, 1, 1, 0, 1]),
        ({"of": "reward", "quantile": 0.5}, [1, 1, 1, 0, 0]),
        ({"of": "reward", "quantile": 0.0}, [1, 1, 1, 0, 1]),
        ({"of": "reward", "quantile": 1.0}, [1, 0, 1, 0, 0]),
        ({"of": "margin", "least": 0.0}, [1, 0, 1, 0, 1]),  # margins 1, -1, no rival, none, no rival
        ({"of": "margin", "quantile": 0.4}, [1, 0, 1, 0, 1]),
        ({"of": "margin", "quantile": 1.0}, [0, 0, 1, 0, 1]),
    ],
)
def test_labels_are_accepted_by_their_bound(options, kept):
    keep_N, why_N = accept(PROBS, REAL, REWARDS, **options)
    assert keep_N.tolist() == [bool(one) for one in kept]
    assert ((why_N == KEPT) == keep_N).all()
    assert why_N[3] == "no reward model judged it"
    order = np.array([3, 1, 4, 0, 2])
    np.testing.assert_array_equal(accept(PROBS[order], REAL[order], REWARDS[order], **options)[1], why_N[order])


def test_a_rejected_label_says_by_how_much():
    _, why_N = accept(PROBS, REAL, REWARDS, of="margin", least=0.25)
    assert why_N[1] == "the margin is -1.000, below 0.250"


def test_an_empty_set_of_labels_and_labels_without_rewards_have_their_answer():
    keep_N, why_N = accept(PROBS[:0], REAL[:0], REWARDS[:0], quantile=0.5)
    assert len(keep_N) == len(why_N) == 0
    keep_N, _ = accept(PROBS, REAL, np.full(REWARDS.shape, NAN), quantile=0.5)
    assert not keep_N.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "least: give exactly one of least and quantile"),
        ({"least": 1.0, "quantile": 0.5}, "least: give exactly one of least and quantile"),
        ({"quantile": 1.5}, "quantile: 1.5 given; allowed: 0 to 1"),
        ({"least": 1.0, "of": "score"}, "of: 'score' given; allowed: reward, margin"),
    ],
)
def test_a_bound_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(BadInput, match=message):
        accept(PROBS, REAL, REWARDS, **options)


def test_tilts_that_make_no_sense_are_refused():
    with pytest.raises(BadInput, match="strength: -1 given; allowed: a number of 0 or more"):
        tilt(PROBS, REAL, REWARDS, strength=-1)
    with pytest.raises(ValueError, match="do not fit"):
        tilt(PROBS, REAL, REWARDS[:, :2])
    with pytest.raises(ValueError, match="1 rewards are infinite"):
        tilt(PROBS[:1], REAL[:1], np.array([[np.inf, 0, 0]]))
    with pytest.raises(ValueError, match="no validation question"):
        choose_strength(PROBS[:0], REAL[:0], REWARDS[:0], np.array([]))
    for gold in (2, -1):
        with pytest.raises(ValueError, match="a gold index belongs to no candidate"):
            choose_strength(PROBS[:1], REAL[:1], REWARDS[:1], np.array([gold]))
