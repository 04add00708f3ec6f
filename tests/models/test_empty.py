"""Every batch can be empty, every row can have ended: of no rows is made what is made of some, in kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.models import tiny
from w2s.boosting.tokens import gathered
from w2s.models import (
    adapters,
    batches,
    committee,
    encode,
    generate,
    kinds,
    members,
    pipelines,
    ranks,
    rows,
    score,
    tokens,
    window,
)
from w2s.models import tokenizing as cut
from w2s.store.records import BadInput, Example
from w2s.workers import sample


@pytest.fixture(scope="module")
def writer(folder_of):
    return tiny.read(folder_of("gpt2"))


@pytest.mark.parametrize("stop", [["x"], ["x", "\n\n"]])
def test_when_every_row_has_ended_none_has_just_completed_a_stop_text(writer, stop):
    made_BT, ended_B = torch.full((3, 5), 7), torch.zeros(3, dtype=torch.bool)
    found = generate.holds(made_BT, ended_B, stop, writer.tokenizer)
    assert (found.dtype, found.tolist()) == (torch.bool, [False] * 3)
    some = generate.holds(made_BT, ~ended_B, stop, writer.tokenizer)
    assert some.dtype == found.dtype
    assert not generate.holds(made_BT[:0], ended_B[:0], stop, writer.tokenizer).numel()


def test_all_rows_ending_at_once_with_a_stop_text_is_no_error(writer):
    whole = next(committee.decode([writer], ["the moon"], [1.0], max_new_tokens=6))[0]
    stop = [writer.tokenizer.decode(whole.tokens[:1])]
    found = next(committee.decode([writer], ["the moon"] * 3, [1.0], max_new_tokens=6, stop=stop))
    assert [(one.text, one.ended) for one in found] == [("", True)] * 3


def test_rows_of_no_token_are_whole_numbers(writer):
    for made in rows.pad_left([[], []], 0, torch.device("cpu")):
        assert (made.dtype, made.shape) == (torch.long, (2, 0))


def test_no_prompt_is_no_text(writer):
    assert cut.encode_prompts(writer, []) == []
    assert cut.encode_continuations(writer, [], []) == []
    assert window.lead_of(writer.tokenizer, []) == []
    assert committee.fitted([generate.Voice(writer)], [], 5) == ([], [], [])
    assert list(committee.decode([writer], [], [1.0])) == []
    assert list(committee.plan([], [], None, [generate.Voice(writer)])) == []


@pytest.mark.parametrize("kind", ["lm", "pair", "towers"])
def test_no_example_is_no_row_and_no_score_for_every_kind_of_model(folder_of, kind):
    loaded = tiny.read(folder_of("gpt2" if kind == "lm" else "bert"), kind=kind)
    assert batches.encode(loaded, []) == []
    assert kinds.KINDS[kind].encode(loaded, [], []) == []
    assert list(score.predict(loaded, [])) == []
    assert not loaded.cuts


def test_an_example_without_a_candidate_has_rows_of_whole_numbers(writer):
    (one,) = batches.encode(writer, [Example("a", "t", "answer", "the moon", ())])
    arrays = [one.rows[0].token_T, one.rows[0].owner_P, one.rows[0].from_P, one.rows[0].token_P]
    assert [array.dtype for array in arrays] == [np.int64] * 4
    assert one.count == 0
    both = [one, *batches.encode(writer, tiny.examples()[:1])]
    with torch.no_grad():
        scores_BK = score.scores(writer, batches.collate(writer, both))
    assert scores_BK.isneginf().tolist() == [[True] * 3, [False] * 3]


def test_no_example_has_no_reward(folder_of):
    loaded = tiny.read(folder_of("bert"), kind="pair")
    judge = members.join(loaded, members.Ensemble("heads", 2))
    assert members.encode(loaded, []) == []
    assert list(members.rewards(judge, [])) == []
    ((at, scores_MNK),) = members.rewards(judge, [Example("a", "t", "answer", "the moon", ())])
    assert (at.tolist(), scores_MNK.shape, scores_MNK.dtype) == ([0], (2, 1, 0), np.float64)


def test_nothing_to_plan_is_no_chunk(writer):
    assert batches.plan_chunks([], 10) == []
    assert ranks.plan([], 300, 16384) == []
    assert list(ranks.rank_chunks([[writer]], [1.0], [])) == []


def test_no_token_has_no_weight_and_is_said(writer):
    with pytest.raises(ValueError, match="there is no token to weigh"):
        tokens.layout(writer, [])


def test_a_batch_without_a_first_text_has_no_targets_of_the_right_kind(writer):
    none = sample.make_targets(writer, [], [], 4, "t")
    assert (none.ids.dtype.kind, none.length_N.dtype, none.token_TJ.dtype) == ("U", np.int64, np.int32)
    assert none.token_TJ.shape == none.prob_TJ.shape == (0, 4)
    texts = next(committee.decode([writer], ["the moon"], [1.0], max_new_tokens=3, top=4))
    one = sample.make_targets(writer, [Example("a", "t", "answer", "the moon", ())], texts, 4, "t")
    assert gathered([none, one, none], np.array(["a"])).ids.tolist() == ["a"]


def test_no_question_has_no_candidate_for_a_pipeline():
    rows, owner_R, at_R = pipelines.candidate_rows([])
    assert (rows, owner_R.dtype.kind, at_R.dtype.kind) == ([], "i", "i")
    assert pipelines.score(None, []).shape == (0, 1)


def test_no_text_has_no_vector(folder_of):
    assert encode.encode(folder_of("bert"), []).shape == (0, 32)


def test_no_adapter_is_refused(writer):
    with pytest.raises(BadInput, match="none given"):
        adapters.share(writer, [])
