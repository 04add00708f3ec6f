"""Learners merged into one model in a run: who descends from what, what is refused, and two tiny runs."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.models import tiny
from w2s.cli import main
from w2s.config.load import load
from w2s.evaluation.run.asking import describe_way
from w2s.evaluation.run.runs import open_run
from w2s.models.tensors import Weights
from w2s.stages.jobs import Workers
from w2s.store.artifacts import Store
from w2s.story.execution import execute
from w2s.story.main import build

CONFIG = """
name: tiny
data:
  sources: [{{name: world, task: {task}, easy: 80, hard: 60}}]
  easy_max: 0
  hard_min: 1
  near: null
  sizes: {{easy_fit: 32, easy_holdout: 12, transfer: 16, hard_test: 16}}
learners: [{{model: {{path: {llama}}}, train: {{steps: 2, batch: 8, lr: 1e-3}}}}]
boosting: {{rounds: 2, errors: in_sample, booster: {{name: samme, clip: [0.05, 3.0]}}}}
writing: {{max_new_tokens: 3}}
merging: {{evaluations: 12}}
label: {{teacher: merged}}
student: {{model: {{path: {llama}}}, start: merged, train: {{steps: 2, batch: 8, lr: 1e-3}}}}
controls:
  {{merged: true, uniform: false, bagged: false, answer_level: false, long_learner: false, naive_student: false,
   easy_gold: false, ceiling: false, shuffled: false, zero_shot: false, floor: false}}
runtime: {{slots: 1, threads: 1}}
"""


@pytest.fixture
def config(tmp_path, monkeypatch) -> Path:
    llama = tiny.write("llama", tmp_path / "llama")
    monkeypatch.chdir(tmp_path)
    for task, name in (("choice", "tiny"), ("answer", "written")):
        Path(f"{name}.yaml").write_text(CONFIG.format(llama=llama, task=task))
    return Path("tiny.yaml")


def stages_of(config: Path, *overrides: str) -> dict:
    stages = build(load(config, list(overrides)), None)
    return {stage.title.removeprefix("seed 0 · "): stage for stage in stages if stage.name != "local_model"}


def ancestors(stage) -> dict:
    found = {}
    for parent in stage.parents.values():
        found |= {parent.key: parent} | ancestors(parent)
    return found


@pytest.mark.parametrize("name", ["tiny", "written"])
@pytest.mark.parametrize("weights", ["boosting", "searched", "[2, 1]"])
def test_the_merged_model_labels_and_students_start_from_it_without_gold_of_hard_questions(config, name, weights):
    stages = stages_of(config.with_name(f"{name}.yaml"), f"merging.weights={weights}", "controls.ceiling=true")
    merged, labels = stages["merged learners"], stages["labels by merged"]
    assert merged.key in ancestors(labels)
    for who in ("student", "ceiling"):
        assert stages[who].parents["base"] is merged
    assert stages["committee · round 1"].parents["base"] is merged.parents["base"]
    for stage in (merged, labels, stages["student"], stages["from the base to the merged learners"]):
        golds = {one.tags["split"] for one in ancestors(stage).values() if one.name == "gold"}
        assert golds == {"easy"}, stage.title
    assert ("holdout" in merged.parents) is (weights == "searched")
    assert stages["merged_uniform learners"].section["weights"] == "uniform"


def test_a_run_without_merged_learners_has_none(config):
    overrides = ["label.teacher=committee", "student.start=base", "controls.merged=false"]
    assert not [title for title in stages_of(config, *overrides) if "merged" in title]
    alone = stages_of(config, *overrides[1:])
    assert [title for title in alone if "merged" in title] == ["merged learners", "merged answers", "labels by merged"]


def test_a_temperature_is_fitted_on_the_merged_models_own_opinion(config):
    labels = stages_of(config, "label.temperature=null")["labels by merged"]
    assert labels.parents["holdout"] is labels.parents["opinion"]
    assert "easy_holdout" in labels.parents["opinion"].section["sets"]


def test_soft_targets_are_those_of_the_merged_model(config):
    stages = stages_of(config.with_name("written.yaml"), "label.made=distribution", "label.top=5")
    assert stages["merged writes transfer"].section["top"] == 5
    assert "top" not in stages["merged writes hard_test"].section


REFUSED = {
    "learners.0.model.path=builtin:weak": "'builtin:weak' given with label.teacher: merged; each learner draws its own",
    "learners.0.model.path=some/hub": "learners.0.model.path: 'some/hub' given with label.teacher: merged; allowed: a",
    "learners.0.model.kind=pair": "learners.0.model.kind: 'pair' given with label.teacher: merged; allowed: lm (a head",
    "learners.0.model.kind=towers": "learners.0.model.kind: 'towers' given with label.teacher: merged; allowed: lm\n",
    "student.model.path=builtin:strong": "student.model.path: 'builtin:strong' given with student.start: merged",
    "student.model.layers=1": "student.model.layers: 1 given with student.start: merged; allowed: None",
    "label.select={name: agreement}": "label.select: 'agreement' given",
    "label.reward.use=tilt": "label.reward.use: 'tilt' given; allowed with label.teacher: merged: none",
    "merging.method={name: fisher}": "merging.method: 'fisher' given; a run has none of the statistics",
    "merging.method={name: sum}": "merging.method: 'sum' is not known",
    "merging.weights=[1, 2, 3]": "merging.weights: 3 numbers given; allowed: 2, one for each of boosting.rounds",
    "merging.weights=[0, 2]": "merging.weights.0: 0 given; allowed: above 0",
    "merging.weights=searching": "merging.weights: 'searching' given",
    "boosting.rounds=3 merging.method={name: slerp}": "merging.method: 'slerp' given with boosting.rounds: 3",
    "merging.weights=searched merging.method={name: ties}": "allowed with merging.weights: searched: mean",
}


@pytest.mark.parametrize("override", REFUSED)
def test_what_cannot_be_merged_is_a_line_before_anything_runs(config, capsys, override):
    words = override.replace(" merging", "\nmerging").split("\n")
    with pytest.raises(SystemExit) as caught:
        main(["run", "tiny.yaml", *words])
    said = capsys.readouterr().err
    assert caught.value.code == 2
    assert REFUSED[override] in said
    assert "Traceback" not in said
    assert not Path("runs").exists()


def test_learners_must_be_alike_to_be_merged(config, tmp_path, capsys):
    other = tiny.write("mistral", tmp_path / "mistral")
    config.write_text(config.read_text().replace("learners: [", f"learners: [{{model: {{path: {other}}}}}, "))
    with pytest.raises(SystemExit):
        main(["run", "tiny.yaml"])
    said = capsys.readouterr().err
    assert "learners.1.model.path: " in said
    assert "as for learners.0" in said


def test_a_vote_over_answers_has_no_merged_teacher(config, capsys):
    with pytest.raises(SystemExit):
        main(["run", "written.yaml", "label.made=winner"])
    assert "label.made: 'winner' given; allowed with label.teacher: merged: decoded" in capsys.readouterr().err


def by_hand(folder: Path, base: Path) -> dict[str, np.ndarray]:
    """base + sum of the weights that the stage wrote times the learners' steps."""
    job = json.loads((folder / "fit-0" / "job.json").read_text())
    share_R = np.array(job["weights"]) / sum(job["weights"])
    with Weights(base) as opened:
        made = {name: opened.read(name).float().numpy() for name in opened.specs}
    start = {name: value.copy() for name, value in made.items()}
    for share, path in zip(share_R, job["models"], strict=True):
        with Weights(Path(path)) as opened:
            for name in opened.specs:
                made[name] = made[name] + job["scale"] * share * (opened.read(name).float().numpy() - start[name])
    return made


def test_a_run_judges_merged_learners_beside_their_committee_and_tells_what_a_label_costs(config, tmp_path):
    main(["run", "tiny.yaml", "merging.weights=searched"])
    run = open_run(Path("runs/tiny"))
    metrics = json.loads((run.folder / "metrics.json").read_text())["metrics"]
    judged = {m["model"] for m in metrics if (m["suite"], m["name"]) == ("hard_test", "accuracy")}
    assert judged >= {"committee", "best_learner", "merged", "merged_uniform", "student"}
    assert [m for m in metrics if (m["model"], m["name"]) == ("merged", "accuracy_minus_committee")]
    (artifact,) = run.find("merged", model="merged")
    with Weights(artifact.path / "fit-0" / "model") as opened:
        for tensor, value in by_hand(artifact.path, tmp_path / "llama").items():
            assert np.allclose(opened.read(tensor).float().numpy(), value, atol=1e-6), tensor
    (barrier,) = run.find("barrier")
    way = json.loads((barrier.path / "barrier.json").read_text())
    assert way["at"] == [0, 0.25, 0.5, 0.75, 1]
    assert np.isfinite(way["loss"]).all()
    page = (run.folder / "report.md").read_text()
    assert "## What a label costs" in page
    (voters,) = run.find("committee", model="committee")
    assert f"| committee | {json.loads((voters.path / 'committee.json').read_text())['used']} |" in page
    assert "| learners merged | 1 |" in page
    assert "## The learners as one model" in page
    assert "searched weights take" in page


def test_merged_learners_write_and_their_way_from_the_base_is_looked_at(config):
    settings = load(config.with_name("written.yaml"))
    with Workers(settings.runtime) as workers, ThreadPoolExecutor() as pool:
        stages = build(settings, workers.run)
        # Not the student: whether a tiny model's texts end, so that they are labels, is chance.
        last = [one for one in stages if one.name == "barrier" or one.title.endswith("merged judged on hard_test")]
        wanted = {one.key for one in last}.union(*map(ancestors, last))
        store = Store(Path("store"))
        execute([one for one in stages if one.key in wanted], store, pool, 1)
    way = json.loads((store.path(last[-1]) / "barrier.json").read_text())
    assert np.isfinite(way["loss"]).all()


def test_a_bump_on_the_way_is_said():
    at = [0, 0.25, 0.5, 0.75, 1]
    assert describe_way({"at": at, "loss": [2.0, 1.5, 1.2, 1.1, 1.0]}).endswith("without a bump")
    told = describe_way({"at": at, "loss": [2.0, 2.1, 2.7, 1.1, 1.0]})
    assert "over a bump of 0.7 at 0.5 of the way" in told
