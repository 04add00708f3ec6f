"""From questions to rows of tokens, and which rows a step takes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models import tiny
from w2s.models import batches, lm, tokenizing
from w2s.store.records import BadInput, Example


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=60),
    batch=st.integers(1, 16),
    steps=st.integers(1, 60),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_steps_are_whole_and_every_example_comes_up_equally_often(lengths, batch, steps, seed):
    plan = batches.plan_batches(lengths, batch, steps, seed)
    assert [len(step) for step in plan] == [batch] * steps
    count_N = np.bincount(np.concatenate(plan), minlength=len(lengths))
    assert count_N.max() - count_N.min() <= 1
    again = batches.plan_batches(lengths, batch, steps, seed)
    assert all((a == b).all() for a, b in zip(plan, again, strict=True))


def test_the_rows_of_a_step_are_alike_in_length_and_steps_are_not_sorted():
    length_N = np.random.default_rng(0).integers(1, 200, size=2000)
    plan = batches.plan_batches(length_N, 20, 100, seed=0)
    spread = np.mean([length_N[step].max() - length_N[step].min() for step in plan])
    assert spread < 20 < np.ptp(length_N)
    means = [length_N[step].mean() for step in plan]
    assert abs(np.corrcoef(means, np.arange(100))[0, 1]) < 0.3


def test_another_seed_is_another_order():
    one, two = (np.concatenate(batches.plan_batches([5] * 64, 8, 8, seed)) for seed in (0, 1))
    assert (one != two).any()
    assert (np.sort(one) == np.sort(two)).all()


@given(lengths=st.lists(st.integers(1, 90), max_size=50), budget=st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_chunks_cover_every_row_once_within_the_budget(lengths, budget):
    chunks = batches.plan_chunks(lengths, budget)
    assert sorted(at for chunk in chunks for at in chunk) == list(range(len(lengths)))
    for chunk in chunks:
        assert len(chunk) == 1 or max(lengths[at] for at in chunk) * len(chunk) <= budget


def test_a_packed_row_holds_the_prompt_once_and_predicts_every_candidate_token():
    row = lm.pack([10, 11, 12], [[1, 2, 3], [4], [5, 6]])
    assert row.token_T.tolist() == [10, 11, 12, 1, 2, 5]
    assert row.position_T.tolist() == [0, 1, 2, 3, 4, 3]
    assert row.segment_T.tolist() == [0, 0, 0, 1, 1, 3]
    assert row.token_P.tolist() == [1, 2, 3, 4, 5, 6]
    assert row.owner_P.tolist() == [0, 0, 0, 1, 2, 2]
    # Each predicted token follows the state at first + from: the prompt's last, or the candidate's token before it.
    before = row.token_T[row.first + row.from_P].tolist()
    assert before == [12, 1, 2, 12, 12, 5]


def test_in_the_tree_a_candidate_sees_the_prompt_and_its_own_past_alone():
    row = lm.pack([10, 11], [[1, 2, 3], [4, 5]])
    made = lm.tree([row, lm.pack([7], [[8]])], np.array([5, 1]))
    allowed = made["attention_mask"][0, 0]
    assert allowed.tolist() == [
        [True, False, False, False, False],
        [True, True, False, False, False],
        [True, True, True, False, False],
        [True, True, True, True, False],
        [True, True, False, False, True],
    ]
    assert made["attention_mask"].any(-1).all()  # a row of padding without anything to look at would be not-a-number


def test_a_long_prompt_loses_its_beginning_and_its_candidates_stay_whole(folder_of):
    loaded = dataclasses.replace(tiny.read(folder_of("gpt2")), max_tokens=20)
    example = Example("a", "t", "choice", "the stone and the moon " * 20 + "What falls?", ("the stone", "the moon"))
    encoded = batches.encode(loaded, [example])[0]
    row = encoded.rows[0]
    prompt = row.token_T[: row.first + 1].tolist()
    assert loaded.tokenizer.decode(prompt).endswith("What falls?")
    for at, text in enumerate(example.choices):
        own = row.token_P[row.owner_P == at].tolist()
        assert loaded.tokenizer.decode(own) == " " + text
        assert len(prompt) + len(own) - 1 <= 20


def test_no_examples_are_no_rows(folder_of):
    assert batches.encode(tiny.read(folder_of("gpt2")), []) == []


def test_a_border_that_merges_keeps_the_candidates_text(folder_of):
    """Tokenised whole, 'ca' + 'rbon' has other tokens than 'ca': the continuation is then read on its own."""
    loaded = tiny.read(folder_of("gpt2"))
    found = tokenizing.encode_continuations(loaded, ["the ca"], [["rbon dioxide", " air"]])
    assert [loaded.tokenizer.decode(tokens) for tokens in found[0]] == ["rbon dioxide", " air"]


def test_a_prompt_is_begun_with_the_first_token_where_the_tokenizer_does_so(folder_of):
    from tokenizers.processors import TemplateProcessing

    loaded = tiny.read(folder_of("llama"))
    assert tokenizing.encode_prompts(loaded, ["the moon"])[0][0] != loaded.tokenizer.eos_token_id
    tokenizer = tiny.tokenizer()
    tokenizer.bos_token = "[CLS]"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    beginning = dataclasses.replace(loaded, tokenizer=tokenizer)
    rows = tokenizing.encode_prompts(beginning, ["the moon"])
    assert rows[0][0] == 1
    assert rows[0].count(1) == 1


def test_pairs_are_two_segments_and_the_longer_one_is_cut(folder_of):
    loaded = tiny.read(folder_of("bert"), kind="pair", max_tokens=24)
    example = Example("a", "t", "choice", "the moon and the sun " * 20, ("the earth", "air"))
    encoded = batches.encode(loaded, [example])[0]
    for row, text in zip(encoded.rows, example.choices, strict=True):
        assert len(row.token_T) == 24
        candidate = row.token_T[row.segment_T == 1]
        assert loaded.tokenizer.decode(candidate, skip_special_tokens=True) == text
    endless = dataclasses.replace(example, choices=("the sun " * 50, "air"))
    long, short = batches.encode(loaded, [endless])[0].rows
    assert len(long.token_T) == 24
    first = [row.token_T[row.segment_T == 0].tolist() for row in (long, short)]
    assert first[0] == first[1]  # both candidates are read behind the same words
    assert len(first[0]) > 10


def test_no_example_to_train_on_is_an_error():
    with pytest.raises(ValueError, match="no example"):
        batches.plan_batches([], 4, 1, 0)


@pytest.mark.parametrize(("task", "text"), [("answer", "the moon "), ("code", "    return 1\n"), ("code", "")])
def test_a_written_answer_ends_with_the_end_token_and_a_choice_does_not(folder_of, task, text):
    loaded = tiny.read(folder_of("gpt2"))
    prompt = "def f(x):\n" if task == "code" else "What pulls?"
    row = batches.encode(loaded, [Example("a", "t", task, prompt, (text, "air"))])[0].rows[0]
    for at, one in enumerate((text, "air")):
        own = row.token_P[row.owner_P == at].tolist()
        assert own[-1] == loaded.tokenizer.eos_token_id
        assert own.count(loaded.tokenizer.eos_token_id) == 1
        assert loaded.tokenizer.decode(own[:-1]) == (one if task == "code" else " " + one.strip())
    choice = batches.encode(loaded, [Example("a", "t", "choice", prompt, (text or "x", "air"))])[0].rows[0]
    assert loaded.tokenizer.eos_token_id not in choice.token_P


def test_an_answer_that_is_too_long_loses_its_end_and_the_end_token_with_it(folder_of):
    loaded = dataclasses.replace(tiny.read(folder_of("gpt2")), max_tokens=8)
    example = Example("a", "t", "answer", "What?", ("the stone and the moon and the sun",))
    prompt = tokenizing.encode_prompts(loaded, [example.prompt])[0]
    row = batches.encode(loaded, [example])[0].rows[0]
    assert row.token_T[: row.first + 1].tolist() == prompt  # it is no longer than half of the window
    assert len(row.token_T) == 8  # the prompt, and all of the answer's but its last
    assert " the stone and the moon".startswith(loaded.tokenizer.decode(row.token_P))


def test_a_tokenizer_without_an_end_token_cannot_write(folder_of):
    loaded = tiny.read(folder_of("gpt2"))
    tokenizer = tiny.tokenizer()
    tokenizer.eos_token = None
    tokenizer.bos_token = "[CLS]"
    endless = dataclasses.replace(loaded, tokenizer=tokenizer)
    with pytest.raises(BadInput, match=r"^model.path: .*: its tokenizer has no end token"):
        batches.encode(endless, [Example("a", "t", "answer", "What pulls?", ("air",))])
    assert len(batches.encode(endless, tiny.examples())) == 3


@pytest.mark.parametrize("kind", ["pair", "towers"])
def test_only_a_language_model_takes_written_answers(folder_of, kind):
    loaded = tiny.read(folder_of("bert"), kind=kind)
    with pytest.raises(BadInput, match=f"^model.kind: '{kind}' given for written answers; allowed: lm"):
        batches.encode(loaded, [Example("a", "t", "answer", "What pulls?", ("air", "the moon"))])


def test_on_a_cpu_a_chunk_of_a_wide_model_has_fewer_tokens(folder_of):
    loaded = tiny.read(folder_of("llama"))
    assert batches.most_tokens(loaded) == 16384
    loaded.module.config.hidden_size = 640
    assert batches.most_tokens(loaded) == 1638
    loaded.module.config.hidden_size = 8192
    assert batches.most_tokens(loaded) == 512
