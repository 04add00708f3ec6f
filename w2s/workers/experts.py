"""Dense models of one base as the experts of one sparse model: the worker of job.Experts."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from w2s.models import experts
from w2s.models.folders import name_damage
from w2s.models.sparse import LARGEST_CONDITION
from w2s.models.world import World
from w2s.store.files import write_json
from w2s.store.log import say
from w2s.store.records import BadInput, Weights, read_arrays
from w2s.workers.examples import read_examples
from w2s.workers.job import Experts


def run(folder: Path, job: Experts, world: World) -> dict[str, Any]:
    """Do the job in `folder`; returns the summary for done.json."""
    if world.rank > 0:
        return {}
    sources = [find_model(folder, path) for path in job.models]
    base = None if job.base is None else find_model(folder, job.base)
    for source in (*sources, *([base] if base else [])):
        with name_damage(source):
            pass
    sizes = experts.Sizes(len(sources), job.active, job.balance)
    loaded = experts.assemble(sources, job.weights, sizes, base=base, layers=job.layers)
    facts = experts.count_parameters(loaded.module)
    facts |= {"experts": len(sources), "active": job.active, "router": "zeros"}
    if job.examples is not None:
        facts |= {"router": "towards examples", **turn(loaded, folder, job)}
    elif job.noise and job.active < len(sources):
        experts.scatter(loaded.module, job.seed, job.noise)
        facts |= {"router": f"drawn, standard deviation {job.noise:g}"}
    shutil.rmtree(folder / "model", ignore_errors=True)
    experts.save(loaded, folder / "model", sources[0])
    write_json(folder / "experts.json", facts)
    return facts


def find_model(folder: Path, path: str) -> str:
    """A folder, relative to the job's, or else a name of the hub."""
    return str(folder / path) if (folder / path).exists() else path


def turn(loaded: experts.Loaded, folder: Path, job: Experts) -> dict[str, Any]:
    """Turn the routers towards the examples that the experts are for; the facts of it."""
    examples = read_examples(folder / job.examples)
    if len(job.towards) != len(job.models):
        raise BadInput(f"towards: {len(job.towards)} files given; allowed: {len(job.models)}, one for each expert")
    rows = []
    for path in job.towards:
        weights = read_arrays(folder / path, Weights)
        by_id = dict(zip(weights.ids.tolist(), weights.weight_N.tolist(), strict=True))
        weight_N = np.array([by_id.get(row.id, 0.0) for row in examples])
        if not weight_N.sum() > 0:
            raise BadInput(f"towards: {path} gives no example any weight, so its expert has none to be turned towards")
        rows.append(weight_N / weight_N.sum())
    largest = experts.direct(loaded, examples, np.array(rows))
    if largest > LARGEST_CONDITION:
        say(
            f"routers: the rows of a layer have a condition number of {largest:.3g}, above "
            f"{LARGEST_CONDITION:g}: the experts' examples look alike to it, and it hardly tells them apart"
        )
    return {"rows": len(examples), "condition": largest if np.isfinite(largest) else None}
