"""Hidden states of candidates: what they are, that batches do not matter, and the files that hold them."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.models import tiny
from w2s.config.fields import Model
from w2s.models import states
from w2s.models.encoders import encode_pair
from w2s.store.records import BadInput

ARCHITECTURES = ["llama", "gemma3_text", "gpt2", "bert"]


def read(folder, examples=None, **fields):
    examples = examples or tiny.examples()
    loaded = states.load_body(Model(path=str(folder), kind="probe", **fields))
    return states.join(list(states.make_states(loaded, examples)), np.array([row.id for row in examples])), loaded


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_state_does_not_depend_on_the_batch(folder_of, architecture, pooling, monkeypatch):
    together, _ = read(folder_of(architecture), pooling=pooling)
    assert together.count_N.tolist() == [3, 4, 2]
    monkeypatch.setattr(states, "CHUNK_TOKENS", 1)
    monkeypatch.setattr(states, "BATCH_TOKENS", 1)
    alone, _ = read(folder_of(architecture), pooling=pooling)
    assert together.states_RD.dtype == np.float16
    assert alone.states_RD == pytest.approx(together.states_RD, rel=5e-3, abs=5e-3)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_a_state_is_what_the_last_kept_layer_says_after_the_final_norm(folder_of, architecture):
    whole = states.load_body(Model(path=str(folder_of(architecture)), kind="probe"))
    made, _ = read(folder_of(architecture), layers=1)
    means, _ = read(folder_of(architecture), layers=1, pooling="mean")
    rows = [
        row for one in encode_pair(whole, states.worded(whole, tiny.examples()), tiny.examples()) for row in one.rows
    ]
    for at, row in enumerate(rows):
        with torch.inference_mode():
            hidden = whole.module(torch.tensor(row.token_T)[None], output_hidden_states=True).hidden_states
            after_TD = whole.module.norm(hidden[1])[0]
        assert made.states_RD[at] == pytest.approx(after_TD[-1].numpy(), rel=2e-3, abs=2e-3)
        assert means.states_RD[at] == pytest.approx(after_TD.mean(0).numpy(), rel=2e-3, abs=2e-3)


def test_states_beyond_float16_are_refused(folder_of):
    loaded = states.load_body(Model(path=str(folder_of("llama")), kind="probe"))
    loaded.module.norm.weight.data.fill_(1e6)
    with pytest.raises(BadInput, match=r"model.layers: the hidden states of .* at layer last .* beyond float16"):
        list(states.make_states(loaded, tiny.examples()))


def test_written_states_come_back_in_any_order_and_a_missing_question_is_named(folder_of, tmp_path):
    made, _ = read(folder_of("llama"))
    states.write_states(tmp_path, made)
    examples = tiny.examples()[::-1]
    back = states.read_states(tmp_path, examples)
    assert back.ids.tolist() == [row.id for row in examples]
    np.testing.assert_array_equal(back.states_RD, made.states_RD[[7, 8, 3, 4, 5, 6, 0, 1, 2]])
    assert len(states.read_states(tmp_path, []).states_RD) == 0
    other = dataclasses.replace(examples[0], choices=("a", "b", "c"))
    with pytest.raises(BadInput, match=f"the question {other.id} with 3 candidates is not among these states"):
        states.read_states(tmp_path, [other])
    (tmp_path / states.STATES).write_bytes(b"no")
    with pytest.raises(BadInput, match=r"states.npy: not readable"):
        states.read_states(tmp_path, examples)


def test_no_question_has_no_states_and_a_long_one_is_noted_as_cut(folder_of):
    loaded = states.load_body(Model(path=str(folder_of("llama")), kind="probe"), max_tokens=12)
    assert list(states.make_states(loaded, [])) == []
    list(states.make_states(loaded, tiny.examples()))
    assert loaded.cuts[tiny.examples()[2].id][0]
