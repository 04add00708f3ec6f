"""Hidden states as a job, and probes that are fitted and asked with them or without."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from w2s.config.fields import Learner, Model, Train
from w2s.models import states
from w2s.models.world import World
from w2s.store.records import BadInput, Example, Predictions, Weights, read_arrays, read_rows, write_arrays
from w2s.workers import embed, finetune, predict
from w2s.workers.job import Base, Embed, Finetune, Predict
from w2s.workers.job_files import write_job
from w2s.workers.serve import run_job

LEARNER = Learner(Model(path="builtin:weak", kind="probe"), Train(max_tokens=20))


@pytest.fixture
def base(tiny) -> Base:
    return Base(LEARNER, str(tiny / "base"))


@pytest.fixture
def made(tiny, tmp_path, base):
    """A folder with the hidden states of all questions."""
    folder = tmp_path / "states"
    folder.mkdir()
    embed.run(folder, Embed(LEARNER, str(tiny / "examples.jsonl"), base.path), World())
    return folder


def test_a_killed_job_goes_on_with_the_chunks_that_are_missing(tiny, tmp_path, base, made, monkeypatch):
    whole, chunks = states.make_states, []
    monkeypatch.setattr(states, "CHUNK_TOKENS", 200)

    def dying(loaded, examples, *, skip):
        for at, part in enumerate(whole(loaded, examples, skip=skip), skip):
            chunks.append(at)
            if len(chunks) == 3:
                raise KeyboardInterrupt
            yield part

    monkeypatch.setattr(embed, "make_states", dying)
    write_job(folder := tmp_path, Embed(LEARNER, str(tiny / "examples.jsonl"), base.path))
    with pytest.raises(KeyboardInterrupt):
        run_job(folder, World())
    assert run_job(folder, World()) == {"done": str(folder)}
    assert chunks == [*range(3), *range(2, max(chunks) + 1)]
    rows = read_rows(tiny / "examples.jsonl", Example)
    there, here = (states.read_states(one, rows) for one in (made, folder))
    assert here.states_RD == pytest.approx(there.states_RD, rel=5e-3, abs=5e-3)
    assert not list(folder.glob("parts*"))


def test_a_probe_is_the_same_whether_its_states_are_read_or_made(tiny, tmp_path, base, made):
    names, labels = {}, str(tiny / "labels.npz")
    for name, where in {"read": str(made), "made": None}.items():
        folder = tmp_path / name
        folder.mkdir()
        job = Finetune(LEARNER, 1, str(tiny / "examples.jsonl"), labels, base.path, states=where)
        assert finetune.run(folder, job, World())["rows"] == 96
        ask = Predict({"all": str(tiny / "examples.jsonl")}, "me", "model", states=where)
        predict.run(folder, ask, World())
        names[name] = read_arrays(folder / "all.npz", Predictions)
    assert names["read"].probs_NK == pytest.approx(names["made"].probs_NK, abs=1e-3)
    rows = read_rows(tiny / "examples.jsonl", Example)
    assert names["read"].ids.tolist() == [row.id for row in rows]
    assert names["read"].mask_NK.sum(1).tolist() == [len(row.choices) for row in rows]
    assert not names["read"].abstained_N.any()


def test_drawing_rows_by_weight_and_weighting_the_loss_are_the_same_for_a_probe(tiny, tmp_path, base, made):
    ids = np.array([row.id for row in read_rows(tiny / "examples.jsonl", Example)])
    weight_N = np.random.default_rng(0).uniform(0, 1, len(ids)) * (np.arange(len(ids)) % 3 > 0)
    write_arrays(tmp_path / "order.npz", Weights(ids, weight_N / weight_N.sum()))
    heads = []
    for weighting in ("resample", "loss"):
        job = Finetune(LEARNER, 1, str(tiny / "examples.jsonl"), str(tiny / "labels.npz"), base.path)
        job = dataclasses.replace(job, order=str(tmp_path / "order.npz"), states=str(made), weighting=weighting)
        (tmp_path / weighting).mkdir()
        assert finetune.run(tmp_path / weighting, job, World())["rows"] == 64
        heads.append(np.load(tmp_path / weighting / "model" / "probe.npz")["weight_D"])
    np.testing.assert_array_equal(*heads)


def test_a_saved_probe_needs_the_base_that_it_was_fitted_on(tiny, tmp_path, base):
    shutil.copytree(tiny / "base", tmp_path / "base")
    job = Finetune(LEARNER, 1, str(tiny / "examples.jsonl"), str(tiny / "labels.npz"), str(tmp_path / "base"))
    finetune.run(tmp_path, job, World())
    marks = json.loads((tmp_path / "model" / "w2s.json").read_text())
    assert marks["base"]["path"] == str(tmp_path / "base")
    assert marks["max_tokens"] == 20
    ask = Predict({"all": str(tiny / "examples.jsonl")}, "me", "model")
    config = tmp_path / "base" / "config.json"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(BadInput, match=r"model: its frozen model .*base has changed"):
        predict.run(tmp_path, ask, World())
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(BadInput, match=r"model: its frozen model .*base is gone"):
        predict.run(tmp_path, ask, World())


def test_a_probe_that_was_not_fitted_has_no_opinion(tiny, tmp_path, base):
    predict.run(tmp_path, Predict({"all": str(tiny / "examples.jsonl")}, "me", base=base), World())
    opinion = read_arrays(tmp_path / "all.npz", Predictions)
    assert opinion.abstained_N.all()
    assert opinion.probs_NK.max(1) == pytest.approx(1 / opinion.mask_NK.sum(1))


def test_prompts_that_a_base_cannot_read_whole_are_counted(tiny, tmp_path, base):
    short = Base(dataclasses.replace(LEARNER, train=Train(max_tokens=6)), base.path)
    told = embed.run(tmp_path, Embed(short.learner, str(tiny / "examples.jsonl"), base.path), World())
    assert told["cut"]["examples"]["prompts"] > 0
    job = Finetune(short.learner, 1, str(tiny / "examples.jsonl"), str(tiny / "labels.npz"), base.path)
    assert finetune.run(tmp_path, job, World())["cut"] == told["cut"]
