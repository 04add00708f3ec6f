"""Weights of a merge found by CMA-ES (Hansen, arXiv 1604.00772), as Akiba et al. (arXiv 2403.13187) search merges.

Every candidate is judged on the same questions, and the result is the mean of the last distribution, not the best
candidate seen: the best of many noisy values is mostly luck. Each generation is written down, so that a search that was
killed goes on from the same place: what was written is told again, and the random numbers of a generation depend on the
seed and its number alone.
"""

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from w2s.store.records import BadInput

SIGMA = 1 / 6
"""The first standard deviation of each coefficient, as in mergekit."""
LARGEST = 2.0
"""No coefficient is larger: a learner's whole step, and as much again."""
Evaluate = Callable[[np.ndarray], float]
"""Coefficients x_D -> how good the merge is; larger is better."""


def search(start_D: np.ndarray, evaluate: Evaluate, log: Path, *, evaluations: int, seed: int) -> np.ndarray:
    """The mean coefficients (D, each from 0 to LARGEST) after about so many evaluations, from `start_D`.

    `log` gets a line for each generation; what it holds is not evaluated again. BadInput if it is another search's.
    """
    from cmaes import CMA  # takes seconds to import

    bounds = np.tile([0.0, LARGEST], (len(start_D), 1))
    optimiser = CMA(mean=np.clip(start_D, 0, LARGEST).astype(float), sigma=SIGMA, bounds=bounds, lr_adapt=True)
    told = read_log(log)
    for generation in range(math.ceil(evaluations / optimiser.population_size)):
        optimiser.reseed_rng(number(seed, generation))
        asked = [optimiser.ask() for _ in range(optimiser.population_size)]
        if generation < len(told):
            if not np.allclose(asked, told[generation]["x"], rtol=0, atol=1e-12):
                raise BadInput(f"{log}: line {generation + 1} is of another search; delete the file to search again")
            values = told[generation]["values"]
        else:
            values = [float(evaluate(x_D)) for x_D in asked]
            with open(log, "a", encoding="utf-8") as file:
                file.write(json.dumps({"x": np.array(asked).tolist(), "values": values}) + "\n")
        optimiser.tell([(x_D, -value) for x_D, value in zip(asked, values, strict=True)])
    return np.clip(optimiser.mean, 0, LARGEST)


def number(seed: int, generation: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {generation}".encode()).digest()[:4])


def read_log(log: Path) -> list[dict]:
    """The whole lines of a search's log; a last line that a kill cut short is dropped from the file."""
    if not log.exists():
        return []
    lines = log.read_text(encoding="utf-8").split("\n")
    if lines[-1]:
        log.write_text("".join(f"{line}\n" for line in lines[:-1]), encoding="utf-8")
    try:
        return [json.loads(line) for line in lines[:-1]]
    except ValueError:
        raise BadInput(f"{log}: not readable; delete the file to search again") from None


def block_of(name: str) -> str:
    """attention, mlp or rest: the group of a tensor, by the names that transformers' models share."""
    parts = name.split(".")
    if any(part in ("self_attn", "attn", "attention", "self_attention") for part in parts):
        return "attention"
    return "mlp" if any(part in ("mlp", "feed_forward", "ffn") for part in parts) else "rest"


BLOCKS = ("attention", "mlp", "rest")
