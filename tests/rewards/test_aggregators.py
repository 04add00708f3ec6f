"""Aggregators of reward models' scores."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s.config.registry import pick, summary
from w2s.rewards.aggregators import AGGREGATORS, disagreement, standardise, unjudged
from w2s.store.records import BadInput

NAN = np.nan
EVERY = pytest.mark.parametrize("name", sorted(AGGREGATORS))

# Two members, three candidates of one question and two of another; member 1 could not judge one of them.
MASK = np.array([[True, True, True], [True, True, False]])
SCORES = np.array([[[1.0, 2.0, 6.0], [4.0, 0.0, 99.0]], [[3.0, 2.0, 2.0], [NAN, 0.0, 99.0]]])


def case(seed, members, rows, holes=True, ties=False):
    """scores_MNK, mask_NK with 1 to 5 candidates, and some that members could not judge."""
    rng = np.random.default_rng(seed)
    mask_NK = np.arange(5) < rng.integers(1, 6, rows)[:, None]
    scores_MNK = rng.normal(size=(members, rows, 5)) * rng.uniform(0.1, 100, (members, 1, 1))
    scores_MNK = np.round(scores_MNK / 10) if ties else scores_MNK
    if holes:
        scores_MNK[rng.random(scores_MNK.shape) < 0.2] = NAN
    return scores_MNK, mask_NK


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("mean", [[2, 2, 4], [4, 0, NAN]]),
        ("median", [[2, 2, 4], [4, 0, NAN]]),
        ("worst", [[1, 2, 2], [4, 0, NAN]]),
        ({"name": "uncertainty", "strength": 0.5}, [[2 - 0.5 * 1, 2, 4 - 0.5 * 4], [4, 0, NAN]]),
        ({"name": "uncertainty", "strength": 0}, [[2, 2, 4], [4, 0, NAN]]),
        # Sample deviations √2 and 2√2 over √2 members.
        ({"name": "lower_bound", "z": 2.0}, [[2 - 2 * 1, 2, 4 - 2 * 2], [4, 0, NAN]]),
        # Member 0 ranks 0, 1/2, 1; member 1 ranks 1, 1/4, 1/4 (a tie), and of the second question only one candidate.
        ("rank_average", [[0.5, 0.375, 0.625], [1, 0.25, NAN]]),
    ],
)
def test_aggregators_as_computed_by_hand(method, expected):
    np.testing.assert_allclose(pick(AGGREGATORS, method)(SCORES, MASK), expected, atol=1e-12)


def test_disagreement_is_the_deviation_between_members_as_computed_by_hand():
    np.testing.assert_allclose(disagreement(SCORES, MASK), [[1, 0, 2], [0, 0, NAN]], atol=1e-12)


def test_the_median_of_three_and_of_four_members():
    scores_MNK = np.array([[[1.0]], [[100.0]], [[3.0]], [[5.0]]])
    one = np.array([[True]])
    assert AGGREGATORS["median"](scores_MNK[:3], one)[0, 0] == 3
    assert AGGREGATORS["median"](scores_MNK, one)[0, 0] == 4


def test_what_a_member_could_not_judge_is_counted():
    assert unjudged(SCORES, MASK).tolist() == [0, 1]
    scores_MNK = np.full((2, 2, 3), NAN)
    assert unjudged(scores_MNK, MASK).tolist() == [5, 5]


@EVERY
def test_a_candidate_that_nobody_judged_has_no_score_and_no_warning(name):
    scores_MNK = SCORES.copy()
    scores_MNK[:, 0, 1] = NAN
    scores_NK = AGGREGATORS[name](scores_MNK, MASK)
    assert np.isnan(scores_NK).tolist() == [[False, True, False], [False, False, True]]
    assert np.isnan(AGGREGATORS[name](np.full((2, 1, 2), NAN), np.ones((1, 2), dtype=bool))).all()


@EVERY
@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), members=st.integers(1, 6), rows=st.integers(0, 12), ties=st.booleans())
def test_scores_permute_with_members_rows_and_candidates(name, seed, members, rows, ties):
    scores_MNK, mask_NK = case(seed, members, rows, ties=ties)
    scores_NK = AGGREGATORS[name](scores_MNK, mask_NK)
    assert scores_NK.shape == mask_NK.shape
    assert np.isnan(scores_NK[~mask_NK]).all()
    rng = np.random.default_rng(seed)
    member, row, column = rng.permutation(members), rng.permutation(rows), rng.permutation(5)
    again_NK = AGGREGATORS[name](scores_MNK[member][:, row][:, :, column], mask_NK[row][:, column])
    np.testing.assert_allclose(again_NK, scores_NK[row][:, column], atol=1e-9)


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), by=st.sampled_from(["question", "set"]))
def test_standardised_scores_permute_too_and_forget_each_members_scale(seed, by):
    scores_MNK, mask_NK = case(seed, 4, 8)
    standard_MNK = standardise(scores_MNK, mask_NK, by=by)
    rng = np.random.default_rng(seed)
    member, row, column = rng.permutation(4), rng.permutation(8), rng.permutation(5)
    again_MNK = standardise(scores_MNK[member][:, row][:, :, column], mask_NK[row][:, column], by=by)
    np.testing.assert_allclose(again_MNK, standard_MNK[member][:, row][:, :, column], atol=1e-9)
    scale_M, zero_M = rng.uniform(0.01, 50, (4, 1, 1)), rng.normal(size=(4, 1, 1)) * 10
    np.testing.assert_allclose(standardise(scores_MNK * scale_M + zero_M, mask_NK, by=by), standard_MNK, atol=1e-6)


@EVERY
@given(seed=st.integers(0, 10**6))
def test_on_standardised_scores_no_members_scale_has_a_say(name, seed):
    scores_MNK, mask_NK = case(seed, 3, 6)
    scale_M = np.random.default_rng(seed).uniform(0.1, 10, (3, 1, 1))
    np.testing.assert_allclose(
        AGGREGATORS[name](standardise(scores_MNK * scale_M - 3, mask_NK), mask_NK),
        AGGREGATORS[name](standardise(scores_MNK, mask_NK), mask_NK),
        atol=1e-6,
    )


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 8))
def test_standardised_scores_have_mean_0_and_variance_1(seed, rows):
    scores_MNK, mask_NK = case(seed, 3, rows)
    for by in ("question", "set"):
        standard_MNK = standardise(scores_MNK, mask_NK, by=by)
        groups = [row for member in standard_MNK for row in (member if by == "question" else [member])]
        for group in groups:
            known = group[~np.isnan(group)]
            if len(known) > 1:
                np.testing.assert_allclose([known.mean(), known.var()], [0, 1], atol=1e-9)
            else:
                assert (known == 0).all()


@pytest.mark.parametrize("by", ["question", "set"])
def test_a_member_with_constant_scores_has_no_say(by):
    mask_NK = np.ones((3, 4), dtype=bool)
    scores_MNK = np.stack([np.full((3, 4), 0.1), np.arange(12.0).reshape(3, 4)])
    standard_MNK = standardise(scores_MNK, mask_NK, by=by)
    assert (standard_MNK[0] == 0).all()
    assert (np.argmax(AGGREGATORS["mean"](standard_MNK, mask_NK), axis=1) == 3).all()


def test_what_was_not_judged_stays_so_when_standardised():
    standard_MNK = standardise(SCORES, MASK)
    assert np.isnan(standard_MNK).tolist() == [
        [[False, False, False], [False, False, True]],
        [[False, False, False], [True, False, True]],
    ]


def test_huge_scores_do_not_overflow():
    mask_NK = np.ones((1, 2), dtype=bool)
    np.testing.assert_allclose(standardise(np.array([[[1e300, -1e300]]]), mask_NK), [[[1, -1]]])


@EVERY
@given(seed=st.integers(0, 10**6))
def test_one_member_is_that_member_and_equal_members_are_one(name, seed):
    scores_MNK, mask_NK = case(seed, 1, 6)
    alone_NK = AGGREGATORS[name](scores_MNK, mask_NK)
    if name != "rank_average":
        np.testing.assert_allclose(alone_NK, np.where(mask_NK, scores_MNK[0], NAN), atol=1e-9)
    np.testing.assert_allclose(AGGREGATORS[name](np.repeat(scores_MNK, 3, axis=0), mask_NK), alone_NK, atol=1e-9)


@given(seed=st.integers(0, 10**6), members=st.integers(1, 5))
def test_the_cautious_aggregators_are_never_above_the_mean(seed, members):
    scores_MNK, mask_NK = case(seed, members, 6)
    mean_NK = AGGREGATORS["mean"](scores_MNK, mask_NK)
    for name in ("worst", "uncertainty", "lower_bound"):
        cautious_NK = AGGREGATORS[name](scores_MNK, mask_NK)
        assert (np.isnan(mean_NK) | (cautious_NK <= mean_NK + 1e-9)).all()


@given(seed=st.integers(0, 10**6))
def test_ranks_are_those_counted_pair_by_pair(seed):
    scores_MNK, mask_NK = case(seed, 1, 5, holes=False, ties=True)
    ranks_NK = AGGREGATORS["rank_average"](scores_MNK, mask_NK)
    for scores_K, mask_K, ranks_K in zip(scores_MNK[0], mask_NK, ranks_NK, strict=True):
        real_K = scores_K[mask_K]
        for score, rank in zip(real_K, ranks_K[mask_K], strict=True):
            others = len(real_K) - 1
            beaten = (real_K < score).sum() + ((real_K == score).sum() - 1) / 2
            assert rank == pytest.approx(beaten / others if others else 0.5)


def test_average_ranks_that_tie_do_so_exactly_in_any_order_of_the_members():
    # Of four candidates, the first three have the ranks {0, 1/3, 2/3} each, met in another order.
    scores_MNK = np.array([[[1.0, 3, 2, 4]], [[2.0, 1, 3, 4]], [[3.0, 2, 1, 4]]])
    for order in itertools.permutations(range(3)):
        rank_NK = AGGREGATORS["rank_average"](scores_MNK[list(order)], np.ones((1, 4), dtype=bool))
        assert len(set(rank_NK[0, :3])) == 1


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"name": "uncertainty", "strength": -1}, "strength: -1 given; allowed: a number of 0 or more"),
        ({"name": "lower_bound", "z": -0.5}, "z: -0.5 given; allowed: a number of 0 or more"),
        ({"name": "wurst"}, r"'wurst' is not known \(did you mean 'worst'\?\)"),
    ],
)
def test_bad_options_are_refused(method, message):
    with pytest.raises(BadInput, match=message):
        pick(AGGREGATORS, method)(SCORES, MASK)


def test_bad_scores_are_refused():
    with pytest.raises(BadInput, match="by: 'member' given; allowed: question, set"):
        standardise(SCORES, MASK, by="member")
    with pytest.raises(ValueError, match="1 rewards are infinite"):
        AGGREGATORS["mean"](np.array([[[np.inf, 0.0]]]), np.ones((1, 2), dtype=bool))
    for shape in [(0, 2, 3), (2, 3), (2, 2, 2)]:
        with pytest.raises(ValueError, match="do not fit a mask"):
            AGGREGATORS["mean"](np.zeros(shape), MASK)


@EVERY
def test_every_aggregator_says_in_a_line_what_it_is(name):
    assert summary(AGGREGATORS[name]).endswith((".", ")."))
