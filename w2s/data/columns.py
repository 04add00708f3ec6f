"""Typed columns of recorded outputs, batch by batch, from parquet, JSON Lines, CSV or rows in memory.

An empty text in a column of answers means the same as null. Rows are counted from 1, without a CSV's header.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from w2s.data.reading import SUFFIXES, Row, file_rows, quoted
from w2s.records import BadInput
from w2s.registry import did_you_mean

TEXT, TEXTS, WHOLE, NUMBER, NUMBERS = (
    pa.string(),
    pa.list_(pa.string()),
    pa.int32(),
    pa.float64(),
    pa.list_(pa.float32()),
)
QUESTIONS = {"id": TEXT, "group": TEXT, "prompt": TEXT, "choices": TEXTS, "gold": TEXT}
OUTPUTS = {"id": TEXT, "model": TEXT, "sample": WHOLE, "answer": TEXT, "correct": NUMBER, "score": NUMBER}
OUTPUTS |= {"probs": NUMBERS, "cost": NUMBER, "text": TEXT, "visible_pass": NUMBER, "quality": NUMBER}
FEW = ("model", "answer", "group")  # few distinct texts: read as codes
ALLOWED = {
    TEXT: "a text",
    TEXTS: "a list of texts",
    WHOLE: "a whole number",
    NUMBER: "a number, true or false",
    NUMBERS: "a list of numbers",
}
BATCH_ROWS = 1 << 18


@dataclass(frozen=True)
class Source:
    """Rows of known columns; `batches(names, size)` reads only these, so many rows at a time, cast to their types."""

    name: str
    columns: tuple[str, ...]
    batches: Callable[..., Iterator[pa.RecordBatch]]


def open_source(path: Path, types: dict[str, pa.DataType], required: Sequence[str]) -> Source:
    """The table in a file. A file that is none, is empty or lacks a required column is a BadInput."""
    if path.suffix in (".pkl", ".pickle", ".pt", ".joblib"):
        raise BadInput(f"{path}: pickles can run code when they are read; allowed: {' '.join(SUFFIXES)}")
    if not path.name.endswith(SUFFIXES):
        raise BadInput(f"{path}: not a known kind of file; allowed: {' '.join(SUFFIXES)}")
    if path.suffix != ".parquet":
        return rows_source(str(path), lambda: file_rows(path), types, required)
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path}: not Parquet ({str(error).splitlines()[0]})") from None
    if not file.metadata.num_rows:
        raise BadInput(f"{path}: the file has no rows")
    columns = [name for name in types if name in file.schema_arrow.names]
    check_required(str(path), file.schema_arrow.names, required)

    def batches(names: Sequence[str], size: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        reader = pq.ParquetFile(path, read_dictionary=[name for name in names if name in FEW])
        try:
            for batch in reader.iter_batches(batch_size=size, columns=list(names)):
                yield pa.RecordBatch.from_arrays([cast(path, n, batch.column(n), types[n]) for n in names], list(names))
        except (pa.ArrowException, OSError) as error:
            raise BadInput(f"{path}: not readable Parquet ({str(error).splitlines()[0]})") from None

    return Source(str(path), tuple(columns), batches)


def rows_source(
    name: str, rows: Callable[[], Iterable[Row]], types: dict[str, pa.DataType], required: Sequence[str]
) -> Source:
    """A table of rows, (where, mapping) each; `rows` is called for every reading."""
    first = next(iter(rows()), None)
    if first is None:
        raise BadInput(f"{name}: the file has no rows")
    check_required(name, first[1], required)

    def batches(names: Sequence[str], size: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        # Rows as Python objects take much more room than columns, whatever size is asked for.
        found = iter(rows())
        while part := list(itertools.islice(found, min(size, 1 << 16))):
            arrays = [
                pa.array([value_of(where, n, row.get(n), types[n]) for where, row in part], types[n]) for n in names
            ]
            yield pa.RecordBatch.from_arrays(arrays, list(names))

    return Source(name, tuple(types), batches)


def check_required(name: str, found: Iterable[str], required: Sequence[str]) -> None:
    found = list(found)
    for column in required:
        if column not in found:
            raise BadInput(f"{name}: row 1: the column {column!r} is missing{did_you_mean(column, found)}")


def cast(path: Path, name: str, column: pa.Array, wanted: pa.DataType) -> pa.Array:
    """A parquet column as the wanted type; codes of texts stay codes."""
    try:
        if pa.types.is_dictionary(column.type) and wanted == TEXT:
            return pa.DictionaryArray.from_arrays(column.indices, column.dictionary.cast(TEXT))
        if wanted == TEXT and pa.types.is_floating(column.type):  # whole numbers with gaps, as pandas writes them
            column = column.cast(pa.int64())
        return column if column.type == wanted else column.cast(wanted)
    except pa.ArrowException:
        raise BadInput(f"{path}: {name}: the column holds {column.type}; allowed: {ALLOWED[wanted]}") from None


def value_of(where: str, name: str, value: Any, wanted: pa.DataType) -> Any:
    """One value of a JSON or CSV row as the wanted type; '' (all that CSV has) is null."""
    if value is None or value == "" or (value != value and wanted == TEXT):
        return None
    try:
        if wanted == TEXT:
            if isinstance(value, bool | list | dict):
                raise ValueError
            return value if isinstance(value, str) else str(int(value) if float(value).is_integer() else value)
        if wanted in (TEXTS, NUMBERS):
            value = json.loads(value) if isinstance(value, str) else value
            if not isinstance(value, list):
                raise ValueError
            inner = TEXT if wanted == TEXTS else NUMBER
            return [one if one == "" else value_of(where, name, one, inner) for one in value]
        if wanted == WHOLE:
            if int(value) != float(value) or not -(2**31) <= int(value) < 2**31:
                raise ValueError
            return int(value)
        value = {"true": 1, "false": 0}.get(value.lower(), value) if isinstance(value, str) else value
        return float(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise BadInput(f"{where}: {name}: {quoted(value)} given; allowed: {ALLOWED[wanted]}") from None


def coded(column: pa.Array) -> tuple[np.ndarray, list[str]]:
    """(codes, the distinct texts) of a column of texts; the code of null and of '' is -1."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    if None in texts or "" in texts:
        empty = np.array([not text for text in [*texts, ""]])  # the last is for -1
        codes = np.where(empty[codes], -1, codes)
    return codes, texts


def numbers(column: pa.Array) -> np.ndarray:
    """float64; null is NaN."""
    return column.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)


def fixed_width(texts: pa.StringArray) -> np.ndarray:
    """Texts as NumPy's '<U': 4 bytes per character of the longest, and no object for each."""
    found = np.empty(len(texts), f"<U{max(pc.max(pc.utf8_length(texts)).as_py() or 1, 1)}")
    for start in range(0, len(texts), BATCH_ROWS):
        found[start : start + BATCH_ROWS] = texts.slice(start, BATCH_ROWS).to_numpy(zero_copy_only=False)
    return found


def shared_tuples(lists: pa.ListArray) -> np.ndarray:
    """Lists of texts as an object array of tuples; equal ones are one object."""
    found, seen = np.empty(len(lists), object), {}
    for start in range(0, len(lists), BATCH_ROWS):
        part = lists.slice(start, BATCH_ROWS)
        length, flat = len(part[0] or ()), part.flatten()
        if part.null_count == 0 and length and pc.all(pc.equal(pc.list_value_length(part), length)).as_py():
            code_NK = flat.dictionary_encode().indices.to_numpy().reshape(-1, length)
            if (code_NK == code_NK[0]).all():  # the same choices everywhere, as in the largest sets
                alike = tuple(flat[:length].to_pylist())
                found[start : start + BATCH_ROWS].fill(seen.setdefault(alike, alike))
                continue
        for at, texts in enumerate(map(tuple, (one or () for one in part.to_pylist())), start):
            found[at] = seen.setdefault(texts, texts)
    return found


def indices(texts: Sequence[str]) -> np.ndarray:
    """The whole number that each text is, -9 where it is none; one more at the end, -9, for code -1."""
    return np.array(
        [int(t) if t and t.isascii() and t.isdigit() and len(t) < 5 else -9 for t in [*texts, ""]], np.int16
    )
