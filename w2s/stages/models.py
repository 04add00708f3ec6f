"""Stages that fit a model or ask one, through job folders."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from w2s.config.fields import Learner, Runtime
from w2s.stages import Facts, Inputs, Tools
from w2s.store.artifacts import write_job
from w2s.store.records import Predictions, PseudoLabels, TokenWeights, Weights, align, read_arrays, write_arrays

PRETRAINING = {
    "weak": {"lines": 20_000, "steps": 0},
    "strong": {"lines": 200_000, "steps": 2500, "batch": 192, "lr": 4e-3, "warmup_share": 0.03},
    "weak_writer": {"task": "answer", "lines": 20_000, "steps": 0},
    "strong_writer": {
        "task": "answer",
        "lines": 150_000,
        "steps": 1600,
        "batch": 32,
        "lr": 4e-3,
        "warmup_share": 0.03,
    },
}
"""The embedded world's base models: how many lines of the corpus of which task (choice where none is named; answer and
code share one), and for how many steps (0: random weights)."""


def pretrain(here: Path, inputs: Inputs, tools: Tools, *, builtin: str, world: int, recipe: dict) -> Facts:
    """A tiny base model of one embedded world, trained on that world's unlabelled corpus."""
    from w2s.data.world import corpus

    if not (here / "done.json").exists():
        lines = list(corpus(world, recipe["lines"], task=recipe.get("task", "choice")))
        (here / "corpus.txt").write_text("\n".join(lines) + "\n")
        steps = {key: value for key, value in recipe.items() if key not in ("lines", "task")}
        job = {"worker": "pretrain", "builtin": builtin, "corpus": "corpus.txt", "seed": world, **steps}
        write_job(here, {**job, "runtime": asdict(tools.runtime)})
        tools.run_job(here)
    return {"lines": recipe["lines"]}


def fit(
    here: Path,
    inputs: Inputs,
    tools: Tools,
    *,
    learner: Learner,
    seed: int,
    split: str,
    longer: int = 1,
    is_student: bool = False,
) -> Facts:
    """One model on the labels of one split: the floor, a student, the ceiling... `longer` multiplies its training."""
    train = learner.train
    steps = None if train.steps is None else train.steps * longer
    learner = dataclasses.replace(learner, train=dataclasses.replace(train, steps=steps, epochs=train.epochs * longer))
    labels = read_arrays(inputs["labels"] / "labels.npz", PseudoLabels)
    targets, soft = (inputs["labels"] / name for name in ("targets.jsonl", "soft.npz"))
    facts = fit_model(
        here / "fit-0",
        tools,
        learner=learner,
        base=base_folder(inputs, learner),
        seed=seed,
        examples=targets if targets.exists() else inputs["questions"] / f"{split}.jsonl",
        labels=labels,
        soft=soft if soft.exists() else None,
        is_student=is_student,
    )
    return {"rows": int((labels.weight_N > 0).sum()), **costs([facts])}


def opinion(
    here: Path, inputs: Inputs, tools: Tools, *, by: str, sets: Sequence[str], learner: Learner | None = None
) -> Facts:
    """A model's distribution over the candidates of each set; of several members, their mean.

    With `learner` it is the untrained base that is asked.
    """
    paths = {name: inputs[name if name in inputs else "questions"] / f"{name}.jsonl" for name in sets}
    if learner is not None:
        start = {"learner": asdict(learner), "path": base_folder(inputs, learner)}
        found = [ask_model(here / "ask-0", tools, sets=paths, by=by, **start)]
    else:
        models = sorted(inputs["model"].glob("fit-*/model"))
        if not models:
            return {"skipped": "the boosting had stopped before this round"}
        found = [ask_model(here / f"ask-{at}", tools, sets=paths, by=by, model=m) for at, m in enumerate(models)]
    for name in sets:
        write_arrays(here / f"{name}.npz", mean_opinion([one[name] for one in found]))
    return {"rows": sum(len(found[0][name].ids) for name in sets)}


def fit_model(
    folder: Path,
    tools: Tools,
    *,
    learner: Learner,
    base: str,
    seed: int,
    examples: Path,
    labels: PseudoLabels,
    weights: Weights | TokenWeights | None = None,
    weighting: str = "loss",
    soft: Path | None = None,
    is_student: bool = False,
) -> dict[str, Any]:
    """Run (or find) the finetune job in `folder`; returns what it says of itself: rows, steps, tokens, seconds.

    `examples` have the labels' candidates as choices. `soft`: a file of TokenTargets for them.
    """
    by_token = isinstance(weights, TokenWeights)
    if not (folder / "done.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_arrays(folder / "labels.npz", labels)
        if weights is not None:
            write_arrays(folder / ("tokens.npz" if by_token else "order.npz"), weights)
        job = {
            "worker": "finetune",
            "learner": asdict(learner),
            "path": base,
            "seed": seed,
            "examples": str(examples),
            "labels": "labels.npz",
            "order": "order.npz" if weights is not None and not by_token else None,
            "tokens": "tokens.npz" if by_token else None,
            "soft": None if soft is None else str(soft),
            "weighting": weighting,
            "runtime": runtime_of(tools.runtime, is_student),
        }
        write_job(folder, job)
        tools.run_job(folder)
    return json.loads((folder / "done.json").read_text())


def runtime_of(runtime: Runtime, is_student: bool) -> dict[str, Any]:
    """The student trains under DeepSpeed unless the config names another file."""
    default = "auto" if is_student else None
    return {**asdict(runtime), "deepspeed": runtime.deepspeed or default}


def ask_model(
    folder: Path, tools: Tools, *, sets: Mapping[str, Path], by: str, model: Path | None = None, **more: Any
) -> dict[str, Predictions]:
    """Run (or find) the predict job in `folder`: a fitted model's opinion on each named set of examples.

    `more`: of an untrained base, its `learner` and `path`; `only`, the ids of a set that are asked about.
    """
    if not (folder / "done.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        job = {
            "worker": "predict",
            "model": None if model is None else str(model),
            "examples": {name: str(path) for name, path in sets.items()},
            "by": by,
            "runtime": asdict(tools.runtime),
            **more,
        }
        write_job(folder, job)
        tools.run_job(folder)
    return {name: read_arrays(folder / f"{name}.npz", Predictions) for name in sets}


def base_folder(inputs: Inputs, learner: Learner) -> str:
    """Where the learner starts from: a pretrained builtin model, another stage's model, or what the config names."""
    made = [inputs["base"] / one for one in ("model", "fit-0/model")] if "base" in inputs else []
    return next((str(one) for one in made if one.exists()), learner.model.path)


def local_model(here: Path, inputs: Inputs, tools: Tools, *, content: str) -> Facts:
    """A local folder that learners start from; its content is part of their keys, the folder stays where it is."""
    return {"content": content}


def costs(facts: Sequence[dict[str, Any]]) -> Facts:
    return {"tokens": sum(one.get("tokens", 0) for one in facts), "steps": sum(one.get("steps", 0) for one in facts)}


def mean_opinion(found: Sequence[Predictions]) -> Predictions:
    """The mean of several models' distributions; a model that abstained has no say on that row."""
    first = found[0]
    if len(found) == 1:
        return first
    aligned = [align(one, first.ids) for one in found]
    say_RN = np.array([~one.abstained_N for one in aligned], dtype=float)
    say_RN[:, say_RN.sum(0) == 0] = 1
    probs_NK = np.einsum("rn,rnk->nk", say_RN, np.array([one.probs_NK for one in aligned])) / say_RN.sum(0)[:, None]
    return dataclasses.replace(first, probs_NK=probs_NK, abstained_N=np.all([a.abstained_N for a in aligned], axis=0))
