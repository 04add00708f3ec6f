"""`w2s combine`: recorded outputs -> every method judged on held-out questions -> a folder to read and to use.

The folder holds combine.json (all numbers), combine.html, predictions.parquet (each method's answer to each question)
and fitted/METHOD.npz, which `apply` uses on new questions and `labels` turns into training labels for a student.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import pool_curves, pool_judging
from evaluation.pool_files import check_folder, with_features, write_predictions
from evaluation.pool_judging import Judged
from evaluation.pool_report import PICKED, render, table
from evaluation.statistics import Interval, contrast, rate, smallest_difference
from w2s.config import build
from w2s.config_file import apply as override
from w2s.config_file import from_overrides, read
from w2s.data.defects import pool_notes
from w2s.data.outputs import read_pool
from w2s.data.rows import read_source
from w2s.data.sources import SOURCES
from w2s.ensemble import bounds
from w2s.ensemble.pool import ALL, FAMILIES, METHODS, fit
from w2s.log import say
from w2s.opinions import ABSTAINED, NOT_ASKED, Fitted, NotApplicable, Opinions, Truth, ballots, write_fitted
from w2s.records import BadInput, Example, Gold
from w2s.registry import did_you_mean, fits, pick, summary
from w2s.store import write_json

PICKED_WORDS = "The method that did best on the other half's questions: an honest choice among all of these."


@dataclass(frozen=True)
class Asked:
    """What `w2s combine` was asked to do: its flags, or the keys of its config file."""

    outputs: str = ""
    """A file or folder of recorded outputs."""
    questions: str | None = None
    """The file of questions, where the outputs' folder does not hold it."""
    methods: list = field(default_factory=lambda: ["all"])
    """Names of methods or families, `all`, or mappings {name: ..., options}."""
    suite: str | None = None
    """What evalplus samples are judged by: a source such as humanevalplus, read from data_root or from the hub."""
    data_root: str | None = None
    models: list[str] = field(default_factory=list)
    """Only these models; [] is all."""
    groups: list[str] = field(default_factory=list)
    """Only the questions of these groups (tasks, subjects); [] is all."""
    costs: dict = field(default_factory=dict)
    """US dollars of one answer, by member or by pattern (`gpt-4*: 0.01`), where they were not recorded; first match."""
    repeats: int = 5
    """How often the questions are cut into halves anew."""
    seed: int = 0
    online: bool = False
    """Also the online protocol, in `repeats` random orders: each label is revealed after its question."""
    encoder: str | None = None
    """A sentence encoder, by folder or hub name, for what routers see of a prompt; TF-IDF by default."""
    out: str | None = None
    """Folder of the results; runs/combine/<name of outputs> by default."""

    @property
    def folder(self) -> Path:
        return Path(self.out or Path("runs") / "combine" / Path(self.outputs).resolve().stem)


def asked_of(config: str | None, flags: dict[str, Any], overrides: Sequence[str]) -> tuple[Asked, list[dict[str, Any]]]:
    """The config file's keys with the flags over them, and the methods' specs with METHOD.OPTION=value over those."""
    problems: list[str] = []
    values = {} if config is None else read(config, problems)
    asked = build(Asked, {**values, **flags}, "", problems)
    if asked.seed < 0:
        problems.append(f"seed: {asked.seed} given; allowed: 0 and above")
    if not asked.outputs:
        problems.append("outputs: none given; a file or folder of recorded outputs is needed")
    specs = specs_of(asked.methods, problems)
    for text in overrides:
        name = text.partition(".")[0]
        if name not in specs:
            problems.append(f"{text}: {name!r} is not among the methods{did_you_mean(name, specs)}")
        else:
            override(specs, text, problems)
    for name, spec in specs.items():
        try:
            pick(METHODS, {"name": name, **spec}, key="methods")
        except BadInput as error:
            problems.append(str(error))
        else:
            if spec.get("seed", 0) < 0:
                problems.append(f"methods.seed: {spec['seed']} given; allowed: 0 and above")
    if problems:
        raise BadInput("\n".join(problems))
    return asked, [{"name": name, **spec} for name, spec in specs.items()]


def specs_of(methods: Sequence[Any], problems: list[str]) -> dict[str, dict[str, Any]]:
    """name -> options of each method asked for; the baselines are always among them."""
    specs: dict[str, dict[str, Any]] = {"best_single": {}, "plurality": {}}
    for one in methods:
        if not isinstance(one.get("name") if isinstance(one, dict) else one, str):
            problems.append(f"methods: {one!r} given; allowed: a name, or a mapping with a name and options")
        elif isinstance(one, dict):
            specs[one["name"]] = {key: value for key, value in one.items() if key != "name"}
        elif one == "all":
            specs |= {name: {} for name in ALL if name not in specs}
        elif one in FAMILIES:
            specs |= {name: {} for name in FAMILIES[one] if name not in specs}
        elif one in METHODS:
            specs.setdefault(one, {})
        else:
            known = ["all", *FAMILIES, *METHODS]
            problems.append(f"methods: {one!r} is not known{did_you_mean(one, known)}; see `w2s methods combine`")
    return specs


def combine(asked: Asked, specs: list[dict[str, Any]], command: str) -> str:
    """Judge, fit on all questions with gold, and write the folder; returns the table for the terminal."""
    check_folder(asked.folder)
    opinions, truth = read_asked(asked)
    say(f"{len(opinions.ids):,} questions, {len(opinions.members)} members")
    found, left_out = pool_judging.judge(specs, opinions, truth, repeats=asked.repeats, seed=asked.seed)
    found = without_needless(asked, found, left_out)
    report = describe(asked, found, left_out, opinions, truth, command)
    if asked.online:
        report["online"] = online(asked, specs, opinions, truth)
    folder = asked.folder
    (folder / "fitted").mkdir(parents=True, exist_ok=True)
    for stale in (folder / "fitted").glob("*.npz"):
        stale.unlink()  # of an earlier run, perhaps on another pool
    for one, whole in zip(found, pool_judging.each(lambda one: refit(one, opinions, truth), found), strict=True):
        if isinstance(whole, NotApplicable):
            report["remarks"].append(f"{one.name} was judged, but cannot be fitted on all questions: {whole}")
        else:
            write_fitted(folder / "fitted" / f"{one.name}.npz", whole)
    answers = [(one.name, (one.candidate_N, one.confidence_N, one.member_N), one.right_RN[0]) for one in found]
    write_predictions(folder / "predictions.parquet", answers, opinions)
    write_json(folder / "combine.json", report)
    (folder / "combine.html").write_text(render(report), encoding="utf-8")
    return f"{table(report)}\nreport: {folder / 'combine.html'}"


def refit(one: Judged, opinions: Opinions, truth: Truth) -> Fitted | NotApplicable:
    """A judged method, fitted on all questions, or why it cannot be."""
    try:
        return fit({"name": one.name, **one.options}, opinions, truth)
    except NotApplicable as reason:
        return reason


def without_needless(asked: Asked, found: list[Judged], left_out: dict[str, str]) -> list[Judged]:
    """Plurality stands beside every other method, unless nobody asked for votes and it would cost questions.

    Where answers were not recorded a vote cannot be judged, and all methods are compared on the same questions.
    """
    others = [one for one in found if one.name != "plurality"]
    wanted = {"all", "votes", "plurality"} & {one if isinstance(one, str) else one.get("name") for one in asked.methods}
    if wanted or len(others) < 2 or (pool_judging.common(found) == pool_judging.common(others)).all():
        return found
    left_out["plurality"] = "not all answers were recorded"
    return others


def read_asked(asked: Asked) -> tuple[Opinions, Truth]:
    """The pool, cut to the groups asked for, with the encoder's features of its prompts where one is named."""
    questions = Path(asked.questions) if asked.questions else None
    suite = suite_of(asked.suite, asked.data_root) if asked.suite else None
    opinions, truth = read_pool(Path(asked.outputs), questions, models=asked.models, suite=suite)
    unknown = set(asked.groups) - set(opinions.group_N.tolist())
    if unknown:
        one, known = sorted(unknown)[0], sorted(set(opinions.group_N.tolist()))
        raise BadInput(f"groups: {one!r} is not there{did_you_mean(one, known)}; there are: {', '.join(known[:12])}")
    if asked.groups:
        rows_N = np.isin(opinions.group_N, asked.groups)
        opinions, truth = opinions.questions(rows_N), truth.questions(rows_N)
    return with_features(with_costs(opinions, asked.costs), asked.encoder), truth


def with_costs(opinions: Opinions, costs: dict[str, float]) -> Opinions:
    """The same with a price for each answer of the members that a pattern names; what was recorded stays."""
    if not costs:
        return opinions
    if odd := [name for name in costs if not isinstance(name, str)]:
        raise BadInput(f"costs: {odd[0]!r} given; allowed: a member's name or pattern, as text")
    bad = next(((name, cost) for name, cost in costs.items() if not fits(cost, float) or cost < 0), None)
    if bad:
        raise BadInput(f"costs: {bad[0]}: {bad[1]!r} given; allowed: dollars per answer, 0 and above")
    priced_M = [
        next((cost for name, cost in costs.items() if fnmatchcase(one, name)), None) for one in opinions.members
    ]
    missing = [str(one) for one, cost in zip(opinions.members, priced_M, strict=True) if cost is None]
    if missing and opinions.cost_MN is None:
        raise BadInput(f"costs: no price for {missing[0]!r} ({len(missing)} members in all); a pattern ends in *")
    given_MN = np.array([np.nan if cost is None else cost for cost in priced_M])[:, None] + np.zeros(len(opinions.ids))
    if opinions.cost_MN is not None:
        given_MN = np.where(np.isfinite(opinions.cost_MN), opinions.cost_MN, given_MN)
    return dataclasses.replace(opinions, cost_MN=np.where(opinions.answer_MN == NOT_ASKED, np.nan, given_MN))


def suite_of(name: str, data_root: str | None) -> tuple[list[Example], list[Gold]]:
    """The tasks that programs are judged by."""
    if name not in SOURCES:
        raise BadInput(f"suite: {name!r} is not known{did_you_mean(name, SOURCES)}; see `w2s methods sources`")
    config = from_overrides([] if data_root is None else [f"data.root={data_root}"])
    return read_source(config, {"name": name}, "suite", 0)


def describe(
    asked: Asked, found: list[Judged], left_out: dict[str, str], opinions: Opinions, truth: Truth, command: str
) -> dict[str, Any]:
    """combine.json: what `pool_report.render` shows."""
    rows_N = pool_judging.common(found)
    if not rows_N.any():
        raise BadInput("methods: there is no question on which all of them can be judged; ask for one family at a time")
    halves = [pool_judging.split(opinions, truth, asked.seed + repeat) for repeat in range(asked.repeats)]
    columns = {one.name: one.right_RN for one in found}
    methods = [row_of(one, columns, opinions, rows_N) for one in found]
    winner = max(methods, key=lambda one: one["accuracy"][0])["name"]
    curves = {"cost": pool_curves.by_cost(found, opinions, truth, rows_N)}
    columns[PICKED] = pool_judging.picked(found, halves, rows_N)
    methods.append({
        "name": PICKED, "family": "mixed", "summary": PICKED_WORDS, "options": {}, "abstained": None, "cost": None,
        "asked": None, "seconds": 0.0, **against(PICKED, columns, opinions, rows_N),
    })  # fmt: skip
    for one in methods:
        for key in ("over_hull", "over_hull_all"):
            one[key] = curves["cost"] and curves["cost"][key].get(one["name"])
    known, gold = opinions.questions(rows_N), truth.questions(rows_N)
    wrong = bounds.all_wrong(gold.right_MN)
    if "plurality" in columns:
        evidence = ballots(known, gold)
        curves["correlation"] = pool_curves.correlation(evidence, known.members)
        curves["agreement"] = pool_curves.agreement(opinions, truth, rows_N)
        curves["by_number"] = pool_curves.by_number(known, gold, [half[rows_N] for half in halves], evidence)
    pair = scores(winner, columns, opinions, rows_N, "best_single")
    return {
        "command": command, "outputs": str(asked.outputs), "questions": len(opinions.ids), "judged": int(rows_N.sum()),
        "members": opinions.members.tolist(), "repeats": asked.repeats, "seed": asked.seed, "winner": winner,
        "remarks": remarks(opinions, truth, rows_N, curves.get("correlation")),
        "methods": sorted(methods, key=lambda one: -one["accuracy"][0]),
        "left_out": [{"name": name, "reason": reason} for name, reason in left_out.items()],
        "singles": singles(known, gold), "smallest_difference": smallest_difference(pair, [1, -1]),
        "bounds": {
            "oracle": [1 - wrong.rate, 1 - wrong.high, 1 - wrong.low],
            "all_wrong": [wrong.rate, wrong.low, wrong.high],
        },
        "curves": curves,
        "online": None,
        "groups": groups(columns[winner].mean(0), columns.get("plurality"), opinions, truth, rows_N),
    }  # fmt: skip


def online(asked: Asked, specs: list[dict[str, Any]], opinions: Opinions, truth: Truth) -> list[dict[str, Any]]:
    """The online protocol's table, best first; best_single is the best member in hindsight."""
    focal = next((spec for spec in specs if spec["name"] == "rl_focal"), None)
    shared = ("alpha", "window", "by_group", "hidden")
    options = None if focal is None else {key: value for key, value in focal.items() if key in shared}
    try:
        columns = pool_judging.judge_online(
            opinions, truth, focal_options=options, repeats=asked.repeats, seed=asked.seed
        )
    except NotApplicable as reason:
        raise BadInput(f"online: {reason}") from None
    rows_N = np.isfinite(next(iter(columns.values()))).all(0)
    rows = [{"name": name, **against(name, columns, opinions, rows_N)} for name in columns]
    return sorted(rows, key=lambda one: -one["accuracy"][0])


def row_of(one: Judged, columns: dict, opinions: Opinions, rows_N: np.ndarray) -> dict[str, Any]:
    """One method's line of the ranked table."""
    cost = None if one.cost_RN is None else 1000 * float(one.cost_RN[:, rows_N].mean())
    return {
        "name": one.name,
        "family": next(family for family, members in FAMILIES.items() if one.name in members),
        "summary": summary(METHODS[one.name]),
        "options": one.options,
        **against(one.name, columns, opinions, rows_N),
        "abstained": float(one.abstained_N[rows_N].mean()),
        "cost": cost,
        "asked": float(one.asked_RN[:, rows_N].mean()),
        "seconds": one.seconds,
    }


def scores(name: str, columns: dict, opinions: Opinions, rows_N: np.ndarray, other: str | None = None) -> list:
    """One column, or two for a paired difference, as the statistics want them."""
    named = [columns[name]] if other is None else [columns[name], columns[other]]
    return pool_judging.scores(opinions.ids, named, rows_N)


def against(name: str, columns: dict, opinions: Opinions, rows_N: np.ndarray) -> dict[str, Any]:
    """accuracy, and over_best and over_plurality: paired differences; None for a method against itself."""
    found = {"accuracy": values(rate(scores(name, columns, opinions, rows_N)))}
    for key, other in (("over_best", "best_single"), ("over_plurality", "plurality")):
        there = other in columns and other != name
        found[key] = values(contrast(scores(name, columns, opinions, rows_N, other), [1, -1])) if there else None
    return found


def values(interval: Interval) -> list[float]:
    return [interval.value, interval.low, interval.high]


def singles(known: Opinions, gold: Truth) -> list[dict[str, Any]]:
    """Each member alone on the judged questions, best first; where it has no answer, it is not right."""
    rows = []
    for at, name in enumerate(known.members.tolist()):
        right_N, answer_N = np.nan_to_num(gold.right_MN[at]), known.answer_MN[at]
        cost = None if known.cost_MN is None else 1000 * float(np.nan_to_num(known.cost_MN[at]).mean())
        interval = rate(pool_judging.scores(known.ids, [right_N[None]], np.ones(len(known.ids), dtype=bool)))
        not_asked = float((answer_N == NOT_ASKED).mean())
        rows.append({
            "name": name, "accuracy": values(interval), "abstained": float((answer_N == ABSTAINED).mean()),
            "not_asked": not_asked, "cost": cost,
        })  # fmt: skip
    return sorted(rows, key=lambda row: -row["accuracy"][0])


def groups(winner_N, plurality_RN, opinions: Opinions, truth: Truth, rows_N: np.ndarray) -> list[dict[str, Any]]:
    """Accuracy by group: the winner, the plurality, and the member that is best there (in hindsight)."""
    found = []
    for group in np.unique(opinions.group_N[rows_N]):
        here = rows_N & (opinions.group_N == group)
        right_M = np.nan_to_num(truth.right_MN[:, here]).mean(1)
        best = int(right_M.argmax())
        plurality = None if plurality_RN is None else float(plurality_RN[:, here].mean())
        found.append({
            "group": str(group), "n": int(here.sum()), "winner": float(winner_N[here].mean()), "plurality": plurality,
            "best_single": [str(opinions.members[best]), float(right_M[best])],
        })  # fmt: skip
    return found if len(found) > 1 else []


def remarks(opinions: Opinions, truth: Truth, rows_N: np.ndarray, together: dict | None) -> list[str]:
    """What a reader should know: about the data, about what could not be judged, about members that err together."""
    found = pool_notes(opinions, truth)
    if not rows_N.all():
        found.append(f"{int((~rows_N).sum()):,} questions are left out: not every method could be judged on them")
    if together and together["warning"]:
        found.append(together["warning"])
    return found
