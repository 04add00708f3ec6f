"""Which walls this machine offers, found by trying them."""

import functools
import platform
import shutil
import subprocess
import sys
import threading
from typing import Any

from w2s.sandbox import walls
from w2s.sandbox.program import Limits, Program
from w2s.sandbox.warm import START_S, Warm

TIERS = ("bubblewrap", "namespaces", "none")


class Unsafe(RuntimeError):
    """This machine offers no walls, and the user has not accepted the risk."""


# What must fail inside before the walls are trusted; each line raises where the walls hold.
ATTEMPTS = """
def secret(path): return open(path, "rb").read(1)
def network(): import socket; socket.socket(); return 1
def process(): import os; return os.fork()
def others(): import os; return os.listdir("/proc")
"""


@functools.cache
def try_tiers() -> dict[str, dict[str, Any]]:
    """For each tier but none: {"works": bool, "why": text, features}; tried once per process."""
    results = {}
    for mode in TIERS[:2]:
        try:
            results[mode] = {"works": True, "why": "", **attempt(mode)}
            break  # the first that works is used; trying the next would cost a start
        except (OSError, subprocess.SubprocessError, Unsafe) as error:
            results[mode] = {"works": False, "why": str(error)}
    return results


def attempt(mode: str) -> dict[str, Any]:
    """Start a warm process and try the walls from inside; Unsafe where one does not hold."""
    if platform.machine() not in walls.PIVOT_ROOT or sys.platform != "linux":
        raise Unsafe(f"not supported on {sys.platform} {platform.machine()}")
    if mode == "bubblewrap" and not shutil.which("bwrap"):
        raise Unsafe("bwrap is not installed")
    warm = Warm(mode)
    program = Program(warm, ATTEMPTS, Limits(timeout_s=START_S))
    try:
        program.load()
        calls = [("secret", (__file__,)), ("network", ()), ("process", ()), ("others", ())]
        for (name, _), reply in zip(calls, program.calls(calls), strict=True):
            if reply.status != "exception" or reply.error.split(":")[0] not in HELD_BACK:
                raise Unsafe(f"{name} is not held back ({reply.status} {reply.error})")
    finally:
        program.close()
        warm.end()
    return warm.features


HELD_BACK = ("FileNotFoundError", "PermissionError")
_lock = threading.Lock()


def tier(*, allow_unsandboxed: bool = False) -> str:
    """The tier in use: bubblewrap, namespaces, or none (if allow_unsandboxed; else Unsafe)."""
    with _lock:
        results = try_tiers()
    for mode, result in results.items():
        if result["works"]:
            return mode
    if allow_unsandboxed:
        return "none"
    reasons = "; ".join(f"{mode}: {result['why']}" for mode, result in results.items())
    raise Unsafe(
        f"no sandbox on this machine ({reasons}); runtime.allow_unsandboxed=true runs programs without, at your risk"
    )


def describe() -> dict[str, Any]:
    """For `w2s env`: {"tier", "seccomp", "landlock" (its version, 0 = none), "tried": {tier: why it does not work}}."""
    results = try_tiers()
    used = next((mode for mode, result in results.items() if result["works"]), "none")
    features = results.get(used, {"seccomp": False, "landlock": 0})
    tried = {mode: result["why"] for mode, result in results.items() if not result["works"]}
    return {"tier": used, "seccomp": features["seccomp"], "landlock": features["landlock"], "tried": tried}
