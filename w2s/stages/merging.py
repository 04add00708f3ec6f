"""Stages that merge a committee's learners into one model, and look at the way from their base to it."""

import dataclasses
import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from w2s.config.fields import Learner
from w2s.stages import Facts, Inputs, Tools
from w2s.stages.jobs import do_job
from w2s.stages.models import LABELS, ask_model, base_folder, find_start, rank
from w2s.stages.rounds import HOLDOUT
from w2s.stages.writing import find_writers
from w2s.store.files import write_json
from w2s.store.records import PseudoLabels, align, read_arrays
from w2s.workers.job import Base, Merge, Search

WAY = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the way from the base to the merged model at which `barrier` looks."""
LEAST = 1e-12
"""No probability counts as less in a loss."""


def merged(
    here: Path,
    inputs: Inputs,
    tools: Tools,
    *,
    learner: Learner,
    method: dict,
    weights: str | Sequence[float],
    scale: float,
    seed: int,
    evaluations: int | None = None,
) -> Facts:
    """The committee's learners as one model, in fit-0/model. Facts: what the job found (weights, moved, cosines, ...).

    Parents: `committee` (who votes, with which alpha), `round-0`, ..., the learners' `base`, and for searched weights
    `questions` and `holdout` (the gold of easy_holdout as targets). Models that speak for one round share its weight.
    weights, scale: see config.Merging; evaluations: of a search. Writes merge.json: weights, scale.
    """
    alphas = weights if not isinstance(weights, str) else itertools.repeat(1.0) if weights == "uniform" else None
    models, weight_R = find_writers(inputs, alphas=alphas)
    facts = {}
    if weights == "searched":
        start = Search(models, weight_R, base_folder(inputs, tools, learner), "", "", evaluations, scale=scale)
        facts = search(here / "search", inputs, tools, dataclasses.replace(start, seed=seed, runtime=tools.runtime))
        weight_R = facts["coefficients"]
        scale = sum(weight_R)
    write_json(here / "merge.json", {"weights": weight_R, "scale": scale})
    done = do_job(here / "fit-0", tools, describe_merge(here, inputs, tools, learner, method, seed))
    kept = ("models", "sha256", "weights", "moved", "largest", "cosines", "cosine", "warning")
    return facts | {key: done[key] for key in kept if key in done}


def describe_merge(
    merged: Path, inputs: Inputs, tools: Tools, learner: Learner, method: dict, seed: int, share: float = 1.0
) -> Merge:
    """The merge with the weights that `merged` wrote, or a share of the way to it."""
    found = json.loads((merged / "merge.json").read_text(encoding="utf-8"))
    base, (models, _) = base_folder(inputs, tools, learner), find_writers(inputs)
    return Merge(models, found["weights"], method, base, found["scale"] * share, seed)


def search(folder: Path, inputs: Inputs, tools: Tools, job: Search) -> Facts:
    """What a search on one half of easy_holdout found, and what that brings on the other half."""
    job = dataclasses.replace(job, examples=str(find_examples(inputs)), labels=str(inputs["holdout"] / LABELS))
    done = do_job(folder, tools, job)
    return {
        "coefficients": done["coefficients"]["all"],
        **{key: done[key] for key in ("on_searched", "on_certified", "gain")},
    }


def barrier(here: Path, inputs: Inputs, tools: Tools, *, learner: Learner, method: dict, seed: int) -> Facts:
    """The mean loss of the right answers of easy_holdout at some points between the base and the merged model.

    A loss that rises on the way says that the learners do not lie in one basin (arXiv 1912.05671). Parents: `merged`
    and all its parents. Writes barrier.json: at (shares of the way), loss (nats per question).
    """
    losses = []
    for share in WAY:
        folder, model = here / f"at-{share:g}", find_start(inputs, tools, learner)
        if share:
            job = describe_merge(inputs["merged"], inputs, tools, learner, method, seed, share)
            do_job(folder / "merge", tools, job)
            model = folder / "merge" / "model"
        losses.append(find_loss(folder / "ask", inputs, tools, model))
        shutil.rmtree(folder / "merge" / "model", ignore_errors=True)
    write_json(here / "barrier.json", {"at": WAY, "loss": losses})
    return {"rows": len(WAY)}


def find_examples(inputs: Inputs) -> Path:
    """The file of easy_holdout: its questions with their choices, or with the right answer as the only candidate."""
    written = inputs["holdout"] / "targets.jsonl"
    return written if written.exists() else inputs["questions"] / f"{HOLDOUT}.jsonl"


def find_loss(folder: Path, inputs: Inputs, tools: Tools, model: Path | Base) -> float:
    """The mean over easy_holdout of -ln p(right answer), of which a written one has many tokens."""
    examples = find_examples(inputs)
    if examples.parent == inputs["holdout"]:
        path, base = (None, model) if isinstance(model, Base) else (model, None)
        (ranks,) = rank(folder, tools, [[path]], [1.0], examples, base=base)
        return float(-ranks.logp_T.sum(dtype=float) / len(ranks.ids))
    opinion = ask_model(folder, tools, model, {HOLDOUT: examples}, "merged")[HOLDOUT]
    labels = align(read_arrays(inputs["holdout"] / LABELS, PseudoLabels), opinion.ids)
    right_N = opinion.probs_NK[np.arange(len(opinion.ids)), labels.target_NK.argmax(1)]
    return float(-np.log(np.maximum(right_N, LEAST)).mean())
