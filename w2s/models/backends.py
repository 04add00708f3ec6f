"""What model.attn and model.quantise need beside transformers, and what it is then told. No torch before it is used."""

import importlib.util
from typing import Any

from w2s.config.fields import Model

HEADS = ("score", "classifier", "pre_classifier", "classification_head", "pooler", "lm_head", "embed_out")
"""Names of heads, which transformers' models put after the body."""


def lacking(model: Model, accelerators: int | None, key: str = "model") -> list[str]:
    """A line for each option of the model that cannot work here. accelerators: their number; None: not known."""
    asked = []
    if model.attn == "flash_attention_2":
        asked.append(("attn", model.attn, "flash_attn"))
    if model.quantise != "none":
        asked.append(("quantise", model.quantise, "bitsandbytes"))
    problems = []
    for option, value, package in asked:
        if importlib.util.find_spec(package) is None:
            problems.append(f"{key}.{option}: {value!r} given; it needs the package {package}, which is not installed")
        elif accelerators == 0:
            problems.append(f"{key}.{option}: {value!r} given; it needs a GPU, and there is none")
    return problems


def options(model: Model, device: str) -> dict[str, Any]:
    """What `from_pretrained` is given for model.quantise: 4bit as in QLoRA (Dettmers et al., arXiv 2305.14314)."""
    if model.quantise == "none":
        return {}
    import torch
    from transformers import BitsAndBytesConfig

    how = {
        "4bit": {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_compute_dtype": torch.bfloat16,
            "bnb_4bit_use_double_quant": True,
        },
        "8bit": {"load_in_8bit": True},
    }[model.quantise]
    config = BitsAndBytesConfig(**how, llm_int8_skip_modules=list(HEADS))
    return {"quantization_config": config, "device_map": {"": str(device)}}
