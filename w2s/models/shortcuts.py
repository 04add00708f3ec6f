"""Which shortcuts of `lm` keep a causal language model's scores, by a trial on made-up tokens.

A trial and not a list of architectures, because hub models bring their own.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from w2s.models import batches, lm, score
from w2s.models.records import Encoded, Loaded
from w2s.store.log import say
from w2s.store.records import BadInput

TOLERANCE = 1e-4


def prepare(loaded: Loaded, source: str) -> Loaded:
    """`loaded` with the shortcuts that keep its scores to 1e-4; BadInput if it is no causal language model.

    Two short rows of made-up tokens compare the separately run head with the module's own logits (some models scale or
    cap them), and the shared prompt with one row per candidate (ALiBi, recurrence and some kinds of attention cannot
    follow a tree). A window narrower than the longest row shows in the configuration.
    """
    kind, (together, apart) = loaded.module.config.model_type, made_up(loaded)
    plain = dataclasses.replace(loaded, head_alone=False, shares_prompt=False)
    reference = reading(plain, apart)
    # A causal model's score of a token ignores the tokens after it; an encoder's does not.
    if reference is None or not same(loaded, reference[1:], reading(plain, apart[1:])):
        words = f"{loaded.model.kind!r} given, but {source} ({kind}) sees the tokens that follow; allowed: pair, towers"
        raise BadInput(f"model.kind: {words}")
    fast = dataclasses.replace(plain, head_alone=True)
    if not same(loaded, reading(fast, apart), reference):
        fast = plain
    fits = window(loaded) is None or window(loaded) >= loaded.max_tokens
    fits = fits and not is_flash(loaded)  # which knows no mask of a tree
    if fits and same(loaded, reading(fast, together), reference):
        return dataclasses.replace(fast, shares_prompt=True)
    say(f"{source}: a {kind} model cannot share the prompt between candidates, which are read one by one")
    return fast


def made_up(loaded: Loaded) -> tuple[list[Encoded], list[Encoded]]:
    """Two examples of made-up tokens with three candidates each, with and without a shared prompt."""
    rng = np.random.default_rng(0)
    vocabulary = loaded.module.get_input_embeddings().weight.shape[0]
    prompts = [rng.integers(vocabulary, size=size).tolist() for size in (5, 3)]
    answers = [[rng.integers(vocabulary, size=size).tolist() for size in (3, 1, 4)] for _ in prompts]
    both = list(zip(prompts, answers, strict=True))
    together = [Encoded((lm.pack(prompt, texts),), 3) for prompt, texts in both]
    apart = [tuple(lm.pack(prompt, [text], owner=at) for at, text in enumerate(texts)) for prompt, texts in both]
    return together, [Encoded(rows, 3) for rows in apart]


def reading(loaded: Loaded, encoded: list[Encoded]) -> Tensor | None:
    """Scores without gradient; None if the model refuses such input."""
    training = loaded.module.training
    loaded.module.eval()
    # FlashAttention reads no float32, in which a model that will be trained under autocast is loaded.
    low = torch.autocast(loaded.module.device.type, torch.bfloat16, enabled=is_flash(loaded))
    try:
        with low:
            return attempt(lambda: score.scores(loaded, batches.collate(loaded, encoded)))
    finally:
        loaded.module.train(training)


def attempt(compute: Callable[[], Tensor]) -> Tensor | None:
    """What `compute` returns, without gradient; None if the model refuses its input."""
    try:
        with torch.no_grad():
            return compute()
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, NotImplementedError):
        return None


def same(loaded: Loaded, a: Tensor | None, b: Tensor | None) -> bool:
    """Whether both results exist and are equal up to rounding."""
    # In bfloat16, two ways to compute the same sum of log-probabilities differ in the third digit.
    low = loaded.module.dtype != torch.float32 or is_flash(loaded) or loaded.model.quantise != "none"
    tolerance = 0.03 if low else TOLERANCE
    return a is not None and b is not None and bool(torch.allclose(a, b, rtol=tolerance, atol=tolerance))


def is_flash(loaded: Loaded) -> bool:
    return loaded.model.attn == "flash_attention_2"


def window(loaded: Loaded) -> int | None:
    """How many tokens back the model's narrowest attention looks; None: to the beginning."""
    config = loaded.module.config
    if getattr(config, "use_sliding_window", True) is False:
        return None
    widths = [getattr(config, name, None) for name in ("sliding_window", "window_size", "attention_chunk_size")]
    return min((width for width in widths if isinstance(width, int) and width > 0), default=None)
