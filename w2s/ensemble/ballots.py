"""The evidence from which alphas and subsets are found, and the error of a method that cannot work on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


class NotApplicable(ValueError):
    """A method cannot work on this kind of data (no costs, no prompts, ...): it is left out, with the reason shown."""


@dataclass(frozen=True)
class Ballots:
    """The evidence about R voters on N rows with gold, from which alphas are found (`alphas.ALPHAS`).

    answer_RN: the position voted for (below 0: no vote). wrong_RN: 0 (right) to 1 (wrong); a voter without a vote errs
    as often as guessing. gold_N: the right position, -1 if no candidate is right. count_N: the number of candidates.
    cost_R: US dollars per question, NaN for a voter without recorded costs.
    """

    answer_RN: np.ndarray
    wrong_RN: np.ndarray
    gold_N: np.ndarray
    count_N: np.ndarray
    cost_R: np.ndarray | None = None

    @property
    def chance_N(self) -> np.ndarray:
        """The error of guessing in each row, (K-1)/K.

        A half if an open question has a single candidate: another answer was possible.
        """
        return 1 - 1 / np.maximum(self.count_N, 2)

    def some(self) -> Ballots:
        """At most 200,000 rows, evenly spaced: enough to resolve accuracies to 0.1 points, in bounded memory."""
        rows = slice(None, None, max(-(-len(self.gold_N) // 200_000), 1))
        by_voter = self.answer_RN[:, rows], self.wrong_RN[:, rows]
        return Ballots(*by_voter, self.gold_N[rows], self.count_N[rows], self.cost_R)
