"""Keys, manifests, one rename, damage and locks."""

import errno
import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from w2s.store.files import describe_disk_error, write_json

from w2s.cli import main
from w2s.store.artifacts import Stage, Store, read_manifest
from w2s.store.records import BadInput


def stage(name="s", section=None, parents=None, work=None, **more) -> Stage:
    def write(here: Path, inputs) -> dict:
        text = "".join((folder / "file.txt").read_text() for folder in inputs.values())
        (here / "file.txt").write_text(f"{name}({text})")
        return {"rows": 1}

    return Stage(name, name, section or {}, parents or {}, work or write, **more)


sections = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(sections, sections)
def test_a_key_changes_exactly_when_the_section_does(one, other):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (stage(section=[one]).key == stage(section=[other]).key) is same


def test_a_key_depends_on_name_version_and_every_ancestor_by_role_but_on_no_tag():
    root = stage("root")
    made = [
        stage(parents={"a": root}),
        stage(parents={"b": root}),
        stage(parents={"a": stage("root", section=[1])}),
        stage(parents={"a": stage("mid", parents={"x": root})}),
        stage(parents={"a": root}, version=2),
        stage("t", parents={"a": root}),
    ]
    assert len({one.key for one in made}) == len(made)
    assert made[0].key == stage(parents={"a": root}, tags={"seed": 3}).key


def test_a_finished_stage_is_read_and_not_made_again(tmp_path):
    store, calls = Store(tmp_path), []
    one = stage(work=lambda here, inputs: calls.append(1))
    assert store.make(one) == store.make(one)
    assert calls == [1]


def test_parents_come_by_role_and_the_manifest_says_what_made_it(tmp_path):
    store, root = Store(tmp_path), stage("root")
    child = stage("child", section={"lr": 0.1}, parents={"from": root})
    store.make(root)
    folder = store.make(child)
    assert (folder / "file.txt").read_text() == "child(root())"
    manifest = read_manifest(folder)
    assert manifest["parents"] == {"from": root.folder_name}
    assert manifest["section"] == {"lr": 0.1}
    assert manifest["facts"] == {"rows": 1}
    assert list(manifest["files"]) == ["file.txt"]
    assert manifest["files"]["file.txt"]["size"] == len("child(root())")
    assert {"torch", "numpy", "python"} <= set(manifest["versions"])


def test_work_that_fails_leaves_no_artifact_and_goes_on_in_the_same_partial_folder(tmp_path):
    store = Store(tmp_path)

    def work(here: Path, inputs):
        if not (here / "half").exists():
            (here / "half").write_text("half")
            raise RuntimeError("killed")
        (here / "rest").write_text("rest")

    one = stage(work=work)
    with pytest.raises(RuntimeError, match="killed"):
        store.make(one)
    assert not store.done(one)
    assert sorted(read_manifest(store.make(one))["files"]) == ["half", "rest"]
    assert [path.name for path in tmp_path.iterdir()] == [one.folder_name]


@pytest.mark.parametrize("damage", ["changed", "cut", "gone", "no manifest", "half a manifest"])
def test_a_damaged_artifact_is_named_before_it_is_used(tmp_path, damage):
    root, used = stage("root"), []
    folder = Store(tmp_path).make(root)
    file = folder / "file.txt"
    text = file.read_text()
    if damage == "changed":
        file.write_text(text[::-1])
    elif damage == "cut":
        file.write_text(text[:-1])
    elif damage == "gone":
        file.unlink()
    elif damage == "no manifest":
        (folder / "manifest.json").unlink()
    else:
        manifest = (folder / "manifest.json").read_text()
        (folder / "manifest.json").write_text(manifest[: len(manifest) // 2])
    child = stage("child", parents={"from": root}, work=lambda here, inputs: used.append(1))
    with pytest.raises(BadInput, match=folder.name) as caught:
        Store(tmp_path).make(child)
    assert "\n" not in str(caught.value)
    assert not used


def make_slowly(folder: Path, out) -> None:
    def work(here: Path, inputs):
        out.put(os.getpid())
        time.sleep(0.5)

    Store(folder).make(stage(work=work))


def test_two_processes_that_want_one_artifact_make_it_once(tmp_path):
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    both = [context.Process(target=make_slowly, args=(tmp_path, out)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert out.get(timeout=1)
    assert out.empty()


def test_the_lock_of_a_dead_process_holds_nobody_up(tmp_path):
    one = stage()
    (tmp_path / f"{one.folder_name}.lock").write_text("process 1 on elsewhere")
    assert Store(tmp_path).make(one).is_dir()


def test_json_is_whole_or_not_there(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"b": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": 1}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES, errno.ENOTDIR])
def test_a_disk_that_is_full_or_closed_is_told_in_words_and_a_bug_is_not_taken_for_one(number):
    assert describe_disk_error(OSError(number, os.strerror(number), "a/file")) == f"a/file: {os.strerror(number)}"
    named = type("SafetensorError", (Exception,), {})
    assert describe_disk_error(named(f"I/O error: ... (os error {number})")) == f"writing: {os.strerror(number)}"
    for other in (FileNotFoundError(errno.ENOENT, "no", "x"), ValueError(f"os error {number}"), OSError("no number")):
        assert describe_disk_error(other) is None


def test_a_file_where_the_runs_should_lie_is_told_in_one_line(tiny_config, capsys):
    Path("taken").write_text("")
    for place in ("taken", "taken/below"):
        with pytest.raises(SystemExit) as caught:
            main(["run", str(tiny_config), f"runtime.runs_dir={place}"])
        said = capsys.readouterr().err.splitlines()
        assert caught.value.code == 2
        assert said[-1].startswith("w2s: ")
        assert "Traceback" not in "".join(said)
