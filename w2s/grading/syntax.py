"""Python's parser for model-written programs, which many threads read at once."""

import ast
import threading

LOCK = threading.Lock()


def parse(code: str, mode: str = "exec") -> ast.Module | ast.Expression:
    """`ast.parse`, one thread at a time; errors are those of `ast.parse`.

    CPython 3.11 counts how deep a tree is in one place for all threads, so that two parsers at once can end in a
    SystemError ("AST constructor recursion depth mismatch").
    """
    with LOCK:
        return ast.parse(code, "<program>", mode)
