"""lm-eval's sample logs and evalplus' sample files as the tables of questions and outputs of `w2s.data.columns`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from w2s.answers import final_answer, normalise
from w2s.data.columns import OUTPUTS, QUESTIONS, Source, rows_source
from w2s.data.reading import Row, file_rows
from w2s.grading import judge
from w2s.records import BadInput, Example, Gold, softmax

Suite = tuple[list[Example], list[Gold]]
RIGHT = ("exact_match", "acc")  # lm-eval's metrics that are 1 where the answer is right
LINES = (".jsonl", ".jsonl.gz")


def log_sources(path: Path, suite: Suite | None) -> tuple[Source, Source] | None:
    """(questions, outputs) where `path` is a log, or a folder of logs; None where it is not.

    lm-eval: OUTPUT/MODEL/samples_TASK_DATE.jsonl, wherever it lies; of several runs of a task the newest counts.
    evalplus: MODEL.jsonl with the columns task_id and solution or completion, judged here by `suite`.
    """
    files = logs_in(path)
    if not files:
        return None
    first = next(file_rows(files[0]), ("", {}))[1]
    if "doc_id" in first:
        questions, outputs = lm_eval_rows(newest(files))
    elif "task_id" in first and {"solution", "completion"} & set(first):
        questions, outputs = evalplus_rows(files, suite)
    else:
        return None
    name = str(path)
    return (
        rows_source(name, lambda: enumerated(name, questions), QUESTIONS, ["id"]),
        rows_source(name, lambda: enumerated(name, outputs), OUTPUTS, ["id", "model"]),
    )


def logs_in(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.name.endswith(LINES) else []
    if any(path.glob("outputs.*")):
        return []
    inside = sorted(file for file in path.rglob("*") if file.name.endswith(LINES))
    samples = [file for file in inside if file.name.startswith("samples_")]
    return samples or [file for file in inside if ".raw.jsonl" not in file.name]  # evalplus keeps the uncut texts in it


def enumerated(name: str, rows: Sequence[dict]) -> list[Row]:
    return [(f"{name}: row {number}", row) for number, row in enumerate(rows, 1)]


# --- lm-eval ---------------------------------------------------------------------------------------------------------


def task_of(path: Path) -> tuple[str, str]:
    """(task, date) of samples_TASK_DATE.jsonl."""
    task, _, date = path.name.split(".jsonl")[0].removeprefix("samples_").rpartition("_")
    return (task, date) if task else (date, "")


def newest(files: Sequence[Path]) -> list[Path]:
    """One file for each model and task: a rerun appends nothing, it writes another file."""
    latest = {(file.parent, task_of(file)[0]): file for file in sorted(files, key=lambda file: task_of(file)[1])}
    return sorted(latest.values())


def lm_eval_rows(files: Sequence[Path]) -> tuple[list[dict], list[dict]]:
    """Rows of questions and of outputs. Where a task has several filters, the first in the file counts."""
    questions: dict[str, dict] = {}
    versions: dict[str, Any] = {}
    outputs = []
    for file in files:
        task, model, used = task_of(file)[0], file.absolute().parent.name.replace("__", "/"), None
        for where, row in file_rows(file):
            used = row.get("filter") if used is None else used
            if row.get("filter") != used:
                continue
            try:
                name = f"{task}/{row['doc_id']}"
                question, output = lm_eval_row(row)
            except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
                raise BadInput(f"{where}: not a sample of lm-eval ({type(error).__name__}: {error})") from None
            version = row.get("doc_hash"), row.get("target"), question["choices"]
            if versions.setdefault(name, version) != version:
                raise BadInput(f"{where}: {name} is not the question that other models got (their doc_hash differs)")
            questions.setdefault(name, {"id": name, "group": task, **question})
            outputs.append({"id": name, "model": model, **output})
    return list(questions.values()), outputs


def lm_eval_row(row: dict[str, Any]) -> tuple[dict, dict]:
    """The question and the output in one sample; ValueError and its like where it is none."""
    asked, given, target = requests(row["arguments"]), row["filtered_resps"], str(row["target"])
    right = next((float(row[metric]) for metric in RIGHT if row.get(metric) is not None), None)
    prompt = asked[0][0]
    scored = all(isinstance(one, list) and len(one) == 2 and str(one[1]) in ("True", "False") for one in given)
    if scored and len(given) > 1:
        choices = continuations(asked)
        likely_K = np.array([float(one[0]) for one in given])[: len(choices)]
        if np.isnan(likely_K).any() or likely_K.max() == -np.inf:
            raise ValueError("the log-likelihoods are not numbers")
        probs = softmax(likely_K[None], np.ones((1, len(choices)), bool))[0]
        gold = target if target.isdigit() and int(target) < len(choices) else position(choices, target)
        question = {"prompt": prompt, "choices": choices, "gold": gold}
        return question, {"answer": str(np.argmax(likely_K)), "correct": right, "probs": probs.tolist()}
    text = given[0][0] if given and isinstance(given[0], list) and given[0] else given[0] if given else ""
    said = None if scored or text == "[invalid]" else final_answer(str(text))
    answer = None if said is None else normalise(said)
    raw = None if scored else str(text)
    gold = None if scored else normalise(final_answer(target) or target)
    return {"prompt": prompt, "choices": [], "gold": gold}, {"answer": answer, "correct": right, "text": raw}


def requests(arguments: Any) -> list[list]:
    """[context, continuation or options] of each request, from {gen_args_0: {arg_0, arg_1}, ...} or from lists."""
    listed = arguments.values() if isinstance(arguments, dict) else arguments
    return [list(one.values()) if isinstance(one, dict) else list(one) for one in listed]


def continuations(asked: list[list]) -> list[str]:
    """The choices: what follows the context, or, where that is the same (Winogrande), where the contexts part."""
    texts, contexts = [str(one[1]) for one in asked], [str(one[0]) for one in asked]
    half = len(texts) // 2
    if texts[:half] == texts[half:] and contexts[0] != contexts[half] and len(set(contexts[:half])) == 1:
        texts = texts[:half]  # acc_mutual_info asks for every choice again, without the question
    if len(set(texts)) == 1:
        texts = [context[len(os.path.commonprefix(contexts)) :] for context in contexts]  # noqa: RUF071
    return [text.strip() for text in texts]


def position(choices: list[str], target: str) -> str | None:
    return str(choices.index(target.strip())) if choices.count(target.strip()) == 1 else None


# --- evalplus --------------------------------------------------------------------------------------------------------


def evalplus_rows(files: Sequence[Path], suite: Suite | None) -> tuple[list[dict], list[dict]]:
    """Rows of questions and of outputs. The models' programs are run, in the sandbox, by the tests of `suite`."""
    if suite is None:
        raise BadInput(f"{files[0]}: programs without verdicts: name the suite to judge them by, for example humaneval")
    tasks = {str(e.meta.get("task_id")): (e, g) for e, g in zip(*suite, strict=True)}
    outputs, programs = [], []
    for file in files:
        drawn: Counter[str] = Counter()
        for where, row in file_rows(file):
            task = row.get("task_id")
            if task not in tasks:
                some = ", ".join(list(tasks)[:2])
                raise BadInput(f"{where}: task_id: {task!r} given; allowed: those of the suite, {some}, ...")
            example, gold = tasks[task]
            text = row.get("solution", row.get("completion"))
            if not isinstance(text, str):
                raise BadInput(f"{where}: solution: {text!r} given; allowed: a program's text")
            outputs.append({"id": task, "model": file.name.split(".jsonl")[0], "sample": drawn[task], "text": text})
            programs.append((example, gold, text))
            drawn[task] += 1
    for row, (correct, _, _) in zip(outputs, judge(programs), strict=True):
        row["correct"] = correct
    questions = [{"id": task, "prompt": example.prompt, "choices": []} for task, (example, _) in tasks.items()]
    return questions, outputs
