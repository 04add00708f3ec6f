"""One model's opinion on sets of examples.

job.json: {"worker": "predict", "model": folder, or null with "learner" and "path" (the untrained base, as a finetune
job would start from it), "examples": {name: examples.jsonl, ...}, "by": name of the model, "runtime": {...}}
-> NAME.npz (Predictions, in the order of the examples) for each set

Rows are shared out over the processes and go to parts/ chunk by chunk, so a killed job goes on with what is missing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from w2s.config.fields import Learner, Runtime
from w2s.config.registry import build
from w2s.models import load, score
from w2s.models.kinds import load_fitted
from w2s.models.train import World
from w2s.store.records import BadInput, Example, Predictions, align, read_arrays, write_arrays
from w2s.workers import cuts
from w2s.workers.parts import drop_parts, make_parts, read_sets

# (examples, chunks to leave out) -> opinions, chunk by chunk
Judge = Callable[[list[Example], int], Iterator[Predictions]]


def run(folder: Path, job: dict[str, Any], world: World) -> dict[str, Any]:
    """Do the job in `folder`; what `done.json` says of it."""
    problems: list[str] = []
    runtime = build(Runtime, job.get("runtime") or {}, "runtime", problems)
    if problems:
        raise BadInput(problems[0])
    sets = read_sets(folder, job)
    judge, loaded = make_judge(folder, job, runtime, world)
    parts = make_parts(folder, sets, world, judge, save)
    cut = {} if loaded is None else cuts.count(loaded, sets, job["by"], world)
    if world.rank == 0:
        for name, examples in sets.items():
            found = [read_arrays(part / "opinions.npz", Predictions) for part in parts[name]]
            write_arrays(folder / f"{name}.npz", align(merge(found), np.array([e.id for e in examples])))
        drop_parts(folder, world)
    return {"rows": {name: len(examples) for name, examples in sets.items()}, **cut}


def make_judge(folder: Path, job: dict[str, Any], runtime: Runtime, world: World) -> tuple[Judge, load.Loaded | None]:
    """Whatever kind of model the job names, and the model where it reads tokens."""
    estimator = load_fitted(folder / job["model"]) if job.get("model") is not None else None
    if estimator is not None:
        kind, fitted = estimator

        def judge(rows: list[Example], skip: int) -> Iterator[Predictions]:
            if rows and not skip:
                count_N = np.array([len(row.choices) for row in rows])
                scores_NK = kind.scores(fitted, rows)
                yield score.as_predictions(np.array([row.id for row in rows]), scores_NK, count_N, job["by"])

        return judge, None
    loaded = open_model(folder, job.get("model"), job, runtime, world)
    return lambda rows, skip: score.predict(loaded, rows, by=job["by"], skip=skip), loaded


def open_model(folder: Path, model: str | None, start: dict[str, Any], runtime: Runtime, world: World) -> load.Loaded:
    """The fitted model in the folder `model`, or the untrained base of the "learner" and "path" in `start`."""
    if model is not None:
        return load.load_folder(folder / model, device=world.device)
    learner = build(Learner, start["learner"], "learner", [])
    return load.load(
        dataclasses.replace(learner.model, trainable="all"),  # what is not trained needs no adapter
        path=start.get("path"),
        device=world.device,
        max_tokens=learner.train.max_tokens,
        trust_remote_code=runtime.trust_remote_code,
    )


def save(folder: Path, part: Predictions) -> int:
    write_arrays(folder / "opinions.npz", part)
    return len(part.ids)


def merge(parts: list[Predictions]) -> Predictions:
    """Chunks as one record, narrower ones padded to the widest."""
    wide = max(part.probs_NK.shape[1] for part in parts)
    fields = {
        field: np.concatenate([widen(getattr(part, field), wide) for part in parts])
        for field in ("ids", "probs_NK", "mask_NK", "abstained_N")
    }
    return Predictions(**fields, by=parts[0].by)


def widen(array: np.ndarray, wide: int) -> np.ndarray:
    return np.pad(array, ((0, 0), (0, wide - array.shape[1]))) if array.ndim == 2 else array


if __name__ == "__main__":
    from w2s.workers.serve import once

    once("predict")
