"""The processes of a job, and the optimizer that each of them has."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from w2s.config.fields import Train


@dataclass(frozen=True)
class World:
    """This process among those of its job."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The element-wise sum over all processes."""
        if self.size > 1:
            values = values.to(self.device)
            dist.all_reduce(values)
        return values.cpu()

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


def make_optimizer(parameters: list[torch.nn.Parameter], train: Train) -> torch.optim.Optimizer:
    """AdamW, whose learning rate the training loop sets."""
    # Fused: one call for all parameters, which for tiny models is most of the optimizer's time.
    return torch.optim.AdamW(
        parameters, lr=train.lr, betas=(0.9, train.beta2), weight_decay=train.weight_decay, fused=True
    )


def use_bfloat16(train: Train, world: World) -> bool:
    """Whether train.precision means bfloat16 here."""
    if train.precision == "auto":
        return world.device.type == "cuda" and torch.cuda.is_bf16_supported()
    return train.precision == "bfloat16"
