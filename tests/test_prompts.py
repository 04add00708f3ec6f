"""The words a model sees."""

from __future__ import annotations

import dataclasses

import pytest

from w2s.config.registry import pick
from w2s.prompts import PROMPTS, continuation, listed, plain, qa
from w2s.store.records import Example

EXAMPLE = Example("1", "t", "choice", "Which gas do plants take in? ", ("oxygen", "carbon dioxide"))


@pytest.mark.parametrize("name", PROMPTS)
def test_a_prompt_holds_the_question_and_never_ends_in_a_space(name):
    text = PROMPTS[name](EXAMPLE)
    assert "Which gas do plants take in?" in text
    assert not text.endswith(" ")
    assert continuation("oxygen") == " oxygen"


def test_the_words_around_a_question():
    assert plain(EXAMPLE) == "Which gas do plants take in?"
    assert qa(EXAMPLE) == "Question: Which gas do plants take in?\nAnswer:"
    assert listed(EXAMPLE) == "Question: Which gas do plants take in?\n- oxygen\n- carbon dioxide\nAnswer:"
    assert pick(PROMPTS, {"name": "qa", "answer": "A:"})(EXAMPLE).endswith("\nA:")


def test_only_listed_depends_on_the_choices():
    other = dataclasses.replace(EXAMPLE, choices=("iron", "gold"))
    assert [name for name in PROMPTS if PROMPTS[name](EXAMPLE) != PROMPTS[name](other)] == ["listed"]


def test_the_candidates_of_a_written_answer_are_in_no_prompt():
    for task in ("answer", "code"):
        written = dataclasses.replace(EXAMPLE, task=task, choices=("forty-two",))
        assert not [name for name in PROMPTS if "forty-two" in PROMPTS[name](written)]


CODE = Example("2", "t", "code", "def f(x):\n    return\n")


@pytest.mark.parametrize("name", PROMPTS)
def test_a_program_goes_on_with_its_own_spaces_on_a_line_of_its_own(name):
    text = "    return x\n"
    assert continuation(text, "code") == text
    assert (PROMPTS[name](CODE) + text).endswith("\n    return x\n")


def test_a_prompt_of_several_lines_keeps_them():
    assert plain(CODE) == "def f(x):\n    return\n"
    assert qa(CODE) == "Question: def f(x):\n    return\nAnswer:\n"
