"""RL-Focal: a Decider that chooses members and a Fusion that reads them, trained together by reinforcement learning.

Tekin et al., arXiv 2502.04492. Each question is one step: the Decider sees the selection it made last, how well and
how differently the members did in a window of past questions, and chooses members; the Fusion reads their answers and
picks a candidate; both gain 1 if it is right and lose 1 + alpha·m/M if it is wrong, with m of M members asked.

Ours: the Fusion scores each candidate by what the chosen members say of it, so that a question may have any number of
candidates in any order; if tasks are recorded, a window holds questions of one task; if no chosen member has an
answer, all are asked. Two protocols, never mixed: `focal` (offline: the window is frozen with the agents, so that one
task has one selection; labels of new questions are never seen) and `online` (each label is revealed afterwards).
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from w2s.ensemble.ballots import NotApplicable
from w2s.plugins.rl_focal.agents import (
    FAR,
    Agents,
    Rollout,
    forward,
    gae,
    learn_decider,
    learn_fusion,
    learn_together,
    one_thread,
)
from w2s.plugins.rl_focal.world import (
    EPISODES,
    Past,
    Pool,
    choose_asked,
    draw,
    estimate_accuracy,
    evidence,
    find_tasks,
    log_odds,
    make_critic_state,
    make_past,
    make_pool,
    make_window,
    network_sizes,
    observe,
)
from w2s.pools.hedge import prequential
from w2s.pools.records import Decision, Fitted, Opinions, Truth, ballots
from w2s.store.records import BadInput, softmax

BLOCK = 20_000  # questions that are read at once
ENOUGH = 2_000  # questions by which selections are compared
SETTLE = 8  # how often the frozen Decider sees its own choice before it is final


@dataclass(frozen=True)
class School:
    """The state of training. discount and trace: parameters of the generalised advantage estimates."""

    agents: Agents
    pool: Pool
    past: Past
    rng: np.random.Generator
    alpha: float
    window: int
    discount: float = 0.5  # a choice affects later steps only as the Decider's last selection
    trace: float = 0.95


def focal(
    opinions: Opinions,
    truth: Truth,
    *,
    alpha: float = 0.02,
    window: int = 200,
    by_group: bool = True,
    warm_steps: int = 400,
    updates: int = 40,
    hidden: int = 64,
    seed: int = 0,
) -> Fitted:
    """RL-Focal: a Decider chooses members by accuracy and focal diversity, a Fusion reads them; trained by MAPPO.

    alpha (0 or more): the price of asking everyone and being wrong, where right is worth 1; the paper's 0.6 to 1 leaves
    little more than the best single member. window: questions by which the Decider knows the members; warm_steps:
    supervised steps of the Fusion; updates: MAPPO updates (0: fusion without reinforcement learning). The result
    depends on the order of a question's candidates, only through training's random draws, and on no other order. meta
    holds each update's reward and clipping. Needs torch to fit, not to apply.
    """
    check(alpha, window, hidden, {"warm_steps": warm_steps, "updates": updates})
    ballots(opinions, truth)  # answers and gold are there
    opinions = opinions.only(np.sort(opinions.members))
    order = np.argsort(opinions.ids)
    order = order[truth.gold_N[order] > -2]
    opinions, truth = opinions.questions(order), truth.questions(order)
    pool, rng = make_pool(opinions), np.random.default_rng(seed)
    past = make_past(opinions, truth, pool.candidate_NK, by_group=by_group)
    school = School(Agents(rng, network_sizes(pool), hidden=hidden), pool, past, rng, alpha, window)
    with one_thread():
        warm_fusion(school, warm_steps)
        static_M = find_static_selection(school)
        warm_decider(school, static_M, 100)
        school.agents.forget_moments()
        seen = [learn_together(school.agents, *rollout(school), rng) for _ in range(updates)]
    chosen_GM, odds_GM = zip(*(settle(school, rows) for rows in past.rows_G), strict=True)
    arrays = {
        f"{name}_{at}": array.copy()
        for name in ("decider", "fusion")
        for at, array in enumerate(school.agents.networks[name])
    }
    arrays |= {"groups": past.groups, "chosen_GM": np.array(chosen_GM), "odds_GM": np.array(odds_GM)}
    meta = {"static": opinions.members[static_M].tolist(), "updates": seen, "probabilities": pool.log_NKM is not None}
    return Fitted("focal", opinions.members, arrays, meta)


def apply_focal(fitted: Fitted, opinions: Opinions, point: int) -> Decision:
    """Probabilities of the candidates from the answers of the members that the Decider chose for the task."""
    arrays = fitted.arrays
    if not fitted.meta["probabilities"]:
        opinions = dataclasses.replace(opinions, probs_MNK=None)
    elif opinions.probs_MNK is None:
        raise NotApplicable("it was fitted with choice probabilities, and none were recorded here")
    pool = make_pool(opinions)
    task_N = find_tasks(arrays["groups"], opinions.group_N)
    layers = [arrays[f"fusion_{at}"] for at in range(4)]
    asked_NM = choose_asked(pool, np.arange(len(task_N)), arrays["chosen_GM"][task_N])
    probs_NK = np.zeros(opinions.mask_NK.shape)
    for first in range(0, len(task_N), BLOCK):
        rows_B = np.arange(first, min(first + BLOCK, len(task_N)))
        score_BK, mask_BK = scores(layers, pool, rows_B, asked_NM[rows_B], arrays["odds_GM"][task_N[rows_B]])
        at_B, slot_B = np.nonzero(mask_BK)
        probs_NK[rows_B[at_B], pool.candidate_NK[rows_B][mask_BK]] = softmax(score_BK, mask_BK)[at_B, slot_B]
    silent_N = ~pool.vote_NKM.any((1, 2))
    return Decision(silent_N, np.where(silent_N[:, None], 0, probs_NK), asked_MN=asked_NM.T)


def online(
    opinions: Opinions,
    truth: Truth,
    *,
    alpha: float = 0.02,
    window: int = 200,
    every: int = 100,
    by_group: bool = True,
    fusion_steps: int = 20,
    updates_per_block: int = 2,
    hidden: int = 64,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """RL-Focal question by question, each label revealed after its prediction, beside `hedge.prequential`'s baselines.

    Name -> right_N, 0 to 1, in the given order. After each `every` questions both agents learn from the whole past:
    `fusion_steps` supervised steps and `updates_per_block` MAPPO updates (0: no reinforcement learning). Whenever the
    past has doubled, the Decider is first reset to the best static selection. Plurality answers the first `every`
    questions.
    """
    check(alpha, window, hidden, {"fusion_steps": fusion_steps, "updates_per_block": updates_per_block})
    baselines = prequential(opinions, truth, every=every)
    pool, rng = make_pool(opinions), np.random.default_rng(seed)
    agents = Agents(rng, network_sizes(pool), hidden=hidden)
    bits_M, doubled, right = np.ones(len(opinions.members), dtype=bool), every, [baselines["plurality"][:every]]
    for start in range(every, len(opinions.ids), every):
        before, rows_B = slice(0, start), np.arange(start, min(start + every, len(opinions.ids)))
        past = make_past(
            opinions.questions(before), truth.questions(before), pool.candidate_NK[before], by_group=by_group
        )
        school = School(agents, pool, past, rng, alpha, window)
        with one_thread():
            warm_fusion(school, fusion_steps * (5 if start == every else 1))
            if start >= doubled:
                warm_decider(school, find_static_selection(school), 100)
                doubled = 2 * start
            for _ in range(updates_per_block):
                learn_together(agents, *rollout(school), rng)
        picked_B, bits_M = follow(school, opinions, truth, rows_B, bits_M)
        right.append((picked_B == truth.gold_N[rows_B]).astype(np.float64))
    return {"rl_focal": np.concatenate(right), **baselines}


def follow(
    school: School, opinions: Opinions, truth: Truth, rows_B: np.ndarray, bits_M: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The candidates picked for questions in turn, -1 without an answer, and the last selection.

    The agents are those at the block's start; the Decider's window moves with every label.
    """
    fails_MN = (opinions.answer_MN != truth.gold_N) | (truth.gold_N < 0)
    chosen, odds = [], []
    for row in rows_B:
        known = np.flatnonzero(opinions.group_N[:row] == opinions.group_N[row])
        rows = known if np.isin(opinions.group_N[row], school.past.groups) else np.arange(row)
        fails_1MW = fails_MN[:, rows[-school.window :]][None]
        accuracy_1M = estimate_accuracy(fails_1MW, fails_1MW.shape[2], school.past.accuracy_M)
        state_1F = observe(fails_1MW, accuracy_1M, bits_M[None])
        bits_M = forward(school.agents.networks["decider"], state_1F)[0] > 0
        chosen.append(bits_M)
        odds.append(log_odds(accuracy_1M)[0])
    asked_BM = choose_asked(school.pool, rows_B, np.array(chosen))
    score_BK, _ = scores(school.agents.networks["fusion"], school.pool, rows_B, asked_BM, np.array(odds))
    slot_B = score_BK.argmax(1)
    answered_B = school.pool.vote_NKM[rows_B].any((1, 2))
    return np.where(answered_B, school.pool.candidate_NK[rows_B, slot_B], -1), bits_M


def scores(layers, pool: Pool, rows_B, asked_BM, odds_BM) -> tuple[np.ndarray, np.ndarray]:
    """The Fusion's score_BK, FAR for padding, and mask_BK of the candidates."""
    evidence_BKF, mask_BK = evidence(pool, rows_B, asked_BM, odds_BM)
    return np.where(mask_BK, forward(layers, evidence_BKF)[..., 0], FAR), mask_BK


def warm_fusion(school: School, steps: int, *, batch: int = 1024, rate: float = 1e-3) -> None:
    """Supervised steps of the Fusion: half on all members, half on random selections of any size."""
    rng, gold_N, done = school.rng, school.past.gold_N, 0
    while done < steps:
        episodes = draw(school.past, rng, window=school.window)
        rows_B, odds_BM = episodes.rows_B, episodes.odds_BM
        share_B1 = np.where(rng.random((len(rows_B), 1)) < 0.5, 1.0, rng.random((len(rows_B), 1)))
        asked_BM = choose_asked(school.pool, rows_B, rng.random(odds_BM.shape) < share_B1)
        evidence_BKF, mask_BK = evidence(school.pool, rows_B, asked_BM, odds_BM)
        gold_B = gold_N[rows_B]
        useful_B = mask_BK[np.arange(len(rows_B)), gold_B] & (gold_B >= 0)
        for part in np.array_split(rng.permutation(np.flatnonzero(useful_B)), max(1, len(rows_B) // batch)):
            if len(part):
                now = rate * max(1 - done / steps, 0.03)
                learn_fusion(school.agents, evidence_BKF[part], mask_BK[part], gold_B[part], now)
            done += 1


def find_static_selection(school: School) -> np.ndarray:
    """The members, bool, with the Fusion's best mean reward on the path of a greedy search from one to all of them."""
    past = school.past
    odds_NM = np.empty(past.fails_NM.shape)
    for rows in past.rows_G[::-1]:  # the window of all questions first, then those of the tasks
        odds_NM[rows] = make_window(past, rows)[2]
    rows_B = school.rng.permutation(len(odds_NM))[:ENOUGH]
    odds_BM = odds_NM[rows_B]

    def reward(bits_M: np.ndarray) -> float:
        asked_BM = choose_asked(school.pool, rows_B, np.broadcast_to(bits_M, odds_BM.shape))
        score_BK, _ = scores(school.agents.networks["fusion"], school.pool, rows_B, asked_BM, odds_BM)
        return float(rewards(school, rows_B, score_BK.argmax(1), asked_BM).mean())

    each_MM = np.eye(odds_BM.shape[1], dtype=bool)
    bits_M = best_M = np.zeros(len(each_MM), dtype=bool)
    best = -np.inf
    while not bits_M.all():
        tried = [bits_M | one_M for one_M in each_MM[~bits_M]]
        found = [reward(one_M) for one_M in tried]
        bits_M = tried[int(np.argmax(found))]
        if max(found) > best:
            best, best_M = max(found), bits_M
    return best_M


def warm_decider(school: School, static_M: np.ndarray, steps: int) -> None:
    """Steps in which the Decider learns to choose the static selection, whatever it chose last.

    It keeps one chance in ten, per member, of choosing otherwise: a certain Decider would never explore.
    """
    target_EM = np.broadcast_to(np.where(static_M, 0.9, 0.1), (EPISODES, len(static_M))).astype(np.float32)
    for at in range(steps):
        if at % 10 == 0:
            episodes = draw(school.past, school.rng, window=school.window)
        bits_EM = school.rng.random(target_EM.shape) < school.rng.random((EPISODES, 1))
        state_EF = observe(episodes.fails_EMW, episodes.accuracy_EM, bits_EM)
        learn_decider(school.agents, state_EF, target_EM, 3e-3)


def rewards(school: School, rows_B: np.ndarray, slot_B: np.ndarray, asked_BM: np.ndarray) -> np.ndarray:
    """reward_B: 1 where the pick is right, -1 - alpha·m/M where it is wrong."""
    wrong_B = -1 - school.alpha * asked_BM.mean(1)
    return np.where(slot_B == school.past.gold_N[rows_B], 1, wrong_B).astype(np.float32)


def rollout(school: School) -> tuple[Rollout, float]:
    """What both agents do, sampling from their policies, in fresh episodes, and the mean reward."""
    rng, networks = school.rng, school.agents.networks
    episodes = draw(school.past, rng, window=school.window)
    rows_B, odds_BM = episodes.rows_B, episodes.odds_BM
    states, chosen, olds = [], [], []
    bits_EM = rng.random(episodes.accuracy_EM.shape) < 0.5
    for _ in episodes.rows_SE:
        states.append(observe(episodes.fails_EMW, episodes.accuracy_EM, bits_EM))
        logit_EM = forward(networks["decider"], states[-1])
        bits_EM = rng.random(logit_EM.shape) < 1 / (1 + np.exp(-logit_EM))
        chosen.append(bits_EM.astype(np.float32))
        olds.append(-np.logaddexp(0, np.where(bits_EM, -logit_EM, logit_EM)).sum(1))
    state_BF, bits_BM, old_B = map(np.concatenate, (states, chosen, olds))
    asked_BM = choose_asked(school.pool, rows_B, bits_BM)
    evidence_BKF, mask_BK = evidence(school.pool, rows_B, asked_BM, odds_BM)
    log_BK = np.log(softmax(forward(networks["fusion"], evidence_BKF)[..., 0], mask_BK) + 1e-30)
    # The argmax of log-probabilities plus Gumbel noise is a draw from them.
    slot_B = np.where(mask_BK, log_BK + rng.gumbel(size=log_BK.shape), -np.inf).argmax(1)
    picked_B = np.take_along_axis(log_BK, slot_B[:, None], 1)[:, 0].astype(np.float32)
    reward_B = rewards(school, rows_B, slot_B, asked_BM)
    critic_BF = make_critic_state(school.pool, rows_B, state_BF, odds_BM)
    value_SE = forward(networks["critic"], critic_BF)[:, 0].reshape(episodes.rows_SE.shape)
    reward_TE = reward_B.reshape(value_SE.shape)[:-1]
    advantage_TE = gae(reward_TE, value_SE, discount=school.discount, trace=school.trace)
    used = slice(0, advantage_TE.size)  # an episode's last step serves only for its value
    acted = (state_BF, bits_BM, old_B, evidence_BKF, mask_BK, slot_B, picked_B, critic_BF)
    returns_TE = advantage_TE + value_SE[:-1]
    found = Rollout(*(array[used] for array in acted), advantage_TE.ravel(), returns_TE.ravel())
    return found, float(reward_TE.mean())


def settle(school: School, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The frozen Decider's choice with these questions as its window, and the members' log-odds in it."""
    fails_1MW, accuracy_1M, odds_1M = make_window(school.past, rows)
    bits_1M = np.ones(accuracy_1M.shape, dtype=bool)
    for _ in range(SETTLE):
        bits_1M = forward(school.agents.networks["decider"], observe(fails_1MW, accuracy_1M, bits_1M)) > 0
    return bits_1M[0], odds_1M[0]


def check(alpha: float, window: int, hidden: int, counts: dict[str, int]) -> None:
    """Raise a BadInput for an option out of range."""
    if not 0 <= alpha < np.inf:
        raise BadInput(f"alpha: {alpha!r} given; allowed: 0 or more")
    for name, value in (("window", window), ("hidden", hidden)):
        if value < 1:
            raise BadInput(f"{name}: {value!r} given; allowed: a whole number above 0")
    for name, value in counts.items():
        if value < 0:
            raise BadInput(f"{name}: {value!r} given; allowed: a whole number, 0 or more")


METHODS = {
    "combine": {"rl_focal": focal},
    "combine_families": {"focal": {"rl_focal": focal}},
    "combine_apply": {"focal": apply_focal},
    "combine_online": {"rl_focal": online},
}
