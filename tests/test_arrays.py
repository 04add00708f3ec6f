"""Files of arrays and rows that are not what they seem: a line that names the file, and no memory taken before."""

import gzip
import io
import json
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from w2s.store.records import (
    BadInput,
    Example,
    Gold,
    Predictions,
    PseudoLabels,
    Rewards,
    TokenTargets,
    Weights,
    load_arrays,
    read_arrays,
    read_rows,
    write_arrays,
    write_rows,
)

IDS = np.array(["a", "b", "c"])
RECORDS = [
    Predictions(IDS, np.full((3, 2), 0.5), np.ones((3, 2), bool), np.zeros(3, bool), "one"),
    PseudoLabels(IDS, np.full((3, 2), 0.5), np.ones(3), np.full(3, "kept")),
    Weights(IDS, np.full(3, 1 / 3)),
    Rewards(IDS, np.zeros((2, 3, 2)), np.array(["m", "n"])),
    TokenTargets(IDS, np.array([1, 0, 2]), np.zeros((3, 4), int), np.zeros((3, 4), np.float16), "hash"),
]


def npy(shape: tuple, dtype: str = "<f8", body: bytes = b"") -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": dtype, "fortran_order": False, "shape": shape})
    return out.getvalue() + body


def archive(path: Path, files: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", how) as file:
        for name, body in files.items():
            file.writestr(f"{name}.npy", body)
    return path


@pytest.mark.parametrize("record", RECORDS, ids=lambda one: type(one).__name__)
def test_a_record_comes_back_as_it_was_also_when_it_is_empty(tmp_path, record):
    write_arrays(tmp_path / "a.npz", record)
    back = read_arrays(tmp_path / "a.npz", type(record))
    for name in vars(record):
        np.testing.assert_array_equal(getattr(back, name), getattr(record, name))
    empty = type(record)(**{
        name: value if not isinstance(value, np.ndarray) or name == "models" else
        value[:, :0] if "_MN" in name else value[:0] for name, value in vars(record).items()
    })  # fmt: skip
    write_arrays(tmp_path / "e.npz", empty)
    assert len(read_arrays(tmp_path / "e.npz", type(record)).ids) == 0


@pytest.mark.parametrize("record", RECORDS, ids=lambda one: type(one).__name__)
def test_every_array_of_another_shape_or_type_is_named(tmp_path, record):
    whole = {name: np.asarray(value) for name, value in vars(record).items()}
    for name, array in whole.items():
        others = [array[..., None], np.asarray(["x"] * 5) if array.dtype.kind != "U" else np.arange(5.0)]
        others += [np.concatenate([array, array[:1]])] if array.ndim else [np.stack([array, array])]
        for other in others:
            np.savez(tmp_path / "a.npz", **{**whole, name: other})
            with pytest.raises(BadInput, match=r"a\.npz: ") as caught:
                read_arrays(tmp_path / "a.npz", type(record))
            assert "\n" not in str(caught.value)
        np.savez(tmp_path / "a.npz", **{key: value for key, value in whole.items() if key != name})
        with pytest.raises(BadInput, match=rf"a\.npz: {name}: this array is missing"):
            read_arrays(tmp_path / "a.npz", type(record))


BROKEN = {
    "a header of 16 GiB": lambda path: archive(path, {"a": npy((2**31,), body=b"\0" * 64)}),
    "a header of many petabytes": lambda path: archive(path, {"a": npy((2**31, 2**31), body=b"\0" * 64)}),
    "a header below nothing": lambda path: archive(path, {"a": npy((-8,), body=b"\0" * 64)}),
    "less than the header says": lambda path: archive(path, {"a": npy((9,), body=b"\0" * 64)}),
    "more than the header says": lambda path: archive(path, {"a": npy((7,), body=b"\0" * 64)}),
    "a bomb": lambda path: archive(path, {"a": npy((2**24,), body=bytes(2**27))}, zipfile.ZIP_DEFLATED),
    "objects": lambda path: np.savez(path, a=np.array([{}], dtype=object)),
    "a long header": lambda path: archive(path, {"a": b"\x93NUMPY\x02\0" + (2**31).to_bytes(4, "little") + b"{"}),
    "no header": lambda path: archive(path, {"a": b"text"}),
    "nothing": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("text"),
    "one array": lambda path: path.write_bytes(npy((1,), body=b"\0" * 8)),
    "a pickle": lambda path: path.write_bytes(b"cos\nsystem\n(S'true'\ntR."),
    "a folder": Path.mkdir,
    "no file": lambda path: None,
}


@pytest.mark.parametrize("how", BROKEN)
def test_arrays_that_are_none_are_told_before_memory_is_taken(tmp_path, how):
    path = tmp_path / "a.npz"
    BROKEN[how](path)
    tracemalloc.start()
    try:
        with pytest.raises(BadInput, match=r"a\.npz: not readable: ") as caught:
            load_arrays(path)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("at", range(0, 600, 7))
def test_any_bit_of_a_file_of_arrays_may_be_wrong(tmp_path, at):
    write_arrays(tmp_path / "a.npz", RECORDS[0])
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[at * len(data) // 600] ^= 1 << at % 8
    (tmp_path / "a.npz").write_bytes(data)
    try:
        found = read_arrays(tmp_path / "a.npz", Predictions)
    except BadInput as error:
        found = str(error)
    assert isinstance(found, Predictions) or "a.npz: " in found


@pytest.mark.parametrize(
    "text", ["[]", "null", "3", '"x"', "{}", '{"id": 1, "other": 2}', "{", "[" * 100_000, "\0", "NaN"], ids=range(10)
)
def test_a_row_of_another_shape_is_told_with_its_line(tmp_path, text):
    (tmp_path / "rows.jsonl").write_text('{"id": "a", "answer": 1}\n' + text + "\n")
    with pytest.raises(BadInput, match=r"rows\.jsonl:2: "):
        read_rows(tmp_path / "rows.jsonl", Gold)


def test_rows_that_are_no_text_or_no_file_are_told(tmp_path):
    (tmp_path / "bytes.jsonl").write_bytes(b'{"id": "\xff"}\n')
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"id": "a", "answer": 1}\n' * 99)[:-20])
    (tmp_path / "text.jsonl.gz").write_text("text")
    (tmp_path / "folder.jsonl").mkdir()
    for name in ("bytes.jsonl", "cut.jsonl.gz", "text.jsonl.gz", "folder.jsonl", "none.jsonl"):
        with pytest.raises(BadInput, match=name):
            read_rows(tmp_path / name, Gold)


def test_a_lone_surrogate_is_written_as_json_writes_it_and_comes_back(tmp_path):
    row = Example("a", "s", "answer", "what \ud800 is this?")
    write_rows(tmp_path / "rows.jsonl", [row])
    assert "\\ud800" in (tmp_path / "rows.jsonl").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "rows.jsonl").read_text())["prompt"] == row.prompt
    assert read_rows(tmp_path / "rows.jsonl", Example) == [row]
