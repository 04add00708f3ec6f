"""Every table of methods by name. A table is imported only when it is needed: some bring torch or scikit-learn."""

import importlib
from typing import Any

from w2s.config.registry import did_you_mean
from w2s.store.records import BadInput

TABLES = {
    "sources": "w2s.data.sources:SOURCES",
    "difficulty": "w2s.data.difficulty:DIFFICULTY",
    "prompts": "w2s.prompts:PROMPTS",
    "boosters": "w2s.boosting.adaboost:BOOSTERS",
    "combiners": "w2s.ensemble.combiners:COMBINERS",
    "alphas": "w2s.ensemble.alphas:ALPHAS",
    "selectors": "w2s.ensemble.selection:SELECTORS",
    "pairs": "w2s.rewards.pairs:PAIRS",
    "preferences": "w2s.data.preferences:PREFERENCES",
    "aggregators": "w2s.rewards.aggregators:AGGREGATORS",
    "objectives": "w2s.models.objectives:OBJECTIVES",
    "combine": "w2s.pools.methods:METHODS",
    "combine_families": "w2s.pools.methods:FAMILIES",
    "combine_apply": "w2s.pools.methods:APPLY",
    "combine_online": "w2s.pools.methods:ONLINE",
    "merges": "w2s.merging.methods:MERGES",
    "kinds": "w2s.models.kinds:KINDS",
    "losses": "w2s.models.losses:LOSSES",
    "pipelines": "w2s.models.pipelines:PIPELINES",
}
"""Name -> module:dict. A name is what `w2s methods` and plug-ins call the table."""
UNNAMED = ("combine_families", "combine_apply", "combine_online")
"""Tables of parts of methods, which no config names."""


def load_table(name: str, key: str = "table") -> dict[str, Any]:
    """The table {method's name: function} itself, not a copy; `key` begins the BadInput for an unknown name.

    In the table kinds a name stands for a record (`models.records.Kind`).
    """
    if name not in TABLES:
        raise BadInput(f"{key}: {name!r} is not known{did_you_mean(name, TABLES)}; it can be: {', '.join(TABLES)}")
    module, _, attribute = TABLES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
