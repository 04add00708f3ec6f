"""One line for people, one JSON line for machines, from rank 0 only; progress.

Progress says how much is done, at what rate, and how long the rest takes. In a terminal it is a live line, elsewhere a
plain line every ten seconds; the log file gets these lines either way. In a worker that the pipeline started
(`W2S_PIPE=1`) it is a line on the pipe, which the pipeline shows.
"""

import collections
import json
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TextIO

from w2s.store.files import make_folder
from w2s.store.hidden import hide, hide_values

MARK = "w2s: "  # begins a worker's lines for the pipeline
PLAIN_EVERY_S = 10.0
PIPE_EVERY_S = 0.5
PACE_OF_S = 60.0

# Control characters except tab and newline, changes of writing direction, and surrogates.
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

UNSHOWN = "�"

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


def printable(text: str) -> str:
    """A text of a model or a file, with � for characters that steer a terminal or cannot be encoded."""
    return STEERING.sub(UNSHOWN, text.replace("\r\n", "\n"))


def tell(*words: object, file: TextIO | None = None) -> None:
    """`print` printable words without secrets: every command prints through here."""
    print(*(hide(printable(str(word))) for word in words), file=file)


def say(text: str, fields: dict[str, Any] | None = None) -> None:
    """One line on standard error, and with `fields` as JSON, `{"time": seconds, "text": ...}`, in the log file."""
    if not is_main():
        return
    text = hide(printable(text))
    with _lock:
        if _bars is not None:
            _bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)
        write_down(text, fields)


def write_down(text: str, fields: dict[str, Any] | None = None) -> None:
    """One line in the log file, if there is one."""
    if _file is None:
        return
    make_folder(_file.parent)  # with the first line: a refused command leaves no folder
    with _lock, open(_file, "a", encoding="utf-8", errors="backslashreplace") as file:
        line = {"time": round(time.time(), 3), "text": text, **hide_values(fields or {})}
        file.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")


def write_to_pipe(message: dict[str, Any]) -> None:
    """A worker's line for the pipeline that started it."""
    with _lock:
        sys.stdout.write(MARK + json.dumps(message) + "\n")
        sys.stdout.flush()


@contextmanager
def progress(total: int, what: str, *, done: int = 0) -> Iterator[Callable[..., None]]:
    """Show how far `what` is, starting at `done`; gives `advance(n=1, note="")`, for any thread."""
    with show_progress(what) as show:
        show(done, total)

        def advance(n: int = 1, note: str = "") -> None:
            nonlocal done
            with _lock:
                done += n
                show(min(done, total), total, note)

        yield advance


@contextmanager
def show_progress(what: str) -> Iterator[Callable[..., None]]:
    """Gives `show(done, total, note="")`; an empty note keeps the previous one.

    The first call says where the work begins, possibly half-way.
    """
    if not is_main():
        yield lambda done, total, note="": None
        return
    if os.environ.get("W2S_PIPE"):
        send = _every(PIPE_EVERY_S, write_to_pipe, at_once=True)  # so that the pipeline knows where it began
        yield lambda done, total, note="": send({"progress": done, "of": total, "note": note})
        return
    live = sys.stderr.isatty()
    words, line = _describe_progress(), _every(PLAIN_EVERY_S, write_down if live else say)
    with _bar(what) if live else nullcontext() as update:

        def show(done: int, total: int, note: str = "") -> None:
            text = words(done, total, note)
            if update is not None:
                update(done, max(total, 1), text)
            line(f"{what}: {text}")

        yield show


def _describe_progress() -> Callable[[int, int, str], str]:
    """'120 of 400 (30%), 12 per second, 23 s left, loss 0.31', at the pace of the last minute.

    The first item only starts the clock: loading and compiling came before it. A count that falls back begins anew: a
    job may have several parts.
    """
    begun: int | None = None
    pace: collections.deque[tuple[float, int]] = collections.deque()
    reached, last = 0, ""

    def words(done: int, total: int, note: str) -> str:
        nonlocal begun, reached, last
        if begun is None or done < reached:
            begun = done
            pace.clear()
        reached, last, now = done, note or last, time.monotonic()
        if done > begun and (not pace or now - pace[-1][0] >= 1):
            pace.append((now, done))
        while len(pace) > 2 and now - pace[0][0] > PACE_OF_S:
            pace.popleft()
        parts = [f"{done:,} of {total:,} ({done / max(total, 1):.0%})"]
        if pace and done > pace[0][1]:
            speed = (done - pace[0][1]) / max(now - pace[0][0], 1e-9)
            parts += [rate(speed)] + ([f"{duration((total - done) / speed)} left"] if done < total else [])
        return ", ".join([*parts, *([last] if last else [])])

    return words


def rate(per_s: float) -> str:
    """12.3 -> '12 per second', 0.05 -> '3 per minute'."""
    units = {"second": per_s, "minute": 60 * per_s, "hour": 3600 * per_s}
    unit = next((unit for unit, count in units.items() if count >= 1), "hour")
    return f"{units[unit]:,.{0 if units[unit] >= 9.95 else 1}f} per {unit}"


def duration(seconds: float) -> str:
    """5.31 -> '5.3 s', 125 -> '2 min 5 s', 7300 -> '2 h 2 min'."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _every(every_s: float, tell: Callable[[Any], None], *, at_once: bool = False) -> Callable[[Any], None]:
    """`tell` at most once in `every_s` seconds, and nothing twice in a row; unless `at_once`, work shorter than that is
    never reported."""
    last, told = -math.inf if at_once else time.monotonic(), None

    def now_and_then(message: Any) -> None:
        nonlocal last, told
        with _lock:
            if time.monotonic() - last >= every_s and message != told:
                last, told = time.monotonic(), message
                tell(message)

    return now_and_then


@contextmanager
def _bar(what: str) -> Iterator[Callable[..., None]]:
    """A live line on the one display that all threads share; gives `update(done, total, text)`."""
    global _bars, _open_bars
    with _lock:
        if _bars is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=20))
            columns += (TextColumn("{task.fields[text]}", markup=False),)
            _bars = Progress(*columns, console=Console(stderr=True), transient=True)
            _bars.start()
        _open_bars += 1
        task = _bars.add_task(what, total=None, text="")
    try:
        yield lambda done, total, text: _bars.update(task, completed=done, total=total, text=text)
    finally:
        with _lock:
            _bars.remove_task(task)
            _open_bars -= 1
            if not _open_bars:
                _bars.stop()
                _bars = None
