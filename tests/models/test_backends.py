"""How attention is computed and weights are quantised: what is passed on, and the lines where it cannot be."""

from __future__ import annotations

import importlib.util

import pytest
import torch
import transformers

from tests.models import tiny
from w2s.config.fields import Model
from w2s.models import backends, batches, load, score
from w2s.models.internals import is_quantised
from w2s.store.records import BadInput


def scores_of(loaded):
    return score.scores(loaded, batches.collate(loaded, batches.encode(loaded, tiny.examples())))


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt2"])
def test_sdpa_and_eager_give_the_same_scores_also_of_trees(folder_of, architecture):
    found = {attn: tiny.read(folder_of(architecture), attn=attn) for attn in ("auto", "sdpa", "eager")}
    assert found["eager"].module.config._attn_implementation == "eager"
    assert all(loaded.shares_prompt for loaded in found.values())
    for loaded in found.values():
        torch.testing.assert_close(scores_of(loaded), scores_of(found["eager"]), rtol=1e-4, atol=1e-4)


def test_a_saved_model_is_computed_as_it_was_trained(folder_of, tmp_path):
    load.save(tiny.read(folder_of("llama"), attn="eager"), tmp_path)
    assert load.load_folder(tmp_path).module.config._attn_implementation == "eager"


OPTIONS = [
    (Model(attn="flash_attention_2"), "model.attn: 'flash_attention_2' given", "flash_attn"),
    (Model(trainable="lora", quantise="4bit"), "model.quantise: '4bit' given", "bitsandbytes"),
]


@pytest.mark.parametrize(("model", "given", "package"), OPTIONS)
def test_what_is_missing_is_one_line(monkeypatch, model, given, package):
    there = {package: None}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: there[name])
    assert backends.lacking(model, 1) == [f"{given}; it needs the package {package}, which is not installed"]
    there[package] = "spec"
    assert backends.lacking(model, 0) == [f"{given}; it needs a GPU, and there is none"]
    assert backends.lacking(model, 1) == backends.lacking(model, None) == []


@pytest.mark.parametrize(("model", "given", "package"), OPTIONS)
def test_a_model_that_cannot_be_computed_here_is_not_read(monkeypatch, folder_of, model, given, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "spec")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(BadInput, match=given):
        load.load(model, path=str(folder_of("llama")))


def test_flash_attention_reads_a_row_per_candidate(monkeypatch, folder_of):
    wanted = scores_of(tiny.read(folder_of("llama")))
    monkeypatch.setattr(backends, "lacking", lambda *_: [])
    whole, asked = transformers.AutoConfig.from_pretrained, []

    def without_flash(source, attn_implementation=None, **options):
        asked.append(attn_implementation)
        return whole(source, **options)

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", without_flash)
    loaded = tiny.read(folder_of("llama"), attn="flash_attention_2")
    assert asked[0] == "flash_attention_2"
    assert not loaded.shares_prompt
    assert all(len(example.rows) == example.count for example in batches.encode(loaded, tiny.examples()))
    torch.testing.assert_close(scores_of(loaded), wanted, rtol=1e-4, atol=1e-4)


def test_quantisation_is_that_of_qlora_and_leaves_heads_whole(monkeypatch, folder_of):
    given = {}

    def caught(source, **options):
        given.update(options)
        raise BadInput("caught")

    monkeypatch.setattr(backends, "lacking", lambda *_: [])
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", caught)
    for quantise in ("4bit", "8bit"):
        with pytest.raises(BadInput, match="caught"):
            tiny.read(folder_of("llama"), trainable="lora", quantise=quantise)
        config = given["quantization_config"]
        assert isinstance(config, transformers.BitsAndBytesConfig)
        assert (config.load_in_4bit, config.load_in_8bit) == (quantise == "4bit", quantise == "8bit")
        assert {"lm_head", "score", "classifier"} <= set(config.llm_int8_skip_modules)
        assert given["device_map"] == {"": "cpu"}
        if quantise == "4bit":
            assert (config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == ("nf4", True)
            assert config.bnb_4bit_compute_dtype == torch.bfloat16
    given.clear()
    with pytest.raises(BadInput, match="caught"):
        tiny.read(folder_of("llama"))
    assert "quantization_config" not in given


@pytest.mark.parametrize("quantise", ["4bit", "8bit"])
@pytest.mark.parametrize("kind", ["lm", "pair"])
def test_adapters_of_a_quantised_base_are_saved_in_its_full_weights(monkeypatch, tmp_path, quantise, kind):
    """bitsandbytes also runs on CPUs, slowly, which is enough to check what we do with it."""
    modules = pytest.importorskip("bitsandbytes.nn.modules")
    monkeypatch.setattr(modules, "has_avx512bf16", lambda: False)  # in prediction it would store weights otherwise
    monkeypatch.setattr(backends, "lacking", lambda *_: [])
    wide = {**tiny.SMALL, "hidden_size": 128}  # blocks of 64 weights
    llama = transformers.LlamaConfig(**wide, intermediate_size=128, num_key_value_heads=1, pad_token_id=0)
    monkeypatch.setitem(tiny.CONFIGS, "llama", lambda: llama)
    loaded = tiny.read(tiny.write("llama", tmp_path / "base"), kind=kind, trainable="lora", quantise=quantise)
    assert is_quantised(loaded.module)
    parameters = [p for p in loaded.module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    losses = []
    for _ in range(4):
        losses.append(-scores_of(loaded).log_softmax(-1)[:, 0].sum())
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    with torch.no_grad():
        trained = scores_of(loaded)
        load.save(loaded, tmp_path / "saved")
        again = load.load_folder(tmp_path / "saved")
        assert not is_quantised(again.module)
        torch.testing.assert_close(scores_of(again), trained, rtol=0.02, atol=0.1)
