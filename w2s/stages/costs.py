"""How many models a boosting round fits, and how many optimizer steps boosting takes."""

import numpy as np

from w2s.config.fields import Boosting, Train
from w2s.workers.job import count_steps

REFIT_BELOW = 1000
"""With `boosting.refit` null, rounds refit where a fold's model would see fewer rows than this.

Measured on probes of SmolLM2's hidden states (SciQ pairs, two folds, 10 seeds): a refit makes a learner fitted gently
(AdamW, three passes, lr 0.001) 0.4 to 0.9 points better where a fold's model sees 150 to 500 rows, and no better from
1,000 rows on. A refit also loses what the mean of two models gains over one: on the embedded world, whose tiny models
differ much from fit to fit, it costs the committee of 8,000 rows 7 points.
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
