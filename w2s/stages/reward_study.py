"""Stages of the reward study's data: pairs to learn from, held-out pairs, further sets of pairs, and a pool of recorded
answers to choose among. Preferences have their own stages, so that no reward model descends from the preferences that
judge it.

The data is read when stages are declared, since the rows are part of the keys; the stages write the rows.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from w2s.config.registry import did_you_mean
from w2s.config.studies import RewardPool
from w2s.data.duplicates import remove_leaks
from w2s.data.pairs import hash_instruction, split_by_group
from w2s.data.reading import SUFFIXES, find
from w2s.pools.columns import NUMBER, QUESTIONS, TEXT, Source, open_source
from w2s.rewards.pairs import DrawnPairs
from w2s.stages import Facts, Inputs, Tools
from w2s.store.records import (
    BadInput,
    Example,
    Gold,
    PseudoLabels,
    align,
    example_id,
    hash_texts,
    take,
    write_arrays,
    write_rows,
)

HELD_OUT, POOL = "held_out", "pool"
ANSWERS = {"id": TEXT, "model": TEXT, "text": TEXT, "preference": NUMBER}
PROMPTS = ("id", "prompt")
FEWEST = 2  # ordinary answers per instruction of the pool

Answer = tuple[str, str, float]
"""Model, text, preference."""


class Cut(NamedTuple):
    """The pairs of one seed. removed: by judged set, how many training pairs were removed because their instruction, or
    one near it, is in the set."""

    fit: list[Example]
    held_out: list[Example]
    removed: dict[str, int]


class Pool(NamedTuple):
    """Instructions with the answers of up to K models: examples (answers as choices) and preference_NK, nan as padding.

    meta of an example: group, models (of its choices, in order). counts: answers, empty ones, and "few": instructions
    with fewer than two ordinary answers.
    """

    examples: list[Example]
    preference_NK: np.ndarray
    counts: dict[str, int]


def cut(
    drawn: DrawnPairs, held_out: float, suites: Mapping[str, Sequence[Example]], near: float | None, seed: int
) -> Cut:
    """Pairs to fit on and held-out pairs: no instruction is in both, and none to fit on is in a suite.

    near: instructions whose words are at least this similar (Jaccard, see data.duplicates) count as one.
    """
    by_id = {row.id: row for row in drawn.examples}
    split = split_by_group(drawn.examples, {"fit": 1 - held_out, HELD_OUT: held_out}, seed)
    fit, held = ([by_id[key] for key in split[name].tolist()] for name in ("fit", HELD_OUT))
    removed = {}
    for name, judged in {HELD_OUT: held, **suites}.items():
        groups = {str(row.meta["group"]) for row in judged}
        apart = [row for row in fit if str(row.meta["group"]) not in groups]
        kept = {row.id for row in remove_leaks(bare(apart), bare(judged), near=near)[0]}
        removed[name], fit = len(fit) - len(kept), [row for row in apart if row.id in kept]
    if not fit:
        raise BadInput(f"rewards.pairs: all {len(drawn.examples)} pairs have instructions that are also in a suite")
    return Cut(fit, held, removed)


def untrained(pool: Pool, fit: Sequence[Example], count: int | None, near: float | None, seed: int) -> Pool:
    """The pool's instructions that are neither trained on nor near one that is; `count` of them, drawn by the seed."""
    groups = {str(row.meta["group"]) for row in fit}
    apart = [row for row in pool.examples if row.meta["group"] not in groups]
    kept = {row.id for row in remove_leaks(bare(apart), bare(fit), near=near)[0]}
    places = [at for at, row in enumerate(pool.examples) if row.id in kept]
    order = sorted(places, key=lambda at: hash_texts(str(seed), pool.examples[at].id))
    if len(order) < (count or 1):
        left = f"{len(order)} of {len(pool.examples)} are not trained on (a larger rewards.study.held_out leaves more)"
        raise BadInput(f"rewards.study.pool.instructions: {count or 1} given; {left}")
    chosen = np.array(order[:count])
    counts = {**pool.counts, "trained": len(pool.examples) - len(order)}
    return Pool([pool.examples[at] for at in chosen], pool.preference_NK[chosen], counts)


def bare(rows: Sequence[Example]) -> list[Example]:
    """The instructions alone: their answers do not matter for leaks."""
    return [dataclasses.replace(row, task="answer", choices=()) for row in rows]


# --- reading recorded answers ----------------------------------------------------------------------------------------


def read_answers(settings: RewardPool, root: Path | None) -> Pool:
    """All answers of the pool; BadInput if it cannot be read, or a probe is not one of its models.

    Left out and counted: empty answers, and instructions that fewer than two ordinary models answered.
    """
    place = (root or Path()) / settings.outputs
    if not place.exists():
        raise BadInput(f"rewards.study.pool.outputs: there is no file or folder {place}")
    answers = open_source(find(place, ["outputs"]) if place.is_dir() else place, ANSWERS, list(ANSWERS))
    prompts = read_prompts(place if place.is_dir() else place.parent)
    texts: dict[str, list[Answer]] = defaultdict(list)
    counts = Counter(answers=0, empty=0)
    models = set()
    for where, row in read_table(answers):
        key, model, text, preference = (row[name] for name in ANSWERS)
        if key not in prompts:
            raise BadInput(f"{where}: id: {key!r} is not a question's id")
        if not model:
            raise BadInput(f"{where}: model: missing; allowed: a text")
        if preference is None or not 0 <= preference <= 1:
            raise BadInput(f"{where}: preference: {preference!r} given; allowed: 0 to 1")
        counts["answers"] += 1
        models.add(model)
        if (text or "").strip():
            texts[key].append((model, text.strip(), preference))
        else:
            counts["empty"] += 1
    for probe in settings.probes:
        if probe not in models:
            known = f"{did_you_mean(probe, models)}; the pool has {len(models)} models"
            raise BadInput(f"rewards.study.pool.probes: {probe!r} is not a model in {place}{known}")
    return make_pool(prompts, texts, settings.probes, counts, place)


def make_pool(
    prompts: dict[str, str], answers: dict[str, list[Answer]], probes: Sequence[str], counts: Counter, place: Path
) -> Pool:
    """The pool of answers by question, without instructions that have too few answers."""
    examples, preferences = [], []
    for key, rows in answers.items():
        rows = sorted(rows)
        if len({model for model, _, _ in rows}) < len(rows):
            twice = next(name for name, many in Counter(model for model, _, _ in rows).items() if many > 1)
            raise BadInput(f"{place}: question {key}: model {twice!r} appears twice; allowed: once")
        if sum(model not in probes for model, _, _ in rows) < FEWEST:
            counts["few"] += 1
            continue
        texts = tuple(text for _, text, _ in rows)
        meta: dict[str, Any] = {"group": hash_instruction(prompts[key]), "models": [model for model, _, _ in rows]}
        examples.append(Example(example_id(POOL, prompts[key], texts), POOL, "choice", prompts[key], texts, meta))
        preferences.append([preference for _, _, preference in rows])
    if not examples:
        raise BadInput(f"rewards.study.pool.outputs: {place} has no instruction with {FEWEST} ordinary answers")
    preference_NK = np.full((len(examples), max(map(len, preferences))), np.nan)
    for at, values in enumerate(preferences):
        preference_NK[at, : len(values)] = values
    return Pool(examples, preference_NK, dict(counts))


def read_prompts(folder: Path) -> dict[str, str]:
    """id -> instruction, from questions.* in the folder."""
    paths = [folder / f"questions{suffix}" for suffix in SUFFIXES]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise BadInput(f"rewards.study.pool.outputs: {folder} has no questions.* (columns id, prompt)")
    prompts = {}
    for where, row in read_table(open_source(path, {name: QUESTIONS[name] for name in PROMPTS}, list(PROMPTS))):
        if not row["id"] or not (row["prompt"] or "").strip():
            raise BadInput(f"{where}: {'prompt' if row['id'] else 'id'}: missing; allowed: a text")
        prompts[row["id"]] = row["prompt"].strip()
    return prompts


def read_table(source: Source) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, row) of a table that is small enough to be read as Python objects."""
    at = 0
    for batch in source.batches(list(source.columns)):
        columns = {name: plain(batch[name]).to_pylist() for name in source.columns}
        for values in zip(*columns.values(), strict=True):
            at += 1
            yield f"{source.name}: row {at}", dict(zip(columns, values, strict=True))


def plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


# --- stages ----------------------------------------------------------------------------------------------------------


def pairs(here: Path, inputs: Inputs, tools: Tools, *, rows: Cut, labels: PseudoLabels, content: str) -> Facts:
    """Write targets.jsonl and labels.npz to fit on, and held_out.jsonl without labels. `content`: their hash."""
    fit_N = np.isin(labels.ids, [row.id for row in rows.fit])
    ids = np.array([row.id for row in rows.fit])
    write_rows(here / "targets.jsonl", rows.fit)
    write_arrays(here / "labels.npz", align(take(labels, fit_N), ids))
    write_rows(here / f"{HELD_OUT}.jsonl", rows.held_out)
    return {"rows": len(rows.fit), HELD_OUT: len(rows.held_out)}


def judged_pairs(here: Path, inputs: Inputs, tools: Tools, *, rows: list[Example], name: str, content: str) -> Facts:
    """Write NAME.jsonl: pairs of a further set, without their preferences."""
    return {"rows": write_rows(here / f"{name}.jsonl", rows)}


def preferred(here: Path, inputs: Inputs, tools: Tools, *, gold: Sequence[Gold], name: str, content: str) -> Facts:
    """Write gold.jsonl: the preferred choice of each pair of the set `name`."""
    return {"rows": write_rows(here / "gold.jsonl", gold)}


def pool(here: Path, inputs: Inputs, tools: Tools, *, rows: Pool, content: str) -> Facts:
    """Write pool.jsonl: instructions with all answers as choices, without preferences."""
    return {"rows": write_rows(here / f"{POOL}.jsonl", rows.examples), **rows.counts}


def pool_preferences(here: Path, inputs: Inputs, tools: Tools, *, rows: Pool, content: str) -> Facts:
    """Write preference.npz: ids and preference_NK of the pool's answers."""
    ids = np.array([row.id for row in rows.examples])
    np.savez(here / "preference.npz", ids=ids, preference_NK=rows.preference_NK)
    return {"rows": len(ids)}
