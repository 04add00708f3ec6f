"""Scores of candidates: one differentiable number per candidate, whatever kind of model gives it.

lm: the log-likelihood of the candidate after the prompt, summed over its tokens; pair: the classification head's output
for prompt and candidate; towers: 20 times the cosine of the encoded prompt and candidate. A model's opinion is the
softmax of its scores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from w2s.models import batches, losses
from w2s.models.batches import Batch
from w2s.store.records import Example, Predictions, softmax

if TYPE_CHECKING:
    from w2s.models.load import Loaded

SCALE = 20.0
"""Score of two encodings that point the same way; the inverse temperature that sentence-transformers trains with."""
LOGITS_AT_ONCE = 2**27
"""Most logits held at a time while predicting: 0.5 GB in float32."""
TOLERANCE = 1e-4


class Scorer(nn.Module):
    """`scores` as a module, which is what DeepSpeed wraps: Scorer(loaded)(batch) -> scores_BK."""

    def __init__(self, loaded: Loaded):
        super().__init__()
        self.loaded = loaded
        self.module = loaded.module

    def forward(self, batch: Batch) -> Tensor:
        return scores(self.loaded, batch)


def scores(loaded: Loaded, batch: Batch) -> Tensor:
    """scores_BK in float32, -inf where there is no candidate; gradients flow to what is trainable."""
    flat = KINDS[loaded.model.kind](loaded, batch)
    return flat.view(batch.mask_BK.shape).masked_fill(~batch.mask_BK, -torch.inf)


def lm_scores(loaded: Loaded, batch: Batch) -> Tensor:
    """Sum of the log-probabilities of each candidate's tokens, times their factors where there are any, flat (B·K).

    With soft targets a token's log-probability is that of what is wanted in its place (`losses.pooled`).
    """
    if batch.soft_PJ is not None:
        logp_P = losses.pooled(token_logits(loaded, batch), *batch.soft_PJ)
    else:
        logp_P = wanted_log_probs(loaded, batch)
    if batch.factor_P is not None:
        logp_P = logp_P * batch.factor_P
    return torch.zeros(batch.mask_BK.numel(), device=logp_P.device).index_add(0, batch.owner_P, logp_P)


def token_logits(loaded: Loaded, batch: Batch) -> Tensor:
    """logits_PV in float32 that predict each wanted token, in the batch's order; gradients flow.

    All of them at once, so it is for the caller to keep P times V small. V is the head's width, which may be more than
    the tokenizer's vocabulary.
    """
    hidden_PD = hidden_states(loaded, batch)[batch.from_P]
    return (loaded.module.get_output_embeddings()(hidden_PD) if loaded.head_alone else hidden_PD).float()


def wanted_log_probs(loaded: Loaded, batch: Batch) -> Tensor:
    """logp_P of the wanted tokens; while predicting, at most LOGITS_AT_ONCE logits are held."""
    hidden_UD = hidden_states(loaded, batch)
    vocabulary = loaded.module.config.get_text_config().vocab_size
    if torch.is_grad_enabled() or len(hidden_UD) * vocabulary <= LOGITS_AT_ONCE:
        return token_log_probs(loaded, hidden_UD, batch.from_P, batch.token_P)
    # The states are in rows and from_P rises with them, but for the prompt's last, which all candidates share.
    logp_P = torch.empty(len(batch.from_P), device=hidden_UD.device)
    step = max(1, LOGITS_AT_ONCE // vocabulary)
    for start in range(0, len(hidden_UD), step):
        here = (batch.from_P >= start) & (batch.from_P < start + step)
        part_UD = hidden_UD[start : start + step]
        logp_P[here] = token_log_probs(loaded, part_UD, batch.from_P[here] - start, batch.token_P[here])
    return logp_P


def hidden_states(loaded: Loaded, batch: Batch) -> Tensor:
    """States (U, D) at the positions that predict a candidate's token, or logits if the head cannot be run apart."""
    inputs = dict(batch.inputs[0])
    if "attention_mask" in inputs:
        dtype = loaded.module.dtype
        closed = torch.tensor(torch.finfo(dtype).min, dtype=dtype, device=inputs["attention_mask"].device)
        inputs["attention_mask"] = torch.where(inputs["attention_mask"], closed.new_zeros(()), closed)
    if not loaded.head_alone:
        return loaded.module(**inputs, use_cache=False).logits[batch.row_U, batch.at_U]
    return loaded.module.base_model(**inputs, use_cache=False).last_hidden_state[batch.row_U, batch.at_U]


def token_log_probs(loaded: Loaded, hidden_UD: Tensor, from_P: Tensor, token_P: Tensor) -> Tensor:
    """Log-probability of each wanted token; the vocabulary head sees only these states, each once."""
    logits_UV = loaded.module.get_output_embeddings()(hidden_UD) if loaded.head_alone else hidden_UD
    logits_UV = logits_UV.float()
    return logits_UV[from_P, token_P] - logits_UV.logsumexp(-1)[from_P]


def pair_scores(loaded: Loaded, batch: Batch) -> Tensor:
    """The classification head's single output for each row, flat (B·K)."""
    module, inputs = loaded.module, batch.inputs[0]
    if isinstance(getattr(module, "score", None), nn.Linear):
        # Decoders: transformers looks for the last token that is not padding by its id; we know it from the mask.
        hidden_RTD = module.base_model(**inputs, use_cache=False).last_hidden_state
        logit_R = module.score(hidden_RTD[torch.arange(len(hidden_RTD)), batch.last_R])[:, 0]
    else:
        logit_R = module(**inputs).logits[:, 0]
    return spread(logit_R, batch)


def tower_scores(loaded: Loaded, batch: Batch) -> Tensor:
    """20 · cosine of the mean-pooled encodings of prompt and candidate, flat (B·K)."""
    candidates, prompts = (mean_states(loaded.module, inputs) for inputs in batch.inputs)
    prompt_R = batch.owner_P // batch.mask_BK.shape[1]
    return spread(SCALE * nn.functional.cosine_similarity(candidates, prompts[prompt_R], dim=-1), batch)


def mean_states(module: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    hidden_RTD = module(**inputs).last_hidden_state.float()
    mask_RT1 = inputs["attention_mask"][..., None].to(hidden_RTD.dtype)
    return (hidden_RTD * mask_RT1).sum(1) / mask_RT1.sum(1)


def spread(logit_R: Tensor, batch: Batch) -> Tensor:
    flat = torch.zeros(batch.mask_BK.numel(), device=logit_R.device)
    return flat.index_copy(0, batch.owner_P, logit_R.float())


KINDS = {"lm": lm_scores, "pair": pair_scores, "towers": tower_scores}


def predict(
    loaded: Loaded,
    examples: Sequence[Example],
    *,
    by: str = "model",
    batch_tokens: int = 16384,
    width: int | None = None,
    skip: int = 0,
) -> Iterator[Predictions]:
    """The model's opinions, chunk by chunk (longest questions first); K = `width` or the most candidates.

    The chunks depend only on the examples and `batch_tokens`; `skip` leaves out the first so many, which lets a job
    that was killed go on. An example with a score that is not finite is an abstention with a uniform row.
    """
    ids = np.array([example.id for example in examples])
    count_N = np.array([len(example.choices) for example in examples])
    for index, scores_NK in score_chunks(loaded, examples, batch_tokens=batch_tokens, width=width, skip=skip):
        yield as_predictions(ids[index], scores_NK, count_N[index], by)


def score_chunks(
    loaded: Loaded, examples: Sequence[Example], *, batch_tokens: int = 16384, width: int | None = None, skip: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(positions in `examples`, their scores_NK) chunk by chunk, as `predict` takes them."""
    width = width or max((len(example.choices) for example in examples), default=1)
    encoded = batches.encode(loaded, examples)
    loaded.module.eval()
    for chunk in batches.plan_chunks([one.tokens for one in encoded], batch_tokens)[skip:]:
        with torch.inference_mode():
            batch = batches.collate(loaded, [encoded[at] for at in chunk], width)
            yield chunk, scores(loaded, batch).double().cpu().numpy()


def as_predictions(ids: np.ndarray, scores_NK: np.ndarray, count_N: np.ndarray, by: str) -> Predictions:
    """Scores as a record: softmax over the candidates, an abstention where one of their scores is not finite."""
    mask_NK = np.arange(scores_NK.shape[1]) < np.asarray(count_N)[:, None]
    abstained_N = (~np.isfinite(scores_NK) & mask_NK).any(1)
    probs_NK = softmax(np.where(abstained_N[:, None], 0.0, scores_NK), mask_NK)
    return Predictions(ids, probs_NK, mask_NK, abstained_N, by)


def probe(loaded: Loaded) -> tuple[bool, bool]:
    """(head_alone, shares_prompt): which shortcuts leave this model's log-likelihoods as they are, to 1e-4.

    Compared on two short rows of made-up tokens: the head run apart from the body against the module's own logits (some
    scale or cap them), and the shared prompt against one row per candidate (ALiBi, recurrence and some other attention
    cannot follow a tree). A window narrower than the longest row is known from the configuration.
    """
    together, apart = made_up(loaded)
    plain = dataclasses.replace(loaded, head_alone=False, shares_prompt=False)
    reference = reading(plain, apart)
    head_alone = same(loaded, reading(dataclasses.replace(plain, head_alone=True), apart), reference)
    fits = window(loaded) is None or window(loaded) >= loaded.max_tokens
    shares = fits and same(loaded, reading(dataclasses.replace(plain, head_alone=head_alone), together), reference)
    return head_alone, shares


def looks_back(loaded: Loaded) -> bool:
    """Whether what follows a token leaves its score as it is: true of language models, false of encoders."""
    plain = dataclasses.replace(loaded, head_alone=False, shares_prompt=False)
    _, apart = made_up(loaded)
    beside, alone = reading(plain, apart), reading(plain, apart[1:])
    return beside is not None and same(loaded, beside[1:], alone)


def made_up(loaded: Loaded) -> tuple[list[batches.Encoded], list[batches.Encoded]]:
    """Two rows of made-up tokens with three candidates each, sharing their prompt and not."""
    rng = np.random.default_rng(0)
    vocabulary = loaded.module.get_input_embeddings().weight.shape[0]
    prompts = [rng.integers(vocabulary, size=size).tolist() for size in (5, 3)]
    answers = [[rng.integers(vocabulary, size=size).tolist() for size in (3, 1, 4)] for _ in prompts]
    both = list(zip(prompts, answers, strict=True))
    together = [batches.Encoded((batches.pack(p, a),), 3) for p, a in both]
    apart = [tuple(batches.pack(p, [c], owner=at) for at, c in enumerate(a)) for p, a in both]
    return together, [batches.Encoded(rows, 3) for rows in apart]


def reading(loaded: Loaded, encoded: list[batches.Encoded]) -> Tensor | None:
    """Scores without gradient, or nothing where the model refuses such input."""
    training = loaded.module.training
    loaded.module.eval()
    try:
        with torch.no_grad():
            return scores(loaded, batches.collate(loaded, encoded))
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, NotImplementedError):
        return None
    finally:
        loaded.module.train(training)


def same(loaded: Loaded, a: Tensor | None, b: Tensor | None) -> bool:
    # In bfloat16 two ways of computing the same sum of log-probabilities differ in the third digit.
    tolerance = TOLERANCE if loaded.module.dtype == torch.float32 else 0.03
    return a is not None and b is not None and bool(torch.allclose(a, b, rtol=tolerance, atol=tolerance))


def window(loaded: Loaded) -> int | None:
    """How far back the model's narrowest attention looks, or None = to the beginning."""
    config = loaded.module.config
    if getattr(config, "use_sliding_window", True) is False:
        return None
    widths = [getattr(config, name, None) for name in ("sliding_window", "window_size", "attention_chunk_size")]
    return min((width for width in widths if isinstance(width, int) and width > 0), default=None)
