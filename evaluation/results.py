"""`w2s report RUN ... --results DIR`: a page of results, DIR/NAME.md, made from DIR/NAME.json beside it.

NAME is the name of the first run. The JSON holds a record for each run: its command, commit, versions and seconds by
stage (none of these for `w2s combine`), and its metrics.json or combine.json, whole. No figure of a page is typed by
hand: a test makes every page again from the JSON beside it.
"""

import json
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from w2s.evaluation.pools.report import make_remarks, make_verdict, price
from w2s.evaluation.rewards.reward_study_report import NAMES
from w2s.evaluation.run.collect import costs, reproduce
from w2s.evaluation.run.metrics import PAIRS
from w2s.evaluation.run.pictures import LABELS
from w2s.evaluation.run.report import fill
from w2s.evaluation.run.runs import open_run
from w2s.evaluation.run.verdict import points, sentence
from w2s.store.files import write_json
from w2s.store.records import BadInput, Metric

FREE = ("name", "seeds", "runtime", "limit")
"""Keys of a config in which runs on one page may differ."""
LEVELS = ("accuracy", "pass", "gold", "preference", "picked")
"""What a suite's first tables show, by the part of a metric's name before '@' (or ':')."""
DROPS = ("turn_down", "gain", "pgr")
Table = dict[str, list[str]]  # a column's heading -> its cells, texts for Markdown


def write_results(folders: Sequence[Path], out: Path) -> Path:
    """Write DIR/NAME.json and DIR/NAME.md for runs of one config, or one `w2s combine`; returns the page. BadInput for
    a run without metrics, and for runs that differ in more than name and seeds or share a seed."""
    records = [read_record(folder) for folder in folders]
    if len(folders) > 1:
        check_alike(folders)
    name = folders[0].name
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / f"{name}.json", records)
    page = out / f"{name}.md"
    page.write_text(make_page(name, records), encoding="utf-8", errors="backslashreplace")
    return page


def read_record(folder: Path) -> dict[str, Any]:
    """The content of a page for one run, or one folder of `w2s combine`."""
    if (folder / "combine.json").is_file():
        combine = json.loads((folder / "combine.json").read_text(encoding="utf-8"))
        return {"command": portable(combine.pop("command")), "combine": combine}
    run = open_run(folder)
    if not (folder / "metrics.json").is_file():
        raise BadInput(f"{folder / 'metrics.json'}: no such file; `w2s report {folder}` writes it")
    how = reproduce(run)
    return {
        "command": portable(how.command),
        "commit": how.commit,
        "versions": how.versions,
        "seconds": {cost.stage: round(cost.seconds, 1) for cost in costs(run)},
        "metrics": json.loads((folder / "metrics.json").read_text(encoding="utf-8")),
    }


def portable(command: str) -> str:
    """A command without machine-specific parts: `runtime`, which changes no result, and absolute folders (DIR)."""
    words = [word for word in shlex.split(command) if not word.startswith("runtime.")]
    return shlex.join(re.sub(r"^([\w.-]+=)?/(.*/)?", r"\1DIR/", word) for word in words)


def check_alike(folders: Sequence[Path]) -> None:
    """BadInput unless the folders are runs of one config whose seeds differ."""
    if any((folder / "combine.json").is_file() for folder in folders):
        allowed = "a page shows one `w2s combine`, or runs of one config"
        raise BadInput(f"--results: {len(folders)} folders given; {allowed}")
    runs = [open_run(folder) for folder in folders]
    for folder, run in zip(folders[1:], runs[1:], strict=True):
        for key in sorted({*runs[0].config, *run.config} - {*FREE}):
            if run.config.get(key) != runs[0].config.get(key):
                raise BadInput(f"{folder}: its {key} is not that of {folders[0]}; a page shows one config")
    seeds = [seed for run in runs for seed in run.seeds]
    if len(set(seeds)) < len(seeds):
        raise BadInput(f"--results: seeds {seeds} given; each run on a page needs its own seeds")


def make_page(name: str, records: Sequence[dict[str, Any]]) -> str:
    """The page of these records, in Markdown."""
    if "combine" in records[0]:
        return fill("results.md", {"name": name, **combine_content(records[0])})
    metrics = [Metric(**row) for record in records for row in record["metrics"]["metrics"]]
    suites = dict.fromkeys(metric.suite for metric in metrics)
    tables = {suite: suite_tables([one for one in metrics if one.suite == suite]) for suite in suites}
    limits = {record["metrics"]["limit"] for record in records if record["metrics"].get("limit")}
    content = {
        "name": name,
        "commands": [record["command"] for record in records],
        "verdicts": [sentence(record["metrics"]["verdict"]) for record in records],
        "remarks": [f"A smoke run: at most {limit:,} questions of each set." for limit in sorted(limits)],
        "suites": {suite: found for suite, found in tables.items() if found},  # labels have none
        "seconds": [record["seconds"] for record in records],
        "commits": list(dict.fromkeys(record["commit"] for record in records)),
        "versions": records[0]["versions"],
    }
    return fill("results.md", content)


def suite_tables(metrics: Sequence[Metric]) -> list[Table]:
    """The tables of one suite: levels by model, then differences."""
    tables = []
    for level in LEVELS:
        chosen = [one for one in metrics if re.split("[@:]", one.name)[0] == level and "_minus_" not in one.name]
        if level == "accuracy":  # without its bins and parts
            chosen = [one for one in chosen if one.name == "accuracy"]
        tables += [level_table(chosen)] if chosen else []
    gaps = [one for one in metrics if "_minus_" in one.name or one.name in DROPS]
    sizes = [int(one.name.split("@")[1].split("_")[0]) for one in gaps if "@" in one.name]
    gaps = [one for one in gaps if "@" not in one.name or f"@{max(sizes)}_" in one.name]  # the largest n alone
    return tables + ([gap_table(sorted(gaps, key=place))] if gaps else [])


def level_table(metrics: Sequence[Metric]) -> Table:
    """A row for each model and set of seeds, a column for each metric, in %."""
    names = dict.fromkeys(metric.name for metric in metrics)
    rows: dict[tuple[str, tuple[int, ...]], dict[str, Metric]] = {}
    for metric in metrics:
        rows.setdefault((metric.model, tuple(metric.seeds)), {})[metric.name] = metric
    return {
        "model": [label(model) for model, _ in rows],
        **{f"{name}, %": [level_cell(row.get(name)) for row in rows.values()] for name in names},
        "n": [f"{max(metric.n for metric in row.values()):,}" for row in rows.values()],
        "seeds": [", ".join(map(str, seeds)) for _, seeds in rows],
    }


def level_cell(metric: Metric | None) -> str:
    if metric is None or metric.value is None:
        return "–" if metric is None else f"– ({metric.reason})"
    return points(metric.value) + bounds(metric)


def gap_table(metrics: Sequence[Metric]) -> Table:
    """Differences in points, or PGR, with their 95% intervals; bold where the interval excludes 0."""
    return {
        "difference": [gap_name(metric) for metric in metrics],
        "points": [gap_cell(metric) for metric in metrics],
        "n": [f"{metric.n:,}" for metric in metrics],
        "seeds": [", ".join(map(str, metric.seeds)) for metric in metrics],
    }


def gap_name(metric: Metric) -> str:
    what, _, other = metric.name.partition("_minus_")
    words = what.replace("_", " ").replace("@", " of the best of ")
    if other:
        return f"{label(metric.model)} − {label(other)}" + ("" if what == "accuracy" else f" ({words})")
    known = metric.name == "pgr" and metric.value is not None
    return f"{'PGR' if known else words} of the {label(metric.model)}"


def gap_cell(metric: Metric) -> str:
    if metric.value is None:
        return f"– ({metric.reason})"
    if metric.name == "pgr":
        return f"{number(metric.value)} ({ends(metric, number)})"
    return bold(f"{100 * metric.value:+.1f}", metric.low, metric.high) + bounds(metric)


def place(metric: Metric) -> int:
    """The sort position of a difference: the pairs that `measure` names, in order, then PGR and the others."""
    pair = (metric.model, metric.name.removeprefix("accuracy_minus_"))
    return PAIRS.index(pair) if pair in PAIRS else len(PAIRS)


def bounds(metric: Metric) -> str:
    return "" if metric.low is None or metric.high is None else f" ({ends(metric, points)})"


def ends(metric: Metric, words: Callable[[float], str]) -> str:
    return " to ".join("unbounded" if end is None else words(end) for end in (metric.low, metric.high))


def number(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"


def bold(figure: str, low: float | None, high: float | None) -> Markup:
    """A difference, bold if its interval excludes 0; generated, so the page need not escape it."""
    clear = low is not None and high is not None and (low > 0 or high < 0)
    return Markup(f"**{figure}**" if clear else figure)


def label(model: str) -> str:
    return {**LABELS, **NAMES}.get(model, model.replace("_", " "))


def combine_content(record: dict[str, Any]) -> dict[str, Any]:
    """The content of a page of `w2s combine`: the ranked methods, then the single members."""
    report = record["combine"]
    unit = report.get("unit", "$")
    both = [pool_table("method", report["methods"], unit), pool_table("model by itself", report["singles"], unit)]
    tables = {f"{report['outputs']}: {report['judged']:,} questions": both}
    if report.get("online"):
        tables["Labels revealed one by one"] = [pool_table("method", report["online"], "")]
    halves = f"{report['repeats']} random halves (seed {report['seed']}), fitted on one and judged on the other."
    content = {"commands": [record["command"]], "verdicts": [make_verdict(report)], "suites": tables}
    return content | {"remarks": [halves, *make_remarks(report)], "seconds": [], "commits": [], "versions": {}}


def pool_table(who: str, rows: Sequence[dict[str, Any]], unit: str) -> Table:
    """A row for each method or member; only columns with a value in some row."""
    columns = {
        who: [row["name"] for row in rows],
        "right, %": [span(row["accuracy"]) for row in rows],
        "− best single model, points": [difference(row.get("over_best")) for row in rows],
        f"cost of 1,000 questions, {unit}": [price(row.get("cost")) for row in rows],
        "abstained, %": ["–" if row.get("abstained") is None else points(row["abstained"]) for row in rows],
    }
    return {head: cells for head, cells in columns.items() if {*cells} - {"", "–"}}


def span(values: Sequence[float]) -> str:
    value, low, high = map(points, values)
    return f"{value} ({low} to {high})"


def difference(values: Sequence[float] | None) -> str:
    if values is None:
        return ""
    value, low, high = (f"{100 * edge:+.1f}" for edge in values)
    return bold(value, *values[1:]) + f" ({low} to {high})"
