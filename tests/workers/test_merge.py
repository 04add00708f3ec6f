"""Merging folders: the same bytes for any order and any shards, equality with the vote, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models import tiny
from w2s.models import load
from w2s.models.world import World
from w2s.store.records import BadInput
from w2s.workers import merge
from w2s.workers.job import Merge


def step(source: Path, target: Path, seed: int, size: float = 0.05) -> Path:
    """A copy of the model, each weight moved a little."""
    shutil.copytree(source, target)
    weights, generator = load_file(target / "model.safetensors"), torch.Generator().manual_seed(seed)
    for name, value in weights.items():
        weights[name] = value + size * torch.randn(value.shape, generator=generator)
    save_file(weights, target / "model.safetensors", {"format": "pt"})
    return target


@pytest.fixture
def family(tmp_path) -> tuple[Path, list[Path]]:
    """A base and three learners of it."""
    base = tiny.write("llama", tmp_path / "base")
    return base, [step(base, tmp_path / f"learner-{at}", at) for at in range(3)]


def run(folder: Path, models, base, weights=(3.0, 2.0, 1.0), method=None, **options) -> dict:
    folder.mkdir()
    job = Merge([str(one) for one in models], list(weights), method or {"name": "mean"}, str(base), **options)
    return merge.run(folder, job, World()) | {"weights_of": load_file(folder / "model" / "model.safetensors")}


METHODS = [{"name": name} for name in ("mean", "ties", "dare", "della", "breadcrumbs", "stock", "varm", "sce")]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method["name"])
def test_neither_order_nor_shards_nor_another_run_change_a_byte(family, tmp_path, method):
    base, learners = family
    first = run(tmp_path / "a", learners, base, method=method)
    assert run(tmp_path / "b", learners, base, method=method)["sha256"] == first["sha256"]
    turned = run(tmp_path / "c", learners[::-1], base, (1, 2, 3), method=method)
    assert turned["sha256"] == first["sha256"]
    assert turned["moved"] == first["moved"][::-1]
    shard(learners[1])
    shard(base)
    assert run(tmp_path / "d", learners, base, method=method)["sha256"] == first["sha256"]


def shard(folder: Path) -> None:
    """Cut the model's file into two."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
    for file, chosen in parts.items():
        save_file({name: weights[name] for name in chosen}, folder / file, {"format": "pt"})
    index = {"weight_map": {name: file for file, chosen in parts.items() for name in chosen}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_the_mean_is_the_weighted_mean_and_the_folder_loads(family, tmp_path):
    base, learners = family
    found = run(tmp_path / "a", learners, base, scale=0.5)
    start, moved = load_file(base / "model.safetensors"), [load_file(one / "model.safetensors") for one in learners]
    for name, value in found["weights_of"].items():
        wanted = start[name] + 0.5 * sum(
            w * (one[name] - start[name]) for w, one in zip((0.5, 1 / 3, 1 / 6), moved, strict=True)
        )
        torch.testing.assert_close(value, wanted, atol=1e-6, rtol=1e-5)
    assert found["weights"] == pytest.approx([0.25, 1 / 6, 1 / 12])
    norms = [torch.stack([(one[n] - start[n]).square().sum() for n in start]).sum().sqrt() for one in moved]
    whole = torch.stack([value.square().sum() for value in start.values()]).sum().sqrt()
    np.testing.assert_allclose(found["moved"], torch.stack(norms) / whole, rtol=1e-4)
    loaded = tiny.read(tmp_path / "a" / "model")
    assert sorted(loaded.module.state_dict()) == sorted(tiny.read(base).module.state_dict())


def test_a_mean_needs_no_base_and_equal_models_come_out_bit_for_bit(family, tmp_path):
    base, learners = family
    with_base = run(tmp_path / "a", learners, base)["weights_of"]
    folder = tmp_path / "b"
    folder.mkdir()
    merge.run(folder, Merge([str(one) for one in learners], [3, 2, 1], {"name": "mean"}), World())
    for name, value in load_file(folder / "model" / "model.safetensors").items():
        torch.testing.assert_close(value, with_base[name], atol=1e-6, rtol=1e-5)
    folder = tmp_path / "c"
    folder.mkdir()
    merge.run(folder, Merge([str(learners[0])] * 3, [3, 2, 1], {"name": "mean"}), World())
    same, wanted = load_file(folder / "model" / "model.safetensors"), load_file(learners[0] / "model.safetensors")
    assert all(torch.equal(same[name], value) for name, value in wanted.items())


def test_halving_every_step_takes_the_merge_sixteen_times_nearer_to_the_log_linear_vote(tmp_path):
    base, gaps = tiny.write("llama", tmp_path / "base"), []
    tokens = torch.randint(3, 40, (4, 12), generator=torch.Generator().manual_seed(0))

    def logp(folder: Path) -> torch.Tensor:
        module = tiny.read(folder).module.double()
        with torch.no_grad():
            return module(input_ids=tokens).logits.log_softmax(-1)

    for size in (0.02, 0.01):
        learners = [step(base, tmp_path / f"{size}-{at}", at, size) for at in range(3)]
        run(tmp_path / f"merged-{size}", learners, base)
        vote = sum(w * logp(one) for w, one in zip((0.5, 1 / 3, 1 / 6), learners, strict=True)).log_softmax(-1)
        merged = logp(tmp_path / f"merged-{size}" / "model")
        gaps.append(float((vote.exp() * (vote - merged)).sum(-1).mean()))
    assert 10 < gaps[0] / gaps[1] < 25


def test_models_that_do_not_belong_together_are_refused_before_anything_is_written(family, tmp_path):
    base, learners = family

    def refused(*models, base=base, **options) -> list[str]:
        folder = tmp_path / "refused"
        shutil.rmtree(folder, ignore_errors=True)
        with pytest.raises(BadInput) as problems:
            run(folder, models, base, **options)
        assert not list(folder.iterdir())
        return str(problems.value).splitlines()

    other = step(base, tmp_path / "other", 7)
    weights = load_file(other / "model.safetensors")
    name = sorted(weights)[0]
    save_file(weights | {name: weights[name][:-1].clone()}, other / "model.safetensors")
    (line,) = refused(learners[0], other, weights=(1, 1))
    assert name in line
    assert "other shapes" in line
    save_file({key: value for key, value in weights.items() if key != name}, other / "model.safetensors")
    (line,) = refused(learners[0], other, weights=(1, 1))
    assert f"1 tensors are not in both it and {learners[0]}: {name}" in line
    (learners[2] / "tokenizer_config.json").write_text('{"changed": 1}')
    (line,) = refused(*learners)
    assert "learner-2: tokenizer_config.json differs" in line
    assert "weights: 3 given; allowed: 2" in refused(*learners[:2])[0]
    assert "not all 0" in refused(*learners[:2], weights=(0, 0))[0]
    assert "no model.safetensors" in refused(tmp_path, learners[0], weights=(1, 1))[0]
    folder = tmp_path / "baseless"
    with pytest.raises(BadInput, match="base: none given; ties needs"):
        merge.run(folder, Merge([str(one) for one in learners[:2]], [1, 1], {"name": "ties"}), World())
    assert "slerp takes 2" in refused(*learners[:2], learners[1], method={"name": "slerp"})[0]


def test_a_merged_learner_is_a_learner(family, tmp_path):
    base, _ = family
    saved = []
    for at in range(2):
        loaded = tiny.read(base)
        load.save(loaded, tmp_path / f"saved-{at}")
        saved.append(tmp_path / f"saved-{at}")
    run(tmp_path / "a", saved, base, (1, 1))
    assert load.load_folder(tmp_path / "a" / "model").model.path == loaded.model.path
