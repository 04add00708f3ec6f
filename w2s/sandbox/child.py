"""Inside the walls: a warm process that forks one process per program, and what that process does.

The warm process never reads a program or a call: it gets a channel, forks, and the fork reads them from that channel.
So its memory, which every later program inherits, holds nothing of an earlier one. One program runs at a time.
"""

from __future__ import annotations

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

from w2s.sandbox import seccomp, walls
from w2s.sandbox.plain import NotPlain, Object, TooLarge, decode, encode

# Imported once, so that programs find them loaded.
WARM = (
    *("array", "base64", "bisect", "cmath", "collections", "contextlib", "copy", "ctypes", "dataclasses", "datetime"),
    *("decimal", "enum", "fractions", "functools", "heapq", "inspect", "io", "itertools", "json", "keyword"),
    *("math", "numbers", "operator", "queue", "random", "re", "statistics", "string", "struct", "textwrap"),
    *("threading", "time", "traceback", "typing", "unicodedata", "zlib"),
)
FRAME = struct.Struct("!I")
END = struct.Struct("!i?")  # wait status of the program, folder is empty again
STATUS_OF = {MemoryError: "memory", NotPlain: "not plain", TooLarge: "too large"}
THREADS = 64
FILE_MB = 16


def main(control: socket.socket, mode: str, root: str, folder: str, reads: list, hidden: list, scratch_mb: int) -> None:
    """Build the walls (mode: namespaces, bubblewrap or none), say so on `control`, then serve."""
    for name in WARM:
        importlib.import_module(name)
    try:
        if mode == "namespaces":
            walls.separate(control, root, reads, hidden, scratch_mb)
            walls.give_up_power()
        else:
            walls.call("prctl", walls.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            walls.call("prctl", walls.PR_SET_DUMPABLE, 0, 0, 0, 0)
        version = walls.landlock(reads, folder)
        filtered = seccomp.supported() and bool(seccomp.program(platform.machine()))  # built here, once
        ready = {"landlock": version, "seccomp": filtered}
    except OSError as error:
        ready = {"error": str(error)}
    send(control, ready)
    if "error" not in ready:
        gc.collect()
        gc.freeze()
        serve(control, folder, alone=os.getpid() == 1)
    os._exit(0)


def serve(control: socket.socket, folder: str, alone: bool) -> None:
    """One program after another: fork on a byte (and a channel), kill on the next byte or when the caller is gone."""
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
        if alone:  # as process 1 it can reach every other process of the namespace, and no one else
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
    """Remove what a program left behind; False when that fails (the warm process is then given up)."""
    try:
        for entry in os.scandir(folder):
            if stat.S_ISDIR(entry.stat(follow_symlinks=False).st_mode):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
        return True
    except (OSError, RecursionError):
        return False


def run(fd: int, folder: str) -> None:
    """The life of one program's process: read the order, shut the door, execute, answer calls until the end."""
    os.dup2(fd, 3)
    os.closerange(4, 1 << 16)
    channel = socket.socket(fileno=3)
    order = receive(channel)
    confine(order, folder)
    gc.enable()
    most = order["output_bytes"]
    objects: list = []

    def keep(value: object) -> Object:
        objects.append(value)
        return Object(len(objects) - 1)

    module = types.ModuleType("program")
    sys.modules["program"] = module
    for name in order["outside"]:
        setattr(module, name, outside(channel, name))
    try:
        exec(compile(order.pop("source"), "<program>", "exec"), module.__dict__)
        send(channel, {"status": "ok"})
    except BaseException as error:  # SystemExit too is an answer
        send(channel, failure(error))
    while (order_ := receive(channel)) is not None:
        for name, arguments, named in order_["calls"]:
            try:
                positional = [decode(one, objects.__getitem__) for one in arguments]
                keywords = {key: decode(one, objects.__getitem__) for key, one in named.items()}
                found = module.__dict__[name] if name in module.__dict__ else getattr(builtins, name)
                value = found(*positional, **keywords) if order_["call"] else found
                answer = {"status": "ok", "value": encode(value, keep if order["keep_objects"] else None, most // 3)}
            except BaseException as error:
                answer = failure(error)
            send(channel, answer, most)


def failure(error: BaseException) -> dict:
    kind = next((name for kind, name in STATUS_OF.items() if isinstance(error, kind)), "exception")
    try:
        text = str(error)[:300]
    except BaseException:
        text = ""
    return {"status": kind, "type": type(error).__name__, "text": text}


def outside(channel: socket.socket, name: str):
    """A function of the program whose work is done by the caller outside."""

    def ask(*arguments, **named):
        tree = {"args": [encode(one) for one in arguments], "kwargs": {k: encode(v) for k, v in named.items()}}
        send(channel, {"outside": name, **tree})
        answer = receive(channel)
        if "raise" in answer:
            kind = getattr(builtins, answer["raise"][0], None)
            known = isinstance(kind, type) and issubclass(kind, Exception)
            raise (kind if known else RuntimeError)(answer["raise"][1])
        return decode(answer["value"])

    return ask


def confine(order: dict, folder: str) -> None:
    """Limits that hold for this process alone, an environment with nothing in it, and the system call filter."""
    os.setsid()
    os.environ.clear()
    os.environ.update({"HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8"})
    sys.argv[:] = [""]
    seconds = int(order["timeout_s"]) + 2
    limits = {
        "AS": order["memory_mb"] << 20,
        "CPU": seconds,
        "FSIZE": FILE_MB << 20,
        "NOFILE": 64,
        "CORE": 0,
        "MEMLOCK": 0,
        "MSGQUEUE": 0,
    }
    if order["limit_threads"]:
        limits["NPROC"] = THREADS
    for name, value in limits.items():
        number = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(number)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (value, value))
    if order["seccomp"]:
        seccomp.install()


def send(channel: socket.socket, message: dict, most: int = 1 << 30) -> None:
    """One frame: the length in four bytes, then JSON. More than `most` bytes become the status "too large"."""
    body = json.dumps(message).encode()
    if len(body) > most:
        body = json.dumps({"status": "too large", "type": "", "text": f"{len(body)} bytes"}).encode()
    channel.sendall(FRAME.pack(len(body)) + body)


def receive(channel: socket.socket) -> dict | None:
    """The next frame, or None when the other end is closed."""
    head = channel.recv(4, socket.MSG_WAITALL)
    if len(head) < 4:
        return None
    (size,) = FRAME.unpack(head)
    return json.loads(channel.recv(size, socket.MSG_WAITALL))
