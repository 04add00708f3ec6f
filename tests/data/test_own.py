"""Questions in the layouts that people's files have: read as choices with the right gold, or refused in one line."""

import csv
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2s.data.answer_column import Choices, choose_reading
from w2s.data.sources import SOURCES
from w2s.store.records import BadInput

QUESTIONS = [  # prompt, choices, the right one: every place is right once
    ("Which planet is red?", ["Venus", "Mars", "Jupiter", "Saturn"], 1),
    ("What do plants take in?", ["Oxygen", "Argon", "Carbon dioxide", "Helium"], 2),
    ("Which is a mammal?", ["Whale", "Shark", "Frog", "Eagle"], 0),
    ("Which is a prime?", ["twelve", "nine", "four", "seven"], 3),
]
GOLD = [right for _, _, right in QUESTIONS]
LETTERS = "ABCD"


def write(path, rows, separator=","):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
            writer.writeheader()
            writer.writerows(rows)
    return path


def own(folder, rows, name="mine.jsonl", separator=",", **options):
    return SOURCES["file"](folder, path=write(folder / name, rows, separator).name, **options)


def refusal(folder, rows, name="mine.jsonl", **options):
    with pytest.raises(BadInput) as caught:
        own(folder, rows, name, **options)
    return str(caught.value)


def each(names, choices):
    return dict(zip(names, choices, strict=True))


LAYOUTS = {  # what a row looks like, from prompt, choices and the right place
    "own": lambda q, c, g: {"prompt": q, "choices": c, "answer": g},
    "MMLU": lambda q, c, g: {"question": q, "subject": "s", "choices": c, "answer": g},
    "MMLU's csv": lambda q, c, g: {"question": q, **each("ABCD", c), "answer": LETTERS[g]},
    "MMLU-Pro": lambda q, c, g: {"question": q, "options": c, "answer": LETTERS[g], "answer_index": g, "src": "x"},
    "ARC on the hub": lambda q, c, g: {
        **{"id": "x", "question": q, "choices": {"text": c, "label": list("1234")}},
        "answerKey": str(g + 1),
    },
    "ARC as published": lambda q, c, g: {
        "question": {
            "stem": q,
            "choices": [{"label": mark, "text": text} for mark, text in zip("ABCD", c, strict=True)],
        },
        "answerKey": LETTERS[g],
    },
    "HellaSwag": lambda q, c, g: {"ind": 1, "ctx_a": "x", "ctx_b": "y", "ctx": q, "endings": c, "label": str(g)},
    "endings in columns": lambda q, c, g: {"ctx": q, **each([f"ending{n}" for n in range(4)], c), "label": g},
    "MedMCQA": lambda q, c, g: {"question": q, **each(["opa", "opb", "opc", "opd"], c), "cop": g, "exp": "because"},
    "MedMCQA, from 1": lambda q, c, g: {"question": q, **each(["opa", "opb", "opc", "opd"], c), "cop": g + 1},
    "MedQA": lambda q, c, g: {"question": q, "options": each("ABCD", c), "answer": c[g], "answer_idx": LETTERS[g]},
    "AQuA": lambda q, c, g: {"question": q, "options": c, "rationale": "x", "correct": LETTERS[g]},
    "AGIEval": lambda q, c, g: {"query": q, "choices": c, "gold": [g]},
    "a quiz": lambda q, c, g: {
        **{"Question Text": q, **each([f"Option {n}" for n in range(1, 5)], c)},
        "Correct Answer": f"option {g + 1}",
    },
    "a quiz, from 1": lambda q, c, g: {"question": q, **each([f"option{n}" for n in range(1, 5)], c), "answer": g + 1},
    "marks around letters": lambda q, c, g: {
        "Question:": q,
        **each(["(A)", "(B)", "(C)", "(D)"], c),
        "Answer": LETTERS[g],
    },
    "camel case": lambda q, c, g: {"question": q, **each([f"option{n}" for n in "ABCD"], c), "correctAnswer": c[g]},
}


@pytest.mark.parametrize("name", ["mine.jsonl", "mine.csv"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layouts_of_known_sets_are_choose_reading_choices_with_their_gold(tmp_path, layout, name):
    rows = [LAYOUTS[layout](*question) for question in QUESTIONS]
    if name.endswith(".csv") and layout in ("ARC as published", "AGIEval"):
        pytest.skip("a question is a mapping, or an answer a list, in JSON alone")
    examples, gold = own(tmp_path, rows, name)  # lists and mappings in a csv are as Python prints them
    assert [example.prompt for example in examples] == [prompt for prompt, _, _ in QUESTIONS]
    assert [list(example.choices) for example in examples] == [choices for _, choices, _ in QUESTIONS]
    assert [one.answer for one in gold] == GOLD


SPELLINGS = {
    "a letter": lambda c, g: LETTERS[g],
    "a small letter": lambda c, g: LETTERS[g].lower(),
    "a letter with a dot": lambda c, g: f"{LETTERS[g]}.",
    "a letter in brackets": lambda c, g: f" ({LETTERS[g]}) ",
    "a letter with a bracket": lambda c, g: f"{LETTERS[g]})",
    "a letter, a dash and the text": lambda c, g: f"{LETTERS[g]} - {c[g]}",
    "a bold letter": lambda c, g: f"**{LETTERS[g]}**",
    "option and a letter": lambda c, g: f"Option {LETTERS[g]}",
    "a letter and the text": lambda c, g: f"{LETTERS[g]}) {c[g]}",
    "a letter, a colon and the text": lambda c, g: f"{LETTERS[g]}: {c[g].lower()}",
    "the text": lambda c, g: c[g],
    "the text in other letters": lambda c, g: c[g].upper(),
    "an index": lambda c, g: g,
    "a float": lambda c, g: float(g),
    "a float from 1": lambda c, g: float(g + 1),
    "a list of one": lambda c, g: [LETTERS[g]],
}
LISTS = {
    "JSON": json.dumps,
    "Python": repr,
    "bars": "|".join,
    "a mapping": lambda c: repr({"text": c, "label": list("ABCD")}),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_an_answer_may_be_spelled_as_people_do(tmp_path, spelling, separator):
    for form, listed in LISTS.items():
        rows = [{"prompt": q, "choices": listed(c), "answer": SPELLINGS[spelling](c, g)} for q, c, g in QUESTIONS]
        if form == "bars" or spelling != "a list of one":
            name = "mine.jsonl" if spelling == "a list of one" else "mine.csv"
            _, gold = own(tmp_path, rows, name, separator)
            assert [one.answer for one in gold] == GOLD, form


def test_a_column_that_fits_two_readings_is_refused_with_the_option_that_decides(tmp_path):
    numbers = [
        {"prompt": f"How many? {at}", "choices": ["1", "0", "3", "2"], "answer": str(at)} for at in range(4)
    ]  # texts, and indices too
    said = refusal(tmp_path, numbers)
    assert "mine.jsonl:1: answer: '0' is '0' as text and '1' as index_from_0" in said
    assert "answers: text or index_from_0" in said
    for way, right in (("text", [1, 0, 3, 2]), ("index_from_0", [0, 1, 2, 3])):
        assert [one.answer for one in own(tmp_path, numbers, answers=way)[1]] == right
    middle = [{"question": q, **each(["option1", "option2", "option3"], c[:3]), "answer": 2} for q, c, _ in QUESTIONS]
    assert "answers: index_from_0 or index_from_1" in refusal(tmp_path, middle)
    assert [one.answer for one in own(tmp_path, middle, answers="index_from_1")[1]] == [1] * 4


def test_one_row_of_numbers_among_words_does_not_change_how_the_column_is_read(tmp_path, capsys):
    rows = [{"prompt": q, "choices": c, "answer": str(g)} for q, c, g in QUESTIONS]
    rows[3] = {"prompt": "Which is largest?", "choices": ["3", "2", "1", "0"], "answer": "0"}
    _, gold = own(tmp_path, rows)
    assert [one.answer for one in gold] == [1, 2, 0, 0]
    assert "answer: read as an index from 0" in capsys.readouterr().err


def test_the_splits_of_a_file_are_read_alike(tmp_path):
    rows = [
        {"prompt": q, "choices": c, "answer": g + 1, "split": "train" if g > 2 else "test"} for q, c, g in QUESTIONS
    ]
    for split in ("train", "test"):
        examples, gold = own(tmp_path, rows, split=split)
        right = {q: g for q, _, g in QUESTIONS}
        assert [right[example.prompt] for example in examples] == [one.answer for one in gold]


def test_letters_and_texts_in_one_column_are_not_mixed(tmp_path):
    rows = [{"prompt": q, "choices": c, "answer": LETTERS[g]} for q, c, g in QUESTIONS]
    said = refusal(tmp_path, [*rows, {"prompt": "Last?", "choices": ["x", "y"], "answer": "y"}])
    assert said.endswith("mine.jsonl:5: answer: 'y' given; allowed in this column: a letter from A to B")


@pytest.mark.parametrize("first", [0, 1])
@given(data=st.data())
def test_indices_are_read_from_where_they_count_or_the_count_is_asked_for(first, data):
    """The oracle: the places themselves. No column is read with another count than it was written with."""
    counts = data.draw(st.lists(st.integers(2, 5), min_size=1, max_size=8))
    places = [data.draw(st.integers(0, count - 1)) for count in counts]
    rows = [
        ("here", Choices([f"choice {n} of {at}" for n in range(count)], {}, False), place + first)
        for at, (count, place) in enumerate(zip(counts, places, strict=True))
    ]
    sure = any(place == (0 if first == 0 else count - 1) for count, place in zip(counts, places, strict=True))
    if sure:
        assert choose_reading("answer", rows, start=None) == f"index_from_{first}"
    else:
        with pytest.raises(BadInput, match="set the option answers: index_from_0 or index_from_1"):
            choose_reading("answer", rows, start=None)


LOST = {  # columns that nobody reads as choices, and yet they are
    "letters": lambda q, c, g: {"question": q, **each(["one", "two", "three", "four"], c), "answer": LETTERS[g]},
    "texts": lambda q, c, g: {"question": q, **each(["one", "two", "three", "four"], c), "answer": c[g]},
    "a list under another name": lambda q, c, g: {"question": q, "possible": c, "answer": LETTERS[g]},
    "a list of texts": lambda q, c, g: {"question": q, "possible": c, "answer": c[g]},
    "a list in a text": lambda q, c, g: {"question": q, "possible": repr(c), "answer": LETTERS[g]},
    "bars in a text": lambda q, c, g: {"question": q, "possible": "|".join(c), "answer": c[g]},
    "wrong answers": lambda q, c, g: {"question": q, "answer": c[g], "distractor1": c[g - 1], "distractor2": c[g - 2]},
    "a gap": lambda q, c, g: {"question": q, "option1": c[0], "option2": c[1], "option4": c[3], "answer": "A"},
}


@pytest.mark.parametrize("case", LOST)
def test_choices_that_nobody_reads_are_refused_and_never_left_out(tmp_path, case):
    said = refusal(tmp_path, [LOST[case](*question) for question in QUESTIONS])
    assert "not read, but they look like choices" in said
    assert "\n" not in said


def test_columns_that_are_not_read_are_named_once(tmp_path, capsys):
    rows = [{"question": q, "answer": g, "note": "n", "source": "s"} for q, _, g in QUESTIONS]
    own(tmp_path, rows)
    own(tmp_path, rows)
    assert capsys.readouterr().err.count("mine.jsonl: columns not read: note, source\n") == 1
    many = [{**row, **{f"c{n}": n for n in range(3000)}} for row in rows]
    own(tmp_path, many, "many.jsonl")
    assert len(capsys.readouterr().err) < 400
    assert len(refusal(tmp_path, [{**row, "answer": None, "question": None} for row in many[:1]], "other.jsonl")) < 400


def test_short_answers_stay_short_answers(tmp_path):
    for more in ({}, {"tags": ["x"]}, {"explanation": "because"}, {"choices": None}, {"step1": "a", "step2": "b"}):
        examples, gold = own(tmp_path, [{"prompt": q, "answer": LETTERS[g], **more} for q, _, g in QUESTIONS])
        assert {example.task for example in examples} == {"answer"}
        assert [one.answer for one in gold] == [LETTERS[g] for g in GOLD]


def test_what_a_question_is_about_stands_before_it(tmp_path, capsys):
    rows = [{"article": "Long.", "question": q, "options": c, "answer": LETTERS[g]} for q, c, g in QUESTIONS]
    assert own(tmp_path, rows)[0][0].prompt == "Long.\n\nWhich planet is red?"
    assert "article goes before question" in capsys.readouterr().err
    whole = [{"prompt": q, "context": "Long.", "answer": "x"} for q, _, _ in QUESTIONS]
    assert own(tmp_path, whole, "whole.jsonl")[0][0].prompt == "Which planet is red?"
    assert "columns not read: context" in capsys.readouterr().err


def test_a_question_may_have_fewer_choices_than_the_file_has_columns(tmp_path):
    rows = [{"question": q, **each("ABCD", c), "answer": LETTERS[g]} for q, c, g in QUESTIONS]
    rows[2] |= {"C": "", "D": " "}
    assert own(tmp_path, rows, "mine.csv")[0][2].choices == ("Whale", "Shark")
    rows[2] |= {"C": "Frog", "B": ""}
    assert refusal(tmp_path, rows, "mine.csv").endswith("mine.csv:4: A: each must be a non-empty text")
    rows = [row | {"B": "", "D": "more"} for row in rows]  # a column that is empty throughout
    assert "A: each must be a non-empty text" in refusal(tmp_path, rows, "empty.csv")


BAD = {
    "no choices in one row": ({"choices": None}, "choices: 0 given"),
    "an empty answer": ({"answer": ""}, "answer: it is empty"),
    "two answers": ({"answer": ["A", "B"]}, "answer: a text or a number is expected, list given"),
    "a letter with another's text": ({"answer": "B) Venus"}, "answer: 'B) Venus' given"),
    "an endless answer": ({"answer": "x" * 5000}, "..."),
    "choices that are a number": ({"choices": 4}, "choices: a list of texts is expected, int given"),
    "choices as NumPy prints them": ({"choices": "['Venus' 'Mars']"}, "choices: 1 given"),
    "choices that something else parts": ({"choices": "Venus; Mars"}, "choices: 1 given (in a text, | separates them)"),
    "two letters": ({"answer": "A, B"}, "answer: 'A, B' given"),
    "a missing number": ({"answer": float("nan")}, "answer: a text or a number is expected, float given"),
    "choices that call": ({"choices": "[exit(1)]"}, "choices: it begins with [ but is neither JSON nor a Python"),
    "choices without labels": ({"choices": [{"text": "Venus"}, {"text": "Mars"}]}, "each needs a label and a text"),
    "one label twice": (
        {"choices": {"label": ["A", "A"], "text": ["Venus", "Mars"]}},
        "two choices have the same label",
    ),
    "no prompt": ({"prompt": None}, "prompt: a text is expected, NoneType given"),
    "an endless level": ({"level": 10**400}, "level: 1000"),
}


def test_all_problems_of_a_file_are_told_together(tmp_path):
    good = [{"prompt": q, "choices": c, "answer": LETTERS[g]} for q, c, g in QUESTIONS]
    told = refusal(tmp_path, [*good * 5, *({**good[0], **changes} for changes, _ in BAD.values())]).splitlines()
    assert len(told) == len(BAD)
    for line, number, (_, said) in zip(told, itertools.count(21), BAD.values(), strict=False):
        assert f"mine.jsonl:{number}: " in line
        assert said in line
        assert len(line) < 400
    many = refusal(tmp_path, [*good, *({**good[0], "answer": f"{n}?"} for n in range(50))]).splitlines()
    assert (len(many), many[-1]) == (21, "... and 30 more problems")


def test_answers_that_contradict_each_other_are_refused_in_one_row_and_counted_over_several(tmp_path, caplog):
    rows = [{"question": q, "options": c, "answer": LETTERS[g], "answer_index": g} for q, c, g in QUESTIONS]
    said = refusal(tmp_path, [*rows[:3], {**rows[3], "answer_index": 0}])
    assert said.endswith("mine.jsonl:4: answer means 'seven', and answer_index means 'twelve'")
    _, gold = own(tmp_path, [*rows, *({**row, "answer": "A", "answer_index": 0} for row in rows)])
    assert [one.answer for one in gold] == GOLD
    assert [record.getMessage() for record in caplog.records] == [
        "mine: left out, since answered differently before: mine.jsonl:5, mine.jsonl:6, mine.jsonl:8"
    ]


def test_long_texts_are_read_in_linear_time(tmp_path):
    for text in ("answer" + " " * 200_000 + "!", "(" * 200_000, "A" + " " * 200_000 + ")"):
        rows = [{"prompt": q, "choices": [text, "B"], "answer": text} for q, _, _ in QUESTIONS]
        assert [one.answer for one in own(tmp_path, rows)[1]] == [0] * 4


def test_columns_that_differ_in_spelling_alone_are_refused(tmp_path):
    said = refusal(tmp_path, [{"prompt": "p", "answer": "a", "Answer": "b"}])
    assert said.endswith("mine.jsonl:1: the columns 'answer' and 'Answer' differ only in spelling")
