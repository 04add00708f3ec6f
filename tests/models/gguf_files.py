"""Tiny models written as GGUF files, as llama.cpp's converter writes them, and the same weights as safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from tokenizers import processors

from tests.models import tiny
from w2s.models.folders import quiet

BOS, TEMPLATE = "[CLS]", "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
SHAPE = {"vocab_size": 300, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SHAPE |= {"num_key_value_heads": 2, "intermediate_size": 96, "max_position_embeddings": 128, "head_dim": 32}
SHAPE |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
CONFIGS = {
    "llama": lambda **more: transformers.LlamaConfig(**SHAPE, **more),
    "gemma3": lambda **more: transformers.Gemma3TextConfig(**SHAPE, sliding_window=16, **more),
}
KEYS = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
    "rope.dimension_count": "head_dim",
    "attention.sliding_window": "sliding_window",
}
Type = gguf.GGMLQuantizationType


def make(
    architecture: str,
    kind: str,
    folder: Path,
    *,
    tied: bool = True,
    has_tokenizer: bool = True,
    changed: Mapping[str, str] | None = None,
) -> tuple[Path, Path]:
    """(a GGUF file whose matrices are of type `kind` (F32, F16, Q8_0), a folder of safetensors with the same weights).

    changed: texts of the metadata to add, and another name for the `architecture`.
    """
    quiet()
    module = transformers.AutoModelForCausalLM.from_config(CONFIGS[architecture](tie_word_embeddings=tied))
    draw = torch.Generator().manual_seed(7)
    stored = {}
    for name, parameter in module.named_parameters():
        mean = 0.0 if parameter.dim() > 1 or architecture == "gemma3" else 1.0  # Gemma multiplies by 1 + weight
        weights = (mean + 0.1 * torch.randn(parameter.shape, generator=draw)).numpy()
        data, kept = weights, Type.F32
        if weights.ndim > 1:
            data, kept = gguf.quantize(permute(name, weights, module.config), Type[kind]), Type[kind]
            weights = unpermute(name, gguf.dequantize(data, kept), module.config)
        elif architecture == "gemma3":
            data = weights + 1
            weights = data - 1  # as float32 rounds it
        parameter.data = torch.from_numpy(np.ascontiguousarray(weights))
        stored[name] = (data, kept)
    tokenizer = make_tokenizer()
    here = folder / f"{architecture}-{kind}"
    module.save_pretrained(here)
    tokenizer.save_pretrained(here)
    write(
        here.with_suffix(".gguf"),
        architecture,
        module.config,
        stored,
        tokenizer if has_tokenizer else None,
        changed or {},
    )
    return here.with_suffix(".gguf"), here


def make_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Byte-level BPE that begins every text with BOS, with a chat template."""
    tokenizer = tiny.tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, 1)]
    )
    tokenizer.bos_token, tokenizer.chat_template = BOS, TEMPLATE
    return tokenizer


def permute(name: str, weights: np.ndarray, config: Any) -> np.ndarray:
    """Queries and keys in the order of llama.cpp, whose rotary positions pair neighbours (llama only)."""
    return turn(name, weights, config, lambda heads, half: (heads, 2, half))


def unpermute(name: str, weights: np.ndarray, config: Any) -> np.ndarray:
    return turn(name, weights, config, lambda heads, half: (heads, half, 2))


def turn(name: str, weights: np.ndarray, config: Any, shape: Any) -> np.ndarray:
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    count = next((count for part, count in heads.items() if part in name), None)
    if config.model_type != "llama" or count is None:
        return weights
    return weights.reshape(*shape(count, len(weights) // count // 2), -1).swapaxes(1, 2).reshape(weights.shape)


def write(path: Path, architecture: str, config: Any, stored: dict, tokenizer: Any, changed: Mapping[str, str]) -> None:
    """Write the file. changed: see `make`."""
    writer = gguf.GGUFWriter(path, changed.get("architecture", architecture))
    for key, attribute in KEYS.items():
        value = getattr(config, attribute, None)
        if value is not None:
            add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
            add(f"{writer.arch}.{key}", value)
    rope = config.rope_parameters
    writer.add_float32(f"{writer.arch}.rope.freq_base", rope.get("full_attention", rope)["rope_theta"])
    for key in changed.keys() - {"architecture"}:
        writer.add_string(key, changed[key])
    if tokenizer is not None:
        add_tokenizer(writer, tokenizer)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], config.num_hidden_layers)
    for name, (data, kind) in stored.items():
        body, _, ending = name.rpartition(".")
        writer.add_tensor(f"{names.get_name(body)}.{ending}", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Any) -> None:
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in ("[PAD]", BOS, "[SEP]") else 1 for token in tokens])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_chat_template(TEMPLATE)
