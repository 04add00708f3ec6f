"""The Python API: its examples run, and what it refuses is one line."""

import dataclasses
import doctest
import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import w2s
from w2s.config.load import load
from w2s.store import log
from w2s.store.artifacts import read_listing, write_listing
from w2s.store.records import BadInput, Example, Predictions

EXAMPLES = [test for test in doctest.DocTestFinder().find(w2s, "w2s") if test.examples]


@pytest.fixture
def copy(in_tiny_run, tmp_path, monkeypatch) -> Path:
    """A copy of the finished tiny run as the working directory."""
    for name in ("tiny.yaml", "data"):
        (tmp_path / name).symlink_to(in_tiny_run / name)
    shutil.copytree(in_tiny_run / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    log.to_file(None)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_examples_of_the_docstrings_are_true(copy, example):
    example.globs |= {"w2s": w2s, "run": w2s.load_run("runs/tiny")}
    failed, tried = doctest.DocTestRunner().run(example, clear_globs=False)
    assert (failed, bool(tried)) == (0, True)


def test_every_public_function_has_an_example():
    modules = {path.partition(":")[0] for path in w2s.LATE.values()} - {"w2s.evaluation.pools.pool"}
    late = [test for name in modules for test in doctest.DocTestFinder().find(importlib.import_module(name), name)]
    documented = {test.name.rpartition(".")[2] for test in [*EXAMPLES, *late] if test.examples}
    records = {"STUDIES", "Judgement", "Pool", "Run", "Study"}
    assert set(w2s.__all__) - records <= documented
    assert {"metrics", "open", "apply", "labels"} <= documented


def test_what_is_imported_late_is_public_and_there():
    assert set(w2s.LATE) <= set(w2s.__all__) <= set(dir(w2s))
    assert all(getattr(w2s, name) for name in w2s.LATE)
    with pytest.raises(AttributeError, match="has no attribute 'juge'"):
        _ = w2s.juge


@pytest.mark.parametrize("name", w2s.STUDIES)
def test_every_function_of_a_study_can_be_imported(name):
    assert all(callable(w2s.STUDIES[name].load(function)) for function in ("checks", "chain", "finish"))


def test_a_mapping_and_a_config_are_the_same_run_as_their_file(copy):
    numbers = (copy / "runs/tiny/metrics.json").read_bytes()
    for config in (yaml.safe_load(Path("tiny.yaml").read_text()), load("tiny.yaml")):
        run = w2s.run(config)
        assert (run.folder, run.study) == (Path("runs/tiny"), "chain")
        assert read_listing(run.folder)["command"] == "w2s run runs/tiny/config.yaml"
    assert (copy / "runs/tiny/metrics.json").read_bytes() == numbers
    assert load("runs/tiny/config.yaml") == load("tiny.yaml")


def test_what_is_wrong_with_a_config_is_said_at_once(tiny_config):
    config = dataclasses.asdict(load(tiny_config))
    with pytest.raises(BadInput) as refused:
        w2s.run(config, "boosting.rounds=0", "student.train.lr=-1")
    assert [line.split(":")[0] for line in str(refused.value).splitlines()] == ["boosting.rounds", "student.train.lr"]
    with pytest.raises(BadInput, match="is the name of several configs"):
        w2s.run_together([tiny_config, tiny_config])
    with pytest.raises(BadInput, match=r"no run there \(no stages.json\)"):
        w2s.load_run(tiny_config.parent)


def test_records_of_a_stage_are_found_by_title_or_tags(copy):
    run = w2s.load_run("runs/tiny")
    assert isinstance(run.open("seed 0 · committee answers")["transfer"], Predictions)
    assert isinstance(run.open({"kind": "questions"})["hard_test"][0], Example)
    assert "weights" in run.open({"kind": "round", "model": "committee", "index": 0})
    with pytest.raises(BadInput, match="no stage 'labels by nobody'"):
        run.open("labels by nobody")
    with pytest.raises(BadInput, match="2 stages match"):
        run.open({"kind": "round", "model": "committee"})


def test_a_run_without_the_name_of_its_study_is_refused(copy):
    folder = Path("runs/tiny")
    listing = read_listing(folder)
    del listing["study"], listing["config"]
    write_listing(folder, (folder / "config.yaml").read_text(), listing)
    with pytest.raises(BadInput, match="written by another version of w2s"):
        w2s.load_run(folder)


def test_importing_w2s_imports_nothing_heavy():
    program = "import sys, w2s; print([name for name in ('numpy', 'torch', 'pandas', 'yaml') if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
