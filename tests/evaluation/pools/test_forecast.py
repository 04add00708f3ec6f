"""What a large pool takes, told before it begins."""

import time

import numpy as np
import pytest

from tests.pools.made import made_up
from w2s.evaluation.pools import forecast as pool_forecast
from w2s.evaluation.pools.forecast import choose_feasible
from w2s.pools.methods import METHODS
from w2s.pools.records import Fitted


def best(opinions, truth) -> Fitted:
    return Fitted("member", opinions.members[:1], {})


def slow(opinions, truth) -> Fitted:
    """CPU time that grows with the square of the questions: 40 hours for a million."""
    until = time.thread_time() + 3e-7 * len(opinions.ids) ** 2
    while time.thread_time() < until:
        pass
    return best(opinions, truth)


def large(opinions, truth) -> Fitted:
    np.ones((len(opinions.ids), 1000))
    return best(opinions, truth)


@pytest.fixture
def pool(monkeypatch):
    """A pool that counts as large, with two methods that are not for it."""
    for name, method in (("slow", slow), ("large", large)):
        monkeypatch.setitem(METHODS, name, method)
    monkeypatch.setattr(pool_forecast, "LARGE", 1000)
    monkeypatch.setattr(pool_forecast, "FIRST_TRIAL", 100)
    monkeypatch.setattr(pool_forecast, "ENOUGH_S", 0.05)
    return made_up(questions=3000)


SPECS = [{"name": name} for name in ("best_single", "slow", "large")]


def test_what_takes_too_long_or_too_much_memory_is_left_out_and_all_is_said_beforehand(pool, monkeypatch, capsys):
    monkeypatch.setattr(pool_forecast, "LONG_S", 4.0)  # the squares of 1500 questions take 0.7 s, eleven times
    monkeypatch.setattr(pool_forecast, "free_bytes", lambda: 10e6)  # 1000 numbers for each question take 12 MB
    kept, left_out = choose_feasible(SPECS, ["plurality"], *pool, repeats=5)
    assert [one["name"] for one in kept] == ["best_single"]
    assert "of CPU (--methods slow runs it)" in left_out["slow"]
    assert "GiB of memory" in left_out["large"]
    said = capsys.readouterr().err
    assert "expected CPU time on 3,000 questions: slow " in said
    assert said.count("left out: ") == 2
    kept, left_out = choose_feasible(SPECS, ["slow", "large"], *pool, repeats=5)
    assert kept == SPECS
    assert not left_out


def test_a_small_pool_needs_no_forecast(capsys):
    assert choose_feasible(SPECS, [], *made_up(questions=50), repeats=5) == (SPECS, {})
    assert not capsys.readouterr().err
