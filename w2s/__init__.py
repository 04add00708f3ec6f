"""Weak-to-strong training: boosted weak models supervise a stronger one.

`w2s.run(config)` runs the whole chain, and `w2s.load_run(folder)` opens its results. `w2s.read_pool`, `w2s.combine` and
`w2s.judge` work on recorded answers of other models. The command line calls these functions. Heavy modules are imported
only where needed.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

    from w2s.config.fields import Config
    from w2s.evaluation.judging import Judgement, judge
    from w2s.evaluation.pools.api import Combined, combine, read_pool
    from w2s.evaluation.pools.pool import Pool

LATE = {
    "judge": "w2s.evaluation.judging:judge",
    "Judgement": "w2s.evaluation.judging:Judgement",
    "combine": "w2s.evaluation.pools.api:combine",
    "Combined": "w2s.evaluation.pools.api:Combined",
    "read_pool": "w2s.evaluation.pools.api:read_pool",
    "Pool": "w2s.evaluation.pools.pool:Pool",
}
"""Public names that are imported on first use."""

__all__ = [
    "STUDIES",
    "Combined",
    "Judgement",
    "Pool",
    "Run",
    "Study",
    "combine",
    "compare",
    "judge",
    "load_run",
    "read_pool",
    "run",
    "run_together",
]


def __getattr__(name: str) -> Any:
    if name not in LATE:
        raise AttributeError(f"module 'w2s' has no attribute {name!r}")
    return globals().setdefault(name, pkgutil.resolve_name(LATE[name]))


def __dir__() -> list[str]:
    return sorted({*globals(), *LATE})


@dataclass(frozen=True)
class Study:
    """What one command runs from a config. Functions are given as `module:name` and imported when called."""

    command: str
    page: str
    """The report's file name in a run's folder."""
    checks: str
    """config -> a line for each broken rule between keys."""
    chain: str
    """(config, tools, declare): declares every stage, for all seeds."""
    finish: str
    """(folder, again=) -> the verdict; writes metrics.json and the report unless they are up to date."""

    def load(self, function: str) -> Callable[..., Any]:
        """`checks`, `chain` or `finish`, imported."""
        return pkgutil.resolve_name(getattr(self, function))


STUDIES = {
    "chain": Study(
        command="w2s run",
        page="report.html",
        checks="w2s.config.load:cross_checks",
        chain="w2s.story.main:tell_chain",
        finish="w2s.evaluation.run.collect:finish",
    ),
    "rewards": Study(
        command="w2s rewards run",
        page="report.html",
        checks="w2s.story.reward_study:checks",
        chain="w2s.story.reward_study:tell_reward_study",
        finish="w2s.evaluation.rewards.reward_study_report:finish",
    ),
    "curve": Study(
        command="w2s rewards curve",
        page="curve.html",
        checks="w2s.story.curve:checks",
        chain="w2s.story.curve:tell_curve",
        finish="w2s.evaluation.rewards.curve_report:finish",
    ),
}


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    study: str
    """A key of STUDIES."""
    verdict: str
    """The result in one sentence."""

    @property
    def page(self) -> Path:
        """The report."""
        return self.folder / STUDIES[self.study].page

    @property
    def student(self) -> Path | None:
        """The folder of the trained student, for `transformers`; None if the run has none."""
        folder = self.folder / "student"
        return folder if folder.is_dir() else None

    @property
    def metrics(self) -> pandas.DataFrame:
        """A row for each metric: suite, model, name, value, low, high (95% interval), n, seeds, and the reason if
        there is no value.

        >>> metrics = run.metrics
        >>> found = metrics[(metrics.suite == "hard_test") & (metrics.name == "accuracy")]
        >>> sorted(found.model)[:3]
        ['bagged', 'best_learner', 'ceiling']
        >>> bool(found.value.between(0, 1).all())
        True
        """
        import json

        import pandas

        return pandas.DataFrame(json.loads((self.folder / "metrics.json").read_text(encoding="utf-8"))["metrics"])

    def open(self, stage: str | Mapping[str, Any]) -> dict[str, Any]:
        """The records of one stage: file name without its extension -> rows, arrays or values.

        stage: its title, with or without the seed before it, or tags that only one stage has. BadInput if no stage or
        several match.

        >>> labels = run.open("labels by committee")["labels"]
        >>> labels.target_NK.shape
        (100, 4)
        >>> questions = run.open({"kind": "questions", "seed": 0})["transfer"]
        >>> questions[0].task, len(questions)
        ('choice', 100)
        """
        from w2s.evaluation.run.open import open_stage

        return open_stage(self.folder, stage)


def run(
    config: str | Path | Mapping[str, Any] | Config,
    *overrides: str,
    study: str = "chain",
    replace: bool = False,
    **keys: Any,
) -> Run:
    """Make every stage of a study that is not in the store yet, then measure and report. Repeating the call resumes a
    stopped run and does nothing on a finished one.

    config: a YAML file, its content as a mapping, or a Config. overrides: `key=value`, as on the command line. keys:
    the same, as keyword arguments. replace: overwrite another run of the same name. BadInput with a line for each
    problem of the config.

    >>> run = w2s.run("tiny.yaml", "runtime.threads=2", seeds=[0])
    >>> run.folder.name, run.study
    ('tiny', 'chain')
    >>> run.student.name, run.page.name
    ('student', 'report.html')
    """
    import json

    overrides += tuple(f"{key}={json.dumps(value)}" for key, value in keys.items())
    return run_together([config], *overrides, study=study, replace=replace)[0]


def run_together(
    configs: Sequence[str | Path | Mapping[str, Any] | Config],
    *overrides: str,
    study: str = "chain",
    replace: bool = False,
) -> list[Run]:
    """`run` for several configs at once: shared stages are made once, and no slot is idle.

    >>> [run.folder.name for run in w2s.run_together(["tiny.yaml"])]
    ['tiny']
    """
    import shlex

    from w2s.store.records import BadInput

    checks = STUDIES[study].load("checks")
    read = [read_config(config, overrides, checks) for config in configs]  # before the heavy imports
    if len({config.name for config in read}) < len(read):
        raise BadInput(f"name: {read[0].name!r} is the name of several configs; each needs one of its own")
    from w2s.store import log
    from w2s.story import execution

    tell_study = STUDIES[study].load("chain")
    log.to_file(execution.find_folder(read[0]) / "log.jsonl")
    runs = []
    try:
        for given, config, stages in zip(configs, read, execution.run(read, tell_study, replace=replace), strict=True):
            folder = execution.find_folder(config)
            words = [given, *overrides] if isinstance(given, str | Path) else [folder / "config.yaml"]
            command = [*shlex.split(STUDIES[study].command), *map(str, words)]
            execution.write_run(config, stages, study, command)
            runs.append(Run(folder, study, STUDIES[study].load("finish")(folder)))
    finally:
        log.to_file(None)
    return runs


def read_config(
    config: str | Path | Mapping[str, Any] | Config, overrides: Sequence[str], checks: Callable[[Config], list[str]]
) -> Config:
    """The configuration with the overrides, checked."""
    import dataclasses

    from w2s.config.load import from_values, load
    from w2s.config.plugins import check_with_plugins

    checks = check_with_plugins(checks)
    if isinstance(config, str | Path):
        return load(config, overrides, checks)
    return from_values(config if isinstance(config, Mapping) else dataclasses.asdict(config), overrides, checks)


def load_run(folder: str | Path, *, again: bool = False) -> Run:
    """A finished run, by its folder. again: write metrics and report again even if they are up to date.

    BadInput if the folder holds no run, or an artifact that the report needs is damaged.

    >>> run = w2s.load_run("runs/tiny")
    >>> run.verdict == w2s.run("tiny.yaml").verdict
    True
    """
    from w2s.store.artifacts import LISTING, read_listing
    from w2s.store.records import BadInput

    folder = Path(folder)
    if not (folder / LISTING).is_file():
        raise BadInput(f"{folder}: no run there (no {LISTING})")
    study = read_listing(folder).get("study")
    if study not in STUDIES:
        raise BadInput(f"{folder / LISTING}: written by another version of w2s; run the same command again")
    return Run(folder, study, STUDIES[study].load("finish")(folder, again=again))


def compare(folders: Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Compare runs of `w2s run`, with paired differences; returns the page.

    out: the folder of the page; None: compare/RUN+RUN beside the first run.

    >>> w2s.compare(["runs/tiny", "runs/tiny"], out="compared").name
    'compare.html'
    """
    from w2s.evaluation.run.collect import compare as compare_runs
    from w2s.store.artifacts import read_listing
    from w2s.store.records import BadInput

    for folder in map(Path, folders):
        study = read_listing(folder).get("study", "chain")
        if study != "chain":
            raise BadInput(
                f"{folder}: a run of `{STUDIES[study].command}`; allowed: runs of `{STUDIES['chain'].command}`"
            )
    return compare_runs([Path(folder) for folder in folders], Path(out) if out else None)
