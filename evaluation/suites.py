"""`w2s evaluate`: one model, by hub name, folder or GGUF file, on held-out suites, outside any run."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from w2s.config.fields import Config, Learner
from w2s.config.load import from_overrides, value_checks
from w2s.config.plugins import check_with_plugins, find_used
from w2s.config.registry import did_you_mean
from w2s.data.difficulty import shuffle
from w2s.data.rows import hash_rows, read_source, take_first
from w2s.data.sources import SOURCES
from w2s.evaluation.run.metrics import count_passes, judge, judge_outcomes, measure, measure_samples, write_metrics
from w2s.evaluation.run.runs import describe_quantised
from w2s.evaluation.run.verdict import sentence
from w2s.models import folders
from w2s.stages import Tools
from w2s.stages.jobs import Workers
from w2s.stages.models import ask_model, base_folder, find_place, keep_dequantised
from w2s.stages.precision import resolve_learner
from w2s.stages.questions import solve
from w2s.stages.writing import judged, texts
from w2s.store.artifacts import read_manifest
from w2s.store.log import say, to_file
from w2s.store.records import BadInput, Example, Metric, Outcome, read_rows, write_rows
from w2s.workers.job import Base


def evaluate_model(model: str, suites: Sequence[str], overrides: Sequence[str]) -> str:
    """A table of accuracies (questions with choices) and pass@k (texts that are judged), with 95% intervals. Results
    go to RUNS/evaluate/, with texts, verdicts and a log; the same command reuses them. With `limit=N` only the first N
    questions of each suite by id are used, and their results are kept separately."""
    config = from_overrides(overrides, check_with_plugins(value_checks))
    for name in suites:
        if name not in SOURCES:
            raise BadInput(f"suite: {name!r} is not known{did_you_mean(name, SOURCES)}; see `w2s methods sources`")
    if not suites:
        raise BadInput("suite: none given; see `w2s methods sources`")
    root = config.models.root
    if not folders.read_marks(model) and (why := folders.absent(model, root)):
        raise BadInput(f"model: {why}")
    folders.damage(str(folders.locate(model, root) or model))
    path, limited = Path(model).resolve(), f"-limit-{config.limit}" if config.limit else ""
    is_student = (path.parent / "stages.json").is_file()  # its folder lies in that of its run, after which it is named
    name = f"{path.parent.name}-{path.name}" if is_student else Path(model).name
    folder = Path(config.runtime.runs_dir) / "evaluate" / f"{name}{limited}"
    to_file(folder / "log.jsonl")
    with Workers(config.runtime, title=lambda job: f"{name} on {job.name.rsplit('-', 1)[0]}") as workers:
        place = find_place(model, root)
        tools = Tools(config.runtime, None, None, workers.run, models={model: place} if place else {})
        base = keep_dequantised(tools, model)
        metrics = [m for name in suites for m in evaluate_suite(model, name, config, folder, tools, base)]
    write_metrics(folder / "metrics.json", model, "", metrics, limit=config.limit)
    lines = [f"{'suite':16} {'metric':10} {'value':>7}   95% interval       n"]
    for one in metrics:
        if one.value is not None and one.name.startswith(("accuracy", "abstained", "unjudged", "pass@")):
            lines.append(f"{one.suite:16} {one.name:10} {one.value:7.3f}   {one.low:.3f} to {one.high:.3f}   {one.n:5}")
    lines += [sentence(words) for path in base.values() if (words := describe_quantised(model, read_manifest(path)))]
    if config.limit:
        lines.append(f"limited: of each suite at most {config.limit:,} questions, the first by id")
    return "\n".join([*lines, f"all metrics: {folder / 'metrics.json'}"])


def evaluate_suite(
    model: str, suite: str, config: Config, folder: Path, tools: Tools, base: dict[str, Path]
) -> list[Metric]:
    """The metrics of one suite; the job folder is named by a hash of what determines them.

    base: see `keep_dequantised`.
    """
    whole = read_source(config, {"name": suite, **TEST_SPLIT.get(suite, {})}, suite, 0)
    examples, gold = take_first(whole, config.limit)
    train = config.student.train
    if train.precision == "auto":  # a model that w2s has saved says what it predicts in
        train = dataclasses.replace(train, precision=folders.read_marks(model).get("precision", "auto"))
    shown = dataclasses.replace(config.student.model, path=model, shots=draw_shots(config, suite, examples))
    learner = resolve_learner(Learner(shown, train), config.runtime)
    how = {"samples": config.evaluation.programs, "temperature": config.evaluation.temperature}
    recipe = [hash_rows((examples, gold)), dataclasses.asdict(learner), how, config.evaluation.max_new_tokens]
    place = tools.models.get(model)
    recipe += [place.content if place else None]  # the folder may now hold another model
    if used := find_used(dataclasses.asdict(learner)):
        recipe += [used]
    here = folder / f"{suite}-{hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]}"
    here = here.resolve()  # the worker takes other relative paths from the job's folder
    here.mkdir(parents=True, exist_ok=True)
    write_rows(here / f"{suite}.jsonl", examples)
    write_rows(here / "gold.jsonl", gold)
    cut = f" of {len(whole[0]):,}, the first by id" if len(examples) < len(whole[0]) else ""
    known = "; answered already" if (here / "done.json").exists() else ""
    say(f"{suite}: {len(examples):,} questions{cut}{known}")
    if all(example.task == "choice" for example in examples):
        start = base_folder(base, tools, learner)
        asked = Path(start) if (Path(start) / "w2s.json").exists() else Base(learner, start)
        opinion = ask_model(here, tools, asked, {"answers": here / f"{suite}.jsonl"}, model)["answers"]
        answer = {row.id: row.answer for row in gold}
        return measure(suite, {0: {model: judge(opinion, answer)}})
    writing = {**dataclasses.asdict(config.writing), "max_new_tokens": config.evaluation.max_new_tokens}
    texts(here, {suite: here, **base}, tools, on=suite, writing=writing, seed=0, learner=learner, untrained=True, **how)
    judged(here, {"texts": here, "gold": here, suite: here}, tools, by=model, on=suite)
    outcomes = read_rows(here / "outcomes.jsonl", Outcome)
    shares = [m for m in measure(suite, {0: {model: judge_outcomes(outcomes)}}) if m.name in ("abstained", "unjudged")]
    return measure_samples(suite, model, {0: count_passes(outcomes)}) + shares


def draw_shots(config: Config, suite: str, judged: Sequence[Example]) -> list[dict[str, Any]] | int:
    """The solved examples of student.model.shots: its own, or drawn from another published split by the first seed."""
    count = config.student.model.shots
    if not count or isinstance(count, list):
        return count
    if suite not in SHOT_SPLIT:
        why = f"{suite} has no other split to draw from; allowed: 0, or the examples themselves"
        raise BadInput(f"student.model.shots: {count} given; {why}")
    examples, gold = read_source(config, {"name": suite, "split": SHOT_SPLIT[suite]}, suite, 0)
    apart = {row.id: row for row in examples if row.id not in {one.id for one in judged}}
    if len(apart) < count:
        raise BadInput(f"student.model.shots: {count} given; {SHOT_SPLIT[suite]} of {suite} has {len(apart)} questions")
    return solve([apart[key] for key in shuffle(apart, config.seeds[0])[:count]], gold)


TEST_SPLIT = {
    name: {"split": "test"} for name in ("arc_easy", "arc_challenge", "sciq", "openbookqa", "mmlu", "math", "gsm8k")
}
"""Held-out splits that differ from the source's default. CommonsenseQA and BoolQ publish no test answers."""
TEST_SPLIT |= {name: {"split": "validation"} for name in ("commonsenseqa", "boolq")}
SHOT_SPLIT = dict.fromkeys(
    ("arc_easy", "arc_challenge", "sciq", "openbookqa", "commonsenseqa", "boolq", "math", "gsm8k"), "train"
) | {"mmlu": "dev", "mbpp": "prompt"}
"""The split that solved examples are drawn from: never the judged one."""
