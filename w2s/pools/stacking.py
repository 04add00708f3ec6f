"""Stacking (Wolpert 1992): a second model, fitted on questions with gold, reads all members' answers and decides.

No member was trained on these questions, so their outputs are out of fold already. A candidate is judged by who voted
for it, so that a question may have any number of candidates in any order; probabilities and a member's own confidence,
if recorded, join in. Abstentions are a symbol of their own.
"""

import numpy as np
from scipy.sparse import csr_matrix

from w2s.config.values import NotNegative
from w2s.ensemble.ballots import NotApplicable
from w2s.pools.confidence import fit_quantiles, ranks
from w2s.pools.logistic import first_rows, fit_conditional
from w2s.pools.records import Decision, Fitted, Learned, Opinions, Truth

LEAST_LOG = float(np.log(1e-6))


def logistic(
    opinions: Opinions,
    truth: Truth,
    *,
    l2: NotNegative = 1.0,
    l2_group: NotNegative = 20.0,
    l2_position: NotNegative = 20.0,
    by_group: bool = True,
    by_position: bool = True,
) -> Fitted:
    """Logistic stacking: a learned trust for each member, in general, by group and by the answer it gives.

    A conditional logit (McFadden 1974): P(candidate k) = softmax over the candidates of the sum over members that voted
    for k of (w_m + u_group,m + v_position,m), plus, if recorded, slopes on the member's log-probability of k and on the
    rank of its confidence. The maximum a posteriori under normal priors of precision l2, l2_group and l2_position (0 or
    more; large ones switch a part off). A group with few questions relies on the rest.
    """
    design, penalty_F, arrays = prepare(opinions, truth, (l2, l2_group, l2_position), by_group, by_position)
    theta_F = fit_conditional(design, opinions.count_N, truth.gold_N, penalty_F)
    return Fitted("logistic", opinions.members, {**arrays, "theta_F": theta_F})


def prepare(
    opinions: Opinions, truth: Truth, penalties: tuple[float, float, float], by_group: bool, by_position: bool
) -> tuple[csr_matrix, np.ndarray, Learned]:
    """The design of all questions, each column's penalty, and the arrays that give new questions the same design."""
    rows = np.flatnonzero(truth.gold_N >= 0)
    if not len(rows) or not (opinions.answer_MN[:, rows] >= 0).any():
        raise NotApplicable("no question with gold has a recorded answer")
    groups = np.unique(opinions.group_N[rows].astype(str)) if by_group else np.array([""])
    arrays = {"groups": groups if len(groups) > 1 else groups[:0], "by_position": np.array(by_position)}
    arrays["by_probability"] = np.array(opinions.probs_MNK is not None)
    if opinions.score_MN is not None:
        arrays["quantiles_MQ"] = fit_quantiles(opinions.score_MN[:, rows], 33)
    design, penalty_F = evidence(opinions, arrays, penalties)
    return design, penalty_F, arrays


def apply_logistic(fitted: Fitted, opinions: Opinions, point: int) -> Decision:
    """Probabilities of the candidates; a question on which no member has an opinion is an abstention."""
    design, _ = evidence(opinions, fitted.arrays, (0.0, 0.0, 0.0))
    score_NK = np.full(opinions.mask_NK.shape, -np.inf)
    score_NK[opinions.mask_NK] = design @ fitted.arrays["theta_F"]
    silent_N = ~(opinions.answer_MN >= 0).any(0)
    return Decision(silent_N, normal(score_NK, opinions.mask_NK))


def evidence(
    opinions: Opinions, arrays: Learned, penalties: tuple[float, float, float]
) -> tuple[csr_matrix, np.ndarray]:
    """The design (C, F), a row for each real candidate of each question in turn, and a penalty for each column.

    Columns: votes by member; by group and member; by member and position, and by position alone; the slopes.
    """
    members, rows = len(opinions.members), len(opinions.ids)
    start_N = first_rows(opinions.count_N)
    member_V, question_V = np.nonzero(opinions.answer_MN >= 0)
    answer_V = opinions.answer_MN[member_V, question_V].astype(int)
    row_V = start_N[question_V] + answer_V
    owner_C = np.repeat(np.arange(rows), opinions.count_N)
    cells, penalty = [], []

    def add(row: np.ndarray, column: np.ndarray, value: np.ndarray, size: int, l2: float) -> None:
        cells.append((row, column + sum(map(len, penalty)), value))
        penalty.append(np.full(size, l2))

    one_V = np.ones(len(row_V))
    add(row_V, member_V, one_V, members, penalties[0])
    groups = arrays["groups"]
    if len(groups):
        group_N = opinions.group_N.astype(str)
        place_N = np.searchsorted(groups, group_N)
        known_V = (groups[np.minimum(place_N, len(groups) - 1)] == group_N)[question_V]
        column_V = place_N[question_V] * members + member_V
        add(row_V[known_V], column_V[known_V], one_V[known_V], len(groups) * members, penalties[1])
    if arrays["by_position"]:
        places, row_C = 32, np.arange(len(owner_C))  # later positions share the last column
        add(row_V, np.minimum(answer_V, places - 1) * members + member_V, one_V, places * members, penalties[2])
        add(row_C, np.minimum(row_C - start_N[owner_C], places - 1), np.ones(len(row_C)), places, penalties[2])
    for row_S, member_S, value_S in slopes(opinions, arrays, row_V, member_V, question_V, owner_C):
        add(row_S, member_S, value_S, members, penalties[0])
    row, column, value = (np.concatenate(part) for part in zip(*cells, strict=True))
    penalty_F = np.concatenate(penalty)
    return csr_matrix((value, (row, column)), shape=(len(owner_C), len(penalty_F))), penalty_F


def slopes(opinions, arrays, row_V, member_V, question_V, owner_C):
    """(row, member, value) of what is recorded beside the votes: the confidence's rank, -0.5 to 0.5; ln p + ln K.

    What was recorded at the fit must be recorded again; anything else is ignored.
    """
    if "quantiles_MQ" in arrays:
        if opinions.score_MN is None:
            raise NotApplicable("it was fitted with the members' confidences, and none were recorded here")
        rank_V = ranks(opinions.score_MN, arrays["quantiles_MQ"])[member_V, question_V]
        yield row_V, member_V, rank_V
    if arrays["by_probability"]:
        if opinions.probs_MNK is None:
            raise NotApplicable("it was fitted with choice probabilities, and none were recorded here")
        log_MC = np.log(np.maximum(opinions.probs_MNK[:, opinions.mask_NK], np.exp(LEAST_LOG)))
        log_MC = np.nan_to_num(log_MC + np.log(opinions.count_N)[owner_C])
        member_S, row_S = np.nonzero(log_MC)
        yield row_S, member_S, log_MC[member_S, row_S]


def normal(score_NK: np.ndarray, mask_NK: np.ndarray) -> np.ndarray:
    """exp(score) over the real candidates, normalised; a question without candidates stays all 0."""
    score_NK = np.where(mask_NK, score_NK, -np.inf)
    most_N1 = score_NK.max(1, keepdims=True, initial=-np.inf)
    exp_NK = np.where(mask_NK, np.exp(score_NK - np.where(np.isfinite(most_N1), most_N1, 0)), 0)
    return exp_NK / np.maximum(exp_NK.sum(1, keepdims=True), 1e-300)


METHODS = {"logistic": logistic}
APPLY = {"logistic": apply_logistic}
