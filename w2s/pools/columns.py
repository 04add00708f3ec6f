"""Typed columns of recorded outputs, batch by batch, from parquet, JSON Lines, CSV or rows in memory.

An empty text in a column of answers means the same as null. Rows are counted from 1, without a CSV's header.
"""

from __future__ import annotations

import csv
import itertools
import json
import mmap
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

from w2s.config.registry import did_you_mean
from w2s.data.reading import SUFFIXES, Row, file_rows, first_line, lines, quoted
from w2s.store.problems import Problems
from w2s.store.records import BadInput

if TYPE_CHECKING:
    import pandas as pd

TEXT, WHOLE, NUMBER = pa.string(), pa.int32(), pa.float64()
TEXTS, NUMBERS = pa.list_(TEXT), pa.list_(pa.float32())
QUESTIONS = {"id": TEXT, "group": TEXT, "prompt": TEXT, "choices": TEXTS, "gold": TEXT}
OUTPUTS = {"id": TEXT, "model": TEXT, "sample": WHOLE, "answer": TEXT, "correct": NUMBER, "score": NUMBER}
OUTPUTS |= {"probs": NUMBERS, "cost": NUMBER, "text": TEXT, "visible_pass": NUMBER, "quality": NUMBER}
FEW = ("model", "answer", "group")  # few distinct texts: read as codes
ALLOWED = {TEXT: "a text", WHOLE: "a whole number", NUMBER: "a number, true or false"}
ALLOWED |= {TEXTS: "a list of texts", NUMBERS: "a list of numbers"}
BATCH_ROWS = 1 << 18
QUOTED = re.compile(rb'(?:[^"]++|(?<![^,\r\n])"(?:[^"]++|"")*+"(?=[,\r\n]|\Z))*+')  # around whole cells, and closed


@dataclass(frozen=True)
class Source:
    """Rows of known columns; `batches(names, size)` reads these columns, `size` rows at a time, cast to their types.

    unused: the names of further columns, which are not read.
    """

    name: str
    columns: tuple[str, ...]
    batches: Callable[..., Iterator[pa.RecordBatch]]
    unused: tuple[str, ...] = ()


def open_source(path: Path, types: dict[str, pa.DataType], required: Sequence[str]) -> Source:
    """The table in a file. A file that is not a table, is empty or lacks a required column is a BadInput."""
    if path.suffix in (".pkl", ".pickle", ".pt", ".joblib"):
        raise BadInput(f"{path}: pickles can run code when they are read; allowed: {' '.join(SUFFIXES)}")
    if not path.name.endswith(SUFFIXES):
        raise BadInput(f"{path}: not a known kind of file; allowed: {' '.join(SUFFIXES)}")
    if path.suffix != ".parquet":
        if (table := quick_table(path, types, required)) is not None:
            return table
        problems = Problems()
        return rows_source(str(path), file_rows(path, problems), types, required, problems)
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

    return Source(str(path), tuple(columns), batches, tuple(n for n in file.schema_arrow.names if n not in types))


def rows_source(
    name: str, rows: Iterable[Row], types: dict[str, pa.DataType], required: Sequence[str], problems: Problems
) -> Source:
    """A table of rows, (where, mapping) each, kept as columns; values that cannot be read are added to `problems`.

    All problems are raised together at the end of the rows.
    """
    remaining, parts, unused = iter(rows), [], ()

    def parse(where: str, column: str, value: Any) -> Any:
        try:
            return parse_value(where, column, value, types[column])
        except BadInput as problem:
            problems.add(problem)

    while part := list(itertools.islice(remaining, 1 << 16)):  # Python objects take much more room than columns
        if not parts:
            check_required(name, part[0][1], required)
            unused = tuple(column for column in part[0][1] if column not in types)
        columns = {n: [parse(where, n, row.get(n)) for where, row in part] for n in types}
        arrays = [pa.array(values, types[n]) for n, values in columns.items()]
        parts.append(pa.RecordBatch.from_arrays(arrays, list(types)))
    problems.tell()
    if not parts:
        raise BadInput(f"{name}: the file has no rows")
    return table_source(name, pa.Table.from_batches(parts), unused)


def frame_source(name: str, frame: pd.DataFrame, types: dict[str, pa.DataType], required: Sequence[str]) -> Source:
    """A DataFrame; its missing values are null, and its rows are checked like those of a file."""
    records = frame.astype(object).where(frame.notna(), None).to_dict("records")
    for row in records:
        row |= {column: value.tolist() for column, value in row.items() if isinstance(value, np.ndarray)}
    return records_source(name, records, types, required)


def records_source(
    name: str, records: Iterable[dict], types: dict[str, pa.DataType], required: Sequence[str]
) -> Source:
    """A table of mappings, numbered from 1 in messages."""
    rows = ((f"{name}: row {number}", row) for number, row in enumerate(records, 1))
    return rows_source(name, rows, types, required, Problems())


def table_source(name: str, table: pa.Table, unused: Iterable[str]) -> Source:
    """A table in memory; columns with few distinct texts become codes."""
    for column in set(FEW).intersection(table.column_names):
        codes = table[column].combine_chunks().dictionary_encode()
        table = table.set_column(table.column_names.index(column), column, codes)

    def batches(names: Sequence[str], size: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        return iter(table.select(list(names)).to_batches(size))

    return Source(name, tuple(table.column_names), batches, tuple(unused))


def quick_table(path: Path, types: dict[str, pa.DataType], required: Sequence[str]) -> Source | None:
    """A plain .csv or .jsonl by Arrow's own readers, ten times as fast; None if anything in it is unusual.

    An unusual file is read row by row, which can say what is wrong and where, and accepts more spellings.
    """
    try:
        if path.suffix == ".csv":
            header = next(csv.reader([first_line(path)]), [])
            header = [name or "Unnamed: 0" for name in header[:1]] + header[1:]  # as `csv_rows` calls it
            table = csv_table(path, header, types)
        elif path.suffix == ".jsonl":
            some = [json.loads(line) for _, line in itertools.islice(lines(path), 100) if line.strip()]
            header = some[0] if some else {}
            table = json_table(path, some, types)
        else:
            return None
        table = pa.table({n: as_type(n, table[n].combine_chunks(), types[n]) for n in table.column_names})
    except (pa.ArrowException, ValueError, TypeError, AttributeError, RecursionError, csv.Error):
        return None
    usable = len(table) and all(name in table.column_names and not table[name].null_count for name in required)
    return table_source(str(path), table, (name for name in header if name not in types)) if usable else None


def csv_table(path: Path, header: list[str], types: dict[str, pa.DataType]) -> pa.Table:
    """Raises a ValueError for an unusual header or quotes: to Arrow, all that follows an open quote is one cell."""
    names = [name for name in types if name in header]
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        well_quoted = QUOTED.fullmatch(text) is not None
    if not names or not well_quoted or len({name.strip() for name in header} & set(header) - {""}) < len(header):
        raise ValueError("read it row by row")
    texts = pacsv.ConvertOptions(include_columns=names, column_types=dict.fromkeys(names, TEXT))
    texts.null_values, texts.strings_can_be_null = [""], True
    return pacsv.read_csv(path, parse_options=pacsv.ParseOptions(newlines_in_values=True), convert_options=texts)


def json_table(path: Path, some: Sequence[dict[str, Any]], types: dict[str, pa.DataType]) -> pa.Table:
    """Columns typed by their first value in `some` rows; a value of another type further down is unusual."""
    first = {name: value for row in reversed(some) for name, value in row.items() if value is not None}
    kinds = {bool: pa.bool_(), int: pa.int64()}
    schema = [(name, kinds.get(type(first.get(name)), kind)) for name, kind in types.items()]
    known = pajson.ParseOptions(explicit_schema=pa.schema(schema), unexpected_field_behavior="ignore")
    return pajson.read_json(path, parse_options=known)


def as_type(name: str, column: pa.Array, kind: pa.DataType) -> pa.Array:
    """A column that Arrow read, cast to a type of ours; an ArrowException or a ValueError where that fails."""
    if column.type == pa.bool_() and kind != NUMBER:
        raise ValueError("true is not a text")
    if column.type == TEXT and kind in (TEXTS, NUMBERS):
        codes = column.dictionary_encode()
        lists = [parse_value("", name, text, kind) for text in codes.dictionary.to_pylist()]
        return pa.array(lists, kind).take(codes.indices)
    if column.type == TEXT and kind == NUMBER:
        low = pc.utf8_lower(column)
        column = pc.if_else(pc.equal(low, "true"), "1", pc.if_else(pc.equal(low, "false"), "0", column))
    elif column.type == TEXT and kind == TEXT:
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, TEXT), column)
    return column.cast(kind)


def check_required(name: str, columns: Iterable[str], required: Sequence[str]) -> None:
    columns = list(columns)
    for column in required:
        if column not in columns:
            raise BadInput(f"{name}: row 1: the column {column!r} is missing{did_you_mean(column, columns)}")


def cast(path: Path, name: str, column: pa.Array, kind: pa.DataType) -> pa.Array:
    """A parquet column cast to a type of ours; encoded texts stay encoded."""
    try:
        if pa.types.is_dictionary(column.type) and kind == TEXT:
            return pa.DictionaryArray.from_arrays(column.indices, column.dictionary.cast(TEXT))
        if kind == TEXT and pa.types.is_floating(column.type):  # whole numbers with gaps, as pandas writes them
            column = column.cast(pa.int64())
        return column if column.type == kind else column.cast(kind)
    except pa.ArrowException:
        raise BadInput(f"{path}: {name}: the column holds {column.type}; allowed: {ALLOWED[kind]}") from None


def parse_value(where: str, name: str, value: Any, kind: pa.DataType) -> Any:
    """One value of a JSON or CSV row as a type of ours; '' (CSV has no other null) is null."""
    if value is None or value == "" or (value != value and kind == TEXT):
        return None
    try:
        if kind == TEXT:
            if isinstance(value, bool | list | dict):
                raise ValueError
            if not isinstance(value, str):
                return str(int(value) if float(value).is_integer() else value)
            value.encode()  # a file's name can hold half a surrogate pair, which is no text
            return value
        if kind in (TEXTS, NUMBERS):
            value = json.loads(value) if isinstance(value, str) else value
            if not isinstance(value, list):
                raise ValueError
            inner = TEXT if kind == TEXTS else NUMBER
            return [item if item == "" else parse_value(where, name, item, inner) for item in value]
        if kind == WHOLE:
            if int(value) != float(value) or not -(2**31) <= int(value) < 2**31:
                raise ValueError
            return int(value)
        value = {"true": 1, "false": 0}.get(value.lower(), value) if isinstance(value, str) else value
        return float(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise BadInput(f"{where}: {name}: {quoted(value)} given; allowed: {ALLOWED[kind]}") from None


def encode(column: pa.Array) -> tuple[np.ndarray, list[str]]:
    """(codes, the distinct texts) of a column of texts; the code of null and of '' is -1."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    if None in texts or "" in texts:
        empty = np.array([not text for text in [*texts, ""]])  # the last is for -1
        codes = np.where(empty[codes], -1, codes)
    return codes, texts


def as_fixed_width(texts: pa.StringArray) -> np.ndarray:
    """Texts as NumPy's '<U': 4 bytes per character of the longest, and no object for each."""
    array = np.empty(len(texts), f"<U{max(pc.max(pc.utf8_length(texts)).as_py() or 1, 1)}")
    for start in range(0, len(texts), BATCH_ROWS):
        array[start : start + BATCH_ROWS] = texts.slice(start, BATCH_ROWS).to_numpy(zero_copy_only=False)
    return array


def as_tuples(lists: pa.ListArray) -> np.ndarray:
    """Lists of texts as an object array of tuples; equal tuples are one object."""
    tuples, seen = np.empty(len(lists), object), {}
    for start in range(0, len(lists), BATCH_ROWS):
        part = lists.slice(start, BATCH_ROWS)
        length, flat = pc.list_value_length(part)[0].as_py(), part.flatten()
        if part.null_count == 0 and length and pc.all(pc.equal(pc.list_value_length(part), length)).as_py():
            code_NK = flat.dictionary_encode().indices.to_numpy().reshape(-1, length)
            if (code_NK == code_NK[0]).all():  # the same choices everywhere, as in the largest sets
                alike = tuple(flat[:length].to_pylist())
                tuples[start : start + BATCH_ROWS].fill(seen.setdefault(alike, alike))
                continue
        for at, texts in enumerate(map(tuple, (item or () for item in part.to_pylist())), start):
            tuples[at] = seen.setdefault(texts, texts)
    return tuples


def as_indices(texts: Sequence[str]) -> np.ndarray:
    """Each text as a whole number, -9 if it is none; then another -9, for code -1.

    If a column of whole numbers has gaps, pandas writes 1.0 for 1.
    """
    whole = [(text or "").removesuffix(".0") for text in [*texts, ""]]
    return np.array([int(t) if t.isascii() and t.isdigit() and len(t) < 5 else -9 for t in whole], np.int16)
