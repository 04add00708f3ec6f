"""What we lean on in other libraries beyond their promises: each thing by name, and what breaks where it is gone."""

from __future__ import annotations

import inspect
import os

import peft
import pytest
import torch
import transformers
import trl
from torch import nn
from transformers.cache_utils import DynamicCache, DynamicLayer, LinearAttentionLayer
from transformers.pytorch_utils import Conv1D

from tests.models import tiny
from tests.models.voices import PROMPTS, texts, transformers_texts
from w2s.models import engine, generate, internals
from w2s.models.trl import checkpointing


def test_transformers_cache_is_called_cache_or_past_key_values_and_comes_back_by_that_name(folder_of):
    for architecture in ("llama", "gpt2"):
        module = tiny.read(folder_of(architecture)).module
        name = internals.cache_name(module)
        out = module(input_ids=torch.tensor([[5, 6]]), use_cache=True, **{name: None})
        assert out[name].get_seq_length() == 2


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_a_model_of_either_name_is_asked_by_the_one_that_it_has(folder_of, name):
    loaded = tiny.read(folder_of("llama"))
    wanted, inner = texts([loaded], PROMPTS, [1.0], max_new_tokens=5), loaded.module.forward

    own = internals.cache_name(loaded.module)

    class Out(dict):
        logits = property(lambda self: self["logits"])

    def new(input_ids, attention_mask, position_ids, cache, use_cache):
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
        out = inner(**given, **{own: cache}, use_cache=use_cache)
        return Out({"logits": out.logits, name: out[own]})

    def old(input_ids, attention_mask, position_ids, past_key_values, use_cache):
        return new(input_ids, attention_mask, position_ids, past_key_values, use_cache)

    loaded.module.forward = new if name == "cache" else old
    assert internals.cache_name(loaded.module) == name
    assert texts([loaded], PROMPTS, [1.0], max_new_tokens=5) == wanted


def test_transformers_dynamic_layer_grows_by_update_and_ours_gives_the_very_same_with_room(folder_of):
    loaded = tiny.read(folder_of("llama"))
    reader = generate.Reader(generate.Voice(loaded))
    with torch.inference_mode():
        reader.read(torch.tensor([[5, 6, 7]]), torch.ones(1, 3, dtype=torch.long))
    assert {type(layer) for layer in reader.cache.layers} == {internals.Roomy}
    torch.manual_seed(0)
    plain, cache = DynamicCache(), DynamicCache()
    for size in (3, 1, 1, 40, 1):
        keys, values = torch.randn(2, 2, 1, size, 4).unbind(0)
        keys, values = keys.transpose(0, 1)[None, 0], values.transpose(0, 1)[None, 0]
        wanted, found = plain.update(keys, values, 0), cache.update(keys, values, 0)
        internals.make_room(cache)
        assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))
        assert cache.get_seq_length() == plain.get_seq_length()
    assert type(cache.layers[0]) is internals.Roomy
    assert cache.layers[0].rooms["keys"].shape[-2] > cache.get_seq_length()
    assert type(plain.layers[0]) is DynamicLayer


def test_transformers_caches_drop_rows_and_those_of_state_spaces_do_not():
    cache = DynamicCache()
    keys = torch.randn(3, 1, 2, 4)
    cache.update(keys, keys, 0)
    internals.make_room(cache)
    cache.update(keys, keys, 0)
    assert internals.can_drop_rows(cache)
    cache.batch_select_indices(torch.tensor([2, 0]))
    fresh = keys[[2, 0]]
    found, _ = cache.update(fresh, fresh, 0)
    assert torch.equal(found, torch.cat([fresh, fresh, fresh], 2))
    cache.layers.append(LinearAttentionLayer())
    assert not internals.can_drop_rows(cache)
    assert not internals.can_drop_rows(((keys, keys),))


def test_layers_that_do_more_than_grow_and_foreign_caches_are_left_alone(folder_of):
    loaded = tiny.read(folder_of("gemma2"))
    reader = generate.Reader(generate.Voice(loaded))
    with torch.inference_mode():
        reader.read(torch.tensor([[5, 6, 7]]), torch.ones(1, 3, dtype=torch.long))
    assert any(layer.is_sliding and type(layer) is not internals.Roomy for layer in reader.cache.layers)
    internals.make_room(((torch.zeros(1), torch.zeros(1)),))
    internals.make_room(None)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
def test_texts_are_those_of_transformers_generate_token_for_token(folder_of, architecture):
    loaded = tiny.read(folder_of(architecture))
    wanted = [
        loaded.tokenizer.decode(row, skip_special_tokens=True)
        for row in transformers_texts(loaded, PROMPTS, max_new_tokens=45)
    ]
    assert [row[0] for row in texts([loaded], PROMPTS, [1.0], max_new_tokens=45)] == wanted


def test_transformers_conv1d_keeps_its_weights_transposed():
    layer = Conv1D(3, 5)  # outputs, inputs
    assert layer.weight.shape == (5, 3)
    assert [internals.is_turned(one) for one in (layer, nn.Linear(5, 3))] == [True, False]
    assert [internals.is_linear(one) for one in (layer, nn.Linear(5, 3), nn.Embedding(5, 3))] == [True, True, False]


def test_transformers_activations_are_computed_again_when_asked(folder_of):
    module = tiny.read(folder_of("llama")).module.train()
    internals.checkpoint_activations(module)
    assert any(getattr(one, "gradient_checkpointing", False) for one in module.modules())
    name = checkpointing()
    assert name in inspect.signature(trl.DPOConfig).parameters


def test_torch_modules_are_copied_around_the_same_weights():
    tree = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)))
    twin = internals.copied(tree, {"1.0": nn.Identity()})
    assert isinstance(tree._modules["1"]._modules["0"], nn.Linear)
    assert isinstance(twin[1][0], nn.Identity)
    assert twin[0] is not tree[0]
    assert twin[0].weight is tree[0].weight


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_peft_lora_layers_have_the_names_that_we_read(folder_of, architecture):
    module = tiny.read(folder_of(architecture)).module
    before = {key: value.clone() for key, value in module.state_dict().items()}
    paths = [path for path, one in module.base_model.named_modules() if internals.is_linear(one)]
    config = peft.LoraConfig(r=2, target_modules=paths, init_lora_weights=False)
    config.fan_in_fan_out = architecture == "gpt2"
    peft.inject_adapter_in_model(config, module)
    found = dict(internals.lora_layers(module, "default"))
    assert len(found) == len(paths)
    assert internals.without_lora(module) == {path: layer.base_layer for path, layer in found.items()}
    assert all(internals.is_plain_lora(layer, "default") and not layer.merged for layer in found.values())
    trained = [name for name, one in module.named_parameters() if one.requires_grad and internals.is_trained(name)]
    assert len(trained) == 2 * len(paths)
    merged = internals.merged(module, module.state_dict())
    assert merged.keys() == before.keys()
    for layer in found.values():
        layer.merge()
    for path, layer in found.items():
        torch.testing.assert_close(merged[f"{path}.weight"], layer.base_layer.weight)
        assert not torch.equal(merged[f"{path}.weight"], before[f"{path}.weight"])


def test_deepspeed_has_the_names_that_engine_sets_and_reads():
    deepspeed = engine.import_deepspeed()
    assert "deepspeed_shm_comm" in deepspeed.ops.__compatible_ops__
    assert deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] is False  # else a first start compiles for a minute
    assert os.environ["DS_ACCELERATOR"]
    engine.skip_shared_memory_operator(object())  # where the name is gone, it compiles as it always did
    layer = nn.Linear(1, 1)
    assert not engine.is_sliced(layer)
    layer.weight.ds_id = 0
    assert engine.is_sliced(layer)


@pytest.mark.parametrize("trainer", [trl.GRPOTrainer, trl.RLOOTrainer])
def test_trl_trainers_have_the_two_private_methods_that_are_replaced(trainer):
    assert list(inspect.signature(trainer._tokenize_prompts).parameters) == ["self", "prompts"]
    assert list(inspect.signature(trainer._generate_single_turn).parameters)[:2] == ["self", "prompt_ids"]


def test_trl_accelerate_and_the_trainer_have_the_other_names_that_we_read():
    from accelerate.state import AcceleratorState
    from huggingface_hub import constants
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config
    from transformers.trainer_callback import PrinterCallback
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    assert callable(unset_hf_deepspeed_config)
    assert isinstance(AcceleratorState.deepspeed_plugin, property)
    assert hasattr(constants, "HF_HUB_DISABLE_TELEMETRY")
    assert issubclass(PrinterCallback, transformers.TrainerCallback)
    rows = [{"prompt_ids": [1], "chosen_ids": [2, 3], "rejected_ids": [4]}]
    assert DataCollatorForPreference(pad_token_id=0)(rows)["input_ids"].tolist() == [[1, 2, 3], [1, 4, 0]]
