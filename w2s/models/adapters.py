"""Learners that are LoRA adapters of one base become one Voice: they share its weights and its forward pass.

The batch is repeated for each learner, the base's layers run once on all rows, and each learner's rows get its own
low-rank update. A committee thus takes the memory of one base plus adapters, and a step with a small batch, which is
bound by reading weights, takes little longer than one learner's.

Letters: L learners, B rows, T tokens, I inputs and O outputs of a layer, R rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from w2s.models.generate import Reader, Voice
from w2s.models.internals import Adapter, copied, is_plain_lora, lora_layers, without_lora
from w2s.models.records import Loaded
from w2s.models.shortcuts import same
from w2s.store.records import BadInput


class Grouped(nn.Module):
    """A linear layer, run once, with a low-rank update (or none) for each of L equal groups of rows."""

    def __init__(self, layer: nn.Module, down_LIR: Tensor | None = None, up_LRO: Tensor | None = None):
        super().__init__()
        self.layer, self.weight = layer, layer.weight  # some models ask a layer for its weight
        self.register_buffer("down_LIR", down_LIR)
        self.register_buffer("up_LRO", up_LRO)

    def only(self, at: int) -> Grouped:
        """The layer for group `at` alone, sharing memory with this one."""
        return Grouped(self.layer, self.down_LIR[at : at + 1], self.up_LRO[at : at + 1])

    def forward(self, x: Tensor) -> Tensor:
        if self.down_LIR is None:
            return times(self.layer, x)
        count = len(self.down_LIR)
        plain_LNO = times(self.layer, x).reshape(count, -1, self.up_LRO.shape[-1])
        low_LNR = torch.bmm(x.reshape(count, -1, x.shape[-1]), self.down_LIR)
        return plain_LNO.baddbmm_(low_LNR, self.up_LRO).view(*x.shape[:-1], -1)


def times(layer: nn.Module, x: Tensor) -> Tensor:
    """layer(x). With 8 or 16 rows on a CPU, the weight as left factor takes 0.65 of the time (MKL, float32)."""
    rows = x.numel() // x.shape[-1]
    if type(layer) is not nn.Linear or x.device.type != "cpu" or x.dtype != torch.float32 or not 4 <= rows <= 64:
        return layer(x)
    out_NO = torch.mm(layer.weight, x.reshape(rows, -1).T.contiguous()).T.contiguous()
    if layer.bias is not None:
        out_NO += layer.bias
    return out_NO.view(*x.shape[:-1], -1)


def share(base: Loaded, adapters: Iterable[Adapter]) -> list[Voice]:
    """The learners that are `adapters` of `base`, in order, sharing its weights; `base` is not changed.

    One voice for all of them, or one each where the architecture lets rows influence each other (some mixtures of
    experts do), which a trial on made-up tokens shows. An adapter already in `base` belongs to no learner unless it is
    passed too. Adapters may differ in rank and in layers, and are cast to the base's precision. BadInput if one names
    a missing layer or has the wrong shape.
    """
    layers, others = group_layers(base, [dict(adapter) for adapter in adapters])
    count = len(next(iter(layers.values())).down_LIR)

    def voice(own: dict[str, nn.Module], count: int) -> Voice:
        return Voice(replace(base, module=copied(base.module, without_lora(base.module) | own).eval()), count)

    together = voice(layers | others, count)
    alone = [voice({path: layer.only(at) for path, layer in layers.items()}, 1) for at in range(count)]
    with torch.inference_mode(), torch.random.fork_rng():
        torch.manual_seed(0)
        size = base.module.get_input_embeddings().weight.shape[0]
        tokens_BT = torch.randint(size, (2, 3), device=base.module.device)
        mask_BT = torch.ones_like(tokens_BT)
        apart = torch.cat([Reader(voice).read(tokens_BT, mask_BT) for voice in alone])
        keeps_apart = same(base, Reader(together).read(tokens_BT, mask_BT), apart)
    return [together] if keeps_apart else alone


def adapter_of(module: nn.Module, name: str = "default") -> Adapter:
    """The LoRA adapter `name` that peft has put into a module; BadInput if it is missing or has more than A and B."""
    adapter = {}
    for path, layer in lora_layers(module, name):
        if not is_plain_lora(layer, name):
            kind = type(layer.base_layer).__name__
            raise BadInput(f"adapter {name!r}: {path} ({kind}) is not plain LoRA; allowed: linear layers")
        if layer.merged:
            raise BadInput(f"adapter {name!r}: in {path} it is merged into the base")
        down_RI, up_OR = layer.lora_A[name].weight.detach(), layer.lora_B[name].weight.detach()
        adapter[path] = (down_RI.T, up_OR.T * layer.scaling[name])
    if not adapter:
        raise BadInput(f"adapter {name!r}: the model has no LoRA layer of that name")
    return adapter


def group_layers(base: Loaded, adapters: Sequence[dict[str, tuple[Tensor, Tensor]]]) -> tuple[dict[str, Grouped], dict]:
    """Every layer that an adapter names, with the updates of all adapters, and the other linear layers.

    The dicts are emptied, so that no adapter is held twice.
    """
    plain = dict(copied(base.module, without_lora(base.module)).named_modules())
    layers = {}
    for path in list(dict.fromkeys(path for adapter in adapters for path in adapter)):
        if path not in plain:
            raise BadInput(f"adapter: the base has no layer {path!r}")
        weight = plain[path].weight
        parts = [adapter.pop(path, None) for adapter in adapters]
        inputs, outputs = next((part[0].shape[0], part[1].shape[1]) for part in parts if part)
        if sorted((inputs, outputs)) != sorted(weight.shape):
            raise BadInput(f"adapter: {path} is {inputs} to {outputs}; the base's weight is {tuple(weight.shape)}")
        count, rank = len(parts), max(part[0].shape[1] for part in parts if part)
        down_LIR, up_LRO = weight.new_zeros(count, inputs, rank), weight.new_zeros(count, rank, outputs)
        for down_IR, up_RO, part in zip(down_LIR, up_LRO, parts, strict=True):
            if part:
                down_IR[:, : part[0].shape[1]] = part[0]
                up_RO[: part[1].shape[0]] = part[1]
        layers[path] = Grouped(plain[path], down_LIR, up_LRO)
    if not layers:
        raise BadInput("adapters: none given, or all are empty")
    others = {path: layer for path, layer in plain.items() if type(layer) is nn.Linear and path not in layers}
    return layers, {path: Grouped(layer) for path, layer in others.items()}
