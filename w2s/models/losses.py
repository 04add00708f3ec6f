"""Losses on candidates' scores.

Each of LOSSES takes scores_BK (any real numbers, -inf where an example has no such candidate), target_BK (rows sum to 1
over the candidates) and progress (the share of the training done, 0 to 1), and returns loss_B, one value per example;
the trainer weights and averages them. The model's opinion is softmax(scores). No loss depends on the other rows of a
batch, so micro-batches and processes change nothing. SEQUENCE_LOSSES are for written answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from w2s.config.registry import pick
from w2s.store.records import BadInput, Task

if TYPE_CHECKING:  # names and options are checked before anything runs; torch takes seconds to import
    from torch import Tensor

NEVER = -1e30
"""A logit of probability 0 that, unlike -inf, keeps the gradient finite where all others are masked."""


def cross_entropy(scores_BK: Tensor, target_BK: Tensor, progress: float = 1.0) -> Tensor:
    """Cross-entropy with the whole target distribution."""
    return -(target_BK * log_probs(scores_BK)).sum(-1)


def confidence(
    scores_BK: Tensor,
    target_BK: Tensor,
    progress: float = 1.0,
    *,
    strength: float = 0.5,
    warmup_share: float = 0.2,
    threshold: float = 0.0,
) -> Tensor:
    """Cross-entropy with a mix of the label and the model's own hardened answer, so that it may disagree.

    Burns et al. 2023 (arXiv 2312.09390, eq. 1): (1-a)·CE(f, weak) + a·CE(f, hardened f), where a rises linearly from 0
    to `strength` over the first `warmup_share` of the training and stays there. Their threshold balances two fixed
    classes over a batch; candidates have no identity across examples, so here the model's answer is its most probable
    candidate if that has a probability of at least `threshold`, else the label.
    """
    own_BK = scores_BK.detach().softmax(-1)
    top_B1, answer_B1 = own_BK.max(-1, keepdim=True)
    hard_BK = target_BK.new_zeros(target_BK.shape).scatter_(-1, answer_B1, 1.0)
    share_B1 = strength * ramp(progress, warmup_share) * (top_B1 >= threshold)
    return cross_entropy(scores_BK, (1 - share_B1) * target_BK + share_B1 * hard_BK)


def product(
    scores_BK: Tensor,
    target_BK: Tensor,
    progress: float = 1.0,
    *,
    label_power: float = 1.0,
    own_power: float = 1.0,
    warmup_share: float = 0.2,
) -> Tensor:
    """Cross-entropy with the normalised product of the label and the model's own opinion.

    The target is label^label_power · own^(own_power · ramp), as in the code of Burns et al. 2023 (`product_loss_fn`);
    the ramp goes from 0 to 1 over the first `warmup_share` of the training. Computed in log space.
    """
    mask_BK = ~scores_BK.isneginf()
    mixed_BK = own_power * ramp(progress, warmup_share) * log_probs(scores_BK.detach())
    mixed_BK = mixed_BK + label_power * target_BK.clamp_min(1e-30).log()
    return cross_entropy(scores_BK, mixed_BK.masked_fill(~mask_BK, -math.inf).softmax(-1))


def kl(scores_BK: Tensor, target_BK: Tensor, progress: float = 1.0, *, reverse: bool = False) -> Tensor:
    """Kullback-Leibler divergence KL(label, model), or with `reverse` KL(model, label), which seeks one mode.

    0 where the two agree. KL(label, model) has the gradient of cross_entropy. Target probabilities are raised to at
    least 1e-6, so that the reverse divergence from a hard label is finite.
    """
    log_probs_BK = log_probs(scores_BK)
    if reverse:
        own_BK = scores_BK.softmax(-1)
        return (own_BK * (log_probs_BK - target_BK.clamp_min(1e-6).log())).sum(-1)
    return target_BK.xlogy(target_BK).sum(-1) - (target_BK * log_probs_BK).sum(-1)


def log_probs(scores_BK: Tensor) -> Tensor:
    """log softmax over the real candidates; 0 where there is none, so that 0 · -inf never becomes not-a-number."""
    return scores_BK.log_softmax(-1).masked_fill(scores_BK.isneginf(), 0.0)


def ramp(progress: float, warmup_share: float) -> float:
    """0 at the start, 1 from the end of the warm-up on, linear between."""
    return 1.0 if warmup_share <= 0 else min(1.0, progress / warmup_share)


def pooled(logits_PV: Tensor, token_PJ: Tensor, prob_PJ: Tensor) -> Tensor:
    """logp_P: the expected log-probability of soft targets; the mass they lack to 1 is on the rest of the vocabulary.

    sum_j q_j log p_j + q_rest log(1 - sum_j p_j): all other tokens count as one. The rest is summed in log space over
    the other logits, so that a tiny rest keeps its digits. Targets (rounded to float16) are divided by their sum if it
    is above 1 or there are no other tokens. Where all probabilities are 0 there is no target, and logp is 0.
    """
    rest_P = (1 - prob_PJ.sum(-1)).clamp_min(0.0) * (token_PJ.shape[-1] < logits_PV.shape[-1])
    total_P = prob_PJ.sum(-1) + rest_P
    logit_PJ = logits_PV.gather(-1, token_PJ)
    others_P = logits_PV.scatter(-1, token_PJ, NEVER).logsumexp(-1)
    all_P = logit_PJ.logsumexp(-1).logaddexp(others_P)
    logp_P = (prob_PJ * (logit_PJ - all_P[:, None])).sum(-1) + rest_P * (others_P - all_P)
    return (logp_P / total_P).where(prob_PJ.sum(-1) > 0, 0.0)


def likelihood(scores_BK: Tensor, target_BK: Tensor, progress: float = 1.0) -> Tensor:
    """Negative log-likelihood of whole texts: the cross-entropy with the target distribution over candidate texts.

    For written answers. Scores are already log-probabilities of texts: a text competes with every possible text, not
    with the other candidates. Losses that need the model's own answer are not offered, as it would have to be written.
    """
    return -(target_BK * scores_BK.masked_fill(target_BK == 0, 0.0)).sum(-1)


LOSSES = {"cross_entropy": cross_entropy, "confidence": confidence, "product": product, "kl": kl}
SEQUENCE_LOSSES = {"cross_entropy": likelihood}


def pick_loss(spec: Mapping[str, Any] | str, task: Task, *, key: str = "train.loss") -> Callable:
    """The loss that `spec` names, for examples of `task`; BadInput lists the possible ones."""
    if task == "choice":
        return pick(LOSSES, spec, key=key)
    name = spec if isinstance(spec, str) else spec.get("name")
    if name in LOSSES and name not in SEQUENCE_LOSSES:
        known = ", ".join(SEQUENCE_LOSSES)
        raise BadInput(f"{key}: {name!r} compares choices; for written answers it can be: {known}")
    return pick(SEQUENCE_LOSSES, spec, key=key)
