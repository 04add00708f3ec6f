"""The user's own rows."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

from w2s.data.questions import Question, gather
from w2s.data.reading import file_rows
from w2s.records import BadInput, Example, Gold

PUBLIC = ("subject", "grade", "bloom", "depth", "difficulty")


def file(
    root: Path | None,
    *,
    path: str,
    split: str | list[str] | None = None,
    limit: int | None = None,
    level: float | None = None,
) -> tuple[list[Example], list[Gold]]:
    """Your own questions: jsonl, json, csv (also .gz) or parquet, columns prompt (or question), choices, answer.

    `path` is relative to `root` where there is one. Without choices the answer is a short text. With choices (a list;
    in a csv a JSON list, or texts parted by |) it is the text of a choice, a letter (A is the first) or an index from
    0, tried in that order. Optional columns: id, level (a number), split, subject, grade, bloom, depth, difficulty.
    `split`: only the rows whose column `split` says so.
    """
    place = (Path(root) if root is not None else Path()) / path
    if not place.is_file():
        raise BadInput(f"file: path: there is no file {place}")
    wanted = None if split is None else [split] if isinstance(split, str) else list(split)
    found = ((where, row) for where, row in file_rows(place) if wanted is None or row.get("split") in wanted)
    examples, gold = gather(Path(path).name.split(".")[0], [("all", found)], own_question, limit=limit, level=level)
    if missing := sorted(set(wanted or ()) - {example.meta["split"] for example in examples}):
        raise BadInput(f"{place}: split: {', '.join(missing)} asked for, no such row found")
    return examples, gold


def own_question(row: dict[str, Any]) -> Question:
    prompt = row["prompt"] if "prompt" in row else row["question"]
    if not isinstance(prompt, str):
        raise ValueError(f"prompt: a text is wanted, {type(prompt).__name__} given")
    meta = {key: row[key] for key in ("split", *PUBLIC) if row.get(key) not in (None, "")}
    if row.get("id") not in (None, ""):
        meta["row"] = str(row["id"])
    if row.get("level") not in (None, ""):
        meta["level"] = number(row["level"])
    answer = row["answer"]
    if row.get("choices") in (None, "", []):
        if answer is None or isinstance(answer, list | dict):
            raise ValueError("answer: a text or a number is wanted")
        return Question(prompt, (), str(answer), meta)
    choices = as_list(row["choices"])
    return Question(prompt, choices, position(choices, answer), meta)


def number(value: Any) -> float:
    try:
        level = float("nan" if isinstance(value, bool) else value)
    except (TypeError, ValueError):
        level = float("nan")
    if level != level or abs(level) == float("inf"):
        raise ValueError(f"level: {value!r} given; allowed: a number")
    return level


def as_list(value: Any) -> list[str]:
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.lstrip().startswith("[") else value.split("|")
        except json.JSONDecodeError:
            raise ValueError("choices: it begins with [ but is not a JSON list") from None
    if not isinstance(value, list) or not all(isinstance(choice, str) for choice in value):
        raise ValueError("choices: a list of texts is wanted")
    if len(value) < 2:
        raise ValueError(f"choices: {len(value)} given; a choice question needs at least 2")
    return [choice.strip() for choice in value]


def position(choices: list[str], answer: Any) -> int:
    """The index of the choice that `answer` means: its text, a letter, or an index from 0."""
    if isinstance(answer, str):
        answer = answer.strip()
        if answer in choices:
            return choices.index(answer)
        letters = string.ascii_uppercase[: len(choices)]
        if len(answer) == 1 and answer.upper() in letters:
            return letters.index(answer.upper())
        if answer.isascii() and answer.isdigit():
            answer = int(answer)
    if type(answer) is not int or not 0 <= answer < len(choices):
        allowed = f"the text of a choice, a letter from A, or 0 to {len(choices) - 1}"
        raise ValueError(f"answer: {answer!r} given; allowed: {allowed}")
    return answer
