"""One model's opinion on sets of examples.

job.json: {"worker": "predict", "model": folder, or null with "learner" and "path" (the untrained base, as a finetune
job would start from it), "examples": {name: examples.jsonl, ...}, "by": name of the model, "runtime": {...}}
-> NAME.npz (Predictions, in the order of the examples) for each set

Rows are shared out over the processes and go to parts/ chunk by chunk, so a killed job goes on with what is missing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from w2s.config import Learner, Runtime, build
from w2s.log import progress
from w2s.models import load, score
from w2s.models.train import World
from w2s.records import BadInput, Example, Predictions, align, read_arrays, write_arrays
from w2s.workers.examples import read_examples

# (examples, chunks to leave out) -> opinions, chunk by chunk
Judge = Callable[[list[Example], int], Iterator[Predictions]]


def run(folder: Path, job: dict[str, Any], world: World) -> dict[str, Any]:
    """Do the job in `folder`; what `done.json` says of it."""
    problems: list[str] = []
    runtime = build(Runtime, job.get("runtime") or {}, "runtime", problems)
    if problems:
        raise BadInput(problems[0])
    sets = {name: list(read_examples(folder / path)) for name, path in job["examples"].items()}
    for name, ids in (job.get("only") or {}).items():
        wanted = set(ids)
        sets[name] = [example for example in sets[name] if example.id in wanted]
    for name, examples in sets.items():
        if not examples:
            raise BadInput(f"{job['examples'][name]}: there is no example in it")
    judge = make_judge(folder, job, runtime, world)
    parts = folder / f"parts-of-{world.size}"
    parts.mkdir(exist_ok=True)
    with progress(sum(len(examples[world.rank :: world.size]) for examples in sets.values()), "examples") as advance:
        for name, examples in sets.items():
            mine = examples[world.rank :: world.size]
            there = len(list(parts.glob(f"{name}.{world.rank}.*.npz")))
            for at, part in enumerate(judge(mine, there), there):
                write_part(parts / f"{name}.{world.rank}.{at}.npz", part)
                advance(len(part.ids))
    world.barrier()
    if world.rank == 0:
        for name, examples in sets.items():
            found = [read_arrays(path, Predictions) for path in sorted(parts.glob(f"{name}.*.npz"))]
            write_part(folder / f"{name}.npz", align(merge(found), np.array([e.id for e in examples])))
        shutil.rmtree(parts)
    return {"rows": {name: len(examples) for name, examples in sets.items()}}


def make_judge(folder: Path, job: dict[str, Any], runtime: Runtime, world: World) -> Judge:
    """Whatever kind of model the job names."""
    if job.get("model") is not None and not (folder / job["model"] / "config.json").exists():
        from w2s.models import pipelines

        fitted = pipelines.load(folder / job["model"])

        def judge(rows: list[Example], skip: int) -> Iterator[Predictions]:
            if rows and not skip:
                count_N = np.array([len(row.choices) for row in rows])
                scores_NK = pipelines.score(fitted, rows)
                yield score.as_predictions(np.array([row.id for row in rows]), scores_NK, count_N, job["by"])

        return judge
    loaded = open_model(folder, job, runtime, world)
    return lambda rows, skip: score.predict(loaded, rows, by=job["by"], skip=skip)


def open_model(folder: Path, job: dict[str, Any], runtime: Runtime, world: World) -> load.Loaded:
    """The fitted model in the job's "model", or the untrained base of its "learner" and "path"."""
    if job.get("model") is not None:
        return load.load_folder(folder / job["model"], device=world.device)
    learner = build(Learner, job["learner"], "learner", [])
    return load.load(
        learner.model,
        path=job.get("path"),
        device=world.device,
        max_tokens=learner.train.max_tokens,
        trust_remote_code=runtime.trust_remote_code,
    )


def write_part(path: Path, part: Predictions) -> None:
    partial = path.with_suffix(".partial")
    write_arrays(partial, part)
    partial.replace(path)


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
