"""`w2s experts` as a person runs it, and what it refuses."""

import json
from pathlib import Path

import pytest

from tests.models import tiny
from w2s.cli import main
from w2s.config.fields import Model
from w2s.models.load import load


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    return {name: str(tiny.write(name, root / name)) for name in ("llama", "qwen3", "gpt2")}


@pytest.mark.slow
def test_models_become_experts_turned_by_what_each_gets_right(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, few = models["llama"], ["--limit", "8", "runtime.slots=1", "runtime.threads=1"]
    main(["experts", one, one, "--base", one, "--router", "weights", "--on", "world", "--out", "moe", *few])
    told = json.loads(Path("moe/experts.json").read_text())
    assert (told["experts"], told["active"], told["router"]) == (2, 2, "towards examples")
    assert json.loads(Path("moe/config.json").read_text())["architectures"] == ["MixtralForCausalLM"]
    assert not Path("moe.partial").exists()
    assert load(Model(path="moe")).module.config.num_experts_per_tok == 2


@pytest.mark.slow
def test_a_mixture_is_judged_like_any_folder(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, few = models["llama"], ["--limit", "8", "runtime.slots=1", "runtime.threads=1"]
    main(["experts", one, one, one, "--out", "moe", *few[2:]])
    main(["evaluate", "moe", "world", *few])
    main(["evaluate", one, "world", *few])
    answers = [json.loads(path.read_text())["metrics"] for path in sorted(Path("runs/evaluate").glob("*/metrics.json"))]
    moe, dense = ({m["name"]: m["value"] for m in metrics} for metrics in answers)
    assert moe["accuracy"] == dense["accuracy"]  # copies, whatever the router


REFUSED = [
    (["gpt2", "gpt2"], "a gpt2 model cannot become experts; allowed: llama (becomes mixtral)"),
    (["llama", "llama", "--active", "3"], "--active: 3 given; allowed: 1 to 2, the number of models"),
    (["llama", "llama", "--weights", "1"], "--weights: [1.0] given; allowed: 2 numbers of at least 0"),
    (["llama", "llama", "--weights", "0,0"], "--weights: [0.0, 0.0] given"),
    (["llama", "llama", "--weights", "1,nan"], "--weights: [1.0, nan] given"),
    (["llama", "llama", "--router", "best"], "--router: 'best' given; allowed: zero, hidden, weights"),
    (["llama", "llama", "--router", "hidden", "--on", "world"], "--on: world given; allowed with --router hidden: 2"),
    (["llama", "llama", "--router", "weights"], "--on: nothing given; allowed with --router weights: at least one"),
    (["llama", "llama", "--on", "world"], "--on: world given; allowed with --router zero: none"),
    (["llama", "llama", "--router", "weights", "--on", "wurld"], "--on: 'wurld' is not known"),
    (["llama", "llama", "--balance", "-1"], "--balance: -1.0 given; allowed: a number of at least 0"),
    (["llama", "nowhere/at-all/x"], "no such folder"),
]


@pytest.mark.parametrize(("words", "told"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_what_cannot_be_is_one_line_before_anything_is_written(models, tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.chdir(tmp_path)
    given = [models.get(word, f"./{word}" if "/" in word else word) for word in words]
    with pytest.raises(SystemExit) as caught:
        main(["experts", *given, "--out", "moe"])
    line = capsys.readouterr().err
    assert caught.value.code == 2
    assert told in line
    assert line.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_not_written_over(models, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("moe").mkdir()
    with pytest.raises(SystemExit):
        main(["experts", models["llama"], models["llama"], "--out", "moe"])
    assert "--out: moe exists; allowed: the name of a new folder" in capsys.readouterr().err


def test_learners_of_two_architectures_are_refused_by_name(models, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["experts", models["llama"], models["qwen3"], "--out", "moe"])
    assert caught.value.code == 2
    assert "qwen3 given; allowed: llama, as" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
