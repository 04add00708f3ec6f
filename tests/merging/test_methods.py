"""Merging methods against worked values, peft, and what must hold for any deltas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft.utils import merge_utils

from w2s.config.registry import pick
from w2s.merging import methods
from w2s.merging.methods import MERGES, Tensor, merge_tensor
from w2s.store.records import BadInput

THREE = [np.array([values], dtype=np.float32) for values in ([0.6, -0.4, 0.1], [0.2, 0.5, -0.3], [-0.1, 0.3, 0.2])]


def make(deltas, weights=None, seed=0, **known) -> Tensor:
    weight_R = np.ones(len(deltas)) if weights is None else np.array(weights, dtype=float)
    base_S = np.zeros_like(deltas[0])
    return Tensor("w", base_S, deltas, weight_R / weight_R.sum(), lambda at: np.random.default_rng([seed, at]), **known)


def merged(method: dict | str, deltas, weights=None, **known) -> list[float]:
    return pick(MERGES, method)(make(deltas, weights, **known)).ravel().astype(float).round(4).tolist()


def test_worked_examples():
    assert merged("mean", THREE) == [0.2333, 0.1333, 0.0]
    assert merged({"name": "ties", "density": 1.0}, THREE) == [0.4, 0.4, -0.3]
    assert merged({"name": "ties", "density": 0.67}, THREE) == [0.6, 0.4, -0.3]
    # Weights enter the election, and the divisor is the sum of the weights that agree.
    assert merged({"name": "ties", "density": 1.0}, THREE, [3, 1, 1]) == [0.5, -0.4, 0.125]
    a, b = np.array([[1, 0, 0]], dtype=np.float32), np.array([[0, 2, 0]], dtype=np.float32)
    assert merged("slerp", [a, b]) == [0.7071, 1.4142, 0.0]


def test_shares_of_few_values_are_rounded_and_never_none():
    assert [methods.count_kept(share, size) for share, size in ((0.67, 3), (0.29, 100), (0.3, 1), (0.1, 3))] == [
        2,
        29,
        1,
        1,
    ]
    nine = np.arange(1, 10, dtype=np.float32)[None]
    assert np.count_nonzero(pick(MERGES, {"name": "breadcrumbs", "density": 1.0, "largest": 0.0})(make([nine]))) == 9
    assert merged({"name": "breadcrumbs", "density": 0.5, "largest": 0.1}, [nine]) == [0, 0, 0, 0, 5, 6, 7, 8, 0]


def test_of_equal_magnitudes_the_first_stay():
    assert merged({"name": "ties", "density": 0.5}, [np.array([[1, -1, 1, -1]], dtype=np.float32)]) == [1, -1, 0, 0]


@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
def test_ties_at_equal_weights_is_pefts(density):
    rng = np.random.default_rng(0)
    deltas = [rng.standard_normal((7, 40)).astype(np.float32) for _ in range(3)]
    wanted = merge_utils.ties([torch.from_numpy(delta) for delta in deltas], torch.ones(3), density)
    np.testing.assert_allclose(pick(MERGES, {"name": "ties", "density": density})(make(deltas)), wanted, atol=1e-6)


ONE = st.lists(st.floats(-2, 2, width=32), min_size=6, max_size=6)
DELTAS = st.lists(ONE.map(lambda v: np.array(v, dtype=np.float32).reshape(2, 3)), min_size=2, max_size=4)
PLAIN = ("mean", "ties", "stock", "varm", "sce", "breadcrumbs")


@given(DELTAS, st.sampled_from(PLAIN))
def test_the_result_is_finite_and_lies_within_the_deltas(deltas, method):
    found = pick(MERGES, method)(make(deltas))
    bound = np.abs(np.stack(deltas)).max(0)
    assert np.isfinite(found).all()
    assert (np.abs(found) <= bound + 1e-5).all()


@given(DELTAS)
def test_equal_models_merge_to_themselves_and_a_weight_of_0_is_absence(deltas):
    first, second = deltas[:2]
    for method in ("mean", "stock", "varm", "sce"):
        np.testing.assert_allclose(pick(MERGES, {"name": method})(make([first, first])), first, rtol=1e-5, atol=1e-7)
    for method in ("mean", "ties"):
        found = pick(MERGES, method)(make([first, second, first], [0, 1, 0]))
        np.testing.assert_array_equal(found, pick(MERGES, method)(make([second])))


def test_one_model_merges_to_itself_under_every_method_that_drops_nothing():
    (delta,) = THREE[:1]
    all_of_it = [{"name": name, "density": 1.0} for name in ("ties", "dare", "sce")]
    all_of_it += ["mean", "varm", {"name": "breadcrumbs", "density": 1.0, "largest": 0.0}]
    for method in all_of_it:
        np.testing.assert_allclose(pick(MERGES, method)(make([delta], [0.5])), delta, rtol=1e-6)
    assert merged("sce", [delta]) == [0.6, -0.4, 0.1]  # no variance to choose by: whole


def test_scale_goes_along_the_step_from_the_base():
    base = np.array([[1.0, 2.0, 3.0]], dtype=np.float32)
    tensor = Tensor("w", base, THREE[:1], np.ones(1), lambda at: None)
    np.testing.assert_array_equal(merge_tensor(tensor, {"name": "mean"}, 0.0), base)
    np.testing.assert_allclose(merge_tensor(tensor, {"name": "mean"}, 2.0), base + 2 * THREE[0], rtol=1e-6)


def test_no_value_of_a_vector_is_dropped():
    tensor = Tensor("norm", np.zeros(3, np.float32), [d[0] for d in THREE], np.ones(3) / 3, lambda at: None)
    for name in methods.THINS:
        np.testing.assert_allclose(merge_tensor(tensor, {"name": name}), [0.7 / 3, 0.4 / 3, 0], atol=1e-6)


@pytest.mark.parametrize("method", [{"name": "dare", "density": 0.3}, {"name": "della", "density": 0.3, "spread": 0.0}])
def test_random_dropping_keeps_the_mean_and_has_the_variance_of_a_coin(method):
    method = method | {"signs": False}
    draws = np.array([pick(MERGES, method)(make(THREE[:1], seed=seed))[0] for seed in range(6000)])
    wanted, error = THREE[0][0], draws.std(0) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(0) - wanted) < 4 * error).all()
    np.testing.assert_allclose(draws.var(0), wanted**2 * 0.7 / 0.3, rtol=0.08)


def test_della_keeps_large_values_more_often_and_divides_by_their_own_chance():
    row = np.arange(1, 6, dtype=np.float32)[None]
    chance = methods.keep_probabilities(row, 0.5, 0.2)
    np.testing.assert_allclose(chance, [[0.3, 0.4, 0.5, 0.6, 0.7]], rtol=1e-6)
    method = {"name": "della", "density": 0.5, "spread": 0.2, "signs": False}
    draws = np.array([pick(MERGES, method)(make([row], seed=seed))[0] for seed in range(3000)])
    np.testing.assert_allclose((draws != 0).mean(0), chance[0], atol=0.03)
    np.testing.assert_allclose(draws.mean(0), row[0], rtol=0.08)
    assert np.isfinite(pick(MERGES, "della")(make([row.T]))).all()  # rows of one value have no rank


@pytest.mark.parametrize(("cosine", "count", "share"), [(1.0, 2, 1.0), (0.0, 2, 0.0), (0.6, 2, 0.75), (-0.4, 2, 0.0)])
def test_stock_is_shortened_by_the_angle_between_models(cosine, count, share):
    a = np.array([[1.0, 0.0]], dtype=np.float32)
    b = np.array([[cosine, np.sqrt(1 - cosine**2)]], dtype=np.float32)
    np.testing.assert_allclose(pick(MERGES, "stock")(make([a, b])), share * (a + b) / 2, atol=1e-6)


def test_stock_of_three_opposed_models_stays_at_the_base():
    angles = np.array([0, 2, 4]) * np.pi / 3  # cosines of -0.5: the formula's divisor is 0
    deltas = [np.array([[np.cos(a), np.sin(a)]], dtype=np.float32) for a in angles]
    assert merged("stock", deltas) == [0, 0]


def test_fisher_with_equal_information_is_the_mean_and_else_follows_the_one_who_knows():
    same = [np.ones((1, 3), np.float32)] * 3
    np.testing.assert_allclose(
        pick(MERGES, "fisher")(make(THREE, statistics_R=same)), pick(MERGES, "mean")(make(THREE)), atol=1e-6
    )
    known = [np.array([[1, 0, 0]], np.float32), np.array([[0, 1, 0]], np.float32), np.array([[0, 0, 1]], np.float32)]
    np.testing.assert_allclose(pick(MERGES, "fisher")(make(THREE, statistics_R=known)), [[0.6, 0.5, 0.2]], atol=1e-5)
    nothing = [np.zeros((1, 3), np.float32)] * 3
    np.testing.assert_allclose(
        pick(MERGES, "fisher")(make(THREE, statistics_R=nothing)), pick(MERGES, "mean")(make(THREE)), atol=1e-6
    )


def test_regmean_is_nearer_to_the_learners_outputs_than_the_mean():
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((30, 4)) @ rng.standard_normal((4, 4)) for _ in range(3)]
    deltas = [rng.standard_normal((5, 4)).astype(np.float32) for _ in range(3)]
    gram = [x.T @ x / len(x) for x in inputs]

    def loss(merged):
        return sum(np.square(x @ (merged - d).T).mean(0).sum() for x, d in zip(inputs, deltas, strict=True))

    found = pick(MERGES, {"name": "regmean", "off_diagonal": 1.0})(make(deltas, statistics_R=gram))
    assert loss(found) < loss(pick(MERGES, "mean")(make(deltas)))
    for _ in range(20):  # a minimum
        assert loss(found) <= loss(found + 1e-2 * rng.standard_normal(found.shape)) + 1e-6
    mean = pick(MERGES, "mean")(make(deltas))
    alike = [np.eye(4)] * 3
    np.testing.assert_allclose(pick(MERGES, "regmean")(make(deltas, statistics_R=alike)), mean, atol=1e-4)
    same = pick(MERGES, "regmean")(make(deltas[:1] * 3, statistics_R=gram))
    np.testing.assert_allclose(same, deltas[0], atol=1e-4)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ({"name": "slerp"}, "slerp takes 2 models; 3 given"),
        ({"name": "ties", "density": 0}, r"method.density: 0 given; allowed: a number \(above 0, at most 1\)"),
        ({"name": "della", "density": 0.9, "spread": 0.2}, "spread: 0.2 given"),
        ({"name": "breadcrumbs", "density": 1.0}, "largest: 0.01 given"),
        ({"name": "fisher"}, "fisher needs statistics"),
        ({"name": "linear"}, "'linear' is not known"),
    ],
)
def test_what_a_method_cannot_do_is_one_line(method, words):
    with pytest.raises(BadInput, match=words):
        pick(MERGES, method)(make(THREE))
