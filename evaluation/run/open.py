"""The records of one stage of a finished run, read by what they are."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from w2s.store.artifacts import MANIFEST, check_artifact, read_listing
from w2s.store.records import (
    BadInput,
    Example,
    Gold,
    Outcome,
    Predictions,
    PseudoLabels,
    Rewards,
    TokenRanks,
    TokenTargets,
    TokenWeights,
    Weights,
    load_arrays,
    read_arrays,
    read_rows,
)

ROWS = (Example, Gold, Outcome)
ARRAYS = (Predictions, PseudoLabels, Rewards, TokenRanks, TokenTargets, TokenWeights, Weights)


def open_stage(run: Path, stage: str | Mapping[str, Any]) -> dict[str, Any]:
    """File name without its ending -> its records: of the stage of a run with this title, or with these tags."""
    folder = check_artifact(run.parent / "store" / find_stage(run, stage))
    paths = [path for path in sorted(folder.iterdir()) if path.suffix in READERS and path.name != MANIFEST]
    return {path.stem: READERS[path.suffix](path) for path in paths}


def find_stage(run: Path, stage: str | Mapping[str, Any]) -> str:
    """The folder of the one stage that is meant."""
    found = [
        listed
        for listed in read_listing(run)["stages"]
        if (
            stage in (listed["title"], listed["title"].partition(" · ")[2])
            if isinstance(stage, str)
            else all(listed["tags"].get(key) == value for key, value in stage.items())
        )
    ]
    if not found:
        raise BadInput(f"{run}: no stage {stage!r}; titles and tags stand in {run / 'stages.json'}")
    if len(found) > 1:
        titles = ", ".join(repr(listed["title"]) for listed in found[:3])
        raise BadInput(f"{run}: {len(found)} stages are meant by {stage!r} ({titles}, ...)")
    return found[0]["folder"]


def read_lines(path: Path) -> list[Any]:
    """Rows as records where their fields are those of one, else as mappings."""
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    kind = next((kind for kind in ROWS if rows and rows[0].keys() == field_names(kind)), None)
    return rows if kind is None else read_rows(path, kind)


def read_npz(path: Path) -> Any:
    """An array record, or a mapping of arrays where no record has these fields."""
    arrays = load_arrays(path)
    kind = next((kind for kind in ARRAYS if arrays.keys() == field_names(kind)), None)
    return arrays if kind is None else read_arrays(path, kind)


def read_value(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def field_names(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


READERS = {".jsonl": read_lines, ".npz": read_npz, ".json": read_value}
