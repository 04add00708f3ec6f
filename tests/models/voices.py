"""Committees of tiny models for the tests: adapters of one base, the same apart, and what they hear."""

from __future__ import annotations

import numpy as np
import torch

from tests.models import tiny
from w2s.models import generate
from w2s.models.adapters import adapter_of
from w2s.models.committee import Written, decode
from w2s.models.tokenizing import encode_prompts

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
        return torch.full((logits_LBV.shape[1],), 40 + len(heard)), logits_LBV[0]

    with torch.inference_mode():
        generate.write(voices, encode_prompts(voices[0].loaded, prompts), np.zeros((len(prompts), steps)), choose)
    return torch.stack(heard)


def written(learners, prompts, alphas, **options) -> list[list[Written]]:
    """The texts of `decode`, in the order of the prompts and of the samples."""
    found = sorted((one for part in decode(learners, prompts, alphas, **options) for one in part), key=place)
    return [[one for one in found if one.prompt == at] for at in range(len(prompts))]


def place(one: Written) -> tuple[int, int]:
    return one.prompt, one.number


def texts(learners, prompts, alphas, **options) -> list[list[str]]:
    return [[one.text for one in row] for row in written(learners, prompts, alphas, **options)]


def transformers_texts(loaded, prompts, *, max_new_tokens=20) -> list[list[int]]:
    """The tokens that transformers' own generate puts behind each prompt, one at a time, without the end mark."""
    found, ends = [], generate.end_marks(loaded)
    for row in encode_prompts(loaded, prompts):
        made = loaded.module.generate(
            input_ids=torch.tensor([row]),
            attention_mask=torch.ones(1, len(row), dtype=torch.long),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=loaded.pad_id,
            eos_token_id=ends or None,
        )
        tokens = made[0, len(row) :].tolist()
        found.append(tokens[:-1] if tokens[-1] in ends else tokens)
    return found
