"""The pretrain worker in this process."""

import json

import numpy as np
import pytest
import torch

from w2s.config.fields import Model
from w2s.models import load, train
from w2s.store.records import BadInput
from w2s.workers import pretrain
from w2s.workers.job_files import read_job


@pytest.fixture
def job(tiny, tmp_path):
    def write(name, steps=60, **values):
        (tmp_path / name).mkdir()
        recipe = {"builtin": "weak", "corpus": str(tiny / "corpus.txt"), "seed": 0}
        settings = {"train": {"steps": steps, "batch": 16, "lr": 3e-2}}
        (tmp_path / name / "job.json").write_text(json.dumps({"worker": "pretrain", **recipe, **settings, **values}))
        return tmp_path / name

    return write


def run(folder):
    return pretrain.run(folder, read_job(folder), train.World())


def test_the_loss_of_the_next_word_falls_and_the_model_can_be_fine_tuned(job):
    folder = job("a")
    assert run(folder)["steps"] == 60
    losses = json.loads((folder / "train.json").read_text())["losses"]
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.1
    one, other = (load.load(Model(path=str(folder / "model")), seed=seed).module for seed in (1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not (folder / "start").exists()


def test_without_steps_every_learner_draws_its_own_weights(job):
    folder = job("a", steps=0)
    run(folder)
    one, same, other = (
        next(load.load(Model(path=str(folder / "model")), seed=seed).module.parameters()) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_padding_teaches_nothing():
    class Echo(torch.nn.Module):
        def forward(self, input_ids, use_cache):
            logits = torch.nn.functional.one_hot(input_ids, 9).float()
            return type("Out", (), {"logits": logits})

    module = pretrain.NextToken(Echo())
    short, long = torch.tensor([[3, 4, 4]]), torch.tensor([[3, 4, 4, -1, -1]])
    assert torch.equal(module(short), module(long))


def test_a_corpus_without_lines_is_one_clear_line(job, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(BadInput, match=r"empty\.txt: there is no line in it"):
        run(job("a", corpus=str(tmp_path / "empty.txt")))
