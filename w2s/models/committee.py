"""One text from several learners: at every step their token distributions are mixed by alpha (EnsemW2S, 2410.04571).

Learners that are LoRA adapters of one base share its weights and its forward pass: see `adapters`.

Letters: L learners, B rows, T tokens, S steps, V vocabulary, J most probable tokens.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from w2s.models.batches import encode_prompts
from w2s.models.generate import cut, pad_left, written
from w2s.records import BadInput
from w2s.registry import pick

if TYPE_CHECKING:
    from w2s.models.load import Loaded


@dataclass(frozen=True)
class Voice:
    """A language model that speaks for `count` learners: its rows are the first one's batch, the second one's, ..."""

    loaded: Loaded
    count: int = 1


def decode(
    learners: Sequence[Loaded | Voice],
    prompts: Sequence[str],
    alpha_L: Sequence[float],
    *,
    mixture: str = "linear",
    mix: Literal["all", "disagree"] = "all",
    max_new_tokens: int = 256,
    samples: int = 1,
    temperature: float = 0.0,
    stop: Sequence[str] = (),
    batch: int = 16,
    seed: int = 0,
) -> list[list[str]]:
    """`samples` continuations of each prompt that the learners write together, each cut before the first `stop` text.

    `learners` are models of one tokenizer, or what `share` makes of adapters; `alpha_L` (≥ 0, any scale) has one number
    for each learner, a voice's in the order of its adapters. `mixture` is a name in MIXTURES. Temperature 0 = greedy,
    samples alike; another one flattens the mixture, not the learners. mix="disagree" takes the token that all put first
    wherever there is one and mixes elsewhere (arXiv 2510.15346: mixing everywhere hurts long texts). Greedily that is
    no difference: a token that all put first is first in either mixture. A text depends on `seed`, its prompt and its
    number among the samples; beyond rounding not on the other rows, their order or `batch`. Long prompts lose their
    beginning; penalties of a generation_config are not applied. BadInput: unlike tokenizers, an alpha out of range.
    """
    voices = [one if isinstance(one, Voice) else Voice(one) for one in learners]
    check(voices, alpha_L, mix)
    first, mixed = voices[0].loaded, pick(MIXTURES, mixture, key="mixture")
    device, say_L = first.module.device, torch.as_tensor(alpha_L, dtype=torch.float64)
    say_L = (say_L / say_L.sum()).float().to(device)
    choose = partial(next_tokens, alpha_L=say_L, mixed=mixed, mix=mix, temperature=temperature)
    room = min(getattr(voice.loaded.module.config, "max_position_embeddings", None) or 2**20 for voice in voices)
    rows = [row[-max(1, room - max_new_tokens) :] for row in encode_prompts(first, list(prompts))]
    count = 1 if temperature == 0 else samples
    texts: list[list[str]] = [[""] * count for _ in rows]
    order = sorted(((at, number) for at in range(len(rows)) for number in range(count)), key=lambda o: len(rows[o[0]]))
    with torch.inference_mode():
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            tokens_BT, mask_BT = pad_left([rows[at] for at, _ in chosen], first.pad_id, device)
            steps = max(1, min(max_new_tokens, room - tokens_BT.shape[1]))
            luck_BS = torch.from_numpy(np.stack([luck(rows[at], number, seed, steps) for at, number in chosen]))
            found = write(voices, tokens_BT, mask_BT, luck_BS.to(device), choose, stop)
            for (at, number), row in zip(chosen, found, strict=True):
                texts[at][number] = cut(first.tokenizer.decode(row, skip_special_tokens=True), stop)
    return [row * samples if count < samples else row for row in texts]


def check(voices: Sequence[Voice], alpha_L: Sequence[float], mix: str) -> None:
    """BadInput unless these learners can write together with these alphas."""
    total = sum(voice.count for voice in voices)
    if len(alpha_L) != total:
        raise BadInput(f"alphas: {len(alpha_L)} given; allowed: {total}, one for each learner")
    if not (np.isfinite(alpha_L).all() and min(alpha_L) >= 0 and max(alpha_L) > 0):
        raise BadInput(f"alphas: {list(alpha_L)} given; allowed: finite, not negative, not all 0")
    if mix not in ("all", "disagree"):
        raise BadInput(f"mix: {mix!r} given; allowed: all, disagree")
    words = voices[0].loaded.tokenizer.get_vocab()
    if any(voice.loaded.tokenizer.get_vocab() != words for voice in voices[1:]):
        raise BadInput("learners: their tokenizers differ, so they cannot write token by token; let each sample")


def next_tokens(
    logits_LBV: Tensor, luck_B: Tensor, *, alpha_L: Tensor, mixed: Callable, mix: str, temperature: float
) -> Tensor:
    """The committee's next token of each row (B). `luck_B` in [0, 1) decides where it is drawn; alphas sum to 1."""
    if not alpha_L.all():  # a learner without a say cannot disagree either
        logits_LBV, alpha_L = logits_LBV[alpha_L > 0], alpha_L[alpha_L > 0]
    top_LB = logits_LBV.argmax(-1)
    token_B = top_LB[0].clone()
    disagree_B = (top_LB != token_B).any(0)
    # Greedily an agreed token needs no mixing: it is the first of the mixture too, and exactly so, without rounding.
    open_M = torch.arange(len(token_B), device=token_B.device)
    if temperature == 0 or mix == "disagree":
        open_M = open_M[disagree_B]
    if len(open_M):
        part_LMV = logits_LBV if len(open_M) == len(token_B) else logits_LBV[:, open_M]
        logp_MV = mixed(part_LMV.float(), alpha_L)
        token_B[open_M] = logp_MV.argmax(-1) if temperature == 0 else draw(logp_MV / temperature, luck_B[open_M])
    return token_B


def linear(logits_LBV: Tensor, alpha_L: Tensor) -> Tensor:
    """Log of the alpha-weighted mean of the learners' distributions."""
    return torch.tensordot(alpha_L, logits_LBV.softmax(-1), 1).log()


def log_linear(logits_LBV: Tensor, alpha_L: Tensor) -> Tensor:
    """Log of the alpha-weighted geometric mean of the learners' distributions, normalised."""
    return torch.tensordot(alpha_L, logits_LBV.log_softmax(-1), 1).log_softmax(-1)


MIXTURES = {"linear": linear, "log_linear": log_linear}


def luck(tokens: Sequence[int], number: int, seed: int, steps: int) -> np.ndarray:
    """The random numbers in [0, 1) of one text: its own stream, whatever else is written beside it."""
    prompt = hashlib.sha256(np.asarray(tokens, dtype=np.int64).tobytes()).digest()
    return np.random.default_rng([seed, number, int.from_bytes(prompt[:8])]).random(steps)


def draw(logits_BV: Tensor, luck_B: Tensor) -> Tensor:
    """Tokens drawn by inverting the distribution function; one of probability 0 is never drawn."""
    upto_BV = logits_BV.double().softmax(-1).cumsum(-1)
    upto_BV /= upto_BV[:, -1:].clone()
    return torch.searchsorted(upto_BV, luck_B.to(upto_BV)[:, None], right=True)[:, 0]


def write(
    voices: Sequence[Voice],
    tokens_BT: Tensor,
    mask_BT: Tensor,
    luck_BS: Tensor,
    choose: Callable[[Tensor, Tensor], Tensor],
    stop: Sequence[str] = (),
) -> list[list[int]]:
    """What choose(logits_LBV, luck_B) puts behind each row: S tokens at most, to the end mark or a `stop` text."""
    first = voices[0].loaded
    readers = [Reader(voice) for voice in voices]
    ends = torch.tensor(end_marks(first), dtype=torch.long, device=tokens_BT.device)
    stopped = written(stop, first.tokenizer, 0) if stop else None
    open_B, length_B = torch.ones_like(tokens_BT[:, 0], dtype=torch.bool), torch.zeros_like(tokens_BT[:, 0])
    made_BT, fresh_BT = tokens_BT[:, :0], tokens_BT
    for luck_B in luck_BS.T:
        parts = [reader.read(fresh_BT, mask_BT) for reader in readers]
        # Some heads are wider than the vocabulary, each by its own padding.
        width = min(part.shape[-1] for part in parts)
        logits_LBV = parts[0] if len(parts) == 1 else torch.cat([part[..., :width] for part in parts])
        fresh_BT = choose(logits_LBV, luck_B).where(open_B, first.pad_id)[:, None]
        made_BT = torch.cat([made_BT, fresh_BT], 1)
        mask_BT = torch.cat([mask_BT, torch.ones_like(mask_BT[:, :1])], 1)
        open_B = open_B & ~torch.isin(fresh_BT[:, 0], ends)
        length_B += open_B
        if stopped is not None:
            open_B = open_B & ~stopped(made_BT, None)
        if not open_B.any():
            break
    return [row[:length] for row, length in zip(made_BT.tolist(), length_B.tolist(), strict=True)]


def end_marks(loaded: Loaded) -> list[int]:
    """The tokens that end a text, as transformers' generate takes them; there may be none."""
    settings = getattr(loaded.module, "generation_config", None) or loaded.module.config
    ends = settings.eos_token_id
    return [] if ends is None else [ends] if isinstance(ends, int) else list(ends)


class Reader:
    """A voice in the midst of a batch of texts: each of its learners has a cache of its own."""

    def __init__(self, voice: Voice):
        self.module, self.count = voice.loaded.module.eval(), voice.count
        known = inspect.signature(self.module.forward).parameters
        self.numbered = "position_ids" in known  # ALiBi reads positions from the mask
        self.last_alone = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        self.cache: Any = None

    def read(self, fresh_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """logits_LBV of what follows; `fresh_BT` are the tokens not read yet, the last columns of `mask_BT`."""
        position_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)[:, -fresh_BT.shape[1] :]
        out = self.module(
            input_ids=fresh_BT.repeat(self.count, 1),
            attention_mask=mask_BT.repeat(self.count, 1),
            **({"position_ids": position_BT.repeat(self.count, 1)} if self.numbered else {}),
            **self.last_alone,
            past_key_values=self.cache,
            use_cache=True,
        )
        if self.cache is None:
            for layer in getattr(out.past_key_values, "layers", ()):
                if type(layer).__name__ == "DynamicLayer":
                    layer.update = partial(append, layer)
        self.cache = out.past_key_values
        return out.logits[:, -1].unflatten(0, (self.count, -1))


def append(layer: Any, keys_RHTD: Tensor, values_RHTD: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
    """transformers' DynamicLayer.update with room to grow: its own copies every key and value at every token."""
    start, rooms = layer.keys.shape[-2], layer.__dict__.setdefault("rooms", {})
    end = start + keys_RHTD.shape[-2]
    for name, fresh in (("keys", keys_RHTD), ("values", values_RHTD)):
        if name not in rooms or end > rooms[name].shape[-2]:
            rooms[name] = fresh.new_empty(*fresh.shape[:2], end + 32 + end // 4, fresh.shape[-1])
            rooms[name][:, :, :start] = getattr(layer, name)
        rooms[name][:, :, start:end] = fresh
        setattr(layer, name, rooms[name][:, :, :end])
    return layer.keys, layer.values
