"""The fitted temperature, against a search on a fine grid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s.ensemble.combiners import sharpen
from w2s.ensemble.temperature import LEAST, MOST, fit_temperature
from w2s.store.records import candidate_mask, softmax

GRID = np.geomspace(LEAST, MOST, 4001)


def made(seed: int, rows: int = 200, sharpness: float = 1.0, truth: float = 1.0):
    """Opinions over 2 to 5 candidates, and right answers drawn from these opinions at the temperature `truth`."""
    rng = np.random.default_rng(seed)
    mask_NK = candidate_mask(rng.integers(2, 6, rows))
    probs_NK = softmax(sharpness * rng.normal(size=mask_NK.shape), mask_NK)
    drawn_NK = sharpen(probs_NK, mask_NK, truth).cumsum(1)
    gold_N = (drawn_NK < rng.random(rows)[:, None] * drawn_NK[:, -1:]).sum(1)
    return probs_NK, mask_NK, gold_N


def loss(probs_NK, mask_NK, gold_N, temperature: float) -> float:
    return -np.log(sharpen(probs_NK, mask_NK, temperature)[np.arange(len(gold_N)), gold_N]).mean()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), sharpness=st.sampled_from([0.2, 1, 4]), truth=st.sampled_from([0.2, 0.7, 1, 3]))
def test_no_temperature_of_a_fine_grid_is_better(seed, sharpness, truth):
    rows = made(seed, 60, sharpness, truth)
    fitted = fit_temperature(*rows)
    loss_G = np.array([loss(*rows, temperature) for temperature in GRID])
    assert fitted.loss == pytest.approx(loss(*rows, fitted.temperature), abs=1e-9)
    assert fitted.loss <= loss_G.min() + 1e-9
    assert abs(np.log(fitted.temperature / GRID[loss_G.argmin()])) < 2 * np.log(GRID[1] / GRID[0]) or np.isclose(
        loss_G.min(), fitted.loss, atol=1e-8
    )
    assert fitted.loss_at_1 == pytest.approx(loss(*rows, 1.0))
    assert fitted.rows == 60


@pytest.mark.parametrize("truth", [0.3, 1.0, 2.5])
def test_the_temperature_that_answers_were_drawn_at_is_found(truth):
    assert fit_temperature(*made(0, 50_000, truth=truth)).temperature == pytest.approx(truth, rel=0.05)


def test_the_order_of_rows_and_candidates_does_not_matter():
    probs_NK, mask_NK, gold_N = made(3)
    order = np.random.default_rng(0).permutation(len(gold_N))
    one = fit_temperature(probs_NK, mask_NK, gold_N).temperature
    assert fit_temperature(probs_NK[order], mask_NK[order], gold_N[order]).temperature == pytest.approx(one, rel=1e-9)
    last = probs_NK.shape[1] - 1
    turned = fit_temperature(probs_NK[:, ::-1], mask_NK[:, ::-1], last - gold_N)
    assert turned.temperature == pytest.approx(one, rel=1e-9)


def test_bounds_hold_where_the_best_temperature_is_0_or_infinite():
    probs_NK, mask_NK = np.array([[0.6, 0.4], [0.3, 0.7]]), np.ones((2, 2), dtype=bool)
    assert fit_temperature(probs_NK, mask_NK, np.array([0, 1])).temperature == LEAST
    assert fit_temperature(probs_NK, mask_NK, np.array([1, 0])).temperature == MOST


def test_rows_that_no_temperature_changes_decide_nothing():
    probs_NK, mask_NK, gold_N = made(5)
    one = fit_temperature(probs_NK, mask_NK, gold_N)
    width = probs_NK.shape[1]
    sure = np.eye(width)[[0]]  # its right answer has probability 0
    added = np.vstack([probs_NK, sure]), np.vstack([mask_NK, np.ones((1, width), bool)]), np.append(gold_N, 1)
    assert fit_temperature(*added) == one
    even = np.full((4, 3), 1 / 3)
    assert fit_temperature(even, np.ones((4, 3), bool), np.arange(4) % 3).temperature == 1
    assert fit_temperature(sure, np.ones((1, width), bool), np.array([1])) == (1.0, None, None, 0)
    assert fit_temperature(sure, np.ones((1, width), bool), np.array([0])).temperature == 1
