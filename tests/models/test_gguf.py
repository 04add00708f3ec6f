"""A GGUF file's header: what it tells, and one line for whatever is wrong with it."""

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models import gguf_files
from w2s.cli import main
from w2s.models import folders, gguf
from w2s.store.records import BadInput


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return gguf_files.make("llama", "Q8_0", tmp_path_factory.mktemp("gguf"))[0]


def words(count: int, text: str) -> bytes:
    return struct.pack("<Q", count) + text.encode()


def header(content: bytes, *, tensors: int = 0, entries: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries) + content


ENTRY = words(1, "a") + struct.pack("<I", 8) + words(1, "b")
TENSOR = words(1, "t") + struct.pack("<I", 1)
DAMAGED = {
    "empty": (b"", "cut short"),
    "another format": (b"PK\x03\x04" + bytes(100), "it does not begin with GGUF"),
    "the first version": (header(b"", version=1), "version 1 given; allowed: 2, 3"),
    "big-endian": (header(b"", version=3 << 24), "version 50331648 given"),
    "no tensor": (header(ENTRY, entries=1), "it holds no tensor"),
    "countless entries": (header(ENTRY, entries=2**63), "cut short"),
    "countless tensors": (header(TENSOR, tensors=2**63), "cut short"),
    "an endless name": (header(words(2**63, "a"), entries=1), "cut short"),
    "countless axes": (header(words(1, "t") + struct.pack("<I", 2**32 - 1), tensors=1), "cut short"),
    "an unknown value": (header(words(1, "a") + struct.pack("<I", 77), entries=1), "damaged"),
    "a list of lists": (header(words(1, "a") + struct.pack("<IIQ", 9, 9, 1), entries=1), "damaged"),
    "an unknown type": (header(TENSOR + struct.pack("<QIQ", 1, 99, 0), tensors=1), "damaged"),
    "no data": (header(TENSOR + struct.pack("<QIQ", 100, 0, 0), tensors=1), "its header tells of"),
    "no architecture": (header(TENSOR + struct.pack("<QIQ", 0, 0, 0) + bytes(99), tensors=1), "general.architecture"),
}


def refused(file: Path, told: str, tiny_config: Path, capsys) -> None:
    """By `w2s plan` and `w2s evaluate`, in one line, with no traceback, before anything runs."""
    for command in (["plan", str(tiny_config), f"student.model.path={file}"], ["evaluate", str(file), "world"]):
        with pytest.raises(SystemExit) as caught:
            main(command)
        line = capsys.readouterr().err
        assert caught.value.code == 2
        assert told in line
        assert line.count("\n") == 1
        assert line.count(str(file)) == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_one_line(name, tmp_path, tiny_config, capsys):
    content, told = DAMAGED[name]
    (tmp_path / "x.gguf").write_bytes(content)
    refused(tmp_path / "x.gguf", told, tiny_config, capsys)


def test_a_file_that_is_cut_anywhere_is_refused(whole, tmp_path, tiny_config, capsys):
    content = whole.read_bytes()
    for end in [*range(0, 200, 7), len(content) // 4, len(content) // 2, len(content) - 1]:
        (tmp_path / "x.gguf").write_bytes(content[:end])
        assert "not a whole GGUF file" in gguf.fault(tmp_path / "x.gguf")
    refused(tmp_path / "x.gguf", "its header tells of", tiny_config, capsys)


@settings(max_examples=300)
@given(data=st.data())
def test_a_header_with_any_damage_is_read_or_refused(whole, data, tmp_path_factory):
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 6000))] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.getbasetemp() / "damaged.gguf"
    file.write_bytes(content)
    with contextlib.suppress(BadInput):
        assert gguf.read_header(file).values >= 0
    assert "\n" not in (gguf.fault(file) or "")
    assert folders.depth(str(file)) > -(2**63) - 1


CHANGED = {
    "an unknown architecture": ({"architecture": "clip"}, "general.architecture: 'clip' given; allowed: bloom, "),
    "scaled positions": ({"llama.rope.scaling.type": "linear"}, "llama.rope.scaling.type 'linear' scales its rotary"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_transformers_does_not_read_is_one_line(name, tmp_path, tiny_config, capsys):
    changed, told = CHANGED[name]
    file, _ = gguf_files.make("llama", "F32", tmp_path, changed=changed)
    refused(file, told, tiny_config, capsys)


def test_a_file_without_a_tokenizer_is_one_line(tmp_path, tiny_config, capsys):
    file, _ = gguf_files.make("llama", "F32", tmp_path, has_tokenizer=False)
    refused(file, "the file has no tokenizer (tokenizer.ggml.tokens)", tiny_config, capsys)


def test_a_missing_package_is_named(whole, tiny_config, capsys, monkeypatch):
    monkeypatch.setattr(gguf.importlib.util, "find_spec", lambda name: None)
    refused(whole, "pip install gguf", tiny_config, capsys)


def test_a_missing_file_is_one_line(tmp_path, tiny_config, capsys):
    for name in (str(tmp_path / "none.gguf"), "none.gguf"):
        refused(Path(name), "there is no such file", tiny_config, capsys)


def test_more_layers_than_the_file_has_are_refused(whole, tiny_config, capsys):
    with pytest.raises(SystemExit):
        main(["plan", str(tiny_config), f"student.model.path={whole}", "student.model.layers=3"])
    assert f"student.model.layers: 3 given; allowed: at most 2, as {whole} has" in capsys.readouterr().err


def test_a_name_is_looked_up_under_the_root(whole, tmp_path):
    root = tmp_path / "models"
    (root / "org").mkdir(parents=True)
    assert folders.locate("org/a") is None
    assert folders.locate("builtin:weak", str(root)) is None
    assert folders.absent("org/a", str(root)) == (
        f"org/a: models.root holds neither the folder {root}/org/a nor the file {root}/org/a.gguf"
    )
    (root / "org" / "a.gguf").symlink_to(whole)
    assert folders.locate("org/a", str(root)) == root / "org" / "a.gguf"
    assert folders.absent("org/a", str(root)) is None
    (root / "org" / "b.v1").mkdir()
    assert folders.locate("org/b.v1", str(root)) == root / "org" / "b.v1"
    assert "no config.json" in folders.absent("org/b.v1", str(root))
    assert folders.locate(str(whole), str(root)) == whole
