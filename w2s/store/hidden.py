"""Environment variables that a config names as `${oc.env:NAME}`: their values are used, but never written.

Configs, manifests, job files, logs and messages name the variable in place of its value; a worker that reads a job file
puts back the value from its own environment.
"""

import html
import os
import re
from typing import Any

from w2s.store.records import BadInput

REFERENCE = re.compile(r"\$\{oc\.env:(\w+)\}")
SHORTEST = 6  # characters: shorter values occur in any text by chance, and are hidden only where they stand alone

_known: dict[str, str] = {}  # value, also as messages and pages escape it -> its reference


def read_variable(name: str, *default: Any) -> Any:
    """A variable's value, hidden from now on; if it is not set, `default`, or a BadInput without one."""
    if name not in os.environ:
        if default:
            return default[0]
        raise BadInput(f"${{oc.env:{name}}}: the environment variable {name} is not set")
    if value := os.environ[name]:
        _known.update(dict.fromkeys((value, repr(value)[1:-1], html.escape(value)), f"${{oc.env:{name}}}"))
    return os.environ[name]


def hide(text: str) -> str:
    """The text with a reference in place of each known value."""
    if text in _known:
        return _known[text]
    for value in sorted(_known, key=len, reverse=True):
        if len(value) >= SHORTEST:
            text = text.replace(value, _known[value])
    return text


def hide_values(value: Any) -> Any:
    """`hide` for every text in a JSON value."""
    return _each(hide, value)


def reveal_values(value: Any) -> Any:
    """A JSON value with each reference replaced by the variable's value."""
    return _each(lambda text: REFERENCE.sub(lambda match: str(read_variable(match[1])), text), value)


def _each(change: Any, value: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _each(change, part) for key, part in value.items()}
    return [_each(change, part) for part in value] if isinstance(value, list | tuple) else value
