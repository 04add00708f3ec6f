import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from w2s.ensemble.diversity import focal_diversities

WRONG = arrays(np.int8, st.tuples(st.integers(2, 6), st.integers(1, 25)), elements=st.integers(0, 1))


def focal_diversity(wrong_MN):
    """That of the ensemble of all members."""
    return float(focal_diversities(wrong_MN, np.ones((1, len(wrong_MN)), bool))[0])


def by_the_book(wrong_MN):
    """The definition, letter by letter; None where it is 0/0 throughout."""
    size, lambdas = len(wrong_MN), []
    for k in range(size):
        rows = [n for n in range(wrong_MN.shape[1]) if wrong_MN[k, n]]
        if not rows:
            continue
        share = [sum(wrong_MN[:, n].sum() == i for n in rows) / len(rows) for i in range(size + 1)]
        top = sum(i * (i - 1) / (size * (size - 1)) * share[i] for i in range(size + 1))
        lambdas.append(1 - top / sum(i / size * share[i] for i in range(size + 1)))
    return np.mean(lambdas) if lambdas else None


def test_three_members_by_hand():
    wrong_MN = np.array([[1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [1, 0, 0, 0, 1]])
    # Each fails one question alone and one with both others: 1 - ((0 + 6/6)/2) / ((1/3 + 3/3)/2) = 1 - 3/4.
    assert focal_diversity(wrong_MN) == pytest.approx(1 / 4)


def test_two_members_by_hand():
    wrong_MN = np.array([[1, 1, 1, 0], [0, 0, 1, 0]])
    # Member 1: p_1 = 2/3, p_2 = 1/3: 1 - (1/3)/(1/3 + 1/3) = 1/2. Member 2: p_2 = 1: 0.
    assert focal_diversity(wrong_MN) == pytest.approx(1 / 4)


@given(WRONG)
def test_it_is_the_definition(wrong_MN):
    expected = by_the_book(wrong_MN)
    assert focal_diversity(wrong_MN) == pytest.approx(1.0 if expected is None else expected)
    assert 0 <= focal_diversity(wrong_MN) <= 1


@given(WRONG, st.randoms(use_true_random=False))
def test_the_order_of_members_and_of_questions_changes_nothing(wrong_MN, random):
    rows, columns = list(range(len(wrong_MN))), list(range(wrong_MN.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    assert focal_diversity(wrong_MN[rows][:, columns]) == pytest.approx(focal_diversity(wrong_MN))


def test_copies_have_none_and_members_that_never_fail_together_have_all():
    one_N = np.array([1, 0, 1, 1, 0, 0])
    assert focal_diversity(np.stack([one_N, one_N, one_N])) == 0
    assert focal_diversity(np.eye(4)) == 1
    assert focal_diversity(np.zeros((3, 5))) == 1
    assert focal_diversity(one_N[None]) == 0


def test_many_subsets_at_once_are_each_of_them_alone():
    wrong_MN = np.random.default_rng(0).random((6, 80)) < 0.4
    chosen_SM = np.array(list(itertools.product([False, True], repeat=6))[1:])
    found_S = focal_diversities(wrong_MN, chosen_SM)
    assert found_S == pytest.approx([focal_diversity(wrong_MN[chosen_M]) for chosen_M in chosen_SM])
    assert focal_diversities(wrong_MN, np.zeros((1, 6))) == [0]


def test_each_subset_can_have_its_own_window():
    rng = np.random.default_rng(1)
    wrong_SMN, chosen_SM = rng.random((9, 5, 30)) < 0.5, rng.random((9, 5)) < 0.6
    expected = [focal_diversities(w, c[None])[0] for w, c in zip(wrong_SMN, chosen_SM, strict=True)]
    assert focal_diversities(wrong_SMN, chosen_SM) == pytest.approx(expected)


def test_an_abstention_is_a_failure_and_nan_is_refused():
    assert focal_diversity(np.array([[0.9, 0.0], [0.5, 1.0]])) == focal_diversity(np.array([[1, 0], [1, 1]]))
    for bad in (np.array([[np.nan, 0.0]]), np.zeros((2, 0)), np.array([1.0]), np.array([[2.0]])):
        with pytest.raises(ValueError, match="from 0"):
            focal_diversities(bad, np.ones((1, 1)))
    with pytest.raises(ValueError, match="subsets by members"):
        focal_diversities(np.zeros((3, 4)), np.ones((1, 2)))
