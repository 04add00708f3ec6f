"""`w2s experts`: dense models of one base as the experts of one sparse model, outside any run."""

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from w2s.config.fields import Config, Learner
from w2s.config.load import from_overrides, value_checks
from w2s.config.plugins import check_with_plugins
from w2s.config.registry import did_you_mean
from w2s.data.rows import read_source, take_first
from w2s.data.sources import SOURCES
from w2s.models import folders, sparse
from w2s.stages import Tools
from w2s.stages.experts import favour, write_towards
from w2s.stages.jobs import Workers, do_job
from w2s.stages.models import ask_model, base_folder, find_place, keep_dequantised, mean_opinion
from w2s.stages.precision import resolve_learner
from w2s.store.log import say
from w2s.store.records import BadInput, Example, Gold, Weights, write_rows
from w2s.workers.job import Base, Experts

ROUTERS = ("zero", "hidden", "weights")


@dataclass(frozen=True)
class Plan:
    """What to make: the flags of the command."""

    models: Sequence[str]
    out: Path
    base: str | None = None
    router: str = "zero"
    on: Sequence[str] = ()
    weights: Sequence[float] = ()
    active: int = 2
    balance: float = 0.01
    noise: float = 1e-3
    seed: int = 0


def make_experts(plan: Plan, overrides: Sequence[str]) -> str:
    """Write the mixture to the new folder `plan.out`; returns what to print."""
    config = from_overrides(overrides, check_with_plugins(value_checks))
    check(plan, config.models.root)
    questions = read_questions(plan, config)
    # The job's folder; renamed at the end, so that the name stands for a whole model.
    work = plan.out.with_name(f"{plan.out.name}.partial").resolve()
    work.mkdir(parents=True, exist_ok=True)
    with Workers(config.runtime) as workers:
        named = dict.fromkeys([*plan.models, *([plan.base] if plan.base else [])])
        places = {name: place for name in named if (place := find_place(name, config.models.root))}
        tools = Tools(config.runtime, None, None, workers.run, models=places)
        learners = {name: Learner(dataclasses.replace(config.student.model, path=name)) for name in named}
        paths = {name: base_folder(keep_dequantised(tools, name), tools, learners[name]) for name in named}
        job = Experts(
            [paths[name] for name in plan.models],
            list(plan.weights) or [1.0] * len(plan.models),
            base=paths[plan.base] if plan.base else None,
            **{key: getattr(plan, key) for key in ("active", "balance", "noise", "seed")},
            runtime=config.runtime,
        )
        if questions:
            write_rows(work / "examples.jsonl", [row for rows, _ in questions for row in rows])
            own = share_out(plan, questions, work, tools, {name: (learners[name], paths[name]) for name in named})
            job = dataclasses.replace(job, examples="examples.jsonl", towards=write_towards(work, own))
        done = do_job(work, tools, job)
    (work / "experts.json").replace(work / "model" / "experts.json")
    (work / "model").rename(plan.out)
    shutil.rmtree(work, ignore_errors=True)
    lines = [f"{done['parameters']:,} parameters, of which a token passes through {done['active_parameters']:,}"]
    lines.append(f"router: {done['router']}")
    if "condition" in done:
        told = "infinite" if done["condition"] is None else f"{done['condition']:.3g}"
        lines[-1] += f"; largest condition number of a layer's rows: {told}"
    return "\n".join([*lines, f"model: {plan.out}"])


def check(plan: Plan, root: str | None) -> None:
    """BadInput lists all that is wrong with the flags and the models' folders, before anything is written."""
    problems, kinds = [], {}
    for name in dict.fromkeys([*plan.models, *([plan.base] if plan.base else [])]):
        if why := folders.absent(name, root):
            problems.append(f"model: {why}")
        elif why := sparse.unfit(name, root):
            problems.append(f"{name}: {why}")
        else:
            folders.damage(str(folders.locate(name, root) or name))
            kinds[name] = (sparse.read_config(name, root) or {}).get("model_type")
    known = {kind: name for name, kind in reversed(kinds.items()) if kind}
    for kind, name in list(known.items())[:-1]:
        first, other = list(known.items())[-1]
        problems.append(f"{name}: {kind} given; allowed: {first}, as {other}")
    if plan.router not in ROUTERS:
        problems.append(f"--router: {plan.router!r} given; allowed: {', '.join(ROUTERS)}")
    if not 1 <= plan.active <= len(plan.models):
        problems.append(f"--active: {plan.active} given; allowed: 1 to {len(plan.models)}, the number of models")
    given = list(plan.weights)
    if given and not (len(given) == len(plan.models) and min(given) >= 0 and 0 < sum(given) < float("inf")):
        allowed = f"{len(plan.models)} numbers of at least 0, one for each model, not all 0"
        problems.append(f"--weights: {given} given; allowed: {allowed}")
    for flag in ("balance", "noise"):
        if not 0 <= getattr(plan, flag) < float("inf"):
            problems.append(f"--{flag}: {getattr(plan, flag)} given; allowed: a number of at least 0")
    problems += check_suites(plan)
    if plan.out.exists():
        problems.append(f"--out: {plan.out} exists; allowed: the name of a new folder")
    if problems:
        raise BadInput("\n".join(problems))


def check_suites(plan: Plan) -> list[str]:
    problems = [
        f"--on: {name!r} is not known{did_you_mean(name, SOURCES)}; see `w2s methods sources`"
        for name in plan.on
        if name not in SOURCES
    ]
    needed = {"zero": (0,), "hidden": (len(plan.models),), "weights": range(1, 100)}.get(plan.router, range(100))
    if len(plan.on) not in needed:
        words = {
            "zero": "none, as a router of zeros reads no examples",
            "hidden": f"{len(plan.models)} suites, the one that each model is for",
            "weights": "at least one suite of questions with choices",
        }[plan.router]
        problems.append(f"--on: {' '.join(plan.on) or 'nothing'} given; allowed with --router {plan.router}: {words}")
    return problems


Questions = list[tuple[list[Example], list[Gold]]]


def read_questions(plan: Plan, config: Config) -> Questions:
    """The questions of every suite of --on, with their gold; the first `limit` by id of each."""
    found = []
    for name in plan.on:
        rows, gold = take_first(read_source(config, {"name": name}, "--on", 0), config.limit)
        if plan.router == "weights" and any(row.task != "choice" for row in rows):
            raise BadInput(f"--on: {name!r} given; allowed with --router weights: questions with choices")
        found.append((rows, gold))
    ids = [row.id for rows, _ in found for row in rows]
    if len(set(ids)) < len(ids):
        raise BadInput("--on: a question comes up twice; allowed: suites that share none")
    return found


def share_out(
    plan: Plan, questions: Questions, work: Path, tools: Tools, models: dict[str, tuple[Learner, str]]
) -> list[Weights]:
    """The examples that each model is for: its own suite, or those that it gets right and their mean does not."""
    if plan.router == "hidden":
        ids = [np.array([row.id for row in rows]) for rows, _ in questions]
        return [Weights(own, np.full(len(own), 1 / len(own))) for own in ids]
    opinions = {}
    for at, (name, (learner, path)) in enumerate(models.items()):
        saved = (Path(path) / folders.MARKS).exists() and "model" in folders.read_marks(path)
        asked = Path(path) if saved else Base(resolve_learner(learner, tools.runtime), path)
        found = ask_model(work / f"ask-{at}", tools, asked, {"answers": work / "examples.jsonl"}, name)
        opinions[name] = found["answers"]
    answer = {row.id: row.answer for _, gold in questions for row in gold}
    everyone = mean_opinion([opinions[name] for name in plan.models])
    towards, counts = favour(
        [opinions[name] for name in plan.models], everyone, np.array([answer[key] for key in everyone.ids.tolist()])
    )
    for name, count in zip(plan.models, counts["won"], strict=True):
        say(f"{name}: right on {count} of {len(everyone.ids)} questions that the models together miss")
    return towards
