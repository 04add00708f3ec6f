"""FrugalGPT cascades: exhaustive search as the oracle, budgets, the two ends, orders, missing answers and costs."""

import dataclasses
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s.ensemble.ballots import NotApplicable
from w2s.pools import frugal
from w2s.pools.frugal import METHODS, choose, search
from w2s.pools.records import NOT_ASKED, Opinions, Truth, read_fitted, rightness, spent, write_fitted
from w2s.store.records import BadInput

NAMES = ["cheap", "middle", "dear"]


def pool_of(seed, rows=300, members=3, **changes):
    """Members that are surer where they are right, the dearer the better; each on a confidence scale of its own."""
    rng = np.random.default_rng(seed)
    gold_N = rng.integers(0, 3, rows).astype(np.int16)
    ease_N = rng.random(rows)
    know_MN = ease_N > 0.45 - 0.4 * np.linspace(0, 1, members)[:, None] + 0.2 * rng.standard_normal((members, rows))
    answer_MN = np.where(know_MN, gold_N, rng.integers(0, 3, (members, rows))).astype(np.int16)
    score_MN = (ease_N + 0.2 * rng.standard_normal((members, rows))) * 10.0 ** np.arange(members)[:, None]
    cost_MN = np.repeat(10.0 ** np.arange(-3, members - 3)[:, None], rows, axis=1)
    texts = np.empty(rows, object)
    texts[:] = [("a", "b", "c")] * rows
    blank = np.full(rows, "")
    ids = np.array([f"q{at:04}" for at in range(rows)])
    names = np.array(NAMES if members == 3 else [f"m{at}" for at in range(members)])
    opinions = Opinions(ids, names, answer_MN, np.full(rows, 3), texts, blank, blank, None, score_MN, cost_MN)
    truth = Truth(ids, gold_N, np.where(answer_MN == NOT_ASKED, np.nan, answer_MN == gold_N))
    return dataclasses.replace(opinions, **changes), truth


def decide(fitted, opinions, point):
    return frugal.APPLY["frugal"](fitted, opinions.only(fitted.members), point)


def cut(truth, opinions, fitted):
    return Truth(truth.ids, truth.gold_N, truth.right_MN[[opinions.members.tolist().index(m) for m in fitted.members]])


def random_scores(seed, members=4, rows=25):
    """What `search` gets: scores with ties, -1 where there is no answer, rightness, costs."""
    rng = np.random.default_rng(seed)
    answered_MN = rng.random((members, rows)) < 0.9
    score_MMN = np.where(answered_MN, np.round(rng.random((members, members, rows)), 1), -1)
    right_MN = np.where(answered_MN, rng.integers(0, 2, (members, rows)), 0).astype(float)
    return score_MMN, answered_MN, right_MN, rng.random((members, rows))


def played(listed, thresholds, score_MMN, answered_MN, right_MN, cost_MN):
    """Mean rightness and cost of one list with its thresholds, question by question."""
    quality = cost = 0.0
    for row in range(right_MN.shape[1]):
        taken = None
        for stage, member in enumerate(listed):
            cost += cost_MN[member, row]
            if not answered_MN[member, row]:
                continue
            taken = member
            before = listed[max(stage - 1, 0)]
            if stage < len(listed) - 1 and score_MMN[before, member, row] >= thresholds[stage]:
                break
        quality += 0 if taken is None else right_MN[taken, row]
    return quality / right_MN.shape[1], cost / right_MN.shape[1]


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_the_search_equals_playing_every_list_with_every_threshold(seed, length):
    data = random_scores(seed)
    found = search(*data, length, 4)
    score_MMN, answered_MN = data[:2]
    expected = []
    for size in range(1, length + 1):
        for listed in combinations(range(4), size):
            stages = [(listed[max(at - 1, 0)], listed[at]) for at in range(size - 1)]
            grids = [np.quantile(score_MMN[a, b][answered_MN[b]], [0.2, 0.4, 0.6, 0.8]) for a, b in stages]
            for thresholds in np.array(np.meshgrid(*grids)).reshape(size - 1, -1).T if grids else [()]:
                expected.append((*listed, *thresholds, *played(listed, thresholds, *data)))
    flat = [
        [*(int(one) for one in listed if one >= 0), *(one for one in thresholds if np.isfinite(one)), quality, cost]
        for listed, thresholds, quality, cost in zip(
            found["list_C3"], found["threshold_C2"], found["quality_C"], found["cost_C"], strict=True
        )
    ]
    assert len(flat) == len(expected)
    order = [sorted(rows, key=lambda row: (len(row), *np.round(row, 7))) for rows in (flat, expected)]
    for one, other in zip(*order, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.01, 2))
def test_a_larger_budget_never_lowers_the_quality_and_the_best_within_each_budget_is_taken(seed, budget):
    found = search(*random_scores(seed), 3, 5)
    chosen, budget_P, point = choose(found, budget, 8)
    quality_P, cost_P = found["quality_C"][chosen], found["cost_C"][chosen]
    assert (np.diff(quality_P) > 0).all()
    assert (np.diff(cost_P) > 0).all()
    for spend, quality in zip(budget_P, quality_P, strict=True):
        assert quality == found["quality_C"][found["cost_C"] <= spend + 1e-9].max()
    within = found["cost_C"] <= max(budget, found["cost_C"].min()) + 1e-9
    assert quality_P[point] == found["quality_C"][within].max()


def test_left_out_the_budget_is_the_cost_of_the_most_accurate_member():
    opinions, truth = pool_of(0)
    fitted = METHODS["frugal"](opinions, truth)
    assert fitted.arrays["cost_P"][fitted.point] <= opinions.cost_MN[np.argmax(truth.right_MN.mean(1))].mean() + 1e-9
    assert fitted.arrays["quality_P"][fitted.point] >= truth.right_MN.mean(1).max()


def test_confidence_on_scales_of_their_own_is_worth_more_than_asking_the_dear_one_at_random():
    opinions, truth = pool_of(1, rows=2000)
    fit, judged = np.arange(1000), np.arange(1000, 2000)
    fitted = METHODS["frugal"](opinions.questions(fit), truth.questions(fit), budget=0.05)
    decision = decide(fitted, opinions.questions(judged), fitted.point)
    right = rightness(decision, cut(truth, opinions, fitted).questions(judged)).mean()
    assert spent(decision, opinions.questions(judged).only(fitted.members)).mean() < 0.06
    assert right > truth.right_MN[[1, 2]][:, judged].mean() + 0.03


def test_thresholds_that_accept_all_are_the_first_member_and_those_that_accept_nothing_the_last():
    opinions, truth = pool_of(2)
    fitted = METHODS["frugal"](opinions, truth)
    three = np.flatnonzero((fitted.arrays["list_P3"] >= 0).all(1))[0]
    for threshold, stage in ((-1.0, 0), (1.1, 2)):
        arrays = fitted.arrays | {"threshold_P2": np.full_like(fitted.arrays["threshold_P2"], threshold)}
        decision = decide(dataclasses.replace(fitted, arrays=arrays), opinions, three)
        assert (decision.member_N == fitted.arrays["list_P3"][three, stage]).all()
        assert (decision.asked_MN.sum(0) == stage + 1).all()


def test_no_order_of_members_or_questions_changes_a_decision():
    opinions, truth = pool_of(3)
    rng = np.random.default_rng(0)
    members, rows = rng.permutation(3), rng.permutation(300)
    mixed = opinions.only(opinions.members[members]).questions(rows)
    one = METHODS["frugal"](opinions, truth)
    two = METHODS["frugal"](mixed, Truth(mixed.ids, truth.gold_N[rows], truth.right_MN[members][:, rows]))
    assert one.members.tolist() == two.members.tolist()
    assert (one.points, one.point) == (two.points, two.point)
    for point in range(len(one.points)):
        first, second = decide(one, opinions, point), decide(two, mixed, point)
        np.testing.assert_array_equal(first.member_N[rows], second.member_N)
        np.testing.assert_array_equal(first.asked_MN[:, rows], second.asked_MN)


def test_a_member_without_an_answer_is_passed_over_and_the_last_one_that_answered_is_taken():
    opinions, truth = pool_of(4)
    fitted = METHODS["frugal"](opinions, truth)
    three = np.flatnonzero((fitted.arrays["list_P3"] >= 0).all(1))[0]
    answer_MN = opinions.answer_MN.copy()
    answer_MN[0, :100], answer_MN[2, 50:150], answer_MN[1:, 200:] = -1, NOT_ASKED, -1
    answer_MN[:, 299] = -1
    shown = dataclasses.replace(opinions, answer_MN=answer_MN)
    decision = decide(fitted, shown, three)
    taken_N = shown.only(fitted.members).answer_MN[decision.member_N, np.arange(300)]
    assert (taken_N[:299] >= 0).all()
    assert decision.abstained_N.tolist() == [False] * 299 + [True]
    assert not decision.asked_MN[fitted.members == "dear", 50:150].any()


def test_gaps_in_answers_costs_and_confidence_are_no_obstacle():
    opinions, truth = pool_of(5)
    rng = np.random.default_rng(0)
    gap_MN = rng.random((3, 300)) < 0.1
    answer_MN = np.where(gap_MN, NOT_ASKED, np.where(rng.random((3, 300)) < 0.1, -1, opinions.answer_MN))
    cost_MN = np.where(gap_MN | (rng.random((3, 300)) < 0.1), np.nan, opinions.cost_MN)
    score_MN = np.where(rng.random((3, 300)) < 0.3, np.nan, opinions.score_MN)
    score_MN[1] = np.nan
    opinions = dataclasses.replace(opinions, answer_MN=answer_MN, cost_MN=cost_MN, score_MN=score_MN)
    right_MN = np.where(gap_MN, np.nan, answer_MN == truth.gold_N)
    truth = Truth(truth.ids, np.where(np.arange(300) % 7 > 0, truth.gold_N, -2), right_MN)
    truth.right_MN[:, truth.gold_N == -2] = np.nan
    fitted = METHODS["frugal"](opinions, truth)
    assert np.isfinite(fitted.arrays["coef_MF"]).all()
    for point in range(len(fitted.points)):
        assert (
            not decide(fitted, opinions, point)
            .asked_MN[answer_MN[[NAMES.index(m) for m in fitted.members]] == -2]
            .any()
        )


@pytest.mark.parametrize("what", ["prompts", "features", "probs", "groups", "programs"])
def test_whatever_is_recorded_is_used_and_survives_the_file(what, tmp_path):
    opinions, truth = pool_of(6)
    know_N = truth.right_MN[0] > 0
    changes = {
        "prompts": {"prompt_N": np.where(know_N, "easy words here", "some hard thing there").astype(object)},
        "features": {"features_ND": np.c_[know_N, ~know_N, np.tile(0.1, (300, 30))].astype(np.float32)},
        "probs": {"probs_MNK": np.eye(3)[opinions.answer_MN] * np.where(know_N, 0.9, 0.4)[:, None]},
        "groups": {"group_N": np.where(know_N, "easy", "hard")},
        "programs": {
            "answer_MN": np.full((3, 300), -3, np.int16),
            "count_N": np.zeros(300, int),
            "texts_N": np.array([()] * 300 + [None], object)[:300],
            "check_MN": np.where(know_N, [[1.0], [1.0], [1.0]], 0),
            "output_MN": np.full((3, 300), None),
        },
    }[what]
    opinions = dataclasses.replace(opinions, score_MN=None, **changes)
    fitted = METHODS["frugal"](opinions, truth, budget=0.06)
    decision = decide(fitted, opinions, fitted.point)
    # The cheap member is taken where it is right, and nearly only there.
    cheap_N = fitted.members[decision.member_N] == "cheap"
    assert (cheap_N == know_N).mean() > 0.9
    write_fitted(tmp_path / "fitted.npz", fitted)
    again = decide(read_fitted(tmp_path / "fitted.npz"), opinions, fitted.point)
    np.testing.assert_array_equal(again.member_N, decision.member_N)


def test_prices_can_be_given_where_no_costs_were_recorded():
    opinions, truth = pool_of(7, cost_MN=None)
    with pytest.raises(NotApplicable, match="no costs were recorded: give one price per member"):
        METHODS["frugal"](opinions, truth)
    fitted = METHODS["frugal"](opinions, truth, costs={"dear": 1, "cheap": 0.01})
    assert set(fitted.members) == {"cheap", "dear"}
    assert fitted.arrays["cost_P"].min() == pytest.approx(0.01)


def test_the_pool_keeps_the_members_that_the_fewest_others_beat():
    opinions, truth = pool_of(8, members=6)
    cost_MN = opinions.cost_MN.copy()
    cost_MN[:3] += 1000  # worse and dearer than all others
    opinions = dataclasses.replace(opinions, cost_MN=cost_MN)
    assert set(METHODS["frugal"](opinions, truth, pool=3).members) <= {"m3", "m4", "m5"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": -1.0}, "budget: -1.0 given; allowed: 0 to"),
        ({"length": 4}, "length: 4 given; allowed: 1 to 3"),
        ({"folds": 1}, "folds: 1 given; allowed: 2 to 100"),
        ({"l2": 0.0}, "l2: 0.0 given"),
        ({"costs": {"nobody": 1.0}}, "costs: 'nobody' given; there are: cheap, middle, dear"),
        ({"costs": {"cheap": "1"}}, "costs: cheap: '1' given; allowed: dollars"),
    ],
)
def test_a_bad_option_is_refused(options, message):
    with pytest.raises(BadInput, match=message):
        METHODS["frugal"](*pool_of(0, rows=30), **options)


def test_a_cascade_of_sentiment_services_beats_the_best_one_at_a_lower_cost(shared):
    from w2s.pools.read import read_pool

    opinions, truth = read_pool(shared / "recorded" / "frugalml_imdb")
    right, cost = [], []
    for seed in range(5):
        rows = np.random.default_rng(seed).permutation(len(opinions.ids))
        fit, judged = rows[: len(rows) // 2], rows[len(rows) // 2 :]
        fitted = METHODS["frugal"](opinions.questions(fit), truth.questions(fit))
        shown = opinions.questions(judged)
        decision = decide(fitted, shown, fitted.point)
        right.append(rightness(decision, cut(truth, opinions, fitted).questions(judged)).mean())
        cost.append(spent(decision, shown.only(fitted.members)).mean())
    assert np.mean(right) > truth.right_MN.mean(1).max()
    assert np.mean(cost) < np.nanmean(opinions.cost_MN, axis=1)[truth.right_MN.mean(1).argmax()]
