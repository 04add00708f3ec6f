"""Examples shared out over the processes of a job, with results written chunk by chunk.

A killed job that is run again makes only the missing chunks.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from w2s.models.world import World
from w2s.store.log import progress
from w2s.store.records import Example, write_arrays

Chunk = tuple[int, dict[str, Any]]
"""How many examples a chunk covers, and its files by name: array records (.npz) and rows (.jsonl)."""
Make = Callable[[list[Example], int], Iterator[Chunk]]
"""(examples, skip) -> the chunks of these examples without the first `skip`."""


def make_parts(folder: Path, sets: Mapping[str, Sequence[Example]], world: World, make: Make) -> dict[str, list[Path]]:
    """Each set's chunks, of all processes, as folders; call `drop_parts` after joining them."""
    parts, mine = locate_parts(folder, world), {name: rows[world.rank :: world.size] for name, rows in sets.items()}
    partial = parts / f"partial-{world.rank}"
    with progress(sum(map(len, mine.values())), "examples") as advance:
        for name, rows in mine.items():
            there = len(list(parts.glob(f"{name}.{world.rank}.*")))
            for at, (count, files) in enumerate(make(list(rows), there), there):
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
                for file, content in files.items():
                    if file.endswith(".npz"):
                        write_arrays(partial / file, content)
                    else:
                        (partial / file).write_text("".join(json.dumps(row) + "\n" for row in content))
                advance(count)
                partial.rename(parts / f"{name}.{world.rank}.{at}")
    world.barrier()
    return {name: sorted(parts.glob(f"{name}.*.*")) for name in sets}


def drop_parts(folder: Path, world: World) -> None:
    """Delete all parts or none: a job killed here must not later take the remaining ones for the first ones."""
    dropped = folder / "parts-dropped"
    shutil.rmtree(dropped, ignore_errors=True)
    locate_parts(folder, world).rename(dropped)
    shutil.rmtree(dropped, ignore_errors=True)


def locate_parts(folder: Path, world: World) -> Path:
    return folder / f"parts-of-{world.size}"
