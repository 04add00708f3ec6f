"""lm-eval's sample logs (0.4.0 to 0.4.13) as rows of questions and of outputs, by one filter and one metric per task.

A task's log has a row for each document and filter (a way to cut the answer out of the text), with every metric in it.
Filter and metric are chosen once for a task, over all models' logs of it, and reported: never row by row.
"""

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
from w2s.grading.answers import normalise
from w2s.grading.endings import final_answer
from w2s.store.problems import MOST, Problems, raise_problems
from w2s.store.records import BadInput, softmax

# Metrics that are 1 if the answer is right and else 0, the preferred first; others are used only if named.
RIGHT = ("exact_match", "acc", "acc_norm", "math_verify", "em", "pass@1", "prompt_level_strict_acc")
WHOLE_TEXTS = ("pass@1", "prompt_level_strict_acc")  # metrics of programs and essays: no two are the same answer
LENGTHS = {"acc_norm": len, "acc_bytes": lambda text: len(text.encode())}  # the likelihoods are divided by them
FIELDS = {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"}
FIELDS |= {"doc_hash", "prompt_hash", "target_hash"}
UNREAD = ("", "[invalid]")  # what a filter returns if it finds no answer
DATE = re.compile(r"_(\d{4}-\d\d-\d\dT[\d.+-]+|seed-\d+)$")  # our own exports have a seed


@dataclass
class Sample:
    """One model's response to one question under one filter; likely_K are the log-likelihoods of the choices."""

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
    """The reason why a task cannot be read as right and wrong answers."""


def lm_eval_rows(
    files: Sequence[Path], metrics: Sequence[str], filters: Sequence[str], notes: list[str]
) -> tuple[list[dict], list[dict]]:
    """Rows of questions and of outputs; what was chosen or left out is added to `notes`.

    metrics, filters: those that may be used, in order of preference; () chooses the first known metric, and the filter
    that recognises the most answers.
    """
    files = newest(files, notes)
    questions, samples = read_samples(files)
    kept, outputs, chosen, reasons = set(), [], defaultdict(list), []
    for task, task_samples in samples.items():
        try:
            filter_name, metric, choice = choose_metric(task_samples, metrics, filters)
        except LeftOut as reason:
            reasons.append(f"{task}: {reason}")
            continue
        chosen[choice].append(task)
        kept.add(task)
        outputs += [make_output(sample, metric) for sample in task_samples if sample.filter == filter_name]
    if not kept:
        raise_problems(reasons[:MOST], len(reasons))
    for choice, tasks in chosen.items():
        more = f" and {len(tasks) - 4} more" if len(tasks) > 4 else ""
        notes.append(f"lm-eval's {', '.join(tasks[:4])}{more}: {choice}")
    notes += [f"left out: {reason}" for reason in reasons]
    return [row for row in questions.values() if row["group"] in kept], outputs


def parse_file_name(path: Path) -> tuple[str, str]:
    """(task, date) of samples_TASK_DATE.jsonl; the date is '' if there is none."""
    name = re.split(r"\.jsonl?(?:\.gz)?$", path.name)[0]
    if re.match(r"(pretrained|peft|delta|model|path|engine)(=|__)", name):
        raise BadInput(
            f"{path}: model and task share one name, as lm-eval before 0.4.3 wrote it, and cannot be separated; "
            "rename it MODEL/samples_TASK.jsonl"
        )
    name, dated = name.removeprefix("samples_"), DATE.search(name)
    return (name[: -len(dated[0])], dated[1]) if dated else (name, "")


def newest(files: Sequence[Path], notes: list[str]) -> list[Path]:
    """The newest file for each model and task: a rerun writes another file."""
    by_date = sorted(files, key=lambda file: parse_file_name(file)[1])
    latest = {(file.parent, parse_file_name(file)[0]): file for file in by_date}
    if older := sorted(set(files) - set(latest.values())):
        count = f"{len(older)} older logs" if len(older) > 1 else "an older log"
        notes.append(f"{count} of the same model and task not read, since the newest counts: {older[0]}")
    return sorted(latest.values())


def read_samples(files: Sequence[Path]) -> tuple[dict[str, dict], dict[str, list[Sample]]]:
    """Questions by id, and by task all samples under all filters; faulty rows are one BadInput at the end."""
    questions: dict[str, dict] = {}
    versions: dict[str, Any] = {}
    samples: dict[str, list[Sample]] = defaultdict(list)
    problems = Problems()
    for file in files:
        task, model = parse_file_name(file)[0], file.absolute().parent.name.replace("__", "/")
        times: Counter[str] = Counter()
        for where, row in file_rows(file, problems):
            try:
                key = f"{task}/{row['doc_id']}"
                times[key] += 1
                unnamed = "none" if times[key] == 1 else f"unnamed {times[key]}"  # until 0.4.6 filters have no names
                sample = Sample(where, key, model, str(row.get("filter") or unnamed), read_metrics(row))
                question = read_question(sample, row)
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


def read_metrics(row: dict[str, Any]) -> dict[str, Any]:
    """Name -> value of every metric in a row that has a value."""
    names = row["metrics"] if isinstance(row.get("metrics"), list) else [name for name in row if name not in FIELDS]
    return {str(name): row[name] for name in names if row.get(name) is not None}


def read_question(sample: Sample, row: dict[str, Any]) -> dict[str, Any]:
    """The question of a row; fills in the response in `sample`. ValueError and the like if the row is not a sample."""
    requests, responses, target = read_requests(row["arguments"]), row["filtered_resps"], row["target"]
    prompt = requests[0][0] if isinstance(requests[0][0], str) else json.dumps(requests[0][0], ensure_ascii=False)
    verdicts = ("True", "False")
    scored = all(isinstance(pair, list) and len(pair) == 2 and str(pair[1]) in verdicts for pair in responses)
    if scored and len(responses) > 1:
        choices = read_choices(requests)
        likely = np.array([float(response[0]) for response in responses])
        sample.choices, sample.likely_K = tuple(choices), likely[: len(choices)]
        sample.alone_K = likely[len(choices) :] if len(likely) == 2 * len(choices) else None
        if np.isnan(likely).any() or sample.likely_K.max() == -np.inf:
            raise ValueError("the log-likelihoods are not numbers")
        target = str(target)
        gold = target if target.isdecimal() and int(target) < len(choices) else find_choice(choices, target)
        return {"prompt": prompt, "choices": choices, "gold": gold}
    if not scored:
        said = responses[0] if responses else ""
        said = said[0] if isinstance(said, list) and len(said) == 1 else said
        # With several answers at once, the metric is about all of them.
        sample.text = None if isinstance(said, list) else str("" if said is None else said)
    # Several right answers are not one candidate: then only the recorded verdicts tell right from wrong.
    gold = None if scored or is_list(target) else normalise(final_answer(str(target)) or str(target))
    return {"prompt": prompt, "choices": [], "gold": gold}


def make_output(sample: Sample, metric: str) -> dict[str, Any]:
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


def is_list(target: Any) -> bool:
    """Whether there are several right answers: a list, or the text of one."""
    try:
        return isinstance(ast.literal_eval(target) if isinstance(target, str) else target, list | tuple)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return False


def read_requests(arguments: Any) -> list[list]:
    """[context, continuation or options] of each request, from {gen_args_0: {arg_0, arg_1}, ...} or from lists."""
    each = arguments.values() if isinstance(arguments, dict) else arguments
    return [list(request.values()) if isinstance(request, dict) else list(request) for request in each]


def read_choices(requests: list[list]) -> list[str]:
    """The choices: what follows the context or, if that is the same (Winogrande), the contexts' different ends."""
    texts, contexts = [str(request[1]) for request in requests], [str(request[0]) for request in requests]
    half = len(texts) // 2
    if texts[:half] == texts[half:] and contexts[0] != contexts[half] and len(set(contexts[:half])) == 1:
        texts = texts[:half]  # acc_mutual_info repeats every choice, without the question
    if len(set(texts)) == 1:
        texts = [context[len(os.path.commonprefix(contexts)) :] for context in contexts]  # noqa: RUF071
    return [text.strip() for text in texts]


def find_choice(choices: list[str], target: str) -> str | None:
    return str(choices.index(target.strip())) if choices.count(target.strip()) == 1 else None


def choose_metric(samples: Sequence[Sample], metrics: Sequence[str], filters: Sequence[str]) -> tuple[str, str, str]:
    """(filter, metric, both in words) for one task's samples of all models; raises LeftOut with the reason."""
    used, filter_words = choose_filter(samples, filters)
    samples = [sample for sample in samples if sample.filter == used]
    common = shared_names((sample.model, name) for sample in samples for name in sample.metrics)
    usable = [name for name in metrics or RIGHT if name in common]
    if not usable:
        lacking = f"no metric {' or '.join(metrics)}" if metrics else "no metric that is known as right or wrong"
        raise LeftOut(f"{lacking} in every model's log; there are: {', '.join(common) or 'none'} (--metric names one)")
    metric = usable[0]
    for sample in samples:
        value = sample.metrics.get(metric, 0)
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            raise LeftOut(f"{metric} is {str(value)[:40]} at {sample.where}: a share, not right (1) or wrong (0)")
    others = ", ".join(name for name in common if name != metric)
    return used, metric, f"metric {metric}{f' (not {others})' if others else ''}, {filter_words}"


def choose_filter(samples: Sequence[Sample], filters: Sequence[str]) -> tuple[str, str]:
    """(name, in words): the filter in every model's log that recognises the most answers; ties go to the first."""
    rows = Counter(sample.filter for sample in samples)
    read = Counter(sample.filter for sample in samples if sample.recognised)
    common = shared_names((sample.model, sample.filter) for sample in samples)
    if not common:
        raise LeftOut(f"no filter is in every model's log; there are: {', '.join(rows)}")
    usable = [name for name in filters if name in common]
    if filters and not usable and len(common) > 1:
        near = did_you_mean(filters[0], common)
        raise LeftOut(f"no filter {' or '.join(filters)}{near}; there are: {', '.join(common)}")
    used = usable[0] if usable else max(common, key=lambda name: read[name] / rows[name])
    if len(rows) == 1:
        return used, f"filter {used}"
    shares = {name: f"{read[name] / rows[name]:.1%}" for name in rows}
    others = ", ".join(f"{name}: {share}" for name, share in shares.items() if name != used)
    return used, f"filter {used}, which finds an answer in {shares[used]} of its rows ({others})"


def shared_names(pairs: Iterator[tuple[str, str]]) -> list[str]:
    """From pairs (model, name), the names that every model has, in order of first appearance."""
    models: dict[str, set[str]] = defaultdict(set)
    everyone = set()
    for model, name in pairs:
        models[name].add(model)
        everyone.add(model)
    return [name for name, those in models.items() if those == everyone]
