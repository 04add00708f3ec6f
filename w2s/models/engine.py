"""DeepSpeed around a model: the only file that knows DeepSpeed's options, private names and checkpoints."""

import contextlib
import hashlib
import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from w2s.config.fields import Runtime, Train
from w2s.models.world import Cut, World, make_optimizer
from w2s.store.records import BadInput

NAMES = ("zero0", "zero1", "zero2", "zero3")
OURS = {"optimizer": "train.lr, train.beta2", "scheduler": "train.schedule", "fp16": "train.precision"}


def configuration(runtime: Runtime, world: World) -> dict[str, Any] | None:
    """The DeepSpeed configuration of `runtime.deepspeed`: a file, zero0 to zero3, or auto.

    auto is ZeRO 1 over several processes and ZeRO 0 in one, which has nothing to share out. If null, several
    processes use auto, and one uses plain torch (None). The file must not set what the training section decides.
    """
    source = runtime.deepspeed
    if source is None and world.size == 1:
        return None
    if source is None or source == "auto":
        source = "zero0" if world.size == 1 else "zero1"
    if source in NAMES:
        return {"zero_optimization": {"stage": NAMES.index(source)}}
    try:
        values = json.loads(Path(source).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"runtime.deepspeed: {source}: cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise BadInput(f"runtime.deepspeed: {source}: a mapping of keys is expected")
    for key, ours in OURS.items():
        if key in values:
            raise BadInput(f"runtime.deepspeed: {source}: {key}: leave it out; {ours} decides")
    return values


class Engine:
    """The methods of `train.Plain`, by a DeepSpeed engine."""

    def __init__(self, module: torch.nn.Module, train: Train, values: dict[str, Any], cut: Cut):
        deepspeed = import_deepspeed()
        self.stage = values.get("zero_optimization", {}).get("stage", 0)
        values = values | {
            "train_micro_batch_size_per_gpu": cut.micro_batch,
            "gradient_accumulation_steps": cut.micros,
            # At stage 0 we clip: DeepSpeed's own clipping takes a millisecond of a small model's step.
            "gradient_clipping": train.clip if self.stage else 0.0,
            # DeepSpeed's own bf16 drifts at stage 0, and rounds the weights that come out of it at the others.
            "bf16": {"enabled": False},
            "torch_autocast": {"enabled": train.precision == "bfloat16", "dtype": "bfloat16"},
            "steps_per_print": 10**12,
            "zero_allow_untested_optimizer": True,
            # torch's fused AdamW also runs on offloaded parameters, and needs no compiler.
            "zero_force_ds_cpu_optimizer": False,
        }
        values.pop("train_batch_size", None)
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        optimizer = make_optimizer(self.parameters, train)
        self.engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=values)
        self.module, self.world, self.deepspeed, self.clip = module, cut.world, deepspeed, train.clip

    def __call__(self, *batch: Any) -> Any:
        return self.engine(*batch)

    def backward(self, loss: torch.Tensor) -> None:
        # DeepSpeed averages over processes and micro-batches; a part's loss is already its share of the step.
        self.engine.backward(loss * self.world.size, scale_wrt_gas=False)

    def after_micro(self, lr: float, last: bool) -> None:
        if self.stage == 0 and last:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        self.engine.step()

    def weights(self) -> dict[str, torch.Tensor]:
        """The trained parameters by name, on the CPU, on rank 0; every process must call it."""
        weights = {}
        for name, parameter in self.module.named_parameters():
            if not parameter.requires_grad:
                continue
            with self.deepspeed.zero.GatheredParameters([parameter], enabled=self.stage == 3):
                if self.world.rank == 0:
                    weights[name] = parameter.detach().cpu().clone()
        return weights

    def save(self, folder: Path) -> None:
        """DeepSpeed's own checkpoint (pickles), with the hash of each file."""
        self.engine.save_checkpoint(str(folder), tag="engine", exclude_frozen_parameters=True)
        self.world.barrier()
        if self.world.rank == 0:
            (folder / "hashes.json").write_text(json.dumps(hashes(folder)))

    def load(self, folder: Path) -> None:
        """Load what `save` wrote and nothing else: a pickle whose hash differs is never opened."""
        written, present = json.loads((folder / "hashes.json").read_text()), hashes(folder)
        if present != written:
            damaged = sorted(name for name in written | present if written.get(name) != present.get(name))
            raise BadInput(f"{folder}: {damaged[0]}: changed since it was written; delete the folder to train again")
        self.engine.load_checkpoint(str(folder), tag="engine", load_module_strict=False)

    def close(self) -> None:
        self.engine.destroy()


def is_sliced(module: torch.nn.Module) -> bool:
    """Whether ZeRO 3 has left this process only slices of the parameters (they then have a `ds_id`)."""
    return any(hasattr(parameter, "ds_id") for parameter in module.parameters())


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(p for p in (folder / "engine").rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def import_deepspeed() -> Any:
    """The deepspeed module, quiet, without its shared-memory operator, its process group set up."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1")):
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    skip_shared_memory_operator(deepspeed)
    if not dist.is_initialized() and os.environ["WORLD_SIZE"] == "1":
        # One process needs no port.
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    return deepspeed


def skip_shared_memory_operator(deepspeed: Any) -> None:
    """On a CPU the first start compiles `deepspeed_shm_comm` (a minute; an error without g++) and leaves 69 MB per
    process in shared memory; a kill during compilation leaves a lock that hangs later runs. gloo does not need it. The
    name is private: if it disappears, DeepSpeed compiles as usual."""
    with contextlib.suppress(AttributeError, TypeError):
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
