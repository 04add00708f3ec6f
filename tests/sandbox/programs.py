"""Programs run once, for the sandbox's tests."""

from __future__ import annotations

from collections.abc import Sequence

from w2s.sandbox.program import Call, Limits, Reply
from w2s.sandbox.run import open_program


def run_program(source: str, calls: Sequence[Call], limits: Limits = Limits()) -> list[Reply]:  # noqa: B008 (frozen)
    """One Reply per call of the program."""
    with open_program(source, limits) as program:
        return list(program.calls(calls))
