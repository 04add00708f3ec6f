"""How models rank the right tokens of written answers: the worker of job.Rank."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from w2s.boosting.tokens import gathered
from w2s.models.ranks import rank_chunks
from w2s.models.world import World
from w2s.store.records import Example, TokenRanks, read_arrays, write_arrays
from w2s.workers.examples import count_cuts, read_sets
from w2s.workers.job import Rank
from w2s.workers.parts import Chunk, drop_parts, make_parts
from w2s.workers.predict import open_model


def run(folder: Path, job: Rank, world: World) -> dict[str, Any]:
    """Do the job in `folder`; returns the summary for done.json."""
    sets = read_sets(folder, job.examples, job.only)
    models = {path: open_model(folder, path, job, world) for stage in job.stages for path in stage}
    stages = [[models[path] for path in stage] for stage in job.stages]

    def make(rows: list[Example], skip: int) -> Iterator[Chunk]:
        for ranks in rank_chunks(stages, job.alphas, rows, skip=skip, mixture=job.mixture):
            yield len(ranks[0].ids), {f"{at}.npz": stage for at, stage in enumerate(ranks)}

    parts = make_parts(folder, sets, world, make)
    first = job.stages[0][0]
    cut = count_cuts(models[first], sets, first or str(job.base.path), world)
    if world.rank == 0:
        for name, examples in sets.items():
            ids = np.array([example.id for example in examples])
            for at in range(len(stages)):
                ranks = [read_arrays(part / f"{at}.npz", TokenRanks) for part in parts[name]]
                write_arrays(folder / f"{name}-{at}.npz", gathered(ranks, ids))
        drop_parts(folder, world)
    return {"rows": {name: len(examples) for name, examples in sets.items()}, **cut}
