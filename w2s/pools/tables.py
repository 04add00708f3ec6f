"""The tables of questions and of recorded outputs as arrays, and the faults in their rows.

M members by N questions. Outputs are read in batches, without a Python object per row: 160 million rows fit in a few
GiB. Everything is joined by question id; rows in the order of the questions are merely faster.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2s.config.registry import did_you_mean
from w2s.pools.columns import Source, as_indices, as_tuples, encode
from w2s.pools.records import ABSTAINED, NOT_ASKED
from w2s.store.problems import MOST, raise_problems
from w2s.store.records import BadInput

MOST_MEMBERS = 10_000
NUMBERS = {  # type, least, most, what is allowed
    "correct": (np.float32, 0, 1, "true, false"),
    "quality": (np.float32, 0, 1, "0 to 1"),
    "visible_pass": (np.float32, 0, 1, "true, false"),
    "score": (np.float32, -np.inf, np.inf, "a finite number"),
    "cost": (np.float64, 0, np.inf, "US dollars, 0 or more"),
}
Members = dict[tuple[str, int], int]  # (model, sample) -> its place


@dataclass
class Faults:
    """Rows that cannot be used, by kind: (row, what is wrong) of the first MOST, and how many there are."""

    name: str
    kinds: dict[str, tuple[list[tuple[int, str]], int]] = field(default_factory=dict)

    def add(self, kind: str, rows: np.ndarray, say: Callable[[int], str]) -> None:
        """rows: file rows from 0; say: position in `rows` -> what is wrong, called only for the first ones."""
        if len(rows):
            first, count = self.kinds.get(kind, ([], 0))
            first += [(int(row), say(at)) for at, row in enumerate(rows[: MOST - len(first)])]
            self.kinds[kind] = first, count + len(rows)

    def check(self) -> None:
        """Raise a BadInput with the first faults in the file, including the first of every kind, and a count."""
        ranked = [(at > 0, row, text) for first, _ in self.kinds.values() for at, (row, text) in enumerate(first)]
        shown = sorted((row, text) for _, row, text in sorted(ranked)[:MOST])
        lines = [f"{self.name}: row {row + 1}: {text}" for row, text in shown]
        raise_problems(lines, sum(count for _, count in self.kinds.values()))


@dataclass
class Questions:
    """The table of questions; group_N and gold_N are positions in `groups` and `golds` (gold: -1 for none)."""

    ids: pa.StringArray
    count_N: np.ndarray
    texts_N: np.ndarray
    group_N: np.ndarray
    groups: np.ndarray
    prompt_N: np.ndarray
    gold_N: np.ndarray
    golds: list[str]


@dataclass
class Cells:
    """The content of the outputs. `arrays`: M by N, one per column present; probs is M·N by K.

    recorded: whether any answer in a group was. Answers to questions without choices are set aside until all are
    known: their cells (flat positions), and for each the position of its text in `words`.
    """

    answer_MN: np.ndarray
    recorded: np.ndarray
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    open_cells: list[np.ndarray] = field(default_factory=list)
    open_words: list[np.ndarray] = field(default_factory=list)
    words: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """One batch of usable outputs: each row's place in the file, its question, and its cell (flat position)."""

    batch: pa.RecordBatch
    row: np.ndarray
    at: np.ndarray
    cell: np.ndarray


def read_questions(source: Source) -> Questions:
    """The whole table; a repeated or missing id, or a gold that is not a choice, is a BadInput."""
    table = pa.Table.from_batches(source.batches(source.columns)).unify_dictionaries()
    column = {name: table[name].combine_chunks() for name in source.columns}
    del table
    ids, faults = column["id"], Faults(source.name)
    size = len(ids)
    faults.add("missing", np.flatnonzero(ids.is_null()), lambda _: "id: missing; allowed: a text of its own")
    if len(pc.unique(ids)) < size:
        codes = ids.dictionary_encode().indices.fill_null(-1).to_numpy()
        again = np.setdiff1d(np.arange(size), np.unique(codes, return_index=True)[1])
        faults.add("again", again, lambda i: f"id: {ids[int(again[i])].as_py()!r} appears twice; allowed: once")
    texts_N, count_N = np.empty(size, object), np.zeros(size, np.int32)
    texts_N.fill(())
    if "choices" in column:
        null = pc.list_parent_indices(column["choices"]).filter(column["choices"].flatten().is_null()).to_numpy()
        faults.add("choices", np.unique(null), lambda _: "choices: null among them; allowed: a list of texts")
        faults.check()
        texts_N = as_tuples(column["choices"])
        count_N = pc.list_value_length(column.pop("choices")).fill_null(0).to_numpy().astype(np.int32)
    group_N, groups = encode(column["group"]) if "group" in column else (np.full(size, -1), [])
    group_N = np.where(group_N < 0, len(groups), group_N).astype(np.int32)
    prompt_N, prompt = np.full(size, "", object), column.pop("prompt", None)
    if prompt is not None and not pc.all(pc.equal(prompt.fill_null(""), "")).as_py():
        prompt_N = prompt.fill_null("").to_numpy(zero_copy_only=False)
    gold_N, golds = encode(column["gold"]) if "gold" in column else (np.full(size, -1), [])
    index = as_indices(golds)[gold_N]
    bad = np.flatnonzero((gold_N >= 0) & (count_N > 0) & ((index < 0) | (index >= count_N)))
    faults.add("gold", bad, lambda i: describe_choice("gold", golds[gold_N[bad[i]]], count_N[bad[i]]))
    faults.check()
    return Questions(ids, count_N, texts_N, group_N, np.array([*groups, ""], object), prompt_N, gold_N, golds)


def describe_choice(column: str, text: str, count: int) -> str:
    return f"{column}: {text!r} given; allowed: the index of a choice, 0 to {count - 1}, or null"


def read_members(source: Source, models: Sequence[str], members: Sequence[str]) -> Members:
    """The place of each requested (model, sample), sorted by name and sample; an unknown model is a BadInput."""
    present: set[tuple[str, int]] = set()
    for batch in source.batches([name for name in ("model", "sample") if name in source.columns]):
        model, sample, names, drawn = encode_members(batch)
        pairs = np.unique((model + 1) * np.int64(len(drawn)) + sample)  # those of a missing model come first
        present |= {(names[at // len(drawn) - 1], drawn[at % len(drawn)]) for at in pairs[pairs >= len(drawn)].tolist()}
        if len(present) > MOST_MEMBERS:
            raise BadInput(f"{source.name}: more than {MOST_MEMBERS:,} (model, sample); sample: the number of a draw")
    known = sorted({model for model, _ in present})
    # A model's own name may contain '#': only if there is no such model is the part after it a sample.
    models = [*models, *(name if name in known else name.rpartition("#")[0] or name for name in members)]
    for model in models:
        if model not in known:
            raise BadInput(f"{source.name}: no model {model!r}{did_you_mean(model, known)}; known: {', '.join(known)}")
    return {pair: at for at, pair in enumerate(sorted(pair for pair in present if not models or pair[0] in models))}


def encode_members(batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray, list[str], list[int]]:
    """(codes of model, codes of sample, the models, the samples); the code of a missing model is -1."""
    model, names = encode(batch["model"])
    if "sample" not in batch.schema.names:
        return model, np.zeros(len(model), np.int32), names, [0]
    drawn = batch["sample"].fill_null(0).dictionary_encode()
    return model, drawn.indices.to_numpy(), names, drawn.dictionary.to_pylist()


def read_answers(source: Source, pool: Questions, members: Members) -> Cells:
    """The whole table; unusable rows are a BadInput with a line each, up to twenty, and a count."""
    shape = len(members), len(pool.ids)
    cells = Cells(np.full(shape, NOT_ASKED, np.int16), np.zeros(len(pool.groups), bool))
    faults, total = Faults(source.name), 0
    for part in read_parts(source, source.columns, pool, members, faults):
        total += len(part.row)
        put_answers(cells, pool, part, faults)
        for name in set(NUMBERS).intersection(source.columns):
            put_numbers(cells, name, part, faults)
        if "probs" in source.columns:
            put_probs(cells, pool, part, faults)
        if "text" in source.columns and part.batch["text"].null_count < len(part.row):
            text_MN = cells.arrays.setdefault("text", np.full(shape, None))
            text_MN.reshape(-1)[part.cell] = part.batch["text"].to_numpy(zero_copy_only=False)
    if np.count_nonzero(cells.answer_MN != NOT_ASKED) < total:
        find_repeats(source, pool, members, faults)
    faults.check()
    return cells


def read_parts(
    source: Source, names: Sequence[str], pool: Questions, members: Members, faults: Faults
) -> Iterator[Part]:
    """The usable rows of these members, batch by batch; unusable ones are faults."""
    start, last, size = 0, -1, len(pool.ids)
    # Ids out of order cost a table of all questions for each batch: the more questions, the larger the batches.
    for batch in source.batches(names, int(np.clip(size // 2, 1 << 18, 1 << 22))):
        model, sample, names_here, drawn = encode_members(batch)
        place_MS = np.array([[members.get((m, s), -1) for s in drawn] for m in [*names_here, None]])
        member, ids = place_MS[model, sample], batch["id"]
        at, last = find_places(ids, pool.ids, last)
        row = np.arange(start, start + len(batch))
        start += len(batch)
        faults.add("model", row[model < 0], lambda _: "model: missing; allowed: a text")
        lost = np.flatnonzero((at < 0) & (member >= 0))
        faults.add("id", row[lost], lambda i, ids=ids, lost=lost: f"id: {ids[int(lost[i])]} is not a question's id")
        good = (at >= 0) & (member >= 0)
        if not good.all():
            batch, member, at, row = batch.filter(pa.array(good)), member[good], at[good], row[good]
        yield Part(batch, row, at, member * np.int64(size) + at)


def find_places(ids: pa.StringArray, known: pa.StringArray, last: int) -> tuple[np.ndarray, int]:
    """(positions among the known ids, -1 for an unknown one; the last of them); fast if they come in order.

    Rows of one question are often adjacent; the next question is tried first, wrapping around after the last.
    """
    head = np.ones(len(ids), bool)
    head[1:] = pc.not_equal(ids[1:], ids[:-1]).fill_null(True).to_numpy(zero_copy_only=False)
    heads = ids.filter(pa.array(head))
    first = last if last >= 0 and ids[0] == known[last] else last + 1
    guess = (first + np.arange(len(heads))) % len(known)
    if not pc.all(pc.equal(heads, known.take(pa.array(guess))).fill_null(False)).as_py():
        guess = pc.index_in(heads, value_set=known, skip_nulls=True).fill_null(-1).to_numpy()
    return guess[np.cumsum(head) - 1], int(guess[-1])


def put_answers(cells: Cells, pool: Questions, part: Part, faults: Faults) -> None:
    if "answer" not in part.batch.schema.names:
        cells.answer_MN.reshape(-1)[part.cell] = ABSTAINED
        return
    codes, texts = encode(part.batch["answer"])
    answer, count, has = as_indices(texts)[codes], pool.count_N[part.at], codes >= 0
    bad = np.flatnonzero(has & (count > 0) & ((answer < 0) | (answer >= count)))
    faults.add("answer", part.row[bad], lambda i: describe_choice("answer", texts[codes[bad[i]]], count[bad[i]]))
    answer[~has] = ABSTAINED
    free = np.flatnonzero(has & (count == 0))
    if len(free):
        answer[free] = 0
        words = np.array([cells.words.setdefault(text, len(cells.words)) for text in texts], np.int64)
        cells.open_cells.append(part.cell[free])
        cells.open_words.append(words[codes[free]])
    cells.recorded[pool.group_N[part.at[has]]] = True
    cells.answer_MN.reshape(-1)[part.cell] = answer


def put_numbers(cells: Cells, name: str, part: Part, faults: Faults) -> None:
    values = part.batch[name].to_numpy(zero_copy_only=False).astype(np.float64, copy=False)  # null is NaN
    there = ~np.isnan(values)
    if not there.any():
        return
    kind, low, high, allowed = NUMBERS[name]
    bad = np.flatnonzero(there & ~((values >= low) & (values <= high) & np.isfinite(values)))
    faults.add(name, part.row[bad], lambda i: f"{name}: {values[bad[i]]:g} given; allowed: {allowed}, or null")
    if name not in cells.arrays:
        cells.arrays[name] = np.full(cells.answer_MN.shape, np.nan, kind)
    cells.arrays[name].reshape(-1)[part.cell] = values


def put_probs(cells: Cells, pool: Questions, part: Part, faults: Faults) -> None:
    column = part.batch["probs"]
    length, count = pc.list_value_length(column).fill_null(-1).to_numpy(), pool.count_N[part.at]
    if (length < 0).all():
        return
    wrong = np.flatnonzero((length >= 0) & (length != count))
    say = "probs: {} given; allowed: one for each of the question's {} choices, or null"
    faults.add("length", part.row[wrong], lambda i: say.format(length[wrong[i]], count[wrong[i]]))
    if "probs" not in cells.arrays:
        most = max(int(pool.count_N.max()), 1)
        cells.arrays["probs"] = np.full((cells.answer_MN.size, most), np.nan, np.float32)
    values, begin = column.flatten().to_numpy(zero_copy_only=False), np.cumsum(np.maximum(length, 0))
    for size in np.unique(count[length == count]):
        here = np.flatnonzero((length == count) & (count == size))
        probs = values[(begin[here] - size)[:, None] + np.arange(size)]
        bad = np.flatnonzero(~((probs >= 0).all(1) & (np.abs(probs.sum(1, dtype=np.float64) - 1) <= 1e-3)))
        faults.add("probs", part.row[here[bad]], lambda i, probs=probs, bad=bad: describe_probs(probs[bad[i]]))
        cells.arrays["probs"][part.cell[here], :size] = probs


def describe_probs(probs: np.ndarray) -> str:
    shown = ", ".join(f"{p:.4g}" for p in probs[:6]) + (", ..." if len(probs) > 6 else "")
    return f"probs: [{shown}] given; allowed: numbers from 0 that sum to 1 (to 0.001), or null"


def find_repeats(source: Source, pool: Questions, members: Members, faults: Faults) -> None:
    """Add the rows whose (question, model, sample) occurred before: another pass, only for the message."""
    seen = np.zeros(len(members) * len(pool.ids), bool)
    names = [name for name in ("id", "model", "sample") if name in source.columns]
    known = list(members)
    for part in read_parts(source, names, pool, members, Faults(source.name)):
        first = np.unique(part.cell, return_index=True)[1]
        again = np.setdiff1d(np.arange(len(part.cell)), first[~seen[part.cell[first]]])

        def say(i: int, part: Part = part, again: np.ndarray = again) -> str:
            member, at = divmod(int(part.cell[again[i]]), len(pool.ids))
            model, sample = known[member]
            return f"question {pool.ids[at]}, model {model}, sample {sample} appears twice; allowed: once"

        faults.add("again", part.row[again], say)
        seen[part.cell] = True


def check_silent(source: Source, pool: Questions, members: Members, cells: Cells) -> None:
    """Raise a BadInput for a model without any answer where those of others were recorded."""
    able_N = cells.recorded[pool.group_N]
    quiet: dict[str, bool] = {}
    for (model, _), at in members.items():
        answer_N = cells.answer_MN[at]
        silent = (answer_N < 0).all() and (able_N | (answer_N == NOT_ASKED)).all()
        quiet[model] = quiet.get(model, True) and bool(silent)
    silent, faults, start = {model for model, silent in quiet.items() if silent}, Faults(source.name), 0
    for batch in source.batches(["model"]) if silent else ():
        codes, names = encode(batch["model"])
        for model in sorted(silent.intersection(names)):
            silent.remove(model)
            row = start + np.flatnonzero(codes == names.index(model))[:1]
            faults.add(model, row, lambda _, m=model: f"model {m!r} has no answer in any row; allowed: at least 1")
        start += len(batch)
    faults.check()
