"""Safetensors files read and written one tensor at a time, for models that do not fit into memory twice."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from w2s.models.folders import first_words
from w2s.store.files import open_whole
from w2s.store.records import BadInput

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Spec(NamedTuple):
    """A tensor's type and shape."""

    dtype: torch.dtype
    shape: tuple[int, ...]


class Weights:
    """The tensors in the safetensors files of a model's folder, in one file or several; a context manager."""

    def __init__(self, folder: Path):
        self.folder, self._files, self._open = folder, find_files(folder), ExitStack()

    def __enter__(self) -> Weights:
        self._handles = {}
        try:
            for file in sorted(set(self._files.values())):
                self._handles[file] = self._open.enter_context(safe_open(file, framework="pt"))
            if not self._files:
                (file,) = self._handles or (self.folder / WEIGHTS,)
                self._handles[file] = self._open.enter_context(safe_open(file, framework="pt"))
                self._files = dict.fromkeys(self._handles[file].keys(), file)
            self.specs = {name: self._spec(name) for name in sorted(self._files)}
        except (OSError, SafetensorError, KeyError) as error:
            self._open.close()
            raise BadInput(f"{self.folder}: its weights are not readable: {first_words(error)}") from None
        return self

    def __exit__(self, *_) -> None:
        self._open.close()

    def _spec(self, name: str) -> Spec:
        part = self._handles[self._files[name]].get_slice(name)
        return Spec(DTYPES[part.get_dtype()], tuple(part.get_shape()))

    def read(self, name: str) -> Tensor:
        return self._handles[self._files[name]].get_tensor(name)


def find_files(folder: Path) -> dict[str, Path]:
    """Tensor -> its file, as the index of a sharded model says; empty for a model in one file."""
    index = folder / INDEX
    if (folder / WEIGHTS).is_file():
        return {}
    if not index.is_file():
        raise BadInput(f"{folder}: no {WEIGHTS} and no {INDEX}; allowed: a folder with a model's safetensors")
    try:
        return {name: folder / Path(file).name for name, file in json.loads(index.read_text())["weight_map"].items()}
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise BadInput(f"{index}: not readable: {first_words(error)}") from None


def write(path: Path, specs: Mapping[str, Spec], tensors: Iterable[Tensor]) -> str:
    """Write a safetensors file, tensor by tensor in the order of `specs`; returns its sha256.

    The format: https://github.com/huggingface/safetensors (8 bytes with the header's length, the header, the values).
    """
    header, start = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape) in specs.items():
        end = start + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
        start = end
    words = json.dumps(header, separators=(",", ":")).encode()
    words += b" " * (-len(words) % 8)
    digest = hashlib.sha256()
    with open_whole(path, "wb") as file:
        for part in (len(words).to_bytes(8, "little"), words):
            digest.update(part)
            file.write(part)
        for (name, spec), tensor in zip(specs.items(), tensors, strict=True):
            if Spec(tensor.dtype, tuple(tensor.shape)) != spec:
                raise ValueError(f"{name}: {tensor.dtype} of shape {tuple(tensor.shape)} was to be {spec}")
            data = as_bytes(tensor)
            digest.update(data)
            file.write(data)
    return digest.hexdigest()


def as_bytes(tensor: Tensor) -> memoryview:
    """The values of a tensor as they stand in a file."""
    return memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
