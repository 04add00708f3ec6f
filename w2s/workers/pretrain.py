"""Make a tiny base model of the embedded world and train it by next-token loss: the worker of job.Pretrain."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from w2s.config.fields import Model
from w2s.models import batches, builtin, load, train
from w2s.store.records import BadInput
from w2s.workers.job import Pretrain


def run(folder: Path, job: Pretrain, world: train.World) -> dict[str, Any]:
    """Do the job in `folder`; returns the summary for done.json."""
    lines = (folder / job.corpus).read_text(encoding="utf-8").splitlines()
    if not lines:
        raise BadInput(f"{job.corpus}: there is no line in it")
    start, steps = folder / "start", job.train.steps or 0
    if world.rank == 0:
        shutil.rmtree(start, ignore_errors=True)
        builtin.make(job.builtin, lines, start, job.seed, from_scratch=not steps)
    world.barrier()
    state, tokens, seconds = train.State(), 0, train.timer()
    if steps:
        model = Model(path=str(start))
        loaded = load.load(model, path=str(start), seed=job.seed, device=world.device, precision="float32")
        # A line with fewer than two tokens has no next token.
        encoded = loaded.tokenizer(lines, add_special_tokens=False)["input_ids"]
        rows = [torch.tensor(row) for row in encoded if len(row) > 1]
        length_N = np.array([len(row) for row in rows])
        plan = batches.plan_batches(length_N, job.train.batch, steps, job.seed)
        module = NextToken(loaded.module.requires_grad_(True))
        objective = make_objective(rows, world)
        state, weights = train.fit(module, plan, objective, job.train, job.runtime, folder, world, seed=job.seed)
        tokens = int(sum(length_N[step].sum() for step in plan))
    if world.rank == 0:
        shutil.rmtree(folder / "model", ignore_errors=True)
        if steps:
            train.set_weights(module, weights)
            load.save(loaded, folder / "model")
            shutil.rmtree(start)
        else:
            start.rename(folder / "model")
        train.write_history(folder, {"lines": len(lines), "tokens": tokens}, state, seconds())
    return {"lines": len(lines), "steps": steps, "tokens": tokens}


class NextToken(torch.nn.Module):
    """Token ids (B, T), -1 after a line's end -> the mean loss of each line's next tokens (B,)."""

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        self.module = module

    def forward(self, ids_BT: torch.Tensor) -> torch.Tensor:
        # Padding is on the right, where no token of a causal model attends to it: no mask is needed.
        logits_BTV = self.module(input_ids=ids_BT[:, :-1].clamp_min(0), use_cache=False).logits.float()
        loss_BT = cross_entropy(logits_BTV.transpose(1, 2), ids_BT[:, 1:], ignore_index=-1, reduction="none")
        return loss_BT.sum(1) / (ids_BT[:, 1:] >= 0).sum(1).clamp_min(1)


def make_objective(rows: list[torch.Tensor], world: train.World) -> train.Objective:
    def objective(call: Callable, index_B: np.ndarray, share: float) -> torch.Tensor:
        return call(pad_sequence([rows[at] for at in index_B], batch_first=True, padding_value=-1).to(world.device))

    return objective
