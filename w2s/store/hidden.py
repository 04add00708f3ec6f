"""Values of the environment that a config names as `${oc.env:NAME}`: they are used, and written nowhere.

What is written (configs, manifests, job files, logs, messages) names the variable in place of its value; whoever reads
a job file puts the value of its own environment back.
"""

from __future__ import annotations

import html
import os
import re
from typing import Any

from w2s.store.records import BadInput

REFERENCE = re.compile(r"\$\{oc\.env:(\w+)\}")
SHORTEST = 6  # characters: what is shorter stands in any text by chance, and is hidden only where it stands alone

_known: dict[str, str] = {}  # value, also as a message or a page writes it -> the reference


def read_variable(name: str, *default: Any) -> Any:
    """The variable's value, from now on hidden; `default` where it is not set, else a BadInput."""
    if name not in os.environ:
        if default:
            return default[0]
        raise BadInput(f"${{oc.env:{name}}}: the environment variable {name} is not set")
    if value := os.environ[name]:
        _known.update(dict.fromkeys((value, repr(value)[1:-1], html.escape(value)), f"${{oc.env:{name}}}"))
    return os.environ[name]


def hide(text: str) -> str:
    """The text with references in place of known values."""
    if text in _known:
        return _known[text]
    for value in sorted(_known, key=len, reverse=True):
        if len(value) >= SHORTEST:
            text = text.replace(value, _known[value])
    return text


def hide_values(value: Any) -> Any:
    """The same of every text in a JSON value."""
    return _each(hide, value)


def reveal_values(value: Any) -> Any:
    """A JSON value with the environment's values in place of references."""
    return _each(lambda text: REFERENCE.sub(lambda found: str(read_variable(found[1])), text), value)


def _each(change: Any, value: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _each(change, one) for key, one in value.items()}
    return [_each(change, one) for one in value] if isinstance(value, list | tuple) else value
