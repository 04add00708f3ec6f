"""Rows of tokens continued step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.models import tiny
from tests.models.voices import PROMPTS, texts, transformers_texts, with_adapters
from w2s.models import builtin, generate
from w2s.models.adapters import share
from w2s.models.generate import Voice, cut, end_marks, write
from w2s.models.tokenizing import encode_prompts


def greedy(logits_LBV, luck_B):
    return logits_LBV[0].argmax(-1), logits_LBV[0].log_softmax(-1)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_greedy_tokens_are_the_argmax_one_by_one_whatever_else_is_in_the_batch(folder_of, architecture):
    loaded = tiny.read(folder_of(architecture))
    wanted, logps = [], []
    for tokens in encode_prompts(loaded, PROMPTS):
        row = list(tokens)
        for _ in range(6):
            with torch.no_grad():
                logp_V = loaded.module(input_ids=torch.tensor([row])).logits[0, -1].log_softmax(-1)
            row.append(logp_V.argmax().item())
            logps.append(logp_V.max().item())
        wanted.append(row[len(tokens) :])
    with torch.inference_mode():
        found = write([Voice(loaded)], encode_prompts(loaded, PROMPTS), np.zeros((3, 6)), greedy)
    assert [one.tokens for one in found] == wanted
    np.testing.assert_allclose(np.concatenate([one.logp_S for one in found]), logps, atol=1e-4)


def test_rows_end_at_their_end_mark_and_at_their_own_limit(folder_of):
    loaded = tiny.read(folder_of("gpt2"))
    rows = encode_prompts(loaded, PROMPTS)
    with torch.inference_mode():
        whole = [one.tokens for one in write([Voice(loaded)], rows, np.zeros((3, 12)), greedy)]
        short = write([Voice(loaded)], rows, np.zeros((3, 12)), greedy, limit_B=[1, 12, 5])
        assert [one.tokens for one in short] == [row[:size] for row, size in zip(whole, (1, 12, 5), strict=True)]
        end = whole[0][3]
        loaded.module.generation_config.eos_token_id = [end, 299]
        ended = write([Voice(loaded)], rows, np.zeros((3, 12)), greedy)
    assert [one.tokens for one in ended] == [row[: row.index(end) + 1] if end in row else row for row in whole]
    assert [len(one.logp_S) for one in ended] == [len(one.tokens) for one in ended]


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("adapters", [0, 3])
def test_rows_that_have_ended_leave_the_batch_and_change_no_other_row(folder_of, architecture, adapters):
    loaded = tiny.read(folder_of(architecture))
    voices = [Voice(loaded)]
    if adapters:
        base, own = with_adapters(folder_of(architecture))
        voices = share(base, own)
    read, sizes = generate.Reader.read, []

    def note(reader, fresh_BT, mask_BT):
        sizes.append(len(fresh_BT))
        return read(reader, fresh_BT, mask_BT)

    def choose(logits_LBV, luck_B):
        return logits_LBV.mean(0).argmax(-1), logits_LBV.mean(0).log_softmax(-1)

    prompts = [*PROMPTS, *PROMPTS[:1]]
    limits = [3, 30, 9, 1]
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate.Reader, "read", note)
        patch.setattr(generate, "end_marks", lambda _: [])
        together = write(voices, encode_prompts(loaded, prompts), np.zeros((4, 30)), choose, limit_B=limits, top=3)
        assert sizes[: 10 * len(voices) : len(voices)] == [4, 3, 3, 2, 2, 2, 2, 2, 2, 1]
        for prompt, limit, found in zip(prompts, limits, together, strict=True):
            (alone,) = write(voices, encode_prompts(loaded, [prompt]), np.zeros((1, limit)), choose, top=3)
            assert found.tokens == alone.tokens
            assert len(found.tokens) == limit
            np.testing.assert_allclose(found.logp_S, alone.logp_S, atol=1e-4)
            np.testing.assert_allclose(found.prob_SJ, alone.prob_SJ, atol=1e-4)


def test_a_cache_that_cannot_drop_rows_keeps_them(folder_of):
    loaded = tiny.read(folder_of("llama"))
    rows = encode_prompts(loaded, PROMPTS)
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        wanted = write([Voice(loaded)], rows, np.zeros((3, 9)), greedy, limit_B=[1, 9, 2])
        patch.setattr(generate, "can_drop_rows", lambda _: False)
        found = write([Voice(loaded)], rows, np.zeros((3, 9)), greedy, limit_B=[1, 9, 2])
    assert [one.tokens for one in found] == [one.tokens for one in wanted]


def test_the_end_token_that_answers_are_trained_on_is_an_end_mark_too(folder_of):
    loaded = tiny.read(folder_of("gpt2"))
    for given, wanted in ((None, [2]), (7, [7, 2]), ([2, 7], [2, 7])):
        loaded.module.generation_config.eos_token_id = given
        assert end_marks(loaded) == wanted


def test_a_text_ends_before_its_stop(folder_of):
    loaded = tiny.read(folder_of("gpt2"))
    whole = texts([loaded], PROMPTS, [1.0], max_new_tokens=10)
    stop = whole[0][0][3:5]
    stopped = texts([loaded], PROMPTS, [1.0], max_new_tokens=10, stop=[stop])
    assert stopped == [[cut(text, [stop]) for text in row] for row in whole]
    assert len(stopped[0][0]) <= 3


def test_cut_takes_the_earliest_stop():
    assert cut("a\n\nb\ndef", ["def", "\n\n"]) == "a"
    assert cut("abc", []) == "abc"


def test_a_tokenizer_of_whole_words_can_stop_too(tmp_path):
    builtin.make("weak", ["red blue green yellow"], tmp_path / "m", 0)
    loaded = tiny.read(tmp_path / "m")
    whole = texts([loaded], ["red blue"], [1.0], max_new_tokens=6)
    tokens = transformers_texts(loaded, ["red blue"], max_new_tokens=6)[0]
    assert whole == [[loaded.tokenizer.decode(tokens, skip_special_tokens=True)]]
    stop = whole[0][0].split()[1]
    assert texts([loaded], ["red blue"], [1.0], max_new_tokens=6, stop=[stop]) == [[cut(whole[0][0], [stop])]]
