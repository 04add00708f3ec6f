"""Pairs that reward models are trained on: two candidates of one question, of which one is better.

A method of PAIRS is `(examples, value_NK, *, options) -> Drawn`. The choices of the examples are the candidates, and
value_NK says something of each (nan behind the last one): for `gold` whether it is right (1, 0, or nan where nobody
could tell), for `committee` its probability. `preferences` reads its pairs, `(root, *, options) -> Drawn`.

The two stand in an order that a hash of their texts decides, as in `data.preferences`. Left out and counted are pairs
of equal texts and of an empty one; white space around a text is no part of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from w2s.config.registry import pick
from w2s.data.pairs import Pair, ordered
from w2s.data.preferences import PREFERENCES
from w2s.ensemble.selection import confidence
from w2s.store.records import BadInput, Example, PseudoLabels, hash_texts


class DrawnPairs(NamedTuple):
    """Pairs as Examples of task choice with two choices, their labels over these, and what became of the rest.

    counts: pairs, and left out: equal, empty, repeats (further counts are the methods' own).
    """

    examples: list[Example]
    labels: PseudoLabels
    counts: dict[str, int]


def gold(examples: Sequence[Example], right_NK: np.ndarray, *, per_question: int = 3) -> DrawnPairs:
    """The right candidate over each wrong one of easy_fit, at most so many wrong ones of a question.

    Which ones a hash decides; several right ones take turns. Questions without both kinds give none (counted as
    `one_kind`). per_question >= 1.
    """
    if per_question < 1:
        raise BadInput(f"per_question: {per_question} given; allowed: at least 1")
    rows, one_kind = [], 0
    for example, right_K in zip(examples, right_NK, strict=True):
        texts = sorted(zip(example.choices, right_K, strict=False), key=lambda one: hash_texts(example.id, one[0]))
        right, wrong = ([text for text, verdict in texts if verdict == wanted] for wanted in (1, 0))
        one_kind += not (right and wrong)
        rows += [(example, right[at % len(right)], text) for at, text in enumerate(wrong[:per_question]) if right]
    return drawn("gold", rows, {"one_kind": one_kind})


def committee(examples: Sequence[Example], probs_NK: np.ndarray, *, keep_share: float = 0.5) -> DrawnPairs:
    """The committee's most probable candidate over its least probable one, on its most confident transfer questions.

    keep_share: above 0, up to 1, of the questions. No gold is used.
    """
    ids, mask_NK = np.array([example.id for example in examples]), ~np.isnan(probs_NK)
    none = np.zeros((0, *probs_NK.shape))
    keep_N, _ = confidence(ids, np.nan_to_num(probs_NK), mask_NK, none, ids, keep_share=keep_share)
    rows = []
    for example, probs_K in ((examples[at], probs_NK[at]) for at in np.flatnonzero(keep_N)):
        best, least = int(np.nanargmax(probs_K)), int(np.nanargmin(probs_K))
        if probs_K[best] > probs_K[least]:
            rows.append((example, example.choices[best], example.choices[least]))
    return drawn("committee", rows, {"undecided": int(keep_N.sum()) - len(rows)})


def preferences(root: Path | None, *, source: dict) -> DrawnPairs:
    """Pairs of a preference data set: source {name, options}; see `w2s methods preferences`.

    A tie, where the source is asked for ties, is a label of one half each.
    """
    found = pick(PREFERENCES, source, key="rewards.pairs.source")(root)
    gold = {row.id: int(row.answer) for row in found.gold}
    target_NK = np.eye(2)[[gold[example.id] for example in found.examples]]
    target_NK[[bool(example.meta["tie"]) for example in found.examples]] = 0.5
    counts = {"pairs": len(found.examples), **found.counts}
    return DrawnPairs(found.examples, labels_of(found.examples, target_NK, "preferred"), counts)


def drawn(why: str, rows: Iterable[tuple[Example, str, str]], counts: dict[str, int]) -> DrawnPairs:
    """The pairs of (question, better text, worse text); none that is left is a BadInput."""
    counts = {"pairs": 0, "equal": 0, "empty": 0, "repeats": 0, **counts}
    found: dict[str, tuple[Example, int]] = {}
    for question, better, worse in rows:
        pair = Pair(question.prompt, better.strip(), worse.strip(), 0, {"question": question.id})
        if not (pair.first and pair.second) or pair.first == pair.second:
            counts["equal" if pair.first and pair.second else "empty"] += 1
            continue
        example, preferred = ordered(question.source, pair, pair.meta, 0)
        counts["repeats"] += example.id in found
        found.setdefault(example.id, (example, preferred))
    if not found:
        left = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "there were none"
        raise BadInput(f"rewards.pairs: {why!r} gives no pair of a better and a worse candidate ({left})")
    counts["pairs"] = len(found)
    examples = [example for example, _ in found.values()]
    return DrawnPairs(examples, labels_of(examples, np.eye(2)[[at for _, at in found.values()]], why), counts)


def labels_of(examples: Sequence[Example], target_NK: np.ndarray, why: str) -> PseudoLabels:
    ids = np.array([example.id for example in examples])
    return PseudoLabels(ids, target_NK, np.ones(len(ids)), np.full(len(ids), why))


PAIRS = {"gold": gold, "committee": committee, "preferences": preferences}
