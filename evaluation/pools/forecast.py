"""How long each method will take on a large pool; infeasible methods are left out."""

import math
import time
import tracemalloc
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import psutil

from w2s.ensemble.ballots import NotApplicable
from w2s.pools.methods import apply, fit
from w2s.pools.records import Opinions, Truth
from w2s.store.log import duration, say

LARGE = 50_000  # questions; below, all methods together take minutes
LONG_S = 3600.0
FIRST_TRIAL, ENOUGH_S = 2_000, 0.3


def choose_feasible(
    specs: Sequence[Mapping[str, Any]], named: Sequence[str], opinions: Opinions, truth: Truth, repeats: int
) -> tuple[list[Mapping[str, Any]], dict[str, str]]:
    """The methods to judge, and why others are left out, by name: over an hour of CPU, or more than the free memory.

    Methods that are `named`, rather than included by family or by "all", run however long they take. Time and memory
    are extrapolated from fits on a few thousand questions.
    """
    if len(opinions.ids) < LARGE:
        return list(specs), {}
    room, expected = free_bytes(), {}
    for spec in specs:
        with suppress(NotApplicable):  # the judge will say so
            expected[spec["name"]] = forecast(spec, opinions, truth, repeats)
    order = sorted(expected, key=lambda name: -expected[name][0])
    times = ", ".join(f"{name} {duration(expected[name][0])}" for name in order)
    say(f"expected CPU time on {len(opinions.ids):,} questions: {times}")
    left_out = {}
    for name in order:
        seconds, size = expected[name]
        why = f"about {duration(seconds)} of CPU" if seconds > LONG_S else ""
        why = why or (f"about {size / 2**30:.1f} GiB of memory, {room / 2**30:.1f} are free" if size > room else "")
        if why and name not in named:
            left_out[name] = f"not feasible on {len(opinions.ids):,} questions: {why} (--methods {name} runs it)"
            say(f"left out: {name}: {left_out[name]}")
    return [spec for spec in specs if spec["name"] not in left_out], left_out


def forecast(spec: Mapping[str, Any], opinions: Opinions, truth: Truth, repeats: int) -> tuple[float, float]:
    """(CPU seconds, bytes) of judging and fitting one method on all questions, by how both grow over some trials."""
    known, trials = np.flatnonzero(truth.known_N), []
    size = FIRST_TRIAL
    trial(spec, opinions, truth, known[:: -(-len(known) // 500)])  # one-time loading is not counted
    while size <= len(known) and (len(trials) < 2 or trials[-1][1] < ENOUGH_S):
        rows = known[np.linspace(0, len(known) - 1, size).astype(int)]
        trials.append((size, trial(spec, opinions, truth, rows)))
        size *= 4
    if len(trials) < 2:
        return 0.0, 0.0
    (few, before), (many, seconds) = trials[-2:]
    tracemalloc.start()  # in a run of its own: it slows what makes many objects
    try:
        trial(spec, opinions, truth, rows)
        memory = float(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    power = min(max(math.log(max(seconds, 1e-4) / max(before, 1e-4)) / math.log(many / few), 1.0), 2.0)
    larger = len(known) / many
    return (2 * repeats + 1) * seconds * larger**power, memory * larger


def trial(spec: Mapping[str, Any], opinions: Opinions, truth: Truth, rows: np.ndarray) -> float:
    """CPU seconds of a fit on half of the rows and its answers to the other half."""
    (here, gold), (new, _) = ((opinions.questions(part), truth.questions(part)) for part in (rows[::2], rows[1::2]))
    began = time.thread_time()
    apply(fit(spec, here, gold), new)
    return time.thread_time() - began


def free_bytes() -> float:
    """Memory available to this process, including the system's file cache."""
    return float(psutil.virtual_memory().available)
