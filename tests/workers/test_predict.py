"""The predict worker in this process."""

import json

import numpy as np
import pytest

from w2s.models import score, train
from w2s.store.records import BadInput, Example, Predictions, read_arrays, read_rows, write_rows
from w2s.workers import predict
from w2s.workers.job_files import read_job
from w2s.workers.serve import run_job

LEARNER = {"model": {"path": "builtin:weak"}, "train": {}}


@pytest.fixture
def job(tiny, tmp_path):
    """The untrained base asked about a wide and a narrow set."""
    examples = read_rows(tiny / "examples.jsonl", Example)
    write_rows(tmp_path / "all.jsonl", examples)
    write_rows(tmp_path / "narrow.jsonl", [e for e in examples if len(e.choices) == 2][::-1])
    sets = {"all": "all.jsonl", "narrow": str(tmp_path / "narrow.jsonl")}
    base = {"learner": LEARNER, "path": str(tiny / "base")}
    values = {"worker": "predict", "model": None, "base": base, "by": "base"}
    (tmp_path / "job.json").write_text(json.dumps({**values, "examples": sets}))
    return tmp_path


def opinions(folder):
    return {name: read_arrays(folder / f"{name}.npz", Predictions) for name in ("all", "narrow")}


def test_every_set_comes_back_in_its_own_order(job):
    assert run_job(job, train.World()) == {"done": str(job)}
    found = opinions(job)
    for name, one in found.items():
        examples = read_rows(job / f"{name}.jsonl", Example)
        assert one.ids.tolist() == [e.id for e in examples]
        assert one.mask_NK.sum(1).tolist() == [len(e.choices) for e in examples]
        assert (one.by, one.abstained_N.any()) == ("base", False)
    same = dict(zip(found["all"].ids.tolist(), found["all"].probs_NK, strict=True))
    for key, row in zip(found["narrow"].ids.tolist(), found["narrow"].probs_NK, strict=True):
        assert row == pytest.approx(same[key][:2], abs=1e-5)
    assert json.loads((job / "done.json").read_text())["rows"] == {"all": 96, "narrow": len(found["narrow"].ids)}
    assert sorted(p.suffix for p in job.iterdir()) == [".json", ".json", ".jsonl", ".jsonl", ".npz", ".npz"]


def test_a_killed_job_goes_on_with_the_chunks_that_are_missing(job, monkeypatch):
    whole, chunks = score.predict, []

    def small(loaded, examples, *, by, skip):
        for at, part in enumerate(whole(loaded, examples, by=by, skip=skip, batch_tokens=100), skip):
            chunks.append(at)
            if len(chunks) == 4:
                raise KeyboardInterrupt
            yield part

    monkeypatch.setattr(score, "predict", small)
    settings = read_job(job)
    with pytest.raises(KeyboardInterrupt):
        predict.run(job, settings, train.World())
    predict.run(job, settings, train.World())
    assert chunks[:6] == [0, 1, 2, 3, 3, 4]
    cut = opinions(job)
    monkeypatch.setattr(score, "predict", whole)
    predict.run(job, settings, train.World())
    for name, one in opinions(job).items():
        assert np.abs(one.probs_NK - cut[name].probs_NK).max() < 1e-6


def test_an_empty_set_is_one_line_that_names_it(job):
    (job / "all.jsonl").write_text("")
    with pytest.raises(BadInput, match=r"all\.jsonl: there is no example in it"):
        predict.run(job, read_job(job), train.World())
