"""Outside the walls: hand a program to a warm process, call its functions, and pass on what comes back."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import json
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from w2s.sandbox import child
from w2s.sandbox.plain import decode, encode
from w2s.sandbox.tiers import START_S, Warm, tier

Status = Literal["ok", "exception", "timeout", "memory", "crashed", "too large", "not plain"]
Call = Sequence[Any]  # (function, arguments) or (function, arguments, keyword arguments)
GRACE_S = 10.0


@dataclass(frozen=True)
class Reply:
    """What a call gave: `value` when the status is ok, else `error` ("IndexError: list index out of range")."""

    status: Status
    body: bytes = b""

    @property
    def value(self) -> Any:
        """Decoded here and now, in this process: for what a program that is trusted gives."""
        return decode(json.loads(self.body)) if self.status == "ok" else None

    @property
    def error(self) -> str:
        return "" if self.status == "ok" else child.readable(self.body)

    def __str__(self) -> str:
        return f"{self.status}: {self.error}".rstrip(": ")


class Program:
    """One program in its own process. `timeout_s` is the wall time of all its work together, loading included.

    What it says stays bytes here (see `w2s.sandbox.compare` for who reads it). partner: the program that it may ask by
    `_partner`.
    """

    def __init__(
        self,
        warm: Warm,
        source: str,
        *,
        timeout_s: float = 5.0,
        memory_mb: int = 512,
        output_bytes: int = 1 << 20,
        keep_objects: bool = False,
        partner: Program | None = None,
    ):
        self.warm, self.left_s, self.output_bytes, self.partner = warm, timeout_s, output_bytes, partner
        self.ended: Reply | None = None
        self.failed: Reply | None = None  # the last reply to a partner that was not ok
        self.usable = True
        self.channel, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(warm.control, [b"F"], [theirs.fileno()])
        walled = warm.mode != "none"
        order = {"source": source, "timeout_s": timeout_s, "memory_mb": memory_mb, "output_bytes": output_bytes}
        order |= {"keep_objects": keep_objects, "partner": partner is not None}
        # Without a user namespace the kernel would count every process of the user against the limit.
        order |= {"limit_threads": walled, "seccomp": warm.features["seccomp"]}
        self.send("order", json.dumps(order).encode())

    def load(self) -> Reply:
        """Execute the source; unless that gives ok, every call gets the same reply. Before the first call, once."""
        self.loaded = self.receive()
        if self.loaded.status != "ok":
            self.ended = self.ended or self.loaded
        return self.loaded

    def calls(self, calls: Sequence[Call]) -> Iterator[Reply]:
        """A Reply for each call, as they come. After a timeout or a crash the remaining calls get the same reply."""
        self.send("order", coded(calls))
        for _ in calls:
            yield self.receive()

    def call(self, name: str, arguments: Sequence[Any], *, beside: Iterable[Reply] = (), count: int = 0) -> Reply:
        """One call, during which it is shown `count` replies of its partner, each after the next one of `beside`."""
        self.send("order", coded([(name, arguments)]))
        self.show(count, beside)
        return self.receive()

    def look(self, name: str) -> Reply:
        """The value of a global name of the program."""
        self.send("order", json.dumps([[name, [], {}, True]]).encode())
        return self.receive()

    def send(self, kind: str, body: bytes) -> None:
        if self.ended:
            return
        started = time.monotonic()
        try:
            self.channel.settimeout(max(self.left_s, 0.001))
            child.send(self.channel, kind, body)
        except TimeoutError:
            self.ended = Reply("timeout", b"it did not take its calls in time")
        except OSError:
            self.ended = self.crash()
        self.left_s -= time.monotonic() - started

    def receive(self) -> Reply:
        """The next reply; what it asks its partner is passed on meanwhile, and that time is not counted."""
        while not self.ended:
            try:
                kind, body = self.frame()
                if kind == "call" and self.partner:
                    (count,) = child.COUNT.unpack_from(body)
                    self.partner.send("order", body[child.COUNT.size :])
                    self.show(count)
                elif kind in ("ok", "exception", "memory", "not plain", "too large"):
                    return Reply(kind, body)
                else:
                    raise ValueError("no answer")
            except TimeoutError:
                self.ended = Reply("timeout", b"it took longer than it may")
            except OverflowError as error:
                self.ended = Reply("too large", str(error).encode())
            except (OSError, ValueError, IndexError, child.struct.error):
                self.ended = self.crash()
        return self.ended

    def show(self, count: int, beside: Iterable[Reply] = ()) -> None:
        """Pass on so many replies of the partner, as they are, until this program has said something."""
        fellows = iter(beside)
        for _ in range(count):
            if self.ended or not self.partner.wait(self.channel):
                return
            reply = self.partner.receive()
            if reply.status != "ok":
                self.partner.failed = reply
            for one in (*itertools.islice(fellows, 1), reply):
                self.send(one.status, one.body)

    def wait(self, other: socket.socket) -> bool:
        """Until this program has something to say, or its time is over; False as soon as `other` can be read."""
        if self.ended:
            return True
        started, both = time.monotonic(), select.poll()
        both.register(self.channel, select.POLLIN)
        both.register(other, select.POLLIN)
        ready = both.poll(max(self.left_s, 0) * 1000)
        self.left_s -= time.monotonic() - started
        return other.fileno() not in dict(ready)

    def frame(self) -> tuple[str, bytes]:
        """(kind, body) of the next frame. TimeoutError, OverflowError (longer than allowed) or OSError (closed)."""
        started = time.monotonic()
        try:
            size, kind = child.HEAD.unpack(self.read(child.HEAD.size, started + self.left_s))
            if size > self.output_bytes:
                raise OverflowError(f"{size} bytes; allowed: {self.output_bytes}")
            return child.KINDS[kind], self.read(size, started + self.left_s)
        finally:
            self.left_s -= time.monotonic() - started

    def read(self, size: int, until: float) -> bytearray:
        held, at = bytearray(size), 0
        while at < size:
            left_s = until - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            self.channel.settimeout(left_s)
            count = self.channel.recv_into(memoryview(held)[at:])
            if not count:
                raise OSError("closed")
            at += count
        return held

    def crash(self) -> Reply:
        """What the end of the process tells; called when its channel was closed or it wrote nonsense to it."""
        status = self.close()
        if status is not None and os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number in (signal.SIGXCPU, signal.SIGKILL) and self.left_s < 0.5:
                return Reply("timeout", b"it took longer than it may")
            named = {one.value: one.name for one in signal.Signals}  # real-time signals have no name
            return Reply("crashed", f"ended by {named.get(number, f'signal {number}')}".encode())
        return Reply("crashed", b"it left, or wrote what is no reply")

    def close(self) -> int | None:
        """Kill the process, all that it started, and its folder. Returns its wait status; None the second time."""
        if not self.usable:
            return None
        self.usable = False
        self.channel.close()
        self.ended = self.ended or Reply("crashed", b"closed")
        try:
            self.warm.control.settimeout(GRACE_S)
            self.warm.control.send(b"K")
            status, clean = child.END.unpack(self.warm.control.recv(child.END.size, socket.MSG_WAITALL))
        except (OSError, ValueError, child.struct.error):
            status, clean = None, False
        if not clean:
            self.warm.end()
        self.warm.clean = clean
        return status


def coded(calls: Sequence[Call]) -> bytes:
    """The order to make these calls. NotPlain where an argument is no plain data."""
    parts = [(name, list(args), rest[0] if rest else {}) for name, args, *rest in calls]
    return json.dumps(
        [
            [name, [encode(one) for one in args], {key: encode(one) for key, one in named.items()}, False]
            for name, args, named in parts
        ]
    ).encode()


_idle: list[Warm] = []
_lock = threading.Lock()


@contextlib.contextmanager
def open_program(
    source: str,
    *,
    timeout_s: float = 5.0,
    memory_mb: int = 512,
    output_bytes: int = 1 << 20,
    keep_objects: bool = False,
    partner: Program | None = None,
    allow_unsandboxed: bool = False,
) -> Iterator[Program]:
    """A program, loaded and ready to be called many times; its process, threads and folder are gone afterwards.

    keep_objects: results that are not plain data stay inside and come back as `Object`s, which can be arguments again.
    partner: a program that this one may ask, so that tests and the program they test are in two sandboxes. Raises
    Unsafe where the machine offers no sandbox and none was waived.
    """
    warm = borrow(tier(allow_unsandboxed=allow_unsandboxed))
    program = Program(
        warm,
        source,
        timeout_s=timeout_s,
        memory_mb=memory_mb,
        output_bytes=output_bytes,
        keep_objects=keep_objects,
        partner=partner,
    )
    try:
        program.load()
        yield program
    finally:
        program.close()
        if warm.clean:
            with _lock:
                _idle.append(warm)


def run_program(
    source: str,
    calls: Sequence[Call],
    *,
    timeout_s: float = 5.0,
    memory_mb: int = 512,
    output_bytes: int = 1 << 20,
    allow_unsandboxed: bool = False,
) -> list[Reply]:
    """Execute `source` in a sandboxed process, make the calls there, and return one Reply per call.

    calls: (function name, arguments) or (function name, arguments, keyword arguments); plain data only: None, bool,
    int, float, complex, str, bytes, list, tuple, set, frozenset, dict. timeout_s: wall time of everything; memory_mb:
    of its address space; output_bytes: of one encoded result. Raises Unsafe where there is no sandbox and NotPlain
    for arguments.
    """
    limits = {"timeout_s": timeout_s, "memory_mb": memory_mb, "output_bytes": output_bytes}
    with open_program(source, **limits, allow_unsandboxed=allow_unsandboxed) as program:
        return list(program.calls(calls))


@functools.cache
def lends(library: str, memory_mb: int, allow_unsandboxed: bool) -> bool:
    """Whether a program with so much memory can import one of LIBRARIES here, found by trying once."""
    limits = {"timeout_s": START_S, "memory_mb": memory_mb, "allow_unsandboxed": allow_unsandboxed}
    with open_program(f"import {library}", **limits) as program:
        return program.loaded.status == "ok"


def borrow(mode: str) -> Warm:
    """An idle warm process of this very process (a fork must not share its parent's), or a new one."""
    with _lock:
        while _idle:
            warm = _idle.pop()
            if warm.owner == os.getpid() and warm.mode == mode and warm.process.poll() is None:
                return warm
    return Warm(mode)


@atexit.register
def end_all() -> None:
    """Give up the idle warm processes."""
    with _lock:
        while _idle:
            warm = _idle.pop()
            if warm.owner == os.getpid():
                warm.end()
