"""One text from several learners: at every step their token distributions are mixed by alpha (EnsemW2S, 2410.04571).

A committee of one writes what transformers' generate writes. Learners that are LoRA adapters of one base share its
weights and its forward pass: see `adapters`.

Letters: L learners, B rows, M rows among them, S steps, V vocabulary, J most probable tokens.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from w2s.config.registry import did_you_mean
from w2s.models import window
from w2s.models.chat import find_head
from w2s.models.generate import Made, Voice, cut, end_marks, vocabulary, write
from w2s.models.records import Loaded
from w2s.models.tokenizing import encode_prompts
from w2s.store.records import BadInput

TOKENS_AT_ONCE = 2**16
"""Most tokens (prompts and texts of all learners) in the caches at a time; 16 rows are always allowed."""
LOGITS_AT_ONCE = 2**25
"""Most logits of all learners per step: 128 MB in float32."""


@dataclass(frozen=True)
class Written:
    """Text `number` for prompt `prompt` (its index), and its probability under the mixture of the learners.

    `tokens` are the text's own, without the end mark and without those that begin a stop text. `logp` is their
    log-probability under the mixture at temperature 1, plus that of the end mark if there is one. `ended`: by an end
    mark or a stop text, not for lack of room. token_SJ, prob_SJ are the most probable tokens in place of each of
    `tokens` and, if `ended`, of what ended the text.
    """

    prompt: int
    number: int
    text: str
    tokens: list[int]
    logp: float
    ended: bool
    token_SJ: np.ndarray
    prob_SJ: np.ndarray


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
    seed: int = 0,
    top: int = 0,
    batch: int | None = None,
    skip: int = 0,
) -> Iterator[list[Written]]:
    """`samples` continuations of each prompt by all learners together, each cut before the first `stop` text.

    `learners` are models with one tokenizer, or the voices that `share` makes; `alpha_L` (≥ 0, any scale) has one
    number per learner, a voice's in the order of its adapters. `mixture` is a name in MIXTURES. Temperature 0 is
    greedy, and all samples are equal; others apply to the mixture, not to each learner. mix="disagree" takes the token
    that all learners rank first wherever they agree and mixes elsewhere (arXiv 2510.15346); for greedy decoding this
    makes no difference. The `top` most probable tokens of every step are kept. A text depends on `seed`, its prompt and
    its number among the samples, and up to rounding not on the other rows. Long prompts lose their beginning, down to
    half of what the model can read; penalties in a generation_config are ignored. BadInput: different tokenizers, or
    an alpha out of range.

    Texts come batch by batch (of `batch` texts, else as many as fit), longest prompts first. The first `skip` batches
    are left out, so that a killed job can resume.
    """
    voices = [learner if isinstance(learner, Voice) else Voice(learner) for learner in learners]
    check(voices, alpha_L, mix)
    vote_L = torch.as_tensor(alpha_L, dtype=torch.float64)
    vote_L = (vote_L / vote_L.sum()).float().to(voices[0].loaded.module.device)
    choose = partial(next_tokens, alpha_L=vote_L, mixture=find_mixture(mixture), mix=mix, temperature=temperature)
    rows, limit_N, _ = fitted(voices, prompts, max_new_tokens)
    longest_first, count = sorted(range(len(rows)), key=lambda at: -len(rows[at])), samples if temperature > 0 else 1
    order = [(at, number) for at in longest_first for number in range(count)]
    size_N = [len(row) + limit for row, limit in zip(rows, limit_N, strict=True)]
    for chosen in list(plan(order, size_N, batch, voices))[skip:]:
        prompts_B, limit_B = [rows[at] for at, _ in chosen], [limit_N[at] for at, _ in chosen]
        luck_BS = np.stack([luck(rows[at], number, seed, max(limit_B)) for at, number in chosen])
        with torch.inference_mode():
            endings = write(voices, prompts_B, luck_BS, choose, limit_B=limit_B, stop=stop, top=top)
        texts = [finish(voices[0].loaded, *place, made, stop) for place, made in zip(chosen, endings, strict=True)]
        yield texts if count == samples else [replace(text, number=at) for text in texts for at in range(samples)]


def fitted(
    voices: Sequence[Voice], prompts: Sequence[str], max_new_tokens: int
) -> tuple[list[list[int]], list[int], list[bool]]:
    """Prompts in tokens that every voice can read, how many tokens may follow each, and which prompts were cut."""
    first, room = voices[0].loaded, count_readable(voices)
    whole = encode_prompts(first, prompts)
    leads = window.lead_of(first.tokenizer, whole, find_head(first))
    rows = [window.keep_end(row, room, max_new_tokens, lead) for row, lead in zip(whole, leads, strict=True)]
    limits = [max(1, min(max_new_tokens, room - len(row))) for row in rows]
    return rows, limits, [row != uncut for row, uncut in zip(rows, whole, strict=True)]


def count_readable(voices: Sequence[Voice]) -> int:
    """How many tokens every voice can read."""
    return min(getattr(voice.loaded.module.config, "max_position_embeddings", None) or 2**20 for voice in voices)


def plan(
    order: Sequence[tuple[int, int]], size_N: Sequence[int], batch: int | None, voices: Sequence[Voice]
) -> Iterator[Sequence[tuple[int, int]]]:
    """Batches of texts (prompt, number) in `order`, of `batch` texts each, or as many as the budgets allow."""
    count = sum(voice.count for voice in voices)
    start = 0
    while start < len(order):
        fit = min(TOKENS_AT_ONCE // size_N[order[start][0]], LOGITS_AT_ONCE // vocabulary(voices)) // count
        size = batch or max(16, fit)
        yield order[start : start + size]
        start += size


def finish(loaded: Loaded, prompt: int, number: int, made: Made, stop: Sequence[str]) -> Written:
    """The text of the tokens, cut before the first `stop` text, with the tokens that lie wholly in it."""

    def text_of(tokens: list[int]) -> str:
        return loaded.tokenizer.decode(tokens, skip_special_tokens=True)

    tokens, marked = made.tokens, made.tokens[-1] in end_marks(loaded)
    size = len(tokens) - marked
    whole = text_of(tokens[:size])
    text = cut(whole, stop)
    if stopped := len(text) < len(whole):
        size = bisect.bisect_right(range(size + 1), len(text), key=lambda upto: len(text_of(tokens[:upto]))) - 1
        marked = False
    ended = marked or stopped
    logp = float(made.logp_S[: size + marked].sum(dtype=np.float64))
    tops = made.token_SJ[: size + ended], made.prob_SJ[: size + ended]
    return Written(prompt, number, text, tokens[:size], logp, ended, *tops)


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
        why = "their tokenizers differ, so they cannot mix token by token"
        raise BadInput(f"learners: {why}; label.made: winner lets each sample")


def next_tokens(
    logits_LBV: Tensor, luck_B: Tensor, *, alpha_L: Tensor, mixture: Mixture, mix: str, temperature: float
) -> tuple[Tensor, Tensor]:
    """The committee's next token for each row (B), and its log-probabilities of all tokens (B, V).

    `luck_B` in [0, 1) decides the draw; alphas sum to 1.
    """
    if not alpha_L.all():  # a learner without a vote cannot disagree
        logits_LBV, alpha_L = logits_LBV[alpha_L > 0], alpha_L[alpha_L > 0]
    logits_LBV = logits_LBV.float()  # argmax, too, is several times as fast as in bfloat16 on a CPU
    if len(logits_LBV) == 1:  # any mixture of one learner is that learner
        logp_BV = logits_LBV[0].log_softmax(-1)
    else:
        logp_BV = mixture.log(torch.tensordot(alpha_L, mixture.part(logits_LBV), 1))
    top_LB = logits_LBV.argmax(-1)
    token_B = top_LB[0].clone()
    # Under greedy decoding, a token that all rank first is also first in the mixture; this avoids rounding.
    open_M = torch.arange(len(token_B), device=token_B.device)
    if temperature == 0 or mix == "disagree":
        open_M = open_M[(top_LB != token_B).any(0)]
    if len(open_M):
        logp_MV = logp_BV if len(open_M) == len(token_B) else logp_BV[open_M]
        token_B[open_M] = logp_MV.argmax(-1) if temperature == 0 else draw(logp_MV / temperature, luck_B[open_M])
    return token_B, logp_BV


class Mixture(NamedTuple):
    """Several token distributions as one: the alpha-weighted mean of `part(logits)`, whose log-probabilities are `log`.

    The mean is a running sum, so learners can be added one by one.
    """

    part: Callable[[Tensor], Tensor]
    log: Callable[[Tensor], Tensor]


MIXTURES = {
    # the mean of the probabilities, and their geometric mean
    "linear": Mixture(lambda logits: logits.softmax(-1), torch.log),
    "log_linear": Mixture(lambda logits: logits.log_softmax(-1), lambda mean: mean.log_softmax(-1)),
}


def find_mixture(name: str) -> Mixture:
    if name not in MIXTURES:
        near, known = did_you_mean(name, MIXTURES), ", ".join(MIXTURES)
        raise BadInput(f"mixture: {name!r} is not known{near}; it can be: {known}")
    return MIXTURES[name]


def luck(tokens: Sequence[int], number: int, seed: int, steps: int) -> np.ndarray:
    """The random numbers in [0, 1) of one text: a stream of its own, whatever else is in the batch."""
    prompt = hashlib.sha256(np.asarray(tokens, dtype=np.int64).tobytes()).digest()
    return np.random.default_rng([seed, number, int.from_bytes(prompt[:8])]).random(steps)


def draw(logits_BV: Tensor, luck_B: Tensor) -> Tensor:
    """Tokens drawn by inverting the distribution function; a token of probability 0 is never drawn."""
    upto_BV = logits_BV.double().softmax(-1).cumsum(-1)
    upto_BV /= upto_BV[:, -1:].clone()
    return torch.searchsorted(upto_BV, luck_B.to(upto_BV)[:, None], right=True)[:, 0]
