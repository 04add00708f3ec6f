"""What merging knows of a learner, against what autograd and the layers say one by one."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.models import tiny
from w2s.models import batches, load, score
from w2s.models.statistics import find_statistics, read_prompt
from w2s.models.world import World
from w2s.store.records import BadInput, write_rows
from w2s.workers import merge
from w2s.workers.job import Merge


@pytest.fixture
def loaded(folder_of):
    return tiny.read(folder_of("llama"))


def test_fishers_expectation_is_the_mean_over_the_models_own_answers(loaded):
    (example,) = tiny.examples()[:1]
    name, wanted = "model.layers.0.self_attn.q_proj.weight", 0.0
    weight = dict(loaded.module.named_parameters())[name]
    logp_K = score.scores(loaded, batches.collate(loaded, batches.encode(loaded, [example])))[0].log_softmax(-1)
    for logp in logp_K:
        (gradient,) = torch.autograd.grad(logp, weight, retain_graph=True)
        wanted = wanted + logp.exp().detach() * gradient.square()
    draws = [find_statistics("fisher", loaded, [example], seed)[name] for seed in range(60)]
    assert len({float(one.sum()) for one in draws}) <= len(logp_K)  # one value for each answer that was drawn
    torch.testing.assert_close(torch.stack(draws).mean(0).sum(), wanted.sum(), rtol=0.35, atol=1e-12)


def test_grams_are_those_of_the_layers_inputs(loaded):
    examples, seen = tiny.examples()[:3], []
    layer = loaded.module.model.layers[1].mlp.down_proj
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0].detach()))
    for example in examples:
        loaded.module(input_ids=read_prompt(loaded, example))
    hook.remove()
    inputs = torch.cat(seen)
    found = find_statistics("regmean", loaded, examples, 0)["model.layers.1.mlp.down_proj.weight"]
    torch.testing.assert_close(found, inputs.T @ inputs / len(inputs), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["fisher", "regmean"])
@pytest.mark.parametrize("task", ["choice", "answer"])
def test_learners_merge_by_their_statistics_and_a_second_run_gives_the_same(folder_of, tmp_path, method, task):
    base, rows = folder_of("llama"), tiny.examples()[:4]
    if task == "answer":
        rows = [dataclasses.replace(row, task="answer", choices=()) for row in rows]
    write_rows(tmp_path / "rows.jsonl", rows)
    for at in range(2):
        moved = tiny.read(base)
        with torch.no_grad():
            for value in moved.module.parameters():
                value += 0.02 * torch.randn(value.shape, generator=torch.Generator().manual_seed(at))
        load.save(moved, tmp_path / f"learner-{at}")
    learners, found = [str(tmp_path / f"learner-{at}") for at in range(2)], []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        job = Merge(learners, [1, 1], {"name": method}, str(base), examples=str(tmp_path / "rows.jsonl"))
        found.append(merge.run(tmp_path / name, job, World())["sha256"])
    (tmp_path / "c").mkdir()
    mean = merge.run(tmp_path / "c", Merge(learners, [1, 1], {"name": "mean"}, str(base)), World())["sha256"]
    assert found[0] == found[1] != mean
    with pytest.raises(BadInput, match=r"examples: None given for .*need questions"):
        merge.run(tmp_path / "c", Merge(learners, [1, 1], {"name": method}, str(base)), World())
    merged = tiny.read(tmp_path / "a" / "model").module.state_dict()
    assert all(torch.isfinite(value).all() for value in merged.values())
