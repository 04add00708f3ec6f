"""From a run's folder to metrics.json and its report."""

import json
import shutil
from pathlib import Path

import pytest

from evaluation.collect import finish, report_data
from evaluation.runs import bins, measure_run, open_run


@pytest.fixture
def folder(in_tiny_run) -> Path:
    return Path("runs/tiny")


def test_finish_does_nothing_twice_unless_it_is_asked_or_something_changed(tiny_run, tmp_path, monkeypatch):
    shutil.copytree(tiny_run / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    folder = Path("runs/tiny")
    before = (folder / "report.html").stat().st_mtime_ns
    words = finish(folder)
    assert (folder / "report.html").stat().st_mtime_ns == before
    assert finish(folder, again=True) == words
    assert (folder / "report.html").stat().st_mtime_ns != before
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("draws: 200", "draws: 100"))
    (folder / "metrics.json").write_text('{"verdict": "old"}')
    assert finish(folder) == words or finish(folder) != "old"
    assert len(json.loads((folder / "metrics.json").read_text())["metrics"]) > 10


def test_the_numbers_hold_no_time_and_no_path(folder, tiny_run):
    text = (folder / "metrics.json").read_text()
    assert str(tiny_run) not in text
    assert "second" not in text


def test_the_report_has_every_part(folder):
    run = open_run(folder)
    answers, metrics = measure_run(run)
    data = report_data(run, answers, metrics)
    assert data.synthetic.startswith("The questions are synthetic")
    assert set(data.controls_off) == {"long_learner", "naive_student"}
    assert [len(one.rounds) for one in data.rounds] == [2]
    assert len(data.heaviest) == 8
    assert all(len(row.weights) == 2 for row in data.heaviest)
    assert len(data.samples) == 4
    assert {c.model for c in data.calibration} == {"floor", "committee", "student", "ceiling"}
    assert bins(run)[0] == data.difficulty_bins
    assert data.flow[0].count == "160" or data.flow[0].count == "220"
    assert sum(cost.seconds for cost in data.costs) > 0
    assert data.reproduce.command.startswith("w2s run ")
