"""(Example, Gold, text) -> right, wrong or could not be judged.

Code is judged in two sandboxed processes hidden from each other: one runs the program and gets calls, the other
holds the tests or, for lists of inputs, the rules of comparison. Only plain data passes between them, unread by this
process, and every comparison is made on the side of the tests, so a program can be judged right only for values that
are right. Both have the same limits.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from w2s.grading.answers import NO_ANSWER, TOO_LONG, compare
from w2s.grading.endings import final_answer
from w2s.grading.extract import LONGEST_PROGRAM, extract_program
from w2s.grading.threads import Progress, map_rows
from w2s.sandbox.compare import COMPARER
from w2s.sandbox.plain import decode
from w2s.sandbox.program import Limits, Reply
from w2s.sandbox.run import lends, open_program
from w2s.sandbox.tiers import Unsafe
from w2s.sandbox.warm import LIBRARIES
from w2s.store.records import BadInput, Example, Gold

Verdict = tuple[bool | None, str]  # correct (None: could not be judged), status
REFERENCE_S = 300.0
LIMITS = Limits(10.0, 512, output_bytes=16 << 20)
BROKEN_TEST = ("NameError", "SyntaxError", "ImportError", "ModuleNotFoundError", "IndentationError")


def grade(example: Example, gold: Gold, text: str, limits: Limits = LIMITS) -> Verdict:
    """Whether `text`, a model's answer to `example`, is right, and a status: "judged", or what went wrong.

    limits: for a program (its time is at least four times the reference's own). BadInput if programs cannot be run
    safely on this machine and limits.allow_unsandboxed is false.
    """
    if example.id != gold.id:
        raise ValueError(f"example {example.id} is graded with the gold of {gold.id}")
    if example.task == "choice":
        return text.strip() == example.choices[int(gold.answer)].strip(), "judged"
    if example.task == "answer":
        return grade_answer(text, str(gold.answer))
    if not gold.tests:
        return None, "no tests"
    program, tests = extract_program(example, text), gold.tests[0]
    if len(program) > LONGEST_PROGRAM:
        return False, f"the program is longer than {LONGEST_PROGRAM} characters"
    try:
        if tests["kind"] == "inputs":
            correct, status = judge_inputs(program, gold, limits)
        else:
            correct, status = judge_tests(program, *make_tests(tests), limits)
        if correct is False and (missing := missing_library(program, status, limits)):
            return None, f"needs {missing}, which is not in the sandbox"
        return correct, status
    except Unsafe as error:
        raise BadInput(str(error)) from None
    except OSError as error:
        return None, f"the sandbox failed: {error}"


def missing_library(program: str, status: str, limits: Limits) -> str | None:
    """The library that a program could not import because the sandbox lacks it, or None."""
    if not status.startswith(("exception: ImportError", "exception: ModuleNotFoundError")):
        return None
    used = [name for name in LIBRARIES if re.search(rf"^\s*(?:import|from)\b.*\b{name}\b", program, re.MULTILINE)]
    return next((name for name in used if not lends(name, limits)), None)


def grade_answer(text: str, gold: str) -> Verdict:
    """A short answer's verdict; a text without a recognisable answer is wrong, with a status of its own."""
    same = compare(text, gold)
    if same is None:
        return None, TOO_LONG
    return same, "judged" if same or final_answer(text) is not None else NO_ANSWER


def judge(
    rows: Sequence[tuple[Example, Gold, str]],
    *,
    timeout_s: float = LIMITS.timeout_s,
    allow_unsandboxed: bool = False,
    progress: Progress | None = None,
    keep: Callable[[int, tuple[bool | None, str, float]], None] | None = None,
) -> list[tuple[bool | None, str, float]]:
    """(correct, status, seconds) of each row, in order; keep and progress as in `map_rows`."""

    def timed(example: Example, gold: Gold, text: str, limits: Limits) -> tuple[bool | None, str, float]:
        started = time.monotonic()
        return (*grade(example, gold, text, limits), time.monotonic() - started)

    limits = replace(LIMITS, timeout_s=timeout_s, allow_unsandboxed=allow_unsandboxed)
    return map_rows(timed, rows, limits, keep, progress)


def make_tests(tests: dict) -> tuple[str, str]:
    """(test program, setup: what to run after the tested program)."""
    if tests["kind"] == "check":
        entry = tests["entry_point"]
        return f"{tests['setup']}\n{entry} = _partner.function({entry!r})\n{tests['test']}\ncheck({entry})\n", ""
    names = [f"{name} = _partner.function({name!r})\n" for name in tests["functions"]]
    values = [f"{name} = _partner.value({name!r})\n" for name in tests["values"]]
    return "\n".join([tests["imports"], *names, *values, *tests["asserts"]]), tests["setup"]


def judge_tests(program: str, tests: str, setup: str, limits: Limits) -> Verdict:
    """Run the test program in a sandbox of its own; its calls go to `program` in another."""
    # The setup may create objects in the program's process; they stay there and are passed by number.
    with open_program(f"{program}\n{setup}", limits, keep_objects=True) as candidate:
        if candidate.ended:
            return False, str(candidate.ended)
        with open_program(tests, limits, partner=candidate) as tester:
            verdict = tester.loaded
    if verdict.status == "ok":
        return True, "judged"
    if candidate.failed:
        return False, str(candidate.failed)
    kind = verdict.error.split(":")[0]
    if kind in BROKEN_TEST:
        return None, f"the tests are broken: {verdict.error}"
    return False, "judged" if kind == "AssertionError" else f"the tests end with {verdict}"


def judge_inputs(program: str, gold: Gold, limits: Limits) -> Verdict:
    """Compare the program's results, one by one, with those of the reference on the same inputs."""
    tests = gold.tests[0]
    expected, seconds = reference_replies(gold, limits)
    if isinstance(expected, str):
        return None, expected
    limits = replace(limits, timeout_s=max(limits.timeout_s, 4 * seconds))
    inputs = [*tests["base"], *tests["plus"]]
    arguments = [[decode(value) for value in coded] if tests["compare"] == "root" else [] for coded in inputs]
    with open_program(program, limits, keep_objects=tests["compare"] == "truth") as candidate:
        candidate.send("order", encode_inputs(tests))
        with open_program(COMPARER, limits, partner=candidate) as reader:
            rules = [arguments, tests["compare"], tests["atol"]]
            verdict = reader.call("disagreement", rules, beside=expected, count=len(expected))
    if verdict.status != "ok":
        return False, f"the comparison ends with {verdict}"
    if verdict.value:
        return False, verdict.value
    left_out = sum(reply.status != "ok" for reply in expected)
    return True, f"judged without {left_out} of {len(inputs)} inputs: no expected result" if left_out else "judged"


def encode_inputs(tests: dict) -> bytes:
    """The body of an order to make the calls of tests of kind inputs, whose arguments are already encoded."""
    calls = (*tests["base"], *tests["plus"])
    return json.dumps([[tests["entry_point"], coded, {}, False] for coded in calls]).encode()


def reference_replies(gold: Gold, limits: Limits) -> tuple[Sequence[Reply] | str, float]:
    """(a Reply for each input, seconds) from the reference program in its own sandbox; cached for the session.

    If the reference fails, a reason replaces the replies, and nothing can be judged by it. Single results too large to
    pass on (one of Mbpp/255 has 120 million numbers) are left out.
    """
    tests = gold.tests[0]
    key = hashlib.sha256(json.dumps([gold.answer, tests]).encode()).digest()
    if key in _references:
        return _references[key]
    started = time.monotonic()
    limits = replace(limits, timeout_s=REFERENCE_S)
    with open_program(str(gold.answer), limits, keep_objects=tests["compare"] == "truth") as program:
        program.send("order", encode_inputs(tests))
        replies = [program.receive() for _ in (*tests["base"], *tests["plus"])]
    failed = [reply for reply in replies if reply.status not in ("ok", "too large", "memory")]
    if failed or all(reply.status != "ok" for reply in replies):
        replies = f"the reference fails: {(failed or replies)[0]}" if replies else "the reference fails: no inputs"
    _references[key] = replies, time.monotonic() - started
    return _references[key]


_references: dict[bytes, tuple[Sequence[Reply] | str, float]] = {}
