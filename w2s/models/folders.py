"""What a model's folder says without reading its weights (or torch): whether it is whole, and w2s's notes about it."""

import contextlib
import dataclasses
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from w2s.config.fields import Model
from w2s.models import gguf
from w2s.store.artifacts import check_artifact
from w2s.store.hidden import hide_values
from w2s.store.records import BadInput

INDEX, WEIGHTS = "model.safetensors.index.json", "model.safetensors"
COUNTS = re.compile(r"^(num|n|encoder|decoder)_(\w+_)?(layers?|experts)$")  # parts with weights of their own
SIZES = (
    "num_labels",
    "vocab_size",
    "hidden_size",
    "n_embd",
    "d_model",
    "n_positions",
)  # dimensions of tensors
HARMLESS = 1000  # so few parts are built in a moment, with or without weights
MARKS = "w2s.json"
ARTIFACT = re.compile(r".+-[0-9a-f]{16}")


def read_marks(folder: str | Path) -> dict[str, Any]:
    """What w2s wrote about the model in a folder; {} if nothing."""
    file = Path(folder) / MARKS
    return json.loads(file.read_text()) if file.is_file() else {}


def write_marks(folder: str | Path, marks: dict[str, Any]) -> None:
    (Path(folder) / MARKS).write_text(json.dumps(marks, indent=1) + "\n")


def describe(model: Model) -> dict[str, Any]:
    """The model as `write_marks` takes it, without secrets in its path."""
    return dataclasses.asdict(model) | hide_values({"path": model.path, "revision": model.revision})


def read_model(folder: str | Path) -> tuple[Model, dict[str, Any]]:
    """The model saved in a folder, and all that w2s wrote about it; BadInput if the folder holds no saved model."""
    marks = read_marks(folder)
    if "model" not in marks:
        raise BadInput(f"{folder}: not a saved model: {MARKS} with the key 'model' is missing")
    return Model(**marks["model"]), marks


@contextlib.contextmanager
def name_damage(source: str) -> Iterator[None]:
    """Turn any failure of transformers to read `source` into one line (BadInput), and keep transformers quiet."""
    quiet()
    if why := absent(source):
        raise BadInput(f"model.path: {why}")
    try:
        yield
    except BadInput:
        raise
    except Exception as error:  # a damaged folder can make a library raise anything
        raise BadInput(f"model.path: {source}: not readable: {first_words(error)}") from None


def first_words(error: Exception) -> str:
    """The error's message as one line of at most 300 characters."""
    return " ".join(str(error).split())[:300]


def quiet() -> None:
    """Silence transformers' progress bars and advice: a job's output is only its own lines."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def locate(source: str, root: str | None = None) -> Path | None:
    """The folder or GGUF file of a model: `source` as a path, or its place under `root` (see config.Models); None for a
    builtin model or a name of the hub. Neither need exist."""
    path = Path(source)
    if source.startswith("builtin:"):
        return None
    if source.startswith((".", "/", "~")) or path.exists():
        return path
    if root is None:
        return path if path.suffix == gguf.ENDING else None
    file = Path(root) / f"{source}{gguf.ENDING}"
    return file if file.is_file() else Path(root) / source


def absent(source: str, root: str | None = None) -> str | None:
    """Why no model can be read at `source`; None if one can, or if it may be a hub name."""
    folder = locate(source, root)
    if folder is None:
        return None
    if root is not None and folder != Path(source) and not folder.exists():
        return f"{source}: models.root holds neither the folder {folder} nor the file {folder}{gguf.ENDING}"
    if folder.suffix == gguf.ENDING and not folder.is_dir():
        return gguf.fault(folder)
    if not (folder / "config.json").is_file():
        named = source if folder == Path(source) else folder
        return f"{named}: there is no such folder, or it has no config.json"
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
    """BadInput if `source` is in an artifact that has changed since it was written."""
    for folder in (Path(source).resolve(), *Path(source).resolve().parents):
        if ARTIFACT.fullmatch(folder.name) and folder.parent.name == "store":
            check_artifact(folder)


def depth(source: str, root: str | None = None) -> float:
    """Number of layers by the model's config.json or GGUF file; infinite if it does not say."""
    place = locate(source, root)
    if place is not None and place.is_file():
        return math.inf if gguf.fault(place) else gguf.read_header(place).layers
    layers = (read_json((place or Path(source)) / "config.json") or {}).get("num_hidden_layers")
    return layers if isinstance(layers, int) else math.inf


def may_chat(source: str, root: str | None) -> bool:
    """Whether the tokenizer in a folder has a chat template; true where only loading can tell, as for a hub name."""
    if source.startswith("builtin:"):
        return False
    folder = locate(source, root)
    if folder is None or not folder.is_dir():
        return True
    files = any(folder.glob("chat_template.*")) or (folder / "additional_chat_templates").is_dir()
    return files or bool((read_json(folder / "tokenizer_config.json") or {}).get("chat_template"))


def sizes(config: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Every key with an integer value, also in nested configs (text_config, ...)."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from sizes(value)
        elif isinstance(value, int):
            yield str(key), value


def held(folder: Path) -> tuple[float, float]:
    """Number of tensors and of values in the weights, by header or index; infinite if these do not say."""
    if index := read_json(folder / INDEX):
        return len(index["weight_map"]), math.inf
    try:
        with open(folder / WEIGHTS, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > (folder / WEIGHTS).stat().st_size:
                return math.inf, math.inf
            header = json.loads(file.read(size))
            tensors = [tensor for name, tensor in header.items() if name != "__metadata__"]
            return len(tensors), sum(math.prod(tensor["shape"]) for tensor in tensors)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # reading the model will name the damage
        return math.inf, math.inf


def read_json(path: Path) -> dict[str, Any] | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None
