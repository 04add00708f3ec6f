"""Samples to be judged, read and matched with the tasks of a suite."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from w2s.data.reading import file_rows
from w2s.data.sources import SOURCES
from w2s.evaluation.suites import TEST_SPLIT
from w2s.pools.logs import LINES, logs_in, model_of
from w2s.store.problems import Problems
from w2s.store.records import BadInput, Example, Gold

TEXTS = {"code": ("solution", "completion", "text"), "answer": ("answer", "text", "solution", "completion")}
JUDGE = 2  # raised whenever the same text may get another verdict

Verdict = tuple[bool | None, str, float]  # correct (None: could not be judged), status, seconds
Verdicts = dict[str, Verdict]  # by program


@dataclass(frozen=True)
class Sample:
    """One text to judge. `sample` counts a model's samples of a task from 0; `recorded`: the flag it came with."""

    task: str
    model: str
    sample: int
    text: str
    recorded: bool | None
    program: str


@dataclass(frozen=True)
class Task:
    """A suite's task with its published name, and a digest of all that its verdicts depend on."""

    name: str
    example: Example
    gold: Gold
    digest: str


def tasks_of(suite: str, root: Path | None, timeout_s: float) -> dict[str, Task]:
    """Every name by which samples may call a task -> the task; the same task may have several names. Code: the
    published task_id (of MBPP also Mbpp/11). Answers: the published id, SUITE/N or SUITE-SPLIT/N (N: the row of the
    published file, from 0), or w2s' own id."""
    examples, golds = SOURCES[suite](root, **TEST_SPLIT.get(suite, {}))
    found: dict[str, Task] = {}
    for example, gold in zip(examples, golds, strict=True):
        limits = timeout_s if example.task == "code" else 0
        recipe = json.dumps([JUDGE, suite, gold.answer, gold.tests, example.prompt, limits], sort_keys=True)
        for name in (names := names_of(suite, example)):
            found[name] = Task(names[0], example, gold, hashlib.sha256(recipe.encode()).hexdigest())
    return found


def first_tasks(tasks: Mapping[str, Task], rows: Sequence[Sample], limit: int) -> tuple[dict[str, Task], list[Sample]]:
    """The first `limit` tasks by id among those with samples, and their samples."""
    kept = set(sorted({one.task for one in rows})[:limit])
    return {key: task for key, task in tasks.items() if task.name in kept}, [one for one in rows if one.task in kept]


def names_of(suite: str, example: Example) -> list[str]:
    if example.task == "code":
        name = str(example.meta["task_id"])
        return [name, f"Mbpp/{name}"] if suite == "mbpp" else [name]
    row = str(example.meta.get("row", ""))
    line = re.search(r":(?: row )?\s*(\d+)$", row)
    if not line:
        return [row, example.id] if row else [example.id]
    number = int(line[1]) - 1
    return [f"{suite}/{number}", f"{suite}-{example.meta['split']}/{number}", example.id]


def files_of(samples: Path) -> list[Path]:
    if samples.is_dir():
        files = [one for one in sorted(samples.glob("outputs.*")) if one.name.endswith((*LINES, ".parquet"))]
        files = files or logs_in(samples) or sorted(samples.glob("*.parquet"))
        if not files:
            raise BadInput(f"{samples}: no samples there (*.jsonl, *.jsonl.gz or *.parquet)")
        return files
    if not samples.exists():
        raise BadInput(f"{samples}: no such file")
    return [samples]


def read_samples(samples: Path | Sequence[Mapping[str, Any]], suite: str, tasks: Mapping[str, Task]) -> list[Sample]:
    """The rows as samples; BadInput with a line for each row that does not fit."""
    found: list[Sample] = []
    unknown: Counter[str] = Counter()
    seen: Counter[tuple[str, str]] = Counter()
    places: dict[tuple[str, str, int], str] = {}
    first, columns, problems = "", TEXTS[next(iter(tasks.values())).example.task], Problems()
    if isinstance(samples, Path):
        rows = ((file, where, row) for file in files_of(samples) for where, row in file_rows(file, problems))
    else:
        rows = ((Path("samples"), f"row {at}", row) for at, row in enumerate(samples, start=1))
    for file, where, row in rows:
        name = row.get("task_id", row.get("id"))
        if name is None:
            problems.add(f"{where}: task_id: nothing given; allowed: the name of a task of {suite}")
        elif (task := tasks.get(str(name))) is None:
            first = first or where
            unknown[str(name)] += 1
        else:
            try:
                one = sample_of(row, where, columns, task, file, seen)
            except BadInput as problem:
                problems.add(problem)
                continue
            if (before := places.setdefault((one.task, one.model, one.sample), where)) != where:
                problems.add(f"{where}: sample {one.sample} of {one.task} by {one.model} is in {before} already")
            found.append(one)
    if unknown:
        named, more = list(unknown)[:3], ", ..." if len(unknown) > 3 else ""
        count = f"{unknown.total():,} of {unknown.total() + len(found):,} rows name {len(unknown):,} tasks"
        names = f"({', '.join(named)}{more}); it has {next(iter(tasks))}, ..."
        problems.add(f"{first}: task_id: {count} that {suite} does not have {names}")
    if not found and not problems.count:
        problems.add(f"{samples if isinstance(samples, Path) else 'samples'}: it has no rows")
    problems.tell()
    return found


def sample_of(
    row: Mapping[str, Any], where: str, columns: Sequence[str], task: Task, file: Path, seen: Counter[tuple[str, str]]
) -> Sample:
    """One row. `seen` counts the samples of each (task, model) without a number."""
    column = next((name for name in columns if row.get(name) is not None), None)
    text = row[column] if column else None
    if isinstance(text, int | float) and not isinstance(text, bool):
        text = str(text)
    if not isinstance(text, str):
        raise BadInput(f"{where}: {column or columns[0]}: {text!r} given; allowed: a text ({' or '.join(columns)})")
    model = str(row.get("model") or model_of(file))
    number = row.get("sample")
    if number is None:
        number = seen[task.name, model]
        seen[task.name, model] += 1
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise BadInput(f"{where}: sample: {number!r} given; allowed: a whole number from 0")
    recorded = row.get("correct") if isinstance(row.get("correct"), bool) else None
    program = hashlib.sha256(f"{task.digest}\0{text}".encode(errors="surrogatepass")).hexdigest()[:24]
    return Sample(task.name, model, number, text, recorded, program)
