"""What the header of a GGUF file says about its model, read without its weights (or torch).

GGUF is the format of llama.cpp and Ollama (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): metadata, a
table of tensors, and their data, mostly quantised. `workers.dequantise` reads the weights. Every plan of a run reads
the header, so this file does: the package's own reader makes an array of every token first, which takes long.
"""

import importlib.util
import math
import mmap
import struct
from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

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
READ_SCALING = ("gpt-oss",)
"""The architectures whose scaled rotary positions transformers reads; it loads others without, as another model."""
SCALES = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
NOT_QUANTISED = ("F32", "F16", "BF16")
MISSING = "a GGUF file is read with the package gguf: pip install gguf"


@dataclass(frozen=True)
class Header:
    """The model in a GGUF file.

    architecture: llama.cpp's name for it · layers: infinite if the file does not say · has_tokenizer: whether its
    tokens are there · scaling: what scales its rotary positions, if anything · values: number of weights · quantised:
    the file's type as llama.cpp names it (Q4_1, Q4_K_M, ...), or, where it states none, the type of most weights.
    """

    architecture: str
    layers: float
    has_tokenizer: bool
    scaling: str | None
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
    if not header.has_tokenizer:
        return f"{path}: the file has no tokenizer (tokenizer.ggml.tokens)"
    if header.scaling and header.architecture not in READ_SCALING:
        return f"{path}: {header.scaling} scales its rotary positions, which transformers does not read from GGUF"
    return None


def read_header(path: Path) -> Header:
    """The header of a GGUF file; BadInput if it is damaged, or if the file is shorter than it says."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return parse(content)
    except OSError as error:
        raise BadInput(f"{path}: not readable: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, struct.error, OverflowError, MemoryError) as error:
        why = error.args[0] if isinstance(error, Fault) else "its header is damaged, or the file is cut short"
        raise BadInput(f"{path}: not a whole GGUF file: {why}") from None


class Fault(ValueError):
    """What is wrong with a file, in words."""


def parse(content: mmap.mmap) -> Header:
    if content[:4] != MAGIC:
        raise Fault("it does not begin with GGUF")
    version, tensors, entries = struct.unpack_from("<IQQ", content, 4)
    if version not in VERSIONS:
        raise Fault(f"version {version} given; allowed: {', '.join(map(str, VERSIONS))}")
    metadata, at = read_metadata(content, 24, entries)
    table, at = read_table(content, at, tensors)
    if not table:
        raise Fault("it holds no tensor")
    alignment = metadata.get("general.alignment", 32) or 1
    size = -(-at // alignment) * alignment + max(tensor.end for tensor in table.values())
    if len(content) < size:
        raise Fault(f"it has {len(content):,} bytes, and its header tells of {size:,}")
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise Fault("it does not say its general.architecture")
    values: Counter[str] = Counter()
    for tensor in table.values():
        values[tensor.kind] += tensor.values
    layers = metadata.get(f"{architecture}.block_count")
    layers = layers if isinstance(layers, int) else math.inf
    tokenizer, scaling = bool(metadata.get("tokenizer.ggml.tokens")), find_scaling(metadata, table)
    return Header(architecture, layers, tokenizer, scaling, values.total(), name_type(metadata, values))


def find_scaling(metadata: Mapping[str, Any], tensors: Container[str]) -> str | None:
    """The metadata or tensors that scale rotary positions."""
    key = f"{metadata['general.architecture']}.rope.scaling.type"
    if metadata.get(key, "none") != "none":
        return f"{key} {metadata[key]!r}"
    return next((f"the tensor {name}" for name in SCALES if name in tensors), None)


def name_type(metadata: Mapping[str, Any], values: Mapping[str, int]) -> str:
    import gguf

    names = {kind.value: kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") for kind in gguf.LlamaFileType}
    return names.get(metadata.get("general.file_type"), max(values, key=values.get))


class Tensor(NamedTuple):
    """One tensor of the table."""

    kind: str
    """The type of its values: F32, Q4_1, ..."""
    values: int
    end: int
    """Where its data end, in bytes from the beginning of all data."""


def read_metadata(content: mmap.mmap, at: int, entries: int) -> tuple[dict[str, Any], int]:
    """(name -> value, the place behind them)."""
    metadata = {}
    for _ in range(entries):
        name, at = read_text(content, at)
        (kind,) = struct.unpack_from("<I", content, at)
        metadata[name], at = read_value(content, at + 4, kind)
    return metadata, at


def read_table(content: mmap.mmap, at: int, tensors: int) -> tuple[dict[str, Tensor], int]:
    """(name -> tensor, the place behind the table)."""
    import gguf

    table = {}
    for _ in range(tensors):
        name, at = read_text(content, at)
        (axes,) = struct.unpack_from("<I", content, at)
        *shape, number, start = struct.unpack_from(f"<{axes}QIQ", content, at + 4)
        at += 4 + 8 * axes + 12
        kind, values = gguf.GGMLQuantizationType(number), math.prod(shape)
        block, size = gguf.GGML_QUANT_SIZES[kind]
        table[name] = Tensor(kind.name, values, start + values // block * size)
    return table, at


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
