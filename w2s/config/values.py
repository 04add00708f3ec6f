"""The values a config allows: types with a range, whether a value fits one, and a type in words.

A field or a method's option annotated with such a type (`Count | None`) gets its check, its line in the reference and
its entry in the schema from it.
"""

import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple


@dataclass(frozen=True)
class Range:
    """The numbers of a type that are allowed, in words and as bounds; `at_least` and `at_most` are inclusive."""

    words: str
    at_least: float = -math.inf
    above: float = -math.inf
    at_most: float = math.inf
    below: float = math.inf

    def holds(self, value: float) -> bool:
        return self.at_least <= value <= self.at_most and self.above < value < self.below


@dataclass(frozen=True)
class MethodOf:
    """Marks a mapping {name, options} whose name is in a table of methods (see `config.tables`)."""

    table: str


@dataclass(frozen=True)
class NameOf:
    """Marks a text that is a name in a table, without options."""

    table: str


ABOVE_0 = Range("above 0", above=0)
Count = Annotated[int, ABOVE_0]
CountFrom0 = Annotated[int, Range("0 or more", at_least=0)]
Positive = Annotated[float, ABOVE_0]
NotNegative = Annotated[float, Range("0 or more", at_least=0)]
Multiple = Annotated[float, Range("1 or more", at_least=1)]
Share = Annotated[float, Range("from 0 to 1", at_least=0, at_most=1)]
PartialShare = Annotated[float, Range("from 0 up to, not including, 1", at_least=0, below=1)]
InnerShare = Annotated[float, Range("above 0 and below 1", above=0, below=1)]

WORDS = {float: "a number", int: "a whole number", str: "a text", bool: "true or false", dict: "a mapping"}
PLURALS = {float: "numbers", int: "whole numbers", str: "texts", dict: "mappings"}
NONE = (None, type(None))


def method(name: str) -> Callable[[], dict[str, str]]:
    """A factory for a field's default: the method `name` with its default options."""
    return lambda: {"name": name}


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value read from YAML is of the annotated type. An int is a float; a bool is not an int."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (Any, inspect.Parameter.empty):
        return True
    if origin is Annotated:
        return fits(value, inner[0]) and all(mark.holds(value) for mark in inner[1:] if isinstance(mark, Range))
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, member) for member in inner)
    if origin is typing.Literal:
        return value in inner and type(value) in {type(member) for member in inner}
    if origin in (list, tuple):
        return isinstance(value, list | tuple) and all(fits(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict)
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation in NONE:
        return value is None
    return isinstance(value, annotation)


def describe(annotation: Any) -> str:
    """A type in words: 'a number (above 0) or null', 'one of: a, b'."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return " ".join([describe(inner[0]), *map(describe_mark, inner[1:])])
    if origin is typing.Literal:
        return "one of: " + ", ".join(map(str, inner))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(member) for member in inner)
    if origin in (list, tuple):
        return "a list of " + plural(inner[0])
    return WORDS.get(annotation, "null" if annotation in NONE else str(annotation))


def describe_mark(mark: Range | MethodOf | NameOf) -> str:
    if isinstance(mark, Range):
        return f"({mark.words})"
    return f"(a method of {mark.table})" if isinstance(mark, MethodOf) else f"(one of {mark.table})"


def plural(annotation: Any) -> str:
    """The items of a list: 'numbers', 'mappings (methods of sources)', 'any of: a, b'."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return describe(annotation).replace("one of: ", "any of: ")
    if origin is Annotated and isinstance(inner[1], MethodOf):
        return f"{PLURALS[dict]} (methods of {inner[1].table})"
    return PLURALS.get(annotation, describe(annotation))


def ranges(annotation: Any) -> Iterator[Range]:
    """The ranges of a type and of the members of a union."""
    for inner in typing.get_args(annotation):
        if isinstance(inner, Range):
            yield inner
        else:
            yield from ranges(inner)


class Leaf(NamedTuple):
    """A key of a config that holds a value, not a section."""

    key: str
    section: type
    name: str
    annotation: Any
    value: Any

    @property
    def table(self) -> str | None:
        """The table of methods that the value is from; None for other values."""
        annotation = self.annotation
        while typing.get_origin(annotation) is not Annotated and typing.get_args(annotation):
            annotation = typing.get_args(annotation)[0]
        marks = typing.get_args(annotation)[1:]
        return next((mark.table for mark in marks if isinstance(mark, MethodOf)), None)


def leaves(section: Any, key: str = "") -> Iterator[Leaf]:
    """Every key of a section and of those inside it, in the order of their declaration: 'learners.0.train.lr'."""
    hints = typing.get_type_hints(type(section), include_extras=True)
    for name, annotation in hints.items():
        here, value = f"{key}.{name}" if key else name, getattr(section, name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, here)
        elif isinstance(value, list) and value and dataclasses.is_dataclass(value[0]):
            for at, item in enumerate(value):
                yield from leaves(item, f"{here}.{at}")
        else:
            yield Leaf(here, type(section), name, annotation, value)


def out_of_range(section: Any) -> list[str]:
    """A line for each number of the config that is out of its range."""
    return [
        f"{leaf.key}: {leaf.value} given; allowed: {allowed.words}"
        for leaf in leaves(section)
        if isinstance(leaf.value, int | float)
        for allowed in ranges(leaf.annotation)
        if not allowed.holds(leaf.value)
    ]
