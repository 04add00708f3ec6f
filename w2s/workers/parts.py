"""Rows shared out over the processes of a job, and their results chunk by chunk on the disk.

A killed job that is run again goes on with the chunks that are missing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from w2s.models.train import World
from w2s.store.log import progress
from w2s.store.records import BadInput, Example
from w2s.workers.examples import read_examples

Part = TypeVar("Part")


def read_sets(folder: Path, job: dict[str, Any]) -> dict[str, list[Example]]:
    """The sets of a job's "examples", those of "only" (name -> ids) alone; BadInput where one is empty."""
    sets = {name: list(read_examples(folder / path)) for name, path in job["examples"].items()}
    for name, ids in (job.get("only") or {}).items():
        wanted = set(ids)
        sets[name] = [example for example in sets[name] if example.id in wanted]
    for name, examples in sets.items():
        if not examples:
            raise BadInput(f"{job['examples'][name]}: there is no example in it")
    return sets


def make_parts(
    folder: Path,
    sets: Mapping[str, Sequence[Example]],
    world: World,
    make: Callable[[list[Example], int], Iterator[Part]],
    save: Callable[[Path, Part], int],
) -> dict[str, list[Path]]:
    """Each set's chunks, of all processes, as folders; `drop_parts` when they have been put together.

    make(examples, skip) gives the chunks of this process' examples without the first `skip`; save(folder, chunk) writes
    one and returns how many examples it was.
    """
    parts, mine = parts_of(folder, world), {name: list(rows[world.rank :: world.size]) for name, rows in sets.items()}
    partial = parts / f"partial-{world.rank}"
    with progress(sum(map(len, mine.values())), "examples") as advance:
        for name, rows in mine.items():
            there = len(list(parts.glob(f"{name}.{world.rank}.*")))
            for at, part in enumerate(make(rows, there), there):
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
                advance(save(partial, part))
                partial.rename(parts / f"{name}.{world.rank}.{at}")
    world.barrier()
    return {name: sorted(parts.glob(f"{name}.*.*")) for name in sets}


def drop_parts(folder: Path, world: World) -> None:
    """All parts or none: a job killed in the midst of it must not find some of them and take them for the first."""
    dropped = folder / "parts-dropped"
    shutil.rmtree(dropped, ignore_errors=True)
    parts_of(folder, world).rename(dropped)
    shutil.rmtree(dropped, ignore_errors=True)


def parts_of(folder: Path, world: World) -> Path:
    return folder / f"parts-of-{world.size}"
