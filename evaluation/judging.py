"""`w2s judge`: samples from elsewhere, each judged by the tests or answers of a suite.

Read: evalplus' JSON Lines ({"task_id", "solution" or "completion"}, any number of rows a task), or rows of recorded
outputs (id, model, sample, text or answer), as JSON Lines or Parquet; a folder stands for all its files of samples,
one a model (see `w2s.pools.logs.models_files`).

Written: JSON Lines in the order of the samples: task_id, model, sample, correct (true, false, null = could not be
judged), status (why), seconds, program (a hash of the text and of what it was judged by) and, where the samples carry
a flag of their own, recorded. Until all are judged, verdicts are appended to OUT.partial: after a kill, the same
command judges only missing samples. What could not be judged is tried again.
"""

from __future__ import annotations

import fcntl
import functools
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s.config.registry import did_you_mean
from w2s.data.reading import json_lines
from w2s.evaluation.judging_samples import Sample, Task, Verdict, Verdicts, first_tasks, read_samples, tasks_of
from w2s.evaluation.run.metrics import measure_samples
from w2s.grading import judge as grading
from w2s.grading.extract import extract_program, parses
from w2s.store.files import open_whole
from w2s.store.log import progress, say, to_file
from w2s.store.records import BadInput, Example

if TYPE_CHECKING:
    import pandas

LISTED = 50  # disagreements with the recorded flags that are printed; OUT has all
SUITES = ("humaneval", "humanevalplus", "mbpp", "mbppplus", "gsm8k", "math", "asdiv")


@dataclass(frozen=True)
class Judgement:
    """What `judge` returns. rows: a verdict for each sample, as written to `out`; summary: the tables that `w2s judge`
    prints."""

    rows: tuple[dict[str, Any], ...]
    summary: str

    @property
    def verdicts(self) -> pandas.DataFrame:
        """A row for each sample: task_id, model, sample, correct (None: not judged), status, seconds, program."""
        import pandas

        return pandas.DataFrame(self.rows)


def judge(
    samples: str | Path | Sequence[Mapping[str, Any]],
    suite: str,
    *,
    data_root: str | Path | None = None,
    out: str | Path | None = None,
    ks: Sequence[int] | None = None,
    timeout_s: float = 3.0,
    allow_unsandboxed: bool = False,
    limit: int | None = None,
    replace: bool = False,
) -> Judgement:
    """A verdict for each of the samples: a file, a folder, or rows such as {"task_id": ..., "solution": ...}.

    All cores judge. The verdicts of a file or folder go to `out` (default: runs/judge/NAME-SUITE.jsonl), and those
    already there are kept; those of rows are written only if `out` names a file. ks: the k of pass@k (default: 1 and
    10, if there are enough samples). timeout_s: wall time of one program. limit: only the first tasks.

    Raises BadInput for an unknown suite or tasks, and, a line each, for rows that cannot be read.

    >>> import json, pathlib, tempfile
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> (root / "gsm8k").mkdir()
    >>> task = {"question": "How many are 2 and 3?", "answer": "2 + 3 = 5 #### 5"}
    >>> _ = (root / "gsm8k" / "test.jsonl").write_text(json.dumps(task) + "\\n")
    >>> rows = [{"task_id": "gsm8k/0", "answer": "The answer is 5."}, {"task_id": "gsm8k/0", "answer": "6"}]
    >>> judge(rows, "gsm8k", data_root=root).verdicts["correct"].tolist()
    [True, False]
    """
    if suite not in SUITES:
        raise BadInput(f"suite: {suite!r} given{did_you_mean(suite, SUITES)}; it can be: {', '.join(SUITES)}")
    samples = Path(samples) if isinstance(samples, str | Path) else samples
    tasks = tasks_of(suite, Path(data_root) if data_root else None, timeout_s)
    texts = read_samples(samples, suite, tasks)
    if limit:
        tasks, texts = first_tasks(tasks, texts, limit)
    out = Path(out) if out else default_out(samples, suite, limit)
    judge_them = functools.partial(judge_texts, tasks, timeout_s, allow_unsandboxed)
    if out is None:
        verdicts, lines = judge_them(unique(texts), lambda *_: None), []
    else:
        if not replace:
            check_free(out, texts)
        to_file(out.with_name(out.name + ".log"))
        if limit:
            say(f"{suite}: limited to {len({one.task for one in texts}):,} tasks, the first by id that have samples")
        verdicts, speed = judge_into(out, suite, texts, judge_them)
        lines = [f"verdicts: {out} ({speed})"]
    return Judgement(rows_of(texts, verdicts), "\n".join([*tables(suite, tasks, texts, verdicts, ks), *lines]))


def default_out(samples: Path | Sequence[Mapping[str, Any]], suite: str, limit: int | None) -> Path | None:
    """Where verdicts go without `out`: a file named after the samples; None for rows in memory."""
    if not isinstance(samples, Path):
        return None
    name = f"{samples.name.removesuffix('.gz').rsplit('.', 1)[0]}-{suite}" + (f"-limit-{limit}" if limit else "")
    return Path("runs") / "judge" / f"{name}.jsonl"


Keep = Callable[[str, Verdict], None]


def judge_into(
    out: Path, suite: str, texts: Sequence[Sample], judge_them: Callable[[Mapping[str, Sample], Keep], Verdicts]
) -> tuple[Verdicts, str]:
    """All verdicts, written to `out` in the order of the samples, and how fast the new ones were judged."""
    with underway(out) as (known, keep):
        started, programs = time.monotonic(), unique(texts)
        verdicts = {program: known[program] for program in programs if program in known}
        waiting = {program: sample for program, sample in programs.items() if program not in known}
        say(f"{suite}: {len(texts):,} samples; texts judged already: {len(verdicts):,}, to judge: {len(waiting):,}")
        verdicts |= judge_them(waiting, keep)
        seconds, count = time.monotonic() - started, len(waiting)
        with open_whole(out) as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows_of(texts, verdicts))
    speed = f"{count:,} texts in {seconds:.0f} s, {count / seconds:.0f} per second" if count else "nothing to do"
    return verdicts, speed


def unique(texts: Sequence[Sample]) -> dict[str, Sample]:
    """Program -> the last of its samples; a text that several samples share is judged once."""
    return {sample.program: sample for sample in texts}


def judge_texts(
    tasks: Mapping[str, Task], timeout_s: float, allow_unsandboxed: bool, waiting: Mapping[str, Sample], keep: Keep
) -> Verdicts:
    """The verdict of each program, handed to `keep` as it comes."""
    verdicts, keys = {}, list(waiting)
    rows = [(tasks[one.task].example, tasks[one.task].gold, one.text) for one in waiting.values()]
    with progress(len(keys), "judging") as advance:

        def take(at: int, verdict: Verdict) -> None:
            verdicts[keys[at]] = verdict
            keep(keys[at], verdict)
            advance()

        grading.judge(rows, keep=take, timeout_s=timeout_s, allow_unsandboxed=allow_unsandboxed)
    return verdicts


@contextmanager
def underway(out: Path) -> Iterator[tuple[Verdicts, Keep]]:
    """(known verdicts by program; keep(program, verdict), which appends one to OUT.partial)."""
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
        if partial.stat().st_size and not partial.read_bytes().endswith(b"\n"):  # killed in mid-line
            file.write(b"\n")

        def keep(program: str, verdict: Verdict) -> None:
            correct, status, seconds = verdict
            row = {"program": program, "correct": correct, "status": status, "seconds": round(seconds, 3)}
            file.write(json.dumps(row).encode() + b"\n")
            file.flush()

        yield known, keep
        partial.unlink()


def check_free(out: Path, rows: Sequence[Sample]) -> None:
    """BadInput if `out` holds anything but verdicts on these samples."""
    samples = [[one.task, one.model, one.sample] for one in rows]
    known = set(map(json.dumps, samples))
    for where, row in json_lines(out) if out.is_file() else ():
        keys = ("task_id", "model", "sample", "program")
        *sample, program = map(row.get, keys) if isinstance(row, dict) else (None,) * len(keys)
        if program is None or json.dumps(sample) not in known:
            what = f"{where} holds no verdict on one of these samples"
            raise BadInput(f"{out}: in use: {what}; --out FILE for another place, --replace to replace it")


def verdicts_in(path: Path) -> Verdicts:
    """The verdicts in a file by program, except those not judged; broken lines are skipped."""
    found: Verdicts = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
                if isinstance(row["correct"], bool):
                    found[str(row["program"])] = row["correct"], str(row["status"]), float(row["seconds"])
            except (ValueError, KeyError, TypeError):
                continue
    return found


def rows_of(texts: Sequence[Sample], verdicts: Verdicts) -> tuple[dict[str, Any], ...]:
    """The rows of the file of verdicts, in the order of the samples."""
    rows = []
    for sample in texts:
        correct, status, seconds = verdicts[sample.program]
        row = {"task_id": sample.task, "model": sample.model, "sample": sample.sample, "correct": correct}
        row |= {"status": status, "seconds": round(seconds, 3), "program": sample.program}
        rows.append(row if sample.recorded is None else {**row, "recorded": sample.recorded})
    return tuple(rows)


def tables(
    suite: str, tasks: Mapping[str, Task], rows: Sequence[Sample], found: Verdicts, ks: Sequence[int] | None
) -> list[str]:
    """pass@k by model, best first, with 95% intervals over tasks; the count of each status; recorded flags."""
    passed: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for one in rows:
        passed[one.model][one.task].append(found[one.program][0] is True)
    by_model = []
    for model, by_task in passed.items():
        counts = [(task, len(right), sum(right)) for task, right in by_task.items()]
        by_model.append((measure_samples(suite, model, {0: counts}, ks=ks or (1, 10)), sum(n for _, n, _ in counts)))
    by_model.sort(key=lambda model: -(model[0][0].value or 0))
    wide = max(len("model"), *map(len, passed))
    lines = [f"{'model':{wide}} {'metric':9} {'value':>6}   95% interval     tasks samples"]
    for one, samples in [(metric, samples) for metrics, samples in by_model for metric in metrics]:
        head = f"{one.model:{wide}} {one.name:9}"
        if one.value is not None:
            lines.append(f"{head} {one.value:6.3f}   {one.low:.3f} to {one.high:.3f}   {one.n:5} {samples:7}")
        elif ks:
            lines.append(f"{head} {'-':>6}   {one.reason}")
    all_tasks = len({task.name for task in tasks.values()})
    lacking = [all_tasks - len(by_task) for by_task in passed.values()]
    if any(lacking):
        most = f"up to {max(lacking):,}" if len(lacking) > 1 else f"{lacking[0]:,}"
        lines.append(f"{most} of the {all_tasks:,} tasks have no sample and count nowhere")
    statuses = Counter(status_of(*found[one.program][:2]) for one in rows)
    lines.append("statuses: " + ", ".join(f"{count:,} {status}" for status, count in statuses.most_common()))
    return [*lines, *agreement(tasks, rows, found)]


def status_of(correct: bool | None, status: str) -> str:
    """The kind of a verdict: right, wrong, what stopped the program, or why it could not be judged."""
    if correct is None:
        return f"could not be judged ({status.split(':')[0]})"
    return "right" if correct else "wrong" if status == "judged" else status.split(":")[0]


def agreement(tasks: Mapping[str, Task], rows: Sequence[Sample], found: Verdicts) -> list[str]:
    """How many recorded flags agree with the verdicts, and the first ones that do not."""
    flagged = [one for one in rows if one.recorded is not None]
    if not flagged:
        return []
    others = [one for one in flagged if found[one.program][0] is not one.recorded]
    share = 1 - len(others) / len(flagged)
    lines = [f"recorded flags: {len(flagged) - len(others):,} of {len(flagged):,} agree ({share:.2%})"]
    for one in others[:LISTED]:
        correct, status, seconds = found[one.program]
        here = {True: "right", False: "wrong", None: "not judged"}[correct]
        was = "right" if one.recorded else "wrong"
        reason = why_right(tasks[one.task].example, one.text) if correct else f"{status}, after {seconds:.1f} s"
        lines.append(f"  {one.task} {one.model} sample {one.sample}: recorded {was}, here {here} ({reason})")
    return [*lines, f"  and {len(others) - LISTED:,} more"] if len(others) > LISTED else lines


def why_right(example: Example, text: str) -> str:
    """Why this judge passes a text that may fail elsewhere, run as it stands."""
    if example.task != "code":
        return "by normalised answer"
    if not parses(text):
        return "as a whole it is no Python; the program in it passes"
    whole = extract_program(example, text) == text
    return "judged" if whole else "with the imports and functions of the prompt it passes"
