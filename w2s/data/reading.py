"""Rows of data files and of hub datasets, each with a place for error messages to name."""

import ast
import csv
import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from w2s.store.problems import Problems
from w2s.store.records import BadInput

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
LONGEST = 1 << 30  # bytes of a line
MOST_DIGITS, HALF_PAIR = 4300, re.compile("[\ud800-\udfff]")
SWOLLEN, ROOM = 200, 1 << 26  # gzip makes text 3 to 30 times smaller, a bomb 1000 times
csv.field_size_limit(1 << 26)  # a long article is a field; the module's own limit is 128 KiB
Row = tuple[str, dict[str, Any]]  # its place ("path:line"), and its columns
Record = TypeVar("Record")


def rows(
    root: Path | None, folder: str, names: Sequence[str], hub: tuple[str, str | None], split: str
) -> Iterator[Row]:
    """(where, row) of the first existing file root/folder/NAME, or, with root None, of the hub's `split`.

    names: base names, tried in order, each with every one of SUFFIXES; hub: (id, configuration or None). `where` is
    "path:line" ("path: row 3" where a file has no lines). A missing file, a file of another format and a broken row are
    each a BadInput.
    """
    return hub_rows(*hub, split) if root is None else file_rows(find(Path(root) / folder, names))


def find(folder: Path, names: Sequence[str], suffixes: Sequence[str] = SUFFIXES) -> Path:
    """The first existing file folder/NAME+SUFFIX; if there is none, a BadInput lists what was tried."""
    for name in names:
        for suffix in suffixes:
            if (folder / (name + suffix)).is_file():
                return folder / (name + suffix)
    missing = "" if folder.is_dir() else " (there is no such folder)"
    raise BadInput(f"{folder}: no file {' or '.join(names)} with one of {' '.join(suffixes)} found{missing}")


def fit_rows(rows: Iterable[Row], fit: Callable[[str, dict[str, Any]], Record], problems: Problems) -> Iterator[Record]:
    """`fit(where, row)` of each row; a row that does not fit is added to `problems`."""
    for where, row in rows:
        try:
            record = fit(where, row)
        except KeyError as error:
            problems.add(f"{where}: column {error} is missing; it has: {some(row)}")
        except (TypeError, ValueError, AttributeError, IndexError, SyntaxError) as error:
            problems.add(f"{where}: {error}")
        else:
            yield record


def check_limit(source: str, limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise BadInput(f"{source}: limit: {limit} given; it must be at least 1")


def file_rows(path: Path, problems: Problems | None = None) -> Iterator[Row]:
    """(where, row) of one file, by its suffix.

    What cannot be read is a BadInput or, with `problems`, is added to these while the other rows are read.
    """
    reader = READERS.get(Path(path.name.removesuffix(".gz")).suffix)
    if reader is None or not path.name.endswith(SUFFIXES):
        raise BadInput(f"{path}: not a known kind of file; allowed: {' '.join(SUFFIXES)}")
    return collect_problems(reader(path), problems)


def collect_problems(rows: Iterator[tuple[str, dict[str, Any] | BadInput]], problems: Problems | None) -> Iterator[Row]:
    try:
        for where, row in rows:
            if not isinstance(row, BadInput):
                yield where, row
            elif problems is None:
                raise row
            else:
                problems.add(row)
    except BadInput as error:
        if problems is None:
            raise
        problems.add(error)


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of each line; bytes that are not UTF-8 and broken gzip are a BadInput with the line."""
    number = 0
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(unpack(path, file) if path.name.endswith(".gz") else file, 1):
                if number == 1 and b"\0" in line:
                    raise BadInput(f"{path}:1: not UTF-8 (it looks like UTF-16); save the file as UTF-8")
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        reason = f"{error.reason} at byte {error.start} of the line"
        raise BadInput(f"{path}:{number}: not UTF-8 ({reason}); save the file as UTF-8") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadInput(f"{path}:{number + 1}: the gzip data are damaged ({error})") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror or error})") from None


def unpack(path: Path, packed: BinaryIO) -> Iterator[bytes]:
    """The lines of a .gz. A bomb, more than SWOLLEN times its size and more than ROOM bytes, is a BadInput."""
    left = max(ROOM, SWOLLEN * path.stat().st_size)
    with gzip.open(packed) as file:
        while line := file.readline(min(left, LONGEST) + 1):
            left -= len(line)
            if left < 0 or len(line) > LONGEST:
                limit = f"{SWOLLEN} times its size" if left < 0 else f"{LONGEST >> 20} MiB in one line"
                raise BadInput(f"{path}: it unpacks to more than {limit} and is not read further")
            yield line


def first_line(path: Path) -> str:
    """The first line that is not blank; '' if there is none."""
    return next((line.strip() for _, line in lines(path) if line.strip()), "")


def parse(text: str, where: str, *, document: bool = False) -> Any:
    """JSON, or a BadInput that names the place (in a document, with the line).

    A model's answer may be anything: a whole number of thousands of digits is kept as a text, and half of a surrogate
    pair becomes U+FFFD, the replacement character.
    """
    try:
        value = DECODER.decode(text)
        if "\\ud" in text.lower():
            value = json.loads(HALF_PAIR.sub("\ufffd", json.dumps(value, ensure_ascii=False)))
        return value
    except json.JSONDecodeError as error:
        place = f"{where}:{error.lineno}" if document else where
        raise BadInput(f"{place}: not JSON ({error.msg} at character {error.colno})") from None
    except RecursionError:
        raise BadInput(f"{where}: not usable JSON (nested too deeply)") from None


def whole(digits: str) -> int | str:
    """A whole number; a text if it has more digits than Python reads."""
    return int(digits) if len(digits) < MOST_DIGITS else digits


DECODER = json.JSONDecoder(parse_int=whole)


def literal(text: str) -> Any:
    """The value of a cell with a list or a mapping, in JSON or as Python prints it; else a ValueError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise ValueError(f"it begins with {text.lstrip()[0]} but is neither JSON nor a Python literal") from None


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any] | BadInput]]:
    """One row per line; a file that begins with [ is one list of rows, whatever its name."""
    if first_line(path).startswith("["):
        yield from json_document(path)
        return
    start = f"{path}:"
    for number, line in lines(path):
        if line.strip():
            where = f"{start}{number}"
            try:
                row = parse(line.rstrip("\r\n"), where)
            except BadInput as error:
                row = error
            yield mapping(row, where)


def json_document(path: Path) -> Iterator[tuple[str, dict[str, Any] | BadInput]]:
    """A file with one JSON list of rows (or JSON Lines, which some publishers name .json)."""
    first = first_line(path)
    if first.startswith("{") and first.endswith("}"):
        yield from json_lines(path)
        return
    listed = parse("".join(line for _, line in lines(path)), str(path), document=True)
    if not isinstance(listed, list):
        keys = f" with the keys {some(listed)}" if isinstance(listed, dict) else ""
        raise BadInput(f"{path}: a list of rows is expected, {type(listed).__name__} given{keys}")
    for number, row in enumerate(listed, 1):
        yield mapping(row, f"{path}: row {number}")


def csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any] | BadInput]]:
    """Rows of a table with a header; the separator is whichever of , ; tab and | gives the most columns.

    Blank lines are skipped. A nameless first column (as pandas writes its index) is called "Unnamed: 0"; any other
    must be empty.
    """
    header_line = first_line(path).split("\r")[0]
    separator = max(",;\t|", key=lambda sign: len(next(csv.reader([header_line], delimiter=sign), [])))
    reader = csv.reader((line for _, line in lines(path)), strict=True, delimiter=separator)
    try:
        header = [name.strip() for name in next((row for row in reader if "".join(row).strip()), [])]
        if twice := [name for name, count in Counter(header).items() if name and count > 1]:
            raise BadInput(f"{path}:{reader.line_num}: the header has the column {twice[0]!r} twice")
        names = [name or f"Unnamed: {at}" for at, name in enumerate(header)]
        nameless = [at for at, name in enumerate(header) if at and not name]
        start = f"{path}:"
        for values in reader:
            where = f"{start}{reader.line_num}"
            if len(values) == len(names) and any(values):
                row = dict(zip(names, values, strict=True))
                strays = [at + 1 for at in nameless if row.pop(names[at]).strip()]
                yield where, BadInput(f"{where}: column {strays[0]} has a value but no name") if strays else row
            elif "".join(values).strip():
                count = f"{len(values)} columns; the header has {len(names)}"
                yield where, BadInput(f"{where}: {count} (separated by {separator!r})")
    except csv.Error as error:
        raise BadInput(f"{path}:{reader.line_num}: not CSV ({error})") from None


def parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet  # comes with `datasets`; heavy, so imported for such files alone

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for number, row in enumerate(batch.to_pylist(), number + 1):  # noqa: B020
                    yield f"{path}: row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).split("\n")[0]
        raise BadInput(f"{path}: row {number + 1}: not Parquet ({reason})") from None


def hub_rows(name: str, config: str | None, split: str) -> Iterator[Row]:
    """(where, row) of one split of a dataset on the Hugging Face hub."""
    import datasets

    try:
        loaded = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # the hub's client raises a dozen kinds; to a user they all mean that it cannot be read
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise BadInput(
            f"{name}[{split}]: cannot be read from the hub ({reason}); local copies: data.root=DIR"
        ) from None
    for number, row in enumerate(loaded, 1):
        yield f"{name}[{split}]: row {number}", row


def mapping(row: Any, where: str) -> tuple[str, dict[str, Any] | BadInput]:
    if isinstance(row, dict | BadInput):
        return where, row
    return where, BadInput(f"{where}: a row must be a mapping of columns, {type(row).__name__} given")


def quoted(value: Any) -> str:
    """A value for a message, shortened if it is long."""
    shown = repr(value)
    return shown if len(shown) <= 100 else f"{shown[:97]}..."


def some(names: Iterable[object], most: int = 12) -> str:
    """The first `most` names, each shortened if it is long, and the number of the others."""
    names = [name if len(name) <= 40 else name[:37] + "..." for name in map(str, names)]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


READERS = {".jsonl": json_lines, ".json": json_document, ".csv": csv_rows, ".tsv": csv_rows, ".parquet": parquet_rows}
