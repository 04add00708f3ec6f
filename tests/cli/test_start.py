"""What `w2s init` writes runs as it is, and nothing of the user's is overwritten."""

import json
from pathlib import Path

import pytest

from w2s.cli import main
from w2s.cli.start import STARTS
from w2s.store import log

TASKS = [task for task in STARTS if task != "recorded"]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    log.to_file(None)


@pytest.mark.parametrize("task", TASKS)
def test_a_started_task_can_be_planned(folder, capsys, task):
    main(["init", task, "mine"])
    said = capsys.readouterr().out
    assert said.endswith(f"next:  w2s plan mine/{task}.yaml\nnext:  w2s run mine/{task}.yaml\n")
    main(["plan", f"mine/{task}.yaml"])
    plan = capsys.readouterr().out
    assert "committee · round #" in plan
    assert "learner 1 (builtin:" in plan
    assert not (folder / "runs").exists()


def test_recorded_answers_can_be_combined(folder, capsys):
    main(["init", "recorded"])
    assert "next:  w2s combine --config recorded.yaml" in capsys.readouterr().out
    main(["combine", "--config", "recorded.yaml", "--methods", "votes"])
    assert "plurality" in capsys.readouterr().out


@pytest.mark.parametrize("there", ["choices.yaml", "data/questions.jsonl"])
def test_nothing_is_overwritten(folder, capsys, there):
    Path(there).parent.mkdir(exist_ok=True)
    Path(there).write_text("mine")
    with pytest.raises(SystemExit) as caught:
        main(["init"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(f"w2s: {there}: it exists already; nothing was written")
    assert [path for path in folder.rglob("*") if path.is_file()] == [folder / there]
    assert Path(there).read_text() == "mine"


def test_a_folder_with_odd_characters_is_quoted(folder, capsys):
    main(["init", "choices", "my data: #1"])
    main(["plan", "my data: #1/choices.yaml"])
    assert "easy_fit" in capsys.readouterr().out


def test_the_rows_of_a_choice_task_are_as_the_readme_says(folder):
    main(["init", "choices", "."])
    rows = [json.loads(line) for line in Path("data/questions.jsonl").read_text().splitlines()]
    assert {tuple(row) for row in rows} == {("prompt", "choices", "answer", "level")}


@pytest.mark.slow
def test_a_started_task_of_choices_runs(folder, capsys):
    main(["init", "choices"])
    main(["run", "choices.yaml", "--limit", "40"])
    assert Path("runs/choices-limit-40/report.html").is_file()
