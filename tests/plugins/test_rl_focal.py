import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from w2s.ensemble.ballots import NotApplicable
from w2s.plugins.rl_focal import School, apply_focal, focal, online, rewards, rollout
from w2s.plugins.rl_focal import agents as focal_agents
from w2s.plugins.rl_focal import world as focal_world
from w2s.plugins.rl_focal.agents import Agents, clipped_loss, forward, gae, learn_together, log_bits
from w2s.plugins.rl_focal.world import best_rival, choose_asked, draw, evidence, make_past, make_pool, network_sizes
from w2s.pools.records import Opinions, Truth, read_fitted, rightness, write_fitted
from w2s.store.records import BadInput

QUICK = {"warm_steps": 30, "updates": 2, "hidden": 16, "window": 40}


def pool(seed=0, rows=300, accuracy_GM=((0.9, 0.2, 0.3), (0.2, 0.9, 0.3)), choices=5, silent=0.1):
    """Opinions of members that are good at different tasks and abstain now and then, and the truth."""
    rng = np.random.default_rng(seed)
    accuracy_GM = np.array(accuracy_GM)
    task_N = rng.integers(len(accuracy_GM), size=rows)
    count_N = rng.integers(2, choices + 1, size=rows)
    gold_N = rng.integers(count_N)
    right_MN = rng.random((accuracy_GM.shape[1], rows)) < accuracy_GM[task_N].T
    other_MN = (gold_N + rng.integers(1, count_N, size=right_MN.shape)) % count_N
    answer_MN = np.where(right_MN, gold_N, other_MN)
    answer_MN = np.where(rng.random(answer_MN.shape) < silent, -1, answer_MN).astype(np.int16)
    texts_N = np.array([None] * rows)
    texts_N[:] = [tuple("abcdefghij"[:count]) for count in count_N]
    ids = np.array([f"q{at:05}" for at in range(rows)])
    names = np.array([f"m{at:02}" for at in range(len(answer_MN))])
    group_N = np.array([f"task{at}" for at in task_N])
    opinions = Opinions(ids, names, answer_MN, count_N, texts_N, group_N, np.full(rows, ""))
    return opinions, Truth(ids, gold_N, (answer_MN == gold_N).astype(float))


def school(seed=0, **options):
    opinions, truth = pool(seed, **options)
    found, rng = make_pool(opinions), np.random.default_rng(seed)
    past = make_past(opinions, truth, found.candidate_NK, by_group=True)
    return School(Agents(rng, network_sizes(found), hidden=16), found, past, rng, alpha=0.5, window=40)


@pytest.fixture(scope="module")
def trained():
    opinions, truth = pool(rows=600)
    half = np.arange(600) < 300
    fitted = focal(opinions.questions(half), truth.questions(half), **{**QUICK, "warm_steps": 200, "updates": 5})
    return fitted, opinions.questions(~half), truth.questions(~half)


def test_the_advantages_are_those_worked_out_by_hand():
    reward_TE, value_SE = np.array([[1.0], [-1.0], [1.0]]), np.array([[0.5], [0.25], [-0.5], [1.0]])
    # d_t = r_t + 0.5 V_(t+1) - V_t: 0.625, -1.5, 2.0; A_t = d_t + 0.5 · 0.8 · A_(t+1)
    by_hand = [[0.625 + 0.4 * (-1.5 + 0.4 * 2.0)], [-1.5 + 0.4 * 2.0], [2.0]]
    assert np.allclose(gae(reward_TE, value_SE, discount=0.5, trace=0.8), by_hand)


@given(st.integers(1, 6), st.floats(0, 1), st.floats(0, 1), st.integers(0, 99))
def test_the_advantages_are_the_weighted_sum_of_their_definition(steps, discount, trace, seed):
    rng = np.random.default_rng(seed)
    reward_TE, value_SE = rng.normal(size=(steps, 2)), rng.normal(size=(steps + 1, 2))
    surprise_TE = reward_TE + discount * value_SE[1:] - value_SE[:-1]
    by_definition = [
        sum((discount * trace) ** (later - at) * surprise_TE[later] for later in range(at, steps))
        for at in range(steps)
    ]
    assert np.allclose(gae(reward_TE, value_SE, discount=discount, trace=trace), by_definition)


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"),
    [(1.0, 1.0, True), (1.3, 1.0, False), (0.7, 1.0, True), (0.7, -1.0, False), (1.3, -1.0, True)],
)
def test_beyond_the_clip_no_gradient_is_left_and_within_it_there_is(ratio, advantage, moves):
    new = torch.tensor([np.log(ratio)], requires_grad=True)
    loss, beyond = clipped_loss(new, torch.zeros(1), torch.tensor([advantage]), 0.2)
    (slope,) = torch.autograd.grad(loss, new)
    assert bool(slope.abs() > 1e-6) == moves
    assert beyond == (ratio != 1.0)


def test_the_old_chances_stay_those_of_the_rollout_so_that_the_clip_acts():
    world = school()
    acted, reward = rollout(world)
    first = log_bits(
        torch.from_numpy(forward(world.agents.networks["decider"], acted.state_BF)), torch.from_numpy(acted.bits_BM)
    )
    assert np.allclose(first.numpy(), acted.old_decider_B, atol=1e-4)  # the ratio begins at 1 ...
    kept_B = acted.old_decider_B.copy()
    seen = [learn_together(world.agents, acted, reward, world.rng, epochs=12) for _ in range(3)]
    assert np.array_equal(kept_B, acted.old_decider_B)
    assert max(s["clipped_decider"] for s in seen) > 0.01  # ... and leaves it
    assert max(s["clipped_fusion"] for s in seen) > 0


def test_every_network_learns_in_an_update():
    world = school()
    before = {name: [array.copy() for array in layers] for name, layers in world.agents.networks.items()}
    learn_together(world.agents, *rollout(world), world.rng)
    for name, layers in world.agents.networks.items():
        assert not np.array_equal(before[name][0], layers[0]), name


def test_adam_is_torch_s():
    rng = np.random.default_rng(0)
    agents = Agents(rng, {"decider": (3, 2)}, hidden=4)
    theirs = [torch.tensor(array, requires_grad=True) for array in agents.networks["decider"]]
    adam = torch.optim.AdamW(theirs, lr=0.01, weight_decay=0.01, eps=1e-12)
    inputs = torch.tensor(rng.normal(size=(5, 3)), dtype=torch.float32)
    for _ in range(5):
        agents.step((forward(agents.tensors["decider"], inputs) - 1).square().mean() / 50, {"decider": 0.01})
        adam.zero_grad()
        ((forward(theirs, inputs) - 1).square().mean() / 50).backward()
        adam.step()
    for ours, other in zip(agents.networks["decider"], theirs, strict=True):
        assert np.allclose(ours, other.detach().numpy(), atol=2e-3)


def test_reinforcement_learning_finds_the_better_member_by_reward_alone():
    world = school(accuracy_GM=((0.95, 0.05, 0.05),), silent=0.0, rows=400)
    world = dataclasses.replace(world, alpha=1.0)
    rewarded = [learn_together(world.agents, *rollout(world), world.rng)["reward"] for _ in range(40)]
    assert np.mean(rewarded[-3:]) > np.mean(rewarded[:3]) + 0.3


def test_the_reward_is_one_when_right_and_prices_the_asked_when_wrong():
    world = school()
    asked_BM = np.array([[True, False, False], [True, True, True], [True, True, True]])
    gold_B = world.past.gold_N[[0, 1, 2]]
    found = rewards(world, np.array([0, 1, 2]), np.r_[gold_B[0], gold_B[1], 99], asked_BM)
    assert found[2] == pytest.approx(-1.5)
    assert found[0] == (1 if gold_B[0] >= 0 else found[0])
    lone = rewards(world, np.array([0]), np.array([99]), asked_BM[:1])
    assert lone[0] == pytest.approx(-1 - 0.5 / 3)


def test_a_window_holds_questions_of_one_task_and_none_that_is_asked_in_it():
    opinions, truth = pool(rows=300)
    found = make_pool(opinions)
    past = make_past(opinions, truth, found.candidate_NK, by_group=True)
    assert past.groups.tolist() == ["task0", "task1"]
    episodes = draw(past, np.random.default_rng(0), window=40)
    for rows_S, fails_MW in zip(episodes.rows_SE.T, episodes.fails_EMW, strict=True):
        assert len(set(rows_S)) == len(rows_S)
        assert fails_MW.shape == (3, 40)
    alone = (past.share_G[0] + past.share_G[1]) * focal_world.EPISODES
    tasks = [len(set(opinions.group_N[rows_S])) for rows_S in episodes.rows_SE.T]
    assert tasks.count(1) > alone * 0.7


def test_a_candidate_s_score_moves_with_it_when_candidates_change_places():
    world = school()
    turn_N = 3 - np.arange(4)
    opinions, _ = pool(choices=4, seed=5)
    full = dataclasses.replace(opinions, count_N=np.full(300, 4), answer_MN=np.minimum(opinions.answer_MN, 3))
    turned = dataclasses.replace(
        full, answer_MN=np.where(full.answer_MN >= 0, turn_N[full.answer_MN], -1).astype(np.int16)
    )
    rows_B, odds_BM = np.arange(300), np.ones((300, 3))
    everyone_BM = np.ones((300, 3), dtype=bool)
    found = []
    for one in (full, turned):
        seen = make_pool(one)
        x_BKF, mask_BK = evidence(seen, rows_B, everyone_BM, odds_BM)
        score_NK = np.full((300, 4), -np.inf)
        score_NK[np.nonzero(mask_BK)[0], seen.candidate_NK[mask_BK]] = forward(world.agents.networks["fusion"], x_BKF)[
            ..., 0
        ][mask_BK]
        found.append(score_NK)
    answered = (full.answer_MN >= 0).any(0)
    assert np.allclose(found[0][answered], found[1][answered][:, turn_N], atol=1e-5)


def test_rivals_are_the_best_of_the_others():
    value_BK = np.array([[0.5, 0.2, 0.1], [0.4, 0.4, 0.1], [-1.0, -2.0, -3.0]])
    assert np.allclose(best_rival(value_BK), [[0.2, 0.5, 0.5], [0.4, 0.4, 0.4], [0, 0, 0]])


def test_what_members_that_were_not_asked_said_is_not_shown():
    opinions, _ = pool()
    other = opinions.answer_MN.copy()
    other[2] = (other[2] + 1) % opinions.count_N
    asked_BM = np.tile([True, True, False], (300, 1))
    answered = (opinions.answer_MN[:2] >= 0).any(0)
    seen = []
    for answer_MN in (opinions.answer_MN, other):
        found = make_pool(dataclasses.replace(opinions, answer_MN=answer_MN))
        x_BKF, mask_BK = evidence(found, np.arange(300), asked_BM, np.ones((300, 3)))
        where = np.flatnonzero(answered)
        seen.append({row: sorted(map(tuple, x_BKF[row][mask_BK[row]].tolist())) for row in where})
    assert seen[0] == seen[1]


def test_where_no_chosen_member_has_an_answer_all_are_asked():
    opinions, _ = pool(rows=4)
    answer_MN = np.array([[0, -1, -1, -1], [1, 1, -1, -1], [1, 1, -2, 1]], dtype=np.int16)
    found = make_pool(dataclasses.replace(opinions, answer_MN=answer_MN))
    bits_BM = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0]], dtype=float)
    expected = [[True, False, False], [True] * 3, [True] * 3, [True] * 3]
    assert choose_asked(found, np.arange(4), bits_BM).tolist() == expected


def test_the_frozen_agents_know_which_member_is_good_at_which_task(trained):
    fitted, opinions, truth = trained
    decision = apply_focal(fitted, opinions, 0)
    best = np.nanmean(truth.right_MN, axis=1).max()
    assert np.mean(rightness(decision, truth)) > best + 0.15
    assert np.allclose(decision.probs_NK.sum(1), ~decision.abstained_N)
    assert not decision.probs_NK[~opinions.mask_NK].any()


def test_applying_is_deterministic_and_knows_no_order_of_questions(trained, tmp_path):
    fitted, opinions, _ = trained
    write_fitted(tmp_path / "focal.npz", fitted)
    again = read_fitted(tmp_path / "focal.npz")
    turned = np.arange(len(opinions.ids))[::-1]
    first, second = apply_focal(fitted, opinions, 0), apply_focal(again, opinions.questions(turned), 0)
    assert np.allclose(first.probs_NK[turned], second.probs_NK, atol=1e-6)
    assert np.array_equal(first.asked_MN[:, turned], second.asked_MN)


def test_fitting_knows_no_order_of_members_or_questions_and_keeps_to_its_seed():
    opinions, truth = pool(rows=120)
    turn_N, turn_M = np.random.default_rng(1).permutation(120), [2, 0, 1]
    other = opinions.questions(turn_N).only(opinions.members[turn_M])
    other_truth = Truth(truth.ids[turn_N], truth.gold_N[turn_N], truth.right_MN[turn_M][:, turn_N])
    first, second = focal(opinions, truth, **QUICK), focal(other, other_truth, **QUICK)
    assert first.meta == second.meta
    for name, array in first.arrays.items():
        assert np.array_equal(array, second.arrays[name]), name
    third = focal(opinions, truth, **QUICK, seed=1)
    assert not np.array_equal(first.arrays["fusion_0"], third.arrays["fusion_0"])


def test_a_new_task_is_judged_in_the_window_of_all(trained):
    fitted, opinions, _ = trained
    strange = dataclasses.replace(opinions, group_N=np.full(len(opinions.ids), "never seen"))
    decision = apply_focal(fitted, strange, 0)
    assert np.isfinite(decision.probs_NK).all()
    assert len(np.unique(fitted.arrays["chosen_GM"], axis=0)) <= 3


def test_probabilities_are_read_where_they_were_recorded():
    opinions, truth = pool(accuracy_GM=((0.3, 0.3, 0.3),), choices=4, silent=0.0)
    sure_NK = np.where(np.arange(opinions.mask_NK.shape[1]) == truth.gold_N[:, None], 0.6, 0.01)
    probs_NK = np.where(opinions.mask_NK, sure_NK, 0)
    probs_MNK = np.repeat((probs_NK / probs_NK.sum(1, keepdims=True))[None], 3, axis=0)
    probs_MNK[0, :50] = np.nan
    known = dataclasses.replace(opinions, probs_MNK=probs_MNK)
    fitted = focal(known, truth, **{**QUICK, "warm_steps": 100})
    assert rightness(apply_focal(fitted, known, 0), truth).mean() > 0.9
    with pytest.raises(NotApplicable, match="none were recorded here"):
        apply_focal(fitted, opinions, 0)
    of_votes = focal(opinions, truth, **QUICK)
    assert np.array_equal(apply_focal(of_votes, known, 0).probs_NK, apply_focal(of_votes, opinions, 0).probs_NK)


def test_unknown_gold_and_missing_answers_are_left_out():
    opinions, truth = pool(rows=80)
    part = dataclasses.replace(truth, gold_N=np.r_[np.full(20, -2), truth.gold_N[20:]])
    kept = focal(opinions.questions(slice(20, 80)), truth.questions(slice(20, 80)), **QUICK)
    assert np.array_equal(focal(opinions, part, **QUICK).arrays["fusion_0"], kept.arrays["fusion_0"])
    hidden = dataclasses.replace(opinions, answer_MN=np.full_like(opinions.answer_MN, -3))
    with pytest.raises(NotApplicable, match="not recorded"):
        focal(hidden, truth)


@pytest.mark.parametrize("option", [{"alpha": -1.0}, {"window": 0}, {"hidden": 0}, {"updates": -1}, {"warm_steps": -1}])
def test_an_option_out_of_range_is_refused_by_name(option):
    opinions, truth = pool(rows=20)
    with pytest.raises(BadInput, match=f"{next(iter(option))}: .* given; allowed: "):
        focal(opinions, truth, **option)


def test_online_no_prediction_knows_a_label_that_comes_later():
    opinions, truth = pool(rows=160)
    options = {"every": 40, "fusion_steps": 4, "updates_per_block": 1, "hidden": 8, "window": 20}
    later = np.r_[truth.gold_N[:100], (truth.gold_N[100:] + 1) % opinions.count_N[100:]]
    before = online(opinions, truth, **options)
    after = online(opinions, dataclasses.replace(truth, gold_N=later), **options)
    assert np.array_equal(before["rl_focal"][:100], after["rl_focal"][:100])
    assert not np.array_equal(before["rl_focal"][100:], after["rl_focal"][100:])
    assert set(before) == {"rl_focal", "best_single", "leader", "plurality", "stacking", "hedge", "hedge_vote"}
    assert all(len(right_N) == 160 for right_N in before.values())


def test_online_the_agents_come_to_beat_plurality():
    opinions, truth = pool(rows=400, silent=0.0)
    right = online(opinions, truth, every=100, fusion_steps=20, updates_per_block=1, hidden=16, window=60)
    assert right["rl_focal"][100:].mean() > right["plurality"][100:].mean() + 0.1


def test_training_leaves_torch_s_threads_as_they_were():
    before = torch.get_num_threads()
    with focal_agents.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_on_real_answers_the_agents_beat_the_best_single_model(shared):
    from w2s.pools.read import read_pool

    opinions, truth = read_pool(shared / "recorded" / "bbh_repaired")
    turn_N = np.random.default_rng(0).permutation(np.flatnonzero(truth.gold_N > -2))
    fit, new = np.array_split(turn_N, 2)
    fitted = focal(opinions.questions(fit), truth.questions(fit), warm_steps=200, updates=5)
    right_N = rightness(apply_focal(fitted, opinions.questions(new), 0), truth.questions(new))
    best = np.nanmean(truth.right_MN[:, fit], axis=1).argmax()
    difference_N = right_N - truth.right_MN[best, new]
    assert difference_N.mean() > 2 * difference_N.std() / np.sqrt(len(new))
