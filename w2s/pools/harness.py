"""lm-eval's sample logs (0.4.0 to 0.4.13) as rows of questions and of outputs, by one filter and one metric per task.

A task's log has a row for each document and filter (a way to cut the answer out of the text), with every metric in it.
Filter and metric are chosen once for a task, over all models' logs of it, and told: never row by row.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from w2s.config.registry import did_you_mean
from w2s.data.reading import file_rows
from w2s.grading.answers import final_answer, normalise
from w2s.store.problems import Problems
from w2s.store.records import BadInput, softmax

# Metrics that are 1 where the answer is right and else 0, the preferred first; others are taken where they are named.
RIGHT = ("exact_match", "acc", "acc_norm", "math_verify", "em", "pass@1", "prompt_level_strict_acc")
WHOLE_TEXTS = ("pass@1", "prompt_level_strict_acc")  # of programs and essays: no two are the same answer
LENGTHS = {"acc_norm": len, "acc_bytes": lambda text: len(text.encode())}  # the likelihoods are divided by them
FIELDS = {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"}
FIELDS |= {"doc_hash", "prompt_hash", "target_hash"}
UNREAD = ("", "[invalid]")  # what a filter gives that has found no answer
DATE = re.compile(r"_(\d{4}-\d\d-\d\dT[\d.+-]+|seed-\d+)$")  # the latter in our own exports


@dataclass
class Sample:
    """What one model said to one question under one filter; the log-likelihoods are those of the choices."""

    where: str
    id: str
    model: str
    filter: str
    metrics: dict[str, Any]
    text: str | None = None
    choices: tuple[str, ...] = ()
    likely_K: np.ndarray | None = None
    alone_K: np.ndarray | None = None  # without the question before them

    @property
    def recognised(self) -> bool:
        return self.text not in UNREAD


class LeftOut(ValueError):
    """A task cannot be read as right and wrong answers; why."""


def lm_eval_rows(
    files: Sequence[Path], metrics: Sequence[str], filters: Sequence[str], notes: list[str]
) -> tuple[list[dict], list[dict]]:
    """Rows of questions and of outputs; what was chosen, and what is left out, is added to `notes`.

    metrics, filters: those that may be taken, the preferred first; () leaves the choice to us. A filter that recognises
    more answers is preferred to the first.
    """
    files = newest(files, notes)
    questions, samples = read_samples(files)
    kept, outputs, chosen, reasons = set(), [], defaultdict(list), []
    for task, found in samples.items():
        try:
            one, metric, told = choose(found, metrics, filters)
        except LeftOut as reason:
            reasons.append(f"{task}: {reason}")
            continue
        chosen[told].append(task)
        kept.add(task)
        outputs += [output(sample, metric) for sample in found if sample.filter == one]
    if not kept:
        raise BadInput("\n".join(reasons[:20]))
    notes += [f"lm-eval's {tasks_named(tasks)}: {told}" for told, tasks in chosen.items()]
    notes += [f"left out: {reason}" for reason in reasons]
    return [row for row in questions.values() if row["group"] in kept], outputs


def tasks_named(tasks: Sequence[str]) -> str:
    return ", ".join(tasks[:4]) + (f" and {len(tasks) - 4} more" if len(tasks) > 4 else "")


# --- files -----------------------------------------------------------------------------------------------------------


def task_of(path: Path) -> tuple[str, str]:
    """(task, date) of samples_TASK_DATE.jsonl; the date is '' where there is none."""
    name = re.split(r"\.jsonl?(?:\.gz)?$", path.name)[0]
    if re.match(r"(pretrained|peft|delta|model|path|engine)(=|__)", name):
        raise BadInput(
            f"{path}: model and task stand in one name, as lm-eval before 0.4.3 wrote it, and cannot be told apart; "
            "rename it MODEL/samples_TASK.jsonl"
        )
    name, dated = name.removeprefix("samples_"), DATE.search(name)
    return (name[: -len(dated[0])], dated[1]) if dated else (name, "")


def newest(files: Sequence[Path], notes: list[str]) -> list[Path]:
    """One file for each model and task: a rerun appends nothing, it writes another file."""
    latest = {(file.parent, task_of(file)[0]): file for file in sorted(files, key=lambda file: task_of(file)[1])}
    if older := sorted(set(files) - set(latest.values())):
        count = f"{len(older)} older logs" if len(older) > 1 else "an older log"
        notes.append(f"{count} of the same model and task not read, since the newest counts: {older[0]}")
    return sorted(latest.values())


def read_samples(files: Sequence[Path]) -> tuple[dict[str, dict], dict[str, list[Sample]]]:
    """Questions by id, and by task all samples under all filters; what is wrong with any row is told at the end."""
    questions: dict[str, dict] = {}
    versions: dict[str, Any] = {}
    samples: dict[str, list[Sample]] = defaultdict(list)
    problems = Problems()
    for file in files:
        task, model = task_of(file)[0], file.absolute().parent.name.replace("__", "/")
        times: Counter[str] = Counter()
        for where, row in file_rows(file, problems):
            try:
                key = f"{task}/{row['doc_id']}"
                times[key] += 1
                unnamed = "none" if times[key] == 1 else f"unnamed {times[key]}"  # until 0.4.6 filters have no names
                sample = Sample(where, key, model, str(row.get("filter") or unnamed), metrics_of(row))
                question = fill(sample, row)
            except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
                problems.add(f"{where}: not a sample of lm-eval ({type(error).__name__}: {error})")
                continue
            version = row.get("doc_hash"), str(row.get("target")), question["choices"]
            if versions.setdefault(key, version) != version:
                problems.add(f"{where}: {key} is not the question that other models got (their doc_hash differs)")
            questions.setdefault(key, {"id": key, "group": task, **question})
            samples[task].append(sample)
        if not times and not problems.count:
            problems.add(f"{file}: the file has no rows")
    problems.tell()
    return questions, samples


def metrics_of(row: dict[str, Any]) -> dict[str, Any]:
    """Every metric in a row that has a value."""
    names = row["metrics"] if isinstance(row.get("metrics"), list) else [name for name in row if name not in FIELDS]
    return {str(name): row[name] for name in names if row.get(name) is not None}


# --- one sample ------------------------------------------------------------------------------------------------------


def fill(sample: Sample, row: dict[str, Any]) -> dict[str, Any]:
    """The question in a row, and what was said to it into `sample`; ValueError and its like where it is no sample."""
    asked, given, target = requests(row["arguments"]), row["filtered_resps"], row["target"]
    prompt = asked[0][0] if isinstance(asked[0][0], str) else json.dumps(asked[0][0], ensure_ascii=False)
    scored = all(isinstance(one, list) and len(one) == 2 and str(one[1]) in ("True", "False") for one in given)
    if scored and len(given) > 1:
        choices = continuations(asked)
        likely = np.array([float(one[0]) for one in given])
        sample.choices, sample.likely_K = tuple(choices), likely[: len(choices)]
        sample.alone_K = likely[len(choices) :] if len(likely) == 2 * len(choices) else None
        if np.isnan(likely).any() or sample.likely_K.max() == -np.inf:
            raise ValueError("the log-likelihoods are not numbers")
        target = str(target)
        gold = target if target.isdecimal() and int(target) < len(choices) else position(choices, target)
        return {"prompt": prompt, "choices": choices, "gold": gold}
    if not scored:
        said = given[0] if given else ""
        said = said[0] if isinstance(said, list) and len(said) == 1 else said
        # Of several answers at once, the metric is about all of them.
        sample.text = None if isinstance(said, list) else str("" if said is None else said)
    # Several right answers are no one candidate: then only the recorded verdicts tell right from wrong.
    gold = None if scored or listed(target) else normalise(final_answer(str(target)) or str(target))
    return {"prompt": prompt, "choices": [], "gold": gold}


def output(sample: Sample, metric: str) -> dict[str, Any]:
    """The row of outputs: the answer that the metric judges, and its verdict."""
    row = {"id": sample.id, "model": sample.model, "answer": None, "text": sample.text}
    row["correct"] = float(sample.metrics[metric]) if metric in sample.metrics else None
    if sample.likely_K is not None:
        likely_K = sample.likely_K
        if metric in LENGTHS:
            likely_K = likely_K / np.maximum([LENGTHS[metric](text) for text in sample.choices], 1)
        elif metric == "acc_mutual_info" and sample.alone_K is not None:
            likely_K = likely_K - sample.alone_K
        row["probs"] = softmax(likely_K[None], np.ones((1, len(likely_K)), bool))[0].tolist()
        row["answer"] = str(np.argmax(likely_K))
    elif sample.text is not None and sample.recognised and metric not in WHOLE_TEXTS:
        said = final_answer(sample.text)
        row["answer"] = None if said is None else normalise(said)
    return row


def listed(target: Any) -> bool:
    """Whether there are several right answers: a list, or one as text."""
    try:
        return isinstance(ast.literal_eval(target) if isinstance(target, str) else target, list | tuple)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return False


def requests(arguments: Any) -> list[list]:
    """[context, continuation or options] of each request, from {gen_args_0: {arg_0, arg_1}, ...} or from lists."""
    each = arguments.values() if isinstance(arguments, dict) else arguments
    return [list(one.values()) if isinstance(one, dict) else list(one) for one in each]


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


# --- a task's filter and metric --------------------------------------------------------------------------------------


def choose(found: Sequence[Sample], metrics: Sequence[str], filters: Sequence[str]) -> tuple[str, str, str]:
    """(filter, metric, both in words) of one task's samples of all models; raises LeftOut with the reason."""
    used, filter_words = choose_filter(found, filters)
    found = [sample for sample in found if sample.filter == used]
    common = in_every_log((sample.model, name) for sample in found for name in sample.metrics)
    wanted = [name for name in metrics or RIGHT if name in common]
    if not wanted:
        asked = f"no metric {' or '.join(metrics)}" if metrics else "no metric that is known as right or wrong"
        raise LeftOut(f"{asked} in every model's log; there are: {', '.join(common) or 'none'} (--metric names one)")
    metric = wanted[0]
    for sample in found:
        value = sample.metrics.get(metric, 0)
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            raise LeftOut(f"{metric} is {str(value)[:40]} at {sample.where}: a share, not right (1) or wrong (0)")
    others = ", ".join(name for name in common if name != metric)
    return used, metric, f"metric {metric}{f' (not {others})' if others else ''}, {filter_words}"


def choose_filter(found: Sequence[Sample], filters: Sequence[str]) -> tuple[str, str]:
    """(name, in words): of those in every model's log the one that recognises most answers, the first where level."""
    rows, read = Counter(one.filter for one in found), Counter(one.filter for one in found if one.recognised)
    common = in_every_log((sample.model, sample.filter) for sample in found)
    if not common:
        raise LeftOut(f"no filter is in every model's log; there are: {', '.join(rows)}")
    wanted = [name for name in filters if name in common]
    if filters and not wanted and len(common) > 1:
        near = did_you_mean(filters[0], common)
        raise LeftOut(f"no filter {' or '.join(filters)}{near}; there are: {', '.join(common)}")
    used = wanted[0] if wanted else max(common, key=lambda name: read[name] / rows[name])
    if len(rows) == 1:
        return used, f"filter {used}"
    shares = {name: f"{read[name] / rows[name]:.1%}" for name in rows}
    others = ", ".join(f"{name}: {share}" for name, share in shares.items() if name != used)
    return used, f"filter {used}, which finds an answer in {shares[used]} of its rows ({others})"


def in_every_log(pairs: Iterator[tuple[str, str]]) -> list[str]:
    """Of (model, name), the names that every model has, in the order of their first appearance."""
    models: dict[str, set[str]] = defaultdict(set)
    everyone = set()
    for model, name in pairs:
        models[name].add(model)
        everyone.add(model)
    return [name for name, those in models.items() if those == everyone]
