"""A finished run, opened: its artifacts by kind, the judged answers of its models, its metrics, and its finish."""

import dataclasses
import functools
import hashlib
import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from w2s.data.duplicates import remove_leaks
from w2s.evaluation.run import metrics as measured
from w2s.evaluation.run.metrics import MODELS, Answers, judge, judge_outcomes, measure
from w2s.models.gguf import NOT_QUANTISED
from w2s.store import records
from w2s.store.artifacts import check_artifact, hash_file, read_listing, read_manifest, read_sealed, write_sealed
from w2s.store.hidden import reveal_values
from w2s.store.log import say
from w2s.store.records import Example, Gold, Metric, Outcome, Predictions, read_arrays, read_rows

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

    def find(self, kind: str, **tags: Any) -> list[Artifact]:
        """The artifacts of a kind with these tags."""
        items = {"kind": kind, **tags}.items()
        return [a for a in self.artifacts if all(a.tags.get(key) == value for key, value in items)]

    def outcomes(self, suite: str, **tags: Any) -> list[Artifact]:
        """The judged texts that models wrote for the suite."""
        return [a for a in self.find("outcomes", suite=suite, **tags) if (a.path / "outcomes.jsonl").exists()]

    def questions(self, split: str, seed: int) -> dict[str, Example]:
        """id -> question, of a split of the run's own questions."""
        (artifact,) = self.find("questions", seed=seed)
        return {row.id: row for row in read_rows(artifact.path / f"{split}.jsonl", Example)}

    def gold(self, suite: str, seed: int) -> dict[str, int | str]:
        """id -> right answer, of the easy questions, a split or a further suite."""
        (artifact,) = self.find("gold", seed=seed, split=suite) or self.find("suite_gold", suite=suite)
        return {row.id: row.answer for row in read_rows(artifact.path / "gold.jsonl", Gold)}

    @property
    def seeds(self) -> list[int]:
        return list(self.config["seeds"])

    @property
    def suites(self) -> list[str]:
        """The further suites."""
        return sorted({artifact.tags["suite"] for artifact in self.find("suite")})

    @functools.cached_property
    def written(self) -> bool:
        """Whether the questions have no choices, so that models write short answers or programs."""
        return any(row.task != "choice" for row in self.questions(SUITE, self.seeds[0]).values())

    @functools.cached_property
    def skipped(self) -> dict[str, dict[int, str]]:
        """Model -> seed -> why it was not trained."""
        found: dict[str, dict[int, str]] = defaultdict(dict)
        for artifact in self.find("model"):
            if words := artifact.manifest["facts"].get("skipped"):
                found[artifact.tags["model"]][artifact.tags["seed"]] = words
        return dict(found)

    @functools.cached_property
    def leaked(self) -> dict[tuple[str, int], set[str]]:
        """(further suite, seed) -> its questions that repeat a training question and are not counted. The split keeps
        hard_test free of them."""
        leaked = {}
        for artifact, seed in itertools.product(self.find("suite"), self.seeds):
            suite = artifact.tags["suite"]
            trained = [row for split in ("easy_fit", "transfer") for row in self.questions(split, seed).values()]
            rows = read_rows(artifact.path / f"{suite}.jsonl", Example)
            _, leaks = remove_leaks(rows, trained, near=self.config["data"]["near"])
            leaked[suite, seed] = {leak.removed for leak in leaks}
        return leaked

    @functools.cached_property
    def bins(self) -> tuple[tuple[str, ...], dict[str, str]]:
        """(bins of the hard test from easy to hard, {id: bin}); empty if all questions are equally hard."""
        hardness = {key: row.meta["hardness"] for s in self.seeds for key, row in self.questions(SUITE, s).items()}
        labels, bin_of = measured.difficulty_bins(hardness, count=self.config["evaluation"]["bins"])
        return (labels, bin_of) if len(labels) > 1 else ((), {})


def open_run(folder: Path) -> Run:
    """The run as stages.json lists it; BadInput if that or config.yaml has changed since the run."""
    from omegaconf import OmegaConf

    listed, store = read_listing(folder), folder.parent / "store"
    artifacts = tuple(Artifact(s["name"], store / s["folder"], s["tags"]) for s in listed["stages"])
    config = reveal_values(OmegaConf.to_container(OmegaConf.load(folder / "config.yaml")))
    return Run(folder, artifacts, config, listed["command"])


def quantised_bases(run: Run) -> list[str]:
    """A sentence for each base model that was read from quantised weights."""
    found = (describe_quantised(artifact.tags["model"], artifact.manifest) for artifact in run.find("base"))
    return [words for words in found if words]


def describe_quantised(model: str, manifest: Mapping[str, Any]) -> str | None:
    """What the report says of a base model's manifest if its weights were quantised."""
    kind = manifest["facts"].get("quantised", "F32")
    if kind in NOT_QUANTISED:
        return None
    return f"the base model {model} is read from a GGUF file whose weights are quantised to {kind}"


def find_teacher(run: Run) -> str:
    """The model whose labels the student learns from."""
    names = {artifact.tags["model"] for artifact in run.find("labels")}
    return next(name for name in ("rewarded", "merged", "committee") if name in names or name == "committee")


def measure_run(run: Run) -> tuple[Answers, list[Metric]]:
    """The answers of all models to hard_test, and the metrics of every suite."""
    answers = answers_to(run, SUITE)
    teacher = find_teacher(run)
    metrics = measure(SUITE, answers, bins=run.bins[1], teacher=teacher)
    for model, seeds in run.skipped.items():
        if not any(model in models for models in answers.values()):
            reason = f"not trained: {'; '.join(dict.fromkeys(seeds.values()))}"
            metrics.append(Metric(SUITE, model, "accuracy", None, None, None, 0, tuple(seeds), reason))
    for suite in run.suites:
        texts = run.outcomes(suite)
        if texts:
            metrics += pass_metrics(suite, texts, run.leaked)
        else:
            metrics += measure(suite, answers_to(run, suite), teacher=teacher)
    return answers, metrics


def answers_to(run: Run, suite: str) -> dict[int, dict[str, Any]]:
    """seed -> model -> its judged answers to the suite: outcomes for written texts, else opinions."""
    answers: dict[int, dict[str, Any]] = defaultdict(dict)
    for seed in run.seeds:
        leaked, gold = run.leaked.get((suite, seed), set()), run.gold(suite, seed)
        texts = run.outcomes(suite, seed=seed)
        for artifact in texts or run.find("opinion", seed=seed):
            model, path = artifact.tags["model"], artifact.path / f"{suite}.npz"
            if model in MODELS and texts:
                answers[seed][model] = judge_outcomes(outcomes_of(artifact, leaked))
            elif model in MODELS and path.exists():
                opinion = read_arrays(path, Predictions)
                clean_N = np.array([key not in leaked for key in opinion.ids.tolist()])
                answers[seed][model] = judge(records.take(opinion, clean_N), gold)
    return dict(answers)


def outcomes_of(artifact: Artifact, leaked: Container[str] = ()) -> list[Outcome]:
    return [row for row in read_rows(artifact.path / "outcomes.jsonl", Outcome) if row.id not in leaked]


def pass_metrics(
    suite: str, texts: Iterable[Artifact], leaked: Mapping[tuple[str, int], Container[str]] | None = None
) -> list[Metric]:
    """pass@k of each model over its sampled texts (short answers, programs); unjudged texts have not passed.
    leaked: (suite, seed) -> questions not counted."""
    counts: dict[str, dict[int, list[tuple[str, int, int]]]] = defaultdict(dict)
    for artifact in texts:
        model, seed = artifact.tags["model"], artifact.tags["seed"]
        rows = measured.count_passes(outcomes_of(artifact, (leaked or {}).get((suite, seed), ())))
        if rows:  # not all of them repeat what was trained on
            counts[model][seed] = rows
    return [metric for model, seeds in counts.items() for metric in measured.measure_samples(suite, model, seeds)]


def answer_text(row: Example, answer: int | str) -> str:
    """A gold answer as text: the choice, the short answer or the reference program."""
    return row.choices[int(answer)] if row.task == "choice" else str(answer)


@dataclasses.dataclass(frozen=True)
class Findings:
    """The results of a study. `write_pages` writes its pages to the folder of the run and returns their names."""

    verdict: str
    metrics: Sequence[Metric]
    write_pages: Callable[[], list[str]]


def finish_study(folder: Path, measure_study: Callable[[Run], Findings], *, again: bool = False) -> str:
    """Write metrics.json and the pages of a complete run; returns the verdict, a sentence. Nothing is written again
    while the stages and the evaluation's settings stay the same, unless `again`."""
    run = open_run(folder)
    stamp = stamp_report(run)
    if not again and (verdict := read_verdict(folder, stamp)):
        return verdict
    say(f"{run.config['name']}: measuring, and writing the report")
    findings = measure_study(run)  # reads everything before anything is written
    path, limit = folder / "metrics.json", run.config.get("limit")
    measured.write_metrics(path, run.config["name"], findings.verdict, findings.metrics, limit=limit)
    pages = {page: hash_file(folder / page) for page in ("metrics.json", *findings.write_pages())}
    write_sealed(folder / "report.json", {"stamp": stamp, "verdict": findings.verdict, "pages": pages})
    return findings.verdict


def stamp_report(run: Run) -> str:
    """A hash of what a report depends on: the artifacts and the settings of the evaluation."""
    settings = [run.config.get(key) for key in ("name", "rewards", "evaluation")]
    recipe = json.dumps([settings, [artifact.folder.name for artifact in run.artifacts]], sort_keys=True)
    return hashlib.sha256(recipe.encode()).hexdigest()


def read_verdict(folder: Path, stamp: str) -> str | None:
    """The verdict of a report with the same stamp; None without one, or if one of its pages is damaged or missing."""
    report = read_sealed(folder / "report.json") or {}
    pages = report.get("pages", {}).items()
    whole = all((folder / page).is_file() and hash_file(folder / page) == digest for page, digest in pages)
    return report["verdict"] if whole and report.get("stamp") == stamp else None
