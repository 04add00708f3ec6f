"""Stages of the probe for over-optimisation: pairs of a policy's samples, the samples as candidates, and their gold.

Letters: N questions, S samples of each, D different texts among them.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from w2s.grading.judge import judge
from w2s.stages import Facts, Inputs, Tools
from w2s.stages.questions import as_targets
from w2s.stages.writing import read_texts
from w2s.store.records import BadInput, Example, Gold, example_id, read_rows, write_arrays, write_rows


def first_questions(here: Path, inputs: Inputs, tools: Tools, *, on: str, split: str, count: int) -> Facts:
    """The first `count` questions of a split, as ON.jsonl."""
    return {
        "rows": write_rows(here / f"{on}.jsonl", read_rows(inputs["questions"] / f"{split}.jsonl", Example)[:count])
    }


def sample_pairs(here: Path, inputs: Inputs, tools: Tools, *, on: str, count: int, seed: int) -> Facts:
    """`count` pairs of a right and a wrong sample, one a question, drawn at random: targets.jsonl and labels.npz.

    A text that could not be judged, or is empty, is in no pair; questions without both kinds have none. The right text
    stands first or second by chance.
    """
    said, gold = read_texts(inputs["texts"], on), read_gold(inputs["gold"])
    examples = read_rows(inputs["questions"] / f"{on}.jsonl", Example)
    rows = [(one, gold[one.id], text) for one in examples for text in dict.fromkeys(said[one.id]["texts"])]
    verdicts = judge(rows, allow_unsandboxed=tools.runtime.allow_unsandboxed)
    texts: dict[str, dict[bool, list[str]]] = {one.id: {True: [], False: []} for one in examples}
    for (one, _, text), (correct, _, _) in zip(rows, verdicts, strict=True):
        if correct is not None and text.strip():
            texts[one.id][correct].append(text)
    both = [one for one in examples if texts[one.id][True] and texts[one.id][False]]
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
    """Each question's different texts as its choices (ON.jsonl), and where each sample is among them (place.npz).

    place_NS is -1 where a sample is empty: no reward model is asked about it.
    """
    said = read_texts(inputs["texts"], on)
    examples, place_NS = [], []
    for one in read_rows(inputs[on if on in inputs else "questions"] / f"{on}.jsonl", Example):
        texts = list(dict.fromkeys(text for text in said[one.id]["texts"] if text.strip()))
        at = {text: place for place, text in enumerate(texts)}
        examples.append(dataclasses.replace(one, choices=tuple(texts)))
        place_NS.append([at.get(text, -1) for text in said[one.id]["texts"]])
    write_rows(here / f"{on}.jsonl", examples)
    place_NS = np.array(place_NS)
    np.savez(here / "place.npz", ids=np.array([one.id for one in examples]), place_NS=place_NS)
    return {"rows": len(examples), "samples": place_NS.size, "empty": int((place_NS < 0).sum())}


def graded(here: Path, inputs: Inputs, tools: Tools, *, on: str) -> Facts:
    """gold.npz: ids and gold_ND, 1 where a text is right, 0 where not, nan where it could not be judged or none is."""
    gold, examples = read_gold(inputs["gold"]), read_rows(inputs[on] / f"{on}.jsonl", Example)
    rows = [(one, gold[one.id], text) for one in examples for text in one.choices]
    verdicts = iter(judge(rows, allow_unsandboxed=tools.runtime.allow_unsandboxed))
    gold_ND = np.full((len(examples), max(len(one.choices) for one in examples)), np.nan)
    for at, one in enumerate(examples):
        found = [next(verdicts)[0] for _ in one.choices]
        gold_ND[at, : len(found)] = [np.nan if correct is None else float(correct) for correct in found]
    np.savez(here / "gold.npz", ids=np.array([one.id for one in examples]), gold_ND=gold_ND)
    return {"rows": len(examples), "texts": len(rows), "unjudged": len(rows) - int(np.isfinite(gold_ND).sum())}


def graded_rollouts(here: Path, inputs: Inputs, tools: Tools, *, on: str) -> Facts:
    """What the parent `optimised` wrote while it learned, graded: rollouts.npz (a row per text), and the KL by step.

    step_T; gold_T: 1 right, 0 wrong or empty, nan could not be judged; reward_T: what was learned from; kl_S: of the
    student from its start, nats per text, before each step.
    """
    folder, gold = inputs["optimised"] / "fit-0", read_gold(inputs["gold"])
    by_id = {row.id: row for row in read_rows(inputs["questions"] / f"{on}.jsonl", Example)}
    lines = [json.loads(line) for line in (folder / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()]
    different = list(dict.fromkeys((line["id"], line["text"]) for line in lines))
    rows = [(by_id[key], gold[key], text) for key, text in different]
    verdicts = judge(rows, allow_unsandboxed=tools.runtime.allow_unsandboxed)
    correct = {one: found for one, (found, _, _) in zip(different, verdicts, strict=True)}
    gold_T = [correct[line["id"], line["text"]] for line in lines]
    kl_S = json.loads((folder / "train.json").read_text())["kl"]
    np.savez(
        here / "rollouts.npz",
        step_T=np.array([line["step"] for line in lines]),
        gold_T=np.array([np.nan if one is None else float(one) for one in gold_T]),
        reward_T=np.array([line["reward"] for line in lines], dtype=float),
        kl_S=np.array(kl_S, dtype=float),
    )
    return {"rows": len(lines), "texts": len(rows), "unjudged": sum(one is None for one in gold_T)}


def read_gold(folder: Path) -> dict[str, Gold]:
    return {row.id: row for row in read_rows(folder / "gold.jsonl", Gold)}
