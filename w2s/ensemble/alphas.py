"""Alphas: how much each voter's vote counts, found on rows with gold that no voter was trained on.

An alphas function is `(alpha_R, ballots, *, options) -> alpha_R >= 0`. It receives the alphas of the boosting that
trained the voters; a fixed pool was not trained here, and has all 1. Only the proportions of the result matter, and a
0 leaves the voter out: choosing members (`subsets`) is one way of weighing them.
"""

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import nnls
from scipy.special import softmax

from w2s.ensemble.ballots import Ballots
from w2s.ensemble.subsets import SUBSETS
from w2s.store.records import BadInput


def boosting(alpha_R: np.ndarray, ballots: Ballots) -> np.ndarray:
    """The alphas of the boosting; learners that were not better than their reference get 0."""
    return np.maximum(np.asarray(alpha_R, dtype=np.float64), 0)


def uniform(alpha_R: np.ndarray, ballots: Ballots) -> np.ndarray:
    """An alpha of 1 for every voter: the uniform control of any combiner."""
    return np.ones(len(ballots.wrong_RN))


def best_single(alpha_R: np.ndarray, ballots: Ballots) -> np.ndarray:
    """The voter that is right most often, alone; equally accurate voters share the vote."""
    error_R = ballots.wrong_RN.mean(1)
    return (error_R <= error_R.min() + 1e-12).astype(np.float64)


def accuracy_log_odds(alpha_R: np.ndarray, ballots: Ballots) -> np.ndarray:
    """The log-odds of being right, ln((1-e)/e) + ln(K-1): the best weights of independent voters.

    Nitzan and Paroush 1982, for two choices; for more, the gain over guessing, as in SAMME. One right and one wrong
    answer are added to each voter, so that none is certain. Voters worse than guessing get 0; if all are, all are
    equal.
    """
    rows = ballots.wrong_RN.shape[1]
    error_R, chance = (ballots.wrong_RN.sum(1) + 1) / (rows + 2), ballots.chance_N.mean()
    gain_R = np.log((1 - error_R) / error_R) + np.log(chance / (1 - chance))
    return np.maximum(gain_R, 0) if (gain_R > 0).any() else uniform(alpha_R, ballots)


def samme(alpha_R: np.ndarray, ballots: Ballots, *, rounds: int = 100, least_share: float = 0.05) -> np.ndarray:
    """AdaBoost over a fixed pool: each round adds to the alpha of the voter that errs least on the re-weighted rows.

    SAMME (Zhu et al. 2009) with the pool as its hypotheses: e = Σ w·wrong, alpha = ln((1-e)/e) + ln(K-1), then
    w <- w·exp(alpha·wrong). It ends after `rounds`, when no voter beats guessing, or when the effective share of the
    rows falls below `least_share` (0 up to 1).
    """
    if rounds < 1:
        raise BadInput(f"rounds: {rounds!r} given; allowed: a whole number above 0")
    if not 0 <= least_share < 1:
        raise BadInput(f"least_share: {least_share!r} given; allowed: 0 up to, not including, 1")
    wrong_RP, chance_P, times_P = patterns(ballots)
    log_P, total_R = np.log(times_P), np.zeros(len(wrong_RP))
    for _ in range(rounds):
        weight_P = softmax(log_P)
        if 1 / (times_P.sum() * (weight_P**2 / times_P).sum()) < least_share:
            break
        error_R, chance = wrong_RP @ weight_P, chance_P @ weight_P
        best, error = int(error_R.argmin()), max(float(error_R.min()), 1e-12)
        if error >= chance - 1e-12:
            break
        alpha = np.log((1 - error) / error) + np.log(chance / (1 - chance))
        total_R[best] += alpha
        log_P = log_P + alpha * wrong_RP[best]
        if error <= 1e-12:
            break  # this voter is never wrong: no other is needed
    return total_R if total_R.any() else uniform(alpha_R, ballots)


def bagging(alpha_R: np.ndarray, ballots: Ballots, *, draws: int = 100, seed: int = 0) -> np.ndarray:
    """Bagging over a fixed pool: how often a voter is the best on a bootstrap sample of the rows (Breiman 1996).

    The control of `samme`: the same choice among the same voters, without the re-weighting.
    """
    if draws < 1:
        raise BadInput(f"draws: {draws!r} given; allowed: a whole number above 0")
    wrong_RP, _, times_P = patterns(ballots)
    rng = np.random.default_rng(seed)
    drawn_BP = rng.multinomial(int(times_P.sum()), times_P / times_P.sum(), size=draws)
    error_RB = wrong_RP @ drawn_BP.T
    best_RB = error_RB <= error_RB.min(0) + 1e-9
    return (best_RB / best_RB.sum(0)).mean(1)


def decorrelated(alpha_R: np.ndarray, ballots: Ballots) -> np.ndarray:
    """Alphas from the inverse covariance of the voters' errors, so that copies share one vote.

    The alphas >= 0 that maximise (edge of the vote over chance)² / variance of the vote: but for the bound at 0 this is
    Fisher's linear discriminant, covariance^-1 · edge, and for independent voters edge / (error·(1 - error)). The
    covariance is shrunk (Ledoit and Wolf 2004), because a few hundred rows cannot tell near copies apart. The sum is 1;
    if no voter beats chance, all are equal.
    """
    from sklearn.covariance import ledoit_wolf  # imported here: it costs a second and few runs need it

    ballots = ballots.some()
    wrong_RN = ballots.wrong_RN
    edge_R = (ballots.chance_N - wrong_RN).mean(1)
    if (edge_R <= 0).all():
        return np.full(len(wrong_RN), 1 / len(wrong_RN))
    covariance_RR, _ = ledoit_wolf(wrong_RN.T)
    # Voters without errors have no variance: a thousandth of a coin's keeps the matrix invertible.
    lower_RR = np.linalg.cholesky(covariance_RR + 0.00025 * np.eye(len(wrong_RN)))
    # max edge·a - a'Ca/2 with a >= 0 is a least-squares problem in the Cholesky factor: min |L'a - L^-1 edge|.
    alpha_R, _ = nnls(lower_RR.T, solve_triangular(lower_RR, edge_R, lower=True))
    return alpha_R / alpha_R.sum()


def patterns(ballots: Ballots) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct rows of right and wrong, their chance, and their counts: wrong_RP, chance_P, times_P.

    Ten million rows of 16 voters have some ten thousand patterns, so a round is as quick as on a small set. They are
    sorted, so that nothing drawn from them depends on the order of the rows.
    """
    wrong_RN, chance_N = ballots.wrong_RN, ballots.chance_N
    tied = any((wrong_N % 1 * (wrong_N != chance_N.astype(wrong_N.dtype))).any() for wrong_N in wrong_RN)
    if tied or len(wrong_RN) > 36:  # more than 64 bits can hold
        rows_XN = np.vstack([wrong_RN, chance_N])
        rows_XP, times_P = np.unique(rows_XN, axis=1, return_counts=True)
        return rows_XP[:-1], rows_XP[-1], times_P.astype(np.float64)
    key_N = np.asarray(ballots.count_N, dtype=np.int64)
    for wrong_N in wrong_RN:
        # Right, wrong, or no vote, which errs as often as guessing: that depends on count_N alone.
        key_N = 3 * key_N + np.where(wrong_N == 0, 0, np.where(wrong_N == 1, 1, 2))
    _, first_P, times_P = np.unique(key_N, return_index=True, return_counts=True)
    return wrong_RN[:, first_P].astype(np.float64), chance_N[first_P], times_P.astype(np.float64)


OWN = (boosting, uniform, best_single, accuracy_log_odds, samme, bagging, decorrelated)
ALPHAS = {function.__name__: function for function in OWN} | SUBSETS
