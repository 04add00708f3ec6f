"""The user's own preference pairs, in common layouts."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from w2s.data.layouts import families, filled, find_file, missing_column, plain, plain_rows, say_once, unread
from w2s.data.pairs import ANSWER, Pair, Pairs, dialogue, gather_pairs
from w2s.data.questions import Limit
from w2s.data.reading import Row, file_rows, literal, quoted, some
from w2s.store.problems import Problems
from w2s.store.records import BadInput

# Plain names of columns (see layouts.plain); the first that exists counts.
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
Coding = dict[float | str, int | None]  # value of the label column -> 0 (first), 1 (second), None (a tie)


def file(
    root: Path | None, *, path: str, limit: Limit = None, ties: bool = False, seed: int = 0, coding: dict | None = None
) -> Pairs:
    """Your own pairs: jsonl, json, csv (also .gz) or parquet, columns prompt, chosen, rejected.

    `path` is relative to `root` if given. prompt may be called instruction (followed by a column input), input,
    question or query. In place of chosen and rejected there may be two columns numbered from 1 or 0 or lettered
    from A (output_1 and output_2, response_a and response_b, ...) and a label (preference, label, winner): "A",
    "model_b", "output_2", "tie" and the like, or 1 and 2 (1.5 and, beside it, 0: a tie) where the columns are numbered
    1 and 2. Other codes need `coding`, {first: 0, second: 1, tie: 2} (a list where several mean the same). Texts may be
    chat messages (role and content), the last of which is the answer. Optional columns: group, subset (or dataset),
    split, generator_1 and generator_2 (or model_a and model_b); others are reported and not read.
    """
    place = find_file(root, path)
    problems = Problems()
    with problems.tell_with():
        rows, spelled = plain_rows(file_rows(place, problems))
        meaning = check_coding(coding) if coding is not None else find_coding(rows, spelled)

    def fit(row: dict[str, Any]) -> Pair:
        return make_pair(row, spelled, meaning)

    pairs = gather_pairs(Path(path).name.split(".")[0], [("all", "", rows)], fit, limit, ties, seed, problems)
    used = {column for _, row in rows for column in (*find_columns(tuple(row)), *prompt_columns(row))}
    used |= {*META, "group", *WRITERS[0], *WRITERS[1]}
    for note in unread(place, spelled, used):  # not before: a refused file leaves no log
        say_once(note)
    return pairs


@lru_cache(maxsize=256)
def find_columns(names: tuple[str, ...]) -> tuple[str, str, str | None]:
    """The columns of the first text, of the second, and of the label (None: the first text is preferred)."""
    by_stem = {} if "chosen" in names or "rejected" in names else families(names)
    pair = next((by_stem[stem] for stem in STEMS if len(by_stem.get(stem, ())) == 2), None)
    if pair is None:
        return "chosen", "rejected", None
    return pair[0], pair[1], next((name for name in LABELS if name in names), LABELS[0])


def make_pair(row: Mapping[str, Any], spelled: Mapping[str, str], meaning: Coding) -> Pair:
    first, second, label = find_columns(tuple(row))
    for name in (first, second, label):
        if name is not None and name not in row:
            raise missing_column(name, row, spelled)
    preferred = 0
    if label is not None:
        if (code := read_code(row[label])) not in meaning:
            raise ValueError(f"{spelled[label]}: {quoted(row[label])} given; allowed: {shown(meaning)}")
        preferred = meaning[code]
    elif isinstance(row[first], str) and ANSWER in row[first] and not prompt_columns(row):
        return dialogue(row)
    (before, first_text), (other_before, second_text) = (
        split_turns(row[name], spelled[name]) for name in (first, second)
    )
    if before != other_before:
        raise ValueError(f"{spelled[first]} and {spelled[second]} differ before their last messages")
    prompt, opening = read_prompt(row, before, spelled)
    meta = {key: row[column] for column, key in META.items() if filled(row.get(column))}
    for writers in WRITERS:
        if set(writers) <= set(row):
            meta["generators"] = [str(row[writer]) for writer in writers]
    group = str(row["group"]) if filled(row.get("group")) else opening
    return Pair(prompt, first_text, second_text, preferred, meta, group)


def read_code(value: Any) -> float | str:
    """A label as a number, even if written as a text (CSV), or else as a text; true and false become texts."""
    if isinstance(value, bool):
        return str(value).casefold()
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return str(value).strip().casefold()


def shown(codes: Iterable[float | str]) -> str:
    return some(sorted(f"{code:g}" if isinstance(code, float) else code for code in codes))


def check_coding(coding: Mapping[str, Any]) -> Coding:
    meaning: Coding = {}
    for side, codes in coding.items():
        for code in codes if isinstance(codes, list) else [codes]:
            if side not in SIDES or read_code(code) in meaning:
                raise BadInput(f"file: coding: {dict(coding)} given; allowed: first, second and tie, each code once")
            meaning[read_code(code)] = SIDES[side]
    return meaning


def find_coding(rows: Sequence[Row], spelled: Mapping[str, str]) -> Coding:
    """The meaning of a file's labels if they are self-explanatory; else a BadInput."""
    places: dict[float | str, tuple[str, str]] = {}  # code -> where it first occurs, and its column
    ends = set()
    for where, row in rows:
        first, second, label = find_columns(tuple(row))
        if label is not None and filled(row.get(label)):
            places.setdefault(read_code(row[label]), (where, spelled[label]))
            ends.add((first[-1], second[-1]))
    meaning = {code: side for code in places if (side := find_side(code, ends)) != "unknown"}
    if ends == {("1", "2")} and set(places) <= {1, 2}.union({0, 1.5} if 1.5 in places else ()) and len(places) > 1:
        return {1.0: 0, 2.0: 1, 1.5: None, 0.0: None}  # 1.5, between the two, is AlpacaEval's; its 0 is a tie too
    if places and not meaning:
        where, label = next(iter(places.values()))
        raise BadInput(
            f"{where}: {label}: nothing in the file says which text is meant by {shown(places)}; set the option "
            "coding, for example coding: {first: 0, second: 1, tie: 2}"
        )
    return meaning


def find_side(code: float | str, ends: set[tuple[str, str]]) -> int | str | None:
    """The meaning of a label that is a word, a side's letter, or the name of a column; else 'unknown'."""
    if isinstance(code, float):
        return "unknown"
    for word in (code, plain(code)):
        if word in WORDS:
            return WORDS[word]
    named = NAMED.fullmatch(plain(code))
    if named is None:
        return "unknown"
    if named[2] in "ab":
        return "ab".index(named[2])
    return next((pair.index(named[2]) for pair in ends if len(ends) == 1 and named[2] in pair), "unknown")


def read_turns(value: Any, column: str) -> Turns | None:
    """Chat messages as turns; None for a plain text."""
    if isinstance(value, str):
        if not MESSAGES.match(value):
            return None
        try:
            value = literal(value)
        except ValueError as error:
            raise ValueError(f"{column}: {error}") from None
    if not isinstance(value, list):
        raise ValueError(f"{column}: a text is expected, {type(value).__name__} given")
    turns = []
    for message in value:
        message = message if isinstance(message, Mapping) else {}
        who, what = message.get("role", message.get("from")), message.get("content", message.get("value"))
        if who not in ROLES or not isinstance(what, str):
            raise ValueError(f"{column}: each message needs a role ({', '.join(ROLES)}) and a content that is a text")
        turns.append((ROLES[who], what))
    return turns


def split_turns(value: Any, column: str) -> tuple[Turns, str]:
    """(the turns before the answer, the answer)."""
    turns = read_turns(value, column)
    if turns is None:
        return [], value
    if not turns or turns[-1][0] != "Assistant":
        raise ValueError(f"{column}: the last message must be the assistant's")
    return turns[:-1], turns[-1][1]


def prompt_columns(row: Mapping[str, Any]) -> list[str]:
    """The columns of the prompt: one of PROMPTS, and input after instruction."""
    names = [name for name in PROMPTS if name in row]
    return names[:2] if names[:2] == ["instruction", "input"] else names[:1]


def read_prompt(row: Mapping[str, Any], before: Turns, spelled: Mapping[str, str]) -> tuple[str, str | None]:
    """(prompt, the first human turn of a dialogue of several turns)."""
    name, *beside = prompt_columns(row) or [None]
    if name is None and not before:
        raise missing_column("prompt", row, spelled)
    prompt_turns = read_turns(row[name], spelled[name]) if name else before
    if prompt_turns is None:
        extra = row["input"] if beside and filled(row["input"]) else ""
        if not isinstance(extra, str):
            raise ValueError(f"{spelled['input']}: a text is expected, {type(extra).__name__} given")
        if not before:
            return "\n\n".join(part for part in (row[name], extra) if part.strip()), None
        if (before[-1][0], before[-1][1].strip()) != ("Human", row[name].strip()):
            raise ValueError(f"{spelled[name]}: it is not the last message before the answers")
    elif before and prompt_turns != before:
        raise ValueError(f"{spelled[name]}: they are not the messages before the answers")
    turns = before or prompt_turns
    opening = next((what for who, what in turns if who == "Human"), None)
    return "\n\n".join(f"{who}: {what}" for who, what in turns).removeprefix("Human: "), opening
