"""`w2s judge`: samples that were written elsewhere, judged by a suite's tests or answers, a verdict for each.

Read: evalplus' JSON Lines ({"task_id", "solution" or "completion"}, any number of rows a task), or rows of recorded
outputs (id, model, sample, text or answer), as JSON Lines or Parquet; a folder stands for all its files of samples,
one a model (see `w2s.pools.logs.models_files`).

Written: JSON Lines in the order of the samples: task_id, model, sample, correct (true, false, null = could not be
judged), status (why), seconds, program (a hash of the text and of what it was judged by) and, where the samples carry
a flag of their own, recorded. While the judging goes on, verdicts lie in OUT.partial as they come: the same command
after a kill judges only what is not there. What could not be judged is tried again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from w2s.store.problems import Problems

from w2s.config.registry import did_you_mean
from w2s.data.reading import file_rows, json_lines
from w2s.data.sources import SOURCES
from w2s.evaluation.judging_tables import tables
from w2s.evaluation.suites import TEST_SPLIT
from w2s.grading.judge import judge
from w2s.pools.logs import LINES, logs_in, model_of
from w2s.store.log import progress, say, to_file
from w2s.store.records import BadInput, Example, Gold

SUITES = ("humaneval", "humanevalplus", "mbpp", "mbppplus", "gsm8k", "math", "asdiv")
TEXTS = {"code": ("solution", "completion", "text"), "answer": ("answer", "text", "solution", "completion")}
JUDGE = 2  # grows whenever the same text may get another verdict than before

Verdict = tuple[bool | None, str, float]  # correct (None: could not be judged), status, seconds


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
    """A suite's task under its own name, and a digest of all that its verdicts rest on."""

    name: str
    example: Example
    gold: Gold
    digest: str


def judge_file(
    samples: Path,
    suite: str,
    *,
    data_root: Path | None = None,
    out: Path | None = None,
    ks: Sequence[int] | None = None,
    timeout_s: float = 3.0,
    allow_unsandboxed: bool = False,
    limit: int | None = None,
    replace: bool = False,
) -> str:
    """Judge the samples that have no verdict in `out` yet, on all cores, and return the tables to print.

    out: default runs/judge/NAME-SUITE.jsonl. ks: of pass@k; default 1 and 10, where the samples allow. timeout_s: wall
    time of one program. limit: only the samples of the first so many tasks by id, of those that have any. BadInput
    for an unknown suite or tasks, and, a line each, for rows that cannot be read.
    """
    if suite not in SUITES:
        raise BadInput(f"suite: {suite!r} given{did_you_mean(suite, SUITES)}; it can be: {', '.join(SUITES)}")
    tasks = tasks_of(suite, data_root, timeout_s)
    rows = read_samples(samples, suite, tasks)
    name = f"{samples.name.removesuffix('.gz').rsplit('.', 1)[0]}-{suite}"
    if limit:
        tasks, rows = first_tasks(tasks, rows, limit)
        name += f"-limit-{limit}"
    out = out or Path("runs") / "judge" / f"{name}.jsonl"
    if not replace:
        check_free(out, rows)
    to_file(out.with_name(out.name + ".log"))
    if limit:
        say(f"{suite}: limited to {len({one.task for one in rows}):,} tasks, the first by id that have samples")
    started = time.monotonic()
    with underway(out) as (known, keep):
        found = {one.program: known[one.program] for one in rows if one.program in known}
        waiting = {one.program: one for one in rows if one.program not in known}
        say(f"{suite}: {len(rows):,} samples; texts judged already: {len(found):,}, to judge: {len(waiting):,}")
        how = {"timeout_s": timeout_s, "allow_unsandboxed": allow_unsandboxed}
        found |= judge_texts(waiting, tasks, keep, **how)
        seconds = time.monotonic() - started
        write_verdicts(out, tasks, rows, found)
    count = len(waiting)
    speed = f"{count:,} texts in {seconds:.0f} s, {count / seconds:.0f} per second" if count else "nothing to do"
    return "\n".join([*tables(suite, tasks, rows, found, ks), f"verdicts: {out} ({speed})"])


def judge_texts(
    waiting: Mapping[str, Sample], tasks: Mapping[str, Task], keep: Callable[[str, Verdict], None], **how: Any
) -> dict[str, Verdict]:
    """The verdict of each program, given to `keep` as it comes."""
    found, keys = {}, list(waiting)
    rows = [(tasks[one.task].example, tasks[one.task].gold, one.text) for one in waiting.values()]
    with progress(len(keys), "judging") as advance:

        def tell(at: int, verdict: Verdict) -> None:
            found[keys[at]] = verdict
            keep(keys[at], verdict)
            advance()

        judge(rows, keep=tell, **how)
    return found


# --- tasks and samples -----------------------------------------------------------------------------------------------


def tasks_of(suite: str, root: Path | None, timeout_s: float) -> dict[str, Task]:
    """Every name by which samples may call a task -> the task; the same task may have several names.

    Code: the published task_id (of MBPP also Mbpp/11). Answers: the published id, SUITE/N or SUITE-SPLIT/N (N: the row
    of the published file, from 0), or w2s' own id.
    """
    examples, golds = SOURCES[suite](root, **TEST_SPLIT.get(suite, {}))
    found: dict[str, Task] = {}
    for example, gold in zip(examples, golds, strict=True):
        limits = timeout_s if example.task == "code" else 0
        recipe = json.dumps([JUDGE, suite, gold.answer, gold.tests, example.prompt, limits], sort_keys=True)
        for name in (names := names_of(suite, example)):
            found[name] = Task(names[0], example, gold, hashlib.sha256(recipe.encode()).hexdigest())
    return found


def first_tasks(tasks: Mapping[str, Task], rows: Sequence[Sample], limit: int) -> tuple[dict[str, Task], list[Sample]]:
    """Of the tasks that have samples the first by id, and their samples."""
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


def read_samples(samples: Path, suite: str, tasks: Mapping[str, Task]) -> list[Sample]:
    """The rows of a file, or of a folder's files, as samples; a line with its place for each that does not fit."""
    found: list[Sample] = []
    unknown: Counter[str] = Counter()
    seen: Counter[tuple[str, str]] = Counter()
    places: dict[tuple[str, str, int], str] = {}
    first, columns, problems = "", TEXTS[next(iter(tasks.values())).example.task], Problems()
    for file in files_of(samples):
        for where, row in file_rows(file, problems):
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
        problems.add(
            f"{first}: task_id: {unknown.total():,} of {unknown.total() + len(found):,} rows name {len(unknown):,} "
            f"tasks that {suite} does not have ({', '.join(named)}{more}); it has {next(iter(tasks))}, ..."
        )
    if not found and not problems.count:
        problems.add(f"{samples}: it has no rows")
    problems.tell()
    return found


def sample_of(
    row: Mapping[str, Any], where: str, columns: Sequence[str], task: Task, file: Path, seen: Counter[tuple[str, str]]
) -> Sample:
    """One row. `seen` counts the samples of each (task, model) that carry no number of their own."""
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


# --- verdicts --------------------------------------------------------------------------------------------------------


@contextmanager
def underway(out: Path) -> Iterator[tuple[dict[str, Verdict], Any]]:
    """(verdicts that are known, by program; keep(program, verdict), which writes one more to OUT.partial)."""
    partial = out.with_name(out.name + ".partial")
    if out.is_dir():
        raise BadInput(f"out: {out} is a folder; allowed: a file")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        file = open(partial, "ab")  # noqa: SIM115
    except OSError as error:
        raise BadInput(f"{out}: cannot be written ({error.strerror}); --out FILE names another place") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadInput(f"{out}: another `w2s judge` is writing it") from None
        known = {**verdicts_in(out), **verdicts_in(partial)}
        if partial.stat().st_size and not partial.read_bytes().endswith(b"\n"):  # a kill in the middle of a line
            file.write(b"\n")

        def keep(program: str, verdict: Verdict) -> None:
            correct, status, seconds = verdict
            row = {"program": program, "correct": correct, "status": status, "seconds": round(seconds, 3)}
            file.write(json.dumps(row).encode() + b"\n")
            file.flush()

        yield known, keep
        partial.unlink()


def check_free(out: Path, rows: Sequence[Sample]) -> None:
    """BadInput where OUT holds anything but verdicts on these samples."""
    samples = [[one.task, one.model, one.sample] for one in rows]
    known = set(map(json.dumps, samples))
    for where, row in json_lines(out) if out.is_file() else ():
        keys = ("task_id", "model", "sample", "program")
        *sample, program = map(row.get, keys) if isinstance(row, dict) else (None,) * len(keys)
        if program is None or json.dumps(sample) not in known:
            what = f"{where} holds no verdict on one of these samples"
            raise BadInput(f"{out}: in use: {what}; --out FILE for another place, --replace to replace it")


def verdicts_in(path: Path) -> dict[str, Verdict]:
    """The verdicts of a file by program, without those that could not be judged; broken lines are passed over."""
    found: dict[str, Verdict] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
                if isinstance(row["correct"], bool):
                    found[str(row["program"])] = row["correct"], str(row["status"]), float(row["seconds"])
            except (ValueError, KeyError, TypeError):
                continue
    return found


def write_verdicts(out: Path, tasks: Mapping[str, Task], rows: Sequence[Sample], found: Mapping[str, Verdict]) -> None:
    """All samples' verdicts in their order, in one step."""
    whole = out.with_name(out.name + ".whole")
    with open(whole, "w", encoding="utf-8") as file:
        for one in rows:
            correct, status, seconds = found[one.program]
            row = {"task_id": one.task, "model": one.model, "sample": one.sample, "correct": correct, "status": status}
            row |= {"seconds": round(seconds, 3), "program": one.program}
            row |= {} if one.recorded is None else {"recorded": one.recorded}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(whole, out)
