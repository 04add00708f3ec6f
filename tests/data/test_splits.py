import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s.config.fields import Data, Sizes
from w2s.data.difficulty import level
from w2s.data.duplicates import remove_leaks
from w2s.data.sources import SOURCES
from w2s.data.splits import SPLITS
from w2s.data.splits import split as split_by
from w2s.store.records import BadInput, Example, Gold

TOPICS = ("iron", "snow", "bees", "light", "clay", "maize")


def pool(count: int, published: str = "train", first: int = 0, prompt: str = "tell me about {} number {}"):
    """`count` different short questions with difficulty 0 to 9."""
    examples = [
        Example(f"id{n}", "made", "answer", prompt.format(TOPICS[n % 6], n), (), {"split": published})
        for n in range(first, first + count)
    ]
    return examples, [Gold(e.id, e.prompt[-1]) for e in examples], np.arange(first, first + count) % 10.0


def split(examples, gold, score_N, *, sizes=None, seed=0, **options):
    return split_by(examples, gold, score_N, Data(**options, sizes=Sizes(**sizes or {})), seed)


def membership(splits) -> dict[str, set[str]]:
    return {name: set(getattr(splits, name).tolist()) for name in SPLITS}


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 3),
        "near": st.sampled_from([None, 0.8]),
        "test_splits": st.sampled_from([["test"], None]),
        "sizes": st.dictionaries(st.sampled_from(SPLITS), st.integers(1, 6)),
    },
)
THRESHOLDS = st.one_of(
    st.just({"easy_max": 4, "hard_min": 5}),
    st.just({"easy_max": 3, "hard_min": 6}),
    st.sampled_from([0.4, 0.5, 0.63]).map(lambda share: {"easy_share": share}),
)


@settings(max_examples=40, deadline=None)
@given(OPTIONS, THRESHOLDS, st.permutations(range(60)))
def test_splits_are_disjoint_accounted_for_and_do_not_depend_on_the_order_of_rows(options, thresholds, order):
    train, test = pool(40), pool(20, "test", 40)
    examples, gold = [*train[0], *test[0]], [*train[1], *test[1]]
    for n in range(5, 45, 10):  # 5, 15, ...: exactly the question before it; 8, 18, ...: nearly one of the test's
        examples[n] = dataclasses.replace(examples[n], prompt=examples[n - 1].prompt.upper())
        examples[n + 3] = dataclasses.replace(examples[n + 3], prompt=examples[n // 2 + 40].prompt + " again")
    score_N = np.concatenate([train[2], test[2]])
    score_N[::7] = np.nan
    splits = split(examples, gold, score_N, allow_fewer=True, **thresholds, **options)
    shuffled = split(
        [examples[n] for n in order],
        [gold[n] for n in order],
        score_N[list(order)],
        allow_fewer=True,
        **thresholds,
        **options,
    )
    for name in SPLITS:
        np.testing.assert_array_equal(getattr(splits, name), getattr(shuffled, name))
    assert (splits.hash, splits.counts, splits.removed) == (shuffled.hash, shuffled.counts, shuffled.removed)
    check(splits, examples, score_N, options, thresholds)


def check(splits, examples, score_N, options, thresholds):
    """Disjoint, of the right difficulty and published split, at most as large as asked, and nothing lost."""
    members = membership(splits)
    assert not any(one & other for one, other in itertools.combinations(members.values(), 2))
    score_of = {example.id: score for example, score in zip(examples, score_N, strict=True)}
    published_of = {example.id: example.meta["split"] for example in examples}
    easy = [score_of[key] for key in members["easy_fit"] | members["easy_holdout"]]
    hard = [score_of[key] for key in members["transfer"] | members["hard_test"]]
    assert max(easy) <= thresholds.get("easy_max", min(hard))
    assert min(hard) >= thresholds.get("hard_min", max(easy))
    for name in SPLITS:
        assert 1 <= len(members[name]) <= options.get("sizes", {}).get(name, 99)
        assert len(members[name]) == splits.counts[name]
        if options.get("test_splits"):
            assert {published_of[key] for key in members[name]} == {"test" if name == "hard_test" else "train"}
    counts = splits.counts
    parts = ("repeated_ids", "without_difficulty", "between", "reserved", "unused", *SPLITS)
    assert counts["pool"] == sum(counts[name] for name in parts) + len(splits.removed)
    assert sum([*counts["removed_exact"].values(), *counts["removed_near"].values()]) == len(splits.removed)


def test_the_hash_changes_exactly_when_the_membership_does():
    rows = pool(60)
    seen = {}
    for seed, easy_max, near in itertools.product(range(3), (3, 4), (None, 0.8)):
        splits = split(*rows, easy_max=easy_max, hard_min=5, near=near, seed=seed)
        members = tuple(tuple(sorted(ids)) for ids in membership(splits).values())
        assert seen.setdefault(splits.hash, members) == members
    assert len(seen) == len(set(seen.values())) > 3


def test_ties_at_the_cut_are_broken_by_the_seed_and_counted():
    examples, gold, _ = pool(50)
    score_N = np.repeat([1.0, 2.0, 3.0], [10, 30, 10])
    first, again, other = (split(examples, gold, score_N, easy_share=0.5, seed=seed) for seed in (0, 0, 1))
    assert (first.counts["tied_at_threshold"], first.counts["tied_as_easy"]) == (30, 15)
    assert first.hash == again.hash != other.hash
    untied = split(examples, gold, np.arange(50.0), easy_share=0.5)
    assert (untied.counts["tied_at_threshold"], untied.counts["easy"]) == (0, 25)


def test_training_loses_the_duplicates_of_the_test_and_the_test_loses_none():
    words = "what happens to {} when it is left out in the rain for a whole long week in may {}"
    train, test = pool(40, prompt=words), pool(20, "test", 100, prompt=words)
    exact = [dataclasses.replace(train[0][n], prompt=test[0][n].prompt.upper() + "?") for n in range(5, 10)]
    near = [dataclasses.replace(train[0][n], prompt=test[0][n + 5].prompt + " x") for n in range(10, 15)]
    examples = [*train[0][:5], *exact, *near, *train[0][15:], *test[0]]
    gold, score_N = [*train[1], *test[1]], np.concatenate([train[2], test[2]])
    splits = split(examples, gold, score_N, easy_max=4, hard_min=5, test_splits=["test"], near=0.94)
    assert len(splits.hard_test) == 10
    assert splits.counts["removed_exact"] == {"transfer, in hard_test": 5}
    assert splits.counts["removed_near"] == {"easy, in hard_test": 5}
    assert {leak.removed for leak in splits.removed} == {f"id{n}" for n in range(5, 15)}
    assert {leak.kept for leak in splits.removed} == {f"id{n}" for n in [*range(105, 110), *range(115, 120)]}


def test_exact_duplicates_inside_a_split_are_kept_once():
    examples, gold, score_N = pool(40)
    twins = [dataclasses.replace(e, id=e.id + "twin", prompt=e.prompt + ".") for e in examples]
    different = [Gold(one.id + "twin", "other") for one in gold]
    splits = split([*examples, *twins], [*gold, *different], np.tile(score_N, 2), easy_max=4, hard_min=5, near=None)
    stems = [key.removesuffix("twin") for name in SPLITS for key in getattr(splits, name)]
    assert len(stems) == len(set(stems)) == 40
    assert splits.counts["answered_differently"] == 40


def test_a_row_given_twice_counts_as_test_where_one_of_them_is():
    examples, gold, score_N = pool(40)
    again = [dataclasses.replace(e, meta={"split": "test"}) for e in examples[::2]]
    rows = [*examples, *again], [*gold, *gold[::2]], np.concatenate([score_N, score_N[::2]])
    splits = split(*rows, easy_max=4, hard_min=5, test_splits=["test"], near=None)
    assert splits.counts["repeated_ids"] == 20
    held_out = {e.id for e in again}
    assert set(splits.hard_test.tolist()) <= held_out
    assert not held_out & (membership(splits)["transfer"] | membership(splits)["easy_fit"])


def test_proportions_are_8_to_1_and_2_to_1_when_no_size_is_asked_for():
    splits = split(*pool(900), easy_max=4, hard_min=5, near=None)
    assert [len(getattr(splits, name)) for name in SPLITS] == [400, 50, 300, 150]
    asked = split(*pool(900), easy_max=4, hard_min=5, near=None, sizes={"transfer": 440, "easy_fit": 10})
    assert [len(getattr(asked, name)) for name in SPLITS] == [10, 50, 440, 10]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"easy_max": 4, "hard_min": 5, "sizes": {"transfer": 99}}, "transfer: 99 needed, 20 found .*allow_fewer"),
        ({"easy_max": 4, "hard_min": 50}, "transfer: at least 1 needed, 0 found; hard_test"),
        ({"easy_max": 4, "hard_min": 50, "allow_fewer": True}, "hard_test: at least 1 needed, 0 found"),
        ({"easy_share": 0.5, "test_splits": ["exam"]}, "test_splits: 'exam' given, no question has it"),
        ({"easy_share": 0.5, "near": 2}, "near: 2 given"),
    ],
)
def test_what_cannot_be_split_as_asked_is_one_line(options, said):
    with pytest.raises(BadInput, match=said) as caught:
        split(*pool(60), **options)
    assert "\n" not in str(caught.value)


def test_fewer_than_asked_for_is_allowed_when_said_so():
    splits = split(*pool(60), easy_max=4, hard_min=5, sizes={"transfer": 99}, allow_fewer=True)
    assert (splits.counts["transfer"], splits.counts["hard_test"]) == (20, 10)


def test_gold_must_cover_the_examples():
    examples, gold, score_N = pool(10)
    with pytest.raises(ValueError, match="10 examples, 9 gold"):
        split(examples, gold[1:], score_N, easy_share=0.5)
    with pytest.raises(ValueError, match=r"1 examples have no gold \(id0\)"):
        split(examples, [gold[1], *gold[1:]], score_N, easy_share=0.5)


def test_real_questions_are_split_without_a_leak(shared):
    examples, gold = [], []
    for name in ("arc_easy", "arc_challenge"):
        more = SOURCES[name](shared / "data", split=["train", "validation", "test"])
        examples, gold = examples + more[0], gold + more[1]
    splits = split(examples, gold, level(examples, gold, None), easy_max=0, hard_min=1, test_splits=["test"])
    assert splits.counts["removed_exact"]["transfer, in hard_test"] >= 5
    assert splits.counts["removed_exact"]["easy, in hard_test"] >= 1
    by_id = {example.id: example for example in examples}
    sets = {name: [by_id[key] for key in getattr(splits, name)] for name in SPLITS}
    assert {example.source for example in sets["easy_fit"]} == {"arc_easy"}
    assert {(e.source, e.meta["split"]) for e in sets["hard_test"]} == {("arc_challenge", "test")}
    for one, other in itertools.combinations(SPLITS, 2):
        assert remove_leaks(sets[one], sets[other])[1] == []


@given(st.integers(1, 8), st.integers(0, 3), st.sampled_from([None, 5]))
def test_shots_are_easy_questions_in_no_split_and_leave_the_others_as_large_as_asked(shots, seed, fit):
    examples, gold, score_N = pool(60)
    data = Data(easy_max=4, hard_min=5, sizes=Sizes(easy_fit=fit))
    splits = split_by(examples, gold, score_N, data, seed, shots=shots)
    plain = split_by(examples, gold, score_N, data, seed)
    assert len(splits.shots) == splits.counts["shots"] == shots
    assert not set(splits.shots) & set().union(*membership(splits).values())
    assert all(score_N[int(key[2:])] <= 4 for key in splits.shots)
    for name in ("transfer", "hard_test"):
        np.testing.assert_array_equal(getattr(splits, name), getattr(plain, name))
    assert fit is None or len(splits.easy_fit) == fit
    assert ("shots" in plain.counts, len(plain.shots), splits.hash == plain.hash) == (False, 0, False)
    # A learner that shows fewer shows the first of them.
    np.testing.assert_array_equal(split_by(examples, gold, score_N, data, seed, shots=1).shots, splits.shots[:1])
