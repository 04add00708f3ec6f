"""Model-written programs are parsed in many threads at once."""

import gc
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from w2s.grading import syntax

PROGRAM = "\n".join(f"x{at} = [(a + b) * c for a in range({at}) if a > {at}]" for at in range(60))


@pytest.fixture
def busy_threads():
    """Threads change often, also while Python makes the objects of a tree."""
    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(20)
    gc.callbacks.append(change)
    yield
    gc.callbacks.remove(change)
    gc.set_threshold(*threshold)
    sys.setswitchinterval(interval)


def change(*_: object) -> None:
    sum(range(50))


def test_threads_parse_at_once(busy_threads):
    with ThreadPoolExecutor(4) as pool:
        trees = list(pool.map(syntax.parse, [PROGRAM] * 200))
    assert {len(tree.body) for tree in trees} == {60}
