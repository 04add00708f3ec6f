"""The table of kinds: one that is added from outside is fitted, saved, read and asked as any other."""

from __future__ import annotations

import json

import numpy as np
import pytest

from w2s.config.fields import Model
from w2s.models import batches, kinds, load
from w2s.models.records import Estimator
from w2s.models.train import World
from w2s.store.records import BadInput, Example, Predictions, read_arrays, write_rows
from w2s.workers import predict
from w2s.workers.job import Predict

EXAMPLES = [
    Example("a", "t", "choice", "Which?", ("x", "long one")),
    Example("b", "t", "choice", "Why?", ("yy", "y", "z")),
]


def slope(model, examples, target_NK, weight_N, seed):
    """How much longer right candidates are than others, in the weighted mean."""
    lengths = [np.array([len(text) for text in example.choices]) for example in examples]
    gaps = [target_K[: len(n)] @ n - n.mean() for target_K, n in zip(target_NK, lengths, strict=True)]
    return float(np.average(gaps, weights=weight_N))


def by_length(slope, examples):
    scores_NK = np.full((len(examples), max(len(example.choices) for example in examples)), -np.inf)
    for scores_K, example in zip(scores_NK, examples, strict=True):
        scores_K[: len(example.choices)] = [slope * len(text) for text in example.choices]
    return scores_NK


def write(slope, folder):
    folder.mkdir()
    (folder / "slope.json").write_text(json.dumps(slope))


LENGTH = Estimator(slope, by_length, write, lambda folder: json.loads((folder / "slope.json").read_text()))


def test_a_kind_from_outside_goes_through_the_worker(tmp_path, monkeypatch):
    monkeypatch.setitem(kinds.KINDS, "length", LENGTH)
    model, target_NK = Model(path="nowhere", kind="length"), np.array([[0.0, 1, 0], [1, 0, 0]])
    fitted = kinds.KINDS[model.kind].fit(model, EXAMPLES, target_NK, np.ones(2), 0)
    kinds.save_fitted(fitted, model, tmp_path / "model")
    write_rows(tmp_path / "x.jsonl", EXAMPLES)
    predict.run(tmp_path, Predict({"x": "x.jsonl"}, by="length", model="model"), World())
    predictions = read_arrays(tmp_path / "x.npz", Predictions)
    np.testing.assert_array_equal(predictions.probs_NK.argmax(1), [1, 0])
    assert (predictions.probs_NK[~predictions.mask_NK] == 0).all()


def test_a_kind_without_a_network_is_not_loaded_as_one_and_scores_choices_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(kinds.KINDS, "length", LENGTH)
    with pytest.raises(BadInput, match=r"model.kind: 'length' is not a network"):
        load.load(Model(path=str(tmp_path), kind="length"))
    with pytest.raises(BadInput, match=r"model.kind: 'length' given for written answers"):
        batches.check_kind("length", [Example("a", "t", "answer", "What?")])


def test_a_kind_that_is_not_in_the_table_is_refused_in_one_line(tmp_path):
    with pytest.raises(
        BadInput, match=r"model.kind: 'pairs' is not known \(did you mean 'pair'\?\); it can be: lm, pair"
    ):
        load.load(Model(path=str(tmp_path), kind="pairs"))


def test_a_folder_that_names_no_model_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"not a saved model: w2s.json with the key 'model' is missing"):
        kinds.load_fitted(tmp_path)
