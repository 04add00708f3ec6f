"""The sandbox's tests run wherever there is a sandbox."""

import pytest

from w2s.sandbox.tiers import Unsafe, tier


@pytest.fixture(autouse=True)
def walls() -> str:
    try:
        return tier()
    except Unsafe as error:
        pytest.skip(str(error))
