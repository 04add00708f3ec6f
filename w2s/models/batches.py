"""From questions to tensors: every example is tokenised once, batches hold rows of like length.

For a language model an example is one row, [prompt, candidate 1, candidate 2, ...], in which every candidate sees the
prompt and itself but not the others (a tree), so a long prompt is read once and not once per candidate. The last token
of a candidate predicts nothing and is left out; with one-token candidates the row is therefore the bare prompt.
Candidates of written answers (tasks answer and code) end with the tokenizer's end token, which choices do not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from w2s.config.registry import pick
from w2s.models import window
from w2s.models.tokenizing import added, bare, encode_continuations, encode_prompts, frame, framed
from w2s.prompts import PROMPTS, continuation
from w2s.store.records import BadInput, Example

if TYPE_CHECKING:
    from w2s.models.load import Loaded

WINDOW = 32
"""Batches among whose examples lengths are grouped: small enough to keep the order random."""


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence of tokens. `owner_P` names the candidate that each predicted token (or the whole row) counts for.

    Language models: the predicted tokens `token_P` follow the hidden states at first + from_P; position and segment
    (0 = prompt, k = k-th candidate of the row) give the tree, and are None where the row is the bare prompt.
    Encoders: segment is the token type, None where the tokenizer gives none.
    """

    token_T: np.ndarray
    owner_P: np.ndarray
    first: int = 0
    from_P: np.ndarray | None = None
    token_P: np.ndarray | None = None
    position_T: np.ndarray | None = None
    segment_T: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Encoded:
    """An example in tokens: its rows, how many candidates it has, and for towers the row of its prompt."""

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
    row_U: Tensor | None = None
    at_U: Tensor | None = None
    from_P: Tensor | None = None
    token_P: Tensor | None = None
    factor_P: Tensor | None = None
    """What each predicted token's log-probability is multiplied with; None: 1."""
    soft_PJ: tuple[Tensor, Tensor] | None = None
    """Ids and probabilities of the tokens that are wanted at each place instead of token_P alone."""
    tokens: int = 0
    """Real tokens, padding apart."""


def encode(loaded: Loaded, examples: Sequence[Example]) -> list[Encoded]:
    """Every example in tokens, in order. What is too long is cut as `window` says, and noted in `loaded.cuts`."""
    check_kind(loaded.model.kind, examples)
    if not examples:  # a process that had none to share in; tokenizers fail on no text at all
        return []
    return noted(loaded, examples, ENCODERS[loaded.model.kind](loaded, worded(loaded, examples), examples))


def worded(loaded: Loaded, examples: Sequence[Example]) -> list[str]:
    """The prompts as the model is shown them."""
    words = pick(PROMPTS, loaded.model.prompt, key="model.prompt")
    return [words(example) for example in examples]


def noted(loaded: Loaded, examples: Sequence[Example], encoded: list[Encoded]) -> list[Encoded]:
    """`encoded`, with those that were cut noted in `loaded.cuts`."""
    loaded.cuts.update({e.id: one.cut for e, one in zip(examples, encoded, strict=True) if any(one.cut)})
    return encoded


def check_kind(kind: str, examples: Sequence[Example]) -> None:
    """BadInput where a kind of model that cannot write is given examples whose answers are written."""
    if kind != "lm" and any(example.task != "choice" for example in examples):
        raise BadInput(f"model.kind: {kind!r} given for answers that are written; allowed: lm (only lm writes)")


def encode_lm(loaded: Loaded, prompts: list[str], examples: Sequence[Example]) -> list[Encoded]:
    starts = encode_prompts(loaded, prompts)
    texts = [[continuation(text, example.task) for text in example.choices] for example in examples]
    ends = encode_continuations(loaded, prompts, texts)
    last = loaded.tokenizer.eos_token_id
    encoded = []
    leads = window.lead_of(loaded.tokenizer, starts)
    for start, candidates, example, lead in zip(starts, ends, examples, leads, strict=True):
        if example.task == "choice":
            candidates = [one or [last] for one in candidates]
        elif last is None:
            raise BadInput(
                f"model.path: {loaded.model.path}: its tokenizer has no end token, which answers need to end"
            )
        else:
            candidates = [[*one, last] for one in candidates]
        # The last token of a candidate is not read.
        kept, fitting = window.fit(start, candidates, loaded.max_tokens + 1, lead)
        if loaded.shares_prompt:
            rows = (pack(kept, fitting),)
        else:
            rows = tuple(pack(kept, [one], owner=at) for at, one in enumerate(fitting))
        encoded.append(Encoded(rows, len(candidates), cut=(kept != start, fitting != candidates)))
    return encoded


def pack(prompt: Sequence[int], candidates: Sequence[Sequence[int]], *, owner: int = 0) -> Row:
    """One row for a prompt and its candidates; the candidates count for owner, owner + 1, ..."""
    begin = len(prompt)
    tokens, positions, segments = list(prompt), list(range(begin)), [0] * begin
    froms, targets, owners = [], [], []
    for at, candidate in enumerate(candidates):
        # Hidden state 0 is the prompt's last, which predicts every candidate's first token.
        froms += [0, *range(len(tokens) - begin + 1, len(tokens) - begin + len(candidate))]
        targets += candidate
        owners += [owner + at] * len(candidate)
        tokens += candidate[:-1]
        positions += range(begin, begin + len(candidate) - 1)
        segments += [at + 1] * (len(candidate) - 1)
    tokens_T, owner_P, from_P, token_P = (np.array(one, dtype=np.int64) for one in (tokens, owners, froms, targets))
    if len(tokens) == begin:
        return Row(tokens_T, owner_P, begin - 1, from_P, token_P)
    return Row(tokens_T, owner_P, begin - 1, from_P, token_P, np.array(positions), np.array(segments))


def encode_pair(loaded: Loaded, prompts: list[str], examples: Sequence[Example]) -> list[Encoded]:
    """Prompt and candidate in one row: as two segments where the tokenizer knows a separator, else as one text."""
    tokenizer, made = loaded.tokenizer, frame(loaded.tokenizer, 2)
    two = tokenizer.sep_token_id in [token for own, run in made[1:-1] if own for _, token, _ in run]
    if two:
        flat = iter(bare(tokenizer, [text.strip() for example in examples for text in example.choices]))
        ends = [[next(flat) for _ in example.choices] for example in examples]
    else:
        made = frame(tokenizer, 1)
        texts = [[continuation(text) for text in example.choices] for example in examples]
        ends = encode_continuations(loaded, prompts, texts)
    starts, room = bare(tokenizer, prompts), loaded.max_tokens - added(made)
    encoded = []
    for start, candidates, lead in zip(starts, ends, window.lead_of(tokenizer, starts), strict=True):
        kept, fitting = window.fit(start, candidates, room, lead)
        rows = [framed(made, [kept, one] if two else [kept + one]) for one in fitting]
        rows = tuple(whole_row(row, types if two else None, at) for at, (row, types) in enumerate(rows))
        encoded.append(Encoded(rows, len(rows), cut=(kept != start, fitting != candidates)))
    return encoded


def encode_towers(loaded: Loaded, prompts: list[str], examples: Sequence[Example]) -> list[Encoded]:
    """A row for the prompt and one for each candidate; a text that comes up again is tokenised once."""
    made = frame(loaded.tokenizer, 1)
    texts = list(dict.fromkeys([*prompts, *(text.strip() for example in examples for text in example.choices)]))
    whole, room = dict(zip(texts, bare(loaded.tokenizer, texts), strict=True)), loaded.max_tokens - added(made)
    leads = window.lead_of(loaded.tokenizer, [whole[prompt] for prompt in prompts])
    encoded = []
    for prompt, example, lead in zip(prompts, examples, leads, strict=True):
        candidates = [whole[text.strip()] for text in example.choices]
        kept = window.keep_end(whole[prompt], room, 0, lead)
        rows = [whole_row(framed(made, [one[:room]])[0], None, at) for at, one in enumerate(candidates)]
        cut = (kept != whole[prompt], any(len(one) > room for one in candidates))
        encoded.append(Encoded(tuple(rows), len(rows), whole_row(framed(made, [kept])[0], None, 0), cut))
    return encoded


def whole_row(tokens: list[int], types: list[int] | None, owner: int) -> Row:
    segment_T = None if types is None else np.array(types, dtype=np.int64)
    return Row(np.array(tokens, dtype=np.int64), np.array([owner]), segment_T=segment_T)


ENCODERS = {"lm": encode_lm, "pair": encode_pair, "towers": encode_towers}


def plan_batches(length_N: Sequence[int], batch: int, steps: int, seed: int) -> list[np.ndarray]:
    """The rows of every optimizer step: `steps` arrays of `batch` indices below N, alike in length.

    Every example comes up once before any comes up twice. The plan depends on nothing but its arguments, so neither
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
    loaded: Loaded,
    encoded: Sequence[Encoded],
    width: int | None = None,
    *,
    factors: Sequence[np.ndarray] | None = None,
    soft: Sequence[tuple[np.ndarray, np.ndarray]] | None = None,
) -> Batch:
    """Tensors of B examples on the module's device. K = `width`, or the most candidates that one of them has.

    For written answers of one candidate each: `factors`, an example's numbers for its tokens (T), and `soft`, the ids
    and probabilities (T, J) of the tokens that it wants at each place.
    """
    width = width or max(one.count for one in encoded)
    rows = [row for one in encoded for row in one.rows]
    example_R = np.repeat(np.arange(len(encoded)), [len(one.rows) for one in encoded])
    owner_P = np.concatenate([row.owner_P for row in rows])
    owner_P += np.repeat(example_R * width, [len(row.owner_P) for row in rows])
    mask_BK = np.arange(width) < np.array([one.count for one in encoded])[:, None]
    length_R = np.array([len(row.token_T) for row in rows])
    tokens_RT = pad([row.token_T for row in rows], length_R, loaded.pad_id)
    device = next(loaded.module.parameters()).device
    made = {"mask_BK": mask_BK, "owner_P": owner_P, "last_R": length_R - 1}
    inputs = {"input_ids": tokens_RT}
    if loaded.model.kind == "lm":
        made |= predicted(rows, length_R)
        if factors is not None:
            made["factor_P"] = np.concatenate(factors).astype(np.float32)
        # Rows are padded on the right, where no real token of a causal model looks: only a tree needs a mask.
        if any(row.segment_T is not None and row.segment_T[-1] > 1 for row in rows):
            inputs |= tree(rows, length_R)
    else:
        inputs["attention_mask"] = (np.arange(tokens_RT.shape[1]) < length_R[:, None]).astype(np.int64)
        if rows[0].segment_T is not None:
            inputs["token_type_ids"] = pad([row.segment_T for row in rows], length_R, 0)
    both = [inputs]
    tokens = int(length_R.sum())
    if loaded.model.kind == "towers":
        prompt_B = [one.prompt.token_T for one in encoded]
        length_B = np.array([len(prompt) for prompt in prompt_B])
        prompts_BT = pad(prompt_B, length_B, loaded.pad_id)
        mask_BT = (np.arange(prompts_BT.shape[1]) < length_B[:, None]).astype(np.int64)
        both.append({"input_ids": prompts_BT, "attention_mask": mask_BT})
        tokens += int(length_B.sum())
    moved = tuple({key: torch.from_numpy(value).to(device) for key, value in one.items()} for one in both)
    made = {key: torch.from_numpy(value).to(device) for key, value in made.items()}
    if soft is not None:
        token_PJ, prob_PJ = (np.concatenate(column) for column in zip(*soft, strict=True))
        wanted = torch.from_numpy(token_PJ.astype(np.int64)), torch.from_numpy(prob_PJ.astype(np.float32))
        made["soft_PJ"] = tuple(one.to(device) for one in wanted)
    return Batch(moved, tokens=tokens, **made)


def predicted(rows: Sequence[Row], length_R: np.ndarray) -> dict[str, np.ndarray]:
    """Where the states that predict a token stand, and which token follows which of them."""
    first_R = np.array([row.first for row in rows])
    count_R = length_R - first_R
    row_U = np.repeat(np.arange(len(rows)), count_R)
    begin_R = np.cumsum(count_R) - count_R
    begin_P = np.repeat(begin_R, [len(row.token_P) for row in rows])
    return {
        "row_U": row_U,
        "at_U": np.arange(len(row_U)) - (begin_R - first_R)[row_U],
        "from_P": np.concatenate([row.from_P for row in rows]) + begin_P,
        "token_P": np.concatenate([row.token_P for row in rows]),
    }


def pad(rows: Sequence[np.ndarray], length_R: np.ndarray, fill: int) -> np.ndarray:
    """Rows of unlike length as one array, filled up on the right."""
    padded_RT = np.full((len(rows), int(length_R.max())), fill, dtype=np.int64)
    padded_RT[np.arange(padded_RT.shape[1]) < length_R[:, None]] = np.concatenate(rows)
    return padded_RT


def tree(rows: Sequence[Row], length_R: np.ndarray) -> dict[str, np.ndarray]:
    """Positions that go on from the prompt for every candidate; mask (R, 1, T, T), true where a token may look."""
    bare = [row.segment_T is None for row in rows]
    zeros, count = np.zeros(int(length_R.max()), dtype=np.int64), np.arange(int(length_R.max()))
    segments = [zeros[:n] if b else row.segment_T for row, n, b in zip(rows, length_R, bare, strict=True)]
    positions = [count[:n] if b else row.position_T for row, n, b in zip(rows, length_R, bare, strict=True)]
    segment_RT = pad(segments, length_R, -1)
    time_T = np.arange(segment_RT.shape[1])
    prompt_or_own_RTT = (segment_RT[:, None, :] == 0) | (segment_RT[:, None, :] == segment_RT[:, :, None])
    allowed_RTT = prompt_or_own_RTT & (time_T <= time_T[:, None])
    return {
        "attention_mask": allowed_RTT[:, None],
        "position_ids": pad(positions, length_R, 0),
    }
