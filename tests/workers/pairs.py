"""Made-up pairs of answers, one of which is preferred."""

from __future__ import annotations

import numpy as np

from w2s.store.records import Example, PseudoLabels, example_id

THINGS = ["earth", "moon", "stone", "gas", "plant", "sun", "air", "heat"]
PAIRS = 24


def make_pairs(count: int = PAIRS, seed: int = 0) -> list[Example]:
    """'How many moon ?' with two answers; the one that names the thing is preferred."""
    rng = np.random.default_rng(seed)
    made = []
    for at in range(count):
        right, wrong = rng.permutation(THINGS)[:2]
        texts = [f"one {right}", f"one {wrong}, " + "and more " * int(rng.integers(3))]
        choices = tuple(texts if at % 2 == 0 else texts[::-1])
        prompt = f"How many {right} ? ({at})"
        made.append(Example(example_id("pairs", prompt, choices), "pairs", "choice", prompt, choices))
    return made


def make_labels(examples: list[Example]) -> PseudoLabels:
    target_NK = np.eye(2)[np.arange(len(examples)) % 2]
    ids = np.array([example.id for example in examples])
    return PseudoLabels(ids, target_NK, np.ones(len(ids)), np.full(len(ids), "kept"))
