"""The user's own preference pairs, in the layouts that people's files have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from w2s.data.layouts import families, filled, plain, plain_rows, say_once, unread
from w2s.data.pairs import ANSWER, Pair, Pairs, dialogue, gather_pairs
from w2s.data.reading import Row, file_rows, literal, quoted, some
from w2s.store.problems import Problems
from w2s.store.records import BadInput

# Plain names of columns (see layouts.plain); of several, the first that is there.
PROMPTS = ("prompt", "instruction", "input", "question", "query")
STEMS = ("output", "response", "answer", "completion", "conversation", "humanref", "candidate", "summary", "text")
LABELS = ("preference", "label", "labels", "winner", "preferred", "choice", "betterresponseid")
META = {"dataset": "subset", "subset": "subset", "split": "split"}  # column -> meta
WRITERS = (("generator1", "generator2"), ("modela", "modelb"))
SIDES = {"first": 0, "second": 1, "tie": None}
WORDS = {"first": 0, "left": 0, "a>b": 0, "a>>b": 0, "second": 1, "right": 1, "b>a": 1, "b>>a": 1}
WORDS |= dict.fromkeys(("tie", "tie (bothbad)", "bothbad", "both", "neither", "draw", "equal", "same", "a=b"))
NAMED = re.compile(r"(model|assistant|player|system|option|" + "|".join(STEMS) + r")?([ab]|\d)")
MESSAGES = re.compile(r"""\s*\[\s*\{\s*['"](role|content|from|value)['"]\s*:""")
ROLES = {"user": "Human", "human": "Human", "assistant": "Assistant", "gpt": "Assistant", "system": "System"}
Turns = list[tuple[str, str]]  # (who, what), who of ROLES' values
Coding = dict[float | str, int | None]  # what stands in the label column -> 0 (first), 1 (second), None (a tie)


def file(
    root: Path | None,
    *,
    path: str,
    limit: int | None = None,
    ties: bool = False,
    seed: int = 0,
    coding: dict | None = None,
) -> Pairs:
    """Your own pairs: jsonl, json, csv (also .gz) or parquet, columns prompt, chosen, rejected.

    `path` is relative to `root` where there is one. prompt may be called instruction (an input beside it follows it),
    input, question or query. In place of chosen and rejected there may be two columns counted on from 1, 0 or A
    (output_1 and output_2, response_a and response_b, ...) and a label (preference, label, winner): "A", "model_b",
    "output_2", "tie" and the like, or 1 and 2 (1.5 and, beside it, 0: a tie) where the columns are numbered so. What
    other codes mean only `coding` says, {first: 0, second: 1, tie: 2} (a list where several mean the same). Texts may
    be chat messages (role and content) whose last is the answer. Optional columns: group, subset (or dataset), split,
    generator_1 and generator_2 (or model_a and model_b); others are named and not read.
    """
    place = (Path(root) if root is not None else Path()) / path
    if not place.is_file():
        raise BadInput(f"file: path: there is no file {place}")
    problems = Problems()
    try:
        rows, spelled = plain_rows(file_rows(place, problems))
        meaning = given_coding(coding) if coding is not None else coding_of(rows, spelled)
    except BadInput as error:
        problems.add(error)
        problems.tell()

    def fit(row: dict[str, Any]) -> Pair:
        return pair_of(row, spelled, meaning)

    source, parts = Path(path).name.split(".")[0], [("all", "", rows)]
    pairs = gather_pairs(source, parts, fit, limit=limit, ties=ties, seed=seed, problems=problems)
    used = {one for _, row in rows for one in (*columns_of(tuple(row)), *asked(row))}
    used |= {*META, "group", *WRITERS[0], *WRITERS[1]}
    for note in unread(place, spelled, used):  # not before: what is refused leaves no log
        say_once(note)
    return pairs


@lru_cache(maxsize=256)
def columns_of(names: tuple[str, ...]) -> tuple[str, str, str | None]:
    """The columns of the first text, of the second, and of the label (None: the first is the preferred one)."""
    found = [] if "chosen" in names or "rejected" in names else families(names)
    pair = next((found[stem] for stem in STEMS if stem in found and len(found[stem]) == 2), None)
    if pair is None:
        return "chosen", "rejected", None
    return pair[0], pair[1], next((name for name in LABELS if name in names), LABELS[0])


def pair_of(row: Mapping[str, Any], spelled: Mapping[str, str], meaning: Coding) -> Pair:
    first, second, label = columns_of(tuple(row))
    for name in (first, second, label):
        if name is not None and name not in row:
            raise ValueError(is_missing(name, row, spelled))
    preferred = 0
    if label is not None:
        if (code := code_of(row[label])) not in meaning:
            raise ValueError(f"{spelled[label]}: {quoted(row[label])} given; allowed: {shown(meaning)}")
        preferred = meaning[code]
    elif isinstance(row[first], str) and ANSWER in row[first] and not asked(row):
        return dialogue(row)
    (before, one), (again, other) = (last_turn(row[name], spelled[name]) for name in (first, second))
    if before != again:
        raise ValueError(f"{spelled[first]} and {spelled[second]} part before their last messages")
    prompt, opening = prompt_of(row, before, spelled)
    meta = {key: row[column] for column, key in META.items() if filled(row.get(column))}
    for writers in WRITERS:
        if set(writers) <= set(row):
            meta["generators"] = [str(row[writer]) for writer in writers]
    return Pair(prompt, one, other, preferred, meta, str(row["group"]) if filled(row.get("group")) else opening)


def is_missing(name: str, row: Mapping[str, Any], spelled: Mapping[str, str]) -> str:
    return f"column {spelled.get(name, name)!r} is missing; it has: {some(spelled[key] for key in row)}"


# --- labels ----------------------------------------------------------------------------------------------------------


def code_of(value: Any) -> float | str:
    """A label as a number, also where a csv has it as text, or as a text; true and false are texts."""
    if isinstance(value, bool):
        return str(value).casefold()
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return str(value).strip().casefold()


def shown(codes: Iterable[float | str]) -> str:
    return some(sorted(f"{code:g}" if isinstance(code, float) else code for code in codes))


def given_coding(coding: Mapping[str, Any]) -> Coding:
    found: Coding = {}
    for side, codes in coding.items():
        for code in codes if isinstance(codes, list) else [codes]:
            if side not in SIDES or code_of(code) in found:
                raise BadInput(f"file: coding: {dict(coding)} given; allowed: first, second and tie, each code once")
            found[code_of(code)] = SIDES[side]
    return found


def coding_of(rows: Sequence[Row], spelled: Mapping[str, str]) -> Coding:
    """What the labels of a file mean, where they say it themselves; a BadInput where they do not."""
    found: dict[float | str, tuple[str, str]] = {}
    ends = set()
    for where, row in rows:
        first, second, label = columns_of(tuple(row))
        if label is not None and filled(row.get(label)):
            found.setdefault(code_of(row[label]), (where, spelled[label]))
            ends.add((first[-1], second[-1]))
    meaning = {code: side for code in found if (side := side_of(code, ends)) != "unknown"}
    if ends == {("1", "2")} and set(found) <= {1, 2}.union({0, 1.5} if 1.5 in found else ()) and len(found) > 1:
        return {1.0: 0, 2.0: 1, 1.5: None, 0.0: None}  # 1.5, between the two, is AlpacaEval's; its 0 is a tie too
    if found and not meaning:
        where, label = next(iter(found.values()))
        raise BadInput(
            f"{where}: {label}: nothing in the file says which text is meant by {shown(found)}; the option coding "
            "does, for example coding: {first: 0, second: 1, tie: 2}"
        )
    return meaning


def side_of(code: float | str, ends: set[tuple[str, str]]) -> int | str | None:
    """What a label says by itself: a word, a side's letter, or the name of a column; 'unknown' for all else."""
    if isinstance(code, float):
        return "unknown"
    for said in (code, plain(code)):
        if said in WORDS:
            return WORDS[said]
    named = NAMED.fullmatch(plain(code))
    if named is None:
        return "unknown"
    if named[2] in "ab":
        return "ab".index(named[2])
    return next((pair.index(named[2]) for pair in ends if len(ends) == 1 and named[2] in pair), "unknown")


# --- texts and messages ----------------------------------------------------------------------------------------------


def turns_of(value: Any, column: str) -> Turns | None:
    """Chat messages as turns; None where the cell is a plain text."""
    if isinstance(value, str):
        if not MESSAGES.match(value):
            return None
        try:
            value = literal(value)
        except ValueError as error:
            raise ValueError(f"{column}: {error}") from None
    if not isinstance(value, list):
        raise ValueError(f"{column}: a text is wanted, {type(value).__name__} given")
    found = []
    for one in value:
        one = one if isinstance(one, Mapping) else {}
        who, what = one.get("role", one.get("from")), one.get("content", one.get("value"))
        if who not in ROLES or not isinstance(what, str):
            raise ValueError(f"{column}: each message needs a role ({', '.join(ROLES)}) and a content that is a text")
        found.append((ROLES[who], what))
    return found


def last_turn(value: Any, column: str) -> tuple[Turns, str]:
    """(the turns before the answer, the answer)."""
    turns = turns_of(value, column)
    if turns is None:
        return [], value
    if not turns or turns[-1][0] != "Assistant":
        raise ValueError(f"{column}: the last message must be the assistant's")
    return turns[:-1], turns[-1][1]


def asked(row: Mapping[str, Any]) -> list[str]:
    """The columns of the prompt: one of PROMPTS, and an input beside an instruction."""
    names = [name for name in PROMPTS if name in row]
    return names[:2] if names[:2] == ["instruction", "input"] else names[:1]


def prompt_of(row: Mapping[str, Any], before: Turns, spelled: Mapping[str, str]) -> tuple[str, str | None]:
    """(prompt, what opens the dialogue, where it has several turns)."""
    name, *beside = asked(row) or [None]
    if name is None and not before:
        raise ValueError(is_missing("prompt", row, spelled))
    given = turns_of(row[name], spelled[name]) if name else before
    if given is None:
        extra = row["input"] if beside and filled(row["input"]) else ""
        if not isinstance(extra, str):
            raise ValueError(f"{spelled['input']}: a text is wanted, {type(extra).__name__} given")
        if not before:
            return "\n\n".join(part for part in (row[name], extra) if part.strip()), None
        if (before[-1][0], before[-1][1].strip()) != ("Human", row[name].strip()):
            raise ValueError(f"{spelled[name]}: it is not the last message before the answers")
    elif before and given != before:
        raise ValueError(f"{spelled[name]}: they are not the messages before the answers")
    turns = before or given
    opening = next((what for who, what in turns if who == "Human"), None)
    return "\n\n".join(f"{who}: {what}" for who, what in turns).removeprefix("Human: "), opening
