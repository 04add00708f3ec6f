"""A method is a plain function: positional arguments are data, keyword-only arguments are its options.

A table is a plain dict {name: function} at the foot of the file that defines the functions.
"""

import dataclasses
import difflib
import functools
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from w2s.config.values import describe, fits
from w2s.store.records import BadInput

RENAMED: dict[str, str] = {}
"""Old config key -> its new name, which the message about the old key gives."""


def options(method: Callable) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a method, with their types resolved; a type may carry a range (`Positive`).

    A record of a table, such as a kind of model, has none.
    """
    if not callable(method):
        return {}
    parameters = [p for p in inspect.signature(method).parameters.values() if p.kind is p.KEYWORD_ONLY]
    # Only these: types of the data may be imported for type checkers alone, so that a table costs no heavy import.
    annotations = {p.name: p.annotation for p in parameters if p.annotation is not p.empty}
    holder = types.SimpleNamespace(__annotations__=annotations)
    hints = typing.get_type_hints(holder, inspect.unwrap(method).__globals__, include_extras=True)
    return {p.name: p.replace(annotation=hints.get(p.name, Any)) for p in parameters}


def pick(table: Mapping[str, Callable], spec: Mapping[str, Any] | str, *, key: str = "method") -> Callable:
    """The method that `spec` ({name: ..., **options}, or a bare name) names, with its options bound.

    `key` is the config key that a BadInput names. Unknown names, unknown or missing options, and options of a wrong
    type or out of range are refused here, before anything runs.
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
            raise BadInput(f"{key}.{option}: {value!r} given; allowed: {describe(allowed[option].annotation)}")
    missing = [o for o, p in allowed.items() if p.default is p.empty and o not in spec]
    if missing:
        raise BadInput(f"{key}: {name!r} needs the option {missing[0]!r}")
    return functools.partial(table[name], **spec)


def did_you_mean(name: Any, known: typing.Iterable[str]) -> str:
    """' (did you mean X?)', or '' if no known name is similar."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def summary(method: Callable) -> str:
    """What `w2s methods` prints: the first line of the docstring, or a record's `about`."""
    return getattr(method, "about", "") or (inspect.getdoc(method) or "").split("\n")[0]


def build(kind: type, values: Any, key: str, problems: list[str]) -> Any:
    """`values` as a dataclass `kind`; each unknown key and each value of a wrong type adds a line to `problems`.

    Ranges are checked later (`values.out_of_range`): they need a value of the right type.
    """
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
            problems.append(f"{here}: {unknown_key(kind, name, key)}")
        elif dataclasses.is_dataclass(hints[name]):
            chosen[name] = build(hints[name], value, here, problems)
        elif inner := section_of_list(hints[name]):
            items = value if isinstance(value, list) else []
            if not items:
                problems.append(f"{here}: {value!r} given; allowed: a list of at least one {inner.__name__.lower()}")
            chosen[name] = [build(inner, item, f"{here}.{at}", problems) for at, item in enumerate(items)]
        elif not fits(value, hints[name]):
            problems.append(f"{here}: {value!r} given; allowed: {describe(hints[name])}")
        else:
            chosen[name] = value
    return kind(**chosen)


def section_of_list(hint: Any) -> type | None:
    """`Learner` for list[Learner]; None where the items are plain values."""
    inner = next(iter(typing.get_args(hint)), None)
    return inner if typing.get_origin(hint) is list and dataclasses.is_dataclass(inner) else None


def unknown_key(kind: type, name: Any, key: str) -> str:
    """The message about a key that `kind` (at `key`) does not have: its new name, its place, or a similar one."""
    here = re.sub(r"\.\d+\.", ".0.", f"{key}.{name}").removeprefix(".")
    if here in RENAMED:
        return f"is called {RENAMED[here]} now"
    deeper = [f"{key}.{below}".removeprefix(".") for below in keys_below(kind) if below.endswith(f".{name}")]
    near = f" (did you mean {' or '.join(deeper)}?)" if deeper else did_you_mean(name, typing.get_type_hints(kind))
    return f"there is no such key{near}"


def keys_below(kind: type) -> list[str]:
    """Every key of a dataclass and of those inside it, as on a command line: 'learners.0.train.lr'."""
    keys = []
    for name, hint in typing.get_type_hints(kind).items():
        inner = section_of_list(hint)
        start = f"{name}.0" if inner else name
        below = keys_below(inner or hint) if dataclasses.is_dataclass(inner or hint) else []
        keys += [name, *(f"{start}.{key}" for key in below)]
    return keys


def differences(there: Any, here: Any, key: str = "", *, but: typing.Sequence[str] = ()) -> typing.Iterator[str]:
    """'student.train.steps is 8 there, 9 here' for each key that differs between two configs; not in sections `but`."""
    if isinstance(there, dict) and isinstance(here, dict):
        for name in dict.fromkeys([*here, *there]):
            if name not in but:
                below = f"{key}.{name}" if key else str(name)
                yield from differences(there.get(name, "not set"), here.get(name, "not set"), below)
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for at, inner in enumerate(zip(there, here, strict=True)):
            yield from differences(*inner, f"{key}.{at}")
    elif there != here:
        was, now = (textwrap.shorten(str(value), 60) for value in (there, here))
        yield f"{key or 'config'} is {was} there, {now} here"
