"""Cost-quality curves, checked against brute force."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from w2s.pools import frontier

# Steps of a hundredth: what differs does so by more than rounding.
numbers = st.integers(0, 100).map(lambda i: i / 100)
points = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=12).map(lambda rows: np.array(rows).T)


@given(points)
def test_the_hull_is_above_all_points_and_rises_ever_more_slowly(cost_quality):
    cost_P, quality_P = cost_quality
    corners = frontier.hull(cost_P, quality_P)
    assert (frontier.interpolate(cost_P, quality_P, cost_P) >= quality_P - 1e-9).all()
    run, rise = np.diff(cost_P[corners]), np.diff(quality_P[corners])
    assert (run > 0).all()
    assert (rise > 0).all()
    assert (np.diff(rise / run) < 0).all()
    assert cost_P[corners[0]] == cost_P.min()
    assert quality_P[corners[-1]] == quality_P.max()


@given(points, numbers)
def test_the_hull_is_what_the_best_mixture_of_two_points_within_the_cost_reaches(cost_quality, cost):
    cost_P, quality_P = cost_quality
    reached = [quality_P[i] for i in range(len(cost_P)) if cost_P[i] <= cost]
    for i in range(len(cost_P)):
        for j in range(len(cost_P)):
            if cost_P[i] < cost < cost_P[j]:
                share = (cost - cost_P[i]) / (cost_P[j] - cost_P[i])
                reached.append((1 - share) * quality_P[i] + share * quality_P[j])
    height = frontier.interpolate(cost_P, quality_P, np.array([cost]))[0]
    if reached:
        assert height == pytest.approx(max(reached), abs=1e-9)
    else:
        assert np.isnan(height)


@given(points, st.permutations(range(12)))
def test_the_order_of_points_changes_no_height(cost_quality, order):
    order = [at for at in order if at < cost_quality.shape[1]]
    at = np.linspace(cost_quality[0].min(), 1.2, 30)
    heights = [frontier.interpolate(*cost_quality[:, rows], at) for rows in (order, sorted(order))]
    np.testing.assert_allclose(*heights, atol=1e-12)


@given(points, numbers, st.floats(0.01, 1))
def test_aiq_is_the_mean_height_over_the_range(cost_quality, low, width):
    high = low + width
    at = low + width * (np.arange(20_000) + 0.5) / 20_000
    padded = np.hstack([cost_quality, np.zeros((2, 1))])
    mean = frontier.interpolate(*padded, at).mean()
    assert frontier.aiq(*cost_quality, low, high) == pytest.approx(mean, abs=2e-4)


def test_aiq_of_a_constant_is_the_constant():
    assert frontier.aiq(np.array([0.0, 1.0, 2.0]), np.full(3, 0.7), 0.0, 2.0) == pytest.approx(0.7)
    assert frontier.aiq(np.array([1.0]), np.array([0.7]), 1.0, 5.0) == pytest.approx(0.7)


@given(points, st.floats(0, 1.2))
def test_a_mixture_of_at_most_two_costs_what_was_asked_and_reaches_the_hull(cost_quality, cost):
    cost_M, quality_M = cost_quality
    share_M = frontier.mixture(cost_M, quality_M, cost)
    corners = frontier.hull(cost_M, quality_M)
    assert share_M.min() >= 0
    assert share_M.sum() == pytest.approx(1)
    assert (share_M > 0).sum() <= 2
    within = np.clip(cost, cost_M[corners[0]], cost_M[corners[-1]])
    assert share_M @ cost_M == pytest.approx(within, abs=1e-9)
    assert share_M @ quality_M == pytest.approx(
        frontier.interpolate(cost_M, quality_M, np.array([within]))[0], abs=1e-9
    )


def test_a_method_that_mixes_at_random_is_on_the_hull_and_one_that_knows_is_above():
    rng = np.random.default_rng(0)
    hard_N = rng.random(4000) < 0.3
    right_MN = np.stack([~hard_N, np.ones(4000)]).astype(float)  # cheap: right on the easy ones; dear: always
    cost_MN = np.repeat([[1.0], [10.0]], 4000, axis=1)
    for dear_N, gain in ((rng.permutation(hard_N), 0.0), (hard_N, 0.21)):
        method_N = np.where(dear_N, right_MN[1], right_MN[0])
        share_M = frontier.mixture(cost_MN.mean(1), right_MN.mean(1), np.where(dear_N, 10.0, 1.0).mean())
        assert (method_N - share_M @ right_MN).mean() == pytest.approx(gain, abs=0.03)


def test_points_that_are_no_points_are_refused():
    with pytest.raises(ValueError, match="finite"):
        frontier.hull(np.array([1.0]), np.array([np.nan]))
    with pytest.raises(ValueError, match="one of each"):
        frontier.hull(np.array([]), np.array([]))
    with pytest.raises(ValueError, match="range of costs"):
        frontier.aiq(np.array([1.0]), np.array([1.0]), 2.0, 2.0)
