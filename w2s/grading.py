"""(Example, Gold, text) -> right, wrong or could not be judged.

Code is judged in two sandboxed processes that see nothing of each other: one runs the program and gets calls, the other
(or this process, for lists of inputs) holds the tests. Only plain data pass between them, and every comparison is made
on the side of the tests, so a program can be judged right only for values that are right.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import math
import os
import re
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from w2s.answers import NO_ANSWER, TOO_LONG, compare, final_answer
from w2s.records import BadInput, Example, Gold
from w2s.sandbox import Raised, Reply, Unsafe, decode, open_program, tier

Verdict = tuple[bool | None, str]  # correct (None: could not be judged), status
REFERENCE_S = 300.0
OUTPUT_BYTES = 16 << 20
LONGEST_PROGRAM = 100_000  # characters; more is no answer to any question here
warnings.filterwarnings("ignore", module="<program>")  # models' programs; nobody will mend them
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
    program, tests = program_of(example, text), gold.tests[0]
    if len(program) > LONGEST_PROGRAM:
        return False, f"the program is longer than {LONGEST_PROGRAM} characters"
    try:
        if tests["kind"] == "inputs":
            return judge_inputs(program, gold, limits)
        return judge_tests(program, *TEST_PROGRAMS[tests["kind"]](tests), limits)
    except Unsafe as error:
        raise BadInput(str(error)) from None
    except OSError as error:
        return None, f"the sandbox failed: {error}"


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


# --- programs --------------------------------------------------------------------------------------------------------


def program_of(example: Example, text: str) -> str:
    """The whole program in a model's text: in a fenced block or bare, a whole function or the prompt continued."""
    entry = str(example.meta.get("entry_point", ""))
    defines = re.compile(rf"^(?:async\s+def|def|class)\s+{re.escape(entry)}\b|^{re.escape(entry)}\s*=", re.MULTILINE)
    blocks = re.findall(r"```[ \t]*[\w+-]*[ \t]*\n(.*?)(?:\n[ \t]*```|\Z)", text, re.DOTALL)
    code = next((block for block in blocks if defines.search(block)), blocks[0] if blocks else text)
    code = code.replace("\r\n", "\n")[: LONGEST_PROGRAM + 1]
    start = defines.search(example.prompt)
    if not start:  # the prompt is a question, not the head of a function
        return shortened(textwrap.dedent(code))
    if defines.search(code):
        return example.prompt[: start.start()] + "\n" + shortened(code)
    for body in (code, textwrap.indent(textwrap.dedent(code), "    "), "    " + code.lstrip()):
        program = shortened(example.prompt + body, keep=example.prompt.count("\n") + 1)
        if parses(program):
            return program
    return example.prompt + code


def shortened(code: str, keep: int = 0) -> str:
    """`code` without the last lines that keep it from being Python (talk after the program); as it is if that fails."""
    lines = code.split("\n")
    for end in range(len(lines), max(keep, len(lines) - 200, 0), -1):
        if parses("\n".join(lines[:end])):
            return "\n".join(lines[:end])
    return code


def parses(code: str) -> bool:
    try:
        compile(code, "<program>", "exec")
        return True
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False


class Stopped(Exception):
    """The program under test can answer no more calls."""


def check_program(tests: dict) -> tuple[str, list[str], list[str], str]:
    """(test program, functions it calls outside, values it reads, what to run after the program)."""
    entry = tests["entry_point"]
    source = f"{tests['setup']}\n{entry} = _outside_{entry}\n{tests['test']}\ncheck({entry})\n"
    return source, [entry], [], ""


def asserts_program(tests: dict) -> tuple[str, list[str], list[str], str]:
    names = [f"{name} = _outside_{name}\n" for name in tests["functions"]]
    values = [f"{name} = _value({name!r})\n" for name in tests["values"]]
    source = "\n".join([tests["imports"], *names, *values, *tests["asserts"]])
    return source, list(tests["functions"]), list(tests["values"]), tests["setup"]


TEST_PROGRAMS = {"check": check_program, "asserts": asserts_program}


def judge_tests(
    program: str, tests: str, functions: Sequence[str], values: Sequence[str], setup: str, limits: dict
) -> Verdict:
    """Run the test program in a sandbox of its own; what it calls is done by `program` in another."""
    sandboxed = {"allow_unsandboxed": limits["allow_unsandboxed"], "output_bytes": OUTPUT_BYTES}
    replies: list[Reply] = []

    def answer(reply: Reply) -> Any:
        replies.append(reply)
        if reply.status == "ok":
            return reply.value
        if reply.status == "exception":
            raise Raised(*reply.error.split(": ", 1))
        raise Stopped

    # What the setup makes may be an object of the program; it stays there and is passed back by number.
    whole = f"{program}\n{setup}"
    with open_program(whole, **limits | sandboxed, keep_objects=True) as candidate:
        if candidate.ended:
            return False, told(candidate.ended)
        outside = {f"_outside_{name}": caller(candidate, name, answer) for name in functions}
        outside["_value"] = lambda name: answer(candidate.look(name) if name in values else Reply("not plain"))
        try:
            with open_program(tests, timeout_s=REFERENCE_S, outside=outside, **sandboxed) as tester:
                verdict = tester.loaded
        except Stopped:
            return False, told(replies[-1])
    if verdict.status == "ok":
        return True, "judged"
    kind = verdict.error.split(":")[0]
    failed = [reply for reply in replies if reply.status != "ok"]
    if failed:
        return False, told(failed[-1])
    if kind in BROKEN_TEST:
        return None, f"the tests are broken: {verdict.error}"
    return False, "judged" if kind == "AssertionError" else f"the tests end with {told(verdict)}"


def caller(candidate: Any, name: str, answer: Callable[[Reply], Any]) -> Callable:
    return lambda *arguments, **named: answer(candidate.call(name, *arguments, **named))


def told(reply: Reply) -> str:
    return f"{reply.status}: {reply.error}".rstrip(": ")


def judge_inputs(program: str, gold: Gold, limits: dict) -> Verdict:
    """Compare the program's results, one by one, with those of the reference on the same inputs."""
    tests = gold.tests[0]
    calls = [(tests["entry_point"], [decode(one) for one in coded]) for coded in (*tests["base"], *tests["plus"])]
    keep = tests["compare"] == "truth"
    expected, seconds = reference_replies(gold, keep, limits["memory_mb"], limits["allow_unsandboxed"])
    if expected[0] is None:
        return None, str(expected[1])
    limits = limits | {"timeout_s": max(limits["timeout_s"], 4 * seconds)}
    with open_program(program, **limits, output_bytes=OUTPUT_BYTES, keep_objects=keep) as candidate:
        for (_, arguments), wanted, reply in zip(calls, expected, candidate.calls(calls), strict=True):
            if wanted.status != "ok":
                continue
            if reply.status != "ok":
                return False, told(reply)
            if not same(reply.value, wanted.value, arguments, tests["compare"], tests["atol"]):
                return False, "judged"
    left_out = sum(wanted.status != "ok" for wanted in expected)
    return True, f"judged without {left_out} of {len(calls)} inputs: no expected result" if left_out else "judged"


def reference_replies(gold: Gold, keep: bool, memory_mb: int, allow_unsandboxed: bool) -> tuple[Sequence, float]:
    """(a Reply for each input, seconds) from the reference program in its own sandbox; kept for the whole session.

    (None, reason) stands for the replies where the reference fails: then nothing can be judged by it. Single results
    that are too large to pass on (one of Mbpp/255 has 120 million numbers) are left out.
    """
    tests = gold.tests[0]
    key = hashlib.sha256(json.dumps([gold.answer, tests]).encode()).digest()
    if key in _references:
        return _references[key]
    calls = [(tests["entry_point"], [decode(one) for one in coded]) for coded in (*tests["base"], *tests["plus"])]
    started = time.monotonic()
    limits = {"timeout_s": REFERENCE_S, "memory_mb": memory_mb, "output_bytes": OUTPUT_BYTES}
    with open_program(str(gold.answer), **limits, keep_objects=keep, allow_unsandboxed=allow_unsandboxed) as program:
        replies: Sequence = list(program.calls(calls))
    failed = [reply for reply in replies if reply.status not in ("ok", "too large", "memory")]
    if failed or all(reply.status != "ok" for reply in replies):
        replies = (None, f"the reference fails: {told((failed or replies)[0]) if replies else 'no inputs'}")
    _references[key] = replies, time.monotonic() - started
    return _references[key]


_references: dict[bytes, tuple[Sequence, float]] = {}


def same(given: Any, wanted: Any, arguments: Sequence, compare: str, atol: float) -> bool:
    """EvalPlus' rules: equal; floats within atol (1e-6 where the task names none) and 1e-7 of the wanted value.

    compare: "equal"; "set" (order and repeats do not matter); "truth" (whether there is a result); "root" (the result
    is a root of the polynomial in the first argument, to atol). EvalPlus also accepts everything for Mbpp/164 and other
    readings of the question for Mbpp/295, 558 and 581; here the reference alone decides.
    """
    try:
        if compare == "root":
            return abs(sum(factor * math.pow(given, power) for power, factor in enumerate(arguments[0]))) <= atol
        if compare == "set":
            return set(given) == set(wanted)
        if compare == "truth":
            return given == wanted if isinstance(given, bool) else (given is not None) == bool(wanted)
        if given == wanted:
            return True
        many = wanted if isinstance(wanted, list | tuple) else [wanted]
        if atol == 0 and many and all(isinstance(one, float) for one in many):
            atol = 1e-6
        return atol > 0 and close(given, wanted, atol)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False


def close(given: Any, wanted: Any, atol: float) -> bool:
    """Numbers within atol + 1e-7 |wanted|, also inside lists and tuples of the same type and length."""
    if isinstance(wanted, list | tuple):
        same_form = type(given) is type(wanted) and len(given) == len(wanted)
        return same_form and all(close(one, other, atol) for one, other in zip(given, wanted, strict=True))
    if isinstance(wanted, float) and math.isnan(wanted):
        return isinstance(given, float) and math.isnan(given)
    if isinstance(given, bool) or not isinstance(given, int | float | complex) or not isinstance(wanted, int | float):
        return given == wanted
    return given == wanted or abs(given - wanted) <= atol + 1e-7 * abs(wanted)
