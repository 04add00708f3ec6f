import dataclasses
import itertools

import numpy as np
import pytest

from tests.ensemble.test_diversity import focal_diversity as diversity
from tests.ensemble.test_information import information
from w2s.ensemble.ballots import Ballots, NotApplicable
from w2s.ensemble.subsets import SUBSETS, exhaustive, focal_diversity, greedy_information, top_k
from w2s.store.records import BadInput


def made_up(seed=0, n=300, voters=6, choices=4, outside=0.05):
    """Voters of falling skill that share what is hard and abstain at times; some gold is no candidate; with costs."""
    rng = np.random.default_rng(seed)
    gold_N, hard_N = rng.integers(choices, size=n), rng.random(n)
    luck_RN = 0.5 * hard_N + 0.5 * rng.random((voters, n))
    answer_RN = np.where(luck_RN < np.linspace(0.6, 0.4, voters)[:, None], gold_N, rng.integers(choices, size=n))
    answer_RN = np.where(rng.random((voters, n)) < 0.1, -1, answer_RN)
    gold_N = np.where(rng.random(n) < outside, -1, gold_N)
    return ballots(answer_RN, gold_N, choices, 0.001 * (1 + rng.integers(9, size=voters)))


def ballots(answer_RN, gold_N, choices=4, cost_R=None):
    answer_RN, gold_N = np.asarray(answer_RN), np.asarray(gold_N)
    wrong_RN = np.where(answer_RN >= 0, answer_RN != gold_N, 1 - 1 / choices).astype(float)
    return Ballots(answer_RN, wrong_RN, gold_N, np.full(gold_N.shape, choices), cost_R)


def by_the_book(pool, chosen):
    """The plurality's accuracy, question by question: most votes, then the most accurate voter; no vote is wrong."""
    chosen, right = sorted(chosen, key=lambda r: pool.wrong_RN[r].mean()), 0
    for answer_R, gold in zip(pool.answer_RN.T, pool.gold_N, strict=True):
        votes = [answer_R[r] for r in chosen if answer_R[r] >= 0]
        right += bool(votes) and max(votes, key=votes.count) == gold  # max takes the first of equals
    return right / len(pool.gold_N)


def weighted_vote(pool, alpha_R):
    """The accuracy of the vote with these weights, a tie as a share of a point."""
    most = int(pool.count_N.max())
    votes_KN = np.array([(alpha_R[:, None] * (pool.answer_RN == k)).sum(0) for k in range(most)])
    best_KN = (votes_KN >= votes_KN.max(0) - 1e-12) & (votes_KN > 0)
    hit_N = best_KN[np.maximum(pool.gold_N, 0), np.arange(len(pool.gold_N))] & (pool.gold_N >= 0)
    return (hit_N / np.maximum(best_KN.sum(0), 1)).mean()


def taken(alpha_R):
    return set(np.flatnonzero(alpha_R).tolist())


def subsets(voters, k):
    return [c for size in range(1, k + 1) for c in itertools.combinations(range(voters), size)]


@pytest.mark.parametrize("seed", range(4))
def test_the_weights_make_a_weighted_vote_the_plurality_with_ties_to_the_more_accurate(seed):
    pool = made_up(seed)
    for k in (1, 2, 3, 4, 6):
        alpha_R = top_k(None, pool, k=k)
        assert taken(alpha_R) == set(np.argsort(pool.wrong_RN.mean(1))[:k].tolist())
        assert weighted_vote(pool, alpha_R) == pytest.approx(by_the_book(pool, taken(alpha_R)))


@pytest.mark.parametrize("seed", range(4))
def test_exhaustive_finds_the_best_of_all_subsets(seed):
    pool = made_up(seed, n=120)
    for k in (1, 2, 3, 6):
        found = exhaustive(None, pool, k=k)
        best = max(by_the_book(pool, c) for c in subsets(6, k))
        assert by_the_book(pool, taken(found)) == pytest.approx(best)
        assert weighted_vote(pool, found) == pytest.approx(best)


def test_of_equally_good_subsets_the_smallest_is_taken():
    gold_N = np.zeros(50, int)
    perfect = ballots([gold_N, gold_N, gold_N + 1, gold_N], gold_N)
    assert len(taken(exhaustive(None, perfect, k=3))) == 1


def test_copies_of_the_worst_outvote_the_pool_but_no_selection():
    rng = np.random.default_rng(0)
    gold_N = rng.integers(4, size=1000)

    def voter(skill):
        return np.where(rng.random(1000) < skill, gold_N, (gold_N + rng.integers(1, 4, size=1000)) % 4)

    good = [voter(s) for s in (0.75, 0.74, 0.73, 0.72)]
    pool = ballots([*good, *[voter(0.5)] * 5], gold_N)
    everyone = by_the_book(pool, range(9))
    for name, k in (("greedy_information", 4), ("exhaustive", 5), ("focal_diversity", 4)):
        chosen = taken(SUBSETS[name](None, pool, k=k))
        assert len(chosen & set(range(4, 9))) <= 1, name
        assert by_the_book(pool, chosen) > everyone + 0.2, name


def test_too_many_subsets_are_counted_not_tried():
    pool = made_up(voters=12)
    with pytest.raises(NotApplicable, match=r"there are 298 subsets of at most 3 voters, more than 200"):
        exhaustive(None, pool, k=3, most_subsets=200)
    assert len(taken(exhaustive(None, pool, k=3, most_subsets=298))) <= 3


@pytest.mark.parametrize("seed", range(3))
def test_greedy_information_takes_what_tells_most_and_then_what_adds_most(seed):
    pool = made_up(seed, n=800)
    told_R = [information(pool, [r]) for r in range(6)]
    first = int(np.argmax(told_R))
    assert taken(greedy_information(None, pool, k=1)) == {first}
    second = taken(greedy_information(None, pool, k=2)) - {first}
    assert len(second) == 1
    rest = {r: information(pool, [first, r]) for r in range(6) if r != first}
    # `information` takes voters by accuracy, the greedy search by what they tell: the same but for the shrinkage.
    assert max(rest.values()) - rest[second.pop()] < 0.01


def test_greedy_information_leaves_copies_and_coins_out():
    rng = np.random.default_rng(1)
    gold_N = rng.integers(4, size=2000)
    good = [np.where(rng.random(2000) < s, gold_N, (gold_N + rng.integers(1, 4, size=2000)) % 4) for s in (0.7, 0.6)]
    pool = ballots([*good, good[0], rng.integers(4, size=2000)], gold_N)
    assert len(taken(greedy_information(None, pool, k=4)) & {0, 2}) == 1
    assert taken(greedy_information(None, pool, k=4)) - {0, 2} <= {1, 3}
    assert taken(greedy_information(None, pool, k=2)) in ({0, 1}, {2, 1})


def test_past_the_exact_size_a_copy_has_no_gain_over_its_original_and_others_come_first():
    rng = np.random.default_rng(2)
    gold_N = rng.integers(4, size=1500)
    voters = [np.where(rng.random(1500) < s, gold_N, (gold_N + rng.integers(1, 4, size=1500)) % 4) for s in [0.6] * 6]
    pool = ballots([*voters, voters[0], voters[1]], gold_N)
    chosen = taken(greedy_information(None, pool, k=8, exact=2))
    assert len(chosen) == 6
    assert len(chosen & {0, 6}) == len(chosen & {1, 7}) == 1


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("k", [2, 3])
def test_focal_diversity_finds_the_best_mix_among_teams_of_k(k, weight):
    pool = made_up(3)

    def mix(team):
        return weight * diversity(pool.wrong_RN[list(team)]) + (1 - weight) * by_the_book(pool, team)

    found = taken(focal_diversity(None, pool, k=k, weight=weight))
    assert len(found) == k
    assert mix(found) == pytest.approx(max(mix(team) for team in itertools.combinations(range(6), k)))


def test_focal_diversity_grows_the_best_small_team_where_all_are_too_many():
    pool = made_up(4, voters=9)
    small = taken(focal_diversity(None, pool, k=3, most_subsets=129))
    grown = taken(focal_diversity(None, pool, k=5, most_subsets=129))
    assert small < grown
    assert len(grown) == 5

    def mix(team):
        return 0.2 * diversity(pool.wrong_RN[list(team)]) + 0.8 * by_the_book(pool, team)

    fours = {r: mix(small | {r}) for r in range(9) if r not in small}
    assert max(fours, key=fours.get) in grown
    assert len(taken(focal_diversity(None, pool, k=4, most_subsets=7))) == 4  # three voters are searched, one is added


@pytest.mark.parametrize("name", SUBSETS)
def test_a_budget_in_dollars_is_kept_and_used(name):
    pool = made_up(5)
    for dollars in (0.004, 0.009, 0.02):
        chosen = taken(SUBSETS[name](None, pool, k=3, dollars=dollars))
        assert 1 <= len(chosen) <= 3
        assert pool.cost_R[list(chosen)].sum() <= dollars * (1 + 1e-9)
    plenty = SUBSETS[name](None, pool, k=3, dollars=1.0)
    assert (plenty == SUBSETS[name](None, pool, k=3)).all() or name == "greedy_information"


def test_a_budget_looks_past_voters_that_are_too_dear():
    pool = dataclasses.replace(made_up(6), cost_R=np.array([9.0, 1, 1, 1, 1, 9]))
    assert taken(top_k(None, pool, k=3, dollars=2.0)) == set(np.argsort(pool.wrong_RN[1:5].mean(1))[:2] + 1)
    best = max(by_the_book(pool, c) for c in subsets(6, 3) if pool.cost_R[list(c)].sum() <= 3)
    assert by_the_book(pool, taken(exhaustive(None, pool, k=3, dollars=3.0))) == pytest.approx(best)


def test_by_gain_per_dollar_many_cheap_voters_can_beat_one_dear_voter():
    rng, skills = np.random.default_rng(7), (0.72, 0.68, 0.67, 0.66)
    gold_N = rng.integers(4, size=2000)
    wrong_N = (gold_N + rng.integers(1, 4, size=2000)) % 4
    voters = [np.where(rng.random(2000) < skill, gold_N, wrong_N) for skill in skills]
    pool = ballots(voters, gold_N, cost_R=np.array([3.0, 1, 1, 1]))
    assert taken(greedy_information(None, pool, k=3, dollars=3.0)) == {1, 2, 3}


@pytest.mark.parametrize("name", SUBSETS)
def test_all_voters_where_k_is_more_than_there_are(name):
    alpha_R = SUBSETS[name](None, made_up(n=400), k=99)
    assert alpha_R.shape == (6,)
    assert (alpha_R >= 0).all()
    assert alpha_R.max() <= 1.02
    assert len(taken(top_k(None, made_up(), k=99))) == 6


@pytest.mark.parametrize("name", SUBSETS)
@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_voters_questions_and_candidates_changes_nothing(name, seed):
    pool, rng = made_up(seed, n=60), np.random.default_rng(seed)  # so few that voters are equally accurate
    voters, rows, turn_N = rng.permutation(6), rng.permutation(60), rng.integers(4, size=60)
    answer_RN = np.where(pool.answer_RN >= 0, (pool.answer_RN + turn_N) % 4, -1)
    gold_N = np.where(pool.gold_N >= 0, (pool.gold_N + turn_N) % 4, -1)
    other = ballots(answer_RN[voters][:, rows], gold_N[rows], 4, pool.cost_R[voters])
    for k in (1, 3):
        assert SUBSETS[name](None, other, k=k) == pytest.approx(SUBSETS[name](None, pool, k=k)[voters])


@pytest.mark.parametrize("name", SUBSETS)
def test_one_voter_one_question_and_silence_are_no_trouble(name):
    one = ballots([[2]], [2])
    assert taken(SUBSETS[name](None, one)) == {0}
    silent = ballots(np.full((3, 5), -1), np.zeros(5, int))
    assert 1 <= len(taken(SUBSETS[name](None, silent, k=2))) <= 2


@pytest.mark.parametrize("name", SUBSETS)
def test_options_out_of_range_are_refused_with_what_is_allowed(name):
    pool = made_up()
    with pytest.raises(BadInput, match=r"k: 0 given; allowed: 1 or more"):
        SUBSETS[name](None, pool, k=0)
    with pytest.raises(BadInput, match=r"dollars: 1e-06 given; allowed: at least 0\.00\d, what the cheapest"):
        SUBSETS[name](None, pool, dollars=1e-6)
    with pytest.raises(NotApplicable, match="costs"):
        SUBSETS[name](None, dataclasses.replace(pool, cost_R=None), dollars=1.0)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (focal_diversity, {"weight": 1.5}),
        (focal_diversity, {"most_subsets": 0}),
        (greedy_information, {"strength": 0.0}),
        (greedy_information, {"exact": 0}),
    ],
)
def test_options_of_one_method_are_refused_by_name(method, options):
    (name,) = options
    with pytest.raises(BadInput, match=f"{name}: .* given; allowed"):
        method(None, made_up(), **options)


def test_of_nine_weak_models_a_few_beat_the_best_and_the_vote_of_all_on_new_questions(shared):
    from w2s.pools.read import read_pool
    from w2s.pools.records import ballots as votes

    names = ["gemma-7b", "Yi-6B", "Yi-6b-Chat", "Llama-2-7b-hf", "Llama-2-13b-hf"]
    names += [f"Mistral-7B-{version}" for version in ("v0.1", "v0.2-hf", "Instruct-v0.1", "Instruct-v0.2")]
    pool = votes(*read_pool(shared / "recorded" / "mmlu_pro", models=names))
    half_N = np.random.default_rng(0).permutation(len(pool.gold_N)) % 2 == 0
    fit, new = (
        Ballots(pool.answer_RN[:, rows], pool.wrong_RN[:, rows], pool.gold_N[rows], pool.count_N[rows])
        for rows in (half_N, ~half_N)
    )
    best, all_nine = (weighted_vote(new, top_k(None, fit, k=k)) for k in (1, 9))
    for name, select in SUBSETS.items():
        few = weighted_vote(new, select(None, fit, k=5))
        assert few > best + 0.025, name
        assert few > all_nine, name
