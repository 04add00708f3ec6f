"""Stages of a student's objective: pairs that committee and rewards agree on, and training that goes on from labels."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from w2s.config.fields import Learner
from w2s.config.registry import pick
from w2s.rewards.aggregators import AGGREGATORS, standardise
from w2s.rewards.agreement import AGREED
from w2s.rewards.agreement import find_agreed_pairs as agree
from w2s.stages import Facts, Inputs, Tools
from w2s.stages.models import runtime_of
from w2s.store.artifacts import write_job
from w2s.store.records import (
    BadInput,
    Example,
    Predictions,
    PseudoLabels,
    Rewards,
    read_arrays,
    read_rows,
    write_arrays,
    write_rows,
)
from w2s.store.records import align as join

POOL = "transfer"
ALIKE = "the texts of both are the same"
ABSTAINED = "the committee abstained"


def agreed_pairs(here: Path, inputs: Inputs, tools: Tools, *, aggregate: dict, standardised: str) -> Facts:
    """Pairs of the transfer pool on which the parents `opinion` and `scores` agree: targets.jsonl and labels.npz.

    Chosen first, rejected second. The candidates stand in the parent `candidates`, else in `questions`. The facts count
    the questions without a pair by reason.
    """
    opinion = read_arrays(inputs["opinion"] / f"{POOL}.npz", Predictions)
    found = join(read_arrays(inputs["scores"] / f"{POOL}.npz", Rewards), opinion.ids)
    scores_MNK = found.scores_MNK
    if standardised != "none":
        scores_MNK = standardise(scores_MNK, opinion.mask_NK, by=standardised)
    rewards_NK = pick(AGGREGATORS, aggregate, key="rewards.aggregate")(scores_MNK, opinion.mask_NK)
    chosen_N, rejected_N, why_N = agree(opinion.probs_NK, opinion.mask_NK, rewards_NK)
    where = inputs.get("candidates", inputs.get("questions"))
    by_id = {row.id: row for row in read_rows(where / f"{POOL}.jsonl", Example)}
    pairs, reasons = [], np.where(opinion.abstained_N, ABSTAINED, why_N)
    for at in np.flatnonzero(reasons == AGREED).tolist():
        row = by_id[opinion.ids[at]]
        texts = (row.choices[chosen_N[at]], row.choices[rejected_N[at]])
        if texts[0].strip() == texts[1].strip():
            reasons[at] = ALIKE
        else:
            pairs.append(dataclasses.replace(row, choices=texts))
    if not pairs:
        raise BadInput(f"student.objective: no question of {POOL} is left for dpo: {most(reasons)}")
    write_rows(here / "targets.jsonl", pairs)
    ids, ones = np.array([row.id for row in pairs]), np.ones(len(pairs))
    target_N2 = np.tile([1.0, 0.0], (len(pairs), 1))
    write_arrays(here / "labels.npz", PseudoLabels(ids, target_N2, ones, np.full(len(pairs), AGREED)))
    return {
        "rows": len(pairs),
        "dropped": {words: int((reasons == words).sum()) for words in sorted(set(reasons) - {AGREED})},
    }


def most(reasons: np.ndarray) -> str:
    words, count = np.unique(reasons, return_counts=True)
    return f"{words[count.argmax()]} ({count.max()} of {count.sum()})"


def optimise(
    here: Path, inputs: Inputs, tools: Tools, *, objective: dict, learner: Learner, seed: int,
    aggregate: dict | None = None, standardised: bool = True, writing: dict | None = None,
) -> Facts:  # fmt: skip
    """The parent `model`, trained on: with `pairs`, or to write what the parents judge-00, judge-01, ... reward.

    The latter needs the parents `questions` and `scores`: unless `standardised` is false, a member's rewards have mean
    0 and variance 1 over the candidates of the transfer pool.
    """
    folder = here / "fit-0"
    if not (folder / "done.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        job: dict[str, Any] = {
            "worker": "objective",
            "objective": objective,
            "learner": asdict(learner),
            "path": str(inputs["model"] / "fit-0" / "model"),
            "seed": seed,
            "runtime": runtime_of(tools.runtime, is_student=True),
        }
        if "pairs" in inputs:
            job["pairs"] = {
                "examples": str(inputs["pairs"] / "targets.jsonl"),
                "labels": str(inputs["pairs"] / "labels.npz"),
            }
        else:
            centre_M, scale_M = units(inputs, standardised)
            job["examples"] = str(inputs["questions"] / f"{POOL}.jsonl")
            job["writing"] = writing
            job["rewards"] = {
                "models": [
                    str(path / "fit-0" / "model") for role, path in sorted(inputs.items()) if role.startswith("judge-")
                ],
                "aggregate": aggregate,
                "centre_M": centre_M,
                "scale_M": scale_M,
            }
        write_job(folder, job)
        tools.run_job(folder)
    done = json.loads((folder / "done.json").read_text())
    return {key: value for key, value in done.items() if key not in ("worker", "seconds")}


def units(inputs: Inputs, standardised: bool) -> tuple[Sequence[float] | None, Sequence[float] | None]:
    """Each member's mean and deviation over the candidates of the transfer pool; a constant member's unit is 1."""
    if not standardised:
        return None, None
    scores_MNK = read_arrays(inputs["scores"] / f"{POOL}.npz", Rewards).scores_MNK
    flat_MP = [one_NK[~np.isnan(one_NK)] for one_NK in scores_MNK]
    if not all(len(one_P) for one_P in flat_MP):
        raise BadInput("rewards: a reward model has judged no candidate of the transfer pool")
    return [float(one_P.mean()) for one_P in flat_MP], [float(one_P.std()) or 1.0 for one_P in flat_MP]
