"""What the configuration says about itself is what the code checks."""

import dataclasses
import json
from pathlib import Path

import pytest

from w2s.config import registry
from w2s.config.fields import Config
from w2s.config.reference import describe_keys, describe_methods, make_schema, meanings
from w2s.config.tables import TABLES, load_table
from w2s.config.values import leaves
from w2s.store.records import BadInput

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(path for path in CONFIGS.rglob("*.yaml") if path.parent.name != "pools")  # these are of `w2s combine`


def test_the_reference_has_every_key_with_type_range_default_and_meaning():
    text = describe_keys()
    for leaf in leaves(Config()):
        assert f"\n{leaf.key}: " in text
    assert (
        "\nstudent.train.lr: a number (above 0) (default 5e-05)\n    Highest learning rate, reached after the warm-up"
    ) in text
    assert '\nlabel.combiner: a mapping (a method of combiners) (default {"name": "soft_vote"})\n' in text
    assert {key for key in registry.keys_below(Config) if f"\n{key}: " in text} >= {"limit", "rewards.study.held_out"}


def test_a_subclass_has_the_meanings_of_its_base():
    from w2s.config.fields import Learner, Student

    assert set(meanings(Student)) == set(meanings(Learner)) | {"objective", "start"}


def test_the_schema_beside_the_configs_is_the_code_s():
    assert json.loads((CONFIGS / "schema.json").read_text()) == make_schema(), "w2s config schema > configs/schema.json"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_config_of_the_repository_names_the_schema(path):
    first = path.read_text().splitlines()[0]
    name = first.removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / name).resolve() == CONFIGS / "schema.json"


def test_the_schema_knows_ranges_and_methods_with_their_options():
    definitions = make_schema()["definitions"]
    assert definitions["Train"]["properties"]["lr"]["exclusiveMinimum"] == 0
    assert definitions["Data"]["properties"]["near"]["anyOf"][0] == {"type": "number", "minimum": 0, "maximum": 1}
    combiners = {entry["properties"]["name"]["const"]: entry for entry in definitions["combiners"]["oneOf"]}
    assert set(combiners) == set(load_table("combiners"))
    assert set(combiners["soft_vote"]["properties"]) == {
        "name",
        *registry.options(load_table("combiners")["soft_vote"]),
    }
    sources = {entry["properties"]["name"]["const"]: entry["required"] for entry in definitions["sources"]["oneOf"]}
    assert sources["file"] == ["name", "path"]


def test_methods_are_described_by_table():
    assert describe_methods("alphas").startswith("alphas\n  boosting ")
    with pytest.raises(
        BadInput, match=r"table: 'alpha' is not known \(did you mean 'alphas'\?\); it can be: sources, "
    ):
        describe_methods("alpha")


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_a_dict_of_functions_that_is_not_copied(name):
    assert load_table(name) is load_table(name)
    assert all(callable(m) or isinstance(m, dict) or dataclasses.is_dataclass(m) for m in load_table(name).values())
