"""Reading a column of answers to choice questions, all of it in one way: as letters, texts or indices."""

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from w2s.data.layouts import filled, plain
from w2s.data.reading import quoted
from w2s.store.records import BadInput

# "B", "B.", "(B)", "Option B", "B) the text of B"
MARKED = re.compile(
    r"(?:(?:option|choice|answer)\b[\s:]*)?[(\[*]*(\w{1,12})\s*[)\].:,*–-]*(?:(?<=[)\].:,–-])\s*(\S.*))?", re.I | re.S
)
Reading = Literal["letter", "text", "index_from_0", "index_from_1"]


class Choices(NamedTuple):
    """The choices of a row. labels: plain label -> position; named: whether the file itself names the labels."""

    texts: list[str]
    labels: dict[str, int]
    named: bool


def shown(value: Any) -> str:
    """A cell as text: 3.0 is 3."""
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value) if whole else value).strip()


def by_letter(answer: Any, choices: Choices) -> int | None:
    """A letter or label: alone, marked as one, or followed by the exact text of its choice."""
    said = shown(answer)
    if said[:1].isalnum() and plain(said[:40]) in choices.labels and len(said) <= 40:
        return choices.labels[plain(said)]
    marked = MARKED.fullmatch(said)
    at = choices.labels.get(plain(marked[1])) if marked else None
    if at is None or not marked[2]:
        return at
    return at if choices.texts[at].casefold() in (marked[2].strip().casefold(), said.casefold()) else None


def by_text(answer: Any, choices: Choices) -> int | None:
    said = shown(answer)
    if said in choices.texts:
        return choices.texts.index(said)
    folded = [text.casefold() for text in choices.texts]
    return folded.index(said.casefold()) if folded.count(said.casefold()) == 1 else None


def by_index(answer: Any, choices: Choices, *, first: int) -> int | None:
    said = "" if isinstance(answer, bool) else shown(answer)
    at = int(said.split(".")[0]) - first if re.fullmatch(r"[0-9]{1,4}(\.0*)?", said) else -1
    return at if 0 <= at < len(choices.texts) else None


READINGS = {
    "letter": by_letter,
    "text": by_text,
    "index_from_0": lambda answer, choices: by_index(answer, choices, first=0),
    "index_from_1": lambda answer, choices: by_index(answer, choices, first=1),
}


def choose_reading(column: str, rows: Sequence[tuple[str, Choices, Any]], *, start: int | None) -> Reading:
    """The reading that fits all rows (where, choices, answer), or else most of them.

    start: what indices count from in this layout, unless the column shows otherwise; None: unknown. Two readings that
    fit all rows but mean different choices are a BadInput that names the option.
    """
    rows = [row for row in rows if filled(row[2])]
    if not rows:
        return "letter"
    meant = {way: [read(answer, choices) for _, choices, answer in rows] for way, read in READINGS.items()}
    whole = [way for way in meant if None not in meant[way]]
    if not whole:
        return max(meant, key=lambda way: sum(at is not None for at in meant[way]))
    if whole[0] == "letter" and all(choices.named for _, choices, _ in rows):
        return "letter"
    if start == 0 and "index_from_0" in whole:
        whole = [way for way in whole if way != "index_from_1"]
    first, texts = whole[0], {}
    for way in whole:
        texts[way] = [choices.texts[at] for (_, choices, _), at in zip(rows, meant[way], strict=True)]
        if texts[way] != texts[first]:
            at = next(at for at in range(len(rows)) if texts[way][at] != texts[first][at])
            meanings = " and ".join(f"{quoted(texts[reading][at])} as {reading}" for reading in (first, way))
            raise BadInput(
                f"{rows[at][0]}: {column}: {quoted(rows[at][2])} is {meanings}, and both fit every row: set the "
                f"option answers: {first} or {way}"
            )
    return first


def find_choice(column: str, answer: Any, choices: Choices, reading: Reading) -> int:
    if not filled(answer):
        raise ValueError(f"{column}: it is empty")
    at, count = READINGS[reading](answer, choices), len(choices.texts)
    if at is None:
        allowed = {"letter": f"a letter from A to {chr(ord('A') + count - 1)}", "text": "the text of a choice"}
        allowed |= {f"index_from_{first}": f"an index from {first} to {count - 1 + first}" for first in (0, 1)}
        raise ValueError(f"{column}: {quoted(answer)} given; allowed in this column: {allowed[reading]}")
    return at
