"""What a program does: whether it passes its prompt's examples, and what it returns on given inputs.

Nothing here sees gold. Each program runs once, in the sandbox, in a process that gets all its calls together.
"""

import ast
import json
from collections.abc import Sequence
from dataclasses import replace

from w2s.grading.extract import LONGEST_PROGRAM, extract_program, parses
from w2s.grading.inputs import UNREADABLE, Arguments, find_entry, find_examples
from w2s.grading.syntax import parse
from w2s.grading.threads import map_rows
from w2s.sandbox.compare import COMPARER
from w2s.sandbox.plain import encode
from w2s.sandbox.program import Limits, Reply, encode_calls
from w2s.sandbox.run import open_program
from w2s.sandbox.tiers import Unsafe
from w2s.store.records import BadInput, Example

Calls = Sequence[Arguments]
LIMITS = Limits(2.0, 512)


def passes_examples(example: Example, text: str, limits: Limits = LIMITS) -> bool | None:
    """Whether the program in `text` returns what the prompt's examples show, floats within 1e-6.

    None if the prompt shows none or the sandbox failed. limits: for all examples together. BadInput if programs cannot
    be run safely on this machine and limits.allow_unsandboxed is false.
    """
    shown = find_examples(example)
    if not shown:
        return None
    program = runnable(example, text)
    if program is None:
        return False
    expected = [Reply("ok", json.dumps(encode(value)).encode()) for _, value in shown]
    calls = [arguments for arguments, _ in shown]
    rules = [[[] for _ in shown], "equal", 0.0]  # without the arguments, which this rule does not read
    reply = compare_results(program, find_entry(example), calls, ("disagreement", rules), limits, expected)
    return None if reply is None else reply.status == "ok" and reply.value == ""


def compare_results(
    program: str, entry: str, calls: Calls, comparison: tuple[str, list], limits: Limits, expected: Sequence[Reply] = ()
) -> Reply | None:
    """The reply of a comparison (function of w2s.sandbox.compare, its arguments); None if the sandbox failed."""
    function, arguments = comparison
    try:
        with open_program(program, limits) as candidate, open_program(COMPARER, limits, partner=candidate) as reader:
            candidate.send("order", encode_calls([(entry, call) for call in calls]))
            return reader.call(function, arguments, beside=expected, count=len(calls))
    except Unsafe as error:
        raise BadInput(str(error)) from None
    except OSError:
        return None


def pass_all(rows: Sequence[tuple[Example, str]], *, allow_unsandboxed: bool = False) -> list[bool | None]:
    """`passes_examples` of each row, in order."""
    return map_rows(passes_examples, rows, replace(LIMITS, allow_unsandboxed=allow_unsandboxed))


def outputs(program: str, entry: str, calls: Calls, limits: Limits) -> tuple[str, ...]:
    """What the program returns on each call, spelled so that equal results are equal texts; failures by their kind."""
    reply = compare_results(program, entry, calls, ("spellings", [len(calls)]), limits)
    if reply is None:
        return ("<not run>",) * len(calls)
    return tuple(reply.value) if reply.status == "ok" else (f"<{reply.status}>",) * len(calls)


def runnable(example: Example, text: str) -> str | None:
    """The program in `text`; None if it does not parse or does not define the function that the prompt requires."""
    program = extract_program(example, text) if text.strip() else ""
    if not program.strip() or len(program) > LONGEST_PROGRAM or not parses(program):
        return None
    try:
        tree = parse(program)
        ast.unparse(tree)  # a tree that is too deep to unparse counts as no program
    except UNREADABLE:
        return None
    entry, defined = find_entry(example), set()
    for node in tree.body:
        defined |= {getattr(node, "name", None)} | {ast.unparse(target) for target in getattr(node, "targets", ())}
        defined |= {name.asname or name.name for name in getattr(node, "names", ()) if isinstance(name, ast.alias)}
    return program if not entry or entry in defined else None
