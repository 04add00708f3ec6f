"""train.precision: auto, from the config through the keys to the report."""

import json

import pytest

from tests.models import tiny
from w2s.cli import main
from w2s.config.load import load
from w2s.stages import precision
from w2s.story.main import build


@pytest.fixture
def pretrained(tmp_path_factory):
    return tiny.write("llama", tmp_path_factory.mktemp("pretrained") / "llama")


def machine(monkeypatch, *, fast: bool) -> list[int]:
    """A machine that computes in bfloat16 or does not; a list that grows when it is asked."""
    asked = []
    monkeypatch.setattr(precision, "ask_machine", lambda runtime: asked.append(1) or fast)
    return asked


def told(config, *overrides):
    return {stage.title.removeprefix("seed 0 · "): stage for stage in build(load(config, overrides), run_job=None)}


def test_the_key_has_what_auto_became(tiny_config, pretrained, monkeypatch):
    student = f"student.model.path={pretrained}"
    found = {}
    for fast in (True, False):
        machine(monkeypatch, fast=fast)
        found[fast] = told(tiny_config, student)
    for fast, word in ((True, "bfloat16"), (False, "float32")):
        explicit = told(tiny_config, student, f"student.train.precision={word}")
        for title in ("student", "zero_shot answers"):
            assert found[fast][title].section["learner"]["train"]["precision"] == word
            assert found[fast][title].key == explicit[title].key
            assert found[True][title].key != found[False][title].key
        # the learners are builtin models
        assert found[fast]["floor"].section["learner"]["train"]["precision"] == "float32"
    assert found[True]["floor"].key == found[False]["floor"].key


@pytest.mark.parametrize("asked_for", ["bfloat16", "float32"])
def test_a_machine_is_asked_only_for_a_pretrained_model_that_says_auto(tiny_config, pretrained, monkeypatch, asked_for):
    asked = machine(monkeypatch, fast=True)
    told(tiny_config)
    told(tiny_config, f"student.model.path={pretrained}", f"student.train.precision={asked_for}")
    assert not asked


def test_the_machine_answers_from_a_process_of_its_own(monkeypatch):
    from w2s.config.fields import Runtime
    from w2s.models.world import has_bfloat16

    assert precision.ask_machine(Runtime(runs_dir="elsewhere")) == has_bfloat16()


def test_a_run_in_bfloat16_from_start_to_report(tiny_config, pretrained, monkeypatch):
    machine(monkeypatch, fast=True)
    learner, student = (f"{{path: {pretrained}, kind: {kind}, trainable: lora}}" for kind in ("pair", "lm"))
    small = ["data.sizes.easy_fit=32", "data.sizes.transfer=24", "data.sizes.hard_test=16", "evaluation.suites=[]"]
    small += [f"learners=[{{model: {learner}, train: {{steps: 2, batch: 8}}}}]", "controls.bagged=false"]
    small += [f"student.model={student}", "boosting.rounds=1", "data.sizes.easy_holdout=16"]
    main(["run", str(tiny_config), *small])
    folder = tiny_config.parent / "runs"
    trained = [path for path in (folder / "store").iterdir() if list(path.glob("fit-*/model"))]
    for path in trained:
        manifest = json.loads((path / "manifest.json").read_text())
        assert manifest["section"]["learner"]["train"]["precision"] == "bfloat16"
        for saved in path.glob("fit-*/model/w2s.json"):
            assert json.loads(saved.read_text())["precision"] == "bfloat16"
    assert len(trained) >= 4
    assert f"{pretrained}: bfloat16" in (folder / "tiny" / "report.md").read_text()
    assert "precision: auto" in (folder / "tiny" / "config.yaml").read_text()
