"""The examples of a job, and how many of them a model could not read whole."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from w2s.models.records import Loaded
from w2s.models.world import World
from w2s.store.records import BadInput, Example, read_rows

KEPT = 8  # files: a warm worker serves many jobs on the same questions


def read_examples(path: Path) -> tuple[Example, ...]:
    """The examples in the file; an unchanged file is read only once."""
    status = path.stat()
    return _read(path.resolve(), status.st_mtime_ns, status.st_size)


@functools.lru_cache(KEPT)
def _read(path: Path, changed_ns: int, size: int) -> tuple[Example, ...]:
    return tuple(read_rows(path, Example))


def read_sets(
    folder: Path, files: Mapping[str, str], only: Mapping[str, Sequence[str]] | None = None
) -> dict[str, list[Example]]:
    """Name -> the examples in its file, limited to the ids in `only[name]` if any; BadInput if a set is empty."""
    sets = {name: list(read_examples(folder / path)) for name, path in files.items()}
    for name, ids in (only or {}).items():
        kept = set(ids)
        sets[name] = [example for example in sets[name] if example.id in kept]
    for name, examples in sets.items():
        if not examples:
            raise BadInput(f"{files[name]}: there is no example in it")
    return sets


def count_cuts(
    loaded: Loaded, sets: Mapping[str, Sequence[Example]], by: str, world: World, *, tokens: int | None = None
) -> dict[str, Any]:
    """{"cut": {set: {"prompts", "answers", "of", "tokens", "by"}}} for the sets in which something was cut, or {}.

    "prompts" counts prompts that lost their beginning, "answers" questions with an answer that lost its end, "of" all
    questions; "tokens" is how many the model `by` reads. done.json keeps it, and the pipeline prints it. Every process
    must call this, after it has encoded its share of the examples (see parts.make_parts) or all of them.
    """
    cut_S2 = torch.zeros(len(sets), 2, dtype=torch.long)
    for at, rows in enumerate(sets.values()):
        for example in rows[world.rank :: world.size]:
            cut_S2[at] += torch.tensor(loaded.cuts.get(example.id, (False, False)))
    cuts = {
        name: {"prompts": prompts, "answers": answers, "of": len(rows), "tokens": tokens or loaded.max_tokens, "by": by}
        for (name, rows), (prompts, answers) in zip(sets.items(), world.sum(cut_S2).tolist(), strict=True)
        if prompts or answers
    }
    return {"cut": cuts} if cuts else {}
