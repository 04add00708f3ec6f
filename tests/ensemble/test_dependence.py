"""Dependence of the learners: the case of the nine voters, and properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2s.boosting.adaboost import wrongness
from w2s.ensemble import dependence
from w2s.ensemble.alphas import ALPHAS
from w2s.ensemble.ballots import Ballots
from w2s.ensemble.combiners import COMBINERS


def nine_voters(seed, rows, accuracies=(0.80, 0.79, 0.77, 0.75, 0.55), copies=4, slip=0.03):
    """Two candidates, five independent voters, then near copies of the last and worst. probs_RNK, gold_N."""
    rng = np.random.default_rng(seed)
    gold_N = rng.integers(0, 2, rows)
    right_RN = rng.random((len(accuracies), rows)) < np.array(accuracies)[:, None]
    copies_RN = right_RN[-1] ^ (rng.random((copies, rows)) < slip)
    choice_RN = np.where(np.concatenate([right_RN, copies_RN]), gold_N, 1 - gold_N)
    return np.eye(2)[choice_RN], gold_N


def accuracy(combiner, probs_RNK, gold_N, alpha_R):
    mask_NK = np.ones((len(gold_N), 2), bool)
    return 1 - wrongness(COMBINERS[combiner](probs_RNK, mask_NK, alpha_R), mask_NK, gold_N).mean()


def wrong_of(probs_RNK, gold_N):
    return np.array([wrongness(probs_NK, np.ones(probs_NK.shape, bool), gold_N) for probs_NK in probs_RNK])


@pytest.mark.parametrize("seed", range(5))
def test_nine_voters_of_which_five_are_copies_of_the_worst_are_noticed_and_repaired(seed):
    holdout_RNK, holdout_N = nine_voters(seed, 500)
    test_RNK, test_N = nine_voters(seed + 100, 4000)
    five, nine = np.ones(5), np.ones(9)
    alone = accuracy("plurality", test_RNK[:5], test_N, five)
    pulled = accuracy("plurality", test_RNK, test_N, nine)
    assert alone == pytest.approx(0.88, abs=0.02)
    assert pulled == pytest.approx(0.56, abs=0.03)

    wrong_RN = wrong_of(holdout_RNK, holdout_N)
    phi_RR = dependence.error_correlation(wrong_RN)
    assert dependence.near_copies(phi_RR) == [[4, 5, 6, 7, 8]]
    assert "5 of 9 learners are near copies" in dependence.warning(phi_RR)
    assert "learners 5, 6, 7, 8, 9" in dependence.warning(phi_RR)
    assert dependence.effective_voters(phi_RR) < 4

    repaired_R = ALPHAS["decorrelated"](nine, Ballots(wrong_RN < 1, wrong_RN, holdout_N, np.full(500, 2)))
    assert accuracy("weighted_vote", test_RNK, test_N, repaired_R) > 0.86
    # The five copies together have no more say than the best voter alone.
    assert repaired_R[4:].sum() < repaired_R[0]


def test_independent_voters_raise_no_warning():
    probs_RNK, gold_N = nine_voters(0, 1000, accuracies=(0.7,) * 9, copies=0)
    phi_RR = dependence.error_correlation(wrong_of(probs_RNK, gold_N))
    assert dependence.warning(phi_RR) is None
    assert dependence.effective_voters(phi_RR) > 8
    assert dependence.effective_directions(phi_RR) > 8


def test_learners_that_share_hard_questions_are_worth_less_than_they_are_many():
    rng = np.random.default_rng(0)
    wrong_RN = rng.random((10, 1000)) < np.where(rng.random(1000) < 0.5, 0.8, 0.1)
    phi_RR = dependence.error_correlation(wrong_RN)
    assert dependence.near_copies(phi_RR) == []
    assert dependence.warning(phi_RR).startswith("the learners err together: the 10 learners are worth 1.")


def test_effective_voters_is_what_the_variance_of_the_mean_says():
    """R voters with a common part: 1 / variance of their mean, in units of one voter, measured on many draws."""
    rng = np.random.default_rng(1)
    for size, part in ((4, 0.5), (9, 0.2)):
        errors_RN = np.sqrt(part) * rng.normal(size=200_000) + np.sqrt(1 - part) * rng.normal(size=(size, 200_000))
        measured = 1 / errors_RN.mean(0).var()
        phi_RR = part + (1 - part) * np.eye(size)
        assert dependence.effective_voters(phi_RR) == pytest.approx(measured, rel=0.03)


def test_effective_numbers_at_the_ends():
    for size in (1, 2, 7):
        assert dependence.effective_voters(np.eye(size)) == size
        assert dependence.effective_directions(np.eye(size)) == size
        assert dependence.effective_voters(np.ones((size, size))) == pytest.approx(1)
        assert dependence.effective_directions(np.ones((size, size))) == pytest.approx(1)
    # Three copies and two independent voters err in about three ways.
    phi_RR = np.eye(5)
    phi_RR[:3, :3] = 1
    assert dependence.effective_directions(phi_RR) == pytest.approx(25 / 11)
    assert dependence.effective_voters(phi_RR) == pytest.approx(5 / (1 + 4 * 0.3))


def test_phi_by_hand():
    """Of four rows a errs on 0, 1 and b on 0, 2 (unrelated); c errs where a does not (-1); d is always right (0)."""
    wrong_RN = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0]])
    wanted_RR = [[1, 0, -1, 0], [0, 1, 0, 0], [-1, 0, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(dependence.error_correlation(wrong_RN), wanted_RR, atol=1e-12)


wrongs = st.tuples(st.integers(1, 7), st.integers(2, 60), st.integers(0, 10**6), st.floats(0, 1)).map(
    lambda case: (np.random.default_rng(case[2]).random(case[:2]) < case[3]).astype(float)
)


@given(wrong_RN=wrongs)
def test_phi_agrees_with_numpy_and_effective_numbers_stay_between_1_and_r(wrong_RN):
    phi_RR = dependence.error_correlation(wrong_RN)
    assert np.isfinite(phi_RR).all()
    varies_R = wrong_RN.std(1) > 0
    if varies_R.sum() > 1:
        np.testing.assert_allclose(phi_RR[np.ix_(varies_R, varies_R)], np.corrcoef(wrong_RN[varies_R]), atol=1e-9)
    for count in (dependence.effective_voters(phi_RR), dependence.effective_directions(phi_RR)):
        assert 1 - 1e-9 <= count <= len(wrong_RN) + 1e-9


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.zeros((3, 0)), np.array([[0.0, np.nan]]), np.array([1.0, 0])])
def test_wrongness_that_is_no_table_of_0_to_1_raises(bad):
    with pytest.raises(ValueError, match="learners by rows"):
        dependence.error_correlation(bad)
