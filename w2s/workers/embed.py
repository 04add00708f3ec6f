"""A frozen model's hidden states of examples, for the learners that read them: the worker of job.Embed.

Examples are shared out over the processes and written chunk by chunk, so a killed job resumes with the missing chunks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from w2s.config.fields import Learner, Runtime, Train
from w2s.data.rows import hash_folder
from w2s.models.folders import read_model
from w2s.models.records import Loaded, States
from w2s.models.states import join, load_body, make_states, read_states, write_states
from w2s.models.world import World
from w2s.store.hidden import hide_values
from w2s.store.records import BadInput, Example, read_arrays
from w2s.workers.examples import count_cuts, read_sets
from w2s.workers.job import Base, Embed
from w2s.workers.parts import Chunk, drop_parts, make_parts

PART = "states.npz"


def run(folder: Path, job: Embed, world: World) -> dict[str, Any]:
    """Do the job in `folder`; returns the summary for done.json."""
    sets = read_sets(folder, {Path(job.examples).stem: job.examples})
    ((name, examples),) = sets.items()
    loaded = open_body(Base(job.learner, job.path), job.runtime, world)

    def make(rows: list[Example], skip: int) -> Iterator[Chunk]:
        for chunk in make_states(loaded, rows, skip=skip):
            yield len(chunk.ids), {PART: chunk}

    parts = make_parts(folder, sets, world, make)[name]
    cut = count_cuts(loaded, sets, job.learner.model.path, world)
    if world.rank == 0:
        ids = np.array([example.id for example in examples])
        write_states(folder, join([read_arrays(part / PART, States) for part in parts], ids))
        drop_parts(folder, world)
    return {"rows": len(examples), **cut}


def open_body(base: Base, runtime: Runtime, world: World) -> Loaded:
    where = {"path": base.path, "device": world.device, "trust_remote_code": runtime.trust_remote_code}
    train = base.learner.train
    return load_body(base.learner.model, precision=train.precision, max_tokens=train.max_tokens, **where)


def find_states(source: Path | Loaded, examples: Sequence[Example], *, skip: int = 0) -> Iterator[States]:
    """The examples' states: all from a folder, or made by a frozen model chunk by chunk, without the first `skip`."""
    if isinstance(source, Loaded):
        yield from make_states(source, examples, skip=skip)
    elif examples and not skip:
        yield read_states(source, examples)


# --- the base of a saved learner -------------------------------------------------------------------------------------


def describe_base(base: Base) -> dict[str, Any]:
    """What w2s.json says of the frozen model that a saved learner reads; a folder is named with its content."""
    path = base.path or base.learner.model.path
    content = hash_folder(Path(path))
    where = {"path": str(Path(path).resolve()) if content else path, "content": content}
    train = base.learner.train
    return {"base": hide_values(where), "max_tokens": train.max_tokens, "precision": train.precision}


def read_base(folder: Path) -> Base:
    """The frozen model of the learner saved in `folder`; BadInput if it is gone or has changed."""
    model, marks = read_model(folder)
    path, content = marks["base"]["path"], marks["base"]["content"]
    if content and hash_folder(Path(path)) != content:
        gone = "has changed" if Path(path).is_dir() else "is gone"
        raise BadInput(f"{folder}: its frozen model {path} {gone}; the head is of no use with another")
    return Base(Learner(model, Train(max_tokens=marks["max_tokens"], precision=marks["precision"])), path)
