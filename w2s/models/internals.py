"""Every private part of torch, transformers and peft that we rely on; a test names each of them.

DeepSpeed's are in `engine`; TRL's, accelerate's and the Trainer's in `trl`. torch and peft: a module's `_modules`, and
the names and attributes of peft's LoRA layers. transformers: the name of the cache, how a cache's layer grows, the name
of gradient checkpointing, and that Conv1D keeps its weights transposed.
bitsandbytes: its layers' names.
"""

import copy
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from transformers.cache_utils import DynamicLayer
from transformers.pytorch_utils import Conv1D

Adapter = Mapping[str, tuple[Tensor, Tensor]]
"""What a learner adds to its base: name of a linear layer -> (down_IR, up_RO), its scale in `up`: x W + x down up."""


def is_turned(layer: nn.Module) -> bool:
    """Whether the layer keeps its weights as (inputs, outputs), as GPT-2 does."""
    return type(layer) is Conv1D


def is_linear(layer: nn.Module) -> bool:
    """Whether the layer is x W + b and nothing else."""
    return type(layer) in (nn.Linear, Conv1D)


def is_quantised(module: nn.Module) -> bool:
    """Whether a model or a linear layer keeps its weights by bitsandbytes."""
    return any(type(layer).__name__ in ("Linear4bit", "Linear8bitLt") for layer in module.modules())


def cache_name(module: nn.Module) -> str:
    """What the model calls its cache: `cache` from transformers 5.24 on, the older name before that and in hub code."""
    return "cache" if "cache" in inspect.signature(module.forward).parameters else "past_key_values"


def make_room(cache: Any) -> None:
    """Let the cache's growing layers grow without copying all their content at every token."""
    layers = getattr(cache, "layers", None) or []
    for at, layer in enumerate(layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            layers[at] = Roomy(layer)


def can_drop_rows(cache: Any) -> bool:
    """Whether the cache has `batch_select_indices`, and each of its layers too: those of state-space models lack it."""
    layers = getattr(cache, "layers", None)
    return bool(layers) and all(hasattr(part, "batch_select_indices") for part in (cache, *layers))


class Roomy(DynamicLayer):
    """A DynamicLayer in mid-text, with room to grow; the original's `update` copies every key and value each time."""

    def __init__(self, layer: DynamicLayer):
        super().__init__()
        self.__dict__.update(vars(layer))
        self.rooms: dict[str, Tensor] = {}

    def update(self, keys_RHTD: Tensor, values_RHTD: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        start = self.keys.shape[-2]
        end = start + keys_RHTD.shape[-2]
        for name, fresh in (("keys", keys_RHTD), ("values", values_RHTD)):
            if name not in self.rooms or end > self.rooms[name].shape[-2]:
                self.rooms[name] = fresh.new_empty(*fresh.shape[:2], end + 32 + end // 4, fresh.shape[-1])
                self.rooms[name][:, :, :start] = getattr(self, name)
            self.rooms[name][:, :, start:end] = fresh
            setattr(self, name, self.rooms[name][:, :, :end])
        return self.keys, self.values

    def batch_select_indices(self, index_R: Tensor) -> None:
        super().batch_select_indices(index_R)
        self.rooms = {}


def checkpoint_activations(module: nn.Module) -> None:
    """Recompute activations in the backward pass; called gradient checkpointing before transformers 5.24."""
    enable = getattr(module, "activation_checkpointing_enable", None) or module.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def copied(module: nn.Module, new: Mapping[str, nn.Module] | None = None, path: str = "") -> nn.Module:
    """A copy of the module tree around the same weights, with the `new` modules in place, by path."""
    if new and path in new:
        return new[path]
    twin = copy.copy(module)
    inner = {name: f"{path}.{name}" if path else name for name in module._modules}
    children = {name: child for name, child in module._modules.items() if child is not None}
    twin._modules = module._modules | {name: copied(child, new, inner[name]) for name, child in children.items()}
    return twin


def named_facts(layer: nn.Module) -> dict[str, Any]:
    """What a layer says of itself in plain words and numbers: some models ask a layer what kind it is."""
    return {name: value for name, value in vars(layer).items() if isinstance(value, str | int) and name[0] != "_"}


def without_lora(module: nn.Module) -> dict[str, nn.Module]:
    """The original layers that peft has wrapped in adapters, by path."""
    return {path: layer.base_layer for path, layer in module.named_modules() if hasattr(layer, "lora_A")}


def lora_layers(module: nn.Module, name: str) -> Iterator[tuple[str, Any]]:
    """(path, layer) of the layers that peft has given the adapter `name`, embeddings included."""
    for path, layer in module.named_modules():
        if name in getattr(layer, "lora_A", ()) or name in getattr(layer, "lora_embedding_A", ()):
            yield path, layer


def is_plain_lora(layer: Any, name: str) -> bool:
    """Whether the adapter `name` is only A and B beside a linear layer, without bias, magnitude or other variants."""
    variant = name in layer.lora_variant or layer.lora_bias.get(name)
    return name in layer.lora_A and is_linear(layer.base_layer) and not variant


def is_trained(parameter: str) -> bool:
    """Whether the parameter of this name is peft's."""
    return ".lora_" in parameter


def merged(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with every adapter added to its layer: W + scale · B A."""
    plain = {key.replace(".base_layer.", "."): value for key, value in state.items() if not is_trained(key)}
    for path, layer in lora_layers(module, "default"):
        down, up = (state.get(f"{path}.lora_{side}.default.weight") for side in "AB")
        if down is not None:
            delta, weight = layer.scaling["default"] * (up @ down), plain[f"{path}.weight"]
            plain[f"{path}.weight"] = weight + (delta.T if layer.fan_in_fan_out else delta).to(weight)
    return plain


# --- mixtures of experts ---------------------------------------------------------------------------------------------


def routers(module: nn.Module) -> list[nn.Module]:
    """The routers of a mixture of experts, layer by layer; [] for other models. A router's first output is its logits
    for all experts."""
    return [block.gate for _, block in expert_blocks(module)]


def expert_blocks(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """(path, block) of the layers whose `gate` (with weight, top_k, num_experts) chooses among `experts`, which are
    kept as one tensor per matrix: gate_up_proj (E, 2 I, D), the gate first, and down_proj (E, D, I)."""
    for path, layer in module.named_modules():
        gate = getattr(layer, "gate", None)
        if hasattr(getattr(layer, "experts", None), "gate_up_proj") and hasattr(gate, "top_k"):
            yield path, layer
