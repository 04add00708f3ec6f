"""Examples shared out over the processes of a job; their results are written chunk by chunk.

A killed job that is run again goes on with the chunks that are missing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from w2s.models.train import World
from w2s.store.log import progress
from w2s.store.records import Example

Part = TypeVar("Part")


def make_parts(
    folder: Path,
    sets: Mapping[str, Sequence[Example]],
    world: World,
    make: Callable[[list[Example], int], Iterator[Part]],
    save: Callable[[Path, Part], int],
) -> dict[str, list[Path]]:
    """Each set's chunks, of all processes, as folders; call `drop_parts` when they have been put together.

    make(examples, skip) yields the chunks of this process' examples without the first `skip`; save(folder, chunk)
    writes one and returns how many examples it covers.
    """
    parts, mine = locate_parts(folder, world), {name: rows[world.rank :: world.size] for name, rows in sets.items()}
    partial = parts / f"partial-{world.rank}"
    with progress(sum(map(len, mine.values())), "examples") as advance:
        for name, rows in mine.items():
            there = len(list(parts.glob(f"{name}.{world.rank}.*")))
            for at, part in enumerate(make(list(rows), there), there):
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
                advance(save(partial, part))
                partial.rename(parts / f"{name}.{world.rank}.{at}")
    world.barrier()
    return {name: sorted(parts.glob(f"{name}.*.*")) for name in sets}


def drop_parts(folder: Path, world: World) -> None:
    """All parts or none: a job killed here must not find some of them later and take them for the first ones."""
    dropped = folder / "parts-dropped"
    shutil.rmtree(dropped, ignore_errors=True)
    locate_parts(folder, world).rename(dropped)
    shutil.rmtree(dropped, ignore_errors=True)


def locate_parts(folder: Path, world: World) -> Path:
    return folder / f"parts-of-{world.size}"
