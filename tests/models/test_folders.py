"""A model's folder that claims what it does not hold: one line, before any memory is taken for it."""

import json
import shutil
import struct
from pathlib import Path

import pytest

from w2s.cli import main
from w2s.config.fields import Model
from w2s.models import builtin, folders
from w2s.models.load import load
from w2s.store.records import BadInput


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    builtin.make("strong", ["one two three"], folder, seed=0)
    return folder


@pytest.fixture
def model(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


def change(model: Path, **values) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | values))


def refused(model: Path, told: str, tiny_config: Path, capsys) -> None:
    """By the check of a config, and by the loader, with no traceback and in one line."""
    for key in ("student", "learners.0"):
        with pytest.raises(SystemExit) as caught:
            main(["plan", str(tiny_config), f"{key}.model.path={model}", f"{key}.model.kind=lm"])
        line = capsys.readouterr().err
        assert caught.value.code == 2
        assert told in line
        assert line.count("\n") == 1
    with pytest.raises(BadInput, match=r"model\.path") as caught:
        load(Model(path=str(model)))
    assert told in str(caught.value)


def test_a_whole_folder_is_read(model, tiny_config, capsys):
    assert folders.absent(str(model)) is None
    count, elements = folders.held(model)
    assert 20 < count < 100
    assert elements > 64 * 64
    load(Model(path=str(model)))


@pytest.mark.parametrize("key", ["n_layer", "num_hidden_layers", "num_layers", "encoder_layers", "num_local_experts"])
def test_more_parts_than_the_weights_hold_are_refused_before_they_are_built(model, tiny_config, capsys, key):
    change(model, **{key: 10_000_000})
    refused(model, f"config.json: {key}: 10000000 given; its weights hold", tiny_config, capsys)


@pytest.mark.parametrize("key", ["num_labels", "n_positions", "vocab_size", "n_embd"])
def test_a_size_above_all_numbers_of_the_weights_is_refused(model, tiny_config, capsys, key):
    change(model, **{key: 1_000_000_000})
    refused(model, f"config.json: {key}: 1000000000 given; its weights hold", tiny_config, capsys)


@pytest.mark.parametrize(
    "values",
    [{"n_head": 0}, {"n_layer": "two"}, {"n_layer": 2.5}, {"dtype": "x"}, {"vocab_size": -1}],
)
def test_what_transformers_stumbles_over_is_one_line(model, values):
    change(model, **values)
    with pytest.raises(BadInput, match=r"model\.path: .*not readable: ") as caught:
        load(Model(path=str(model)))
    assert "\n" not in str(caught.value)


def test_parts_of_a_part_are_counted_too(model, tiny_config, capsys):
    change(model, text_config={"num_hidden_layers": 10_000_000})
    refused(model, "config.json: num_hidden_layers: 10000000 given", tiny_config, capsys)


@pytest.mark.parametrize("text", ["[]", "", "null", "{", "\0", "[" * 100_000], ids=range(6))
def test_a_config_that_is_no_mapping_is_told(model, tiny_config, capsys, text):
    (model / "config.json").write_text(text)
    refused(model, "config.json is damaged", tiny_config, capsys)


@pytest.mark.parametrize(
    "name", ["../other/model.safetensors", "/etc/passwd", "..", "sub/model.safetensors", "./model.safetensors"]
)
def test_an_index_that_leads_out_of_the_folder_is_refused(model, tiny_config, capsys, name):
    (model / folders.INDEX).write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": name}}))
    refused(model, f"names {name!r}; allowed: files of this folder", tiny_config, capsys)


@pytest.mark.parametrize("text", ["[]", "{}", "{", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_an_index_of_another_shape_is_told(model, tiny_config, capsys, text):
    (model / folders.INDEX).write_text(text)
    refused(model, "is damaged: a mapping of tensors to files is expected", tiny_config, capsys)


@pytest.mark.parametrize("size", [2**34, 2**63, 0, 10**6])
def test_a_header_that_claims_more_than_the_file_takes_no_memory(model, size):
    data = (model / folders.WEIGHTS).read_bytes()
    (model / folders.WEIGHTS).write_bytes(struct.pack("<Q", size) + data[8:])
    with pytest.raises(BadInput, match=r"model\.path: .*not readable"):
        load(Model(path=str(model)))
