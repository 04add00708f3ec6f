"""A finished run whose artifacts are damaged, its own folder gone: the same command tells it in one line, and reports
nothing. What no report rests on may lie there damaged: then the report is the same to the byte.
"""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from w2s.cli import main
from w2s.store import log
from w2s.store.artifacts import LISTING, MANIFEST, read_listing, read_manifest
from w2s.store.records import BadInput, Predictions, read_arrays, write_arrays

ARTIFACTS = ("gold of hard_test", "committee answers", "student judged on humaneval", "labels by committee")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def replace_by_link(path: Path) -> None:
    """The same bytes, but elsewhere, where they may change."""
    elsewhere = path.parents[4] / "elsewhere"
    shutil.copy(path, elsewhere)
    path.unlink()
    path.symlink_to(elsewhere)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


WAYS = {
    "a bit flipped": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "emptied": lambda path: path.write_bytes(b""),
    "gone": Path.unlink,
    "a list": lambda path: path.write_text("[]"),
    "a mapping of nothing": lambda path: path.write_text("{}"),
    "a link": replace_by_link,
    "a folder": replace_by_folder,
    "a pipe": replace_by_pipe,
    "a file beside it": lambda path: shutil.copy(path, path.with_name(f"more-{path.name}")),
    "a link beside it": lambda path: (path.parent / "more").symlink_to("/etc/hostname"),
    "a link to nothing beside it": lambda path: (path.parent / "more").symlink_to("nowhere"),
    "another artifact's": lambda path: shutil.copy(another(path), path),
    "the whole folder another's": lambda path: swap(path.parent, another(path).parent),
    "the whole folder empty": lambda path: (shutil.rmtree(path.parent), path.parent.mkdir()),
    "the whole folder a file": lambda path: (shutil.rmtree(path.parent), path.parent.write_text("")),
    "the whole folder a link to nothing": lambda path: (shutil.rmtree(path.parent), path.parent.symlink_to("nowhere")),
}


def another(path: Path) -> Path:
    """The file of that name in another artifact of the same kind (else any other's manifest)."""
    kind = path.parent.name.rpartition("-")[0]
    found = [one for one in path.parent.parent.glob(f"{kind}-*/{path.name}") if one != path]
    return (found or [one for one in path.parent.parent.glob(f"*/{MANIFEST}") if one.parent != path.parent])[0]


def swap(folder: Path, other: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(other, folder)


@pytest.fixture
def store(in_tiny_run, tmp_path, monkeypatch) -> Path:
    """The store of a finished run without its folder, as the working directory's."""
    shutil.copytree("runs/store", tmp_path / "runs/store")
    for name in ("tiny.yaml", "data"):
        (tmp_path / name).symlink_to(in_tiny_run / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs/store"


def titled(in_tiny_run: Path, title: str) -> str:
    listed = json.loads((in_tiny_run / "runs/tiny/stages.json").read_text())["stages"]
    return next(one["folder"] for one in listed if one["title"].endswith(title))


def refused(words: list[str], capsys) -> str:
    """The one line in which the command is refused."""
    capsys.readouterr()
    try:
        with pytest.raises(SystemExit) as caught:
            main(words)
    finally:
        log.to_file(None)
    said = capsys.readouterr()
    assert caught.value.code == 2
    lines = [line for line in said.err.splitlines() if line.startswith("w2s: ")]
    assert len(lines) == 1
    assert "Traceback" not in said.err
    return lines[0]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("title", ARTIFACTS)
def test_a_damaged_artifact_never_reaches_a_report(store, in_tiny_run, capsys, title, way):
    folder = store / titled(in_tiny_run, title)
    file = next(one for one in sorted(folder.iterdir()) if one.is_file() and one.suffix != ".json")
    WAYS[way](file)
    line = refused(["run", "tiny.yaml"], capsys)
    assert folder.name in line
    assert "run again" in line
    assert not (store.parent / "tiny/metrics.json").exists()
    assert not (store.parent / "tiny/report.html").exists()


@pytest.mark.parametrize(
    "text", ["[]", "{}", "", "null", '{"files": []}', '"text"', "[" * 100_000, "\0", None], ids=range(9)
)
def test_a_manifest_of_another_shape_is_told_in_one_line(store, in_tiny_run, capsys, text):
    folder = store / titled(in_tiny_run, "committee answers")
    whole = json.loads((folder / MANIFEST).read_text())
    facts = {**whole, "facts": {"members": 99}} if text is None else text  # valid, but other words
    (folder / MANIFEST).write_text(json.dumps(facts) if text is None else text)
    for words in (["run", "tiny.yaml"], ["plan", "tiny.yaml"], ["show", folder.name]):
        assert f"{folder.name}/{MANIFEST}: it is missing, damaged" in refused(words, capsys)


def test_gold_that_was_changed_and_opinions_that_were_turned_round_give_no_other_report(store, in_tiny_run, capsys):
    """What an attacker did: the numbers changed, and the command ended well."""
    gold = store / titled(in_tiny_run, "gold of hard_test") / "gold.jsonl"
    text = gold.read_text()
    gold.write_text(text.replace('"answer": 0', '"answer": 1'))
    assert str(gold) in refused(["run", "tiny.yaml"], capsys)
    gold.write_text(text)
    path = store / titled(in_tiny_run, "student answers") / "hard_test.npz"
    one = read_arrays(path, Predictions)
    write_arrays(path, Predictions(one.ids, one.probs_NK[:, ::-1], one.mask_NK[:, ::-1], one.abstained_N, one.by))
    assert str(path) in refused(["run", "tiny.yaml"], capsys)


def test_damage_that_no_report_rests_on_leaves_it_as_it_was(store, in_tiny_run, capsys):
    weights = next((store / titled(in_tiny_run, "· ceiling")).rglob("model.safetensors"))
    flip(weights)
    main(["run", "tiny.yaml"])
    log.to_file(None)
    numbers = Path("runs/tiny/metrics.json").read_bytes()
    assert numbers == (in_tiny_run / "runs/tiny/metrics.json").read_bytes()
    model = str(weights.parent)
    assert str(weights) in refused(["evaluate", model, "humaneval", "data.root=data"], capsys)
    assert str(weights) in refused(["run", "tiny.yaml", f"student.model.path={model}", "name=next"], capsys)


def test_what_changes_while_the_process_runs_is_seen(store, in_tiny_run, capsys):
    main(["run", "tiny.yaml"])
    log.to_file(None)
    flip(store / titled(in_tiny_run, "gold of hard_test") / "gold.jsonl")
    assert "gold.jsonl: it is not as it was written" in refused(["report", "tiny"], capsys)
    assert "gold.jsonl: it is not as it was written" in refused(["why", "tiny", ""], capsys)


@pytest.mark.parametrize("name", [LISTING, "config.yaml"])
@pytest.mark.parametrize("way", ["a bit flipped", "cut", "emptied", "gone", "a list", "a mapping of nothing"])
def test_a_damaged_run_folder_is_told_in_one_line_and_replace_mends_it(store, in_tiny_run, capsys, name, way):
    shutil.copytree(in_tiny_run / "runs/tiny", "runs/tiny")
    WAYS[way](Path("runs/tiny") / name)
    for words in (["report", "runs/tiny"], ["why", "runs/tiny", "a"]):
        line = refused(words, capsys)
        assert name in line or "no run there" in line
    main(["run", "tiny.yaml", "--replace"])
    log.to_file(None)
    assert read_listing(Path("runs/tiny"))


def test_a_link_in_a_partial_folder_is_no_part_of_an_artifact(tmp_path):
    from w2s.store.artifacts import Stage, Store

    def work(here: Path, inputs) -> None:
        (here / "file.txt").write_text("text")

    stage = Stage("s", "s", {}, {}, work)
    partial = tmp_path / f"{stage.folder_name}.partial"
    partial.mkdir()
    (partial / "stray").symlink_to("/etc/hostname")
    with pytest.raises(BadInput, match=r"\.partial/stray: a link or special file"):
        Store(tmp_path).make(stage)
    (partial / "stray").unlink()
    (partial / MANIFEST).write_text("[]")  # of a kill just before the rename
    (partial / f"{MANIFEST}.new").write_text("[")
    assert list(read_manifest(Store(tmp_path).make(stage))["files"]) == ["file.txt"]


def test_nothing_is_hashed_twice_while_it_does_not_change(store, in_tiny_run, monkeypatch):
    from w2s.store import artifacts as module

    folder, hashed = store / titled(in_tiny_run, "committee answers"), []
    sha256 = module.hash_file
    monkeypatch.setattr(module, "sha256", lambda path: hashed.append(path.name) or sha256(path))
    for _ in range(3):
        module.check_artifact(folder)
    assert len(hashed) == len(set(hashed)) == len(read_manifest(folder)["files"])
    np.savez(folder / "hard_test_votes.npz", a=np.zeros(1))
    with pytest.raises(BadInput, match=r"hard_test_votes\.npz: it is not as it was written"):
        module.check_artifact(folder)


@pytest.mark.parametrize("name", [MANIFEST, LISTING, "config.yaml"])
def test_a_pipe_under_a_name_of_ours_holds_nobody_up(store, in_tiny_run, capsys, name):
    shutil.copytree(in_tiny_run / "runs/tiny", "runs/tiny")
    folder = store / titled(in_tiny_run, "gold of easy") if name == MANIFEST else Path("runs/tiny")
    replace_by_pipe(folder / name)
    line = refused(["run", "tiny.yaml"] if name != LISTING else ["report", "runs/tiny"], capsys)
    assert name in line or "no run there" in line
