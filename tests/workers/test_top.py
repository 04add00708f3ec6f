"""Only the last layers learn: a fit from kept states equals one that runs all layers, in one process and in two."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.models import tiny
from tests.workers.pairs import make_labels, make_pairs
from w2s.config.fields import Runtime
from w2s.models import below, load, score, train
from w2s.stages.jobs import Workers
from w2s.store.records import BadInput, write_arrays, write_rows
from w2s.workers import finetune, reward
from w2s.workers.job_files import read_job

SETTINGS = {"steps": 9, "batch": 10, "lr": 2e-3, "holdout_share": 0.2, "eval_every": 3}
RUN = {"finetune": finetune.run, "reward": reward.run}
ARCHITECTURES = ["llama", "gemma3_text"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> Path:
    """A folder per architecture, pairs.jsonl and labels.npz."""
    folder = tmp_path_factory.mktemp("bases")
    for architecture in (*ARCHITECTURES, "bert"):
        tiny.write(architecture, folder / architecture)
    write_rows(folder / "pairs.jsonl", make_pairs())
    write_arrays(folder / "labels.npz", make_labels(make_pairs()))
    return folder


@pytest.fixture
def job_of(bases, tmp_path) -> Callable[..., Path]:
    """job_of(name, base, model={...}, train={...}, **job) -> a folder with that job.json."""

    def write(name: str, base: str | Path = "llama", model: dict | None = None, settings=SETTINGS, **values) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        model = {"trainable": "top", "top": 1, **(model or {})}
        values = {"worker": "finetune", "seed": 1, **values}
        files = {"examples": str(bases / "pairs.jsonl"), "labels": str(bases / "labels.npz"), "path": str(bases / base)}
        job = {**files, **values, "learner": {"model": {"path": str(bases / base), **model}, "train": settings}}
        (folder / "job.json").write_text(json.dumps(job))
        return folder

    return write


@pytest.fixture(scope="module")
def two():
    with Workers(Runtime(slots=1, processes=2, threads=1)) as workers:
        yield workers


@pytest.fixture
def computed(monkeypatch) -> list:
    """What `below.compute` returned."""
    found, compute = [], below.compute

    def noted(*arguments):
        found.append(compute(*arguments))
        return found[-1]

    monkeypatch.setattr(below, "compute", noted)
    return found


def history(folder: Path) -> dict:
    job = read_job(folder)
    if not (folder / "train.json").exists():
        RUN[json.loads((folder / "job.json").read_text())["worker"]](folder, job, train.World())
    return json.loads((folder / "train.json").read_text())


def check_same(found: dict, wanted: dict, tolerance: float = 1e-3) -> None:
    assert found["losses"] == pytest.approx(wanted["losses"], abs=tolerance)
    assert [loss for _, loss in found["looks"]] == pytest.approx([loss for _, loss in wanted["looks"]], abs=tolerance)


def predictions(folder: Path) -> np.ndarray:
    parts = score.predict(load.load_folder(folder / "model"), make_pairs())
    by_id = {key: probs for part in parts for key, probs in zip(part.ids, part.probs_NK, strict=True)}
    return np.array([by_id[example.id] for example in make_pairs()])


@pytest.mark.parametrize(
    ("base", "kind"), [("llama", "lm"), ("gemma3_text", "lm"), ("llama", "pair"), ("bert", "pair"), ("bert", "towers")]
)
def test_a_fit_from_kept_states_is_that_of_all_layers(job_of, computed, monkeypatch, base, kind):
    kept = job_of("kept", base, {"kind": kind})
    with_states = history(kept)
    assert isinstance(computed[0], below.Below)
    monkeypatch.setattr(below, "compute", lambda *_: None)
    plain = job_of("plain", base, {"kind": kind})
    check_same(with_states, history(plain), 1e-4)
    assert np.abs(predictions(kept) - predictions(plain)).max() < 1e-4
    losses = with_states["losses"]
    assert losses[0] != pytest.approx(losses[-1], abs=1e-3)  # it learned


@pytest.mark.parametrize("values", [{"kind": "heads"}, {"kind": "adapters", "layers": 1, "rank": 2}])
def test_an_ensembles_fit_from_kept_states_is_that_of_all_layers(job_of, computed, monkeypatch, values):
    model = {"kind": "pair"} | ({} if values["kind"] == "heads" else {"trainable": "all", "top": None})
    values = {"worker": "reward", "members": 2, **values}
    with_states = history(job_of("kept", "llama", model, **values))
    assert isinstance(computed[0], below.Below)
    monkeypatch.setattr(below, "compute", lambda *_: None)
    check_same(with_states, history(job_of("plain", "llama", model, **values)), 1e-4)


def test_a_fit_killed_with_its_states_in_a_file_goes_on_bit_for_bit(job_of, monkeypatch):
    monkeypatch.setattr(below, "IN_MEMORY", 0)
    runtime = {"checkpoint_every": 3}
    whole, cut = (job_of(name, runtime=runtime) for name in ("whole", "cut"))
    wanted, inner, calls = history(whole), train.run_step, []

    def dying(*arguments):
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(1)
        return inner(*arguments)

    monkeypatch.setattr(train, "run_step", dying)
    with pytest.raises(KeyboardInterrupt):
        history(cut)
    assert (cut / "below" / "states.float32").exists()
    monkeypatch.setattr(train, "run_step", inner)
    assert history(cut) | {"seconds": 0} == wanted | {"seconds": 0}
    assert not (cut / "below").exists()
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (whole, cut)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("stage", ["zero0", "zero3"])
def test_two_processes_share_the_states_under_deepspeed(job_of, two, stage):
    wanted = history(job_of("one"))
    folder = job_of("two", runtime={"deepspeed": stage, "micro_batch": 2})
    two.run(folder)
    check_same(history(folder), wanted)
    assert not (folder / "below").exists()
    assert np.abs(predictions(folder) - predictions(folder.parent / "one")).max() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("base", ARCHITECTURES)
def test_adapters_learn_the_same_in_two_processes_at_every_zero_stage(job_of, two, base):
    check_adapters(job_of, two, base, {})


def test_adapters_learn_the_same_in_two_processes(job_of, two):
    check_adapters(job_of, two, "llama", {}, ["zero2"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["HuggingFaceTB/SmolLM2-135M-Instruct", "google/gemma-3-270m"])
def test_adapters_of_a_real_model_learn_the_same_in_two_processes(job_of, two, real_models, name):
    base = real_models / "folders" / name
    if not base.is_dir():
        pytest.skip(f"no folder {base}: `python -m tests.real_models DIR` makes it")
    check_adapters(job_of, two, base, {"layers": 4}, settings={"steps": 3, "batch": 6, "lr": 1e-4})


def check_adapters(job_of, two, base, model, stages=("zero0", "zero1", "zero2", "zero3"), settings=SETTINGS) -> None:
    """Losses and adapters of two processes are those of one; float32 throughout."""
    model = {"trainable": "lora", "top": None, **model}
    settings = {**settings, "precision": "float32"}
    plain = job_of("plain", base, model, settings)
    wanted, adapter = history(plain), load.read_adapter(plain / "model")
    for stage in stages:
        folder = job_of(stage, base, model, settings, runtime={"deepspeed": stage})
        two.run(folder)
        check_same(history(folder), wanted)
        found = load.read_adapter(folder / "model")
        assert found.keys() == adapter.keys()
        moved = max(float(abs(up).max()) for _, up in adapter.values())
        for layer, pair in adapter.items():
            for one, other in zip(pair, found[layer], strict=True):
                assert float(abs(one - other).max()) < 0.2 * moved, (stage, layer)


def test_quantised_weights_are_not_for_zero_3(job_of):
    folder = job_of(
        "job", "llama", {"trainable": "lora", "top": None, "quantise": "4bit"}, runtime={"deepspeed": "zero3"}
    )
    with pytest.raises(BadInput, match=r"model\.quantise: '4bit' given under ZeRO 3"):
        history(folder)
