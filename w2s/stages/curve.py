"""Stages of the over-optimisation curve: pairs of a policy's samples, the samples as candidates, and their gold.

Letters: N questions, S samples of each, D distinct texts among them.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np

from w2s.grading.judge import judge
from w2s.stages import Facts, Inputs, Tools, find_set
from w2s.stages.questions import as_targets, read_gold
from w2s.stages.writing import read_texts
from w2s.store.records import BadInput, Example, example_id, read_rows, write_arrays, write_rows


def first_questions(here: Path, inputs: Inputs, tools: Tools, *, on: str, split: str, count: int) -> Facts:
    """Write the first `count` questions of a split as ON.jsonl."""
    rows = read_rows(inputs["questions"] / f"{split}.jsonl", Example)[:count]
    return {"rows": write_rows(here / f"{on}.jsonl", rows)}


def sample_pairs(here: Path, inputs: Inputs, tools: Tools, *, on: str, count: int, seed: int) -> Facts:
    """Draw `count` pairs of a right and a wrong sample, one per question: targets.jsonl and labels.npz.

    A text that could not be judged or is empty is in no pair; a question without both kinds has none. Whether the
    right text comes first or second is random.
    """
    written, gold = read_texts(inputs["texts"], on), read_gold(inputs["gold"])
    examples = read_rows(inputs["questions"] / f"{on}.jsonl", Example)
    rows = [(row, gold[row.id], text) for row in examples for text in dict.fromkeys(written[row.id]["texts"])]
    verdicts = judge(rows, allow_unsandboxed=tools.runtime.allow_unsandboxed)
    texts: dict[str, dict[bool, list[str]]] = {row.id: {True: [], False: []} for row in examples}
    for (row, _, text), (correct, _, _) in zip(rows, verdicts, strict=True):
        if correct is not None and text.strip():
            texts[row.id][correct].append(text)
    both = [row for row in examples if texts[row.id][True] and texts[row.id][False]]
    if not both:
        raise BadInput(f"rewards.curve: no question of {on} has a right and a wrong sample; try more writing.samples")
    rng, pairs, answer = np.random.default_rng([seed, 8]), [], {}
    for at in rng.permutation(len(both))[:count].tolist():
        right, wrong = (str(rng.choice(texts[both[at].id][kind])) for kind in (True, False))
        first = int(rng.integers(2))
        choices = (wrong, right) if first else (right, wrong)
        pair = Example(example_id("pair", both[at].prompt, choices), "samples", "choice", both[at].prompt, choices)
        pairs.append(pair)
        answer[pair.id] = first
    write_rows(here / "targets.jsonl", pairs)
    write_arrays(here / "labels.npz", as_targets(pairs, answer))
    judged = sum(correct is not None for correct, _, _ in verdicts)
    return {"rows": len(pairs), "asked": count, "mixed": len(both), "unjudged": len(rows) - judged}


def distinct(here: Path, inputs: Inputs, tools: Tools, *, on: str) -> Facts:
    """Write each question's distinct texts as its choices (ON.jsonl), and each sample's index in them (place.npz).

    place_NS is -1 for an empty sample, which no reward model scores.
    """
    written = read_texts(inputs["texts"], on)
    examples, places = [], []
    for row in read_rows(find_set(inputs, on), Example):
        texts = list(dict.fromkeys(text for text in written[row.id]["texts"] if text.strip()))
        place = {text: at for at, text in enumerate(texts)}
        examples.append(dataclasses.replace(row, choices=tuple(texts)))
        places.append([place.get(text, -1) for text in written[row.id]["texts"]])
    write_rows(here / f"{on}.jsonl", examples)
    place_NS = np.array(places)
    np.savez(here / "place.npz", ids=np.array([row.id for row in examples]), place_NS=place_NS)
    return {"rows": len(examples), "samples": place_NS.size, "empty": int((place_NS < 0).sum())}


def graded(here: Path, inputs: Inputs, tools: Tools, *, on: str) -> Facts:
    """Write gold.npz: ids and gold_ND, 1 right, 0 wrong, nan where there is no text or it could not be judged."""
    gold, examples = read_gold(inputs["gold"]), read_rows(inputs[on] / f"{on}.jsonl", Example)
    rows = [(row, gold[row.id], text) for row in examples for text in row.choices]
    verdicts = iter(judge(rows, allow_unsandboxed=tools.runtime.allow_unsandboxed))
    gold_ND = np.full((len(examples), max(len(row.choices) for row in examples)), np.nan)
    for at, row in enumerate(examples):
        right = [next(verdicts)[0] for _ in row.choices]
        gold_ND[at, : len(right)] = [np.nan if correct is None else float(correct) for correct in right]
    np.savez(here / "gold.npz", ids=np.array([row.id for row in examples]), gold_ND=gold_ND)
    return {"rows": len(examples), "texts": len(rows), "unjudged": len(rows) - int(np.isfinite(gold_ND).sum())}


def graded_rollouts(here: Path, inputs: Inputs, tools: Tools, *, on: str) -> Facts:
    """Grade the texts that the parent `optimised` wrote in training: rollouts.npz, with the KL by step.

    step_T; gold_T: 1 right, 0 wrong or empty, nan not judged; reward_T: what the student learned from; kl_S: its
    divergence from its start, in nats per text, before each step.
    """
    folder, gold = inputs["optimised"] / "fit-0", read_gold(inputs["gold"])
    by_id = {row.id: row for row in read_rows(inputs["questions"] / f"{on}.jsonl", Example)}
    lines = [json.loads(line) for line in (folder / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()]
    different = list(dict.fromkeys((line["id"], line["text"]) for line in lines))
    rows = [(by_id[key], gold[key], text) for key, text in different]
    verdicts = judge(rows, allow_unsandboxed=tools.runtime.allow_unsandboxed)
    correct = {text: verdict for text, (verdict, _, _) in zip(different, verdicts, strict=True)}
    gold_T = [correct[line["id"], line["text"]] for line in lines]
    kl_S = json.loads((folder / "train.json").read_text())["kl"]
    np.savez(
        here / "rollouts.npz",
        step_T=np.array([line["step"] for line in lines]),
        gold_T=np.array([np.nan if right is None else float(right) for right in gold_T]),
        reward_T=np.array([line["reward"] for line in lines], dtype=float),
        kl_S=np.array(kl_S, dtype=float),
    )
    return {"rows": len(lines), "texts": len(rows), "unjudged": sum(right is None for right in gold_T)}
