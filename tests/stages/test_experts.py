"""Which examples each learner's expert is for."""

import numpy as np
import pytest

from w2s.stages.experts import favour
from w2s.store.records import Predictions

IDS = np.array(["a", "b", "c"])
GOLD_N = np.array([0, 1, 0])


def opinion(*first: float) -> Predictions:
    """The probability of the first of two candidates for each row."""
    probs_NK = np.array([[share, 1 - share] for share in first])
    return Predictions(IDS, probs_NK, np.ones((3, 2), bool), np.zeros(3, bool), "it")


def test_an_expert_is_for_what_its_learner_gets_right_and_the_committee_does_not():
    committee = opinion(0.6, 0.6, 0.4)  # right, wrong, wrong
    towards, facts = favour([opinion(0.9, 0.1, 0.9), opinion(0.1, 0.9, 0.8)], committee, GOLD_N)
    assert [one.weight_N.tolist() for one in towards] == [[0, 0.5, 0.5], [0, 0, 1]]
    assert facts == {"won": [2, 1]}


def test_rows_are_joined_by_id_and_never_by_position():
    own = opinion(0.9, 0.6, 0.4)
    turned = Predictions(IDS[::-1], own.probs_NK[::-1], own.mask_NK, own.abstained_N, "it")
    committee = opinion(0.4, 0.6, 0.6)
    assert favour([turned], committee, GOLD_N)[0][0].weight_N.tolist() == [1, 0, 0]


def test_a_learner_that_wins_nowhere_gets_what_it_finds_likelier_or_everything_and_it_is_said(capsys):
    committee = opinion(0.6, 0.6, 0.6)
    towards, facts = favour([opinion(0.7, 0.9, 0.9), opinion(0.6, 0.6, 0.6)], committee, GOLD_N)
    assert towards[0].weight_N.tolist() == pytest.approx([0.25, 0, 0.75])
    assert towards[1].weight_N.tolist() == pytest.approx([1 / 3] * 3)
    assert facts == {"won": [0, 0]}
    said = capsys.readouterr().err
    assert "learner 1 is never right where the committee is wrong; its router takes those 2 that" in said
    assert "learner 2 is never right where the committee is wrong; its router takes all" in said
