"""bfloat16 on a CPU: what is rounded, and what is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.models import tiny
from w2s.config.fields import Runtime, Train
from w2s.models import adapters, batches, committee, load, members, score, train, world

STAGES = [None, "zero0", "zero1", "zero2", "zero3"]


def scores_of(loaded):
    with torch.no_grad():
        return score.scores(loaded, batches.collate(loaded, batches.encode(loaded, tiny.examples())))


def fit(loaded, folder, deepspeed=None, steps=4, **settings):
    encoded = batches.encode(loaded, tiny.examples())

    def objective(call, index_B, share):
        scores_BK = call(batches.collate(loaded, [encoded[at] for at in index_B], 4))
        return -torch.log_softmax(scores_BK, -1)[:, 0]

    folder.mkdir()
    settings, plan = Train(precision="bfloat16", **settings), [np.arange(3)] * steps
    return train.fit(score.Scorer(loaded), plan, objective, settings, Runtime(deepspeed=deepspeed), folder)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx512_f": True, "avx512_bf16": False}, False)],
)
def test_torch_is_asked_what_the_cpu_computes_in(monkeypatch, capabilities, expected):
    monkeypatch.setattr(world.torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert world.has_bfloat16() is expected
    monkeypatch.delattr(world.torch.cpu, "get_capabilities")
    assert world.has_bfloat16() is False


@pytest.mark.parametrize("deepspeed", STAGES)
def test_an_update_smaller_than_the_spacing_of_bfloat16_is_kept(folder_of, tmp_path, deepspeed):
    loaded = tiny.read(folder_of("llama"))
    before = {name: p.detach().clone() for name, p in loaded.module.named_parameters()}
    _, weights = fit(loaded, tmp_path / "fit", deepspeed, steps=2, lr=1e-5, weight_decay=0.0, schedule="constant")
    norm = next(name for name in weights if name.endswith("norm.weight"))  # all ones, where the spacing is 0.008
    moved = (weights[norm] - before[norm.removeprefix("module.")]).abs()
    assert weights[norm].dtype == torch.float32
    assert 0 < moved.max() < 1e-4


def test_every_zero_stage_gives_the_losses_of_one_process_without_deepspeed(folder_of, tmp_path):
    found = {s: fit(tiny.read(folder_of("llama")), tmp_path / f"{s}", s, lr=1e-3) for s in STAGES}
    for state, _ in found.values():
        assert state.losses == pytest.approx(found[None][0].losses, abs=2e-2)


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("llama", {}),
        ("gemma3_text", {}),
        ("llama", {"trainable": "lora"}),
        ("gemma3_text", {"kind": "pair"}),
        ("bert", {"kind": "towers"}),
    ],
)
def test_a_model_trained_in_bfloat16_predicts_in_it_with_scores_in_float32(folder_of, tmp_path, architecture, options):
    loaded = load.dataclasses.replace(tiny.read(folder_of(architecture), **options), precision="bfloat16")
    load.save(loaded, tmp_path / "saved")
    again = load.load_folder(tmp_path / "saved")
    assert again.precision == "bfloat16"
    assert {p.dtype for n, p in again.module.named_parameters() if n != "score.weight"} == {torch.bfloat16}
    found, exact = scores_of(again), scores_of(load.load_folder(tmp_path / "saved", precision="float32"))
    assert found.dtype == torch.float32
    here = torch.isfinite(exact)
    torch.testing.assert_close(found[here], exact[here], rtol=0.05, atol=0.1)
    assert not torch.equal(found[here], found[here].bfloat16().float())


def test_an_ensemble_of_reward_models_predicts_in_what_it_was_trained_in(folder_of, tmp_path):
    loaded = load.dataclasses.replace(tiny.read(folder_of("llama"), kind="pair"), precision="bfloat16")
    members.save(members.join(loaded, members.Ensemble("adapters", 2)), tmp_path / "saved")
    again = members.open_members(tmp_path / "saved")
    assert again.loaded.precision == "bfloat16"
    ((_, found_MNK),) = members.rewards(again, tiny.examples())
    ((_, exact_MNK),) = members.rewards(members.open_members(tmp_path / "saved", precision="float32"), tiny.examples())
    np.testing.assert_allclose(found_MNK, exact_MNK, rtol=0.05, atol=0.05)
    assert not np.array_equal(found_MNK, exact_MNK)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_models_in_bfloat16_write_together_and_apart(folder_of, tmp_path, architecture):
    loaded = tiny.read(folder_of(architecture), trainable="lora")
    for name, parameter in loaded.module.named_parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(len(name)))
    base, adapter = tiny.read(folder_of(architecture), precision="bfloat16"), adapters.adapter_of(loaded.module)
    load.save(load.dataclasses.replace(loaded, precision="bfloat16"), tmp_path / "saved")
    alone = load.load_folder(tmp_path / "saved")
    prompts = [example.prompt for example in tiny.examples()]
    for voices, alphas in (([alone], [1.0]), (adapters.share(base, [adapter, adapter]), [1.0, 2.0])):
        texts = [text for part in committee.decode(voices, prompts, alphas, max_new_tokens=5) for text in part]
        assert len(texts) == len(prompts)
        assert all(np.isfinite(text.logp) for text in texts)
