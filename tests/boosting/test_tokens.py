"""Token-level AdaBoost: SAMME and scikit-learn as oracles, cases by hand, and what changes nothing."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import make_classification
from sklearn.ensemble import AdaBoostClassifier

from tests.boosting.test_adaboost import Recorder
from w2s.boosting import adaboost, tokens
from w2s.boosting.adaboost import Samples
from w2s.config.registry import pick
from w2s.store.records import BadInput

SAMME = pick(adaboost.BOOSTERS, "samme")
ENSEMW2S = pick(adaboost.BOOSTERS, "ensemw2s")


@st.composite
def token_sets(draw):
    """length_N (some rows empty), weight_T, wrong_T with ties, count_T with at least one token that counts."""
    length_N = np.array(draw(st.lists(st.integers(0, 6), min_size=1, max_size=8).filter(any)))
    size, rng = int(length_N.sum()), np.random.default_rng(draw(st.integers(0, 10**6)))
    wrong_T = rng.choice([0.0, 0.0, 0.5, 1.0], size)
    count_T = rng.random(size) < 0.7
    count_T[rng.integers(size)] = True
    return length_N, adaboost.normalise(rng.exponential(size=size) + 1e-3), wrong_T, count_T


OPTIONS = [
    {},
    {"window": 2},
    {"by": "answer"},
    {"cap": 1.5},
    {"window": 1, "cap": 3.0, "share_floor": 0.4},
    {"by": "answer", "share_floor": 0.5},
]


def reordered(values_T, length_N, order_N):
    """values_T with the rows in another order."""
    parts = np.split(values_T, np.cumsum(length_N)[:-1])
    return np.concatenate([parts[at] for at in order_N])


# Item 1 of the issue: with one token per row and chance as the reference it is SAMME.


@pytest.mark.parametrize("by", ["token", "answer"])
@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_one_token_per_row_is_samme_and_scikit_learn(classes, seed, by):
    X, y = make_classification(
        200, 10, n_informative=6, n_classes=classes, n_clusters_per_class=1, flip_y=0.1, random_state=seed
    )
    theirs = AdaBoostClassifier(Recorder(max_depth=1), n_estimators=12, random_state=seed).fit(X, y)
    length_N = np.ones(200, dtype=int)
    weight_T = sample_N = tokens.uniform(length_N, by=by)
    for index, tree in enumerate(theirs.estimators_):
        wrong_T = tree.predict(X) != y
        np.testing.assert_allclose(weight_T, tree.weight_N, rtol=0, atol=1e-10)
        found, weight_T = tokens.token_round(
            index, "r", weight_T, wrong_T, length_N, booster=SAMME, vocabulary=classes, by=by
        )
        sample, sample_N = adaboost.boosting_round(
            index, "r", Samples(sample_N, wrong_T, np.full(200, classes)), booster=SAMME
        )
        np.testing.assert_allclose(weight_T, sample_N, rtol=0, atol=1e-10)
        assert found.error == pytest.approx(theirs.estimator_errors_[index], abs=1e-10)
        assert found.alpha == pytest.approx(theirs.estimator_weights_[index], abs=1e-10)
        assert (found.error, found.alpha) == pytest.approx((sample.error, sample.alpha), abs=1e-10)
        assert (found.effective_share, found.stop) == (pytest.approx(sample.effective_share, abs=1e-10), sample.stop)


@given(data=token_sets(), vocabulary=st.integers(2, 100_000), floor=st.floats(0, 1))
def test_a_plain_round_over_tokens_is_a_round_over_samples(data, vocabulary, floor):
    length_N, weight_T, wrong_T, _ = data
    many_T, options = np.full(len(wrong_T), vocabulary), {"booster": SAMME, "share_floor": floor}
    theirs = adaboost.boosting_round(3, "r", Samples(weight_T, wrong_T, many_T), **options)
    ours = tokens.token_round(3, "r", weight_T, wrong_T, length_N, vocabulary=vocabulary, **options)
    assert ours[0] == theirs[0]
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-12)


def test_ties_are_as_wrong_as_among_candidates():
    logit_TV = np.array([[1.0, 3, 2], [3, 3, 1], [2, 2, 2], [1, 0, 0], [5, 5, 1]])
    right_T = np.array([1, 0, 2, 1, 2])
    right_T1 = np.take_along_axis(logit_TV, right_T[:, None], 1)
    wrong_T = tokens.wrongness((logit_TV > right_T1).sum(1), (logit_TV == right_T1).sum(1))
    np.testing.assert_allclose(wrong_T, [0, 1 / 2, 2 / 3, 1, 1])
    np.testing.assert_array_equal(wrong_T, adaboost.wrongness(logit_TV, np.ones((5, 3), bool), right_T))
    with pytest.raises(ValueError, match="equals itself"):
        tokens.wrongness([0], [0])


# The error, the reference, who is judged and who counts.


def test_one_round_by_hand():
    """Five tokens in two rows, one wrong, vocabulary 4: alpha = ln 4 + ln 3; the wrong token weighs 12 of 16."""
    found, weight_T = tokens.token_round(
        2, "r2", np.full(5, 0.2), [0, 0, 1, 0, 0], np.array([2, 3]), booster=SAMME, vocabulary=4
    )
    assert (found.index, found.learner, found.stop) == (2, "r2", None)
    assert found.alpha == pytest.approx(math.log(12))
    np.testing.assert_allclose(weight_T, np.array([1, 1, 12, 1, 1]) / 16)


def test_the_untrained_base_is_the_reference_on_the_same_tokens_and_weights():
    weight_T, wrong_T, untrained_T = np.array([3.0, 1, 1, 1]) / 6, [1, 0, 0, 0], [1, 1, 1, 0]
    found, _ = tokens.token_round(
        0, "r", weight_T, wrong_T, np.array([4]), untrained_T, booster=ENSEMW2S, vocabulary=50_000
    )
    assert found.alpha == pytest.approx(math.log(0.5 / 0.5) - math.log((1 / 6) / (5 / 6)))
    assert found.stop is None
    worse, same_T = tokens.token_round(
        0, "r", weight_T, wrong_T, np.array([4]), [0, 1, 0, 0], booster=ENSEMW2S, vocabulary=50_000
    )
    assert worse.stop == "error 0.500 is not better than the untrained model's 0.167"
    np.testing.assert_allclose(same_T, weight_T)
    with pytest.raises(BadInput, match="was not measured"):
        tokens.token_round(0, "r", weight_T, wrong_T, np.array([4]), booster=ENSEMW2S, vocabulary=50_000)


def test_errors_come_from_judged_rows_and_counted_tokens_alone():
    """Row 0 was trained on; the last token of row 1 and the first of row 2 do not count."""
    length_N, judged_N = np.array([2, 3, 2]), np.array([False, True, True])
    count_T = np.array([1, 1, 1, 1, 0, 0, 1], dtype=bool)
    wrong_T = np.array([0, 1, 0, 0, 1, 1, 1])
    found, weight_T = tokens.token_round(
        0, "r", np.ones(7), wrong_T, length_N, None, judged_N, count_T, booster=SAMME, vocabulary=4
    )
    assert found.error == pytest.approx(1 / 3)
    assert found.alpha == pytest.approx(math.log(6))
    # Row 0 is updated as well; misses that do not count are not raised.
    np.testing.assert_allclose(weight_T, np.array([1, 6, 1, 1, 1, 1, 6]) / 17)
    with pytest.raises(ValueError, match="no row that is judged has a token that counts"):
        tokens.token_round(
            0, "r", np.ones(7), wrong_T, length_N, None, None, np.zeros(7, bool), booster=SAMME, vocabulary=4
        )


# By answer.


def test_by_answer_a_row_is_one_sample_that_its_tokens_share():
    """Rows of 1, 3 and 2 tokens weigh a third each; only row 1 has a miss; V^L possible answers."""
    length_N, wrong_T = np.array([1, 3, 2]), np.array([0, 0, 1, 1, 0, 0])
    weight_T = tokens.uniform(length_N, by="answer")
    np.testing.assert_allclose(weight_T, [1 / 3, 1 / 9, 1 / 9, 1 / 9, 1 / 6, 1 / 6])
    booster = pick(adaboost.BOOSTERS, {"name": "ensemw2s", "reference": "half"})
    found, weight_T = tokens.token_round(
        0, "r", weight_T, wrong_T, length_N, booster=booster, vocabulary=10, by="answer"
    )
    assert found.error == pytest.approx(1 / 3)
    assert found.alpha == pytest.approx(math.log(2))
    np.testing.assert_allclose(weight_T, [1 / 4, 1 / 6, 1 / 6, 1 / 6, 1 / 8, 1 / 8])
    samme, _ = tokens.token_round(
        0, "r", np.ones(4), [0, 0, 1, 0], np.array([2, 2]), booster=SAMME, vocabulary=10, by="answer"
    )
    assert samme.alpha == pytest.approx(math.log(99), rel=1e-12)


def test_by_answer_only_counted_tokens_make_a_row_wrong_and_ties_are_broken_by_chance():
    length_N = np.array([2, 2, 2, 0])
    wrong_T, count_T = np.array([1, 0, 0.5, 0.5, 1, 0]), np.array([0, 1, 1, 1, 1, 1], dtype=bool)
    np.testing.assert_allclose(tokens.answer_wrong(wrong_T, length_N, count_T), [0, 0.75, 1, 0])
    np.testing.assert_allclose(tokens.answer_wrong(wrong_T, length_N), [1, 0.75, 1, 0])


def test_by_answer_errors_come_from_judged_rows_with_a_token_that_counts():
    """Row 0 was trained on, nothing of row 3 counts: of rows 1 and 2 one is wrong, with 10 and 100 possible answers."""
    wrong_T, length_N = [0, 0, 1, 0, 0, 1], np.array([1, 2, 2, 1])
    judged_N, count_T = np.array([False, True, True, True]), np.array([1, 0, 1, 1, 1, 0], dtype=bool)
    found, weight_T = tokens.token_round(
        0, "r", np.ones(6) / 6, wrong_T, length_N, None, judged_N, count_T, booster=SAMME, vocabulary=10, by="answer"
    )
    assert found.error == pytest.approx(1 / 2)
    assert found.alpha == pytest.approx(math.log(0.945 / 0.055))
    raised = math.exp(found.alpha)
    np.testing.assert_allclose(weight_T, adaboost.normalise(np.array([1, raised, raised, 1, 1, 1])))


def test_by_answer_a_very_long_row_has_a_finite_alpha():
    length_N = np.array([4000, 4000])
    found, weight_T = tokens.token_round(
        0,
        "r",
        tokens.uniform(length_N),
        np.arange(8000) == 0,
        length_N,
        booster=SAMME,
        vocabulary=50_000,
        by="answer",
    )
    assert math.isfinite(found.alpha)
    assert weight_T.sum() == pytest.approx(1)


# Window and cap.


def test_a_miss_raises_its_neighbours_but_not_those_of_the_next_row():
    length_N, wrong_T = np.array([4, 3]), np.array([0, 0, 0, 1, 0, 0, 0])
    near_T = tokens.near_misses(wrong_T, length_N, 2)
    np.testing.assert_allclose(near_T, [0, 1 / 3, 2 / 3, 1, 0, 0, 0])
    found, weight_T = tokens.token_round(0, "r", np.ones(7), wrong_T, length_N, booster=SAMME, vocabulary=2, window=2)
    assert found.error == pytest.approx(1 / 7)
    assert found.alpha == pytest.approx(math.log(6))
    np.testing.assert_allclose(weight_T, adaboost.normalise(np.exp(found.alpha * near_T)))
    assert found.effective_share == pytest.approx(adaboost.effective_share(weight_T))
    count_T = np.array([1, 1, 0, 1, 1, 1, 1], dtype=bool)
    found, weight_T = tokens.token_round(
        0, "r", np.ones(7), wrong_T, length_N, None, None, count_T, booster=SAMME, vocabulary=2, window=2
    )
    np.testing.assert_allclose(weight_T, adaboost.normalise(np.exp(found.alpha * near_T * count_T)))


@given(data=token_sets(), window=st.integers(1, 8))
def test_a_window_is_the_best_of_all_pairs_in_a_row(data, window):
    length_N, _, wrong_T, _ = data
    row_T, at_T = np.repeat(np.arange(len(length_N)), length_N), np.arange(len(wrong_T))
    distance_TT = np.abs(at_T[:, None] - at_T)
    reach_TT = np.maximum(1 - distance_TT / (window + 1), 0) * (row_T[:, None] == row_T)
    found_T = tokens.near_misses(wrong_T, length_N, window)
    np.testing.assert_allclose(found_T, (reach_TT * wrong_T).max(1), atol=1e-15)


def test_the_reason_to_stop_is_read_from_the_weights_with_the_window():
    """One miss of 100 holds half the weight; with 40 neighbours on each side it does not."""
    options = {"booster": SAMME, "vocabulary": 2, "least_share": 0.1}
    wrong_T, length_N = np.arange(100) == 50, np.array([100])
    alone, _ = tokens.token_round(0, "r", np.ones(100), wrong_T, length_N, **options)
    spread, _ = tokens.token_round(0, "r", np.ones(100), wrong_T, length_N, window=40, **options)
    assert alone.stop == "effective sample size 0.040 of the rows is below 0.100"
    assert spread.effective_share > 0.1
    assert spread.stop is None


@pytest.mark.parametrize("options", OPTIONS)
def test_bagging_and_learners_worse_than_chance_leave_the_weights_alone(options):
    length_N, wrong_T = np.array([2, 2]), [1, 0, 1, 0]
    bagged, weight_T = tokens.token_round(
        0, "r", np.ones(4), wrong_T, length_N, booster=adaboost.bagging, vocabulary=9, **options
    )
    np.testing.assert_allclose(weight_T, 0.25)
    assert (bagged.alpha, bagged.stop) == (1.0, None)
    half = pick(adaboost.BOOSTERS, {"name": "ensemw2s", "reference": "half"})
    found, weight_T = tokens.token_round(
        0, "r", np.ones(4), [1, 1, 1, 0], length_N, booster=half, vocabulary=9, **options
    )
    assert "is not better than the reference 0.500" in found.stop
    np.testing.assert_allclose(weight_T, 0.25)


@given(seed=st.integers(0, 10**6), size=st.integers(1, 40), slack=st.floats(1, 20))
def test_a_cap_is_kept_exactly_and_what_is_cut_off_goes_to_the_others(seed, size, slack):
    rng = np.random.default_rng(seed)
    weight_T = adaboost.normalise(rng.choice([0.0, 1.0, 1.0, 1.0, 30.0], size) * rng.exponential(size=size) + 1e-9)
    limit = slack / size
    new_T = tokens.cap_weights(weight_T, cap=slack)
    assert math.fsum(new_T) == pytest.approx(1, abs=1e-14)
    assert new_T.max() <= limit * (1 + 1e-12)
    below = new_T < limit * (1 - 1e-9)
    if below.any():  # one factor for all that are below, at least 1; the others would be above the limit with it
        scale = new_T[below] / weight_T[below]
        np.testing.assert_allclose(scale, scale[0], rtol=1e-9)
        assert scale[0] >= 1 - 1e-12
        assert (weight_T[~below] * scale[0] >= limit * (1 - 1e-8)).all()
    assert adaboost.effective_share(new_T) >= adaboost.effective_share(weight_T) - 1e-12
    order = rng.permutation(size)
    np.testing.assert_array_equal(tokens.cap_weights(weight_T[order], cap=slack), new_T[order])


def test_a_cap_by_hand_and_one_that_cannot_be_kept():
    weight_T = np.array([0.6, 0.2, 0.1, 0.1, 0.0])
    np.testing.assert_allclose(tokens.cap_weights(weight_T, cap=2.0), [0.4, 0.3, 0.15, 0.15, 0])
    np.testing.assert_allclose(tokens.cap_weights(weight_T, cap=1.4), [0.28, 0.28, 0.22, 0.22, 0])  # two at the limit
    np.testing.assert_allclose(tokens.cap_weights(weight_T, cap=1.25), [0.25, 0.25, 0.25, 0.25, 0])
    np.testing.assert_array_equal(tokens.cap_weights(weight_T, cap=None), weight_T)
    with pytest.raises(BadInput, match=r"cap: 1.0 of the mean given, but 4 tokens with weight cannot fill"):
        tokens.cap_weights(weight_T, cap=1.0)


# Nothing depends on the order of rows.


@pytest.mark.parametrize("options", OPTIONS)
@given(data=token_sets(), shuffle=st.randoms(use_true_random=False), seed=st.integers(0, 99))
def test_the_order_of_rows_changes_no_bit(options, data, shuffle, seed):
    length_N, weight_T, wrong_T, count_T = data
    order_N = list(range(len(length_N)))
    shuffle.shuffle(order_N)
    untrained_T = np.random.default_rng(seed).choice([0.0, 1.0], len(wrong_T))
    booster = pick(adaboost.BOOSTERS, {"name": "ensemw2s", "reference": 0.9})
    options = {"booster": booster, "vocabulary": 7, "cap": None, **options}
    if options["cap"] is not None and options["cap"] * (weight_T > 0).sum() < len(weight_T):
        return
    found, new_T = tokens.token_round(
        0, "r", weight_T, wrong_T, length_N, untrained_T, length_N > 0, count_T, **options
    )
    moved = [reordered(a, length_N, order_N) for a in (weight_T, wrong_T, untrained_T, count_T)]
    length_N2 = length_N[order_N]
    found2, new2_T = tokens.token_round(
        0, "r", moved[0], moved[1], length_N2, moved[2], length_N2 > 0, moved[3], **options
    )
    assert found2 == found
    np.testing.assert_array_equal(new2_T, reordered(new_T, length_N, order_N))
    assert new_T.sum() == pytest.approx(1, abs=1e-12)
    assert (new_T > 0).all() or "by" in options


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="no token to weigh"):
        tokens.uniform(np.array([0]))
    with pytest.raises(ValueError, match="the rows have 3 tokens together, but 2 weights"):
        tokens.token_round(0, "r", np.ones(2), [0, 1], [3], booster=SAMME, vocabulary=9)
