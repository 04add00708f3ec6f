"""Jobs that make one model of several; `workers.job` lists them with the others."""

from dataclasses import dataclass, field
from typing import Literal

from w2s.config.fields import Runtime


@dataclass(frozen=True)
class Average:
    """The mean of several models' weights (WARM) -> model/."""

    models: list[str]
    """Folders of plain models trained from the same start."""


@dataclass(frozen=True)
class Merge:
    """One model whose weights are merged from several models of one base -> model/."""

    models: list[str]
    """Folders of safetensors, or of LoRA adapters."""
    weights: list[float]
    """One per model, at least 0; they are made to sum to 1."""
    method: dict
    """{name, options}; see `w2s methods merges`. For folders of LoRA adapters: cat, or svd with its option rank."""
    base: str | None = None
    """The folder that all started from. Null: unknown; only the method mean needs none."""
    scale: float = 1.0
    """How far along the merged step from the base to go."""
    seed: int = 0
    """For methods that draw at random."""
    examples: str | None = None
    """For the methods fisher and regmean: a file of Examples, whose answers play no part."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Of the merged weights. Null: the base's."""


@dataclass(frozen=True)
class Search:
    """Coefficients of a merge by the mean, searched on half of some questions with gold, and judged on the other half.

    -> searched.json, and a line in search.jsonl for every generation.
    """

    models: list[str]
    weights: list[float]
    """Where the search begins, one per model."""
    base: str
    examples: str
    """A file of Examples."""
    labels: str
    """A file of PseudoLabels over their candidates: the gold."""
    evaluations: int = 60
    groups: Literal["one", "blocks"] = "one"
    """blocks: coefficients of their own for attention, MLP and the rest."""
    scale: float = 1.0
    seed: int = 0
    runtime: Runtime = field(default_factory=Runtime)


@dataclass(frozen=True)
class Experts:
    """Dense models of one base as the experts of one sparse model -> model/, experts.json."""

    models: list[str]
    """Folders or names of the hub, one for each expert; the same one several times for copies."""
    weights: list[float]
    """Of the models in the mean that attention, norms and embeddings are, 0 or more; scaled to sum 1."""
    base: str | None = None
    """A folder whose attention, norms and embeddings are taken instead of the mean."""
    layers: int | None = None
    """Only the first layers of models that w2s did not save. Null: all."""
    active: int = 2
    """How many experts a token passes through."""
    balance: float = 0.01
    """Strength of the load-balancing loss in later training."""
    examples: str | None = None
    """A file of Examples that the routers are turned towards. Null: their rows are drawn."""
    towards: list[str] = field(default_factory=list)
    """With examples: for each expert a file of Weights, of the examples that it is for; ids not in it weigh 0."""
    noise: float = 1e-3
    """Without examples: the standard deviation of the routers' rows, so that no tie decides which experts are heard;
    0, or all experts active: zeros."""
    seed: int = 0
    """Of the drawn rows."""
    runtime: Runtime = field(default_factory=Runtime)
