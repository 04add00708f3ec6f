"""The environment of RL-Focal's agents: what they observe of recorded answers, and the questions they get.

Letters: B decisions, E parallel episodes, S questions of an episode, W of a window, K candidates, M members,
F features, G tasks. All of it is NumPy.
"""

from dataclasses import dataclass

import numpy as np

from w2s.ensemble.diversity import focal_diversities
from w2s.pools.records import ABSTAINED, Opinions, Truth

EPISODES, STEPS = 128, 16  # parallel episodes and their length: 2,048 decisions in a rollout
POOLED = 5  # features of a candidate that are not one member's: the last columns of `evidence`


@dataclass(frozen=True)
class Pool:
    """The recorded answers as the agents read them, by question, candidate and member.

    candidate_NK: positions of the candidates (-1: none); without recorded probabilities, only of the given answers.
    """

    candidate_NK: np.ndarray
    vote_NKM: np.ndarray
    log_NKM: np.ndarray | None  # ln p + ln K of each candidate, 0 where no probability was recorded
    abstained_NM: np.ndarray


@dataclass(frozen=True)
class Past:
    """Questions with gold: who failed them, gold's position in the pool's candidate_NK (-1: absent), accuracies.

    rows_G: the questions of each task in `groups`, sorted, and last all questions; share_G: how often each is drawn.
    """

    fails_NM: np.ndarray
    gold_N: np.ndarray
    groups: np.ndarray
    rows_G: list[np.ndarray]
    share_G: np.ndarray
    accuracy_M: np.ndarray


@dataclass(frozen=True)
class Episodes:
    """Each episode's questions, and what its window of earlier ones shows: fails_EMW, accuracy_EM."""

    rows_SE: np.ndarray
    fails_EMW: np.ndarray
    accuracy_EM: np.ndarray

    @property
    def rows_B(self) -> np.ndarray:
        """All questions, step by step."""
        return self.rows_SE.ravel()

    @property
    def odds_BM(self) -> np.ndarray:
        """The members' log-odds of being right, for each of rows_B."""
        return np.tile(log_odds(self.accuracy_EM), (len(self.rows_SE), 1))


def make_pool(opinions: Opinions) -> Pool:
    """`opinions` as the agents read them."""
    answer_NM, log_NKM = opinions.answer_MN.T, None
    if opinions.probs_MNK is None:
        sorted_NM = np.sort(answer_NM, axis=1)
        new_NM = (sorted_NM >= 0) & (np.diff(sorted_NM, axis=1, prepend=-1) > 0)
        candidate_NK = np.full((len(answer_NM), max(1, int(new_NM.sum(1).max(initial=0)))), -1)
        candidate_NK[np.nonzero(new_NM)[0], (np.cumsum(new_NM, axis=1) - 1)[new_NM]] = sorted_NM[new_NM]
        candidate_NK[:, 0] = np.maximum(candidate_NK[:, 0], 0)  # something to score even without any answer
    else:
        candidate_NK = np.where(opinions.mask_NK, np.arange(opinions.mask_NK.shape[1]), -1)
        log_MNK = np.log(np.maximum(opinions.probs_MNK, 1e-4) * np.maximum(opinions.count_N, 1)[:, None])
        log_NKM = np.nan_to_num(log_MNK.transpose(1, 2, 0)).astype(np.float32)
    vote_NKM = (answer_NM[:, None, :] == candidate_NK[:, :, None]) & (answer_NM >= 0)[:, None, :]
    return Pool(candidate_NK, vote_NKM, log_NKM, answer_NM == ABSTAINED)


def make_past(opinions: Opinions, truth: Truth, candidate_NK: np.ndarray, *, by_group: bool) -> Past:
    """The Past of questions with gold; tasks of fewer than 2·STEPS questions have no window of their own."""
    gold_NK = (candidate_NK == truth.gold_N[:, None]) & (truth.gold_N >= 0)[:, None]
    fails_NM = ((opinions.answer_MN != truth.gold_N) | (truth.gold_N < 0)).T
    names, count = np.unique(opinions.group_N, return_counts=True)
    groups = names[count >= 2 * STEPS] if by_group and len(names) > 1 else names[:0]
    rows_G = [*(np.flatnonzero(opinions.group_N == name) for name in groups), np.arange(len(fails_NM))]
    size_G = np.array([len(rows) for rows in rows_G], dtype=float)
    # Questions without a task of their own are drawn with the window of all; at least a tenth, so that it is learned.
    size_G[-1] = max(size_G[-1] - size_G[:-1].sum(), size_G[-1] / 10)
    gold_N = np.where(gold_NK.any(1), gold_NK.argmax(1), -1)
    return Past(fails_NM, gold_N, groups, rows_G, size_G / size_G.sum(), 1 - fails_NM.mean(0))


def find_tasks(groups: np.ndarray, group_N: np.ndarray) -> np.ndarray:
    """The position of each question's task in the sorted `groups`; those without one come after the last."""
    if not len(groups):
        return np.zeros(len(group_N), dtype=int)
    at_N = np.minimum(np.searchsorted(groups, group_N), len(groups) - 1)
    return np.where(groups[at_N] == group_N, at_N, len(groups))


def draw(past: Past, rng: np.random.Generator, *, window: int) -> Episodes:
    """Episodes of STEPS + 1 questions of one task. No question is in its own window while the task has others."""
    rows_SE = np.zeros((STEPS + 1, EPISODES), dtype=np.int64)
    fails_EMW = np.zeros((EPISODES, past.fails_NM.shape[1], window), dtype=bool)  # unused places count as right
    length_E = np.zeros(EPISODES)
    for at, task in enumerate(rng.choice(len(past.rows_G), EPISODES, p=past.share_G)):
        rows = rng.permutation(past.rows_G[task])[: window + STEPS + 1]
        length = min(window, max(len(rows) // 2, len(rows) - STEPS - 1))
        rows_SE[:, at] = np.resize(rows[length:], STEPS + 1)
        fails_EMW[at, :, :length] = past.fails_NM[rows[:length]].T
        length_E[at] = length
    return Episodes(rows_SE, fails_EMW, estimate_accuracy(fails_EMW, length_E, past.accuracy_M))


def make_window(past: Past, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """These questions as one window: fails_1MW, accuracy_1M and the members' log-odds, odds_1M."""
    fails_1MW = past.fails_NM[rows].T[None]
    accuracy_1M = estimate_accuracy(fails_1MW, len(rows), past.accuracy_M)
    return fails_1MW, accuracy_1M, log_odds(accuracy_1M)


def estimate_accuracy(fails_BMW: np.ndarray, length_B: np.ndarray | float, accuracy_M: np.ndarray) -> np.ndarray:
    """accuracy_BM in windows of length_B questions, shrunk towards the members' overall accuracy by ten questions."""
    length_B1 = np.reshape(length_B, (-1, 1))
    return ((length_B1 - fails_BMW.sum(2) + 10 * accuracy_M) / (length_B1 + 10)).astype(np.float32)


def log_odds(accuracy_BM: np.ndarray) -> np.ndarray:
    """Log-odds of accuracies, clipped to about -3 to 3."""
    accuracy_BM = np.clip(accuracy_BM, 0.0475, 0.9525)
    return np.log(accuracy_BM / (1 - accuracy_BM))


def observe(fails_BMW: np.ndarray, accuracy_BM: np.ndarray, bits_BM: np.ndarray) -> np.ndarray:
    """The Decider's state: the selection's bits, the window's accuracies, the selection's focal diversity and size."""
    scores_B2 = np.stack([focal_diversities(fails_BMW, bits_BM), bits_BM.mean(1)], 1)
    return np.concatenate([bits_BM, 4 * accuracy_BM - 2, scores_B2], 1, dtype=np.float32)


def choose_asked(pool: Pool, rows_B: np.ndarray, bits_BM: np.ndarray) -> np.ndarray:
    """Who is asked, bool: the chosen members, and all of them where no chosen one has an answer."""
    chosen_BM = bits_BM.astype(bool)
    silent_B1 = ~(chosen_BM & pool.vote_NKM[rows_B].any(1)).any(1, keepdims=True)
    return chosen_BM | silent_B1


def evidence(
    pool: Pool, rows_B: np.ndarray, asked_BM: np.ndarray, odds_BM: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """evidence_BKF of each candidate, float32, and mask_BK of those that can be picked.

    By member, 0 if it was not asked: its vote, its vote weighted by odds_BM (log-odds of being right in the window),
    (its log-probability), whether it abstained, whether it was asked. Pooled: share of the votes, sum of the weighted
    votes, the most that any other candidate has of either, distinct answers per vote.
    """
    asked_BM = asked_BM.astype(np.float32)
    vote_BKM = pool.vote_NKM[rows_B] * asked_BM[:, None, :]
    votes_B1 = np.maximum(vote_BKM.sum((1, 2)), 1)[:, None]
    share_BK = vote_BKM.sum(2) / votes_B1
    weighed_BKM = vote_BKM * odds_BM.astype(np.float32)[:, None, :]
    weighed_BK = weighed_BKM.sum(2)
    given_BK = share_BK > 0
    variety_BK = np.broadcast_to(given_BK.sum(1, keepdims=True) / votes_B1, share_BK.shape)
    pooled_BKF = np.stack([share_BK, best_rival(share_BK), weighed_BK, best_rival(weighed_BK), variety_BK], 2)
    by_member = [vote_BKM, weighed_BKM]
    if pool.log_NKM is not None:
        by_member.append(pool.log_NKM[rows_B] * asked_BM[:, None, :] / 4)
    for said_BM in (pool.abstained_NM[rows_B] * asked_BM, asked_BM):
        by_member.append(np.broadcast_to(said_BM[:, None, :], vote_BKM.shape))
    # Without probabilities only given answers can be picked; without answers, any.
    open_BK = given_BK | ~given_BK.any(1, keepdims=True) | (pool.log_NKM is not None)
    found_BKF = np.concatenate([*by_member, pooled_BKF], 2, dtype=np.float32)
    return found_BKF, (pool.candidate_NK[rows_B] >= 0) & open_BK


def best_rival(value_BK: np.ndarray) -> np.ndarray:
    """For each candidate the largest value of any other, at least 0."""
    if value_BK.shape[1] < 2:
        return np.zeros_like(value_BK)
    second_B1, first_B1 = np.split(np.partition(value_BK, -2, axis=1)[:, -2:], 2, axis=1)
    return np.maximum(np.where(value_BK >= first_B1, second_B1, first_B1), 0)


def make_critic_state(pool: Pool, rows_B: np.ndarray, state_BF: np.ndarray, odds_BM: np.ndarray) -> np.ndarray:
    """What the central critic sees: the Decider's state, the whole pool's votes, and the two best candidates' sums."""
    found_BKF, _ = evidence(pool, rows_B, np.ones_like(odds_BM), odds_BM)
    pooled_BKF = found_BKF[:, :, -POOLED:]
    best_BF = pooled_BKF.max(1)
    silent_B1 = pool.abstained_NM[rows_B].mean(1, keepdims=True)
    return np.concatenate(
        [state_BF, best_BF, pooled_BKF[:, :, 1].min(1, keepdims=True), silent_B1], 1, dtype=np.float32
    )


def network_sizes(pool: Pool) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of each network."""
    members = pool.vote_NKM.shape[2]
    features, state = (4 if pool.log_NKM is None else 5) * members + POOLED, 2 * members + 2
    return {"decider": (state, members), "fusion": (features, 1), "critic": (state + POOLED + 2, 1)}
