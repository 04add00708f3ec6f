"""Work on many rows at once, in threads: each waits for a sandboxed program or for math-verify."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from w2s.sandbox.program import Limits
from w2s.sandbox.tiers import Unsafe, tier
from w2s.store.records import BadInput

Result = TypeVar("Result")
Progress = Callable[[int, int], None]  # progress(done, all)


def map_rows(
    work: Callable[..., Result],
    rows: Sequence[tuple],
    limits: Limits,
    keep: Callable[[int, Result], None] | None = None,
    progress: Progress | None = None,
) -> list[Result]:
    """`work(*row, limits)` of each row, in order, as many rows at a time as there are cores.

    A row begins with its Example. After each row `keep(position, result)` and `progress(done, all)` are called, one
    at a time. BadInput, before the first row, if programs cannot be run safely.
    """
    if any(row[0].task == "code" for row in rows):
        try:
            tier(allow_unsandboxed=limits.allow_unsandboxed)
        except Unsafe as error:
            raise BadInput(str(error)) from None
    done, lock = 0, threading.Lock()

    def work_on(at: int, row: tuple) -> Result:
        nonlocal done
        result = work(*row, limits)
        with lock:
            done += 1
            if keep:
                keep(at, result)
            if progress:
                progress(done, len(rows))
        return result

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(work_on, range(len(rows)), rows))
