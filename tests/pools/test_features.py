"""Prompts as numbers."""

import dataclasses

import numpy as np
import pytest

from w2s.ensemble.ballots import NotApplicable
from w2s.pools import features
from w2s.pools.records import Opinions

SUMS = [f"Add {a} apples and {b} apples, how many apples are there?" for a in range(10) for b in range(3)]
LAWS = [f"Which court of appeal decides a contract of {a} parties under law {b}?" for a in range(10) for b in range(3)]
CODE = [f"def function_{a}(x): return the list x sorted by key {b}" for a in range(10) for b in range(3)]


def opinions(prompts, features_ND=None):
    n = len(prompts)
    return Opinions(
        np.array([f"q{i}" for i in range(n)]),
        np.array(["a"]),
        np.zeros((1, n), np.int16),
        np.full(n, 2),
        np.full(n, None),
        np.full(n, ""),
        np.array(prompts, dtype=object),
        features_ND=features_ND,
    )


def test_prompts_of_one_kind_are_nearer_to_each_other_than_to_any_other_kind():
    prompts = SUMS + LAWS + CODE
    arrays = features.fit_features(tuple(prompts[::2]), dimensions=6)
    seen_ND = features.features_of(arrays, prompts)
    kind_N = np.repeat([0, 1, 2], 30)
    cosine_NN = seen_ND @ seen_ND.T
    same_NN = kind_N[:, None] == kind_N
    assert cosine_NN[same_NN].min() > cosine_NN[~same_NN].max()
    np.testing.assert_allclose(np.linalg.norm(seen_ND, axis=1), 1, atol=1e-5)


def test_the_decomposition_holds_as_much_of_the_words_as_an_exact_svd():
    prompts = tuple(SUMS + LAWS + CODE)
    arrays = features.fit_features(tuple(prompts), dimensions=5)
    weights_NB = features.weigh(features.count_words(prompts), arrays["idf_B"]).toarray()
    values_R = np.linalg.svd(weights_NB, compute_uv=False)
    held = np.square(weights_NB @ arrays["components_BD"]).sum()
    assert 0.995 < held / np.square(values_R[:5]).sum() < 1.0001
    np.testing.assert_allclose(arrays["components_BD"].T @ arrays["components_BD"], np.eye(5), atol=1e-4)


def test_features_do_not_depend_on_the_order_of_the_prompts_they_were_fitted_on():
    prompts = SUMS + LAWS
    forward = features.features_of(features.fit_features(tuple(prompts), dimensions=4), CODE + SUMS)
    backward = features.features_of(features.fit_features(tuple(prompts[::-1]), dimensions=4), CODE + SUMS)
    np.testing.assert_allclose(forward @ forward.T, backward @ backward.T, atol=1e-4)


def test_a_prompt_without_a_known_word_has_no_direction():
    arrays = features.fit_features(tuple(SUMS), dimensions=4)
    assert not features.features_of(arrays, ["", "zzz yyy"]).any()


def test_chinese_characters_are_words():
    prompts = ["下列哪一项是正确的", "下列哪一项是错误的", "which one is right", "which one is wrong"]
    seen_ND = features.features_of(features.fit_features(tuple(prompts), dimensions=3), prompts)
    assert seen_ND[0] @ seen_ND[1] > 0.5 > abs(seen_ND[0] @ seen_ND[2])


def test_there_are_never_more_dimensions_than_prompts_allow():
    assert features.fit_features(tuple(SUMS[:3]), dimensions=64)["components_BD"].shape[1] <= 3
    assert features.features_of(features.fit_features(("one prompt alone",)), ["one prompt alone"]).shape == (
        1,
        1,
    )


def test_more_prompts_than_are_needed_are_drawn_by_the_seed(monkeypatch):
    monkeypatch.setattr(features, "ENOUGH", 40)
    prompts = SUMS + LAWS + CODE
    first, again, other = (features.fit_features(tuple(prompts), dimensions=7, seed=seed) for seed in (11, 11, 12))
    assert (first["components_BD"] == again["components_BD"]).all()
    assert (first["idf_B"] != other["idf_B"]).any()


def test_no_prompts_is_said():
    with pytest.raises(NotApplicable, match="prompts were not recorded"):
        features.fit_features(("", ""))


def test_features_that_the_opinions_bring_are_used_and_must_be_there_again():
    given = opinions(SUMS, np.arange(60.0).reshape(30, 2) + 1)
    arrays = features.fit_described(given, dimensions=8, seed=0)
    seen_ND = features.described(arrays, given)
    np.testing.assert_allclose(seen_ND, features.unit(given.features_ND), atol=1e-6)
    with pytest.raises(NotApplicable, match="an encoder's features"):
        features.described(arrays, dataclasses.replace(given, features_ND=None))
