"""Coefficients of a merge, searched on held-out questions with gold: the worker of job.Search.

The base and the learners' steps stay in memory; each candidate is put into one module and judged there.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from w2s.merging.methods import as_shares
from w2s.merging.search import BLOCKS, block_of, search
from w2s.models import batches, load, score
from w2s.models.records import Loaded
from w2s.models.tensors import Weights
from w2s.models.world import World
from w2s.store.files import write_json
from w2s.store.records import Example, PseudoLabels, align, read_arrays
from w2s.workers.examples import read_sets
from w2s.workers.job import Search

LOG, RESULT = "search.jsonl", "searched.json"


def run(folder: Path, job: Search, world: World) -> dict[str, Any]:
    """Do the job in `folder`; returns the summary for done.json."""
    if world.rank:
        world.barrier()
        return {}
    (examples,) = read_sets(folder, {"held out": job.examples}).values()
    labels = align(read_arrays(folder / job.labels, PseudoLabels), np.array([row.id for row in examples]))
    judge = Judge(folder, job, examples, labels.target_NK.argmax(1), world)
    shares_R = as_shares(job.weights, len(job.models)) * job.scale
    start_D = np.tile(shares_R, len(judge.groups))
    found_D = search(start_D, judge.mean_on(0), folder / LOG, evaluations=job.evaluations, seed=job.seed)
    sides = {"start": start_D, "searched": found_D}
    values = {name: judge.each_on(1, x_D) for name, x_D in sides.items()}
    gain_N = values["searched"] - values["start"]
    error = float(gain_N.std(ddof=1) / np.sqrt(len(gain_N))) if len(gain_N) > 1 else float("nan")
    summary = {
        "coefficients": {
            group: found_D[at * len(shares_R) :][: len(shares_R)].tolist() for at, group in enumerate(judge.groups)
        },
        "questions": {"searched": len(judge.halves[0]), "certified": len(judge.halves[1])},
        "on_searched": {name: float(judge.each_on(0, x_D).mean()) for name, x_D in sides.items()},
        "on_certified": {name: float(value.mean()) for name, value in values.items()},
        "gain": {"mean": float(gain_N.mean()), "standard_error": error, "questions": len(gain_N)},
    }
    write_json(folder / RESULT, summary)
    world.barrier()
    return {"models": len(job.models), **summary}


class Judge:
    """Merges in memory, and the log-probability that they give to the right candidates."""

    def __init__(self, folder: Path, job: Search, examples: Sequence[Example], right_N: np.ndarray, world: World):
        self.loaded: Loaded = load.load_folder(folder / job.models[0], device=world.device, precision="float32")
        self.groups = BLOCKS if job.groups == "blocks" else ("all",)
        self.base, self.steps = read_steps([folder / path for path in job.models], folder / job.base)
        self.encoded, self.right_N = batches.encode(self.loaded, examples), right_N
        self.is_choice = np.array([row.task == "choice" for row in examples])
        # A question's half depends on its id alone, not on the others.
        half_N = np.array([zlib.crc32(row.id.encode()) % 2 for row in examples])
        self.halves = [np.flatnonzero(half_N == half) for half in (0, 1)]
        self.loaded.module.eval()

    def mean_on(self, half: int):
        return lambda x_D: float(self.each_on(half, x_D).mean())

    def each_on(self, half: int, x_D: np.ndarray) -> np.ndarray:
        """logp_N of the right candidate (of a written answer: the mean over its tokens) for the questions of a half."""
        self.put(x_D)
        index_N, found_N = self.halves[half], np.empty(len(self.halves[half]))
        tokens = [self.encoded[at].tokens for at in index_N]
        for chunk in batches.plan_chunks(tokens, batches.most_tokens(self.loaded)):
            rows = index_N[chunk]
            with torch.inference_mode():
                scores_BK = score.scores(self.loaded, batches.collate(self.loaded, [self.encoded[at] for at in rows]))
                logp_BK = scores_BK.double().log_softmax(-1).numpy()
            right_B = self.right_N[rows]
            each = np.arange(len(rows))
            written_B = scores_BK.double().numpy()[each, right_B] / [self.count_tokens(at) for at in rows]
            found_N[chunk] = np.where(self.is_choice[rows], logp_BK[each, right_B], written_B)
        return found_N

    def count_tokens(self, at: int) -> int:
        return max(1, sum(len(row.owner_P) for row in self.encoded[at].rows))

    def put(self, x_D: np.ndarray) -> None:
        """Give the module the weights base + sum of coefficients times steps."""
        count = len(self.steps)
        with torch.no_grad():
            for name, value in self.loaded.module.state_dict().items():
                if name in self.base:
                    at = self.groups.index(block_of(name)) if len(self.groups) > 1 else 0
                    made = self.base[name].clone()
                    for coefficient, step in zip(x_D[at * count :], self.steps, strict=False):
                        made += float(coefficient) * step[name]
                    value.copy_(made)


def read_steps(models: Sequence[Path], base: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, torch.Tensor]]]:
    """The base's weights in float32, and what each model adds to them."""
    with Weights(base) as opened:
        start = {name: opened.read(name).float() for name in opened.specs}
    steps = []
    for path in models:
        with Weights(path) as opened:
            start = {name: start[name] for name in opened.specs}
            steps.append({name: opened.read(name).float() - start[name] for name in opened.specs})
    return start, steps
