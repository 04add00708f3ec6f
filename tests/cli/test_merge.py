"""`w2s merge`: folders in, a folder out, and refusals before anything is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.models import tiny
from tests.workers.test_merge import step
from w2s.cli import main


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    base = tiny.write("llama", tmp_path / "base")
    for at, name in enumerate("ab"):
        step(base, tmp_path / name, at)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys, *words: str) -> list[str]:
    with pytest.raises(SystemExit) as ended:
        main(["merge", *words])
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()


def test_folders_are_merged_and_the_result_says_how(folder, capsys):
    (folder / "merge.yml").write_text(
        "merge_method: task_arithmetic\nbase_model: base\nmodels:\n- {model: a, parameters: {weight: 0.5}}\n"
        "- {model: b, parameters: {weight: 0.25}}\n"
    )
    main(["merge", "--from-mergekit", "merge.yml", "--out", "merged"])
    told = capsys.readouterr().out
    assert "merged: merged (sha256 " in told
    assert "mean cosine of two steps" in told
    start, a, b, found = (load_file(folder / name / "model.safetensors") for name in ("base", "a", "b", "merged"))
    for name, value in found.items():
        wanted = start[name] + 0.5 * (a[name] - start[name]) + 0.25 * (b[name] - start[name])
        torch.testing.assert_close(value, wanted, atol=1e-6, rtol=1e-5)
    made = json.loads((folder / "merged" / "merge.json").read_text())
    assert made["method"] == {"name": "mean"}
    assert tiny.read(folder / "merged").module.config.num_hidden_layers == 2
    assert {path.name for path in folder.iterdir()} == {"base", "a", "b", "merged", "merge.yml"}
    assert "it is there already" in refused(capsys, "a", "b", "--out", "merged")[0]


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["a", "nowhere", "c"], ["nowhere: there is no such folder", "c: there is no such folder"]),
        (["a", "b", "--method", "teis"], ["method: 'teis' is not known (did you mean 'ties'?)"]),
        (["a", "b", "--method", "ties", "density=2"], ["method.density: 2 given"]),
        (["a", "b", "--method", "ties", "depth=2"], ["method: 'ties' has no option 'depth'"]),
        (["a", "b", "--method", "ties"], ["base: none given; ties needs"]),
        (
            ["a", "b", "--base", "base", "--method", "fisher"],
            ["--questions: none given for fisher; fisher and regmean"],
        ),
        (["a", "b", "--questions", "q.csv"], ["--questions: q.csv given for mean"]),
        (["a", "b", "--weights", "1"], ["weights: 1 given; allowed: 2"]),
        (["a", "--from-mergekit", "x.yml"], ["--from-mergekit: it names"]),
        (["--from-mergekit", "x.yml"], ["x.yml: not readable"]),
        ([], ["models: none given"]),
    ],
)
def test_refusals_are_lines_and_nothing_is_written(folder, capsys, words, lines):
    found = refused(capsys, *words, "--out", "merged")
    assert len(found) == len(lines)
    assert all(line in one for line, one in zip(lines, found, strict=True))
    assert {path.name for path in folder.iterdir()} == {"base", "a", "b"}


def test_fisher_asks_the_models_about_a_file_of_questions(folder, capsys):
    rows = [
        {"prompt": f"Which gas is number {at}?", "choices": ["oxygen", "carbon"], "answer": at % 2} for at in range(4)
    ]
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    main(["merge", "a", "b", "--base", "base", "--method", "fisher", "--questions", "own.jsonl", "--out", "merged"])
    assert "merged: merged" in capsys.readouterr().out
    start, a, b, found = (load_file(folder / name / "model.safetensors") for name in ("base", "a", "b", "merged"))
    name = "model.layers.0.mlp.down_proj.weight"
    low, high = torch.minimum(a[name], b[name]), torch.maximum(a[name], b[name])
    assert ((low - 1e-5 <= found[name]) & (found[name] <= high + 1e-5)).all()
    assert not torch.allclose(found[name], (a[name] + b[name]) / 2, atol=1e-4)
    assert not torch.equal(start[name], found[name])


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        main(["merge", "--help"])
    told = capsys.readouterr().out
    assert "--from-mergekit config.yml" in told
