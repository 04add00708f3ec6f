"""Expected best-of-n: the pick when a reward model (the proxy) chooses among n randomly drawn candidates.

The n are drawn without replacement from the K candidates of a question, so each result is the mean over all subsets of
size n and, where the K are independent samples of a policy, an unbiased estimate of that policy's best-of-n for every
n <= K at once (Nakano et al., arXiv 2112.09332, appendix I; used by Gao et al., arXiv 2210.10760).

Candidates without a proxy score (nan: no member could judge them) come last: one is picked only if the draw holds no
other. Candidates with equal scores share the pick equally.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import gammaln

from w2s.store.records import BadInput


class Curve(NamedTuple):
    """Best-of-n over S values of n. The caller computes means over questions, and their intervals.

    kl_S: the divergence of best-of-n from its policy, in nats; gold_SN and proxy_SN: the expected score of the pick for
    each question (proxy nan where a candidate without a proxy score may be picked).
    """

    n_S: np.ndarray
    kl_S: np.ndarray
    gold_SN: np.ndarray
    proxy_SN: np.ndarray


def pick_probs(proxy_NK: np.ndarray, mask_NK: np.ndarray, n: int) -> np.ndarray:
    """probs_NK: how likely each candidate is drawn among the n and picked; rows sum to 1, 0 for padding.

    With b candidates below it and m level with it, itself included, of K: (C(b+m, n) − C(b, n)) / (m · C(K, n)).
    """
    mask_NK = np.asarray(mask_NK, dtype=bool)
    count_N = mask_NK.sum(1)
    few_N = count_N < n
    if n < 1 or few_N.any():
        fewest = int(count_N.min(initial=n))
        words = f"; {int(few_N.sum())} questions have fewer candidates (the fewest: {fewest})" if few_N.any() else ""
        raise BadInput(f"n: {n!r} given; allowed: 1 up to the candidates of every question{words}")
    below_NK, level_NK = places(proxy_NK, mask_NK)
    all_N1 = log_choose(count_N, n)[:, None]
    share_NK = np.exp(log_choose(below_NK + level_NK, n) - all_N1) - np.exp(log_choose(below_NK, n) - all_N1)
    return np.where(mask_NK, np.maximum(share_NK, 0) / np.maximum(level_NK, 1), 0)


def pick_probs_if_drawn(proxy_NK: np.ndarray, mask_NK: np.ndarray, n: int) -> np.ndarray:
    """probs_NK: how likely each candidate is picked given that it is one of the n.

    The other n − 1 are drawn from the rest. A candidate is drawn with probability n / K: Bayes' rule.
    """
    return pick_probs(proxy_NK, mask_NK, n) * (np.sum(mask_NK, axis=1, keepdims=True) / n)


def expected(scores_NK: np.ndarray, picks_NK: np.ndarray) -> np.ndarray:
    """score_N: the expected score of the pick; nan where a candidate without a score may be picked."""
    return np.where(picks_NK > 0, scores_NK * picks_NK, 0).sum(1)


def curve(proxy_NK: np.ndarray, gold_NK: np.ndarray, mask_NK: np.ndarray, *, sizes: Sequence[int]) -> Curve:
    """Expected gold and proxy scores of the pick for each n in `sizes` (1 up to the fewest candidates of a question).

    gold_NK has a number for every real candidate.
    """
    if not np.isfinite(np.asarray(gold_NK)[np.asarray(mask_NK, dtype=bool)]).all():
        raise ValueError("gold: a real candidate has no finite score")
    picks_SNK = [pick_probs(proxy_NK, mask_NK, n) for n in sizes]
    gold_SN, proxy_SN = (np.array([expected(part, picks_NK) for picks_NK in picks_SNK]) for part in (gold_NK, proxy_NK))
    return Curve(np.array(sizes, dtype=int), np.array([kl(n) for n in sizes]), gold_SN, proxy_SN)


def kl(n: int) -> float:
    """ln n − (n − 1) / n, in nats: the divergence of best-of-n from its policy.

    Stiennon et al., arXiv 2009.01325; Coste et al., arXiv 2310.02743. Exact where no two samples tie, an
    upper bound otherwise (Beirami et al., arXiv 2401.01879).
    """
    if n < 1:
        raise BadInput(f"n: {n!r} given; allowed: a whole number of at least 1")
    return float(np.log(n) - (n - 1) / n)


def doublings(most: int) -> list[int]:
    """1, 2, 4, ... up to `most`, and `most` itself: even steps on the axis of the divergence."""
    return sorted({*(2**power for power in range(most.bit_length())), most})


def places(proxy_NK: np.ndarray, mask_NK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(below_NK, level_NK): how many candidates of the question are below each candidate, and level with it."""
    proxy_NK = np.asarray(proxy_NK, dtype=np.float64)
    ranked_NK = np.where(mask_NK, np.where(np.isnan(proxy_NK), -np.inf, proxy_NK), np.inf)
    below_NK, level_NK = np.zeros(proxy_NK.shape, dtype=int), np.zeros(proxy_NK.shape, dtype=int)
    for row, (ranked_K, mask_K) in enumerate(zip(ranked_NK, mask_NK, strict=True)):
        real_K = np.sort(ranked_K[mask_K])
        below_NK[row] = np.searchsorted(real_K, ranked_K, side="left")
        level_NK[row] = np.searchsorted(real_K, ranked_K, side="right") - below_NK[row]
    return below_NK, level_NK


def log_choose(of: np.ndarray, n: int) -> np.ndarray:
    """ln C(of, n), −inf where there are fewer than n."""
    enough = of >= n
    of = np.where(enough, of, n).astype(np.float64)
    return np.where(enough, gammaln(of + 1) - gammaln(n + 1) - gammaln(of - n + 1), -np.inf)
