"""Pairs and tilting as stages: what is right, what becomes a pair, what is left where nothing can be said."""

import dataclasses

import numpy as np
import pytest

from w2s.rewards.pairs import collect_pairs
from w2s.stages.reward_labels import (
    agreement,
    evidence,
    reward_pairs,
    rewarded,
    right_candidates,
    share_right,
    with_gold,
)
from w2s.store.records import (
    BadInput,
    Example,
    Gold,
    Predictions,
    PseudoLabels,
    read_arrays,
    read_rows,
    write_arrays,
    write_rows,
)

MASK = np.ones((3, 3), dtype=bool)


def opinion(probs_NK) -> Predictions:
    probs_NK = np.array(probs_NK)
    ids = np.array([f"q{at}" for at in range(len(probs_NK))])
    return Predictions(ids, probs_NK, np.ones(probs_NK.shape, dtype=bool), np.zeros(len(ids), dtype=bool), "committee")


@pytest.fixture
def answers(tmp_path):
    """A folder with three written questions, their candidates as choices, and gold: '7' each time."""
    choices = [("7", "8"), ("8", "9"), ("7", "7.0", "")]
    rows = [Example(f"q{at}", "own", "answer", f"3 + 4 = ? ({at})", texts) for at, texts in enumerate(choices)]
    for name in ("easy_fit", "transfer"):
        write_rows(tmp_path / f"{name}.jsonl", rows)
    write_rows(tmp_path / "gold.jsonl", [Gold(row.id, "7") for row in rows])
    return tmp_path


def test_candidates_of_written_answers_are_graded_one_by_one(answers, tools):
    rows = read_rows(answers / "easy_fit.jsonl", Example)
    found = right_candidates(rows, answers, tools)
    assert np.array_equal(found, [[1, 0, np.nan], [0, 0, np.nan], [1, 1, 0]], equal_nan=True)


def test_the_gold_text_stands_in_only_where_no_sampled_candidate_is_right(answers, tools):
    rows = read_rows(answers / "easy_fit.jsonl", Example)
    added, right_NK = with_gold(rows, right_candidates(rows, answers, tools), answers)
    assert [row.choices for row in added] == [("7", "8"), ("8", "9", "7"), ("7", "7.0", "")]
    assert np.array_equal(right_NK[1], [0, 0, 1, np.nan], equal_nan=True)


def test_pairs_of_written_answers_are_over_what_was_sampled(answers, tools, tmp_path_factory):
    here, where = tmp_path_factory.mktemp("pairs"), {"candidates": answers, "gold": answers}
    facts = reward_pairs(here, where, tools, method={"name": "gold"})
    rows, labels = read_rows(here / "targets.jsonl", Example), read_arrays(here / "labels.npz", PseudoLabels)
    sides = {
        (row.meta["question"], row.choices[at], row.choices[1 - at])
        for row, at in zip(rows, labels.target_NK.argmax(1), strict=True)
    }
    assert sides == {("q0", "7", "8"), ("q1", "7", "8"), ("q1", "7", "9")}
    assert facts == {"rows": 3, "pairs": 3, "equal": 0, "empty": 1, "repeats": 0, "one_kind": 0}


def test_preference_pairs_about_questions_that_rewards_are_asked_about_are_left_out(answers, tools, tmp_path):
    for at, name in enumerate(("easy_holdout", "transfer", "hard_test")):
        write_rows(answers / f"{name}.jsonl", [Example(name, "own", "answer", f"What is the name of {at} ?")])
    said = ["what is the  name of 1 ?", "What is the name of 2 ?", "Who are you ?"]
    rows = [(Example(text, "own", "answer", text), "yes", "no") for text in said]
    given = dataclasses.replace(tools, preferences=lambda: collect_pairs("preferred", rows, {}))
    how = {"method": {"name": "preferences", "source": {"name": "hh_rlhf"}}, "content": "x"}
    facts = reward_pairs(tmp_path, {"questions": answers}, given, **how)
    assert (facts["rows"], facts["leaked"]) == (1, 2)
    (kept,), labels = read_rows(tmp_path / "targets.jsonl", Example), read_arrays(tmp_path / "labels.npz", PseudoLabels)
    assert kept.prompt == "Who are you ?"
    assert labels.ids.tolist() == [kept.id]
    given = dataclasses.replace(tools, preferences=lambda: collect_pairs("preferred", rows[:2], {}))
    with pytest.raises(BadInput, match=r"^rewards.pairs: all 2 pairs are about questions of the run itself"):
        reward_pairs(tmp_path, {"questions": answers}, given, **how)


def test_a_committee_that_cannot_decide_gives_no_pairs(answers, tools):
    two = Predictions(np.array(["q0", "q1"]), np.full((2, 2), 0.5), MASK[:2, :2], np.zeros(2, dtype=bool), "committee")
    write_arrays(answers / "transfer.npz", two)
    with pytest.raises(BadInput, match=r"^rewards.pairs: 'committee' gives no pair"):
        reward_pairs(answers, {"candidates": answers, "opinion": answers}, tools, method={"name": "committee"})


def test_of_several_right_candidates_the_committees_favourite_counts_and_none_decides_nothing():
    found = opinion([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    right_NK = np.array([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, np.nan]])
    rewards_NK = np.array([[0.0, 1.0, -9.0], [9.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    chosen = evidence(found, rewards_NK, right_NK)
    assert chosen.rows == 2
    assert chosen.strength == 5
    none = evidence(found, rewards_NK, 0 * MASK)
    assert (none.strength, none.rows) == (0, 0)


def test_best_of_n_is_the_highest_reward_shared_by_ties_and_the_opinion_where_there_is_none():
    found = opinion([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    rewards_NK = np.array([[0.0, 2.0, np.nan], [1.0, 1.0, 0.0], [np.nan, np.nan, np.nan]])
    probs_NK = rewarded(found, rewards_NK, "best_of_n", 0.0, "rewarded").probs_NK
    assert np.allclose(probs_NK, [[0, 1, 0], [0.5, 0.5, 0], [0.1, 0.1, 0.8]])


def test_shares_and_agreement_by_hand():
    scores_MNK = np.array([[[3, 2, 1], [1, 1, 0], [0, 0, 1]], [[3, 2, 1], [0, 1, 0], [1, 0, 0]]], dtype=float)
    assert agreement(scores_MNK, MASK) == pytest.approx((1 + 0.5 + 0) / 3)
    assert agreement(scores_MNK[:1], MASK) is None
    right_NK = np.array([[1, 0, 0], [1, 0, 0], [np.nan, 0, 0]])
    assert share_right(scores_MNK[0], MASK, right_NK) == pytest.approx((1 + 0.5 + 0) / 3)
