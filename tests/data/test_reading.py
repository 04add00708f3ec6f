import csv
import gzip
import json
from pathlib import Path

import pytest

from w2s.data import reading
from w2s.records import BadInput

ROWS = [{"question": "Why?", "answer": "so, it is"}, {"question": "Où “là”?", "answer": 'a "quoted"\nline'}]
HUB = ("someone/some_set", None)


def write(path: Path, rows=ROWS) -> Path:
    """The rows in the format of the path's suffix."""
    kind = path.name.removesuffix(".gz").rsplit(".")[-1]
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    with (gzip.open if path.name.endswith(".gz") else open)(path, "wt", encoding="utf-8", newline="") as file:
        if kind == "jsonl":
            file.write("\n".join(json.dumps(row) for row in rows) + "\n\n")
        elif kind == "json":
            json.dump(rows, file)
        else:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("suffix", reading.SUFFIXES)
def test_every_format_gives_the_same_rows(tmp_path, suffix):
    write(tmp_path / f"test{suffix}")
    found = list(reading.rows(tmp_path, ".", ["test"], HUB, "test"))
    assert [row for _, row in found] == ROWS
    assert len({where for where, _ in found}) == len(ROWS)
    assert all(where.startswith(str(tmp_path / f"test{suffix}:")) for where, _ in found)


def test_a_place_is_the_line_of_the_file(tmp_path):
    path = write(tmp_path / "test.jsonl")
    path.write_text("\n\n" + path.read_text())
    assert [where for where, _ in reading.file_rows(path)] == [f"{path}:3", f"{path}:4"]


def test_the_first_name_that_is_there_is_read(tmp_path):
    write(tmp_path / "dev.jsonl", ROWS[:1])
    write(tmp_path / "validation.csv", ROWS[1:])
    found = reading.rows(tmp_path, ".", ["train", "validation", "dev"], HUB, "validation")
    assert [row for _, row in found] == ROWS[1:]


def test_json_lines_named_json_and_a_byte_order_mark_are_read(tmp_path):
    path = tmp_path / "test.json"
    path.write_text("\ufeff" + "\n".join(json.dumps(row) for row in ROWS), encoding="utf-8")
    assert [row for _, row in reading.file_rows(path)] == ROWS


def test_a_missing_file_names_the_folder_and_the_names_looked_for(tmp_path):
    with pytest.raises(BadInput, match=r"arc: no file ARC-Easy-Train or train .*\.jsonl\.gz.*no such folder"):
        reading.rows(tmp_path, "arc", ["ARC-Easy-Train", "train"], HUB, "train")


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch):
    import datasets

    def load_dataset(name, config, split):
        raise ConnectionError(f"Couldn't reach {name}\nand a second line")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(BadInput, match=r"someone/some_set\[test\]: .*Couldn't reach.*data.root") as caught:
        list(reading.rows(None, "folder", ["test"], HUB, "test"))
    assert "\n" not in str(caught.value)


def test_hub_rows_are_named_by_set_split_and_number(monkeypatch):
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda name, config, split: ROWS)
    places = [where for where, _ in reading.rows(None, "folder", ["test"], HUB, "test")]
    assert places == ["someone/some_set[test]: row 1", "someone/some_set[test]: row 2"]


GOOD = b'{"question": "Why?"}\n'
MALFORMED = {
    "not json": ("a.jsonl", GOOD + b"{'question': 1}\n", ":2: not JSON"),
    "half a line": ("a.jsonl", GOOD + b'{"question": "Wh', ":2: not JSON"),
    "a bare word": ("a.jsonl", b"hello\n", ":1: not JSON"),
    "a list for a row": ("a.jsonl", GOOD + b"[1, 2]\n", ":2: a row must be a mapping"),
    "a number for a row": ("a.jsonl", GOOD + GOOD + b"3\n", ":3: a row must be a mapping"),
    "too deep": ("a.jsonl", b"[" * 100_000 + b"\n", ":1: not usable JSON"),
    "latin-1": ("a.jsonl", GOOD + '{"question": "Où"}\n'.encode("latin-1"), ":2: not UTF-8"),
    "utf-16": ("a.jsonl", '{"question": "Why"}'.encode("utf-16"), ":1: not UTF-8"),
    "gzip that is none": ("a.jsonl.gz", GOOD, ":1: the gzip data are damaged"),
    "gzip cut short": ("a.jsonl.gz", gzip.compress(GOOD * 9)[:-10], ": the gzip data are damaged"),
    "gzip with a flipped byte": (
        "a.jsonl.gz",
        gzip.compress(GOOD)[:15] + b"\xff\xff" + gzip.compress(GOOD)[17:],
        ":1:",
    ),
    "json with a broken second line": ("a.json", b'[{"a": 1},\n {"a" 2}]', ":2: not JSON"),
    "json that is a text": ("a.json", b'"rows"', ": a list of rows is wanted"),
    "json with a row that is none": ("a.json", b'[{"a": 1}, 5]', ": row 2: a row must be a mapping"),
    "csv with a short row": ("a.csv", b"a,b\n1,2\n3\n", ":3: 1 columns; the header has 2"),
    "csv with a long row": ("a.csv", b"a,b\n1,2,3\n", ":2: 3 columns"),
    "csv with an open quote": ("a.csv", b'a,b\n1,"2\n', ": not CSV"),
    "csv with a column twice": ("a.csv", b"a,a\n1,2\n", ":1: the header has an empty or a repeated"),
    "csv with a nameless column": ("a.csv.gz", gzip.compress(b"a,\n1,2\n"), ":1: the header has an empty"),
    "parquet that is none": ("a.parquet", b"PAR1 not really", ": row 1: not Parquet"),
    "a kind nobody knows": ("a.xlsx", b"PK", ": not a known kind of file"),
    "gzip of a kind nobody knows": ("a.parquet.gz", b"PK", ": not a known kind of file"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_one_line_that_names_file_and_line(tmp_path, case):
    name, content, said = MALFORMED[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput) as caught:
        list(reading.file_rows(tmp_path / name))
    assert str(tmp_path / name) + said in str(caught.value) or said in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)
