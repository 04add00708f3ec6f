"""Which dense models can become experts, as their configurations say, without torch."""

import json
from collections.abc import Mapping
from typing import Any

from w2s.models import folders, gguf
from w2s.models.builtin import find_architecture

SPARSE = {"llama": "mixtral", "mistral": "mixtral", "qwen3": "qwen3_moe"}
"""Architecture -> the sparse one that its models become, with the same outputs."""
LACKING = {"mixtral": ("attention_bias", "mlp_bias"), "qwen3_moe": ("use_sliding_window",)}
"""What the sparse architectures do not have: true in none of the models that become one."""
LARGEST_CONDITION = 5.0
"""Routers with a larger condition number hardly tell experts apart; mergekit warns there, too."""


def find_fault(config: Mapping[str, Any]) -> str | None:
    """Why a model with this configuration cannot become experts; None if it can."""
    kind = config.get("model_type")
    if kind not in SPARSE:
        known = ", ".join(f"{dense} (becomes {sparse})" for dense, sparse in SPARSE.items())
        return f"a {kind} model cannot become experts; allowed: {known}"
    lacking = next((name for name in LACKING[SPARSE[kind]] if config.get(name)), None)
    return f"{lacking} is true, which a {SPARSE[kind]} model cannot have; allowed: false" if lacking else None


def unfit(source: str, root: str | None = None) -> str | None:
    """Why the model named `source` cannot become experts; None if it can, or if only loading can tell."""
    config = read_config(source, root)
    return None if config is None else find_fault(config)


def read_config(source: str, root: str | None = None) -> dict[str, Any] | None:
    """The configuration of the model named `source`, of a GGUF file only model_type; None for a model of the hub."""
    if source.startswith("builtin:"):
        return {"model_type": find_architecture(source.removeprefix("builtin:"))}
    place = folders.locate(source, root)
    if place is None or not place.exists():
        return None
    if place.is_file():
        return {"model_type": gguf.read_header(place).architecture}
    return json.loads((place / "config.json").read_text(encoding="utf-8"))
