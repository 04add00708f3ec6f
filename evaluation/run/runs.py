"""A finished run, opened: its artifacts by what they are, everybody's judged answers, and every metric."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from w2s.boosting.tokens import by_row
from w2s.data.duplicates import remove_leaks
from w2s.evaluation.run.metrics import MODELS, Answers, difficulty_bins, judge, judge_outcomes, measure, measure_samples
from w2s.store.artifacts import check_artifact, hash_file, read_listing, read_manifest, read_sealed, write_sealed
from w2s.store.hidden import reveal_values
from w2s.store.records import (
    Example,
    Gold,
    Metric,
    Outcome,
    Predictions,
    TokenWeights,
    Weights,
    load_arrays,
    read_arrays,
    read_rows,
    take,
)

SUITE = "hard_test"


@dataclasses.dataclass(frozen=True)
class Artifact:
    """One stage of the run, as stages.json lists it."""

    name: str
    folder: Path
    tags: Mapping[str, Any]

    @property
    def path(self) -> Path:
        """The folder, to read from: a damaged artifact is a BadInput."""
        return check_artifact(self.folder)

    @property
    def manifest(self) -> dict[str, Any]:
        return read_manifest(self.folder)


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run, opened."""

    folder: Path
    artifacts: tuple[Artifact, ...]
    config: dict[str, Any]
    command: str

    def outcomes(self, suite: str, **tags: Any) -> list[Artifact]:
        """Who wrote texts for the suite, judged."""
        return [a for a in self.find("outcomes", suite=suite, **tags) if (a.path / "outcomes.jsonl").exists()]

    def find(self, kind: str, **tags: Any) -> list[Artifact]:
        wanted = {"kind": kind, **tags}
        return [a for a in self.artifacts if all(a.tags.get(key) == value for key, value in wanted.items())]

    @property
    def seeds(self) -> list[int]:
        return list(self.config["seeds"])

    @functools.cached_property
    def written(self) -> bool:
        """Whether its questions have no choices: everybody writes short answers or programs."""
        return any(row.task != "choice" for row in questions_of(self, self.seeds[0], SUITE).values())

    @functools.cached_property
    def leaked(self) -> dict[tuple[str, int], set[str]]:
        """(further suite, seed) -> its questions that repeat one trained on: they count nowhere."""
        suites = sorted({a.tags["suite"] for a in self.find("suite")})
        return {(suite, seed): leaks(self, suite, seed) for suite in suites for seed in self.seeds}


def open_run(folder: Path) -> Run:
    """The run as its stages.json lists it; a BadInput where that or config.yaml is not as the run wrote it."""
    from omegaconf import OmegaConf

    listed, store = read_listing(folder), folder.parent / "store"
    artifacts = tuple(Artifact(s["name"], store / s["folder"], s["tags"]) for s in listed["stages"])
    config = reveal_values(OmegaConf.to_container(OmegaConf.load(folder / "config.yaml")))
    return Run(folder, artifacts, config, listed["command"])


def measure_run(run: Run) -> tuple[Answers, list[Metric]]:
    """Everybody's answers to hard_test, and every metric of every suite."""
    answers = answers_to(run, SUITE)
    _, bin_of = bins(run)
    metrics = measure(SUITE, answers, bins=bin_of)
    for suite in sorted({a.tags["suite"] for a in run.find("suite")}):
        texts = run.outcomes(suite)
        metrics += pass_metrics(suite, texts, run.leaked) if texts else measure(suite, answers_to(run, suite))
    return answers, metrics


def answers_to(run: Run, suite: str) -> dict[int, dict[str, Any]]:
    """seed -> model -> its judged answers to the suite: outcomes where texts were written for it, else opinions."""
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    for seed in run.seeds:
        leaked, texts = run.leaked.get((suite, seed), set()), run.outcomes(suite, seed=seed)
        for artifact in texts:
            if artifact.tags["model"] in MODELS:
                found[seed][artifact.tags["model"]] = judge_outcomes(outcomes_of(artifact, leaked))
        gold = gold_of(run, suite, seed)
        for artifact in run.find("opinion", seed=seed) if not texts else ():
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


def outcomes_of(artifact: Artifact, leaked: Container[str] = ()) -> list[Outcome]:
    return [row for row in read_rows(artifact.path / "outcomes.jsonl", Outcome) if row.id not in leaked]


def pass_metrics(
    suite: str, texts: Sequence[Artifact], leaked: Mapping[tuple[str, int], Container[str]] | None = None
) -> list[Metric]:
    """pass@k of each model over the texts (short answers, programs) that it sampled; one not judged has not passed.

    leaked: (suite, seed) -> questions that count nowhere.
    """
    found: dict[str, dict[int, list[tuple[str, int, int]]]] = defaultdict(dict)
    for artifact in texts:
        tasks: dict[str, list[Outcome]] = defaultdict(list)
        for outcome in outcomes_of(artifact, (leaked or {}).get((suite, artifact.tags["seed"]), ())):
            tasks[outcome.id].append(outcome)
        rows = [(key, len(all_), sum(o.correct is True for o in all_)) for key, all_ in tasks.items()]
        if rows:  # not all of them repeat what was trained on
            found[artifact.tags["model"]][artifact.tags["seed"]] = rows
    return [metric for model, seeds in found.items() for metric in measure_samples(suite, model, seeds)]


def read_texts(path: Path) -> dict[str, list[tuple[str, float]]]:
    """id -> the texts that were written for it, each with its log-probability."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {row["id"]: list(zip(row["texts"], row["logps"], strict=True)) for row in rows}


def row_weights(folder: Path) -> Weights:
    """What each question weighs after the round in `folder`: where tokens have weights, the sum of its tokens'."""
    by_token = "weight_T" in load_arrays(folder / "weights.npz")
    weights = read_arrays(folder / "weights.npz", TokenWeights if by_token else Weights)
    return by_row(weights)[0] if by_token else weights


def answer_text(row: Example, answer: int | str) -> str:
    """A gold answer in words: the choice, the short answer or the reference program."""
    return row.choices[int(answer)] if row.task == "choice" else str(answer)


def gold_of(run: Run, suite: str, seed: int) -> dict[str, int | str]:
    (artifact,) = run.find("gold", seed=seed, split=suite) or run.find("suite_gold", suite=suite)
    return {row.id: row.answer for row in read_rows(artifact.path / "gold.jsonl", Gold)}


def questions_of(run: Run, seed: int, split: str) -> dict[str, Example]:
    (artifact,) = run.find("questions", seed=seed)
    return {row.id: row for row in read_rows(artifact.path / f"{split}.jsonl", Example)}


def bins(run: Run) -> tuple[tuple[str, ...], dict[str, str]]:
    hardness = {key: row.meta["hardness"] for seed in run.seeds for key, row in questions_of(run, seed, SUITE).items()}
    labels, bin_of = difficulty_bins(hardness, count=run.config["evaluation"]["bins"])
    return (labels, bin_of) if len(labels) > 1 else ((), {})


def keep_said(folder: Path, stamp: str, verdict: str, *pages: str) -> None:
    """report.json: the verdict, what it depends on, and the pages as they were written."""
    hashes = {page: hash_file(folder / page) for page in pages}
    write_sealed(folder / "report.json", {"stamp": stamp, "verdict": verdict, "pages": hashes})


def said_before(folder: Path, stamp: str) -> str | None:
    """The verdict of a report with the same stamp; None where there is none, or a page of it is damaged or gone."""
    told = read_sealed(folder / "report.json") or {}
    pages = told.get("pages", {}).items()
    whole = all((folder / page).is_file() and hash_file(folder / page) == digest for page, digest in pages)
    return told["verdict"] if whole and told.get("stamp") == stamp else None
