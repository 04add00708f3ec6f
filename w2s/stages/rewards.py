"""Stages of reward models: ensembles, the mean of members' weights, and what models say of candidates.

A member that is a model of its own is a `models.fit` on pairs: cross-entropy over two candidates is Bradley and Terry's
loss. A stage of pairs writes targets.jsonl (Examples with the candidates as choices) and labels.npz (PseudoLabels).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from w2s.config.fields import RewardModels
from w2s.stages import Facts, Inputs, Tools
from w2s.stages.models import base_folder, costs
from w2s.store.artifacts import write_job


def of_training(rewards: RewardModels) -> RewardModels:
    """What training a shared ensemble depends on: how scores are used later must not change its key."""
    plain = RewardModels()
    if rewards.kind == "heads":  # these are of adapters
        rewards = dataclasses.replace(rewards, layers=plain.layers, rank=plain.rank, diversity=plain.diversity)
    return dataclasses.replace(
        rewards, pairs=plain.pairs, aggregate=plain.aggregate, standardise=plain.standardise, models=rewards.models[:1],
        head_steps=plain.head_steps, curve=plain.curve,
        study=plain.study,
    )  # fmt: skip


def ensemble(here: Path, inputs: Inputs, tools: Tools, *, rewards: RewardModels, seed: int) -> Facts:
    """Members that share a trunk (kind heads or adapters), trained together on the pairs of the parent `labels`."""
    folder, learner = here / "fit-0", rewards.models[0]
    if not (folder / "done.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        job = {
            "worker": "reward",
            "task": "fit",
            **{key: getattr(rewards, key) for key in ("kind", "members", "layers", "rank", "diversity", "bootstrap")},
            "learner": asdict(learner),
            "path": base_folder(inputs, learner),
            "seed": seed,
            "examples": str(inputs["labels"] / "targets.jsonl"),
            "labels": str(inputs["labels"] / "labels.npz"),
            "runtime": asdict(tools.runtime),
        }
        write_job(folder, job)
        tools.run_job(folder)
    done = json.loads((folder / "done.json").read_text())
    return {"rows": done["rows"], "equal": done["equal"], **costs([done])}


def averaged(here: Path, inputs: Inputs, tools: Tools) -> Facts:
    """The mean of the parents' weights (WARM): parents model-00, model-01, ... that began as one."""
    folder = here / "fit-0"
    if not (folder / "done.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        models = [str(path / "fit-0" / "model") for role, path in sorted(inputs.items()) if role.startswith("model-")]
        job = {"worker": "reward", "task": "warm", "models": models, "runtime": asdict(tools.runtime)}
        write_job(folder, job)
        tools.run_job(folder)
    return {"models": json.loads((folder / "done.json").read_text())["models"]}


def scores(here: Path, inputs: Inputs, tools: Tools, *, names: Sequence[str], sets: Sequence[str]) -> Facts:
    """What the models of the parents model-00, model-01, ... (called `names`) say of each set: SET.npz (Rewards).

    A set is SET.jsonl in the parent of its name, else in `questions`.
    """
    if not (here / "done.json").exists():
        models = [str(path / "fit-0" / "model") for role, path in sorted(inputs.items()) if role.startswith("model-")]
        job = {
            "worker": "reward",
            "task": "score",
            "models": models,
            "names": list(names),
            "examples": {name: str(inputs[name if name in inputs else "questions"] / f"{name}.jsonl") for name in sets},
            "runtime": asdict(tools.runtime),
        }
        write_job(here, job)
        tools.run_job(here)
    return json.loads((here / "done.json").read_text())["rows"]
