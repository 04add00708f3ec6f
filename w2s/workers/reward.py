"""Reward models: train an ensemble whose members share a trunk, score candidates, average weights.

job.json: {"worker": "reward", "task": "fit", "kind": "heads" or "adapters", "members": how many, "layers": last layers
that have adapters, or null = all, "rank", "diversity": strength, "bootstrap": whether each member draws its own rows,
"learner": {"model", "train"}, "path": folder or hub name to start from, "seed", "examples": pairs.jsonl (two
candidates each, or more), "labels": labels.npz (PseudoLabels over them), "runtime"} -> model/ and train.json

{"task": "score", "models": [folder of a plain model of kind pair, or of an ensemble, ...], "names": theirs or null,
"examples": {name: examples.jsonl, ...}, "runtime"} -> NAME.npz (Rewards, in the order of the examples; an ensemble's
members are NAME/0, NAME/1, ...). Rows are shared out over the processes; a killed job goes on with what is missing.

{"task": "warm", "models": [folder of a plain model, ...]} -> model/, their mean.

One reward model by itself is a finetune job of kind pair; seeds and bases are several such jobs.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from w2s.config.fields import Learner, Runtime
from w2s.config.registry import build
from w2s.models import losses, train
from w2s.models.engine import configuration, is_sliced
from w2s.models.internals import checkpoint_activations
from w2s.models.members import Ensemble, Members, diversity, encode, join, loss_of, open_members, rewards, save
from w2s.models.warm import warm
from w2s.store.records import BadInput, Rewards, read_arrays, take, write_arrays
from w2s.workers import cuts
from w2s.workers.finetune import collator, hold_out, load_start, make_look, plan, read_labels
from w2s.workers.parts import drop_parts, make_parts, read_sets


class Part(NamedTuple):
    """Some examples' scores by one model."""

    ids: np.ndarray
    scores_MNK: np.ndarray


def run(folder: Path, job: dict[str, Any], world: train.World) -> dict[str, Any]:
    """Do the job in `folder`; what `done.json` says of it."""
    if job.get("task") not in TASKS:
        raise BadInput(f"{folder}/job.json: task: {job.get('task')!r} given; allowed: {', '.join(TASKS)}")
    return TASKS[job["task"]](folder, job, world)


def fit(folder: Path, job: dict[str, Any], world: train.World) -> dict[str, Any]:
    """Train an ensemble: each member minimises the loss of its own rewards, on rows that it weighs in its own way."""
    learner, ensemble, runtime = settings(job)
    seed, strength = int(job["seed"]), job.get("diversity") or 0.0
    examples, labels, order_N = read_labels(folder, job)
    # Two texts that are the same leave nothing to prefer.
    differ = np.flatnonzero([len({text.strip() for text in example.choices}) > 1 for example in examples])
    if not len(differ):
        raise BadInput(f"{job['examples']}: the candidates of every row are equal; there is nothing to prefer")
    equal, examples = len(examples) - len(differ), [examples[at] for at in differ]
    labels, order_N = take(labels, differ), order_N[differ]
    members = start(learner, ensemble, job, runtime, world)
    fit_N, held_N = hold_out(len(examples), learner.train.holdout_share, seed)
    encoded = encode(members.loaded, examples)
    cut = cuts.count(members.loaded, {Path(job["examples"]).stem: examples}, learner.model.path, world)
    length_N = np.array([one.tokens for one in encoded])
    steps, weight_N = plan(length_N, labels.weight_N, order_N, fit_N, None, learner.train, seed)
    weight_MN = weight_N * draws(ensemble.members, fit_N, len(examples), seed, job.get("bootstrap", False))
    loss, held_loss = (losses.pick_loss(one, "choice") for one in (learner.train.loss, "cross_entropy"))
    collate = collator(members.loaded, encoded, labels.target_NK.shape[1], None, None)
    held_N, look = held_N[np.argsort(length_N[held_N])], None
    if len(held_N):
        look = make_look(
            collate, labels, held_N, lambda s, t: loss_of(held_loss, s, t).mean(0), 1.0, world, learner.train.batch
        )
    seconds = train.timer()
    state, weights = train.fit(
        members,
        steps,
        make_objective(members, collate, labels.target_NK, weight_MN, loss, strength),
        learner.train,
        runtime,
        folder=folder,
        look=look,
        world=world,
        deepspeed=check_stage(configuration(runtime, world), strength),
        seed=seed,
    )
    read = int(sum(length_N[step].sum() for step in steps[: state.step]))
    summary = {"rows": len(fit_N), "equal": equal, "held_out": len(held_N), "steps": state.step, "tokens": read, **cut}
    if world.rank == 0:
        if is_sliced(members):  # ZeRO 3 left only slices in the module
            members = start(learner, ensemble, job, runtime, train.World())
        train.set_weights(members, weights)
        save(members, folder / "model")
        facts = {"diversity": float(diversity(members).detach())} if ensemble.kind == "adapters" else {}
        history = {**summary, **facts, **dataclasses.asdict(state), "seconds": seconds()}
        (folder / "train.json").write_text(json.dumps(history))
        train.clean(folder)
    return summary


def settings(job: dict[str, Any]) -> tuple[Learner, Ensemble, Runtime]:
    """What the job asks for, checked."""
    problems: list[str] = []
    learner = build(Learner, job["learner"], "learner", problems)
    runtime = build(Runtime, job.get("runtime") or {}, "runtime", problems)
    asked = {key: job[key] for key in ("kind", "members", "layers", "rank") if job.get(key) is not None}
    ensemble = build(Ensemble, asked, "", problems)
    strength = job.get("diversity") or 0.0
    if strength < 0 or (strength and ensemble.kind == "heads"):
        problems.append(
            f"diversity: {strength} given; allowed: 0, or with kind 'adapters' more (heads have no adapters)"
        )
    if problems:
        raise BadInput(problems[0])
    if ensemble.kind == "adapters":  # what is trained is theirs
        learner = dataclasses.replace(learner, model=dataclasses.replace(learner.model, trainable="all"))
    return learner, ensemble, runtime


def start(learner: Learner, ensemble: Ensemble, job: dict[str, Any], runtime: Runtime, world: train.World) -> Members:
    """The ensemble as it is before training."""
    loaded = load_start(learner, job, runtime, world)
    if runtime.gradient_checkpointing:
        checkpoint_activations(loaded.module)
    return join(loaded, ensemble, seed=int(job["seed"]))


def draws(members: int, fit_N: np.ndarray, rows: int, seed: int, bootstrap: bool) -> np.ndarray:
    """count_MN: how often each member has each row, on average once; with `bootstrap` as drawn with replacement."""
    count_MN = np.ones((members, rows))
    if bootstrap:
        for at in range(members):
            rng = np.random.default_rng([seed, 4, at])
            count_MN[at, fit_N] = rng.multinomial(len(fit_N), np.full(len(fit_N), 1 / len(fit_N)))
    return count_MN


def make_objective(
    members: Members, collate: Callable, target_NK: np.ndarray, weight_MN: np.ndarray, loss: Callable, strength: float
) -> train.Objective:
    def objective(call: Callable, index_B: np.ndarray, share: float) -> torch.Tensor:
        scores_MBK = call(collate(index_B))
        loss_MB = loss_of(loss, scores_MBK, torch.from_numpy(target_NK[index_B]).to(scores_MBK), share)
        loss_B = (torch.from_numpy(weight_MN[:, index_B]).to(loss_MB) * loss_MB).mean(0)
        # Rows are averaged over the whole step, so each has the term that is for all.
        return loss_B - strength * diversity(members) if strength else loss_B

    return objective


def check_stage(deepspeed: dict[str, Any] | None, strength: float) -> dict[str, Any] | None:
    """The configuration, or BadInput where it leaves each process but slices of the adapters that `diversity` reads."""
    if strength and deepspeed and deepspeed.get("zero_optimization", {}).get("stage") == 3:
        raise BadInput(f"diversity: {strength} given under ZeRO 3; allowed: 0, or ZeRO 0 to 2")
    return deepspeed


def rate(folder: Path, job: dict[str, Any], world: train.World) -> dict[str, Any]:
    """Every model's scores of every set, model after model."""
    build(Runtime, job.get("runtime") or {}, "runtime", problems := [])
    paths = job["models"]
    names = job.get("names") or paths
    if problems or not paths or len(set(names)) < len(paths) or len(names) != len(paths):
        raise BadInput(problems[0] if problems else f"models: {paths} given; allowed: at least 1, each named apart")
    sets = read_sets(folder, job)
    cut = {}
    for at, path in enumerate(paths):
        rate_by(folder / f"model-{at}", folder / path, sets, world)
        found = json.loads((folder / f"model-{at}" / "cuts.json").read_text())
        cut |= {f"{name} ({names[at]})": one for name, one in found.get("cut", {}).items()}
    if world.rank == 0:
        for name, examples in sets.items():
            write_arrays(folder / f"{name}.npz", together(folder, name, names, np.array([e.id for e in examples])))
    world.barrier()
    if world.rank == 0:
        for at in range(len(paths)):
            shutil.rmtree(folder / f"model-{at}")
    return {"rows": {name: len(examples) for name, examples in sets.items()}, **({"cut": cut} if cut else {})}


def rate_by(folder: Path, model: Path, sets: dict[str, list], world: train.World) -> None:
    """One model's scores, NAME.npz in `folder`; nothing is left to do where they are there."""
    if all((folder / f"{name}.npz").exists() for name in sets):
        return
    members = open_members(model, device=world.device)
    wide = max((len(example.choices) for rows in sets.values() for example in rows), default=1)

    def make(rows: list, skip: int):
        ids = np.array([example.id for example in rows])
        for index, scores_MNK in rewards(members, rows, width=wide, skip=skip):
            yield Part(ids[index], scores_MNK)

    parts = make_parts(folder, sets, world, make, keep)
    cut = cuts.count(members.loaded, sets, model.name, world)
    if world.rank == 0:
        (folder / "cuts.json").write_text(json.dumps(cut))
        models = np.array([str(at) for at in range(members.ensemble.members)])
        for name, examples in sets.items():
            found = [read_arrays(part / "rewards.npz", Rewards) for part in parts[name]]
            position = {key: at for at, key in enumerate(np.concatenate([one.ids for one in found]).tolist())}
            scores_MNK = np.concatenate([one.scores_MNK for one in found], axis=1)
            ids = np.array([example.id for example in examples])
            ordered_MNK = scores_MNK[:, [position[key] for key in ids.tolist()]]
            widest = max(len(example.choices) for example in examples)
            write_arrays(folder / f"{name}.npz", Rewards(ids, ordered_MNK[..., :widest], models))
        drop_parts(folder, world)
    world.barrier()


def keep(folder: Path, part: Part) -> int:
    write_arrays(
        folder / "rewards.npz", Rewards(part.ids, part.scores_MNK, np.arange(len(part.scores_MNK)).astype(str))
    )
    return len(part.ids)


def together(folder: Path, name: str, names: list[str], ids: np.ndarray) -> Rewards:
    """All models' scores of one set."""
    found = [read_arrays(folder / f"model-{at}" / f"{name}.npz", Rewards) for at in range(len(names))]
    models = [
        model if len(one.models) == 1 else f"{model}/{member}"
        for model, one in zip(names, found, strict=True)
        for member in one.models
    ]
    return Rewards(ids, np.concatenate([one.scores_MNK for one in found]), np.array(models))


def average(folder: Path, job: dict[str, Any], world: train.World) -> dict[str, Any]:
    """One model of several."""
    if world.rank == 0:
        warm([folder / path for path in job["models"]], folder / "model")
    return {"models": len(job["models"])}


TASKS = {"fit": fit, "score": rate, "warm": average}


if __name__ == "__main__":
    from w2s.workers.serve import once

    once("reward")
