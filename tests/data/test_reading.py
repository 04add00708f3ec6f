import csv
import gzip
import json
from pathlib import Path

import pytest

from w2s.data import reading
from w2s.store.problems import MOST
from w2s.store.records import BadInput

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


def test_whatever_a_model_writes_is_read(tmp_path):
    rows = ['{"a": ' + "9" * 5000 + "}", '{"a": "18 \\ud83d"}', '{"a": "\\ud83d\\ude00\\u0000"}', '{"a": -12}']
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    (tmp_path / "b.json").write_text("[" + ",".join(rows) + "]")
    for name in ("a.jsonl", "b.json"):
        found = [row["a"] for _, row in reading.file_rows(tmp_path / name)]
        assert found == ["9" * 5000, "18 \ufffd", "\U0001f600\0", -12]


MALFORMED = {
    "not json": ("a.jsonl", GOOD + b"{'question': 1}\n", ":2: not JSON"),
    "half a line": ("a.jsonl", GOOD + b'{"question": "Wh', ":2: not JSON"),
    "a bare word": ("a.jsonl", b"hello\n", ":1: not JSON"),
    "a list for a row": ("a.jsonl", GOOD + b"[1, 2]\n", ":2: a row must be a mapping"),
    "a number for a row": ("a.jsonl", GOOD + GOOD + b"3\n", ":3: a row must be a mapping"),
    "too deep": ("a.jsonl", GOOD + b"[" * 100_000 + b"\n", ":2: not usable JSON"),
    "a document too deep": ("a.json", b"[" * 100_000 + b"\n", ": not usable JSON"),
    "rows under a key": (
        "a.json",
        b'{"version": 1,\n "data": []}',
        ": a list of rows is expected, dict given with the keys version",
    ),
    "latin-1": ("a.jsonl", GOOD + '{"question": "Où"}\n'.encode("latin-1"), ":2: not UTF-8"),
    "utf-16": ("a.jsonl", '{"question": "Why"}'.encode("utf-16"), ":1: not UTF-8 (it looks like UTF-16)"),
    "utf-16 without a mark": ("a.csv", "a,b\n1,2\n".encode("utf-16-le"), ":1: not UTF-8 (it looks like UTF-16)"),
    "gzip that is none": ("a.jsonl.gz", GOOD, ":1: the gzip data are damaged"),
    "gzip cut short": ("a.jsonl.gz", gzip.compress(GOOD * 9)[:-10], ": the gzip data are damaged"),
    "gzip with a flipped byte": (
        "a.jsonl.gz",
        gzip.compress(GOOD)[:15] + b"\xff\xff" + gzip.compress(GOOD)[17:],
        ":1:",
    ),
    "json with a broken second line": ("a.json", b'[{"a": 1},\n {"a" 2}]', ":2: not JSON"),
    "json that is a text": ("a.json", b'"rows"', ": a list of rows is expected"),
    "json with a row that is none": ("a.json", b'[{"a": 1}, 5]', ": row 2: a row must be a mapping"),
    "csv with a short row": ("a.csv", b"a,b\n1,2\n3\n", ":3: 1 columns; the header has 2"),
    "csv with a long row": ("a.csv", b"a,b\n1,2,3\n", ":2: 3 columns"),
    "csv with an open quote": ("a.csv", b'a,b\n1,"2\n', ": not CSV"),
    "csv with a column twice": ("a.csv", b"a,a\n1,2\n", ":1: the header has the column 'a' twice"),
    "csv with a nameless column": (
        "a.csv.gz",
        gzip.compress(b"a,\n1,2\n"),
        ":2: column 2 has a value but no name",
    ),
    "csv of old line ends": ("a.csv", b"a,b\r1,2\r", ":1: not CSV"),
    "csv with other separators below": (
        "a.csv",
        b"a;b;c\n1,2,3\n",
        ":2: 1 columns; the header has 3 (separated by ';')",
    ),
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


def test_what_is_wrong_with_the_rows_of_a_file_can_be_collected(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"{oops\n" + GOOD + b"[1]\n" + b"{oops\n" * 30)
    problems = reading.Problems()
    assert [row for _, row in reading.file_rows(tmp_path / "a.jsonl", problems)] == [{"question": "Why?"}]
    with pytest.raises(BadInput) as caught:
        problems.tell()
    told = str(caught.value).splitlines()
    assert len(told) == MOST + 1
    assert ":1: not JSON" in told[0]
    assert ":3: a row must be a mapping" in told[1]
    assert told[-1] == "... and 12 more problems"


def test_rows_before_damage_are_given_and_the_damage_is_one_of_the_problems(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,2\n3\n4,5\n" + "é,6\n".encode("latin-1"))
    problems = reading.Problems()
    assert [row["b"] for _, row in reading.file_rows(tmp_path / "a.csv", problems)] == ["2", "5"]
    assert [":3: 1 columns" in problems.lines[0], ":5: not UTF-8" in problems.lines[1]] == [True, True]


TABLE = [{"a": "1, or; 2", "b": "x"}, {"a": "two\nlines", "b": ""}]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_table_is_read_whatever_parts_its_columns_and_ends_its_lines(tmp_path, separator, end, mark):
    with open(tmp_path / "a.csv", "w", encoding="utf-8", newline="") as file:
        file.write(mark + end)
        writer = csv.DictWriter(file, list(TABLE[0]), delimiter=separator, lineterminator=end)
        writer.writeheader()
        file.write(end)
        writer.writerow(TABLE[0])
        file.write(f"  {end}{separator}{end}")
        writer.writerow(TABLE[1])
    assert [row for _, row in reading.file_rows(tmp_path / "a.csv")] == TABLE


def test_an_index_column_has_a_name_and_empty_nameless_columns_are_none(tmp_path):
    (tmp_path / "a.csv").write_text(",a,,\n0,x,,\n1,y,,\n")
    assert [row for _, row in reading.file_rows(tmp_path / "a.csv")] == [
        {"Unnamed: 0": "0", "a": "x"},
        {"Unnamed: 0": "1", "a": "y"},
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz"])
def test_one_list_of_rows_is_read_under_every_name(tmp_path, name):
    content = json.dumps(ROWS, indent=1).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert [row for _, row in reading.file_rows(tmp_path / name)] == ROWS


@pytest.mark.parametrize("filler", [b"\0", b"\n", b" ", b"{"])
def test_a_gzip_bomb_is_not_read_to_its_end(tmp_path, monkeypatch, filler):
    monkeypatch.setattr(reading, "ROOM", 1 << 16)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(filler * (1 << 22)))
    found, read = reading.lines(tmp_path / "a.jsonl.gz"), 0

    def read_on():
        nonlocal read
        for _, line in found:
            read += len(line)

    with pytest.raises(BadInput, match=r"a\.jsonl\.gz: it unpacks to more than 200 times its size"):
        read_on()
    assert read < 1 << 21


def test_gzip_that_shrank_well_is_no_bomb(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(GOOD * 100_000))
    assert sum(1 for _ in reading.file_rows(tmp_path / "a.jsonl.gz")) == 100_000


def test_a_literal_is_json_or_what_python_prints_and_nothing_is_run():
    assert reading.literal('["a", null]') == reading.literal("['a', None]") == ["a", None]
    for text in ("[print(1)]", "[" * 10_000, "['a'", "[a]", "[1e5000, " + "9" * 6000 + "]", "array(['a'])"):
        with pytest.raises(ValueError, match="neither JSON nor a Python literal"):
            reading.literal(text)
