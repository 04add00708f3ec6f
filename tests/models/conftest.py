"""One folder per tiny model, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models import tiny


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory):
    """architecture -> folder of a tiny random model."""
    made: dict[str, Path] = {}

    def folder(architecture: str) -> Path:
        if architecture not in made:
            made[architecture] = tiny.write(architecture, tmp_path_factory.mktemp(architecture))
        return made[architecture]

    return folder
