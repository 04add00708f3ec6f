"""Token-mixture decoding, and adapters of one base that share its weights."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch

from tests.models import tiny
from w2s.models import committee
from w2s.models.batches import encode_prompts
from w2s.models.committee import MIXTURES, Voice, adapter_of, decode, next_tokens, share
from w2s.models.generate import cut, generate, pad_left
from w2s.models.load import merged
from w2s.records import BadInput

PROMPTS = ["Which gas do plants take in?", "the moon", "What pulls a falling stone down to the earth and the sun?"]
ALPHA = [0.7, 1.9, 0.4]


@pytest.fixture(scope="module")
def learners(folder_of):
    """Three GPT-2 of unlike weights and one tokenizer."""
    return [moved(tiny.read(folder_of("gpt2")), seed) for seed in range(3)]


def moved(loaded, seed, size=0.1):
    with torch.no_grad():
        for at, parameter in enumerate(loaded.module.parameters()):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(100 * seed + at))
            parameter.add_(size * noise)
    return loaded


def with_adapters(folder, ranks=(2, 4, 4), *, architecture_layers=("0", "1")):
    """A base with one random adapter of each rank, and the adapters."""
    import peft

    loaded = tiny.read(folder)
    torch.manual_seed(3)
    targets = [
        name
        for name, layer in loaded.module.base_model.named_modules()
        if type(layer).__name__ in ("Linear", "Conv1D") and any(f".{one}." in name for one in architecture_layers)
    ]
    for at, rank in enumerate(ranks):
        config = peft.LoraConfig(r=rank, lora_alpha=3 * rank, target_modules=targets, init_lora_weights=False)
        config.fan_in_fan_out = loaded.module.config.model_type == "gpt2"
        peft.inject_adapter_in_model(config, loaded.module, adapter_name=f"a{at}")
    return loaded, [adapter_of(loaded.module, f"a{at}") for at in range(len(ranks))]


def separately(folder, adapter):
    """The learner as a model of its own: W + down up, as a saved learner holds it."""
    loaded = tiny.read(folder)
    for name, (down, up) in adapter.items():
        weight = loaded.module.get_submodule(name).weight
        delta = down @ up
        weight.data += delta if type(loaded.module.get_submodule(name)).__name__ == "Conv1D" else delta.T
    return loaded


def logits_of(voices, prompts=PROMPTS, steps=5):
    """What a committee hears at each step, when it is told to write the same tokens."""
    heard = []

    def choose(logits_LBV, luck_B):
        heard.append(logits_LBV)
        return torch.full((logits_LBV.shape[1],), 40 + len(heard))

    first = voices[0].loaded
    tokens_BT, mask_BT = pad_left(encode_prompts(first, prompts), first.pad_id, torch.device("cpu"))
    with torch.inference_mode():
        committee.write(voices, tokens_BT, mask_BT, torch.zeros(len(prompts), steps), choose)
    return torch.stack(heard)


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


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "gemma2"])
def test_adapters_of_one_base_speak_as_separate_models_do(folder_of, architecture):
    loaded, adapters = with_adapters(folder_of(architecture))
    before = logits_of([Voice(loaded)])
    voices = share(loaded, adapters)
    assert [voice.count for voice in voices] == [3]
    apart = [Voice(separately(folder_of(architecture), adapter)) for adapter in adapters]
    together_SLBV, apart_SLBV = logits_of(voices), logits_of(apart)
    assert (apart_SLBV[:, 0] - apart_SLBV[:, 1]).abs().max() > 0.05
    scale = apart_SLBV.abs().max()
    assert (together_SLBV - apart_SLBV).abs().max() / max(1, scale) < 1e-5
    wanted = decode([voice.loaded for voice in apart], PROMPTS, ALPHA, max_new_tokens=12)
    assert decode(voices, PROMPTS, ALPHA, max_new_tokens=12) == wanted
    assert torch.equal(logits_of([Voice(loaded)]), before), "the base is left as it was"


def test_peft_itself_is_the_witness_of_each_adapter(folder_of):
    loaded, adapters = with_adapters(folder_of("llama"))
    together = logits_of(share(loaded, adapters))
    for at in range(3):
        for layer in loaded.module.modules():
            if hasattr(layer, "set_adapter") and hasattr(layer, "lora_A"):
                layer.set_adapter(f"a{at}")
        torch.testing.assert_close(logits_of([Voice(loaded)])[:, 0], together[:, at], rtol=1e-5, atol=1e-5)


def test_a_learner_of_ours_shares_its_base_as_its_saved_merge_speaks(folder_of):
    loaded = tiny.read(folder_of("gpt2"), trainable="lora", lora_rank=4)
    with torch.no_grad():
        for name, parameter in loaded.module.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    alone = tiny.read(folder_of("gpt2"))
    alone.module.load_state_dict(merged(loaded.module, loaded.module.state_dict()))
    found = logits_of(share(tiny.read(folder_of("gpt2")), [adapter_of(loaded.module)]))
    torch.testing.assert_close(found, logits_of([Voice(alone)]), rtol=1e-5, atol=1e-5)


def test_sharing_copies_no_weight_of_the_base(folder_of):
    loaded, adapters = with_adapters(folder_of("llama"))
    voice = share(loaded, adapters)[0]
    there = {parameter.data_ptr() for parameter in loaded.module.parameters()}
    parameters = list(voice.loaded.module.parameters())
    assert parameters
    assert all(parameter.data_ptr() in there for parameter in parameters)
    assert sum(p.numel() for p in parameters) == sum(
        p.numel() for name, p in loaded.module.named_parameters() if ".lora_" not in name
    )


def test_adapters_may_leave_out_layers_and_the_bare_base_may_be_a_learner(folder_of):
    loaded, (first, second, _) = with_adapters(folder_of("llama"))
    half = dict(list(first.items())[:3])
    found = logits_of(share(loaded, [half, second, {}]))
    apart = [Voice(separately(folder_of("llama"), adapter)) for adapter in (half, second, {})]
    torch.testing.assert_close(found, logits_of(apart), rtol=1e-5, atol=1e-5)


def test_learners_of_several_kinds_write_together(folder_of, learners):
    loaded, adapters = with_adapters(folder_of("gpt2"))
    apart = [separately(folder_of("gpt2"), adapter) for adapter in adapters]
    alpha = [*ALPHA, 1.1]
    wanted = decode([*apart, learners[0]], PROMPTS, alpha, max_new_tokens=10)
    assert decode([*share(loaded, adapters), learners[0]], PROMPTS, alpha, max_new_tokens=10) == wanted


def test_rows_that_an_architecture_mixes_are_read_learner_by_learner(folder_of):
    class Shuffled(torch.nn.Module):
        """Reads its rows in another order, as a mixture of experts does."""

        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x.flip(0)).flip(0)

    def shuffled():
        loaded = tiny.read(folder_of("llama"))
        for layer in loaded.module.model.layers:
            layer.mlp = Shuffled(layer.mlp)
        return loaded

    _, adapters = with_adapters(folder_of("llama"))
    adapters = [{n.replace("mlp.", "mlp.inner."): pair for n, pair in adapter.items()} for adapter in adapters]
    voices = share(shuffled(), adapters)
    assert [voice.count for voice in voices] == [1, 1, 1]
    plain, plain_adapters = with_adapters(folder_of("llama"))
    torch.testing.assert_close(logits_of(voices), logits_of(share(plain, plain_adapters)), rtol=1e-5, atol=1e-5)


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
    loaded, adapters = with_adapters(folder_of("llama"), ranks=(2,))
    with pytest.raises(BadInput, match="no LoRA layer"):
        adapter_of(loaded.module, "other")
    with pytest.raises(BadInput, match="no layer"):
        share(learners[0], adapters)
    name, (down, up) = next(iter(adapters[0].items()))
    with pytest.raises(BadInput, match="base's weight"):
        share(loaded, [{name: (down[:-1], up)}])


def test_no_prompts_no_texts(learners):
    assert decode(learners, [], ALPHA) == []
