"""What can be told of a model's folder without reading its weights (and without torch)."""

from __future__ import annotations

import json
import math
from pathlib import Path


def absent(source: str) -> str | None:
    """Why there is no model at `source`; None where there is one, or where it can be a name on the hub."""
    is_local = source.startswith((".", "/", "~")) or Path(source).exists()
    if is_local and not (Path(source) / "config.json").is_file():
        return f"{source}: there is no such folder, or it has no config.json"
    return None


def depth(source: str) -> float:
    """How many layers the model has by its config.json; infinite where that does not say."""
    try:
        return int(json.loads((Path(source) / "config.json").read_text())["num_hidden_layers"])
    except (OSError, ValueError, KeyError, TypeError):  # whoever reads the model says what is wrong with it
        return math.inf
