"""Published word problems with short answers."""

import ast
import logging
import operator
import re
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from w2s.data.questions import Level, Limit, Published, Question, Questions, Split, check_splits, gather, text
from w2s.data.reading import Row, find, lines, rows
from w2s.store.records import BadInput

log = logging.getLogger(__name__)
MATH_SUBJECTS = ("algebra", "counting_and_probability", "geometry", "intermediate_algebra")
MATH_SUBJECTS += ("number_theory", "prealgebra", "precalculus")
Form = Literal["answers", "solutions"]
WrittenForm = Literal["answers", "formulas"]
SUMS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
BAND_LEVELS = {"L1-2": 1.5, "L3-5": 4.0}


def math(root: Path | None, *, split: Split = "train", limit: Limit = None, level: Level = None) -> Questions:
    """Competition mathematics (Hendrycks 2021). Level 1 to 5; in a copy with bands 1.5 (1, 2) or 4 (3 to 5). MIT."""

    def parts() -> Iterator[tuple[str, Iterator[Row]]]:
        for name in check_splits("math", split, ("train", "test")):
            if root is not None:
                yield name, rows(root, "math", [name, f"{name}_bands"], ("", None), name)
                continue
            for subject in MATH_SUBJECTS:
                yield name, rows(None, "math", [], ("EleutherAI/hendrycks_math", subject), name)

    return gather("math", parts(), math_question, limit, level)


def math_question(row: dict) -> Question | None:
    if "solution" in row:
        answer = boxed(text(row, "solution"))
        level = re.fullmatch(r"Level ([1-5?])", text(row, "level"))
        if not level:
            raise ValueError(f"level: {row['level']!r} given; allowed: Level 1 to Level 5, Level ?")
        meta = {"level": None if level[1] == "?" else float(level[1]), "subject": row["type"]}
    else:
        answer = text(row, "final_answer").strip()
        if row["band"] not in BAND_LEVELS:
            raise ValueError(f"band: {row['band']!r} given; allowed: {', '.join(BAND_LEVELS)}")
        meta = {"level": BAND_LEVELS[row["band"]], "difficulty": row["band"]}
    if not answer:
        return None  # two of the 7,500 banded rows have lost their answer
    return Question(text(row, "problem"), (), answer, meta)


def boxed(solution: str) -> str:
    r"""The content of the last \boxed{...}, braces balanced (also `\boxed 3` and \fbox{...})."""
    starts = list(re.finditer(r"\\(?:boxed|fbox)\s*", solution))
    if not starts:
        raise ValueError(r"solution: it has no \boxed answer")
    rest = solution[starts[-1].end() :]
    if not rest.startswith("{"):
        return rest.split("$")[0].strip()
    depth = 0
    for at, character in enumerate(rest):
        escaped = at and rest[at - 1] == "\\"
        depth += 0 if escaped else (character == "{") - (character == "}")
        if depth == 0:
            return rest[1:at].strip()
    raise ValueError(r"solution: the braces of \boxed{...} do not close")


def gsm8k(
    root: Path | None, *, split: Split = "train", form: Form = "answers", limit: Limit = None, level: Level = None
) -> Questions:
    """Grade-school word problems (Cobbe 2021). Level = the number of steps of the published solution. MIT.

    form "solutions": the gold is the whole worked solution, without its <<calculator marks>>, which ends in "####
    ANSWER"; an answer is still right where it ends in the right number.
    """

    def fit(row: dict) -> Question:
        steps, mark, answer = text(row, "answer").rpartition("####")
        if not mark or not answer.strip():
            raise ValueError("answer: it must end in '#### ANSWER'")
        count = sum(bool(line.strip()) for line in steps.splitlines())
        answer = answer.strip().replace(",", "")
        if form == "solutions":
            answer = f"{re.sub('<<.*?>>', '', steps).strip()}\n#### {answer}"
        return Question(text(row, "question"), (), answer, {"level": float(count)})

    published = Published("gsm8k", "gsm8k", ("openai/gsm8k", "main"), {"train": ["train"], "test": ["test"]})
    return published.read(root, fit, split, limit, level)


def asdiv(
    root: Path | None, *, split: Split = "all", form: WrittenForm = "answers", limit: Limit = None, level: Level = None
) -> Questions:
    """Word problems of school grades 1 to 6 (Miao 2020). Level = grade (the hub copy has none). CC BY-NC 4.0.

    form "formulas": the gold is the published formula, "7+2=9"; an answer is still right where it ends in the right
    number. Problems whose formula is not plain arithmetic (remainders, units, algebra), or does not give the published
    answer, are left out and counted in the log.
    """
    left_out: Counter[str] = Counter()

    def fit(row: dict) -> Question | None:
        # "9 (apples)": the unit is only a remark; "7; 5 (red; blue)" has several numbers and stays whole.
        answer = re.sub(r"\s*\([^()]*\)\s*$", "", text(row, "answer"))
        if form == "formulas":
            formula = "".join(text(row, "formula").split())
            if reason := doubt(formula, answer):
                left_out[reason] += 1
                return None
            answer = formula
        grade = float(row["grade"]) if "grade" in row else None
        meta = {"level": grade, "grade": grade, "subject": row.get("solution_type")}
        meta |= {"row": row["id"]} if "id" in row else {}
        return Question(f"{text(row, 'body').strip()} {text(row, 'question').strip()}", (), answer, meta)

    check_splits("asdiv", split, ("all",))
    if root is None:
        published = rows(None, "asdiv", [], ("EleutherAI/asdiv", "asdiv"), "validation")
    else:
        published = xml_problems(find(Path(root) / "asdiv", ["ASDiv"], (".xml", ".xml.gz")))
    questions = gather("asdiv", [("all", published)], fit, limit, level)
    for reason, count in left_out.items():
        log.warning("asdiv: %d of them since %s", count, reason)
    return questions


def doubt(formula: str, answer: str) -> str:
    """Why "7+2=9", without spaces, cannot stand for the answer "9"; empty if it can."""
    left, _, right = formula.partition("=")
    values = [calculate(side) for side in (left, right, answer)]
    if None in values[:2]:
        return "their formula is not plain arithmetic"
    return "" if values[0] == values[1] == values[2] else "their formula's value is not the answer"


def calculate(formula: str) -> Fraction | None:
    """The exact value of numbers with + - * / and brackets; None for anything else."""
    try:
        return value_of(ast.parse(formula, mode="eval").body)
    except (SyntaxError, ValueError, TypeError, KeyError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def value_of(node: ast.expr) -> Fraction:
    if isinstance(node, ast.BinOp):
        return SUMS[type(node.op)](value_of(node.left), value_of(node.right))
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return Fraction(str(node.value))
    raise ValueError("not plain arithmetic")


def xml_problems(path: Path) -> Iterator[Row]:
    """The <Problem> elements of ASDiv's XML file, columns named as on the hub, plus id and grade."""
    data = "".join(line for _, line in lines(path))
    if "<!ENTITY" in data:  # the standard library's parser expands entities without limit
        raise BadInput(f"{path}: entity declarations are not allowed")
    try:
        problems = ElementTree.fromstring(data).iter("Problem")
    except ElementTree.ParseError as error:
        raise BadInput(f"{path}:{error.position[0]}: not XML ({error})") from None
    for number, problem in enumerate(problems, 1):
        row = {child.tag.lower().replace("-", "_"): child.text or "" for child in problem}
        yield f"{path}: problem {number}", row | {key.lower(): value for key, value in problem.attrib.items()}
