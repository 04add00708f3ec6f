"""How models rank the right tokens of written answers, against one plain forward pass per row."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tests.models import tiny
from tests.models.voices import moved
from w2s.boosting.tokens import gathered
from w2s.models import batches, ranks
from w2s.models.ranks import rank_chunks
from w2s.models.tokens import layout
from w2s.store.records import BadInput, Example

ANSWERS = ["oxygen", "the moon turns around the earth", "in a month", "é☃", "gravity pulls a falling stone down", "air"]
TARGETS = [
    Example(f"e{at}", "t", "answer", f"Which gas do plants take in{' and where' * (at % 3)}?", (text,))
    for at, text in enumerate(ANSWERS)
]
IDS = np.array([one.id for one in TARGETS])


@pytest.fixture(scope="module")
def models(folder_of):
    return [moved(tiny.read(folder_of("gpt2")), seed) for seed in range(4)]


def ranked(stages, alphas, examples=TARGETS, **options):
    """The records of every stage, their chunks put together."""
    chunks = list(rank_chunks(stages, alphas, examples, **options))
    return [gathered(parts, np.array([e.id for e in examples])) for parts in zip(*chunks, strict=True)]


def brute_force(loaded):
    """(logits_TV, token_T) of all rows, each read alone."""
    logits, tokens = [], []
    for encoded in batches.encode(loaded, TARGETS):
        row = encoded.rows[0]
        with torch.no_grad():
            found_TV = loaded.module(torch.from_numpy(row.token_T)[None]).logits[0]
        logits.append(found_TV[row.first + row.from_P])
        tokens.append(row.token_P)
    return torch.cat(logits).double().numpy(), np.concatenate(tokens)


def same(one, two, tolerance=1e-5):
    assert one.ids.tolist() == two.ids.tolist()
    for name in ("length_N", "start_T", "end_T", "above_T", "tied_T"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)
    np.testing.assert_allclose(one.logp_T, two.logp_T, atol=tolerance)


def test_a_models_ranks_are_those_of_a_plain_forward_pass_row_by_row(models):
    (found,) = ranked([models[:1]], [0.3])
    logits_TV, token_T = brute_force(models[0])
    right_T1 = logits_TV[np.arange(len(token_T)), token_T][:, None]
    np.testing.assert_array_equal(found.above_T, (logits_TV > right_T1 + 1e-6).sum(1))
    np.testing.assert_array_equal(found.tied_T, (abs(logits_TV - right_T1) < 1e-6).sum(1))
    np.testing.assert_allclose(found.logp_T, right_T1[:, 0] - np.log(np.exp(logits_TV).sum(1)), atol=1e-4)
    place = layout(models[0], TARGETS)
    for name in ("ids", "length_N", "start_T", "end_T"):
        np.testing.assert_array_equal(getattr(found, name), getattr(place, name))
    assert (found.vocabulary, found.tokenizer) == (300, place.tokenizer)
    assert len(set(found.length_N.tolist())) > 3


@pytest.mark.parametrize("mixture", ["linear", "log_linear"])
def test_each_stage_ranks_under_the_mixture_of_the_stages_so_far(models, mixture):
    found = ranked([[models[0]], [models[1], models[2]], [models[3]]], [0.5, 3.0, 0.8], mixture=mixture)
    logits_LTV = np.stack([brute_force(one)[0] for one in models])
    token_T = brute_force(models[0])[1]
    logp_LTV = logits_LTV - np.log(np.exp(logits_LTV).sum(-1, keepdims=True))
    for stage, alphas in zip(found, ([0.5], [0.5, 1.5, 1.5], [0.5, 1.5, 1.5, 0.8]), strict=True):
        share_L11, part_LTV = (np.array(alphas) / sum(alphas))[:, None, None], logp_LTV[: len(alphas)]
        if mixture == "linear":
            logp_TV = np.log((share_L11 * np.exp(part_LTV)).sum(0))
        else:
            logp_TV = (share_L11 * part_LTV).sum(0)
            logp_TV -= np.log(np.exp(logp_TV).sum(-1, keepdims=True))
        right_T1 = logp_TV[np.arange(len(token_T)), token_T][:, None]
        np.testing.assert_allclose(stage.logp_T, right_T1[:, 0], atol=1e-4)
        near_T = (abs(logp_TV - right_T1) < 1e-5).sum(1)
        assert (abs(stage.above_T - (logp_TV > right_T1).sum(1)) < near_T).all()
    assert (found[0].above_T != found[2].above_T).any()


@pytest.mark.parametrize("mixture", ["linear", "log_linear"])
def test_a_committee_of_copies_is_the_one(models, mixture):
    one, pair, three = ranked([[models[0]], [models[0]], [models[0]] * 3], [0.7, 1.1, 0.2], mixture=mixture)
    same(pair, one)
    same(three, one)
    (folds,) = ranked([[models[0]] * 2], [1.0], mixture=mixture)
    same(folds, one)


def test_a_stage_of_alpha_0_has_no_say(models):
    without, _ = ranked([models[:1], models[1:2]], [1.0, 2.0])
    _, silent, last = ranked([models[:1], models[2:3], models[1:2]], [1.0, 0.0, 2.0])
    same(silent, without)
    same(last, ranked([models[:1], models[1:2]], [1.0, 2.0])[1])


def test_order_chunks_and_scale_change_nothing(models, monkeypatch):
    stages, alphas = [models[:1], models[1:3]], [0.4, 1.2]
    whole = ranked(stages, alphas)
    for one, two in zip(ranked(stages, alphas, TARGETS[::-1]), whole, strict=True):
        same(gathered([one], IDS), two)
    for one, two in zip(ranked(stages, [4.0, 12.0]), whole, strict=True):
        same(one, two)
    monkeypatch.setattr(ranks.batches, "most_tokens", lambda _: 30)
    assert len(list(rank_chunks(stages, alphas, TARGETS))) > 3
    for one, two in zip(ranked(stages, alphas), whole, strict=True):
        same(one, two)
    monkeypatch.setattr(ranks.batches, "most_tokens", lambda _: 16384)
    monkeypatch.setattr(ranks, "PROBABILITIES_AT_ONCE", 300 * 12)
    chunks = list(rank_chunks(stages, alphas, TARGETS))
    held = [chunk[0].length_N.sum() for chunk in chunks]
    assert max(held[at] for at, chunk in enumerate(chunks) if len(chunk[0].ids) > 1) <= 12
    for one, two in zip(ranked(stages, alphas), whole, strict=True):
        same(one, two)
    rest = list(rank_chunks(stages, alphas, TARGETS, skip=2))
    assert [chunk[0].ids.tolist() for chunk in rest] == [chunk[0].ids.tolist() for chunk in chunks[2:]]


def test_a_model_without_an_opinion_ties_everything(folder_of):
    loaded = tiny.read(folder_of("llama"))
    with torch.no_grad():
        loaded.module.get_output_embeddings().weight.zero_()
    for found in ranked([[loaded], [loaded]], [1.0, 1.0]):
        assert (found.above_T == 0).all()
        assert (found.tied_T == 300).all()
        np.testing.assert_allclose(found.logp_T, -np.log(300), rtol=1e-6)


def test_what_is_not_a_number_counts_as_wrong(folder_of):
    loaded = tiny.read(folder_of("llama"))
    with torch.no_grad():
        loaded.module.get_output_embeddings().weight[7].fill_(float("nan"))
    (found,) = ranked([[loaded]], [1.0])
    assert (found.above_T > 0).all()
    assert (found.tied_T >= 1).all()
    assert (found.logp_T == -np.inf).all()


def test_what_cannot_be_mixed_is_refused(models, folder_of, monkeypatch):
    def refused(match, stages=([models[0]], [models[1]]), alphas=(1.0, 1.0), **options):
        with pytest.raises(BadInput, match=match):
            list(rank_chunks(stages, alphas, TARGETS, **options))

    refused("alphas: 1 given; allowed: 2", alphas=[1.0])
    for alphas in ([0.0, 1.0], [1.0, -1.0], [1.0, float("nan")]):
        refused("alphas", alphas=alphas)
    refused("stages", stages=[[], [models[0]]])
    refused("mixture", mixture="linaer")
    refused("encoder|lm", stages=[[tiny.read(folder_of("gpt2"), kind="pair")], [models[0]]])
    other = dataclasses.replace(models[1], tokenizer=tiny.tokenizer())
    other.tokenizer.add_tokens(["sun"])
    refused("tokenizer", stages=[[models[0]], [other]])
    refused("cuts answers unlike", stages=[[models[0]], [dataclasses.replace(models[1], max_tokens=5)]])
