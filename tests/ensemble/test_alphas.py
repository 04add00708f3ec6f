"""Alphas: scikit-learn as the oracle of SAMME over a pool, cases by hand, properties for every input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import AdaBoostClassifier

from w2s.ensemble import alphas
from w2s.ensemble.alphas import ALPHAS
from w2s.ensemble.ballots import Ballots
from w2s.pools.records import ABSTAINED
from w2s.store.records import BadInput

wrongs = hnp.arrays(np.float64, st.tuples(st.integers(2, 5), st.integers(6, 30)), elements=st.sampled_from([0.0, 1.0]))
READY = [name for name in ALPHAS if name != "boosting"]


def ballots_of(wrong_RN, choices=4, seed=0, cost_R=None):
    """Gold 0 everywhere; a wrong voter takes one of the other candidates."""
    rng = np.random.default_rng(seed)
    answer_RN = np.where(wrong_RN > 0, rng.integers(1, choices, wrong_RN.shape), 0)
    rows = wrong_RN.shape[1]
    return Ballots(answer_RN, np.asarray(wrong_RN, float), np.zeros(rows, int), np.full(rows, choices), cost_R)


def pool(seed, rows=300, voters=6, choices=3):
    rng = np.random.default_rng(seed)
    gold_N = rng.integers(choices, size=rows)
    right_RN = rng.random((voters, rows)) < rng.uniform(0.4, 0.8, voters)[:, None]
    answer_RN = np.where(right_RN, gold_N, (gold_N + rng.integers(1, choices, (voters, rows))) % choices)
    return answer_RN, gold_N, Ballots(answer_RN, (answer_RN != gold_N) * 1.0, gold_N, np.full(rows, choices))


class BestOfPool(ClassifierMixin, BaseEstimator):
    """A learner for scikit-learn's AdaBoost whose hypotheses are the pool's columns: it takes the best."""

    def fit(self, X, y, sample_weight=None):
        self.classes_ = np.unique(y)
        self.best_ = int(np.argmin(((y[:, None] != X) * sample_weight[:, None]).sum(0)))
        return self

    def predict(self, X):
        return X[:, self.best_]


@pytest.mark.parametrize("seed", range(6))
def test_samme_over_a_pool_equals_scikit_learn_with_the_pool_as_its_hypotheses(seed):
    answer_RN, gold_N, ballots = pool(seed)
    theirs = AdaBoostClassifier(BestOfPool(), n_estimators=15).fit(answer_RN.T, gold_N)
    total_R = np.zeros(len(answer_RN))
    for one, alpha in zip(theirs.estimators_, theirs.estimator_weights_, strict=False):
        total_R[one.best_] += alpha
    ours_R = alphas.samme(np.ones(6), ballots, rounds=len(theirs.estimators_), least_share=0.0)
    np.testing.assert_allclose(ours_R, total_R, atol=1e-10)


def test_a_large_set_is_packed_into_patterns_without_changing_anything(monkeypatch):
    rng = np.random.default_rng(0)
    answer_RN, gold_N, ballots = pool(1, rows=120_000, voters=5)
    silent_RN = rng.random(answer_RN.shape) < 0.1
    answer_RN = np.where(silent_RN, ABSTAINED, answer_RN)
    wrong_RN = np.where(silent_RN, 2 / 3, ballots.wrong_RN)
    ballots = Ballots(answer_RN, wrong_RN, gold_N, ballots.count_N)
    packed = alphas.patterns(ballots)
    assert packed[2].sum() == 120_000
    assert len(packed[2]) <= 3**5
    np.testing.assert_allclose(packed[0] @ packed[2], wrong_RN.sum(1))
    packed_R = alphas.samme(np.ones(5), ballots)
    monkeypatch.setattr(alphas, "patterns", lambda b: (b.wrong_RN, b.chance_N, np.ones(b.wrong_RN.shape[1])))
    np.testing.assert_allclose(packed_R, alphas.samme(np.ones(5), ballots), atol=1e-9)


@settings(max_examples=40)
@given(wrong_RN=wrongs, seed=st.integers(0, 99))
def test_no_alphas_depend_on_the_order_of_voters_or_rows(wrong_RN, seed):
    rng = np.random.default_rng(seed)
    r, n = rng.permutation(len(wrong_RN)), rng.permutation(wrong_RN.shape[1])
    ballots = ballots_of(wrong_RN)
    other = Ballots(ballots.answer_RN[r][:, n], wrong_RN[r][:, n], ballots.gold_N[n], ballots.count_N[n])
    for name in ("uniform", "best_single", "accuracy_log_odds", "decorrelated"):
        alpha_R = ALPHAS[name](np.ones(len(r)), ballots)
        assert (alpha_R >= 0).all()
        assert np.isfinite(alpha_R).all()
        np.testing.assert_allclose(ALPHAS[name](np.ones(len(r)), other), alpha_R[r], atol=1e-6)


@pytest.mark.parametrize("name", READY)
@settings(max_examples=15)
@given(wrong_RN=wrongs)
def test_alphas_are_finite_not_negative_and_leave_somebody_in(name, wrong_RN):
    alpha_R = ALPHAS[name](np.ones(len(wrong_RN)), ballots_of(wrong_RN, cost_R=np.ones(len(wrong_RN))))
    assert alpha_R.shape == (len(wrong_RN),)
    assert (alpha_R >= 0).all()
    assert np.isfinite(alpha_R).all()
    assert alpha_R.any()


def test_decorrelated_alphas_are_a_share_each():
    alpha_R = alphas.decorrelated(np.ones(4), ballots_of(np.random.default_rng(0).random((4, 90)) < 0.4))
    assert alpha_R.sum() == pytest.approx(1)


def test_decorrelated_alphas_give_copies_one_vote_between_them():
    a, b = np.random.default_rng(0).random((2, 4000)) < 0.3
    alpha_R = alphas.decorrelated(np.ones(4), ballots_of(np.array([a, b, b, b]), choices=2))
    assert alpha_R[0] == pytest.approx(0.5, abs=0.03)
    np.testing.assert_allclose(alpha_R[1:], 0.5 / 3, atol=0.02)


def test_a_learner_no_better_than_chance_gets_no_say_unless_all_are_so():
    wrong_RN = np.random.default_rng(0).random((3, 2000)) < np.array([[0.3], [0.35], [0.6]])
    assert alphas.decorrelated(np.ones(3), ballots_of(wrong_RN, choices=2))[2] == 0
    np.testing.assert_allclose(alphas.decorrelated(np.ones(3), ballots_of(np.ones((3, 50)), choices=2)), 1 / 3)


def test_boosting_alphas_below_0_are_no_members_and_uniform_ones_are_1():
    ballots = ballots_of(np.zeros((3, 4)))
    np.testing.assert_array_equal(ALPHAS["boosting"]([1.5, -0.2, 0.0], ballots), [1.5, 0, 0])
    np.testing.assert_array_equal(ALPHAS["uniform"]([1.5, -0.2, 0.0], ballots), [1, 1, 1])


def test_log_odds_are_those_of_the_right_answers_over_guessing():
    wrong_RN = np.zeros((2, 998))
    wrong_RN[0, :199], wrong_RN[1, :799] = 1, 1  # with one right and one wrong added: errors of 0.2 and 0.8
    log_odds_R = alphas.accuracy_log_odds(np.ones(2), ballots_of(wrong_RN, choices=4))
    np.testing.assert_allclose(log_odds_R, [np.log(4) + np.log(3), 0], atol=1e-9)


def test_bagging_counts_how_often_a_voter_is_the_best_of_a_bootstrap_sample():
    wrong_RN = np.zeros((3, 100))
    wrong_RN[0, :30], wrong_RN[1, 40:71], wrong_RN[2] = 1, 1, 1
    alpha_R = alphas.bagging(np.ones(3), ballots_of(wrong_RN), draws=4000)
    assert alpha_R.sum() == pytest.approx(1)
    assert 0.4 < alpha_R[1] < alpha_R[0] < 0.6
    assert alpha_R[2] == 0


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("samme", {"rounds": 0}, "rounds: 0 given; allowed: a whole number above 0"),
        ("samme", {"least_share": 1.0}, "least_share: 1.0 given"),
        ("bagging", {"draws": 0}, "draws: 0 given"),
    ],
)
def test_an_option_out_of_range_is_refused(name, options, words):
    with pytest.raises(BadInput, match=words):
        ALPHAS[name](np.ones(2), ballots_of(np.eye(2)), **options)
