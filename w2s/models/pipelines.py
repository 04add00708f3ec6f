"""scikit-learn pipelines: the cheapest weak learners.

Every candidate of a question is a row (prompt, candidate, all choices), and the pipeline learns to tell right from
wrong candidates; a candidate's score is its log-odds of being right, and softmax over a question's candidates is the
opinion. The methods read different features, so that combining them in a committee pays: the candidate's words, its
characters, pairs of a prompt word and a candidate word, or only lengths and overlaps.

A method of `PIPELINES` takes the seed and returns an unfitted scikit-learn Pipeline over such rows; its last step takes
sample weights.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import joblib
import numpy as np
from scipy.special import logit

from w2s.config.fields import Model
from w2s.config.registry import pick
from w2s.store.records import BadInput, Example

# Names are checked before anything runs, and scikit-learn takes a second to import: each method imports what it needs.
if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

WORD = re.compile(r"\w+")
FILE = "pipeline.joblib"


class Row(NamedTuple):
    """One candidate of one question."""

    prompt: str
    candidate: str
    choices: tuple[str, ...]


def words(seed: int, *, ngrams: int = 2, strength: float = 1.0) -> Pipeline:
    """Which words right answers are made of: TF-IDF of the candidate's words, logistic regression."""
    return tfidf(seed, strength, {"analyzer": "word", "ngram_range": (1, ngrams)})


def characters(seed: int, *, longest: int = 5, strength: float = 1.0) -> Pipeline:
    """Which letters right answers are made of: TF-IDF of the candidate's character n-grams, logistic regression."""
    return tfidf(seed, strength, {"analyzer": "char_wb", "ngram_range": (2, longest), "max_features": 100_000})


def tfidf(seed: int, strength: float, options: dict[str, Any]) -> Pipeline:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    features = TfidfVectorizer(sublinear_tf=True, preprocessor=candidate_text, **options)
    return make_pipeline(features, LogisticRegression(C=strength, max_iter=500, random_state=seed))


def pairs(seed: int, *, bits: int = 20, decay: float = 1e-5, epochs: int = 10) -> Pipeline:
    """Which words go together: hashed pairs of a prompt word and a candidate word, logistic regression by SGD."""
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline

    features = HashingVectorizer(analyzer=word_pairs, n_features=2**bits, alternate_sign=False)
    model = SGDClassifier(loss="log_loss", alpha=decay, max_iter=epochs, tol=None, average=True, random_state=seed)
    return make_pipeline(features, model)


def surface(seed: int, *, trees: int = 100, leaves: int = 8, rate: float = 0.1) -> Pipeline:
    """No vocabulary: lengths, overlaps with the prompt and with the other choices; gradient-boosted trees."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    model = HistGradientBoostingClassifier(
        max_iter=trees, max_leaf_nodes=leaves, learning_rate=rate, early_stopping=False, random_state=seed
    )
    return make_pipeline(FunctionTransformer(surface_features), model)


PIPELINES = {"words": words, "characters": characters, "pairs": pairs, "surface": surface}


def fit_learner(
    model: Model, examples: Sequence[Example], target_NK: np.ndarray, weight_N: np.ndarray, seed: int
) -> Pipeline:
    """model.pipeline, fitted. Rows of target_NK sum to 1 over the candidates, weight_N >= 0.

    A soft label counts in both classes: a candidate of probability t is right with weight w·t and wrong with weight
    w·(1-t). BadInput if a class has no weight.
    """
    pipeline = pick(PIPELINES, model.pipeline, key="model.pipeline")(seed)
    rows, owner_R, at_R = candidate_rows(examples)
    right_R = np.asarray(target_NK, dtype=float)[owner_R, at_R]
    weight_R = np.asarray(weight_N, dtype=float)[owner_R]
    weights = np.concatenate([weight_R * right_R, weight_R * (1 - right_R)])
    classes = np.repeat([1, 0], len(rows))
    kept = np.flatnonzero(weights > 0)
    if len(set(classes[kept])) < 2:
        raise BadInput("model.pipeline: nothing to learn: every weight is 0, or no candidate is wrong")
    weights = {f"{pipeline.steps[-1][0]}__sample_weight": weights[kept] / weights[kept].mean()}
    return pipeline.fit([rows[at % len(rows)] for at in kept], classes[kept], **weights)


def score(fitted: Pipeline, examples: Sequence[Example]) -> np.ndarray:
    """scores_NK: log-odds that the candidate is right, -inf where an example has no such candidate."""
    rows, owner_R, at_R = candidate_rows(examples)
    scores_NK = np.full((len(examples), int(at_R.max(initial=0)) + 1), -np.inf)
    if not rows:
        return scores_NK
    if hasattr(fitted, "decision_function"):
        scores_NK[owner_R, at_R] = fitted.decision_function(rows)
    else:
        scores_NK[owner_R, at_R] = logit(np.clip(fitted.predict_proba(rows)[:, 1], 1e-9, 1 - 1e-9))
    return scores_NK


def save(fitted: Pipeline, folder: str | Path) -> None:
    """Write the pipeline into `folder`, as a pickle: load it only if a run wrote it and its hash was checked."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    joblib.dump(fitted, Path(folder) / FILE)


def load(folder: str | Path) -> Pipeline:
    """What `save` wrote; the caller has checked the file's hash."""
    if not (Path(folder) / FILE).is_file():
        raise BadInput(f"{folder}: not a saved pipeline: {FILE} is missing")
    return joblib.load(Path(folder) / FILE)


def candidate_rows(examples: Sequence[Example]) -> tuple[list[Row], np.ndarray, np.ndarray]:
    """A Row for every candidate, its example (position in `examples`) and its index among the choices."""
    rows = [Row(example.prompt, choice, example.choices) for example in examples for choice in example.choices]
    owner_R = np.repeat(np.arange(len(examples)), [len(example.choices) for example in examples])
    at_R = np.array([at for example in examples for at in range(len(example.choices))], dtype=int)
    return rows, owner_R, at_R


def candidate_text(row: Row) -> str:
    return row.candidate.lower()


def word_pairs(row: Row) -> list[str]:
    """Every pair of a prompt word and a candidate word, and the candidate's words by themselves."""
    prompt, candidate = find_words(row.prompt), find_words(row.candidate)
    return [f"{p} {c}" for p in prompt for c in candidate] + sorted(candidate)


def find_words(text: str) -> set[str]:
    return set(WORD.findall(text.lower()))


def surface_features(rows: Sequence[Row]) -> np.ndarray:
    """Numbers about each candidate (R, features); many are relative to the other choices of its question."""
    return np.array([describe_surface(row) for row in rows], dtype=float)


def describe_surface(row: Row) -> list[float]:
    prompt, candidate = find_words(row.prompt), find_words(row.candidate)
    others = [find_words(choice) for choice in row.choices if choice != row.candidate]
    lengths = [len(choice) for choice in row.choices]
    typical = [len(candidate & other) / max(1, len(candidate | other)) for other in others]
    in_prompt = [len(other & prompt) / max(1, len(other)) for other in others]
    overlap = len(candidate & prompt) / max(1, len(candidate))
    return [
        len(row.candidate),
        len(row.candidate) / (sum(lengths) / len(lengths)),
        sum(length < len(row.candidate) for length in lengths) / len(lengths),
        len(candidate),
        sum(map(len, candidate)) / max(1, len(candidate)),
        overlap,
        overlap - sum(in_prompt) / max(1, len(in_prompt)),
        sum(typical) / max(1, len(typical)),
        max(typical, default=0.0),
        sum(character.isdigit() for character in row.candidate) / len(row.candidate),
        row.candidate[:1].isupper(),
        len(prompt),
        len(row.choices),
    ]
