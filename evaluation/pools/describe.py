"""The numbers of combine.json, which `report` shows."""

from typing import Any

import numpy as np

from w2s.config.registry import summary
from w2s.evaluation.pools import curves, judging
from w2s.evaluation.pools.judging import Judged, as_list, scores
from w2s.evaluation.pools.pool import Pool
from w2s.evaluation.pools.report import PICKED
from w2s.evaluation.pools.settings import Settings
from w2s.evaluation.statistics import contrast, rate, smallest_difference
from w2s.pools import bounds
from w2s.pools.methods import FAMILIES, METHODS
from w2s.pools.records import ABSTAINED, NOT_ASKED, Opinions, Truth, ballots
from w2s.store.records import BadInput

PICKED_WORDS = "The method that did best on the other half's questions: an honest choice among all of these."


def describe(
    settings: Settings, judged: list[Judged], left_out: dict[str, str], pool: Pool, command: str
) -> dict[str, Any]:
    """The content of combine.json without the recipe and the online table."""
    rows_N = judging.common(judged)
    if not rows_N.any():
        raise BadInput("methods: no question on which all of them can be judged; use one family at a time")
    opinions, truth = pool.opinions, pool.truth
    halves = judging.splits(opinions, truth, settings.repeats, settings.seed)
    columns = {method.name: method.right_RN for method in judged}
    methods = [describe_method(method, columns, rows_N) for method in judged]
    winner = max(methods, key=lambda row: row["accuracy"][0])["name"]
    by_cost = curves.by_cost(judged, opinions, truth, rows_N)
    columns[PICKED] = judging.picked(judged, halves, rows_N)
    methods.append(describe_picked(columns, rows_N))
    for row in methods:
        for key in ("over_hull", "over_hull_all"):
            row[key] = by_cost and by_cost[key].get(row["name"])
    known, gold = opinions.questions(rows_N), truth.questions(rows_N)
    tail, floor, of_votes = None, None, {}
    if "plurality" in columns:
        tail, floor, of_votes = describe_votes(pool, halves, rows_N)
    wrong = bounds.all_wrong(gold.right_MN)
    pair = scores([columns[winner], columns["best_single"]], rows_N)
    return {
        "command": command,
        "outputs": settings.outputs + (f" (the first {len(opinions.ids):,} questions)" if settings.limit else ""),
        "unit": settings.unit,
        "log": {"metrics": settings.metric, "filters": settings.filter},
        "questions": len(opinions.ids),
        "judged": int(rows_N.sum()),
        "members": opinions.members.tolist(),
        "repeats": settings.repeats,
        "seed": settings.seed,
        "winner": winner,
        "remarks": [*pool.notes, *make_remarks(settings, rows_N, of_votes.get("correlation"), tail)],
        "methods": sorted(methods, key=lambda row: -row["accuracy"][0]),
        "left_out": [{"name": name, "reason": reason} for name, reason in left_out.items()],
        "singles": describe_members(known, gold),
        "smallest_difference": smallest_difference(pair, [1, -1]),
        "bounds": {
            "oracle": [1 - wrong.rate, 1 - wrong.high, 1 - wrong.low],
            "all_wrong": [wrong.rate, wrong.low, wrong.high],
            "copula_floor": floor,
        },
        "curves": {"cost": by_cost, **of_votes},
        "online": None,
        "groups": describe_groups(columns[winner].mean(0), columns.get("plurality"), opinions, truth, rows_N),
    }


def describe_votes(
    pool: Pool, halves: list[np.ndarray], rows_N: np.ndarray
) -> tuple[bounds.Tail, float | None, dict[str, Any]]:
    """(how often all fail at once, the copula's floor of a vote, the curves) of the judged questions' votes."""
    known, gold = pool.opinions.questions(rows_N), pool.truth.questions(rows_N)
    votes = ballots(known, gold)
    tail = bounds.joint_tail(votes.wrong_RN[: curves.MOST_MEMBERS])
    error = float(votes.wrong_RN.mean())
    floor = bounds.copula_floor(error, tail.correlation) if 0 < error < 0.5 and tail.correlation > 0 else None
    shown = {
        "correlation": curves.correlation(votes, known.members),
        "agreement": curves.agreement(pool.opinions, pool.truth, rows_N),
        "by_number": curves.by_number(known, gold, [half[rows_N] for half in halves], votes),
    }
    return tail, floor, shown


def describe_method(method: Judged, columns: dict[str, np.ndarray], rows_N: np.ndarray) -> dict[str, Any]:
    """One method's line of the ranked table."""
    cost = None if method.cost_RN is None else 1000 * float(method.cost_RN[:, rows_N].mean())
    return {
        "name": method.name,
        "family": next((family for family, members in FAMILIES.items() if method.name in members), "plug-ins"),
        "summary": summary(METHODS[method.name]),
        "options": method.options,
        **compare(method.name, columns, rows_N),
        "abstained": float(method.abstained_N[rows_N].mean()),
        "cost": cost,
        "asked": float(method.asked_RN[:, rows_N].mean()),
        "seconds": method.seconds,
    }


def describe_picked(columns: dict[str, np.ndarray], rows_N: np.ndarray) -> dict[str, Any]:
    """The line of the honest choice among the methods."""
    empty = {"options": {}, "abstained": None, "cost": None, "asked": None, "seconds": 0.0}
    return {"name": PICKED, "family": "mixed", "summary": PICKED_WORDS, **empty, **compare(PICKED, columns, rows_N)}


def compare(name: str, columns: dict[str, np.ndarray], rows_N: np.ndarray) -> dict[str, Any]:
    """accuracy, and over_best and over_plurality: paired differences; None for a method against itself."""
    row = {"accuracy": as_list(rate(scores([columns[name]], rows_N)))}
    for key, other in (("over_best", "best_single"), ("over_plurality", "plurality")):
        there = other in columns and other != name
        row[key] = as_list(contrast(scores([columns[name], columns[other]], rows_N), [1, -1])) if there else None
    return row


def describe_members(known: Opinions, gold: Truth) -> list[dict[str, Any]]:
    """Each member alone on the judged questions, best first; where it has no answer, it is not right."""
    rows = []
    for at, name in enumerate(known.members.tolist()):
        right_N, answer_N = np.nan_to_num(gold.right_MN[at]), known.answer_MN[at]
        row = {"name": name, "accuracy": as_list(rate(scores([right_N[None]])))}
        row |= {"abstained": float((answer_N == ABSTAINED).mean()), "not_asked": float((answer_N == NOT_ASKED).mean())}
        row["cost"] = None if known.cost_MN is None else 1000 * float(np.nan_to_num(known.cost_MN[at]).mean())
        rows.append(row)
    return sorted(rows, key=lambda row: -row["accuracy"][0])


def describe_groups(
    winner_N: np.ndarray, plurality_RN: np.ndarray | None, opinions: Opinions, truth: Truth, rows_N: np.ndarray
) -> list[dict[str, Any]]:
    """Accuracy by group: the winner, the plurality, and the member that is best there (in hindsight)."""
    rows = []
    for group in np.unique(opinions.group_N[rows_N]):
        here_N = rows_N & (opinions.group_N == group)
        right_M = np.nan_to_num(truth.right_MN[:, here_N]).mean(1)
        best = int(right_M.argmax())
        row = {"group": str(group), "n": int(here_N.sum()), "winner": float(winner_N[here_N].mean())}
        row["plurality"] = None if plurality_RN is None else float(plurality_RN[:, here_N].mean())
        rows.append(row | {"best_single": [str(opinions.members[best]), float(right_M[best])]})
    return rows if len(rows) > 1 else []


def make_remarks(
    settings: Settings, rows_N: np.ndarray, correlation: dict[str, Any] | None, tail: bounds.Tail | None
) -> list[str]:
    """Remarks for the reader: unjudged questions, members that err together, intervals that are too wide."""
    remarks = []
    if not rows_N.all():
        remarks.append(f"{int((~rows_N).sum()):,} questions are left out: not every method could be judged on them")
    if correlation and correlation["warning"]:
        remarks.append(correlation["warning"])
    if tail:
        share, low, high = (f"{100 * value:.1f}" for value in tail.measured[:3])
        copula = f"a Gaussian copula with their mean error correlation says {100 * tail.copula:.1f}%"
        remarks.append(f"no member's vote is right on {share}% of the questions (95% CI {low} to {high}); {copula}")
    if 1 < settings.repeats < 5:
        few = f"{settings.repeats} repeats make wide intervals (t with few degrees of freedom)"
        remarks.append(f"{few}: use 1, or 5 and more")
    return remarks
