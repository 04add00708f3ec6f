"""Models read from this machine: folders, GGUF files, and names of the hub under models.root."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.models import gguf_files
from tests.story.test_curve import write_config as write_curve
from w2s.cli import main
from w2s.config.load import load
from w2s.story.curve import tell_curve
from w2s.story.main import build

CONFIG = """
name: tiny
data:
  sources: [{name: world, easy: 60, hard: 60}]
  easy_max: 0
  hard_min: 1
  near: null
  sizes: {easy_fit: 24, easy_holdout: 8, transfer: 16, hard_test: 16}
learners: [{model: {path: org/llama}, train: {steps: 2, batch: 8, lr: 1e-3}}]
boosting: {rounds: 1, errors: in_sample}
student: {model: {path: org/gemma3}, train: {steps: 2, batch: 8, lr: 1e-3}}
controls:
  {uniform: false, bagged: false, long_learner: false, naive_student: false, easy_gold: false, ceiling: false,
   shuffled: false}
evaluation: {max_new_tokens: 4}
runtime: {slots: 1, threads: 1}
"""
NAMES = ("llama", "gemma3")


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> dict[str, Path]:
    """The same two models as GGUF files (quantised to Q8_0) and as folders, under org/ of one folder each."""
    made, roots = tmp_path_factory.mktemp("made"), {kind: tmp_path_factory.mktemp(kind) for kind in ("gguf", "folders")}
    for name in NAMES:
        for kind, path in zip(roots, gguf_files.make(name, "Q8_0", made), strict=True):
            (roots[kind] / "org").mkdir(exist_ok=True)
            path.rename(roots[kind] / "org" / f"{name}{path.suffix}")
    return roots


@pytest.fixture(scope="module")
def runs(roots, tmp_path_factory) -> Path:
    """A folder with the finished runs `gguf` and `folders`."""
    here = tmp_path_factory.mktemp("runs")
    (here / "tiny.yaml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        for kind, root in roots.items():
            main(["run", "tiny.yaml", f"models.root={root}", f"name={kind}"])
    return here


def listed(folder: Path) -> dict[str, Path]:
    stages = json.loads((folder / "stages.json").read_text())["stages"]
    return {stage["title"]: folder.parent / "store" / stage["folder"] for stage in stages}


def same_results(runs: Path) -> int:
    """The runs `gguf` and `folders` have the same stages, models, metrics and arrays; returns the number of arrays."""
    ours, theirs = (listed(runs / name) for name in ("gguf", "folders"))
    assert ours.keys() == theirs.keys()
    arrays = 0
    for title, folder in ours.items():
        for path in folder.rglob("*.npz"):
            with np.load(path) as one, np.load(theirs[title] / path.relative_to(folder)) as other:
                assert all(np.array_equal(one[key], other[key]) for key in one)
                arrays += 1
        for path in folder.rglob("fit-*/model/model.safetensors"):
            assert path.read_bytes() == (theirs[title] / path.relative_to(folder)).read_bytes()
    metrics = [json.loads((runs / name / "metrics.json").read_text())["metrics"] for name in ("gguf", "folders")]
    assert metrics[0] == metrics[1]
    return arrays


def told(root: Path, *overrides: str) -> dict[str, str]:
    """Title -> key of every stage."""
    Path("tiny.yaml").write_text(CONFIG)
    stages = build(load("tiny.yaml", [f"models.root={root}", *overrides]), run_job=lambda folder: None)
    return {stage.title: stage.key for stage in stages}


def test_gguf_and_safetensors_of_the_same_weights_give_the_same_results(runs):
    assert same_results(runs / "runs") > 8


def test_the_report_and_the_manifest_say_what_was_quantised(runs):
    for page in ("report.md", "report.html"):
        text = (runs / "runs" / "gguf" / page).read_text().replace("\\_", "_")
        for name in NAMES:
            assert f"The base model org/{name} is read from a GGUF file whose weights are quantised to Q8_0." in text
        assert "quantised" not in (runs / "runs" / "folders" / page).read_text()
    facts = json.loads((listed(runs / "runs" / "gguf")["base model org/llama"] / "manifest.json").read_text())["facts"]
    assert facts["quantised"] == "Q8_0"


def test_keys_know_the_content_and_not_the_place(roots, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = told(roots["gguf"])
    moved = Path(shutil.copytree(roots["gguf"], tmp_path / "moved"))
    assert told(moved) == before
    assert told(Path("moved")) == before
    file = moved / "org" / "gemma3.gguf"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    changed = {title for title, key in told(moved).items() if key != before[title]}
    assert {"base model org/gemma3", "seed 0 · student", "seed 0 · zero_shot answers"} <= changed
    assert "seed 0 · floor" not in changed


def test_reward_models_of_a_study_are_read_there_too(roots, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_curve(tmp_path)
    changed = ["rewards.models.0.model.path=org/gemma3", "learners.0.model.path=org/llama"]
    config = load("study.yaml", [*changed, f"models.root={roots['gguf']}"])
    stages = build(config, lambda folder: None, tell_curve)
    members = [stage for stage in stages if stage.tags.get("kind") == "reward_model"]
    starts = {start.name: start.title for one in members for start in one.parents.values()}
    assert starts["dequantised"] == "base model org/gemma3"
    assert "local_model" not in starts


def test_a_name_that_the_root_lacks_is_one_line(roots, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(CONFIG)
    commands = [
        ["run", "tiny.yaml", f"models.root={roots['gguf']}", "student.model.path=org/other"],
        ["plan", "tiny.yaml", f"models.root={roots['gguf']}", "learners.0.model.path=org/other"],
        ["evaluate", "org/other", "world", f"models.root={roots['gguf']}"],
    ]
    for words in commands:
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 2
        line = capsys.readouterr().err
        place = roots["gguf"] / "org" / "other"
        assert f"org/other: models.root holds neither the folder {place} nor the file {place}.gguf" in line
        assert line.count("\n") == 1


def test_evaluate_reads_a_file_and_shares_the_runs_stage(runs, roots, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    store = Path("runs/store")
    before = sorted(path.name for path in store.iterdir())
    told = []
    for model, root in ((str(roots["gguf"] / "org" / "gemma3.gguf"), "null"), ("org/gemma3", str(roots["folders"]))):
        main(["evaluate", model, "world", f"models.root={root}", "--limit", "12", "runtime.runs_dir=runs"])
        out = capsys.readouterr().out
        assert ("quantised to Q8_0" in out) == model.endswith(".gguf")
        told.append(next(line for line in out.splitlines() if line.startswith("world ")))
    assert told[0] == told[1]
    assert sorted(path.name for path in store.iterdir()) == before


def test_the_pipeline_process_loads_no_torch_for_a_plan(roots, tmp_path):
    import subprocess
    import sys

    (tmp_path / "tiny.yaml").write_text(CONFIG)
    code = f"""
import sys
from w2s.cli import main
main(["plan", "tiny.yaml", "models.root={roots["gguf"]}"])
sys.exit(any(name in sys.modules for name in ("torch", "transformers")))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "dequantised" in done.stdout


REAL = {"learners.0": "HuggingFaceTB/SmolLM2-135M-Instruct", "student": "google/gemma-3-270m"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_real_models_give_the_same_results_and_write_the_right_text(real_models, tmp_path, monkeypatch):
    """Quantised as Q4_1 and Q4_K_M (in truth Q8_0, Q5_0, Q4_K and Q6_K)."""
    import gguf
    import torch
    from safetensors import safe_open

    from w2s.config.fields import Model
    from w2s.models.load import load as load_model

    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(CONFIG)
    cut = [word for key, name in REAL.items() for word in (f"{key}.model.path={name}", f"{key}.model.layers=3")]
    cut += [f"{key}.train.lr=1e-4" for key in REAL]
    main(["run", "tiny.yaml", *cut, f"models.root={real_models}", "name=gguf"])
    for name in REAL.values():
        whole = listed(Path("runs/gguf").resolve())[f"base model {name}"] / "model"
        (tmp_path / "folders" / name).parent.mkdir(parents=True)
        (tmp_path / "folders" / name).symlink_to(whole)
        kinds = {one.name: one for one in gguf.GGUFReader(real_models / f"{name}.gguf").tensors}
        with safe_open(whole / "model.safetensors", "pt") as weights:
            for ours, theirs in (
                ("model.embed_tokens", "token_embd"),
                ("model.layers.1.mlp.down_proj", "blk.1.ffn_down"),
            ):
                tensor = kinds[f"{theirs}.weight"]
                known = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type))
                assert torch.equal(weights.get_tensor(f"{ours}.weight"), known)
        loaded = load_model(Model(path=str(whole)))
        ids_BT = torch.tensor([loaded.tokenizer("The Eiffel Tower is in the city of")["input_ids"]])
        said = loaded.module.generate(ids_BT, max_new_tokens=3, do_sample=False)[0, ids_BT.shape[1] :]
        assert loaded.tokenizer.decode(said).startswith(" Paris")
    main(["run", "tiny.yaml", *cut, "models.root=folders", "name=folders"])
    assert same_results(Path("runs")) > 8
