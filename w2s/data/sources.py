"""Published data sets as (Example, Gold): one function per set, the same for local copies and for the hub.

Every source takes `root` (a folder with one folder per set; None: the Hugging Face hub) and, as options, `split` (one
or several published splits), `limit` (a fixed sample of so many questions) and `level` (for every question, in place
of the published one). Example.meta: level (a number, or None), split, row (the row's published id, or where it
stands), repeats (how many identical rows were left out), and what the set publishes: grade, bloom, depth, difficulty,
subject.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from w2s.data.arithmetic import asdiv, gsm8k, math
from w2s.data.own import file
from w2s.data.programs import humaneval, humanevalplus, mbpp, mbppplus
from w2s.data.questions import Question, by_label, check_splits, gather, read_choices, text
from w2s.data.reading import Row, rows
from w2s.data.world import world
from w2s.store.records import BadInput, Example, Gold

Questions = tuple[list[Example], list[Gold]]
AI2_SPLITS = {"train": "Train", "validation": "Dev", "test": "Test"}
MMLU_LEVELS = {"elementary": 0.0, "high_school": 1.0, "college": 2.0, "professional": 3.0}


def arc_easy(
    root: Path | None, *, split: str | list[str] = "train", limit: int | None = None, level: float | None = None
) -> Questions:
    """AI2 reasoning challenge, the easy set: grade-school science, 3 to 5 choices. Level 0. CC BY-SA 4.0."""
    return arc(root, "ARC-Easy", "arc_easy", 0.0, split, limit, level)


def arc_challenge(
    root: Path | None, *, split: str | list[str] = "train", limit: int | None = None, level: float | None = None
) -> Questions:
    """AI2 reasoning challenge, the set that retrieval and word overlap get wrong. Level 1. CC BY-SA 4.0."""
    return arc(root, "ARC-Challenge", "arc_challenge", 1.0, split, limit, level)


def arc(
    root: Path | None,
    config: str,
    source: str,
    published_level: float,
    split: str | list[str],
    limit: int | None,
    level: float | None,
) -> Questions:
    def fit(row: dict) -> Question:
        nested = row["question"] if isinstance(row["question"], dict) else {"stem": row["question"], **row}
        labels, texts = read_choices(nested["choices"])
        human = row.get("annotation") or {}
        named = {key: human.get(column) for key, column in ARC_LABELS.items() if human.get(column) is not None}
        answer = by_label(labels, row["answerKey"])
        return Question(text(nested, "stem"), texts, answer, {"level": published_level, "row": row["id"], **named})

    parts = (
        (one, rows(root, "arc", [f"{config}-{AI2_SPLITS[one]}"], ("allenai/ai2_arc", config), one))
        for one in check_splits(source, split, AI2_SPLITS)
    )
    return gather(source, parts, fit, limit=limit, level=level)


ARC_LABELS = {"grade": "grade", "bloom": "bloom", "depth": "depth_of_knowledge", "difficulty": "difficulty"}


def sciq(
    root: Path | None,
    *,
    split: str | list[str] = "train",
    limit: int | None = None,
    level: float | None = None,
    form: Literal["choices", "pairs"] = "choices",
) -> Questions:
    """Crowd-written science questions, 4 choices, or as pairs of the correct and one wrong answer. CC BY-NC 3.0.

    The order of the choices is a hash of question and choice: published rows name the correct one in its own column.
    form "pairs": two candidates, as in OpenAI's weak-to-strong work; from a file of labelled (question, answer) rows
    where there is one (correct and wrong answers of a question are paired as they come), else from the 4-choice rows.
    """
    parts = []
    for one in check_splits("sciq", split, ("train", "validation", "test")):
        names = [one] if form == "choices" else [f"{one}_binary_pairs", one]
        found = rows(root, "sciq", names, ("allenai/sciq", None), one)
        parts.append((one, sciq_pairs(found) if form == "pairs" else found))
    return gather("sciq", parts, sciq_question, limit=limit, level=level)


def sciq_question(row: dict[str, Any]) -> Question | None:
    prompt, correct = text(row, "question").strip(), text(row, "correct_answer").strip()
    wrong = [text(row, f"distractor{n}").strip() for n in (1, 2, 3) if n == 1 or f"distractor{n}" in row]
    if set(wrong) == {correct}:
        return None  # two published pairs have the same answer marked right and wrong
    choices = sorted({correct, *wrong}, key=lambda choice: hashed(prompt, choice))
    return Question(prompt, choices, choices.index(correct), {})


def hashed(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def sciq_pairs(found: Iterator[Row]) -> Iterator[Row]:
    """Labelled (question, answer, label) rows, or 4-choice rows, as rows with a correct answer and one distractor."""
    waiting: dict[str, tuple[list[Row], list[Row]]] = {}
    for where, row in found:
        if "distractor1" in row:
            wrong = min((row[f"distractor{n}"] for n in (1, 2, 3)), key=lambda choice: hashed("pair", str(choice)))
            yield where, {**without_distractors(row), "distractor1": wrong}
            continue
        if row.get("label") not in (0, 1):
            raise BadInput(f"{where}: label: {row.get('label')!r} given; allowed: 0, 1")
        sides = waiting.setdefault(str(row.get("question")), ([], []))
        sides[int(row["label"])].append((where, row))
        if sides[0] and sides[1]:
            (_, wrong), (where, right) = sides[0].pop(0), sides[1].pop(0)
            names = {"question": right["question"], "correct_answer": right.get("answer")}
            yield where, {**names, "distractor1": wrong.get("answer")}
    for sides in waiting.values():
        for where, _ in (*sides[0], *sides[1]):
            raise BadInput(f"{where}: this question has no row with the other label to make a pair with")


def without_distractors(row: dict[str, Any]) -> dict[str, Any]:
    return {column: value for column, value in row.items() if not column.startswith("distractor")}


def openbookqa(
    root: Path | None, *, split: str | list[str] = "train", limit: int | None = None, level: float | None = None
) -> Questions:
    """Elementary science facts applied to new situations, 4 choices. ODC-BY."""

    def fit(row: dict) -> Question:
        if "question_stem" in row:
            labels, texts = read_choices(row["choices"])
            return Question(text(row, "question_stem"), texts, by_label(labels, row["answerKey"]), {"row": row["id"]})
        return indexed(row)

    return simple(root, "openbookqa", "openbookqa", ("allenai/openbookqa", "main"), STANDARD, fit, split, limit, level)


def commonsenseqa(
    root: Path | None, *, split: str | list[str] = "train", limit: int | None = None, level: float | None = None
) -> Questions:
    """Everyday knowledge, 5 choices; the published test has no answers. MIT."""

    def fit(row: dict) -> Question:
        nested = row["question"] if isinstance(row["question"], dict) else {"stem": row["question"], **row}
        labels, texts = read_choices(nested["choices"])
        meta = {"row": row["id"], "subject": nested.get("question_concept")}
        return Question(text(nested, "stem"), texts, by_label(labels, row["answerKey"]), meta)

    splits = {"train": ["train"], "validation": ["validation", "dev"]}
    return simple(
        root, "commonsenseqa", "commonsenseqa", ("tau/commonsense_qa", None), splits, fit, split, limit, level
    )


def boolq(
    root: Path | None,
    *,
    split: str | list[str] = "train",
    limit: int | None = None,
    level: float | None = None,
    passage: bool = False,
) -> Questions:
    """Yes/no questions that people asked a search engine; closed-book unless `passage`. CC BY-SA 3.0."""

    def fit(row: dict) -> Question:
        if not isinstance(row["answer"], bool):
            raise ValueError(f"answer: {row['answer']!r} given; allowed: true, false")
        prompt = f"{text(row, 'passage')}\n\n{text(row, 'question')}" if passage else text(row, "question")
        return Question(prompt, ("no", "yes"), int(row["answer"]), {})

    splits = {"train": ["train"], "validation": ["validation"]}
    return simple(root, "boolq", "boolq_closedbook", ("google/boolq", None), splits, fit, split, limit, level)


def mmlu(
    root: Path | None,
    *,
    split: str | list[str] = "test",
    limit: int | None = None,
    level: float | None = None,
    subjects: list[str] | None = None,
) -> Questions:
    """57 exam subjects, 4 choices. Level: elementary 0, high school 1, college 2, professional 3, others none. MIT.

    `subjects`: only these (full names as published, "college_physics", or a level's prefix, "college").
    """

    def fit(row: dict) -> Question:
        found = [number for prefix, number in MMLU_LEVELS.items() if text(row, "subject").startswith(prefix)]
        question = indexed(row)
        return question._replace(meta={"subject": row["subject"], "level": found[0] if found else None})

    def wanted(found: Iterator[Row]) -> Iterator[Row]:
        for where, row in found:
            subject = str(row.get("subject"))
            if subjects is None or any(subject == one or subject.startswith(one + "_") for one in subjects):
                seen.update(one for one in subjects or () if subject == one or subject.startswith(one + "_"))
                yield where, row

    seen: set[str] = set()
    splits = ("test", "validation", "dev", "auxiliary_train")
    asked = check_splits("mmlu", split, splits)
    parts = ((one, wanted(rows(root, "mmlu", [one], ("cais/mmlu", "all"), one))) for one in asked)
    questions = gather("mmlu", parts, fit, limit=limit, level=level)
    if missing := sorted(set(subjects or ()) - seen):
        raise BadInput(f"mmlu: subjects: {', '.join(missing)} asked for, not found in {', '.join(asked)}")
    return questions


STANDARD = {"train": ["train"], "validation": ["validation", "dev"], "test": ["test"]}


def indexed(row: dict[str, Any]) -> Question:
    """question, choices (a list of texts), answer (an index): the plainest layout."""
    if not isinstance(row["choices"], list) or not all(isinstance(choice, str) for choice in row["choices"]):
        raise ValueError("choices: a list of texts is wanted")
    if type(row["answer"]) is not int:
        raise ValueError(f"answer: {row['answer']!r} given; allowed: the index of a choice")
    return Question(text(row, "question"), row["choices"], row["answer"], {})


def simple(
    root: Path | None,
    source: str,
    folder: str,
    hub: tuple[str, str | None],
    splits: dict[str, list[str]],
    fit: Callable[[dict[str, Any]], Question],
    split: str | list[str],
    limit: int | None,
    level: float | None,
) -> Questions:
    """A set with one file (base names by split) and one hub split for each of its splits."""
    parts = ((one, rows(root, folder, splits[one], hub, one)) for one in check_splits(source, split, splits))
    return gather(source, parts, fit, limit=limit, level=level)


SOURCES = {
    "world": world,
    "arc_easy": arc_easy,
    "arc_challenge": arc_challenge,
    "sciq": sciq,
    "openbookqa": openbookqa,
    "commonsenseqa": commonsenseqa,
    "boolq": boolq,
    "mmlu": mmlu,
    "math": math,
    "gsm8k": gsm8k,
    "asdiv": asdiv,
    "humaneval": humaneval,
    "humanevalplus": humanevalplus,
    "mbpp": mbpp,
    "mbppplus": mbppplus,
    "file": file,
}
