"""What is left of prompts and candidates that are longer than a model's window."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from tests.models import tiny
from w2s.models import batches, members, trl, window
from w2s.models.committee import fitted
from w2s.models.generate import Voice
from w2s.store.records import Example

LONG = "the stone and the moon and the sun " * 20 + "What falls?"


@given(
    prompt=st.integers(1, 60),
    candidates=st.lists(st.integers(0, 60), max_size=4),
    room=st.integers(2, 40),
    lead=st.integers(0, 3),
)
def test_what_is_kept_fits_and_a_prompt_keeps_its_lead_its_end_and_half_of_the_window(prompt, candidates, room, lead):
    whole, texts = list(range(prompt)), [list(range(100, 100 + size)) for size in candidates]
    kept, cut = window.fit(whole, texts, room, min(lead, prompt))
    assert all(len(kept) + len(one) <= room for one in [*cut, []])
    assert len(kept) >= min(prompt, room // 2)
    lead = min(lead, len(kept) - 1)
    assert kept[:lead] == whole[:lead]
    assert kept[lead:] == whole[len(whole) - len(kept) + lead :]
    assert all(one == text[: len(one)] for one, text in zip(cut, texts, strict=True))
    if prompt + max(candidates, default=0) <= room:
        assert (kept, cut) == (whole, texts)


def beginning(loaded, *front, behind=()):
    """The same model with a tokenizer that puts tokens before (and behind) a text."""
    tokenizer = tiny.tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>", "additional_special_tokens": ["<t>", "</s>"]})
    marks = {mark: tokenizer.convert_tokens_to_ids(mark) for mark in ("<s>", "<t>", "</s>")}
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=" ".join([*front, "$A", *behind]), special_tokens=list(marks.items())
    )
    return dataclasses.replace(loaded, tokenizer=tokenizer, max_tokens=24), [marks[one] for one in front]


@pytest.mark.parametrize("front", [["<s>"], ["<s>", "<t>"], []], ids=len)
@pytest.mark.parametrize("task", ["choice", "answer", "code"])
def test_a_row_that_is_cut_begins_as_its_tokenizer_begins_a_text(folder_of, front, task):
    loaded, marks = beginning(tiny.read(folder_of("llama")), *front, behind=["</s>"])
    example = Example("a", "t", task, LONG, ("the stone", "air"))
    (encoded,) = batches.encode(loaded, [example])
    for row in encoded.rows:
        prompt = row.token_T[: row.first + 1].tolist()
        assert prompt[: len(marks)] == marks
        assert loaded.tokenizer.decode(prompt).endswith("What falls?"[-8:])
        assert len(prompt) + max(np.bincount(row.owner_P)) - 1 == 24  # a candidate's last token is not read
    assert loaded.cuts == {"a": (True, False)}


def test_a_prompt_that_is_gone_on_from_keeps_its_first_token_too(folder_of):
    loaded, marks = beginning(tiny.read(folder_of("gpt2")), "<s>")  # reads 128 tokens
    rows, limits, cuts = fitted([Voice(loaded)], [LONG, LONG * 3, "What?"], 100)
    assert [row[0] for row in rows] == marks * 3
    assert [len(row) for row in rows[:2]] == [64, 64]
    assert limits == [64, 64, 100]
    assert cuts == [True, True, False]


@pytest.mark.parametrize("mark", ["<s>", "<t>"])
def test_a_special_token_that_the_prompts_own_text_begins_with_stays_and_is_not_put_there_twice(folder_of, mark):
    loaded, marks = beginning(tiny.read(folder_of("llama")), "<s>")
    (row,) = batches.encode(loaded, [Example("a", "t", "choice", mark + LONG, ("air", "sun"))])[0].rows
    wanted = marks if mark == "<s>" else [*marks, loaded.tokenizer.convert_tokens_to_ids("<t>")]
    assert row.token_T[:3].tolist()[: len(wanted)] == wanted
    assert row.token_T.tolist().count(marks[0]) == 1


def test_one_endless_candidate_leaves_the_prompt_half_of_the_window_for_the_short_one_too(folder_of):
    loaded, _ = beginning(tiny.read(folder_of("llama")), "<s>")
    example = Example("a", "t", "choice", "What falls?", ("the sun", "the moon " * 80))
    (row,) = batches.encode(loaded, [example])[0].rows
    assert loaded.tokenizer.decode(row.token_T[1 : row.first + 1]) == "What falls?"
    assert loaded.tokenizer.decode(row.token_P[row.owner_P == 0]) == " the sun"
    assert loaded.cuts == {"a": (False, True)}


def test_what_fits_is_the_tokenizers_own_row_and_is_no_cut(folder_of):
    for kind in ("pair", "towers"):
        loaded = tiny.read(folder_of("bert"), kind=kind)
        for example, encoded in zip(tiny.examples(), batches.encode(loaded, tiny.examples()), strict=True):
            for text, row in zip(example.choices, encoded.rows, strict=True):
                own = loaded.tokenizer(
                    *([example.prompt, text] if kind == "pair" else [text]), return_token_type_ids=True
                )
                assert row.token_T.tolist() == own["input_ids"]
                assert kind == "towers" or row.segment_T.tolist() == own["token_type_ids"]
            if kind == "towers":
                assert encoded.prompt.token_T.tolist() == loaded.tokenizer(example.prompt)["input_ids"]
        assert not loaded.cuts


@pytest.mark.parametrize("kind", ["pair", "towers"])
def test_an_encoders_rows_keep_their_frame_the_prompts_end_and_the_candidates_beginning(folder_of, kind):
    loaded = tiny.read(folder_of("bert"), kind=kind, max_tokens=24)
    first, last = loaded.tokenizer.cls_token_id, loaded.tokenizer.sep_token_id
    encoded = batches.encode(loaded, [Example("a", "t", "choice", LONG, ("carbon " * 50, "air"))])[0]
    rows = [row.token_T.tolist() for row in (*encoded.rows, *([encoded.prompt] if encoded.prompt else []))]
    assert all(row[0] == first and row[-1] == last and len(row) <= 24 for row in rows)
    assert [row.count(last) for row in rows] == ([2, 2] if kind == "pair" else [1, 1, 1])
    prompt = rows[0][: rows[0].index(last)] if kind == "pair" else rows[-1][:-1]
    assert loaded.tokenizer.decode(prompt).endswith("What falls?")
    assert loaded.tokenizer.decode(rows[0][-6:-1]) in "carbon " * 50
    assert loaded.cuts == {"a": (True, True)}


def test_a_decoder_with_a_head_keeps_its_first_token_and_half_of_the_prompt(folder_of):
    loaded, marks = beginning(tiny.read(folder_of("llama"), kind="pair"), "<s>", behind=["</s>"])
    examples = [Example("a", "t", "answer", LONG, ("the moon " * 60,)), Example("b", "t", "answer", "What?", ("air",))]
    for one in members.encode(loaded, examples):
        row = one.rows[0].token_T.tolist()
        assert row[0] == marks[0]
        assert row[-1] == loaded.tokenizer.convert_tokens_to_ids("</s>")
    long, short = (one.rows[0].token_T.tolist() for one in members.encode(loaded, examples))
    assert "What falls? the moon" in loaded.tokenizer.decode(long)
    assert len(long) == 24
    assert short == loaded.tokenizer("What? air")["input_ids"]
    assert loaded.cuts == {"a": (True, True)}


def test_preference_pairs_keep_the_first_token_and_fit_with_their_last(folder_of):
    loaded, marks = beginning(tiny.read(folder_of("llama")), "<s>")
    (made,) = trl.pair_tokens(loaded, [Example("a", "t", "answer", LONG, ("the moon " * 60, "air"))], [1])
    assert made["prompt_ids"][:1] == marks
    assert len(made["prompt_ids"]) >= 11
    assert len(made["prompt_ids"]) + max(len(made["chosen_ids"]), len(made["rejected_ids"])) <= 24
    assert loaded.cuts == {"a": (True, True)}
