"""Published word problems with short answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from w2s.data.questions import Question, check_splits, gather, text
from w2s.data.reading import Row, find, lines, rows
from w2s.store.records import BadInput, Example, Gold

MATH_SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)
BAND_LEVELS = {"L1-2": 1.5, "L3-5": 4.0}


def math(
    root: Path | None, *, split: str | list[str] = "train", limit: int | None = None, level: float | None = None
) -> tuple[list[Example], list[Gold]]:
    """Competition mathematics (Hendrycks 2021). Level 1 to 5; a copy with bands: 1.5 (levels 1, 2), 4 (3 to 5). MIT."""

    def parts() -> Iterator[tuple[str, Iterator[Row]]]:
        for one in check_splits("math", split, ("train", "test")):
            if root is not None:
                yield one, rows(root, "math", [one, f"{one}_bands"], ("", None), one)
                continue
            for subject in MATH_SUBJECTS:
                yield one, rows(None, "math", [], ("EleutherAI/hendrycks_math", subject), one)

    return gather("math", parts(), math_question, limit=limit, level=level)


def math_question(row: dict) -> Question | None:
    if "solution" in row:
        answer = boxed(text(row, "solution"))
        found = re.fullmatch(r"Level ([1-5?])", text(row, "level"))
        if not found:
            raise ValueError(f"level: {row['level']!r} given; allowed: Level 1 to Level 5, Level ?")
        meta = {"level": None if found[1] == "?" else float(found[1]), "subject": row["type"]}
    else:
        answer = text(row, "final_answer").strip()
        if row["band"] not in BAND_LEVELS:
            raise ValueError(f"band: {row['band']!r} given; allowed: {', '.join(BAND_LEVELS)}")
        meta = {"level": BAND_LEVELS[row["band"]], "difficulty": row["band"]}
    if not answer:
        return None  # two of the 7,500 banded rows have lost their answer
    return Question(text(row, "problem"), (), answer, meta)


def boxed(solution: str) -> str:
    r"""What stands in the last \boxed{...}, braces balanced (also `\boxed 3` and \fbox{...})."""
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
    root: Path | None,
    *,
    split: str | list[str] = "train",
    form: Literal["answers", "solutions"] = "answers",
    limit: int | None = None,
    level: float | None = None,
) -> tuple[list[Example], list[Gold]]:
    """Grade-school word problems (Cobbe 2021). Level = the number of steps of the published solution. MIT.

    form "solutions": the gold is the whole worked solution, which ends in "#### ANSWER" (its <<calculator marks>> left
    out); right is still who ends in the right answer.
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

    parts = (
        (one, rows(root, "gsm8k", [one], ("openai/gsm8k", "main"), one))
        for one in check_splits("gsm8k", split, ("train", "test"))
    )
    return gather("gsm8k", parts, fit, limit=limit, level=level)


def asdiv(
    root: Path | None, *, split: str | list[str] = "all", limit: int | None = None, level: float | None = None
) -> tuple[list[Example], list[Gold]]:
    """Word problems of school grades 1 to 6 (Miao 2020). Level = grade (the hub copy has none). CC BY-NC 4.0."""

    def fit(row: dict) -> Question:
        # "9 (apples)": the unit is a remark; "7; 5 (red; blue)" has several numbers and stays whole.
        answer = re.sub(r"\s*\([^()]*\)\s*$", "", text(row, "answer"))
        grade = float(row["grade"]) if "grade" in row else None
        meta = {"level": grade, "grade": grade, "subject": row.get("solution_type")}
        if "id" in row:
            meta["row"] = row["id"]
        return Question(f"{text(row, 'body').strip()} {text(row, 'question').strip()}", (), answer, meta)

    check_splits("asdiv", split, ("all",))
    if root is None:
        found = rows(None, "asdiv", [], ("EleutherAI/asdiv", "asdiv"), "validation")
    else:
        found = xml_problems(find(Path(root) / "asdiv", ["ASDiv"], (".xml", ".xml.gz")))
    return gather("asdiv", [("all", found)], fit, limit=limit, level=level)


def xml_problems(path: Path) -> Iterator[Row]:
    """The <Problem> elements of ASDiv's XML file, columns named as on the hub, plus id and grade."""
    data = "".join(line for _, line in lines(path))
    if "<!ENTITY" in data:  # the standard library's parser expands entities without a bound
        raise BadInput(f"{path}: entity declarations are not allowed")
    try:
        problems = ElementTree.fromstring(data).iter("Problem")
    except ElementTree.ParseError as error:
        raise BadInput(f"{path}:{error.position[0]}: not XML ({error})") from None
    for number, problem in enumerate(problems, 1):
        row = {child.tag.lower().replace("-", "_"): child.text or "" for child in problem}
        yield f"{path}: problem {number}", {**row, **{key.lower(): value for key, value in problem.attrib.items()}}
