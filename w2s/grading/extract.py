"""The program in a model's text: bare, in a fenced block, or continuing the prompt; among prose and drafts.

Python's own parser does most of the work: it names the line in which a text stops being Python. Such lines above the
function are prose, and so is the first one below it. No text takes more than linear time: a `Budget` limits the input
of the parser.
"""

import __future__

import ast
import builtins
import re
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence

from w2s.grading.syntax import parse
from w2s.store.records import Example

LONGEST_PROGRAM = 100_000  # characters; no question here has a longer answer
warnings.filterwarnings("ignore", module="<program>")  # invalid escapes in models' programs
FENCE = re.compile(r"`{3,}|~{3,}")
# Ends a text where no stop sequence was set: a chat template's tokens, the markers of few-shot prompts, a fence.
TOKEN = r"<[|｜][^<>\n]{1,40}[|｜]>|</?s>|<(?:eos|bos|pad|(?:end|start)_of_turn)>|\[/?(?:DONE|END|EOS|INST|PYTHON)\]"
END = re.compile(TOKEN + "|`{3}|~{3}")
LAST = re.compile(rf"(?:{TOKEN})\Z")
DRAFT_END = re.compile(r"</(?:think|thinking|thoughts?|reasoning|analysis|scratchpad)>|\[/THINK\]", re.IGNORECASE)
ONE_LINE = re.compile(r"(`{3}(?:python|py)?)[ \t]*(?=(?:async|def|class|import|from)\b)")
CODE = re.compile(r"(?:def|async|class|import|from|if|for|while|try|with)\b|[@#\"']|[A-Za-z_]\w*[ \t]*[=:.(\[]")


class Budget:
    """How much of a text may still be parsed: 200 times, and half a million characters in all."""

    def __init__(self) -> None:
        self.times, self.characters = 200, 5 * LONGEST_PROGRAM

    def fault(self, lines: Sequence[str]) -> int | None:
        """The line (from 0) in which this stops being Python; None if it is Python, -1 if that is unknown."""
        code = "\n".join(lines)
        self.times, self.characters = self.times - 1, self.characters - len(code)
        if min(self.times, self.characters) < 0:
            return -1
        try:
            compile(code, "<program>", "exec", flags=__future__.annotations.compiler_flag)  # as the sandbox does
            return None
        except SyntaxError as error:
            return min(max(error.lineno or 1, 1), len(lines)) - 1
        except (ValueError, MemoryError, RecursionError):
            return -1


def extract_program(example: Example, text: str) -> str:
    """The whole program in a model's text, with the imports and functions of the prompt.

    Of several definitions of the function the last complete one counts. If there is none, the text, or a fenced block
    of it, continues the prompt. A text without a program is returned in a form that does not run.
    """
    entry = re.escape(str(example.meta.get("entry_point") or "")) or r"\w+"
    defines = re.compile(rf"(?:(?:async[ \t]+def|def|class)[ \t]+{entry}\b|{entry}[ \t]*(?::[^=\n]*)?=(?!=))")
    head = re.search(f"^{defines.pattern}", example.prompt, re.MULTILINE)
    above = example.prompt[: head.start()] + "\n" if head else ""
    lines, budget = plain(text).split("\n"), Budget()
    for at, indent, start in reversed(list(definitions(lines, defines))):
        if own := around([line.removeprefix(indent) for line in lines], start, at, budget):
            return remove_prose(with_others(above + own, lines, defines, budget))
    if head:
        return remove_prose(continue_prompt(example.prompt, lines, budget))
    code = textwrap.dedent(next(blocks(lines), "\n".join(lines))).split("\n")
    return "\n".join(cut(code, 1, budget)[0] or code)


def plain(text: str) -> str:
    """The text without a byte order mark, carriage returns, a draft before the answer, and tokens after it."""
    text = text[: 4 * LONGEST_PROGRAM].replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff")
    text = ONE_LINE.sub(r"\1\n", text)
    answer = DRAFT_END.split(text)[-1]
    text = answer if answer.strip() else text
    kept, end = len(text), len(text.rstrip())
    while found := LAST.search(text, max(end - 50, 0), end):
        kept = end = found.start()
        while end and text[end - 1].isspace():
            end -= 1
    return text[:kept]


def definitions(lines: Sequence[str], defines: re.Pattern) -> Iterator[tuple[int, str, int]]:
    """(line, its indentation, line below the fence above it or 0) of each definition at the top level.

    In a list item a whole block is indented, like its first line and as far as its fence.
    """
    column, start, base = 0, 0, None
    for at, line in enumerate(lines):
        code = line.lstrip(" \t")
        indent = line[: len(line) - len(code)]
        base = indent if base is None and code else base
        if defines.match(code):
            if not indent or (indent == base and len(indent) <= column):
                yield at, indent, start
        elif fence := FENCE.search(line):
            column, start, base = fence.start(), at + 1, None


def around(lines: list[str], start: int, at: int, budget: Budget) -> str:
    """The program around line `at`, between the prose above and below it; "" for none."""
    while True:
        kept, fault = cut(lines[start:], at - start + 1, budget)
        if kept:
            return "\n".join(kept)
        below = range(start + fault + 1, at + 1) if fault >= 0 else ()
        start = next((line for line in below if CODE.match(lines[line])), -1)
        if start < 0:
            return ""


def cut(lines: list[str], least: int, budget: Budget) -> tuple[list[str], int]:
    """(the longest Python program in the first lines, or [] if it has fewer than `least`; the line at fault)."""
    while True:
        fault = budget.fault(lines)
        if fault is None:
            return lines, -1
        end = END.search(lines[fault])
        rest = [lines[fault][: end.start()]] if end and lines[fault][: end.start()].strip() else []
        lines = lines[: max(fault, 0)] + rest
        if fault < 0 or len(lines) < least:
            return [], fault


def blocks(lines: Sequence[str]) -> Iterator[str]:
    """The contents of fenced blocks. A fence with words after it always opens a block."""
    held: list[str] | None = None
    for line in lines:
        fence = FENCE.search(line)
        if not fence or (held is not None and line[: fence.start()].strip()):
            if held is not None:
                held.append(line)
            continue
        if held:
            yield "\n".join(held)
        held = [] if held is None or line[fence.end() :].strip() else None
    if held:
        yield "\n".join(held)


def continue_prompt(prompt: str, lines: list[str], budget: Budget) -> str:
    """The prompt, whose last function lacks its body, and the body in the text."""
    base, text = prompt if prompt.endswith(("\n", " ")) else prompt + "\n", "\n".join(lines).lstrip("\n")
    *_, below = re.split(r"\A(?:\S.*\n+)+", text, maxsplit=1)  # prose, and then a body
    for code in (text, *blocks(lines)) if text[:1].isspace() else (*blocks(lines), text, below):
        code = code.lstrip("\n")
        bodies = [textwrap.indent(textwrap.dedent(code), "    "), "    " + code.lstrip()]
        bodies = [code, *bodies] if code[:1].isspace() or base.endswith(" ") else bodies
        programs = (cut((base + body).split("\n"), base.count("\n") + 1, budget)[0] for body in bodies)
        if kept := max(programs, key=len):
            return "\n".join(kept)
    return base + text


def with_others(program: str, lines: Sequence[str], defines: re.Pattern, budget: Budget) -> str:
    """The program, below the other blocks of the text that define names it uses but does not define."""
    missing = names(program)[1]
    for block in reversed(list(blocks(lines))) if missing else ():
        code = textwrap.dedent(block)
        if any(defines.match(line) for line in code.split("\n")) or budget.fault(code.split("\n")) is not None:
            continue
        bound, unknown = names(code)
        if bound & missing:
            program, missing = f"{code}\n{program}", (missing | unknown) - bound
    return program


def names(code: str) -> tuple[set[str], set[str]]:
    """(names that the code binds somewhere, names that it only uses)."""
    bound, used = set(dir(builtins)), set()
    for node in nodes(code):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).split(".")[0])
        else:
            bound |= {getattr(node, "name", None), getattr(node, "arg", None)} - {None}
    return bound - set(dir(builtins)), used - bound


def nodes(code: str) -> Iterator[ast.AST]:
    try:
        return ast.walk(parse(code))
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return iter(())


def remove_prose(program: str) -> str:
    """The program without lines of names only, like [DONE], Solution or Note: this, which is prose that parses.

    Imports from __future__ are moved to the top: the prompt's imports may have come before them.
    """
    lines, tree = program.split("\n"), next(nodes(program), ast.Module([], []))
    shared = Counter(line for node in tree.body for line in {node.lineno, node.end_lineno})
    alone = [node for node in tree.body if shared[node.lineno] == shared[node.end_lineno] == 1]
    first = [node for node in alone if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    for node in alone:
        said = node.value if isinstance(node, ast.Expr) else None
        if isinstance(node, ast.AnnAssign) and node.value is None:
            said = node.annotation
        if node in first or (said and all(isinstance(part, SPOKEN) for part in ast.walk(said))):
            lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
    return "\n".join([*map(ast.unparse, first), *lines])


SPOKEN = ast.Name | ast.List | ast.Tuple | ast.Load


def parses(code: str) -> bool:
    return Budget().fault([code]) is None
