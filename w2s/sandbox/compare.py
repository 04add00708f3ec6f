"""Comparison of a program's results, on the side of the tests: in a process of its own, behind the same walls.

Results come from untrusted programs: numbers with colliding hashes, deeply nested texts, megabytes of brackets. So they
are read and compared under the limits of the program itself, never in the process that judges. `replies` are (status,
value or error) pairs from `w2s.sandbox.child.Partner.replies`.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

# The program of that process; w2s.sandbox.child gives it `_partner`.
COMPARER = """
from w2s.sandbox import compare
def disagreement(arguments, *rules):
    return compare.disagreement(_partner.replies(2 * len(arguments)), arguments, *rules)
def spellings(count):
    return compare.spellings(_partner.replies(count))
"""
Replies = Iterator[tuple[str, Any]]
DECIMAL = 10**4000  # larger whole numbers are spelled in base 16, since Python bounds decimal digits
LONGEST_SPELLING = 1000  # characters; a hash stands for longer ones


def disagreement(replies: Replies, arguments: Sequence[Sequence], compare: str, atol: float) -> str:
    """Why a program is not right: "judged" (another result), or its failure; "" where it is right.

    replies: for each call the expected reply, then the program's. arguments: of each call. Calls whose expected reply
    has no result are skipped.
    """
    for call_arguments in arguments:
        (known, expected), (status, result) = next(replies), next(replies)
        if known == "ok" and status != "ok":
            return f"{status}: {result}".rstrip(": ")
        if known == "ok" and not same(result, expected, call_arguments, compare, atol):
            return "judged"
    return ""


def spellings(replies: Replies) -> list[str]:
    """Each result as a text that is the same for equal results; failures by their kind."""
    return [spell_reply(status, result) for status, result in replies]


def spell_reply(status: str, result: Any) -> str:
    if status == "ok":
        text = spelled(result)
        short = len(text) < LONGEST_SPELLING
        return text if short else hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    return f"<{status} {result.split(':')[0]}>" if status == "exception" else f"<{status}>"


def same(result: Any, expected: Any, arguments: Sequence, compare: str, atol: float) -> bool:
    """EvalPlus' rules: equal; floats within atol (1e-6 where the task names none) plus 1e-7 of the expected value.

    compare: "equal"; "set" (order and repeats do not matter); "truth" (whether there is a result); "root" (the result
    is a root of the polynomial in the first argument, within atol). EvalPlus also accepts everything for Mbpp/164 and
    other readings of the question for Mbpp/295, 558 and 581; here only the reference decides.
    """
    try:
        if compare == "root":
            return abs(sum(factor * math.pow(result, power) for power, factor in enumerate(arguments[0]))) <= atol
        if compare == "set":
            return set(result) == set(expected)
        if compare == "truth":
            return result == expected if isinstance(result, bool) else (result is not None) == bool(expected)
        if result == expected:
            return True
        values = expected if isinstance(expected, list | tuple) else [expected]
        if atol == 0 and values and all(isinstance(value, float) for value in values):
            atol = 1e-6
        return atol > 0 and close(result, expected, atol)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False


def close(result: Any, expected: Any, atol: float) -> bool:
    """Numbers within atol + 1e-7 |expected|, also inside lists and tuples of the same type and length."""
    if isinstance(expected, list | tuple):
        same_form = type(result) is type(expected) and len(result) == len(expected)
        return same_form and all(close(left, right, atol) for left, right in zip(result, expected, strict=True))
    if isinstance(expected, float) and math.isnan(expected):
        return isinstance(result, float) and math.isnan(result)
    numbers = isinstance(result, int | float | complex) and isinstance(expected, int | float)
    if isinstance(result, bool) or not numbers:
        return result == expected
    return result == expected or abs(result - expected) <= atol + 1e-7 * abs(expected)


def spelled(value: Any) -> str:
    """A text that is the same for equal values, floats to 8 places and 9 digits (rounding is transitive)."""
    if isinstance(value, bool | int):
        return repr(int(value)) if abs(value) < DECIMAL else hex(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return repr(value)
        near = round(value, 8) + 0.0  # no negative zero
        return str(int(near)) if near.is_integer() and abs(near) < 1e15 else f"{near:.9g}"
    if isinstance(value, complex):
        return f"complex({spelled(value.real)}, {spelled(value.imag)})" if value.imag else spelled(value.real)
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({', '.join(map(spelled, value))})"
    if isinstance(value, set | frozenset):
        return f"set({', '.join(sorted(map(spelled, value)))})"
    if isinstance(value, dict):
        return f"dict({', '.join(sorted(f'{spelled(key)}: {spelled(item)}' for key, item in value.items()))})"
    return repr(value)
