import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from w2s.ensemble.ballots import NotApplicable
from w2s.pools.hedge import hedge, prequential
from w2s.pools.records import Opinions, Truth
from w2s.store.records import BadInput

LOSSES = arrays(float, array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=60), elements=st.floats(0, 1))


def recorded(answer_MN, gold_N, choices=4):
    answer_MN, gold_N = np.asarray(answer_MN, dtype=np.int16), np.asarray(gold_N)
    members, rows = answer_MN.shape
    texts_N = np.empty(rows, object)
    texts_N[:] = [tuple("abcdefgh"[:choices])] * rows
    ids = np.array([f"q{at:05}" for at in range(rows)])
    empty_N = np.full(rows, "")
    names = np.array([f"m{at:02}" for at in range(members)])
    opinions = Opinions(ids, names, answer_MN, np.full(rows, choices), texts_N, empty_N, empty_N)
    return opinions, Truth(ids, gold_N, (answer_MN == gold_N).astype(float))


def random_pool(seed, accuracy_M=(0.8, 0.5, 0.3), rows=400, choices=4):
    rng = np.random.default_rng(seed)
    gold_N = rng.integers(choices, size=rows)
    right_MN = rng.random((len(accuracy_M), rows)) < np.array(accuracy_M)[:, None]
    other_MN = (gold_N + rng.integers(1, choices, size=right_MN.shape)) % choices
    return recorded(np.where(right_MN, gold_N, other_MN), gold_N, choices)


def regret(weight_MN, loss_MN):
    """The expected loss of drawing a member by weight_MN at each question, less that of the best one in hindsight."""
    return (weight_MN * loss_MN).sum() - loss_MN.sum(1).min()


@given(LOSSES)
def test_the_rate_without_a_horizon_keeps_its_bound_at_every_question(loss_MN):
    members, rows = loss_MN.shape
    weight_MN = hedge(loss_MN)
    assert np.allclose(weight_MN.sum(0), 1)
    for seen in range(1, rows + 1):
        bound = np.sqrt(2 * seen * np.log(members)) + np.sqrt(np.log(members) / 8)
        assert regret(weight_MN[:, :seen], loss_MN[:, :seen]) <= bound + 1e-9


@given(LOSSES, st.data())
def test_weights_use_the_past_alone(loss_MN, data):
    at = data.draw(st.integers(0, loss_MN.shape[1] - 1))
    changed_MN = loss_MN.copy()
    changed_MN[:, at:] = 1 - changed_MN[:, at:]
    assert np.array_equal(hedge(loss_MN)[:, : at + 1], hedge(changed_MN)[:, : at + 1])


def test_losses_out_of_range_are_refused():
    with pytest.raises(ValueError, match="from 0 to 1"):
        hedge(np.full((2, 3), 2.0))


def test_all_that_predict_find_the_good_member_among_bad_ones():
    opinions, truth = random_pool(0, (0.9, 0.3, 0.3, 0.3), rows=800)
    right = {name: right_N.mean() for name, right_N in prequential(opinions, truth, every=50).items()}
    assert right["best_single"] == pytest.approx(truth.right_MN[0].mean())
    for name in ("leader", "hedge", "hedge_vote", "stacking"):
        assert right[name] > right["best_single"] - 0.06, name
    assert right["plurality"] < right["best_single"] - 0.1


def test_no_baseline_but_hindsight_sees_a_label_before_it_is_revealed():
    opinions, truth = random_pool(1, (0.7, 0.6, 0.5))
    later = dataclasses.replace(truth, gold_N=np.r_[truth.gold_N[:250], (truth.gold_N[250:] + 1) % 4])
    before, after = (prequential(opinions, gold, every=50) for gold in (truth, later))
    for name in set(before) - {"best_single"}:
        assert np.array_equal(before[name][:250], after[name][:250]), name


def test_an_abstention_loses_what_guessing_does():
    opinions, truth = recorded([[0] * 100, [-1] * 100, [1] * 100], np.zeros(100, dtype=int))
    right = prequential(opinions, truth)
    assert right["hedge"][0] == pytest.approx(1 / 3)
    assert right["hedge"][-1] > 0.99
    assert np.array_equal(right["leader"][1:], np.ones(99))


def test_online_needs_gold_everywhere():
    opinions, truth = random_pool(2)
    with pytest.raises(NotApplicable, match="gold of each question"):
        prequential(opinions, dataclasses.replace(truth, gold_N=np.r_[-2, truth.gold_N[1:]]))
    with pytest.raises(BadInput, match="every"):
        prequential(opinions, truth, every=0)
