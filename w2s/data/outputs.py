"""Recorded outputs of many models, from files in the documented format or logs, as (Opinions, Truth).

Tables are read by batches into arrays of M members by N questions, with no Python object for a row: 160 million rows fit
in a few GiB. Everything is joined by question id; that rows mostly come in the order of the questions only saves time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2s.data.columns import (
    OUTPUTS,
    QUESTIONS,
    Source,
    coded,
    fixed_width,
    indices,
    numbers,
    open_source,
    shared_tuples,
)
from w2s.data.logs import log_sources
from w2s.data.reading import SUFFIXES, find
from w2s.opinions import ABSTAINED, NOT_ASKED, NOT_RECORDED, Opinions, Truth
from w2s.records import BadInput, Example, Gold
from w2s.registry import did_you_mean

OPTIONAL = ("group", "prompt", "correct", "score", "probs", "cost", "text", "visible_pass", "quality")
MOST_MEMBERS = 10_000
FLOATS = {"correct": np.float32, "score": np.float32, "cost": np.float64, "visible_pass": np.float32}
FLOATS |= {"quality": np.float32}
RANGE = {"correct": (0, 1), "quality": (0, 1), "visible_pass": (0, 1), "cost": (0, np.inf), "score": (-np.inf, np.inf)}


def read_pool(
    outputs: Path,
    questions: Path | None = None,
    *,
    models: Sequence[str] = (),
    samples: bool = True,
    wanted: Sequence[str] | None = None,
    suite: tuple[list[Example], list[Gold]] | None = None,
) -> tuple[Opinions, Truth]:
    """What a pool of models answered, and what is known about right and wrong.

    outputs: a parquet, jsonl(.gz), json or csv file with the columns id, model, and optionally sample, answer, correct,
    score, probs, cost, text, visible_pass, quality; or a folder with outputs.* and questions.*; or lm-eval's
    samples_*.jsonl, one file or a folder of them; or evalplus' sample files (then `suite` gives the tasks to judge them
    by, in the sandbox). questions: a file with the columns id, and optionally group, prompt, choices, gold; without it
    the questions.* beside the outputs. Lists in a CSV are JSON texts. Where `correct` is null, `quality` (0 to 1)
    stands in, then whether the answer is gold.

    models: only these, in any order. samples: False takes the first sample of each model alone. wanted: the optional
    columns to read (of OPTIONAL); None: all there are. Members are named after the model, or model#sample where it
    has several samples. Candidates of a question without choices are the distinct answers, in alphabetical order.

    Whatever cannot be read is a BadInput of one line with file and row.
    """
    if wanted is not None and (odd := sorted(set(wanted) - set(OPTIONAL))):
        raise ValueError(f"wanted: {odd[0]!r} is not one of {', '.join(OPTIONAL)}")
    asked, given = sources(Path(outputs), questions and Path(questions), suite)
    pool = read_questions(asked, wanted)
    members = read_members(given, models, samples)
    cells = read_answers(given, pool, members, [n for n in given.columns if wanted is None or n in wanted])
    return finish(pool, members, cells)


def sources(outputs: Path, questions: Path | None, suite: Any) -> tuple[Source, Source]:
    """The tables of questions and of outputs behind a path."""
    if not outputs.exists():
        raise BadInput(f"{outputs}: there is no such file or folder")
    if found := log_sources(outputs, suite):
        return found
    if outputs.is_dir():
        outputs, folder = find(outputs, ["outputs"]), outputs
        questions = questions or find(folder, ["questions"])
    beside = [outputs.parent / f"questions{suffix}" for suffix in SUFFIXES]
    questions = questions or next((path for path in beside if path.is_file()), None)
    if questions is None:
        raise BadInput(f"{outputs}: the questions are missing: name their file, or put questions.parquet beside it")
    if not questions.is_file():
        raise BadInput(f"{questions}: there is no such file")
    return open_source(questions, QUESTIONS, ["id"]), open_source(outputs, OUTPUTS, ["id", "model"])


@dataclass
class Faults:
    """Rows that cannot be used, by kind: where the first stands, what is wrong with it, and how many there are."""

    name: str
    kinds: dict[str, tuple[int, str, int]]

    def add(self, kind: str, rows: np.ndarray, say: Callable[[int], str]) -> None:
        """rows: file rows from 0; say: position in `rows` -> what is wrong, called for the first alone."""
        if len(rows):
            row, text, count = self.kinds.get(kind) or (int(rows[0]), say(0), 0)
            self.kinds[kind] = row, text, count + len(rows)

    def check(self) -> None:
        """BadInput with the fault that comes first in the file, if there is any."""
        if self.kinds:
            row, text, count = min(self.kinds.values())
            more = f" (and {count - 1:,} more)" if count > 1 else ""
            raise BadInput(f"{self.name}: row {row + 1}: {text}{more}")


# --- questions -------------------------------------------------------------------------------------------------------


@dataclass
class Questions:
    """The table of questions as columns. position_N: gold of choice questions, -1 elsewhere; text_N codes the rest."""

    ids: pa.StringArray
    count_N: np.ndarray
    texts_N: np.ndarray
    group_N: np.ndarray  # codes
    groups: np.ndarray
    prompt_N: np.ndarray
    gold_N: np.ndarray
    golds: list[str]


def read_questions(source: Source, wanted: Sequence[str] | None) -> Questions:
    kept = [n for n in source.columns if n not in ("group", "prompt") or wanted is None or n in wanted]
    table = pa.Table.from_batches(source.batches(kept))
    column = {name: table[name].unify_dictionaries().combine_chunks() for name in kept}
    del table
    ids, size, faults = column.pop("id"), 0, Faults(source.name, {})
    size = len(ids)
    faults.add("id", np.flatnonzero(ids.is_null()), lambda _: "id: missing; allowed: a text of its own")
    if len(pc.unique(ids)) < size:
        codes = ids.dictionary_encode().indices.fill_null(-1).to_numpy()
        again = np.setdiff1d(np.arange(size), np.unique(codes, return_index=True)[1])
        faults.add("again", again, lambda at: f"id: {ids[int(again[at])].as_py()!r} is there twice; allowed: once")
    choices = column.pop("choices", None)
    texts_N = shared_tuples(choices) if choices is not None else filled(size, ())
    count_N = (pc.list_value_length(choices).fill_null(0).to_numpy() if choices is not None else np.zeros(size)).astype(
        np.int32
    )
    codes, groups = coded(column.pop("group")) if "group" in column else (np.full(size, -1), [])
    prompt = column.pop("prompt", None)
    nothing = prompt is None or pc.all(pc.equal(prompt.fill_null(""), "")).as_py()
    prompt_N = filled(size, "") if nothing else prompt.fill_null("").to_numpy(zero_copy_only=False)
    gold_N, golds = coded(column.pop("gold")) if "gold" in column else (np.full(size, -1), [])
    index = indices(golds)[gold_N]
    bad = np.flatnonzero((gold_N >= 0) & (count_N > 0) & ((index < 0) | (index >= count_N)))
    faults.add("gold", bad, lambda at: not_a_choice("gold", golds[gold_N[bad[at]]], count_N[bad[at]]))
    faults.check()
    group_N = np.where(codes < 0, len(groups), codes).astype(np.int32)
    return Questions(ids, count_N, texts_N, group_N, np.array([*groups, ""], object), prompt_N, gold_N, golds)


def filled(size: int, value: Any) -> np.ndarray:
    """An object array of one shared object."""
    found = np.empty(size, object)
    found.fill(value)
    return found


def not_a_choice(column: str, text: str, count: int) -> str:
    return f"{column}: {text!r} given; allowed: a choice's index, 0 to {count - 1}, or null"


# --- outputs ---------------------------------------------------------------------------------------------------------


def read_members(source: Source, models: Sequence[str], samples: bool) -> dict[tuple[str, int], int]:
    """{(model, sample): its place}, in the order of names and samples."""
    found: set[tuple[str, int]] = set()
    for model, sample, names, drawn in model_columns(source):
        pairs = np.unique((model + 1) * np.int64(len(drawn)) + sample)
        found |= {(names[at // len(drawn) - 1], drawn[at % len(drawn)]) for at in pairs[pairs >= len(drawn)].tolist()}
        if len(found) > MOST_MEMBERS:
            raise BadInput(
                f"{source.name}: there are more than {MOST_MEMBERS:,} samples of models; is `sample` a count?"
            )
    known = sorted({model for model, _ in found})
    for model in models:
        if model not in known:
            raise BadInput(f"{source.name}: no model {model!r}{did_you_mean(model, known)}; known: {', '.join(known)}")
    kept = sorted(pair for pair in found if not models or pair[0] in models)
    if not samples:
        kept = sorted({model: (model, sample) for model, sample in reversed(kept)}.values())
    return {pair: at for at, pair in enumerate(kept)}


def model_columns(source: Source) -> Iterator[tuple[np.ndarray, np.ndarray, list[str], list[int]]]:
    """(codes of model, codes of sample, models, samples) of each batch."""
    for batch in source.batches([name for name in ("model", "sample") if name in source.columns]):
        yield (*coded_members(batch),)


def coded_members(batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray, list[str], list[int]]:
    model, names = coded(batch["model"])
    if "sample" not in batch.schema.names:
        return model, np.zeros(len(model), np.int32), names, [0]
    drawn = batch["sample"].fill_null(0).dictionary_encode()
    return model, drawn.indices.to_numpy(), names, drawn.dictionary.to_pylist()


@dataclass
class Cells:
    """What the outputs hold: arrays of M by N, None for what is not there; open answers as codes until all are read."""

    answer_MN: np.ndarray
    arrays: dict[str, np.ndarray]
    recorded: np.ndarray  # of groups: whether any answer was
    open_cells: list[np.ndarray]
    open_words: list[np.ndarray]
    words: dict[str, int]


def read_answers(source: Source, pool: Questions, members: dict[tuple[str, int], int], columns: Sequence[str]) -> Cells:
    shape = len(members), len(pool.ids)
    cells = Cells(np.full(shape, NOT_ASKED, np.int16), {}, np.zeros(len(pool.groups), bool), [], [], {})
    names = [n for n in source.columns if n in ("id", "model", "sample", "answer") or n in columns]
    faults, start, last, total = Faults(source.name, {}), 0, -1, 0
    # Ids out of order cost a table of all questions for each batch: the more questions, the larger the batches.
    for batch in source.batches(names, int(np.clip(shape[1] // 2, 1 << 18, 1 << 22))):
        model, sample, found, drawn = coded_members(batch)
        place_MS = np.array([[members.get((m, s), -1) for s in drawn] for m in [*found, None]])
        member, (at, last) = place_MS[model, sample], places(batch["id"], pool.ids, last)
        rows = np.arange(start, start + len(batch))
        faults.add("model", rows[model < 0], lambda _: "model: missing; allowed: a text")
        lost = np.flatnonzero((at < 0) & (member >= 0))
        faults.add("id", rows[lost], lambda i: f"id: {batch['id'][int(lost[i])].as_py()!r} is no question's id")  # noqa: B023
        good = (member >= 0) & (at >= 0)
        start += len(batch)
        if not good.all():
            batch, member, at, rows = batch.filter(pa.array(good)), member[good], at[good], rows[good]
        total += len(rows)
        cell = member * np.int64(shape[1]) + at
        put_answers(cells, pool, batch, cell, at, rows, faults)
        for name in (n for n in FLOATS if n in batch.schema.names):
            put_numbers(cells, name, batch[name], cell, rows, faults)
        if "probs" in names:
            put_probs(cells, pool, batch["probs"], cell, at, rows, faults)
        if "text" in names and batch["text"].null_count < len(batch):
            text = cells.arrays.setdefault("text", filled(shape[0] * shape[1], None).reshape(shape))
            text.reshape(-1)[cell] = batch["text"].to_numpy(zero_copy_only=False)
    if np.count_nonzero(cells.answer_MN != NOT_ASKED) < total:
        find_repeats(source, pool, members, faults)
    faults.check()
    check_silent(source, pool, members, cells)
    return cells


def places(ids: pa.StringArray, known: pa.StringArray, last: int) -> tuple[np.ndarray, int]:
    """(positions among the known ids, -1 for an unknown one; the last of them), quickly where they come in order.

    Rows of one question often stand together; the next is tried first, beginning again after the last question.
    """
    head = np.ones(len(ids), bool)
    head[1:] = pc.fill_null(pc.not_equal(ids[1:], ids[:-1]), True).to_numpy(zero_copy_only=False)
    heads = ids.filter(pa.array(head))
    first = last if last >= 0 and ids[0] == known[last] else last + 1
    guess = (first + np.arange(len(heads))) % len(known)
    if not pc.all(pc.fill_null(pc.equal(heads, known.take(pa.array(guess))), False)).as_py():
        guess = pc.index_in(heads, value_set=known, skip_nulls=True).fill_null(-1).to_numpy()
    return guess[np.cumsum(head) - 1], int(guess[-1])


def put_answers(
    cells: Cells,
    pool: Questions,
    batch: pa.RecordBatch,
    cell: np.ndarray,
    at: np.ndarray,
    rows: np.ndarray,
    faults: Faults,
) -> None:
    if "answer" not in batch.schema.names:
        cells.answer_MN.reshape(-1)[cell] = ABSTAINED
        return
    codes, texts = coded(batch["answer"])
    answer, count = indices(texts)[codes], pool.count_N[at]
    has = codes >= 0
    bad = np.flatnonzero(has & (count > 0) & ((answer < 0) | (answer >= count)))
    faults.add("answer", rows[bad], lambda i: not_a_choice("answer", texts[codes[bad[i]]], count[bad[i]]))
    answer[~has] = ABSTAINED
    free = np.flatnonzero(has & (count == 0))
    if len(free):
        answer[free] = 0
        words = np.array([cells.words.setdefault(text, len(cells.words)) for text in texts], np.int64)
        cells.open_cells.append(cell[free])
        cells.open_words.append(words[codes[free]])
    cells.recorded[pool.group_N[at[has]]] = True
    cells.answer_MN.reshape(-1)[cell] = answer


def put_numbers(cells: Cells, name: str, column: pa.Array, cell: np.ndarray, rows: np.ndarray, faults: Faults) -> None:
    values = numbers(column)
    there = ~np.isnan(values)
    if not there.any():
        return
    low, high = RANGE[name]
    bad = np.flatnonzero(there & ~((values >= low) & (values <= high) & np.isfinite(values)))
    allowed = "true, false" if high == 1 else "dollars, 0 or more" if name == "cost" else "a finite number"
    faults.add(name, rows[bad], lambda i: f"{name}: {values[bad[i]]:g} given; allowed: {allowed}, or null")
    if name not in cells.arrays:
        cells.arrays[name] = np.full(cells.answer_MN.shape, np.nan, FLOATS[name])
    cells.arrays[name].reshape(-1)[cell] = values


def put_probs(
    cells: Cells, pool: Questions, column: pa.Array, cell: np.ndarray, at: np.ndarray, rows: np.ndarray, faults: Faults
) -> None:
    there = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
    if not len(there):
        return
    length = pc.list_value_length(column).fill_null(0).to_numpy()
    values = column.flatten().to_numpy(zero_copy_only=False)
    begin, most = np.cumsum(length) - length, int(pool.count_N.max())
    wrong = there[length[there] != pool.count_N[at[there]]]
    faults.add(
        "length",
        rows[wrong],
        lambda i: f"probs: {length[wrong[i]]} given; the question has {pool.count_N[at[wrong[i]]]} choices",
    )
    if "probs" not in cells.arrays:
        cells.arrays["probs"] = np.full((cells.answer_MN.size, max(most, 1)), np.nan, np.float32)
    for size in np.unique(length[there]):
        here = there[(length[there] == size) & (pool.count_N[at[there]] == size)]
        probs = values[begin[here][:, None] + np.arange(size)]
        bad = np.flatnonzero(~((probs >= 0).all(1) & (np.abs(probs.sum(1, dtype=np.float64) - 1) <= 1e-3)))
        faults.add("probs", rows[here[bad]], lambda i: not_probs(probs[bad[i]]))  # noqa: B023
        cells.arrays["probs"][cell[here], :size] = probs


def not_probs(probs: np.ndarray) -> str:
    given = ", ".join(f"{p:.4g}" for p in probs[:6]) + (", ..." if len(probs) > 6 else "")
    return f"probs: [{given}] given; allowed: numbers from 0 that sum to 1 (to 0.001), or null"


def find_repeats(source: Source, pool: Questions, members: dict[tuple[str, int], int], faults: Faults) -> None:
    """Adds the rows whose (question, model, sample) was there before. Slow, and only for the message."""
    seen, start, size = np.zeros(len(members) * len(pool.ids), bool), 0, len(pool.ids)
    for batch in source.batches([name for name in ("id", "model", "sample") if name in source.columns]):
        model, sample, found, drawn = coded_members(batch)
        place_MS = np.array([[members.get((m, s), -1) for s in drawn] for m in [*found, None]])
        member, (at, _) = place_MS[model, sample], places(batch["id"], pool.ids, -1)
        rows = np.flatnonzero((member >= 0) & (at >= 0))
        cell = member[rows] * np.int64(size) + at[rows]
        again = np.setdiff1d(np.arange(len(cell)), np.unique(cell, return_index=True)[1], assume_unique=True)
        again = np.union1d(again, np.flatnonzero(seen[cell]))

        def say(i: int) -> str:
            row = rows[again[i]]  # noqa: B023
            what = (
                f"question {batch['id'][int(row)].as_py()!r}, model {found[model[row]]!r}, sample {drawn[sample[row]]}"  # noqa: B023
            )
            return f"{what} is there twice; allowed: once"

        faults.add("again", start + rows[again], say)
        seen[cell] = True
        start += len(batch)


def check_silent(source: Source, pool: Questions, members: dict[tuple[str, int], int], cells: Cells) -> None:
    """BadInput for a model none of whose answers could be read, where those of others could."""
    able_N = cells.recorded[pool.group_N]
    quiet: dict[str, bool] = {}
    for (model, _), at in members.items():
        answer_N = cells.answer_MN[at]
        silent = not (answer_N >= 0).any() and bool((able_N | (answer_N == NOT_ASKED)).all())
        quiet[model] = quiet.get(model, True) and silent
    for model in (model for model, silent in quiet.items() if silent):
        start = 0
        for batch in source.batches(["model"]):
            if model in (found := coded(batch["model"]))[1]:
                row = start + int(np.argmax(found[0] == found[1].index(model))) + 1
                raise BadInput(f"{source.name}: row {row}: model {model!r} has no answer in any row; leave it out")
            start += len(batch)


# --- both ------------------------------------------------------------------------------------------------------------


def finish(pool: Questions, members: dict[tuple[str, int], int], cells: Cells) -> tuple[Opinions, Truth]:
    """Open answers -> candidates; what was not recorded; gold; right and wrong."""
    answer_MN, arrays = cells.answer_MN, cells.arrays
    gold_N = np.where(pool.gold_N < 0, -2, indices(pool.golds)[pool.gold_N]).astype(np.int16)
    settle_open(pool, cells, gold_N)
    hidden_N = ~cells.recorded[pool.group_N]
    gold_N[hidden_N] = -2
    right_MN = arrays.pop("correct", None)
    quality_MN = arrays.pop("quality", None)
    if right_MN is None:
        right_MN = np.full(answer_MN.shape, np.nan, np.float32)
    for at, answer_N in enumerate(answer_MN):  # by member: temporaries of M by N cost as much as the pool
        if hidden_N.any():
            answer_N[hidden_N & (answer_N == ABSTAINED)] = NOT_RECORDED
        if quality_MN is not None:
            right_MN[at] = np.where(np.isnan(right_MN[at]), quality_MN[at], right_MN[at])
        open_N = np.isnan(right_MN[at]) & (answer_N >= ABSTAINED) & (gold_N > -2)
        right_MN[at, open_N] = answer_N[open_N] == gold_N[open_N]
    ids = fixed_width(pool.ids)
    probs_MNK = arrays.get("probs")
    opinions = Opinions(
        ids,
        member_names(members),
        answer_MN,
        pool.count_N,
        pool.texts_N,
        pool.groups[pool.group_N],
        pool.prompt_N,
        probs_MNK=None if probs_MNK is None else probs_MNK.reshape(*answer_MN.shape, -1),
        score_MN=arrays.get("score"),
        cost_MN=arrays.get("cost"),
        check_MN=arrays.get("visible_pass"),
        output_MN=arrays.get("text"),
    )
    return opinions, Truth(ids, gold_N, right_MN)


def settle_open(pool: Questions, cells: Cells, gold_N: np.ndarray) -> None:
    """The distinct answers to each question without choices become its candidates, in alphabetical order."""
    open_N = pool.count_N == 0
    if not cells.open_cells:
        gold_N[open_N & (gold_N > -2)] = -1
        return
    words = np.array(list(cells.words), object)
    order = np.argsort(words)
    rank = np.empty(len(words), np.int64)
    rank[order] = np.arange(len(words))
    cell = np.concatenate(cells.open_cells)
    key = (cell % len(gold_N)) * len(words) + rank[np.concatenate(cells.open_words)]
    given, place = np.unique(key, return_inverse=True)
    question = given // len(words)
    count_N = np.bincount(question, minlength=len(gold_N))
    start_N = np.cumsum(count_N) - count_N
    cells.answer_MN.reshape(-1)[cell] = place - start_N[cell % len(gold_N)]
    pool.count_N[open_N] = count_N[open_N]
    texts = words[order[given % len(words)]]
    for at in np.flatnonzero(count_N):
        pool.texts_N[at] = tuple(texts[start_N[at] : start_N[at] + count_N[at]])
    gold_rank = np.array([rank[cells.words[text]] if text in cells.words else -1 for text in [*pool.golds, ""]])
    rows = np.flatnonzero(open_N & (gold_N != -2))
    wanted = rows * len(words) + gold_rank[pool.gold_N[rows]]
    found = np.minimum(np.searchsorted(given, wanted), len(given) - 1)
    hit = (gold_rank[pool.gold_N[rows]] >= 0) & (given[found] == wanted)
    gold_N[rows] = np.where(hit, found - start_N[rows], -1)


def member_names(members: dict[tuple[str, int], int]) -> np.ndarray:
    drawn = [model for model, _ in members]
    several = {model for model in drawn if drawn.count(model) > 1}
    return np.array([f"{model}#{sample}" if model in several else model for model, sample in members])
