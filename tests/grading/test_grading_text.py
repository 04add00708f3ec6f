"""What grading does without running a program: comparing, short answers, choices, finding a program in a text."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2s.grading.answers import compare, normalise
from w2s.grading.endings import final_answer
from w2s.grading.judge import grade
from w2s.sandbox.compare import same
from w2s.store.records import Example, Gold


@pytest.mark.parametrize(
    ("given_", "wanted", "options", "right"),
    [
        ([1, 2], [1, 2], {}, True),
        ((1, 2), [1, 2], {}, False),
        (1.0000005, 1.0, {}, True),  # floats: 1e-6 where the task names none
        (1.00001, 1.0, {}, False),
        (1.00001, 1.0, {"atol": 1e-4}, True),
        ([1.0000005, 2.0], [1.0, 2.0], {}, True),
        ([1.0, 2.0, 3.0], [1.0, 2.0], {"atol": 9.0}, False),
        (math.nan, 1.0, {"atol": 1e-4}, False),
        (math.nan, math.nan, {}, True),
        (math.inf, math.inf, {}, True),
        (math.inf, 1e300, {}, False),
        (10**400, 1.0, {"atol": 1e-4}, False),
        ("1.0", 1.0, {"atol": 1e-4}, False),
        (None, 1.0, {}, False),
        ([3, 1, 1], (1, 3), {"compare": "set"}, True),
        ([[1]], [1], {"compare": "set"}, False),
        (5, [1], {"compare": "set"}, False),
        ("match", True, {"compare": "truth"}, True),
        (None, True, {"compare": "truth"}, False),
        (False, True, {"compare": "truth"}, False),
        (-1.00001, None, {"compare": "root", "atol": 1e-4}, True),  # 1 + x
        (-1.1, None, {"compare": "root", "atol": 1e-4}, False),
        (math.nan, None, {"compare": "root", "atol": 1e-4}, False),
        ("x", None, {"compare": "root", "atol": 1e-4}, False),
    ],
)
def test_results_are_compared_by_the_rules_of_evalplus(given_, wanted, options, right):
    assert same(given_, wanted, [[1, 1]], **{"compare": "equal", "atol": 0.0, **options}) is right


# --- short answers ----


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("18", "18"),
        ("She has 18 left.\n#### 18", "18"),
        ("so it is $\\boxed{1{,}234}$".replace("{,}", ","), "1234"),
        ("The answer is 1,234.", "1234"),
        ("the answer is: $3.50", "3.5"),
        ("Answer: 7 apples", "7"),
        ("\\boxed{\\frac{3}{4}}", "3/4"),
        ("\\boxed{\\dfrac34}", "0.75"),
        ("-\\frac{1}{2}", "-0.5"),
        ("50\\%", "50"),
        ("x = 5", "5"),
        ("\\boxed{ (1, 2) }", "(1,2)"),
        ("\\boxed{\\text{Paris}}", "paris"),
        ("\\boxed{x^{2}+1}", "x^{2} + 1"),
        ("12 \\text{ cm}", "12"),
        ("1e3", "1000"),
        ("−4", "-4"),
        ("grandmother", "Grandmother."),
    ],
)
def test_answers_that_mean_the_same_are_the_same(text, gold):
    assert compare(text, gold) is True


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        *(("18.5", "18"), ("180", "18"), ("1,23", "123"), ("3/4", "4/3"), ("the answer is 5 or 6", "5"), ("x", "y")),
        *(("2 4", "24"), ("-5", "5"), ("#### 4", "5"), ("\\boxed{1}\\boxed{2}", "1"), ("1/0", "0"), ("x^2", "2")),
    ],
)
def test_answers_that_differ_are_different(text, gold):
    assert compare(text, gold) is not True


@given(
    st.integers(-(10**9), 10**9), st.sampled_from(["{:,}", "${}$", "{}.0", " {} ", "\\boxed{{{}}}", "{} km", "#### {}"])
)
def test_a_number_is_itself_however_it_is_written(number, form):
    assert compare(form.format(number), str(number)) is True
    assert compare(form.format(number), str(number + 1)) is not True


@given(st.text(max_size=60))
def test_any_text_has_a_normal_form_that_stays_as_it_is(text):
    once = normalise(final_answer(text) or "")
    assert isinstance(once, str)
    assert compare(text, text) is True


def test_a_choice_is_right_when_it_is_the_gold_choice():
    example = Example("id", "made", "choice", "Which?", ("red", "blue"))
    assert grade(example, Gold("id", 1), " blue\n") == (True, "judged")
    assert grade(example, Gold("id", 1), "red")[0] is False
    assert grade(example, Gold("id", 1), "")[0] is False


def test_an_empty_short_answer_is_wrong():
    assert grade(Example("id", "made", "answer", "How many?"), Gold("id", "4"), "  ") == (False, "no answer found")


def test_the_gold_of_another_example_is_refused():
    with pytest.raises(ValueError, match="id is graded with the gold of other"):
        grade(Example("id", "made", "answer", "How many?"), Gold("other", "4"), "4")
