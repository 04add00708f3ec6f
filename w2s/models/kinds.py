"""The kinds of learners: how each is read, batched, scored, trained and saved.

A kind is a record of plain functions, and the table below is the only place that knows all of them. A Network is
trained by `train.fit`, an Estimator is fitted at once. To add a kind: its functions, and a line in the table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from w2s.config.fields import Model
from w2s.config.registry import did_you_mean
from w2s.models import encoders, lm, pipelines
from w2s.models.folders import describe, read_model, write_marks
from w2s.models.records import Estimator, Kind, Network
from w2s.store.records import BadInput

KINDS: dict[str, Kind] = {
    "lm": Network(
        auto="AutoModelForCausalLM",
        builtin="GPT2LMHeadModel",
        encode=lm.encode,
        inputs=lm.inputs,
        scores=lm.scores,
        writes=True,
    ),
    "pair": Network(
        auto="AutoModelForSequenceClassification",
        builtin="GPT2ForSequenceClassification",
        encode=encoders.encode_pair,
        inputs=encoders.pair_inputs,
        scores=encoders.pair_scores,
        head=True,
    ),
    "towers": Network(
        auto="AutoModel",
        builtin="GPT2Model",
        encode=encoders.encode_towers,
        inputs=encoders.tower_inputs,
        scores=encoders.tower_scores,
    ),
    "sklearn": Estimator(
        fit=pipelines.fit_learner,
        scores=pipelines.score,
        save=pipelines.save,
        load=pipelines.load,
    ),
}


def find_kind(name: str) -> Kind:
    """The kind of that name; BadInput where there is none."""
    if name not in KINDS:
        raise BadInput(f"model.kind: {name!r} is not known{did_you_mean(name, KINDS)}; it can be: {', '.join(KINDS)}")
    return KINDS[name]


def save_fitted(fitted: Any, model: Model, folder: str | Path) -> None:
    """Write what an Estimator has fitted into a folder that `load_fitted` reads by itself."""
    KINDS[model.kind].save(fitted, folder)
    write_marks(folder, {"model": describe(model)})


def load_fitted(folder: str | Path) -> tuple[Estimator, Any] | None:
    """What `save_fitted` wrote, and its kind; None where the folder holds a Network (see `load.load_folder`)."""
    kind = find_kind(read_model(folder)[0].kind)
    return (kind, kind.load(folder)) if isinstance(kind, Estimator) else None
