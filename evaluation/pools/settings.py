"""What `w2s combine` was asked: its flags or config file, the methods with their options, and their pool."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from w2s.config.load import apply as override
from w2s.config.load import from_overrides, read
from w2s.config.registry import build, did_you_mean, fits, pick
from w2s.data.rows import read_source
from w2s.data.sources import SOURCES
from w2s.evaluation.pools.apply import with_features
from w2s.pools.defects import pool_notes
from w2s.pools.methods import ALL, FAMILIES, METHODS
from w2s.pools.read import read_pool
from w2s.pools.records import NOT_ASKED, Opinions, Truth
from w2s.store.log import say
from w2s.store.records import BadInput, Example, Gold


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
    unit: str = "$"
    """What costs are counted in, recorded or given, for example tokens or seconds."""
    metric: list[str] = field(default_factory=list)
    """Of lm-eval logs the metric that says right or wrong, the preferred first; [] prefers exact_match, acc, ..."""
    filter: list[str] = field(default_factory=list)
    """Of lm-eval logs the filter whose answers count, the preferred first; [] takes the one that finds most answers."""
    limit: int | None = None
    """A smoke run: the first so many questions by id."""
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
        name = Path(self.outputs).resolve().stem + (f"-limit-{self.limit}" if self.limit else "")
        return Path(self.out or Path("runs") / "combine" / name)


def asked_of(config: str | None, flags: dict[str, Any], overrides: Sequence[str]) -> tuple[Asked, list[dict[str, Any]]]:
    """The config file's keys with the flags over them, and the methods' specs with METHOD.OPTION=value over those."""
    problems: list[str] = []
    values = {} if config is None else read(config, problems)
    asked = build(Asked, {**values, **flags}, "", problems)
    if asked.limit is not None and asked.limit < 1:
        problems.append(f"limit: {asked.limit} given; allowed: a whole number above 0")
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


def read_asked(asked: Asked) -> tuple[Opinions, Truth, list[str]]:
    """The pool, cut to the groups asked for, with costs and features as asked; and notes on its gaps and labels."""
    questions = Path(asked.questions) if asked.questions else None
    suite = suite_of(asked.suite, asked.data_root) if asked.suite else None
    notes: list[str] = []
    log = {"suite": suite, "metrics": asked.metric, "filters": asked.filter, "notes": notes}
    opinions, truth = read_pool(Path(asked.outputs), questions, models=asked.models, **log)
    unknown = set(asked.groups) - set(opinions.group_N.tolist())
    if unknown:
        one, known = sorted(unknown)[0], sorted(set(opinions.group_N.tolist()))
        raise BadInput(f"groups: {one!r} is not there{did_you_mean(one, known)}; there are: {', '.join(known[:12])}")
    if asked.groups:
        rows_N = np.isin(opinions.group_N, asked.groups)
        opinions, truth = opinions.questions(rows_N), truth.questions(rows_N)
    if asked.limit and asked.limit < len(opinions.ids):
        notes.insert(0, f"a smoke run: the first {asked.limit:,} of {len(opinions.ids):,} questions by id")
        rows = np.sort(np.argsort(opinions.ids, kind="stable")[: asked.limit])
        opinions, truth = opinions.questions(rows), truth.questions(rows)
    for note in notes:
        say(note)
    opinions = with_costs(opinions, asked.costs)
    notes += pool_notes(opinions, truth)
    return with_features(without_gaps(opinions), asked.encoder), truth, notes


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


def without_gaps(opinions: Opinions) -> Opinions:
    """The same with a price for every answer: a member's gaps get its mean. No costs where one has none at all."""
    if opinions.cost_MN is None:
        return opinions
    asked_MN = opinions.answer_MN != NOT_ASKED
    known_MN = np.isfinite(opinions.cost_MN) & asked_MN
    if not known_MN.any(1).all():
        lacking = str(opinions.members[~known_MN.any(1)][0])
        say(f"costs are left out: {lacking} has none (--costs gives prices)")
        return dataclasses.replace(opinions, cost_MN=None)
    mean_M1 = np.nanmean(np.where(known_MN, opinions.cost_MN, np.nan), axis=1, keepdims=True)
    return dataclasses.replace(opinions, cost_MN=np.where(asked_MN & ~known_MN, mean_M1, opinions.cost_MN))


def suite_of(name: str, data_root: str | None) -> tuple[list[Example], list[Gold]]:
    """The tasks that programs are judged by."""
    if name not in SOURCES:
        raise BadInput(f"suite: {name!r} is not known{did_you_mean(name, SOURCES)}; see `w2s methods sources`")
    config = from_overrides([] if data_root is None else [f"data.root={data_root}"])
    return read_source(config, {"name": name}, "suite", 0)
