"""Types, files and the join."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2s.store.records import (
    BadInput,
    Example,
    Gold,
    Metric,
    Outcome,
    Predictions,
    PseudoLabels,
    Round,
    Weights,
    align,
    candidate_mask,
    example_id,
    read_arrays,
    read_rows,
    softmax,
    take,
    write_arrays,
    write_rows,
)


def predictions(count: int = 5, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    mask_NK = candidate_mask(rng.integers(2, 5, count))
    probs_NK = softmax(rng.normal(size=mask_NK.shape), mask_NK)
    return Predictions(
        np.array([f"id{n}" for n in range(count)]), probs_NK, mask_NK, rng.random(count) < 0.3, "a model"
    )


ROWS = [
    Example("1", "s", "choice", "wer? 你好", ("a", "b"), {"level": 1.0, "split": None}),
    Gold("1", "def f(): ...\n", ({"call": "f", "inputs": [1, 2]},)),
    Round(0, "round-0", 0.2, 1.5, 0.8, None),
    Outcome("1", "s", "m", "text\nlines", None, "no sandbox", 0.5),
    Metric("s", "m", "pgr", None, None, None, 10, (0, 1), "not apart"),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: type(row).__name__)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_rows_come_back_as_they_were_written(tmp_path, row, name):
    assert write_rows(tmp_path / "rows.jsonl", [row, row]) == 2
    if name.endswith(".gz"):
        (tmp_path / name).write_bytes(gzip.compress((tmp_path / "rows.jsonl").read_bytes()))
    assert read_rows(tmp_path / name, type(row)) == [row, row]


@pytest.mark.parametrize(
    "record",
    [
        predictions(),
        Weights(np.array(["a", "b"]), np.array([0.25, 0.75])),
        PseudoLabels(np.array(["a"]), np.array([[0.5, 0.5]]), np.array([0.0]), np.array(["too few agree"])),
    ],
    ids=lambda record: type(record).__name__,
)
def test_arrays_come_back_bit_for_bit_and_without_pickles(tmp_path, record):
    write_arrays(tmp_path / "a.npz", record)
    found = read_arrays(tmp_path / "a.npz", type(record))
    for name, value in vars(record).items():
        assert np.array_equal(getattr(found, name), value), name
        assert getattr(getattr(found, name), "dtype", None) == getattr(value, "dtype", None)


@given(st.permutations(range(6)))
def test_align_puts_rows_in_the_order_of_the_ids(order):
    record = predictions(6)
    found = align(record, record.ids[list(order)])
    assert np.array_equal(found.probs_NK, record.probs_NK[list(order)])
    assert found.by == record.by


@pytest.mark.parametrize(
    ("ids", "said"), [(["id0", "x", "y"], "2 ids are missing and 1 are extra (x, y)"), (["id0"], "0 ids are missing")]
)
def test_align_counts_and_names_what_does_not_fit(ids, said):
    with pytest.raises(ValueError, match="Predictions: ") as caught:
        align(predictions(2), np.array(ids))
    assert said in str(caught.value)


def test_an_id_that_is_there_twice_cannot_be_joined():
    record = predictions(2)
    for one, ids in ((take(record, np.array([0, 1, 1])), record.ids), (record, np.array(["id0", "id1", "id1"]))):
        with pytest.raises(ValueError, match="an id occurs twice"):
            align(one, ids)


def test_take_accepts_positions_and_masks():
    record = predictions(4)
    chosen = np.array([False, True, False, True])
    assert take(record, chosen).ids.tolist() == take(record, np.array([1, 3])).ids.tolist() == ["id1", "id3"]


@pytest.mark.parametrize(
    ("probs", "mask"),
    [
        ([[0.5, 0.4]], [[True, True]]),  # does not sum to 1
        ([[0.5, 0.5]], [[True, False]]),  # on a candidate that is none
        ([[np.nan, 1.0]], [[True, True]]),
        ([[0.5, 0.5], [1, 0]], [[True, True], [True, True]]),  # one id too few
    ],
)
def test_an_opinion_that_is_no_distribution_is_refused(probs, mask):
    with pytest.raises(ValueError, match="predictions by x"):
        Predictions(np.array(["a"]), np.array(probs), np.array(mask), np.zeros(len(probs), bool), "x")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": "essay"}, "task: 'essay' given; allowed: choice, answer, code"),
        ({"prompt": "  "}, "prompt: it is empty"),
        ({"choices": ("a",)}, "choices: 1 given"),
        ({"choices": ("a", " ")}, "choices: each must be a non-empty text"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused(changes, said):
    values = {"id": "1", "source": "s", "task": "choice", "prompt": "p", "choices": ("a", "b")} | changes
    with pytest.raises(BadInput) as caught:
        Example(**values)
    assert said in str(caught.value)


@pytest.mark.parametrize("line", ["{", "[1]", '{"id": "1"}', '{"id": "1", "answer": 1, "more": 2}', "5"])
def test_a_row_that_does_not_fit_names_file_and_line(tmp_path, line):
    path = tmp_path / "gold.jsonl"
    path.write_text(json.dumps({"id": "0", "answer": 1}) + "\n\n" + line + "\n")
    with pytest.raises(BadInput, match=rf"^{path}:3: ") as caught:
        read_rows(path, Gold)
    assert "\n" not in str(caught.value)


def test_an_id_names_a_question_and_nothing_else():
    one = example_id("s", "p", ("a", "b"))
    assert len(one) == 16
    assert one == example_id("s", "p", ["a", "b"])
    assert (
        len({one, example_id("t", "p", ("a", "b")), example_id("s", "pa", ("b",)), example_id("s", "p", ("ab",))}) == 4
    )


def test_a_candidate_mask_marks_the_real_candidates():
    assert candidate_mask(np.array([2])).tolist() == [[True, True]]


def test_softmax_ignores_what_is_no_candidate():
    probs_NK = softmax(np.array([[1e4, 1e4 + 1, np.nan]]), np.array([[True, True, False]]))
    assert probs_NK[0, 2] == 0
    assert probs_NK[0, 1] / probs_NK[0, 0] == pytest.approx(np.e)


@pytest.mark.parametrize(
    ("weights", "why", "said"),
    [
        ([0.0, 0.5], ["a", "kept"], None),
        ([0.0, 0.0, 0.0], ["a", "b", "b"], "every label was dropped (2 of 3: b)"),
        ([], [], "every label was dropped (0 of 0: there were none)"),
    ],
)
def test_labels_say_why_none_is_left(weights, why, said):
    labels = PseudoLabels(np.array(why), np.ones((len(why), 2)) / 2, np.array(weights), np.array(why))
    assert labels.why_none == said
