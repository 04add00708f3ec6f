"""Token-mixture decoding."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch

from tests.models import tiny
from tests.models.voices import ALPHA, PROMPTS, logits_of, moved
from w2s.models import committee
from w2s.models.batches import encode_prompts
from w2s.models.committee import MIXTURES, Voice, decode, next_tokens
from w2s.models.generate import cut, generate, pad_left
from w2s.records import BadInput


@pytest.fixture(scope="module")
def learners(folder_of):
    """Three GPT-2 of unlike weights and one tokenizer."""
    return [moved(tiny.read(folder_of("gpt2")), seed) for seed in range(3)]


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "gemma2", "bloom"])
def test_one_learner_writes_what_generate_writes(folder_of, architecture):
    loaded = tiny.read(folder_of(architecture))
    wanted = generate(loaded, PROMPTS, max_new_tokens=20)
    for mixture in MIXTURES:
        assert decode([loaded], PROMPTS, [0.3], mixture=mixture, max_new_tokens=20) == wanted


def test_one_learner_has_the_very_tokens_of_transformers_generate(folder_of):
    loaded = tiny.read(folder_of("gpt2"))
    tokens_BT, mask_BT = pad_left(encode_prompts(loaded, PROMPTS), loaded.pad_id, torch.device("cpu"))

    def written() -> list[list[int]]:
        luck_BS = torch.zeros(len(PROMPTS), 12)
        with torch.inference_mode():
            return committee.write([Voice(loaded)], tokens_BT, mask_BT, luck_BS, lambda logits, _: logits[0].argmax(-1))

    made_BT = loaded.module.generate(
        input_ids=tokens_BT, attention_mask=mask_BT, max_new_tokens=12, do_sample=False, pad_token_id=0
    )
    whole = made_BT[:, tokens_BT.shape[1] :].tolist()
    assert written() == whole
    end = whole[0][3]
    loaded.module.generation_config.eos_token_id = [end, 299]
    assert written() == [row[: row.index(end)] if end in row else row for row in whole]


@pytest.mark.parametrize("mixture", MIXTURES)
def test_a_twin_changes_nothing(learners, mixture):
    one = decode(learners[:1], PROMPTS, [1.0], mixture=mixture, max_new_tokens=20)
    assert decode([learners[0]] * 2, PROMPTS, [0.2, 1.3], mixture=mixture, max_new_tokens=20) == one
    options = {"mixture": mixture, "max_new_tokens": 10, "temperature": 0.8, "samples": 3}
    alone = decode(learners[:1], PROMPTS, [1.0], **options)
    assert decode([learners[0]] * 2, PROMPTS, [0.25, 0.75], **options) == alone


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_neighbours_their_order_and_the_batch_do_not_matter(learners, temperature):
    prompts = [*PROMPTS, "air", "gravity friction heat. The moon turns around"]
    options = {"max_new_tokens": 10, "temperature": temperature, "samples": 2, "seed": 4}
    wanted = decode(learners, prompts, ALPHA, **options)
    assert decode(learners, prompts[::-1], ALPHA, **options)[::-1] == wanted
    assert decode(learners, prompts, ALPHA, batch=1, **options) == wanted
    assert decode(learners, prompts, ALPHA, batch=3, **options) == wanted
    assert decode(learners, prompts[3:4], ALPHA, **options) == wanted[3:4]


def test_the_order_of_learners_and_the_scale_of_alphas_do_not_matter(learners):
    for mixture in MIXTURES:
        for temperature in (0.0, 0.7):
            options = {"mixture": mixture, "max_new_tokens": 10, "temperature": temperature}
            wanted = decode(learners, PROMPTS, ALPHA, **options)
            assert decode(learners, PROMPTS, [13 * alpha for alpha in ALPHA], **options) == wanted
            assert decode(learners[::-1], PROMPTS, ALPHA[::-1], **options) == wanted


def test_a_learner_of_alpha_0_has_no_say(learners):
    for options in ({}, {"mix": "disagree", "temperature": 1.0}):
        wanted = decode(learners[:2], PROMPTS, ALPHA[:2], max_new_tokens=8, **options)
        assert decode([*learners], PROMPTS, [*ALPHA[:2], 0.0], max_new_tokens=8, **options) == wanted


def test_a_text_ends_before_its_stop(learners):
    whole = decode(learners, PROMPTS, ALPHA, max_new_tokens=12)
    stop = whole[0][0][3:5]
    stopped = decode(learners, PROMPTS, ALPHA, max_new_tokens=12, stop=[stop])
    assert stopped == [[cut(text, [stop]) for text in row] for row in whole]
    assert len(stopped[0][0]) <= 3


def test_samples_come_again_with_the_seed_and_leave_the_callers_random_state(learners):
    state = torch.get_rng_state()
    options = {"max_new_tokens": 6, "samples": 4, "temperature": 1.5}
    one, same, other = (decode(learners, PROMPTS, ALPHA, seed=seed, **options) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert one == same != other
    assert len(set(one[0])) > 1
    greedy = decode(learners, PROMPTS[:1], ALPHA, max_new_tokens=4, samples=3)[0]
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
    torch.testing.assert_close(MIXTURES["linear"](LOGITS, alpha)[1].exp(), mean)
    product = torch.tensor([0.5**0.25 * 0.1**0.75, 0.4, 0.1**0.25 * 0.5**0.75])
    torch.testing.assert_close(MIXTURES["log_linear"](LOGITS, alpha)[1].exp(), product / product.sum())


def test_where_learners_agree_disagree_mode_takes_their_token_and_mixes_elsewhere():
    # Row 1: mean .55 .25 .20, so luck .9 draws token 2 unless the agreed token 0 is taken; row 2: mean .30 .40 .30.
    luck_B = torch.tensor([0.9, 0.5])
    choose = partial(next_tokens, LOGITS, luck_B, alpha_L=torch.tensor([0.5, 0.5]), mixed=MIXTURES["linear"])
    assert choose(mix="all", temperature=1.0).tolist() == [2, 1]
    assert choose(mix="disagree", temperature=1.0).tolist() == [0, 1]
    # Greedily the compromise wins, which neither put first.
    for mix in ("all", "disagree"):
        assert choose(mix=mix, temperature=0.0).tolist() == [0, 1]


def test_drawn_tokens_are_as_frequent_as_the_mixture_says(learners):
    count, share_L = 3000, np.array(ALPHA) / sum(ALPHA)
    heard = logits_of([Voice(one) for one in learners], ["the moon"], steps=1)[0, :, 0].double()
    voices = [Voice(one) for one in learners]
    tokens = torch.tensor(encode_prompts(learners[0], ["the moon"])).repeat(count, 1)
    for mixture, temperature in (("linear", 1.0), ("log_linear", 1.0), ("linear", 0.5)):
        logp_LV = heard.log_softmax(-1).numpy()
        if mixture == "linear":
            p_V = (share_L[:, None] * np.exp(logp_LV)).sum(0)
        else:
            p_V = np.exp((share_L[:, None] * logp_LV).sum(0))
        p_V = p_V ** (1 / temperature) / (p_V ** (1 / temperature)).sum()
        luck_BS = torch.from_numpy(np.stack([committee.luck([1], n, 0, 1) for n in range(count)]))
        choose = partial(
            next_tokens,
            alpha_L=torch.from_numpy(share_L).float(),
            mixed=MIXTURES[mixture],
            mix="all",
            temperature=temperature,
        )
        with torch.inference_mode():
            found = committee.write(voices, tokens, torch.ones_like(tokens), luck_BS, choose)
        drawn = np.bincount([row[0] for row in found], minlength=len(p_V))
        # Chi-squared over the tokens that can be expected ten times, the others as one.
        often = p_V * count >= 10
        expected = np.append(p_V[often], p_V[~often].sum()) * count
        seen = np.append(drawn[often], drawn[~often].sum())
        freedom = len(expected) - 1
        assert ((seen - expected) ** 2 / expected).sum() < freedom + 4 * np.sqrt(2 * freedom), (mixture, temperature)


def test_what_cannot_write_together_is_refused(folder_of, learners):
    for alphas in ([1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]):
        with pytest.raises(BadInput, match="alphas"):
            decode(learners[:2], PROMPTS, alphas)
    with pytest.raises(BadInput, match="mix"):
        decode(learners[:1], PROMPTS, [1.0], mix="some")
    with pytest.raises(BadInput, match="mixture"):
        decode(learners[:1], PROMPTS, [1.0], mixture="linaer")
    other = dataclasses.replace(learners[1], tokenizer=tiny.tokenizer(pairs=True))
    other.tokenizer.add_tokens(["sun"])
    with pytest.raises(BadInput, match="tokenizers differ"):
        decode([learners[0], other], PROMPTS, [1.0, 1.0])


def test_no_prompts_no_texts(learners):
    assert decode(learners, [], ALPHA) == []
