"""How models rank the right tokens of written answers, alone and as a committee that grows round by round.

job.json: {"worker": "rank", "stages": [[model folder, or null, ...] of each round, ...], "alphas": one for each round
(its models share it equally), "mixture": linear or log_linear, "learner" and "path": of the untrained base that null
stands for, "examples": {name: targets.jsonl (one candidate each), ...}, "only": {name: ids} or absent, "runtime"}
-> NAME-r.npz (TokenRanks, in the order of the examples) for each set: under the mixture of rounds 0 to r
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from w2s.boosting.tokens import gathered
from w2s.config.fields import Runtime
from w2s.config.registry import build
from w2s.models.ranks import rank_chunks
from w2s.models.train import World
from w2s.store.records import TokenRanks, read_arrays, write_arrays
from w2s.workers import cuts
from w2s.workers.parts import drop_parts, make_parts, read_sets
from w2s.workers.predict import open_model


def run(folder: Path, job: dict[str, Any], world: World) -> dict[str, Any]:
    """Do the job in `folder`; what `done.json` says of it."""
    runtime, sets = build(Runtime, job.get("runtime") or {}, "runtime", []), read_sets(folder, job)
    models = {path: open_model(folder, path, job, runtime, world) for stage in job["stages"] for path in stage}
    stages = [[models[path] for path in stage] for stage in job["stages"]]
    how = {"mixture": job.get("mixture", "linear")}
    parts = make_parts(
        folder, sets, world, lambda rows, skip: rank_chunks(stages, job["alphas"], rows, skip=skip, **how), save
    )
    first = job["stages"][0][0]
    cut = cuts.count(models[first], sets, first or str(job.get("path")), world)
    if world.rank == 0:
        for name, examples in sets.items():
            ids = np.array([example.id for example in examples])
            for at in range(len(stages)):
                found = [read_arrays(part / f"{at}.npz", TokenRanks) for part in parts[name]]
                write_arrays(folder / f"{name}-{at}.npz", gathered(found, ids))
        drop_parts(folder, world)
    return {"rows": {name: len(examples) for name, examples in sets.items()}, **cut}


def save(folder: Path, stages: list[TokenRanks]) -> int:
    for at, ranks in enumerate(stages):
        write_arrays(folder / f"{at}.npz", ranks)
    return len(stages[0].ids)


if __name__ == "__main__":
    from w2s.workers.serve import once

    once("rank")
