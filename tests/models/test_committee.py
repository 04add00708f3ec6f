"""Token-mixture decoding."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch

from tests.models import tiny
from tests.models.voices import ALPHA, PROMPTS, logits_of, moved, texts, transformers_texts, written
from w2s.models import committee
from w2s.models.committee import MIXTURES, decode, next_tokens
from w2s.models.generate import Voice, cut, end_marks, write
from w2s.models.tokenizing import encode_prompts
from w2s.store.records import BadInput


@pytest.fixture(scope="module")
def learners(folder_of):
    """Three GPT-2 of unlike weights and one tokenizer."""
    return [moved(tiny.read(folder_of("gpt2")), seed) for seed in range(3)]


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "gemma2", "bloom"])
def test_one_learner_has_the_very_tokens_of_transformers_generate(folder_of, architecture):
    loaded = tiny.read(folder_of(architecture))
    wanted = transformers_texts(loaded, PROMPTS, max_new_tokens=20)
    for mixture in MIXTURES:
        found = written([loaded], PROMPTS, [0.3], mixture=mixture, max_new_tokens=20)
        assert [row[0].tokens for row in found] == wanted
        assert [[one.text for one in row] for row in found] == [
            [loaded.tokenizer.decode(tokens, skip_special_tokens=True)] for tokens in wanted
        ]


@pytest.mark.parametrize("mixture", MIXTURES)
def test_a_twin_changes_nothing(learners, mixture):
    one = texts(learners[:1], PROMPTS, [1.0], mixture=mixture, max_new_tokens=20)
    assert texts([learners[0]] * 2, PROMPTS, [0.2, 1.3], mixture=mixture, max_new_tokens=20) == one
    options = {"mixture": mixture, "max_new_tokens": 10, "temperature": 0.8, "samples": 3}
    alone = texts(learners[:1], PROMPTS, [1.0], **options)
    assert texts([learners[0]] * 2, PROMPTS, [0.25, 0.75], **options) == alone


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_neighbours_their_order_and_the_batch_do_not_matter(learners, temperature):
    prompts = [*PROMPTS, "air", "gravity friction heat. The moon turns around"]
    options = {"max_new_tokens": 10, "temperature": temperature, "samples": 2, "seed": 4}
    wanted = texts(learners, prompts, ALPHA, **options)
    assert texts(learners, prompts[::-1], ALPHA, **options)[::-1] == wanted
    assert texts(learners, prompts, ALPHA, batch=1, **options) == wanted
    assert texts(learners, prompts, ALPHA, batch=3, **options) == wanted
    assert texts(learners, prompts[3:4], ALPHA, **options) == wanted[3:4]


def test_the_order_of_learners_and_the_scale_of_alphas_do_not_matter(learners):
    for mixture in MIXTURES:
        for temperature in (0.0, 0.7):
            options = {"mixture": mixture, "max_new_tokens": 10, "temperature": temperature}
            wanted = texts(learners, PROMPTS, ALPHA, **options)
            assert texts(learners, PROMPTS, [13 * alpha for alpha in ALPHA], **options) == wanted
            assert texts(learners[::-1], PROMPTS, ALPHA[::-1], **options) == wanted


def test_a_learner_of_alpha_0_has_no_say(learners):
    for options in ({}, {"mix": "disagree", "temperature": 1.0}):
        wanted = texts(learners[:2], PROMPTS, ALPHA[:2], max_new_tokens=8, **options)
        assert texts([*learners], PROMPTS, [*ALPHA[:2], 0.0], max_new_tokens=8, **options) == wanted


def test_a_text_ends_before_its_stop(learners):
    whole = texts(learners, PROMPTS, ALPHA, max_new_tokens=12)
    stop = whole[0][0][3:5]
    stopped = texts(learners, PROMPTS, ALPHA, max_new_tokens=12, stop=[stop])
    assert stopped == [[cut(text, [stop]) for text in row] for row in whole]
    assert len(stopped[0][0]) <= 3


def test_samples_come_again_with_the_seed_and_leave_the_callers_random_state(learners):
    state = torch.get_rng_state()
    options = {"max_new_tokens": 6, "samples": 4, "temperature": 1.5}
    one, same, other = (texts(learners, PROMPTS, ALPHA, seed=seed, **options) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert one == same != other
    assert len(set(one[0])) > 1
    greedy = texts(learners, PROMPTS[:1], ALPHA, max_new_tokens=4, samples=3)[0]
    assert len(greedy) == 3
    assert len(set(greedy)) == 1


LOGITS = torch.tensor(
    [  # two learners, two rows: they agree on token 0 in the first and disagree in the second
        [[0.5, 0.4, 0.1], [0.5, 0.4, 0.1]],
        [[0.6, 0.1, 0.3], [0.1, 0.4, 0.5]],
    ]
).log()


def test_mixtures_by_hand():
    alpha = torch.tensor([0.25, 0.75])
    mean = torch.tensor([0.25 * 0.5 + 0.75 * 0.1, 0.4, 0.25 * 0.1 + 0.75 * 0.5])

    def mixed(name):
        return MIXTURES[name].log(torch.tensordot(alpha, MIXTURES[name].part(LOGITS), 1))

    torch.testing.assert_close(mixed("linear")[1].exp(), mean)
    product = torch.tensor([0.5**0.25 * 0.1**0.75, 0.4, 0.1**0.25 * 0.5**0.75])
    torch.testing.assert_close(mixed("log_linear")[1].exp(), product / product.sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mixture", MIXTURES.values(), ids=MIXTURES)
def test_one_learner_is_what_any_mixture_makes_of_it(mixture, dtype):
    logits_LBV = torch.randn(1, 5, 50, generator=torch.Generator().manual_seed(0)).mul(4).to(dtype)
    one = torch.ones(1)
    token_B, logp_BV = next_tokens(logits_LBV, torch.zeros(5), alpha_L=one, mixture=mixture, mix="all", temperature=0.0)
    assert token_B.tolist() == logits_LBV[0].argmax(-1).tolist()
    torch.testing.assert_close(logp_BV, mixture.log(mixture.part(logits_LBV[0].float())))


def test_where_learners_agree_disagree_mode_takes_their_token_and_mixes_elsewhere():
    # Row 1: mean .55 .25 .20, so luck .9 draws token 2 unless the agreed token 0 is taken; row 2: mean .30 .40 .30.
    luck_B = torch.tensor([0.9, 0.5])
    choose = partial(next_tokens, LOGITS, luck_B, alpha_L=torch.tensor([0.5, 0.5]), mixture=MIXTURES["linear"])
    assert choose(mix="all", temperature=1.0)[0].tolist() == [2, 1]
    assert choose(mix="disagree", temperature=1.0)[0].tolist() == [0, 1]
    # Greedily the compromise wins, which neither put first.
    for mix in ("all", "disagree"):
        assert choose(mix=mix, temperature=0.0)[0].tolist() == [0, 1]


def test_drawn_tokens_are_as_frequent_as_the_mixture_says(learners):
    count, share_L = 3000, np.array(ALPHA) / sum(ALPHA)
    heard = logits_of([Voice(one) for one in learners], ["the moon"], steps=1)[0, :, 0].double()
    voices = [Voice(one) for one in learners]
    rows = encode_prompts(learners[0], ["the moon"]) * count
    for mixture, temperature in (("linear", 1.0), ("log_linear", 1.0), ("linear", 0.5)):
        logp_LV = heard.log_softmax(-1).numpy()
        if mixture == "linear":
            p_V = (share_L[:, None] * np.exp(logp_LV)).sum(0)
        else:
            p_V = np.exp((share_L[:, None] * logp_LV).sum(0))
        p_V = p_V ** (1 / temperature) / (p_V ** (1 / temperature)).sum()
        luck_BS = np.stack([committee.luck([1], n, 0, 1) for n in range(count)])
        choose = partial(
            next_tokens,
            alpha_L=torch.from_numpy(share_L).float(),
            mixture=MIXTURES[mixture],
            mix="all",
            temperature=temperature,
        )
        with torch.inference_mode():
            found = write(voices, rows, luck_BS, choose)
        drawn = np.bincount([row.tokens[0] for row in found], minlength=len(p_V))
        # Chi-squared over the tokens that can be expected ten times, the others as one.
        often = p_V * count >= 10
        expected = np.append(p_V[often], p_V[~often].sum()) * count
        seen = np.append(drawn[often], drawn[~often].sum())
        freedom = len(expected) - 1
        assert ((seen - expected) ** 2 / expected).sum() < freedom + 4 * np.sqrt(2 * freedom), (mixture, temperature)


def test_what_cannot_write_together_is_refused(folder_of, learners):
    for alphas in ([1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]):
        with pytest.raises(BadInput, match="alphas"):
            texts(learners[:2], PROMPTS, alphas)
    with pytest.raises(BadInput, match="mix"):
        texts(learners[:1], PROMPTS, [1.0], mix="some")
    with pytest.raises(BadInput, match="mixture"):
        texts(learners[:1], PROMPTS, [1.0], mixture="linaer")
    other = dataclasses.replace(learners[1], tokenizer=tiny.tokenizer(pairs=True))
    other.tokenizer.add_tokens(["sun"])
    with pytest.raises(BadInput, match="tokenizers differ"):
        texts([learners[0], other], PROMPTS, [1.0, 1.0])


def test_no_prompts_no_texts(learners):
    assert texts(learners, [], ALPHA) == []


def test_a_texts_log_probability_is_that_of_reading_it_with_the_right_tokens_before(learners):
    for mixture in MIXTURES:
        for temperature in (0.0, 1.3):
            options = {"mixture": mixture, "max_new_tokens": 12, "temperature": temperature, "samples": 2}
            for row in written(learners, PROMPTS, ALPHA, **options):
                for one in row:
                    logp_SV = read_back(learners, PROMPTS[one.prompt], one.tokens, mixture)
                    logp = logp_SV[range(len(one.tokens)), one.tokens].sum()
                    if one.ended:
                        logp += logp_SV[-1, end_marks(learners[0])[0]]
                    assert one.logp == pytest.approx(logp, abs=1e-4)


def read_back(learners, prompt, tokens, mixture):
    """log-probabilities (S + 1, V) at each of the tokens and behind them, in one forward pass per learner."""
    row = encode_prompts(learners[0], [prompt])[0]
    with torch.no_grad():
        logits_LSV = torch.stack([one.module(torch.tensor([row + tokens])).logits[0] for one in learners]).double()
    logp_LSV = logits_LSV[:, len(row) - 1 :].log_softmax(-1).numpy()
    share_L11 = (np.array(ALPHA) / sum(ALPHA))[:, None, None]
    if mixture == "linear":
        return np.log((share_L11 * np.exp(logp_LSV)).sum(0))
    mean_SV = (share_L11 * logp_LSV).sum(0)
    return mean_SV - np.log(np.exp(mean_SV).sum(1, keepdims=True))


def test_the_probable_tokens_of_each_step_are_told_and_sum_to_1_when_they_are_all(learners):
    few = written(learners, PROMPTS, ALPHA, max_new_tokens=8, top=3)
    for (one,), (all_of_them,) in zip(few, written(learners, PROMPTS, ALPHA, max_new_tokens=8, top=10**6), strict=True):
        wanted_SV = np.exp(read_back(learners, PROMPTS[one.prompt], one.tokens, "linear"))[: len(one.prob_SJ)]
        assert one.token_SJ.shape == (len(one.tokens) + one.ended, 3)
        np.testing.assert_allclose(one.prob_SJ, -np.sort(-wanted_SV, 1)[:, :3], atol=1e-5)
        assert all_of_them.prob_SJ.sum(1) == pytest.approx(1, abs=1e-5)
        assert one.token_SJ[: len(one.tokens), 0].tolist() == one.tokens, "greedily the most probable one is written"
        placed = np.take_along_axis(wanted_SV, all_of_them.token_SJ.astype(int), 1)
        np.testing.assert_allclose(placed, all_of_them.prob_SJ, atol=1e-5)


def test_a_text_says_whether_it_ended_and_a_stop_text_is_no_part_of_it(learners):
    options = {"temperature": 1.5, "top": 2}
    whole = written(learners, PROMPTS, ALPHA, max_new_tokens=12, **options)[0][0]
    assert not whole.ended
    assert len(whole.tokens) == len(whole.token_SJ) == 12
    pieces = [learners[0].tokenizer.decode([token]) for token in whole.tokens]
    stop = pieces[5] + pieces[6]
    cut_off = written(learners, PROMPTS, ALPHA, max_new_tokens=12, stop=[stop], **options)[0][0]
    assert cut_off.ended
    assert len(cut_off.tokens) == 5
    assert cut_off.tokens == whole.tokens[: len(cut_off.tokens)]
    assert learners[0].tokenizer.decode(cut_off.tokens) == cut_off.text == cut(whole.text, [stop])
    assert cut_off.token_SJ.tolist() == whole.token_SJ[: len(cut_off.tokens) + 1].tolist()
    begun = written(learners, PROMPTS, ALPHA, max_new_tokens=5, **options)[0][0]
    assert cut_off.logp == pytest.approx(begun.logp, abs=1e-5)


def test_an_end_mark_ends_a_text_and_its_log_probability_counts(folder_of):
    loaded = tiny.read(folder_of("gpt2"))
    whole = written([loaded], PROMPTS, [1.0], max_new_tokens=8)
    loaded.module.generation_config.eos_token_id = [whole[0][0].tokens[3], whole[1][0].tokens[0]]
    found = written([loaded], PROMPTS, [1.0], max_new_tokens=8, top=1)
    shorter, empty = found[0][0], found[1][0]
    size = whole[0][0].tokens.index(whole[0][0].tokens[3])
    assert (shorter.tokens, shorter.ended) == (whole[0][0].tokens[:size], True)
    assert (empty.text, empty.tokens, empty.ended) == ("", [], True)
    assert len(shorter.token_SJ) == size + 1
    begun = written([loaded], PROMPTS, [1.0], max_new_tokens=size + 1)
    loaded.module.generation_config.eos_token_id = None
    assert shorter.logp == pytest.approx(
        written([loaded], PROMPTS, [1.0], max_new_tokens=size + 1)[0][0].logp, abs=1e-5
    )
    assert begun[0][0].ended


def test_batches_that_were_made_before_are_left_out(learners):
    options = {"max_new_tokens": 6, "temperature": 1.0, "samples": 3, "batch": 4}
    every = list(decode(learners, PROMPTS, ALPHA, **options))
    rest = list(decode(learners, PROMPTS, ALPHA, skip=2, **options))
    assert [len(part) for part in every] == [4, 4, 1]
    assert [(one.prompt, one.number, one.text) for one in rest[0]] == [
        (one.prompt, one.number, one.text) for one in every[2]
    ]


def test_as_many_rows_go_together_as_the_budgets_allow_and_16_in_any_case(learners, monkeypatch):
    def sizes():
        return [len(part) for part in decode(learners, ["the moon"] * 100, ALPHA, max_new_tokens=2)]

    assert sizes() == [100]
    monkeypatch.setattr(committee, "TOKENS_AT_ONCE", 100)
    assert sizes() == [16] * 6 + [4]
    monkeypatch.setattr(committee, "TOKENS_AT_ONCE", 2**16)
    monkeypatch.setattr(committee, "LOGITS_AT_ONCE", 3 * 300 * 40)
    assert sizes() == [40, 40, 20]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_where_there_is_little_room_half_of_it_is_the_prompts_and_neighbours_take_none(learners, temperature):
    long, options = "moon earth " * 100, {"max_new_tokens": 500, "temperature": temperature}
    together = written(learners, [long, "the moon"], ALPHA, **options)
    assert [len(row[0].tokens) <= room for row, room in zip(together, (64, 126), strict=True)] == [True, True]
    assert max(len(row[0].tokens) for row in together) >= 64
    alone = [written(learners, [prompt], ALPHA, **options)[0][0].tokens for prompt in (long, "the moon")]
    assert [row[0].tokens for row in together] == alone
