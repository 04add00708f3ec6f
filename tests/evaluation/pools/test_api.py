"""The Python API of `w2s combine`."""

import doctest

import numpy as np
import pandas as pd
import pytest

from tests.evaluation.pools.test_combine import write
from tests.pools.made import made_up
from w2s.evaluation.pools import api
from w2s.store.records import BadInput, PseudoLabels, read_arrays


def as_tables(opinions, truth, *, gold=True):
    rows = [
        {"id": key, "model": member, "answer": int(answer) if answer >= 0 else None}
        for member, answer_N in zip(opinions.members, opinions.answer_MN, strict=True)
        for key, answer in zip(opinions.ids, answer_N, strict=True)
    ]
    questions = {"id": opinions.ids, "prompt": opinions.prompt_N, "choices": [list(t) for t in opinions.texts_N]}
    questions |= {"gold": truth.gold_N} if gold else {}
    return pd.DataFrame(rows), pd.DataFrame(questions)


def test_the_examples_in_the_docstrings_run():
    failed, tried = doctest.testmod(api, raise_on_error=False)
    assert tried > 25
    assert failed == 0


def test_tables_and_files_make_the_same_pool_and_the_same_results(tmp_path):
    opinions, truth = made_up(questions=60, costs=False, groups=1)
    opinions.group_N[:] = ""
    outputs, questions = as_tables(opinions, truth)
    outputs.to_json(tmp_path / "outputs.jsonl", orient="records", lines=True)
    questions.to_json(tmp_path / "questions.jsonl", orient="records", lines=True)
    pools = [api.read_pool(outputs, questions), api.read_pool(tmp_path), api.read_pool(str(tmp_path / "outputs.jsonl"))]
    for pool in pools:
        np.testing.assert_array_equal(pool.opinions.answer_MN, opinions.answer_MN)
        np.testing.assert_array_equal(pool.truth.right_MN, truth.right_MN)
    tables = [api.combine(pool, ["votes"], repeats=1, out=tmp_path / f"o{at}").table for at, pool in enumerate(pools)]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(tables[0].drop(columns="seconds"), table.drop(columns="seconds"))
    assert tables[0].accuracy.between(0, 1).all()
    assert (tables[0].accuracy_low <= tables[0].accuracy_high).all()
    assert tables[0].accuracy.is_monotonic_decreasing


def test_a_combined_folder_answers_and_labels_new_tables(tmp_path):
    folder = write(tmp_path / "pool", *made_up(questions=80))
    combined = api.combine(folder, ["votes"], repeats=1, out=tmp_path / "o")
    opinions, truth = made_up(seed=9, questions=30)
    outputs, questions = as_tables(opinions, truth, gold=False)
    answers = combined.apply(outputs, questions, out=tmp_path / "a.parquet")
    assert answers.id.tolist() == opinions.ids.tolist()
    assert set(answers.method) == {combined.winner}
    pd.testing.assert_frame_equal(answers, pd.read_parquet(tmp_path / "a.parquet"))
    labels = combined.labels(outputs, questions, select={"name": "confidence", "keep_share": 0.5}, out=tmp_path / "l")
    assert (labels.weight_N > 0).sum() == 15
    np.testing.assert_array_equal(read_arrays(tmp_path / "l" / "labels.npz", PseudoLabels).target_NK, labels.target_NK)


def test_a_pool_s_options_are_those_of_the_command(tmp_path):
    folder = write(tmp_path / "pool", *made_up(questions=60))
    pool = api.read_pool(folder, models=["m0", "m2"], groups=["group 1"], limit=10)
    assert pool.members == ["m0", "m2"]
    assert set(pool.opinions.group_N) == {"group 1"}
    assert len(pool.opinions.ids) == 10
    assert repr(pool) == "Pool(10 questions, 2 members)"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"answer": [7, 0]}, "outputs: row 1: answer: '7' given; allowed: the index of a choice, 0 to 1"),
        ({"id": ["q", "other"]}, "outputs: row 2: id: other is not a question's id"),
        ({"cost": ["dear", 1]}, "outputs: row 1: cost: 'dear' given; allowed: a number"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_with_its_row(change, told):
    outputs = pd.DataFrame({"id": ["q", "q"], "model": ["a", "b"], "answer": [0, 1], **change})
    with pytest.raises(BadInput, match=told):
        api.read_pool(outputs, pd.DataFrame({"id": ["q"], "choices": [["yes", "no"]]}))
    with pytest.raises(BadInput, match="the questions are missing"):
        api.read_pool(outputs)


def test_options_that_are_none_are_refused(tmp_path):
    folder = write(tmp_path / "pool", *made_up(questions=20))
    with pytest.raises(BadInput, match="methods: 'plurallity' is not known"):
        api.combine(folder, "plurallity", out=tmp_path / "o")
    with pytest.raises(BadInput, match="limit: 0 given"):
        api.read_pool(folder, limit=0)
