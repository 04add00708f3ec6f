"""A tiny base model, questions and labels, as job folders want them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from w2s.store.records import Example, PseudoLabels, example_id, write_arrays, write_rows

WORDS = [f"w{n}" for n in range(40)]
QUESTIONS = 96


def questions() -> list[Example]:
    """'most ? w3 w9 w1 =' with two to four candidates; the highest number is right."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(QUESTIONS):
        chosen = tuple(rng.permutation(WORDS)[: rng.integers(2, 5)].tolist())
        prompt = f"most ? {' '.join(chosen)} ="
        made.append(Example(example_id("tiny", prompt, chosen), "tiny", "choice", prompt, chosen))
    return made


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A folder with base/ (random weights), corpus.txt, examples.jsonl and labels.npz."""
    from w2s.models import builtin

    folder = tmp_path_factory.mktemp("tiny")
    examples = questions()
    lines = [f"most {' '.join(e.choices)}" for e in examples] + ["? ="]
    (folder / "corpus.txt").write_text("\n".join(lines))
    builtin.make("weak", lines, folder / "base", 0)
    write_rows(folder / "examples.jsonl", examples)
    target_NK = np.zeros((len(examples), 4))
    for at, example in enumerate(examples):
        target_NK[at, int(np.argmax([int(choice[1:]) for choice in example.choices]))] = 1
    ids = np.array([e.id for e in examples])
    labels = PseudoLabels(ids, target_NK, np.ones(len(ids)), np.full(len(ids), "kept"))
    write_arrays(folder / "labels.npz", labels)
    return folder


@pytest.fixture
def finetune_job(tiny, tmp_path) -> Callable[..., Path]:
    """finetune_job(name, train={...}, **job) -> a folder with that job.json."""

    def write(name: str, train: dict | None = None, **values) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        settings = {"steps": 12, "batch": 8, "lr": 1e-2, **(train or {})}
        job = {
            "worker": "finetune",
            "learner": {"model": {"path": "builtin:weak"}, "train": settings},
            "path": str(tiny / "base"),
            "seed": 1,
            "examples": str(tiny / "examples.jsonl"),
            "labels": str(tiny / "labels.npz"),
            "runtime": {},
            **values,
        }
        (folder / "job.json").write_text(json.dumps(job))
        return folder

    return write


def read_history(folder: Path) -> dict:
    return json.loads((folder / "train.json").read_text())
