"""The numbers of reward models on preference data, against cases worked out by hand and against brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s.evaluation.rewards import reward_study as measured
from w2s.evaluation.rewards.reward_study import BEST, LENGTH, MEMBER, ORACLE, PAIRS, RANDOM, Pool, ScoredPairs
from w2s.evaluation.rewards.reward_study_report import name_members
from w2s.evaluation.statistics import Scores, contrast
from w2s.store.records import Example, Rewards, example_id

HOW = {"by": "set", "aggregate": {"name": "mean"}}


def pairs(texts, groups=None, **meta) -> list[Example]:
    """Pairs of texts, an instruction each unless `groups` says otherwise."""
    found = []
    for at, (first, second) in enumerate(texts):
        group = str(at) if groups is None else groups[at]
        about = {"group": group, "length_difference": len(first) - len(second), "tie": False, "subset": "", **meta}
        found.append(
            Example(example_id("t", str(at), (first, second)), "t", "choice", f"q{at}", (first, second), about)
        )
    return found


def asked(examples, gold, scores_MN2, **others) -> ScoredPairs:
    length_N2 = np.array([[len(text) for text in row.choices] for row in examples], dtype=float)
    kinds = {"separate": np.asarray(scores_MN2, dtype=float), **others}
    ids = np.array([row.id for row in examples])
    rewards = {kind: Rewards(ids, one, np.arange(len(one)).astype(str)) for kind, one in kinds.items()}
    scores, members = measured.proxies(rewards, np.ones(length_N2.shape, bool), length_N2, **HOW)
    return ScoredPairs(examples, np.array(gold), scores, members)


def told(metrics, model, name):
    (found,) = [one for one in metrics if (one.model, one.name) == (model, name)]
    return found


FOUR = pairs([("aaaa", "b"), ("a", "bbb"), ("aaa", "b"), ("aa", "bbbbbb")])


def test_a_pair_is_a_point_for_the_preferred_text_and_half_where_scores_are_level_or_missing():
    scores_N2 = np.array([[2.0, 1.0], [1.0, 2.0], [1.0, 1.0], [np.nan, 3.0]])
    assert measured.points(scores_N2, np.array([0, 0, 1, 1])).tolist() == [1, 0, 0.5, 0.5]


def test_a_tie_of_the_set_is_half_a_point_for_everyone_and_is_counted():
    rows = pairs([("a", "b"), ("c", "d")], tie=True)
    one = asked(rows, [0, 0], [[[5, 1], [1, 5]]])
    assert all(point_N.tolist() == [0.5, 0.5] for point_N in one.points.values())
    metrics = measured.measure_pairs("s", {0: one}, None)
    assert told(metrics, PAIRS, "ties").value == 2


@given(st.integers(0, 10**6))
def test_members_of_opposite_minds_are_a_tie_for_whoever_aggregates_them(seed):
    rng = np.random.default_rng(seed)
    apart_N2 = rng.normal(size=(9, 2)) * 10.0 ** rng.integers(-3, 4, (9, 1))
    scores_MN2 = np.stack([apart_N2, apart_N2[:, ::-1] * 7 + 3])
    rewards = {"separate": Rewards(np.arange(9).astype(str), scores_MN2, np.array(["0", "1"]))}
    by_question = {"by": "question", "aggregate": {"name": "mean"}}
    scores, _ = measured.proxies(rewards, np.ones((9, 2), bool), np.ones((9, 2)), **by_question)
    for name in ("mean", "median", "worst", "uncertainty", "lower_bound", "rank_average"):
        assert measured.points(scores[name], np.zeros(9, int)).tolist() == [0.5] * 9, name


@pytest.mark.parametrize("scores_MN2", [
    [[[2, 0]] * 4, [[0, 2]] * 4],
    [[[1, 0]] * 4, [[1, 0]] * 4],
    [[[9, 0], [1, 0], [0, 1], [0, 0]], [[0, 1], [1, 0], [0, 9], [3, 0]]],
])  # fmt: skip
def test_the_interval_of_the_members_disagreement_holds_its_value(scores_MN2):
    one = asked(FOUR, [0, 1, 0, 1], scores_MN2)
    found = told(measured.measure_pairs("s", {0: one}, None), "separate", "disagreement")
    spread_N = measured.disagreement_of(one.members["separate"])
    assert found.value == pytest.approx(spread_N.mean())
    assert 0 <= found.low <= found.value <= found.high


def test_accuracies_and_differences_of_four_pairs_by_hand():
    # Member 1 is right on all, member 2 on the first two; the longer text is preferred in pairs 0, 1 and 3.
    gold = [0, 1, 1, 1]
    one = asked(FOUR, gold, [[[1, 0], [0, 1], [0, 1], [0, 1]], [[1, 0], [0, 1], [1, 0], [1, 0]]])
    metrics = measured.measure_pairs("s", {0: one}, {0: "member 2"})
    assert told(metrics, "member 1", "accuracy").value == 1
    assert told(metrics, "member 2", "accuracy").value == told(metrics, BEST, "accuracy").value == 0.5
    assert told(metrics, MEMBER, "accuracy").value == 0.75
    assert told(metrics, LENGTH, "accuracy").value == 0.75
    assert told(metrics, RANDOM, "accuracy").value == 0.5
    assert told(metrics, "mean", "accuracy_minus_member").value == pytest.approx(
        told(metrics, "mean", "accuracy").value - 0.75
    )
    assert told(metrics, "separate", "agreement").value == 0.5
    assert told(metrics, "separate", "unanimous").value == 0.5
    assert told(metrics, "mean", "accuracy@unanimous").value == 1
    assert measured.agreement_matrix({0: one}).tolist() == [[1, 0.5], [0.5, 1]]
    assert measured.best_members({0: one}) == {0: "member 1"}


def test_the_longer_text_is_right_where_it_is_preferred_and_wrong_elsewhere():
    rng = np.random.default_rng(0)
    rows = pairs([("a" * int(a), "b" * int(b)) for a, b in rng.integers(1, 60, (90, 2))])
    gold = rng.integers(0, 2, 90).tolist()
    metrics = measured.measure_pairs("s", {0: asked(rows, gold, rng.normal(size=(2, 90, 2)))}, None)
    parts = [one for one in metrics if one.model == LENGTH and one.name.startswith("accuracy@length: ")]
    assert len(parts) == 6
    assert sum(one.n for one in parts) == sum(bool(r.meta["length_difference"]) for r in rows)
    for one in parts:
        assert one.value == ("longer" in one.name)


def test_small_subsets_are_shown_together():
    names = ["a"] * 40 + ["b"] * 35 + ["c"] * 3
    rows = [row for at, name in enumerate(names) for row in pairs([(f"x{at}", f"yy{at}")], [str(at)], subset=name)]
    metrics = measured.measure_pairs("s", {0: asked(rows, [0] * 78, np.ones((1, 78, 2)))}, None)
    found = {one.name: one.n for one in metrics if one.model == MEMBER and "subset: " in one.name}
    assert found == {"accuracy@subset: a": 40, "accuracy@subset: b": 35, "accuracy@subset: other subsets": 3}


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0, 0.5, 1])), min_size=2, max_size=30))
def test_rows_by_instruction_keep_the_mean_over_pairs_and_the_variance_of_a_ratio(rows):
    groups_N = np.array([str(group) for group, _ in rows])
    value_N = np.array([value for _, value in rows])
    found = measured.clustered(groups_N, value_N)
    assert found.values_NM.mean() == pytest.approx(value_N.mean())
    # Cochran's variance of a ratio of two sums over clusters, written out.
    residuals = [(value_N[groups_N == one] - value_N.mean()).sum() for one in np.unique(groups_N)]
    assert found.values_NM.var() / len(found.ids) == pytest.approx(np.square(residuals).sum() / len(value_N) ** 2)


def test_with_one_pair_an_instruction_the_interval_is_the_plain_one():
    value_N = np.array([1, 0, 1, 1, 0, 0.5])
    ids = np.array(list("abcdef"))
    plain = contrast([Scores(ids, value_N[:, None])], [1.0])
    assert contrast([measured.clustered(ids, value_N)], [1.0]) == plain


def test_pairs_of_one_instruction_that_err_together_widen_the_interval():
    rng = np.random.default_rng(1)
    right_G = rng.integers(0, 2, 30)
    texts = [("aa", "b")] * 150
    apart, together = pairs(texts), pairs(texts, [str(at // 5) for at in range(150)])
    widths = []
    for rows in (apart, together):
        rows = [Example(f"{at}", "t", "choice", "q", row.choices, row.meta) for at, row in enumerate(rows)]
        scores_N2 = np.array([[1, 0] if right else [0, 1] for right in right_G.repeat(5)])
        one = told(measured.measure_pairs("s", {0: asked(rows, [0] * 150, scores_N2[None])}, None), "mean", "accuracy")
        widths.append(one.high - one.low)
    assert widths[1] > 1.8 * widths[0]


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_who_stands_first_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    texts = [("a" * int(a), "b" * int(b)) for a, b in rng.integers(1, 40, (12, 2))]
    gold_N, scores_MN2 = rng.integers(0, 2, 12), rng.normal(size=(3, 12, 2))
    turned_N, order_M, order_N = rng.integers(0, 2, 12) == 1, rng.permutation(3), rng.permutation(12)
    other_MN2 = np.where(turned_N[:, None], scores_MN2[..., ::-1], scores_MN2)[order_M][:, order_N]
    other = [texts[at][::-1] if turned_N[at] else texts[at] for at in order_N.tolist()]
    other_gold = np.where(turned_N, 1 - gold_N, gold_N)[order_N]
    first = measured.measure_pairs("s", {0: asked(pairs(texts), gold_N, scores_MN2)}, None)
    groups = [str(at) for at in order_N.tolist()]
    second = measured.measure_pairs("s", {0: asked(pairs(other, groups), other_gold, other_MN2)}, None)
    values = [{(one.model, one.name): one.value for one in found} for found in (first, second)]
    singles = [sorted(v for (model, name), v in one.items() if model.startswith("member ") and name == "accuracy")
               for one in values]  # fmt: skip
    assert singles[0] == pytest.approx(singles[1])
    for key, value in values[0].items():
        if not key[0].startswith("member ") and value is not None:
            assert values[1][key] == pytest.approx(value), key


def test_what_was_not_judged_is_counted():
    scores_MN2 = np.array([[[np.nan, 1], [2, 1], [1, 2], [2, 1]], [[1, 2], [2, 1], [np.nan, np.nan], [2, 1]]])
    one = asked(FOUR, [0, 0, 0, 0], scores_MN2)
    metrics = measured.measure_pairs("s", {0: one}, None)
    assert told(metrics, "separate", "unjudged").value == 3
    assert one.points["member 1"].tolist() == [0.5, 1, 0, 1]
    assert one.points["mean"][2] == 0  # the other member judged it


# --- the pool --------------------------------------------------------------------------------------------------------

MODELS = ["a", "b", "c", "d", "fool"]


def pool(scores_MNK, preference_NK) -> Pool:
    preference_NK = np.array(preference_NK, dtype=float)
    ids = np.array([f"i{at}" for at in range(len(preference_NK))])
    models_NK = np.where(np.isnan(preference_NK), "", np.array(MODELS)[None])
    length_NK = np.where(np.isnan(preference_NK), np.nan, np.arange(5.0))
    found = {"separate": Rewards(ids, np.array(scores_MNK, dtype=float), np.array(["0", "1"]))}
    return Pool(ids, preference_NK, models_NK, length_NK, found)


GOLD = [[0.1, 0.4, 0.3, 0.8, 1.0], [0.9, 0.2, 0.5, 0.4, np.nan]]
LIKED = [[[1, 2, 3, 4, 9], [4, 1, 3, 2, np.nan]], [[1, 2, 4, 3, 9], [4, 1, 2, 3, np.nan]]]


def test_best_of_n_is_the_mean_over_all_draws_of_ordinary_answers():
    metrics = measured.measure_pool({0: pool(LIKED, GOLD)}, ["fool"], {0: "member 2"}, **HOW)
    for n in (1, 2, 4):
        picks = [
            [max(draw, key=lambda k: LIKED[0][row][k]) for draw in itertools.combinations(range(4), n)]
            for row in (0, 1)
        ]
        wanted = np.mean([np.mean([GOLD[row][k] for k in one]) for row, one in enumerate(picks)])
        assert told(metrics, "member 1", f"preference@{n}").value == pytest.approx(wanted)
        assert told(metrics, RANDOM, f"preference@{n}").value == pytest.approx(np.mean([GOLD[0][:4], GOLD[1][:4]]))
    assert told(metrics, ORACLE, "preference@4").value == pytest.approx(0.85)
    gap = told(metrics, "mean", "preference@4_minus_random").value
    assert gap == pytest.approx(
        told(metrics, "mean", "preference@4").value - told(metrics, RANDOM, "preference@4").value
    )


def test_a_probe_that_all_like_best_is_always_picked_and_a_coin_picks_it_once_in_n():
    metrics = measured.measure_pool({0: pool(LIKED, GOLD)}, ["fool"], {0: "member 2"}, **HOW)
    for n in (2, 4):
        for who in (MEMBER, BEST, "mean", "worst", "rank_average", LENGTH):
            found = told(metrics, who, f"picked:fool@{n}")
            assert found.value == pytest.approx(1)
            assert found.n == 1  # the other instruction lacks it
        assert told(metrics, RANDOM, f"picked:fool@{n}").value == pytest.approx(1 / n)


def test_an_answer_that_nobody_judged_is_picked_last():
    scores_MNK = np.array(LIKED, dtype=float)
    scores_MNK[:, :, 4] = np.nan
    metrics = measured.measure_pool({0: pool(scores_MNK, GOLD)}, ["fool"], {0: "member 1"}, **HOW)
    assert told(metrics, "mean", "picked:fool@4").value == 0


def test_members_of_several_bases_are_named_by_them():
    models = [{"model": {"path": path}} for path in ("org/encoder", "folders/decoder")]
    names = name_members({"rewards": {"models": models, "members": 3}})
    assert names == {"member 1": "member 1: encoder", "member 2": "member 2: decoder", "member 3": "member 3: encoder"}
    assert name_members({"rewards": {"models": models[:1] * 2, "members": 3}}) == {}
