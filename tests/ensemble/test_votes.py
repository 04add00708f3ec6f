"""Counting votes."""

import numpy as np

from w2s.ensemble import votes
from w2s.ensemble.votes import count_votes, split_winners, vote_shares


def test_votes_are_counted_by_candidate_with_their_weights_and_in_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    answer_RN = rng.integers(-2, 4, (5, 37))
    for weight in (None, rng.random(5), rng.random((5, 37))):
        expected_NK = np.zeros((37, 4))
        for r in range(5):
            for n in range(37):
                if answer_RN[r, n] >= 0:
                    vote = 1.0 if weight is None else weight[r] if weight.ndim == 1 else weight[r, n]
                    expected_NK[n, answer_RN[r, n]] += vote
        np.testing.assert_array_equal(count_votes(answer_RN, 4, weight), expected_NK)
        with monkeypatch.context() as patch:
            patch.setattr(votes, "BLOCK", 10)
            np.testing.assert_array_equal(count_votes(answer_RN, 4, weight), expected_NK)
    assert count_votes(np.zeros((0, 3), int), 2).tolist() == [[0, 0]] * 3


def test_ties_split_the_vote_and_a_row_without_votes_stays_empty():
    total_NK = np.array([[2.0, 2, 0], [0, 0, 0], [1, 3, 0]])
    np.testing.assert_array_equal(split_winners(total_NK), [[0.5, 0.5, 0], [0, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(vote_shares(total_NK), [[0.5, 0.5, 0], [0, 0, 0], [0.25, 0.75, 0]])
    assert split_winners(np.zeros((2, 0))).shape == (2, 0)
