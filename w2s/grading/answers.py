"""Whether two short answers are the same: numbers, units, money, LaTeX, sets, words.

Plain numbers are compared as exact fractions, with the units that both name (see quantities). Answers that are neither
plain numbers nor the same text go to math-verify (see expressions). Words are compared as words, never as products of
letters. "5, 3" without brackets is a set of solutions, "5; 3" an ordered list.
"""

import re

from w2s.grading.endings import CHOICE, LONGEST_TEXT, announced, bare_answer, final_answer
from w2s.grading.expressions import STYLED, ask, is_maths
from w2s.grading.quantities import LONGEST, read_quantity, read_unit, same_quantity, with_point

TOO_LONG = "the answers could not be compared in 5 s of processor time"
NO_ANSWER = "no answer found"
UNIT_AT_END = re.compile(STYLED + r"\{\s*([^{}]+)\}\s*$")
BASE = re.compile(r"\d_\{?(\d+)\}?$")
ANGLE = re.compile(r"(\d+(?:\.\d+)?)\s*\^\s*\{?\s*\\circ\s*\}?")
AS_TEXT = re.compile(r"\d{1,4}([/.-])\d{1,2}\1\d{2,4}|\d[\d.]*(?: -?\d[\d.]*)+")  # a date, numbers side by side
RAISED, DIGITS = re.compile("[⁰¹²³⁴-⁹]+"), str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
BOUND = re.compile(r"\s*(?:[<>≤≥]|\\(?:[lg](?:eq?|t)|[lg]eqslant)(?![a-z]))")  # > 18 is not 18
TIME = re.compile(r"0?(\d{1,2}:\d\d)(?: ?([ap])\.?m\.?)?", re.IGNORECASE)
LETTER = re.compile(r"\(?[A-J]\)?\.?")
JOINED = re.compile(
    rf"(?<=[\w)\]}}$])?(?:\\q?quad|[\s,])*(?:{STYLED}\{{\s*)?(?<![a-z])(?:and|or)(?![a-z])(?:\s*\}})?(?:\\q?quad|\s)*"
)


def normalise(answer: str) -> str:
    """One spelling for answers with the same number, whatever its unit, or with the same text apart from spaces."""
    number = read_quantity(answer)
    return str(number[0]) if number is not None else plain_text(answer)


def compare(text: str, gold: str) -> bool | None:
    """Whether the final answer of `text` is `gold`; None if that took more than 5 s of processor time or 2 GB."""
    if plain_text(text) == plain_text(gold):
        return True
    answer = final_answer(text)
    return answer is not None and same(answer, announced(gold[-LONGEST_TEXT:]) or bare_answer(gold))


def same(answer: str, gold: str) -> bool | None:
    """Whether two short answers are the same; None as in `compare`."""
    if plain_text(answer) == plain_text(gold):
        return True
    if max(len(answer), len(gold)) > LONGEST:
        return False
    answer, gold = (part(one, other) for one, other in ((answer, gold), (gold, answer)))
    if plain_text(answer) == plain_text(gold):
        return True
    if ";" in answer and ";" in gold:
        sides = answer.split(";"), gold.split(";")
        if len(sides[0]) != len(sides[1]):
            return False
        verdicts = [same(*pair) for pair in zip(*sides, strict=True)]
        return False if False in verdicts else None if None in verdicts else True
    for one, other in dict.fromkeys([(answer, gold), (with_point(answer), gold), (answer, with_point(gold))]):
        quantities = read_quantity(one), read_quantity(other)
        if all(quantities) and same_quantity(*quantities):
            return True
    if all(map(read_quantity, (answer, gold))) or any(map(AS_TEXT.fullmatch, (answer, gold))):
        return False
    if all(times := [TIME.fullmatch(side.casefold()) for side in (answer, gold)]):
        (one, half), (other, other_half) = (found.groups() for found in times)
        return one == other and (half == other_half or None in (half, other_half))
    return same_maths(answer.replace(";", ","), gold.replace(";", ","))


def part(answer: str, other: str) -> str:
    r"""The answer with commas between its parts (1 and 2, 3 \text{ or } 4); for a letter with its text, (B) 18, the
    part that the other answer has.
    """
    if letter := CHOICE.match(answer):
        answer = letter[1] if LETTER.fullmatch(other) else answer[letter.end() :]
    answer = " ".join(answer.split())
    return JOINED.sub(", ", answer) if re.search(r"\d", answer) else answer


def same_maths(answer: str, gold: str) -> bool | None:
    """Whether two expressions are equal; words, other units and other bases are not."""
    answer, gold = (RAISED.sub(lambda raised: f"^{{{raised[0].translate(DIGITS)}}}", side) for side in (answer, gold))
    if not (is_maths(answer) and is_maths(gold)) or bool(BOUND.match(answer)) != bool(BOUND.match(gold)):
        return False
    units = [read_unit(found[-1]) if (found := UNIT_AT_END.findall(side)) else None for side in (answer, gold)]
    bases = [found[1] if (found := BASE.search(side)) else None for side in (answer, gold)]
    if any(None not in pair and pair[0] != pair[1] for pair in (units, bases)):
        return False
    return ask(radians(answer), radians(gold))


def plain_text(answer: str) -> str:
    answer = " ".join(answer.split())
    answer = re.sub(STYLED + r"\{([^{}]*)\}", r"\1", answer)
    answer = re.sub(r"\\(?:left|right|[,;!:])|\\?\$", "", answer.replace("\\dfrac", "\\frac"))
    answer = re.sub(r"(?<!\d) | (?!\d)", "", answer)  # a space between digits keeps two numbers apart
    answer = answer.replace("\\tfrac", "\\frac").replace("\\varnothing", "\\emptyset").rstrip(".").casefold()
    return answer[1] if re.fullmatch(r"\([a-z]\)", answer) else answer  # the letter of a choice


def radians(answer: str) -> str:
    r"""Angles in degrees as multiples of \pi, as whole answers or inside expressions."""
    quantity = read_quantity(answer)
    if quantity and quantity[1] == "°":
        return rf"\frac{{{quantity[0].numerator}\pi}}{{{180 * quantity[0].denominator}}}"
    return ANGLE.sub(r"(\\frac{\1\\pi}{180})", re.sub(r"\\?\$", "", answer))
