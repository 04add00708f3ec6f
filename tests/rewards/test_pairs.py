"""Pairs for reward models: from gold, from a committee's opinion, from preference data."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s.config.registry import pick
from w2s.rewards.pairs import PAIRS, committee, gold, preferences
from w2s.store.records import BadInput, Example


def question(at: int, choices=("w", "x", "y", "z"), task="choice") -> Example:
    return Example(f"q{at}", "own", task, f"which one ? ({at})", tuple(choices))


def sides(found) -> list[tuple[str, str, str]]:
    """(question, better, worse) of each pair."""
    rows = zip(found.examples, found.labels.target_NK.argmax(1), strict=True)
    return [(row.meta["question"], row.choices[at], row.choices[1 - at]) for row, at in rows]


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.sampled_from([1.0, 0.0, np.nan]), min_size=1, max_size=5), min_size=1, max_size=6),
    st.integers(1, 4),
)
def test_every_pair_of_gold_is_a_right_candidate_over_a_wrong_one_of_its_question(verdicts, per_question):
    examples = [question(at, [f"t{n}" for n in range(len(one))], task="answer") for at, one in enumerate(verdicts)]
    right_NK = np.full((len(verdicts), 5), np.nan)
    for at, one in enumerate(verdicts):
        right_NK[at, : len(one)] = one
    wanted = [min(one.count(0.0), per_question) if 1.0 in one else 0 for one in verdicts]
    if not sum(wanted):
        with pytest.raises(BadInput, match=r"^rewards.pairs: 'gold' gives no pair"):
            gold(examples, right_NK, per_question=per_question)
        return
    found = gold(examples, right_NK, per_question=per_question)
    verdict = {(row.id, text): one for row, right_K in zip(examples, right_NK, strict=True)
               for text, one in zip(row.choices, right_K, strict=False)}  # fmt: skip
    assert all(verdict[key, better] == 1 and verdict[key, worse] == 0 for key, better, worse in sides(found))
    assert [[key for key, _, _ in sides(found)].count(row.id) for row in examples] == wanted
    assert found.counts["pairs"] == sum(wanted) == len(found.labels.ids)
    assert found.counts["one_kind"] == sum(not {0.0, 1.0} <= set(one) for one in verdicts)


def test_the_better_text_stands_first_as_often_as_second_and_always_in_the_same_place():
    examples = [question(at) for at in range(400)]
    right_NK = np.tile([1.0, 0, 0, 0], (400, 1))
    found, again = gold(examples, right_NK), gold(examples[::-1], right_NK)
    assert 0.45 < found.labels.target_NK[:, 0].mean() < 0.55
    assert sorted(sides(found)) == sorted(sides(again))
    assert {row.id for row in found.examples} == {row.id for row in again.examples}


def test_equal_and_empty_texts_are_left_out_and_counted():
    rows = [question(0, ("a", " a", "b", " "), task="answer"), question(1, ("c", "d"))]
    found = gold(rows, np.array([[1, 0, 0, 0], [0, 1, np.nan, np.nan]]))
    assert sorted(sides(found)) == [("q0", "a", "b"), ("q1", "d", "c")]
    assert found.counts == {"pairs": 2, "equal": 1, "empty": 1, "repeats": 0, "one_kind": 0}


def test_the_committee_gives_its_best_over_its_least_on_the_questions_it_is_surest_of():
    probs_NK = np.array([[0.7, 0.2, 0.1, 0], [0.25, 0.25, 0.25, 0.25], [0.1, 0.0, 0.9, np.nan], [0.3, 0.3, 0.3, 0.1]])
    rows = [question(0), question(1), question(2, "wxy"), question(3)]
    assert sorted(sides(committee(rows, probs_NK, keep_share=0.5))) == [("q0", "w", "z"), ("q2", "y", "x")]
    everything = committee(rows, probs_NK, keep_share=1.0)
    assert everything.counts["undecided"] == 1
    assert len(everything.examples) == 3


def test_preferences_keep_the_sets_own_pairs_and_ties_are_half_and_half(tmp_path):
    rows = [
        {"prompt": f"p{at}", "output_1": "yes", "output_2": f"no {at}", "preference": at % 2 + 1} for at in range(8)
    ]
    rows += [{"prompt": "t", "output_1": "yes", "output_2": "no", "preference": 1.5}]
    rows += [{"prompt": "e", "output_1": "same", "output_2": "same", "preference": 1}]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = preferences(tmp_path, source={"name": "file", "path": "own.jsonl", "ties": True})
    target_NK = found.labels.target_NK
    better = {row.prompt: row.choices[at] for row, at in zip(found.examples, target_NK.argmax(1), strict=True)}
    assert {better[f"p{at}"] for at in range(0, 8, 2)} == {"yes"}
    assert all(better[f"p{at}"] == f"no {at}" for at in range(1, 8, 2))
    halves = [row.prompt for row, target_K in zip(found.examples, target_NK, strict=True) if target_K.max() == 0.5]
    assert halves == ["t"]
    assert (found.counts["pairs"], found.counts["equal"], found.counts["ties"]) == (9, 1, 0)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"name": "gold", "per_question": 0}, "per_question: 0 given"),
        ({"name": "committee", "keep_share": 0.0}, "keep_share: 0.0 given"),
        ({"name": "preferences", "source": {"name": "hh_rhlf"}}, r"rewards.pairs.source: .* \(did you mean 'hh_rlhf'"),
    ],
)
def test_what_cannot_be_had_is_one_line(spec, words):
    given_to = (None,) if spec["name"] == "preferences" else ([question(0)], np.array([[1.0, 0, 0, 0]]))
    with pytest.raises(BadInput, match=words) as refused:
        pick(PAIRS, spec)(*given_to)
    assert "\n" not in str(refused.value)


def test_candidates_that_all_are_right_leave_nothing_to_learn_from():
    rows = [dataclasses.replace(question(at, "ab"), task="answer") for at in range(3)]
    with pytest.raises(BadInput, match=r"no pair of a better and a worse candidate \(3 one_kind\)"):
        gold(rows, np.ones((3, 2)))
