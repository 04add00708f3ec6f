"""Learners of kind lm: a candidate's score is its log-likelihood after the prompt, normalised as model.normalise says.

An example is one row, [prompt, candidate 1, candidate 2, ...], in which every candidate sees the prompt and itself but
not the others (a tree), so a long prompt is read once and not once per candidate. A candidate's last token predicts
nothing and is left out; with one-token candidates the row is therefore the bare prompt. Written answers (tasks answer
and code) end with the token that ends the model's turn in a chat, else with the tokenizer's end token; choices do not.

Letters: R rows, T tokens of a row, P predicted tokens, U states that predict one, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from w2s.models import chat, losses, window
from w2s.models.records import Batch, Encoded, Inputs, Loaded, Row
from w2s.models.rows import pad
from w2s.models.tokenizing import encode_continuations, encode_prompts
from w2s.prompts import Words
from w2s.store.records import BadInput, Example

LOGITS_AT_ONCE = 2**27
"""Most logits held at a time in prediction: 0.5 GB in float32."""


def encode(loaded: Loaded, words: list[Words], examples: Sequence[Example]) -> list[Encoded]:
    """Each example's prompt and candidates in one row, or in a row per candidate unless loaded.shares_prompt.

    For questions with choices, the factors of the rows make their scores what model.normalise says.
    """
    prompts, end = [row.prompt for row in words], chat.find_end(loaded)
    starts = encode_prompts(loaded, prompts)
    ends = encode_continuations(loaded, prompts, [list(row.answers) for row in words])
    encoded = []
    leads = window.lead_of(loaded.tokenizer, starts, chat.find_head(loaded))
    for start, candidates, row, example, lead in zip(starts, ends, words, examples, leads, strict=True):
        if example.task == "choice":
            candidates = [tokens or [end] for tokens in candidates]
        elif end is None:
            words = "its tokenizer has no end token, which written answers need"
            raise BadInput(f"model.path: {loaded.model.path}: {words}")
        else:
            candidates = [[*tokens, end] for tokens in candidates]
        # The last token of a candidate is not read.
        kept, fitting = window.fit(start, candidates, loaded.max_tokens + 1, lead)
        rows = pack_all(loaded, kept, fitting)
        if example.task == "choice" and loaded.model.normalise != "sum":
            rows = normalised(loaded, rows, fitting, row.answers)
        encoded.append(Encoded(rows, len(candidates), cut=(kept != start, fitting != candidates)))
    return encoded


def pack_all(loaded: Loaded, prompt: Sequence[int], candidates: Sequence[Sequence[int]]) -> tuple[Row, ...]:
    """The rows of one prompt and its candidates."""
    if loaded.shares_prompt:
        return (pack(prompt, candidates),)
    return tuple(pack(prompt, [tokens], owner=at) for at, tokens in enumerate(candidates))


def normalised(
    loaded: Loaded, rows: Sequence[Row], candidates: Sequence[Sequence[int]], answers: Sequence[str]
) -> tuple[Row, ...]:
    """The rows with the factors of model.normalise; unconditional: and those that read the candidates alone."""
    how, texts = loaded.model.normalise, [answer.strip() for answer in answers]
    if how == "unconditional":
        alone = pack_all(loaded, encode_prompts(loaded, [""])[0], candidates)
        parts = [(row, np.ones(len(candidates))) for row in rows] + [(row, -np.ones(len(candidates))) for row in alone]
    else:
        sizes = {
            "per_token": lambda: [len(tokens) for tokens in candidates],
            "per_character": lambda: [len(text) for text in texts],
            "per_byte": lambda: [len(text.encode()) for text in texts],
        }[how]()
        parts = [(row, 1 / np.array(sizes)) for row in rows]
    return tuple(replace(row, factor_P=factor_K[row.owner_P].astype(np.float32)) for row, factor_K in parts)


def pack(prompt: Sequence[int], candidates: Sequence[Sequence[int]], *, owner: int = 0) -> Row:
    """One row for a prompt and its candidates; the candidates count for owner, owner + 1, ..."""
    begin = len(prompt)
    tokens, positions, segments = list(prompt), list(range(begin)), [0] * begin
    froms, targets, owners = [], [], []
    for at, candidate in enumerate(candidates):
        # Hidden state 0 is the prompt's last; it predicts every candidate's first token.
        froms += [0, *range(len(tokens) - begin + 1, len(tokens) - begin + len(candidate))]
        targets += candidate
        owners += [owner + at] * len(candidate)
        tokens += candidate[:-1]
        positions += range(begin, begin + len(candidate) - 1)
        segments += [at + 1] * (len(candidate) - 1)
    tokens_T, owner_P, from_P, token_P = (np.array(part, dtype=np.int64) for part in (tokens, owners, froms, targets))
    tree = (np.array(positions), np.array(segments)) if len(tokens) > begin else ()
    return Row(tokens_T, owner_P, begin - 1, from_P, token_P, *tree)


def inputs(encoded: Sequence[Encoded], pad_id: int) -> Inputs:
    """Tokens; positions and an attention mask only if a row is a tree.

    Rows are padded on the right, where no real token of a causal model looks.
    """
    rows = [row for example in encoded for row in example.rows]
    length_R = np.array([len(row.token_T) for row in rows])
    tokens = {"input_ids": pad([row.token_T for row in rows], length_R, pad_id)}
    if any(row.segment_T is not None and row.segment_T[-1] > 1 for row in rows):
        tokens |= tree(rows, length_R)
    return (tokens,)


def tree(rows: Sequence[Row], length_R: np.ndarray) -> dict[str, np.ndarray]:
    """Positions that continue the prompt's for every candidate; mask (R, 1, T, T), true where a token may attend."""
    zeros, count = np.zeros(int(length_R.max()), dtype=np.int64), np.arange(int(length_R.max()))
    segments = [zeros[: len(row.token_T)] if row.segment_T is None else row.segment_T for row in rows]
    positions = [count[: len(row.token_T)] if row.position_T is None else row.position_T for row in rows]
    segment_RT = pad(segments, length_R, -1)
    time_T = np.arange(segment_RT.shape[1])
    prompt_or_own_RTT = (segment_RT[:, None, :] == 0) | (segment_RT[:, None, :] == segment_RT[:, :, None])
    allowed_RTT = prompt_or_own_RTT & (time_T <= time_T[:, None])
    return {"attention_mask": allowed_RTT[:, None], "position_ids": pad(positions, length_R, 0)}


def scores(loaded: Loaded, batch: Batch) -> Tensor:
    """Sum of the log-probabilities of each candidate's tokens, times their factors if any, flat (B·K).

    With soft targets: of the expected log-probability under the soft target in each token's place (`losses.pooled`).
    """
    if batch.soft_PJ is not None:
        logp_P = losses.pooled(token_logits(loaded, batch), *batch.soft_PJ)
    else:
        logp_P = predicted_log_probs(loaded, batch)
    if batch.factor_P is not None:
        logp_P = logp_P * batch.factor_P
    return torch.zeros(batch.mask_BK.numel(), device=logp_P.device).index_add(0, batch.owner_P, logp_P)


def token_logits(loaded: Loaded, batch: Batch) -> Tensor:
    """logits_PV in float32 that predict each token of `batch.token_P`, in the batch's order; gradients flow.

    All are held at once, so the caller must keep P times V small. V is the head's width, which may exceed the
    tokenizer's vocabulary.
    """
    hidden_PD = hidden_states(loaded, batch)[batch.from_P]
    return (loaded.module.get_output_embeddings()(hidden_PD) if loaded.head_alone else hidden_PD).float()


def predicted_log_probs(loaded: Loaded, batch: Batch) -> Tensor:
    """logp_P of `batch.token_P`; in prediction, at most LOGITS_AT_ONCE logits are held."""
    hidden_UD = hidden_states(loaded, batch)
    vocabulary = loaded.module.config.get_text_config().vocab_size
    if torch.is_grad_enabled() or len(hidden_UD) * vocabulary <= LOGITS_AT_ONCE:
        return token_log_probs(loaded, hidden_UD, batch.from_P, batch.token_P)
    # A slice of the states at a time; from_P need not ascend, because candidates share the prompt's last state.
    logp_P = torch.empty(len(batch.from_P), device=hidden_UD.device)
    step = max(1, LOGITS_AT_ONCE // vocabulary)
    for start in range(0, len(hidden_UD), step):
        here = (batch.from_P >= start) & (batch.from_P < start + step)
        part_UD = hidden_UD[start : start + step]
        logp_P[here] = token_log_probs(loaded, part_UD, batch.from_P[here] - start, batch.token_P[here])
    return logp_P


def hidden_states(loaded: Loaded, batch: Batch) -> Tensor:
    """States (U, D) at the positions that predict a candidate's token, or logits if the head cannot run separately."""
    inputs = attending(loaded, batch.inputs[0])
    if not loaded.head_alone:
        return loaded.module(**inputs, use_cache=False).logits[batch.row_U, batch.at_U]
    return loaded.module.base_model(**inputs, use_cache=False).last_hidden_state[batch.row_U, batch.at_U]


def attending(loaded: Loaded, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inputs with a tree's mask as a term of the attention's logits."""
    if "attention_mask" not in inputs:
        return inputs
    mask, dtype = inputs["attention_mask"], loaded.module.dtype
    closed = torch.tensor(torch.finfo(dtype).min, dtype=dtype, device=mask.device)
    return inputs | {"attention_mask": torch.where(mask, closed.new_zeros(()), closed)}


def token_log_probs(loaded: Loaded, hidden_UD: Tensor, from_P: Tensor, token_P: Tensor) -> Tensor:
    """Log-probability of each token_P; the vocabulary head sees only these states, each once."""
    logits_UV = loaded.module.get_output_embeddings()(hidden_UD) if loaded.head_alone else hidden_UD
    logits_UV = logits_UV.float()
    return logits_UV[from_P, token_P] - logits_UV.logsumexp(-1)[from_P]
