"""Text from a causal language model: what the code suites judge, and where sampled answers come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from w2s.models.batches import encode_prompts

if TYPE_CHECKING:
    from w2s.models.load import Loaded


def generate(
    loaded: Loaded,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 256,
    samples: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    stop: Sequence[str] = (),
    batch: int = 16,
    seed: int = 0,
) -> list[list[str]]:
    """`samples` continuations of each prompt, in order, each cut before the first of the `stop` texts.

    temperature 0 = greedy, and all samples alike. A text depends on `seed`, its prompt's place and `batch`, and on
    nothing else: the caller's random state is left as it was. Prompts that are too long lose their beginning, so that
    max_new_tokens fit behind them.
    """
    tokenizer, module = loaded.tokenizer, loaded.module
    # What the model can hold, not what it was trained with: a learner's max_tokens has no room for a program.
    room = getattr(module.config, "max_position_embeddings", None) or 2**20
    rows = [row[-max(1, room - max_new_tokens) :] for row in encode_prompts(loaded, list(prompts))]
    count = 1 if temperature == 0 else samples
    texts: list[list[str]] = [[] for _ in rows]
    order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
    module.eval()
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(seed)
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            tokens_BT, mask_BT = pad_left([rows[at] for at in chosen], loaded.pad_id, module.device)
            made = module.generate(
                input_ids=tokens_BT,
                attention_mask=mask_BT,
                max_new_tokens=max(1, min(max_new_tokens, room - tokens_BT.shape[1])),
                do_sample=temperature > 0,
                num_return_sequences=count,
                pad_token_id=loaded.pad_id,
                **({"temperature": temperature, "top_p": top_p, "top_k": 0} if temperature > 0 else {}),
                stopping_criteria=[written(stop, tokenizer, tokens_BT.shape[1])] if stop else [],
            )
            found = tokenizer.batch_decode(made[:, tokens_BT.shape[1] :], skip_special_tokens=True)
            for place, at in enumerate(chosen):
                texts[at] = [cut(text, stop) for text in found[place * count : (place + 1) * count]]
    return [row * samples if count < samples else row for row in texts]


def written(stop: Sequence[str], tokenizer: Any, start: int) -> Callable[..., torch.Tensor]:
    """Which rows have one of the `stop` texts behind their prompt, which ends at column `start`.

    transformers' own stop_strings read the tokenizer's vocabulary and fail on tokenizers of whole words.
    """
    longest = max(map(len, stop)) + 4  # tokens that a stop text, which has just been completed, can reach back

    def ended(tokens_BT: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        texts = tokenizer.batch_decode(tokens_BT[:, max(start, tokens_BT.shape[1] - longest) :])
        return torch.tensor([any(one in text for one in stop) for text in texts], device=tokens_BT.device)

    return ended


def pad_left(rows: Sequence[Sequence[int]], fill: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows that end together, and the mask of their real tokens: a text is continued from its last column."""
    longest = max(map(len, rows))
    tokens_BT = torch.tensor([[fill] * (longest - len(row)) + list(row) for row in rows], device=device)
    mask_BT = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    return tokens_BT, mask_BT


def cut(text: str, stop: Sequence[str]) -> str:
    """`text` before the first of the `stop` texts that is in it."""
    found = [at for at in (text.find(one) for one in stop if one) if at >= 0]
    return text[: min(found)] if found else text
