"""The words a model sees."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2s.config.registry import pick
from w2s.prompts import (
    PROMPTS,
    Words,
    as_shot,
    continuation,
    in_words,
    letters,
    listed,
    plain,
    qa,
    read_shots,
    shows_choices,
)
from w2s.store.records import BadInput, Example

EXAMPLE = Example("1", "t", "choice", "Which gas do plants take in? ", ("oxygen", "carbon dioxide"))


def words(name: str, example: Example, **options) -> Words:
    return in_words(pick(PROMPTS, {"name": name, **options}), example)


def text(made: Words) -> str:
    """The prompt as one text, a conversation's turns in order."""
    return made.prompt if isinstance(made.prompt, str) else "\n".join(turn["content"] for turn in made.prompt)


@pytest.mark.parametrize("name", PROMPTS)
def test_a_prompt_holds_the_question_and_never_ends_in_a_space(name):
    made = words(name, EXAMPLE)
    assert "Which gas do plants take in?" in text(made)
    assert not text(made).endswith(" ")
    assert continuation("oxygen") == " oxygen"


def test_the_words_around_a_question():
    assert plain(EXAMPLE) == "Which gas do plants take in?"
    assert qa(EXAMPLE) == "Question: Which gas do plants take in?\nAnswer:"
    assert qa(EXAMPLE, question="") == "Which gas do plants take in?\nAnswer:"
    assert listed(EXAMPLE) == "Question: Which gas do plants take in?\n- oxygen\n- carbon dioxide\nAnswer:"
    lettered = "Question: Which gas do plants take in?\nA. oxygen\nB. carbon dioxide\nAnswer:"
    assert letters(EXAMPLE) == Words(lettered, (" A", " B"))
    assert pick(PROMPTS, {"name": "qa", "answer": "A:"})(EXAMPLE).endswith("\nA:")


def test_only_what_shows_the_choices_depends_on_them():
    other = dataclasses.replace(EXAMPLE, choices=("iron", "gold"))
    specs = [{"name": name} for name in PROMPTS] + [
        {"name": "chat", "wording": name} for name in PROMPTS if name != "chat"
    ]
    for spec in specs:
        assert (words(**spec, example=EXAMPLE).prompt != words(**spec, example=other).prompt) == shows_choices(spec)
    assert [name for name in PROMPTS if shows_choices({"name": name})] == ["listed", "letters"]


def test_the_candidates_of_a_written_answer_are_in_no_prompt():
    for task in ("answer", "code"):
        written = dataclasses.replace(EXAMPLE, task=task, choices=("forty-two",))
        assert not [name for name in PROMPTS if "forty-two" in text(words(name, written))]


CODE = Example("2", "t", "code", "def f(x):\n    return\n", ("    return x\n",))


@pytest.mark.parametrize("name", [name for name in PROMPTS if name != "chat"])
def test_a_program_goes_on_with_its_own_spaces_on_a_line_of_its_own(name):
    made = words(name, CODE)
    assert made.answers == ("    return x\n",)
    assert (made.prompt + made.answers[0]).endswith("\n    return x\n")


def test_a_prompt_of_several_lines_keeps_them():
    assert plain(CODE) == "def f(x):\n    return\n"
    assert qa(CODE) == "Question: def f(x):\n    return\nAnswer:\n"


def test_letters_end_with_z():
    with pytest.raises(BadInput, match=r"'letters' given, and 1 has 27 choices; allowed: 26"):
        letters(dataclasses.replace(EXAMPLE, choices=tuple(map(str, range(27)))))


@pytest.mark.parametrize("wording", ["plain", "qa", "listed", "letters"])
def test_a_conversation_has_the_words_of_its_wording_and_answers_without_a_space(wording):
    made, inside = words("chat", EXAMPLE, wording=wording, system="Be brief."), words(wording, EXAMPLE)
    system, user = made.prompt
    assert system == {"role": "system", "content": "Be brief."}
    assert user == {"role": "user", "content": inside.prompt}
    assert made.answers == tuple(answer.strip() for answer in inside.answers)
    assert words("chat", CODE, wording=wording).answers == CODE.choices


# --- solved examples -------------------------------------------------------------------------------------------------

SHOTS = read_shots(
    [
        {"prompt": "What is wet?", "choices": ["fire", "water"], "answer": 1},
        {"prompt": "What is hot?", "choices": ["fire", "water"], "answer": "fire"},
        {"prompt": "2 + 2", "answer": "4"},
        {"task": "code", "prompt": "def g(x):\n", "answer": "    return 1\n"},
    ]
)


def test_solved_examples_of_the_questions_task_come_first_with_their_answers():
    assert in_words(qa, EXAMPLE, SHOTS).prompt == (
        "Question: What is wet?\nAnswer: water\n\nQuestion: What is hot?\nAnswer: fire\n\n"
        "Question: Which gas do plants take in?\nAnswer:"
    )
    assert in_words(letters, EXAMPLE, SHOTS[:1]).prompt.startswith(
        "Question: What is wet?\nA. fire\nB. water\nAnswer: B\n\n"
    )
    written = dataclasses.replace(EXAMPLE, task="answer", choices=())
    assert in_words(qa, written, SHOTS).prompt.startswith("Question: 2 + 2\nAnswer: 4\n\nQuestion: Which")
    assert in_words(plain, CODE, SHOTS).prompt == "def g(x):\n    return 1\n\ndef f(x):\n    return\n"


def test_in_a_conversation_they_are_turns_of_the_user_and_the_model():
    made = in_words(pick(PROMPTS, {"name": "chat", "system": "Be brief."}), EXAMPLE, SHOTS)
    assert [turn["role"] for turn in made.prompt] == ["system", *["user", "assistant"] * 2, "user"]
    assert [turn["content"] for turn in made.prompt[1:5]] == ["What is wet?", "water", "What is hot?", "fire"]


@given(st.lists(st.text("abc é\n", min_size=1).filter(str.strip), min_size=2, max_size=5, unique=True), st.data())
def test_plain_values_of_a_solved_example_are_read_as_it_was(choices, data):
    right = data.draw(st.integers(0, len(choices) - 1))
    example = Example("x", "t", "choice", "Which?", tuple(choices))
    (shot,) = read_shots([as_shot(example, right)])
    assert (shot.example.prompt, shot.example.choices, shot.right) == ("Which?", tuple(choices), right)
    (written,) = read_shots([as_shot(dataclasses.replace(example, task="answer", choices=()), choices[0])])
    assert (written.example.task, written.example.choices, written.right) == ("answer", (choices[0],), 0)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"prompt": "a"}, "answer: None given; allowed: a text"),
        ({"answer": "a"}, "prompt: it is empty"),
        ({"prompt": "a", "choices": ["x"], "answer": 0}, "choices: 1 given; a choice question needs at least 2"),
        ({"prompt": "a", "choices": ["x", "y"], "answer": 2}, "answer: 2 given; allowed: a choice, or 0 to 1"),
        ({"prompt": "a", "choices": ["x", "y"], "answer": "z"}, "answer: 'z' given; allowed: a choice, or 0 to 1"),
        ({"prompt": "a", "choices": ["x", "y"], "answer": True}, "answer: True given; allowed: a choice, or 0 to 1"),
        ({"prompt": "a", "choices": "xy", "answer": "x"}, "choices: 'xy' given; allowed: a list of texts"),
        ({"prompt": "a", "answer": "b", "question": 1}, "'question' given; allowed: task, prompt, choices, answer"),
        ({"prompt": "a", "answer": "b", "task": "sum"}, "task: 'sum' given; allowed: choice, answer, code"),
    ],
)
def test_a_bad_one_is_named(value, words):
    with pytest.raises(BadInput, match=f"^model.shots.1: {words}".replace("(", r"\(")):
        read_shots([{"prompt": "a", "answer": "b"}, value])
