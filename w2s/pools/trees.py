"""Gradient-boosted stacking: trees see what a linear model cannot ("A is right unless B and C agree on another").

They start from the logistic stacking of `stacking`: its out-of-fold log-probability is one of their features.
"""

from typing import Annotated

import numpy as np
from scipy.sparse import csr_matrix

from w2s.config.values import Count, Range
from w2s.ensemble.votes import count_votes
from w2s.pools.confidence import ranks
from w2s.pools.logistic import fit_conditional
from w2s.pools.records import Decision, Fitted, Learned, Opinions, Truth
from w2s.pools.stacking import apply_logistic, normal, prepare

FOLDS = 2
PENALTIES = (1.0, 20.0, 20.0)  # the defaults of `stacking.logistic`


def gradient_boosted(
    opinions: Opinions,
    truth: Truth,
    *,
    trees: Count = 60,
    learning_rate: float = 0.06,
    leaves: Annotated[int, Range("2 or more", at_least=2)] = 8,
    least_rows: Count = 40,
    seed: int = 0,
) -> Fitted:
    """Gradient-boosted stacking: trees over who voted for a candidate, who for another, and who abstained.

    One row for each candidate with a vote; the probability that it is right, normalised over the question's candidates
    (Friedman 2001, in the histogram form of scikit-learn). Its out-of-fold features come from `FOLDS` folds.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    rows = np.flatnonzero(truth.gold_N > -2)
    known, gold_N = opinions.questions(rows), truth.gold_N[rows]
    design, penalty_F, stacking_arrays = prepare(known, truth.questions(rows), PENALTIES, True, True)
    prior_NK = cross_fit(known, gold_N, design, penalty_F, seed)
    stacking_arrays["theta_F"] = fit_conditional(design, known.count_N, gold_N, penalty_F)
    arrays = {f"logistic:{name}": array for name, array in stacking_arrays.items()}
    row_C, place_C, features_CF = features(known, prior_NK, arrays)
    sizes = {"max_iter": trees, "max_leaf_nodes": leaves, "min_samples_leaf": least_rows}
    settings = {"learning_rate": learning_rate, "l2_regularization": 5.0, "early_stopping": False}
    model = HistGradientBoostingClassifier(**sizes, **settings, random_state=seed)
    # Each tree is a few milliseconds of work: several OpenMP threads would spend seven times that waiting for each
    # other. The limit holds for the thread that sets it, once the library is loaded, so it is set here.
    with threadpool_limits(limits=1, user_api="openmp"):
        model.fit(features_CF, gold_N[row_C] == place_C)
    return Fitted("gradient_boosted", opinions.members, {**arrays, **as_arrays(model)})


def cross_fit(known: Opinions, gold_N: np.ndarray, design: csr_matrix, penalty_F: np.ndarray, seed: int) -> np.ndarray:
    """prior_NK: the logistic stacking's probabilities, each by a fit on the folds without the question."""
    fold_N = np.empty(len(gold_N), dtype=int)
    # Folds by id: they do not depend on the order of the questions.
    fold_N[np.argsort(known.ids)] = np.random.default_rng(seed).permutation(len(gold_N)) % FOLDS
    score_C, fold_C = np.zeros(design.shape[0]), np.repeat(fold_N, known.count_N)
    for fold in range(FOLDS):
        others_N = fold_N != fold
        theta_F = fit_conditional(design[fold_C != fold], known.count_N[others_N], gold_N[others_N], penalty_F)
        score_C[fold_C == fold] = design[fold_C == fold] @ theta_F
    score_NK = np.full(known.mask_NK.shape, -np.inf)
    score_NK[known.mask_NK] = score_C
    return normal(score_NK, known.mask_NK)


def apply_gradient_boosted(fitted: Fitted, opinions: Opinions, point: int) -> Decision:
    """Probabilities of the candidates with a vote; a question without a vote is an abstention."""
    inner = {name.removeprefix("logistic:"): array for name, array in fitted.arrays.items() if ":" in name}
    prior = apply_logistic(Fitted("logistic", fitted.members, inner), opinions, 0)
    row_C, place_C, features_CF = features(opinions, prior.probs_NK, fitted.arrays)
    score_NK = np.full(opinions.mask_NK.shape, -np.inf)
    score_NK[row_C, place_C] = margins(features_CF, fitted.arrays)
    return Decision(prior.abstained_N, normal(score_NK, opinions.mask_NK))


def features(opinions: Opinions, prior_NK: np.ndarray, arrays: Learned) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A row for each candidate with a vote: its question, its position, and float32 features (C, F).

    Each member: 1 voted for it, 0 for another, -1 no answer; its confidence's rank with the vote's sign. Then the votes
    for it, the most for a rival, the log-probability of the logistic stacking, its lead over the best rival, position
    and number of candidates.
    """
    answer_MN = opinions.answer_MN
    votes_NK = count_votes(answer_MN, opinions.mask_NK.shape[1])
    row_C, place_C = np.nonzero(votes_NK)
    vote_MC = np.where(answer_MN[:, row_C] < 0, -1, answer_MN[:, row_C] == place_C).astype(np.float32)
    blocks = [vote_MC]
    if "logistic:quantiles_MQ" in arrays:
        rank_MN = ranks(opinions.score_MN, arrays["logistic:quantiles_MQ"])
        blocks.append(np.where(vote_MC > 0, 1, -1) * rank_MN[:, row_C])
    log_NK = np.log(np.maximum(prior_NK, 1e-9))
    lead_NK = log_NK - rival(np.where(opinions.mask_NK, log_NK, -30))
    by_candidate = [values_NK[row_C, place_C] for values_NK in (votes_NK, rival(votes_NK), log_NK, lead_NK)]
    blocks.append([*by_candidate, place_C, opinions.count_N[row_C]])
    return row_C, place_C, np.concatenate(blocks).T.astype(np.float32)


def rival(values_NK: np.ndarray) -> np.ndarray:
    """The largest value of the row's other candidates."""
    if values_NK.shape[1] < 2:
        return np.zeros_like(values_NK)
    top_N2 = -np.partition(-values_NK, 1, axis=1)[:, :2]
    return np.where(values_NK == top_N2[:, :1], top_N2[:, 1:], top_N2[:, :1])


def as_arrays(model) -> Learned:
    """The trees as plain arrays, all nodes in a row, so that no scikit-learn object is unpickled to apply them.

    scikit-learn has no public export of its histogram trees: its private `_predictors` are read only here, and a test
    compares `margins` with scikit-learn's own decisions.
    """
    nodes = [tree[0].nodes for tree in model._predictors]
    first_T = np.r_[0, np.cumsum([len(tree) for tree in nodes])[:-1]]
    shift_P = np.repeat(first_T, [len(tree) for tree in nodes])
    node_P = np.concatenate(nodes)
    leaf_P = node_P["is_leaf"].astype(bool)
    here_P = np.arange(len(node_P))
    whole = {"feature_P": np.where(leaf_P, 0, node_P["feature_idx"])}
    whole |= {f"{side}_P": np.where(leaf_P, here_P, node_P[side] + shift_P) for side in ("left", "right")}
    arrays = {name: array.astype(np.int32) for name, array in whole.items()}
    arrays |= {"first_T": first_T, "depth": np.array(max(int(tree["depth"].max()) for tree in nodes))}
    arrays |= {"threshold_P": np.where(leaf_P, np.inf, node_P["num_threshold"]), "value_P": node_P["value"]}
    return arrays | {"start": np.asarray(model._baseline_prediction).ravel()[0]}


def margins(features_CF: np.ndarray, arrays: Learned) -> np.ndarray:
    """The log-odds of each row: the sum of the leaves that it falls into. A leaf leads to itself."""
    total_C = np.full(len(features_CF), float(arrays["start"]))
    rows = np.arange(len(features_CF))
    for first in arrays["first_T"]:
        at_C = np.full(len(rows), first, dtype=np.int32)
        for _ in range(int(arrays["depth"])):
            below_C = features_CF[rows, arrays["feature_P"][at_C]] <= arrays["threshold_P"][at_C]
            at_C = np.where(below_C, arrays["left_P"][at_C], arrays["right_P"][at_C])
        total_C += arrays["value_P"][at_C]
    return total_C


METHODS = {"gradient_boosted": gradient_boosted}
APPLY = {"gradient_boosted": apply_gradient_boosted}
