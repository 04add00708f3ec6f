"""Preference pairs: published sets, your own files, and splits by instruction."""

import gzip
import json
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s.config.registry import pick, summary
from w2s.data.pairs import split_by_group
from w2s.data.preferences import PREFERENCES
from w2s.store.records import BadInput, Example, Gold

# rows = kept + repeats + equal + empty + contradicted + ties, and how many instructions the kept ones have
PUBLISHED = {
    "hh_rlhf": (2312, 2308, 0, 0, 4, 0, 0, 2171),
    "alpaca_eval": (12062, 11868, 66, 109, 4, 15, 0, 805),
    "autoj": (1392, 1017, 0, 9, 1, 0, 365, 892),
    "pandalm": (999, 762, 80, 0, 54, 0, 103, 153),
    "hhh_alignment": (221, 221, 0, 0, 0, 0, 0, 102),
}
COUNTS = ("rows", "kept", "repeats", "equal", "empty", "contradicted", "ties")


@cache
def published(name, root):
    return PREFERENCES[name](root)


def write(folder, rows, name="own.jsonl"):
    path = folder / name
    with (gzip.open if name.endswith(".gz") else open)(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def own(folder, rows, **options):
    return PREFERENCES["file"](None, path=str(write(folder, rows)), **options)


def pair(prompt="Why?", chosen="Because it is so.", rejected="No.", **more):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_row_is_a_pair_or_counted(shared, name):
    pairs = published(name, shared / "data")
    assert tuple(pairs.counts[key] for key in COUNTS) == PUBLISHED[name][:7]
    assert pairs.counts["rows"] == sum(pairs.counts[key] for key in COUNTS[1:])
    assert len(pairs.examples) == len(pairs.gold) == pairs.counts["kept"]
    assert len({example.meta["group"] for example in pairs.examples}) == PUBLISHED[name][7]
    assert [example.id for example in pairs.examples] == [gold.id for gold in pairs.gold]
    assert len({example.id for example in pairs.examples}) == len(pairs.examples)
    for example, gold in zip(pairs.examples, pairs.gold, strict=True):
        first, second = example.choices
        assert first != second
        assert gold.answer in (0, 1)
        assert example.meta["length_difference"] == len(first) - len(second)
        assert not example.meta["tie"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_order_of_the_choices_says_nothing_about_the_preferred(shared, name):
    answers = np.array([gold.answer for gold in published(name, shared / "data").gold])
    assert abs(answers.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(answers))


@pytest.mark.parametrize(
    ("name", "share"),
    [("hh_rlhf", 0.446), ("alpaca_eval", 0.754), ("autoj", 0.717), ("pandalm", 0.656), ("hhh_alignment", 0.633)],
)
def test_how_often_the_longer_text_is_preferred(shared, name, share):
    pairs = published(name, shared / "data")
    longer = [e.meta["length_difference"] * (1 - 2 * g.answer) for e, g in zip(pairs.examples, pairs.gold, strict=True)]
    assert np.mean([0.5 if one == 0 else one > 0 for one in longer]) == pytest.approx(share, abs=5e-4)


def test_published_writers_stand_in_the_order_of_their_texts(shared):
    path = shared / "data/alpaca_eval/preferences_gpt4_vs_davinci003.jsonl.gz"
    with gzip.open(path, "rt") as file:
        rows = [json.loads(line) for line in file]
    texts = {(row["instruction"].strip(), row["generator_2"]): row["output_2"].strip() for row in rows}
    for example in published("alpaca_eval", shared / "data").examples:
        assert "text_davinci_003" in example.meta["generators"]
        for writer, choice in zip(example.meta["generators"], example.choices, strict=True):
            if writer != "text_davinci_003":
                assert texts[example.prompt, writer] == choice
    best = [
        gold.answer == example.meta["generators"].index("gpt4")
        for example, gold in zip(*published("alpaca_eval", shared / "data")[:2], strict=True)
        if "gpt4" in example.meta["generators"]
    ]
    assert np.mean(best) > 0.9


def test_kept_ties_are_marked_and_their_gold_is_the_first(shared):
    pairs = PREFERENCES["autoj"](shared / "data", ties=True)
    ties = [at for at, example in enumerate(pairs.examples) if example.meta["tie"]]
    assert (len(pairs.examples), len(ties), pairs.counts["ties"]) == (1382, 365, 0)
    assert {pairs.gold[at].answer for at in ties} == {0}


def test_a_dialogue_is_cut_where_its_answers_part(tmp_path):
    begin = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Why?\n\nAssistant:"
    folder = tmp_path / "hh_rlhf"
    folder.mkdir()
    row = {"chosen": begin + " I think so.", "rejected": begin + " I doubt it."}
    write(folder, [row], "harmless-base-test.jsonl.gz")
    (example,), (gold,), _ = PREFERENCES["hh_rlhf"](tmp_path)
    assert example.prompt == "Hi\n\nAssistant: Hello.\n\nHuman: Why?"
    assert example.choices[gold.answer] == "I think so."
    assert example.choices[1 - gold.answer] == "I doubt it."
    assert example.meta["subset"] == "harmless-base"
    write(
        folder,
        [{"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Ho"}],
        "helpful-base-test.jsonl",
    )
    with pytest.raises(BadInput, match=r"helpful-base-test.jsonl:1: chosen and rejected share no prompt"):
        PREFERENCES["hh_rlhf"](tmp_path, subset="helpful-base")


def test_dialogues_that_open_alike_are_one_group(shared):
    by_group = {}
    for example in published("hh_rlhf", shared / "data").examples:
        by_group.setdefault(example.meta["group"], []).append(example.prompt.split("\n\nAssistant:")[0].casefold())
    assert max(map(len, by_group.values())) == 3
    assert all(len({"".join(filter(str.isalnum, one)) for one in opens}) == 1 for opens in by_group.values())


def test_an_own_pair_is_the_same_in_every_layout(tmp_path):
    layouts = [
        {"prompt": "Add 1 to: 2", "chosen": "3", "rejected": "12"},
        {"instruction": "Add 1 to: 2", "chosen": " 3\n", "rejected": "12"},
        {"input": "Add 1 to: 2", "output_1": "3", "output_2": "12", "label": 1},
        {"instruction": "Add 1 to: 2", "output_1": "12", "output_2": "3", "preference": 2.0},
        {"instruction": "Add 1 to: 2", "input": "", "output_1": "12", "output_2": "3", "preference": "2"},
    ]
    coding = {"first": 1, "second": 2}  # one row does not say it
    found = [own(tmp_path, [row], coding=coding) for row in layouts]
    assert len({(f.examples[0].id, f.examples[0].choices, f.gold[0].answer) for f in found}) == 1
    together = own(tmp_path, layouts)
    assert (len(together.examples), together.counts["repeats"]) == (1, 4)
    assert together.examples[0].meta["repeats"] == 4
    assert own(tmp_path, [{**layouts[0], "instruction": "x", "prompt": "y"}]).examples[0].prompt == "y"
    assert own(tmp_path, [{**layouts[1], "input": "and 3"}]).examples[0].prompt == "Add 1 to: 2\n\nand 3"


def test_own_columns_become_meta(tmp_path):
    rows = [pair(dataset="quiz", group=7), pair("What?", group="7", split="test", generator_1="a", generator_2="b")]
    first, second = own(tmp_path, rows).examples
    assert first.meta["subset"] == "quiz"
    assert first.meta["group"] == second.meta["group"]
    assert second.meta["split"] == "test"
    assert second.meta["generators"] == (["a", "b"] if second.choices[0] == "Because it is so." else ["b", "a"])


def test_the_preferred_text_does_not_depend_on_the_seed_and_the_order_does(tmp_path):
    rows = [pair(f"Why {n}?") for n in range(40)]
    found = [own(tmp_path, rows, seed=seed) for seed in range(3)]
    orders = {tuple(example.choices for example in one.examples) for one in found}
    assert len(orders) == 3
    for one in found:
        assert {e.choices[g.answer] for e, g in zip(one.examples, one.gold, strict=True)} == {"Because it is so."}
        assert 8 < sum(gold.answer for gold in one.gold) < 32


def test_bad_pairs_are_counted_and_left_out(tmp_path):
    rows = [
        pair(),
        pair(),
        pair("Equal?", "Yes", " Yes\n"),
        pair("Empty?", "Yes", "  "),
        pair("Empty twice?", "", ""),
        pair("Both ways?", "Yes", "No"),
        pair("Both ways?", "No", "Yes"),
        {"prompt": "Tie?", "output_1": "Yes", "output_2": "No", "label": 0},
    ]
    coding = {"first": 1, "second": 2, "tie": 0}
    found = own(tmp_path, rows, coding=coding)
    assert found.counts == dict(zip(COUNTS, (8, 1, 1, 1, 2, 2, 1), strict=True))
    with_ties = own(tmp_path, rows, ties=True, coding=coding)
    assert with_ties.counts["kept"] == 2
    assert [(example.meta["tie"], gold.answer) for example, gold in zip(*with_ties[:2], strict=True)][1] == (True, 0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chosen": "a", "rejected": "b"}, "own.jsonl:2: column 'prompt' is missing; it has: chosen, rejected"),
        ({"prompt": "p", "chosen": "a"}, "own.jsonl:2: column 'rejected' is missing; it has: prompt, chosen"),
        ({"prompt": "p", "output_1": "a", "output_2": "b"}, "own.jsonl:2: column 'preference' is missing"),
        (pair(chosen=3), "own.jsonl:2: chosen: a text is expected, int given"),
        (pair(prompt=" "), "own.jsonl:2: the prompt is empty"),
        (
            {"prompt": "p", "output_1": "a", "output_2": "b", "label": 3},
            "own.jsonl:2: label: nothing in the file says which text is meant by 3",
        ),
        (
            {"prompt": "p", "output_1": "a", "output_2": "b", "label": True},
            "own.jsonl:2: label: nothing in the file says which text is meant by true",
        ),
    ],
)
def test_a_row_that_does_not_fit_is_named(tmp_path, row, message):
    with pytest.raises(BadInput) as error:
        own(tmp_path, [pair("Fine?"), row])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_limits_draw_a_fixed_sample(tmp_path):
    rows = [pair(f"Why {n}?") for n in range(30)]
    ten = own(tmp_path, rows, limit=10)
    assert len(ten.examples) == len(ten.gold) == 10
    assert {one.id for one in ten.examples} == {one.id for one in own(tmp_path, rows[::-1], limit=10).examples}
    with pytest.raises(BadInput, match=r"own: 31 pairs \(limit\) needed, 30 found in 30 rows"):
        own(tmp_path, rows, limit=31)
    with pytest.raises(BadInput, match="own: limit: 0 given"):
        own(tmp_path, rows, limit=0)
    with pytest.raises(BadInput, match="own: pairs needed, 0 found in 1 rows"):
        own(tmp_path, [pair("Equal?", "Yes", "Yes")])


def test_options_and_places_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(BadInput, match="there is no file"):
        PREFERENCES["file"](tmp_path, path="nowhere.jsonl")
    with pytest.raises(BadInput, match="hh_rlhf: split: 'tests' given"):
        PREFERENCES["hh_rlhf"](tmp_path, split="tests")
    with pytest.raises(BadInput, match=r"prefs\.subset: 'harmful' given; allowed: one of: harmless-base"):
        pick(PREFERENCES, {"name": "hh_rlhf", "subset": "harmful"}, key="prefs")
    with pytest.raises(BadInput, match="hh_rlhf: subset: 'harmless-base' given; the hub has all subsets in one"):
        PREFERENCES["hh_rlhf"](None)
    for name in ("autoj", "pandalm", "hhh_alignment"):
        with pytest.raises(BadInput, match="it is not read from the hub; local copies: data"):
            PREFERENCES[name](None)


def question(group, number):
    key = f"{group}-{number}"
    return Example(key, "own", "choice", f"Why {key}?", ("a", "b"), {"group": str(group)})


@settings(max_examples=50)
@given(sizes=st.lists(st.integers(1, 6), min_size=30, max_size=60), seed=st.integers(0, 100))
def test_no_instruction_is_in_two_splits_and_none_is_lost(sizes, seed):
    examples = [question(group, number) for group, size in enumerate(sizes) for number in range(size)]
    shares = {"fit": 0.6, "validation": 0.2, "test": 0.2}
    splits = split_by_group(examples, shares, seed)
    assert sorted(key for ids in splits.values() for key in ids) == sorted(example.id for example in examples)
    groups = [{key.split("-")[0] for key in ids} for ids in splits.values()]
    assert sum(map(len, groups)) == len(set.union(*groups))
    for name, ids in splits.items():
        assert abs(len(ids) - shares[name] * len(examples)) <= max(sizes)
    again = split_by_group(examples[::-1], shares, seed)
    assert all((again[name] == splits[name]).all() for name in shares)
    double = split_by_group(examples, {name: 10 * share for name, share in shares.items()}, seed)
    assert all((double[name] == splits[name]).all() for name in shares)


def test_another_seed_is_another_split():
    examples = [question(group, 0) for group in range(100)]
    one, other = (set(split_by_group(examples, {"fit": 1, "test": 1}, seed)["test"]) for seed in (0, 1))
    assert len(one) == len(other) == 50
    assert one != other


def test_splits_that_cannot_be_are_refused():
    examples = [question(0, number) for number in range(10)]
    with pytest.raises(BadInput, match=r"shares: '(fit|test)' gets none of 10 pairs on 1 instructions"):
        split_by_group(examples, {"fit": 1, "test": 1}, 0)
    for shares in ({}, {"fit": 0}, {"fit": 1, "test": -1}):
        with pytest.raises(BadInput, match="allowed: splits with numbers above 0"):
            split_by_group(examples, shares, 0)


@pytest.mark.parametrize("name", sorted(PREFERENCES))
def test_every_set_says_in_a_line_what_it_is(name):
    assert summary(PREFERENCES[name]).endswith(".")


def test_gold_is_no_part_of_an_example(tmp_path):
    example, gold = (rows[0] for rows in own(tmp_path, [pair()])[:2])
    swapped, other = (rows[0] for rows in own(tmp_path, [pair("Why?", "No.", "Because it is so.")])[:2])
    assert example == swapped
    assert {gold, other} == {Gold(example.id, 0), Gold(example.id, 1)}
