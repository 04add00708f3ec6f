"""The user's own questions, in common layouts."""

import contextlib
import math
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from w2s.data.answer_column import Choices, Reading, choose_reading, find_choice, shown
from w2s.data.layouts import families, filled, find_file, missing_column, plain, plain_rows, say_once, unread
from w2s.data.questions import Question, Questions, gather
from w2s.data.reading import Row, file_rows, literal, quoted, some
from w2s.store.problems import Problems
from w2s.store.records import BadInput

PUBLIC = ("subject", "grade", "bloom", "depth", "difficulty")
# Plain names of columns (see layouts.plain); the first that exists counts.
PROMPTS = ("prompt", "question", "query", "ctx", "goal", "sentence", "stem", "questionstem", "questiontext", "problem")
BEFORE = ("article", "passage", "context", "premise")  # what a question is about; a `prompt` is complete
# A column of all choices, and what its indices count from unless the answers show otherwise (None: not known).
LISTS = {"choices": 0, "options": None, "endings": 0, "alternatives": None, "answeroptions": None}
STEMS = ("", "option", "opt", "op", "choice", "ending", "sol", "alternative", "answeroption", "answer", "ans")
ANSWERS = (
    *("answer", "answerkey", "answeridx", "answerindex", "correctanswer", "correctoption", "correctchoice"),
    *("correctindex", "correctidx", "correctanswerindex", "correct", "answerletter", "rightanswer", "ans"),
    *("cop", "label", "goldlabel", "gold", "target", "key"),
)
WRONG = re.compile(r"(distractor|incorrect|wrong|false).*")


class Layout(NamedTuple):
    """Plain names of columns: of all choices or of each choice; of answers (the first counts, others must agree)."""

    spelled: dict[str, str]  # plain name -> the file's own
    listed: str | None
    family: list[str]
    answers: list[str]

    def start(self, answer: str) -> int | None:
        """What indices count from: 0 where columns are numbered from 0; None: unknown."""
        if answer.endswith(("index", "idx")) or (self.family[:1] and self.family[0].endswith("0")):
            return 0
        return LISTS.get(self.listed)


class Cells(NamedTuple):
    """A row before its answers are read."""

    prompt: str
    choices: Choices
    answers: list[Any]
    meta: dict[str, Any]


def file(
    root: Path | None,
    *,
    path: str,
    split: str | list[str] | None = None,
    limit: int | None = None,
    level: float | None = None,
    answers: Reading | None = None,
) -> Questions:
    """Your own questions: jsonl, json, csv (also .gz) or parquet, columns prompt (or question), choices, answer.

    `path` is relative to `root` if given. Without choices the answer is a short text. Choices are a list (in
    a csv as JSON, as Python prints it, or texts separated by |), {label: [...], text: [...]}, or a column each (A, B,
    C; option1, option2; opa, opb; ending0, ending1). An answer is a letter ("B", "(B)", "B) the text"), a label or
    column name, the text of a choice, or an index. The whole column is read in one way; where two fit, `answers` says
    which. Indices of `choices` count from 0 unless the column shows otherwise. An article, passage, context or premise
    goes before its question. Optional columns: id, level (a number), split, subject, grade, bloom, depth, difficulty;
    others are reported and not read. `split`: only rows with this value in their column `split`.
    """
    place = find_file(root, path)
    splits = None if split is None else [split] if isinstance(split, str) else list(split)
    problems = Problems()
    with problems.tell_with():
        rows, spelled = plain_rows((where, unnest(row)) for where, row in file_rows(place, problems))
        layout, notes = find_layout(place, rows, spelled)
        cells = [(where, read_cells(layout, row)) for where, row in rows]  # of all splits: they are read alike
        readings = []
        for at, name in enumerate(layout.answers):
            column = [(where, row.choices, row.answers[at]) for where, row in cells if isinstance(row, Cells)]
            reading = answers if at == 0 else None
            readings.append(reading or choose_reading(layout.spelled[name], column, start=layout.start(name)))

    def fit(cells: Cells | ValueError) -> Question:
        if isinstance(cells, ValueError):
            raise cells
        return make_question(layout, cells, readings)

    source = Path(path).name.split(".")[0]
    if splits is not None:
        cells = [pair for pair, (_, row) in zip(cells, rows, strict=True) if row.get("split") in splits]
    examples, gold = gather(source, [("all", cells)], fit, limit, level, problems)
    for name, reading in zip(layout.answers, readings, strict=True):
        if reading.startswith("index") and examples[0].choices:
            notes.append(f"{place}: {layout.spelled[name]}: read as an {reading.replace('_', ' ')}")
    for note in notes:  # not before: a refused file leaves no log
        say_once(note)
    if missing := sorted(set(splits or ()) - {example.meta["split"] for example in examples}):
        raise BadInput(f"{place}: split: {', '.join(missing)} given, but no row has it")
    return examples, gold


def unnest(row: dict[str, Any]) -> dict[str, Any]:
    """A row with the parts of question {stem, choices}, as AI2 publishes ARC, beside its other columns."""
    nested = row.get("question")
    return {**{key: row[key] for key in row if key != "question"}, **nested} if isinstance(nested, Mapping) else row


def find_layout(place: Path, rows: Sequence[Row], spelled: dict[str, str]) -> tuple[Layout, list[str]]:
    """The role of each column, for the whole file, and notes on what a user may not expect."""
    present = [key for key in spelled if any(filled(row.get(key)) for _, row in rows)]
    listed = next((name for name in LISTS if name in present), None)
    # An empty column between others belongs to them: its row is refused, or its last choices are fewer.
    by_stem = {} if listed else {stem: run for stem, run in families(spelled).items() if set(run) & set(present)}
    family = next((by_stem[stem] for stem in STEMS if stem in by_stem and stem not in spelled), [])
    known = ANSWERS if listed or family else ANSWERS[:1]
    for names, role in ((PROMPTS, "prompt"), (known, "answer")):
        if rows and not set(names) & set(spelled):
            raise BadInput(f"{rows[0][0]}: column {role!r} is missing; it has: {some(spelled.values())}")
    answers = [name for name in known if name in present] or [name for name in known if name in spelled]
    answers = answers[:1] + [name for name in answers[1:] if name.startswith(("answer", "correct"))]
    prompt = next((name for name in PROMPTS if name in spelled), "prompt")
    before = [name for name in BEFORE if name in present and prompt != "prompt"][:1]
    used = {prompt, *before, *answers, *family, listed, "id", "level", "split", *PUBLIC}
    if not (listed or family):
        refuse_lost_choices(place, rows, spelled, [key for key in present if key not in used])
    notes = [f"{place}: {spelled[name]} goes before {spelled[prompt]} in the prompt" for name in before]
    return Layout(spelled, listed, family, answers), notes + unread(place, spelled, used)


def refuse_lost_choices(place: Path, rows: Sequence[Row], spelled: Mapping[str, str], spare: Sequence[str]) -> None:
    """A BadInput if the answers show that unused columns are the choices.

    They do if each answer is the letter of one of enough such columns, or the text in one, not always the same one.
    """
    answers = [(shown(row.get("answer")), row) for _, row in rows if filled(row.get("answer"))]
    letters = {answer.strip("().: ").upper() for answer, _ in answers}
    if not answers:
        return
    lettered = letters <= set("ABCDEFGHIJ")
    least = max(2, 1 + string.ascii_uppercase.find(max(letters))) if lettered else 2  # fewest possible choices
    lost = [key for key in spare if WRONG.fullmatch(key)]
    for key in spare:
        several = [(parts(row.get(key)), answer) for answer, row in answers]
        if all(len(texts) >= least and (lettered or answer in texts) for texts, answer in several):
            lost.append(key)
    texts = [key for key in spare if all(isinstance(row.get(key), str) and filled(row[key]) for _, row in answers)]
    equal = [{key for key in texts if shown(row[key]) == answer} for answer, row in answers]
    if len(texts) >= least and (lettered or (all(equal) and not set.intersection(*equal))):
        lost += texts
    if lost:
        names = some(spelled[key] for key in dict.fromkeys(lost))
        raise BadInput(f"{place}: {names}: not read, but they look like choices; name them A, B, C, ... or choices")


def parts(value: Any) -> list[str]:
    """The texts in a cell that holds several; [] for any other cell."""
    with contextlib.suppress(ValueError):
        return [shown(text) for text in read_list(value, "")[1]]
    return []


def read_cells(layout: Layout, row: dict[str, Any]) -> Cells | ValueError:
    try:
        for name in layout.answers:
            if name not in row:
                raise missing_column(name, row, layout.spelled)
        answers = [read_answer(layout.spelled[name], row[name]) for name in layout.answers]
        return Cells(read_prompt(layout, row), read_choices(layout, row), answers, read_meta(row))
    except ValueError as error:
        return error


def read_prompt(layout: Layout, row: Mapping[str, Any]) -> str:
    name = next((name for name in PROMPTS if name in row), None)
    if name is None:
        raise missing_column(next(name for name in PROMPTS if name in layout.spelled), row, layout.spelled)
    before = [column for column in BEFORE if filled(row.get(column)) and name != "prompt"][:1]
    for column in (*before, name):
        if not isinstance(row[column], str):
            raise ValueError(f"{layout.spelled[column]}: a text is expected, {type(row[column]).__name__} given")
    return "\n\n".join(row[column] for column in (*before, name))


def read_meta(row: Mapping[str, Any]) -> dict[str, Any]:
    meta = {key: row[key] for key in ("split", *PUBLIC) if filled(row.get(key))}
    if filled(row.get("id")):
        meta["row"] = str(row["id"])
    if row.get("level") not in (None, ""):
        meta["level"] = read_level(row["level"])
    return meta


def read_level(value: Any) -> float:
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        if not isinstance(value, bool) and math.isfinite(level := float(value)):
            return level
    raise ValueError(f"level: {quoted(value)} given; allowed: a number")


def read_answer(column: str, value: Any) -> Any:
    """The answer of a row; a list of one item, as some publishers write, is that item."""
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    if isinstance(value, list | dict) or value is None or value != value:
        raise ValueError(f"{column}: a text or a number is expected, {type(value).__name__} given")
    return value


def read_choices(layout: Layout, row: Mapping[str, Any]) -> Choices:
    """The choices of a row; empty in a file without choices."""
    if not (layout.listed or layout.family):
        return Choices([], {}, False)
    column = layout.spelled[layout.listed or layout.family[0]]
    labels, texts = None, [row.get(name) for name in layout.family]
    if layout.listed:
        labels, texts = read_list(row.get(layout.listed), column)
    while texts and not filled(texts[-1]) and (layout.family or labels):  # fewer choices than columns
        texts.pop()
    if not all(filled(text) and isinstance(text, str | int | float) for text in texts):
        raise ValueError(f"{column}: each must be a non-empty text")
    if len(texts) < 2:
        hint = " (in a text, | separates them)" if isinstance(row.get(layout.listed), str) else ""
        raise ValueError(f"{column}: {len(texts)} given{hint}; a choice question needs at least 2")
    marks = [] if labels else string.ascii_lowercase
    places = [(plain(str(mark)), at) for names in (marks, labels or layout.family) for at, mark in enumerate(names)]
    if labels and len(dict(places)) < len(labels):
        raise ValueError(f"{column}: two choices have the same label")
    named = labels is not None or layout.family[:1] in (["a"], ["0"], ["1"])
    return Choices([shown(text) for text in texts], {mark: at for mark, at in places if at < len(texts)}, named)


def read_list(value: Any, column: str) -> tuple[list[str] | None, list[Any]]:
    """(labels or None, texts) of a cell that holds all choices."""
    if isinstance(value, str):
        try:
            value = literal(value) if value.lstrip()[:1] in ("[", "{") else value.split("|")
        except ValueError as error:
            raise ValueError(f"{column}: {error}") from None
    labels, texts = None, [] if value is None else value
    if isinstance(value, list) and value and all(isinstance(choice, Mapping) for choice in value):
        labels, texts = [[choice.get(key) for choice in value] for key in ("label", "text")]
    elif isinstance(value, Mapping):
        labels, texts = list(value), list(value.values())
        if {"label", "text"} <= set(value):
            labels, texts = value["label"], value["text"]
    if not isinstance(texts, list | tuple):
        raise ValueError(f"{column}: a list of texts is expected, {type(texts).__name__} given")
    if labels is not None and (not isinstance(labels, list | tuple) or len(labels) != len(texts) or None in labels):
        raise ValueError(f"{column}: each needs a label and a text")
    return labels, list(texts)


def make_question(layout: Layout, cells: Cells, readings: Sequence[Reading]) -> Question:
    if not cells.choices.texts:
        return Question(cells.prompt, (), str(cells.answers[0]), cells.meta)
    names = [layout.spelled[name] for name in layout.answers]
    first, *others = [
        find_choice(name, answer, cells.choices, reading)
        for name, answer, reading in zip(names, cells.answers, readings, strict=True)
    ]
    for name, at in zip(names[1:], others, strict=True):
        if cells.choices.texts[at] != cells.choices.texts[first]:
            one, other = cells.choices.texts[first], cells.choices.texts[at]
            raise ValueError(f"{names[0]} means {quoted(one)}, and {name} means {quoted(other)}")
    return Question(cells.prompt, cells.choices.texts, first, cells.meta)
