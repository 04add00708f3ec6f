"""One line for people, one JSON line for machines, from rank 0 only; progress.

In a terminal progress is a bar, elsewhere a plain line every ten seconds, and in a worker that the pipeline started a
line on the pipe (`W2S_PIPE=1`), which the pipeline shows in its own way.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from w2s.hidden import hidden, hide

MARK = "w2s: "  # what a worker's lines for the pipeline begin with
PLAIN_EVERY_S = 10.0
PIPE_EVERY_S = 0.5

_lock = threading.RLock()
_file: Path | None = None
_bars: Any = None  # one rich display for all threads: rich refuses a second one
_open_bars = 0


def is_main() -> bool:
    """Whether this process is rank 0 (or not one of several)."""
    return os.environ.get("RANK", "0") == "0"


def to_file(path: Path | None) -> None:
    """From now on, each line is also appended to `path` as JSON (None: to no file)."""
    global _file
    _file = path


def say(text: str, fields: dict[str, Any] | None = None) -> None:
    """One line on standard error; the same with `fields` as JSON, `{"time": seconds, "text": ...}`, in the log file."""
    if not is_main():
        return
    text = hide(text)
    with _lock:
        if _bars is not None:
            _bars.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)
        if _file is not None:
            _file.parent.mkdir(parents=True, exist_ok=True)  # with the first line: what is refused leaves no folder
            with open(_file, "a", encoding="utf-8", errors="backslashreplace") as file:
                line = {"time": round(time.time(), 3), "text": text, **hidden(fields or {})}
                file.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")


def to_pipe(message: dict[str, Any]) -> None:
    """A worker's line for the pipeline that started it."""
    with _lock:
        sys.stdout.write(MARK + json.dumps(message) + "\n")
        sys.stdout.flush()


Advance = Callable[..., None]


@contextmanager
def progress(total: int, what: str) -> Iterator[Advance]:
    """Shows how far `what` is; gives `advance(n=1, note="")`, which may be called from any thread."""
    if not is_main():
        yield lambda n=1, note="": None
    elif os.environ.get("W2S_PIPE"):
        yield _lines(total, lambda done, note: to_pipe({"progress": done, "of": total, "note": note}), PIPE_EVERY_S)
    elif sys.stderr.isatty():
        with _bar(total, what) as advance:
            yield advance
    else:
        yield _lines(total, lambda done, note: say(_plain(what, done, total, note)), PLAIN_EVERY_S)


def _plain(what: str, done: int, total: int, note: str) -> str:
    return f"{what}: {done} of {total} ({done / max(total, 1):.0%})" + (f", {note}" if note else "")


def _lines(total: int, show: Callable[[int, str], None], every_s: float) -> Advance:
    done, last = 0, time.monotonic()

    def advance(n: int = 1, note: str = "") -> None:
        nonlocal done, last
        with _lock:
            done += n
            if time.monotonic() - last < every_s:
                return
            last = time.monotonic()
            show(min(done, total), note)

    return advance


@contextmanager
def _bar(total: int, what: str) -> Iterator[Advance]:
    global _bars, _open_bars
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    with _lock:
        if _bars is None:
            columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
            columns += (TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False))
            from rich.console import Console

            _bars = Progress(*columns, console=Console(stderr=True), transient=True)
            _bars.start()
        _open_bars += 1
        task = _bars.add_task(what, total=total, note="")
    try:
        yield lambda n=1, note="": _bars.update(task, advance=n, note=note)
    finally:
        with _lock:
            _bars.remove_task(task)
            _open_bars -= 1
            if not _open_bars:
                _bars.stop()
                _bars = None
