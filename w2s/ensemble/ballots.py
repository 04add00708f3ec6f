"""The evidence that alphas and subsets are found from, and the refusal of a method that cannot work on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


class NotApplicable(ValueError):
    """A method cannot work on this kind of data (no costs, no prompts, ...): it is left out, and the reason shown."""


@dataclass(frozen=True)
class Ballots:
    """The evidence about R voters on N rows with gold, from which alphas are found (`alphas.ALPHAS`).

    answer_RN: the position voted for (below 0: no vote). wrong_RN: 0 right to 1 wrong; a voter without a vote errs as
    often as guessing. gold_N: the right position, -1 where no candidate is right. cost_R: dollars per question, NaN
    where none were recorded of a voter.
    """

    answer_RN: np.ndarray
    wrong_RN: np.ndarray
    gold_N: np.ndarray
    count_N: np.ndarray
    cost_R: np.ndarray | None = None

    @property
    def chance_N(self) -> np.ndarray:
        """The error of guessing in each row, (K-1)/K.

        A half where one candidate alone was given to an open question: another answer was possible.
        """
        return 1 - 1 / np.maximum(self.count_N, 2)

    def some(self, most: int = 200_000) -> Ballots:
        """At most so many rows, evenly spaced: they tell accuracies to 0.1 points, and more take memory."""
        step = -(-len(self.gold_N) // most)
        if step < 2:
            return self
        rows = slice(None, None, step)
        return Ballots(
            self.answer_RN[:, rows], self.wrong_RN[:, rows], self.gold_N[rows], self.count_N[rows], self.cost_R
        )
