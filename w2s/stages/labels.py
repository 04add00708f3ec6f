"""The stage that turns written answers into labels: the texts to train on, filtered."""

import dataclasses
from pathlib import Path

import numpy as np

from w2s.boosting.tokens import gathered
from w2s.config.registry import pick
from w2s.ensemble.combiners import votes
from w2s.ensemble.selection import KEPT, SELECTORS
from w2s.grading.behaviour import pass_all
from w2s.grading.candidates import merge_all
from w2s.stages import Facts, Inputs, Tools
from w2s.stages.committee import Selection, find_temperature, label_opinion
from w2s.stages.questions import read_in_order
from w2s.stages.writing import members_texts, read_texts
from w2s.store.records import (
    Example,
    Predictions,
    PseudoLabels,
    TokenTargets,
    candidate_mask,
    read_arrays,
    read_rows,
    take,
    write_arrays,
    write_rows,
)

TRANSFER = "transfer"
EMPTY, ENDLESS = "nothing was written", "its text did not end"
UNCUT = "its text is not cut into the same tokens again"


def written_labels(
    here: Path,
    inputs: Inputs,
    tools: Tools,
    *,
    select: dict,
    check_examples: bool,
    seed: int,
    shuffled: bool = False,
    soft: bool = True,
    temperature: float | None = 1.0,
    accept: dict | None = None,
) -> Facts:
    """Labels of the transfer pool's questions without choices: labels.npz over the texts in targets.jsonl.

    With a parent `opinion` the labels are its distribution over the sampled candidates. Otherwise each question has one
    text, from the parent `texts`; its confidence is its probability. With `label.made: distribution`, soft.npz holds
    the committee's next tokens. `shuffled` assigns texts and targets to other questions at random. `accept`: keep only
    labels whose rewards reach a bound (rewards.tilt.accept).
    """
    fitted: Facts = {}
    if "opinion" in inputs:
        temperature, fitted = find_temperature(inputs, tools, soft, temperature)
        opinion = read_arrays(inputs["opinion"] / f"{TRANSFER}.npz", Predictions)
        examples = read_in_order(inputs["candidates"] / f"{TRANSFER}.jsonl", opinion.ids)
        written_N = np.array([any(text.strip() for text in row.choices) for row in examples])
        sources_N, selection = np.array([row.source for row in examples]), Selection(select, accept, soft, temperature)
        labels = label_opinion(inputs["opinion"], opinion, sources_N, written_N, EMPTY, selection)
        soft_targets = None
    else:
        examples, labels, soft_targets = label_texts(inputs, tools, select)
    if check_examples:
        labels = drop_failing(examples, labels, tools)
    if shuffled:
        order_N = np.random.default_rng([seed, 7]).permutation(len(examples))
        dealt = [examples[at].choices for at in order_N.tolist()]
        examples = [dataclasses.replace(row, choices=texts) for row, texts in zip(examples, dealt, strict=True)]
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
    return {"rows": len(examples), "kept": int((labels.weight_N > 0).sum()), **size, **fitted}


def label_texts(inputs: Inputs, tools: Tools, select: dict) -> tuple[list[Example], PseudoLabels, TokenTargets | None]:
    """The text that a model or a committee wrote for each question; one that did not end is no label."""
    written = read_texts(inputs["texts"], TRANSFER)
    examples = [
        dataclasses.replace(row, choices=(written[row.id]["texts"][0],))
        for row in read_rows(inputs["questions"] / f"{TRANSFER}.jsonl", Example)
    ]
    ids = np.array([row.id for row in examples])
    # The second place stands for all other texts; no label is there, so a selector considers only the first.
    probs_NK = np.zeros((len(ids), 2))
    probs_NK[:, 0] = np.exp([written[key]["logps"][0] for key in ids.tolist()])
    sources_N = np.array([row.source for row in examples])
    mask_NK = np.ones_like(probs_NK, dtype=bool)
    if any(role.startswith("texts-") for role in inputs):
        votes_RNK = agreement(examples, inputs, tools)
    else:
        votes_RNK = votes(probs_NK, mask_NK)[None]
    keep_N, why_N = pick(SELECTORS, select)(ids, probs_NK, mask_NK, votes_RNK, sources_N)
    for reason, fits_N in (
        (ENDLESS, [written[key]["ended"][0] for key in ids.tolist()]),
        (EMPTY, [bool(row.choices[0].strip()) for row in examples]),
    ):
        keep_N, why_N = keep_N & fits_N, np.where(fits_N, why_N, reason)
    soft_targets = None
    if (inputs["texts"] / "soft.npz").exists():
        soft_targets = gathered([read_arrays(inputs["texts"] / "soft.npz", TokenTargets)], ids)
        cut_N = soft_targets.length_N > 0
        keep_N, why_N = keep_N & cut_N, np.where(cut_N | ~keep_N, why_N, UNCUT)
    target_NK = candidate_mask(np.ones(len(ids), dtype=int)).astype(float)
    return examples, PseudoLabels(ids, target_NK, keep_N.astype(float), why_N), soft_targets


def agreement(examples: list[Example], inputs: Inputs, tools: Tools) -> np.ndarray:
    """votes_RNK of the learners, each by its own text: 0 = it equals the label, 1 = it differs."""
    members = members_texts(inputs, TRANSFER)
    rows = [(row, [row.choices[0], *(texts[row.id]["texts"][0] for texts in members)]) for row in examples]
    place_NM = np.array([merged.index for merged in merge_all(rows, allow_unsandboxed=tools.runtime.allow_unsandboxed)])
    same_RN = ((place_NM[:, 1:] == place_NM[:, :1]) & (place_NM[:, :1] >= 0)).T
    return np.stack([same_RN, ~same_RN], axis=2).astype(float)


def drop_failing(examples: list[Example], labels: PseudoLabels, tools: Tools) -> PseudoLabels:
    """The labels without those whose program fails an example in its question."""
    rows = [(row, row.choices[at]) for row, at in zip(examples, labels.target_NK.argmax(1).tolist(), strict=True)]
    passed = pass_all(rows, allow_unsandboxed=tools.runtime.allow_unsandboxed)
    failed_N = np.array([verdict is False for verdict in passed])
    why_N = np.where(failed_N & (labels.why_N == KEPT), "it fails an example in the question", labels.why_N)
    return dataclasses.replace(labels, weight_N=np.where(failed_N, 0.0, labels.weight_N), why_N=why_N)
