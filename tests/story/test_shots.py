"""Solved examples before questions, and chat prompts, through whole runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests import spine
from tests.conftest import shorten
from tests.models import chats
from w2s.cli import main
from w2s.config.load import load
from w2s.data.splits import SPLITS
from w2s.evaluation.suites import draw_shots
from w2s.store.records import BadInput, Example, read_rows
from w2s.story.main import build

SHORT = [
    "controls.bagged=false", "controls.shuffled=false", "controls.ceiling=false", "controls.easy_gold=false",
    "boosting.rounds=1", "evaluation.suites=[]",
]  # fmt: skip


def stored(name: str) -> list[Path]:
    return sorted(Path("runs/store").glob(f"{name}-*"))


def saved_models() -> list[dict]:
    found = [json.loads(path.read_text()) for path in Path("runs/store").glob("*/fit-*/model/w2s.json")]
    assert found
    return [marks["model"] for marks in found]


def test_shots_are_set_apart_solved_and_saved_with_the_models(tiny_config, monkeypatch):
    shorten(monkeypatch)
    words = ["learners.0.model.shots=3", "student.model.shots=1", "student.model.prompt={name: letters}"]
    main(["run", str(tiny_config), *SHORT, *words])
    (questions,), (solved,) = stored("questions"), stored("solved")
    apart = [row.id for row in read_rows(questions / "shots.jsonl", Example)]
    members = {name: {row.id for row in read_rows(questions / f"{name}.jsonl", Example)} for name in SPLITS}
    assert len(apart) == 3
    assert not set(apart) & set().union(*members.values())
    assert {name: len(ids) for name, ids in members.items()} == {
        "easy_fit": 160, "easy_holdout": 60, "transfer": 100, "hard_test": 80
    }  # fmt: skip
    shots = json.loads((solved / "shots.json").read_text())
    saved = [
        json.loads(path.read_text())["model"]["shots"] for path in Path("runs/store").glob("*/fit-*/model/w2s.json")
    ]
    assert shots in saved  # a learner's
    assert shots[:1] in saved  # the student's
    assert all(shown in (shots, shots[:1]) for shown in saved)
    untrained = [json.loads(path.read_text()) for path in Path("runs/store").glob("opinion-*/ask-0/job.json")]
    bases = [job["base"]["learner"]["model"]["shots"] for job in untrained if job["base"]]
    assert bases
    assert all(shown == shots[:1] for shown in bases)


def test_only_who_shows_them_descends_from_them(tiny_config):
    found = build(load(tiny_config, ["learners.0.model.shots=2"]), run_job=None)
    plain = build(load(tiny_config), run_job=None)
    assert not [stage for stage in plain if stage.tags.get("kind") == "shots"]
    assert all("shots" not in stage.section for stage in plain)
    (shots,) = [stage for stage in found if stage.tags.get("kind") == "shots"]
    shown = {stage.title for stage in found if "shots" in stage.parents}
    assert "seed 0 · floor" in shown
    assert not [title for title in shown if "student" in title]
    assert shots.parents["questions"].section["shots"] == 2


PAIR = "allowed for kind pair"
REFUSED = {
    "learners.0.model.shots=-1": "learners.0.model.shots: -1 given; allowed: 0 or more",
    "learners.0.model.shots=[{prompt: a}]": "learners.0.model.shots.0: answer: None given; allowed: a text",
    "rewards.models=[{model: {kind: pair, shots: 2}}]": f"rewards.models.0.model.shots: 2 given; {PAIR}: 0",
    "student.model.normalise=mean": "student.model.normalise: 'mean' given; allowed: one of: sum, per_token",
    "student.model={kind: pair, normalise: per_byte}": f"student.model.normalise: 'per_byte' given; {PAIR}: sum",
    "student.model.prompt={name: chat}": "student.model.prompt: 'chat' given, but the tokenizer of builtin:strong has",
    "student.model.prompt={name: chat, wording: x}": "student.model.prompt.wording: 'x' given; allowed: one of: plain",
    "rewards.models=[{model: {kind: pair, prompt: {name: letters}}}]": "model.prompt: 'letters' given; a pair lacks",
}


@pytest.mark.parametrize(("override", "words"), REFUSED.items())
def test_what_does_not_fit_is_one_line_before_anything_runs(tiny_config, override, words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["run", str(tiny_config), override])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
    assert not Path("runs/store").exists()


def test_more_shots_than_easy_questions_is_said(tiny_config, capsys):
    with pytest.raises(SystemExit):
        main(["run", str(tiny_config), "learners.0.model.shots=400"])
    assert "shots: 400 needed" in capsys.readouterr().err


def test_a_written_run_in_chat_with_shots_of_its_own(tmp_path, monkeypatch):
    """Learners of a tiny llama, a gemma3_text student: answers that end as the models' turns do."""
    monkeypatch.chdir(tmp_path)
    spine.write_config(tmp_path)
    config = yaml.safe_load(Path("written.yaml").read_text())
    shown = [{"prompt": "1 + 1 =", "answer": "2"}]
    model = {"prompt": {"name": "chat", "system": "Be brief."}, "shots": shown}
    rows = [{"prompt": f"Question {at}?", "answer": "7", "level": at % 2} for at in range(64)]  # one answer: texts end
    Path("data/rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config["data"]["sources"] = [{"name": "file", "path": "rows.jsonl"}]
    train = {"steps": 80, "batch": 16, "lr": 5e-3}
    config["learners"] = [{"model": {"path": str(chats.write("llama", tmp_path / "llama")), **model}, "train": train}]
    student = {"path": str(chats.write("gemma3_text", tmp_path / "gemma")), **model}
    config["student"] = {"model": student, "train": train}
    config["data"]["sizes"] = {"easy_fit": 16, "easy_holdout": 8, "transfer": 8, "hard_test": 8}
    Path("chat.yaml").write_text(yaml.safe_dump(config))
    main(["run", "chat.yaml", *SHORT])
    (saved,) = {
        path.read_text()
        for path in Path("runs/store").glob("fit-*/fit-0/model/w2s.json")
        if "gemma" in path.read_text()
    }
    assert json.loads(saved)["model"]["shots"] == shown
    assert Path("runs/tiny_written/report.md").is_file()


def test_evaluate_draws_shots_by_seed_from_another_split_than_the_judged_one(tmp_path):
    def row(name: str, at: int) -> dict:
        stem = {"stem": f"{name} {at}?", "choices": [{"label": "A", "text": "x"}, {"label": "B", "text": f"y{at}"}]}
        return {"id": f"{name}{at}", "question": stem, "answerKey": "B"}

    (tmp_path / "arc").mkdir()
    for name in ("Train", "Test"):
        lines = [json.dumps(row(name, at)) + "\n" for at in range(20)]
        (tmp_path / "arc" / f"ARC-Easy-{name}.jsonl").write_text("".join(lines))
    from w2s.config.load import from_overrides

    drawn = {}
    for seed in (0, 1):
        config = from_overrides([f"data.root={tmp_path}", "student.model.shots=4", f"seeds=[{seed}]"])
        drawn[seed] = draw_shots(config, "arc_easy", [])
        assert draw_shots(config, "arc_easy", []) == drawn[seed]
        assert len(drawn[seed]) == 4
        assert all(shot["prompt"].startswith("Train") and shot["answer"] == 1 for shot in drawn[seed])
        with pytest.raises(BadInput, match=r"^student.model.shots: 4 given; asdiv has no other split to draw from"):
            draw_shots(config, "asdiv", [])
    assert drawn[0] != drawn[1]
