"""Scores of candidates: one differentiable number per candidate, for every kind of model.

Each kind scores in its own file (see `kinds`). A model's opinion is the softmax of its scores.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from w2s.models import batches, routing
from w2s.models.internals import routers
from w2s.models.kinds import KINDS
from w2s.models.records import Batch, Loaded
from w2s.models.rows import within
from w2s.store.records import Example, Predictions, softmax


class Scorer(nn.Module):
    """`scores` as a module, for DeepSpeed to wrap: Scorer(loaded)(batch) -> scores_BK.

    In training, `balance_B` is the last batch's load-balancing loss of a mixture of experts, times the coefficient in
    its configuration; None for other models. transformers has the loss only where `output_router_logits` is set, which
    is not the default, and where it computes the whole loss.
    """

    def __init__(self, loaded: Loaded):
        super().__init__()
        self.loaded, self.module = loaded, loaded.module
        self.routers = routers(loaded.module)
        self.balance_B: Tensor | None = None

    def forward(self, batch: Batch) -> Tensor:
        config = self.module.config
        strength = getattr(config, "router_aux_loss_coef", 0.0) if self.training and self.routers else 0.0
        if not strength:
            self.balance_B = None
            return scores(self.loaded, batch)
        with routing.watch(self.routers) as seen:
            flat = scores(self.loaded, batch)
        logits_LSE = [logits_SE for _, logits_SE in seen[: len(self.routers)]]
        self.balance_B = strength * routing.balance(logits_LSE, batch, config.num_experts_per_tok)
        return flat

    def around(self, module: nn.Module) -> "Scorer":
        """The same scores by another module."""
        return Scorer(dataclasses.replace(self.loaded, module=module))


def scores(loaded: Loaded, batch: Batch) -> Tensor:
    """scores_BK in float32, -inf where there is no candidate; gradients flow to what is trainable."""
    flat = KINDS[loaded.model.kind].scores(loaded, batch)
    return flat.view(batch.mask_BK.shape).masked_fill(~batch.mask_BK, -torch.inf)


def predict(
    loaded: Loaded, examples: Sequence[Example], *, by: str = "model", batch_tokens: int | None = None, skip: int = 0
) -> Iterator[Predictions]:
    """The model's opinions, chunk by chunk (longest questions first); K = the most candidates.

    The chunks depend only on the examples and `batch_tokens` (None: batches.most_tokens); the first `skip` are left
    out, so that a killed job can resume. An example with a score that is not finite is an abstention, its row uniform.
    """
    ids = np.array([example.id for example in examples])
    count_N = np.array([len(example.choices) for example in examples])
    for index, scores_NK in score_chunks(loaded, examples, batch_tokens=batch_tokens, skip=skip):
        yield as_predictions(ids[index], scores_NK, count_N[index], by)


def score_chunks(
    loaded: Loaded, examples: Sequence[Example], *, batch_tokens: int | None = None, skip: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(positions in `examples`, their scores_NK) chunk by chunk, as `predict` takes them."""
    width = max((len(example.choices) for example in examples), default=1)
    encoded, batch_tokens = batches.encode(loaded, examples), batch_tokens or batches.most_tokens(loaded)
    loaded.module.eval()
    for chunk in batches.plan_chunks([example.tokens for example in encoded], batch_tokens)[skip:]:
        with torch.inference_mode():
            batch = batches.collate(loaded, [encoded[at] for at in chunk], width)
            yield chunk, scores(loaded, batch).double().cpu().numpy()


def as_predictions(ids: np.ndarray, scores_NK: np.ndarray, count_N: np.ndarray, by: str) -> Predictions:
    """Scores as a record: softmax over the candidates; an abstention if one of their scores is not finite."""
    mask_NK = within(count_N, scores_NK.shape[1])
    abstained_N = (~np.isfinite(scores_NK) & mask_NK).any(1)
    probs_NK = softmax(np.where(abstained_N[:, None], 0.0, scores_NK), mask_NK)
    return Predictions(ids, probs_NK, mask_NK, abstained_N, by)
