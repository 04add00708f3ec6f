"""Learners of kind probe: a linear head on the hidden states of a frozen model, solved to its optimum.

A candidate's score is x·w, and the opinion is the softmax over a question's candidates: the conditional logit model
(McFadden 1974), which for two candidates is logistic regression on the difference of their states. The weights minimise

    sum_n weight_n · cross-entropy(target_n, softmax_k(x_nk·w)) + l2 / 2 · |w|²

in units in which all D dimensions have the same variance within questions, and the states of a question a mean squared
distance of 1 from their centre, so that neither the model's scale nor a few huge dimensions decide. The problem is
strictly convex, and the fit ends at its optimum.

Letters: N examples, R candidates of all of them (rows), D width of the states, C its dimensions that matter.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from w2s.config.fields import Model
from w2s.models.records import States
from w2s.store.files import open_whole
from w2s.store.records import BadInput, candidate_mask, load_arrays

FILE = "probe.npz"
STEPS = 100
"""More of Newton's steps than any fit takes (one to three)."""
ENOUGH = 1e-10
"""The fit ends with the step that promises to lower the mean loss of a row by less."""


class Rows(NamedTuple):
    """Candidates to fit on; those of an example are neighbours."""

    states_RC: np.ndarray
    start_N: np.ndarray
    """The first row of each example."""
    count_N: np.ndarray
    target_R: np.ndarray
    weight_N: np.ndarray

    def sums(self, values_R: np.ndarray) -> np.ndarray:
        """The sum (N, ...) over each example's candidates."""
        return np.add.reduceat(values_R, self.start_N)

    def spread(self, values_N: np.ndarray) -> np.ndarray:
        """Each example's value for each of its candidates."""
        return np.repeat(values_N, self.count_N, axis=0)


def fit(model: Model, states: States, target_NK: np.ndarray, weight_N: np.ndarray, seed: int) -> np.ndarray:
    """The head's weight_D for states as they are. Rows of target_NK sum to 1 over the candidates; weight_N >= 0."""
    rows = make_rows(states, target_NK, weight_N)
    weight_R = rows.spread(rows.weight_N)
    size_D = np.sqrt(weight_R @ rows.states_RC**2 / weight_R.sum() * rows.states_RC.shape[1])
    size_D[size_D == 0] = 1.0  # the same for all candidates of a question: it tells nothing
    rows = rows._replace(states_RC=rows.states_RC / size_D)
    # The solution is a combination of the rows: with fewer rows than dimensions, they span all that matters.
    basis_DC = np.linalg.qr(rows.states_RC.T)[0] if len(rows.states_RC) < len(size_D) else None
    if basis_DC is None:
        return solve(rows, model.l2) / size_D
    return basis_DC @ solve(rows._replace(states_RC=rows.states_RC @ basis_DC), model.l2) / size_D


def make_rows(states: States, target_NK: np.ndarray, weight_N: np.ndarray) -> Rows:
    """The rows to fit on; what is the same for all candidates of an example, which changes nothing, is taken out."""
    target_R = np.asarray(target_NK, dtype=float)[candidate_mask(states.count_N)]
    start_N = np.cumsum(states.count_N) - states.count_N
    rows = Rows(states.states_RD.astype(float), start_N, states.count_N, target_R, np.asarray(weight_N, dtype=float))
    mean_ND = rows.sums(rows.states_RC) / states.count_N[:, None]
    return rows._replace(states_RC=rows.states_RC - rows.spread(mean_ND))


def solve(rows: Rows, l2: float) -> np.ndarray:
    """weight_C at the minimum of the loss: near it by L-BFGS, whose steps are cheap, and then by Newton's method."""

    def descend(weight_C: np.ndarray) -> tuple[float, np.ndarray]:
        loss, probs_R = measure(rows, weight_C, l2)
        return loss, find_gradient(rows, probs_R, weight_C, l2)

    weight_C = minimize(descend, np.zeros(rows.states_RC.shape[1]), jac=True, method="L-BFGS-B").x
    loss, probs_R = measure(rows, weight_C, l2)
    for _ in range(STEPS):
        gradient_C = find_gradient(rows, probs_R, weight_C, l2)
        step_C = cho_solve(cho_factor(find_curvature(rows, probs_R, l2), overwrite_a=True), gradient_C)
        promised = gradient_C @ step_C / 2
        if promised < ENOUGH * rows.weight_N.sum():
            return weight_C - step_C
        share = 1.0
        while measure(rows, weight_C - share * step_C, l2)[0] > loss - share * promised / 2:
            share /= 2
        weight_C = weight_C - share * step_C
        loss, probs_R = measure(rows, weight_C, l2)
    raise BadInput(f"model.l2: {l2} given; the fit did not end in {STEPS} steps; a larger penalty helps")


def measure(rows: Rows, weight_C: np.ndarray, l2: float) -> tuple[float, np.ndarray]:
    """The loss at these weights, and the probability of every candidate."""
    score_R = rows.states_RC @ weight_C
    score_R -= rows.spread(np.maximum.reduceat(score_R, rows.start_N))
    total_N = rows.sums(np.exp(score_R))
    loss_N = np.log(total_N) - rows.sums(rows.target_R * score_R)
    return rows.weight_N @ loss_N + l2 / 2 * weight_C @ weight_C, np.exp(score_R) / rows.spread(total_N)


def find_gradient(rows: Rows, probs_R: np.ndarray, weight_C: np.ndarray, l2: float) -> np.ndarray:
    """The derivatives (C) of the loss."""
    return (rows.spread(rows.weight_N) * (probs_R - rows.target_R)) @ rows.states_RC + l2 * weight_C


def find_curvature(rows: Rows, probs_R: np.ndarray, l2: float) -> np.ndarray:
    """The second derivatives (C, C): by example, weight times the covariance of the states under the probabilities."""
    mean_NC = rows.sums(rows.states_RC * probs_R[:, None])
    centred_RC = rows.states_RC - rows.spread(mean_NC)
    centred_RC *= np.sqrt(rows.spread(rows.weight_N) * probs_R)[:, None]
    curvature_CC = centred_RC.T @ centred_RC
    curvature_CC[np.diag_indices_from(curvature_CC)] += l2
    return curvature_CC


def scores(weight_D: np.ndarray, states: States) -> np.ndarray:
    """scores_NK: x·w, -inf where an example has no such candidate."""
    mask_NK = candidate_mask(states.count_N)
    scores_NK = np.full(mask_NK.shape, -np.inf)
    scores_NK[mask_NK] = states.states_RD.astype(float) @ weight_D
    return scores_NK


def save(weight_D: np.ndarray, folder: str | Path) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    with open_whole(Path(folder) / FILE, "wb") as file:
        np.savez(file, weight_D=weight_D)


def load(folder: str | Path) -> np.ndarray:
    """What `save` wrote; BadInput if it is missing or damaged."""
    weights = load_arrays(Path(folder) / FILE)
    if set(weights) != {"weight_D"} or weights["weight_D"].ndim != 1 or weights["weight_D"].dtype != np.float64:
        raise BadInput(f"{Path(folder) / FILE}: a probe's weights are expected")
    return weights["weight_D"]
