"""What the rounds did: accuracy by number of rounds, margins, and the rows that became heavy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from w2s.boosting.adaboost import wrongness


def staged_accuracy(
    probs_RNK: np.ndarray,
    mask_NK: np.ndarray,
    alpha_R: np.ndarray,
    gold_N: np.ndarray,
    abstained_RN: np.ndarray | None = None,
    *,
    combiner: Callable,
) -> np.ndarray:
    """accuracy_R: how often the committee of the first 1, 2, ... R learners is right, 0 to 1; ties count by chance.

    On validation it picks the number of rounds (`adaboost.best_rounds`); on the test it is only for looking at.
    Learners with alpha 0 add nothing; before the first one with a say the accuracy is that of guessing.
    """
    if len(gold_N) == 0:
        raise ValueError("an empty set has no accuracy")
    guess_NK = mask_NK / np.sum(mask_NK, axis=1, keepdims=True)
    accuracy_R = []
    for size in range(1, len(alpha_R) + 1):
        alpha = np.asarray(alpha_R)[:size]
        silent = None if abstained_RN is None else np.asarray(abstained_RN)[:size]
        probs_NK = combiner(np.asarray(probs_RNK)[:size], mask_NK, alpha, silent) if alpha.any() else guess_NK
        accuracy_R.append(1 - wrongness(probs_NK, mask_NK, gold_N).mean())
    return np.array(accuracy_R)


def margins(probs_NK: np.ndarray, mask_NK: np.ndarray, gold_N: np.ndarray) -> np.ndarray:
    """margin_N, -1 to 1: the right candidate's share minus the best other one's; below 0 the committee is wrong.

    Of the shares of an alpha-weighted vote it is the margin of Schapire, Freund, Bartlett and Lee 1998, which boosting
    goes on raising when there is no error left.
    """
    gold_N1 = np.asarray(gold_N, dtype=int)[:, None]
    others_NK = np.where(mask_NK, probs_NK, -np.inf)
    right_N = np.take_along_axis(others_NK, gold_N1, 1)[:, 0]
    np.put_along_axis(others_NK, gold_N1, -np.inf, 1)
    return right_N - others_NK.max(1)


def heaviest_rows(ids: np.ndarray, weight_RN: np.ndarray, *, top: int = 10) -> list[tuple[str, np.ndarray]]:
    """(id, relative weight_R) of the `top` rows that weighed most in any round, the heaviest first.

    weight_RN are the weights that each round was fitted with; relative: 1 is a uniform row, 5 is five times that.
    """
    relative_RN = weight_RN / np.mean(weight_RN, axis=1, keepdims=True)
    order_N = np.lexsort((ids, -relative_RN.max(0)))
    return [(str(ids[at]), relative_RN[:, at]) for at in order_N[:top]]
