"""What the rounds did: the committee's accuracy by number of rounds, and the rows that became heavy."""

from collections.abc import Callable

import numpy as np

from w2s.boosting.adaboost import wrongness


def accuracy_by_rounds(
    probs_RNK: np.ndarray,
    mask_NK: np.ndarray,
    alpha_R: np.ndarray,
    gold_N: np.ndarray,
    abstained_RN: np.ndarray | None = None,
    *,
    combiner: Callable,
) -> np.ndarray:
    """accuracy_R, 0 to 1: how often the committee of the first 1, 2, ... R learners is right; ties count by chance.

    On validation it chooses the number of rounds (`adaboost.best_rounds`); on the test it is for inspection only.
    Learners with alpha 0 add nothing; before the first learner with an alpha above 0 the accuracy is that of guessing.
    An empty set is a ValueError.
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


def heaviest_rows(ids: np.ndarray, weight_RN: np.ndarray, *, top: int = 10) -> list[tuple[str, np.ndarray]]:
    """(id, relative weight_R) of the `top` rows that weighed most in any round, the heaviest first.

    weight_RN are the weights that each round was fitted with. A relative weight of 1 is the mean, 5 five times that.
    """
    relative_RN = weight_RN / np.mean(weight_RN, axis=1, keepdims=True)
    order_N = np.lexsort((ids, -relative_RN.max(0)))
    return [(str(ids[at]), relative_RN[:, at]) for at in order_N[:top]]
