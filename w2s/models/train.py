"""The training loop: a weighted loss over whole steps, in one process with plain torch or under DeepSpeed.

A step's rows are one array of indices, the same for every process; each process and each micro-batch takes its part.
The loss of a step is sum(weight * loss) / rows, with rows counted over all micro-batches and processes, so dividing a
step differently changes only rounding. A step's random numbers depend only on (seed, step), so a resumed fit equals an
uninterrupted one, on a CPU bit for bit.
"""

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from w2s.config.fields import Runtime, Train
from w2s.models.engine import Engine, configuration
from w2s.models.world import Cut, World, make_optimizer
from w2s.store.log import progress
from w2s.store.records import BadInput


@dataclass
class State:
    """The progress of a fit. `losses` are of whole steps; `looks` are (step, held-out loss), `agreements` the shares
    of held-out rows whose most probable candidate is the label's (None: no candidates)."""

    step: int = 0
    losses: list[float] = field(default_factory=list)
    looks: list[tuple[int, float]] = field(default_factory=list)
    agreements: list[float | None] = field(default_factory=list)

    def best(self) -> tuple[int, float] | None:
        return min(self.looks, key=lambda look: look[1]) if self.looks else None


Look = Callable[[Callable], tuple[float, float | None]]  # call -> held-out loss, and agreement (as in State)
# What a fit minimises: (call, rows, share of the fit done) -> one loss per row. `call` is the model, or the engine
# around it, and must be given the rows' batch.
Objective = Callable[[Callable, np.ndarray, float], torch.Tensor]


class Plain:
    """One process, torch's AdamW."""

    stage = None

    def __init__(self, module: torch.nn.Module, train: Train, world: World):
        self.module, self.clip = module, train.clip
        self.autocast = torch.autocast(world.device.type, torch.bfloat16, enabled=train.precision == "bfloat16")
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(self.parameters, train)

    def __call__(self, *batch: Any) -> Any:
        with self.autocast:
            return self.module(*batch)

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def after_micro(self, lr: float, last: bool) -> None:
        if last:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    def weights(self) -> dict[str, torch.Tensor]:
        """The trained parameters by name, on the CPU, on rank 0."""
        return {n: p.detach().cpu().clone() for n, p in self.module.named_parameters() if p.requires_grad}

    def save(self, folder: Path) -> None:
        tensors = {f"parameter.{n}": t for n, t in self.weights().items()}
        for at, parameter in enumerate(self.parameters):
            tensors |= {f"{key}.{at}": t.cpu().clone() for key, t in self.optimizer.state[parameter].items()}
        save_file(tensors, folder / "state.safetensors")

    def load(self, folder: Path) -> None:
        tensors = load_file(folder / "state.safetensors")
        set_weights(self.module, {n[10:]: t for n, t in tensors.items() if n.startswith("parameter.")})
        for at, parameter in enumerate(self.parameters):
            keys = [key for key in ("step", "exp_avg", "exp_avg_sq") if f"{key}.{at}" in tensors]
            self.optimizer.state[parameter] = {
                key: tensors[f"{key}.{at}"].to(parameter.device if key != "step" else "cpu") for key in keys
            }

    def close(self) -> None:
        pass


def fit(
    module: torch.nn.Module,
    steps: list[np.ndarray],
    objective: Objective,
    train: Train,
    runtime: Runtime,
    folder: Path,
    world: World | None = None,
    *,
    weight_N: np.ndarray | None = None,
    look: Look | None = None,
    seed: int = 0,
) -> tuple[State, dict[str, torch.Tensor]]:
    """Train `module` on the rows of `steps`; returns the State and, on rank 0, the trained parameters by name.

    With `look` they are the parameters of its best look, else the last. Checkpoints go to `folder`/checkpoint; a fit
    that finds one there resumes from it. BadInput when the loss becomes nan or infinite.
    """
    world = world or World()
    cut = Cut(max(map(len, steps), default=1), world, runtime.micro_batch)
    deepspeed = configuration(runtime, world)
    trainer = Plain(module, train, world) if deepspeed is None else Engine(module, train, deepspeed, cut)
    state = resume(trainer, folder, world) or State()
    module.train()
    with progress(len(steps), "training steps", done=state.step) as advance:
        pending: list[torch.Tensor] = []
        while state.step < len(steps):
            seed_step(seed, state.step, world)
            share = state.step / max(1, len(steps) - 1)
            lr = train.lr * learning_rate(state.step, len(steps), train)
            pending.append(run_step(trainer, steps[state.step], objective, weight_N, cut, share, lr))
            state.step += 1
            advance(note=f"loss {float(pending[-1]):.4f}" if state.step % 20 == 0 and world.rank == 0 else "")
            if look and (state.step % train.eval_every == 0 or state.step == len(steps)):
                look_at(trainer, look, state, folder, world)
                if train.patience and state.step - state.best()[0] >= train.patience * train.eval_every:
                    break
            if state.step % runtime.checkpoint_every == 0 and state.step < len(steps):
                settle(state, pending, world)
                checkpoint(trainer, state, folder, world)
    settle(state, pending, world)
    weights = trainer.weights() if state.best() is None else {}
    if state.best() and world.rank == 0:
        weights = load_file(folder / "best.safetensors")
    trainer.close()
    return state, weights


def run_step(trainer: Any, index_B, objective: Objective, weight_N, cut: Cut, share: float, lr: float) -> torch.Tensor:
    """Do one optimizer step; returns this process' part of the step's loss."""
    total = torch.zeros((), dtype=torch.float64)
    parts = cut.parts(index_B)
    for at, (index_M, counts_M) in enumerate(parts):
        loss_M = objective(trainer, index_M, share)
        factor_M = np.full(len(index_M), 1 / len(index_B), dtype=np.float32)
        if counts_M is not None:
            factor_M = factor_M * counts_M
        if weight_N is not None:
            factor_M = factor_M * weight_N[index_M].astype(np.float32)
        loss = (loss_M * torch.from_numpy(factor_M).to(loss_M.device)).sum()
        trainer.backward(loss)
        trainer.after_micro(lr, at == len(parts) - 1)
        total = total.to(loss.device) + loss.detach().double()
    return total


def learning_rate(step: int, steps: int, train: Train) -> float:
    """The fraction of `train.lr` that step `step` (from 0) of `steps` uses."""
    warmup = int(train.warmup_share * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    left = (steps - step) / max(1, steps - warmup)
    return {"linear": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left), "constant": 1.0}[train.schedule]


def seed_step(seed: int, step: int, world: World) -> None:
    """Make random numbers a function of the step, so that resuming needs no generator state."""
    number = np.random.SeedSequence([seed, step, world.rank]).generate_state(1, np.uint64).item() >> 1
    # Not torch.manual_seed, which records its caller: that takes longer than a step of a tiny model.
    torch.default_generator.manual_seed(number)
    if world.device.type == "cuda":
        torch.cuda.manual_seed(number)


def settle(state: State, pending: list[torch.Tensor], world: World) -> None:
    """Move the pending losses into the state, summed over the processes."""
    if not pending:
        return
    losses = world.sum(torch.stack(pending).clone())
    pending.clear()
    if not torch.isfinite(losses).all():
        bad = len(state.losses) + int((~torch.isfinite(losses)).nonzero()[0])
        raise BadInput(f"train.lr: the loss is not a number from step {bad} on; a smaller learning rate may help")
    state.losses.extend(losses.tolist())


def look_at(trainer: Any, look: Look, state: State, folder: Path, world: World) -> None:
    """Note held-out loss and agreement in `state`, and keep the weights of the best look in `folder`."""
    trainer.module.eval()
    with torch.no_grad():
        loss, agreement = look(trainer)
    trainer.module.train()
    state.looks.append((state.step, loss))
    state.agreements.append(agreement)
    if state.best()[0] == state.step:
        weights = trainer.weights()
        if world.rank == 0:
            save_file(weights, folder / "best.partial")
            (folder / "best.partial").replace(folder / "best.safetensors")


def checkpoint(trainer: Any, state: State, folder: Path, world: World) -> None:
    """Replace `folder`/checkpoint; the old one stays until the new one is complete."""
    partial, whole, old = (folder / name for name in ("checkpoint.partial", "checkpoint", "checkpoint.old"))
    if world.rank == 0:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    world.barrier()
    trainer.save(partial)
    world.barrier()
    if world.rank == 0:
        if state.looks:  # a later look may replace the file before the next checkpoint
            shutil.copy(folder / "best.safetensors", partial / "best.safetensors")
        values = dataclasses.asdict(state) | {"stage": trainer.stage, "processes": world.size}
        (partial / "state.json").write_text(json.dumps(values))
        shutil.rmtree(old, ignore_errors=True)
        if whole.exists():
            whole.rename(old)
        partial.rename(whole)
        shutil.rmtree(old, ignore_errors=True)
    world.barrier()


def resume(trainer: Any, folder: Path, world: World) -> State | None:
    """Load the last complete checkpoint; None if there is none that this launch can read."""
    paths = (folder / "checkpoint", folder / "checkpoint.old")
    whole = next((path for path in paths if (path / "state.json").exists()), None)
    if whole is None:
        return None
    values = json.loads((whole / "state.json").read_text())
    if (values.pop("stage"), values.pop("processes")) != (trainer.stage, world.size):
        return None
    trainer.load(whole)
    if world.rank == 0 and (whole / "best.safetensors").exists():
        shutil.copy(whole / "best.safetensors", folder / "best.safetensors")
    world.barrier()
    values["looks"] = [tuple(look) for look in values["looks"]]
    return State(**values)


def write_history(folder: Path, summary: dict[str, Any], state: State, seconds: float) -> None:
    """Write train.json, a job's summary and the history of its fit, and remove what only resuming needs."""
    history = {**summary, **dataclasses.asdict(state), "seconds": seconds}
    (folder / "train.json").write_text(json.dumps(history))
    for name in ("checkpoint", "checkpoint.partial", "checkpoint.old"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "best.safetensors").unlink(missing_ok=True)


def set_weights(module: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Copy `weights` (by parameter name) into `module`, which must have all the names."""
    parameters = dict(module.named_parameters())
    with torch.no_grad():
        for name, tensor in weights.items():
            parameters[name].copy_(tensor)


def timer() -> Callable[[], float]:
    """A function that returns the seconds since this call."""
    start = time.monotonic()
    return lambda: round(time.monotonic() - start, 3)
