"""Counting votes."""

import numpy as np

from w2s.pools import votes as counting
from w2s.pools.votes import tally


def test_votes_are_counted_by_candidate_with_their_weights_and_in_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    answer_MN = rng.integers(-2, 4, (5, 37))
    for weight in (None, rng.random(5), rng.random((5, 37))):
        expected_NK = np.zeros((37, 4))
        for m in range(5):
            for n in range(37):
                if answer_MN[m, n] >= 0:
                    one = 1.0 if weight is None else weight[m] if weight.ndim == 1 else weight[m, n]
                    expected_NK[n, answer_MN[m, n]] += one
        np.testing.assert_allclose(tally(answer_MN, 4, weight), expected_NK)
        with monkeypatch.context() as patch:
            patch.setattr(counting, "BLOCK", 10)
            np.testing.assert_allclose(tally(answer_MN, 4, weight), expected_NK)
    assert tally(np.zeros((0, 3), int), 2).tolist() == [[0, 0]] * 3
