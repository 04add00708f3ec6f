"""Expressions of short answers, compared by math-verify (SymPy) in a process that can be killed.

A model may write 9^{9^{9^9}}. The limit is on processor time, not wall time, so that a busy machine gives the same
verdicts; a process that neither answers nor works is killed after WAIT_S. Run as a program, this file is that process:
a JSON line in, a JSON line out. [text, gold] returns true or false; [text] what math-verify reads in a text, or null.
"""

import atexit
import functools
import json
import os
import re
import select
import subprocess
import sys
import threading
from typing import Any

COMPARE_S, MEMORY_MB = 5.0, 2048  # of processor time, of address space
WAIT_S = 900.0
FUNCTIONS = {"sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "sqrt", "inf", "mod", "gcd", "lcm", "max", "min"}
CONNECTIVES = set("or is to of if no be by at as an on it am pm ft cm kg km".split())  # noqa: SIM905
STYLED = r"\\(?:text|mathrm|mbox|textbf|textit|textnormal|textrm)"


def is_maths(answer: str) -> bool:
    """Whether an answer is an expression, whose letters are variables, not words."""
    bare = re.sub(rf"(?:{STYLED}|\\begin|\\end)\{{[^{{}}]*\}}|\\[a-zA-Z]+", " ", answer)
    words = re.findall(r"[^\W\d_]{2,}", bare)
    return (
        all((len(word) < 3 and word not in CONNECTIVES) or word.casefold() in FUNCTIONS for word in words)
        and re.search(r"[\d+\-*/^=<>(){}\[\]|]|\\(?!text|mathrm|mbox)[a-zA-Z]", answer) is not None
    )


_idle: list[tuple[int, subprocess.Popen]] = []
_lock = threading.Lock()


@functools.lru_cache(maxsize=100_000)
def ask(*question: str) -> Any:
    """Whether two expressions are equal by math-verify; for one text, the answer that it reads there.

    That is the last formula or number, preferably after "answer". None also if the process needs more than COMPARE_S
    of processor time or too much memory.
    """
    with _lock:
        mine = [pair for pair in _idle if pair[0] == os.getpid() and pair[1].poll() is None]
        process = mine[-1][1] if mine else None
        if mine:
            _idle.remove(mine[-1])
    process = process or start()
    try:
        process.stdin.write(json.dumps([COMPARE_S, *question]).encode() + b"\n")
        process.stdin.flush()
        answer = reply(process)
    except OSError:
        answer = None
    if answer is None:
        process.kill()
        process.wait()
        return None
    with _lock:
        _idle.append((os.getpid(), process))
    return answer[0]


def start() -> subprocess.Popen:
    """A new process, ready to work."""
    process = subprocess.Popen(
        [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    if reply(process) != ["ready"]:
        process.kill()
        process.wait()
        raise RuntimeError("math-verify does not start; `python -m pip install -e .` installs it")
    return process


def reply(process: subprocess.Popen) -> list | None:
    """The process's next line, as JSON; None at its end, or after WAIT_S without a line."""
    if not select.select([process.stdout], [], [], WAIT_S)[0]:
        return None
    line = process.stdout.readline()
    return json.loads(line) if line else None


@atexit.register
def end_all() -> None:
    """End the idle processes."""
    with _lock:
        while _idle:
            owner, process = _idle.pop()
            if owner == os.getpid():
                process.kill()
                process.wait()


# --- that process ----------------------------------------------------------------------------------------------------


def serve() -> None:
    """Answer questions on standard input, one after another, until it closes."""
    import resource
    import signal

    import math_verify

    kinds = [math_verify.LatexExtractionConfig(boxed_match_priority=0), math_verify.ExprExtractionConfig()]
    out, sys.stdout = sys.stdout, sys.stderr  # nothing else may write between the replies

    def tell(answer: Any) -> None:
        print(json.dumps([answer]), file=out, flush=True)

    answer(math_verify, kinds, "x+1", "1+x")  # builds the parser, outside the time of any question
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MB << 20, MEMORY_MB << 20))
    tell("ready")
    for line in sys.stdin:
        limit_s, *question = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, limit_s)  # SIGPROF ends this process, whatever it is doing
        result = answer(math_verify, kinds, *question)
        signal.setitimer(signal.ITIMER_PROF, 0)
        tell(result)


def answer(library: Any, kinds: list, text: str, gold: str | None = None) -> bool | str | None:
    """Whether two expressions are equal; for one text, the answer that the library reads in it."""
    if gold is None:
        parsed = library.parse(text, kinds, parsing_timeout=None, extraction_mode="first_match")
        return next((reading for reading in reversed(parsed) if isinstance(reading, str) and reading), None)
    sides = [library.parse(f"${side}$", kinds, parsing_timeout=None) for side in (text, gold)]
    text_readings, gold_readings = ([with_i(reading) for reading in side] for side in sides)
    # Equal numbers agree to 12 digits.
    return bool(
        library.verify(
            gold_readings, text_readings, float_rounding=12, allow_set_relation_comp=True, timeout_seconds=None
        )
    )


def with_i(parsed: Any) -> Any:
    """An expression with the letter i as the imaginary unit; no known short answer uses it as a variable."""
    if isinstance(parsed, str):
        return parsed
    import sympy

    return parsed.subs({symbol: sympy.I for symbol in parsed.free_symbols if symbol.name == "i"})


if __name__ == "__main__":
    serve()
