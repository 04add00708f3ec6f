"""A finished run, opened: its artifacts by what they are, everybody's judged answers, and every metric."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.metrics import MODELS, Answers, difficulty_bins, judge, measure, measure_samples
from w2s.data.duplicates import remove_leaks
from w2s.records import Example, Gold, Metric, Outcome, Predictions, read_arrays, read_rows, take
from w2s.store import read_manifest

SUITE = "hard_test"


@dataclasses.dataclass(frozen=True)
class Artifact:
    """One stage of the run, as stages.json lists it."""

    name: str
    path: Path
    tags: Mapping[str, Any]

    @property
    def manifest(self) -> dict[str, Any]:
        return read_manifest(self.path)


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run, opened."""

    folder: Path
    artifacts: tuple[Artifact, ...]
    config: dict[str, Any]
    command: str

    def find(self, kind: str, **tags: Any) -> list[Artifact]:
        wanted = {"kind": kind, **tags}
        return [a for a in self.artifacts if all(a.tags.get(key) == value for key, value in wanted.items())]

    @property
    def seeds(self) -> list[int]:
        return list(self.config["seeds"])


def open_run(folder: Path) -> Run:
    from omegaconf import OmegaConf

    listed = json.loads((folder / "stages.json").read_text())
    store = folder.parent / "store"
    artifacts = tuple(Artifact(s["name"], store / s["folder"], s["tags"]) for s in listed["stages"])
    config = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    return Run(folder, artifacts, config, listed["command"])


def measure_run(run: Run) -> tuple[Answers, list[Metric]]:
    """Everybody's answers to hard_test, and every metric of every suite."""
    draws = run.config["evaluation"]["draws"]
    answers = answers_to(run, SUITE)
    _, bin_of = bins(run)
    metrics = measure(SUITE, answers, bins=bin_of, draws=draws)
    for suite in sorted({a.tags["suite"] for a in run.find("suite")}):
        programs = [a for a in run.find("outcomes") if a.tags["suite"] == suite]
        metrics += code_metrics(suite, programs) if programs else measure(suite, answers_to(run, suite), draws=draws)
    return answers, metrics


def answers_to(run: Run, suite: str) -> dict[int, dict[str, Any]]:
    """seed -> model -> its judged answers to the suite."""
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    for seed in run.seeds:
        gold = gold_of(run, suite, seed)
        leaked = set() if suite == SUITE else leaks(run, suite, seed)
        for artifact in run.find("opinion", seed=seed):
            path = artifact.path / f"{suite}.npz"
            if artifact.tags["model"] in MODELS and path.exists():
                opinion = read_arrays(path, Predictions)
                clean_N = np.array([key not in leaked for key in opinion.ids.tolist()])
                found[seed][artifact.tags["model"]] = judge(take(opinion, clean_N), gold)
    return dict(found)


def leaks(run: Run, suite: str, seed: int) -> set[str]:
    """Questions of a further suite that repeat a question trained on (hard_test has none: the split saw to it)."""
    (asked,) = run.find("suite", suite=suite)
    trained = [row for split in ("easy_fit", "transfer") for row in questions_of(run, seed, split).values()]
    rows = read_rows(asked.path / f"{suite}.jsonl", Example)
    near = run.config["data"]["near"]
    return {leak.removed for leak in remove_leaks(rows, trained, near=near)[1]}


def code_metrics(suite: str, programs: Sequence[Artifact]) -> list[Metric]:
    """pass@k of each model over its sampled programs."""
    found: dict[str, dict[int, list[tuple[str, int, int]]]] = defaultdict(dict)
    for artifact in programs:
        tasks: dict[str, list[Outcome]] = defaultdict(list)
        for outcome in read_rows(artifact.path / "outcomes.jsonl", Outcome):
            tasks[outcome.id].append(outcome)
        rows = [(key, len(all_), sum(o.correct is True for o in all_)) for key, all_ in tasks.items()]
        found[artifact.tags["model"]][artifact.tags["seed"]] = rows
    return [metric for model, seeds in found.items() for metric in measure_samples(suite, model, seeds)]


def gold_of(run: Run, suite: str, seed: int) -> dict[str, int]:
    (artifact,) = run.find("gold", seed=seed, split=suite) or run.find("suite_gold", suite=suite)
    return {row.id: row.answer for row in read_rows(artifact.path / "gold.jsonl", Gold)}


def questions_of(run: Run, seed: int, split: str) -> dict[str, Example]:
    (artifact,) = run.find("questions", seed=seed)
    return {row.id: row for row in read_rows(artifact.path / f"{split}.jsonl", Example)}


def bins(run: Run) -> tuple[tuple[str, ...], dict[str, str]]:
    hardness = {key: row.meta["hardness"] for seed in run.seeds for key, row in questions_of(run, seed, SUITE).items()}
    labels, bin_of = difficulty_bins(hardness, count=run.config["evaluation"]["bins"])
    return (labels, bin_of) if len(labels) > 1 else ((), {})
