"""Scores of candidates, against plain forward passes of transformers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tests.models import tiny
from w2s.models import batches, encoders, lm, records, score
from w2s.prompts import continuation
from w2s.store.records import Example

CAUSAL = ["llama", "qwen2", "gpt2", "gpt_neox", "gemma3_text"]


def scores_of(loaded, examples, width=None):
    with torch.no_grad():
        return score.scores(loaded, batches.collate(loaded, batches.encode(loaded, examples), width))


def by_hand(loaded, prompt, text):
    """Log-likelihood of one continuation from the module's own logits, one row, no padding."""
    start = loaded.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    whole = loaded.tokenizer(prompt + continuation(text), add_special_tokens=False)["input_ids"]
    assert whole[: len(start)] == start
    with torch.no_grad():
        logits = loaded.module(input_ids=torch.tensor([whole])).logits[0].float().log_softmax(-1)
    return sum(logits[at - 1, whole[at]].item() for at in range(len(start), len(whole)))


@pytest.mark.parametrize("architecture", [*CAUSAL, "gemma2", "bloom"])
def test_a_score_is_the_summed_log_probability_of_the_candidates_tokens(folder_of, architecture):
    loaded = tiny.read(folder_of(architecture))
    scores_BK = scores_of(loaded, tiny.examples())
    for row, example in zip(scores_BK, tiny.examples(), strict=True):
        for at, text in enumerate(example.choices):
            assert row[at].item() == pytest.approx(by_hand(loaded, example.prompt, text), abs=1e-3, rel=1e-4)
        assert torch.isneginf(row[len(example.choices) :]).all()


@pytest.mark.parametrize("architecture", CAUSAL)
def test_these_architectures_share_the_prompt_and_run_the_head_apart(folder_of, architecture):
    loaded = tiny.read(folder_of(architecture))
    assert loaded.shares_prompt
    assert loaded.head_alone


def test_alibi_and_a_narrow_window_are_read_candidate_by_candidate(folder_of):
    assert not tiny.read(folder_of("bloom")).shares_prompt
    assert not tiny.read(folder_of("gemma2")).shares_prompt
    assert not tiny.read(folder_of("gemma2")).head_alone  # it caps its logits after the head


@pytest.mark.parametrize("architecture", CAUSAL)
def test_a_shared_prompt_changes_neither_scores_nor_gradients(folder_of, architecture):
    loaded = tiny.read(folder_of(architecture))
    found = []
    for shares in (True, False):
        one = dataclasses.replace(loaded, shares_prompt=shares)
        loaded.module.zero_grad()
        scores_BK = score.scores(one, batches.collate(one, batches.encode(one, tiny.examples())))
        torch.log_softmax(scores_BK, -1)[:, 0].sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in loaded.module.parameters() if p.grad is not None])
        found.append((scores_BK.detach(), gradient))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [*((name, "lm") for name in CAUSAL), ("bert", "pair"), ("bert", "towers"), ("llama", "pair"), ("gpt2", "towers")],
)
def test_padding_never_changes_a_score(folder_of, architecture, kind):
    loaded = tiny.read(folder_of(architecture), kind=kind)
    long = Example("long", "t", "choice", "earth moon stone " * 12, ("the air " * 4, "gas", "friction", "heat", "sun"))
    alone = scores_of(loaded, tiny.examples(), 5)
    beside = scores_of(loaded, [long, *tiny.examples()], 5)[1:]
    torch.testing.assert_close(alone, beside, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "kind"), [("gpt2", "lm"), ("bert", "pair"), ("bert", "towers"), ("llama", "pair")]
)
def test_a_permutation_of_candidates_permutes_the_scores(folder_of, architecture, kind):
    loaded = tiny.read(folder_of(architecture), kind=kind)
    example = tiny.examples()[1]
    turned = dataclasses.replace(example, choices=example.choices[::-1])
    torch.testing.assert_close(
        scores_of(loaded, [example])[0], scores_of(loaded, [turned])[0].flip(0), rtol=1e-4, atol=1e-4
    )


def test_one_token_candidates_leave_the_bare_prompt_and_true_log_likelihoods(folder_of):
    loaded = tiny.read(folder_of("gpt2"))
    example = Example("a", "t", "choice", "Which gas do plants take in?", ("air", "?"))
    start = loaded.tokenizer(example.prompt)["input_ids"]
    tokens = [[5], [9]]
    encoded = records.Encoded((lm.pack(start, tokens),), 2)
    batch = batches.collate(loaded, [encoded])
    assert batch.inputs[0]["input_ids"].shape[1] == len(start)
    assert "attention_mask" not in batch.inputs[0]
    with torch.no_grad():
        logits = loaded.module(input_ids=torch.tensor([start])).logits[0, -1].log_softmax(-1)
        torch.testing.assert_close(score.scores(loaded, batch)[0], logits[[5, 9]])


def test_the_last_real_token_of_a_decoder_with_a_head_is_found_from_the_mask(folder_of):
    """A row that ends in the pad token's id is a row like any other."""
    loaded = tiny.read(folder_of("llama"), kind="pair")
    rows = [[5, 6, 0], [7, 8, 9, 10, 11]]
    encoded = [records.Encoded((encoders.whole_row(row, None, 0),), 1) for row in rows]
    with torch.no_grad():
        found = score.scores(loaded, batches.collate(loaded, encoded))[:, 0]
        for row, value in zip(rows, found, strict=True):
            states = loaded.module.model(input_ids=torch.tensor([row])).last_hidden_state[0, -1]
            torch.testing.assert_close(loaded.module.score(states)[0], value, rtol=1e-4, atol=1e-5)


def test_towers_score_twenty_times_the_cosine_of_the_mean_pooled_texts(folder_of):
    loaded = tiny.read(folder_of("bert"), kind="towers")
    example = tiny.examples()[0]

    def mean(text):
        with torch.no_grad():
            return loaded.module(**loaded.tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)

    wanted = [20 * torch.cosine_similarity(mean(example.prompt), mean(text), dim=0) for text in example.choices]
    torch.testing.assert_close(scores_of(loaded, [example])[0], torch.stack(wanted), rtol=1e-4, atol=1e-4)


def test_predictions_are_distributions_keyed_by_id_whatever_the_chunks(folder_of):
    loaded = tiny.read(folder_of("qwen2"))
    examples = tiny.examples()
    whole = list(score.predict(loaded, examples, by="q"))
    parts = list(score.predict(loaded, examples, by="q", batch_tokens=1))
    assert [len(part.ids) for part in parts] == [1, 1, 1]
    joined = {key: probs for part in parts for key, probs in zip(part.ids, part.probs_NK, strict=True)}
    for key, probs in zip(whole[0].ids, whole[0].probs_NK, strict=True):
        np.testing.assert_allclose(joined[key], probs, atol=1e-5)
    later = list(score.predict(loaded, examples, by="q", batch_tokens=1, skip=1))
    assert [part.ids.tolist() for part in later] == [part.ids.tolist() for part in parts[1:]]


def test_a_score_that_is_not_finite_is_an_abstention_with_a_uniform_row():
    found = score.as_predictions(np.array(["a", "b"]), np.array([[np.nan, 1.0, 2.0], [1.0, 2.0, -np.inf]]), [3, 2], "m")
    assert found.abstained_N.tolist() == [True, False]
    np.testing.assert_allclose(found.probs_NK[0], 1 / 3)
    assert found.probs_NK[1, 2] == 0


def test_a_large_vocabulary_is_read_in_pieces_with_the_same_result(folder_of, monkeypatch):
    loaded = tiny.read(folder_of("llama"))
    whole = scores_of(loaded, tiny.examples())
    monkeypatch.setattr(lm, "LOGITS_AT_ONCE", 900)
    torch.testing.assert_close(scores_of(loaded, tiny.examples()), whole)


def test_the_scorer_is_a_module_with_the_models_own_parameters(folder_of):
    loaded = tiny.read(folder_of("gpt2"))
    scorer = score.Scorer(loaded)
    batch = batches.collate(loaded, batches.encode(loaded, tiny.examples()))
    torch.testing.assert_close(scorer(batch), score.scores(loaded, batch))
    assert {id(p) for p in scorer.parameters()} == {id(p) for p in loaded.module.parameters()}


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2", "bloom"])
def test_the_logits_of_the_wanted_tokens_give_the_scores(folder_of, architecture):
    loaded = tiny.read(folder_of(architecture))
    for examples in (tiny.examples(), [dataclasses.replace(one, task="answer") for one in tiny.examples()]):
        batch = batches.collate(loaded, batches.encode(loaded, examples))
        with torch.no_grad():
            logits_PV = lm.token_logits(loaded, batch)
            logp_P = logits_PV.log_softmax(-1)[torch.arange(len(logits_PV)), batch.token_P]
            wanted = lm.scores(loaded, batch)
        assert logits_PV.dtype == torch.float32
        found = torch.zeros_like(wanted).index_add(0, batch.owner_P, logp_P)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_factor_multiplies_its_tokens_log_probability(folder_of):
    loaded = tiny.read(folder_of("llama"))
    examples = [dataclasses.replace(one, task="answer", choices=one.choices[:1]) for one in tiny.examples()]
    encoded = batches.encode(loaded, examples)
    factors = [np.random.default_rng(at).uniform(0, 3, len(e.rows[0].token_P)) for at, e in enumerate(encoded)]
    batch = batches.collate(loaded, encoded, factors=factors)
    with torch.no_grad():
        logp_PV = lm.token_logits(loaded, batch).log_softmax(-1)
        found = score.scores(loaded, batch)[:, 0]
    logp_P = logp_PV[torch.arange(len(logp_PV)), batch.token_P].numpy()
    own = np.split(logp_P, np.cumsum([len(one) for one in factors])[:-1])
    np.testing.assert_allclose(found, [one @ logp for one, logp in zip(factors, own, strict=True)], rtol=1e-4)
