"""Text from a causal language model."""

from __future__ import annotations

import pytest
import torch

from tests.models import tiny
from w2s.models import builtin
from w2s.models.batches import encode_prompts
from w2s.models.generate import cut, generate

PROMPTS = ["Which gas do plants take in?", "the moon", "What pulls a falling stone down to the earth and the sun?"]


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_greedy_text_is_the_argmax_token_by_token_whatever_else_is_in_the_batch(folder_of, architecture):
    loaded = tiny.read(folder_of(architecture))
    wanted = []
    for tokens in encode_prompts(loaded, PROMPTS):
        row = list(tokens)
        for _ in range(6):
            with torch.no_grad():
                row.append(loaded.module(input_ids=torch.tensor([row])).logits[0, -1].argmax().item())
        wanted.append([loaded.tokenizer.decode(row[len(tokens) :], skip_special_tokens=True)])
    assert generate(loaded, PROMPTS, max_new_tokens=6) == wanted


def test_samples_differ_from_each_other_and_come_again_with_the_seed(folder_of):
    loaded = tiny.read(folder_of("gpt2"))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, same, other = (
        generate(loaded, PROMPTS, max_new_tokens=5, samples=4, temperature=2.0, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert one == same != other
    assert [len(row) for row in one] == [4, 4, 4]
    assert len(set(one[0])) > 1


def test_greedy_samples_are_alike(folder_of):
    row = generate(tiny.read(folder_of("gpt2")), PROMPTS[:1], max_new_tokens=4, samples=3)[0]
    assert len(row) == 3
    assert len(set(row)) == 1


def test_a_text_ends_before_its_stop(folder_of):
    loaded = tiny.read(folder_of("gpt2"))
    whole = generate(loaded, PROMPTS, max_new_tokens=10)
    stop = whole[0][0][3:5]
    stopped = generate(loaded, PROMPTS, max_new_tokens=10, stop=[stop])
    assert stopped == [[cut(text, [stop]) for text in row] for row in whole]
    assert len(stopped[0][0]) <= 3


def test_a_long_prompt_makes_room_for_the_text(folder_of):
    loaded = tiny.read(folder_of("gpt2"))
    assert loaded.tokenizer(generate(loaded, ["moon " * 500], max_new_tokens=8)[0][0])["input_ids"]


def test_cut_takes_the_earliest_stop():
    assert cut("a\n\nb\ndef", ["def", "\n\n"]) == "a"
    assert cut("abc", []) == "abc"


def test_a_tokenizer_of_whole_words_can_stop_too(tmp_path):
    builtin.make("weak", ["red blue green yellow"], tmp_path / "m", 0)
    loaded = tiny.read(tmp_path / "m")
    whole = generate(loaded, ["red blue"], max_new_tokens=6)
    stop = whole[0][0].split()[1]
    assert generate(loaded, ["red blue"], max_new_tokens=6, stop=[stop]) == [[cut(whole[0][0], [stop])]]
