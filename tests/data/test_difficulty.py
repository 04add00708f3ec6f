import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s.config.registry import pick, summary
from w2s.data.difficulty import DIFFICULTY, folds
from w2s.data.sources import SOURCES
from w2s.store.records import BadInput, Example, Gold, Predictions

EXAMPLES = [
    Example("a", "s", "choice", "one two three", ("x", "y"), {"level": 2, "grade": "Grade 03", "depth": "II"}),
    Example("b", "s", "choice", "one", ("x", "y", "z"), {"level": None, "grade": "Biology", "bloom": "Applying"}),
    Example("c", "s", "choice", "one two", ("x", "y"), {"grade": 5.0, "difficulty": "High", "level": 0}),
]
GOLD = [Gold("a", 0), Gold("b", 2), Gold("c", 1)]


def score(spec, predictions=None, examples=EXAMPLES):
    return pick(DIFFICULTY, spec)(examples, GOLD, predictions)


def test_scores_are_published_levels_lengths_and_labels_and_nan_where_unknown():
    nan = np.nan
    np.testing.assert_array_equal(score("level"), [2, nan, 0])
    np.testing.assert_array_equal(score("length"), [3, 1, 2])
    np.testing.assert_array_equal(score("human"), [3, 9, 5])
    np.testing.assert_array_equal(score({"name": "human", "label": "bloom"}), [nan, 3, nan])
    np.testing.assert_array_equal(score({"name": "human", "label": "depth"}), [2, nan, nan])
    np.testing.assert_array_equal(score({"name": "human", "label": "difficulty"}), [nan, nan, 3])


def test_loss_is_the_log_loss_of_gold_found_by_id():
    probs_NK = np.array([[0.25, 0.75, 0.0], [0.2, 0.3, 0.5], [0.5, 0.5, 0.0]])
    mask_NK = probs_NK > 0
    predictions = Predictions(np.array(["c", "b", "a"]), probs_NK, mask_NK, np.array([False, False, True]), "m")
    np.testing.assert_allclose(score("loss", predictions), [np.nan, np.log(2), -np.log(0.75)])
    sure_and_wrong = Predictions(np.array(["a"]), np.array([[0.0, 1.0]]), np.ones((1, 2), bool), np.array([False]), "m")
    assert np.isfinite(score("loss", sure_and_wrong)[0])


def test_bad_requests_are_one_line():
    with pytest.raises(BadInput, match="needs cross-fitted predictions"):
        score("loss")
    with pytest.raises(BadInput, match=r"row7: grade: 'Grade 99' is not on the scale Grade 01"):
        score("human", examples=[Example("a", "s", "answer", "p", (), {"grade": "Grade 99", "row": "row7"})])
    with pytest.raises(BadInput, match="allowed: one of: grade, bloom"):
        score({"name": "human", "label": "colour"})
    for count in (0, 1, 4):
        with pytest.raises(BadInput, match=f"folds: {count} given, of 3"):
            folds("abc", count, 0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=4), min_size=2, max_size=20, unique=True), st.integers(2, 6), st.integers(0, 9))
def test_folds_are_even_seeded_and_do_not_depend_on_the_order(ids, count, seed):
    count = min(count, len(ids))
    fold_N = folds(ids, count, seed)
    sizes = np.bincount(fold_N, minlength=count)
    assert len(sizes) == count
    assert sizes.max() - sizes.min() <= 1
    np.testing.assert_array_equal(folds(ids[::-1], count, seed), fold_N[::-1])


def test_another_seed_gives_other_folds():
    ids = [str(n) for n in range(100)]
    assert (folds(ids, 5, 0) != folds(ids, 5, 1)).mean() > 0.5


def test_about_65_percent_of_arc_has_human_labels(shared):
    examples, gold = SOURCES["arc_easy"](shared / "data", split=["train", "validation", "test"])
    for label, highest in (("grade", 9), ("bloom", 5), ("depth", 3), ("difficulty", 3)):
        score_N = pick(DIFFICULTY, {"name": "human", "label": label})(examples, gold, None)
        assert 0.6 < np.isfinite(score_N).mean() < 0.7
        assert np.nanmax(score_N) == highest


def test_every_difficulty_says_what_it_is():
    assert all(summary(method) for method in DIFFICULTY.values())
