"""Stages that make questions, gold and targets."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from w2s.config.fields import Data
from w2s.config.registry import pick
from w2s.data.difficulty import DIFFICULTY
from w2s.data.splits import split
from w2s.grading.judge import judge
from w2s.prompts import as_shot
from w2s.stages import Facts, Inputs, Tools
from w2s.store.files import write_json
from w2s.store.records import (
    BadInput,
    Example,
    Gold,
    Predictions,
    PseudoLabels,
    candidate_mask,
    read_arrays,
    read_rows,
    write_arrays,
    write_rows,
)

SHOTS, SOLVED = "shots.jsonl", "shots.json"


def questions(
    here: Path,
    inputs: Inputs,
    tools: Tools,
    *,
    data: Data,
    seed: int,
    content: str,
    limit: int | None = None,
    shots: int = 0,
) -> Facts:
    """Split the questions, without their gold. `content` is the hash of the rows of `tools.rows`.

    limit: keep only the first `limit` questions of each split by id, in the split's order. shots: also write as many
    easy questions that are in no split, for prompts to show: shots.jsonl.
    """
    examples, gold = tools.rows(seed)
    opinion = read_arrays(inputs["difficulty"] / "pool.npz", Predictions) if "difficulty" in inputs else None
    score_N = pick(DIFFICULTY, data.difficulty)(examples, gold, opinion)
    splits = split(examples, gold, score_N, data, seed, shots=shots)
    by_id = {example.id: example for example in examples}
    score = dict(zip([example.id for example in examples], score_N.tolist(), strict=True))
    counts = dict(splits.counts)
    for name in ("easy_fit", "easy_holdout", "transfer", "hard_test"):
        ids = getattr(splits, name).tolist()
        kept = set(sorted(ids)[:limit])
        counts[name] = len(kept)
        rows = [by_id[key] for key in ids if key in kept]
        rows = [dataclasses.replace(row, meta={**row.meta, "hardness": score[row.id]}) for row in rows]
        write_rows(here / f"{name}.jsonl", rows)
    if shots:
        write_rows(here / SHOTS, [by_id[key] for key in splits.shots.tolist()])
    write_json(here / "splits.json", {"hash": splits.hash, "counts": counts})
    return {"rows": len(examples), **counts}


def gold(here: Path, inputs: Inputs, tools: Tools, *, splits: Sequence[str], seed: int, content: str) -> Facts:
    """The gold of these splits, apart from all else: only a stage with this parent can see it."""
    ids = {row.id for name in splits for row in read_rows(inputs["questions"] / f"{name}.jsonl", Example)}
    return {"rows": write_rows(here / "gold.jsonl", [row for row in tools.rows(seed)[1] if row.id in ids])}


def solved(here: Path, inputs: Inputs, tools: Tools, *, seed: int, content: str) -> Facts:
    """The questions that prompts show, with their answers: shots.json. Their gold is the only one in it."""
    examples = read_rows(inputs["questions"] / SHOTS, Example)
    shots = solve(examples, tools.rows(seed)[1])
    write_json(here / SOLVED, shots)
    return {"rows": len(shots)}


def solve(examples: Sequence[Example], gold: Sequence[Gold]) -> list[dict[str, Any]]:
    """Examples with their gold, as model.shots takes them."""
    by_id = {row.id: row for row in gold}
    answers = [by_id[row.id].answer if row.task == "choice" else gold_text(row, by_id[row.id]) for row in examples]
    return [as_shot(*pair) for pair in zip(examples, answers, strict=True)]


def suite(here: Path, inputs: Inputs, tools: Tools, *, name: str, content: str) -> Facts:
    """A further suite's questions, without their gold."""
    return {"rows": write_rows(here / f"{name}.jsonl", tools.suite_rows(name)[0])}


def suite_gold(here: Path, inputs: Inputs, tools: Tools, *, name: str, content: str) -> Facts:
    """A further suite's gold."""
    return {"rows": write_rows(here / "gold.jsonl", tools.suite_rows(name)[1])}


def gold_targets(here: Path, inputs: Inputs, tools: Tools, *, split: str) -> Facts:
    """Gold as targets: all the probability on the right candidate.

    If questions have no choices, the right answer is the only candidate, in targets.jsonl.
    """
    examples = read_rows(inputs["questions"] / f"{split}.jsonl", Example)
    gold = read_gold(inputs["gold"])
    answer = {row.id: gold[row.id].answer for row in examples}
    if examples[0].task != "choice":
        examples = [dataclasses.replace(row, choices=(gold_text(row, gold[row.id]),)) for row in examples]
        write_rows(here / "targets.jsonl", examples)
        answer = dict.fromkeys(answer, 0)
    labels = as_targets(examples, answer)
    write_arrays(here / "labels.npz", labels)
    return {"rows": len(labels.ids)}


def gold_text(example: Example, gold: Gold) -> str:
    """The text that should follow the question: the answer, or a program without the prompt that begins it."""
    text = str(gold.answer)
    return text.removeprefix(example.prompt) if example.task == "code" else text


def recorded_targets(here: Path, inputs: Inputs, tools: Tools, *, content: str) -> Facts:
    """Labels by `w2s combine labels` from recorded opinions, for the questions of the transfer pool.

    Questions are matched by prompt and choices, in any order; one without a match has weight 0. `content` is the hash
    of the folder's files.
    """
    labels = read_arrays(tools.recorded / "labels.npz", PseudoLabels)
    place = {key: at for at, key in enumerate(labels.ids.tolist())}
    known = {words(row): (place[row.id], row.choices) for row in read_rows(tools.recorded / "questions.jsonl", Example)}
    examples = read_rows(inputs["questions"] / "transfer.jsonl", Example)
    target_NK = candidate_mask(np.array([len(row.choices) for row in examples])).astype(np.float64)
    weight_N, why_N = np.zeros(len(examples)), np.full(len(examples), "no recorded opinion", dtype=object)
    for at, row in enumerate(examples):
        if words(row) in known:
            there, choices = known[words(row)]
            target_NK[at, : len(choices)] = labels.target_NK[there, [choices.index(text) for text in row.choices]]
            weight_N[at], why_N[at] = labels.weight_N[there], labels.why_N[there]
    if not weight_N.any():
        raise BadInput(f"label.recorded: {tools.recorded} labels none of the {len(examples):,} transfer questions")
    target_NK /= target_NK.sum(1, keepdims=True)
    ids = np.array([row.id for row in examples])
    write_arrays(here / "labels.npz", PseudoLabels(ids, target_NK, weight_N, why_N.astype(str)))
    return {"rows": len(ids), "kept": int((weight_N > 0).sum())}


def words(row: Example) -> tuple[str, ...]:
    """What identifies a question whatever its source: its prompt and the set of its choices."""
    return (row.prompt.strip(), *sorted(row.choices))


def as_targets(examples: list[Example], answer: dict[str, int]) -> PseudoLabels:
    """One-hot targets of choice questions, weights 1."""
    mask_NK = candidate_mask(np.array([len(example.choices) for example in examples]))
    target_NK = np.zeros(mask_NK.shape)
    target_NK[np.arange(len(examples)), [answer[example.id] for example in examples]] = 1
    ids = np.array([example.id for example in examples])
    return PseudoLabels(ids, target_NK, np.ones(len(ids)), np.full(len(ids), "gold"))


def read_in_order(path: Path, ids: np.ndarray) -> list[Example]:
    """The examples of a file with these ids, in the ids' order."""
    by_id = {row.id: row for row in read_rows(path, Example)}
    return [by_id[key] for key in ids.tolist()]


def read_gold(folder: Path) -> dict[str, Gold]:
    return {row.id: row for row in read_rows(folder / "gold.jsonl", Gold)}


def right_candidates(examples: list[Example], gold_folder: Path, tools: Tools) -> np.ndarray:
    """right_NK: 1 right, 0 wrong, nan where there is no candidate or it could not be judged."""
    gold = read_gold(gold_folder)
    right_NK = np.full(candidate_mask(np.array([len(row.choices) for row in examples])).shape, np.nan)
    if examples[0].task == "choice":
        for at, row in enumerate(examples):
            right_NK[at, : len(row.choices)] = np.arange(len(row.choices)) == gold[row.id].answer
        return right_NK
    places = [(at, k) for at, row in enumerate(examples) for k in range(len(row.choices))]
    rows = [(examples[at], gold[examples[at].id], examples[at].choices[k]) for at, k in places]
    verdicts = judge(rows, allow_unsandboxed=tools.runtime.allow_unsandboxed)
    for place, (correct, _, _) in zip(places, verdicts, strict=True):
        right_NK[place] = np.nan if correct is None else correct
    return right_NK
