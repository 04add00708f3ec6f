"""AdaBoost: scikit-learn as the oracle, cases by hand, and properties that hold for every input."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.datasets import make_classification
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import AdaBoostClassifier
from sklearn.tree import DecisionTreeClassifier

from w2s.boosting import adaboost
from w2s.boosting.adaboost import Samples
from w2s.config.registry import pick
from w2s.ensemble import combiners
from w2s.store.records import BadInput

SAMME = pick(adaboost.BOOSTERS, "samme")


def boost(fit, weight_N, count_N, *, booster, rounds, share_floor=0.0):
    """The whole loop, round by round: fit(index, weight_N) -> wrong_N. Returns the records and weight_RN."""
    records, history = [], [adaboost.normalise(adaboost.check_weights(weight_N))]
    while len(records) < rounds and (not records or records[-1].stop is None):
        index, weight_N = len(records), history[-1]
        samples = Samples(weight_N, fit(index, weight_N), count_N)
        record, new_N = adaboost.boosting_round(index, str(index), samples, booster=booster, share_floor=share_floor)
        records, history = [*records, record], [*history, new_N]
    return records, np.array(history[:-1])


class Recorder(DecisionTreeClassifier):
    """A tree that remembers the weights it was given."""

    def fit(self, X, y, sample_weight=None):
        self.weight_N = sample_weight.copy()
        return super().fit(X, y, sample_weight=sample_weight)


def both(classes, depth, shrinkage, seed, rounds, weight_N=None, size=240):
    """scikit-learn's AdaBoost on some rows, and ours on the same rows, given scikit-learn's own estimators.

    They are not fitted again: where two splits of a tree are equally good, the last bit of a weight picks one of them.
    """
    X, y = make_classification(
        size, 10, n_informative=6, n_classes=classes, n_clusters_per_class=1, flip_y=0.1, random_state=seed
    )
    theirs = AdaBoostClassifier(
        Recorder(max_depth=depth), n_estimators=rounds, learning_rate=shrinkage, random_state=seed
    ).fit(X, y, sample_weight=weight_N)
    booster = pick(adaboost.BOOSTERS, {"name": "samme", "shrinkage": shrinkage, "perfect_alpha": 1.0})
    found, weight_RN = boost(
        lambda index, weight_N: theirs.estimators_[index].predict(X) != y,
        np.ones(size) if weight_N is None else weight_N,
        np.full(size, classes),
        booster=booster,
        rounds=len(theirs.estimators_),
    )
    return X, theirs, found, weight_RN


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shrinkage", [1.0, 0.5, 0.1])
@pytest.mark.parametrize(("classes", "depth"), [(2, 1), (3, 1), (4, 1), (4, 2), (5, 2), (3, 6)])
def test_samme_equals_scikit_learn(classes, depth, shrinkage, seed):
    X, theirs, members, weight_RN = both(classes, depth, shrinkage, seed, rounds=12)
    count = len(theirs.estimators_)
    assert len(members) == count
    np.testing.assert_allclose([one.error for one in members], theirs.estimator_errors_[:count], rtol=0, atol=1e-10)
    np.testing.assert_allclose([one.alpha for one in members], theirs.estimator_weights_[:count], rtol=0, atol=1e-10)
    np.testing.assert_allclose(weight_RN, [tree.weight_N for tree in theirs.estimators_], rtol=0, atol=1e-10)

    probs_RNK = np.array([np.eye(classes)[tree.predict(X)] for tree in theirs.estimators_])
    share_NK = combiners.weighted_vote(probs_RNK, np.ones((len(X), classes), bool), [one.alpha for one in members])
    # scikit-learn's decision function codes a vote as 1 and -1/(K-1): a linear map of the share of the votes.
    decision_NK = (share_NK * classes - 1) / (classes - 1)
    decision = 2 * decision_NK[:, 1] if classes == 2 else decision_NK
    np.testing.assert_allclose(decision, theirs.decision_function(X), rtol=0, atol=1e-10)
    # Where the two best shares are equal but for rounding, which one is taken is chance in either.
    clear_N = np.diff(np.sort(share_NK, axis=1)[:, -2:], axis=1)[:, 0] > 1e-10
    assert clear_N.mean() > 0.9
    assert (share_NK.argmax(1) == theirs.predict(X))[clear_N].all()


def test_samme_equals_scikit_learn_from_given_weights():
    weight_N = np.random.default_rng(0).exponential(size=240)
    _, theirs, members, weight_RN = both(4, 1, 0.7, 3, rounds=20, weight_N=weight_N)
    np.testing.assert_allclose([one.alpha for one in members], theirs.estimator_weights_[: len(members)], atol=1e-10)
    np.testing.assert_allclose(weight_RN, [tree.weight_N for tree in theirs.estimators_], rtol=0, atol=1e-10)


def test_boosting_stops_where_scikit_learn_stops_for_a_perfect_learner():
    _, theirs, members, _ = both(3, None, 1.0, 0, rounds=5)
    assert len(members) == len(theirs.estimators_) == 1
    assert members[0].alpha == theirs.estimator_weights_[0] == 1
    assert members[0].stop == "error 0: nothing is left to learn from"


@pytest.mark.parametrize("seed", [0, 1, 5])
def test_boosting_stops_where_scikit_learn_stops_for_a_learner_that_guesses(seed):
    X, y = np.zeros((60, 1)), np.arange(60) % 2
    theirs = AdaBoostClassifier(DummyClassifier(strategy="uniform"), n_estimators=50, random_state=seed).fit(X, y)
    rng = np.random.RandomState(seed)

    def fit(index, weight_N):
        guesser = DummyClassifier(strategy="uniform", random_state=rng.randint(np.iinfo(np.int32).max))
        return guesser.fit(X, y, sample_weight=weight_N).predict(X) != y

    found, _ = boost(fit, np.ones(60), np.full(60, 2), booster=SAMME, rounds=50)
    count = len(theirs.estimators_)
    assert len(found) == count + 1 < 50
    np.testing.assert_allclose([one.alpha for one in found[:count]], theirs.estimator_weights_[:count], atol=1e-10)
    assert found[-1].alpha <= 0
    assert "is not better than chance 0.500" in found[-1].stop


def test_one_round_by_hand():
    """Four choices, uniform weights, one of five wrong: alpha = ln 4 + ln 3 = ln 12; the wrong row weighs 12 of 16."""
    one, weight_N = adaboost.boosting_round(
        2, "r2", Samples(np.full(5, 0.2), [0, 0, 1, 0, 0], np.full(5, 4)), booster=SAMME
    )
    assert one.index == 2
    assert one.learner == "r2"
    assert one.stop is None
    assert one.error == pytest.approx(0.2)
    assert one.alpha == pytest.approx(math.log(12))
    np.testing.assert_allclose(weight_N, np.array([1, 1, 12, 1, 1]) / 16)
    assert one.effective_share == pytest.approx(16**2 / (5 * (144 + 4)))


def test_a_second_copy_of_a_learner_is_exactly_as_good_as_chance():
    """What SAMME's update is for: under the new weights the learner just fitted errs like a guess."""
    rng = np.random.default_rng(0)
    for count in (2, 3, 4, 5):
        wrong_N, weight_N = rng.random(50) < 0.4, rng.exponential(size=50)
        alpha, _ = adaboost.samme(adaboost.weighted_error(weight_N, wrong_N), 1 - 1 / count)
        assert adaboost.weighted_error(adaboost.reweight(weight_N, wrong_N, alpha), wrong_N) == pytest.approx(
            1 - 1 / count
        )


def test_errors_are_measured_on_the_rows_that_the_learner_did_not_train_on():
    """Rows 0 to 3 are fit rows that it remembers; the error comes from rows 4 to 7, the weights of all are updated."""
    wrong_N, judged_N = np.array([0, 0, 0, 0, 0, 0, 0, 1]), np.arange(8) >= 4
    count_N = np.array([2, 2, 2, 2, 4, 4, 4, 4])
    one, weight_N = adaboost.boosting_round(
        0, "r0", Samples(np.ones(8), wrong_N, count_N, None, judged_N), booster=SAMME
    )
    assert one.error == 0.25
    assert one.alpha == pytest.approx(math.log(9))
    np.testing.assert_allclose(weight_N, np.array([1, 1, 1, 1, 1, 1, 1, 9]) / 16)


def test_ensemw2s_is_samme_when_the_reference_is_chance():
    for error in (0.01, 0.3, 0.5, 0.74, 0.9):
        ours = adaboost.ensemw2s(error, 0.75, 0.6, reference="chance", shrinkage=0.5)
        assert ours == adaboost.samme(error, 0.75, shrinkage=0.5)
        assert ours[0] == pytest.approx(0.5 * (math.log((1 - error) / error) + math.log(3)))


def test_ensemw2s_is_two_class_adaboost_when_the_reference_is_half():
    alpha, reference = adaboost.ensemw2s(0.2, 0.75, 0.6, reference="half")
    assert reference == 0.5
    assert alpha == pytest.approx(math.log(4))


@given(error=st.floats(0, 1), untrained=st.floats(0.01, 0.99))
def test_ensemw2s_is_positive_exactly_when_the_round_beats_the_untrained_model(error, untrained):
    alpha, reference = adaboost.ensemw2s(error, 0.75, untrained)
    assert reference == untrained
    assert (alpha > 1e-9) <= (error < untrained)
    assert (alpha < -1e-9) <= (error > untrained)


def test_ensemw2s_names_its_reference_in_the_reason_and_measures_it_under_the_same_weights():
    weight_N, wrong_N, untrained_N = np.array([3.0, 1, 1, 1]), [1, 0, 0, 0], [0, 1, 1, 0]
    booster = pick(adaboost.BOOSTERS, "ensemw2s")
    one, _ = adaboost.boosting_round(0, "r", Samples(weight_N, wrong_N, np.full(4, 4), untrained_N), booster=booster)
    assert one.stop == "error 0.500 is not better than the untrained model's 0.333"
    with pytest.raises(BadInput, match="'untrained' given, but the error of the untrained model was not measured"):
        adaboost.boosting_round(0, "r", Samples(weight_N, wrong_N, np.full(4, 4)), booster=booster)


@pytest.mark.parametrize("booster", [adaboost.samme, adaboost.ensemw2s])
@pytest.mark.parametrize("error", [0.0, 1e-300, 1e-17, 0.5, 1 - 1e-16, 1.0])
@pytest.mark.parametrize("reference", [0.0, 0.5, 1.0])
def test_extreme_errors_give_finite_alphas_and_weights(booster, error, reference):
    alpha, _ = booster(error, reference, reference)
    assert math.isfinite(alpha)
    weight_N = adaboost.reweight(np.array([1e-300, 1e-10, 1.0]), [1, 0, 1], alpha)
    assert np.isfinite(weight_N).all()
    assert weight_N.sum() == pytest.approx(1)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_a_smaller_error_never_gets_a_smaller_alpha(errors):
    alphas = [adaboost.samme(error, 0.75, shrinkage=0.3, clip=(-1.0, 2.0))[0] for error in sorted(errors)]
    assert alphas == sorted(alphas, reverse=True)


def test_clip_is_applied_before_the_shrinkage_and_a_positive_lower_bound_keeps_boosting_alive():
    assert adaboost.samme(1e-9, 0.75, shrinkage=0.5, clip=(0.05, 3.0))[0] == 1.5
    assert adaboost.samme(0.9, 0.75, shrinkage=0.5, clip=(0.05, 3.0))[0] == 0.025
    booster = pick(adaboost.BOOSTERS, {"name": "samme", "clip": [0.05, 3.0]})
    one, weight_N = adaboost.boosting_round(0, "r", Samples(np.ones(4), [1, 1, 1, 1], np.full(4, 4)), booster=booster)
    assert one.stop is None
    np.testing.assert_allclose(weight_N, 0.25)


def test_bagging_gives_every_learner_one_vote_and_leaves_the_weights_alone():
    booster = pick(adaboost.BOOSTERS, "bagging")
    for wrong_N in ([0, 0, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1]):
        one, weight_N = adaboost.boosting_round(0, "r", Samples(np.ones(4), wrong_N, np.full(4, 2)), booster=booster)
        assert (one.alpha, one.stop, one.effective_share) == (1.0, None, 1.0)
        np.testing.assert_array_equal(weight_N, 0.25)


def test_a_learner_that_loses_to_chance_changes_no_weights():
    one, weight_N = adaboost.boosting_round(
        0, "r", Samples(np.array([1.0, 2, 1]), [1, 1, 0], np.full(3, 2)), booster=SAMME
    )
    assert one.alpha < 0
    np.testing.assert_allclose(weight_N, [0.25, 0.5, 0.25])


weights = hnp.arrays(np.float64, st.integers(2, 30), elements=st.floats(1e-12, 1e6))


@given(weight_N=weights, alpha=st.floats(-40, 800), data=st.data())
def test_weights_sum_to_1_and_the_order_of_rows_changes_no_bit(weight_N, alpha, data):
    size = len(weight_N)
    wrong_N = data.draw(hnp.arrays(np.float64, size, elements=st.floats(0, 1)))
    order_N = np.array(data.draw(st.permutations(range(size))))
    new_N = adaboost.reweight(weight_N, wrong_N, alpha)
    assert new_N.sum() == pytest.approx(1, abs=1e-12)
    assert (new_N > 0).all()
    np.testing.assert_array_equal(adaboost.reweight(weight_N[order_N], wrong_N[order_N], alpha), new_N[order_N])
    error = adaboost.weighted_error(weight_N, wrong_N)
    assert 0 <= error <= 1
    assert adaboost.weighted_error(weight_N[order_N], wrong_N[order_N]) == error
    assert adaboost.effective_share(weight_N[order_N]) == adaboost.effective_share(weight_N)


@given(weight_N=weights, scale=st.floats(1e-6, 1e6))
def test_the_scale_of_the_weights_does_not_matter(weight_N, scale):
    wrong_N = np.arange(len(weight_N)) % 3 == 0
    scaled = adaboost.reweight(weight_N * scale, wrong_N, 0.7)
    np.testing.assert_allclose(scaled, adaboost.reweight(weight_N, wrong_N, 0.7), rtol=1e-9)
    error = adaboost.weighted_error(weight_N, wrong_N)
    assert adaboost.weighted_error(weight_N * scale, wrong_N) == pytest.approx(error, abs=1e-12)


def test_the_update_is_stable_where_a_plain_exponential_overflows():
    weight_N = adaboost.reweight(np.array([1e-300, 1.0]), [1, 0], 1000.0)
    np.testing.assert_allclose(weight_N, [1, adaboost.EPSILON])
    np.testing.assert_array_equal(adaboost.reweight(np.array([0.0, 1.0, 1.0]), [1, 0, 0], 5.0), [0, 0.5, 0.5])


def test_effective_share_by_hand():
    assert adaboost.effective_share(np.ones(7)) == 1
    assert adaboost.effective_share(np.array([1.0, 0, 0, 0])) == 0.25
    assert adaboost.effective_share(np.array([2.0, 1, 1])) == pytest.approx(16 / 18)


@given(weight_N=weights, floor=st.floats(0, 1))
def test_tempering_reaches_the_floor_keeps_the_order_and_goes_no_further_than_needed(weight_N, floor):
    tempered_N, exponent = adaboost.keep_effective_share(weight_N, floor)
    assert adaboost.effective_share(tempered_N) >= floor - 1e-8
    assert tempered_N.sum() == pytest.approx(1)
    assert (np.diff(tempered_N[np.argsort(weight_N)]) >= -1e-15).all()
    if adaboost.effective_share(weight_N) >= floor:
        assert exponent == 1
    if exponent < 1:
        one_less = (weight_N / weight_N.max()) ** (exponent / 0.9)
        assert adaboost.effective_share(one_less) < floor + 1e-8


def test_a_floor_that_rows_of_weight_0_put_out_of_reach_is_refused():
    with pytest.raises(BadInput, match=r"0\.8 given, but only 0\.500 of the rows have weight"):
        adaboost.keep_effective_share(np.array([1.0, 1, 0, 0]), 0.8)
    tempered_N, _ = adaboost.keep_effective_share(np.array([9.0, 1, 0, 0]), 0.5)
    np.testing.assert_allclose(tempered_N, [0.5, 0.5, 0, 0], atol=1e-3)


def test_a_bootstrap_is_unbiased_and_never_draws_a_row_of_weight_0():
    weight_N = np.array([0.5, 0.0, 0.3, 0.2, 0.0])
    times_N = np.zeros(5)
    for seed in range(2000):
        times_N += np.bincount(adaboost.bootstrap(weight_N, 3, seed), minlength=5)
    assert times_N[1] == times_N[4] == 0
    # 6000 draws, standard error of a share below .0065: five of them.
    np.testing.assert_allclose(times_N / 6000, weight_N, atol=0.033)


def test_a_bootstrap_leaves_out_about_a_third_of_the_rows():
    drawn = adaboost.bootstrap(np.ones(4000), 4000, 0)
    assert len(np.unique(drawn)) / 4000 == pytest.approx(1 - math.exp(-1), abs=0.03)


def test_each_rule_stops_with_its_reason():
    assert adaboost.stop_reason(0.3, 0.8, 0.5, 0.9) is None
    assert adaboost.stop_reason(0.52, -0.08, 0.5, 0.9) == "error 0.520 is not better than chance 0.500"
    assert adaboost.stop_reason(0.5, 0.0, 0.5, 0.9) == "error 0.500 is not better than chance 0.500"
    assert adaboost.stop_reason(0.0, 3.0, 0.5, 0.9) == "error 0: nothing is left to learn from"
    small = adaboost.stop_reason(0.3, 0.8, 0.5, 0.04, least_share=0.1)
    assert small == "effective sample size 0.040 of the rows is below 0.100"
    stale = [0.5, 0.6, 0.6, 0.55]
    why = adaboost.stale_reason(stale, patience=2)
    assert why == "the committee has not improved on 0.600 on validation (round 2) for 2 rounds"
    assert adaboost.stale_reason(stale, patience=3) is None
    assert adaboost.stale_reason([], patience=1) is None
    assert adaboost.stop_reason(1.0, 1.0, None, 0.0, least_share=0.5) is None


def test_a_round_that_leaves_too_few_rows_with_weight_says_so_even_when_they_are_tempered_afterwards():
    wrong_N = np.arange(100) == 0
    one, weight_N = adaboost.boosting_round(
        0, "r", Samples(np.ones(100), wrong_N, np.full(100, 2)), booster=SAMME, share_floor=0.5, least_share=0.1
    )
    assert one.stop == "effective sample size 0.040 of the rows is below 0.100"
    assert adaboost.effective_share(weight_N) >= 0.5


def test_the_fewest_rounds_with_the_best_validation_accuracy_are_kept():
    assert adaboost.best_rounds([0.5, 0.7, 0.6, 0.7]) == 2
    assert adaboost.best_rounds([0.5]) == 1
    assert adaboost.best_rounds([]) == 0
    with pytest.raises(ValueError, match="NaN"):
        adaboost.best_rounds([0.5, float("nan")])


def test_chance_with_questions_of_3_to_5_choices_is_the_weighted_mean():
    assert adaboost.chance_error(np.ones(6), np.full(6, 4)) == 0.75
    assert adaboost.chance_error(np.array([2.0, 1, 1]), [3, 4, 5]) == pytest.approx((2 * 2 / 3 + 3 / 4 + 4 / 5) / 4)
    with pytest.raises(ValueError, match="fewer than 2"):
        adaboost.chance_error(np.ones(2), [1, 4])


def test_wrongness_counts_ties_by_chance():
    mask_NK = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]], dtype=bool)
    probs_NK = np.array([[0.2, 0.5, 0.3, 0], [0.25] * 4, [0.4, 0.4, 0.2, 0], [0.9, 0.1, 0, 0]])
    np.testing.assert_allclose(adaboost.wrongness(probs_NK, mask_NK, [1, 3, 0, 1]), [0, 0.75, 0.5, 1])
    with pytest.raises(ValueError, match="not among the candidates"):
        adaboost.wrongness(probs_NK, mask_NK, [3, 3, 0, 1])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
def test_weights_that_are_not_finite_or_negative_raise(bad):
    weight_N = np.array([1.0, bad, 1.0])
    for call in (
        lambda: adaboost.weighted_error(weight_N, [0, 1, 0]),
        lambda: adaboost.reweight(weight_N, [0, 1, 0], 1.0),
        lambda: adaboost.effective_share(weight_N),
        lambda: adaboost.keep_effective_share(weight_N, 0.1),
        lambda: adaboost.bootstrap(weight_N, 3, 0),
    ):
        with pytest.raises(ValueError, match="weights must be"):
            call()


def test_no_rows_bad_wrongness_and_bad_alphas_raise():
    with pytest.raises(ValueError, match="weights must be"):
        adaboost.weighted_error(np.array([]), [])
    with pytest.raises(ValueError, match="not all of them 0"):
        adaboost.weighted_error(np.zeros(3), [0, 1, 0])
    for wrong_N in ([0, 1], [0, float("nan"), 1], [0, 2, 1]):
        with pytest.raises(ValueError, match="wrong must be 3 numbers"):
            adaboost.weighted_error(np.ones(3), wrong_N)
    with pytest.raises(ValueError, match="alpha is nan"):
        adaboost.reweight(np.ones(2), [0, 1], float("nan"))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("samme", {"shrinkage": 0.0}, "shrinkage: 0.0 given; allowed: a number above 0"),
        ("samme", {"clip": [3.0, 1.0]}, r"clip: \[3.0, 1.0\] given; allowed: null or \[lowest, highest\]"),
        ("samme", {"clip": [1.0]}, r"clip: \[1.0\] given"),
        ("ensemw2s", {"reference": 1.5}, "reference: 1.5 given; allowed: untrained, chance, half, or a number"),
        ("ensemw2s", {"reference": 0}, "reference: 0 given"),
    ],
)
def test_a_bad_option_is_one_clear_line(name, options, words):
    with pytest.raises(BadInput, match=words):
        pick(adaboost.BOOSTERS, {"name": name, **options})(0.3, 0.75, 0.6)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 5))
def test_many_rounds_with_any_learner_stay_finite(seed, count):
    rng = np.random.default_rng(seed)
    booster = pick(adaboost.BOOSTERS, {"name": "samme", "clip": [0.05, 40.0]})
    rounds, weight_RN = boost(
        lambda index, weight_N: rng.random(30) < rng.random(),
        np.ones(30),
        np.full(30, count),
        booster=booster,
        rounds=40,
        share_floor=0.3,
    )
    assert np.isfinite(weight_RN).all()
    np.testing.assert_allclose(weight_RN.sum(1), 1)
    assert min(adaboost.effective_share(weight_N) for weight_N in weight_RN) >= 0.3 - 1e-8
    assert all(math.isfinite(one.alpha) and 0 <= one.error <= 1 for one in rounds)
