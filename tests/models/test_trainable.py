"""Which parameters learn: the last layers, and adapters beside chosen layers."""

from __future__ import annotations

import pytest

from tests.models import tiny
from w2s.models.internals import lora_layers
from w2s.store.records import BadInput


def learning(loaded) -> set[str]:
    return {name for name, parameter in loaded.module.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("architecture", "layers", "norm"),
    [
        ("llama", "model.layers", "model.norm.weight"),
        ("gemma3_text", "model.layers", "model.norm.weight"),
        ("gpt2", "transformer.h", "transformer.ln_f.weight"),
        ("gpt_neox", "gpt_neox.layers", "gpt_neox.final_layer_norm.weight"),
    ],
)
def test_top_names_the_last_layers_and_the_norm_after_them(folder_of, architecture, layers, norm):
    every = learning(tiny.read(folder_of(architecture)))
    top = learning(tiny.read(folder_of(architecture), trainable="top", top=1))
    assert {name for name in top if layers in name} == {name for name in every if f"{layers}.1." in name}
    rest = {name for name in top if layers not in name}
    assert norm in rest
    assert all(name.rpartition(".")[0] == norm.rpartition(".")[0] for name in rest)
    both = learning(tiny.read(folder_of(architecture), trainable="top", top=2))
    assert {name for name in both if layers in name} == {name for name in every if layers in name}


def test_a_classification_head_learns_with_the_last_layers(folder_of):
    decoder = learning(tiny.read(folder_of("llama"), kind="pair", trainable="top", top=1))
    assert "score.weight" in decoder
    assert "model.norm.weight" in decoder
    encoder = learning(tiny.read(folder_of("bert"), kind="pair", trainable="top", top=1))
    assert {"classifier.weight", "bert.pooler.dense.weight"} < encoder
    assert not any("embeddings" in name or "layer.0" in name for name in encoder)


def test_more_top_layers_than_there_are_is_one_line(folder_of):
    with pytest.raises(BadInput, match=r"model\.top: 3 given; allowed: at most 2"):
        tiny.read(folder_of("llama"), trainable="top", top=3)
    with pytest.raises(BadInput, match=r"model\.top: 2 given; allowed: at most 1"):
        tiny.read(folder_of("llama"), trainable="top", top=2, layers=1)


def adapted(loaded) -> set[str]:
    return {path for path, _ in lora_layers(loaded.module, "default")}


@pytest.mark.parametrize(("architecture", "ends"), [("llama", ["q_proj", "v_proj"]), ("gpt2", ["attn.c_proj"])])
def test_adapters_go_beside_the_layers_whose_path_ends_in_a_target(folder_of, architecture, ends):
    every = adapted(tiny.read(folder_of(architecture), trainable="lora"))
    chosen = adapted(tiny.read(folder_of(architecture), trainable="lora", lora_targets=ends))
    assert chosen == {path for path in every if path.endswith(tuple(f".{end}" for end in ends))}
    assert len(chosen) == 2 * len(ends)


def test_a_target_is_a_whole_name_and_an_unknown_one_lists_the_layers(folder_of):
    for unknown in ("proj", "q_projection"):
        with pytest.raises(BadInput, match=rf"lora_targets: '{unknown}' given.*: q_proj, k_proj, v_proj, o_proj, gate"):
            tiny.read(folder_of("llama"), trainable="lora", lora_targets=["v_proj", unknown])
