"""Best-of-n in expectation, against every subset there is."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s.rewards.best_of_n import curve, doublings, expected, kl, pick_probs, pick_probs_if_drawn
from w2s.store.records import BadInput

NAN = np.nan


def by_subsets(proxy_K, n, always=None):
    """How often each candidate is picked over all subsets of size n (those with `always` in them), ties shared."""
    count_K, subsets = np.zeros(len(proxy_K)), 0
    ranked_K = np.where(np.isnan(proxy_K), -np.inf, proxy_K)
    for subset in map(list, itertools.combinations(range(len(proxy_K)), n)):
        if always is None or always in subset:
            best = [at for at in subset if ranked_K[at] == ranked_K[subset].max()]
            count_K[best] += 1 / len(best)
            subsets += 1
    return count_K / subsets


def case(seed, rows, fewest=1, ties=False, holes=False):
    rng = np.random.default_rng(seed)
    mask_NK = np.arange(7) < rng.integers(fewest, 8, rows)[:, None]
    mask_NK = rng.permuted(mask_NK, axis=1)
    proxy_NK, gold_NK = rng.normal(size=(2, rows, 7))
    proxy_NK = np.round(proxy_NK) if ties else proxy_NK
    if holes:
        proxy_NK[rng.random(proxy_NK.shape) < 0.2] = NAN
    return proxy_NK, gold_NK, mask_NK


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 7), ties=st.booleans(), holes=st.booleans())
def test_picks_are_the_mean_over_all_subsets(seed, n, ties, holes):
    proxy_NK, gold_NK, mask_NK = case(seed, 3, fewest=n, ties=ties, holes=holes)
    picks_NK = pick_probs(proxy_NK, mask_NK, n)
    np.testing.assert_allclose(picks_NK.sum(1), 1, atol=1e-9)
    assert (picks_NK[~mask_NK] == 0).all()
    score_N = expected(gold_NK, picks_NK)
    for row, mask_K in enumerate(mask_NK):
        counted = by_subsets(proxy_NK[row, mask_K], n)
        np.testing.assert_allclose(picks_NK[row, mask_K], counted, atol=1e-9)
        assert score_N[row] == pytest.approx(counted @ gold_NK[row, mask_K])


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 7), ties=st.booleans())
def test_a_candidate_that_always_joins_is_picked_as_over_the_subsets_that_hold_it(seed, n, ties):
    proxy_NK, _, mask_NK = case(seed, 2, fewest=n, ties=ties)
    picks_NK = pick_probs_if_drawn(proxy_NK, mask_NK, n)
    for row, mask_K in enumerate(mask_NK):
        proxy_K = proxy_NK[row, mask_K]
        counted = [by_subsets(proxy_K, n, always=at)[at] for at in range(len(proxy_K))]
        np.testing.assert_allclose(picks_NK[row, mask_K], counted, atol=1e-9)


def test_picks_as_computed_by_hand():
    mask_NK = np.ones((1, 4), dtype=bool)
    # Of the six pairs the best is in 3, the two that tie share 1 and win against the last in 2, the last is never.
    np.testing.assert_allclose(pick_probs(np.array([[9, 5, 5, 1]]), mask_NK, 2), [[3 / 6, 1.5 / 6, 1.5 / 6, 0]])
    np.testing.assert_allclose(pick_probs(np.array([[9, 5, 5, NAN]]), mask_NK, 1), [[1 / 4] * 4])


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), ties=st.booleans())
def test_the_ends_of_the_curve_are_the_mean_and_the_best(seed, ties):
    proxy_NK, gold_NK, _ = case(seed, 5, ties=ties)
    mask_NK = np.ones((5, 7), dtype=bool)
    found = curve(proxy_NK, gold_NK, mask_NK, sizes=range(1, 8))
    np.testing.assert_allclose(found.gold_SN[0], gold_NK.mean(1), atol=1e-9)
    np.testing.assert_allclose(found.proxy_SN[-1], proxy_NK.max(1), atol=1e-9)
    assert (np.diff(found.proxy_SN, axis=0) >= -1e-9).all()
    assert found.kl_S[0] == 0
    assert found.n_S.tolist() == [1, 2, 3, 4, 5, 6, 7]


@given(seed=st.integers(0, 10**6), n=st.integers(1, 3))
def test_picks_permute_with_rows_and_candidates(seed, n):
    proxy_NK, _, mask_NK = case(seed, 6, fewest=3, ties=True, holes=True)
    rng = np.random.default_rng(seed)
    row, column = rng.permutation(6), rng.permutation(7)
    again_NK = pick_probs(proxy_NK[row][:, column], mask_NK[row][:, column], n)
    np.testing.assert_allclose(again_NK, pick_probs(proxy_NK, mask_NK, n)[row][:, column], atol=1e-12)


def test_a_thousand_candidates_are_no_trouble():
    rng = np.random.default_rng(0)
    proxy_NK = rng.normal(size=(3, 1000))
    mask_NK = np.ones(proxy_NK.shape, dtype=bool)
    for n in (1, 2, 10, 500, 999, 1000):
        picks_NK = pick_probs(proxy_NK, mask_NK, n)
        np.testing.assert_allclose(picks_NK.sum(1), 1, atol=1e-9)
        best = picks_NK[np.arange(3), proxy_NK.argmax(1)]
        np.testing.assert_allclose(best, n / 1000, atol=1e-9)


def test_the_estimate_is_that_of_drawing_many_times():
    rng = np.random.default_rng(1)
    proxy_K, gold_K = rng.normal(size=(2, 12))
    draws = rng.random((20000, 12)).argsort(1)[:, :4]
    picked = draws[np.arange(20000), proxy_K[draws].argmax(1)]
    found = curve(proxy_K[None], gold_K[None], np.ones((1, 12), dtype=bool), sizes=[4])
    assert found.gold_SN[0, 0] == pytest.approx(gold_K[picked].mean(), abs=5 * gold_K.std() / math.sqrt(20000))


def test_the_divergence_is_that_of_the_densities():
    # Best-of-n of a uniform sample has density n·u^(n−1) on [0, 1]: the mean of its logarithm is the divergence.
    at = (np.arange(200000) + 0.5) / 200000
    for n in (1, 2, 8, 64):
        density = n * at ** (n - 1)
        assert kl(n) == pytest.approx(np.mean(np.log(np.maximum(density, 1e-300)) * density), abs=1e-3)


def test_a_pick_that_may_have_no_score_has_none():
    proxy_NK, mask_NK = np.array([[1.0, NAN]]), np.ones((1, 2), dtype=bool)
    found = curve(proxy_NK, np.array([[3.0, 5.0]]), mask_NK, sizes=[1, 2])
    assert np.isnan(found.proxy_SN[:, 0]).tolist() == [True, False]
    np.testing.assert_allclose(found.gold_SN[:, 0], [4, 3])


def test_doublings_end_with_the_most_there_is():
    assert doublings(1) == [1]
    assert doublings(8) == [1, 2, 4, 8]
    assert doublings(56) == [1, 2, 4, 8, 16, 32, 56]


def test_more_than_there_are_and_missing_gold_are_refused():
    mask_NK = np.array([[True, True, True], [True, True, False], [True, False, False]])
    with pytest.raises(BadInput, match=r"n: 3 given; .*; 2 questions have fewer candidates \(the fewest: 1\)"):
        pick_probs(np.zeros((3, 3)), mask_NK, 3)
    with pytest.raises(BadInput, match="n: 0 given; allowed: 1 up to the candidates of every question"):
        pick_probs(np.zeros((3, 3)), mask_NK, 0)
    with pytest.raises(BadInput, match="n: 0 given"):
        kl(0)
    with pytest.raises(ValueError, match="a real candidate has no finite score"):
        curve(np.zeros((3, 3)), np.full((3, 3), NAN), mask_NK, sizes=[1])
