"""LoRA adapters as one adapter: the sum of their deltas, or the nearest of a rank."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest
import torch

from tests.models import tiny
from w2s.models.world import World
from w2s.store.records import BadInput
from w2s.workers import merge
from w2s.workers.job import Merge


@pytest.fixture
def base(tmp_path) -> Path:
    return tiny.write("llama", tmp_path / "base")


def make_adapter(base: Path, folder: Path, rank: int, seed: int, **options) -> Path:
    torch.manual_seed(seed)
    config = peft.LoraConfig(
        r=rank, lora_alpha=3 * rank, target_modules=["q_proj", "down_proj"], init_lora_weights=False, **options
    )
    model = peft.get_peft_model(tiny.read(base).module, config)
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(folder)
    return folder


def deltas(base: Path, folder: Path) -> dict[str, torch.Tensor]:
    """What peft makes of an adapter: layer -> the change of its weight."""
    plain = tiny.read(base).module
    merged = peft.PeftModel.from_pretrained(tiny.read(base).module, folder).merge_and_unload()
    start = plain.state_dict()
    return {name: value - start[name] for name, value in merged.state_dict().items()}


def run(folder: Path, adapters, method, weights=(2, 1), **options) -> Path:
    folder.mkdir()
    merge.run(folder, Merge([str(one) for one in adapters], list(weights), method, **options), World())
    return folder / "model"


def test_cat_is_the_weighted_sum_whatever_the_ranks_and_scalings(base, tmp_path):
    two = [make_adapter(base, tmp_path / "a", 2, 0), make_adapter(base, tmp_path / "b", 4, 1, use_rslora=True)]
    found = deltas(base, run(tmp_path / "cat", two, {"name": "cat"}, scale=1.5))
    parts = [deltas(base, one) for one in two]
    for name, value in found.items():
        torch.testing.assert_close(value, 1.5 * (2 * parts[0][name] + parts[1][name]) / 3, atol=1e-5, rtol=1e-4)
    assert max(value.abs().max() for value in found.values()) > 0.1
    assert json.loads((tmp_path / "cat" / "model" / "adapter_config.json").read_text())["r"] == 6


@pytest.mark.parametrize("rank", [1, 3, 6, 9])
def test_svd_is_the_nearest_of_its_rank(base, tmp_path, rank):
    two = [make_adapter(base, tmp_path / "a", 2, 0), make_adapter(base, tmp_path / "b", 4, 1)]
    found = deltas(base, run(tmp_path / "svd", two, {"name": "svd", "rank": rank}))
    whole = deltas(base, run(tmp_path / "cat", two, {"name": "cat"}))
    for name, value in whole.items():
        if value.abs().max() > 0:
            tail = torch.linalg.svdvals(value)[rank:].square().sum().sqrt()
            error = (found[name] - value).square().sum().sqrt()
            torch.testing.assert_close(error, tail, atol=1e-4, rtol=1e-3)


def test_what_is_more_than_lora_is_refused_by_name(base, tmp_path):
    plain = make_adapter(base, tmp_path / "plain", 2, 0)

    def refused(*adapters, method=None) -> str:
        with pytest.raises(BadInput) as problems:
            run(tmp_path / f"out-{len(list(tmp_path.iterdir()))}", adapters, method or {"name": "cat"})
        return str(problems.value)

    assert "use_dora: True given" in refused(plain, make_adapter(base, tmp_path / "dora", 2, 1, use_dora=True))
    assert "no LoRA adapter" in refused(plain, base)
    other = make_adapter(base, tmp_path / "other", 2, 1)
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "elsewhere"}))
    assert "allowed: adapters of one base" in refused(plain, other)
    assert "'mean' is not known" in refused(plain, plain, method={"name": "mean"})
    assert "rank" in refused(plain, plain, method={"name": "svd"})
