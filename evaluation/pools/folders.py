"""Checks of output paths: results of other work are never silently replaced."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from w2s.config.registry import differences
from w2s.store.records import BadInput

LABEL_FILES = {"labels.json", "labels.npz", "questions.jsonl"}


def read_report(folder: Path) -> dict[str, Any]:
    """The content of combine.json; {} if it cannot be read."""
    report = folder / "combine.json"
    if not report.is_file():
        raise BadInput(f"{folder}: no combine.json there; it is written by `w2s combine`")
    try:
        content = json.loads(report.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def check_folder(folder: Path) -> None:
    """BadInput, before any work, if a file is in the way of this folder."""
    nearest = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if nearest.is_file():
        raise BadInput(f"out: {nearest} is a file; allowed: a folder")


def check_results(folder: Path, recipe: dict[str, Any], known: Sequence[str]) -> None:
    """BadInput if a folder of `w2s combine` holds anything else, or the results of another recipe."""
    names = file_names(folder)
    strange = [name for name in names if name not in known]
    if strange and "combine.json" not in names:
        raise in_use(folder, f"it holds {strange[0]}, and no combine.json")
    if "combine.json" in names:
        try:
            earlier = json.loads((folder / "combine.json").read_text(encoding="utf-8"))["asked"]
        except (OSError, ValueError, KeyError, TypeError):
            raise in_use(folder, "its combine.json is damaged, or of another version") from None
        check_same(folder, earlier, recipe)


def check_predictions(out: Path, recipe: dict[str, Any], *, replace: bool) -> None:
    """BadInput if a file holds no predictions or, without `replace`, those of another recipe."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_folder(out.parent)
    if out.is_dir():
        raise BadInput(f"out: {out} is a folder; allowed: a file")
    if not out.is_file():
        return
    if out.read_bytes()[:4] != b"PAR1":
        raise BadInput(f"out: {out} is in use: it is not parquet; --out FILE for another place")
    if not replace:
        try:
            earlier = json.loads((pq.read_schema(out).metadata or {})[b"w2s"])
        except (pa.ArrowException, OSError, KeyError, ValueError):
            raise in_use(out, "`w2s combine apply` of this version did not write it") from None
        check_same(out, earlier, recipe)


def check_labels(out: Path, recipe: dict[str, Any], *, replace: bool) -> None:
    """BadInput if a folder holds more than labels or, without `replace`, the labels of another recipe."""
    check_folder(out)
    names = set(file_names(out))
    known = LABEL_FILES if names & {"labels.json", "labels.npz"} else set()  # questions alone may be the user's
    if strange := sorted(names - known):
        holds = f"it holds {strange[0]}, and not labels alone"
        raise BadInput(f"out: {out} is in use: {holds}; --out DIR for another place")
    if replace or not names or names == {"labels.npz"}:  # the last: of a run that was killed
        return
    try:
        earlier = json.loads((out / "labels.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise in_use(out, "its labels.json is missing or damaged") from None
    check_same(out, earlier, recipe)


def check_same(out: Path, earlier: Any, recipe: dict[str, Any]) -> None:
    """BadInput with the first two differences between two recipes."""
    if changed := list(differences(earlier, json.loads(json.dumps(recipe)))):
        raise in_use(out, "; ".join(changed[:2]))


def in_use(out: Path, reason: str) -> BadInput:
    return BadInput(f"out: {out} is in use: {reason}; --out for another place, --replace to replace it")


def file_names(folder: Path) -> Iterable[str]:
    """The names in a folder, sorted, without those that a killed run left unfinished."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [name for name in names if not name.endswith(".new")]
