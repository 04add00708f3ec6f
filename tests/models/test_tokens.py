"""Tokens of written answers: their places in the text, their factors, their soft targets, across two tokenizers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models import tiny
from w2s.boosting.tokens import by_row, carry, uniform
from w2s.models import batches, builtin, losses, score, tokens
from w2s.store.records import BadInput, Example, TokenTargets

TEXTS = ["the moon", "carbon dioxide", " 42 ", "é☃ in the\tair", "stone  and\nstone"]
PIECES = st.sampled_from(["moon", "the ", " ", "\n    ", "12", "é", "☃", "ca", "rbon", "\t", "x = f(y)", "🜁"])


@pytest.fixture(scope="module")
def two(folder_of, tmp_path_factory):
    """A model that reads pieces of words, and one that reads whole words and drops what is between them."""
    folder = tmp_path_factory.mktemp("words")
    builtin.make("weak", [tiny.TEXT, "12 42 x f y ca rbon = ( )"], folder, 0)
    return {"pieces": tiny.read(folder_of("llama")), "words": tiny.read(folder)}


def written(texts, task="answer", prompt="Which gas is in the air?"):
    return [Example(f"{at}", "t", task, prompt, (text,)) for at, text in enumerate(texts)]


def made(loaded, examples):
    return [one.rows[0].token_P.tolist() for one in batches.encode(loaded, examples)]


def at_once(loaded, examples, factors=None, soft=None):
    """-score of each example and the gradient of their sum."""
    loaded.module.zero_grad()
    batch = batches.collate(loaded, batches.encode(loaded, examples), factors=factors, soft=soft)
    loss_B = -score.scores(loaded, batch)[:, 0]
    loss_B.sum().backward()
    gradient = torch.cat([p.grad.flatten() for p in loaded.module.parameters() if p.grad is not None])
    return loss_B.detach(), gradient.clone()


def soft_of(loaded, examples, count, seed=0):
    """Random soft targets on `count` tokens at each place, the rest pooled."""
    rng, rows = np.random.default_rng(seed), [len(row) for row in made(loaded, examples)]
    token_TJ = np.array([rng.permutation(280)[:count] for _ in range(sum(rows))])
    prob_TJ = rng.dirichlet(np.ones(count + 1), sum(rows))[:, :count].astype(np.float16)
    ids = np.array([example.id for example in examples])
    return TokenTargets(ids, np.array(rows), token_TJ, prob_TJ, tokens.fingerprint(loaded))


@pytest.mark.parametrize("name", ["pieces", "words"])
@given(parts=st.lists(PIECES, min_size=1, max_size=8), task=st.sampled_from(["answer", "code"]))
@settings(max_examples=60, deadline=None)
def test_a_layout_has_the_very_tokens_that_are_trained_on_in_the_order_of_the_text(two, name, parts, task):
    loaded, text = two[name], "".join(parts)
    prompt = "def f(x):\n" if task == "code" else "the ca"
    examples = written([text, "the moon"], task, prompt)
    for one in (loaded, dataclasses.replace(loaded, max_tokens=3)):
        found = tokens.layout(one, examples)
        assert found.length_N.tolist() == [len(row) for row in made(one, examples)]
        starts, ends = (np.split(side, np.cumsum(found.length_N)[:-1]) for side in (found.start_T, found.end_T))
        assert min(np.diff(starts[0]).min(initial=0), np.diff(ends[0]).min(initial=0)) == 0
        assert (starts[0] <= ends[0]).all()
        assert 0 <= starts[0].min() <= ends[0].max() <= len(text)
        if made(one, examples)[0][-1] == one.tokenizer.eos_token_id:
            assert (starts[0][-1], ends[0][-1]) == (len(text), len(text))
        assert found.weight_T == pytest.approx(1 / found.length_N.sum())


def test_each_token_stands_where_its_letters_are(two):
    found = tokens.layout(two["words"], written([" the moon, 42"]))
    text = " the moon, 42"
    places = list(zip(found.start_T.tolist(), found.end_T.tolist(), strict=True))
    assert [text[start:end] for start, end in places] == ["the", "moon", ",", "42", ""]
    found = tokens.layout(two["pieces"], written(["  return 42\n"], "code", "def f(x):\n"))
    places = zip(found.start_T.tolist(), found.end_T.tolist(), strict=True)
    assert "".join("  return 42\n"[start:end] for start, end in places) == "  return 42\n"


def test_where_the_border_merges_the_places_are_still_those_of_the_text(two):
    """'the ca' + 'rbon dioxide' has other tokens as a whole, so encode cuts the text on its own."""
    example = written(["rbon dioxide"], "code", "the ca")
    found = tokens.layout(two["pieces"], example)
    places = zip(found.start_T.tolist(), found.end_T.tolist(), strict=True)
    decoded = [two["pieces"].tokenizer.decode([token]) for token in made(two["pieces"], example)[0][:-1]]
    assert ["rbon dioxide"[start:end] for start, end in places] == [*decoded, ""]


@given(parts=st.lists(st.lists(PIECES, min_size=1, max_size=6), min_size=2, max_size=4), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_token_weights_go_to_another_tokenizer_and_each_row_keeps_its_own(two, parts, seed):
    examples = written(["".join(part) for part in parts])
    here, there = (tokens.layout(two[name], examples) for name in ("pieces", "words"))
    weight_T = np.random.default_rng(seed).dirichlet(np.ones(len(here.weight_T)))
    carried = carry(dataclasses.replace(here, weight_T=weight_T), there)
    assert carried.length_N.tolist() == there.length_N.tolist()
    np.testing.assert_allclose(
        by_row(carried)[0].weight_N, by_row(dataclasses.replace(here, weight_T=weight_T))[0].weight_N, atol=1e-12
    )


def test_a_heavy_word_is_heavy_in_either_tokenizer(two):
    examples = written(["the carbon moon"])
    here, there = (tokens.layout(two[name], examples) for name in ("pieces", "words"))
    inside = (here.start_T >= 3) & (here.end_T <= 10) & (here.end_T > here.start_T)
    weighed = dataclasses.replace(here, weight_T=inside / inside.sum())
    assert carry(weighed, there).weight_T == pytest.approx([0, 1, 0, 0])


def test_a_tokenizer_is_known_again_from_its_folder_and_after_use_and_told_from_another(two, tmp_path):
    for name, loaded in two.items():
        loaded.tokenizer.save_pretrained(tmp_path / name)
        before = tokens.fingerprint(loaded)
        loaded.tokenizer(["a", "b c d"], padding=True, truncation=True, max_length=2)
        again = dataclasses.replace(loaded, tokenizer=transformers.AutoTokenizer.from_pretrained(tmp_path / name))
        assert tokens.fingerprint(loaded) == before == tokens.fingerprint(again)
    assert len({tokens.fingerprint(loaded) for loaded in two.values()}) == 2
    other = transformers.AutoTokenizer.from_pretrained(tmp_path / "pieces")
    other.add_tokens(["moonstone"])
    longer = dataclasses.replace(two["pieces"], tokenizer=other)
    assert tokens.fingerprint(longer) != tokens.fingerprint(two["pieces"])


def test_only_examples_of_one_candidate_have_a_layout(two):
    with pytest.raises(ValueError, match="1 examples have not one candidate each \\(b\\)"):
        tokens.layout(two["words"], [*written(["a"]), Example("b", "t", "answer", "q", ("1", "2"))])


@pytest.mark.parametrize("drawn", [True, False])
def test_either_way_of_weighing_expects_each_tokens_loss_times_its_weight(two, drawn):
    examples = written(["the moon", "carbon dioxide from the air", "42", "dropped"])
    places = tokens.layout(two["words"], examples[:3])
    weights = tokens.layout(two["words"], examples)
    weight_T = np.random.default_rng(1).dirichlet(np.ones(len(weights.weight_T)))
    weights = dataclasses.replace(weights, weight_T=weight_T)
    fit_N = np.array([0, 1])
    factors = tokens.factors(weights, places, fit_N, drawn=drawn)
    share_N = by_row(weights)[0].weight_N[:2] if drawn else np.ones(2)
    expected_T = np.concatenate([share * factors[at] for share, at in zip(share_N / share_N.sum(), fit_N, strict=True)])
    wanted_T = weight_T[: places.length_N[:2].sum()]
    np.testing.assert_allclose(expected_T / expected_T.sum(), wanted_T / wanted_T.sum())
    # As large as without weights: in a drawn row a token's factor is 1 in the mean.
    assert expected_T.sum() == pytest.approx(places.length_N[:2].mean())


def test_uniform_weights_are_no_weights(two):
    places = tokens.layout(two["pieces"], written(TEXTS))
    assert np.concatenate(tokens.factors(places, places, np.arange(5), drawn=False)) == pytest.approx(1)
    by_answer = dataclasses.replace(places, weight_T=uniform(places.length_N, by="answer"))
    for drawn in (True, False):  # each answer counts alike, whatever its length
        found = tokens.factors(by_answer, places, np.arange(5), drawn=drawn)
        assert np.ptp([one.sum() for one in found]) < 1e-9


@pytest.mark.parametrize("name", ["pieces", "words"])
def test_a_row_of_factor_two_counts_as_much_as_two_rows(two, name):
    one, other = written(["carbon dioxide", "the moon"])
    rows = made(two[name], [one, other])
    twice = at_once(two[name], [one, other], [np.full(len(rows[0]), 2.0), np.ones(len(rows[1]))])
    there = at_once(two[name], [one, one, other])
    torch.testing.assert_close(twice[0].sum(), there[0].sum())
    torch.testing.assert_close(twice[1], there[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("soft", [False, True])
def test_a_batch_is_the_sum_of_its_rows_with_factors_and_with_soft_targets(two, soft):
    loaded, examples = two["pieces"], written([*TEXTS, "a", "the sun", "friction and heat"])
    places = tokens.layout(loaded, examples)
    weight_T = np.random.default_rng(3).exponential(size=len(places.weight_T))
    ends = np.cumsum(places.length_N)[:-1]
    factors = np.split(weight_T, ends)
    targets = tokens.soft_targets(soft_of(loaded, examples, 3), places) if soft else None
    whole = at_once(loaded, examples, factors, targets)
    alone = [at_once(loaded, [one], [factors[at]], targets and [targets[at]]) for at, one in enumerate(examples)]
    torch.testing.assert_close(whole[0], torch.cat([loss for loss, _ in alone]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(whole[1], sum(gradient for _, gradient in alone), rtol=1e-3, atol=2e-3)


def test_a_soft_target_that_is_sure_of_the_right_token_is_the_sequence_loss(two):
    loaded, examples = two["pieces"], written(TEXTS)
    places = tokens.layout(loaded, examples)
    right_T = np.concatenate(made(loaded, examples))
    other_T = (right_T + 1) % 280
    prob_TJ = np.tile(np.float16([1, 0]), (len(right_T), 1))
    soft = TokenTargets(places.ids, places.length_N, np.stack([right_T, other_T], 1), prob_TJ, places.tokenizer)
    factors = np.split(np.linspace(0.1, 2, len(right_T)), np.cumsum(places.length_N)[:-1])
    found = at_once(loaded, examples, factors, tokens.soft_targets(soft, places))
    wanted = at_once(loaded, examples, factors)
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-3, atol=1e-3)


def test_soft_targets_are_joined_by_id_and_refused_for_another_tokenizer_or_other_tokens(two):
    examples = written(TEXTS)
    places = tokens.layout(two["pieces"], examples[::-1][:3])
    soft = soft_of(two["pieces"], examples, 2)
    found = tokens.soft_targets(soft, places)
    ends = np.cumsum(soft.length_N)
    for place, at in enumerate([4, 3, 2]):
        np.testing.assert_array_equal(found[place][0], soft.token_TJ[ends[at] - soft.length_N[at] : ends[at]])
    with pytest.raises(BadInput, match=r"^label\.made: distribution needs a student with the learners' tokenizer; "):
        tokens.soft_targets(soft, tokens.layout(two["words"], examples))
    short = tokens.layout(dataclasses.replace(two["pieces"], max_tokens=4), examples)
    with pytest.raises(BadInput, match=r"\d answers differ in tokens from their targets \(0: 3, not ") as caught:
        tokens.soft_targets(soft, short)
    assert "\n" not in str(caught.value)


def test_the_wanted_tokens_of_a_row_are_those_of_its_targets(two):
    example = Example("a", "t", "answer", "q", ("the moon", "42"))
    encoded = batches.encode(two["words"], [example])
    assert tokens.text_lengths(encoded, np.array([[0.25, 0.75, 0.0]])) == pytest.approx([0.25 * 3 + 0.75 * 2])
    soft_B = losses.likelihood(torch.tensor([[-3.0, -1.0, -torch.inf]]), torch.tensor([[0.25, 0.75, 0.0]]))
    assert soft_B.tolist() == [1.5]
