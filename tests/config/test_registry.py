"""How a method is picked."""

from typing import Annotated, Any, Literal

import pytest

from w2s.config.registry import options, pick, summary
from w2s.config.tables import TABLES, UNNAMED, load_table
from w2s.config.values import Count, MethodOf, Positive, describe, fits
from w2s.store.records import BadInput


def grow(
    data: list,
    *,
    factor: float,
    times: int = 2,
    how: Literal["up", "down"] = "up",
    bounds: tuple[float, float] | None = None,
    loud: bool = False,
    step: Positive = 1.0,
    most: Count | None = None,
) -> Any:
    """Grows it.

    More words.
    """
    return [item * factor * times for item in data]


TABLE = {"grow": grow}


def test_options_are_bound_and_data_come_later():
    assert pick(TABLE, {"name": "grow", "factor": 2, "times": 3})([1, 2]) == [6, 12]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("grwo", "x: 'grwo' is not known (did you mean 'grow'?); it can be: grow"),
        ({}, "x: None is not known"),
        ({"name": "grow"}, "x: 'grow' needs the option 'factor'"),
        (
            {"name": "grow", "factor": 1, "data": []},
            "x: 'grow' has no option 'data'; it takes: factor, times, how, bounds",
        ),
        ({"name": "grow", "factor": "2"}, "x.factor: '2' given; allowed: a number"),
        ({"name": "grow", "factor": True}, "x.factor: True given; allowed: a number"),
        ({"name": "grow", "factor": float("nan")}, "x.factor: nan given; allowed: a number"),
        ({"name": "grow", "factor": 1, "times": 2.5}, "x.times: 2.5 given; allowed: a whole number"),
        ({"name": "grow", "factor": 1, "how": "UP"}, "x.how: 'UP' given; allowed: one of: up, down"),
        ({"name": "grow", "factor": 1, "bounds": [1, "2"]}, "allowed: a list of numbers or null"),
        ({"name": "grow", "factor": 1, "loud": 1}, "x.loud: 1 given; allowed: true or false"),
        ({"name": "grow", "factor": 1, "step": 0}, "x.step: 0 given; allowed: a number (above 0)"),
        ({"name": "grow", "factor": 1, "most": 0}, "x.most: 0 given; allowed: a whole number (above 0) or null"),
    ],
)
def test_what_does_not_fit_is_one_line_with_what_is_allowed(spec, said):
    with pytest.raises(BadInput) as caught:
        pick(TABLE, spec, key="x")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "annotation", "good"),
    [
        (1, float, True),
        (1.0, int, False),
        (True, int, False),
        (True, bool, True),
        (0, bool, False),
        (None, int | None, True),
        ("a", Literal["a"], True),
        (1, Literal[True], False),
        ([1, 2], list[int], True),
        ([1, "2"], list[int], False),
        ({}, dict, True),
        (float("inf"), float, False),
        ("x", Any, True),
        (0, Count, False),
        (True, Count, False),
        (None, Count | None, True),
        ([1, 0], list[Count], False),
    ],
)
def test_values_from_yaml_fit_their_types_without_being_bent(value, annotation, good):
    assert fits(value, annotation) is good


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Count | None, "a whole number (above 0) or null"),
        (list[int], "a list of whole numbers"),
        (list[Literal["a", "b"]], "a list of any of: a, b"),
        (dict, "a mapping"),
        (Annotated[dict, MethodOf("alphas")] | None, "a mapping (a method of alphas) or null"),
        (list[Annotated[dict, MethodOf("sources")]], "a list of mappings (methods of sources)"),
    ],
)
def test_a_type_is_described_in_words(annotation, words):
    assert describe(annotation) == words


@pytest.mark.parametrize("name", sorted(set(TABLES) - set(UNNAMED)))
def test_every_method_says_what_it_is_and_its_options_have_types(name):
    for title, method in load_table(name).items():
        assert len(summary(method)) > 10, title
        for option, parameter in options(method).items():
            assert describe(parameter.annotation), option
            assert parameter.default is parameter.empty or fits(parameter.default, parameter.annotation), option
