import inspect
import json
from collections import Counter

import pytest

from w2s.config.registry import pick, summary
from w2s.data import reading
from w2s.data.arithmetic import boxed, doubt
from w2s.data.sources import SOURCES
from w2s.grading.answers import compare
from w2s.store.records import BadInput

ALL = ["train", "validation", "test"]
PUBLISHED = {  # name, options -> rows published, of them identical to another row, of them unusable
    "arc_easy train": ("arc_easy", {"split": "train"}, 2251, 0, 0),
    "arc_easy": ("arc_easy", {"split": ALL}, 2251 + 570 + 2376, 2, 0),
    "arc_challenge": ("arc_challenge", {"split": ALL}, 1119 + 299 + 1172, 1, 0),
    "sciq test": ("sciq", {"split": "test"}, 1000, 0, 0),
    "sciq pairs": ("sciq", {"form": "pairs"}, 5000, 2, 2),
    "openbookqa": ("openbookqa", {"split": ["train", "test"]}, 4957 + 500, 5, 0),
    "commonsenseqa": ("commonsenseqa", {"split": ["train", "validation"]}, 9741 + 1221, 0, 0),
    "boolq": ("boolq", {"split": ["train", "validation"]}, 9427 + 3270, 0, 0),
    "mmlu dev": ("mmlu", {"split": ["dev", "validation"]}, 285 + 1531, 4, 0),
    "mmlu": ("mmlu", {}, 14042, 105, 0),
    "math train": ("math", {}, 7500, 0, 2),
    "math test": ("math", {"split": "test"}, 5000, 0, 0),
    "gsm8k": ("gsm8k", {"split": ["train", "test"]}, 7473 + 1319, 0, 0),
    "asdiv": ("asdiv", {}, 2305, 1, 0),
    "asdiv formulas": ("asdiv", {"form": "formulas"}, 2305, 0, 770 + 8),
}


@pytest.mark.parametrize("case", PUBLISHED)
def test_every_published_row_is_there(shared, case):
    name, options, rows, repeats, unusable = PUBLISHED[case]
    examples, gold = pick(SOURCES, {"name": name, **options})(shared / "data")
    found = sum(example.meta.get("repeats", 0) for example in examples)
    assert (len(examples) + found + unusable) == rows
    assert found == repeats
    assert len({example.id for example in examples}) == len(examples)
    assert [example.id for example in examples] == [one.id for one in gold]
    asked = options.get("split", {"mmlu": "test", "asdiv": "all"}.get(name, "train"))
    assert {example.meta["split"] for example in examples} == {*([asked] if isinstance(asked, str) else asked)}
    for example, one in zip(examples, gold, strict=True):
        assert len(set(example.choices)) == len(example.choices)
        assert 0 <= one.answer < len(example.choices) if example.choices else one.answer.strip()


def test_published_levels_are_those_of_the_data_sets(shared):
    def levels(name, **options):
        examples, _ = SOURCES[name](shared / "data", **options)
        return Counter(e.meta["level"] for e in examples for _ in range(1 + e.meta.get("repeats", 0)))

    assert levels("math", split="test") == {1: 437, 2: 894, 3: 1131, 4: 1214, 5: 1324}
    assert levels("math") == {1.5: 1912, 4: 5586}
    assert levels("asdiv") == {1: 195, 2: 340, 3: 808, 4: 301, 5: 146, 6: 515}
    assert levels("arc_challenge", split="validation") == {1: 299}
    mmlu = levels("mmlu")
    # 78 questions are in college_medicine and, again, in clinical_knowledge, which has no level.
    assert [mmlu[n] for n in range(4)] == [378, 3420, 719 + 78, 2700]
    assert min(levels("gsm8k", split="test")) >= 1


def test_the_place_of_sciqs_answer_is_even_and_does_not_depend_on_the_file(shared):
    for form, count in (("choices", 4), ("pairs", 2)):
        examples, gold = SOURCES["sciq"](shared / "data", split="test", form=form)
        full = [one.answer for one, example in zip(gold, examples, strict=True) if len(example.choices) == count]
        assert all(abs(seen / len(full) - 1 / count) < 0.06 for seen in Counter(full).values())
        assert SOURCES["sciq"](shared / "data", split="test", form=form) == (examples, gold)


def test_a_pair_holds_the_answer_of_the_four_choice_question_and_one_of_its_distractors(shared):
    full, full_gold = SOURCES["sciq"](shared / "data", split="test")
    pairs, pairs_gold = SOURCES["sciq"](shared / "data", split="test", form="pairs")
    for one, answer, pair, right in zip(full, full_gold, pairs, pairs_gold, strict=True):
        assert set(pair.choices) < set(one.choices) or len(one.choices) == 2
        assert pair.choices[right.answer] == one.choices[answer.answer]


def test_a_limit_is_a_fixed_sample_and_a_larger_one_contains_it(shared):
    ids = [{e.id for e in SOURCES["mmlu"](shared / "data", split="dev", limit=limit)[0]} for limit in (20, 60)]
    assert (len(ids[0]), len(ids[1])) == (20, 60)
    assert ids[0] < ids[1]
    examples, _ = SOURCES["mmlu"](shared / "data", split="dev", limit=60)
    assert len({example.meta["subject"] for example in examples}) > 20


def test_subjects_and_level_can_be_set(shared):
    examples, _ = SOURCES["mmlu"](shared / "data", split="dev", subjects=["college", "virology"], level=7)
    assert {e.meta["level"] for e in examples} == {7}
    assert {e.meta["subject"].split("_")[0] for e in examples} == {"college", "virology"}


def test_a_question_in_two_splits_is_kept_once_as_the_more_held_out(shared):
    both, _ = SOURCES["arc_easy"](shared / "data", split=["test", "train"])
    repeated = [example for example in both if example.meta.get("repeats")]
    assert len(repeated) == 2
    assert {example.meta["split"] for example in repeated} == {"test"}
    assert repeated == [
        e for e in SOURCES["arc_easy"](shared / "data", split=["train", "test"])[0] if "repeats" in e.meta
    ]


CHOICES = ["iron", "air", "wood", "iron"]
LABELLED = {"label": ["A", "B", "C", "D"], "text": CHOICES}
LISTED = [{"label": label, "text": text} for label, text in zip("ABCD", CHOICES, strict=True)]
HUB_AND_LOCAL = {  # name -> options, file, the hub's row, the local row
    "arc_easy": (
        {},
        "arc/ARC-Easy-Train",
        {"id": "x", "question": "Which rusts?", "choices": LABELLED, "answerKey": "D"},
        {"id": "x", "question": {"stem": "Which rusts?", "choices": LISTED}, "answerKey": "D"},
    ),
    "commonsenseqa": (
        {},
        "commonsenseqa/train",
        {"id": "x", "question": "Which?", "question_concept": "rust", "choices": LABELLED, "answerKey": "A"},
        {"id": "x", "question": {"stem": "Which?", "question_concept": "rust", "choices": LISTED}, "answerKey": "A"},
    ),
    "openbookqa": (
        {"level": 2},
        "openbookqa/train",
        {"id": "x", "question_stem": "Which rusts?", "choices": LABELLED, "answerKey": "A"},
        {"question": "Which rusts?", "choices": CHOICES, "answer": 0},
    ),
    "sciq": (
        {"form": "pairs"},
        "sciq/train_binary_pairs",
        {
            "question": "Which?",
            **{"distractor1": "air", "distractor2": "air", "distractor3": "air", "correct_answer": "iron"},
        },
        {"question": "Which?", "answer": "iron", "label": 1},
    ),
    "math": (
        {"split": "test"},
        "math/test",
        {"problem": "1+1", "level": "Level 2", "type": "Algebra", "solution": r"So $\boxed{2}$."},
        {"problem": "1+1", "level": "Level 2", "type": "Algebra", "solution": r"So $\boxed{2}$.", "idx": 0},
    ),
}


@pytest.mark.parametrize("name", HUB_AND_LOCAL)
def test_a_local_copy_and_the_hub_give_the_same_question(tmp_path, monkeypatch, name):
    options, file, hub_row, local_row = HUB_AND_LOCAL[name]
    path = tmp_path / f"{file}.jsonl"
    path.parent.mkdir()
    wrong = {"question": "Which?", "answer": "air", "label": 0}
    path.write_text("\n".join(json.dumps(row) for row in ([local_row, wrong] if name == "sciq" else [local_row])))
    monkeypatch.setattr(reading, "hub_rows", lambda name, config, split: iter([(f"{name}[{split}]: row 1", hub_row)]))
    ((local,), local_gold), ((hub,), hub_gold) = (SOURCES[name](root, **options) for root in (tmp_path, None))
    assert (local.id, local.choices, local_gold) == (hub.id, hub.choices, hub_gold)
    assert local.meta["level"] == hub.meta["level"]
    if local.choices:
        assert local.choices[local_gold[0].answer] == "iron"
        assert len(set(local.choices)) == len(local.choices)


def test_the_hubs_asdiv_has_no_grade(monkeypatch):
    row = {"body": "One and one.", "question": "How many?", "answer": "2 (things)", "solution_type": "Addition"}
    monkeypatch.setattr(reading, "hub_rows", lambda name, config, split: iter([("there", row)]))
    (example,), (gold,) = SOURCES["asdiv"](None)
    assert (example.prompt, gold.answer, example.meta["level"]) == ("One and one. How many?", "2", None)


def test_every_formula_of_asdiv_is_right_by_the_published_answer(shared, caplog):
    formulas = {one.id: one.answer for one in SOURCES["asdiv"](shared / "data", form="formulas")[1]}
    answers = {one.id: one.answer for one in SOURCES["asdiv"](shared / "data")[1]}
    wrong = [(text, answers[key]) for key, text in formulas.items() if compare(text, answers[key]) is not True]
    assert not wrong
    assert "770 of them since their formula is not plain arithmetic" in caplog.text
    assert "8 of them since their formula's value is not the answer" in caplog.text


@pytest.mark.parametrize(
    ("formula", "answer", "said"),
    [
        ("7+2=9", "9", ""),
        ("(23+5)-12=16", "16", ""),
        ("1.80+1.40=3.2", "3.20", ""),
        ("10/4=2.5", "2.5", ""),
        ("10/4=2r2", "2", "arithmetic"),
        ("x+8=60", "52", "arithmetic"),
        ("3(5)=15", "15", "arithmetic"),
        ("2**3=8", "8", "arithmetic"),
        ("1/0=1", "1", "arithmetic"),
        ("7+2", "9", "arithmetic"),
        ("7+2=9=9", "9", "arithmetic"),
        ("", "9", "arithmetic"),
        ("(" * 9999 + "=9", "9", "arithmetic"),
        ("10/3=3.333", "3.333", "not the answer"),
        ("7+2=9", "8", "not the answer"),
        ("7+2=9", "9th", "not the answer"),
    ],
)
def test_only_plain_arithmetic_with_the_published_answer_is_a_formula(formula, answer, said):
    assert doubt(formula, answer).endswith(said) if said else doubt(formula, answer) == ""


def test_boolq_can_be_asked_with_its_passage(monkeypatch):
    row = {"question": "is it", "passage": "It is.", "answer": True}
    monkeypatch.setattr(reading, "hub_rows", lambda name, config, split: iter([("there", row)]))
    (closed,), (gold,) = SOURCES["boolq"](None)
    (opened,), _ = SOURCES["boolq"](None, passage=True)
    assert (closed.prompt, opened.prompt, closed.choices[gold.answer]) == ("is it", "It is.\n\nis it", "yes")


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"first \boxed{1}, then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"$\boxed 7$", "7"),
        (r"\fbox{a\}b}", r"a\}b"),
        (r"\boxed{ \{1, 2\} }", r"\{1, 2\}"),
    ],
)
def test_the_last_box_is_the_answer(solution, answer):
    assert boxed(solution) == answer


OWN = {
    "a letter": ({"prompt": "P", "choices": ["x", "y"], "answer": "B"}, 1),
    "an index": ({"question": "P", "choices": ["x", "y"], "answer": 1}, 1),
    "a text": ({"prompt": "P", "choices": ["x", "y"], "answer": "y"}, 1),
    "an index as text, bars": ({"prompt": "P", "choices": "x | y", "answer": "1"}, 1),
    "a list as text": ({"prompt": "P", "choices": '["x", "y|z"]', "answer": "y|z"}, 1),
    "a short answer": ({"prompt": "P", "answer": 7, "choices": None}, "7"),
}


@pytest.mark.parametrize("case", OWN)
def test_own_rows_may_name_the_answer_in_several_ways(tmp_path, case):
    row, answer = OWN[case]
    (tmp_path / "mine.jsonl").write_text(json.dumps({**row, "level": "2.5", "id": 12, "split": "test"}))
    (example,), (gold,) = SOURCES["file"](tmp_path, path="mine.jsonl", split="test")
    assert (gold.answer, example.meta["level"], example.meta["row"]) == (answer, 2.5, "12")
    assert (example.source, example.meta["split"], example.prompt) == ("mine", "test", "P")


GOOD_ARC = HUB_AND_LOCAL["arc_easy"][3]
GOOD_CSQA = HUB_AND_LOCAL["commonsenseqa"][3]
PLAIN = {"question": "Q", "choices": ["x", "y"], "answer": 0, "subject": "virology"}
SCIQ = {"question": "Q", "correct_answer": "x", "distractor1": "y", "distractor2": "z", "distractor3": "w"}
MATH = HUB_AND_LOCAL["math"][2]
BANDED = {"problem": "1+1", "final_answer": "2", "band": "L1-2"}
MALFORMED = {  # what is wrong -> source, file, a good row, what is changed (None: taken away), what is said
    "arc: no key": ("arc_easy", "arc/ARC-Easy-Train", GOOD_ARC, {"answerKey": None}, "answerKey"),
    "arc: key of no choice": ("arc_easy", "arc/ARC-Easy-Train", GOOD_ARC, {"answerKey": "E"}, "allowed: A, B, C, D"),
    "arc: no question": ("arc_easy", "arc/ARC-Easy-Train", GOOD_ARC, {"question": None}, "question"),
    "arc: question is a number": ("arc_easy", "arc/ARC-Easy-Train", GOOD_ARC, {"question": 3}, "choices"),
    "arc: choices are texts": (
        *("arc_easy", "arc/ARC-Easy-Train", GOOD_ARC),
        {"question": {"stem": "Q", "choices": ["x", "y"]}},
        "",
    ),
    "arc: one choice": (
        *("arc_easy", "arc/ARC-Easy-Train", GOOD_ARC),
        {"question": {"stem": "Q", "choices": LISTED[:1]}, "answerKey": "A"},
        "at least 2",
    ),
    "arc: an empty stem": (
        *("arc_easy", "arc/ARC-Easy-Train", GOOD_ARC),
        {"question": {"stem": " ", "choices": LISTED}},
        "prompt",
    ),
    "arc: an empty choice": (
        *("arc_easy", "arc/ARC-Easy-Train", GOOD_ARC),
        {"question": {"stem": "Q", "choices": [*LISTED, {"label": "E", "text": ""}]}},
        "choices",
    ),
    "csqa: hidden answer": ("commonsenseqa", "commonsenseqa/train", GOOD_CSQA, {"answerKey": ""}, "answer: ''"),
    "csqa: no id": ("commonsenseqa", "commonsenseqa/train", GOOD_CSQA, {"id": None}, "'id' is missing"),
    "obqa: index too large": ("openbookqa", "openbookqa/train", PLAIN, {"answer": 2}, "allowed: 0 to 1"),
    "obqa: index below 0": ("openbookqa", "openbookqa/train", PLAIN, {"answer": -1}, "allowed: 0 to 1"),
    "obqa: letter": ("openbookqa", "openbookqa/train", PLAIN, {"answer": "A"}, "the index of a choice"),
    "obqa: true": ("openbookqa", "openbookqa/train", PLAIN, {"answer": True}, "the index of a choice"),
    "obqa: choices are a text": ("openbookqa", "openbookqa/train", PLAIN, {"choices": "xy"}, "a list of texts"),
    "obqa: choices are numbers": ("openbookqa", "openbookqa/train", PLAIN, {"choices": [1, 2]}, "a list of texts"),
    "mmlu: no subject": ("mmlu", "mmlu/test", PLAIN, {"subject": None}, "'subject' is missing"),
    "mmlu: all choices alike": ("mmlu", "mmlu/test", PLAIN, {"choices": ["x", "x"]}, "at least 2"),
    "boolq: text for truth": ("boolq", "boolq_closedbook/train", {"question": "q", "answer": "yes"}, {}, "true, false"),
    "sciq: no answer": ("sciq", "sciq/train", SCIQ, {"correct_answer": None}, "'correct_answer' is missing"),
    "sciq: distractor is a list": ("sciq", "sciq/train", SCIQ, {"distractor2": ["y"]}, "distractor2: a text"),
    "math: no box": ("math", "math/train", MATH, {"solution": "it is 2"}, "no \\boxed answer"),
    "math: open box": ("math", "math/train", MATH, {"solution": r"\boxed{2"}, "do not close"),
    "math: level 6": ("math", "math/train", MATH, {"level": "Level 6"}, "Level 1 to Level 5"),
    "math: unknown band": ("math", "math/train_bands", BANDED, {"band": "L9"}, "allowed: L1-2, L3-5"),
    "gsm8k: no mark": ("gsm8k", "gsm8k/train", {"question": "q", "answer": "it is 3"}, {}, "#### ANSWER"),
    "gsm8k: nothing after it": ("gsm8k", "gsm8k/train", {"question": "q", "answer": "3\n#### "}, {}, "#### ANSWER"),
    "gsm8k: no question": ("gsm8k", "gsm8k/train", {"answer": "3\n#### 3"}, {}, "'question' is missing"),
    "own: no answer": ("file", "mine", PLAIN, {"answer": None}, "'answer' is missing"),
    "own: no prompt": ("file", "mine", PLAIN, {"question": None}, "'question' is missing"),
    "own: prompt is a number": ("file", "mine", PLAIN, {"prompt": 5}, "prompt: a text"),
    "own: letter too far": ("file", "mine", PLAIN, {"answer": "C"}, "0 to 1"),
    "own: index too far": ("file", "mine", PLAIN, {"answer": 2}, "0 to 1"),
    "own: half an index": ("file", "mine", PLAIN, {"answer": 0.5}, "0 to 1"),
    "own: one choice": ("file", "mine", PLAIN, {"choices": ["x"]}, "at least 2"),
    "own: broken list": ("file", "mine", PLAIN, {"choices": '["x", '}, "neither JSON nor a Python literal"),
    "own: level is a word": ("file", "mine", PLAIN, {"level": "hard"}, "level: 'hard' given; allowed: a number"),
    "own: level is nan": ("file", "mine", PLAIN, {"level": "nan"}, "allowed: a number"),
    "own: empty answer": ("file", "mine", {"prompt": "p", "answer": " "}, {}, "the answer is empty"),
    "own: answer is a list": ("file", "mine", {"prompt": "p", "answer": ["x", "y"]}, {}, "a text or a number"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_row_that_does_not_fit_is_one_line_that_names_file_and_line(tmp_path, case):
    name, file, good, changes, said = MALFORMED[case]
    bad = {key: value for key, value in {**good, **changes}.items() if changes.get(key, 0) is not None}
    path = tmp_path / f"{file}.jsonl"
    path.parent.mkdir(exist_ok=True)
    first_line = "\n" if case in ("boolq: text for truth",) or not changes else json.dumps(good) + "\n"
    path.write_text(first_line + json.dumps(bad) + "\n")
    with pytest.raises(BadInput) as caught:
        SOURCES[name](tmp_path, **({"path": "mine.jsonl"} if name == "file" else {}))
    assert str(caught.value).startswith(f"{path}:2: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labelled_rows_without_a_partner_or_with_a_strange_label_are_refused(tmp_path):
    (tmp_path / "sciq").mkdir()
    path = tmp_path / "sciq" / "train_binary_pairs.jsonl"
    for label, said in ((1, ":1: this question has no row"), (2, ":1: label: 2 given; allowed: 0, 1")):
        path.write_text(json.dumps({"question": "Q", "answer": "x", "label": label}))
        with pytest.raises(BadInput, match=said):
            SOURCES["sciq"](tmp_path, form="pairs")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<ProblemSet><Problem ID='1'>\n<Body>x</Problem></ProblemSet>", ":2: not XML"),
        (b"<P><Problem ID='1' Grade='x'><Body>b</Body><Question>q</Question><Answer>1</Answer></Problem></P>", "'x'"),
        (b"<P><Problem ID='1'><Body>b</Body><Question>q</Question></Problem></P>", "problem 1: column 'answer'"),
        (b"<!DOCTYPE x [<!ENTITY a 'b'>]><P/>", "entity declarations"),
        (b"<P/>", "rows needed, 0 found"),
    ],
)
def test_a_malformed_asdiv_is_one_line(tmp_path, content, said):
    (tmp_path / "asdiv").mkdir()
    (tmp_path / "asdiv" / "ASDiv.xml").write_bytes(content)
    with pytest.raises(BadInput, match=said) as caught:
        SOURCES["asdiv"](tmp_path)
    assert "\n" not in str(caught.value)


def test_questions_asked_for_and_not_found_are_an_error(shared, tmp_path):
    root = shared / "data"
    for name, options, said in (
        ("arc_easy", {"split": "training"}, "did you mean 'train'.*allowed: train, validation, test"),
        ("arc_easy", {"split": []}, "name one split or several"),
        ("arc_easy", {"split": ["test", "test"]}, "name one split or several"),
        ("arc_easy", {"split": "validation", "limit": 571}, "571 questions .limit. needed, 570 found in validation"),
        ("arc_easy", {"limit": 0}, "must be at least 1"),
        ("commonsenseqa", {"split": "test"}, "allowed: train, validation"),
        ("mmlu", {"split": "dev", "subjects": ["college", "alchemy"]}, "alchemy given, not found in dev"),
        ("mmlu", {"split": "auxiliary_train"}, "no file auxiliary_train"),
        ("sciq", {"split": "train"}, "sciq: no file train "),
        ("file", {"path": "nowhere.csv"}, "there is no file"),
    ):
        with pytest.raises(BadInput, match=said):
            SOURCES[name](root, **options)
    (tmp_path / "mine.csv").write_text("prompt,answer,split\np,a,train\n")
    with pytest.raises(BadInput, match=r"train, test|test given"):
        SOURCES["file"](tmp_path, path="mine.csv", split=["train", "test"])


def test_every_source_says_what_it_is_and_takes_the_common_options():
    for source in SOURCES.values():
        assert summary(source).endswith((".", "?")) or len(summary(source)) > 20
        assert {"split", "limit"} <= set(inspect.signature(source).parameters)
