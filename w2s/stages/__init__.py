"""The work of each stage: `(here, inputs, tools, *, options) -> facts`.

`here` is the stage's unfinished folder, `inputs` are the folders of its parents by role, and every option is part of
the stage's key. `tools` must not change results. Tensors live in the workers; stages handle job folders and NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s.config.fields import Runtime
from w2s.store.records import Example, Gold

if TYPE_CHECKING:
    from w2s.rewards.pairs import DrawnPairs

Inputs = Mapping[str, Path]
Facts = dict[str, Any]


def find_set(inputs: Inputs, on: str) -> Path:
    """The file of a set's examples: in the parent named after the set, else in `questions`."""
    return inputs[on if on in inputs else "questions"] / f"{on}.jsonl"


@dataclass(frozen=True)
class Place:
    """Where a model is on this machine, and a hash of what is there."""

    path: Path
    """A folder, or a GGUF file; absolute."""
    content: str


@dataclass(frozen=True)
class Tools:
    """What stages need, but results must not depend on."""

    runtime: Runtime
    rows: Callable[[int], tuple[list[Example], list[Gold]]]
    """seed -> all questions of the run's sources and their gold."""
    suite_rows: Callable[[str], tuple[list[Example], list[Gold]]]
    """Name of a further suite -> its questions and their gold."""
    run_job: Callable[[Path], Any]
    """Does the job in a folder (see jobs.do_job, jobs.Workers.run)."""
    recorded: Path | None = None
    """The folder of recorded labels, if the run has one."""
    preferences: Callable[[], DrawnPairs] | None = None
    """-> the preference pairs that reward models are trained on, if any."""
    models: Mapping[str, Place] = field(default_factory=dict)
    """model.path -> where it is, for every model of the config that is read from this machine."""
