"""`w2s combine`: recorded outputs -> every method judged on held-out questions -> a folder to read and to use.

The folder holds combine.json (all numbers), combine.html, predictions.parquet (each method's answer to each question)
and fitted/METHOD.npz, which `apply` uses on new questions and `labels` turns into training labels for a student.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
from w2s.store.files import write_json

from w2s.config.registry import summary
from w2s.ensemble.ballots import NotApplicable
from w2s.evaluation.pools import curves as pool_curves
from w2s.evaluation.pools import judging as pool_judging
from w2s.evaluation.pools.asked import Asked, read_asked
from w2s.evaluation.pools.files import check_folder, check_free, write_predictions
from w2s.evaluation.pools.forecast import feasible
from w2s.evaluation.pools.judging import Judged
from w2s.evaluation.pools.report import PICKED, render, table
from w2s.evaluation.statistics import Interval, contrast, rate, smallest_difference
from w2s.pools import bounds
from w2s.pools.methods import FAMILIES, METHODS, fit
from w2s.pools.records import ABSTAINED, NOT_ASKED, Fitted, Opinions, Truth, ballots, write_fitted
from w2s.store.log import say
from w2s.store.records import BadInput

FILES = ("combine.json", "combine.html", "predictions.parquet", "fitted")
PICKED_WORDS = "The method that did best on the other half's questions: an honest choice among all of these."


def combine(asked: Asked, specs: list[dict[str, Any]], command: str, *, replace: bool = False) -> str:
    """Judge, fit on all questions with gold, and write the folder; returns the table for the terminal.

    replace: what lies in the folder may give way; without it, anything but this very pool's is a BadInput.
    """
    check_folder(asked.folder)
    recipe = json.loads(json.dumps({**dataclasses.asdict(asked), "methods": specs, "out": None}))
    if not replace:
        check_free(asked.folder, recipe, known=FILES)
    opinions, truth, notes = read_asked(asked)
    say(f"{len(opinions.ids):,} questions, {len(opinions.members)} members")
    named = [one if isinstance(one, str) else one["name"] for one in asked.methods]
    specs, infeasible = feasible(specs, named, opinions, truth, asked.repeats)
    found, left_out = pool_judging.judge(specs, opinions, truth, repeats=asked.repeats, seed=asked.seed)
    left_out |= infeasible
    found = without_needless(asked, found, left_out)
    report = describe(asked, found, left_out, opinions, truth, command)
    report |= {"remarks": [*notes, *report["remarks"]], "asked": recipe}
    if asked.online:
        try:
            report["online"] = online(asked, specs, opinions, truth)
        except NotApplicable as reason:
            report["left_out"].append({"name": "online", "reason": str(reason)})
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


def describe(
    asked: Asked, found: list[Judged], left_out: dict[str, str], opinions: Opinions, truth: Truth, command: str
) -> dict[str, Any]:
    """combine.json: what `pool_report.render` shows."""
    rows_N = pool_judging.common(found)
    if not rows_N.any():
        raise BadInput("methods: there is no question on which all of them can be judged; ask for one family at a time")
    halves = pool_judging.splits(opinions, truth, asked.repeats, asked.seed)
    columns = {one.name: one.right_RN for one in found}
    methods = [row_of(one, columns, rows_N) for one in found]
    winner = max(methods, key=lambda one: one["accuracy"][0])["name"]
    curves = {"cost": pool_curves.by_cost(found, opinions, truth, rows_N)}
    columns[PICKED] = pool_judging.picked(found, halves, rows_N)
    methods.append({
        "name": PICKED, "family": "mixed", "summary": PICKED_WORDS, "options": {}, "abstained": None, "cost": None,
        "asked": None, "seconds": 0.0, **against(PICKED, columns, rows_N),
    })  # fmt: skip
    for one in methods:
        for key in ("over_hull", "over_hull_all"):
            one[key] = curves["cost"] and curves["cost"][key].get(one["name"])
    known, gold = opinions.questions(rows_N), truth.questions(rows_N)
    wrong, tail, floor = bounds.all_wrong(gold.right_MN), None, None
    if "plurality" in columns:
        evidence = ballots(known, gold)
        tail = bounds.joint_tail(evidence.wrong_RN[: pool_curves.MOST_MEMBERS])
        error = float(evidence.wrong_RN.mean())
        floor = bounds.copula_floor(error, tail.correlation) if 0 < error < 0.5 and tail.correlation > 0 else None
        curves["correlation"] = pool_curves.correlation(evidence, known.members)
        curves["agreement"] = pool_curves.agreement(opinions, truth, rows_N)
        curves["by_number"] = pool_curves.by_number(known, gold, [half[rows_N] for half in halves], evidence)
    pair = scores(winner, columns, rows_N, "best_single")
    return {
        "command": command, "outputs": outputs_of(asked, opinions), "unit": asked.unit,
        "log": {"metrics": asked.metric, "filters": asked.filter},
        "questions": len(opinions.ids), "judged": int(rows_N.sum()),
        "members": opinions.members.tolist(), "repeats": asked.repeats, "seed": asked.seed, "winner": winner,
        "remarks": remarks(asked, rows_N, curves.get("correlation"), tail),
        "methods": sorted(methods, key=lambda one: -one["accuracy"][0]),
        "left_out": [{"name": name, "reason": reason} for name, reason in left_out.items()],
        "singles": singles(known, gold), "smallest_difference": smallest_difference(pair, [1, -1]),
        "bounds": {
            "oracle": [1 - wrong.rate, 1 - wrong.high, 1 - wrong.low],
            "all_wrong": [wrong.rate, wrong.low, wrong.high], "copula_floor": floor,
        },
        "curves": curves,
        "online": None,
        "groups": groups(columns[winner].mean(0), columns.get("plurality"), opinions, truth, rows_N),
    }  # fmt: skip


def outputs_of(asked: Asked, opinions: Opinions) -> str:
    """The outputs' name, wherever it is shown marked as cut."""
    return asked.outputs + (f" (the first {len(opinions.ids):,} questions)" if asked.limit else "")


def online(asked: Asked, specs: list[dict[str, Any]], opinions: Opinions, truth: Truth) -> list[dict[str, Any]]:
    """The online protocol's table, best first; best_single is the best member in hindsight."""
    focal = next((spec for spec in specs if spec["name"] == "rl_focal"), None)
    shared = ("alpha", "window", "by_group", "hidden")
    options = None if focal is None else {key: value for key, value in focal.items() if key in shared}
    columns = pool_judging.judge_online(opinions, truth, focal_options=options, repeats=asked.repeats, seed=asked.seed)
    rows_N = np.isfinite(next(iter(columns.values()))).all(0)
    rows = [{"name": name, **against(name, columns, rows_N)} for name in columns]
    return sorted(rows, key=lambda one: -one["accuracy"][0])


def row_of(one: Judged, columns: dict, rows_N: np.ndarray) -> dict[str, Any]:
    """One method's line of the ranked table."""
    cost = None if one.cost_RN is None else 1000 * float(one.cost_RN[:, rows_N].mean())
    return {
        "name": one.name,
        "family": next(family for family, members in FAMILIES.items() if one.name in members),
        "summary": summary(METHODS[one.name]),
        "options": one.options,
        **against(one.name, columns, rows_N),
        "abstained": float(one.abstained_N[rows_N].mean()),
        "cost": cost,
        "asked": float(one.asked_RN[:, rows_N].mean()),
        "seconds": one.seconds,
    }


def scores(name: str, columns: dict, rows_N: np.ndarray, other: str | None = None) -> list:
    """One column, or two for a paired difference, as the statistics want them."""
    named = [columns[name]] if other is None else [columns[name], columns[other]]
    return pool_judging.scores(named, rows_N)


def against(name: str, columns: dict, rows_N: np.ndarray) -> dict[str, Any]:
    """accuracy, and over_best and over_plurality: paired differences; None for a method against itself."""
    found = {"accuracy": values(rate(scores(name, columns, rows_N)))}
    for key, other in (("over_best", "best_single"), ("over_plurality", "plurality")):
        there = other in columns and other != name
        found[key] = values(contrast(scores(name, columns, rows_N, other), [1, -1])) if there else None
    return found


def values(interval: Interval) -> list[float]:
    return [interval.value, interval.low, interval.high]


def singles(known: Opinions, gold: Truth) -> list[dict[str, Any]]:
    """Each member alone on the judged questions, best first; where it has no answer, it is not right."""
    rows = []
    for at, name in enumerate(known.members.tolist()):
        right_N, answer_N = np.nan_to_num(gold.right_MN[at]), known.answer_MN[at]
        cost = None if known.cost_MN is None else 1000 * float(np.nan_to_num(known.cost_MN[at]).mean())
        interval = rate(pool_judging.scores([right_N[None]], np.ones(len(known.ids), dtype=bool)))
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


def remarks(asked: Asked, rows_N: np.ndarray, together: dict | None, tail: bounds.Tail | None) -> list[str]:
    """What a reader should know: what could not be judged, members that err together, intervals that are too wide."""
    found = []
    if not rows_N.all():
        found.append(f"{int((~rows_N).sum()):,} questions are left out: not every method could be judged on them")
    if together and together["warning"]:
        found.append(together["warning"])
    if tail:
        share, low, high = (f"{100 * value:.1f}" for value in tail.measured[:3])
        copula = f"a Gaussian copula with their mean error correlation says {100 * tail.copula:.1f}%"
        found.append(f"no member's vote is right on {share}% of the questions (95% CI {low} to {high}); {copula}")
    if 1 < asked.repeats < 5:
        found.append(
            f"{asked.repeats} repeats make wide intervals (t with few degrees of freedom): use 1, or 5 and more"
        )
    return found
