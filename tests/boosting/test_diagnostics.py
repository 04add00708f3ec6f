"""Accuracy by rounds, and heavy rows."""

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.ensemble import AdaBoostClassifier
from sklearn.tree import DecisionTreeClassifier

from w2s.boosting import diagnostics
from w2s.ensemble import combiners


def test_accuracy_by_rounds_equals_scikit_learns_staged_score():
    X, y = make_classification(300, 8, n_informative=5, n_classes=4, n_clusters_per_class=1, random_state=0)
    theirs = AdaBoostClassifier(DecisionTreeClassifier(max_depth=2), n_estimators=15, random_state=0).fit(X, y)
    probs_RNK = np.array([np.eye(4)[tree.predict(X)] for tree in theirs.estimators_])
    accuracy_R = diagnostics.accuracy_by_rounds(
        probs_RNK, np.ones((300, 4), bool), theirs.estimator_weights_, y, combiner=combiners.weighted_vote
    )
    # Rows whose best two shares tie are decided by chance here and by position there.
    np.testing.assert_allclose(accuracy_R, list(theirs.staged_score(X, y)), atol=2 / 300)
    assert len(accuracy_R) == 15


def test_accuracy_by_rounds_by_hand():
    probs_RNK = np.array([[[1.0, 0], [1, 0]], [[0, 1], [0, 1]], [[0, 1], [1, 0]]])
    mask_NK = np.ones((2, 2), bool)
    accuracy_R = diagnostics.accuracy_by_rounds(
        probs_RNK, mask_NK, [0.0, 1.0, 3.0], [0, 0], combiner=combiners.soft_vote
    )
    np.testing.assert_allclose(accuracy_R, [0.5, 0, 0.5])
    silent_RN = np.array([[False, False], [True, False], [False, False]])
    accuracy_R = diagnostics.accuracy_by_rounds(
        probs_RNK, mask_NK, [1.0, 3.0, 0.0], [0, 0], silent_RN, combiner=combiners.soft_vote
    )
    np.testing.assert_allclose(accuracy_R, [1, 0.5, 0.5])
    with pytest.raises(ValueError, match="an empty set has no accuracy"):
        diagnostics.accuracy_by_rounds(probs_RNK[:, :0], mask_NK[:0], [1.0] * 3, [], combiner=combiners.soft_vote)


def test_the_heaviest_rows_come_first_with_their_whole_history():
    ids = np.array(["d", "c", "b", "a"])
    weight_RN = np.array([[0.25, 0.25, 0.25, 0.25], [0.1, 0.5, 0.3, 0.1], [0.1, 0.2, 0.6, 0.1]])
    rows = diagnostics.heaviest_rows(ids, weight_RN, top=3)
    assert [key for key, _ in rows] == ["b", "c", "a"]
    np.testing.assert_allclose(rows[0][1], [1, 1.2, 2.4])
    order = [2, 0, 3, 1]
    assert [key for key, _ in diagnostics.heaviest_rows(ids[order], weight_RN[:, order], top=3)] == ["b", "c", "a"]
