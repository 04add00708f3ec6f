"""The kinds of learners: how each is read, batched, scored, trained and saved.

A kind is a record of plain functions, and the table below is the only place that knows all kinds. A Network is
trained by `train.fit`, an Estimator is fitted at once. To add a kind, write its functions and an entry in the table.
The pipeline process reads the table too, so files that need torch are imported only when a function is called.
"""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from w2s.config.fields import Model
from w2s.config.registry import did_you_mean
from w2s.models.folders import describe, read_model, write_marks
from w2s.models.records import Estimator, Kind, Network
from w2s.store.records import BadInput


def later(file: str, name: str) -> Callable:
    """The function `name` of a file in this room; the file is imported when the function is first called."""

    def call(*arguments: Any) -> Any:
        return getattr(importlib.import_module(f"w2s.models.{file}"), name)(*arguments)

    return call


KINDS: dict[str, Kind] = {
    "lm": Network(
        auto="AutoModelForCausalLM",
        builtin="GPT2LMHeadModel",
        encode=later("lm", "encode"),
        inputs=later("lm", "inputs"),
        scores=later("lm", "scores"),
        writes=True,
        about="The candidate's log-likelihood after the prompt, by a causal language model.",
    ),
    "pair": Network(
        auto="AutoModelForSequenceClassification",
        builtin="GPT2ForSequenceClassification",
        encode=later("encoders", "encode_pair"),
        inputs=later("encoders", "pair_inputs"),
        scores=later("encoders", "pair_scores"),
        head=True,
        about="A classification head that reads prompt and candidate together.",
    ),
    "towers": Network(
        auto="AutoModel",
        builtin="GPT2Model",
        encode=later("encoders", "encode_towers"),
        inputs=later("encoders", "tower_inputs"),
        scores=later("encoders", "tower_scores"),
        about="The cosine of the encoded prompt and the encoded candidate.",
    ),
    "probe": Estimator(
        fit=later("probes", "fit"),
        scores=later("probes", "scores"),
        save=later("probes", "save"),
        load=later("probes", "load"),
        reads_states=True,
        about="A linear head on a frozen model's hidden state at layer model.layers, solved to its optimum.",
    ),
    "sklearn": Estimator(
        fit=later("pipelines", "fit_learner"),
        scores=later("pipelines", "score"),
        save=later("pipelines", "save"),
        load=later("pipelines", "load"),
        about="A scikit-learn pipeline that tells right candidates from wrong ones; see model.pipeline.",
    ),
}


def find_kind(name: str) -> Kind:
    """The kind called `name`; BadInput if there is none."""
    if name not in KINDS:
        known = f"it can be: {', '.join(KINDS)}, or a kind that a loaded plug-in adds"
        raise BadInput(f"model.kind: {name!r} is not known{did_you_mean(name, KINDS)}; {known}")
    return KINDS[name]


def save_fitted(fitted: Any, model: Model, folder: str | Path, marks: Mapping[str, Any] | None = None) -> None:
    """Write what an Estimator has fitted, and `marks` about it, into a folder that `load_fitted` reads."""
    KINDS[model.kind].save(fitted, folder)
    write_marks(folder, {"model": describe(model), **(marks or {})})


def load_fitted(folder: str | Path) -> tuple[Estimator, Any] | None:
    """The kind and what `save_fitted` wrote; None if the folder holds a Network (see `load.load_folder`)."""
    kind = find_kind(read_model(folder)[0].kind)
    return (kind, kind.load(folder)) if isinstance(kind, Estimator) else None
