"""Mixtures of experts in a run: an upcycled student with its dense controls, and the committee as one model."""

import json
from pathlib import Path

import pytest

from tests.models import tiny
from w2s.cli import main
from w2s.config.load import load
from w2s.store.artifacts import read_listing, read_manifest
from w2s.story.main import build

CONFIG = """
name: tiny
data:
  sources: [{{name: world, easy: 80, hard: 60}}]
  easy_max: 0
  hard_min: 1
  near: null
  sizes: {{easy_fit: 32, easy_holdout: 12, transfer: 16, hard_test: 16}}
learners: [{{model: {{path: {llama}}}, train: {{steps: 2, batch: 8, lr: 1e-3}}}}]
boosting: {{rounds: 2, errors: in_sample, booster: {{name: samme, clip: [0.05, 3.0]}}}}
student: {{model: {{path: {llama}}}, start: upcycled, train: {{steps: 3, batch: 8, lr: 1e-3}}}}
controls:
  {{uniform: false, bagged: false, long_learner: false, naive_student: false, easy_gold: false, ceiling: false,
   shuffled: false, zero_shot: false, floor: false, experts: true, dense_student: true}}
runtime: {{slots: 1, threads: 1}}
"""


@pytest.fixture
def config(tmp_path, monkeypatch) -> Path:
    llama = tiny.write("llama", tmp_path / "llama")
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(CONFIG.format(llama=llama))
    return Path("tiny.yaml")


def stages_of(config: Path, *overrides: str) -> dict:
    def refuse(folder):
        raise AssertionError(folder)

    return {stage.title.removeprefix("seed 0 · "): stage for stage in build(load(config, list(overrides)), refuse)}


def ancestors(stage) -> dict:
    found = {}
    for role, parent in stage.parents.items():
        found |= {parent.key: (role, parent)} | ancestors(parent)
    return found


def test_who_starts_from_what_and_what_they_descend_from(config):
    stages = stages_of(config)
    names = {name: stage.parents["base"].name for name, stage in stages.items() if "labels" in stage.parents}
    assert names["student"] == "upcycled"
    assert names["dense_student"] == names["dense_at_cost"] == "local_model"
    assert "sparse" in stages["dense_at_cost"].parents
    assert "sparse" not in stages["dense_student"].parents
    mixed = ancestors(stages["the committee's learners as experts"]).values()
    gold = [parent.tags["split"] for _, parent in mixed if parent.tags.get("kind") == "gold"]
    assert gold == ["easy"]
    assert "holdout" in stages["the committee's learners as experts"].parents


@pytest.mark.parametrize("router", ["zero", "hidden"])
def test_only_the_router_by_weights_reads_held_out_opinions(config, router):
    mixed = stages_of(config, f"experts.router={router}")["the committee's learners as experts"]
    assert not {"holdout", "gold"} & set(mixed.parents)
    assert mixed.section["router"] == router


def test_keys_of_experts_change_the_student_and_no_learner(config):
    before, after = stages_of(config), stages_of(config, "experts.count=3")
    changed = {name for name, stage in before.items() if after.get(name) is None or after[name].key != stage.key}
    assert "student" in changed
    assert not {name for name in changed if name.startswith("committee") or name == "dense_student"}


REFUSED = {
    "student.model.path=builtin:strong": "student.model.path: builtin:strong: a gpt2 model cannot become experts",
    "student.model.kind=pair": "student.model.kind: 'pair' given with student.start: upcycled; allowed: lm",
    "student.model.trainable=lora": "student.model.lora_targets: null given with student.start: upcycled",
    "student.objective={name: dpo}": "student.objective: 'dpo' given with student.start: upcycled; allowed: sft",
    "experts.active=5": "experts.active: 5 given; allowed: at most 4, as experts.count",
    "student.start=base": "controls.dense_student: true given; it needs student.start: upcycled",
    "learners.0.model.path=builtin:strong": "learners.0.model.path: builtin:strong: a gpt2 model cannot become experts",
}


@pytest.mark.parametrize("override", REFUSED)
def test_what_cannot_become_experts_is_one_line_before_anything_runs(config, capsys, override):
    with pytest.raises(SystemExit) as caught:
        main(["run", "tiny.yaml", override])
    line = capsys.readouterr().err
    assert caught.value.code == 2
    assert REFUSED[override] in line
    assert line.count("\n") == 1
    assert not Path("runs").exists()


def test_learners_as_experts_must_be_of_one_base(config, tmp_path, capsys):
    other = tiny.write("mistral", tmp_path / "mistral")
    text = config.read_text().replace("learners: [", f"learners: [{{model: {{path: {other}}}}}, ")
    config.write_text(text)
    with pytest.raises(SystemExit):
        main(["run", "tiny.yaml"])
    assert "given with controls.experts; allowed: as for learners.0" in capsys.readouterr().err


def test_a_run_judges_them_side_by_side_and_tells_their_size_and_load(config):
    main(["run", "tiny.yaml"])
    run = Path("runs/tiny")
    metrics = json.loads((run / "metrics.json").read_text())["metrics"]
    judged = {m["model"] for m in metrics if (m["suite"], m["name"]) == ("hard_test", "accuracy")}
    assert judged >= {"committee", "student", "experts", "dense_student", "dense_at_cost"}
    facts = {
        one["tags"]["model"]: read_manifest(Path("runs/store") / one["folder"])["facts"]
        for one in read_listing(run)["stages"]
        if one["tags"].get("kind") == "model"
    }
    assert facts["student"]["mixture"]["experts"] == 4
    ratio = facts["student"]["active_parameters"] / facts["student"]["dense_parameters"]
    assert facts["dense_student"]["steps"] == facts["student"]["steps"] == 3
    assert facts["dense_at_cost"]["steps"] == -(-3 * ratio // 1)
    assert facts["experts"]["experts"] == facts["experts"]["active"] or facts["experts"]["experts"] == 2
    page = (run / "report.md").read_text()
    assert "## Mixtures of experts" in page
    assert f"{facts['student']['active_parameters']:,}" in page
    assert json.loads((run / "student" / "config.json").read_text())["architectures"] == ["MixtralForCausalLM"]
