"""mergekit's configurations: what they become, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from w2s.config.registry import pick
from w2s.merging import mergekit
from w2s.merging.methods import MERGES
from w2s.store.records import BadInput

TWO = [{"model": "a", "parameters": {"weight": 2}}, {"model": "b", "parameters": {"weight": 1}}]


def read(tmp_path: Path, **config) -> mergekit.Recipe:
    (tmp_path / "merge.yml").write_text(yaml.safe_dump(config))
    return mergekit.read(tmp_path / "merge.yml")


def test_every_method_is_one_of_ours(tmp_path):
    for name, (method, _) in mergekit.METHODS.items():
        recipe = read(
            tmp_path, merge_method=name, base_model="base", models=TWO,
            parameters={} if name in ("linear", "model_stock") else {"normalize": True},
        )  # fmt: skip
        pick(MERGES, recipe.method)
        assert recipe.models == ["a", "b"]
        assert recipe.method["name"] == method["name"]


def test_parameters_become_options_and_unnormalised_weights_a_scale(tmp_path):
    recipe = read(
        tmp_path, merge_method="ties", base_model="base", dtype="bfloat16",
        models=[{"model": "base"}, {"model": "a", "parameters": {"density": 0.4, "weight": 0.5}},
                {"model": "b", "parameters": {"density": 0.4}}],
        parameters={"normalize": True, "lambda": 1.5, "int8_mask": True},
    )  # fmt: skip
    assert (recipe.models, recipe.weights, recipe.base) == (["a", "b"], [0.5, 1.0], "base")
    assert recipe.method == {"name": "ties", "density": 0.4}
    assert (recipe.scale, recipe.dtype) == (1.5, "bfloat16")
    added = read(tmp_path, merge_method="task_arithmetic", base_model="base", models=TWO, parameters={"lambda": 0.5})
    assert (added.weights, added.scale) == ([2, 1], 1.5)  # W0 + 0.5 (2 a + b), as 1.5 times the mean of weights 2 : 1
    assert read(tmp_path, merge_method="dare_linear", base_model="base", models=TWO).notes


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"merge_method": "passthrough"}, "merge_method: 'passthrough' given; allowed: linear"),
        ({"slices": []}, "slices: not one of ours"),
        ({"tokenizer_source": "union"}, "tokenizer_source: 'union' given; allowed: base"),
        ({"base_model": None}, "base_model: missing; ties needs it"),
        ({"models": ["a"]}, "models: a list of {model, parameters} is expected"),
        ({"parameters": {"density": [0.1, 0.9]}}, "parameters.density: [0.1, 0.9] given; allowed: one number"),
        ({"parameters": {"normalize": False}}, "parameters.normalize: false for ties"),
        ({"parameters": {"rescale": 1}}, "parameters.rescale: not one of ours"),
        ({"models": [*TWO, {"model": "c", "parameters": {"weight": -1}}]}, "weight: -1 given; allowed: 0 or more"),
        ({"models": [*TWO, {"model": "c", "parameters": {"density": 0.5}}]}, "density: 0.5, None given"),
        ({"dtype": "int8"}, "dtype: 'int8' given"),
    ],
)
def test_what_we_cannot_do_is_a_line_each_that_names_the_file(tmp_path, config, words):
    with pytest.raises(BadInput) as refused:
        read(tmp_path, **{"merge_method": "ties", "base_model": "base", "models": TWO} | config)
    lines = str(refused.value).splitlines()
    assert any(words in line for line in lines)
    assert all(line.startswith(str(tmp_path)) for line in lines)


@pytest.mark.parametrize("content", ["", "- a", "a: [", "models: {{"])
def test_what_is_no_configuration_is_one_line(tmp_path, content):
    (tmp_path / "merge.yml").write_text(content)
    with pytest.raises(BadInput) as refused:
        mergekit.read(tmp_path / "merge.yml")
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("file", sorted((Path(__file__).parents[2] / "configs" / "merging").glob("*.yml")))
def test_the_published_settings_are_read(file):
    recipe = mergekit.read(file)
    assert recipe.base == "meta-llama/Llama-2-13b-hf"
    assert recipe.dtype == "float16"
    pick(MERGES, recipe.method)
