"""How many prompts and answers did not fit into a model: `done.json` keeps it, and the pipeline says it in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from w2s.models.load import Loaded
from w2s.models.train import World
from w2s.store.records import Example


def count(
    loaded: Loaded, sets: Mapping[str, Sequence[Example]], by: str, world: World, *, tokens: int | None = None
) -> dict[str, Any]:
    """{"cut": {set: {"prompts", "answers", "of", "tokens", "by"}}} of the sets in which something was cut, or {}.

    "prompts" lost their beginning, "answers" had one whose end was lost, of "of" questions. Every process must call it,
    once it has encoded the examples that `make_parts` gives it (or all).
    """
    found_S2 = torch.zeros(len(sets), 2, dtype=torch.long)
    for at, rows in enumerate(sets.values()):
        for example in rows[world.rank :: world.size]:
            found_S2[at] += torch.tensor(loaded.cuts.get(example.id, (False, False)))
    told = {
        name: {"prompts": prompts, "answers": answers, "of": len(rows), "tokens": tokens or loaded.max_tokens, "by": by}
        for (name, rows), (prompts, answers) in zip(sets.items(), world.sum(found_S2).tolist(), strict=True)
        if prompts or answers
    }
    return {"cut": told} if told else {}
