"""The stage that makes labels of written answers: what was written, filtered, as texts to train on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from w2s.boosting.tokens import gathered
from w2s.config.registry import pick
from w2s.ensemble.combiners import votes
from w2s.ensemble.selection import KEPT, SELECTORS, make_labels
from w2s.grading.behaviour import pass_all
from w2s.grading.candidates import merge_all
from w2s.stages import Facts, Inputs, Tools
from w2s.stages.committee import accepted_of
from w2s.stages.writing import members_texts, read_texts
from w2s.store.records import (
    Example,
    Predictions,
    PseudoLabels,
    TokenTargets,
    candidate_mask,
    load_arrays,
    read_arrays,
    read_rows,
    take,
    write_arrays,
    write_rows,
)

POOL = "transfer"
EMPTY, ENDLESS = "nothing was written", "its text did not end"
UNCUT = "its text is not cut into the same tokens again"


def written_labels(
    here: Path, inputs: Inputs, tools: Tools, *, select: dict, check_examples: bool, seed: int, shuffled: bool = False,
    soft: bool = True, temperature: float = 1.0, accept: dict | None = None,
) -> Facts:  # fmt: skip
    """Labels of the transfer pool's questions without choices: labels.npz over the texts in targets.jsonl.

    With a parent `opinion` the labels are its distribution over the sampled candidates; else each question has the one
    text that its parent `texts` wrote, whose confidence is the text's probability, and (`label.made: distribution`) the
    committee's next tokens in soft.npz. `shuffled` deals texts and targets to other questions at random. `accept`: only
    labels whose rewards reach a bound (rewards.tilt.accepted).
    """
    if "opinion" in inputs:
        examples, labels = of_candidates(inputs, select, soft, temperature, accept)
        soft_targets = None
    else:
        examples, labels, soft_targets = of_texts(inputs, tools, select)
    if check_examples:
        labels = passing(examples, labels, tools)
    if shuffled:
        order_N = np.random.default_rng([seed, 7]).permutation(len(examples))
        dealt = [examples[at].choices for at in order_N.tolist()]
        examples = [dataclasses.replace(one, choices=choices) for one, choices in zip(examples, dealt, strict=True)]
        labels = dataclasses.replace(take(labels, order_N), ids=labels.ids)
        if soft_targets is not None:
            ids = soft_targets.ids
            soft_targets = dataclasses.replace(gathered([soft_targets], ids[order_N]), ids=ids)
    write_rows(here / "targets.jsonl", examples)
    write_arrays(here / "labels.npz", labels)
    size = {}
    if soft_targets is not None:
        write_arrays(here / "soft.npz", soft_targets)
        size = {"soft_bytes": (here / "soft.npz").stat().st_size}
    return {"rows": len(examples), "kept": int((labels.weight_N > 0).sum()), **size}


def of_candidates(
    inputs: Inputs, select: dict, soft: bool, temperature: float, accept: dict | None
) -> tuple[list[Example], PseudoLabels]:
    """The committee's distribution over the answers that its learners sampled."""
    found = read_arrays(inputs["opinion"] / f"{POOL}.npz", Predictions)
    by_id = {row.id: row for row in read_rows(inputs["candidates"] / f"{POOL}.jsonl", Example)}
    examples = [by_id[key] for key in found.ids.tolist()]
    votes_RNK = load_arrays(inputs["opinion"] / f"{POOL}_votes.npz")["votes_RNK"]
    sources_N = np.array([row.source for row in examples])
    keep_N, why_N = pick(SELECTORS, select)(found.ids, found.probs_NK, found.mask_NK, votes_RNK, sources_N)
    keep_N, why_N = accepted_of(keep_N, why_N, found, inputs, accept)
    written_N = np.array([any(text.strip() for text in row.choices) for row in examples])
    why_N = np.where(written_N, why_N, EMPTY)
    how = {"soft": soft, "temperature": temperature}
    return examples, make_labels(found.ids, found.probs_NK, found.mask_NK, keep_N & written_N, why_N, **how)


def of_texts(
    inputs: Inputs, tools: Tools, select: dict
) -> tuple[list[Example], PseudoLabels, TokenTargets | None]:  # fmt: skip
    """The one text that a model or a committee wrote for each question; one that did not end is no label."""
    said = read_texts(inputs["texts"], POOL)
    examples = [
        dataclasses.replace(row, choices=(said[row.id]["texts"][0],))
        for row in read_rows(inputs["questions"] / f"{POOL}.jsonl", Example)
    ]
    ids = np.array([row.id for row in examples])
    # The second place stands for all other texts. Nobody's label is there, so that a selector sees the first alone.
    probs_NK = np.zeros((len(ids), 2))
    probs_NK[:, 0] = np.exp([said[key]["logps"][0] for key in ids.tolist()])
    sources_N = np.array([row.source for row in examples])
    asked = votes(probs_NK, np.ones_like(probs_NK, dtype=bool))[None]
    if any(role.startswith("texts-") for role in inputs):
        asked = agreement(examples, inputs, tools)
    mask_NK = np.ones_like(probs_NK, dtype=bool)
    keep_N, why_N = pick(SELECTORS, select)(ids, probs_NK, mask_NK, asked, sources_N)
    for words, right in (
        (ENDLESS, [said[key]["ended"][0] for key in ids.tolist()]),
        (EMPTY, [bool(row.choices[0].strip()) for row in examples]),
    ):
        keep_N, why_N = keep_N & right, np.where(right, why_N, words)
    soft_targets = None
    if (inputs["texts"] / "soft.npz").exists():
        soft_targets = gathered([read_arrays(inputs["texts"] / "soft.npz", TokenTargets)], ids)
        cut_N = soft_targets.length_N > 0
        keep_N, why_N = keep_N & cut_N, np.where(cut_N | ~keep_N, why_N, UNCUT)
    target_NK = candidate_mask(np.ones(len(ids), dtype=int)).astype(float)
    return examples, PseudoLabels(ids, target_NK, keep_N.astype(float), why_N), soft_targets


def agreement(examples: list[Example], inputs: Inputs, tools: Tools) -> np.ndarray:
    """votes_RNK of the learners, each by its own text: 0 = it says the same as the label, 1 = something else."""
    members = members_texts(inputs, POOL)
    rows = [(row, [row.choices[0], *(one[row.id]["texts"][0] for one in members)]) for row in examples]
    place_NM = np.array([one.index for one in merge_all(rows, allow_unsandboxed=tools.runtime.allow_unsandboxed)])
    same_RN = ((place_NM[:, 1:] == place_NM[:, :1]) & (place_NM[:, :1] >= 0)).T
    return np.stack([same_RN, ~same_RN], axis=2).astype(float)


def passing(examples: list[Example], labels: PseudoLabels, tools: Tools) -> PseudoLabels:
    """The labels without those whose program fails an example that stands in its question."""
    best = [row.choices[at] for row, at in zip(examples, labels.target_NK.argmax(1).tolist(), strict=True)]
    rows = [(row, text) for row, text in zip(examples, best, strict=True)]
    passed = pass_all(rows, allow_unsandboxed=tools.runtime.allow_unsandboxed)
    failed_N = np.array([one is False for one in passed])
    why_N = np.where(failed_N & (labels.why_N == KEPT), "it fails an example in the question", labels.why_N)
    return dataclasses.replace(labels, weight_N=np.where(failed_N, 0.0, labels.weight_N), why_N=why_N)
