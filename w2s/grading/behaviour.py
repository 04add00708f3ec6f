"""What a program does: whether it gives what its prompt's examples show, and what it gives on any inputs.

Nothing here sees gold. Programs run in the sandbox alone, each once, in a process that gets all its calls together.
"""

from __future__ import annotations

import ast
import concurrent.futures
import json
import os
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from w2s.grading.extract import LONGEST_PROGRAM, extract_program, parses
from w2s.grading.inputs import UNREADABLE, Given, find_entry, find_examples
from w2s.sandbox import coded
from w2s.sandbox.compare import COMPARER
from w2s.sandbox.plain import encode
from w2s.sandbox.program import Reply
from w2s.sandbox.run import open_program
from w2s.sandbox.tiers import Unsafe, tier
from w2s.store.records import BadInput, Example

TIMEOUT_S, MEMORY_MB = 2.0, 512
Item, Found = TypeVar("Item"), TypeVar("Found")


def passes_examples(
    example: Example,
    text: str,
    *,
    timeout_s: float = TIMEOUT_S,
    memory_mb: int = MEMORY_MB,
    allow_unsandboxed: bool = False,
) -> bool | None:
    """Whether the program in `text` gives what the prompt's examples show, floats within 1e-6.

    None where the prompt shows none or the sandbox failed. timeout_s: of all of them together. BadInput where programs
    cannot be run safely on this machine and nobody accepted the risk.
    """
    shown = find_examples(example)
    if not shown:
        return None
    program = runnable(example, text)
    if program is None:
        return False
    wanted = [Reply("ok", json.dumps(encode(expected)).encode()) for _, expected in shown]
    calls = [(find_entry(example), arguments) for arguments, _ in shown]
    limits = {"timeout_s": timeout_s, "memory_mb": memory_mb, "allow_unsandboxed": allow_unsandboxed}
    arguments = [[] for _ in shown]  # no rule here looks at them
    found = asked(program, calls, "disagreement", [arguments, "equal", 0.0], wanted, limits)
    return None if found is None else found.status == "ok" and found.value == ""


def asked(
    program: str, calls: Sequence, name: str, arguments: Sequence, beside: Sequence[Reply], limits: dict
) -> Reply | None:
    """What `name` of w2s.sandbox.compare makes of the program's results; None where the sandbox failed."""
    try:
        with (
            open_program(program, **limits) as candidate,
            open_program(COMPARER, partner=candidate, **limits) as reader,
        ):
            candidate.send("order", coded(calls))
            return reader.call(name, arguments, beside=beside, count=len(calls))
    except Unsafe as error:
        raise BadInput(str(error)) from None
    except OSError:
        return None


def pass_all(
    rows: Sequence[tuple[Example, str]],
    *,
    workers: int | None = None,
    timeout_s: float = TIMEOUT_S,
    memory_mb: int = MEMORY_MB,
    allow_unsandboxed: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[bool | None]:
    """`passes_examples` of each row, in order. workers: rows at a time (default: one per core)."""
    limits = {"timeout_s": timeout_s, "memory_mb": memory_mb, "allow_unsandboxed": allow_unsandboxed}
    return in_threads(lambda row: passes_examples(*row, **limits), rows, workers, allow_unsandboxed, progress)


def in_threads(
    work: Callable[[Item], Found],
    rows: Sequence[Item],
    workers: int | None,
    allow_unsandboxed: bool,
    progress: Callable[[int, int], None] | None,
) -> list[Found]:
    """`work` of each row, in order; BadInput before the first where programs cannot be run safely."""
    done, lock = 0, threading.Lock()
    if any(row[0].task == "code" for row in rows):
        try:
            tier(allow_unsandboxed=allow_unsandboxed)
        except Unsafe as error:
            raise BadInput(str(error)) from None

    def one(row: Item) -> Found:
        nonlocal done
        found = work(row)
        with lock:
            done += 1
            if progress:
                progress(done, len(rows))
        return found

    with concurrent.futures.ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(one, rows))


def outputs(
    program: str, entry: str, calls: Sequence[Given], *, timeout_s: float, memory_mb: int, allow_unsandboxed: bool
) -> tuple[str, ...]:
    """What the program gives on each call, spelled so that equal results are equal texts; failures by their kind.

    BadInput where programs cannot be run safely on this machine and nobody accepted the risk.
    """
    limits = {"timeout_s": timeout_s, "memory_mb": memory_mb, "allow_unsandboxed": allow_unsandboxed}
    made = [(entry, arguments) for arguments in calls]
    found = asked(program, made, "spellings", [len(calls)], (), limits)
    if found is None:
        return ("<not run>",) * len(calls)
    return tuple(found.value) if found.status == "ok" else (f"<{found.status}>",) * len(calls)


def runnable(example: Example, text: str) -> str | None:
    """The program in `text`; None where there is none: it does not parse, or has no function of the wanted name."""
    program = extract_program(example, text) if text.strip() else ""
    if not program.strip() or len(program) > LONGEST_PROGRAM or not parses(program):
        return None
    try:
        tree = ast.parse(program, "<program>")
        ast.unparse(tree)  # one that is too deep to be spelled is none
    except UNREADABLE:
        return None
    entry, made = find_entry(example), set()
    for node in tree.body:
        made |= {getattr(node, "name", None)} | {ast.unparse(one) for one in getattr(node, "targets", ())}
        made |= {alias.asname or alias.name for alias in getattr(node, "names", ()) if isinstance(alias, ast.alias)}
    return program if not entry or entry in made else None
