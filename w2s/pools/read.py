"""Recorded outputs of many models, from tables in the documented format or from logs, as (Opinions, Truth)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from w2s.data.reading import SUFFIXES, find
from w2s.pools.columns import OUTPUTS, QUESTIONS, Source, as_fixed_width, as_indices, frame_source, open_source
from w2s.pools.logs import read_logs
from w2s.pools.records import ABSTAINED, NOT_RECORDED, Opinions, Truth
from w2s.pools.tables import Cells, Members, Questions, check_silent, read_answers, read_members, read_questions
from w2s.store.records import BadInput, Example, Gold

if TYPE_CHECKING:
    import pandas as pd


def read_pool(
    outputs: Path | pd.DataFrame,
    questions: Path | pd.DataFrame | None = None,
    *,
    models: Sequence[str] = (),
    members: Sequence[str] = (),
    suite: tuple[list[Example], list[Gold]] | None = None,
    metrics: Sequence[str] = (),
    filters: Sequence[str] = (),
    notes: list[str] | None = None,
) -> tuple[Opinions, Truth]:
    """The answers of a pool of models, and what is known of right and wrong.

    outputs: a file or DataFrame with the columns id, model and optionally others (`columns.OUTPUTS`); a folder with
    outputs.* and questions.*; or logs of lm-eval or evalplus, one file or a folder of them (`logs`; evalplus' programs
    are judged by `suite`, in the sandbox). questions: a file or DataFrame (`columns.QUESTIONS`); without it the
    questions.* beside the outputs. Lists in a CSV are JSON. If `correct` is null, `quality` (0 to 1) stands in, and
    without both, whether the answer is gold; a recorded flag is trusted even against gold.

    models: only these. members: only the models of these members, which may have no answers. Members are named after
    the model, or model#sample if it has several samples. The candidates of a question without choices are the distinct
    answers to it, in alphabetical order. In a group without any recorded answer, null means NOT_RECORDED, else
    ABSTAINED.

    metrics, filters: those of an lm-eval log that may be used, in order of preference (see `lm_eval`). notes: a list
    that gets a sentence on each choice made in reading.

    What cannot be read is a BadInput with a line for each problem of a file, up to twenty, with file and row.
    """
    notes = [] if notes is None else notes
    in_files = isinstance(outputs, str | Path)
    tables = read_logs(Path(outputs), suite, metrics, filters, notes) if in_files else open_frames(outputs, questions)
    question_rows, output_rows = tables or open_files(Path(outputs), questions)
    for source in (question_rows, output_rows):
        if source.unused:
            notes.append(f"{source.name}: columns not read: {', '.join(source.unused)}")
    pool, drawn = read_questions(question_rows), read_members(output_rows, models, members)
    cells = read_answers(output_rows, pool, drawn)
    if not members:  # named members are known to answer, though perhaps not a few new questions
        check_silent(output_rows, pool, drawn, cells)
    return make_records(pool, drawn, cells)


def open_frames(outputs: pd.DataFrame, questions: Path | pd.DataFrame | None) -> tuple[Source, Source]:
    """(questions, outputs) from tables in memory; the questions may also be in a file."""
    if questions is None:
        raise BadInput("outputs: the questions are missing: give their table, or name their file")
    if isinstance(questions, str | Path):
        question_rows = open_source(Path(questions), QUESTIONS, ["id"])
    else:
        question_rows = frame_source("questions", questions, QUESTIONS, ["id"])
    return question_rows, frame_source("outputs", outputs, OUTPUTS, ["id", "model"])


def open_files(outputs: Path, questions: Path | None) -> tuple[Source, Source]:
    """(questions, outputs) from a file or a folder with outputs.*; without `questions`, those beside the outputs."""
    if not outputs.exists():
        raise BadInput(f"{outputs}: there is no such file or folder")
    questions = questions and Path(questions)
    if outputs.is_dir():
        outputs = find(outputs, ["outputs"])
    beside = (outputs.parent / f"questions{suffix}" for suffix in SUFFIXES)
    questions = questions or next((path for path in beside if path.is_file()), None)
    if questions is None:
        raise BadInput(f"{outputs}: the questions are missing: name their file, or put questions.parquet beside it")
    if not questions.is_file():
        raise BadInput(f"{questions}: there is no such file")
    return open_source(questions, QUESTIONS, ["id"]), open_source(outputs, OUTPUTS, ["id", "model"])


def make_records(pool: Questions, members: Members, cells: Cells) -> tuple[Opinions, Truth]:
    """(Opinions, Truth) from the tables; sets the candidates of open questions and the meaning of null answers."""
    answer_MN, arrays = cells.answer_MN, cells.arrays
    gold_N = np.where(pool.gold_N < 0, -2, as_indices(pool.golds)[pool.gold_N]).astype(np.int16)
    settle_open(pool, cells, gold_N)
    hidden_N = ~cells.recorded[pool.group_N]
    gold_N[hidden_N] = -2
    quality_MN, right_MN = arrays.pop("quality", None), arrays.pop("correct", None)
    if right_MN is None:
        right_MN = np.full(answer_MN.shape, np.nan, np.float32)
    for at, answer_N in enumerate(answer_MN):  # temporaries of M by N would cost as much as the pool
        answer_N[hidden_N & (answer_N == ABSTAINED)] = NOT_RECORDED
        if quality_MN is not None:
            right_MN[at] = np.where(np.isnan(right_MN[at]), quality_MN[at], right_MN[at])
        unsaid_N = np.isnan(right_MN[at]) & (answer_N >= ABSTAINED) & (gold_N > -2)
        right_MN[at, unsaid_N] = (answer_N >= 0)[unsaid_N] & (answer_N == gold_N)[unsaid_N]
    models = [model for model, _ in members]
    several = {model for model, after in itertools.pairwise(models) if model == after}
    names = [f"{model}#{sample}" if model in several else model for model, sample in members]
    probs_MNK = arrays["probs"].reshape(*answer_MN.shape, -1) if "probs" in arrays else None
    recorded = [probs_MNK, *(arrays.get(name) for name in ("score", "cost", "visible_pass", "text"))]
    ids, group_N = as_fixed_width(pool.ids), pool.groups[pool.group_N]
    asked = [ids, np.array(names), answer_MN, pool.count_N, pool.texts_N, group_N, pool.prompt_N]
    return Opinions(*asked, *recorded), Truth(ids, gold_N, right_MN)


def settle_open(pool: Questions, cells: Cells, gold_N: np.ndarray) -> None:
    """Make the distinct answers to a question without choices its candidates, alphabetically, and find gold among them.

    Changed in place: answer_MN, the questions' count_N and texts_N, gold_N.
    """
    open_N = (pool.count_N == 0) & (pool.gold_N >= 0)
    gold_N[open_N] = -1
    if not cells.open_cells:
        return
    words = np.array(list(cells.words), object)
    order = np.argsort(words)
    rank = np.argsort(order)
    cell = np.concatenate(cells.open_cells)
    key = (cell % len(gold_N)) * len(words) + rank[np.concatenate(cells.open_words)]
    keys, place = np.unique(key, return_inverse=True)
    question, word = np.divmod(keys, len(words))
    count_N = np.bincount(question, minlength=len(gold_N))
    start_N = np.cumsum(count_N) - count_N
    cells.answer_MN.reshape(-1)[cell] = place - start_N[cell % len(gold_N)]
    texts = words[order[word]]
    for at in np.flatnonzero(count_N):
        pool.count_N[at] = count_N[at]
        pool.texts_N[at] = tuple(texts[start_N[at] : start_N[at] + count_N[at]])
    known = np.array([rank[cells.words[text]] if text in cells.words else -1 for text in pool.golds], np.int64)
    rows = np.flatnonzero(open_N)
    rows = rows[known[pool.gold_N[rows]] >= 0]
    gold_key = rows * len(words) + known[pool.gold_N[rows]]
    spot = np.minimum(np.searchsorted(keys, gold_key), len(keys) - 1)
    hit = keys[spot] == gold_key
    gold_N[rows[hit]] = (spot - start_N[rows])[hit]
