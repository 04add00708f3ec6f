"""Five independent voters, then four near copies of the worst: what a majority loses, and who wins it back."""

import itertools

import numpy as np
import pytest

from w2s.ensemble import dependence
from w2s.ensemble.alphas import ALPHAS
from w2s.pools.label_models import METHODS
from w2s.pools.records import Opinions, Truth, ballots

RELIABLE = (0.80, 0.79, 0.77, 0.75, 0.55)


def voters(seed, rows, *, reliable=RELIABLE, copies=4, slip=0.03, size=2):
    """Independent voters and near copies of the last, which say something else than it does with probability `slip`."""
    rng = np.random.default_rng(seed)
    gold_N = rng.integers(0, size, rows)
    right_MN = rng.random((len(reliable), rows)) < np.array(reliable)[:, None]
    answer_MN = np.where(right_MN, gold_N, (gold_N + rng.integers(1, size, right_MN.shape)) % size)
    slips_CN = rng.random((copies, rows)) < slip
    copied_CN = np.where(slips_CN, (answer_MN[-1] + rng.integers(1, size, slips_CN.shape)) % size, answer_MN[-1])
    answer_MN = np.concatenate([answer_MN, copied_CN]).astype(np.int16)
    ids, blank_N = np.arange(rows).astype(str), np.full(rows, "", object)
    members = np.array([f"voter-{at}" for at in range(len(answer_MN))])
    opinions = Opinions(ids, members, answer_MN, np.full(rows, size), blank_N, blank_N, blank_N)
    return opinions, Truth(ids, gold_N, (answer_MN == gold_N).astype(np.float32))


def vote_accuracy(opinions, truth, alpha_M):
    """Of the weighted vote; t candidates that tie count 1/t."""
    return accuracies(opinions, truth, [alpha_M])[0]


def accuracies(opinions, truth, alpha_SM):
    """accuracy_S of several weighted votes on the same questions."""
    given_MNK = (opinions.answer_MN[..., None] == np.arange(opinions.mask_NK.shape[1])).astype(float)
    share_SNK = np.tensordot(np.asarray(alpha_SM, dtype=float), given_MNK, 1)
    best_SNK = share_SNK >= share_SNK.max(2, keepdims=True) - 1e-9
    hit_SN = np.take_along_axis(best_SNK, truth.gold_N[None, :, None].astype(int), 2)[..., 0]
    return (hit_SN / best_SNK.sum(2)).mean(1)


def best_subset(opinions, truth):
    """The accuracy of the best of all subsets' majorities on these very questions."""
    chosen_SM = list(itertools.product((0, 1), repeat=len(opinions.members)))[1:]
    return accuracies(opinions, truth, chosen_SM).max()


def without_gold(opinions, truth):
    """The alphas of the dependent coins, 0 for members that they left out."""
    fitted = METHODS["dependent_coins"](opinions, truth)
    found = dict(zip(fitted.members.tolist(), fitted.arrays["alpha_M"], strict=True))
    return np.array([found.get(name, 0.0) for name in opinions.members.tolist()])


@pytest.mark.parametrize("seed", range(5))
def test_copies_cost_the_majority_a_third_and_are_reported(seed):
    opinions, truth = voters(seed, 4000)
    assert vote_accuracy(opinions, truth, [1] * 5 + [0] * 4) == pytest.approx(0.88, abs=0.02)
    assert vote_accuracy(opinions, truth, [1] * 9) == pytest.approx(0.56, abs=0.03)
    phi_MM = dependence.error_correlation(ballots(opinions, truth).wrong_RN)
    assert dependence.near_copies(phi_MM) == [[4, 5, 6, 7, 8]]
    assert "5 of 9 learners are near copies" in dependence.warning(phi_MM)


@pytest.mark.parametrize("seed", range(5))
def test_decorrelated_alphas_stay_within_a_point_of_the_best_subset(seed):
    fit, test = voters(seed, 500), voters(seed + 100, 4000)
    alpha_M = ALPHAS["decorrelated"](np.ones(9), ballots(*fit))
    assert vote_accuracy(*test, alpha_M) > best_subset(*test) - 0.01


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("slip", [0.0, 0.03, 0.08])
def test_dependent_coins_repair_it_without_gold(seed, slip):
    opinions, truth = voters(seed, 4000, slip=slip)
    assert vote_accuracy(opinions, truth, without_gold(opinions, truth)) > best_subset(opinions, truth) - 0.01


@pytest.mark.parametrize("seed", range(5))
def test_dependent_coins_repair_it_with_four_candidates(seed):
    opinions, truth = voters(seed, 2000, reliable=(0.7, 0.65, 0.6, 0.55, 0.3), size=4)
    alone = vote_accuracy(opinions, truth, [1] * 5 + [0] * 4)
    assert vote_accuracy(opinions, truth, [1] * 9) < alone - 0.3
    assert vote_accuracy(opinions, truth, without_gold(opinions, truth)) > alone


def test_good_voters_that_agree_because_they_are_right_are_not_lost():
    # Five at 0.95 look like copies of one another beside four that all but guess.
    opinions, truth = voters(0, 4000, reliable=(0.95,) * 5 + (0.55,) * 4, copies=0)
    assert vote_accuracy(opinions, truth, without_gold(opinions, truth)) > 0.98


def test_copies_of_the_best_voter_are_repaired_as_well():
    opinions, truth = voters(0, 4000, reliable=(0.55, 0.55, 0.6, 0.65, 0.9))
    assert vote_accuracy(opinions, truth, without_gold(opinions, truth)) > 0.89


def test_no_plain_label_model_notices_the_copies():
    # What the correction is for: these follow the five copies.
    opinions, truth = voters(0, 4000)
    reliability_M = METHODS["one_coin"](opinions, truth).arrays["reliability_M"]
    assert reliability_M[4:].min() > reliability_M[:4].max()
