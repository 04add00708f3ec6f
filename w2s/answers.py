r"""Whether two short answers say the same: numbers, fractions, units, money, percents, LaTeX, sets, intervals, words.

Plain numbers are compared here, as exact fractions, with the units that both name. What is neither a plain number nor
the same text goes to math-verify (SymPy), in a process of its own that is ended when it takes too long: a model may
write 9^{9^{9^9}}. Words are compared as words, never as products of letters.

What counts as the same, where one may differ: a unit that only one of the two names is left out of account; "50%" is 50
(the question may have asked for percents) and 1/2; "5, 3" without brackets is a set of solutions; a decimal is exact,
0.33 is not 1/3. Run as a program, this file is that process: a JSON line [text, gold] in, true, false or null out.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import re
import select
import subprocess
import sys
import threading
import unicodedata
from fractions import Fraction
from typing import Any

TOO_LONG = "the answers could not be compared in 5 s"
COMPARE_S, START_S, MEMORY_MB, LONGEST = 5.0, 120.0, 2048, 400


def final_answer(text: str) -> str:
    r"""The answer that a solution ends in: the last \boxed{...}, what follows the last ####, or "answer is", or all."""
    if "\\boxed{" in text:
        body, depth = text.rsplit("\\boxed{", 1)[1], 1
        for at, character in enumerate(body):
            depth += (character == "{") - (character == "}")
            if depth == 0:
                return body[:at].strip()
    if "####" in text:
        return text.rsplit("####", 1)[1].strip().split("\n")[0].strip()
    said = re.findall(r"(?i)\banswer(?: is|:)[ \t]*(?:[:=][ \t]*)?(.+?)(?:\.(?:\s|$)|\n|$)", text)
    return (said[-1] if said else text).strip()


def normalise(answer: str) -> str:
    """One spelling for answers that are the same number, whatever its unit, or the same text but for spaces."""
    number = number_of(answer)
    return str(number) if number is not None else plain_text(answer)


def same_answer(text: str, gold: str) -> bool:
    """Whether the final answer of `text` is `gold`; no where that could not be found out."""
    return compare(text, gold) is True


def compare(text: str, gold: str) -> bool | None:
    """Whether the final answer of `text` is `gold`; None where finding out took more than 5 s or 2 GB."""
    given, wanted = final_answer(text), final_answer(gold)
    one, other = quantity_of(given), quantity_of(wanted)
    if one and other:
        return same_quantity(one, other)
    if plain_text(given) == plain_text(wanted):
        return True
    if max(len(given), len(wanted)) > LONGEST or not (is_maths(given) and is_maths(wanted)):
        return False
    units = [unit_of(found[-1]) if (found := UNIT_AT_END.findall(side)) else None for side in (given, wanted)]
    bases = [found[1] if (found := BASE.search(side)) else None for side in (given, wanted)]
    if any(None not in pair and pair[0] != pair[1] for pair in (units, bases)):
        return False
    return ask(radians(given), radians(wanted))


def plain_text(answer: str) -> str:
    answer = re.sub(r"\\(?:text|mathrm|mbox|textbf|textit)\{([^{}]*)\}", r"\1", answer)
    answer = re.sub(r"\\(?:left|right|[,;!:])|\\?\$", "", answer.replace("\\dfrac", "\\frac"))
    answer = re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", answer)  # a space between digits keeps two numbers apart
    answer = answer.replace("\\tfrac", "\\frac").replace("\\varnothing", "\\emptyset").rstrip(".").casefold()
    return answer[1] if re.fullmatch(r"\([a-z]\)", answer) else answer  # the letter of a choice


FUNCTIONS = {"sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "sqrt", "inf", "mod", "gcd", "lcm", "max", "min"}
CONNECTIVES = {
    "or",
    "is",
    "to",
    "of",
    "if",
    "no",
    "be",
    "by",
    "at",
    "as",
    "an",
    "on",
    "it",
    "am",
    "pm",
    "ft",
    "cm",
    "kg",
    "km",
}


def is_maths(answer: str) -> bool:
    """Whether an answer is an expression, not words: then the order of letters is no matter of spelling."""
    bare = re.sub(r"\\(?:text|mathrm|mbox|textbf|textit|begin|end)\{[^{}]*\}|\\[a-zA-Z]+", " ", answer)
    words = re.findall(r"[^\W\d_]{2,}", bare.casefold())
    plain = all((len(word) < 3 and word not in CONNECTIVES) or word in FUNCTIONS for word in words)
    return (
        plain
        and ";" not in bare
        and re.search(r"[\d+\-*/^=<>(){}\[\]|]|\\(?!text|mathrm|mbox)[a-zA-Z]", answer) is not None
    )


# --- numbers and units -----------------------------------------------------------------------------------------------

FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{\s*([-+]?\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))")
POWER = re.compile(r"\s*(?:\\times|\\cdot|×|·|\*|x)\s*10\s*(?:\^|\*\*)\s*\{?\s*([-+]?\s*\d{1,3})\s*\}?")
NUMBER = re.compile(
    r"([-+]?)\s*(?:(\d+)\s+(\d+)/(\d+)|(\d+(?:\.\d*)?|\.\d+)(?:e([-+]?\d{1,3}))?(?:\s*/\s*(\d+(?:\.\d+)?))?)(?![\d^_!])"
)
UNIT = re.compile(r"(?:%|°\s*[cf]?|[a-z¢€£][a-z.\s/^*23-]*)?")
UNIT_AT_END = re.compile(r"\\(?:text|mathrm|mbox)\{\s*([^{}]+)\}\s*$")
BASE = re.compile(r"\d_\{?(\d+)\}?\s*\$?$")
ANGLE = re.compile(r"(\d+(?:\.\d+)?)\s*\^\s*\{?\s*\\circ\s*\}?")
COINS = {"$": "dollars", "€": "euros", "£": "pounds sterling"}
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
NUMERALS = {name: str(number) for number, name in enumerate(NAMES)}

Quantity = tuple[Fraction, str]  # a number and its unit, "" where none is named


def number_of(answer: str) -> Fraction | None:
    r"""The number that an answer is: 1,234.50, $3, 7 apples, 2 1/2, \frac{3}{4}, 50\%, 1e3; None where it is none."""
    found = quantity_of(answer)
    return found[0] if found else None


def quantity_of(answer: str) -> Quantity | None:
    """The number that an answer is, exactly, and its unit; None where it is none."""
    answer = spelled(answer)
    coin = next((name for sign, name in COINS.items() if sign in answer), "")
    if coin == "dollars" and re.search(r"\$[^$]*\$", answer):  # LaTeX in dollars: $5$
        coin = "dollars" if "\\$" in answer else ""
    answer = re.sub(r"\\?\$|[€£]", " ", answer).strip().rstrip(" .")
    answer = re.sub(r"^([-+])\s+(?=[\d.])", r"\1", re.sub(r"^[a-z]\s*=\s*", "", answer))
    answer = POWER.sub(lambda match: "e" + match[1].replace(" ", ""), answer)
    word = re.match(r"[a-z]+\b", answer)
    if word and word[0] in NUMERALS:
        answer = NUMERALS[word[0]] + answer[word.end() :]
    match = NUMBER.match(answer)
    unit = answer[match.end() :].strip(" .") if match else ""
    if (
        not match
        or not UNIT.fullmatch(unit)
        or unit.startswith(("/", "^", "*"))
        or (len(unit) == 1 and unit not in UNITS)  # 2x
    ):
        return None
    sign, whole, above, beneath, digits, power, below = match.groups()
    if any(one and not float(one) for one in (beneath, below)):
        return None
    if whole:
        value = int(whole) + Fraction(int(above), int(beneath))
    else:
        value = Fraction(digits) * Fraction(10) ** int(power or 0) / Fraction(below or 1)
    return -value if sign == "-" else value, coin or unit


def spelled(answer: str) -> str:
    """An answer in plain signs: minus, fractions, thousands, degrees, percents, units without LaTeX."""
    answer = "".join(" " + unicodedata.normalize("NFKC", c) if unicodedata.category(c) == "No" and "⁄" in
                     unicodedata.normalize("NFKC", c) else c for c in answer)  # fmt: skip
    answer = re.sub("[−–‐]", "-", answer.strip().casefold().replace("⁄", "/")).replace("\\!", "")
    answer = answer.replace("²", "^2").replace("³", "^3")
    answer = re.sub(r"\\(?:text|mathrm|mbox|textrm|rm)\s*\{([^{}]*)\}", r" \1", answer)
    answer = re.sub(r"\\(?:left|right)(?![a-z])|\\[ ;:]|~", " ", answer)
    answer = re.sub(r"(?<=\d)(?:\{,\}|\\,|\u2009|\u202f|\u00a0)(?=\d{3}(?!\d))", ",", answer).replace("\\,", " ")
    answer = FRACTION.sub(lambda m: f" {m[1] or m[2]}/{m[3] or m[4]}", answer)
    answer = re.sub(r"\^?\s*\{?\\circ\}?|\\degree\b|\bdegrees?\b", "°", answer).replace("\\%", "%")
    answer = re.sub(r"\s*\bpercent\b", "%", re.sub(r"°\s*(c|f)(?:elsius|ahrenheit)?\b", r"°\1", answer))
    return re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", re.sub(r"\^\{(\d)\}", r"^\1", answer)).strip()


def same_quantity(given: Quantity, wanted: Quantity) -> bool:
    """Equal, or equal after converting units; a percent is itself or its hundredth beside a number without a unit."""
    (one, unit), (other, wanted_unit) = given, wanted
    if unit == wanted_unit:
        return one == other
    if not unit or not wanted_unit:
        parts = (unit + wanted_unit == "%") * [(one / 100, other) if unit else (one, other / 100)]
        return one == other or any(a == b for a, b in parts)
    known, known_wanted = unit_of(unit), unit_of(wanted_unit)
    if known and known_wanted:
        return known[1] == known_wanted[1] and one * known[0] == other * known_wanted[0]
    return one == other and not (known or known_wanted) and bool(things(unit) & things(wanted_unit))


def things(unit: str) -> set[str]:
    """The words of a unit that is none of the known ones, without their plural: red apples -> red, apple."""
    return {re.sub(r"(?<=[a-z])(?:es|s)$", "", word).rstrip("e") for word in re.findall(r"[a-z]+", unit)}


def table(dimension: str, words: str) -> dict[str, tuple[Fraction, str]]:
    """`name=factor` for each unit, its plural with it."""
    found = {}
    for names, factor in (part.split("=") for part in words.split()):
        for name in names.split(","):
            found[name] = found[name + "s"] = (Fraction(factor), dimension)
    return found


UNITS = {
    **table("length", "mm,millimeter,millimetre=1/1000 cm,centimeter,centimetre=1/100 m,meter,metre=1"),
    **table("length", "km,kilometer,kilometre=1000 in,inch,inche=254/10000 ft,foot,feet=3048/10000"),
    **table("length", "yd,yard=9144/10000 mi,mile=1609344/1000"),
    **table(
        "mass", "mg,milligram=1/1000 g,gram=1 kg,kilogram=1000 lb,pound=45359237/100000 oz,ounce=28349523125/1000000000"
    ),
    **table("time", "s,sec,second=1 min,minute=60 h,hr,hour=3600 day=86400 week=604800"),
    **table("volume", "ml,milliliter,millilitre=1/1000 l,liter,litre=1"),
    **table("dollars", "dollar,usd=1 cent,¢=1/100"),
    **table("euros", "euro=1"),
    **table("sterling", "gbp=1"),
    **table("angle", "°=1"),
    **table("radians", "rad,radian=1"),
    **table("percent", "%=1"),
    **table("celsius", "°c=1"),
    **table("fahrenheit", "°f=1"),
}


def unit_of(text: str) -> tuple[Fraction, str] | None:
    """(factor, dimension) of a unit: km, square feet, cm^2, km/h, miles per hour; None where it is not known."""
    text = re.sub(r"\s*\bper\b\s*|\s*/\s*", "/", text.casefold().strip(" ."))
    factor, dimensions = Fraction(1), []
    for at, part in enumerate(text.split("/")):
        found = re.fullmatch(r"(square|cubic|sq\.?)?\s*([a-z°%¢][a-z]?[a-z ]*?)\.?\s*(?:\^?([23]))?", part.strip())
        name = (found[2].strip() if found else "").replace("° ", "°")
        if name not in UNITS:
            return None
        power = {"s": 2, "c": 3}.get((found[1] or "")[:1], int(found[3] or 1))
        factor *= UNITS[name][0] ** (-power if at else power)
        dimensions.append(f"{UNITS[name][1]}^{power}")
    return factor, "/".join(dimensions)


def radians(answer: str) -> str:
    r"""Angles in degrees as multiples of \pi, where they are the answer or stand in an expression."""
    found = quantity_of(answer)
    if found and found[1] == "°":
        answer = rf"{float(found[0]):.12g}^\circ"
    return ANGLE.sub(r"(\\frac{\1\\pi}{180})", answer)


# --- expressions, in a process that can be ended ---------------------------------------------------------------------

_idle: list[tuple[int, subprocess.Popen]] = []
_lock = threading.Lock()


@functools.lru_cache(maxsize=100_000)
def ask(given: str, wanted: str) -> bool | None:
    """Whether math-verify finds two expressions equal; None where it took too long or too much memory."""
    with _lock:
        mine = [pair for pair in _idle if pair[0] == os.getpid() and pair[1].poll() is None]
        process = mine[-1][1] if mine else None
        if mine:
            _idle.remove(mine[-1])
    if process is None:
        process = subprocess.Popen(
            [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        if reply(process, START_S) != "ready":
            process.kill()
            process.wait()
            raise RuntimeError("math-verify does not start; `python -m pip install -e .` installs it")
    try:
        process.stdin.write(json.dumps([given, wanted]).encode() + b"\n")
        process.stdin.flush()
        answer = reply(process, COMPARE_S)
    except OSError:
        answer = None
    if isinstance(answer, bool):
        with _lock:
            _idle.append((os.getpid(), process))
        return answer
    process.kill()
    process.wait()
    return None


def reply(process: subprocess.Popen, wait_s: float) -> bool | str | None:
    """The next line that the process writes, as JSON; None after `wait_s` seconds without one, or at its end."""
    if not select.select([process.stdout], [], [], wait_s)[0]:
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


def serve() -> None:
    """Answer pairs on standard input, one after another, until it closes."""
    import resource

    import math_verify
    import sympy

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MB << 20, MEMORY_MB << 20))
    out, sys.stdout = sys.stdout, sys.stderr  # nothing else may write between the replies
    parse, verify = math_verify.parse, math_verify.verify
    kinds = [math_verify.LatexExtractionConfig(), math_verify.ExprExtractionConfig()]
    print(json.dumps("ready"), file=out, flush=True)
    for line in sys.stdin:
        # As numbers these agree to 12 digits or not at all.
        sides = [side if "$" in side else f"${side}$" for side in json.loads(line)]
        given, wanted = ([with_i(one, sympy.I) for one in parse(side, kinds, parsing_timeout=None)] for side in sides)
        same = verify(wanted, given, float_rounding=12, allow_set_relation_comp=True, timeout_seconds=None)
        print(json.dumps(bool(same)), file=out, flush=True)


def with_i(parsed: Any, unit: Any) -> Any:
    """An expression with the imaginary unit for its letter i, which is no variable in any short answer that we know."""
    if isinstance(parsed, str):
        return parsed
    return parsed.subs({symbol: unit for symbol in parsed.free_symbols if symbol.name == "i"})


if __name__ == "__main__":
    serve()
