"""Scorers: the solution is one, and no score of the search saw its own question's truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from w2s.pools import scorers
from w2s.pools.logistic import fit_one


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.floats(0.01, 100), st.floats(0.1, 30), st.booleans())
def test_newtons_method_arrives_where_the_slope_is_zero(seed, l2, scale, separable):
    rng = np.random.default_rng(seed)
    x_NF = np.c_[np.ones(60), scale * rng.standard_normal((60, 4))]
    target_N = (x_NF[:, 1] > 0) * 1.0 if separable else rng.random(60)
    coef_F = fit_one(x_NF, target_N, l2, np.zeros(5))
    error_N = 1 / (1 + np.exp(-np.clip(x_NF @ coef_F, -500, 500))) - target_N
    slope_F = x_NF.T @ error_N + l2 * np.array([1e-3, 1, 1, 1, 1]) * coef_F
    assert np.abs(slope_F).max() < 1e-3 * scale


def test_it_is_scikit_learns_logistic_regression():
    rng = np.random.default_rng(0)
    x_NF = np.c_[np.ones(500), rng.standard_normal((500, 3))]
    target_N = rng.random(500) < 1 / (1 + np.exp(-(x_NF @ [0.5, 1, -2, 0])))
    coef_F = fit_one(x_NF, target_N.astype(float), 1.0, np.zeros(4))
    theirs = LogisticRegression(C=1.0, tol=1e-8).fit(x_NF[:, 1:], target_N)
    np.testing.assert_allclose(coef_F, [*theirs.intercept_, *theirs.coef_[0]], atol=1e-4)


def test_a_score_out_of_fold_does_not_know_its_own_question():
    rng = np.random.default_rng(1)
    x_NF, target_N = np.c_[np.ones(80), rng.standard_normal((80, 3))], rng.integers(0, 2, 80).astype(float)
    fold_N = scorers.fold_of(np.array([f"q{at}" for at in range(80)]), 5, 0)
    everywhere = np.ones(80, bool)
    _, logit_N = scorers.cross_fit(x_NF, target_N, everywhere, fold_N, 1.0)
    for fold in range(5):
        flipped_N = np.where(fold_N == fold, 1 - target_N, target_N)
        _, again_N = scorers.cross_fit(x_NF, flipped_N, everywhere, fold_N, 1.0)
        np.testing.assert_allclose(again_N[fold_N == fold], logit_N[fold_N == fold], atol=1e-4)
        assert np.abs(again_N - logit_N)[fold_N != fold].max() > 0.01


def test_folds_go_by_id_and_what_is_beyond_enough_is_never_fitted_on():
    ids = np.array([f"q{at:05}" for at in range(scorers.ENOUGH + 100)])
    rows = np.random.default_rng(0).permutation(len(ids))
    fold_N = scorers.fold_of(ids, 5, 3)
    np.testing.assert_array_equal(scorers.fold_of(ids[rows], 5, 3), fold_N[rows])
    assert (fold_N == -1).sum() == 100
    assert np.bincount(fold_N[fold_N >= 0]).tolist() == [scorers.ENOUGH // 5] * 5
    x_NF, target_N = np.ones((len(ids), 1)), np.zeros(len(ids))
    _, logit_N = scorers.cross_fit(x_NF, np.where(fold_N < 0, 1.0, target_N), np.ones(len(ids), bool), fold_N, 1.0)
    assert logit_N.max() == pytest.approx(logit_N.min(), abs=1)
    assert logit_N.max() < -5
