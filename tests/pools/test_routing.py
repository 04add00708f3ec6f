"""Routers: on made questions whose best member is known, and on recorded ones."""

import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

from w2s.config.registry import pick
from w2s.ensemble.ballots import NotApplicable
from w2s.pools import estimators, records, routing
from w2s.pools.records import NOT_ASKED, NOT_RECORDED, Opinions, Truth, rightness, spent
from w2s.store.records import BadInput

TEXT = [name for name in routing.METHODS if name != "best_per_group"]
KINDS = {
    "sums": "Add {} apples to {} pears, how many pieces of fruit are there?",
    "law": "Which court decides on appeal number {} of the contract under article {}?",
    "code": "Write a function number {} that returns the sorted list of length {}",
}


def made(n=300, *, seed=0, cost=True):
    """Each kind of question has a member that is right on 90% of it and on 40% elsewhere; the fourth on 65% of all."""
    rng = np.random.default_rng(seed)
    kind_N = rng.integers(0, 3, n)
    names = np.array(list(KINDS))
    prompt_N = np.array([KINDS[names[k]].format(*rng.integers(0, 99, 2)) for k in kind_N], dtype=object)
    chance_MN = np.vstack([np.where(kind_N == np.arange(3)[:, None], 0.9, 0.4), np.full(n, 0.65)])
    right_MN = (rng.random((4, n)) < chance_MN).astype(float)
    cost_MN = np.array([[0.001], [0.002], [0.003], [0.02]]) * rng.uniform(0.8, 1.2, (4, n))
    ids = np.array([f"q{i:04d}" for i in range(n)])
    opinions = Opinions(
        ids,
        np.array(["adder", "lawyer", "coder", "broad"]),
        np.where(right_MN > 0, 0, 1).astype(np.int16),
        np.full(n, 2),
        np.full(n, None),
        names[kind_N],
        prompt_N,
        cost_MN=cost_MN if cost else None,
    )
    return opinions, Truth(ids, np.zeros(n, np.int16), right_MN)


def halves(opinions, truth):
    rows = np.arange(len(opinions.ids)) % 2 == 0
    return (opinions.questions(rows), truth.questions(rows)), (opinions.questions(~rows), truth.questions(~rows))


def judge(fitted, opinions, truth, point=None):
    """(member names, right_N, cost_N) of a fitted router on questions."""
    right_MN = truth.right_MN[[opinions.members.tolist().index(name) for name in fitted.members]]
    opinions, truth = opinions.only(fitted.members), dataclasses.replace(truth, right_MN=right_MN)
    decision = routing.APPLY[fitted.kind](fitted, opinions, fitted.point if point is None else point)
    return fitted.members[decision.member_N], rightness(decision, truth), spent(decision, opinions)


@pytest.mark.parametrize("name", routing.METHODS)
def test_a_router_finds_the_specialist_of_each_kind_and_beats_every_single_member(name):
    fit, held = halves(*made(800))
    who_N, right_N, cost_N = judge(routing.METHODS[name](*fit), *held)
    assert right_N.mean() > held[1].right_MN.mean(1).max() + 0.1
    wanted = dict(zip(KINDS, ["adder", "lawyer", "coder"], strict=True))
    wanted_N = np.array([wanted[kind] for kind in held[0].group_N])
    assert (who_N == wanted_N).mean() > 0.95
    assert cost_N.mean() < 0.004


@pytest.mark.parametrize("name", routing.METHODS)
def test_points_go_from_the_cheapest_member_alone_to_the_best_quality(name):
    fit, held = halves(*made(800))
    fitted = routing.METHODS[name](*fit, points=12)
    curve = [judge(fitted, *held, point) for point in range(len(fitted.points))]
    cost_P = np.array([cost_N.mean() for _, _, cost_N in curve])
    assert len(set(fitted.points)) == len(fitted.points) >= 3
    assert (np.diff(cost_P) > -1e-5).all()
    assert set(curve[0][0]) == {"adder"}
    assert curve[-1][1].mean() > curve[0][1].mean() + 0.2


@pytest.mark.parametrize("name", routing.METHODS)
def test_neither_the_order_of_questions_nor_of_members_changes_a_choice(name):
    (opinions, truth), held = halves(*made(240))
    rng = np.random.default_rng(3)
    rows, members = rng.permutation(len(opinions.ids)), rng.permutation(4)
    turned = opinions.questions(rows).only(opinions.members[members])
    turned_truth = Truth(truth.ids[rows], truth.gold_N[rows], truth.right_MN[members][:, rows])
    first, second = routing.METHODS[name](opinions, truth), routing.METHODS[name](turned, turned_truth)
    assert first.points == second.points
    assert first.point == second.point
    for point in range(len(first.points)):
        assert (judge(first, *held, point)[0] == judge(second, *held, point)[0]).all()


@pytest.mark.parametrize("name", routing.METHODS)
def test_a_saved_router_chooses_alike(name, tmp_path):
    fit, held = halves(*made(200))
    fitted = routing.METHODS[name](*fit)
    records.write_fitted(tmp_path / "router.npz", fitted)
    again = records.read_fitted(tmp_path / "router.npz")
    for point in range(len(fitted.points)):
        assert (judge(fitted, *held, point)[0] == judge(again, *held, point)[0]).all()


@pytest.mark.parametrize("name", routing.METHODS)
def test_gaps_shares_and_answers_that_were_not_recorded_are_no_obstacle(name):
    (opinions, truth), held = halves(*made(800))
    rng = np.random.default_rng(1)
    right_MN = np.where(rng.random(truth.right_MN.shape) < 0.3, np.nan, 0.1 + 0.8 * truth.right_MN)
    right_MN[:, :5] = np.nan
    opinions = dataclasses.replace(opinions, answer_MN=np.full_like(opinions.answer_MN, NOT_RECORDED))
    truth = Truth(truth.ids, np.full(len(truth.ids), -2), right_MN)
    who_N, right_N, _ = judge(routing.METHODS[name](opinions, truth), *held)
    assert right_N.mean() > 0.85
    assert "broad" not in who_N


def test_without_costs_there_is_one_point_and_no_spending():
    fit, held = halves(*made(400, cost=False))
    for name in ("knn", "classifier", "matrix_factorisation", "best_per_group"):
        fitted = routing.METHODS[name](*fit)
        assert fitted.points == ("",)
        _, right_N, cost_N = judge(fitted, *held)
        assert right_N.mean() > 0.8
        assert cost_N is None
    with pytest.raises(NotApplicable, match="no costs"):
        routing.budgeted(*fit)


def test_two_members_without_costs_get_shares_of_calls_to_the_stronger():
    (opinions, truth), held = halves(*made(800, cost=False))
    pair = ["adder", "broad"]
    fitted = routing.classifier(opinions.only(pair), dataclasses.replace(truth, right_MN=truth.right_MN[[0, 3]]))
    assert fitted.members.tolist() == ["broad", "adder"]
    assert fitted.points[0] == "0.0% to broad"
    share_P = [(judge(fitted, *held, point)[0] == "broad").mean() for point in range(len(fitted.points))]
    assert share_P[0] == 0
    assert (np.diff(share_P) >= 0).all()
    np.testing.assert_allclose(share_P, [float(p.split("%")[0]) / 100 for p in fitted.points], atol=0.11)


def test_a_budget_is_kept_and_no_other_choice_within_it_promises_more():
    rng = np.random.default_rng(0)
    quality_MN, cost_MN = rng.random((3, 6)), rng.random((3, 6))
    every_CN = np.stack(np.meshgrid(*[np.arange(3)] * 6), -1).reshape(-1, 6)
    total_C = quality_MN[every_CN, np.arange(6)].sum(1)
    paid_C = cost_MN[every_CN, np.arange(6)].mean(1)
    budgets_P = np.linspace(paid_C.min(), paid_C.max(), 9)
    price_P, paid_P = routing.sweep(quality_MN, cost_MN, 9, budgets_P)
    assert (np.diff(price_P) < 0).all()
    for price, paid in zip(price_P, paid_P, strict=True):
        member_N = routing.choose(quality_MN, cost_MN, price)
        assert cost_MN[member_N, np.arange(6)].mean() == pytest.approx(paid)
        assert quality_MN[member_N, np.arange(6)].sum() >= total_C[paid_C <= paid + 1e-12].max() - 1e-9
    for budget in budgets_P:
        assert paid_P[0] <= budget + 1e-9
        # The lowest price within the budget: at a price a little lower, the choices cost more than it.
        at = np.flatnonzero(paid_P <= budget + 1e-9)[-1]
        if price_P[at] > 0:
            dearer_N = routing.choose(quality_MN, cost_MN, price_P[at] * (1 - 2e-3))
            assert cost_MN[dearer_N, np.arange(6)].mean() > budget


def test_a_budget_in_dollars_holds_on_new_questions():
    fit, held = halves(*made(1200))
    fitted = routing.budgeted(*fit, budgets_per_1000=[1.2, 1.8])
    assert len(fitted.points) == 2
    for point, budget in enumerate((0.0012, 0.0018)):
        assert judge(fitted, *held, point)[2].mean() == pytest.approx(budget, rel=0.12)


def test_a_member_without_a_row_is_not_chosen_for_that_question():
    fit, (opinions, truth) = halves(*made(400, cost=False))
    fitted = routing.knn(*fit)
    answer_MN = opinions.answer_MN.copy()
    answer_MN[2, opinions.group_N == "code"] = NOT_ASKED
    who_N, _, _ = judge(fitted, dataclasses.replace(opinions, answer_MN=answer_MN), truth)
    assert "coder" not in who_N[opinions.group_N == "code"]


def test_a_member_of_whom_nothing_is_known_is_left_out():
    opinions, truth = made(100)
    right_MN = truth.right_MN.copy()
    right_MN[1] = np.nan
    assert sorted(routing.knn(opinions, dataclasses.replace(truth, right_MN=right_MN)).members) == [
        "adder",
        "broad",
        "coder",
    ]


def test_a_group_that_is_new_gets_the_best_member_overall():
    (opinions, truth), held = halves(*made(400, cost=False))
    known = opinions.group_N != "law"
    fitted = routing.best_per_group(opinions.questions(known), truth.questions(known))
    who_N, _, _ = judge(fitted, *held)
    assert set(who_N[held[0].group_N == "law"]) == {fitted.members[0]}
    assert set(who_N[held[0].group_N == "code"]) == {"coder"}


def test_features_of_an_encoder_take_the_place_of_the_words():
    opinions, truth = made(400, cost=False)
    kinds_ND = np.stack([opinions.group_N == kind for kind in KINDS], 1).astype(float)
    blank = dataclasses.replace(opinions, prompt_N=np.full(400, "", dtype=object), features_ND=kinds_ND)
    fit, held = halves(blank, truth)
    assert judge(routing.classifier(*fit), *held)[1].mean() > 0.8


def test_what_is_missing_or_out_of_range_is_said():
    opinions, truth = made(60)
    wordless = dataclasses.replace(opinions, prompt_N=np.full(60, "", dtype=object))
    for name in TEXT:
        with pytest.raises(NotApplicable, match="prompts were not recorded"):
            routing.METHODS[name](wordless, truth)
    with pytest.raises(NotApplicable, match="no groups"):
        routing.best_per_group(dataclasses.replace(opinions, group_N=np.full(60, "")), truth)
    with pytest.raises(NotApplicable, match="is not known"):
        routing.knn(opinions, dataclasses.replace(truth, right_MN=np.full((4, 60), np.nan)))
    cost_MN = opinions.cost_MN.copy()
    cost_MN[2] = np.nan
    with pytest.raises(NotApplicable, match="some members only"):
        routing.knn(dataclasses.replace(opinions, cost_MN=cost_MN), truth)
    with pytest.raises(BadInput, match="neighbours: 0 given"):
        pick(routing.METHODS, {"name": "knn", "neighbours": 0})
    with pytest.raises(BadInput, match="penalty: 0"):
        pick(routing.METHODS, {"name": "classifier", "penalty": 0.0})
    with pytest.raises(BadInput, match="budgets_per_1000"):
        pick(routing.METHODS, {"name": "budgeted", "budgets_per_1000": [0.0]})


def features_and_targets(n=500, d=6, members=5):
    rng = np.random.default_rng(0)
    features_ND = rng.normal(size=(n, d))
    features_ND /= np.linalg.norm(features_ND, axis=1, keepdims=True)
    logit_NM = 4 * features_ND @ rng.normal(size=(d, 2)) @ rng.normal(size=(2, members)) + rng.normal(size=members)
    return features_ND.astype(np.float32), (rng.random((members, n)) < 1 / (1 + np.exp(-logit_NM.T))).astype(float)


def test_the_logistic_regressions_are_scikit_learns():
    features_ND, target_MN = features_and_targets()
    ours_MN = estimators.estimate_logistic(estimators.learn_logistic(features_ND, target_MN, penalty=2.0), features_ND)
    for ours_N, target_N in zip(ours_MN, target_MN, strict=True):
        theirs = LogisticRegression(C=0.5, tol=1e-8, max_iter=1000).fit(features_ND, target_N)
        np.testing.assert_allclose(ours_N, theirs.predict_proba(features_ND)[:, 1], atol=0.01)


def test_the_neighbours_are_scikit_learns():
    features_ND, target_MN = features_and_targets()
    arrays = estimators.learn_neighbours(features_ND, target_MN, neighbours=20, prior=3.0)
    distance_NK, nearest_NK = NearestNeighbors(n_neighbors=20, metric="cosine").fit(features_ND).kneighbors(features_ND)
    weight_NK = np.maximum(1 - distance_NK, 0)
    share_MN = (weight_NK * target_MN[:, nearest_NK]).sum(2) + 3 * target_MN.mean(1)[:, None]
    share_MN /= weight_NK.sum(1) + 3
    np.testing.assert_allclose(estimators.estimate_neighbours(arrays, features_ND), share_MN, atol=1e-4)


def test_factors_of_full_rank_fit_as_well_as_separate_regressions_and_of_the_true_rank_nearly_so():
    features_ND, target_MN = features_and_targets(3000)

    def loss(quality_MN):
        return -np.mean(target_MN * np.log(quality_MN) + (1 - target_MN) * np.log(1 - quality_MN))

    separate = estimators.learn_logistic(features_ND, target_MN, penalty=0.1)
    best = loss(estimators.estimate_logistic(separate, features_ND))
    for rank, slack in ((5, 0.002), (2, 0.004)):
        factors = estimators.learn_factors(features_ND, target_MN, rank=rank, penalty=0.1)
        assert factors["member_RM"].shape == (rank, 5)
        assert loss(estimators.estimate_factors(factors, features_ND)) < best + slack


@pytest.mark.parametrize("name", estimators.ESTIMATORS)
def test_every_estimate_of_a_share_is_a_share(name):
    features_ND, target_MN = features_and_targets(90)
    target_MN[0], target_MN[1] = 1.0, 0.0
    target_MN[2, ::2] = np.nan
    what_N = np.arange(90) % 4 if name == "groups" else features_ND
    options = {
        "neighbours": {"neighbours": 9, "prior": 2.0},
        "groups": {"prior": 2.0},
        "logistic": {"penalty": 1.0},
        "factors": {"rank": 2, "penalty": 1.0},
        "linear": {"penalty": 1.0},
    }[name]
    learn, estimate = estimators.ESTIMATORS[name]
    quality_MN = estimate(learn(what_N, target_MN, **options), what_N)
    assert quality_MN.shape == target_MN.shape
    assert (quality_MN >= -1e-6).all()
    assert (quality_MN <= 1 + 1e-6).all()
    assert quality_MN[0].min() > 0.9 > 0.1 > quality_MN[1].max()


@pytest.fixture(scope="module")
def routerdc(shared):
    """The five tasks that RouterDC trains on, cut into the halves of its authors."""
    outputs = pytest.importorskip("w2s.pools.read")
    pandas = pytest.importorskip("pandas")
    opinions, truth = outputs.read_pool(shared / "recorded" / "routerdc")
    split = pandas.read_parquet(shared / "recorded" / "routerdc" / "questions.parquet").set_index("id").upstream_split
    split_N = split.loc[opinions.ids].to_numpy()
    five_N = np.isin(opinions.group_N, ["mmlu", "gsm8k", "cmmlu", "arc-challenge", "humaneval"])
    return [
        (opinions.questions(rows), truth.questions(rows))
        for rows in (five_N & (split_N == "train"), five_N & (split_N == "test"))
    ]


def test_on_routerdc_neighbours_beat_the_best_single_model_and_not_the_best_of_each_task(routerdc):
    fit, held = routerdc
    best = np.nanmean(fit[1].right_MN, axis=1).argmax()
    single = held[1].right_MN[best].mean()
    assert single == pytest.approx(0.546, abs=0.001)
    by_text, by_task = (np.mean(judge(method(*fit), *held)[1]) for method in (routing.knn, routing.best_per_group))
    assert single + 0.02 < by_text < by_task
