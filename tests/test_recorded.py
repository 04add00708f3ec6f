"""From recorded opinions to a student: `w2s combine`, `w2s combine labels`, `w2s run label.recorded=DIR`."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from w2s.cli import main
from w2s.store.records import Example, Gold, PseudoLabels, read_arrays, read_rows


def opinions_of(examples, gold, members=4, seed=0):
    """Rows of outputs.jsonl: members that are right 70% of the time."""
    rng = np.random.default_rng(seed)
    for at in range(members):
        for row in examples:
            right, others = gold[row.id], [k for k in range(len(row.choices)) if k != gold[row.id]]
            answer = right if rng.random() < 0.7 else rng.choice(others)
            yield {"id": row.id, "model": f"m{at}", "answer": str(answer)}


def write(folder, examples, gold, *, known):
    folder.mkdir()
    rows = [{"id": e.id, "prompt": e.prompt, "choices": list(e.choices), "gold": str(gold[e.id]) if known else ""}
            for e in examples]  # fmt: skip
    pd.DataFrame(rows).to_json(folder / "questions.jsonl", orient="records", lines=True)
    pd.DataFrame(opinions_of(examples, gold)).to_json(folder / "outputs.jsonl", orient="records", lines=True)
    return str(folder)


def artifact(runs, title):
    """The folder of a finished stage, by the end of its title."""
    for path in (runs / "store").iterdir():
        if (path / "manifest.json").exists() and json.loads((path / "manifest.json").read_text())["title"].endswith(
            title
        ):
            return path
    raise AssertionError(title)


@pytest.fixture
def run(in_tiny_run, tmp_path, monkeypatch):
    """A copy of the finished tiny run as the working directory."""
    shutil.copytree(in_tiny_run / "runs", tmp_path / "runs")
    shutil.copy(in_tiny_run / "tiny.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_student_is_trained_on_the_labels_of_models_that_nobody_trained_here(run, capsys):
    runs = run / "runs"
    questions = artifact(runs, "questions")
    gold = {row.id: row.answer for name in ("easy", "transfer")
            for row in read_rows(artifact(runs, f"gold of {name}") / "gold.jsonl", Gold)}  # fmt: skip
    easy, transfer = (read_rows(questions / f"{name}.jsonl", Example) for name in ("easy_fit", "transfer"))
    known = write(run / "known", easy, gold, known=True)
    new = write(run / "new", transfer, gold, known=False)
    main(["combine", known, "--methods", "stacking,samme", "--out", "combined", "--repeats", "1"])
    main(["combine", "labels", "combined", new, "--method", "logistic", "--out", "labels"])
    assert "100 of 100 questions labelled" in capsys.readouterr().out
    labels = read_arrays(run / "labels" / "labels.npz", PseudoLabels)
    right = labels.target_NK.argmax(1) == [gold[key] for key in labels.ids]
    assert right.mean() > 0.75

    before = {path.name for path in (runs / "store").iterdir()}
    main(["run", "tiny.yaml", "label.recorded=labels", "--replace"])
    made = {path.name for path in (runs / "store").iterdir()} - before
    assert any(name.startswith("recorded_targets-") for name in made)
    assert not any(name.startswith(("boosting_round", "pretrain", "committee")) for name in made)
    metrics = json.loads((runs / "tiny" / "metrics.json").read_text())["metrics"]
    found = {one["model"] for one in metrics if one["name"] == "accuracy"}
    assert {"student", "recorded_student"} <= found
    assert any(one["name"] == "accuracy_minus_recorded_student" for one in metrics)
    assert "student of recorded labels" in (runs / "tiny" / "report.html").read_text()


def test_a_folder_that_holds_no_labels_is_refused_before_anything_runs(run, capsys):
    (run / "empty").mkdir()
    with pytest.raises(SystemExit) as stopped:
        main(["run", "tiny.yaml", "label.recorded=empty", "name=other"])
    assert stopped.value.code == 2
    assert "label.recorded: 'empty' given; allowed: a folder that `w2s combine labels` wrote" in capsys.readouterr().err
