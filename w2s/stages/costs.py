"""How many models a boosting round fits, and how many optimizer steps boosting takes."""

import numpy as np

from w2s.config.fields import Boosting, Train
from w2s.workers.job import count_steps

REFIT_BELOW = 1000
"""With `boosting.refit` null, rounds refit where a fold's model would see fewer rows than this.

The bound is a choice between two measurements. Learners that see few rows gain from the rest: `w2s run
configs/real/sciq_probes.yaml` (300 rows a fold, ten seeds, published test) gives student − student of the floor +0.2
points (95% CI -0.1 to 0.5), and with boosting.refit=false -0.6 (-1.1 to -0.1). But a refit loses what the mean of two
models gains over one: `w2s run configs/quickstart.yaml boosting.refit=true` (8,000 rows, one seed) takes the committee
from 59.0% to 51.8%.
"""


def refits(boosting: Boosting, rows: int) -> bool:
    """Whether a round over this many rows refits one model on all of them (see Boosting.refit)."""
    if boosting.errors == "in_sample":
        return False
    seen = rows - -(-rows // boosting.folds)
    return seen < REFIT_BELOW if boosting.refit is None else boosting.refit


def count_boosting_steps(boosting: Boosting, train: Train, rows: int) -> int:
    """Optimizer steps of all models of all rounds over this many rows, if no stopping rule ends them.

    Where `train.epochs` counts, a round's k folds cost k - 1 times as much as one model on all rows, and with `rotate`
    1 - 1/k times; where `train.steps` does, every model costs the same. A refit adds one model on all rows.
    """
    parts = [len(part) for part in np.array_split(np.arange(rows), boosting.folds)]  # as data.difficulty.folds
    steps = 0
    for index in range(boosting.rounds):
        held_out = {"cross_fit": parts, "rotate": [parts[index % boosting.folds]], "in_sample": [0]}[boosting.errors]
        held_out = [*held_out, 0] if refits(boosting, rows) else held_out
        steps += sum(count_steps(train, rows - part) for part in held_out)
    return steps
