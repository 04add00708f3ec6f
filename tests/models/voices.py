"""Committees of tiny models for the tests: adapters of one base, the same apart, and what they hear."""

from __future__ import annotations

import torch

from tests.models import tiny
from w2s.models import committee
from w2s.models.adapters import adapter_of
from w2s.models.batches import encode_prompts
from w2s.models.generate import pad_left

PROMPTS = ["Which gas do plants take in?", "the moon", "What pulls a falling stone down to the earth and the sun?"]
ALPHA = [0.7, 1.9, 0.4]


def moved(loaded, seed, size=0.1):
    with torch.no_grad():
        for at, parameter in enumerate(loaded.module.parameters()):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(100 * seed + at))
            parameter.add_(size * noise)
    return loaded


def with_adapters(folder, ranks=(2, 4, 4), *, architecture_layers=("0", "1")):
    """A base with one random adapter of each rank, and the adapters."""
    import peft

    loaded = tiny.read(folder)
    torch.manual_seed(3)
    targets = [
        name
        for name, layer in loaded.module.base_model.named_modules()
        if type(layer).__name__ in ("Linear", "Conv1D") and any(f".{one}." in name for one in architecture_layers)
    ]
    for at, rank in enumerate(ranks):
        config = peft.LoraConfig(r=rank, lora_alpha=3 * rank, target_modules=targets, init_lora_weights=False)
        config.fan_in_fan_out = loaded.module.config.model_type == "gpt2"
        peft.inject_adapter_in_model(config, loaded.module, adapter_name=f"a{at}")
    return loaded, [adapter_of(loaded.module, f"a{at}") for at in range(len(ranks))]


def separately(folder, adapter):
    """The learner as a model of its own: W + down up, as a saved learner holds it."""
    loaded = tiny.read(folder)
    for name, (down, up) in adapter.items():
        weight = loaded.module.get_submodule(name).weight
        delta = down @ up
        weight.data += delta if type(loaded.module.get_submodule(name)).__name__ == "Conv1D" else delta.T
    return loaded


def logits_of(voices, prompts=PROMPTS, steps=5):
    """What a committee hears at each step, when it is told to write the same tokens."""
    heard = []

    def choose(logits_LBV, luck_B):
        heard.append(logits_LBV)
        return torch.full((logits_LBV.shape[1],), 40 + len(heard))

    first = voices[0].loaded
    tokens_BT, mask_BT = pad_left(encode_prompts(first, prompts), first.pad_id, torch.device("cpu"))
    with torch.inference_mode():
        committee.write(voices, tokens_BT, mask_BT, torch.zeros(len(prompts), steps), choose)
    return torch.stack(heard)
