"""The records of one stage of a finished run, read by their type."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from w2s.store import records
from w2s.store.artifacts import MANIFEST, check_artifact, read_listing

ROWS = (records.Example, records.Gold, records.Outcome)
ARRAYS = (records.Predictions, records.PseudoLabels, records.Rewards, records.Weights)
ARRAYS += (records.TokenRanks, records.TokenTargets, records.TokenWeights)


def open_stage(run: Path, stage: str | Mapping[str, Any]) -> dict[str, Any]:
    """File name without its extension -> its records, for the run's stage with this title or these tags."""
    folder = check_artifact(run.parent / "store" / find_stage(run, stage))
    paths = [path for path in sorted(folder.iterdir()) if path.suffix in READERS and path.name != MANIFEST]
    return {path.stem: READERS[path.suffix](path) for path in paths}


def find_stage(run: Path, stage: str | Mapping[str, Any]) -> str:
    """The folder of the only stage with this title or these tags."""

    def is_meant(listed: Mapping[str, Any]) -> bool:
        if isinstance(stage, str):
            return stage in (listed["title"], listed["title"].partition(" · ")[2])
        return all(listed["tags"].get(key) == value for key, value in stage.items())

    stages = [listed for listed in read_listing(run)["stages"] if is_meant(listed)]
    if not stages:
        raise records.BadInput(f"{run}: no stage {stage!r}; titles and tags are in {run / 'stages.json'}")
    if len(stages) > 1:
        titles = ", ".join(repr(listed["title"]) for listed in stages[:3])
        raise records.BadInput(f"{run}: {len(stages)} stages match {stage!r} ({titles}, ...)")
    return stages[0]["folder"]


def read_lines(path: Path) -> list[Any]:
    """Rows as records if their fields match one, else as mappings."""
    rows = [json.loads(line) for line in path.read_bytes().split(b"\n") if line.strip()]
    kind = find_kind(ROWS, rows[0]) if rows else None
    return rows if kind is None else records.read_rows(path, kind)


def read_npz(path: Path) -> Any:
    """An array record, or a mapping of arrays if no record has these fields."""
    arrays = records.load_arrays(path)
    kind = find_kind(ARRAYS, arrays)
    return arrays if kind is None else records.read_arrays(path, kind)


def find_kind(kinds: tuple[type, ...], row: Mapping[str, Any]) -> type | None:
    """The record type with these fields."""
    return next((kind for kind in kinds if row.keys() == {field.name for field in dataclasses.fields(kind)}), None)


def read_value(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


READERS = {".jsonl": read_lines, ".npz": read_npz, ".json": read_value}
