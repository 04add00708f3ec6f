"""scikit-learn pipelines as weak labellers."""

from __future__ import annotations

import numpy as np
import pytest

from w2s.config.fields import Model
from w2s.models import pipelines
from w2s.store.records import BadInput, Example

WORDS = Model(pipeline={"name": "words"})
ANIMALS, STONES = ("dog", "cat", "horse", "goose"), ("granite", "marble", "slate", "basalt")


def question(at: int) -> Example:
    """What is it? The right answer is an animal and the longer phrase."""
    rng = np.random.default_rng(at)
    animal = f"a {rng.choice(ANIMALS)} that lives"
    choices = [animal, *rng.choice(STONES, 2 + at % 2, replace=False)]
    return Example(str(at), "t", "choice", f"Which of these number {at} breathes?", tuple(rng.permutation(choices)))


def labelled(start: int, stop: int):
    examples = [question(at) for at in range(start, stop)]
    target_NK = np.zeros((len(examples), 4))
    for at, example in enumerate(examples):
        target_NK[at, [" that lives" in choice for choice in example.choices].index(True)] = 1
    return examples, target_NK


def fitted(name, seed=0, weight_N=None):
    examples, target_NK = labelled(0, 80)
    weight_N = np.ones(80) if weight_N is None else weight_N
    return pipelines.fit_learner(Model(pipeline={"name": name}), examples, target_NK, weight_N, seed)


@pytest.mark.parametrize("name", pipelines.PIPELINES)
def test_each_learns_what_its_view_can_show_it(name):
    examples, target_NK = labelled(100, 160)
    scores_NK = pipelines.score(fitted(name), examples)
    assert scores_NK.shape == (60, 4)
    assert (np.isneginf(scores_NK) == (np.arange(4) >= np.array([len(e.choices) for e in examples])[:, None])).all()
    assert (scores_NK.argmax(1) == target_NK.argmax(1)).mean() > 0.9


@pytest.mark.parametrize("name", pipelines.PIPELINES)
def test_the_same_seed_gives_the_same_scores_and_weights_matter(name):
    examples, _ = labelled(100, 120)
    even_N = np.where(np.arange(80) % 2, 1.0, 0.0)
    one, same, other = (pipelines.score(fitted(name, 0, weight_N), examples) for weight_N in (None, None, even_N))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one[one > -np.inf], other[other > -np.inf])


@pytest.mark.parametrize("name", ["words", "surface"])
def test_a_weight_of_zero_is_a_row_that_is_not_there_and_a_scale_changes_nothing(name):
    examples, target_NK = labelled(0, 80)
    questions, _ = labelled(100, 120)
    weight_N = np.where(np.arange(80) < 50, 1.0, 0.0)
    wrong_NK = target_NK.copy()
    wrong_NK[50:] = np.roll(wrong_NK[50:], 1, axis=1)
    for weights in (weight_N, 7 * weight_N):
        dropped = pipelines.fit_learner(Model(pipeline={"name": name}), examples, wrong_NK, weights, 0)
        absent = pipelines.fit_learner(Model(pipeline={"name": name}), examples[:50], target_NK[:50], np.ones(50), 0)
        np.testing.assert_allclose(
            pipelines.score(dropped, questions), pipelines.score(absent, questions), rtol=1e-6, atol=1e-6
        )


def test_a_soft_label_pulls_the_score_between_those_of_the_hard_ones():
    examples, target_NK = labelled(0, 80)
    mask_NK = np.arange(4) < np.array([len(e.choices) for e in examples])[:, None]
    uniform_NK = mask_NK / mask_NK.sum(1, keepdims=True)
    gaps = []
    for share in (1.0, 0.5, 0.0):
        model = pipelines.fit_learner(WORDS, examples, share * target_NK + (1 - share) * uniform_NK, np.ones(80), 0)
        scores_NK = pipelines.score(model, examples)
        gaps.append(scores_NK[target_NK == 1].mean() - scores_NK[mask_NK & (target_NK == 0)].mean())
    assert gaps[0] > gaps[1] > gaps[2]


def test_a_permutation_of_candidates_permutes_the_scores():
    examples, _ = labelled(100, 110)
    turned = [Example(e.id, e.source, e.task, e.prompt, e.choices[::-1]) for e in examples]
    for name in pipelines.PIPELINES:
        model = fitted(name)
        for row, back, example in zip(
            pipelines.score(model, examples), pipelines.score(model, turned), examples, strict=True
        ):
            count = len(example.choices)
            np.testing.assert_allclose(row[:count], back[:count][::-1], atol=1e-9)


@pytest.mark.parametrize("name", pipelines.PIPELINES)
def test_a_saved_pipeline_scores_alike(tmp_path, name):
    examples, _ = labelled(100, 110)
    model = fitted(name)
    pipelines.save(model, tmp_path / "model")
    np.testing.assert_array_equal(
        pipelines.score(pipelines.load(tmp_path / "model"), examples), pipelines.score(model, examples)
    )


def test_nothing_to_learn_from_is_one_line():
    examples, target_NK = labelled(0, 5)
    with pytest.raises(BadInput, match="nothing to learn"):
        pipelines.fit_learner(WORDS, examples, target_NK, np.zeros(5), 0)
    with pytest.raises(BadInput, match=r"model\.pipeline: 'words' has no option 'depth'"):
        pipelines.fit_learner(Model(pipeline={"name": "words", "depth": 3}), examples, target_NK, np.ones(5), 0)


def test_a_folder_without_a_pipeline_is_one_line(tmp_path):
    with pytest.raises(BadInput, match="not a saved pipeline"):
        pipelines.load(tmp_path)
