"""Any text gets a verdict, in time linear in its length, and a busy machine gives the same one."""

import math
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from w2s.grading import expressions
from w2s.grading.answers import compare, normalise, same
from w2s.grading.candidates import merge
from w2s.grading.endings import final_answer
from w2s.grading.judge import grade
from w2s.grading.quantities import read_quantity
from w2s.store.records import Example, Gold

QUESTION, GOLD = Example("q", "made", "answer", "How many?"), Gold("q", "18")
VERDICTS = ("judged", "no answer found", "the answers could not be compared in 5 s of processor time")
PIECES = (
    *(
        "answer is ",
        "answer ",
        "the answer: ",
        "**",
        "$",
        "\\boxed{",
        "\\boxed{1}",
        "{",
        "}",
        "####\n",
        "#### ",
        "wait",
        "A: 1\n",
    ),
    *(
        "\\text{",
        "\\frac{1}{",
        "<|x|>",
        "</think>",
        "<answer>",
        "(",
        "\\",
        "\0",
        "\ud800",
        "\n\t",
        " and ",
        ", ",
        "1,",
        "=1",
    ),
    *(
        "9",
        "9^{",
        "1e",
        "`",
        '"',
        ". ",
        "answer (",
        "answer of the thing that ",
        "\nQ",
        "_",
        "-",
        " as ",
        "not ",
        "½",
        "°",
    ),
)
LARGE = {
    "digits": "7" * 5_000,
    "a million digits": "7" * 10**6,
    "a huge exponent of an angle": "1e999°",
    "a huge exponent": "1e999 km",
    "a tiny exponent": "1e-999",
    "a fraction of digits": rf"\frac{{{'7' * 5_000}}}{{3}}",
    "braces": "{" * 10**5,
    "nested boxes": r"\boxed{" * 10**5 + "18" + "}" * 10**5,
    "nested fractions": r"\frac{1}{" * 130 + "2" + "}" * 130,
    "brackets": "(" * 190 + "1" + ")" * 190,
    "half a surrogate pair": "the answer is \ud83d",
    "NUL": "\0" * 1000,
    "denials": "not 1, " * 10**4,
    "bounds": "between " + "9 " * 10**5,
    "spaces between": "1" + " " * 10**6 + "1",
}


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("form", ["{}", "The answer is {}.", "#### {}", "$\\boxed{{{}}}$"])
def test_a_text_of_any_size_gets_a_verdict(name, form, monkeypatch):
    monkeypatch.setattr(expressions, "COMPARE_S", 1.0)
    text = form.format(LARGE[name])
    correct, status = grade(QUESTION, GOLD, text)
    assert status in VERDICTS
    assert correct is not True or name == "nested boxes"
    assert grade(QUESTION, Gold("q", LARGE[name]), text)[1] in VERDICTS
    assert isinstance(normalise(final_answer(text) or ""), str)
    assert len(merge(QUESTION, [text, "18", text]).index) == 3


def growth(piece: str) -> float:
    """By which power the work grows with the length: the processor's time for 16 times as much, least of three."""
    seconds = []
    for count in (2_000, 32_000):
        text, taken = f"1 {piece * count} 1", []
        for _ in range(3):
            started = time.process_time()
            final_answer(text)
            normalise(text)
            same(text, "18")
            taken.append(time.process_time() - started)
        seconds.append(max(min(taken), 1e-2))
    return math.log(seconds[1] / seconds[0], 16)


@pytest.mark.parametrize("piece", [*PIECES, " "])
def test_the_work_on_a_text_is_linear_in_its_length(piece):
    assert growth(piece) < 1.6  # 2 where it is quadratic


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=30).map("".join), st.sampled_from(PIECES))
@example("1e999°", "°")
def test_any_pieces_of_an_answer_get_a_verdict(text, gold):
    assert grade(QUESTION, GOLD, text)[1] in VERDICTS
    assert grade(QUESTION, Gold("q", gold), text)[1] in VERDICTS
    assert read_quantity(text) is None or normalise(text)


def test_what_counts_is_the_time_of_the_processor_and_not_of_the_clock(monkeypatch):
    monkeypatch.setattr(expressions, "COMPARE_S", 0.8)
    expressions.ask.cache_clear()
    waited = []
    reply = expressions.reply

    def late(process):  # as on a machine that does not come to it
        waited.append(time.sleep(1.2))
        return reply(process)

    monkeypatch.setattr(expressions, "reply", late)
    assert compare(r"\sqrt{12}", r"2\sqrt{3}") is True
    assert waited


def test_a_process_that_does_not_answer_at_all_is_ended_and_no_verdict_given(monkeypatch):
    expressions.ask.cache_clear()
    assert compare(r"\sqrt{18}", r"3\sqrt{2}") is True  # a process is ready
    monkeypatch.setattr(expressions, "COMPARE_S", 300.0)
    monkeypatch.setattr(expressions, "WAIT_S", 0.3)
    assert compare(r"7^{9^{9^{9^9}}}", r"\sqrt{2}") is None
    monkeypatch.undo()
    assert compare(r"\sqrt{27}", r"3\sqrt{3}") is True
