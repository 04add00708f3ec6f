"""The configuration's types: frozen, explained, and with values that can be compared."""

import dataclasses
import re
import typing

import pytest

from w2s.config import fields as config
from w2s.config.fields import Config
from w2s.config.reference import meanings
from w2s.config.values import describe, leaves

SECTIONS = (config.Sizes, config.Data, config.Boosting, config.Labels, config.Evaluation, config.Runtime)


def test_every_field_is_explained_in_a_sentence_of_its_own_and_every_section_too():
    for leaf in leaves(Config()):
        meaning = meanings(leaf.section)[leaf.name]
        assert len(meaning.split()) >= 3, leaf.key
        assert meaning.endswith(".") or "." in meaning, leaf.key
        assert not re.match(r"(Of|For) (these|this|them) \w+\.$", meaning), leaf.key
        assert leaf.section.__doc__
        assert not leaf.section.__doc__.startswith(f"{leaf.section.__name__}("), "the signature that dataclass makes"


def test_a_config_cannot_be_changed_and_equal_ones_are_equal():
    assert Config() == Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().name = "other"


def test_every_field_has_a_type_that_values_can_be_checked_by():
    for kind in (*SECTIONS, config.Model, config.Train, config.Controls):
        for name, hint in typing.get_type_hints(kind).items():
            if not dataclasses.is_dataclass(hint):
                assert not describe(hint).startswith("<"), f"{kind.__name__}.{name}"
