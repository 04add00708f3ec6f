"""Plain data as JSON and back: all that crosses the wall between a program's process and ours.

Null, booleans, texts, whole numbers and finite floats are plain JSON; a list is a JSON array. Everything else is an
object with a tag as its only key: {"tuple": [...]}, {"set": [...]}, {"dict": [a tuple (key, value), ...]},
{"float": "nan"}, {"complex": [re, im]}, {"bytes": hex}, {"int": hex}, {"type": name of a builtin type},
{"object": number}. Decoding builds builtins of exactly these types and runs no code, so whatever a hostile process
sends, the values that arrive have an honest `==`, `len` and `hash`.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

MAX_DEPTH = 200
LONGEST_INT = 10**4000  # Python refuses to read decimal texts of more than 4300 digits


class NotPlain(ValueError):
    """A value without a plain form."""


@dataclass(frozen=True, eq=False)
class Object:
    """A value that stays in the program's process; here it is only a number, equal to no other value."""

    number: int


class TooLarge(ValueError):
    """A value with more parts than there is room for."""


def encode(value: Any, keep: Callable[[Any], Object] | None = None, most: int = 1 << 40) -> Any:
    """value -> input for `json.dumps`. Subclasses are sent as their builtin; `keep` numbers values that are not plain.

    Cycles and nesting beyond MAX_DEPTH are NotPlain; so are other values, without `keep`. More than `most` parts in all
    are TooLarge, before they are built.
    """
    room = most

    def many(values: Iterable[Any], count: int, depth: int) -> list:
        nonlocal room
        room -= count
        if room < 0:
            raise TooLarge(f"more than {most} parts")
        if depth > MAX_DEPTH:
            raise NotPlain("nested too deeply")
        parts = list(values)
        return parts if all_json(parts) else [one(value, depth + 1) for value in parts]

    def one(value: Any, depth: int) -> Any:
        kind = type(value)
        if value is None or kind is bool or kind is str or (kind is int and -LONGEST_INT < value < LONGEST_INT):
            return value
        if kind is float and math.isfinite(value):
            return value
        if issubclass(kind, list):
            return many(list.__iter__(value), list.__len__(value), depth)
        for name, builtin in COLLECTIONS.items():
            if issubclass(kind, builtin):
                return {name: many(builtin.__iter__(value), builtin.__len__(value), depth)}
        if issubclass(kind, dict):
            size = 2 * dict.__len__(value)
            return {"dict": many(((key, below) for key, below in dict.items(value)), size, depth)}
        scalar = scalar_of(value, kind)
        if scalar is not None:
            return scalar
        if keep is None:
            raise NotPlain(f"{kind.__name__} is not plain data")
        return {"object": keep(value).number}

    return one(value, 0)


def all_json(values: list) -> bool:
    """Whether all values are plain JSON: a short cut for long lists of numbers or texts of one type."""
    kinds = set(map(type, values))
    if kinds == {int}:
        return min(values) > -LONGEST_INT and max(values) < LONGEST_INT
    return all(map(math.isfinite, values)) if kinds == {float} else kinds <= {str, bool, type(None)}


def scalar_of(value: Any, kind: type) -> Any:
    """The encoding of texts and numbers that are not plain JSON, and of bytes, types and objects; else None."""
    if issubclass(kind, str):
        return str.__str__(value)
    if issubclass(kind, int):
        number = int.__int__(value)
        return number if -LONGEST_INT < number < LONGEST_INT else {"int": hex(number)}
    if issubclass(kind, float):
        number = float.__float__(value)
        return number if math.isfinite(number) else {"float": repr(number)}
    if issubclass(kind, complex):
        number = complex.__complex__(value)
        return {"complex": [scalar_of(number.real, float), scalar_of(number.imag, float)]}
    if issubclass(kind, bytes | bytearray):
        return {"bytes": kind.hex(value)}
    if kind is Object:
        return {"object": value.number}
    if kind.__module__ == "numpy" and hasattr(kind, "item") and not hasattr(kind, "__len__"):  # a number of numpy
        number = value.item()
        return None if type(number) is kind else number if type(number) is bool else scalar_of(number, type(number))
    if kind is type and TYPES.get(value.__name__) is value:
        return {"type": value.__name__}
    return None


def decode(tree: Any, find: Callable[[int], Any] = Object) -> Any:
    """The result of `json.loads` -> the value; `find` turns an object's number into what stands for it here.

    Anything that `encode` does not write is NotPlain.
    """
    if tree is None or type(tree) in (bool, str, int, float):
        return tree
    try:
        if type(tree) is list:
            nested = not {list, dict}.isdisjoint(map(type, tree))
            return [decode(item, find) for item in tree] if nested else tree
        ((tag, body),) = tree.items()
        if tag in COLLECTIONS:
            return COLLECTIONS[tag](decode(item, find) for item in body)
        if tag == "dict":
            return dict(decode(pair, find) for pair in body)
        if tag == "complex":
            return complex(*(decode(part, find) for part in body))
        return SCALARS[tag](body) if tag != "object" else find(int(body))
    except RecursionError:
        raise NotPlain("nested too deeply") from None
    except NotPlain:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, IndexError):
        raise NotPlain("not an encoding of plain data") from None


COLLECTIONS = {"tuple": tuple, "set": set, "frozenset": frozenset}
TYPES = {kind.__name__: kind for kind in (bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict)}
SCALARS = {"float": float, "bytes": bytes.fromhex, "int": lambda text: int(text, 16), "type": TYPES.__getitem__}
