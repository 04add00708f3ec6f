"""How hard a question is: a score per question, higher = harder, nan where unknown."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from w2s.store.records import BadInput, Example, Gold, Predictions

Label = Literal["grade", "bloom", "depth", "difficulty"]
HUMAN = {
    # High-school questions carry the name of the course instead of a grade: above grade 8.
    "grade": {f"Grade {grade:02}": float(grade) for grade in range(1, 9)}
    | {"Biology": 9.0, "Earth and Space Sciences": 9.0, "Chemistry": 9.0, "Physics": 9.0},
    "bloom": {"Remembering": 1.0, "Understanding": 2.0, "Applying": 3.0, "Analyzing": 4.0, "Evaluating": 5.0}
    | {"Creating": 6.0},
    "depth": {"I": 1.0, "II": 2.0, "III": 3.0, "IV": 4.0},
    "difficulty": {"Low": 1.0, "Medium": 2.0, "High": 3.0},
}


def level(examples: Sequence[Example], gold: Sequence[Gold], predictions: Predictions | None) -> np.ndarray:
    """The published level of the dataset, or the source's option `level`."""
    return np.array([example.meta.get("level") for example in examples], dtype=float)  # None becomes nan


def length(examples: Sequence[Example], gold: Sequence[Gold], predictions: Predictions | None) -> np.ndarray:
    """The number of words in the prompt."""
    return np.array([len(example.prompt.split()) for example in examples], dtype=float)


def human(
    examples: Sequence[Example], gold: Sequence[Gold], predictions: Predictions | None, *, label: Label = "grade"
) -> np.ndarray:
    """How people rated the question: school grade, Bloom's level, depth of knowledge, or Low/Medium/High (ARC).

    Numbers stay as they are (ASDiv's grade); a label that is not on the scale is a BadInput. Hase et al. 2024
    (arXiv 2401.06751) use the same labels.
    """
    return np.array([human_score(example, label) for example in examples], dtype=float)


def human_score(example: Example, label: str) -> float:
    value = example.meta.get(label)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return np.nan if value is None else float(value)
    if value not in HUMAN[label]:
        place = f"{example.source} {example.meta.get('row', example.id)}: {label}"
        raise BadInput(f"{place}: {value!r} is not on the scale {', '.join(HUMAN[label])}")
    return HUMAN[label][value]


def loss(examples: Sequence[Example], gold: Sequence[Gold], predictions: Predictions | None) -> np.ndarray:
    """-ln p(gold) in nats, from predictions of learners that did not train on the question (see `folds`).

    Choice questions only. nan where there is no prediction or the learner abstained; p below 1e-12 counts as 1e-12.
    """
    if predictions is None:
        raise BadInput("difficulty: 'loss' needs cross-fitted predictions")
    answer_of = {row.id: row.answer for row in gold}
    row_of = {key: row for row, key in enumerate(predictions.ids.tolist()) if not predictions.abstained_N[row]}
    score_N = np.full(len(examples), np.nan)
    for at, example in enumerate(examples):
        if example.task != "choice":
            raise BadInput(f"difficulty: 'loss' scores choice questions; {example.source} has task {example.task}")
        if (row := row_of.get(example.id)) is not None:
            score_N[at] = -np.log(max(predictions.probs_NK[row, answer_of[example.id]], 1e-12))
    return score_N


def shuffle(ids: Iterable[str], seed: int) -> list[str]:
    """The distinct ids in a seeded random order that depends only on the ids, never on the order of the rows."""
    return sorted(set(ids), key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).hexdigest())


def folds(ids: Iterable[str], count: int, seed: int) -> np.ndarray:
    """fold_N, 0 to count - 1, of equal sizes (+-1): a row's predictions come from a model fitted on the other folds.

    Seeded; independent of the order of the rows. Fewer ids than folds is a BadInput.
    """
    ids = list(ids)
    if count < 2 or len(ids) < count:
        raise BadInput(f"folds: {count} given, of {len(ids)} questions; allowed: 2 to the number of questions")
    fold_of = {key: place % count for place, key in enumerate(shuffle(ids, seed))}
    return np.array([fold_of[key] for key in ids], dtype=int)


DIFFICULTY = {"level": level, "length": length, "human": human, "loss": loss}
