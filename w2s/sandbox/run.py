"""Open a program behind the walls; the warm processes that wait for the next one."""

import atexit
import contextlib
import functools
import os
import threading
from collections.abc import Iterator
from dataclasses import replace

from w2s.sandbox.program import Limits, Program
from w2s.sandbox.tiers import tier
from w2s.sandbox.warm import START_S, Warm

_idle: list[Warm] = []
_lock = threading.Lock()


@contextlib.contextmanager
def open_program(
    source: str, limits: Limits, *, keep_objects: bool = False, partner: Program | None = None
) -> Iterator[Program]:
    """A program, loaded and ready for many calls; its process, threads and folder are gone afterwards.

    keep_objects: results that are not plain data stay inside and come back as `Object`s, which can be arguments again.
    partner: a program that this one may call, so that tests and the tested program run in two sandboxes. Raises
    Unsafe where the machine offers no sandbox and limits.allow_unsandboxed is false.
    """
    warm = borrow(tier(allow_unsandboxed=limits.allow_unsandboxed))
    program = Program(warm, source, limits, keep_objects=keep_objects, partner=partner)
    try:
        program.load()
        yield program
    finally:
        program.close()
        if warm.clean:
            with _lock:
                _idle.append(warm)


@functools.cache
def lends(library: str, limits: Limits) -> bool:
    """Whether a program within `limits` can import `library`, one of LIBRARIES, here; tried once."""
    with open_program(f"import {library}", replace(limits, timeout_s=START_S)) as program:
        return program.loaded.status == "ok"


def borrow(mode: str) -> Warm:
    """An idle warm process that this process started (a fork must not use its parent's), or a new one."""
    with _lock:
        while _idle:
            warm = _idle.pop()
            if warm.owner == os.getpid() and warm.mode == mode and warm.process.poll() is None:
                return warm
    return Warm(mode)


@atexit.register
def end_all() -> None:
    """End the idle warm processes."""
    with _lock:
        while _idle:
            warm = _idle.pop()
            if warm.owner == os.getpid():
                warm.end()
