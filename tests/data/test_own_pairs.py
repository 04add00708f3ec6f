"""Preference pairs in the layouts that people's files have: the right text is preferred, or the file is refused."""

import csv
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2s.data.own_pairs import check_coding, find_coding
from w2s.data.preferences import PREFERENCES
from w2s.store.records import BadInput

GOOD, BAD = "It is so.", "No idea."


def own(folder, rows, name="mine.jsonl", **options):
    path = folder / name
    if name.endswith(".csv"):
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PREFERENCES["file"](folder, path=name, **options)


def refusal(folder, rows, name="mine.jsonl", **options):
    with pytest.raises(BadInput) as caught:
        own(folder, rows, name, **options)
    return str(caught.value)


def labelled(columns, label, codes, **more):
    """A row for each code, in turn the good text first and second: codes are [first, second, first, ...]."""
    texts = itertools.cycle([(GOOD, BAD), (BAD, GOOD)])
    return [
        {"prompt": f"Why {at}?", **dict(zip(columns, next(texts), strict=True)), label: code, **more}
        for at, code in enumerate(codes)
    ]


def preferred(pairs):
    return {e.choices[g.answer] for e, g in zip(pairs.examples, pairs.gold, strict=True) if not e.meta["tie"]}


NUMBERED, LETTERED = ("output_1", "output_2"), ("response_a", "response_b")
SAID = {  # what a file itself says: columns, label, codes for the first, the second and a tie
    "the arena": (LETTERED, "winner", ["model_a", "model_b", "tie", "tie (bothbad)"]),
    "letters": (LETTERED, "label", ["A", "B", "Tie"]),
    "small letters over numbers": (NUMBERED, "preference", ["a", "b"]),
    "marks between letters": (LETTERED, "label", ["A>B", "B>A", "A=B"]),
    "strong marks": (LETTERED, "label", ["A>>B", "B>>A"]),
    "places": (NUMBERED, "preferred", ["first", "second", "draw"]),
    "names of columns": (("response_0", "response_1"), "winner", ["response_0", "response_1"]),
    "other names of columns": (("Response 1", "Response 2"), "Winner", ["Response 1", "response_2", "neither"]),
    "numbers of columns": (NUMBERED, "label", [1, 2]),
    "numbers of columns and halves": (NUMBERED, "preference", [1.0, 2.0, 1.5]),
    "AlpacaEval's": (NUMBERED, "preference", [1, 2, 1.5, 0]),
}


@pytest.mark.parametrize("name", ["mine.jsonl", "mine.csv"])
@pytest.mark.parametrize("case", SAID)
def test_labels_that_say_what_they_mean_are_read(tmp_path, case, name):
    columns, label, codes = SAID[case]
    found = own(tmp_path, labelled(columns, label, codes), name)
    assert preferred(found) == {GOOD}
    assert (found.counts["kept"], found.counts["ties"]) == (2, len(codes) - 2)


UNSAID = {
    "from 0 with ties": (NUMBERED, [0, 1, 2]),
    "from 0": (NUMBERED, [0, 1]),
    "from 1, ties 0": (NUMBERED, [1, 2, 0]),
    "one code": (NUMBERED, [1]),
    "the other code": (NUMBERED, [2, 2]),
    "numbers over letters": (LETTERED, [1, 2]),
    "numbers over numbers from 0": (("response_0", "response_1"), [0, 1]),
    "truth": (LETTERED, [True, False]),
    "signs": (NUMBERED, [-1, 1, 0]),
    "roles": (NUMBERED, ["chosen", "rejected"]),
    "models": (LETTERED, ["gpt-x", "llama-y"]),
}


@pytest.mark.parametrize("name", ["mine.jsonl", "mine.csv"])
@pytest.mark.parametrize("case", UNSAID)
def test_labels_that_do_not_say_what_they_mean_are_never_guessed(tmp_path, case, name):
    columns, codes = UNSAID[case]
    said = refusal(tmp_path, labelled(columns, "label", codes), name)
    assert "label: nothing in the file says which text is meant by" in said
    assert "coding: {first: 0, second: 1, tie: 2}" in said
    assert "\n" not in said
    coding = dict(zip(("first", "second", "tie"), codes, strict=False))
    if len(set(codes)) > 1:
        assert preferred(own(tmp_path, labelled(columns, "label", codes), name, coding=coding)) == {GOOD}


@given(codes=st.lists(st.sampled_from([0, 1, 2, -1, 1.5, 3]), min_size=1, max_size=6))
def test_numbers_are_read_only_as_one_and_two(codes):
    rows = [("here", {"output1": "x", "output2": "y", "label": code}) for code in codes]
    spelled = {"output1": "output1", "output2": "output2", "label": "label"}
    if set(codes) in ({1, 2}, {1, 2, 1.5}, {0, 1, 2, 1.5}, {1, 1.5}, {2, 1.5}, {0, 1, 1.5}, {0, 2, 1.5}, {0, 1.5}):
        meaning = find_coding(rows, spelled)
        assert all(meaning[code] == {1: 0, 2: 1}.get(code) for code in codes)
    else:
        with pytest.raises(BadInput, match="nothing in the file says"):
            find_coding(rows, spelled)


def test_the_same_file_in_another_coding_is_the_other_preference(tmp_path):
    rows = labelled(NUMBERED, "label", [0, 1, 0, 1, 2, 2])
    assert preferred(own(tmp_path, rows, coding={"first": 0, "second": 1, "tie": 2})) == {GOOD}
    other = own(tmp_path, rows, coding={"first": 1, "second": 0, "tie": 2})
    assert (preferred(other), other.counts["ties"]) == ({BAD}, 2)
    assert preferred(own(tmp_path, rows, coding={"first": [0, 1], "second": 2})) == {GOOD, BAD}


def test_a_coding_that_makes_no_sense_and_labels_outside_it_are_refused(tmp_path):
    for coding in ({"one": 0}, {"first": 0, "second": "0"}, {"first": [1, 1.0]}):
        with pytest.raises(BadInput, match=r"file: coding: .* given; allowed: first, second and tie, each code once"):
            check_coding(coding)
    rows = labelled(NUMBERED, "label", [0, 1, 2, None, "x" * 500])
    told = refusal(tmp_path, rows, coding={"first": 0, "second": 1}).splitlines()
    assert [line.split("label: ")[1][:5] for line in told] == ["2 giv", "None ", "'xxxx"]
    assert all(line.endswith("given; allowed: 0, 1") and len(line) < 300 for line in told)
    assert "mine.jsonl:3: winner: 'c' given; allowed: a, b" in refusal(
        tmp_path, labelled(LETTERED, "winner", ["a", "b", "c"])
    )


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


TALK = [user("Why?"), assistant("Why what?"), user("Why so?")]
MESSAGES = {  # a row, and the prompt it has
    "with a prompt": ({"prompt": "Why?", "chosen": [user("Why?")], "rejected": [user("Why?")]}, "Why?"),
    "without one": ({"chosen": [user("Why?")], "rejected": [user("Why?")]}, "Why?"),
    "a prompt of messages": ({"prompt": [user("Why?")], "chosen": [], "rejected": []}, "Why?"),
    "a prompt beside answers": ({"prompt": "Why?", "chosen": [], "rejected": []}, "Why?"),
    "several turns": ({"chosen": TALK, "rejected": TALK}, "Why?\n\nAssistant: Why what?\n\nHuman: Why so?"),
    "several turns and the last of them": (
        {"prompt": "Why so?", "chosen": TALK, "rejected": TALK},
        "Why?\n\nAssistant: Why what?\n\nHuman: Why so?",
    ),
    "a system's message": (
        {key: [{"role": "system", "content": "Be kind."}, user("Why?")] for key in ("chosen", "rejected")},
        "System: Be kind.\n\nHuman: Why?",
    ),
    "other names": (
        {key: [{"from": "human", "value": "Why?"}] for key in ("chosen", "rejected")},
        "Why?",
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
@pytest.mark.parametrize("written", [None, json.dumps, repr])
def test_chat_messages_are_a_prompt_and_two_answers(tmp_path, case, written):
    row, prompt = MESSAGES[case]
    last = {"from": "gpt", "value": None} if case == "other names" else assistant(None)
    key = "value" if case == "other names" else "content"
    row = {**row, "chosen": [*row["chosen"], {**last, key: GOOD}], "rejected": [*row["rejected"], {**last, key: BAD}]}
    if written:
        row = {name: written(value) if isinstance(value, list) else value for name, value in row.items()}
    found = own(tmp_path, [row], "mine.csv" if written else "mine.jsonl")
    assert (found.examples[0].prompt, preferred(found)) == (prompt, {GOOD})
    asked = own(tmp_path, [{"prompt": "Why?", "chosen": "x", "rejected": "y"}], "other.jsonl").examples[0]
    assert found.examples[0].meta["group"] == asked.meta["group"]


def test_two_conversations_are_told_apart_by_the_winner(tmp_path):
    talk = {"conversation_a": [user("Why?"), assistant(BAD)], "conversation_b": [user("Why?"), assistant(GOOD)]}
    found = own(tmp_path, [{**talk, "model_a": "m", "model_b": "n", "winner": "model_b"}])
    (example,) = found.examples
    assert (example.prompt, preferred(found)) == ("Why?", {GOOD})
    assert dict(zip(example.choices, example.meta["generators"], strict=True)) == {BAD: "m", GOOD: "n"}


def test_whole_dialogues_without_a_prompt_part_at_their_last_answer(tmp_path):
    begin = "\n\nHuman: Why?\n\nAssistant: "
    found = own(tmp_path, [{"chosen": begin + GOOD, "rejected": begin + BAD}])
    assert (found.examples[0].prompt, preferred(found)) == ("Why?", {GOOD})


WRONG = {
    "another prompt": ({"prompt": "What?", "chosen": [user("Why?"), assistant(GOOD)]}, "not the last message"),
    "other messages": ({"prompt": [user("What?")], "chosen": [user("Why?"), assistant(GOOD)]}, "not the messages"),
    "different turns": ({"chosen": [user("What?"), assistant(GOOD)]}, "differ before their last messages"),
    "no answer": ({"chosen": [user("Why?")]}, "chosen: the last message must be the assistant's"),
    "no messages": ({"chosen": []}, "chosen: the last message must be the assistant's"),
    "no role": ({"chosen": [{"content": "x"}]}, "chosen: each message needs a role"),
    "an unknown role": ({"chosen": [{"role": "tool", "content": "x"}]}, "chosen: each message needs a role"),
    "an image": ({"chosen": [{"role": "user", "content": [{"type": "image"}]}]}, "chosen: each message needs a role"),
    "broken messages": ({"chosen": "[{'role': 'user' 'content'"}, "chosen: it begins with [ but is neither JSON"),
    "a number": ({"chosen": 3}, "chosen: a text is expected, int given"),
    "nothing": ({"chosen": None}, "chosen: a text is expected, NoneType given"),
    "an input that is none": ({"instruction": "Why?", "input": 3, "chosen": "x", "rejected": "y"}, "input: a text is"),
}


def test_all_problems_of_a_file_of_pairs_are_told_together(tmp_path):
    good = {"rejected": [user("Why?"), assistant(BAD)]}
    told = refusal(tmp_path, [{**good, **changes} for changes, _ in WRONG.values()]).splitlines()
    assert len(told) == len(WRONG)
    for number, (line, (_, said)) in enumerate(zip(told, WRONG.values(), strict=True), 1):
        assert f"mine.jsonl:{number}: " in line
        assert said in line
    many = refusal(tmp_path, [{**good, "chosen": number} for number in range(30)]).splitlines()
    assert (len(many), many[-1]) == (21, "... and 10 more problems")


def test_columns_of_pairs_that_are_not_read_are_named_once(tmp_path, capsys):
    rows = [{"prompt": "Why?", "chosen": GOOD, "rejected": BAD, "score_chosen": 9, "split": "x", "label": 0}]
    for seed in range(3):
        own(tmp_path, rows, seed=seed)
    assert capsys.readouterr().err.count("mine.jsonl: columns not read: score_chosen, label\n") == 1
    said = refusal(tmp_path, [{"prompt": "p", **{f"response_{n}": "x" for n in range(1, 5)}, "label": 1}], "four.jsonl")
    assert "column 'chosen' is missing; it has: prompt, response_1, response_2" in said
