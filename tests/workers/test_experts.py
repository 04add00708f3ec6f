"""The worker of job.Experts, and the training of what it makes, in this process."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests.models import tiny as models
from tests.workers.conftest import read_history
from w2s.config.fields import Runtime
from w2s.models import load, train
from w2s.stages.jobs import Workers
from w2s.store.records import BadInput, Weights, write_arrays, write_rows
from w2s.workers import experts, finetune
from w2s.workers.job import Experts
from w2s.workers.job_files import read_job, write_job
from w2s.workers.serve import run_job


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> str:
    return str(models.write("llama", tmp_path_factory.mktemp("llama") / "model"))


@pytest.fixture(scope="module")
def mixture(llama, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mixture")
    write_job(folder, Experts([llama] * 4, [1.0] * 4))
    assert "done" in run_job(folder, train.World())
    return folder


def fit(finetune_job, name: str, mixture: Path, steps: dict | None = None, **job) -> dict:
    learner = {
        "model": {"path": str(mixture / "model")},
        "train": {"steps": 6, "batch": 8, "lr": 1e-2, **(steps or {})},
    }
    folder = finetune_job(name, learner=learner, path=str(mixture / "model"), **job)
    finetune.run(folder, read_job(folder), train.World())
    return read_history(folder)


def test_the_job_writes_a_whole_model_and_what_it_weighs(mixture):
    told = json.loads((mixture / "experts.json").read_text())
    assert told["parameters"] > told["active_parameters"] > told["dense_parameters"]
    assert (told["experts"], told["active"]) == (4, 2)
    assert told["router"] == "drawn, standard deviation 0.001"
    assert json.loads((mixture / "done.json").read_text())["parameters"] == told["parameters"]


def test_training_is_the_same_in_micro_batches_tells_the_load_and_parts_the_copies(finetune_job, mixture):
    whole = fit(finetune_job, "whole", mixture)
    cut = fit(finetune_job, "cut", mixture, runtime={"micro_batch": 3})
    # The first steps: a token whose gates are almost equal may go elsewhere after a rounding.
    assert cut["losses"][:2] == pytest.approx(whole["losses"][:2], abs=1e-3)
    assert whole["mixture"]["experts"] == 4
    assert sum(whole["mixture"]["load"]) == pytest.approx(1, abs=1e-3)
    assert whole["parameters"] > whole["active_parameters"]


def test_the_balance_loss_is_in_the_training_loss(finetune_job, mixture, llama, tmp_path):
    write_job(tmp_path, Experts([llama] * 4, [1.0] * 4, balance=0.0))
    run_job(tmp_path, train.World())
    without, with_it = (
        fit(finetune_job, name, folder, {"steps": 1})["losses"][0]
        for name, folder in (("without", tmp_path), ("with", mixture))
    )
    # 0.01 times about 2, the number of active experts.
    assert with_it - without == pytest.approx(0.02, abs=0.005)


def test_under_deepspeed_the_losses_are_those_of_plain_torch(finetune_job, mixture):
    plain = fit(finetune_job, "plain", mixture)
    engine = fit(finetune_job, "engine", mixture, runtime={"deepspeed": "auto"})
    assert engine["losses"][:3] == pytest.approx(plain["losses"][:3], abs=1e-3)


def test_recomputed_activations_change_nothing(finetune_job, mixture):
    plain = fit(finetune_job, "plain", mixture, {"steps": 3})
    again = fit(finetune_job, "again", mixture, {"steps": 3}, runtime={"gradient_checkpointing": True})
    assert again["losses"] == pytest.approx(plain["losses"], abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_two_processes_and_every_zero_stage_give_the_same_losses(finetune_job, mixture, stage):
    plain = fit(finetune_job, "plain", mixture, {"steps": 3})
    learner = {"model": {"path": str(mixture / "model")}, "train": {"steps": 3, "batch": 8, "lr": 1e-2}}
    runtime = {"deepspeed": f"zero{stage}", "micro_batch": 2}
    folder = finetune_job("two", learner=learner, path=str(mixture / "model"), runtime=runtime)
    with Workers(Runtime(slots=1, processes=2, threads=1)) as workers:
        workers.run(folder)
    found = read_history(folder)
    assert found["losses"] == pytest.approx(plain["losses"], abs=2e-3)
    assert found["mixture"]["load"] == pytest.approx(plain["mixture"]["load"], abs=0.1)


def test_top_layers_train_alone_from_states_that_are_computed_once(finetune_job, mixture):
    model = {"path": str(mixture / "model"), "trainable": "top", "top": 1}
    learner = {"model": model, "train": {"steps": 12, "batch": 24, "lr": 1e-2}}
    folder = finetune_job("top", learner=learner, path=model["path"])
    finetune.run(folder, read_job(folder), train.World())
    assert read_history(folder)["mixture"]["experts"] == 4
    start, end = (load.load(finetune_model(path)).module.state_dict() for path in (mixture, folder))
    same = [name for name in start if (start[name] == end[name]).all()]
    assert any("layers.0.mlp.experts" in name for name in same)
    assert not any("layers.1." in name for name in same)


def finetune_model(folder: Path):
    from w2s.config.fields import Model

    return Model(path=str(folder / "model"))


def test_routers_are_turned_towards_weights_and_a_large_condition_is_said(llama, tmp_path, capsys):
    rows = models.examples()
    write_rows(tmp_path / "examples.jsonl", rows)
    for at in range(2):
        ids = np.array([row.id for row in rows[at:]])
        write_arrays(tmp_path / f"towards-{at}.npz", Weights(ids, np.full(len(ids), 1 / len(ids))))
    job = Experts([llama, llama], [1.0, 1.0], active=1, examples="examples.jsonl")
    job = dataclasses.replace(job, towards=["towards-0.npz", "towards-1.npz"])
    done = experts.run(tmp_path, job, train.World())
    assert done["router"] == "towards examples"
    assert done["condition"] > 5
    assert "condition number" in capsys.readouterr().err
    with pytest.raises(BadInput, match="towards: 1 files given; allowed: 2"):
        experts.run(tmp_path, dataclasses.replace(job, towards=["towards-0.npz"]), train.World())
    write_arrays(tmp_path / "towards-1.npz", Weights(np.array(["other"]), np.ones(1)))
    with pytest.raises(BadInput, match="gives no example any weight"):
        experts.run(tmp_path, job, train.World())
