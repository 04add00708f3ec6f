"""RUN/student/: what a stranger gets who takes the folder away, knows nothing of w2s and is offline."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import transformers

from tests.models import tiny
from w2s.config.fields import Model
from w2s.evaluation.run import student
from w2s.evaluation.run.collect import finish, report_data
from w2s.evaluation.run.runs import Artifact, measure_run, open_run
from w2s.models.load import save
from w2s.store import hidden
from w2s.store.artifacts import write_manifest

STRANGER = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model, info = AutoModelForCausalLM.from_pretrained(sys.argv[1], output_loading_info=True)
assert not any(info.values()), info
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
found = model.generate(**tokenizer("heat ?", return_tensors="pt", return_token_type_ids=False), max_new_tokens=2)
print(found.shape[0], model.num_parameters())
"""


def front_matter(card: str) -> dict:
    import yaml

    _, head, _ = card.split("---\n", 2)
    return yaml.safe_load(head)


def model_of(folder: Path) -> Path:
    (artifact,) = open_run(folder).find("model", model="student", seed=0)
    return artifact.path / "fit-0" / "model"


def test_the_folder_loads_elsewhere_and_offline_when_the_runs_are_moved_and_the_store_is_gone(tiny_run, tmp_path):
    shutil.copytree(tiny_run / "runs", tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved" / "store")
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", STRANGER, str(tmp_path / "moved/tiny/student")]
    ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split()[0] == "1"


def test_weights_cost_no_space_and_what_is_edited_changes_no_artifact(tiny_run, tmp_path, monkeypatch):
    shutil.copytree(tiny_run / "runs", tmp_path / "runs")
    folder = tmp_path / "runs" / "tiny"
    shutil.rmtree(folder / "student")
    finish(folder)
    found, made = folder / "student", model_of(folder)
    assert {path.name for path in found.iterdir()} == {path.name for path in made.iterdir()} | {"README.md"}
    assert (found / "model.safetensors").samefile(made / "model.safetensors")
    assert not any((found / path.name).samefile(path) for path in made.iterdir() if path.suffix == ".json")
    monkeypatch.setattr(student.os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    finish(folder, again=True)
    assert not (found / "model.safetensors").samefile(made / "model.safetensors")
    assert (found / "model.safetensors").read_bytes() == (made / "model.safetensors").read_bytes()
    assert not (folder / "student.partial").exists()


def test_the_card_says_what_it_is_who_labelled_it_how_good_it_is_and_how_it_was_made(tiny_run):
    text = (tiny_run / "runs/tiny/student/README.md").read_text()
    head = front_matter(text)
    assert (head["library_name"], head["pipeline_tag"]) == ("transformers", "text-generation")
    assert "base_model" not in head  # a builtin model is on no hub
    assert re.search(r"builtin:strong, trained on \d+ kept of 100 hard questions \(world\)", text)
    assert "labelled by a committee, which learned from 160 easy questions with gold" in text
    assert "AutoModelForCausalLM" in text
    assert "w2s run " in text
    assert "> The questions are synthetic" in text
    metrics = json.loads((tiny_run / "runs/tiny/metrics.json").read_text())["metrics"]
    wanted = {"student", "floor", "committee", "ceiling", "zero_shot"}
    for one in metrics:
        if (one["suite"], one["name"]) == ("hard_test", "accuracy") and one["model"] in wanted:
            low, value, high = (f"{100 * one[key]:.1f}" for key in ("low", "value", "high"))
            assert f"| accuracy | {value} | {low} to {high} | {one['n']} |" in text
    assert "| file | student | accuracy |" in text
    assert "| humaneval | student | pass@1 |" in text


def test_the_card_shows_no_value_of_the_environment(tiny_run, monkeypatch):
    run = open_run(tiny_run / "runs" / "tiny")
    data, path = report_data(run, *measure_run(run)), run.config["student"]["model"]["path"]
    assert path in student.card(run, data)
    monkeypatch.setattr(hidden, "_known", {})
    monkeypatch.setenv("W2S_SECRET", path)
    hidden.read_variable("W2S_SECRET")
    said = student.card(run, data)
    assert "${oc.env:W2S_SECRET}" in said
    assert path not in said


def test_with_several_seeds_the_first_lies_on_top_and_the_card_says_where_the_others_are(tiny_run, tmp_path):
    shutil.copytree(tiny_run / "runs", tmp_path / "runs")
    run = open_run(tmp_path / "runs" / "tiny")
    data = report_data(run, *measure_run(run))
    other = tmp_path / "runs/store/fit-other"
    shutil.copytree(model_of(run.folder).parents[1], other)
    (other / "fit-0/model/w2s.json").write_text("{}")
    facts = json.loads((other / "manifest.json").read_text())
    write_manifest(
        other, {**{k: v for k, v in facts.items() if k not in ("files", "seal")}, "stage": "fit", "key": "other"}
    )
    second = Artifact("fit", other, {"kind": "model", "model": "student", "seed": 7})
    two = replace(run, artifacts=(*run.artifacts, second), config={**run.config, "seeds": [0, 7]})
    student.write_student(two, data)
    found = run.folder / "student"
    assert (found / "w2s.json").read_text() != "{}" == (found / "seed-7" / "w2s.json").read_text()
    assert (
        "This is the student of seed 0; the others are beside this file in `seed-7/`"
        in (found / "README.md").read_text()
    )


@pytest.mark.parametrize(
    ("options", "loader"),
    [
        ({"trainable": "lora"}, "AutoModelForCausalLM"),
        ({"trainable": "lora", "layers": 1}, "AutoModelForCausalLM"),
        ({"kind": "pair", "trainable": "lora"}, "AutoModelForSequenceClassification"),
        ({"kind": "towers"}, "AutoModel"),
    ],
)
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_what_the_card_names_loads_every_kind_of_student_with_the_weights_it_was_saved_with(
    tmp_path, architecture, options, loader
):
    import torch

    loaded = tiny.read(tiny.write(architecture, tmp_path / "base"), **options)
    with torch.no_grad():
        for name, parameter in loaded.module.named_parameters():
            if ".lora_B" in name:  # it begins at 0, and would change nothing
                parameter.normal_()
    save(loaded, tmp_path / "model")
    assert student.KINDS[Model(**loaded.model.__dict__).kind][0] == loader
    found, info = getattr(transformers, loader).from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(info.values()), info
    ids = torch.tensor([[5, 9, 4, 17]])
    with torch.no_grad():
        torch.testing.assert_close(found.eval()(input_ids=ids)[0], loaded.module.eval()(input_ids=ids)[0])
