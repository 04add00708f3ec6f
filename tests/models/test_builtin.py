"""The tiny models of the embedded world."""

from __future__ import annotations

import pytest
import torch

from w2s.config.fields import Model
from w2s.models import builtin, load
from w2s.store.records import BadInput

LINES = ["verb_0 anna item_17 zoo", "verb_1 zoo, anna!"]


@pytest.mark.parametrize(("name", "low", "high"), [("weak", 1_000, 1_500), ("strong", 110_000, 125_000)])
def test_they_are_as_small_as_they_are_said_to_be(tmp_path, name, low, high):
    builtin.make(name, [f"w{at}" for at in range(250)], tmp_path, 0)
    module = load.load(Model(path=f"builtin:{name}"), path=str(tmp_path)).module
    assert low < sum(parameter.numel() for parameter in module.parameters()) < high


def test_every_word_and_mark_of_the_corpus_is_a_token_and_others_are_unknown():
    tokenizer = builtin.word_tokenizer(LINES)
    ids = tokenizer("zoo,  anna verb_1! elephant")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["zoo", ",", "anna", "verb_1", "!", "[unk]"]
    assert len(set(tokenizer.get_vocab().values())) == len(tokenizer)


def test_the_order_of_the_lines_does_not_change_the_ids():
    assert builtin.word_tokenizer(LINES).get_vocab() == builtin.word_tokenizer(LINES[::-1]).get_vocab()


def test_a_folder_from_scratch_gives_other_weights_for_every_seed_and_the_same_for_one(tmp_path):
    builtin.make("builtin:weak", LINES, tmp_path, 0, from_scratch=True)
    first, again, other = (
        load.load(Model(path="builtin:weak"), path=str(tmp_path), seed=seed).module.transformer.wte.weight
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("kind", ["pair", "towers"])
def test_a_folder_from_scratch_is_a_reward_model_or_an_encoder_as_well(tmp_path, kind):
    builtin.make("builtin:weak", LINES, tmp_path, 0, from_scratch=True)
    lm, other = (load.load(Model(path="builtin:weak", kind=one), path=str(tmp_path), seed=1) for one in ("lm", kind))
    assert torch.equal(lm.module.base_model.wte.weight, other.module.base_model.wte.weight)
    assert hasattr(other.module, "score") == (kind == "pair")
    load.save(other, tmp_path / "saved")
    again = load.load_folder(tmp_path / "saved").module.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in other.module.state_dict().items())


def test_a_folder_that_is_not_from_scratch_keeps_its_weights_whatever_the_seed(tmp_path):
    builtin.make("weak", LINES, tmp_path, 0)
    one, two = (
        load.load(Model(path="builtin:weak"), path=str(tmp_path), seed=seed).module.transformer.wte.weight
        for seed in (1, 2)
    )
    assert torch.equal(one, two)


def test_making_a_model_leaves_the_random_state_alone(tmp_path):
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    builtin.make("weak", LINES, tmp_path, 0)
    assert torch.equal(torch.rand(2), wanted)


def test_an_unknown_name_is_one_line_with_the_names_that_there_are(tmp_path):
    with pytest.raises(BadInput, match=r"did you mean 'strong'.*builtin:weak, builtin:strong"):
        builtin.make("builtin:strnog", LINES, tmp_path, 0)
