"""Fine-tune a model on labels over candidates: a learner, or the student.

job.json: {"worker": "finetune", "learner": {"model", "train"}, "path": folder or hub name to start from, "seed",
"examples": examples.jsonl, "labels": labels.npz (PseudoLabels; weight 0 = dropped, rows may be fewer than examples),
"order": weights.npz or null (Weights of the boosting loop), "weighting": "resample" or "loss", "runtime": {...}}
-> model/ and train.json
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from w2s.config import Learner, Runtime, Train, build
from w2s.models import batches, load, losses, score, train
from w2s.models.engine import configuration
from w2s.records import BadInput, Example, PseudoLabels, Weights, align, read_arrays, take
from w2s.registry import pick
from w2s.workers.examples import read_examples


def run(folder: Path, job: dict[str, Any], world: train.World) -> dict[str, Any]:
    """Do the job in `folder`; what `done.json` says of it."""
    problems: list[str] = []
    learner = build(Learner, job["learner"], "learner", problems)
    runtime = build(Runtime, job.get("runtime") or {}, "runtime", problems)
    if problems:
        raise BadInput(problems[0])
    examples, labels, order_N = read_labels(folder, job)
    seed = int(job["seed"])
    if learner.model.kind == "sklearn":
        return fit_pipeline(folder, learner, examples, labels, order_N, seed, world)
    loaded = load_start(learner, job, runtime, world)
    if runtime.gradient_checkpointing:
        loaded.module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    fit_N, held_N = hold_out(len(examples), learner.train.holdout_share, seed)
    encoded = batches.encode(loaded, examples)
    length_N = np.array([one.tokens for one in encoded])
    steps, weight_N = plan(length_N, labels.weight_N, order_N, fit_N, job.get("weighting"), learner.train, seed)
    module, wide = score.Scorer(loaded), labels.target_NK.shape[1]

    def collate(index_B: np.ndarray) -> batches.Batch:
        return batches.collate(loaded, [encoded[at] for at in index_B], wide)

    seconds = train.timer()
    state, weights = train.fit(
        module,
        steps,
        make_objective(collate, labels.target_NK, learner.train),
        learner.train,
        runtime,
        folder=folder,
        weight_N=weight_N,
        look=make_look(collate, labels, held_N[np.argsort(length_N[held_N])], world, learner.train.batch)
        if len(held_N)
        else None,
        world=world,
        deepspeed=configuration(runtime, world),
        seed=seed,
    )
    tokens = int(sum(length_N[step].sum() for step in steps[: state.step]))
    summary = {"rows": len(fit_N), "held_out": len(held_N), "steps": state.step, "tokens": tokens}
    if world.rank == 0:
        export(loaded, module, weights, learner, job, runtime, folder)
        history = {**summary, **dataclasses.asdict(state), "seconds": seconds()}
        (folder / "train.json").write_text(json.dumps(history))
        train.clean(folder)
    return summary


def load_start(learner: Learner, job: dict[str, Any], runtime: Runtime, world: train.World) -> load.Loaded:
    """The model that the job starts from; always in float32, which the optimizer needs."""
    return load.load(
        learner.model,
        path=job.get("path"),
        seed=int(job["seed"]),
        device=world.device,
        precision="float32",
        max_tokens=learner.train.max_tokens,
        trust_remote_code=runtime.trust_remote_code,
    )


def read_labels(folder: Path, job: dict[str, Any]) -> tuple[list[Example], PseudoLabels, np.ndarray]:
    """The examples that have a label of weight above 0, in the labels' order, and their boosting weights (or ones)."""
    labels = read_arrays(folder / job["labels"], PseudoLabels)
    order_N = np.ones(len(labels.ids))
    if job.get("order"):
        order_N = align(read_arrays(folder / job["order"], Weights), labels.ids).weight_N
    kept = np.flatnonzero((labels.weight_N > 0) & (order_N > 0))
    if not len(kept):
        raise BadInput(f"{job['labels']}: no row is left to train on: every label was dropped")
    by_id = {example.id: example for example in read_examples(folder / job["examples"])}
    ids = labels.ids[kept].tolist()
    missing = [key for key in ids if key not in by_id]
    if missing:
        raise ValueError(f"{job['examples']}: {len(missing)} labelled ids are missing ({', '.join(missing[:3])})")
    return [by_id[key] for key in ids], take(labels, kept), order_N[kept]


def hold_out(rows: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions to fit on and, for early stopping, a random `share` of them to look at (none where too few)."""
    held = int(rows * share)
    index_N = np.random.default_rng([seed, 1]).permutation(rows)
    return np.sort(index_N[held:]), np.sort(index_N[:held])


def plan(length_N, label_weight_N, order_N, fit_N, weighting: str | None, settings: Train, seed: int):
    """The rows of each step, and each row's factor in the loss (mean 1 over the rows to fit on).

    "resample": rows are drawn in proportion to the boosting weights `order_N`, by systematic sampling over the whole
    fit (each row its expected number of times, rounded up or down); else the weights multiply the loss.
    """
    total = (settings.steps or math.ceil(settings.epochs * len(fit_N) / settings.batch)) * settings.batch
    factor_N = label_weight_N.astype(float).copy()
    if weighting == "resample":
        share_N = order_N[fit_N] / order_N[fit_N].sum()
        ticks = (np.arange(total) + np.random.default_rng([seed, 2]).random()) / total
        drawn = fit_N[np.minimum(np.searchsorted(np.cumsum(share_N), ticks), len(fit_N) - 1)]
        drawn = np.random.default_rng([seed, 3]).permutation(drawn)
    else:
        factor_N *= order_N
        drawn = fit_N
    factor_N /= factor_N[fit_N].mean()
    steps = batches.plan_batches(length_N[drawn], settings.batch, total // settings.batch, seed)
    return [drawn[step] for step in steps], factor_N


def make_objective(collate: Callable, target_NK: np.ndarray, settings: Train) -> train.Objective:
    loss = pick(losses.LOSSES, settings.loss, key="train.loss")

    def objective(call: Callable, index_B: np.ndarray, share: float) -> torch.Tensor:
        scores_BK = call(collate(index_B))
        return loss(scores_BK, torch.from_numpy(target_NK[index_B]).to(scores_BK), progress=share)

    return objective


def make_look(collate: Callable, labels: PseudoLabels, held_N: np.ndarray, world: train.World, batch: int) -> Callable:
    """Cross-entropy on the held-out rows, by their labels' weights; the rows are shared out over the processes."""
    mine = np.array_split(held_N, max(1, len(held_N) // batch))
    turns = math.ceil(len(mine) / world.size)

    def look(call: Callable) -> float:
        sums = torch.zeros(2, dtype=torch.float64)
        for turn in range(turns):
            at = turn * world.size + world.rank
            index_B = mine[min(at, len(mine) - 1)]  # every process makes the same calls
            scores_BK = call(collate(index_B))
            target_BK = torch.from_numpy(labels.target_NK[index_B]).to(scores_BK)
            loss_B = losses.cross_entropy(scores_BK, target_BK).cpu().double()
            weight_B = torch.from_numpy(labels.weight_N[index_B].astype(float)) * (at < len(mine))
            sums += torch.stack([(weight_B * loss_B).sum(), weight_B.sum()])
        sums = world.sum(sums)
        return float(sums[0] / sums[1])

    return look


def export(
    loaded, module: score.Scorer, weights: dict, learner: Learner, job: dict, runtime: Runtime, folder: Path
) -> None:
    """Write model/ from the trained parameters."""
    if any(hasattr(p, "ds_id") for p in module.parameters()):  # ZeRO 3 left only slices in the module
        loaded = load_start(learner, job, runtime, train.World())
        module = score.Scorer(loaded)
    train.set_weights(module, weights)
    load.save(loaded, folder / "model")


def fit_pipeline(folder: Path, learner: Learner, examples, labels, order_N, seed: int, world) -> dict[str, Any]:
    """A scikit-learn pipeline: the weights go to its `sample_weight`, drawn or multiplied being the same to it."""
    from w2s.models import pipelines

    if world.rank == 0:
        weight_N = labels.weight_N * order_N
        fitted = pipelines.fit(learner.model.pipeline, examples, labels.target_NK, weight_N / weight_N.mean(), seed)
        pipelines.save(fitted, folder / "model")
    return {"rows": len(examples), "held_out": 0, "steps": 0, "tokens": 0}


if __name__ == "__main__":
    from w2s.workers.serve import once

    once("finetune")
