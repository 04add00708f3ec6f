"""A member of a reward ensemble as a model of its own."""

from __future__ import annotations

import copy
import dataclasses

from w2s.models.members import Low, Members
from w2s.models.records import Loaded
from w2s.models.train import set_weights


def alone(members: Members, at: int) -> Loaded:
    """Member number `at` as a model of its own, its adapters merged; it shares no memory."""
    state = {}
    for path, split in members.splits.items():
        for name, layer in split.members[at].named_modules():
            here = ".".join(part for part in (path, name) if part)
            if isinstance(layer, Low):
                state[f"{here}.weight"] = layer.merged()
            elif layer is split.members[at]:
                state |= {f"{here}.{key}": value for key, value in layer.named_parameters(recurse=False)}
    module = copy.deepcopy(members.loaded.module)
    set_weights(module, {key: value.detach() for key, value in state.items()})
    return dataclasses.replace(members.loaded, module=module)
