"""Training pairs for reward models: two candidates of one question, one of them better.

A method of PAIRS is `(examples, value_NK, *, options) -> DrawnPairs`. The choices of the examples are the candidates,
and value_NK rates each of them (nan for padding): for `gold` whether it is right (1, 0, or nan where that is unknown),
for `committee` its probability. `preferences` reads its pairs, `(root, *, options) -> DrawnPairs`.

The order of the two is decided by a hash of their texts, as in `data.preferences`. Pairs of equal texts and pairs with
an empty text are left out and counted; texts are stripped of surrounding white space.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from w2s.config.registry import pick
from w2s.data.pairs import Pair, order_pair
from w2s.data.preferences import PREFERENCES
from w2s.ensemble.selection import confidence
from w2s.store.records import BadInput, Example, PseudoLabels, hash_texts


class DrawnPairs(NamedTuple):
    """Pairs as Examples of task choice with two choices, their labels, and counts of what was left out.

    counts: pairs, and left out: equal, empty, repeats (further counts are the methods' own).
    """

    examples: list[Example]
    labels: PseudoLabels
    counts: dict[str, int]


def gold(examples: Sequence[Example], right_NK: np.ndarray, *, per_question: int = 3) -> DrawnPairs:
    """A right candidate of easy_fit over each wrong one, at most per_question wrong ones per question.

    A hash decides which ones; several right ones take turns. Questions without both kinds give no pair (counted as
    `one_kind`). per_question >= 1.
    """
    if per_question < 1:
        raise BadInput(f"per_question: {per_question} given; allowed: at least 1")
    rows, one_kind = [], 0
    for example, right_K in zip(examples, right_NK, strict=True):
        texts = sorted(zip(example.choices, right_K, strict=False), key=lambda pair: hash_texts(example.id, pair[0]))
        right, wrong = ([text for text, verdict in texts if verdict == value] for value in (1, 0))
        one_kind += not (right and wrong)
        rows += [(example, right[at % len(right)], text) for at, text in enumerate(wrong[:per_question]) if right]
    return collect_pairs("gold", rows, {"one_kind": one_kind})


def committee(examples: Sequence[Example], probs_NK: np.ndarray, *, keep_share: float = 0.5) -> DrawnPairs:
    """The committee's most probable candidate over its least probable one, on its most confident transfer questions.

    keep_share: share of the questions, above 0, at most 1. No gold is used.
    """
    ids, mask_NK = np.array([example.id for example in examples]), ~np.isnan(probs_NK)
    none = np.zeros((0, *probs_NK.shape))
    keep_N, _ = confidence(ids, np.nan_to_num(probs_NK), mask_NK, none, ids, keep_share=keep_share)
    rows = []
    for example, probs_K in ((examples[at], probs_NK[at]) for at in np.flatnonzero(keep_N)):
        best, least = int(np.nanargmax(probs_K)), int(np.nanargmin(probs_K))
        if probs_K[best] > probs_K[least]:
            rows.append((example, example.choices[best], example.choices[least]))
    return collect_pairs("committee", rows, {"undecided": int(keep_N.sum()) - len(rows)})


def preferences(root: Path | None, *, source: dict) -> DrawnPairs:
    """Pairs of a preference dataset: source {name, options}; see `w2s methods preferences`.

    Ties, where the source keeps them, are labels of one half each.
    """
    examples, rows, counts = pick(PREFERENCES, source, key="rewards.pairs.source")(root)
    gold = {row.id: int(row.answer) for row in rows}
    target_NK = np.eye(2)[[gold[example.id] for example in examples]]
    target_NK[[bool(example.meta["tie"]) for example in examples]] = 0.5
    return DrawnPairs(examples, make_labels(examples, target_NK, "preferred"), {"pairs": len(examples), **counts})


def collect_pairs(why: str, rows: Iterable[tuple[Example, str, str]], counts: dict[str, int]) -> DrawnPairs:
    """Pairs from rows of (question, better text, worse text); a BadInput if none is left."""
    counts = {"pairs": 0, "equal": 0, "empty": 0, "repeats": 0, **counts}
    kept: dict[str, tuple[Example, int]] = {}
    for question, better, worse in rows:
        pair = Pair(question.prompt, better.strip(), worse.strip(), 0, {"question": question.id})
        if not (pair.first and pair.second) or pair.first == pair.second:
            counts["equal" if pair.first and pair.second else "empty"] += 1
            continue
        example, preferred = order_pair(question.source, pair, pair.meta, 0)
        counts["repeats"] += example.id in kept
        kept.setdefault(example.id, (example, preferred))
    if not kept:
        left = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "there were none"
        raise BadInput(f"rewards.pairs: {why!r} gives no pair of a better and a worse candidate ({left})")
    counts["pairs"] = len(kept)
    examples = [example for example, _ in kept.values()]
    return DrawnPairs(examples, make_labels(examples, np.eye(2)[[at for _, at in kept.values()]], why), counts)


def make_labels(examples: Sequence[Example], target_NK: np.ndarray, why: str) -> PseudoLabels:
    ids = np.array([example.id for example in examples])
    return PseudoLabels(ids, target_NK, np.ones(len(ids)), np.full(len(ids), why))


PAIRS = {"gold": gold, "committee": committee, "preferences": preferences}
