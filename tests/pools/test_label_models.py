"""Label models: crowd-kit and Bayes as oracles, what they must not see, and what must not change them."""

import dataclasses

import numpy as np
import pytest

from w2s.config.registry import pick
from w2s.ensemble.ballots import NotApplicable
from w2s.pools import label_models, one_coin
from w2s.pools.label_models import METHODS
from w2s.pools.records import ABSTAINED, NOT_ASKED, Decision, Opinions, Truth, rightness
from w2s.pools.records import read_fitted as read
from w2s.pools.records import write_fitted as write
from w2s.store.records import BadInput

RELIABLE = (0.8, 0.7, 0.65, 0.5, 0.35)


def pool_of(answer_MN, count_N, group="", members=None):
    rows = answer_MN.shape[1]
    names = members if members is not None else [f"model-{at}" for at in range(len(answer_MN))]
    texts_N = np.empty(rows, dtype=object)
    texts_N[:] = [tuple(map(str, range(count))) for count in count_N]
    blank_N = np.full(rows, group, dtype=object)
    ids = np.array([f"q{at}" for at in range(rows)])
    return Opinions(ids, np.array(names), answer_MN.astype(np.int16), np.asarray(count_N), texts_N, blank_N, blank_N)


def drawn(seed, rows=600, reliable=RELIABLE, most=4, fewest=2, silent=0.1):
    """Independent members on choices, some of whose answers are missing. Opinions, Truth."""
    rng = np.random.default_rng(seed)
    count_N = rng.integers(fewest, most + 1, rows)
    gold_N = rng.integers(0, count_N)
    right_MN = rng.random((len(reliable), rows)) < np.array(reliable)[:, None]
    answer_MN = np.where(right_MN, gold_N, (gold_N + rng.integers(1, count_N, right_MN.shape)) % count_N)
    answer_MN[rng.random(answer_MN.shape) < silent] = ABSTAINED
    answer_MN[rng.random(answer_MN.shape) < silent / 2] = NOT_ASKED
    opinions = pool_of(answer_MN, count_N)
    return opinions, Truth(opinions.ids, gold_N, (answer_MN == gold_N).astype(np.float32))


def decided(fitted, opinions) -> Decision:
    """The decision; the vote as the shares of its alphas."""
    opinions = opinions.only(fitted.members)
    if fitted.kind != "vote":
        return label_models.APPLY[fitted.kind](fitted, opinions, fitted.point)
    given_MNK = opinions.answer_MN[..., None] == np.arange(opinions.mask_NK.shape[1])
    share_NK = np.einsum("m,mnk->nk", fitted.arrays["alpha_M"], given_MNK)
    total_N = share_NK.sum(1)
    return Decision(total_N == 0, share_NK / np.where(total_N, total_N, 1)[:, None])


def accuracy(name, opinions, truth, **options):
    return np.nanmean(rightness(decided(METHODS[name](opinions, truth, **options), opinions), truth))


def frame(opinions):
    import pandas

    member, row = np.nonzero(opinions.answer_MN >= 0)
    return pandas.DataFrame({"task": row, "worker": member, "label": opinions.answer_MN[member, row]})


# --- oracles ---


@pytest.mark.parametrize(("seed", "turns", "size"), [(0, 1, 2), (1, 5, 3), (2, 9, 4)])
def test_dawid_skene_equals_crowd_kit(seed, turns, size):
    crowd = pytest.importorskip("crowdkit.aggregation")
    opinions, truth = drawn(seed, rows=200, most=size, fewest=size)
    theirs = crowd.DawidSkene(n_iter=turns, tol=-1).fit(frame(opinions))
    fitted = label_models.dawid_skene(opinions, truth, iterations=turns, tolerance=0)
    confusion_MKK, prior_K = fitted.arrays["confusion_MKK"], fitted.arrays["prior_K"]
    true_K = theirs.errors_.columns.to_numpy(dtype=int)
    for (member, given), error_K in zip(theirs.errors_.index, theirs.errors_.to_numpy(), strict=True):
        assert confusion_MKK[member, true_K, given] == pytest.approx(error_K, abs=1e-6)
    assert prior_K[theirs.priors_.index.to_numpy(dtype=int)] == pytest.approx(theirs.priors_.to_numpy(), abs=1e-6)
    # crowd-kit's posterior comes before its last maximisation, ours after it.
    last = crowd.DawidSkene(n_iter=turns + 1, tol=-1).fit(frame(opinions)).probas_
    probs_NK = decided(fitted, opinions).probs_NK[last.index.to_numpy()[:, None], last.columns.to_numpy(dtype=int)]
    assert probs_NK == pytest.approx(last.to_numpy(), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_mace_equals_crowd_kit_from_the_same_start(seed):
    crowd = pytest.importorskip("crowdkit.aggregation")
    from scipy.stats import uniform

    opinions, _ = drawn(seed, rows=150, most=3, fewest=3)
    # crowd-kit 1.4.2 numbers the labels as they come up but sums them in sorted order: here both are the same.
    data = frame(opinions).sort_values(["worker", "label"])
    theirs = crowd.MACE(n_restarts=1, n_iter=8, random_state=seed).fit(data)
    members, size = len(opinions.members), 3
    guess_M2 = uniform(1, 1.5).rvs(size=(members, 2), random_state=seed)
    habit_MK = uniform(1, 1.5).rvs(size=(members, size), random_state=seed)
    guess_M2, habit_MK = (start / start.sum(1, keepdims=True) for start in (guess_M2, habit_MK))
    even_K = np.full(size, 1 / size)
    answer_MN, count_N = label_models.positions(opinions)
    for _ in range(8):
        tables = label_models.guesses(guess_M2, habit_MK)
        given_MKK, _, _ = label_models.expectation(answer_MN, count_N, tables, even_K)
        guess_M2, habit_MK = label_models.guessing(given_MKK, guess_M2, habit_MK)
    assert guess_M2 == pytest.approx(theirs.spamming_, abs=1e-6)
    assert habit_MK == pytest.approx(theirs.thetas_, abs=1e-6)


def test_the_probabilities_of_coins_are_bayes_rule():
    opinions, truth = drawn(4, rows=50, most=5)
    fitted = label_models.METHODS["one_coin"](opinions, truth)
    probs_NK = decided(fitted, opinions).probs_NK
    for row in np.flatnonzero((opinions.answer_MN >= 0).any(0)):
        count = opinions.count_N[row]
        joint_K = np.ones(count) / count
        for answer, right in zip(opinions.answer_MN[:, row], fitted.arrays["reliability_M"], strict=True):
            if answer >= 0:
                joint_K *= np.where(np.arange(count) == answer, right, (1 - right) / (count - 1))
        assert probs_NK[row, :count] == pytest.approx(joint_K / joint_K.sum())
        assert not probs_NK[row, count:].any()


def test_the_turns_of_coins_never_lose_likelihood():
    opinions, _ = drawn(5, most=6)
    answer_MN, count_N, open_N, _ = one_coin.select_voted(opinions)
    room_N = one_coin.count_room(count_N, open_N, 10)
    votes = one_coin.Votes(answer_MN, count_N, room_N, np.arange(len(answer_MN)))
    reliability_M, found = None, []
    for _ in range(20):
        right_M, times_M, likelihood = one_coin.coin_turn(votes, reliability_M)
        # The added right and wrong answer are a Beta(2, 2) prior: with it the objective never falls.
        prior = 0 if reliability_M is None else np.log(reliability_M * (1 - reliability_M)).sum() / len(count_N)
        found.append(likelihood + prior)
        reliability_M = (right_M + 1) / (times_M + 2)
    assert (np.diff(found[1:]) > -1e-12).all()


# --- what they find ---


def test_the_reliability_of_independent_members_is_found_without_gold():
    opinions, truth = drawn(6, rows=4000, most=5)
    found_M = METHODS["one_coin"](opinions, truth).arrays["reliability_M"]
    assert found_M == pytest.approx(np.array(RELIABLE), abs=0.03)


def test_a_member_that_always_says_the_same_is_seen_through_by_those_that_know_positions():
    opinions, truth = drawn(7, rows=2000, reliable=(0.75, 0.7, 0.7), most=2, silent=0)
    fixed_MN = np.concatenate([opinions.answer_MN, np.zeros((4, 2000), np.int16)])
    fixed = pool_of(fixed_MN, opinions.count_N)
    alone, plurality = accuracy("one_coin", opinions, truth), np.mean((fixed_MN == 0).sum(0) > 3.5)
    assert plurality > 0.9  # nearly every vote is won by position 0
    assert accuracy("mace", fixed, truth) == pytest.approx(alone, abs=0.01)


@pytest.mark.parametrize("name", METHODS)
def test_independent_members_lose_nothing(name):
    opinions, truth = drawn(8, rows=2000, most=4, fewest=4)
    given_MNK = opinions.answer_MN[..., None] == np.arange(4)
    plurality = np.nanmean(rightness(Decision(np.zeros(2000, bool), given_MNK.mean(0)), truth))
    assert accuracy(name, opinions, truth) > plurality


def test_answers_to_questions_without_choices_are_weighed_with_room_for_what_nobody_said():
    rng = np.random.default_rng(9)
    right_MN = rng.random((4, 1500)) < np.array([0.6, 0.4, 0.35, 0.2])[:, None]
    said_MN = np.where(right_MN, 0, rng.integers(1, 40, right_MN.shape))
    answer_MN, count_N, gold_N = np.empty_like(said_MN), np.empty(1500, int), np.empty(1500, int)
    for row, said_M in enumerate(said_MN.T):
        given, answer_MN[:, row] = np.unique(said_M, return_inverse=True)
        count_N[row], gold_N[row] = len(given), 0 if given[0] == 0 else -1
    opinions = pool_of(answer_MN, count_N, group="sums")
    truth = Truth(opinions.ids, gold_N, (answer_MN == gold_N).astype(np.float32))
    fitted = METHODS["one_coin"](opinions, truth)
    assert fitted.meta["open_groups"] == ["sums"]
    assert accuracy("one_coin", opinions, truth) > 0.62  # the best member alone: 0.60
    # An answer that all four give is not certain, though it has no rival; nor is one member's against nobody's.
    probs_NK = decided(fitted, opinions).probs_NK
    assert (probs_NK.sum(1) < 1).all()
    for name in ("dawid_skene", "mace"):
        with pytest.raises(NotApplicable, match="positions mean nothing"):
            METHODS[name](opinions, truth)


# --- what must not matter ---


@pytest.mark.parametrize("name", METHODS)
def test_the_truth_is_not_read(name):
    opinions, truth = drawn(10)
    rng = np.random.default_rng(0)
    false = Truth(truth.ids, rng.permutation(truth.gold_N), rng.random(truth.right_MN.shape))
    ours, theirs = METHODS[name](opinions, truth), METHODS[name](opinions, false)
    assert all(np.array_equal(ours.arrays[key], theirs.arrays[key]) for key in ours.arrays)


@pytest.mark.parametrize("name", METHODS)
def test_the_order_of_members_questions_and_blocks_does_not_matter(name, monkeypatch):
    opinions, truth = drawn(11)
    probs_NK = decided(METHODS[name](opinions, truth), opinions).probs_NK
    monkeypatch.setattr(one_coin, "BLOCK", 77)
    rng = np.random.default_rng(1)
    rows, members = rng.permutation(len(opinions.ids)), rng.permutation(opinions.members)
    moved = opinions.questions(rows).only(members)
    found_NK = decided(METHODS[name](moved, truth.questions(rows)), moved).probs_NK
    assert found_NK == pytest.approx(probs_NK[rows], abs=1e-8)


@pytest.mark.parametrize("name", METHODS)
def test_the_order_of_candidates_does_not_matter(name):
    opinions, truth = drawn(12, most=4, fewest=4)
    probs_NK = decided(METHODS[name](opinions, truth), opinions).probs_NK
    rng = np.random.default_rng(2)
    rows = len(opinions.ids)
    # One order for all where positions mean something, another for every question where they do not.
    order_NK = np.tile(rng.permutation(4), (rows, 1))
    if name in ("one_coin", "dependent_coins"):
        order_NK = rng.permuted(np.tile(np.arange(4), (rows, 1)), axis=1)
    answer_MN = opinions.answer_MN
    moved_MN = np.where(answer_MN >= 0, order_NK[np.arange(rows), np.maximum(answer_MN, 0)], answer_MN)
    moved = dataclasses.replace(opinions, answer_MN=moved_MN.astype(np.int16))
    found_NK = decided(METHODS[name](moved, truth), moved).probs_NK
    assert np.take_along_axis(found_NK, order_NK, 1) == pytest.approx(probs_NK, abs=1e-8)


@pytest.mark.parametrize("name", METHODS)
def test_who_says_nothing_has_no_say(name):
    opinions, truth = drawn(13, silent=0.3)
    silent_N = (opinions.answer_MN < 0).all(0)
    found = decided(METHODS[name](opinions, truth), opinions)
    assert silent_N.any()
    assert found.abstained_N[silent_N].all()
    assert not found.probs_NK[found.abstained_N].any()
    mute_MN = np.append(opinions.answer_MN, np.full((1, len(silent_N)), ABSTAINED), axis=0)
    wider = pool_of(mute_MN, opinions.count_N)
    with_mute = decided(METHODS[name](wider, truth), wider)
    best_N = found.probs_NK.argmax(1)[~silent_N]
    assert np.mean(with_mute.probs_NK.argmax(1)[~silent_N] == best_N) > 0.99
    if name != "dependent_coins":  # its shrunken covariance moves the alphas a little, and some members have alpha 0
        assert np.array_equal(found.abstained_N, silent_N)
        assert with_mute.probs_NK == pytest.approx(found.probs_NK, abs=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_new_questions_may_have_more_or_fewer_candidates(name):
    opinions, truth = drawn(14, most=4, silent=0)
    fitted = METHODS[name](opinions, truth)
    for most in (2, 7):
        new, new_truth = drawn(15, most=most, silent=0)
        found = decided(fitted, new)
        assert found.probs_NK.shape == new.mask_NK.shape
        assert not found.probs_NK[~new.mask_NK].any()
        assert np.nanmean(rightness(found, new_truth)) > 0.5


@pytest.mark.parametrize("name", METHODS)
def test_a_saved_model_decides_the_same(name, tmp_path):
    opinions, truth = drawn(16)
    fitted = METHODS[name](opinions, truth)
    write(tmp_path / "fitted.npz", fitted)
    again = read(tmp_path / "fitted.npz")
    assert np.array_equal(decided(again, opinions).probs_NK, decided(fitted, opinions).probs_NK)


# --- what is refused ---


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("option", "value"), [("iterations", 0), ("tolerance", -1.0), ("tolerance", float("nan"))])
def test_an_option_out_of_range_is_refused(name, option, value):
    with pytest.raises(BadInput, match=f"{option}: .* given; allowed"):
        pick(METHODS, {"name": name, option: value})


@pytest.mark.parametrize(("option", "value"), [("threshold", 0.0), ("most_questions", 0), ("open_candidates", 1)])
def test_an_option_of_the_dependent_coins_out_of_range_is_refused(option, value):
    with pytest.raises(BadInput, match=f"{option}: .* given; allowed"):
        pick(METHODS, {"name": "dependent_coins", option: value})


@pytest.mark.parametrize("name", METHODS)
def test_pools_without_answers_are_not_for_them(name):
    opinions, truth = drawn(18, rows=20, silent=1)
    with pytest.raises(NotApplicable, match="the answers were not recorded"):
        METHODS[name](opinions, truth)


# --- real pools ---


def test_on_recorded_pools_they_repair_the_vote(shared):
    from w2s.pools.read import read_pool

    for pool, name, least in (
        ("frugalml_imdb", "mace", 0.05),
        ("frugalml_imdb", "dependent_coins", 0.05),
        ("openai_gsm8k", "dependent_coins", 0.05),
        ("mmlu_pro", "one_coin", 0.01),
        ("mmlu_pro", "dependent_coins", 0.05),
    ):
        opinions, truth = read_pool(shared / "recorded" / pool)
        given_MNK = opinions.answer_MN[..., None] == np.arange(opinions.mask_NK.shape[1])
        plurality = np.nanmean(rightness(Decision(~given_MNK.any((0, 2)), given_MNK.mean(0)), truth))
        assert accuracy(name, opinions, truth) > plurality + least, (pool, name)
