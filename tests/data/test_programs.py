import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from w2s.data import programs
from w2s.data.programs import called_with, humaneval, humanevalplus, make_retype, mbpp, mbppplus, read_inputs
from w2s.sandbox.plain import decode
from w2s.store.records import BadInput, Example, Gold, read_rows, write_rows

pytestmark = pytest.mark.filterwarnings("ignore:invalid escape sequence")

ROW = {
    "task_id": "Mbpp/9",
    "prompt": '"""\nCount.\nassert count((1, 2), {"a"}) == 2\n"""\n',
    "entry_point": "count",
    "canonical_solution": "def count(t, s): return len(t)",
    "base_input": [[[1, 2], ["a"]]],
    "plus_input": [[[], []], [[3, [4]], ["b", "b"]]],
    "atol": 0,
    "assertion": "assert count((1, 2), {'a'}) == 2",
}


def write(root: Path, name: str, *rows: dict) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    opener = gzip.open if name.endswith(".gz") else open
    with opener(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return root


@pytest.mark.parametrize(
    ("source", "options", "count"),
    [
        (humaneval, {}, 164),
        (humanevalplus, {"mini": True}, 164),
        (mbppplus, {}, 378),
        *(
            (mbpp, {"split": split}, n)
            for split, n in (("prompt", 10), ("test", 500), ("validation", 90), ("train", 374))
        ),
        *((mbpp, {"split": split, "sanitized": True}, n) for split, n in (("test", 257), ("train", 120))),
    ],
)
def test_every_row_becomes_an_example_and_its_gold(source, options, count, shared, tmp_path):
    examples, golds = source(shared / "data", **options)
    assert len(examples) == len(golds) == count
    assert [e.id for e in examples] == [g.id for g in golds]
    assert len({e.id for e in examples}) > 0.99 * count
    assert all(e.task == "code" and {"entry_point", "task_id", "split"} == set(e.meta) for e in examples)
    for example, gold in zip(examples, golds, strict=True):
        assert len(gold.tests) == 1
        assert gold.answer.strip() not in example.prompt
    write_rows(tmp_path / "gold.jsonl", golds)
    assert read_rows(tmp_path / "gold.jsonl", Gold) == golds
    write_rows(tmp_path / "examples.jsonl", examples)
    assert read_rows(tmp_path / "examples.jsonl", Example) == examples


def test_limit_takes_the_first_rows(shared):
    assert humaneval(shared / "data", limit=3)[0] == humaneval(shared / "data")[0][:3]


def test_an_mbpp_prompt_shows_the_question_and_the_first_assert_alone(shared):
    (example,), (gold,) = mbpp(shared / "data", limit=1)
    first, second, _ = gold.tests[0]["asserts"]
    assert first in example.prompt
    assert second not in example.prompt


def test_names_in_asserts_are_told_apart_by_who_makes_them(shared):
    loaded = [mbpp(shared / "data", split=split) for split in programs.MBPP_SPLITS]
    tests = {e.meta["task_id"]: g.tests[0] for pair in loaded for e, g in zip(*pair, strict=True)}
    assert tests["126"]["functions"] == ["sum"]  # a builtin's name, but the program's function
    assert set(tests["601"]["functions"]) == {"max_chain_length", "Pair"}
    assert tests["367"]["values"] == ["root", "root1", "root2"]
    assert "Node(" in tests["367"]["setup"]
    assert tests["596"]["imports"] == "import sys"


def test_mbppplus_knows_which_results_have_no_order_and_which_are_mere_truth(shared):
    _, golds = mbppplus(shared / "data")
    assert Counter(gold.tests[0]["compare"] for gold in golds) == {"equal": 368, "set": 7, "truth": 3}


def test_inputs_get_the_types_that_the_asserts_show(tmp_path):
    _, (gold,) = mbppplus(write(tmp_path, "mbppplus/MbppPlus.jsonl.gz", ROW))
    calls = [[decode(one) for one in call] for part in ("base", "plus") for call in gold.tests[0][part]]
    assert calls == [[(1, 2), {"a"}], [(), {}], [(3, [4]), {"b"}]]


@pytest.mark.parametrize(
    ("shown", "given", "wanted"),
    [
        ("f([1])", [[2, [3]]], [[2, [3]]]),
        ("f((1, 2))", [[2, [3]]], [(2, [3])]),
        ("f([(1, 2)], 3)", [[[1], [2]], 4], [[(1,), (2,)], 4]),
        ("f((1, (2, (3,))))", [[1, [2, [3, [4]]]]], [(1, (2, (3, (4,))))]),
        ("f({'a': (1, 2)})", [{"b": [3]}], [{"b": (3,)}]),
        ("f(1j)", ["(2+1j)"], [2 + 1j]),
        ("f(0)", ["5"], [5.0]),
        ("f(0)", ["word"], ["word"]),
        ("f('a')", ["5"], ["5"]),
        ("f(-1, [set()], float('inf'))", [1, [[2]], 3], [1, [{2}], 3]),
    ],
)
def test_lists_of_json_are_retyped_by_example(shown, given, wanted):
    converted = make_retype(called_with(shown, "f"))(given)
    assert converted == wanted
    assert repr(converted) == repr(wanted)


def test_rows_of_the_hub_carry_their_inputs_in_a_test_program(tmp_path):
    test = """
import numpy as np
from math import inf
def assertion(out, exp, atol): assert out == exp
inputs = [[(1, 2), {'a'}], [(), set()], [(-inf,), {1: [2.5]}]]
results = [2, 0, 1]
for i, (inp, exp) in enumerate(zip(inputs, results)):
    assertion(count(*inp), exp, 1e-4)
"""
    assert read_inputs(test) == ([[(1, 2), {"a"}], [(), set()], [(-float("inf"),), {1: [2.5]}]], 1e-4)
    row = {"task_id": 9, "prompt": "Count.", "code": ROW["canonical_solution"], "test": test}
    row["test_list"] = ["assert count((1, 2), {'a'}) == 2"]
    (example,), (gold,) = mbppplus(write(tmp_path, "mbppplus/MbppPlus.jsonl", row))
    assert example.meta["entry_point"] == "count"
    assert example.prompt == '"""\nCount.\nassert count((1, 2), {\'a\'}) == 2\n"""\n'
    assert len(gold.tests[0]["base"]) == 3
    assert gold.tests[0]["atol"] == 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": None}, "prompt: None given; allowed: a non-empty text"),
        ({"prompt": " "}, "prompt: ' ' given; allowed: a non-empty text"),
        ({"canonical_solution": 3}, "canonical_solution: 3 given; allowed: a non-empty text"),
        ({"base_input": 3}, "not iterable"),
        ({"atol": "much"}, "could not convert"),
        ({"assertion": "assert count(("}, "was never closed"),
        ({"task_id": ...}, "column 'task_id' is missing"),
    ],
)
def test_a_row_that_does_not_fit_is_named_by_file_and_line(change, message, tmp_path):
    row = {key: value for key, value in {**ROW, **change}.items() if value is not ...}
    write(tmp_path, "mbppplus/MbppPlus.jsonl", ROW, row)
    with pytest.raises(BadInput, match=rf"^\S*MbppPlus\.jsonl:2: .*({message})"):
        mbppplus(tmp_path)


def test_an_mbpp_row_whose_asserts_call_nothing_of_its_program_is_refused(tmp_path):
    row = {"task_id": 11, "text": "Count.", "code": "def f(): pass", "test_list": ["assert g() == 1"]}
    write(tmp_path, "mbpp/mbpp.jsonl", row)
    with pytest.raises(BadInput, match=r"mbpp\.jsonl:1: the asserts call none of the program's functions \(f\)"):
        mbpp(tmp_path)
    write(tmp_path, "mbpp/mbpp.jsonl", row | {"task_id": "x"})
    with pytest.raises(BadInput, match="task_id: 'x' given"):
        mbpp(tmp_path)
