"""Ways to merge models of one base, each a plain function of one tensor.

A method takes a Tensor (the base's values, what each learner adds to them, the weights) and returns what the merged
model adds to the base; `merge_tensor` then applies the scale. All sums are in float32. Weights are at least 0 and sum
to 1. Where the order of learners could matter (rounding, random draws), they stand in the order of their content, so
that the result does not depend on how they were listed.

Letters: R learners; a tensor's own shape is written as _S, its rows as X and columns as Y.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from w2s.config.registry import pick
from w2s.config.values import InnerShare, PartialShare, Range, Share
from w2s.store.records import BadInput

SomeShare = Annotated[float, Range("above 0, at most 1", above=0, at_most=1)]
PARALLEL = 0.9995
"""Deltas whose cosine is beyond this (in absolute value) are interpolated along a line, as in mergekit."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of R learners."""

    name: str
    base_S: np.ndarray
    deltas_R: Sequence[np.ndarray]
    """Learner minus base, float32."""
    weight_R: np.ndarray
    """At least 0; they sum to 1."""
    draw: Callable[[int], np.random.Generator]
    """Learner -> its random numbers for this tensor, the same whatever else is merged, and in whatever order."""
    statistics_R: Sequence[np.ndarray] | None = None
    """What `fisher` and `regmean` know of each learner: the Fisher information of each value, or the inputs' Gram
    matrix."""


def mean(tensor: Tensor) -> np.ndarray:
    """The weighted mean of the deltas: task arithmetic, or a model soup (arXiv 2203.05482, 2212.04089).

    With the alphas as weights it equals, to second order in the deltas, the log-linear vote of the committee.
    """
    return sum_weighted(tensor.deltas_R, tensor.weight_R)


def slerp(tensor: Tensor) -> np.ndarray:
    """Two deltas interpolated along the arc between them; the weight of the second is the share of the way.

    Of deltas, not of weights: fine-tuned models are so nearly parallel that there it would be the mean.
    """
    if len(tensor.deltas_R) != 2:
        raise BadInput(f"method: slerp takes 2 models; {len(tensor.deltas_R)} given")
    a, b = tensor.deltas_R
    norms = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    cosine = float(np.vdot(a, b)) / norms if norms else 1.0
    if abs(cosine) > PARALLEL:
        return mean(tensor)
    angle = np.arccos(cosine)
    shares = np.sin(tensor.weight_R * angle) / np.sin(angle)
    return sum_weighted(tensor.deltas_R, shares)


def ties(tensor: Tensor, *, density: SomeShare = 0.2) -> np.ndarray:
    """Trim, elect signs, and average those that agree (Yadav et al., arXiv 2306.01708).

    The largest `density` of each delta stay; each value's sign is that of the weighted sum, and the result is the
    weighted mean of the deltas with that sign. Published implementations differ in where the weights enter; with equal
    weights, all agree with this one.
    """
    return elect(tensor, [keep_largest(delta, density) for delta in tensor.deltas_R])


def dare(tensor: Tensor, *, density: SomeShare = 0.8, signs: bool = False) -> np.ndarray:
    """Each value is dropped at random, and the others divided by `density`, their share (Yu et al., arXiv 2311.03099).

    Its expectation is the delta itself. signs: then elect signs, as in ties; else the weighted mean.
    """
    kept = []
    for at, delta in enumerate(tensor.deltas_R):
        kept.append(delta * (tensor.draw(at).random(delta.shape, dtype=np.float32) < density) / np.float32(density))
    return elect(tensor, kept) if signs else sum_weighted(kept, tensor.weight_R)


def della(tensor: Tensor, *, density: InnerShare = 0.5, spread: PartialShare = 0.15, signs: bool = True) -> np.ndarray:
    """As dare, but the larger of a row's values are kept more often (Deep et al., arXiv 2406.11617).

    The probability rises with the rank of |delta| in its row from density - spread to density + spread; a kept value
    is divided by its own probability. With spread 0 it is dare.
    """
    if not (density - spread > 0 and density + spread < 1):
        raise BadInput(
            f"method.spread: {spread:g} given; density - spread and density + spread must be between 0 and 1"
        )
    kept = []
    for at, delta in enumerate(tensor.deltas_R):
        chance = keep_probabilities(delta, density, spread)
        kept.append(delta * (tensor.draw(at).random(delta.shape, dtype=np.float32) < chance) / chance)
    return elect(tensor, kept) if signs else sum_weighted(kept, tensor.weight_R)


def keep_probabilities(delta_XY: np.ndarray, density: float, spread: float) -> np.ndarray:
    columns = delta_XY.shape[-1]
    if columns == 1:
        return np.full(delta_XY.shape, density, dtype=np.float32)
    rank_XY = np.abs(delta_XY).argsort(-1, kind="stable").argsort(-1, kind="stable")
    return (density - spread + 2 * spread * rank_XY / (columns - 1)).astype(np.float32)


def breadcrumbs(
    tensor: Tensor, *, density: SomeShare = 0.9, largest: PartialShare = 0.01, signs: bool = False
) -> np.ndarray:
    """The `largest` share of each delta is dropped, and the smallest, so that `density` stays (arXiv 2312.06795)."""
    if density + largest > 1:
        raise BadInput(f"method.largest: {largest:g} given; with density {density:g} at most {1 - density:g} can go")
    kept = []
    for delta in tensor.deltas_R:
        order, size = np.abs(delta).ravel().argsort(kind="stable"), delta.size
        top = round(largest * size)
        stays = np.zeros(size, dtype=bool)
        stays[order[max(0, size - top - count_kept(density, size)) : size - top]] = True
        kept.append(np.where(stays.reshape(delta.shape), delta, np.float32(0)))
    return elect(tensor, kept) if signs else sum_weighted(kept, tensor.weight_R)


def stock(tensor: Tensor) -> np.ndarray:
    """The plain mean of the deltas, shortened by how much they disagree (Model Stock, Jang et al., arXiv 2403.19522).

    t = R c / (1 + (R - 1) c), where c is the mean cosine of two deltas; t is kept within 0 and 1. Weights play no part.
    """
    count = len(tensor.deltas_R)
    if count < 2:
        raise BadInput(f"method: stock takes 2 models or more; {count} given")
    cosine = mean_cosine(np.array([[np.vdot(a, b) for b in tensor.deltas_R] for a in tensor.deltas_R], dtype=float))
    below = 1 + (count - 1) * cosine
    share = min(1.0, max(0.0, count * cosine / below)) if below > 0 else 0.0
    return np.float32(share) * sum_weighted(tensor.deltas_R, np.full(count, 1 / count))


def varm(tensor: Tensor) -> np.ndarray:
    """A mean with weights in proportion to each learner's mean squared delta in this tensor (arXiv 2402.16107).

    They grow with how far a learner has moved, whatever it has learned; the given weights multiply them.
    """
    return sum_weighted(tensor.deltas_R, moved_weights(tensor, tensor.deltas_R))


def sce(tensor: Tensor, *, density: SomeShare = 0.1) -> np.ndarray:
    """varm on the values that vary most among learners, with elected signs (FuseChat, arXiv 2408.07990).

    The `density` values of highest variance stay, and those on which all learners agree.
    """
    variance = np.var(np.stack(tensor.deltas_R), axis=0, dtype=np.float64).astype(np.float32)
    chosen = keep_largest(variance, density, zero=False) | (variance == 0)
    deltas = [np.where(chosen, delta, np.float32(0)) for delta in tensor.deltas_R]
    return elect(tensor, deltas, moved_weights(tensor, deltas))


def fisher(tensor: Tensor) -> np.ndarray:
    """A mean with each value weighted by its Fisher information too (Matena and Raffel, arXiv 2111.09832).

    Where no learner has any information, the weighted mean.
    """
    known_R = need_statistics(tensor, "fisher")
    least = np.float32(1e-6) * max(float(known.mean()) for known in known_R) or np.float32(1)
    shares_R = [w * (known + least) for w, known in zip(tensor.weight_R.astype(np.float32), known_R, strict=True)]
    total = sum(shares_R)
    return sum(share * delta for share, delta in zip(shares_R, tensor.deltas_R, strict=True)) / total


def regmean(tensor: Tensor, *, off_diagonal: Share = 0.9) -> np.ndarray:
    """The linear layer whose outputs on the learners' inputs are nearest to their own (Jin et al., arXiv 2212.09849).

    Statistics: the Gram matrix of each learner's inputs to this layer; what is off its diagonal is multiplied by
    `off_diagonal`. Tensors that are no linear layer's weight are averaged.
    """
    if tensor.statistics_R is None:
        return mean(tensor)
    total, right = 0.0, 0.0
    for weight, gram, delta in zip(tensor.weight_R, tensor.statistics_R, tensor.deltas_R, strict=True):
        shrunk = off_diagonal * gram.astype(float) + (1 - off_diagonal) * np.diag(np.diag(gram).astype(float))
        total, right = total + weight * shrunk, right + weight * shrunk @ delta.T.astype(float)
    size = len(total)
    total = total + np.eye(size) * (1e-6 * np.trace(total) / size or 1.0)
    return np.linalg.solve(total, right).T.astype(np.float32)


# --- what methods share ----------------------------------------------------------------------------------------------


def sum_weighted(deltas_R: Sequence[np.ndarray], weight_R: Sequence[float]) -> np.ndarray:
    total = np.float32(weight_R[0]) * deltas_R[0]
    for weight, delta in zip(weight_R[1:], deltas_R[1:], strict=True):
        total += np.float32(weight) * delta
    return total


def elect(tensor: Tensor, kept_R: Sequence[np.ndarray], weight_R: np.ndarray | None = None) -> np.ndarray:
    """The weighted mean of the values whose sign is that of their weighted sum; + where the sum is 0. A value of 0 has
    no sign and does not count."""
    weight_R = tensor.weight_R if weight_R is None else weight_R
    positive = sum_weighted(kept_R, weight_R) >= 0
    total, divisor = np.zeros_like(kept_R[0]), np.zeros_like(kept_R[0])
    for weight, kept in zip(weight_R.astype(np.float32), kept_R, strict=True):
        agrees = np.where(positive, kept > 0, kept < 0)
        total += np.where(agrees, weight * kept, np.float32(0))
        divisor += np.where(agrees, weight, np.float32(0))
    return np.divide(total, divisor, out=total, where=divisor > 0)


def count_kept(density: float, size: int) -> int:
    """How many of `size` values are `density` of them: at least 1."""
    return min(size, max(1, round(density * size)))


def keep_largest(values: np.ndarray, density: float, *, zero: bool = True) -> np.ndarray:
    """The values with all but the `density` largest in magnitude set to 0; of equal ones, the first stay.

    zero=False: the mask of those that stay.
    """
    size = values.size
    count, magnitude = count_kept(density, size), np.abs(values).ravel()
    if count == size:
        return values if zero else np.ones(values.shape, dtype=bool)
    bound = np.partition(magnitude, size - count)[size - count]
    stays = magnitude > bound
    stays[np.flatnonzero(magnitude == bound)[: count - int(stays.sum())]] = True
    stays = stays.reshape(values.shape)
    return np.where(stays, values, np.float32(0)) if zero else stays


def mean_cosine(dots_RR: np.ndarray) -> float:
    """The mean cosine of two different learners from their dot products; 0 for a delta of 0."""
    norm_R = np.sqrt(np.diag(dots_RR))
    scale_RR = np.outer(norm_R, norm_R)
    cosine_RR = np.divide(dots_RR, scale_RR, out=np.zeros_like(dots_RR), where=scale_RR > 0)
    count = len(norm_R)
    return float((cosine_RR.sum() - np.trace(cosine_RR)) / (count * (count - 1))) if count > 1 else 1.0


def moved_weights(tensor: Tensor, deltas_R: Sequence[np.ndarray]) -> np.ndarray:
    """The weights times each learner's mean squared delta, summing to 1; the weights alone where nothing moved."""
    moved_R = tensor.weight_R * [np.square(delta, dtype=np.float64).mean() for delta in deltas_R]
    return moved_R / moved_R.sum() if moved_R.sum() > 0 else tensor.weight_R


def need_statistics(tensor: Tensor, method: str) -> Sequence[np.ndarray]:
    if tensor.statistics_R is None:
        raise BadInput(f"method: {method} needs statistics of every learner, and {tensor.name} has none")
    return tensor.statistics_R


MERGES = {one.__name__: one for one in (mean, slerp, ties, dare, della, breadcrumbs, stock, varm, sce, fisher, regmean)}
THINS = ("ties", "dare", "della", "breadcrumbs", "sce")
"""Methods that drop values. Of a vector (a norm's weights, a bias) no value is dropped: it is averaged."""


def as_shares(weights: Sequence[float], count: int) -> np.ndarray:
    """The weights of this many models, made to sum to 1; BadInput unless they are at least 0, and not all 0."""
    weight_R = np.array(weights, dtype=float)
    if len(weight_R) != count:
        raise BadInput(f"weights: {len(weight_R)} given; allowed: {count}, one for each model")
    if not np.isfinite(weight_R).all() or (weight_R < 0).any() or not weight_R.any():
        raise BadInput(f"weights: {list(weights)} given; allowed: 0 or more, and not all 0")
    return weight_R / weight_R.sum()


def check_method(method: dict, count: int, *, has_base: bool) -> None:
    """BadInput unless the method can merge this many models, by a trial on made-up deltas."""
    delta = np.eye(3, dtype=np.float32)
    trial = Tensor("trial", delta, [delta] * count, np.full(count, 1 / count), np.random.default_rng, [delta] * count)
    pick(MERGES, method)(trial)
    if not has_base and method["name"] != "mean":
        raise BadInput(f"base: none given; {method['name']} needs the model that all were trained from")


def merge_tensor(tensor: Tensor, method: dict, scale: float = 1.0) -> np.ndarray:
    """The merged tensor in float32: base + scale * what the method makes of the deltas."""
    thins = method["name"] in THINS and tensor.base_S.ndim < 2
    delta = mean(tensor) if thins else pick(MERGES, method)(tensor)
    return tensor.base_S + np.float32(scale) * delta
