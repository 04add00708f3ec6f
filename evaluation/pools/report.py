"""What `w2s combine` found, for people: combine.html and the table on the terminal, both from combine.json's content.

Names of members, groups and files come from outside: the page escapes them, and no control character gets to a
terminal.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from w2s.evaluation.pools import pictures
from w2s.evaluation.run.report import fill
from w2s.evaluation.run.verdict import compared, points, sentence
from w2s.store.log import duration, printable
from w2s.store.records import Metric

BEST = "the best single model"
SINGLE, PICKED = "best_single", "picked"  # methods that are told apart by name
MOST_ROWS = 40  # of singles and groups; the rest can be unfolded


def render(found: dict[str, Any]) -> str:
    """The whole page, in one file that asks for nothing: `found` is the content of combine.json."""
    found = {"online": [], "groups": [], "bounds": None, "unit": "$"} | on_a_line(found)
    methods, winner = found["methods"], winner_of(found)
    best = next((method["accuracy"][0] for method in methods if method["name"] == SINGLE), None)
    content = {
        "found": found,
        "verdict": verdict_of(found),
        "remarks": remarks_of(found),
        "winner": winner,
        "columns": columns_of(found),
        "scale": scale_of(methods, best),
        "single_scale": scale_of(found["singles"], best),
        "online_scale": scale_of(found["online"] or [], None),
        "curves": found.get("curves") or {},
        "together": together(found),
        "most_rows": MOST_ROWS,
        "most_members": pictures.MOST_MEMBERS,
        "most_numbers": pictures.MOST_NUMBERS,
        "most_lines": pictures.MOST_LINES,
        "smallest_group": min([max(one["n"], 1) for one in found["groups"]], default=1),
        "signed": signed,
        "price": price,
        "options": options_of,
        "has_gap": has_gap,
        "value_of": value_of,
        "picked": PICKED,
        "single": SINGLE,
        "pictures": draw(found),
    }
    return fill("combine.html", content)


def draw(found: dict[str, Any]) -> dict[str, str]:
    """Every picture that the data allow, by name."""
    curves, drawn = found.get("curves") or {}, {}
    by_number, correlation = curves.get("by_number"), curves.get("correlation")
    if by_number and by_number["number"] and by_number["lines"]:
        drawn["by_number"] = pictures.by_number(by_number, found["winner"])
    if curves.get("cost"):
        drawn["cost"] = pictures.cost(curves["cost"], found["winner"], found.get("unit", "$"))
    if correlation and len(correlation["members"]) > 2:  # of two, the text says all
        drawn["correlation"] = pictures.correlation(correlation["members"], correlation["phi"])
    if curves.get("agreement"):
        drawn["agreement"] = pictures.agreement(curves["agreement"])
    return {name: picture for name, picture in drawn.items() if picture}


def verdict_of(found: dict[str, Any]) -> str:
    """One sentence: the winner against the best single model, and what no choice among the answers can exceed.

    Where no method can be told from the best single model it says so, and what the questions could have shown
    (`found["smallest_difference"]`, a share, where it is given).
    """
    found = on_a_line(found)
    winner, oracle = winner_of(found), (found.get("bounds") or {}).get("oracle")
    if winner is None:
        return sentence(f"no method could be used on {found['outputs']}")
    methods = [method for method in found["methods"] if method["name"] != PICKED]
    clear = next((method for method in methods if has_gap(method) and method["over_best"][1] > 0), None)
    place = f"first of {len(methods)} methods, " if len(methods) > 1 else "the one method tried, "
    if winner["name"] == SINGLE:
        said = f"no method is above {BEST}, {points(winner['accuracy'][0])}% right (n = {found['judged']})"
    elif not has_gap(winner):
        said = f"{place}{winner['name']}: {rate(winner['accuracy'])} right, n = {found['judged']}"
    elif clear is not None:
        said = f"{place}{winner['name']} {against(winner, found)}"
        said += "" if clear is winner else f"; {clear['name']} {against(clear, found)}"
    elif winner["over_best"][2] < 0:
        said = f"no method is above {BEST}: the first, {winner['name']}, {against(winner, found)}"
    else:
        low, high = map(signed, winner["over_best"][1:])
        gap = f"{signed(winner['over_best'][0])} points (95% CI {low} to {high}, n = {found['judged']})"
        said = f"no method can be told from {BEST}: the first, {winner['name']}, differs by {gap}"
    if clear is None and found.get("smallest_difference"):
        said += f"; these questions could have shown a difference of {points(found['smallest_difference'])} points"
    if oracle:
        said += f"; some member is right on {points(oracle[0])}% of the questions"
    return sentence(said)


def against(method: dict[str, Any], found: dict[str, Any], other: str = "over_best") -> str:
    """'beats the best single model by ...', 'is behind ...' or 'cannot be told from ...'."""
    gap = Metric(found["outputs"], method["name"], other, *method[other], found["judged"], (found["seed"],))
    return compared(gap, BEST if other == "over_best" else "plurality")


def remarks_of(found: dict[str, Any]) -> list[str]:
    """What an honest reader asks next, before the remarks that came with the numbers."""
    found = on_a_line(found)
    said, winner = [], winner_of(found)
    by_name = {method["name"]: method for method in found["methods"]}
    picked, votes = by_name.get(PICKED), by_name.get("plurality")
    if found["singles"]:
        best = found["singles"][0]
        said.append(f"{BEST} here is {best['name']}: {rate(best['accuracy'])}")
    if picked is not None and has_gap(picked):
        luck = "the first of many methods is partly lucky; the method that did best on other questions"
        said.append(f"{luck}, chosen anew for each half, {against(picked, found)}")
    if votes is not None and votes is not winner and has_gap(votes):
        said.append(f"plurality {against(votes, found)}")
    if winner is not None and has_gap(winner) and winner.get("over_plurality"):
        said.append(f"the winner, {winner['name']}, {against(winner, found, 'over_plurality')}")
    wrong = (found.get("bounds") or {}).get("all_wrong")
    if wrong:
        where = f"every member is wrong on {rate(wrong)} of the questions"
        said.append(f"{where}: no method that picks one of their answers can be right there")
    return [sentence(words) for words in [*said, *found["remarks"]]]


def winner_of(found: dict[str, Any]) -> dict[str, Any] | None:
    """The winning method; the first where the name is not among them; None without methods."""
    named = [method for method in found["methods"] if method["name"] == found.get("winner")]
    return next(iter([*named, *found["methods"]]), None)


def together(found: dict[str, Any]) -> dict[str, Any] | None:
    """How many independent voters the members are worth, and the mean correlation of their errors; None if not known.

    They stand under "bounds", or beside the correlations.
    """
    bounds, beside = found.get("bounds") or {}, (found.get("curves") or {}).get("correlation") or {}
    voters = bounds.get("effective_voters", beside.get("effective_voters"))
    mean = bounds.get("mean_error_correlation", beside.get("mean"))
    return None if voters is None or mean is None else {"voters": voters, "mean": mean}


def has_gap(method: dict[str, Any]) -> bool:
    """Whether there is a difference to the best single model: there is none between it and itself."""
    return method["name"] != SINGLE and method.get("over_best") is not None


def columns_of(found: dict[str, Any]) -> list[str]:
    """The columns of the ranked table that tell the methods apart, beside accuracy and the difference to the best."""
    methods, everyone = found["methods"], len(found["members"])
    wanted = {
        "over_plurality": any(method.get("over_plurality") for method in methods),
        "abstained": any((method["abstained"] or 0) >= 0.0005 for method in methods),
        "asked": any(method["asked"] is not None and method["asked"] < everyone for method in methods),
        "cost": any(method.get("cost") is not None for method in methods),
        "over_hull": any(method.get("over_hull") for method in methods),
    }
    return [*(name for name, shown in wanted.items() if shown), "seconds"]


def scale_of(rows: Sequence[dict[str, Any]], best: float | None) -> dict[str, float | None]:
    """Left end and width of the bars' axis (shares), and the place of the share `best` on it in percent.

    What lies far below the rest (Tukey's fence: the first quartile - 1.5 interquartile ranges) does not stretch it.
    """
    value_M, low_M, high_M = np.array([row["accuracy"] for row in rows], dtype=float).reshape(-1, 3).T
    if not len(value_M):
        return {}
    first, third = np.quantile(value_M, [0.25, 0.75])
    kept_M = value_M >= min(first - 1.5 * (third - first), value_M.max() if best is None else best)
    edges = [*low_M[kept_M], *high_M, *([] if best is None else [best])]
    low, width = float(min(edges)), float(max(edges) - min(edges)) or 1.0
    return {"low": low, "width": width, "best": None if best is None else 100 * (best - low) / width}


def table(found: dict[str, Any], rows: int = 15) -> str:
    """For the terminal: the verdict, the first `rows` methods in aligned columns, and what was left out."""
    found = on_a_line(found)
    columns, methods = columns_of(found), found["methods"]
    names = {"over_plurality": "vs plurality", "abstained": "abstained", "asked": "asked"}
    names["cost"] = f"{found.get('unit', '$')}/1,000"
    names["over_hull"] = "vs hull at its price"
    head = ["", "method", "right, %", "95% interval", "vs best single", "95% interval"]
    lines = [[*head, *(names.get(name, "time") for name in columns)]]
    for rank, method in enumerate(methods[:rows], 1):
        value, low, high = method["accuracy"]
        gap = ["itself" if method["name"] == SINGLE else "–", ""]
        if has_gap(method):
            gap = [signed(method["over_best"][0]), " to ".join(map(signed, method["over_best"][1:]))]
        accuracy = [points(value), f"{points(low)} to {points(high)}"]
        lines.append([str(rank), method["name"], *accuracy, *gap, *(value_of(method, name) for name in columns)])
    said = [*textwrap.wrap(verdict_of(found), 100), ""]
    if methods:
        said += [*aligned(lines), ""]
    if len(methods) > rows:
        said.append(f"{len(methods) - rows} more methods are on the page")
    if found.get("online"):
        lines = [["", "online, each label seen afterwards", "right, %", "vs best in hindsight"]]
        for rank, one in enumerate(found["online"], 1):
            lines.append([str(rank), one["name"], points(one["accuracy"][0]), value_of(one, "over_best")])
        said += [*aligned(lines), ""]
    reasons: dict[str, list[str]] = {}
    for one in found["left_out"]:
        reasons.setdefault(one["reason"], []).append(one["name"])
    for reason, left in reasons.items():
        said += textwrap.wrap(f"left out: {', '.join(left)} ({reason})", 100, subsequent_indent="  ")
    return "\n".join(said).rstrip()


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their longest cell, numbers to the right; only the second column is words."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [
        [cell.ljust(w) if at == 1 else cell.rjust(w) for at, (cell, w) in enumerate(zip(line, widths, strict=True))]
        for line in lines
    ]
    return ["  ".join(row).rstrip() for row in rows]


def value_of(method: dict[str, Any], column: str) -> str:
    """One cell of the ranked table, as text; '–' where there is no value."""
    value = method.get(column)
    if value is None:
        return "–"
    shown = {
        "over_plurality": lambda: signed(value[0]),
        "over_best": lambda: gap_words(value),
        "over_hull": lambda: gap_words(value),
        "over_hull_all": lambda: gap_words(value),
        "abstained": lambda: f"{100 * value:.1f}%",
        "asked": lambda: f"{value:.1f}",
        "cost": lambda: price(value),
        "seconds": lambda: duration(value),
    }
    return shown[column]()


def gap_words(gap: Sequence[float]) -> str:
    """'+2.1 (+1.3 to +2.8)'."""
    return f"{signed(gap[0])} ({signed(gap[1])} to {signed(gap[2])})"


def signed(share: float) -> str:
    """0.031 -> '+3.1'; nothing has no sign."""
    shown = f"{100 * share:+.1f}"
    return "0.0" if shown in ("+0.0", "-0.0") else shown


def price(value: float | None) -> str:
    """Two decimals, or two digits where that is less than a tenth."""
    if value is None:
        return "–"
    return f"{value:,.2f}" if value >= 0.1 or value == 0 else f"{value:.2g}"


def rate(interval: Sequence[float]) -> str:
    """'72.9% (95% CI 71.5 to 74.2)'."""
    return f"{points(interval[0])}% (95% CI {points(interval[1])} to {points(interval[2])})"


def options_of(method: dict[str, Any]) -> str:
    """'k=3, seed=0'; an option that is None is not set."""
    return ", ".join(f"{name}={value}" for name, value in (method.get("options") or {}).items() if value is not None)


def on_a_line(found: Any) -> Any:
    """The same content, every text printable and on one line."""
    if isinstance(found, str):
        return re.sub(r"[\n\t]", " ", printable(found))
    if isinstance(found, dict):
        return {on_a_line(key): on_a_line(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [on_a_line(value) for value in found]
    return found
