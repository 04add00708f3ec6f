"""Over-optimisation in numbers: against brute force over subsets, and what must hold whatever the scores."""

import dataclasses
import itertools

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2s.evaluation.rewards.curve import (
    RL,
    SUITE,
    Rollouts,
    Samples,
    chosen,
    crossed_peaks,
    measure_best_of_n,
    measure_rl,
    one_chooses,
    parts_of,
    ranked,
    ways_of,
)
from w2s.evaluation.rewards.reward_study import MEMBER
from w2s.evaluation.run.metrics import write_metrics
from w2s.evaluation.run.verdict import find
from w2s.rewards.aggregators import AGGREGATORS

QUESTIONS, TEXTS = 6, 5
SIZES = [1, 2, 3, 4, 5]


def scored(members: int = 3) -> st.SearchStrategy[Samples]:
    """Samples of a few questions; scores tie now and then, and some texts are empty (nan to every member)."""
    gold = arrays.arrays(float, (QUESTIONS, TEXTS), elements=st.sampled_from([0.0, 1.0]))
    scores = arrays.arrays(float, (members, QUESTIONS, TEXTS), elements=st.integers(-3, 3).map(float))
    empty = arrays.arrays(bool, (QUESTIONS, TEXTS), elements=st.sampled_from([False, False, False, True]))
    ids = np.array([f"q{at}" for at in range(QUESTIONS)])
    return st.builds(lambda g, s, e: Samples(ids, g, {"separate": np.where(e, np.nan, s)}), gold, scores, empty)


def simple(proxy_MNS: np.ndarray, gold_NS: np.ndarray) -> Samples:
    return Samples(np.array([f"q{at}" for at in range(len(gold_NS))]), gold_NS, {"separate": proxy_MNS})


@given(scored(1))
def test_what_is_chosen_is_the_mean_over_all_subsets(samples):
    proxy_NS = samples.kinds["separate"][0]
    gold_NL, proxy_NL, _ = one_chooses(samples.gold_NS, proxy_NS, SIZES)
    for row, (gold_S, proxy_S) in enumerate(zip(samples.gold_NS, proxy_NS, strict=True)):
        filled_S = np.where(np.isnan(proxy_S), -np.inf, proxy_S)
        for at, n in enumerate(SIZES):
            gold, proxy = [], []
            for subset in map(list, itertools.combinations(range(TEXTS), n)):
                best = [one for one in subset if filled_S[one] == filled_S[subset].max()]
                gold.append(gold_S[best].mean())
                proxy += [proxy_S[best].mean()] if np.isfinite(proxy_S[best]).all() else []
            assert gold_NL[row, at] == pytest.approx(np.mean(gold))
            if proxy:
                assert proxy_NL[row, at] == pytest.approx(np.mean(proxy))
            else:
                assert np.isnan(proxy_NL[row, at])


@given(scored(1))
def test_how_well_a_proxy_ranks_is_counted_over_right_and_wrong_pairs(samples):
    proxy_NS = np.where(np.isnan(samples.kinds["separate"][0]), -np.inf, samples.kinds["separate"][0])
    for share, gold_S, proxy_S in zip(ranked(samples.gold_NS, proxy_NS), samples.gold_NS, proxy_NS, strict=True):
        pairs = [(a, b) for a in proxy_S[gold_S == 1] for b in proxy_S[gold_S == 0]]
        if pairs:
            assert share == pytest.approx(np.mean([(a > b) + (a == b) / 2 for a, b in pairs]))
        else:
            assert np.isnan(share)


@given(scored(), st.permutations(range(3)), st.permutations(range(TEXTS)))
def test_the_order_of_members_and_of_samples_changes_nothing(samples, members, texts):
    members, texts = list(members), list(texts)
    other = Samples(
        samples.ids, samples.gold_NS[:, texts], {"separate": samples.kinds["separate"][members][..., texts]}
    )
    mine, theirs = ways_of(samples, "question"), ways_of(other, "question")
    assert list(mine) == [MEMBER, *AGGREGATORS]
    for way in mine:
        # What rounding tells apart is a tie.
        a, b = (chosen(s, [p.round(9) for p in w[way]], SIZES) for s, w in ((samples, mine), (other, theirs)))
        np.testing.assert_allclose(a.gold_NL, b.gold_NL, atol=1e-9)
        np.testing.assert_allclose(a.proxy_NL, b.proxy_NL, atol=1e-6)


@given(scored(1))
def test_the_proxy_of_what_is_chosen_never_falls(samples):
    proxy_NS = np.nan_to_num(samples.kinds["separate"][0])
    _, proxy_NL, _ = one_chooses(samples.gold_NS, proxy_NS, SIZES)
    assert (np.diff(proxy_NL) >= -1e-9).all()


@given(scored(1))
def test_a_perfect_proxy_never_turns_down_and_its_opposite_falls_all_the_way(samples):
    for sign in (1, -1):
        gold_NL, _, _ = one_chooses(samples.gold_NS, sign * samples.gold_NS, SIZES)
        assert (sign * np.diff(gold_NL) >= -1e-9).all()


def test_the_metrics_of_a_perfect_proxy_and_of_its_opposite():
    gold_NS = np.random.default_rng(0).integers(2, size=(60, 8)).astype(float)
    right = measure_best_of_n({0: simple(gold_NS[None], gold_NS)}, by="none", sizes=[1, 2, 4, 8])
    assert find(right, SUITE, MEMBER, "turn_down").value <= 1e-9
    assert find(right, SUITE, MEMBER, "ranked").value == 1
    wrong = measure_best_of_n({0: simple(-gold_NS[None], gold_NS)}, by="none", sizes=[1, 2, 4, 8])
    assert find(wrong, SUITE, MEMBER, "peak").value == 1
    assert find(wrong, SUITE, MEMBER, "gain").value == 0
    drop = find(wrong, SUITE, MEMBER, "turn_down")
    assert drop.value == pytest.approx(gold_NS.mean() - gold_NS.min(1).mean())
    assert 0 < drop.low < drop.value < drop.high


def test_members_that_err_apart_turn_down_less_under_the_worst_case():
    """Each member is fooled by wrong samples of its own; another wrong sample is never the best to all of them."""
    rng = np.random.default_rng(1)
    gold_NS = (rng.random((200, 16)) < 0.5).astype(float)
    fooled_MNS = (rng.random((4, 200, 16)) < 0.1) & (gold_NS == 0)
    proxy_MNS = gold_NS + 0.3 * rng.standard_normal((4, 200, 16)) + 4 * fooled_MNS
    found = measure_best_of_n({0: simple(proxy_MNS, gold_NS)}, by="question", sizes=[1, 2, 4, 8, 16])
    assert find(found, SUITE, MEMBER, "turn_down").low > 0
    assert find(found, SUITE, "worst", "turn_down_minus_member").high < 0
    assert find(found, SUITE, "worst", "last_minus_member").low > 0


def test_several_seeds_are_pooled_and_every_number_says_which():
    rng = np.random.default_rng(2)
    seeds = {}
    for seed in (3, 5):
        gold_NS = rng.integers(2, size=(30, 4)).astype(float)
        scores_MNS = gold_NS + rng.standard_normal((2, 30, 4))
        ids = np.array([f"s{seed} q{at}" for at in range(30)])
        seeds[seed] = Samples(ids, gold_NS, dict.fromkeys(("separate", "heads", "warm"), scores_MNS))
    found = measure_best_of_n(seeds, by="question", sizes=[1, 2, 4])
    assert {one.seeds for one in found} == {(3, 5)}
    assert {one.model for one in found} == {MEMBER, *AGGREGATORS, "heads", "warm"}
    first = find(found, SUITE, MEMBER, "gold@1")
    assert first.value == pytest.approx(np.mean([one.gold_NS.mean() for one in seeds.values()]))
    assert first.n == 60


def test_a_peak_is_chosen_on_the_other_half_of_the_questions():
    ids = np.array([f"q{at}" for at in range(40)])
    gold_NL = np.random.default_rng(3).random((40, 3))
    (place_N,) = crossed_peaks([(ids, gold_NL)])
    halves = {place: np.flatnonzero(place_N == place) for place in np.unique(place_N)}
    for place, rows in halves.items():
        others = np.setdiff1d(np.arange(40), rows)
        if len(halves) == 2:
            assert gold_NL[others].mean(0).argmax() == place
    again = crossed_peaks([(ids[::-1], gold_NL[::-1])])[0]
    assert (again[::-1] == place_N).all()


def test_no_seed_has_a_say_in_its_own_peak():
    """A seed's reward models are the same for both halves of its questions: their luck would choose for itself."""
    ids = np.array([f"q{at}" for at in range(40)])
    peaked = [np.tile(np.eye(3)[place], (40, 1)) for place in (0, 1, 1)]
    for found, expected in zip(crossed_peaks([(ids, one) for one in peaked]), (1, 0, 0), strict=True):
        # The first seed sees two peaks at 1; each of the others sees one at 0 and one at 1, and takes the first.
        assert (found == expected).all()


def test_luck_of_reward_models_is_no_turn_down():
    rng, found = np.random.default_rng(5), []
    ids = np.array([f"q{at}" for at in range(60)])
    for _ in range(60):
        seeds = [(ids, np.tile(0.5 + rng.normal(0, 0.05, 6).cumsum(), (60, 1))) for _ in range(4)]
        places = crossed_peaks(seeds)
        found += [gold_NL[0, place_N[0]] - gold_NL[0, -1] for (_, gold_NL), place_N in zip(seeds, places, strict=True)]
    assert abs(np.mean(found)) < 0.015


def rollouts(gold_SB: np.ndarray, reward_SB: np.ndarray) -> Rollouts:
    """As many texts at every step."""
    steps, batch = gold_SB.shape
    return Rollouts(np.repeat(np.arange(steps), batch), gold_SB.ravel(), reward_SB.ravel(), np.linspace(0, 1, steps))


def test_parts_of_an_rl_run_are_means_over_its_texts():
    gold_SB = np.array([[1.0, np.nan], [1, 0], [0, 0], [0, 1]])
    found = parts_of(rollouts(gold_SB, np.arange(8.0).reshape(4, 2)), 2)
    np.testing.assert_allclose(found, [[2 / 3, 1 / 4], [1.5, 5.5], [1 / 6, 5 / 6]])


def test_gold_that_falls_while_the_reward_rises_turns_down():
    rng = np.random.default_rng(4)
    ways = {}
    for way, last in ((MEMBER, 0.1), ("worst", 0.5)):
        rate_S1 = np.concatenate([np.linspace(0.3, 0.6, 10), np.linspace(0.6, last, 10)])[:, None]
        ways[way] = {
            seed: rollouts((rng.random((20, 64)) < rate_S1).astype(float), np.tile(np.arange(20.0)[:, None], 64))
            for seed in range(3)
        }
    found = measure_rl(ways, parts=5)
    assert [one.value for one in found if one.model == MEMBER and one.name.startswith("reward@")] == [
        1.5,
        5.5,
        9.5,
        13.5,
        17.5,
    ]
    assert find(found, RL, MEMBER, "turn_down").low > 0
    assert find(found, RL, "worst", "turn_down_minus_member").high < 0
    alone = measure_rl({MEMBER: {0: ways[MEMBER][0]}}, parts=5)
    assert find(alone, RL, MEMBER, "turn_down").low is None


def test_without_a_reference_the_divergence_is_no_number_and_can_be_written_down(tmp_path):
    one = rollouts(np.ones((4, 2)), np.ones((4, 2)))
    seeds = {seed: dataclasses.replace(one, kl_S=np.full(4, np.nan)) for seed in (0, 1)}
    found = measure_rl({MEMBER: seeds}, parts=2)
    kl = find(found, RL, MEMBER, "kl@4")
    assert (kl.value, kl.reason) == (None, "not known in every training run")
    assert find(found, RL, MEMBER, "gold@4").value == 1
    write_metrics(tmp_path / "metrics.json", "run", "verdict", found)


@given(scored())
def test_an_aggregator_has_the_options_that_the_config_gives_it(samples):
    plain, given_none = (ways_of(samples, "none", one) for one in (None, {"name": "uncertainty", "strength": 0.0}))
    np.testing.assert_array_equal(given_none["uncertainty"], plain["mean"])
    np.testing.assert_array_equal(given_none["lower_bound"], plain["lower_bound"])
