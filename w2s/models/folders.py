"""What can be told of a model's folder without reading its weights (and without torch)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from w2s.store.artifacts import check_artifact

INDEX, WEIGHTS = "model.safetensors.index.json", "model.safetensors"
COUNTS = re.compile(r"^(num|n|encoder|decoder)_(\w+_)?(layers?|experts)$")  # of parts, each with weights of its own
SIZES = ("num_labels", "vocab_size", "hidden_size", "n_embd", "d_model", "n_positions")  # of a tensor, so below all
HARMLESS = 1000  # so many parts are built in a moment, whether there are weights for them or not
ARTIFACT = re.compile(r".+-[0-9a-f]{16}")


def absent(source: str) -> str | None:
    """Why no model can be read at `source`; None where there is one, or where it can be a name on the hub."""
    folder = Path(source)
    if not (source.startswith((".", "/", "~")) or folder.exists()):
        return None
    if not (folder / "config.json").is_file():
        return f"{source}: there is no such folder, or it has no config.json"
    config, index = read_json(folder / "config.json"), read_json(folder / INDEX)
    if config is None:
        return f"{source}: config.json is damaged: a JSON mapping is expected"
    if (folder / INDEX).exists():
        files = (index or {}).get("weight_map")
        if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
            return f"{source}: {INDEX} is damaged: a mapping of tensors to files is expected"
        if outside := next((file for file in files.values() if Path(file).name != file or file == ".."), None):
            return f"{source}: {INDEX} names {outside!r}; allowed: files of this folder"
    tensors, numbers = held(folder)
    for key, size in sizes(config):
        if COUNTS.search(key) and size > max(tensors, HARMLESS):
            return f"{source}: config.json: {key}: {size} given; its weights hold {tensors} tensors"
        if key in SIZES and size > max(numbers, HARMLESS**2):
            return f"{source}: config.json: {key}: {size} given; its weights hold {numbers} numbers"
    return None


def damage(source: str) -> None:
    """A BadInput where `source` lies in an artifact that is not as it was written."""
    for folder in (Path(source).resolve(), *Path(source).resolve().parents):
        if ARTIFACT.fullmatch(folder.name) and folder.parent.name == "store":
            check_artifact(folder)


def depth(source: str) -> float:
    """How many layers the model has by its config.json; infinite where that does not say."""
    found = (read_json(Path(source) / "config.json") or {}).get("num_hidden_layers")
    return found if isinstance(found, int) else math.inf


def sizes(config: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Every key with a whole number, also in the parts of a config (text_config, ...)."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from sizes(value)
        elif isinstance(value, int):
            yield str(key), value


def held(folder: Path) -> tuple[float, float]:
    """How many tensors the weights are, and how many numbers, by header or index; infinite where these do not say."""
    if index := read_json(folder / INDEX):
        return len(index["weight_map"]), math.inf
    try:
        with open(folder / WEIGHTS, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > (folder / WEIGHTS).stat().st_size:
                return math.inf, math.inf
            found = [one for name, one in json.loads(file.read(size)).items() if name != "__metadata__"]
            return len(found), sum(math.prod(one["shape"]) for one in found)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # whoever reads the model says what is wrong
        return math.inf, math.inf


def read_json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
