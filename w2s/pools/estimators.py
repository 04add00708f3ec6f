"""Estimators: how likely each member is to be right on a question, from the question alone.

An estimator is a pair of functions: `learn(what_N, target_MN, *, options) -> arrays` and
`estimate(arrays, what_N) -> target_MN`. what_N describes each question: features_ND with rows of norm 1, or group_N.
target_MN is 0 to 1, NaN where unknown; every member has a known value. All estimates lie between 0 and 1 and are
shrunk towards the member's mean, because results on a few questions are mostly luck.
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from w2s.pools.logistic import fit_many
from w2s.pools.records import Learned

CHUNK = 1_000


def learn_neighbours(features_ND: np.ndarray, target_MN: np.ndarray, *, neighbours: int, prior: float) -> Learned:
    questions = {"neighbour_ND": features_ND.astype(np.float32), "right_NM": target_MN.T.astype(np.float32)}
    return questions | {"mean_M": np.nanmean(target_MN, axis=1), "nearest": np.array([neighbours, prior])}


def estimate_neighbours(arrays: Learned, features_ND: np.ndarray) -> np.ndarray:
    """Mean over the nearest, at most a fifth of all, weighted by cosine, with `prior` questions of mean quality."""
    neighbour_ND, right_NM = arrays["neighbour_ND"], arrays["right_NM"]
    # A fixed number would be nearly all of a small set.
    count, prior = max(1, min(int(arrays["nearest"][0]), len(neighbour_ND) // 5)), arrays["nearest"][1]
    known_NM = np.isfinite(right_NM)
    right_NM = np.where(known_NM, right_NM, 0)
    complete = known_NM.all()
    quality_MN = np.empty((right_NM.shape[1], len(features_ND)))
    for start in range(0, len(features_ND), CHUNK):
        cosine_CN = features_ND[start : start + CHUNK].astype(np.float32) @ neighbour_ND.T
        nearest_CK = np.argpartition(cosine_CN, -count, axis=1)[:, -count:]
        weight_CK = np.maximum(np.take_along_axis(cosine_CN, nearest_CK, 1), 0)
        right_CM = np.einsum("ck,ckm->cm", weight_CK, right_NM[nearest_CK])
        known_CM = weight_CK.sum(1)[:, None]
        if not complete:
            known_CM = np.einsum("ck,ckm->cm", weight_CK, known_NM[nearest_CK])
        quality_MN[:, start : start + CHUNK] = ((right_CM + prior * arrays["mean_M"]) / (known_CM + prior)).T
    return quality_MN


def learn_groups(group_N: np.ndarray, target_MN: np.ndarray, *, prior: float) -> Learned:
    """right_GM: the mean of each group with `prior` questions of mean quality; mean_M for new groups."""
    group_G, at_N = np.unique(group_N, return_inverse=True)
    of_NG = np.eye(len(group_G))[at_N]
    mean_M = np.nanmean(target_MN, axis=1)
    right_MG = np.nan_to_num(target_MN) @ of_NG + prior * mean_M[:, None]
    known_MG = np.isfinite(target_MN) @ of_NG + prior
    return {"group_G": group_G, "right_GM": (right_MG / known_MG).T, "mean_M": mean_M}


def estimate_groups(arrays: Learned, group_N: np.ndarray) -> np.ndarray:
    group_G = arrays["group_G"]
    at_N = np.minimum(np.searchsorted(group_G, group_N), len(group_G) - 1)
    return np.where(group_G[at_N] == group_N, arrays["right_GM"][at_N].T, arrays["mean_M"][:, None])


def learn_logistic(features_ND: np.ndarray, target_MN: np.ndarray, *, penalty: float) -> Learned:
    """One logistic regression per member (`logistic.fit_many`)."""
    return {"weight_DM": fit_many(with_one(features_ND), target_MN, penalty=penalty)}


def estimate_logistic(arrays: Learned, features_ND: np.ndarray) -> np.ndarray:
    return expit(with_one(features_ND) @ arrays["weight_DM"]).T


def learn_factors(features_ND: np.ndarray, target_MN: np.ndarray, *, rank: int, penalty: float) -> Learned:
    """As `learn_logistic`, with member vectors v_m of length `rank`: logit = v_m · (W q) + b_m (25 steps of L-BFGS).

    It starts from the best approximation of that rank of the separate regressions, without a random start. The penalty
    is multiplied by √N: the ridge on both factors acts on the singular values of their product, and the largest one of
    pure noise grows like √N.
    """
    penalty *= np.sqrt(len(features_ND))
    rank = min(rank, len(target_MN), features_ND.shape[1])
    centre_D = features_ND.mean(0)  # else the bias and the questions' common direction are redundant
    features_ND = (features_ND - centre_D).astype(np.float32)
    known_NM = np.isfinite(target_MN.T)
    right_NM = np.where(known_NM, target_MN.T, 0).astype(np.float32)
    weight_DM = learn_logistic(features_ND, target_MN, penalty=penalty)["weight_DM"]
    left_DR, size_R, right_RM = np.linalg.svd(weight_DM[:-1], full_matrices=False)
    root_R = np.sqrt(size_R[:rank])
    shapes = [(features_ND.shape[1], rank), (rank, len(target_MN)), (1, len(target_MN))]
    cuts = np.cumsum([np.prod(shape) for shape in shapes])[:-1]

    def split(flat: np.ndarray) -> list[np.ndarray]:
        return [part.reshape(shape) for part, shape in zip(np.split(flat, cuts), shapes, strict=True)]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        question_DR, member_RM, bias_1M = split(flat)
        latent_NR = features_ND @ question_DR.astype(np.float32)
        logit_NM = latent_NR @ member_RM.astype(np.float32) + bias_1M.astype(np.float32)
        residual_NM = np.where(known_NM, expit(logit_NM) - right_NM, 0)
        value = np.where(known_NM, np.logaddexp(0, logit_NM) - right_NM * logit_NM, 0).sum(dtype=np.float64)
        # Half the penalty on each factor: at the best split of a matrix the sum is the penalty on its singular values.
        value += penalty / 2 * ((question_DR**2).sum() + (member_RM**2).sum())
        back_NR = residual_NM @ member_RM.T.astype(np.float32)
        gradients = (
            features_ND.T @ back_NR + penalty * question_DR,
            latent_NR.T @ residual_NM + penalty * member_RM,
            residual_NM.sum(0, dtype=np.float64)[None],
        )
        return float(value), np.concatenate([g.ravel() for g in gradients]).astype(np.float64)

    factors = (left_DR[:, :rank] * root_R, root_R[:, None] * right_RM[:rank], weight_DM[-1:])
    start = np.concatenate([factor.ravel() for factor in factors])
    best = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 25})
    question_DR, member_RM, bias_1M = split(best.x)
    bias_M = bias_1M[0] - centre_D @ question_DR @ member_RM
    return {"question_DR": question_DR, "member_RM": member_RM, "bias_M": bias_M}


def estimate_factors(arrays: Learned, features_ND: np.ndarray) -> np.ndarray:
    """σ(v_m · (W q) + b_m)."""
    return expit(features_ND @ arrays["question_DR"] @ arrays["member_RM"] + arrays["bias_M"]).T


def learn_linear(features_ND: np.ndarray, target_MN: np.ndarray, *, penalty: float) -> Learned:
    """Ridge regression of each member's costs; estimates stay between its lowest and highest known value.

    Targets may have any scale here; an unknown one counts as the member's mean.
    """
    mean_M = np.nanmean(target_MN, axis=1)
    around_MN = np.nan_to_num(target_MN - mean_M[:, None])
    centre_D = features_ND.mean(0, dtype=np.float64)
    inputs_ND = features_ND - centre_D
    gram_DD = inputs_ND.T @ inputs_ND + penalty * np.eye(len(centre_D))
    weight_DM = np.linalg.solve(gram_DD, inputs_ND.T @ around_MN.T)
    bounds_2M = np.stack([np.nanmin(target_MN, axis=1), np.nanmax(target_MN, axis=1)])
    return {"slope_DM": weight_DM, "level_M": mean_M - centre_D @ weight_DM, "bounds_2M": bounds_2M}


def estimate_linear(arrays: Learned, features_ND: np.ndarray) -> np.ndarray:
    return np.clip(features_ND @ arrays["slope_DM"] + arrays["level_M"], *arrays["bounds_2M"]).T


def with_one(features_ND: np.ndarray) -> np.ndarray:
    """The features and a constant, float32."""
    return np.hstack([features_ND, np.ones((len(features_ND), 1))]).astype(np.float32)


ESTIMATORS = {
    "neighbours": (learn_neighbours, estimate_neighbours),
    "groups": (learn_groups, estimate_groups),
    "logistic": (learn_logistic, estimate_logistic),
    "factors": (learn_factors, estimate_factors),
    "linear": (learn_linear, estimate_linear),
}
