"""The part of the configuration that is about merging learners into one model."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from w2s.config.values import Count, MethodOf, NotNegative, Positive, method


@dataclass(frozen=True)
class Merging:
    """The committee's learners merged into one model of a learner's size: for label.teacher: merged, student.start:
    merged and controls.merged. They must be language models that start from the same trained weights."""

    method: Annotated[dict, MethodOf("merges")] = field(default_factory=method("mean"))
    """How their weights are merged, tensor by tensor; see `w2s methods merges`."""
    weights: Literal["boosting", "uniform", "searched"] | list[NotNegative] = "boosting"
    """How much each learner counts. boosting: as in the committee (label.alphas); uniform: all the same; searched: by
    CMA-ES from the committee's on half of easy_holdout, and judged on the other half; or a list with a number for each
    of boosting.rounds, of which those of the committee's learners count."""
    evaluations: Count = 60
    """For weights: searched: about how many merges are tried."""
    scale: Positive = 1.0
    """How far along the merged step from the base to go: 1 is the merge itself."""
