"""Train an ensemble of reward models whose members share a trunk: the worker of job.Reward."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from w2s.models import below, losses, train
from w2s.models.engine import configuration, is_sliced
from w2s.models.internals import checkpoint_activations
from w2s.models.members import Ensemble, Members, diversity, encode, join, loss_of, save
from w2s.models.world import World
from w2s.store.records import BadInput, Example, PseudoLabels, take
from w2s.workers.examples import count_cuts
from w2s.workers.finetune import Rows, hold_out, keep_below, load_start, make_look, plan, read_labels
from w2s.workers.job import Reward


def run(folder: Path, job: Reward, world: World) -> dict[str, Any]:
    """Do the job in `folder`; returns the summary for done.json.

    Each member minimises the loss of its own rewards, with its own weights of the rows.
    """
    job, settings = check_job(job, configuration(job.runtime, world) or {}), job.learner.train
    examples, labels, order_N, equal = read_differing(folder, job)
    members = start(job, world)
    fit_N, held_N = hold_out(len(examples), settings.holdout_share, job.seed)
    rows = Rows(members.loaded, encode(members.loaded, examples), labels)
    cut = count_cuts(members.loaded, {Path(job.examples).stem: examples}, job.learner.model.path, world)
    steps, weight_N = plan(rows.length_N, labels.weight_N, order_N, fit_N, "loss", settings, job.seed)
    weight_MN = weight_N * draws(job.members, fit_N, len(examples), job.seed, job.bootstrap)
    seconds = train.timer()
    rows = keep_below(members, rows, (steps, held_N), job, world, folder)
    loss, held_loss = (losses.pick_loss(spec, "choice") for spec in (settings.loss, "cross_entropy"))
    look = make_look(rows, held_N, lambda *scored: loss_of(held_loss, *scored).mean(0), 1.0, world, settings.batch)
    trained = rows.below.upper if rows.below else members
    objective = make_objective(members, rows, weight_MN, loss, job.diversity)
    state, weights = train.fit(
        trained, steps, objective, settings, job.runtime, folder, world, look=look, seed=job.seed
    )
    read = rows.count_tokens(steps[: state.step])
    summary = {"rows": len(fit_N), "equal": equal, "held_out": len(held_N), "steps": state.step, "tokens": read, **cut}
    below.drop(folder, world)
    if world.rank == 0:
        if is_sliced(members):  # ZeRO 3 left only slices in the module
            members = start(job, World())
        train.set_weights(members, weights)
        save(members, folder / "model")
        facts = {"diversity": float(diversity(members).detach())} if job.kind == "adapters" else {}
        train.write_history(folder, summary | facts, state, seconds())
    return summary


def check_job(job: Reward, deepspeed: dict[str, Any]) -> Reward:
    """The job with `trainable` made explicit; BadInput if its ensemble is impossible."""
    if job.diversity < 0 or (job.diversity and job.kind == "heads"):
        allowed = "0, or more with kind 'adapters' (heads have no adapters)"
        raise BadInput(f"diversity: {job.diversity} given; allowed: {allowed}")
    if job.diversity and deepspeed.get("zero_optimization", {}).get("stage") == 3:  # a process has slices of adapters
        raise BadInput(f"diversity: {job.diversity} given under ZeRO 3; allowed: 0, or ZeRO 0 to 2")
    if job.kind != "adapters":
        return job
    # Only the adapters are trained.
    model = dataclasses.replace(job.learner.model, trainable="all")
    return dataclasses.replace(job, learner=dataclasses.replace(job.learner, model=model))


def read_differing(folder: Path, job: Reward) -> tuple[list[Example], PseudoLabels, np.ndarray, int]:
    """The labelled rows whose candidates differ (equal ones teach nothing), and how many were left out."""
    examples, labels, order_N = read_labels(folder, job)
    differ = np.flatnonzero([len({text.strip() for text in example.choices}) > 1 for example in examples])
    if not len(differ):
        raise BadInput(f"{job.examples}: the candidates of every row are equal; there is nothing to prefer")
    rows = [examples[at] for at in differ]
    return rows, take(labels, differ), order_N[differ], len(examples) - len(rows)


def start(job: Reward, world: World) -> Members:
    """The ensemble before training."""
    ensemble = Ensemble(job.kind, job.members, job.layers, job.rank)
    loaded = load_start(job, world)
    if job.runtime.gradient_checkpointing:
        checkpoint_activations(loaded.module)
    return join(loaded, ensemble, seed=job.seed)


def draws(members: int, fit_N: np.ndarray, rows: int, seed: int, bootstrap: bool) -> np.ndarray:
    """count_MN: how often each member sees each row: once, or with `bootstrap` as often as drawn."""
    count_MN = np.ones((members, rows))
    if bootstrap:
        for at in range(members):
            rng = np.random.default_rng([seed, 4, at])
            count_MN[at, fit_N] = rng.multinomial(len(fit_N), np.full(len(fit_N), 1 / len(fit_N)))
    return count_MN


def make_objective(
    members: Members, rows: Rows, weight_MN: np.ndarray, loss: Callable, strength: float
) -> train.Objective:
    def objective(call: Callable, index_B: np.ndarray, share: float) -> torch.Tensor:
        loss_MB = loss_of(loss, *rows.score(call, index_B), share)
        loss_B = (torch.from_numpy(weight_MN[:, index_B]).to(loss_MB) * loss_MB).mean(0)
        # Rows are averaged over the whole step, so each row carries the whole term.
        return loss_B - strength * diversity(members) if strength else loss_B

    return objective
