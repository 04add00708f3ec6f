"""Fixtures for every test."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and recordings beside the checkout (or $W2S_SHARED); tests skip where it is missing."""
    folder = Path(os.environ.get("W2S_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared data at {folder}: set W2S_SHARED to a folder with data/ and recorded/")
    return folder
