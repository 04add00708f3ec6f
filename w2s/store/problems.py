"""What is wrong with a person's file, told as a whole: the first problems, then a count of the others."""

from __future__ import annotations

from collections.abc import Sequence

from w2s.store.records import BadInput

MOST = 20


def tell_problems(lines: Sequence[str], count: int | None = None) -> None:
    """A BadInput with the first MOST lines and how many more problems there are; nothing where there is no line.

    count: of all problems, where `lines` holds the first of them only.
    """
    more = (len(lines) if count is None else count) - len(lines[:MOST])
    if lines:
        raise BadInput("\n".join([*lines[:MOST], *([f"... and {more:,} more problems"] if more else [])]))
