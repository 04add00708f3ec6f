"""The records that flow through this room: a model in memory, examples in tokens, a batch, a kind of learner.

Letters: B examples of a batch, K candidates, R rows of tokens, T tokens of a row, P predicted tokens, U states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from w2s.config.fields import Model
from w2s.prompts import Words
from w2s.store.records import Example

if TYPE_CHECKING:  # the table of kinds needs these records before anything runs, and torch takes seconds to import
    from torch import Tensor, nn


@dataclass(frozen=True)
class Loaded:
    """A module that is ready to score, its tokenizer and how it was made.

    `head_alone` and `shares_prompt` say which shortcuts of `lm` leave this architecture's log-likelihoods unchanged.
    """

    module: nn.Module
    tokenizer: Any
    model: Model
    max_tokens: int = 512
    precision: str = "float32"
    """In which it predicts once it is saved: float32 or bfloat16."""
    head_alone: bool = True
    shares_prompt: bool = True
    cuts: dict[str, tuple[bool, bool]] = field(default_factory=dict, compare=False)
    """By id, the examples that `batches.encode` cut (the prompt's beginning, a candidate's end)."""

    @property
    def pad_id(self) -> int:
        return self.tokenizer.pad_token_id or 0


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence of tokens. `owner_P` names the candidate that each predicted token (or the whole row) counts for.

    Language models: the predicted tokens `token_P` follow the hidden states at first + from_P; position and segment
    (0 = prompt, k = k-th candidate of the row) give the tree, and are None if the row is the bare prompt. `factor_P`
    multiplies each predicted token's log-probability (float32); None: 1, for all rows of a batch.
    Encoders: segment is the token type, None if the tokenizer gives none.
    """

    token_T: np.ndarray
    owner_P: np.ndarray
    first: int = 0
    from_P: np.ndarray | None = None
    token_P: np.ndarray | None = None
    position_T: np.ndarray | None = None
    segment_T: np.ndarray | None = None
    factor_P: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Encoded:
    """An example in tokens: its rows, its number of candidates, and for towers the row of its prompt."""

    rows: tuple[Row, ...]
    count: int
    prompt: Row | None = None
    cut: tuple[bool, bool] = (False, False)
    """Whether its prompt lost its beginning, and whether a candidate lost its end."""

    @property
    def tokens(self) -> int:
        return sum(len(row.token_T) for row in self.rows) + (len(self.prompt.token_T) if self.prompt else 0)


@dataclass(frozen=True)
class Batch:
    """Tensors for one forward pass. `inputs` go to the module as they are (two of them for towers)."""

    inputs: tuple[dict[str, Tensor], ...]
    mask_BK: Tensor
    owner_P: Tensor
    """Flat index into B·K of the candidate that each row, or each predicted token, counts for."""
    last_R: Tensor
    """The last real token of each row."""
    example_R: Tensor
    """The example of each row."""
    row_U: Tensor | None = None
    at_U: Tensor | None = None
    from_P: Tensor | None = None
    token_P: Tensor | None = None
    factor_P: Tensor | None = None
    """The factor of each predicted token's log-probability; None: 1."""
    soft_PJ: tuple[Tensor, Tensor] | None = None
    """Ids and probabilities of the soft targets in each token's place, instead of token_P alone."""
    tokens: int = 0
    """Number of tokens without padding."""


@dataclass(frozen=True)
class States:
    """The hidden states of N examples' candidates, example after example: the next count_N[n] rows are those of
    `ids[n]`. Letters: R candidates of all examples, D width of a state."""

    ids: np.ndarray
    count_N: np.ndarray
    states_RD: np.ndarray


Factors = list[np.ndarray] | None
"""The factor of each token's loss (T), row by row."""
Soft = list[tuple[np.ndarray, np.ndarray]] | None
"""Ids and probabilities of each token's soft targets (T, J), row by row."""
Inputs = tuple[dict[str, np.ndarray], ...]
"""The inputs of a batch before they are tensors, R rows each."""


@dataclass(frozen=True)
class Network:
    """A kind of learner that is a transformers model, trained step by step (`train.fit`) and saved by `load.save`."""

    has_base: ClassVar[bool] = True
    reads_states: ClassVar[bool] = False
    auto: str
    """The transformers class that reads it."""
    builtin: str
    """The transformers class of a builtin model of this kind."""
    encode: Callable[[Loaded, list[Words], Sequence[Example]], list[Encoded]]
    """(loaded, the examples in words (every prompt a text), examples) -> the examples in tokens, in order."""
    inputs: Callable[[Sequence[Encoded], int], Inputs]
    """(examples of one batch, id of the padding token) -> the module's inputs."""
    scores: Callable[[Loaded, Batch], Tensor]
    """(loaded, batch) -> one score per candidate in float32, flat (B·K), 0 where there is no candidate; differentiable
    in what is trainable."""
    writes: bool = False
    """Whether it is a causal language model, which also scores (and writes) answers to questions without choices.
    `load` checks that it is one, and which shortcuts keep its scores."""
    head: bool = False
    """Whether it has a classification head with one output, which is trained whatever model.trainable says."""
    about: str = ""
    """How a candidate is scored: the line of `w2s methods kinds`."""


@dataclass(frozen=True)
class Estimator:
    """A kind of learner that is fitted at once, without gradients, and scores choices."""

    fit: Callable[[Model, Any, np.ndarray, np.ndarray, int], Any]
    """(model, examples, target_NK, weight_N, seed) -> the fitted object. Rows of target_NK sum to 1 over the
    candidates; weight_N >= 0 has mean 1."""
    scores: Callable[[Any, Any], np.ndarray]
    """(fitted, examples) -> scores_NK, -inf where an example has no such candidate; their softmax is the opinion."""
    save: Callable[[Any, Any], None]
    """(fitted, folder): write it into the folder, which is created if missing."""
    load: Callable[[Any], Any]
    """folder -> what `save` wrote there."""
    reads_states: bool = False
    """Whether it reads the hidden states of a frozen model, model.path: `fit` and `scores` then get the examples'
    States in their place."""
    writes: bool = False
    """Whether it also scores answers to questions without choices."""
    about: str = ""
    """How a candidate is scored: the line of `w2s methods kinds`."""

    @property
    def has_base(self) -> bool:
        """Whether model.path names a model that it starts from."""
        return self.reads_states


Kind = Network | Estimator
