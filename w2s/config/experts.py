"""The part of the configuration that is about mixtures of experts."""

from dataclasses import dataclass
from typing import Literal

from w2s.config.values import Count, NotNegative


@dataclass(frozen=True)
class Experts:
    """Mixtures of experts: the student's start with student.start: upcycled, and the control `experts`, the
    committee's learners as one model. Only Llama, Mistral and Qwen3 models can become experts."""

    count: Count = 4
    """For student.start: upcycled: copies of each MLP."""
    active: Count = 2
    """How many experts a token passes through."""
    balance: NotNegative = 0.01
    """Strength of the load-balancing loss in training, on each example; 0 is none. A published mixture (Mixtral,
    Qwen3-MoE, OLMoE) as a model brings its own: router_aux_loss_coef in its configuration."""
    router: Literal["zero", "hidden", "weights"] = "weights"
    """For the control: what decides which learners a token hears. zero: almost equal gates, and chance decides; hidden:
    the questions that the learners' rounds weighted; weights: those of easy_holdout that a learner gets right and the
    committee does not (questions with choices)."""
    rest: Literal["mean", "base"] = "mean"
    """For the control: attention, norms and embeddings are the learners' mean by alpha, or their base's."""
