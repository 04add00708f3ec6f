"""Adapters of one base that share its weights and its forward pass."""

from __future__ import annotations

import pytest
import torch

from tests.models import tiny
from tests.models.voices import ALPHA, PROMPTS, logits_of, moved, separately, texts, with_adapters
from w2s.models.adapters import adapter_of, share
from w2s.models.generate import Voice
from w2s.models.internals import merged
from w2s.models.load import read_adapter, save_adapter
from w2s.store.records import BadInput


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "gemma2"])
def test_adapters_of_one_base_speak_as_separate_models_do(folder_of, architecture):
    loaded, adapters = with_adapters(folder_of(architecture))
    before = logits_of([Voice(loaded)])
    voices = share(loaded, adapters)
    assert [voice.count for voice in voices] == [3]
    apart = [Voice(separately(folder_of(architecture), adapter)) for adapter in adapters]
    together_SLBV, apart_SLBV = logits_of(voices), logits_of(apart)
    assert (apart_SLBV[:, 0] - apart_SLBV[:, 1]).abs().max() > 0.05
    scale = apart_SLBV.abs().max()
    assert (together_SLBV - apart_SLBV).abs().max() / max(1, scale) < 1e-5
    wanted = texts([voice.loaded for voice in apart], PROMPTS, ALPHA, max_new_tokens=12)
    assert texts(voices, PROMPTS, ALPHA, max_new_tokens=12) == wanted
    assert torch.equal(logits_of([Voice(loaded)]), before), "the base is left as it was"


def test_peft_itself_is_the_witness_of_each_adapter(folder_of):
    loaded, adapters = with_adapters(folder_of("llama"))
    together = logits_of(share(loaded, adapters))
    for at in range(3):
        for layer in loaded.module.modules():
            if hasattr(layer, "set_adapter") and hasattr(layer, "lora_A"):
                layer.set_adapter(f"a{at}")
        torch.testing.assert_close(logits_of([Voice(loaded)])[:, 0], together[:, at], rtol=1e-5, atol=1e-5)


def test_a_learner_of_ours_shares_its_base_as_its_saved_merge_speaks(folder_of):
    loaded = tiny.read(folder_of("gpt2"), trainable="lora", lora_rank=4)
    with torch.no_grad():
        for name, parameter in loaded.module.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    alone = tiny.read(folder_of("gpt2"))
    alone.module.load_state_dict(merged(loaded.module, loaded.module.state_dict()))
    found = logits_of(share(tiny.read(folder_of("gpt2")), [adapter_of(loaded.module)]))
    torch.testing.assert_close(found, logits_of([Voice(alone)]), rtol=1e-5, atol=1e-5)


def test_sharing_copies_no_weight_of_the_base(folder_of):
    loaded, adapters = with_adapters(folder_of("llama"))
    voice = share(loaded, adapters)[0]
    there = {parameter.data_ptr() for parameter in loaded.module.parameters()}
    parameters = list(voice.loaded.module.parameters())
    assert parameters
    assert all(parameter.data_ptr() in there for parameter in parameters)
    assert sum(p.numel() for p in parameters) == sum(
        p.numel() for name, p in loaded.module.named_parameters() if ".lora_" not in name
    )


def test_adapters_may_leave_out_layers_and_the_bare_base_may_be_a_learner(folder_of):
    loaded, (first, second, _) = with_adapters(folder_of("llama"))
    half = dict(list(first.items())[:3])
    found = logits_of(share(loaded, [half, second, {}]))
    apart = [Voice(separately(folder_of("llama"), adapter)) for adapter in (half, second, {})]
    torch.testing.assert_close(found, logits_of(apart), rtol=1e-5, atol=1e-5)


def test_learners_of_several_kinds_write_together(folder_of):
    one = moved(tiny.read(folder_of("gpt2")), 1)
    loaded, adapters = with_adapters(folder_of("gpt2"))
    apart = [separately(folder_of("gpt2"), adapter) for adapter in adapters]
    alpha = [*ALPHA, 1.1]
    wanted = texts([*apart, one], PROMPTS, alpha, max_new_tokens=10)
    assert texts([*share(loaded, adapters), one], PROMPTS, alpha, max_new_tokens=10) == wanted


def test_rows_that_an_architecture_mixes_are_read_learner_by_learner(folder_of):
    class Shuffled(torch.nn.Module):
        """Reads its rows in another order, as a mixture of experts does."""

        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x.flip(0)).flip(0)

    def shuffled():
        loaded = tiny.read(folder_of("llama"))
        for layer in loaded.module.model.layers:
            layer.mlp = Shuffled(layer.mlp)
        return loaded

    _, adapters = with_adapters(folder_of("llama"))
    adapters = [{n.replace("mlp.", "mlp.inner."): pair for n, pair in adapter.items()} for adapter in adapters]
    voices = share(shuffled(), adapters)
    assert [voice.count for voice in voices] == [1, 1, 1]
    plain, plain_adapters = with_adapters(folder_of("llama"))
    torch.testing.assert_close(logits_of(voices), logits_of(share(plain, plain_adapters)), rtol=1e-5, atol=1e-5)


def test_what_no_base_can_share_is_refused(folder_of):
    loaded, adapters = with_adapters(folder_of("llama"), ranks=(2,))
    with pytest.raises(BadInput, match="no LoRA layer"):
        adapter_of(loaded.module, "other")
    with pytest.raises(BadInput, match="no layer"):
        share(tiny.read(folder_of("gpt2")), adapters)
    name, (down, up) = next(iter(adapters[0].items()))
    with pytest.raises(BadInput, match="base's weight"):
        share(loaded, [{name: (down[:-1], up)}])


def test_a_saved_adapter_comes_back_as_it_was(folder_of, tmp_path):
    _, (adapter, *_) = with_adapters(folder_of("gpt2"))
    save_adapter(tmp_path, adapter)
    again = read_adapter(tmp_path)
    assert again.keys() == adapter.keys()
    for name, pair in adapter.items():
        for one, two in zip(again[name], pair, strict=True):
            assert torch.equal(one, two), name


def test_an_adapter_that_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(BadInput, match=r"adapter\.safetensors: not readable"):
        read_adapter(tmp_path)
    (tmp_path / "adapter.safetensors").write_bytes(b"PK nonsense")
    with pytest.raises(BadInput, match=r"adapter\.safetensors: not readable"):
        read_adapter(tmp_path)
