"""Examples of a job, read once by a warm worker that serves many jobs about the same questions."""

from __future__ import annotations

import functools
from pathlib import Path

from w2s.store.records import Example, read_rows

KEPT = 8  # files


def read_examples(path: Path) -> tuple[Example, ...]:
    """The examples in the file as it is now."""
    found = path.stat()
    return _read(path.resolve(), found.st_mtime_ns, found.st_size)


@functools.lru_cache(KEPT)
def _read(path: Path, changed_ns: int, size: int) -> tuple[Example, ...]:
    return tuple(read_rows(path, Example))
