"""One model's opinion on sets of examples: the worker of job.Predict.

Rows are shared out over the processes and written chunk by chunk, so a killed job resumes with the missing chunks.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from w2s.models import load, score
from w2s.models.kinds import find_kind, load_fitted
from w2s.models.records import Estimator
from w2s.models.world import World
from w2s.store.records import Example, Predictions, align, concatenate, read_arrays, write_arrays
from w2s.workers.embed import find_states, open_body, read_base
from w2s.workers.examples import count_cuts, read_sets
from w2s.workers.job import Predict, Rank, Sample
from w2s.workers.parts import Chunk, drop_parts, make_parts


def run(folder: Path, job: Predict, world: World) -> dict[str, Any]:
    """Do the job in `folder`; returns the summary for done.json."""
    sets = read_sets(folder, job.examples, job.only)
    judge, loaded = make_judge(folder, job, world)

    def make(rows: list[Example], skip: int) -> Iterator[Chunk]:
        for opinions in judge(rows, skip):
            yield len(opinions.ids), {"opinions.npz": opinions}

    parts = make_parts(folder, sets, world, make)
    cut = {} if loaded is None else count_cuts(loaded, sets, job.by, world)
    if world.rank == 0:
        for name, examples in sets.items():
            opinions = [read_arrays(part / "opinions.npz", Predictions) for part in parts[name]]
            ids = np.array([example.id for example in examples])
            write_arrays(folder / f"{name}.npz", align(concatenate(opinions), ids))
        drop_parts(folder, world)
    return {"rows": {name: len(examples) for name, examples in sets.items()}, **cut}


def make_judge(folder: Path, job: Predict, world: World) -> tuple[Callable, load.Loaded | None]:
    """(examples, chunks to skip) -> Predictions chunk by chunk, and the network if this job has one."""
    if job.model is None and isinstance(find_kind(job.base.learner.model.kind), Estimator):
        return functools.partial(abstain, by=job.by), None
    estimator = load_fitted(folder / job.model) if job.model is not None else None
    if estimator is None:
        loaded = open_model(folder, job.model, job, world)
        return lambda rows, skip: score.predict(loaded, rows, by=job.by, skip=skip), loaded
    kind, fitted = estimator
    if kind.reads_states:
        source = folder / job.states if job.states else open_body(read_base(folder / job.model), job.runtime, world)

        def read(rows: list[Example], skip: int) -> Iterator[Predictions]:
            for states in find_states(source, rows, skip=skip):
                yield score.as_predictions(states.ids, kind.scores(fitted, states), states.count_N, job.by)

        return read, source if isinstance(source, load.Loaded) else None

    def judge(rows: list[Example], skip: int) -> Iterator[Predictions]:
        if rows and not skip:
            count_N = np.array([len(row.choices) for row in rows])
            scores_NK = kind.scores(fitted, rows)
            yield score.as_predictions(np.array([row.id for row in rows]), scores_NK, count_N, job.by)

    return judge, None


def abstain(rows: list[Example], skip: int, *, by: str) -> Iterator[Predictions]:
    """The opinion of an Estimator that was not fitted: none."""
    if rows and not skip:
        count_N = np.array([len(row.choices) for row in rows])
        scores_NK = np.full((len(rows), count_N.max()), np.nan)
        yield score.as_predictions(np.array([row.id for row in rows]), scores_NK, count_N, by)


def open_model(folder: Path, model: str | None, job: Predict | Rank | Sample, world: World) -> load.Loaded:
    """The saved model in the folder `model`, or the job's untrained base."""
    if model is not None:
        return load.load_folder(folder / model, device=world.device)
    train, where = job.base.learner.train, {"path": job.base.path, "device": world.device}
    where["trust_remote_code"] = job.runtime.trust_remote_code
    untrained = dataclasses.replace(job.base.learner.model, trainable="all")  # without adapters
    return load.load(untrained, precision=train.precision, max_tokens=train.max_tokens, **where)
