"""(Example, Gold, text) -> right, wrong or could not be judged.

Code is judged in two sandboxed processes that see nothing of each other: one runs the program and gets calls, the other
holds the tests or, for lists of inputs, the rules of comparison. Only plain data pass between them, unread by this
process, and every comparison is made on the side of the tests, so a program can be judged right only for values that
are right. Both have the same limits.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Sequence

from w2s.grading.answers import NO_ANSWER, TOO_LONG, compare, final_answer
from w2s.grading.extract import LONGEST_PROGRAM, extract_program
from w2s.sandbox.compare import COMPARER
from w2s.sandbox.plain import decode
from w2s.sandbox.program import Reply
from w2s.sandbox.run import lends, open_program
from w2s.sandbox.tiers import Unsafe, tier
from w2s.sandbox.warm import LIBRARIES
from w2s.store.records import BadInput, Example, Gold

Verdict = tuple[bool | None, str]  # correct (None: could not be judged), status
REFERENCE_S = 300.0
OUTPUT_BYTES = 16 << 20
BROKEN_TEST = ("NameError", "SyntaxError", "ImportError", "ModuleNotFoundError", "IndentationError")


def grade(
    example: Example,
    gold: Gold,
    text: str,
    *,
    timeout_s: float = 10.0,
    memory_mb: int = 512,
    allow_unsandboxed: bool = False,
) -> Verdict:
    """Whether `text`, a model's answer to `example`, is right, and why: "judged", or what was wrong or in the way.

    timeout_s, memory_mb: of a program (never less than four times the reference's own time). BadInput where programs
    cannot be run safely on this machine and nobody accepted the risk.
    """
    if example.id != gold.id:
        raise ValueError(f"example {example.id} is graded with the gold of {gold.id}")
    if example.task == "choice":
        return text.strip() == example.choices[int(gold.answer)].strip(), "judged"
    if example.task == "answer":
        return grade_answer(text, str(gold.answer))
    if not gold.tests:
        return None, "no tests"
    limits = {"timeout_s": timeout_s, "memory_mb": memory_mb, "allow_unsandboxed": allow_unsandboxed}
    limits |= {"output_bytes": OUTPUT_BYTES}
    program, tests = extract_program(example, text), gold.tests[0]
    if len(program) > LONGEST_PROGRAM:
        return False, f"the program is longer than {LONGEST_PROGRAM} characters"
    try:
        if tests["kind"] == "inputs":
            correct, status = judge_inputs(program, gold, limits)
        else:
            correct, status = judge_tests(program, *TEST_PROGRAMS[tests["kind"]](tests), limits)
        if correct is False and (missing := lacking(program, status, memory_mb, allow_unsandboxed)):
            return None, f"needs {missing}, which is not in the sandbox"
        return correct, status
    except Unsafe as error:
        raise BadInput(str(error)) from None
    except OSError as error:
        return None, f"the sandbox failed: {error}"


def lacking(program: str, status: str, memory_mb: int, allow_unsandboxed: bool) -> str | None:
    """The library that a program failed to import, where that is not the program's fault."""
    if not status.startswith(("exception: ImportError", "exception: ModuleNotFoundError")):
        return None
    asked = [name for name in LIBRARIES if re.search(rf"^\s*(?:import|from)\b.*\b{name}\b", program, re.MULTILINE)]
    return next((name for name in asked if not lends(name, memory_mb, allow_unsandboxed)), None)


def grade_answer(text: str, gold: str) -> Verdict:
    """A short answer's verdict; a text in which none is recognised is wrong with a status of its own."""
    same = compare(text, gold)
    if same is None:
        return None, TOO_LONG
    return same, "judged" if same or final_answer(text) is not None else NO_ANSWER


def judge(
    rows: Sequence[tuple[Example, Gold, str]],
    *,
    workers: int | None = None,
    timeout_s: float = 10.0,
    memory_mb: int = 512,
    allow_unsandboxed: bool = False,
    progress: Callable[[int, int], None] | None = None,
    keep: Callable[[int, tuple[bool | None, str, float]], None] | None = None,
) -> list[tuple[bool | None, str, float]]:
    """(correct, status, seconds) of each row, in order.

    workers: rows judged at a time (default: one per core). After each row `keep(its place, its verdict)` and
    `progress(done, all)` are called, one at a time.
    """
    if any(example.task == "code" for example, _, _ in rows):
        try:
            tier(allow_unsandboxed=allow_unsandboxed)
        except Unsafe as error:
            raise BadInput(str(error)) from None
    done, lock = 0, threading.Lock()

    def one(at: int, row: tuple[Example, Gold, str]) -> tuple[bool | None, str, float]:
        nonlocal done
        started = time.monotonic()
        verdict = grade(*row, timeout_s=timeout_s, memory_mb=memory_mb, allow_unsandboxed=allow_unsandboxed)
        verdict = (*verdict, time.monotonic() - started)
        with lock:
            done += 1
            if keep:
                keep(at, verdict)
            if progress:
                progress(done, len(rows))
        return verdict

    with concurrent.futures.ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(one, range(len(rows)), rows))


# --- programs -------------------------------------------------------------------------------------------------------


def check_program(tests: dict) -> tuple[str, str]:
    """(test program, what to run after the program that it tests)."""
    entry = tests["entry_point"]
    return f"{tests['setup']}\n{entry} = _partner.function({entry!r})\n{tests['test']}\ncheck({entry})\n", ""


def asserts_program(tests: dict) -> tuple[str, str]:
    names = [f"{name} = _partner.function({name!r})\n" for name in tests["functions"]]
    values = [f"{name} = _partner.value({name!r})\n" for name in tests["values"]]
    return "\n".join([tests["imports"], *names, *values, *tests["asserts"]]), tests["setup"]


TEST_PROGRAMS = {"check": check_program, "asserts": asserts_program}


def judge_tests(program: str, tests: str, setup: str, limits: dict) -> Verdict:
    """Run the test program in a sandbox of its own; what it calls is done by `program` in another."""
    # What the setup makes may be an object of the program; it stays there and is passed back by number.
    with open_program(f"{program}\n{setup}", **limits, keep_objects=True) as candidate:
        if candidate.ended:
            return False, str(candidate.ended)
        with open_program(tests, **limits, partner=candidate) as tester:
            verdict = tester.loaded
    if verdict.status == "ok":
        return True, "judged"
    if candidate.failed:
        return False, str(candidate.failed)
    kind = verdict.error.split(":")[0]
    if kind in BROKEN_TEST:
        return None, f"the tests are broken: {verdict.error}"
    return False, "judged" if kind == "AssertionError" else f"the tests end with {verdict}"


def judge_inputs(program: str, gold: Gold, limits: dict) -> Verdict:
    """Compare the program's results, one by one, with those of the reference on the same inputs."""
    tests = gold.tests[0]
    wanted, seconds = reference_replies(gold, limits)
    if isinstance(wanted, str):
        return None, wanted
    limits = limits | {"timeout_s": max(limits["timeout_s"], 4 * seconds)}
    inputs = [*tests["base"], *tests["plus"]]
    arguments = [[decode(one) for one in coded] if tests["compare"] == "root" else [] for coded in inputs]
    with open_program(program, **limits, keep_objects=tests["compare"] == "truth") as candidate:
        candidate.send("order", order(tests))
        with open_program(COMPARER, **limits, partner=candidate) as reader:
            rules = [arguments, tests["compare"], tests["atol"]]
            found = reader.call("disagreement", rules, beside=wanted, count=len(wanted))
    if found.status != "ok":
        return False, f"the comparison ends with {found}"
    if found.value:
        return False, found.value
    left_out = sum(one.status != "ok" for one in wanted)
    return True, f"judged without {left_out} of {len(inputs)} inputs: no expected result" if left_out else "judged"


def order(tests: dict) -> bytes:
    """The order to make the calls of tests of kind inputs, whose arguments are in the sandbox's coding already."""
    calls = (*tests["base"], *tests["plus"])
    return json.dumps([[tests["entry_point"], coded, {}, False] for coded in calls]).encode()


def reference_replies(gold: Gold, limits: dict) -> tuple[Sequence[Reply] | str, float]:
    """(a Reply for each input, seconds) from the reference program in its own sandbox; kept for the whole session.

    A reason stands for the replies where the reference fails: then nothing can be judged by it. Single results
    that are too large to pass on (one of Mbpp/255 has 120 million numbers) are left out.
    """
    tests = gold.tests[0]
    key = hashlib.sha256(json.dumps([gold.answer, tests]).encode()).digest()
    if key in _references:
        return _references[key]
    started = time.monotonic()
    limits = limits | {"timeout_s": REFERENCE_S, "keep_objects": tests["compare"] == "truth"}
    with open_program(str(gold.answer), **limits) as program:
        program.send("order", order(tests))
        replies = [program.receive() for _ in (*tests["base"], *tests["plus"])]
    failed = [reply for reply in replies if reply.status not in ("ok", "too large", "memory")]
    if failed or all(reply.status != "ok" for reply in replies):
        replies = f"the reference fails: {(failed or replies)[0]}" if replies else "the reference fails: no inputs"
    _references[key] = replies, time.monotonic() - started
    return _references[key]


_references: dict[bytes, tuple[Sequence[Reply] | str, float]] = {}
