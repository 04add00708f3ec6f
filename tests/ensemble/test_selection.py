"""Selectors and the labels they leave."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s.config.registry import pick
from w2s.ensemble.combiners import votes
from w2s.ensemble.selection import KEPT, SELECTORS, make_labels
from w2s.store.records import BadInput, softmax

EVERY = pytest.mark.parametrize("name", sorted(SELECTORS))


def pool(seed, rows, learners=5, ties=False):
    """ids, probs_NK, mask_NK, votes_RNK, sources_N of a small transfer pool with 3 to 5 candidates."""
    rng = np.random.default_rng(seed)
    mask_NK = np.arange(5) < rng.integers(3, 6, rows)[:, None]
    scores_RNK = rng.normal(size=(learners, rows, 5))
    scores_RNK = np.round(scores_RNK) if ties else scores_RNK
    probs_RNK = np.array([softmax(scores_NK, mask_NK) for scores_NK in scores_RNK])
    ids = np.array([f"id{at:04d}" for at in rng.permutation(rows)])
    sources_N = rng.choice(["arc", "mmlu", "sciq"], size=rows)
    return ids, probs_RNK.mean(0), mask_NK, votes(probs_RNK, mask_NK), sources_N


@EVERY
@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), rows=st.integers(0, 40), ties=st.booleans())
def test_the_order_of_the_rows_decides_nothing_and_each_row_has_its_reason(name, seed, rows, ties):
    ids, probs_NK, mask_NK, votes_RNK, sources_N = pool(seed, rows, ties=ties)
    keep_N, why_N = SELECTORS[name](ids, probs_NK, mask_NK, votes_RNK, sources_N)
    assert keep_N.dtype == bool
    assert ((why_N == KEPT) == keep_N).all()
    assert all(why_N)
    order = np.random.default_rng(seed).permutation(rows)
    again_N, words_N = SELECTORS[name](
        ids[order], probs_NK[order], mask_NK[order], votes_RNK[:, order], sources_N[order]
    )
    np.testing.assert_array_equal(again_N, keep_N[order])
    np.testing.assert_array_equal(words_N, why_N[order])


@given(seed=st.integers(0, 10**6), rows=st.integers(1, 60), share=st.floats(0.01, 1), ties=st.booleans())
def test_confidence_and_per_class_keep_exactly_the_share_asked_for(seed, rows, share, ties):
    case = pool(seed, rows, ties=ties)
    wanted = max(1, int(share * rows + 0.5))
    for name in ("confidence", "per_class"):
        keep_N, _ = SELECTORS[name](*case, keep_share=share)
        assert keep_N.sum() == wanted
    keep_N, _ = SELECTORS["confidence"](*case, keep_share=share, by_source=True)
    for source in np.unique(case[4]):
        here_N = case[4] == source
        assert keep_N[here_N].sum() == max(1, int(share * here_N.sum() + 0.5))


@given(seed=st.integers(0, 10**6), share=st.floats(0.05, 0.95))
def test_no_dropped_label_is_more_confident_than_a_kept_one(seed, share):
    case = pool(seed, 40)
    keep_N, _ = SELECTORS["confidence"](*case, keep_share=share)
    top_N = case[1].max(1)
    assert top_N[keep_N].min() >= top_N[~keep_N].max()


def test_ties_are_broken_by_a_hash_of_the_id_not_by_position():
    rows = 1000
    ids, probs_NK = np.array([f"q{at}" for at in range(rows)]), np.full((rows, 4), 0.25)
    mask_NK, sources_N = np.ones((rows, 4), bool), np.full(rows, "arc")
    keep_N, _ = SELECTORS["confidence"](ids, probs_NK, mask_NK, votes(probs_NK, mask_NK)[None], sources_N)
    assert keep_N.sum() == 500
    assert 200 < keep_N[:500].sum() < 300


def test_confidence_says_why_a_label_was_dropped():
    ids, mask_NK, sources_N = np.array(["a", "b"]), np.ones((2, 2), bool), np.array(["arc", "arc"])
    probs_NK = np.array([[0.9, 0.1], [0.45, 0.55]])
    case = (ids, probs_NK, mask_NK, votes(probs_NK, mask_NK)[None], sources_N)
    _, why_N = SELECTORS["confidence"](*case, keep_share=0.5, by_source=True)
    assert why_N.tolist() == ["kept", "confidence 0.550 is not in the top 50% of its source"]


def test_agreement_counts_the_learners_that_voted_for_the_winner():
    """Three of four, two of four, and two of the two that did not abstain."""
    mask_NK, ids, sources_N = np.ones((3, 3), bool), np.array(["a", "b", "c"]), np.full(3, "arc")
    votes_RNK = np.eye(3)[np.array([[0, 1, 2], [0, 1, 2], [0, 0, 0], [1, 2, 0]])]
    votes_RNK[2:, 2] = 0
    probs_NK = np.array([[0.8, 0.1, 0.1], [0.3, 0.4, 0.3], [0.2, 0.2, 0.6]])
    keep_N, why_N = SELECTORS["agreement"](ids, probs_NK, mask_NK, votes_RNK, sources_N, threshold=0.75)
    assert keep_N.tolist() == [True, False, True]
    assert why_N[1] == "0.500 of the learners agree, below 0.75"
    keep_N, _ = SELECTORS["agreement"](ids, probs_NK, mask_NK, votes_RNK * 0, sources_N, threshold=0.1)
    assert not keep_N.any()


def test_all_of_three_learners_is_an_agreement_of_1():
    probs_NK, mask_NK = np.array([[1 / 3, 1 / 3, 1 / 3]]), np.ones((1, 3), bool)
    votes_RNK = np.full((3, 1, 3), 1 / 3)
    keep_N, _ = SELECTORS["agreement"](np.array(["a"]), probs_NK, mask_NK, votes_RNK, np.array([""]), threshold=1 / 3)
    assert keep_N.all()


def test_per_class_balances_the_predicted_positions_as_far_as_they_go():
    """Sixteen labels say yes (the more confident ones), four say no; ten are kept: six and all four, never ten yes."""
    yes_N = np.linspace(0.95, 0.8, 16)
    probs_NK = np.concatenate([np.stack([yes_N, 1 - yes_N], 1), np.tile([0.4, 0.6], (4, 1))])
    ids, mask_NK = np.array([f"q{at:02d}" for at in range(20)]), np.ones((20, 2), bool)
    case = (ids, probs_NK, mask_NK, votes(probs_NK, mask_NK)[None], np.full(20, "boolq"))
    keep_N, why_N = SELECTORS["per_class"](*case, keep_share=0.5)
    assert keep_N.tolist() == [True] * 6 + [False] * 10 + [True] * 4
    assert why_N[6] == "number 7 by confidence of its position: others came first"
    keep_N, _ = SELECTORS["per_class"](*case, keep_share=0.3)
    assert (keep_N[:16].sum(), keep_N[16:].sum()) == (3, 3)


@pytest.mark.parametrize("name", ["confidence", "per_class"])
@pytest.mark.parametrize("share", [0, -0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused_in_one_line(name, share):
    with pytest.raises(BadInput, match=f"keep_share: {share} given; allowed: above 0, up to 1"):
        SELECTORS[name](*pool(0, 5), keep_share=share)


def test_a_threshold_above_1_is_refused_in_one_line():
    with pytest.raises(BadInput, match="threshold: 2 given; allowed: 0 to 1"):
        pick(SELECTORS, {"name": "agreement", "threshold": 2})(*pool(0, 5))


def test_labels_carry_the_target_the_weight_and_the_reason():
    ids, probs_NK, mask_NK, votes_RNK, sources_N = pool(0, 30)
    keep_N, why_N = SELECTORS["confidence"](ids, probs_NK, mask_NK, votes_RNK, sources_N, keep_share=0.4)
    soft = make_labels(ids, probs_NK, mask_NK, keep_N, why_N)
    np.testing.assert_array_equal(soft.target_NK, probs_NK)
    np.testing.assert_array_equal(soft.weight_N, keep_N.astype(float))
    assert soft.why_N.tolist() == why_N.tolist()
    hard = make_labels(ids, probs_NK, mask_NK, keep_N, why_N, soft=False, temperature=3.0)
    np.testing.assert_array_equal(hard.target_NK, np.eye(5)[probs_NK.argmax(1)])
    cold = make_labels(ids, probs_NK, mask_NK, keep_N, why_N, temperature=0.01)
    np.testing.assert_allclose(cold.target_NK.sum(1), 1)
    assert (cold.target_NK.max(1) >= probs_NK.max(1)).all()
    assert not cold.target_NK[~mask_NK].any()


def test_a_hard_label_is_shared_between_tied_candidates():
    probs_NK, mask_NK = np.array([[0.4, 0.4, 0.2]]), np.ones((1, 3), bool)
    labels = make_labels(np.array(["a"]), probs_NK, mask_NK, np.array([True]), np.array([KEPT]), soft=False)
    np.testing.assert_array_equal(labels.target_NK, [[0.5, 0.5, 0]])
