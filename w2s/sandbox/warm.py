"""Warm processes behind their walls: how one is started, and which files of this machine it sees."""

import functools
import importlib.resources
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from typing import Any

from w2s.sandbox import child, walls

SCRATCH_MB = 64
START_S = 30.0
# Packages lent to programs where they are installed beside w2s, and their dependencies.
LIBRARIES = ("numpy", "scipy", "sympy", "pandas", "networkx")
NEEDED = ("mpmath", "dateutil", "six", "pytz", "tzdata")
MODULES = ("plain", "seccomp", "walls", "compare", "child")

# Only source text goes in, so that the project need not be visible inside.
BOOT = """
import json, socket, sys, types
control = socket.socket(fileno=int(sys.argv[1]))
size = int.from_bytes(control.recv(5, socket.MSG_WAITALL)[:4], "big")
order = json.loads(control.recv(size, socket.MSG_WAITALL))
for name, text in order.pop("modules"):
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = []
    exec(compile(text, name, "exec"), module.__dict__)
sys.modules["w2s.sandbox.child"].main(control, **order)
"""
SURVEY = """
import json, os, sys, sysconfig
for name in sys.argv[1:]:
    __import__(name)
with open("/proc/self/maps") as file:
    mapped = {line.split()[5] for line in file if ".so" in line}
paths = sysconfig.get_paths()
print(json.dumps({"libraries": sorted(mapped), "stdlib": sorted({paths["stdlib"], paths["platstdlib"]})}))
"""


class Warm:
    """A warm process behind its walls. It has no lock: one thread uses it at a time (see `w2s.sandbox.run`)."""

    def __init__(self, mode: str):
        self.mode, self.owner, self.folder = mode, os.getpid(), None
        root = tempfile.mkdtemp(prefix="w2s-") if mode != "bubblewrap" else "/"
        self.control, theirs = socket.socketpair()
        self.control.settimeout(START_S)
        try:
            reads, hidden = visible()
            python = [interpreter(), "-P", "-s", "-S", "-B", "-c", BOOT, str(theirs.fileno())]
            self.process = subprocess.Popen(
                (bubblewrap(reads, hidden) if mode == "bubblewrap" else []) + python,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd="/",
                env={"PYTHONHASHSEED": "0", "MALLOC_ARENA_MAX": "1", "LANG": "C.UTF-8"},
            )
            theirs.close()
            self.folder = root if mode == "none" else None
            order = {"mode": mode, "root": root, "folder": self.folder or "/tmp", "reads": reads, "hidden": hidden}
            order |= {"libraries": libraries(), "modules": sources(), "scratch_mb": SCRATCH_MB}
            child.send(self.control, "order", json.dumps(order).encode())
            self.features = self.await_ready()
        except BaseException:
            self.end()
            raise
        finally:
            if mode == "namespaces":
                os.rmdir(root)

    def await_ready(self) -> dict[str, Any]:
        if self.mode == "namespaces":
            if self.control.recv(1) == b"M":
                walls.id_maps(self.process.pid)
            self.control.send(b"G")
        frame = child.receive(self.control)
        ready = json.loads(frame[1]) if frame else {"error": "it ended at once"}
        if "error" in ready:
            raise OSError(ready["error"])
        return ready

    def end(self) -> None:
        """End it and everything that it runs."""
        self.control.close()
        if hasattr(self, "process"):
            try:
                self.process.wait(2)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)


def sources() -> list[tuple[str, str]]:
    here = importlib.resources.files("w2s.sandbox")
    texts = [(f"w2s.sandbox.{name}", (here / f"{name}.py").read_text("utf-8")) for name in MODULES]
    return [("w2s", ""), ("w2s.sandbox", ""), *texts]


def interpreter() -> str:
    """The real Python behind a virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


@functools.cache
def visible() -> tuple[list[str], list[str]]:
    """(paths that programs may read: the standard library and its shared libraries; folders hidden in them)."""
    command = [interpreter(), "-I", "-S", "-B", "-c", SURVEY, *child.WARM]
    survey = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=START_S, env={}).stdout)
    folders = list(survey["stdlib"])
    for library in survey["libraries"]:
        folder = os.path.dirname(library)
        holds_more = any(path.startswith(folder + "/") for path in survey["stdlib"])
        folders.append(library if holds_more or folder in ("/", "/usr", "/usr/local") else folder)
    reads = [path for path in dict.fromkeys(folders) if not any(path.startswith(other + "/") for other in folders)]
    hidden = [f"{path}/{name}" for path in survey["stdlib"] for name in ("site-packages", "dist-packages")]
    return [*reads, "/etc/ld.so.cache", "/usr/share/zoneinfo"], hidden


@functools.cache
def libraries() -> list[str]:
    """The folders (and single files) of the packages that programs may import."""
    paths = []
    for name in (*LIBRARIES, *NEEDED):
        spec = importlib.util.find_spec(name)
        if spec and spec.origin:
            path = spec.submodule_search_locations[0] if spec.submodule_search_locations else spec.origin
            paths += filter(os.path.exists, (path, f"{path}.libs"))
    return paths


def bubblewrap(reads: list[str], hidden: list[str]) -> list[str]:
    """The bwrap command line. It binds the loader and its libraries too, because Python starts inside."""
    python = interpreter()
    binds = [*reads, "/lib", "/lib64", "/lib32", python]
    ids = ["--uid", str(walls.INSIDE_ID), "--gid", str(walls.INSIDE_ID)]
    return [
        *(shutil.which("bwrap") or "bwrap", "--unshare-all", "--unshare-user", *ids, "--die-with-parent"),
        *("--new-session", "--as-pid-1", "--cap-drop", "ALL", "--hostname", "sandbox"),
        *(word for path in binds for word in ("--ro-bind-try", path, path)),
        *("--dir", walls.LIBRARIES),
        *(word for path in libraries() for word in ("--ro-bind", path, f"{walls.LIBRARIES}/{os.path.basename(path)}")),
        *(word for path in hidden if os.path.isdir(path) for word in ("--tmpfs", path, "--remount-ro", path)),
        *(word for path in walls.DEVICES for word in ("--dev-bind-try", path, path)),
        *("--size", str(SCRATCH_MB << 20), "--perms", "0700", "--tmpfs", "/tmp", "--remount-ro", "/", "--"),
    ]
