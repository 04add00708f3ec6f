import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import rankdata

from w2s.rewards.agreement import AGREED, APART, NONE_BELOW, find_agreed_pairs

NAN = np.nan


def pairs(probs_NK, rewards_NK, mask_NK=None):
    probs_NK = np.array(probs_NK, dtype=float)
    mask_NK = np.ones_like(probs_NK, dtype=bool) if mask_NK is None else np.array(mask_NK)
    chosen_N, rejected_N, why_N = find_agreed_pairs(probs_NK, mask_NK, np.array(rewards_NK, dtype=float))
    return list(zip(chosen_N.tolist(), rejected_N.tolist(), why_N.tolist(), strict=True))


def test_the_first_for_both_is_chosen_and_the_lowest_for_both_rejected():
    assert pairs([[0.5, 0.3, 0.15, 0.05]], [[2.0, -1.0, 0.5, 0.0]]) == [(0, 3, AGREED)]


def test_questions_on_which_they_disagree_are_dropped_with_the_reason():
    assert pairs([[0.6, 0.4]], [[0.0, 1.0]]) == [(-1, -1, APART)]
    assert pairs([[0.5, 0.5]], [[1.0, 1.0]]) == [(-1, -1, APART)]  # nothing is preferred
    assert pairs([[0.6, 0.4]], [[1.0, 1.0]]) == [(-1, -1, NONE_BELOW)]
    assert pairs([[0.6, 0.4]], [[1.0, NAN]]) == [(-1, -1, NONE_BELOW)]
    assert pairs([[0.6, 0.4]], [[NAN, 1.0]]) == [(-1, -1, APART)]
    assert pairs([[1.0, 0.0]], [[1.0, 0.0]], [[True, False]]) == [(-1, -1, NONE_BELOW)]


def test_one_that_is_among_equals_for_one_of_them_is_chosen_by_the_other():
    assert pairs([[0.4, 0.4, 0.2]], [[1.0, 2.0, 0.0]]) == [(1, 2, AGREED)]


def test_no_question_gives_no_pair():
    assert [
        len(one) for one in find_agreed_pairs(np.zeros((0, 3)), np.zeros((0, 3), dtype=bool), np.zeros((0, 3)))
    ] == [0] * 3


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        find_agreed_pairs(np.zeros((2, 3)), np.ones((2, 3), dtype=bool), np.zeros((2, 2)))


SHAPE = st.shared(st.tuples(st.integers(1, 4), st.integers(1, 5)), key="shape")
NUMBERS = SHAPE.flatmap(lambda shape: arrays(float, shape, elements=st.integers(0, 4).map(float)))
MASKS = SHAPE.flatmap(lambda shape: arrays(bool, shape))


@settings(max_examples=200, deadline=None)
@given(NUMBERS, NUMBERS, MASKS, MASKS, st.randoms(use_true_random=False))
def test_pairs_are_what_the_rule_says_whatever_the_order_of_candidates(probs_NK, rewards_NK, mask_NK, known_NK, random):
    rewards_NK = np.where(known_NK, rewards_NK, NAN)
    found = find_agreed_pairs(probs_NK, mask_NK, rewards_NK)
    for chosen, rejected, why, probs_K, mask_K, rewards_K in zip(*found, probs_NK, mask_NK, rewards_NK, strict=True):
        real = [at for at in range(len(mask_K)) if mask_K[at]]
        judged = [at for at in real if not np.isnan(rewards_K[at])]
        if why != AGREED:
            assert (chosen, rejected) == (-1, -1)
            continue
        assert chosen in judged
        assert probs_K[chosen] == probs_K[real].max()
        assert rewards_K[chosen] == rewards_K[judged].max()
        below = [at for at in judged if probs_K[at] < probs_K[chosen] and rewards_K[at] < rewards_K[chosen]]
        ranks = dict(zip(judged, rankdata(probs_K[judged]) + rankdata(rewards_K[judged]), strict=True))
        assert rejected in below
        assert ranks[rejected] == min(ranks[at] for at in below)
    order = list(range(probs_NK.shape[1]))
    random.shuffle(order)
    moved = find_agreed_pairs(probs_NK[:, order], mask_NK[:, order], rewards_NK[:, order])
    assert moved[2].tolist() == found[2].tolist()
    for (at_N, to_N), one_NK in zip(zip(found[:2], moved[:2], strict=True), (probs_NK, rewards_NK), strict=True):
        for row, (at, to) in enumerate(zip(at_N, to_N, strict=True)):
            assert (at < 0 and to < 0) or one_NK[row, at] == one_NK[row, order[to]]
