"""Commands that help to write a config: `w2s init`, `w2s config reference` and `w2s config schema`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from w2s.store.log import (
    tell as print,  # nothing that a model or a file says steers the terminal, and secrets stay hidden
)
from w2s.store.records import BadInput


def init(asked: argparse.Namespace) -> None:
    """Write a commented config for a task and a folder of example rows, in the layout that your own data may have.
    Nothing that exists is overwritten."""
    from w2s.cli.start import write_start

    print(write_start(asked.task, Path(asked.folder)))


def config(asked: argparse.Namespace) -> None:
    """What a config may hold: `w2s config reference` for people, `w2s config schema` for editors."""
    raise BadInput(f"config: {' '.join(asked.about) or 'nothing'!r} given; allowed: reference, schema")


def config_reference(asked: argparse.Namespace) -> None:
    """Every key of a config with its type, range, default and meaning."""
    from w2s.config.reference import describe_keys

    print(describe_keys())


def config_schema(asked: argparse.Namespace) -> None:
    """The JSON schema of a config, by which editors complete and check one: the shipped configs name
    configs/schema.json in their first line."""
    from w2s.config.reference import make_schema

    print(json.dumps(make_schema(), indent=1))
