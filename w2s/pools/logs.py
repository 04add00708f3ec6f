"""lm-eval's sample logs and evalplus' sample files as the tables of questions and outputs of `w2s.pools.columns`."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from w2s.data.reading import file_rows, quoted
from w2s.grading.judge import judge
from w2s.pools.columns import OUTPUTS, QUESTIONS, Source, records_source
from w2s.pools.lm_eval import lm_eval_rows
from w2s.store.log import say
from w2s.store.problems import Problems
from w2s.store.records import BadInput, Example, Gold

Suite = tuple[list[Example], list[Gold]]
RESULTS = re.compile(r"_(eval_)?results\.jsonl?(\.gz)?$")
LINES = (".jsonl", ".jsonl.gz")


def read_logs(
    path: Path, suite: Suite | None, metrics: Sequence[str], filters: Sequence[str], notes: list[str]
) -> tuple[Source, Source] | None:
    """(questions, outputs) if `path` is a log or a folder of logs, else None.

    lm-eval: OUTPUT/MODEL/samples_TASK_DATE.jsonl, anywhere; of several runs of a task the newest counts, and `metrics`
    and `filters` are those that may be used (see `lm_eval`). What was chosen is added to `notes`.
    evalplus: MODEL.jsonl with the columns task_id and solution or completion, judged here by `suite`.
    """
    files = logs_in(path)
    if not files:
        return None
    first = next((row for file in files for _, row in file_rows(file)), {})
    if "doc_id" in first:
        questions, outputs = lm_eval_rows(files, metrics, filters, notes)
    elif "task_id" in first and {"solution", "completion"} & set(first):
        questions, outputs = evalplus_rows(files, suite)
    else:
        return None
    rows = records_source(str(path), questions, QUESTIONS, ["id"])
    return rows, records_source(str(path), outputs, OUTPUTS, ["id", "model"])


def logs_in(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.name.endswith(LINES) or path.match("samples_*.json") else []
    if any(path.glob("outputs.*")):
        return []
    samples = sorted(file for end in (*LINES, ".json", ".json.gz") for file in path.rglob(f"samples_*{end}"))
    inside = sorted(file for file in path.rglob("*") if file.name.endswith(LINES))
    return samples or models_files(inside)


def model_of(file: Path) -> str:
    """The model whose samples a file has: MODEL.jsonl, MODEL-sanitized.jsonl or MODEL.raw.jsonl."""
    return re.sub(r"(-sanitized|[-_]calibrated|\.raw)+$", "", file.name.removesuffix(".gz").rsplit(".", 1)[0])


def models_files(files: Sequence[Path]) -> list[Path]:
    """One file per model: its sanitized one, else its calibrated one, else the plain one, else the raw one.

    A judge's results are not samples. What is left out is logged.
    """
    taken: dict[tuple[Path, str], Path] = {}
    for file in sorted(files, key=lambda file: ("sanitized" in file.name, "calibrated" in file.name)):
        key = file.parent, model_of(file)
        if not RESULTS.search(file.name) and (key not in taken or ".raw." not in file.name):
            taken[key] = file
    left_out = sorted(set(files) - set(taken.values()))
    if left_out:
        reason = "results, or another form of a file that is read"
        say(f"left out: {', '.join(file.name for file in left_out)} ({reason}; name a file to read it)")
    return sorted(taken.values())


def evalplus_rows(files: Sequence[Path], suite: Suite | None) -> tuple[list[dict], list[dict]]:
    """Rows of questions and of outputs. The models' programs are judged in the sandbox by the tests of `suite`."""
    if suite is None:
        raise BadInput(f"{files[0]}: programs without verdicts: name the suite to judge them by, for example humaneval")
    tasks = {str(e.meta.get("task_id")): (e, g) for e, g in zip(*suite, strict=True)}
    outputs, programs, problems = [], [], Problems()
    for file in files:
        drawn: Counter[str] = Counter()
        for where, row in file_rows(file, problems):
            task = row.get("task_id")
            if task not in tasks:
                some = ", ".join(list(tasks)[:2])
                problems.add(f"{where}: task_id: {quoted(task)} given; allowed: those of the suite, {some}, ...")
                continue
            example, gold = tasks[task]
            text = row.get("solution", row.get("completion"))
            if not isinstance(text, str):
                problems.add(f"{where}: solution: {quoted(text)} given; allowed: a program's text")
                continue
            outputs.append({"id": task, "model": model_of(file), "sample": drawn[task], "text": text})
            programs.append((example, gold, text))
            drawn[task] += 1
    problems.tell()
    for row, (correct, _, _) in zip(outputs, judge(programs), strict=True):
        row["correct"] = correct
    questions = [{"id": task, "prompt": example.prompt, "choices": []} for task, (example, _) in tasks.items()]
    return questions, outputs
