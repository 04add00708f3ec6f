"""Stages that fit or query a model, and the jobs that they and the boosting rounds need."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from w2s.config.fields import Boosting, Learner, Runtime, Train
from w2s.data.rows import hash_folder
from w2s.data.splits import SPLITS
from w2s.models import folders
from w2s.stages import Facts, Inputs, Place, Tools, find_set
from w2s.stages.costs import count_boosting_steps
from w2s.stages.jobs import do_job
from w2s.stages.questions import SOLVED
from w2s.store.artifacts import Stage, Store, hash_file
from w2s.store.records import (
    Example,
    Predictions,
    PseudoLabels,
    TokenRanks,
    TokenWeights,
    Weights,
    align,
    read_arrays,
    read_rows,
    write_arrays,
    write_rows,
)
from w2s.workers.job import Base, Dequantise, Embed, Finetune, Predict, Pretrain, Rank, count_steps

LABELS = "labels.npz"
PRETRAINING = {
    "weak": {"lines": 20_000, "steps": 0},
    "strong": {"lines": 200_000, "steps": 2500, "batch": 192, "lr": 4e-3, "warmup_share": 0.03},
    "strong_llama": {"lines": 200_000, "steps": 2500, "batch": 192, "lr": 4e-3, "warmup_share": 0.03},
    "weak_writer": {"task": "answer", "lines": 20_000, "steps": 0},
    "strong_writer": {"task": "answer", "lines": 150_000, "steps": 1600, "batch": 32, "lr": 4e-3, "warmup_share": 0.03},
}
"""The embedded world's base models: the task (default: choice; answer and code share a corpus) and number of lines of
the corpus they are trained on, and the number of steps (0: random weights)."""


def pretrain(here: Path, inputs: Inputs, tools: Tools, *, builtin: str, world: int, recipe: dict) -> Facts:
    """A tiny base model, trained on the unlabelled corpus of one embedded world."""
    from w2s.data.world import corpus

    if not (here / "done.json").exists():
        lines = list(corpus(world, recipe["lines"], task=recipe.get("task", "choice")))
        (here / "corpus.txt").write_text("\n".join(lines) + "\n")
    train = Train(**{key: value for key, value in recipe.items() if key not in ("lines", "task")})
    do_job(here, tools, Pretrain(builtin, "corpus.txt", world, train, tools.runtime))
    return {"lines": recipe["lines"]}


def hidden_states(
    here: Path, inputs: Inputs, tools: Tools, *, learner: Learner, on: str = "", seed: int = 0, content: str = ""
) -> Facts:
    """What `learner`'s frozen model makes of each candidate, for every learner that reads it; see models.states.

    Of the suite `on`; else of the splits in the parent `questions`; else of all questions of the run: `content` is the
    hash of the rows of `tools.rows(seed)`.
    """
    if on:
        rows = read_rows(find_set(inputs, on), Example)
    elif "questions" in inputs:
        rows = [row for name in SPLITS for row in read_rows(inputs["questions"] / f"{name}.jsonl", Example)]
    else:
        rows = list({row.id: row for row in tools.rows(seed)[0]}.values())
    write_rows(here / "examples.jsonl", rows)
    do_job(here, tools, Embed(learner, "examples.jsonl", base_folder(inputs, tools, learner), tools.runtime))
    return {"rows": len(rows)}


def states_folder(inputs: Inputs) -> str | None:
    """The hidden states that a job may read, if the stage has any as a parent."""
    return str(inputs["states"]) if "states" in inputs else None


def fit(
    here: Path,
    inputs: Inputs,
    tools: Tools,
    *,
    learner: Learner,
    seed: int,
    split: str,
    steps_of: Boosting | None = None,
    is_student: bool = False,
) -> Facts:
    """One model on the labels of one split: the floor, a student, the ceiling...

    With `steps_of` it trains for as many optimizer steps as all models of that boosting's rounds together; with the
    parent `sparse`, a mixture of experts of its base, for as many as cost what its own number costs that model.
    """
    labels = read_arrays(inputs["labels"] / LABELS, PseudoLabels)
    if "sparse" in inputs:
        learner = spend_as_much(learner, inputs["sparse"], int((labels.weight_N > 0).sum()))
    if steps_of is not None:
        steps = count_boosting_steps(steps_of, learner.train, int((labels.weight_N > 0).sum()))
        learner = dataclasses.replace(learner, train=dataclasses.replace(learner.train, steps=steps))
    targets, soft = (inputs["labels"] / name for name in ("targets.jsonl", "soft.npz"))
    examples = targets if targets.exists() else inputs["questions"] / f"{split}.jsonl"
    runtime = student_runtime(tools.runtime) if is_student else tools.runtime
    base = find_start(inputs, tools, learner)
    job = Finetune(base.learner, seed, str(examples), LABELS, base.path, runtime=runtime)
    job = dataclasses.replace(job, soft=str(soft) if soft.exists() else None, states=states_folder(inputs))
    done = fit_model(here / "fit-0", tools, job, labels)
    own = {key: done[key] for key in ("mixture", "parameters", "active_parameters", "dense_parameters") if key in done}
    return {"rows": int((labels.weight_N > 0).sum()), **costs([done]), **own}


def spend_as_much(learner: Learner, sparse: Path, rows: int) -> Learner:
    """The learner with its steps times the parameters that a token passes in the mixture, by those in the dense model.

    The cost of a step is about proportional to them.
    """
    size = json.loads((sparse / "experts.json").read_text(encoding="utf-8"))
    steps = math.ceil(count_steps(learner.train, rows) * size["active_parameters"] / size["dense_parameters"])
    return dataclasses.replace(learner, train=dataclasses.replace(learner.train, steps=steps))


def opinion(
    here: Path, inputs: Inputs, tools: Tools, *, by: str, sets: Sequence[str], learner: Learner | None = None
) -> Facts:
    """A model's distribution over the candidates of each set; for several members, their mean.

    With `learner`: that of its untrained base.
    """
    paths = {name: find_set(inputs, name) for name in sets}
    models = [find_start(inputs, tools, learner)] if learner else sorted(inputs["model"].glob("fit-*/model"))
    if not models:
        return {"skipped": "the boosting had stopped before this round"}
    states = states_folder(inputs)
    opinions = [
        ask_model(here / f"ask-{at}", tools, model, paths, by, states=states) for at, model in enumerate(models)
    ]
    for name in sets:
        write_arrays(here / f"{name}.npz", mean_opinion([sets_by_name[name] for sets_by_name in opinions]))
    return {"rows": sum(len(opinions[0][name].ids) for name in sets)}


def fit_model(
    folder: Path, tools: Tools, job: Finetune, labels: PseudoLabels, weights: Weights | TokenWeights | None = None
) -> dict[str, Any]:
    """Do the job in `folder` unless it is done; returns its summary: rows, steps, tokens, seconds.

    Labels and weights are written beside it. The choices of the job's examples are the labels' candidates.
    """
    role = "tokens" if isinstance(weights, TokenWeights) else "order"
    if weights is not None:
        job = dataclasses.replace(job, **{role: f"{role}.npz"})
    if not (folder / "done.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_arrays(folder / LABELS, labels)
        if weights is not None:
            write_arrays(folder / f"{role}.npz", weights)
    return do_job(folder, tools, job)


def student_runtime(runtime: Runtime) -> Runtime:
    """The student trains under DeepSpeed even if the config names no file."""
    return dataclasses.replace(runtime, deepspeed=runtime.deepspeed or "auto")


def ask_model(
    folder: Path,
    tools: Tools,
    model: Path | Base,
    sets: Mapping[str, Path],
    by: str,
    only: dict | None = None,
    states: str | None = None,
) -> dict[str, Predictions]:
    """Do the predict job in `folder` unless it is done; returns a saved or untrained model's opinion on each set.

    `only`: set -> the ids to which its examples are limited. `states`: see job.Predict.
    """
    examples = {name: str(file) for name, file in sets.items()}
    saved, base = (None, model) if isinstance(model, Base) else (str(model), None)
    do_job(folder, tools, Predict(examples, by, saved, base, only, states, tools.runtime))
    return {name: read_arrays(folder / f"{name}.npz", Predictions) for name in sets}


def rank(
    folder: Path,
    tools: Tools,
    rounds: Sequence[Sequence[Path | None]],
    alphas: Sequence[float],
    targets: Path,
    *,
    mixture: str = "linear",
    base: Base | None = None,
    ids: list[str] | None = None,
) -> list[TokenRanks]:
    """Do the rank job in `folder` unless it is done; returns ranks under the mixture of the first 1, 2, ... rounds.

    `rounds` holds the models of each; None is the untrained `base`. `ids`: rank only these rows of `targets`.
    """
    models_by_round = [[None if model is None else str(model) for model in models] for models in rounds]
    only = None if ids is None else {"targets": ids}
    job = Rank(models_by_round, list(alphas), {"targets": str(targets)}, mixture, base, only, tools.runtime)
    do_job(folder, tools, job)
    return [read_arrays(folder / f"targets-{at}.npz", TokenRanks) for at in range(len(rounds))]


def find_start(inputs: Inputs, tools: Tools, learner: Learner) -> Base:
    """The base of a learner, with the solved examples that its prompts show."""
    return Base(with_shots(inputs, learner), base_folder(inputs, tools, learner))


def with_shots(inputs: Inputs, learner: Learner) -> Learner:
    """The learner with its model's shots themselves, where the config only counts them (see stages.questions).

    A model that was saved has its own: its stages lack the parent `shots`.
    """
    count = learner.model.shots
    if not count or isinstance(count, list) or "shots" not in inputs:
        return learner
    shots = json.loads((inputs["shots"] / SOLVED).read_text(encoding="utf-8"))[:count]
    return dataclasses.replace(learner, model=dataclasses.replace(learner.model, shots=shots))


def base_folder(inputs: Inputs, tools: Tools, learner: Learner) -> str:
    """Where the learner starts: a stage's model (builtin, dequantised, trained before), a local folder, or the hub."""
    found = [inputs["base"] / name for name in ("model", "fit-0/model")] if "base" in inputs else []
    if place := tools.models.get(learner.model.path):
        found.append(place.path)
    return next((str(folder) for folder in found if folder.exists()), learner.model.path)


def find_place(source: str, root: str | None) -> Place | None:
    """Where the model named `source` is on this machine; None for a builtin model and for one of the hub."""
    path = folders.locate(source, root)
    if path is None or not path.exists():
        return None
    path = path.absolute()
    return Place(path, hash_file(path) if path.is_file() else hash_folder(path))


def local_model(here: Path, inputs: Inputs, tools: Tools, *, content: str) -> Facts:
    """A local folder that learners start from; its content is part of their keys, and it is not copied."""
    return {"content": content}


def dequantised(here: Path, inputs: Inputs, tools: Tools, *, content: str) -> Facts:
    """The model of a GGUF file, as a folder that learners start from. content: the file's sha256."""
    file = next(place.path for place in tools.models.values() if place.content == content)
    done = do_job(here, tools, Dequantise(str(file), tools.runtime))
    return {"content": content, "quantised": done["quantised"], "values": done["values"]}


def keep_dequantised(tools: Tools, model: str) -> dict[str, Path]:
    """The artifact with the model of a GGUF file, which runs share, as a stage's parent; none for other models."""
    place = tools.models.get(model)
    if place is None or place.path.is_dir():
        return {}
    options = {"content": place.content}
    work = partial(dequantised, tools=tools, **options)
    stage = Stage(dequantised.__name__, f"base model {model}", options, {}, work)
    store = Store(Path(tools.runtime.runs_dir) / "store")
    store.make(stage)
    return {"base": store.checked(stage)}


def costs(facts: Sequence[dict[str, Any]]) -> Facts:
    """The total training tokens and steps of several jobs, from their summaries."""
    return {key: sum(summary.get(key, 0) for summary in facts) for key in ("tokens", "steps")}


def mean_opinion(opinions: Sequence[Predictions]) -> Predictions:
    """The mean of several models' distributions, leaving out models that abstained on a row."""
    first = opinions[0]
    if len(opinions) == 1:
        return first
    aligned = [align(opinion, first.ids) for opinion in opinions]
    say_RN = np.array([~opinion.abstained_N for opinion in aligned], dtype=float)
    say_RN[:, say_RN.sum(0) == 0] = 1
    probs_RNK = np.array([opinion.probs_NK for opinion in aligned])
    probs_NK = np.einsum("rn,rnk->nk", say_RN, probs_RNK) / say_RN.sum(0)[:, None]
    abstained_N = np.all([opinion.abstained_N for opinion in aligned], axis=0)
    return dataclasses.replace(first, probs_NK=probs_NK, abstained_N=abstained_N)
