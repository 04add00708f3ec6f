"""The whole chain, once, and what people do with a finished run."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from w2s.cli import main
from w2s.config.load import load
from w2s.store.artifacts import check_artifact, read_manifest
from w2s.store.records import Example, Outcome, PseudoLabels, read_arrays, read_rows
from w2s.story.main import build

MODELS = {
    "floor",
    "best_learner",
    "committee",
    "uniform",
    "bagged",
    "zero_shot",
    "student",
    "easy_gold",
    "ceiling",
    "shuffled",
}


def metrics(folder: Path) -> dict:
    return json.loads((folder / "runs/tiny/metrics.json").read_text())


def stages(folder: Path) -> dict[str, dict]:
    listed = json.loads((folder / "runs/tiny/stages.json").read_text())["stages"]
    return {one["title"].removeprefix("seed 0 · "): one for one in listed}


def artifact(folder: Path, title: str) -> Path:
    return folder / "runs/store" / stages(folder)[title]["folder"]


def ancestors(store: Path, name: str) -> set[str]:
    """The names of the folders that an artifact came from, by the manifests on the disk."""
    parents = read_manifest(store / name)["parents"].values()
    return set(parents).union(*(ancestors(store, parent) for parent in parents))


def test_metrics_have_every_model_and_the_fixed_names(tiny_run):
    found = metrics(tiny_run)
    assert found["run"] == "tiny"
    hard = [one for one in found["metrics"] if one["suite"] == "hard_test" and one["name"] == "accuracy"]
    assert {one["model"] for one in hard} == MODELS
    for one in hard:
        assert 0 <= one["low"] <= one["value"] <= one["high"] <= 1
        assert (one["n"], one["seeds"]) == (80, [0])
    (pgr,) = [
        one for one in found["metrics"] if (one["model"], one["name"], one["suite"]) == ("student", "pgr", "hard_test")
    ]
    assert (pgr["value"] is None) is bool(pgr.get("reason"))
    assert found["verdict"]


def test_a_suite_with_choices_and_one_with_programs_are_part_of_the_run(tiny_run):
    by_suite = {(one["suite"], one["name"]): one for one in metrics(tiny_run)["metrics"] if one["model"] == "student"}
    assert by_suite["file", "accuracy"]["n"] == 12
    assert by_suite["humaneval", "pass@1"]["n"] == 3
    outcomes = read_rows(artifact(tiny_run, "student judged on humaneval") / "outcomes.jsonl", Outcome)
    assert len(outcomes) == 6  # two programs for each of three tasks
    assert all(one.correct is not None and one.status for one in outcomes)
    assert read_manifest(artifact(tiny_run, "student judged on humaneval"))["facts"]["sandbox"]


def test_every_artifact_is_as_its_manifest_says_and_nothing_is_left_over(tiny_run):
    store = tiny_run / "runs/store"
    listed = {one["folder"] for one in stages(tiny_run).values()}
    assert {path.name for path in store.iterdir()} == listed
    for name in listed:
        check_artifact(store / name)
        assert name.endswith(read_manifest(store / name)["key"])


def test_by_the_manifests_no_ancestor_of_the_student_holds_gold_of_the_transfer_pool(tiny_run):
    store, named = tiny_run / "runs/store", stages(tiny_run)
    locked = named["gold of transfer"]["folder"]
    assert locked not in ancestors(store, named["student"]["folder"])
    assert locked not in ancestors(store, named["shuffled"]["folder"])
    assert locked in ancestors(store, named["ceiling"]["folder"])
    parents = [set(read_manifest(store / named[who]["folder"])["parents"].items()) for who in ("student", "ceiling")]
    assert {role for role, _ in parents[0] ^ parents[1]} == {"labels"}


def test_no_file_that_the_student_came_from_names_the_answers_of_the_transfer_pool(tiny_run):
    """Not even by accident: in no file of an ancestor do the questions of the pool stand beside a gold answer."""
    store = tiny_run / "runs/store"
    pool = {row.id for row in read_rows(artifact(tiny_run, "questions") / "transfer.jsonl", Example)}
    for name in ancestors(store, stages(tiny_run)["student"]["folder"]):
        for path in (store / name).rglob("*.jsonl"):
            for row in map(json.loads, path.read_text().splitlines()):
                assert row.get("id") not in pool or "answer" not in row, path


def test_labels_are_those_of_the_committee_and_hard_test_is_in_no_training(tiny_run):
    questions = artifact(tiny_run, "questions")
    splits = ("easy_fit", "easy_holdout", "transfer", "hard_test")
    ids = {split: {row.id for row in read_rows(questions / f"{split}.jsonl", Example)} for split in splits}
    assert sum(map(len, ids.values())) == len(set.union(*ids.values())) == 400
    for title, split in (("labels by committee", "transfer"), ("gold of easy_fit as targets", "easy_fit")):
        assert set(read_arrays(artifact(tiny_run, title) / "labels.npz", PseudoLabels).ids.tolist()) == ids[split]


def test_the_report_stands_alone_and_the_log_has_a_line_for_each_stage(tiny_run):
    page = (tiny_run / "runs/tiny/report.html").read_text()
    assert not re.search(r'(src|href)="https?://', page)
    assert "synthetic" in page
    assert "long_learner" in page  # it was switched off, and the report says so
    assert (tiny_run / "runs/tiny/report.md").read_text().startswith("#")
    lines = [json.loads(line) for line in (tiny_run / "runs/tiny/log.jsonl").read_text().splitlines()]
    assert len(stages(tiny_run)) == sum(line["text"].startswith("[") for line in lines)


def test_running_it_again_changes_no_file_and_starts_no_worker(in_tiny_run, capsys, monkeypatch):
    from w2s.stages import jobs

    monkeypatch.setattr(jobs.Worker, "__init__", lambda *_: pytest.fail("a worker was started"))
    times = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*") if path.name != "log.jsonl"}
    main(["run", "tiny.yaml"])
    again = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*") if path.name != "log.jsonl"}
    written = {path for path in times | again if times.get(path) != again.get(path)}
    assert written <= {Path("runs/tiny/config.yaml"), Path("runs/tiny/stages.json"), Path("runs/tiny")}
    said = capsys.readouterr()
    assert "0 to run" in said.err
    assert "report: runs/tiny/report.html" in said.out


def test_a_second_run_shares_what_is_the_same(in_tiny_run, tiny_run):
    config = load("tiny.yaml", ["name=other", "student.train.steps=9"])
    todo = [stage for stage in build(config, None) if not (tiny_run / "runs/store" / stage.folder_name).is_dir()]
    assert {stage.title.split(" · ")[1].split(" ")[0] for stage in todo} == {
        "student",
        "shuffled",
        "easy_gold",
        "ceiling",
    }


@pytest.fixture
def copy(tiny_run, tmp_path, monkeypatch) -> Path:
    """A copy of the finished run that may be damaged."""
    shutil.copytree(tiny_run, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def test_a_damaged_artifact_is_named_before_it_is_used(copy, in_tiny_run, monkeypatch, capsys):
    monkeypatch.chdir(copy)
    opinion = artifact(copy, "committee answers") / "transfer.npz"
    opinion.write_bytes(opinion.read_bytes()[:-1] + b"?")
    with pytest.raises(SystemExit) as caught:
        main(["run", "tiny.yaml", "label.soft=false", "name=other"])
    assert caught.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("w2s: ")
    assert f"{opinion}: it is not as it was written" in last


def test_a_lost_artifact_is_made_again_and_the_report_with_the_same_numbers(copy, in_tiny_run, monkeypatch):
    monkeypatch.chdir(copy)
    before = (copy / "runs/tiny/metrics.json").read_bytes()
    for title in ("committee answers", "labels by committee", "gold of easy"):
        shutil.rmtree(artifact(copy, title))
    (copy / "runs/tiny/report.html").unlink()
    main(["run", "tiny.yaml"])
    assert (copy / "runs/tiny/metrics.json").read_bytes() == before
    assert (copy / "runs/tiny/report.html").exists()


def test_the_report_can_be_written_again(copy, capsys):
    (copy / "runs/tiny/report.html").unlink()
    before = (copy / "runs/tiny/metrics.json").read_bytes()
    main(["report", "tiny"])
    assert "report: runs/tiny/report.html" in capsys.readouterr().out
    assert (copy / "runs/tiny/metrics.json").read_bytes() == before


def test_two_runs_are_compared(copy, capsys):
    shutil.copytree(copy / "runs/tiny", copy / "runs/other")
    main(["report", "runs/tiny", "runs/other"])
    page = Path(capsys.readouterr().out.split("report: ")[1].strip())
    assert "other" in page.read_text() or "tiny" in page.read_text()
    assert page.parent == Path("runs/compare/tiny+other")


def test_evaluate_judges_a_model_of_the_run_on_choices_and_on_programs(copy, capsys):
    model = next((artifact(copy, "student")).rglob("model/config.json")).parent
    words = ["data.root=data", "runtime.slots=1", "evaluation.max_new_tokens=4"]
    main(["evaluate", str(model), "humaneval", *words])
    said = capsys.readouterr().out
    assert re.search(r"humaneval +pass@1 +0\.000 .* 3\n", said)
    assert Path(said.split("all metrics: ")[1].strip()).exists()
    started = os.listdir("runs/evaluate/model")
    main(["evaluate", str(model), "humaneval", *words])
    assert capsys.readouterr().out == said
    assert os.listdir("runs/evaluate/model") == started


def test_a_smoke_run_is_a_run_of_its_own_and_marked_wherever_it_is_told(copy, in_tiny_run, monkeypatch, capsys):
    monkeypatch.chdir(copy)
    whole = {path: path.read_bytes() for path in Path("runs/tiny").rglob("*") if path.is_file()}
    main(["run", "tiny.yaml", "--limit", "30"])
    said, mark = capsys.readouterr(), "moke run: the first 30 questions by id of every set"
    assert mark in said.err
    assert mark in said.out
    folder = Path("runs/tiny-limit-30")
    assert str(folder / "student") in said.out
    for name in ("report.html", "report.md", "metrics.json", "log.jsonl", "student/README.md"):
        assert mark in (folder / name).read_text(), name
    found = json.loads((folder / "metrics.json").read_text())
    assert (found["run"], found["limit"]) == ("tiny-limit-30", 30)
    counts = {one["suite"]: one["n"] for one in found["metrics"] if one["model"] == "student" and one["n"]}
    assert counts.pop("transfer") <= 30  # its labels
    assert counts == {"hard_test": 30, "file": 12, "humaneval": 3}
    assert load(folder / "config.yaml") == load("tiny.yaml", ["limit=30"])
    assert {path: path.read_bytes() for path in whole} == whole
    limited = {one["folder"] for one in json.loads((folder / "stages.json").read_text())["stages"]}
    shared = limited & {one["folder"] for one in stages(copy).values()}
    made_of_questions = {"questions", "gold", "boosting_round", "committee", "pseudo_labels", "fit"}
    assert not {name.split("-")[0] for name in shared} & made_of_questions
