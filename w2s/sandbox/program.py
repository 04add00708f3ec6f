"""One untrusted program in its own process, seen from outside the walls."""

from __future__ import annotations

import itertools
import json
import os
import select
import signal
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from w2s.sandbox import child
from w2s.sandbox.plain import decode, encode
from w2s.sandbox.warm import Warm

Status = Literal["ok", "exception", "timeout", "memory", "crashed", "too large", "not plain"]
Call = Sequence[Any]  # (function, arguments) or (function, arguments, keyword arguments)
GRACE_S = 10.0


@dataclass(frozen=True)
class Limits:
    """What a program may use.

    timeout_s: wall time of all its work, loading included. memory_mb: its address space. output_bytes: one encoded
    result. allow_unsandboxed: run it without walls where the machine offers none.
    """

    timeout_s: float = 5.0
    memory_mb: int = 512
    output_bytes: int = 1 << 20
    allow_unsandboxed: bool = False


@dataclass(frozen=True)
class Reply:
    """The result of a call: `value` when the status is ok, else `error` ("IndexError: list index out of range")."""

    status: Status
    body: bytes = b""

    @property
    def value(self) -> Any:
        """The result, decoded in this process: for trusted programs only."""
        return decode(json.loads(self.body)) if self.status == "ok" else None

    @property
    def error(self) -> str:
        return "" if self.status == "ok" else child.readable(self.body)

    def __str__(self) -> str:
        return f"{self.status}: {self.error}".rstrip(": ")


class Program:
    """One program in its own process.

    Its output stays bytes here (`w2s.sandbox.compare` reads it). partner: the program that it may call as `_partner`.
    """

    def __init__(
        self, warm: Warm, source: str, limits: Limits, *, keep_objects: bool = False, partner: Program | None = None
    ):
        self.warm, self.left_s, self.partner = warm, limits.timeout_s, partner
        self.output_bytes = limits.output_bytes
        self.ended: Reply | None = None
        self.failed: Reply | None = None  # the last reply to a partner that was not ok
        self.usable = True
        self.channel, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(warm.control, [b"F"], [theirs.fileno()])
        order = {"source": source, "timeout_s": limits.timeout_s, "memory_mb": limits.memory_mb}
        order |= {"output_bytes": limits.output_bytes, "keep_objects": keep_objects, "partner": partner is not None}
        # Without a user namespace the kernel would count every process of the user against the limit.
        order |= {"limit_threads": warm.mode != "none", "seccomp": warm.features["seccomp"]}
        self.send("order", json.dumps(order).encode())

    def load(self) -> Reply:
        """Execute the source, once, before the first call; unless that is ok, every call gets the same reply."""
        self.loaded = self.receive()
        if self.loaded.status != "ok":
            self.ended = self.ended or self.loaded
        return self.loaded

    def calls(self, calls: Sequence[Call]) -> Iterator[Reply]:
        """A Reply for each call, in order. After a timeout or a crash the remaining calls get the same reply."""
        self.send("order", encode_calls(calls))
        for _ in calls:
            yield self.receive()

    def call(self, name: str, arguments: Sequence[Any], *, beside: Iterable[Reply] = (), count: int = 0) -> Reply:
        """One call, during which the program gets `count` replies of its partner, each after the next of `beside`."""
        self.send("order", encode_calls([(name, arguments)]))
        self.pass_on(count, beside)
        return self.receive()

    def send(self, kind: str, body: bytes) -> None:
        if self.ended:
            return
        started = time.monotonic()
        try:
            self.channel.settimeout(max(self.left_s, 0.001))
            child.send(self.channel, kind, body)
        except TimeoutError:
            self.ended = Reply("timeout", b"it did not read its calls in time")
        except OSError:
            self.ended = self.crash()
        self.left_s -= time.monotonic() - started

    def receive(self) -> Reply:
        """The next reply. Calls to the partner are passed on meanwhile; that time is not counted."""
        while not self.ended:
            try:
                kind, body = self.frame()
                if kind == "call" and self.partner:
                    (count,) = child.COUNT.unpack_from(body)
                    self.partner.send("order", body[child.COUNT.size :])
                    self.pass_on(count)
                elif kind in ("ok", "exception", "memory", "not plain", "too large"):
                    return Reply(kind, body)
                else:
                    raise ValueError("no answer")
            except TimeoutError:
                self.ended = Reply("timeout", b"it exceeded its time limit")
            except OverflowError as error:
                self.ended = Reply("too large", str(error).encode())
            except (OSError, ValueError, IndexError, child.struct.error):
                self.ended = self.crash()
        return self.ended

    def pass_on(self, count: int, beside: Iterable[Reply] = ()) -> None:
        """Pass on `count` replies of the partner, unread, until this program has written something."""
        companions = iter(beside)
        for _ in range(count):
            if self.ended or not self.partner.wait(self.channel):
                return
            reply = self.partner.receive()
            if reply.status != "ok":
                self.partner.failed = reply
            for message in (*itertools.islice(companions, 1), reply):
                self.send(message.status, message.body)

    def wait(self, other: socket.socket) -> bool:
        """Wait for this program's output or the end of its time; False as soon as `other` can be read."""
        if self.ended:
            return True
        started, both = time.monotonic(), select.poll()
        both.register(self.channel, select.POLLIN)
        both.register(other, select.POLLIN)
        ready = both.poll(max(self.left_s, 0) * 1000)
        self.left_s -= time.monotonic() - started
        return other.fileno() not in dict(ready)

    def frame(self) -> tuple[str, bytes]:
        """(kind, body) of the next frame. Raises TimeoutError, OverflowError (too long) or OSError (closed)."""
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
        """Why the process ended; called when its channel is closed or carries nonsense."""
        status = self.close()
        if status is not None and os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number in (signal.SIGXCPU, signal.SIGKILL) and self.left_s < 0.5:
                return Reply("timeout", b"it exceeded its time limit")
            names = {known.value: known.name for known in signal.Signals}  # real-time signals have no name
            return Reply("crashed", f"ended by {names.get(number, f'signal {number}')}".encode())
        return Reply("crashed", b"it exited, or wrote an invalid reply")

    def close(self) -> int | None:
        """Kill the process and all that it started, and empty its folder. Returns its wait status, then None."""
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


def encode_calls(calls: Sequence[Call]) -> bytes:
    """The body of an order to make these calls; NotPlain if an argument is not plain data."""
    order = []
    for name, arguments, *rest in calls:
        keywords = {key: encode(value) for key, value in rest[0].items()} if rest else {}
        order.append([name, [encode(value) for value in arguments], keywords, False])
    return json.dumps(order).encode()
