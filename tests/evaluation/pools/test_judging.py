"""Methods judged on halves that they were not fitted on."""

import dataclasses

import numpy as np
import pytest

from tests.pools.made import made_up
from w2s.evaluation.pools import curves as pool_curves
from w2s.evaluation.pools import judging as pool_judging
from w2s.pools.records import Truth
from w2s.store.records import BadInput


def test_a_half_is_half_of_every_group_and_depends_on_the_ids_alone():
    opinions, truth = made_up(questions=301, groups=7)
    half_N = pool_judging.splits(opinions, truth, 1, 3)[0]
    for group in np.unique(opinions.group_N):
        inside = half_N[opinions.group_N == group]
        assert abs(2 * inside.sum() - len(inside)) <= 1
    order = np.random.default_rng(0).permutation(301)
    again_N = pool_judging.splits(opinions.questions(order), truth.questions(order), 1, 3)[0]
    np.testing.assert_array_equal(again_N, half_N[order])
    assert (pool_judging.splits(opinions, truth, 1, 4)[0] != half_N).any()


def test_no_question_is_judged_by_a_fit_that_saw_it(monkeypatch):
    opinions, truth = made_up(questions=60)
    seen = {}

    def fit(spec, half, gold):
        fitted = pool_judging_fit(spec, half, gold)
        seen[id(fitted)] = (fitted, set(half.ids))
        return fitted

    def apply(fitted, here, point=None):
        assert not seen[id(fitted)][1] & set(here.ids)
        return pool_judging_apply(fitted, here, point)

    pool_judging_fit, pool_judging_apply = pool_judging.fit, pool_judging.apply
    monkeypatch.setattr(pool_judging, "fit", fit)
    monkeypatch.setattr(pool_judging, "apply", apply)
    (one,), left_out = pool_judging.judge(["samme"], opinions, truth, repeats=3)
    assert not left_out
    assert one.right_PRN.shape == (1, 3, 60)
    assert np.isfinite(one.right_PRN).all()
    assert len(seen) == 6


def test_the_best_single_is_chosen_on_the_other_half():
    opinions, truth = made_up(questions=400, abstain=0.0)
    (best,), _ = pool_judging.judge(["best_single"], opinions, truth, repeats=2)
    for repeat in range(2):
        half = pool_judging.splits(opinions, truth, 1, repeat)[0]
        for rows, others in ((half, ~half), (~half, half)):
            chosen = truth.right_MN[:, others].mean(1).argmax()
            np.testing.assert_array_equal(best.right_RN[repeat, rows], truth.right_MN[chosen, rows])


def test_picked_takes_on_each_half_what_did_best_on_the_other():
    opinions, truth = made_up(questions=100)
    found, _ = pool_judging.judge(["plurality", "best_single"], opinions, truth, repeats=1)
    found[0].right_RN[:], found[1].right_RN[:] = 0.0, 0.0
    half = pool_judging.splits(opinions, truth, 1, 0)[0]
    found[0].right_RN[0, half], found[1].right_RN[0, ~half] = 1.0, 1.0
    right_RN = pool_judging.picked(found, [half], np.ones(100, dtype=bool))
    # The method that was perfect on one half is used on the other, where it is always wrong: no luck is kept.
    assert not right_RN.any()


def test_what_the_data_lack_is_a_reason_and_what_is_unknown_an_error():
    opinions, truth = made_up(costs=False)
    found, left_out = pool_judging.judge(["plurality", "log_pool"], opinions, truth, repeats=1)
    assert [one.name for one in found] == ["plurality"]
    assert left_out == {"log_pool": "no choice probabilities were recorded"}
    with pytest.raises(BadInput, match="methods: 'plurallity' is not known"):
        pool_judging.judge(["plurallity"], opinions, truth, repeats=1)
    with pytest.raises(BadInput, match="repeats: 0 given"):
        pool_judging.judge(["plurality"], opinions, truth, repeats=0)
    nothing = Truth(truth.ids, np.full(240, -2, np.int16), np.full(truth.right_MN.shape, np.nan))
    with pytest.raises(BadInput, match="0 of 240 can be judged"):
        pool_judging.judge(["plurality"], opinions, nothing)


def test_questions_without_gold_are_not_judged_and_not_counted_as_wrong():
    opinions, truth = made_up(questions=80)
    gold_N, right_MN = truth.gold_N.copy(), truth.right_MN.copy()
    gold_N[:20], right_MN[:, :20] = -2, np.nan
    found, _ = pool_judging.judge(
        ["plurality", "logistic", "best_single"], opinions, Truth(truth.ids, gold_N, right_MN)
    )
    rows_N = pool_judging.common(found)
    np.testing.assert_array_equal(rows_N, np.arange(80) >= 20)


def test_costs_and_members_asked_are_those_of_the_members_that_the_method_needs():
    opinions, truth = made_up(questions=200, accuracies=(0.9, 0.6, 0.6, 0.55, 0.45))
    found, _ = pool_judging.judge(["best_single", "plurality"], opinions, truth, repeats=2)
    best, plurality = found
    np.testing.assert_allclose(best.asked_RN, 1)
    np.testing.assert_allclose(plurality.asked_RN, 5)
    np.testing.assert_allclose(plurality.cost_RN[1], opinions.cost_MN.sum(0))
    assert best.cost_RN.mean() == pytest.approx(opinions.cost_MN[0].mean())


def test_agreement_covers_the_questions_at_its_threshold():
    """2 of 3 members agree on every question: that share is a third's multiple, which no decimal hits."""
    opinions, truth = made_up(questions=60, accuracies=(0.9, 0.8, 0.7), abstain=0)
    answer_MN = np.stack([truth.gold_N, truth.gold_N, (truth.gold_N + 1) % 4])
    opinions = dataclasses.replace(opinions, answer_MN=answer_MN)
    line = pool_curves.agreement(opinions, truth, np.ones(60, dtype=bool))
    assert [(one["coverage"], one["precision"], one["n"]) for one in line] == [(1.0, 1.0, 60)]
