"""One model whose weights are the mean of several models' weights (WARM): the worker of job.Average."""

from pathlib import Path
from typing import Any

from w2s.models.warm import warm
from w2s.models.world import World
from w2s.workers.job import Average


def run(folder: Path, job: Average, world: World) -> dict[str, Any]:
    """Do the job in `folder`; returns the summary for done.json."""
    if world.rank == 0:
        warm([folder / path for path in job.models], folder / "model")
    return {"models": len(job.models)}
