"""A finished run, opened: its artifacts by kind, the judged answers of its models, its metrics, and its finish."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from w2s.boosting.tokens import by_row
from w2s.data.duplicates import remove_leaks
from w2s.evaluation.run.metrics import (
    MODELS,
    Answers,
    difficulty_bins,
    judge,
    judge_outcomes,
    measure,
    measure_samples,
    write_metrics,
)
from w2s.store.artifacts import check_artifact, hash_file, read_listing, read_manifest, read_sealed, write_sealed
from w2s.store.hidden import reveal_values
from w2s.store.log import say
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
        """The folder, checked for reading; BadInput if the artifact is damaged."""
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
        """The judged texts that models wrote for the suite."""
        return [a for a in self.find("outcomes", suite=suite, **tags) if (a.path / "outcomes.jsonl").exists()]

    def find(self, kind: str, **tags: Any) -> list[Artifact]:
        """The artifacts of a kind with these tags."""
        items = {"kind": kind, **tags}.items()
        return [a for a in self.artifacts if all(a.tags.get(key) == value for key, value in items)]

    @property
    def seeds(self) -> list[int]:
        return list(self.config["seeds"])

    @functools.cached_property
    def written(self) -> bool:
        """Whether the questions have no choices, so that models write short answers or programs."""
        return any(row.task != "choice" for row in questions_of(self, self.seeds[0], SUITE).values())

    @functools.cached_property
    def leaked(self) -> dict[tuple[str, int], set[str]]:
        """(further suite, seed) -> its questions that repeat one trained on: they count nowhere."""
        suites = sorted({a.tags["suite"] for a in self.find("suite")})
        return {(suite, seed): leaks(self, suite, seed) for suite in suites for seed in self.seeds}


def open_run(folder: Path) -> Run:
    """The run as stages.json lists it; BadInput if that or config.yaml is not as the run wrote it."""
    from omegaconf import OmegaConf

    listed, store = read_listing(folder), folder.parent / "store"
    artifacts = tuple(Artifact(s["name"], store / s["folder"], s["tags"]) for s in listed["stages"])
    config = reveal_values(OmegaConf.to_container(OmegaConf.load(folder / "config.yaml")))
    return Run(folder, artifacts, config, listed["command"])


def measure_run(run: Run) -> tuple[Answers, list[Metric]]:
    """The answers of all models to hard_test, and the metrics of every suite."""
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
    """Questions of a further suite that repeat a training question; the split keeps hard_test free of them."""
    (artifact,) = run.find("suite", suite=suite)
    trained = [row for split in ("easy_fit", "transfer") for row in questions_of(run, seed, split).values()]
    rows = read_rows(artifact.path / f"{suite}.jsonl", Example)
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
    """The weight of each question after the round in `folder`; the sum over its tokens where these have weights."""
    by_token = "weight_T" in load_arrays(folder / "weights.npz")
    weights = read_arrays(folder / "weights.npz", TokenWeights if by_token else Weights)
    return by_row(weights)[0] if by_token else weights


def answer_text(row: Example, answer: int | str) -> str:
    """A gold answer as text: the choice, the short answer or the reference program."""
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


# --- finishing -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Findings:
    """The results of a study. `write_pages` writes its pages to the folder of the run and returns their names."""

    verdict: str
    metrics: Sequence[Metric]
    write_pages: Callable[[], list[str]]


def finish_study(folder: Path, measure_study: Callable[[Run], Findings], *, again: bool = False) -> str:
    """metrics.json and the pages of a run whose stages are all complete; returns the verdict, a sentence.

    Nothing is written again while the stages and the settings of the evaluation stay the same, unless `again`.
    """
    run = open_run(folder)
    stamp = stamp_report(run)
    if not again and (verdict := read_verdict(folder, stamp)):
        return verdict
    say(f"{run.config['name']}: measuring, and writing the report")
    findings = measure_study(run)  # reads everything before anything is written
    write_metrics(
        folder / "metrics.json", run.config["name"], findings.verdict, findings.metrics, limit=run.config.get("limit")
    )
    pages = {page: hash_file(folder / page) for page in ("metrics.json", *findings.write_pages())}
    write_sealed(folder / "report.json", {"stamp": stamp, "verdict": findings.verdict, "pages": pages})
    return findings.verdict


def stamp_report(run: Run) -> str:
    """A hash of what a report depends on: the artifacts and the settings of the evaluation."""
    settings = [run.config.get(key) for key in ("name", "rewards", "evaluation")]
    recipe = json.dumps([settings, [artifact.folder.name for artifact in run.artifacts]], sort_keys=True)
    return hashlib.sha256(recipe.encode()).hexdigest()


def read_verdict(folder: Path, stamp: str) -> str | None:
    """The verdict of a report with the same stamp; None without one, or where one of its pages is damaged or gone."""
    report = read_sealed(folder / "report.json") or {}
    pages = report.get("pages", {}).items()
    whole = all((folder / page).is_file() and hash_file(folder / page) == digest for page, digest in pages)
    return report["verdict"] if whole and report.get("stamp") == stamp else None
