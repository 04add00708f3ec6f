"""How a prompt and its candidates are cut if they exceed the model's window.

A prompt loses its beginning, but never its leading special tokens; a candidate loses its end. A prompt keeps half of
the window, however long a candidate is. A conversation keeps its head (BOS, system turn, the marks of its first
question) and loses the beginning of that question, then what follows: solved examples before the question itself.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from w2s.models.tokenizing import front, specials


def fit(
    prompt: list[int], candidates: Sequence[list[int]], window: int, lead: int = 0
) -> tuple[list[int], list[list[int]]]:
    """The prompt and its candidates, cut so that the prompt and any candidate have at most `window` tokens."""
    kept = keep_end(prompt, window, max(map(len, candidates), default=0), lead)
    return kept, [tokens[: max(0, window - len(kept))] for tokens in candidates]


def keep_end(prompt: list[int], window: int, more: int, lead: int = 0) -> list[int]:
    """The prompt's first `lead` tokens and its end, leaving room for `more` tokens, at most half of the window."""
    room = max(window - more, window // 2, 1)
    if len(prompt) <= room:
        return prompt
    lead = min(lead, room - 1)
    return [*prompt[:lead], *prompt[len(prompt) - room + lead :]]


def limit_tokens(config: Any, max_tokens: int) -> int:
    """How many tokens a model can read, at most `max_tokens`."""
    return min(max_tokens, getattr(config, "max_position_embeddings", None) or max_tokens)


def lead_of(tokenizer: Any, prompts: Sequence[list[int]], head: Sequence[int] = ()) -> list[int]:
    """How many tokens each prompt begins with that a cut must keep: special ones (BOS, ...), and those of `head`.

    head: what every conversation begins with (its system turn and the marks of its first question), if they are chats.
    """
    special = specials(tokenizer) | set(front(tokenizer))
    leads = [sum(1 for _ in takewhile(special.__contains__, prompt)) for prompt in prompts]
    return [max(lead, count_shared(row, head)) for lead, row in zip(leads, prompts, strict=True)]


def count_shared(row: Sequence[int], head: Sequence[int]) -> int:
    """How many of their first tokens are the same."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(row, head, strict=False)))
