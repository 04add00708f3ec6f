"""How many prompts a model could not read as a whole is kept with what it said, and told in one line."""

import json

import pytest
import torch

from w2s.config.fields import Model
from w2s.models import load, train
from w2s.stages import jobs
from w2s.store.records import Example, write_rows
from w2s.workers.examples import count_cuts
from w2s.workers.serve import run_job


def asked(sizes, name="e", words="w1 w2 "):
    return [
        Example(f"{name}{at}", "t", "choice", words * size + "=", ("w3", "w4", "w5 " * (20 * (at == 0)) + "w6"))
        for at, size in enumerate(sizes)
    ]


@pytest.mark.parametrize("world", [1, 2])
def test_cuts_are_counted_by_set_over_all_processes(tiny, world, monkeypatch):
    loaded = load.load(Model(path=str(tiny / "base")), max_tokens=16)
    sets = {"some": asked([2, 9, 9, 2, 9]), "none": asked([2, 2], "f")[1:]}
    whole = [("e0", (False, True)), ("e1", (True, False)), ("e2", (True, False)), ("e4", (True, False))]
    found = torch.zeros(2, 2, dtype=torch.long)
    for rank in range(world):
        loaded.cuts.clear()
        loaded.cuts.update({key: cut for key, cut in whole if (int(key[1:])) % world == rank})
        monkeypatch.setattr(train.World, "sum", lambda self, values: found.add_(values))
        told = count_cuts(loaded, {name: list(rows) for name, rows in sets.items()}, "base", train.World(rank, world))
    assert told == {"cut": {"some": {"prompts": 3, "answers": 1, "of": 5, "tokens": 16, "by": "base"}}}


def test_a_job_keeps_its_cuts_and_the_pipeline_says_them_once(tiny, tmp_path, capsys):
    write_rows(tmp_path / "hard.jsonl", asked([3, 9, 9, 2, 30]))
    write_rows(tmp_path / "easy.jsonl", asked([2, 2], "f")[1:])
    learner = {"model": {"path": "builtin:weak"}, "train": {"max_tokens": 16}}
    base = {"learner": learner, "path": str(tiny / "base")}
    job = {"worker": "predict", "model": None, "base": base, "by": "round 0"}
    sets = {"hard": "hard.jsonl", "easy": "easy.jsonl"}
    (tmp_path / "job.json").write_text(json.dumps({**job, "examples": sets}))
    assert run_job(tmp_path, train.World()) == {"done": str(tmp_path)}
    done = json.loads((tmp_path / "done.json").read_text())
    assert done["cut"] == {"hard": {"prompts": 3, "answers": 1, "of": 5, "tokens": 16, "by": "round 0"}}
    capsys.readouterr()
    jobs.tell_cuts(done)
    told = "hard: 3 of 5 prompts lost their beginning, in 1 an answer lost its end: round 0 reads at most 16 tokens\n"
    assert capsys.readouterr().err == told


def test_a_student_that_trains_on_cut_prompts_says_so(finetune_job, tmp_path):
    folder = finetune_job("student", {"max_tokens": 3, "steps": 2})
    assert run_job(folder, train.World()) == {"done": str(folder)}
    cut = json.loads((folder / "done.json").read_text())["cut"]["examples"]
    assert (cut["prompts"], cut["of"], cut["tokens"]) == (96, 96, 3)
    assert json.loads((folder / "train.json").read_text())["cut"] == {"examples": cut}
