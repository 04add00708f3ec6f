"""The configuration's types: frozen, explained, and with values that can be compared."""

import dataclasses
import inspect
import typing

import pytest

from w2s.config import fields as config
from w2s.config.fields import Config

SECTIONS = (config.Sizes, config.Data, config.Boosting, config.Labels, config.Evaluation, config.Runtime)


@pytest.mark.parametrize("kind", SECTIONS, ids=lambda kind: kind.__name__)
def test_fields_are_explained(kind):
    body = inspect.getsource(kind)
    assert body.count('"""') // 2 >= len(dataclasses.fields(kind)) / 2


def test_a_config_cannot_be_changed_and_equal_ones_are_equal():
    assert Config() == Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().name = "other"


def test_every_field_has_a_type_that_values_can_be_checked_by():
    from w2s.config.registry import describe

    for kind in (*SECTIONS, config.Model, config.Train, config.Controls):
        for name, hint in typing.get_type_hints(kind).items():
            if not dataclasses.is_dataclass(hint):
                assert not describe(hint).startswith("<"), f"{kind.__name__}.{name}"
