"""Combiners: properties that hold for each of them, and cases by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s.config.registry import pick
from w2s.ensemble.combiners import COMBINERS, sharpen, votes
from w2s.store.records import BadInput, softmax

EVERY = pytest.mark.parametrize("name", sorted(COMBINERS))
WEIGHTED = pytest.mark.parametrize("name", ["soft_vote", "weighted_vote", "log_odds"])


@st.composite
def committees(draw):
    """probs_RNK, mask_NK (2 to 5 candidates, the mask with holes), alpha_R, abstained_RN, and a generator."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    learners, rows = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    mask_NK = np.ones((rows, 5), bool)
    for mask_K in mask_NK:
        mask_K[rng.choice(5, size=rng.integers(0, 4), replace=False)] = False
    scores_RNK = rng.normal(size=(learners, rows, 5)) * draw(st.sampled_from([0.5, 3, 300]))
    if draw(st.booleans()):
        scores_RNK = np.round(scores_RNK)  # ties
    probs_RNK = np.array([softmax(scores_NK, mask_NK) for scores_NK in scores_RNK])
    return probs_RNK, mask_NK, rng.exponential(size=learners), rng.random((learners, rows)) < 0.2, rng


@EVERY
@settings(max_examples=60)
@given(case=committees())
def test_the_result_is_a_distribution_over_the_real_candidates(name, case):
    probs_RNK, mask_NK, alpha_R, abstained_RN, _ = case
    probs_NK = COMBINERS[name](probs_RNK, mask_NK, alpha_R, abstained_RN)
    np.testing.assert_allclose(probs_NK.sum(1), 1, atol=1e-12)
    assert (probs_NK >= 0).all()
    assert not probs_NK[~mask_NK].any()


@EVERY
@settings(max_examples=60)
@given(case=committees())
def test_a_permutation_of_candidates_rows_or_learners_changes_nothing(name, case):
    probs_RNK, mask_NK, alpha_R, abstained_RN, rng = case
    combine = COMBINERS[name]
    probs_NK = combine(probs_RNK, mask_NK, alpha_R, abstained_RN)
    k, n, r = rng.permutation(5), rng.permutation(len(mask_NK)), rng.permutation(len(alpha_R))
    by_candidate = combine(probs_RNK[:, :, k], mask_NK[:, k], alpha_R, abstained_RN)
    np.testing.assert_allclose(by_candidate, probs_NK[:, k], atol=1e-9)
    by_row = combine(probs_RNK[:, n], mask_NK[n], alpha_R, abstained_RN[:, n])
    np.testing.assert_allclose(by_row, probs_NK[n], atol=1e-9)
    by_learner = combine(probs_RNK[r], mask_NK, alpha_R[r], abstained_RN[r])
    np.testing.assert_allclose(by_learner, probs_NK, atol=1e-9)


@EVERY
@settings(max_examples=30)
@given(case=committees(), scale=st.floats(1e-6, 1e6))
def test_only_the_proportions_of_the_alphas_matter(name, case, scale):
    probs_RNK, mask_NK, alpha_R, abstained_RN, _ = case
    scaled = COMBINERS[name](probs_RNK, mask_NK, alpha_R * scale, abstained_RN)
    np.testing.assert_allclose(scaled, COMBINERS[name](probs_RNK, mask_NK, alpha_R, abstained_RN), atol=1e-9)


@WEIGHTED
@settings(max_examples=30)
@given(case=committees())
def test_a_learner_twice_with_half_its_alpha_each_is_one_learner(name, case):
    probs_RNK, mask_NK, alpha_R, abstained_RN, _ = case
    twice_R = np.concatenate([alpha_R[:1] / 2, alpha_R[:1] / 2, alpha_R[1:]])
    index = np.concatenate([[0], np.arange(len(alpha_R))])
    twice = COMBINERS[name](probs_RNK[index], mask_NK, twice_R, abstained_RN[index])
    np.testing.assert_allclose(twice, COMBINERS[name](probs_RNK, mask_NK, alpha_R, abstained_RN), atol=1e-9)


@EVERY
@settings(max_examples=30)
@given(case=committees())
def test_a_learner_that_abstains_is_as_if_it_were_not_there(name, case):
    probs_RNK, mask_NK, alpha_R, _, _ = case
    abstained_RN = np.zeros(probs_RNK.shape[:2], bool)
    abstained_RN[-1] = True
    left = COMBINERS[name](probs_RNK, mask_NK, alpha_R, abstained_RN)
    if len(alpha_R) == 1:
        np.testing.assert_allclose(left, mask_NK / mask_NK.sum(1, keepdims=True))
    else:
        np.testing.assert_allclose(left, COMBINERS[name](probs_RNK[:-1], mask_NK, alpha_R[:-1]), atol=1e-12)


@WEIGHTED
@settings(max_examples=30)
@given(case=committees())
def test_with_all_alpha_on_one_learner_its_opinion_is_the_committees(name, case):
    probs_RNK, mask_NK, alpha_R, _, rng = case
    one = rng.integers(len(alpha_R))
    probs_NK = COMBINERS[name](probs_RNK, mask_NK, np.eye(len(alpha_R))[one])
    if name == "weighted_vote":
        np.testing.assert_allclose(probs_NK, votes(probs_RNK[one], mask_NK))
    else:
        np.testing.assert_allclose(probs_NK, probs_RNK[one], atol=1e-5)  # log_odds bounds probabilities at 1e-6


@pytest.mark.parametrize(
    ("uniform", "weighted"), [("uniform_vote", "weighted_vote"), ("mean_probability", "soft_vote")]
)
@settings(max_examples=30)
@given(case=committees())
def test_the_uniform_ones_are_the_weighted_ones_with_alphas_of_1(uniform, weighted, case):
    probs_RNK, mask_NK, alpha_R, abstained_RN, _ = case
    plain = COMBINERS[uniform](probs_RNK, mask_NK, alpha_R, abstained_RN)
    np.testing.assert_allclose(
        plain, COMBINERS[weighted](probs_RNK, mask_NK, np.ones(len(alpha_R)), abstained_RN), atol=1e-12
    )


CASE = np.array([[[0.9, 0.1, 0]], [[0.4, 0.6, 0]], [[0.2, 0.8, 0]]])
MASK = np.array([[True, True, False]])
ALPHA = np.array([3.0, 1.0, 1.0])


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("uniform_vote", 1 / 3),
        ("plurality", 0.0),
        ("mean_probability", 0.5),
        ("weighted_vote", 3 / 5),
        ("soft_vote", (2.7 + 0.4 + 0.2) / 5),
    ],
)
def test_three_learners_by_hand(name, first):
    np.testing.assert_allclose(COMBINERS[name](CASE, MASK, ALPHA), [[first, 1 - first, 0]])


def test_log_odds_by_hand():
    """The log-odds of two candidates add up: (3·ln 9 + ln 2/3 + ln 1/4) / 5; naive Bayes multiplies the odds."""
    odds = np.exp((3 * np.log(9) + np.log(2 / 3) + np.log(1 / 4)) / 5)
    np.testing.assert_allclose(COMBINERS["log_odds"](CASE, MASK, ALPHA)[0, 0], odds / (1 + odds))
    naive = COMBINERS["log_odds"](CASE, MASK, np.ones(3), temperature=1 / 3)
    np.testing.assert_allclose(naive[0, 0], 9 * 2 / 3 / 4 / (1 + 9 * 2 / 3 / 4))


def test_one_learner_that_is_sure_has_no_veto():
    probs_RNK = np.array([[[0.0, 1.0]], [[0.9, 0.1]], [[0.999, 0.001]], [[0.9999, 0.0001]], [[0.99999, 0.00001]]])
    probs_NK = COMBINERS["log_odds"](probs_RNK, np.ones((1, 2), bool), np.ones(5))
    assert np.isfinite(probs_NK).all()
    assert probs_NK[0, 0] > 0.5


def test_plurality_breaks_ties_by_probability_and_shares_what_is_still_tied():
    mask_NK = np.ones((1, 3), bool)
    tied = np.array([[[0.6, 0.4, 0.0]], [[0.0, 0.9, 0.1]]])
    np.testing.assert_array_equal(COMBINERS["plurality"](tied, mask_NK, [5.0, 1.0]), [[0, 1, 0]])
    still = np.array([[[0.7, 0.3, 0.0]], [[0.3, 0.7, 0.0]]])
    np.testing.assert_array_equal(COMBINERS["plurality"](still, mask_NK, [5.0, 1.0]), [[0.5, 0.5, 0]])
    # The most probable candidate does not win when it has fewer votes.
    votes_first = np.array([[[0.4, 0.3, 0.3]], [[0.4, 0.3, 0.3]], [[0.0, 0.0, 1.0]]])
    np.testing.assert_array_equal(COMBINERS["plurality"](votes_first, mask_NK, [1.0] * 3), [[1, 0, 0]])


def test_a_learner_whose_best_candidates_tie_splits_its_vote():
    np.testing.assert_array_equal(
        votes(np.array([[0.4, 0.4, 0.2], [1, 0, 0]]), np.ones((2, 3), bool))[0], [0.5, 0.5, 0]
    )


@given(case=committees(), temperature=st.sampled_from([0.05, 0.5, 1.0, 2.0, 50.0]))
def test_temperature_keeps_the_order_of_the_candidates_and_1_changes_nothing(case, temperature):
    probs_RNK, mask_NK, _, _, _ = case
    sharp_RNK = sharpen(probs_RNK, mask_NK, temperature)
    np.testing.assert_allclose(sharp_RNK.sum(-1), 1)
    order = np.argsort(probs_RNK, axis=-1)
    assert (np.diff(np.take_along_axis(sharp_RNK, order, -1), axis=-1) >= -1e-12).all()
    if temperature == 1:
        np.testing.assert_array_equal(sharp_RNK, probs_RNK)
    top, was = sharp_RNK.max(-1), probs_RNK.max(-1)
    assert (top >= was - 1e-9).all() if temperature <= 1 else (top <= was + 1e-9).all()


def test_soft_vote_at_low_temperature_is_the_weighted_vote():
    probs_RNK = np.random.default_rng(0).dirichlet(np.ones(4), size=(5, 20))
    mask_NK, alpha_R = np.ones((20, 4), bool), np.arange(1.0, 6)
    cold = COMBINERS["soft_vote"](probs_RNK, mask_NK, alpha_R, temperature=1e-4)
    np.testing.assert_allclose(cold, COMBINERS["weighted_vote"](probs_RNK, mask_NK, alpha_R), atol=1e-6)


@WEIGHTED
@pytest.mark.parametrize("alpha_R", [[1.0], [-1.0, 1, 1], [0.0, 0, 0], [float("nan"), 1, 1], [float("inf"), 1, 1]])
def test_alphas_that_make_no_sense_raise(name, alpha_R):
    with pytest.raises(ValueError, match="alphas"):
        COMBINERS[name](CASE, MASK, np.array(alpha_R))


@EVERY
def test_a_probability_that_is_not_finite_raises(name):
    bad = CASE.copy()
    bad[1, 0] = np.nan
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match="not finite"):
        COMBINERS[name](bad, MASK, ALPHA)


@pytest.mark.parametrize("name", ["soft_vote", "mean_probability", "log_odds"])
def test_a_temperature_of_0_is_refused_in_one_line(name):
    with pytest.raises(BadInput, match="temperature: 0 given; allowed: a number above 0"):
        pick(COMBINERS, {"name": name, "temperature": 0})(CASE, MASK, ALPHA)
