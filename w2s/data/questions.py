"""From the rows of a data set to Example and Gold: what every source has in common."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from w2s.config.registry import did_you_mean
from w2s.data.reading import Row, some
from w2s.store.problems import Problems
from w2s.store.records import BadInput, Example, Gold, example_id

log = logging.getLogger(__name__)
HELD_OUT = {"validation": 1, "dev": 1, "test": 2}  # a question that repeats belongs to the most held-out of its splits


class Question(NamedTuple):
    """What one row says. `choices` are () for a short answer; `answer` is then a text, otherwise an index."""

    prompt: str
    choices: Sequence[str]
    answer: int | str
    meta: dict[str, Any]


def gather(
    source: str,
    parts: Iterable[tuple[str, Iterable[Row]]],
    fit: Callable[[dict[str, Any]], Question | None],
    *,
    limit: int | None,
    level: float | None,
    problems: Problems | None = None,
) -> tuple[list[Example], list[Gold]]:
    """The questions of some splits, each once.

    parts: (split, rows) in order. fit: row -> Question, None for a published row that is known to be unusable
    (logged). A row that comes again, word for word, is kept once, in the most held-out of its splits; its meta
    `repeats` counts the others. `limit` draws a fixed sample of that many questions (those whose ids, which are
    hashes, come first), so that a file sorted by subject is not cut off in the middle. Rows that do not fit are a
    BadInput together, after the `problems` that reading had; so are no rows, and fewer rows than `limit`.
    """
    if limit is not None and limit < 1:
        raise BadInput(f"{source}: limit: {limit} given; it must be at least 1")
    kept: dict[str, tuple[Example, Gold]] = {}
    problems, unusable, contradicted = problems or Problems(), 0, []
    names = []
    for split, rows in parts:
        names.append(split)
        for where, row in rows:
            try:
                question = fit(row)
                if question is None:
                    unusable += 1
                    continue
                if not keep_once(kept, *records(source, split, where, question, level)):
                    contradicted.append(where.split("/")[-1])
            except KeyError as error:
                problems.add(f"{where}: column {error} is missing; it has: {some(row)}")
            except (TypeError, ValueError, AttributeError, IndexError) as error:
                problems.add(f"{where}: {error}")
    problems.tell()
    if contradicted:
        log.warning("%s: answered otherwise than before, left out: %s", source, some(contradicted))
    if unusable:
        log.warning("%s: %d published rows are unusable and left out", source, unusable)
    if len(kept) < (limit or 1):
        wanted = "rows" if limit is None else f"{limit} questions (limit)"
        raise BadInput(f"{source}: {wanted} asked for, {len(kept)} found in {', '.join(names)}")
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
    """Choices without repeats (published sets have a few) and the answer's index among them; answers stay texts."""
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
    """Adds a question, or counts it as a repeat of the one that is there; False where the two have other answers."""
    if example.id not in kept:
        kept[example.id] = example, gold
        return True
    first, first_gold = kept[example.id]
    repeats = first.meta.get("repeats", 0) + 1
    held_out = HELD_OUT.get(example.meta["split"], 0) > HELD_OUT.get(first.meta["split"], 0)
    if held_out:
        kept[example.id] = example, gold
        first = example
    first.meta["repeats"] = repeats
    return held_out or gold == first_gold


def check_splits(source: str, split: str | Sequence[str], known: Mapping[str, Any]) -> list[str]:
    """The splits asked for as a list; unknown, repeated or no splits are a BadInput."""
    asked = [split] if isinstance(split, str) else list(split)
    for one in asked:
        if one not in known:
            raise BadInput(f"{source}: split: {one!r} given{did_you_mean(one, known)}; allowed: {', '.join(known)}")
    if not asked or len(set(asked)) < len(asked):
        raise BadInput(f"{source}: split: {asked} given; name one split or several different ones")
    return asked


def text(row: Mapping[str, Any], column: str) -> str:
    """A column that must hold a text."""
    if not isinstance(row[column], str):
        raise ValueError(f"{column}: a text is wanted, {type(row[column]).__name__} given")
    return row[column]


def read_choices(value: Any) -> tuple[list[str], list[str]]:
    """(labels, texts) of choices: [{label, text}, ...] as AI2 publishes them, or {label: [...], text: [...]} (hub)."""
    if isinstance(value, Mapping):
        labels, texts = value["label"], value["text"]
    else:
        labels, texts = [one["label"] for one in value], [one["text"] for one in value]
    if len(labels) != len(texts) or not all(isinstance(one, str) for one in [*labels, *texts]):
        raise ValueError("choices: each needs a label and a text")
    return list(labels), list(texts)


def by_label(labels: Sequence[str], answer: Any) -> int:
    """The position of the choice labelled `answer`."""
    if answer not in labels:
        raise ValueError(f"answer: {answer!r} given; allowed: {', '.join(labels)}")
    return list(labels).index(answer)
