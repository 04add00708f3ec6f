"""Outside the walls: hand a program to a warm process, call its functions, and decode what comes back."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from w2s.sandbox import child
from w2s.sandbox.plain import NotPlain, decode, encode
from w2s.sandbox.tiers import Warm, tier

Status = Literal["ok", "exception", "timeout", "memory", "crashed", "too large", "not plain"]
Call = Sequence[Any]  # (function, arguments) or (function, arguments, keyword arguments)
GRACE_S = 10.0


@dataclass(frozen=True)
class Reply:
    """What a call gave: `value` when the status is ok, else `error` ("IndexError: list index out of range")."""

    status: Status
    value: Any = None
    error: str = ""


class Raised(Exception):
    """Raised by an `outside` function: the program sees the builtin exception of that name."""


class Program:
    """One program in its own process. `timeout_s` is the wall time of all its work together, loading included."""

    def __init__(
        self,
        warm: Warm,
        source: str,
        *,
        timeout_s: float = 5.0,
        memory_mb: int = 512,
        output_bytes: int = 1 << 20,
        keep_objects: bool = False,
        outside: Mapping[str, Callable] | None = None,
    ):
        self.warm, self.left_s, self.output_bytes, self.outside = warm, timeout_s, output_bytes, outside or {}
        self.ended: Reply | None = None
        self.usable = True
        self.channel, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(warm.control, [b"F"], [theirs.fileno()])
        walled = warm.mode != "none"
        order = {"source": source, "timeout_s": timeout_s, "memory_mb": memory_mb, "output_bytes": output_bytes}
        order |= {"keep_objects": keep_objects, "outside": sorted(self.outside)}
        # Without a user namespace the kernel would count every process of the user against the limit.
        self.send(order | {"limit_threads": walled, "seccomp": warm.features["seccomp"]})

    def load(self) -> Reply:
        """Execute the source; unless that gives ok, every call gets the same reply. Before the first call, once."""
        loaded = self.receive()
        if self.ended is None and loaded.status != "ok":
            self.ended = loaded
        self.loaded = loaded
        return loaded

    def calls(self, calls: Sequence[Call]) -> Iterator[Reply]:
        """A Reply for each call, as they come. After a timeout or a crash the remaining calls get the same reply."""
        yield from self.ask([(name, args, rest[0] if rest else {}) for name, args, *rest in calls], call=True)

    def call(self, name: str, *args: Any, **named: Any) -> Reply:
        return next(self.ask([(name, args, named)], call=True))

    def look(self, name: str) -> Reply:
        """The value of a global name of the program."""
        return next(self.ask([(name, (), {})], call=False))

    def ask(self, calls: Sequence[tuple], call: bool) -> Iterator[Reply]:
        coded = [
            (name, [encode(one) for one in args], {key: encode(one) for key, one in named.items()})
            for name, args, named in calls
        ]
        if self.ended is None:
            self.send({"calls": coded, "call": call})
        for _ in coded:
            yield self.ended or self.receive()

    def send(self, message: dict) -> None:
        started = time.monotonic()
        try:
            self.channel.settimeout(max(self.left_s, 0.001))
            child.send(self.channel, message)
        except TimeoutError:
            self.ended = Reply("timeout", error="it did not take its calls in time")
        except OSError:
            self.ended = self.crash()
        self.left_s -= time.monotonic() - started

    def receive(self) -> Reply:
        """The next reply; calls of `outside` functions are served meanwhile, and their time is not counted."""
        if self.ended:
            return self.ended
        while True:
            try:
                message = json.loads(self.frame())
                if "outside" in message:
                    self.serve(message)
                    continue
                status = message["status"]
                if status == "ok":
                    return Reply("ok", decode(message.get("value")))
                if status in ("exception", "memory", "not plain", "too large"):
                    return Reply(status, error=f"{str(message['type'])[:80]}: {str(message['text'])[:300]}")
                raise ValueError("unknown status")
            except NotPlain as error:
                return Reply("not plain", error=str(error))
            except RecursionError:
                return Reply("not plain", error="nested too deeply")
            except TimeoutError:
                self.ended = Reply("timeout", error="it took longer than it may")
            except OverflowError as error:
                self.ended = Reply("too large", error=str(error))
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                self.ended = self.crash()
            return self.ended

    def frame(self) -> bytes:
        """The bytes of the next frame. TimeoutError, OverflowError (longer than allowed) or OSError (closed)."""
        (size,) = child.FRAME.unpack(self.read(4))
        if size > self.output_bytes:
            raise OverflowError(f"{size} bytes; allowed: {self.output_bytes}")
        return self.read(size)

    def read(self, size: int) -> bytes:
        parts = []
        while size:
            started = time.monotonic()
            self.channel.settimeout(max(self.left_s, 0.001))
            part = self.channel.recv(min(size, 1 << 20))
            self.left_s -= time.monotonic() - started
            if not part:
                raise OSError("closed")
            if self.left_s <= 0:
                raise TimeoutError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def serve(self, message: dict) -> None:
        function = self.outside[message["outside"]]
        arguments = [decode(one) for one in message["args"]]
        named = {key: decode(one) for key, one in message["kwargs"].items()}
        try:
            answer = {"value": encode(function(*arguments, **named))}
        except Raised as error:
            answer = {"raise": [str(one) for one in error.args]}
        self.send(answer)

    def crash(self) -> Reply:
        """What the end of the process tells; called when its channel was closed or it wrote nonsense to it."""
        status = self.close()
        if status is not None and os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number in (signal.SIGXCPU, signal.SIGKILL) and self.left_s < 0.5:
                return Reply("timeout", error="it took longer than it may")
            return Reply("crashed", error=f"ended by {signal.Signals(number).name}")
        return Reply("crashed", error="it left, or wrote what is no reply")

    def close(self) -> int | None:
        """Kill the process, all that it started, and its folder. Returns its wait status; None the second time."""
        if not self.usable:
            return None
        self.usable = False
        self.channel.close()
        self.ended = self.ended or Reply("crashed", error="closed")
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
    outside: Mapping[str, Callable] | None = None,
    allow_unsandboxed: bool = False,
) -> Iterator[Program]:
    """A program, loaded and ready to be called many times; its process, threads and folder are gone afterwards.

    keep_objects: results that are not plain data stay inside and come back as `Object`s, which can be arguments again.
    outside: functions that the program may call by name; they run here, with plain data (used to keep tests and the
    program they test in two sandboxes). Raises Unsafe where the machine offers no sandbox and none was waived.
    """
    warm = borrow(tier(allow_unsandboxed=allow_unsandboxed))
    program = Program(
        warm,
        source,
        timeout_s=timeout_s,
        memory_mb=memory_mb,
        output_bytes=output_bytes,
        keep_objects=keep_objects,
        outside=outside,
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
