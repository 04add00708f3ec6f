"""The processes of a job, their parts of a step, and each one's optimizer."""

import math
import os
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist

from w2s.config.fields import Train


@dataclass(frozen=True)
class World:
    """This process among those of its job: its rank, their number, and its device."""

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


@dataclass(frozen=True)
class Cut:
    """How a step of `rows` rows is divided over processes and micro-batches of at most `most` rows (None: all)."""

    rows: int
    world: World
    most: int | None = None

    @property
    def per_process(self) -> int:
        return math.ceil(self.rows / self.world.size)

    @property
    def micro_batch(self) -> int:
        return min(self.most or self.per_process, self.per_process)

    @property
    def micros(self) -> int:
        return math.ceil(self.per_process / self.micro_batch)

    def parts(self, index_B: np.ndarray) -> list[tuple[np.ndarray, np.ndarray | None]]:
        """This process' micro-batches (rows, whether each counts). If a step does not divide evenly, repeated rows that
        do not count pad it, so that every process makes the same calls."""
        if self.world.size == self.micros == 1:
            return [(index_B, None)]
        size = self.world.size * self.micros * self.micro_batch
        index = np.concatenate([index_B, np.repeat(index_B[:1], size - len(index_B))])
        counts = (np.arange(size) < len(index_B)).astype(np.float32)
        mine = slice(self.world.rank, None, self.world.size)
        return list(zip(np.split(index[mine], self.micros), np.split(counts[mine], self.micros), strict=True))


def make_optimizer(parameters: list[torch.nn.Parameter], train: Train) -> torch.optim.Optimizer:
    """AdamW; the training loop sets its learning rate."""
    betas, decay = (0.9, train.beta2), train.weight_decay
    # Fused: one call for all parameters; for tiny models separate calls are most of the optimizer's time.
    return torch.optim.AdamW(parameters, lr=train.lr, betas=betas, weight_decay=decay, fused=True)


def has_bfloat16() -> bool:
    """Whether this machine's hardware computes in bfloat16: an accelerator, or a CPU with AMX or AVX512-BF16.

    torch that cannot say what a CPU can do (it is asked by a function of torch 2.11) counts as without.
    """
    if torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16"))
