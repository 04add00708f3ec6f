"""Token weights that change tokenizers: by characters, every row keeps its weight."""

import dataclasses
import hashlib
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from w2s.boosting import adaboost, tokens
from w2s.store.records import TokenWeights, read_arrays, write_arrays


def layout(rows, weight_T=None, tokenizer="one"):
    """TokenWeights of rows of (start, end)."""
    length_N = np.array([len(row) for row in rows])
    spans_T2 = np.array([span for row in rows for span in row], dtype=int).reshape(-1, 2)
    weight_T = tokens.uniform(length_N) if weight_T is None else np.asarray(weight_T, float)
    ids = np.array([f"id{at}" for at in range(len(rows))])
    return TokenWeights(ids, length_N, spans_T2[:, 0], spans_T2[:, 1], weight_T, tokenizer)


def test_weight_goes_by_characters():
    source = layout([[(0, 2), (2, 6)]], [0.6, 0.4])
    to = layout([[(0, 1), (1, 4), (4, 6)]], tokenizer="other")
    np.testing.assert_allclose(tokens.carry(source, to).weight_T, [0.3, 0.5, 0.2])
    assert tokens.carry(source, to).tokenizer == "other"


def test_pieces_of_one_character_share_it_and_dropped_spaces_belong_to_the_next_token():
    # "é x": bytes of é as two tokens, then " x"; against words without the space, and both with an end of text.
    pieces = layout([[(0, 1), (0, 1), (1, 3), (3, 3)]], [0.1, 0.3, 0.4, 0.2])
    words = layout([[(0, 1), (2, 3), (3, 3)]], [0.4, 0.4, 0.2], tokenizer="words")
    np.testing.assert_allclose(tokens.carry(pieces, words).weight_T, [0.4, 0.4, 0.2])
    np.testing.assert_allclose(tokens.carry(words, pieces).weight_T, [0.2, 0.2, 0.4, 0.2])


def test_a_dropped_blank_before_the_end_of_the_text_is_not_the_ends():
    source = layout([[(0, 2), (2, 3), (3, 3)]], [0.5, 0.4, 0.1])
    to = layout([[(0, 2), (3, 3)]], tokenizer="drops blanks")
    np.testing.assert_allclose(tokens.carry(source, to).weight_T, [0.9, 0.1])


def test_what_lies_behind_the_last_token_goes_to_it():
    whole, cut = layout([[(0, 3), (3, 6), (6, 6)]], [0.3, 0.6, 0.1]), layout([[(0, 3)]], tokenizer="cut")
    np.testing.assert_allclose(tokens.carry(whole, cut).weight_T, [1])
    np.testing.assert_allclose(tokens.carry(cut, whole).weight_T, [3 / 7, 3 / 7, 1 / 7])


def test_the_same_tokenizer_gets_the_same_numbers_by_id():
    weights = layout([[(0, 1), (0, 1)], [(0, 4)], []], [0.5, 0.3, 0.2])
    again = tokens.carry(weights, tokens.take_rows(weights, np.array([1, 2, 0])))
    assert again.ids.tolist() == ["id1", "id2", "id0"]
    np.testing.assert_array_equal(again.weight_T, [0.2, 0.5, 0.3])


def test_rows_and_texts_that_do_not_fit_are_refused():
    weights, other = layout([[(0, 2)], [(0, 4)]]), layout([[(0, 2)], [(0, 5)]])
    with pytest.raises(ValueError, match="split these answers differently before"):
        tokens.carry(weights, other)
    with pytest.raises(ValueError, match="1 ids are missing"):
        tokens.carry(tokens.take_rows(weights, np.array([0])), dataclasses.replace(other, tokenizer="b"))
    with pytest.raises(ValueError, match=r"1 rows have weight and no token to carry it to \(id1\)"):
        tokens.carry(weights, layout([[(0, 2)], []], tokenizer="b"))
    with pytest.raises(ValueError, match="do not stand in the order"):
        tokens.carry(weights, layout([[(1, 2), (0, 1)], [(0, 4)]], tokenizer="b"))
    with pytest.raises(ValueError, match="do not fit together"):
        dataclasses.replace(weights, weight_T=np.ones(3))


@given(width=st.integers(1, 20), seed=st.integers(0, 10**6))
def test_tokens_that_cover_the_text_once_share_by_overlap(width, seed):
    rng = np.random.default_rng(seed)
    edges = [np.unique([0, width, *rng.integers(0, width, 5)]) for _ in range(2)]
    source, to = (
        layout([list(itertools.pairwise(edge))], tokenizer=name) for edge, name in zip(edges, "ab", strict=True)
    )
    overlap_ST = np.minimum(source.end_T[:, None], to.end_T) - np.maximum(source.start_T[:, None], to.start_T)
    share_ST = np.maximum(overlap_ST, 0) / (source.end_T - source.start_T)[:, None]
    np.testing.assert_allclose(tokens.carry(source, to).weight_T, source.weight_T @ share_ST, rtol=1e-12)


def spans():
    """Any tokens in the order of their characters: gaps, pieces of one character, ends of text."""
    steps = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=8)
    return steps.map(sorted_spans)


def sorted_spans(steps):
    start_T = np.cumsum([gap for gap, _ in steps])
    return list(zip(start_T, np.maximum.accumulate(start_T + [long for _, long in steps]), strict=True))


@given(rows=st.lists(st.tuples(spans(), spans()), min_size=1, max_size=5), seed=st.integers(0, 10**6))
def test_every_row_keeps_its_weight_whatever_the_tokenizer(rows, seed):
    rng = np.random.default_rng(seed)
    source, to = layout([a for a, _ in rows]), layout([b for _, b in rows], tokenizer="other")
    source = dataclasses.replace(source, weight_T=adaboost.normalise(rng.exponential(size=len(source.weight_T))))
    carried = tokens.carry(source, to)
    mass_N = tokens.by_row(source)[0].weight_N
    np.testing.assert_allclose(tokens.by_row(carried)[0].weight_N, mass_N, rtol=1e-13)
    assert (carried.weight_T > 0).all()
    order_N = rng.permutation(len(rows))
    np.testing.assert_array_equal(
        tokens.carry(source, tokens.take_rows(to, order_N)).weight_T, tokens.take_rows(carried, order_N).weight_T
    )
    # Characters are the finest cut: through them nothing is blurred that was not already.
    width_N = np.maximum(tokens.widths(source), tokens.widths(to))
    letters = layout([[(at, at + 1) for at in range(width)] for width in width_N], tokenizer="letters")
    by_letter = tokens.carry(source, letters)
    np.testing.assert_allclose(tokens.carry(by_letter, to).weight_T, carried.weight_T, rtol=1e-12)


TEXTS = [
    "the cat sat on the mat, and the cat was 42.5 years old",
    "naïve café: 12 × 7 = 84 → 你好, 世界 🙂!",
    "so 3 + 4 = 7 and the answer is #### 7",
    "def add(a, b):\n    return a + b  # the sum\n",
    "the theatre there; then they thought\tthat",
]


def byte_level(size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learn = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False, min_frequency=1)
    tokenizer.train_from_iterator(TEXTS[:1] + TEXTS[2:], learn)
    return tokenizer


def character_level() -> Tokenizer:
    """One token per character, blanks dropped."""
    known = sorted(set("".join(TEXTS)))
    tokenizer = Tokenizer(models.WordLevel({letter: at for at, letter in enumerate(["?", *known])}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("", "isolated")]
    )
    return tokenizer


def cut(tokenizer: Tokenizer) -> TokenWeights:
    """The texts as this tokenizer cuts them, each with an end of text, by its own hash."""
    rows = [[*tokenizer.encode(text).offsets, (len(text), len(text))] for text in TEXTS]
    return layout(rows, tokenizer=hashlib.sha256(tokenizer.to_str().encode()).hexdigest()[:16])


def test_weights_move_between_real_tokenizers_that_split_the_same_text_differently(tmp_path):
    cuts = {"small": cut(byte_level(270)), "large": cut(byte_level(330)), "letters": cut(character_level())}
    assert len({one.tokenizer for one in cuts.values()}) == 3
    assert len({tuple(one.length_N) for one in cuts.values()}) == 3
    small, letters = cuts["small"], cuts["letters"]
    assert (np.diff(small.start_T) == 0).any(), "a character of several bytes is in pieces"
    assert letters.length_N.sum() < sum(map(len, TEXTS)), "blanks are dropped"
    rng = np.random.default_rng(0)
    for source in cuts.values():
        source = dataclasses.replace(source, weight_T=adaboost.normalise(rng.exponential(size=len(source.weight_T))))
        write_arrays(tmp_path / "weights.npz", source)
        source = read_arrays(tmp_path / "weights.npz", TokenWeights)
        for to in cuts.values():
            carried = tokens.carry(source, tokens.take_rows(to, np.array([3, 1, 4, 0, 2])))
            assert carried.tokenizer == to.tokenizer
            carried = tokens.take_rows(carried, np.argsort(carried.ids))
            np.testing.assert_allclose(
                tokens.by_row(carried)[0].weight_N, tokens.by_row(source)[0].weight_N, rtol=1e-13
            )
            assert math.fsum(carried.weight_T) == pytest.approx(1, abs=1e-14)
            assert (carried.weight_T > 0).all()
            # The end of the text is one token for all three.
            end_N = np.cumsum(to.length_N) - 1, np.cumsum(source.length_N) - 1
            np.testing.assert_allclose(carried.weight_T[end_N[0]], source.weight_T[end_N[1]], rtol=1e-12)


def test_a_miss_weighs_on_the_same_characters_in_every_tokenizer():
    """The 42.5 of the first text holds all the weight; where it goes is read from the characters, not the tokens."""
    first = TEXTS[0].index("42.5")
    for source in (cut(byte_level(270)), cut(character_level())):
        here = tokens.overlapping(source, np.array([first, 0, 0, 0, 0]), np.array([first + 4, 0, 0, 0, 0]))
        source = dataclasses.replace(source, weight_T=here / here.sum())
        for to in (cut(byte_level(330)), cut(character_level())):
            carried = tokens.carry(source, to)
            # A token may reach over the blank before the number, which is one character of five at most.
            there = tokens.overlapping(to, np.array([first - 1, 0, 0, 0, 0]), np.array([first + 4, 0, 0, 0, 0]))
            assert carried.weight_T[there].sum() == pytest.approx(1)


def test_token_weights_come_back_from_their_file_without_pickles(tmp_path):
    weights = layout([[(0, 1), (1, 2)], []], [0.25, 0.75], tokenizer="ab12")
    write_arrays(tmp_path / "weights.npz", weights)
    again = read_arrays(tmp_path / "weights.npz", TokenWeights)
    assert again.tokenizer == "ab12"
    assert isinstance(again.tokenizer, str)
    for name in ("ids", "length_N", "start_T", "end_T", "weight_T"):
        np.testing.assert_array_equal(getattr(again, name), getattr(weights, name))


def test_tokens_that_count_are_found_by_characters():
    """'so #### 42' cut as so| ####| 42|<end>, and as s|o |####| |4|2|<end>: the answer is characters 8 to 10."""
    coarse = layout([[(0, 2), (2, 7), (7, 10), (10, 10)]])
    fine = layout([[(0, 1), (1, 3), (3, 7), (7, 8), (8, 9), (9, 10), (10, 10)]])
    assert tokens.overlapping(coarse, np.array([8]), np.array([10])).tolist() == [False, False, True, False]
    assert tokens.overlapping(fine, np.array([8]), np.array([11])).tolist() == [False] * 4 + [True] * 3


def test_a_trainer_gets_row_weights_and_shares_within_rows():
    weights = layout([[(0, 1), (1, 2)], [(0, 5)], [(0, 1), (1, 3)], []], [0.1, 0.3, 0.6, 0, 0])
    rows, share_T = tokens.by_row(weights)
    np.testing.assert_allclose(rows.weight_N, [0.4, 0.6, 0, 0])
    np.testing.assert_allclose(share_T, [0.25, 0.75, 1, 0.5, 0.5])
    some = tokens.take_rows(weights, np.array([2, 0]))
    assert some.ids.tolist() == ["id2", "id0"]
    assert some.end_T.tolist() == [1, 3, 1, 2]
    np.testing.assert_array_equal(some.weight_T, [0, 0, 0.1, 0.3])
    np.testing.assert_array_equal(tokens.take_rows(weights, np.array([0, 0, 0, 1], bool)).weight_T, [])
