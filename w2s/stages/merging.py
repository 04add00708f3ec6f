"""Stages that merge a committee's learners into one model, and look at the way from their base to it."""

import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from w2s.config.fields import Learner
from w2s.stages import Facts, Inputs, Tools
from w2s.stages.jobs import do_job
from w2s.stages.models import ask_model, base_folder, find_start, rank
from w2s.stages.rounds import HOLDOUT, find_answers
from w2s.stages.writing import find_writers
from w2s.store.files import write_json
from w2s.workers.job import Base, Merge

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
) -> Facts:
    """The committee's learners as one model, in fit-0/model. Facts: what the job found (weights, moved, cosines, ...).

    Parents: `committee` (who votes, with which alpha), `round-0`, ..., and the learners' `base` if the run has it.
    Models that speak for one round share its weight. weights, scale: see config.Merging.
    """
    job = describe_merge(inputs, tools, learner, method, weights, scale, seed)
    done = do_job(here / "fit-0", tools, job)
    kept = ("models", "sha256", "weights", "moved", "largest", "cosines", "cosine", "warning")
    return {key: done[key] for key in kept if key in done}


def describe_merge(
    inputs: Inputs,
    tools: Tools,
    learner: Learner,
    method: dict,
    weights: str | Sequence[float],
    scale: float,
    seed: int,
) -> Merge:
    """The job of `merged`."""
    alphas = {"boosting": None, "uniform": itertools.repeat(1.0)}[weights] if isinstance(weights, str) else weights
    models, weight_R = find_writers(inputs, alphas=alphas)
    base = base_folder(inputs, tools, learner)
    return Merge(models, weight_R, method, base if Path(base).is_dir() else None, scale, seed)


def barrier(here: Path, inputs: Inputs, tools: Tools, *, learner: Learner, scale: float, **merge: Any) -> Facts:
    """The mean loss of the right answers of easy_holdout at some points between the base and the merged model.

    A loss that rises on the way says that the learners do not lie in one basin (arXiv 1912.05671). Parents and options:
    those of `merged`, with the questions and `gold` of the easy ones, or `holdout` (the right answers as targets) for
    written answers. Writes barrier.json: at (shares of the way), loss (nats per question).
    """
    losses = []
    for share in WAY:
        folder, model = here / f"at-{share:g}", find_start(inputs, tools, learner)
        if share:
            do_job(folder / "merge", tools, describe_merge(inputs, tools, learner, scale=scale * share, **merge))
            model = folder / "merge" / "model"
        losses.append(find_loss(folder / "ask", inputs, tools, model))
        shutil.rmtree(folder / "merge" / "model", ignore_errors=True)
    write_json(here / "barrier.json", {"at": WAY, "loss": losses})
    return {"rows": len(WAY)}


def find_loss(folder: Path, inputs: Inputs, tools: Tools, model: Path | Base) -> float:
    """The mean over easy_holdout of -ln p(right answer), of which a written one has many tokens."""
    if "holdout" in inputs:
        path, base = (None, model) if isinstance(model, Base) else (model, None)
        (ranks,) = rank(folder, tools, [[path]], [1.0], inputs["holdout"] / "targets.jsonl", base=base)
        return float(-ranks.logp_T.sum(dtype=float) / len(ranks.ids))
    sets = {HOLDOUT: inputs["questions"] / f"{HOLDOUT}.jsonl"}
    opinion = ask_model(folder, tools, model, sets, "merged")[HOLDOUT]
    right_N = opinion.probs_NK[np.arange(len(opinion.ids)), find_answers(opinion, inputs["gold"])]
    return float(-np.log(np.maximum(right_N, LEAST)).mean())
