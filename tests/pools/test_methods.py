"""What every method of combining owes: no gold when it is applied, plain files, no dependence on order."""

import dataclasses

import numpy as np
import pytest

from tests.pools.made import made_up, shuffled
from w2s.ensemble.alphas import ALPHAS
from w2s.ensemble.ballots import Ballots, NotApplicable
from w2s.pools import methods as pool
from w2s.pools.records import (
    ABSTAINED,
    NOT_ASKED,
    NOT_RECORDED,
    Decision,
    Truth,
    ballots,
    read_fitted,
    rightness,
    spent,
    write_fitted,
)
from w2s.store.records import BadInput

QUICK = {"focal_diversity": {}, "mace": {"iterations": 5}}
PLAIN = [name for name in pool.ALL if name not in ("consistency", "checked", "frugal")]


def a_pool(seed=0, questions=160, **rest):
    return made_up(seed=seed, questions=questions, probs=True, scores=True, **rest)


def fit(name, opinions, truth):
    try:
        return pool.fit(name, opinions, truth)
    except NotApplicable as reason:
        pytest.skip(f"{name}: {reason}")


def same(one: Decision, other: Decision, rows, atol) -> bool:
    if one.member_N is not None:
        return (one.member_N[rows] == other.member_N).mean() > 0.97
    return np.allclose(one.probs_NK[rows], other.probs_NK, atol=atol)


@pytest.mark.parametrize("name", pool.ALL)
def test_a_fitted_method_that_was_written_and_read_decides_the_same(name, tmp_path):
    opinions, truth = a_pool()
    fitted = fit(name, opinions, truth)
    write_fitted(tmp_path / "f.npz", fitted)
    again = read_fitted(tmp_path / "f.npz")
    assert (again.kind, again.points, again.point) == (fitted.kind, fitted.points, fitted.point)
    new, _ = a_pool(seed=1)
    for point in (None, 0, len(fitted.points) - 1):
        one, other = pool.apply(fitted, new, point), pool.apply(again, new, point)
        for field in dataclasses.fields(Decision):
            first, second = getattr(one, field.name), getattr(other, field.name)
            assert (first is None) is (second is None)
            if first is not None:
                np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", PLAIN)
def test_the_order_of_questions_and_members_changes_no_decision(name):
    opinions, truth = a_pool()
    new, _ = a_pool(seed=1)
    mixed, mixed_truth = shuffled(opinions, truth, 3)
    one, other = pool.apply(fit(name, opinions, truth), new), pool.apply(fit(name, mixed, mixed_truth), new)
    assert same(one, other, np.arange(len(new.ids)), atol=0.06 if name == "gradient_boosted" else 5e-3)
    rows = np.random.default_rng(0).permutation(len(new.ids))
    fitted = pool.fit(name, opinions, truth)
    assert same(pool.apply(fitted, new), pool.apply(fitted, new.questions(rows)), rows, atol=1e-9)


@pytest.mark.parametrize("name", pool.ALL)
def test_a_decision_is_of_the_right_shape_and_better_than_guessing(name):
    opinions, truth = a_pool(questions=300)
    new, gold = a_pool(seed=1, questions=300)
    decision = pool.apply(fit(name, opinions, truth), new)
    assert (decision.probs_NK is None) is not (decision.member_N is None)
    assert decision.asked_MN.shape == new.answer_MN.shape
    if decision.probs_NK is not None:
        said = ~decision.abstained_N
        np.testing.assert_allclose(decision.probs_NK[said].sum(1), 1)
        assert not decision.probs_NK[~new.mask_NK].any()
    else:
        paid = decision.asked_MN[decision.member_N, np.arange(300)]
        assert paid[~decision.abstained_N].all()
    assert rightness(decision, gold).mean() > 0.4
    assert (spent(decision, new) <= new.cost_MN.sum(0) + 1e-12).all()


@pytest.mark.parametrize("name", pool.ALL)
def test_questions_without_gold_teach_nothing(name):
    opinions, truth = a_pool(questions=120)
    extra, _ = a_pool(seed=5, questions=120)
    extra = dataclasses.replace(extra, ids=np.array([f"x{at}" for at in range(120)]))
    if name in ("one_coin", "dependent_coins", "dawid_skene", "mace"):
        pytest.skip("a label model learns from answers without gold")
    both = join(opinions, extra)
    unknown = np.full(extra.answer_MN.shape, np.nan, np.float32)
    gold = Truth(both.ids, np.r_[truth.gold_N, np.full(120, -2)].astype(np.int16), np.hstack([truth.right_MN, unknown]))
    one, other = fit(name, opinions, truth), fit(name, both, gold)
    first, second = pool.apply(one, opinions), pool.apply(other, opinions)
    assert same(first, second, np.arange(120), atol=0.1)


def join(one, other):
    fields = {}
    for field in dataclasses.fields(one):
        first, second = getattr(one, field.name), getattr(other, field.name)
        axis = 1 if field.name.split("_")[-1].startswith("M") else 0
        fields[field.name] = None if first is None else np.concatenate([first, second], axis=axis)
    return dataclasses.replace(one, **{**fields, "members": one.members})


def test_every_alphas_function_is_a_method_by_its_own_or_its_vote_s_name():
    assert {*ALPHAS} - {"boosting", "uniform"} <= set(pool.METHODS)
    assert "plurality" in pool.METHODS
    assert "rl_focal" not in pool.ALL


def test_a_tie_goes_to_the_side_of_the_more_accurate_members():
    opinions, truth = made_up(questions=400, accuracies=(0.9, 0.5), abstain=0.0)
    right = rightness(pool.apply(pool.fit("plurality", opinions, truth), opinions), truth)
    np.testing.assert_array_equal(right, truth.right_MN[0])


def test_a_vote_needs_only_its_own_members():
    opinions, truth = made_up()
    fitted = pool.fit({"name": "top_k", "k": 2}, opinions, truth)
    alone = opinions.only(fitted.members[::-1])
    np.testing.assert_allclose(pool.apply(fitted, alone).probs_NK, pool.apply(fitted, opinions).probs_NK)
    with pytest.raises(BadInput, match="it has no answers here"):
        pool.apply(fitted, opinions.only([name for name in opinions.members if name not in fitted.members]))


def test_answers_that_were_not_recorded_are_no_abstentions():
    opinions, truth = made_up(questions=20)
    hidden = dataclasses.replace(opinions, answer_MN=np.full_like(opinions.answer_MN, NOT_RECORDED))
    gold = Truth(truth.ids, np.full(20, -2, np.int16), truth.right_MN)
    with pytest.raises(NotApplicable, match="not recorded"):
        pool.fit("plurality", hidden, gold)
    best = pool.apply(pool.fit("best_single", hidden, gold), hidden)
    np.testing.assert_array_equal(rightness(best, gold), truth.right_MN[truth.right_MN.mean(1).argmax()])


def test_rightness_by_hand():
    truth = Truth(
        np.array(list("abcd")), np.array([0, 1, -1, -2]), np.array([[1, 0, 0, np.nan], [0, np.nan, 0, np.nan]])
    )
    probs_NK = np.array([[0.5, 0.5], [0.2, 0.8], [0.9, 0.1], [0.9, 0.1]])
    silent_N = np.zeros(4, bool)
    np.testing.assert_array_equal(rightness(Decision(silent_N, probs_NK), truth), [0.5, 1, 0, np.nan])
    np.testing.assert_array_equal(
        rightness(Decision(silent_N, member_N=np.array([0, 1, 0, 0])), truth), [1, 0, 0, np.nan]
    )
    silent_N = np.array([True, False, False, True])
    np.testing.assert_array_equal(rightness(Decision(silent_N, probs_NK), truth), [0, 1, 0, np.nan])
    nobody = Decision(np.ones(4, bool), member_N=np.full(4, -1))
    np.testing.assert_array_equal(rightness(nobody, truth), [0, 0, 0, np.nan])


def test_ballots_count_a_missing_vote_as_guessing():
    opinions, truth = made_up(questions=50, abstain=0.3)
    found = ballots(opinions, truth)
    assert isinstance(found, Ballots)
    np.testing.assert_allclose(found.wrong_RN[found.answer_RN == ABSTAINED], 0.75)
    np.testing.assert_allclose(found.cost_R, opinions.cost_MN.mean(1))


def test_who_was_not_asked_gives_no_answer_and_is_not_paid():
    opinions, truth = a_pool()
    answer_MN = opinions.answer_MN.copy()
    answer_MN[0, :5] = NOT_ASKED  # m0 is the best
    opinions = dataclasses.replace(opinions, answer_MN=answer_MN)
    for name in ("best_single", "plurality"):
        decision = pool.apply(fit(name, opinions, truth), opinions)
        assert not decision.asked_MN[0, :5].any()
        assert decision.asked_MN[0, 5:].all()
        assert decision.abstained_N[:5].all() == (name == "best_single")


def test_what_a_member_without_recorded_costs_costs_is_unknown_and_not_nothing():
    opinions, truth = a_pool()
    cost_MN = opinions.cost_MN.copy()
    cost_MN[1], cost_MN[2, 0] = np.nan, np.nan
    opinions = dataclasses.replace(opinions, cost_MN=cost_MN)
    cost_M = ballots(opinions, truth).cost_R
    assert np.isnan(cost_M).tolist() == [False, True, False, False, False]
    assert cost_M[2] == pytest.approx(cost_MN[2, 1])
    with pytest.raises(NotApplicable, match="costs were recorded for some members only"):
        pool.fit({"name": "top_k", "dollars": 1.0}, opinions, truth)
    assert len(pool.fit({"name": "top_k", "k": 2}, opinions, truth).members) == 2


@pytest.mark.parametrize("name", PLAIN)
def test_open_questions_that_nobody_answered_are_abstentions(name):
    opinions, truth = made_up(questions=40, groups=1)
    texts_N = np.empty(3, dtype=object)
    texts_N[:] = [()] * 3
    empty = dataclasses.replace(
        opinions.questions(np.arange(3)),
        count_N=np.zeros(3, dtype=int),
        texts_N=texts_N,
        answer_MN=np.full((5, 3), ABSTAINED, dtype=np.int16),
    )
    decision = pool.apply(fit(name, opinions, truth), empty)
    assert decision.abstained_N.all()
    gold = Truth(empty.ids, np.full(3, -1), np.zeros((5, 3)))
    np.testing.assert_array_equal(rightness(decision, gold), 0)


def test_who_abstains_where_the_others_agree_on_an_open_question_is_not_right():
    opinions, truth = made_up(questions=40, abstain=0, accuracies=(1.0, 1.0, 1.0))
    answer_MN = np.zeros((3, 40), dtype=np.int16)
    answer_MN[2, :10] = ABSTAINED
    opinions = dataclasses.replace(opinions, answer_MN=answer_MN, count_N=np.ones(40, dtype=int))
    found = ballots(opinions, Truth(truth.ids, np.zeros(40, dtype=np.int16), truth.right_MN))
    np.testing.assert_allclose(found.wrong_RN.mean(1), [0, 0, 0.125])
    alpha_R = ALPHAS["accuracy_log_odds"](np.ones(3), found)
    assert alpha_R[2] < alpha_R[0] == alpha_R[1]
