"""From the rows of a dataset to Example and Gold: what all sources share."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from w2s.config.registry import did_you_mean
from w2s.data.reading import Row, check_limit, fit_rows, rows, some
from w2s.store.problems import Problems
from w2s.store.records import BadInput, Example, Gold, example_id

log = logging.getLogger(__name__)
HELD_OUT = {"validation": 1, "dev": 1, "test": 2}  # a repeated question belongs to the most held-out of its splits
Questions = tuple[list[Example], list[Gold]]
# Options of a source: published splits, the size of a fixed sample, the level of every question.
Split, Limit, Level = str | list[str], int | None, float | None


class Question(NamedTuple):
    """The content of one row. `choices` are () for a short answer; `answer` is then a text, otherwise an index."""

    prompt: str
    choices: Sequence[str]
    answer: int | str
    meta: dict[str, Any]


Parts = Iterable[tuple[str, Iterable[Row]]]  # (split, its rows)
Fit = Callable[[dict[str, Any]], Question | None]


class Published(NamedTuple):
    """Where a dataset is published: root/folder/NAME, or the hub. splits: the base names of each split's file.

    change: applied to the rows of a split before they are read.
    """

    source: str
    folder: str
    hub: tuple[str, str | None]
    splits: Mapping[str, Sequence[str]]
    change: Callable[[Iterator[Row]], Iterator[Row]] = iter

    def read(self, root: Path | None, fit: Fit, split: Split, limit: Limit, level: Level) -> Questions:
        names = check_splits(self.source, split, self.splits)
        parts = ((name, self.change(rows(root, self.folder, self.splits[name], self.hub, name))) for name in names)
        return gather(self.source, parts, fit, limit, level)


def gather(
    source: str, parts: Parts, fit: Fit, limit: Limit, level: Level, problems: Problems | None = None
) -> Questions:
    """The questions of some splits, each once.

    parts: (split, rows) in order. fit: row -> Question, None for a published row that is known to be unusable
    (logged). A row that repeats word for word is kept once, in the most held-out of its splits; its meta `repeats`
    counts the others. `limit` draws a fixed sample of this size (the first by id, which is a hash), so that a file
    sorted by subject is not cut off in the middle. All rows that do not fit are one BadInput, after the `problems` of
    reading; so are no rows, and fewer rows than `limit`.
    """
    check_limit(source, limit)
    kept: dict[str, tuple[Example, Gold]] = {}
    problems, unusable, contradicted, names = problems or Problems(), 0, [], []
    for split, split_rows in parts:
        names.append(split)

        def make(where: str, row: dict[str, Any], split: str = split) -> tuple[str, Example, Gold] | None:
            question = fit(row)
            return None if question is None else (where, *records(source, split, where, question, level))

        for record in fit_rows(split_rows, make, problems):
            if record is None:
                unusable += 1
            elif not keep_once(kept, *record[1:]):
                contradicted.append(record[0].split("/")[-1])
    problems.tell()
    if contradicted:
        log.warning("%s: left out, since answered differently before: %s", source, some(contradicted))
    if unusable:
        log.warning("%s: %d published rows are unusable and left out", source, unusable)
    if len(kept) < (limit or 1):
        needed = "rows" if limit is None else f"{limit} questions (limit)"
        raise BadInput(f"{source}: {needed} needed, {len(kept)} found in {', '.join(names)}")
    chosen = set(sorted(kept)[:limit])
    pairs = [pair for key, pair in kept.items() if key in chosen]
    return [example for example, _ in pairs], [gold for _, gold in pairs]


def records(source: str, split: str, where: str, question: Question, level: float | None) -> tuple[Example, Gold]:
    prompt = question.prompt.strip()
    choices, answer = distinct(question.choices, question.answer)
    meta = {"level": None, "split": split, "row": where.split("/")[-1], **question.meta}
    if level is not None:
        meta["level"] = level
    key = example_id(source, prompt, choices)
    return Example(key, source, "choice" if choices else "answer", prompt, choices, meta), Gold(key, answer)


def distinct(choices: Sequence[str], answer: int | str) -> tuple[tuple[str, ...], int | str]:
    """Choices without repeats (some datasets have them) and the answer's index there; short answers stay texts."""
    texts = [text.strip() for text in choices]
    if not texts:
        if not str(answer).strip():
            raise ValueError("the answer is empty")
        return (), str(answer).strip()
    if not 0 <= int(answer) < len(texts):
        raise ValueError(f"answer: {answer} given, of {len(texts)} choices; allowed: 0 to {len(texts) - 1}")
    once = tuple(dict.fromkeys(texts))
    return once, once.index(texts[int(answer)])


def keep_once(kept: dict[str, tuple[Example, Gold]], example: Example, gold: Gold) -> bool:
    """Add a question, or count it as a repeat of the kept one; False if their answers differ."""
    if example.id not in kept:
        kept[example.id] = example, gold
        return True
    first, first_gold = kept[example.id]
    held_out = HELD_OUT.get(example.meta["split"], 0) > HELD_OUT.get(first.meta["split"], 0)
    if held_out:
        kept[example.id] = example, gold
    kept[example.id][0].meta["repeats"] = first.meta.get("repeats", 0) + 1
    return held_out or gold == first_gold


def check_splits(source: str, split: str | Sequence[str], known: Mapping[str, Any]) -> list[str]:
    """The requested splits as a list; unknown, repeated or no splits are a BadInput."""
    names = [split] if isinstance(split, str) else list(split)
    for name in names:
        if name not in known:
            raise BadInput(f"{source}: split: {name!r} given{did_you_mean(name, known)}; allowed: {', '.join(known)}")
    if not names or len(set(names)) < len(names):
        raise BadInput(f"{source}: split: {names} given; name one split or several different ones")
    return names


def text(row: Mapping[str, Any], column: str) -> str:
    """The text in a column; a ValueError for any other value."""
    if not isinstance(row[column], str):
        raise ValueError(f"{column}: a text is expected, {type(row[column]).__name__} given")
    return row[column]


def read_choices(value: Any) -> tuple[list[str], list[str]]:
    """(labels, texts) of choices: [{label, text}, ...], as AI2 publishes them, or {label: [...], text: [...]} (hub)."""
    if isinstance(value, Mapping):
        labels, texts = value["label"], value["text"]
    else:
        labels, texts = [choice["label"] for choice in value], [choice["text"] for choice in value]
    if len(labels) != len(texts) or not all(isinstance(text, str) for text in [*labels, *texts]):
        raise ValueError("choices: each needs a label and a text")
    return list(labels), list(texts)


def by_label(labels: Sequence[str], answer: Any) -> int:
    """The position of the choice labelled `answer`."""
    if answer not in labels:
        raise ValueError(f"answer: {answer!r} given; allowed: {', '.join(labels)}")
    return list(labels).index(answer)
