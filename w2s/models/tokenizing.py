"""Texts in tokens: prompts, their continuations, and the tokens that a tokenizer adds around a text."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from tokenizers.models import WordLevel

from w2s.models.records import Loaded

Frame = list[tuple[int, list[tuple[int, int, int]]]]
"""Runs of (1 where the tokenizer adds them to a text, else 0; the tokens as (1 or 0, id, token type))."""


def encode_prompts(loaded: Loaded, prompts: Sequence[str]) -> list[list[int]]:
    """Prompts in tokens, after those that the tokenizer puts first (once, even if a text has them too); never empty."""
    tokenizer, begin = loaded.tokenizer, front(loaded.tokenizer)
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    rows = bare(tokenizer, prompts)
    return [(row if row[: len(begin)] == begin else [*begin, *row]) or [first] for row in rows]


def encode_continuations(loaded: Loaded, prompts: list[str], texts: list[list[str]]) -> list[list[list[int]]]:
    """The tokens that each text adds to its prompt, cut as in lm-eval: those of the whole minus the prompt's.

    Where tokens merge across the border (the whole does not begin with the prompt's tokens), the text is tokenised on
    its own. A text that adds no token has none.
    """
    tokenizer = loaded.tokenizer
    flat = [text for row in texts for text in row]
    once = list(dict.fromkeys(flat))
    alone = dict(zip(once, bare(tokenizer, once), strict=True))
    # If a space always ends a token, prompt and continuation can be tokenised separately.
    if tokenizer.is_fast and isinstance(tokenizer.backend_tokenizer.model, WordLevel):
        return [[alone[text] for text in row] for row in texts]
    owners = [prompt for prompt, row in zip(prompts, texts, strict=True) for _ in row]
    starts = dict(zip(prompts, bare(tokenizer, prompts), strict=True))
    wholes = bare(tokenizer, [prompt + text for prompt, text in zip(owners, flat, strict=True)])
    parts = zip([starts[prompt] for prompt in owners], flat, wholes, strict=True)
    rest = ((whole[: len(start)] == start and whole[len(start) :]) or alone[text] for start, text, whole in parts)
    return [[next(rest) for _ in row] for row in texts]


def bare(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Texts in tokens, without the tokenizer's additions."""
    return tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []


def frame(tokenizer: Any, texts: int) -> Frame:
    """The tokens that the tokenizer puts before, between and after one text or two."""
    made = tokenizer(*["a"] * texts, return_special_tokens_mask=True, return_token_type_ids=True)
    columns = zip(made["special_tokens_mask"], made["input_ids"], made["token_type_ids"], strict=True)
    return [(added, list(run)) for added, run in groupby(columns, key=lambda column: column[0])]


def front(tokenizer: Any) -> list[int]:
    """The tokens that the tokenizer puts before a text."""
    added, run = frame(tokenizer, 1)[0]
    return [token for _, token, _ in run] if added else []


def without_front(tokenizer: Any, rows: Sequence[list[int]]) -> list[list[int]]:
    """The rows without the tokens that the tokenizer puts before a text, which chat templates write too."""
    begin = front(tokenizer)
    return [row[len(begin) :] if row[: len(begin)] == begin else row for row in rows]


def specials(tokenizer: Any) -> set[int]:
    """The tokenizer's special tokens, without the one for what it does not know."""
    marks = {token for token, mark in tokenizer.added_tokens_decoder.items() if mark.special}
    return (marks | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id}


def added(made: Frame) -> int:
    """How many tokens a frame adds to its texts'."""
    return sum(len(run) for added, run in made if added)


def framed(made: Frame, texts: Sequence[list[int]]) -> tuple[list[int], list[int]]:
    """Tokens and token types of `texts` in a frame."""
    tokens, types, rest = [], [], iter(texts)
    for added, run in made:
        here = [token for _, token, _ in run] if added else next(rest)
        tokens += here
        types += [kind for _, _, kind in run] if added else [run[0][2]] * len(here)
    return tokens, types
