"""Rows of data files and of hub data sets, each with the place that an error message can name."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from w2s.records import BadInput

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".parquet")
Row = tuple[str, dict[str, Any]]  # where it stands ("path:line"), and its columns


def rows(
    root: Path | None, folder: str, names: Sequence[str], hub: tuple[str, str | None], split: str
) -> Iterator[Row]:
    """(where, row) of the first file root/folder/NAME there is, or, with root None, of the hub's `split`.

    names: base names, tried in order, each with every one of SUFFIXES; hub: (id, configuration or None). `where` is
    "path:line" ("path: row 3" where a file has no lines). A missing file, a file that is no such file and a broken
    row are each a BadInput.
    """
    return hub_rows(*hub, split) if root is None else file_rows(find(Path(root) / folder, names))


def find(folder: Path, names: Sequence[str], suffixes: Sequence[str] = SUFFIXES) -> Path:
    """The first of the files folder/NAME+SUFFIX there is; none is a BadInput that lists what was looked for."""
    for name in names:
        for suffix in suffixes:
            if (folder / (name + suffix)).is_file():
                return folder / (name + suffix)
    missing = "" if folder.is_dir() else " (there is no such folder)"
    raise BadInput(f"{folder}: no file {' or '.join(names)} with one of {' '.join(suffixes)} found{missing}")


def file_rows(path: Path) -> Iterator[Row]:
    """(where, row) of one file, by its suffix."""
    reader = READERS.get(Path(path.name.removesuffix(".gz")).suffix)
    if reader is None or not path.name.endswith(SUFFIXES):
        raise BadInput(f"{path}: not a known kind of file; allowed: {' '.join(SUFFIXES)}")
    return reader(path)


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of each line; what is not UTF-8 or not whole gzip is a BadInput with the line."""
    number = 0
    try:
        with (gzip.open if path.name.endswith(".gz") else open)(path, "rb") as file:
            for number, line in enumerate(file, 1):
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}:{number}: not UTF-8 ({error.reason} at byte {error.start} of the line)") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadInput(f"{path}:{number + 1}: the gzip data are damaged ({error})") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror or error})") from None


def parse(text: str, where: str) -> Any:
    """JSON, or a BadInput that names the place."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(f"{where}: not JSON ({error.msg} at character {error.pos + 1})") from None
    except RecursionError:
        raise BadInput(f"{where}: not usable JSON (nested too deeply)") from None


def json_lines(path: Path) -> Iterator[Row]:
    for number, line in lines(path):
        if line.strip():
            yield mapping(parse(line.rstrip("\r\n"), f"{path}:{number}"), f"{path}:{number}")


def json_document(path: Path) -> Iterator[Row]:
    """A file that holds one JSON list of rows (some publishers name JSON Lines .json: read as such)."""
    text = "".join(line for _, line in lines(path))
    if text.lstrip().startswith("{"):
        yield from json_lines(path)
        return
    try:
        listed = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}:{error.lineno}: not JSON ({error.msg} at character {error.colno})") from None
    except RecursionError:
        raise BadInput(f"{path}: not usable JSON (nested too deeply)") from None
    if not isinstance(listed, list):
        raise BadInput(f"{path}: a list of rows is wanted, {type(listed).__name__} given")
    for number, row in enumerate(listed, 1):
        yield mapping(row, f"{path}: row {number}")


def csv_rows(path: Path) -> Iterator[Row]:
    reader = csv.reader((line for _, line in lines(path)), strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) < len(header) or not all(header):
            raise BadInput(f"{path}:1: the header has an empty or a repeated column name")
        for values in reader:
            if not values:
                continue
            where = f"{path}:{reader.line_num}"
            if len(values) != len(header):
                raise BadInput(f"{where}: {len(values)} columns; the header has {len(header)}")
            yield where, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise BadInput(f"{path}:{reader.line_num}: not CSV ({error})") from None


def parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet  # comes with `datasets`; heavy, so only where a file asks for it

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for number, row in enumerate(batch.to_pylist(), number + 1):  # noqa: B020
                    yield f"{path}: row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        first_line = str(error).split("\n")[0]
        raise BadInput(f"{path}: row {number + 1}: not Parquet ({first_line})") from None


def hub_rows(name: str, config: str | None, split: str) -> Iterator[Row]:
    """(where, row) of one split of a data set on the Hugging Face hub."""
    import datasets

    try:
        loaded = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # the hub's client raises a dozen kinds; to the user all mean that it cannot be read
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise BadInput(
            f"{name}[{split}]: cannot be read from the hub ({reason}); local copies: data.root=DIR"
        ) from None
    for number, row in enumerate(loaded, 1):
        yield f"{name}[{split}]: row {number}", row


def mapping(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise BadInput(f"{where}: a row must be a mapping of columns, {type(row).__name__} given")
    return where, row


READERS = {".jsonl": json_lines, ".json": json_document, ".csv": csv_rows, ".parquet": parquet_rows}
