"""Descriptions of the configuration: `w2s config reference`, `w2s config schema` and `w2s methods`.

Types, ranges and defaults are those that the checks use; a key's meaning is the text below its field.
"""

import ast
import dataclasses
import functools
import inspect
import itertools
import json
import math
import textwrap
import types
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from w2s.config.fields import Config
from w2s.config.plugins import find_source
from w2s.config.registry import options, summary
from w2s.config.tables import TABLES, UNNAMED, load_table
from w2s.config.values import NONE, MethodOf, NameOf, Range, describe, leaves

WIDTH = 100
BASE = "A config file, relative to this one, whose values this one changes."
DRAFT = "http://json-schema.org/draft-07/schema#"
JSON_TYPES = {float: "number", int: "integer", str: "string", bool: "boolean", dict: "object"}


@functools.cache
def meanings(kind: type) -> dict[str, str]:
    """Field -> the text below it in the source, as one line; inherited fields included."""
    inherited = meanings(kind.__base__) if dataclasses.is_dataclass(kind.__base__) else {}
    (body,) = (node.body for node in ast.parse(inspect.getsource(kind)).body)
    texts = {}
    for field, text in itertools.pairwise(body):
        is_text = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        if isinstance(field, ast.AnnAssign) and is_text:
            texts[field.target.id] = " ".join(text.value.value.split())
    return inherited | texts


def describe_keys() -> str:
    """Every key of a config: its type and range, its default, and its meaning."""
    lines = ["base: a text (default null)", *wrapped(BASE)]
    for leaf in leaves(Config()):
        head = f"{leaf.key}: {describe(leaf.annotation)} (default {as_json(leaf.value)})"
        lines += [head, *wrapped(meanings(leaf.section)[leaf.name])]
    return "\n".join(lines)


def as_json(value: Any) -> str:
    return json.dumps(value, default=dataclasses.asdict)


def wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="    ", subsequent_indent="    ")


def describe_methods(only: str | None) -> str:
    """A line for each method of every table that a config names, or of the table `only`, then with its options."""
    lines = []
    for title in [name for name in TABLES if name not in UNNAMED] if only is None else [only]:
        table = load_table(title)
        lines.append(title)
        for name, method in table.items():
            plugin = f" [{source.place}]" if (source := find_source(title, name)) else ""
            lines.append(f"  {name:18} {summary(method)}{plugin}")
            lines += option_lines(method) if only else []
    return "\n".join(lines)


def option_lines(method: Callable) -> Iterator[str]:
    for name, option in options(method).items():
        default = "needed" if option.default is option.empty else f"default {option.default}"
        yield f"  {'':18}   {name}: {describe(option.annotation)} ({default})"


def make_schema() -> dict[str, Any]:
    """The JSON schema (draft 7) of a config file, by which editors complete and check one.

    It lists the loaded methods; a reference such as `${student.model.path}` is valid only where a text is.
    """
    definitions: dict[str, Any] = {}
    schema = section_schema(Config, definitions)
    schema["properties"] = {"base": {"description": BASE, "type": "string"}, **schema["properties"]}
    return {"$schema": DRAFT, "title": "w2s config", **schema, "definitions": definitions}


def section_schema(kind: type, definitions: dict[str, Any]) -> dict[str, Any]:
    properties = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        default = getattr(kind(), name)
        is_section = dataclasses.is_dataclass(default)
        properties[name] = {
            "description": meanings(kind).get(name) or " ".join(hint.__doc__.split()),
            **({} if is_section else {"default": json.loads(as_json(default))}),
            **value_schema(hint, definitions),
        }
    return {"type": "object", "properties": properties, "additionalProperties": False}


def value_schema(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of a value of this type; sections and tables of methods are put into `definitions`, once each."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        if hint.__name__ not in definitions:
            definitions[hint.__name__] = {}  # a place in the order of the keys
            definitions[hint.__name__] = section_schema(hint, definitions)
        return refer(hint.__name__)
    if origin is Annotated:
        schema = value_schema(inner[0], definitions)
        for mark in inner[1:]:
            if isinstance(mark, MethodOf):
                schema = table_schema(mark.table, definitions)
            elif isinstance(mark, NameOf):
                schema = {"enum": list(load_table(mark.table))}
            else:
                schema |= bounds(mark)
        return schema
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [value_schema(member, definitions) for member in inner]}
    if origin is typing.Literal:
        return {"enum": list(inner)}
    if origin in (list, tuple):
        return {"type": "array", "items": value_schema(inner[0], definitions)}
    if hint in NONE:
        return {"type": "null"}
    return {"type": JSON_TYPES[origin or hint]} if (origin or hint) in JSON_TYPES else {}


def bounds(allowed: Range) -> dict[str, float]:
    limits = {
        "minimum": allowed.at_least,
        "exclusiveMinimum": allowed.above,
        "maximum": allowed.at_most,
        "exclusiveMaximum": allowed.below,
    }
    return {name: limit for name, limit in limits.items() if math.isfinite(limit)}


def table_schema(table: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """A mapping {name, options} of any of the table's methods."""
    if table not in definitions:
        methods = load_table(table)
        definitions[table] = {"oneOf": [method_schema(name, method, definitions) for name, method in methods.items()]}
    return refer(table)


def method_schema(name: str, method: Callable, definitions: dict[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {"name": {"const": name, "description": summary(method)}}
    needed = ["name"]
    for option, parameter in options(method).items():
        properties[option] = value_schema(parameter.annotation, definitions)
        if parameter.default is parameter.empty:
            needed.append(option)
    return {"type": "object", "properties": properties, "required": needed, "additionalProperties": False}


def refer(name: str) -> dict[str, Any]:
    return {"allOf": [{"$ref": f"#/definitions/{name}"}]}  # draft 7 ignores what stands beside a bare $ref
