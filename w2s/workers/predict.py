"""One model's opinion on sets of examples.

job.json: {"worker": "predict", "model": folder, or null and "learner" and "path" (the untrained base as a finetune job
would start from it), "examples": {name: examples.jsonl, ...}, "by": name of the model, "runtime": {...}} -> NAME.npz (Predictions, in the order of the examples) for each set

Rows go out in chunks, each written to parts/ when it is there: the chunks are shared out over the processes, and a killed
job goes on with those that are missing.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from w2s.config import Learner, Runtime, build
from w2s.log import progress
from w2s.models import load, pipelines, score
from w2s.models.train import World
from w2s.records import BadInput, Example, Predictions, candidate_mask, read_arrays, read_rows, softmax, write_arrays

CHUNK = 1024  # examples


def run(folder: Path, job: dict[str, Any], world: World) -> dict[str, Any]:
    """Do the job in `folder`; what `done.json` says of it."""
    problems: list[str] = []
    runtime = build(Runtime, job.get("runtime") or {}, "runtime", problems)
    if problems:
        raise BadInput(problems[0])
    sets = {name: read_rows(folder / path, Example) for name, path in job["examples"].items()}
    for name, examples in sets.items():
        if not examples:
            raise BadInput(f"{job['examples'][name]}: there is no example in it")
    judge = make_judge(folder, job, runtime, world)
    parts = folder / "parts"
    parts.mkdir(exist_ok=True)
    chunks = [(name, at) for name, examples in sets.items() for at in range(0, len(examples), CHUNK)]
    with progress(sum(map(len, sets.values())), "examples scored") as advance:
        for turn, (name, at) in enumerate(chunks):
            rows = sets[name][at : at + CHUNK]
            path = parts / f"{name}-{at}.npz"
            if turn % world.size == world.rank and not path.exists():
                partial = path.with_suffix(".partial")
                write_arrays(partial, judge(rows, job["by"]))
                partial.replace(path)
            advance(len(rows))
    world.barrier()
    if world.rank == 0:
        for name, examples in sets.items():
            merge(parts, name, len(examples), folder / f"{name}.npz")
        shutil.rmtree(parts)
    return {"rows": {name: len(examples) for name, examples in sets.items()}}


def make_judge(folder: Path, job: dict[str, Any], runtime: Runtime, world: World):
    """(examples, name) -> Predictions, by whatever kind of model the job names."""
    if job.get("model") is None:
        learner = build(Learner, job["learner"], "learner", [])
        loaded = load.load(
            learner.model, path=job.get("path"), device=world.device, trust_remote_code=runtime.trust_remote_code
        )
    elif pipelines.is_saved(folder / job["model"]):
        fitted = pipelines.load(folder / job["model"])
        return lambda rows, by: from_scores(rows, pipelines.score(fitted, rows), by)
    else:
        loaded = load.load_folder(folder / job["model"], device=world.device)
    return lambda rows, by: from_scores(rows, score.predict(loaded, rows), by)


def from_scores(rows: list[Example], scores_NK: np.ndarray, by: str) -> Predictions:
    """Scores as a distribution; an example with a score that is not finite abstains, with a uniform row."""
    mask_NK = candidate_mask(np.array([len(row.choices) for row in rows]))
    scores_NK = np.asarray(scores_NK)[:, : mask_NK.shape[1]]
    abstained_N = ~np.where(mask_NK, np.isfinite(scores_NK), True).all(1)
    probs_NK = softmax(np.where(abstained_N[:, None], 0.0, scores_NK), mask_NK)
    return Predictions(np.array([row.id for row in rows]), probs_NK, mask_NK, abstained_N, by)


def merge(parts: Path, name: str, rows: int, path: Path) -> None:
    """The chunks of one set as one record, narrower chunks padded to the widest."""
    found = [read_arrays(parts / f"{name}-{at}.npz", Predictions) for at in range(0, rows, CHUNK)]
    wide = max(part.probs_NK.shape[1] for part in found)

    def stack(field: str) -> np.ndarray:
        return np.concatenate([np.pad(a, ((0, 0), (0, wide - a.shape[1]))) for a in (getattr(p, field) for p in found)])

    ids, abstained_N = (np.concatenate([getattr(p, f) for p in found]) for f in ("ids", "abstained_N"))
    partial = path.with_suffix(".partial")
    write_arrays(partial, Predictions(ids, stack("probs_NK"), stack("mask_NK"), abstained_N, found[0].by))
    partial.replace(path)


if __name__ == "__main__":
    from w2s.workers.serve import once

    once("predict")
