"""The pool that `w2s combine` works on: the selected recorded outputs, with prices and features."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from w2s.config.load import from_overrides
from w2s.config.registry import did_you_mean, fits
from w2s.data.rows import read_source
from w2s.data.sources import SOURCES
from w2s.evaluation.pools.settings import Settings
from w2s.pools import read
from w2s.pools.defects import pool_notes
from w2s.pools.records import NOT_ASKED, Opinions, Truth
from w2s.store.log import say
from w2s.store.records import BadInput, Example, Gold

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Pool:
    """Recorded answers of M models to N questions, what is known of right and wrong, and the notes of reading.

    notes: one sentence for each thing that a reader should know, such as gaps and suspicious labels.
    """

    opinions: Opinions
    truth: Truth
    notes: tuple[str, ...]
    settings: Settings

    @property
    def members(self) -> list[str]:
        """The names of the models, with the sample's number (`model#0`) where a model has several."""
        return self.opinions.members.tolist()

    def __repr__(self) -> str:
        return f"Pool({len(self.opinions.ids):,} questions, {len(self.members)} members)"


def load_pool(
    settings: Settings, outputs: Path | pd.DataFrame | None = None, questions: Path | pd.DataFrame | None = None
) -> Pool:
    """The pool that the settings describe. outputs, questions: tables in place of the files that the settings name."""
    notes: list[str] = []
    outputs = Path(settings.outputs) if outputs is None else outputs
    questions = Path(settings.questions) if questions is None and settings.questions else questions
    suite = read_suite(settings.suite, settings.data_root) if settings.suite else None
    log = {"metrics": settings.metric, "filters": settings.filter}
    opinions, truth = read.read_pool(outputs, questions, models=settings.models, suite=suite, notes=notes, **log)
    known = sorted(set(opinions.group_N.tolist()))
    if unknown := sorted(set(settings.groups) - set(known)):
        near = did_you_mean(unknown[0], known)
        raise BadInput(f"groups: {unknown[0]!r} is not there{near}; there are: {', '.join(known[:12])}")
    if settings.groups:
        rows_N = np.isin(opinions.group_N, settings.groups)
        opinions, truth = opinions.questions(rows_N), truth.questions(rows_N)
    if settings.limit and settings.limit < len(opinions.ids):
        notes.insert(0, f"a smoke run: the first {settings.limit:,} of {len(opinions.ids):,} questions by id")
        rows = np.sort(np.argsort(opinions.ids, kind="stable")[: settings.limit])
        opinions, truth = opinions.questions(rows), truth.questions(rows)
    for note in notes:
        say(note)
    opinions = add_costs(opinions, settings.costs)
    notes += pool_notes(opinions, truth)
    return Pool(add_features(fill_costs(opinions), settings.encoder), truth, tuple(notes), settings)


def add_costs(opinions: Opinions, costs: dict[str, float]) -> Opinions:
    """`opinions` with a price for each answer of the members that a pattern matches; recorded costs stay."""
    if not costs:
        return opinions
    if odd := [pattern for pattern in costs if not isinstance(pattern, str)]:
        raise BadInput(f"costs: {odd[0]!r} given; allowed: a member's name or pattern, as text")
    bad = next(((pattern, cost) for pattern, cost in costs.items() if not fits(cost, float) or cost < 0), None)
    if bad:
        raise BadInput(f"costs: {bad[0]}: {bad[1]!r} given; allowed: dollars per answer, 0 and above")
    members = opinions.members.tolist()
    price_M = np.array([next((c for p, c in costs.items() if fnmatchcase(name, p)), np.nan) for name in members])
    missing = opinions.members[np.isnan(price_M)].tolist()
    if missing and opinions.cost_MN is None:
        raise BadInput(f"costs: no price for {missing[0]!r} ({len(missing)} members in all); a pattern ends in *")
    cost_MN = price_M[:, None] + np.zeros(len(opinions.ids))
    if opinions.cost_MN is not None:
        cost_MN = np.where(np.isfinite(opinions.cost_MN), opinions.cost_MN, cost_MN)
    return dataclasses.replace(opinions, cost_MN=np.where(opinions.answer_MN == NOT_ASKED, np.nan, cost_MN))


def fill_costs(opinions: Opinions) -> Opinions:
    """`opinions` with a cost for every answer: gaps get the member's mean. No costs at all if a member has none."""
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


def add_features(opinions: Opinions, encoder: str | None) -> Opinions:
    """`opinions` with features_ND of the prompts by a sentence encoder; unchanged without one."""
    if encoder is None:
        return opinions
    from w2s.models.encode import encode

    return dataclasses.replace(opinions, features_ND=encode(encoder, opinions.prompt_N.tolist()))


def read_suite(name: str, data_root: str | None) -> tuple[list[Example], list[Gold]]:
    """The tasks that programs are judged by."""
    if name not in SOURCES:
        raise BadInput(f"suite: {name!r} is not known{did_you_mean(name, SOURCES)}; see `w2s methods sources`")
    config = from_overrides([] if data_root is None else [f"data.root={data_root}"])
    return read_source(config, {"name": name}, "suite", 0)
