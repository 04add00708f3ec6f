"""`w2s evaluate`, and programs judged by the path that a run's models take."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from tests import spine
from tests.models import tiny
from w2s.config.fields import Learner, Runtime, Writing
from w2s.config.registry import options, pick
from w2s.data.rows import take_first
from w2s.data.sources import SOURCES
from w2s.evaluation.run.runs import pass_metrics
from w2s.evaluation.suites import TEST_SPLIT, evaluate_model
from w2s.stages import Tools, writing
from w2s.store.records import BadInput, Example, Gold, Outcome, read_rows, write_rows


def writer(text_of):
    """A run_job that writes these texts where a model's would be."""

    def run_job(folder: Path) -> None:
        job = json.loads((folder / "job.json").read_text())
        rows = [json.loads(line) for line in Path(job["examples"]).read_text().splitlines()]
        said = {row["id"]: text_of(row, job["samples"]) for row in rows}
        lines = [json.dumps({"id": key, "texts": texts, "logps": [0.0] * len(texts)}) for key, texts in said.items()]
        (folder / "samples.jsonl").write_text("\n".join(lines) + "\n")
        (folder / "done.json").write_text(json.dumps({"rows": len(rows)}))

    return run_job


def judged(folder: Path, suite: str, rows, text_of, *, samples: int = 1):
    """(metrics, outcomes) of the stage that judges what a model writes."""
    examples, gold = rows
    inputs = {name: folder / name for name in (suite, "gold", "texts")}
    for path in (*inputs.values(), folder / "here"):
        path.mkdir()
    write_rows(inputs[suite] / f"{suite}.jsonl", examples)
    write_rows(inputs["gold"] / "gold.jsonl", gold)
    tools = Tools(Runtime(), None, None, writer(text_of))
    how = {
        "on": suite,
        "writing": asdict(Writing()),
        "seed": 0,
        "learner": Learner(),
        "untrained": True,
        "samples": samples,
    }
    writing.texts(inputs["texts"], inputs, tools, **how)
    facts = writing.judged(folder / "here", inputs, tools, by="student", on=suite)

    class Artifact:
        path, tags = folder / "here", {"model": "student", "seed": 0}

    outcomes = read_rows(folder / "here" / "outcomes.jsonl", Outcome)
    assert facts["rows"] == len(outcomes) == samples * len(examples)
    return {one.name: one.value for one in pass_metrics(suite, [Artifact])}, outcomes


def own_tasks(folder: Path):
    return pick(SOURCES, {"name": "humaneval"})(spine.write_data(folder / "data"))


def test_reference_solutions_pass_and_wrong_ones_do_not(tmp_path):
    rows = own_tasks(tmp_path)
    reference = {row.id: str(row.answer) for row in rows[1]}
    for name, text_of, value in (
        ("right", lambda row, n: [reference[row["id"]]] * n, 1.0),
        ("wrong", lambda row, n: ["    return None\n"] * n, 0.0),
        ("half", lambda row, n: [reference[row["id"]], "syntax error"], 0.5),
    ):
        (tmp_path / name).mkdir()
        found, outcomes = judged(tmp_path / name, "humaneval", rows, text_of, samples=2)
        assert found["pass@1"] == value, outcomes


@pytest.mark.parametrize("suite", ["humaneval", "humanevalplus", "mbpp", "mbppplus"])
def test_reference_solutions_of_published_tasks_pass(shared, tmp_path, suite):
    rows = pick(SOURCES, {"name": suite, "limit": 4})(shared / "data")
    reference = {row.id: str(row.answer) for row in rows[1]}
    found, outcomes = judged(tmp_path, suite, rows, lambda row, n: [reference[row["id"]]])
    assert found["pass@1"] == 1.0, outcomes


def test_short_answers_take_the_same_path(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"prompt": "1+1?", "answer": 2}\n{"prompt": "2+2?", "answer": "4"}\n')
    rows = pick(SOURCES, {"name": "file", "path": "q.jsonl"})(tmp_path)
    found, _ = judged(tmp_path, "file", rows, lambda row, n: ["The answer is 2."])
    assert found["pass@1"] == 0.5


def test_any_folder_of_hugging_face_can_be_evaluated_on_choices_and_on_programs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spine.write_data(tmp_path / "data")
    tiny.write("gpt2", tmp_path / "gpt2")
    asked = ["data.root=data", "runtime.slots=1", "evaluation.max_new_tokens=4", "evaluation.programs=1"]
    said = evaluate_model("gpt2", ["humaneval", "world"], asked)
    assert "humaneval        pass@1" in said
    found = json.loads(Path("runs/evaluate/gpt2/metrics.json").read_text())
    assert found["run"] == "gpt2"
    by_name = {(one["suite"], one["name"]): one for one in found["metrics"]}
    assert by_name["humaneval", "pass@1"]["n"] == 3
    assert 0 <= by_name["world", "accuracy"]["value"] <= 1
    assert "limit" not in found

    whole = Path("runs/evaluate/gpt2/metrics.json").read_bytes()
    said = evaluate_model("gpt2", ["humaneval", "world"], [*asked, "limit=2"])
    assert "limited: of each suite at most 2 questions, the first by id" in said
    limited = json.loads(Path("runs/evaluate/gpt2-limit-2/metrics.json").read_text())
    assert limited["limit"] == 2
    assert {one["suite"]: one["n"] for one in limited["metrics"]} == {"humaneval": 2, "world": 2}
    assert Path("runs/evaluate/gpt2/metrics.json").read_bytes() == whole
    lines = [json.loads(one)["text"] for one in Path("runs/evaluate/gpt2-limit-2/log.jsonl").read_text().splitlines()]
    assert lines[0] == "humaneval: 2 questions of 3, the first by id"


@pytest.mark.parametrize("limit", [None, 1, 3, 5, 99])
def test_a_limit_takes_the_first_by_id_in_the_order_they_stand_in(limit):
    ids = ["d", "a", "c", "b", "e"]
    rows = [Example(key, "own", "answer", key) for key in ids], [Gold(key, key) for key in ids]
    found = take_first(rows, limit)
    kept = set("abcde"[:limit])
    assert [row.id for row in found[0]] == [row.id for row in found[1]] == [key for key in ids if key in kept]


def test_a_runs_student_goes_by_its_runs_name_and_another_model_in_the_same_folder_is_asked_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = set()
    for architecture in ("gpt2", "llama"):
        shutil.rmtree("runs/mine", ignore_errors=True)
        tiny.write(architecture, tmp_path / "runs/mine/student")
        Path("runs/mine/stages.json").write_text("{}")
        evaluate_model("runs/mine/student", ["world"], ["runtime.slots=1", "limit=20"])
        found |= {path.name for path in Path("runs/evaluate/mine-student-limit-20").iterdir() if path.is_dir()}
    assert len(found) == 2
    assert {name.split("-")[0] for name in found} == {"world"}


def test_a_suite_that_is_not_there_is_said():
    with pytest.raises(BadInput, match="did you mean 'humaneval'"):
        evaluate_model("m", ["human_eval"], [])
    with pytest.raises(BadInput, match="none given"):
        evaluate_model("m", [], [])


def test_held_out_splits_are_splits_that_there_are():
    for name, chosen in TEST_SPLIT.items():
        assert "split" in options(SOURCES[name]), name
        assert chosen["split"] in ("test", "validation")
