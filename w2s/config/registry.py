"""A method is a plain function: positional arguments are data, keyword-only arguments are its options.

A table is a plain dict {name: function} at the foot of the file that defines the functions.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import math
import textwrap
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from w2s.store.records import BadInput


def options(method: Callable) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a method, with their types resolved."""
    found = [p for p in inspect.signature(method).parameters.values() if p.kind is p.KEYWORD_ONLY]
    # Only theirs: the types of data may be known to type checkers alone, so that a table costs no heavy import.
    named = types.SimpleNamespace(__annotations__={p.name: p.annotation for p in found if p.annotation is not p.empty})
    hints = typing.get_type_hints(named, inspect.unwrap(method).__globals__)
    return {p.name: p.replace(annotation=hints.get(p.name, Any)) for p in found}


def pick(table: Mapping[str, Callable], spec: Mapping[str, Any] | str, *, key: str = "method") -> Callable:
    """The method that `spec` ({name: ..., **options}, or a bare name) asks for, its options bound.

    `key` is the config key that the message of a BadInput names. Unknown names, unknown options, missing options and
    options of a wrong type are all refused here, before anything runs.
    """
    spec = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = spec.pop("name", None)
    if name not in table:
        raise BadInput(f"{key}: {name!r} is not known{did_you_mean(name, table)}; it can be: {', '.join(table)}")
    allowed = options(table[name])
    for option, value in spec.items():
        if option not in allowed:
            raise BadInput(f"{key}: {name!r} has no option {option!r}; it takes: {', '.join(allowed) or 'none'}")
        if not fits(value, allowed[option].annotation):
            wanted = describe(allowed[option].annotation)
            raise BadInput(f"{key}.{option}: {value!r} given; allowed: {wanted}")
    missing = [o for o, p in allowed.items() if p.default is p.empty and o not in spec]
    if missing:
        raise BadInput(f"{key}: {name!r} needs the option {missing[0]!r}")
    return functools.partial(table[name], **spec)


def did_you_mean(name: Any, known: typing.Iterable[str]) -> str:
    """' (did you mean X?)', or nothing when nothing is near."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value read from YAML is of the annotated type. An int is a float; a bool is not an int."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (Any, inspect.Parameter.empty):
        return True
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is typing.Literal:
        return value in inner and type(value) in {type(one) for one in inner}
    if origin in (list, tuple):
        return isinstance(value, list | tuple) and all(fits(one, inner[0]) for one in value)
    if origin is dict:
        return isinstance(value, dict)
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation is None:
        return value is None
    return isinstance(value, annotation)


def describe(annotation: Any) -> str:
    """A type in a person's words: 'a number', 'one of: a, b'."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return "one of: " + ", ".join(map(str, inner))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(one) for one in inner)
    if origin in (list, tuple):
        return f"a list of {describe(inner[0])}"
    words = {float: "a number", int: "a whole number", str: "a text", bool: "true or false", dict: "a mapping"}
    return words.get(annotation, "null" if annotation in (None, type(None)) else str(annotation))


def summary(method: Callable) -> str:
    """The first docstring line: what `w2s methods` prints."""
    return (inspect.getdoc(method) or "").split("\n")[0]


def build(kind: type, values: Any, key: str, problems: list[str]) -> Any:
    """`values` as a dataclass of `kind`, every misfit added to `problems`."""
    if values is None:
        values = {}
    if not isinstance(values, dict):
        problems.append(f"{key}: {values!r} given; allowed: a mapping")
        return kind()
    hints = typing.get_type_hints(kind)
    chosen = {}
    for name, value in values.items():
        here = f"{key}.{name}" if key else str(name)
        if name not in hints:
            deeper = [f"{key}.{one}".removeprefix(".") for one in keys_below(kind) if one.endswith(f".{name}")]
            near = f" (did you mean {' or '.join(deeper)}?)" if deeper else did_you_mean(name, hints)
            problems.append(f"{here}: there is no such key{near}")
        elif dataclasses.is_dataclass(hints[name]):
            chosen[name] = build(hints[name], value, here, problems)
        elif typing.get_origin(hints[name]) is list and dataclasses.is_dataclass(typing.get_args(hints[name])[0]):
            (inner,) = typing.get_args(hints[name])
            items = value if isinstance(value, list) else []
            if not items:
                problems.append(f"{here}: {value!r} given; allowed: a list of at least one {inner.__name__.lower()}")
            chosen[name] = [build(inner, item, f"{here}.{at}", problems) for at, item in enumerate(items)]
        elif not fits(value, hints[name]):
            problems.append(f"{here}: {value!r} given; allowed: {describe(hints[name])}")
        else:
            chosen[name] = value
    return kind(**chosen)


def keys_below(kind: type) -> list[str]:
    """Every key of a dataclass and of those inside it, as written on a command line: 'learners.0.train.lr'."""
    found = []
    for name, hint in typing.get_type_hints(kind).items():
        inner = next((one for one in typing.get_args(hint) if dataclasses.is_dataclass(one)), hint)
        start = name if inner is hint else f"{name}.0"
        below = keys_below(inner) if dataclasses.is_dataclass(inner) else []
        found += [name, *(f"{start}.{one}" for one in below)]
    return found


def differences(there: Any, here: Any, key: str = "", *, but: typing.Sequence[str] = ()) -> typing.Iterator[str]:
    """'student.train.steps is 8 there, 9 here' for each key of two configs, but those below the sections `but`."""
    if isinstance(there, dict) and isinstance(here, dict):
        for name in dict.fromkeys([*here, *there]):
            if name not in but:
                inner = (one.get(name, "not set") for one in (there, here))
                yield from differences(*inner, f"{key}.{name}" if key else str(name))
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for at, inner in enumerate(zip(there, here, strict=True)):
            yield from differences(*inner, f"{key}.{at}")
    elif there != here:
        was, now = (textwrap.shorten(str(one), 60) for one in (there, here))
        yield f"{key or 'config'} is {was} there, {now} here"
