"""Inside the walls: a warm process that forks one process per program, and what that process does.

The warm process never reads a program or a call: it gets a channel and forks, and the fork reads them from it. So its
memory, which every later program inherits, holds nothing of an earlier one. One program runs at a time.
"""

import __future__

import builtins
import contextlib
import gc
import importlib
import json
import os
import platform
import resource
import shutil
import signal
import socket
import stat
import struct
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from w2s.sandbox import seccomp, walls
from w2s.sandbox.plain import NotPlain, Object, TooLarge, decode, encode

# Imported once, in the warm process; every program inherits them.
WARM = (
    *("array", "base64", "bisect", "cmath", "collections", "contextlib", "copy", "ctypes", "dataclasses", "datetime"),
    *("decimal", "enum", "fractions", "functools", "heapq", "inspect", "io", "itertools", "json", "keyword"),
    *("math", "numbers", "operator", "queue", "random", "re", "statistics", "string", "struct", "textwrap"),
    *("threading", "time", "traceback", "typing", "unicodedata", "zlib"),
)
HEAD = struct.Struct("!IB")  # of a frame: the size of its body, and its kind (position in KINDS)
COUNT = struct.Struct("!I")
END = struct.Struct("!i?")  # wait status of the program, folder is empty again
KINDS = ("order", "ok", "exception", "memory", "not plain", "too large", "timeout", "crashed", "call")
STATUS_OF = {MemoryError: "memory", NotPlain: "not plain", TooLarge: "too large"}
Channel = socket.socket
THREADS = 64
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # else numpy's threads fill the address space
FILE_MB = 16


def main(
    control: Channel, mode: str, root: str, folder: str, reads: list, hidden: list, libraries: list, scratch_mb: int
) -> None:
    """Build the walls (mode: namespaces, bubblewrap or none), report on `control`, then serve."""
    for name in WARM:
        importlib.import_module(name)
    try:
        if mode == "namespaces":
            walls.separate(control, root, reads, hidden, libraries, scratch_mb)
            walls.give_up_power()
        else:
            walls.call("prctl", walls.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            walls.call("prctl", walls.PR_SET_DUMPABLE, 0, 0, 0, 0)
        lent = libraries if mode == "none" else [walls.LIBRARIES]
        sys.path += dict.fromkeys(map(os.path.dirname, lent)) if mode == "none" else lent
        version = walls.landlock([*reads, *lent], folder)
        filtered = seccomp.supported() and bool(seccomp.program(platform.machine()))  # built here, once
        ready = {"landlock": version, "seccomp": filtered}
    except OSError as error:
        ready = {"error": str(error)}
    send(control, "ok", json.dumps(ready).encode())
    if "error" not in ready:
        gc.collect()
        gc.freeze()
        serve(control, folder, alone=os.getpid() == 1)
    os._exit(0)


def serve(control: Channel, folder: str, alone: bool) -> None:
    """Serve one program after another: fork on a byte (with a channel), kill on the next or when the caller exits."""
    os.chdir(folder)
    while True:
        byte, channels, _, _ = socket.recv_fds(control, 1, 1)
        if not byte:
            return
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                run(channels[0], folder)
            os._exit(1)
        os.close(channels[0])
        byte = control.recv(1)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        if alone:  # process 1 reaches every other process of its namespace, and none outside
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        while alone and reap():
            pass
        if not byte:
            empty(folder)
            return
        control.send(END.pack(status, empty(folder)))


def reap() -> bool:
    try:
        os.waitpid(-1, 0)
        return True
    except ChildProcessError:
        return False


def empty(folder: str) -> bool:
    """Remove what a program left behind; False when that fails (the warm process is then ended)."""
    try:
        os.chmod(folder, 0o700)  # the program owns it and may have closed it to later ones
        for entry in os.scandir(folder):
            if stat.S_ISDIR(entry.stat(follow_symlinks=False).st_mode):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
        return True
    except (OSError, RecursionError):
        return False


def run(fd: int, folder: str) -> None:
    """The life of one program's process: read the order, confine itself, execute, answer calls until the end."""
    os.dup2(fd, 3)
    null = os.open("/dev/null", os.O_RDWR)  # inherited descriptors share flags, owners and locks with other programs
    for number in range(3):
        os.dup2(null, number)
    os.closerange(4, 1 << 16)
    channel = socket.socket(fileno=3)
    order = json.loads(receive(channel)[1])
    confine(order, folder)
    gc.enable()
    most = order["output_bytes"]
    objects: list = []

    def keep(value: object) -> Object:
        objects.append(value)
        return Object(len(objects) - 1)

    def answer(name: str, arguments: list, named: dict, look: bool) -> bytes:
        positional = [decode(value, objects.__getitem__) for value in arguments]
        keywords = {key: decode(value, objects.__getitem__) for key, value in named.items()}
        target = module.__dict__[name] if name in module.__dict__ else getattr(builtins, name)
        value = target if look else target(*positional, **keywords)
        body = json.dumps(encode(value, keep if order["keep_objects"] else None, most // 3)).encode()
        if len(body) > most:
            raise TooLarge(f"{len(body)} bytes")
        return body

    module = types.ModuleType("program")
    sys.modules["program"] = module
    if order["partner"]:
        module._partner = Partner(channel)
    try:
        # Annotations are not evaluated: models write `List[int]` without the import, and nothing depends on it.
        code = compile(order.pop("source"), "<program>", "exec", flags=__future__.annotations.compiler_flag)
        exec(code, module.__dict__)
        send(channel, "ok")
    except BaseException as error:  # SystemExit is an answer too
        send(channel, *describe_failure(error))
    while (frame := receive(channel)) is not None:
        for call in json.loads(frame[1]) if frame[0] == "order" else ():  # else a reply that nobody awaits any more
            try:
                reply = "ok", answer(*call)
            except BaseException as error:
                reply = describe_failure(error)
            send(channel, *reply)


def describe_failure(error: BaseException) -> tuple[str, bytes]:
    kind = next((name for kind, name in STATUS_OF.items() if isinstance(error, kind)), "exception")
    try:
        text = str(error)[:300]
    except BaseException:
        text = ""
    return kind, f"{type(error).__name__[:80]}: {text}".encode(errors="replace")


def readable(body: bytes) -> str:
    """The text of an error, on one line and without control characters."""
    return "".join(sign if sign.isprintable() else " " for sign in bytes(body[:400]).decode(errors="replace"))


class Partner:
    """The program under test, seen from the process of its tests: its replies pass through the judge, unread."""

    def __init__(self, channel: Channel):
        self.channel = channel

    def replies(self, count: int) -> Iterator[tuple[str, Any]]:
        """(status, value or error) of `count` replies; a value that cannot be read has the status "not plain"."""
        for _ in range(count):
            kind, body = receive(self.channel)
            try:
                reply = kind, decode(json.loads(body)) if kind == "ok" else readable(body)
            except (ValueError, RecursionError) as error:
                reply = "not plain", f"{type(error).__name__}: {error}"[:200]
            yield reply

    def ask(self, name: str, arguments: Sequence, named: Mapping[str, Any], look: bool = False) -> Any:
        """The result of a function or (look) the value of a global. Exceptions are raised under their builtin names."""
        keywords = {key: encode(value) for key, value in named.items()}
        order = [[name, [encode(value) for value in arguments], keywords, look]]
        send(self.channel, "call", COUNT.pack(1) + json.dumps(order).encode())
        ((status, result),) = self.replies(1)
        if status == "exception":
            kind, _, text = result.partition(": ")
            known = getattr(builtins, kind, None)
            raise (known if isinstance(known, type) and issubclass(known, Exception) else RuntimeError)(text)
        if status != "ok":
            send(self.channel, status, result.encode(errors="replace"))
            os._exit(0)  # no further results, whatever the tests would catch
        return result

    def function(self, name: str) -> Callable:
        return lambda *arguments, **named: self.ask(name, arguments, named)

    def value(self, name: str) -> Any:
        return self.ask(name, (), {}, look=True)


def confine(order: dict, folder: str) -> None:
    """Limits for this process only, a minimal environment, and the system call filter."""
    os.setsid()
    os.environ.clear()
    os.environ.update({"HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8"} | ONE_THREAD)
    sys.argv[:] = [""]
    seconds = int(order["timeout_s"]) + 2
    limits = {"AS": order["memory_mb"] << 20, "CPU": seconds, "FSIZE": FILE_MB << 20, "NOFILE": 64}
    limits |= {"CORE": 0, "MEMLOCK": 0, "MSGQUEUE": 0}
    if order["limit_threads"]:
        limits["NPROC"] = THREADS
    for name, value in limits.items():
        number = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(number)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (value, value))
    if order["seccomp"]:
        seccomp.install()


def send(channel: Channel, kind: str, body: bytes = b"") -> None:
    """One frame: its head, then the body (JSON for "order", "ok" and "call", else the text of an error)."""
    channel.sendall(HEAD.pack(len(body), KINDS.index(kind)) + body)


def receive(channel: Channel) -> tuple[str, bytes] | None:
    """The next frame, or None if the other end is closed."""
    head = channel.recv(HEAD.size, socket.MSG_WAITALL)
    if len(head) < HEAD.size:
        return None
    size, kind = HEAD.unpack(head)
    return KINDS[kind], channel.recv(size, socket.MSG_WAITALL)
