"""From questions to tensors: every example is tokenised once, and batches hold rows of similar length."""

from collections.abc import Sequence

import numpy as np
import torch

from w2s.config.registry import pick
from w2s.models.chat import render
from w2s.models.kinds import KINDS, find_kind
from w2s.models.records import Batch, Encoded, Loaded, Row
from w2s.models.rows import within
from w2s.prompts import PROMPTS, Words, in_words, read_shots
from w2s.store.records import BadInput, Example

WINDOW = 32
"""Number of batches whose examples are sorted by length together: small enough to keep the order random."""


def encode(loaded: Loaded, examples: Sequence[Example]) -> list[Encoded]:
    """Every example in tokens, in order. What is too long is cut as in `window` and noted in `loaded.cuts`."""
    check_kind(loaded.model.kind, examples)
    if not examples:  # a process without a share; tokenizers fail on an empty list
        return []
    return note_cuts(loaded, examples, KINDS[loaded.model.kind].encode(loaded, worded(loaded, examples), examples))


def check_kind(kind: str, examples: Sequence[Example]) -> None:
    """BadInput if models of this kind, which cannot write, are to score written answers."""
    if not find_kind(kind).writes and any(example.task != "choice" for example in examples):
        raise BadInput(f"model.kind: {kind!r} given for written answers; allowed: lm (only lm writes)")


def worded(loaded: Loaded, examples: Sequence[Example]) -> list[Words]:
    """The examples in the model's words; every prompt is a text."""
    ask, shots = pick(PROMPTS, loaded.model.prompt, key="model.prompt"), loaded.model.shots
    if isinstance(shots, int) and shots:
        raise BadInput(f"model.shots: {shots} given; allowed here: the examples themselves, as a run draws them")
    shown = read_shots(shots or ())
    made = [in_words(ask, example, shown) for example in examples]
    return [row if isinstance(row.prompt, str) else row._replace(prompt=render(loaded, row.prompt)) for row in made]


def note_cuts(loaded: Loaded, examples: Sequence[Example], encoded: list[Encoded]) -> list[Encoded]:
    """`encoded`, unchanged; the examples that were cut are noted in `loaded.cuts`."""
    loaded.cuts.update({e.id: made.cut for e, made in zip(examples, encoded, strict=True) if any(made.cut)})
    return encoded


def plan_batches(length_N: Sequence[int], batch: int, steps: int, seed: int) -> list[np.ndarray]:
    """The rows of every optimizer step: `steps` arrays of `batch` indices below N, of similar length.

    Every example comes up once before any comes up twice. The plan depends only on the arguments, so neither
    micro-batches nor processes change it: each takes its slice of a step.
    """
    length_N, need = np.asarray(length_N), batch * steps
    if not len(length_N):
        raise ValueError("there is no example to train on")
    rng = np.random.default_rng(seed)
    epochs = [rng.permutation(len(length_N)) for _ in range(-(-need // len(length_N)))]
    order = np.concatenate(epochs)[:need] if epochs else np.zeros(0, dtype=int)
    plan: list[np.ndarray] = []
    for start in range(0, need, batch * WINDOW):
        window = order[start : start + batch * WINDOW]
        if length_N.min() < length_N.max():
            window = window[np.argsort(length_N[window], kind="stable")]
        parts = window.reshape(-1, batch)
        plan.extend(parts[rng.permutation(len(parts))])
    return plan


def most_tokens(loaded: Loaded) -> int:
    """Most padded tokens of a forward pass in prediction.

    On a CPU at most 2**20 numbers in a layer's output: larger ones leave its caches, and more rows mean more padding.
    """
    width = loaded.module.config.get_text_config().hidden_size
    return 16384 if loaded.module.device.type != "cpu" else min(16384, max(512, 2**20 // width))


def plan_chunks(length_N: Sequence[int], batch_tokens: int) -> list[np.ndarray]:
    """All N rows in chunks for prediction, longest first, each of at most `batch_tokens` padded tokens (or one row)."""
    length_N = np.asarray(length_N)
    chunks, start = [], 0
    order = np.argsort(-length_N, kind="stable")
    while start < len(order):
        size = max(1, batch_tokens // max(1, int(length_N[order[start]])))
        chunks.append(order[start : start + size])
        start += size
    return chunks


def collate(
    loaded: Loaded, encoded: list[Encoded], width: int = 0, factors: list | None = None, soft: list | None = None
) -> Batch:
    """Tensors of B examples on the module's device. K = `width`, or if that is 0 the most candidates of an example.

    `factors` and `soft` (see records) are for written answers with one candidate each, whose rows have no factors.
    """
    width = width or max(example.count for example in encoded)
    rows = [row for example in encoded for row in example.rows]
    arrays = place_rows(encoded, rows, width)
    if rows[0].token_P is not None:
        arrays |= place_predicted(rows)
    if factors is not None:
        arrays["factor_P"] = np.concatenate(factors).astype(np.float32)
    device = next(loaded.module.parameters()).device
    tensors = to_tensors(arrays, device)
    if soft is not None:
        token_PJ, prob_PJ = (np.concatenate(column) for column in zip(*soft, strict=True))
        targets = {"token": token_PJ.astype(np.int64), "prob": prob_PJ.astype(np.float32)}
        tensors["soft_PJ"] = tuple(to_tensors(targets, device).values())
    parts = KINDS[loaded.model.kind].inputs(encoded, loaded.pad_id)
    inputs = tuple(to_tensors(part, device) for part in parts)
    return Batch(inputs, tokens=sum(example.tokens for example in encoded), **tensors)


def to_tensors(arrays: dict[str, np.ndarray], device: torch.device) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(array).to(device) for key, array in arrays.items()}


def place_rows(encoded: Sequence[Encoded], rows: Sequence[Row], width: int) -> dict[str, np.ndarray]:
    """What each row or predicted token counts for, which candidates exist, and where each row ends."""
    example_R = np.repeat(np.arange(len(encoded)), [len(example.rows) for example in encoded])
    owner_P = np.concatenate([row.owner_P for row in rows])
    owner_P += np.repeat(example_R * width, [len(row.owner_P) for row in rows])
    return {
        "mask_BK": within([example.count for example in encoded], width),
        "owner_P": owner_P,
        "last_R": np.array([len(row.token_T) for row in rows]) - 1,
        "example_R": example_R,
    }


def place_predicted(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Where the states that predict a token are, and which token follows each."""
    first_R = np.array([row.first for row in rows])
    count_R = np.array([len(row.token_T) for row in rows]) - first_R
    row_U = np.repeat(np.arange(len(rows)), count_R)
    begin_R = np.cumsum(count_R) - count_R
    begin_P = np.repeat(begin_R, [len(row.token_P) for row in rows])
    factors = {} if rows[0].factor_P is None else {"factor_P": np.concatenate([row.factor_P for row in rows])}
    return {
        **factors,
        "row_U": row_U,
        "at_U": np.arange(len(row_U)) - (begin_R - first_R)[row_U],
        "from_P": np.concatenate([row.from_P for row in rows]) + begin_P,
        "token_P": np.concatenate([row.token_P for row in rows]),
    }
