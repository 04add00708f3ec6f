"""Stages of reward models: ensembles, the mean of members' weights, and models' scores of candidates.

A separate member is a `models.fit` on pairs: cross-entropy over two candidates is the Bradley-Terry loss. A stage of
pairs writes targets.jsonl (Examples with the candidates as choices) and labels.npz (PseudoLabels).
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from w2s.config.fields import RewardModels
from w2s.stages import Facts, Inputs, Tools, find_set
from w2s.stages.jobs import do_job
from w2s.stages.models import base_folder, costs
from w2s.workers.job import Average, Reward, Score


def of_training(rewards: RewardModels) -> RewardModels:
    """The settings that training a shared ensemble depends on: later use of its scores must not change its key."""
    plain = RewardModels()
    if rewards.kind == "heads":  # the others concern adapters
        rewards = dataclasses.replace(rewards, layers=plain.layers, rank=plain.rank, diversity=plain.diversity)
    later = ("pairs", "aggregate", "standardise", "head_steps", "curve", "study")
    rewards = dataclasses.replace(rewards, **{name: getattr(plain, name) for name in later})
    return dataclasses.replace(rewards, models=rewards.models[:1])


def ensemble(here: Path, inputs: Inputs, tools: Tools, *, rewards: RewardModels, seed: int) -> Facts:
    """Members that share a trunk (kind heads or adapters), trained together on the pairs of the parent `labels`."""
    learner = rewards.models[0]
    examples, labels = (str(inputs["labels"] / name) for name in ("targets.jsonl", "labels.npz"))
    names = ("kind", "members", "layers", "rank", "diversity", "bootstrap")
    options = {name: getattr(rewards, name) for name in names} | {"runtime": tools.runtime}
    job = Reward(learner, seed, examples, labels, base_folder(inputs, tools, learner), **options)
    done = do_job(here / "fit-0", tools, job)
    return {"rows": done["rows"], "equal": done["equal"], **costs([done])}


def averaged(here: Path, inputs: Inputs, tools: Tools) -> Facts:
    """The mean of the weights (WARM) of the parents model-00, model-01, ..., which were trained from one start."""
    return {"models": do_job(here / "fit-0", tools, Average(list_models(inputs, "model-")))["models"]}


def scores(here: Path, inputs: Inputs, tools: Tools, *, names: Sequence[str], sets: Sequence[str]) -> Facts:
    """Each set's scores by the parents model-00, model-01, ... (named `names` in the result): SET.npz (Rewards).

    A set is SET.jsonl in the parent named after it, else in `questions`.
    """
    examples = {name: str(find_set(inputs, name)) for name in sets}
    return do_job(here, tools, Score(list_models(inputs, "model-"), examples, list(names), tools.runtime))["rows"]


def list_models(inputs: Inputs, prefix: str) -> list[str]:
    """The model folders of the parents whose roles begin with `prefix`, in the order of the roles."""
    return [str(path / "fit-0" / "model") for role, path in sorted(inputs.items()) if role.startswith(prefix)]
