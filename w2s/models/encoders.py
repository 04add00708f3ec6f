"""Learners that read a whole text: kind pair (a classification head) and kind towers (two encodings).

pair: a candidate's score is the head's only output for prompt and candidate, read together. towers: 20 times the cosine
of the encoded prompt and the encoded candidate.

Letters: R rows of tokens, T tokens of a row, D the encodings' width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from w2s.models import chat, window
from w2s.models.records import Batch, Encoded, Inputs, Loaded, Row
from w2s.models.rows import mean_states, pad, within
from w2s.models.tokenizing import added, bare, encode_continuations, frame, framed, without_front
from w2s.prompts import Words
from w2s.store.records import Example

SCALE = 20.0
"""Score of two encodings that point the same way; the inverse temperature of sentence-transformers' training."""


def encode_pair(loaded: Loaded, words: list[Words], examples: Sequence[Example]) -> list[Encoded]:
    """Prompt and candidate in one row: as two segments where the tokenizer knows a separator, else as one text."""
    tokenizer, around = loaded.tokenizer, frame(loaded.tokenizer, 2)
    prompts = [row.prompt for row in words]
    two = tokenizer.sep_token_id in [token for own, run in around[1:-1] if own for _, token, _ in run]
    if two:
        flat = iter(bare(tokenizer, [text.strip() for row in words for text in row.answers]))
        ends = [[next(flat) for _ in row.answers] for row in words]
    else:
        around = frame(tokenizer, 1)
        space = "" if chat.is_chat(loaded) else " "
        ends = encode_continuations(loaded, prompts, [[space + text.strip() for text in row.answers] for row in words])
    *starts, head = without_front(tokenizer, [*bare(tokenizer, prompts), chat.find_head(loaded)])
    room, encoded = loaded.max_tokens - added(around), []
    for start, candidates, lead in zip(starts, ends, window.lead_of(tokenizer, starts, head), strict=True):
        kept, fitting = window.fit(start, candidates, room, lead)
        rows = [framed(around, [kept, tokens] if two else [kept + tokens]) for tokens in fitting]
        rows = tuple(whole_row(row, types if two else None, at) for at, (row, types) in enumerate(rows))
        encoded.append(Encoded(rows, len(rows), cut=(kept != start, fitting != candidates)))
    return encoded


def encode_towers(loaded: Loaded, words: list[Words], examples: Sequence[Example]) -> list[Encoded]:
    """A row for the prompt and one for each candidate; repeated texts are tokenised once."""
    around, tokenizer = frame(loaded.tokenizer, 1), loaded.tokenizer
    texts = list(dict.fromkeys(text for row in words for text in (row.prompt, *map(str.strip, row.answers))))
    *rows, head = without_front(tokenizer, [*bare(tokenizer, texts), chat.find_head(loaded)])
    whole, room = dict(zip(texts, rows, strict=True)), loaded.max_tokens - added(around)
    leads = window.lead_of(tokenizer, [whole[row.prompt] for row in words], head)
    encoded = []
    for (prompt, answers), lead in zip(words, leads, strict=True):
        candidates = [whole[text.strip()] for text in answers]
        kept = window.keep_end(whole[prompt], room, 0, lead)
        rows = [whole_row(framed(around, [tokens[:room]])[0], None, at) for at, tokens in enumerate(candidates)]
        cut = (kept != whole[prompt], any(len(tokens) > room for tokens in candidates))
        encoded.append(Encoded(tuple(rows), len(rows), whole_row(framed(around, [kept])[0], None, 0), cut))
    return encoded


def whole_row(tokens: list[int], types: list[int] | None, owner: int) -> Row:
    segment_T = None if types is None else np.array(types, dtype=np.int64)
    return Row(np.array(tokens, dtype=np.int64), np.array([owner]), segment_T=segment_T)


def pair_inputs(encoded: Sequence[Encoded], pad_id: int) -> Inputs:
    return (padded([row for example in encoded for row in example.rows], pad_id),)


def tower_inputs(encoded: Sequence[Encoded], pad_id: int) -> Inputs:
    """The candidates, and the prompts."""
    return (*pair_inputs(encoded, pad_id), padded([example.prompt for example in encoded], pad_id))


def padded(rows: Sequence[Row], pad_id: int) -> dict[str, np.ndarray]:
    """Tokens, the mask of the real ones, and token types where the rows have any."""
    length_R = np.array([len(row.token_T) for row in rows])
    tokens_RT = pad([row.token_T for row in rows], length_R, pad_id)
    inputs = {"input_ids": tokens_RT, "attention_mask": within(length_R, tokens_RT.shape[1]).astype(np.int64)}
    if rows[0].segment_T is not None:
        inputs["token_type_ids"] = pad([row.segment_T for row in rows], length_R, 0)
    return inputs


def pair_scores(loaded: Loaded, batch: Batch) -> Tensor:
    """The head's single output for each row, flat (B·K)."""
    return spread(head_outputs(loaded.module, batch, last_token=scores_last_token(loaded.module))[:, 0], batch)


def scores_last_token(module: nn.Module) -> bool:
    """Whether the head reads the last token alone, as a decoder's does."""
    return isinstance(getattr(module, "score", None), nn.Linear)


def head_outputs(module: nn.Module, batch: Batch, *, last_token: bool) -> Tensor:
    """The head's output (R, 1), or (M·R, 1), member by member, for a module that `members` has split."""
    inputs = batch.inputs[0]
    if not last_token:
        return module(**inputs).logits
    # transformers finds the last token that is not padding by its id; the mask already gives it.
    hidden_RTD = module.base_model(**inputs, use_cache=False).last_hidden_state
    last_R = batch.last_R.repeat(len(hidden_RTD) // len(batch.last_R))
    with torch.autocast(hidden_RTD.device.type, enabled=False):  # a score in bfloat16 has three digits
        return module.score(hidden_RTD[torch.arange(len(hidden_RTD)), last_R].float())


def tower_scores(loaded: Loaded, batch: Batch) -> Tensor:
    """20 · cosine of the mean-pooled encodings of prompt and candidate, flat (B·K)."""
    states = [(loaded.module(**inputs).last_hidden_state, inputs["attention_mask"]) for inputs in batch.inputs]
    candidates, prompts = (mean_states(hidden_RTD.float(), mask_RT) for hidden_RTD, mask_RT in states)
    prompt_R = batch.owner_P // batch.mask_BK.shape[1]
    return spread(SCALE * nn.functional.cosine_similarity(candidates, prompts[prompt_R], dim=-1), batch)


def spread(score_R: Tensor, batch: Batch) -> Tensor:
    """Scores of rows, moved to their candidates' places, flat (B·K), 0 where there is no candidate."""
    flat = torch.zeros(batch.mask_BK.numel(), device=score_R.device)
    return flat.index_copy(0, batch.owner_P, score_R.float())
