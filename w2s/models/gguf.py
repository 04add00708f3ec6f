"""What the header of a GGUF file says about its model, read without its weights (or torch).

GGUF is the format of llama.cpp and Ollama (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): metadata, a
table of tensors, and their data, mostly quantised. `workers.dequantise` reads the weights.
"""

import importlib.util
import math
import mmap
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from w2s.store.records import BadInput

ENDING = ".gguf"
MAGIC, VERSIONS = b"GGUF", (2, 3)
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, ARRAY = 8, 9
"""Types of metadata values: fixed-size numbers (type -> struct's letter), texts and arrays."""
ARCHITECTURES = (
    *("bloom", "falcon", "gemma2", "gemma3", "gemma4", "gpt-oss", "gpt2", "lfm2", "llama", "mamba", "minimax-m2"),
    *("mistral", "nemotron", "phi3", "qwen2", "qwen2moe", "qwen3", "qwen35", "qwen35moe", "qwen3moe", "stablelm"),
    "starcoder2",
)
"""The causal language models, by general.architecture, that transformers reads from GGUF; a test asks it."""
NOT_QUANTISED = ("F32", "F16", "BF16")
MISSING = "a GGUF file is read with the package gguf: pip install 'w2s[gguf]'"


@dataclass(frozen=True)
class Header:
    """The model in a GGUF file.

    architecture: llama.cpp's name for it · layers: infinite if the file does not say · has_tokenizer: whether its
    tokens are there · values: number of weights · quantised: the file's type as llama.cpp names it (Q4_1, Q4_K_M, ...),
    or, where it states none, the type of most weights.
    """

    architecture: str
    layers: float
    has_tokenizer: bool
    values: int
    quantised: str


def fault(path: Path) -> str | None:
    """Why the model in a GGUF file cannot be read, as far as its header tells; None if it can."""
    if not path.is_file():
        return f"{path}: there is no such file"
    if not importlib.util.find_spec("gguf"):
        return f"{path}: {MISSING}"
    try:
        header = read_header(path)
    except BadInput as error:
        return str(error)
    if header.architecture not in ARCHITECTURES:
        return f"{path}: general.architecture: {header.architecture!r} given; allowed: {', '.join(ARCHITECTURES)}"
    return None if header.has_tokenizer else f"{path}: the file has no tokenizer (tokenizer.ggml.tokens)"


def read_header(path: Path) -> Header:
    """The header of a GGUF file; BadInput if it is damaged, or if the file is shorter than it says."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return parse(content)
    except (OSError, ValueError, KeyError, struct.error, OverflowError, MemoryError) as error:
        why = error.args[0] if isinstance(error, Fault) else "its header is damaged, or the file is cut short"
        raise BadInput(f"{path}: not a whole GGUF file: {why}") from None


class Fault(ValueError):
    """What is wrong with a file, in words."""


def parse(content: mmap.mmap) -> Header:
    import gguf

    if content[:4] != MAGIC:
        raise Fault("it does not begin with GGUF")
    version, tensors, entries = struct.unpack_from("<IQQ", content, 4)
    if version not in VERSIONS:
        raise Fault(f"version {version} given; allowed: {', '.join(map(str, VERSIONS))}")
    metadata, at = {}, 24
    for _ in range(entries):
        name, at = read_text(content, at)
        (kind,) = struct.unpack_from("<I", content, at)
        metadata[name], at = read_value(content, at + 4, kind)
    values: Counter[str] = Counter()
    end = 0
    for _ in range(tensors):
        name, at = read_text(content, at)
        (axes,) = struct.unpack_from("<I", content, at)
        *shape, kind, offset = struct.unpack_from(f"<{axes}QIQ", content, at + 4)
        at += 4 + 8 * axes + 12
        count = math.prod(shape)
        block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
        values[gguf.GGMLQuantizationType(kind).name] += count
        end = max(end, offset + count // block * size)
    alignment = metadata.get("general.alignment", 32)
    start = math.ceil(at / alignment) * alignment
    if not values:
        raise Fault("it holds no tensor")
    if len(content) < start + end:
        raise Fault(f"it has {len(content):,} bytes, and its header tells of {start + end:,}")
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise Fault("it does not say its general.architecture")
    layers = metadata.get(f"{architecture}.block_count", math.inf)
    tokens = metadata.get("tokenizer.ggml.tokens", 0)
    return Header(architecture, layers, tokens != 0, values.total(), name_type(metadata, values))


def name_type(metadata: Mapping[str, Any], values: Mapping[str, int]) -> str:
    import gguf

    names = {kind.value: kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") for kind in gguf.LlamaFileType}
    return names.get(metadata.get("general.file_type"), max(values, key=values.get))


def read_text(content: mmap.mmap, at: int) -> tuple[str, int]:
    """(the text at a place, the place behind it)."""
    (length,) = struct.unpack_from("<Q", content, at)
    end = at + 8 + length
    if end > len(content):
        raise Fault("the file is cut short")
    return content[at + 8 : end].decode(), end


def read_value(content: mmap.mmap, at: int, kind: int) -> tuple[Any, int]:
    """(the metadata value at a place, the place behind it); of an array only its length."""
    if kind == TEXT:
        return read_text(content, at)
    if kind != ARRAY:
        (value,) = struct.unpack_from(f"<{NUMBERS[kind]}", content, at)
        return value, at + struct.calcsize(f"<{NUMBERS[kind]}")
    kind, count = struct.unpack_from("<IQ", content, at)
    at += 12
    if kind != TEXT:
        return count, at + count * struct.calcsize(f"<{NUMBERS[kind]}")
    for _ in range(count):
        (length,) = struct.unpack_from("<Q", content, at)
        at += 8 + length
    return count, at
