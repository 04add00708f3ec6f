"""Stacking: scikit-learn as the oracle, and what no order may change."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info

from tests.pools.made import made_up, shuffled
from w2s.config.registry import pick
from w2s.ensemble.ballots import NotApplicable
from w2s.pools import logistic, stacking, trees
from w2s.pools.records import ABSTAINED, Truth, rightness
from w2s.store.records import BadInput


def test_with_two_choices_and_members_alone_it_is_a_logistic_regression():
    opinions, truth = made_up(choices=2, questions=400)
    fitted = stacking.logistic(opinions, truth, by_group=False, by_position=False, l2=2.0)
    sign_NM = np.where(opinions.answer_MN == 1, 1.0, np.where(opinions.answer_MN == 0, -1.0, 0.0)).T
    theirs = LogisticRegression(C=1 / 2.0, fit_intercept=False, tol=1e-9, max_iter=1000).fit(sign_NM, truth.gold_N)
    np.testing.assert_allclose(fitted.arrays["theta_F"], theirs.coef_[0], atol=1e-3)
    probs_NK = stacking.apply_logistic(fitted, opinions, 0).probs_NK
    np.testing.assert_allclose(probs_NK, theirs.predict_proba(sign_NM), atol=1e-3)


def test_its_gradient_is_that_of_its_loss(monkeypatch):
    from scipy.optimize import check_grad

    seen = {}
    monkeypatch.setattr(logistic, "minimize", lambda loss, start, **rest: seen.update(loss=loss, start=start) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        stacking.logistic(*made_up(questions=40, probs=True, scores=True))
    theta_F = np.random.default_rng(0).normal(size=len(seen["start"]))
    assert check_grad(lambda t: seen["loss"](t)[0], lambda t: seen["loss"](t)[1], theta_F) < 1e-3


@pytest.mark.parametrize("fit", [stacking.logistic, trees.gradient_boosted])
def test_a_better_member_is_trusted_more_and_the_stack_beats_the_best(fit):
    opinions, truth = made_up(questions=1200, seed=3)
    new, gold = made_up(questions=1200, seed=4)
    fitted = fit(opinions, truth)
    apply = {**stacking.APPLY, **trees.APPLY}[fitted.kind]
    right = rightness(apply(fitted, new, 0), gold).mean()
    assert right > gold.right_MN.mean(1).max() + 0.03


@pytest.mark.parametrize("fit", [stacking.logistic, trees.gradient_boosted])
@pytest.mark.parametrize("kind", [{}, {"probs": True}, {"scores": True}])
def test_the_order_of_questions_and_members_changes_nothing(fit, kind):
    opinions, truth = made_up(questions=200, **kind)
    apply = {**stacking.APPLY, **trees.APPLY}
    one, other = fit(opinions, truth), fit(*shuffled(opinions, truth, 5))
    first = apply[one.kind](one, opinions, 0).probs_NK
    second = apply[other.kind](other, opinions.only(other.members), 0).probs_NK
    np.testing.assert_allclose(first, second, atol=2e-3 if fit is stacking.logistic else 0.05)


def test_the_order_of_the_candidates_changes_nothing_where_positions_are_not_read():
    opinions, truth = made_up(questions=150)
    turned = np.array([2, 0, 3, 1])  # old position -> new one
    answer_MN = np.where(opinions.answer_MN >= 0, turned[opinions.answer_MN], ABSTAINED)
    other = opinions.__class__(**{**vars(opinions), "answer_MN": answer_MN})
    gold = Truth(truth.ids, turned[truth.gold_N], truth.right_MN)
    fits = [stacking.logistic(o, t, by_position=False) for o, t in ((opinions, truth), (other, gold))]
    first, second = (stacking.apply_logistic(f, o, 0).probs_NK for f, o in zip(fits, (opinions, other), strict=True))
    np.testing.assert_allclose(first, second[:, turned], atol=1e-3)


def test_a_group_that_was_never_seen_gets_the_general_trust():
    opinions, truth = made_up()
    fitted = stacking.logistic(opinions, truth)
    elsewhere = opinions.__class__(**{**vars(opinions), "group_N": np.full(len(opinions.ids), "new")})
    plain = stacking.apply_logistic(fitted, elsewhere, 0)
    assert np.isfinite(plain.probs_NK).all()
    assert rightness(plain, truth).mean() > 0.7


def test_a_question_that_nobody_answers_is_an_abstention_for_both():
    opinions, truth = made_up()
    answer_MN = opinions.answer_MN.copy()
    answer_MN[:, 7] = ABSTAINED
    silent = opinions.__class__(**{**vars(opinions), "answer_MN": answer_MN})
    for fit, apply in (
        (stacking.logistic, stacking.apply_logistic),
        (trees.gradient_boosted, trees.apply_gradient_boosted),
    ):
        decision = apply(fit(opinions, truth), silent, 0)
        assert decision.abstained_N.tolist() == [at == 7 for at in range(len(opinions.ids))]


def test_the_plain_arrays_of_the_trees_decide_as_scikit_learn_does():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 6)).astype(np.float32)
    y = (X[:, 0] * X[:, 1] + X[:, 2] > 0.3) ^ (rng.random(3000) < 0.1)
    model = HistGradientBoostingClassifier(max_iter=40, max_leaf_nodes=11, early_stopping=False).fit(X, y)
    np.testing.assert_allclose(trees.margins(X, trees.as_arrays(model)), model.decision_function(X), atol=1e-6)


def test_without_gold_or_answers_they_say_so():
    opinions, truth = made_up(questions=30)
    unknown = Truth(truth.ids, np.full(30, -2, np.int16), truth.right_MN)
    with pytest.raises(NotApplicable, match="no question with gold has a recorded answer"):
        stacking.logistic(opinions, unknown)
    with pytest.raises(BadInput, match=r"l2: -1\.0 given; allowed: a number \(0 or more\)"):
        pick(stacking.METHODS, {"name": "logistic", "l2": -1.0})
    with pytest.raises(BadInput, match=r"leaves: 1 given; allowed: a whole number \(2 or more\)"):
        pick(trees.METHODS, {"name": "gradient_boosted", "leaves": 1})


def test_a_fold_without_a_right_answer_is_no_reason_to_stop():
    opinions, truth = made_up(questions=8, abstain=0)
    gold_N = np.full(8, -1, dtype=np.int16)
    gold_N[0] = opinions.answer_MN[0, 0]
    fitted = trees.gradient_boosted(opinions, Truth(truth.ids, gold_N, truth.right_MN))
    assert np.isfinite(trees.apply_gradient_boosted(fitted, opinions, 0).probs_NK).all()


@pytest.mark.filterwarnings("error")
def test_a_member_without_any_confidence_is_no_reason_to_warn():
    opinions, truth = made_up(questions=60, scores=True)
    opinions.score_MN[1] = np.nan
    fitted = stacking.logistic(opinions, truth)
    assert np.isfinite(fitted.arrays["quantiles_MQ"]).all()


def test_what_was_not_recorded_at_the_fit_is_not_looked_at_later():
    """Probabilities in the place of confidences make a design of the same width: it must not be taken for the same."""
    fitted = stacking.logistic(*made_up(questions=60, scores=True))
    plain, _ = made_up(questions=60)
    with_both, _ = made_up(questions=60, scores=True, probs=True)
    with_other, _ = made_up(questions=60, probs=True)
    assert stacking.apply_logistic(fitted, with_both, 0).probs_NK.shape == (60, 4)
    for other in (plain, with_other):
        with pytest.raises(NotApplicable, match="confidences"):
            stacking.apply_logistic(fitted, other, 0)
    fitted = stacking.logistic(*made_up(questions=60, probs=True))
    with pytest.raises(NotApplicable, match="probabilities"):
        stacking.apply_logistic(fitted, plain, 0)


def test_the_trees_are_grown_by_one_thread_in_whatever_thread_that_is(monkeypatch):
    seen, grow = [], HistGradientBoostingClassifier.fit

    def watched(*given):
        seen.extend(one["num_threads"] for one in threadpool_info() if one["user_api"] == "openmp")
        return grow(*given)

    monkeypatch.setattr(HistGradientBoostingClassifier, "fit", watched)
    with ThreadPoolExecutor(1) as workers:
        workers.submit(trees.gradient_boosted, *made_up(questions=80)).result()
    assert set(seen) == {1}
