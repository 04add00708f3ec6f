"""The results of `w2s combine` for people: combine.html and the table on the terminal, from combine.json's content.

Names of members, groups and files come from outside: the page escapes them, and no control character reaches a
terminal.
"""

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
SINGLE, PICKED = "best_single", "picked"  # methods with a row of their own kind
MOST_ROWS = 40  # of singles and groups; the rest can be unfolded


def render(report: dict[str, Any]) -> str:
    """The whole page, in one file that loads nothing else: `report` is the content of combine.json."""
    report = {"online": [], "groups": [], "bounds": None, "unit": "$"} | on_a_line(report)
    best = next((method["accuracy"][0] for method in report["methods"] if method["name"] == SINGLE), None)
    together = (report.get("curves") or {}).get("correlation") or {}
    content = {
        "report": report,
        "verdict": make_verdict(report),
        "remarks": make_remarks(report),
        "winner": find_winner(report),
        "columns": choose_columns(report),
        "scale": make_scale(report["methods"], best),
        "single_scale": make_scale(report["singles"], best),
        "online_scale": make_scale(report["online"] or [], None),
        "curves": report.get("curves") or {},
        "together": together if "effective_voters" in together else None,
        "smallest_group": min([max(one["n"], 1) for one in report["groups"]], default=1),
        "pictures": draw(report),
    }
    content |= {"picked": PICKED, "single": SINGLE, "most_rows": MOST_ROWS, "most_members": pictures.MOST_MEMBERS}
    content |= {"most_numbers": pictures.MOST_NUMBERS, "most_lines": pictures.MOST_LINES}
    content |= {function.__name__: function for function in (signed, price, join_options, has_gap, format_value)}
    return fill("combine.html", content)


def draw(report: dict[str, Any]) -> dict[str, str]:
    """Every picture that the data allows, by name."""
    curves, drawn = report.get("curves") or {}, {}
    by_number, correlation = curves.get("by_number"), curves.get("correlation")
    if by_number and by_number["number"] and by_number["lines"]:
        drawn["by_number"] = pictures.by_number(by_number, report["winner"])
    if curves.get("cost"):
        drawn["cost"] = pictures.cost(curves["cost"], report["winner"], report.get("unit", "$"))
    if correlation and len(correlation["members"]) > 2:  # of two, the text says all
        drawn["correlation"] = pictures.correlation(correlation["members"], correlation["phi"])
    if curves.get("agreement"):
        drawn["agreement"] = pictures.agreement(curves["agreement"])
    return {name: picture for name, picture in drawn.items() if picture}


def make_verdict(report: dict[str, Any]) -> str:
    """One sentence: the winner against the best single model, and what no choice among the answers can exceed.

    Where no method can be told from the best single model it says so, and what the questions could have shown
    (`report["smallest_difference"]`, a share, where it is given).
    """
    report = on_a_line(report)
    winner, oracle = find_winner(report), (report.get("bounds") or {}).get("oracle")
    if winner is None:
        return sentence(f"no method could be used on {report['outputs']}")
    methods = [method for method in report["methods"] if method["name"] != PICKED]
    clear = next((method for method in methods if has_gap(method) and method["over_best"][1] > 0), None)
    place = f"first of {len(methods)} methods, " if len(methods) > 1 else "the one method tried, "
    if winner["name"] == SINGLE:
        words = f"no method is above {BEST}, {points(winner['accuracy'][0])}% right (n = {report['judged']})"
    elif not has_gap(winner):
        words = f"{place}{winner['name']}: {rate(winner['accuracy'])} right, n = {report['judged']}"
    elif clear is not None:
        words = f"{place}{winner['name']} {against(winner, report)}"
        words += "" if clear is winner else f"; {clear['name']} {against(clear, report)}"
    elif winner["over_best"][2] < 0:
        words = f"no method is above {BEST}: the first, {winner['name']}, {against(winner, report)}"
    else:
        low, high = map(signed, winner["over_best"][1:])
        gap = f"{signed(winner['over_best'][0])} points (95% CI {low} to {high}, n = {report['judged']})"
        words = f"no method can be told from {BEST}: the first, {winner['name']}, differs by {gap}"
    if clear is None and report.get("smallest_difference"):
        words += f"; these questions could have shown a difference of {points(report['smallest_difference'])} points"
    if oracle:
        words += f"; some member is right on {points(oracle[0])}% of the questions"
    return sentence(words)


def against(method: dict[str, Any], report: dict[str, Any], other: str = "over_best") -> str:
    """'beats the best single model by ...', 'is behind ...' or 'cannot be told from ...'."""
    gap = Metric(report["outputs"], method["name"], other, *method[other], report["judged"], (report["seed"],))
    return compared(gap, BEST if other == "over_best" else "plurality")


def make_remarks(report: dict[str, Any]) -> list[str]:
    """Answers to a critical reader's questions, before the remarks that came with the numbers."""
    remarks, winner = [], find_winner(report)
    by_name = {method["name"]: method for method in report["methods"]}
    picked, votes = by_name.get(PICKED), by_name.get("plurality")
    if report["singles"]:
        best = report["singles"][0]
        remarks.append(f"{BEST} here is {best['name']}: {rate(best['accuracy'])}")
    if picked is not None and has_gap(picked):
        luck = "the first of many methods is partly lucky; the method that did best on other questions"
        remarks.append(f"{luck}, chosen anew for each half, {against(picked, report)}")
    if votes is not None and votes is not winner and has_gap(votes):
        remarks.append(f"plurality {against(votes, report)}")
    if winner is not None and has_gap(winner) and winner.get("over_plurality"):
        remarks.append(f"the winner, {winner['name']}, {against(winner, report, 'over_plurality')}")
    wrong = (report.get("bounds") or {}).get("all_wrong")
    if wrong:
        where = f"every member is wrong on {rate(wrong)} of the questions"
        remarks.append(f"{where}: no method that picks one of their answers can be right there")
    return [sentence(remark) for remark in [*remarks, *report["remarks"]]]


def find_winner(report: dict[str, Any]) -> dict[str, Any] | None:
    """The winning method; the first where the name is not among them; None without methods."""
    named = [method for method in report["methods"] if method["name"] == report.get("winner")]
    return next(iter([*named, *report["methods"]]), None)


def has_gap(method: dict[str, Any]) -> bool:
    """Whether there is a difference to the best single model, which has none to itself."""
    return method["name"] != SINGLE and method.get("over_best") is not None


def choose_columns(report: dict[str, Any]) -> list[str]:
    """The columns of the ranked table that tell the methods apart, beside accuracy and the difference to the best."""
    methods, everyone = report["methods"], len(report["members"])
    shown = {
        "over_plurality": any(method.get("over_plurality") for method in methods),
        "abstained": any((method["abstained"] or 0) >= 0.0005 for method in methods),
        "asked": any(method["asked"] is not None and method["asked"] < everyone for method in methods),
        "cost": any(method.get("cost") is not None for method in methods),
        "over_hull": any(method.get("over_hull") for method in methods),
    }
    return [*(name for name, visible in shown.items() if visible), "seconds"]


def make_scale(rows: Sequence[dict[str, Any]], best: float | None) -> dict[str, float | None]:
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


def table(report: dict[str, Any], rows: int = 15) -> str:
    """For the terminal: the verdict, the first `rows` methods in aligned columns, and what was left out."""
    report = on_a_line(report)
    columns, methods = choose_columns(report), report["methods"]
    names = {"over_plurality": "vs plurality", "abstained": "abstained", "asked": "asked"}
    names["cost"] = f"{report.get('unit', '$')}/1,000"
    names["over_hull"] = "vs hull at its price"
    head = ["", "method", "right, %", "95% interval", "vs best single", "95% interval"]
    lines = [[*head, *(names.get(name, "time") for name in columns)]]
    for rank, method in enumerate(methods[:rows], 1):
        value, low, high = method["accuracy"]
        gap = ["itself" if method["name"] == SINGLE else "–", ""]
        if has_gap(method):
            gap = [signed(method["over_best"][0]), " to ".join(map(signed, method["over_best"][1:]))]
        accuracy = [points(value), f"{points(low)} to {points(high)}"]
        lines.append([str(rank), method["name"], *accuracy, *gap, *(format_value(method, name) for name in columns)])
    words = [*textwrap.wrap(make_verdict(report), 100), ""]
    if methods:
        words += [*aligned(lines), ""]
    if len(methods) > rows:
        words.append(f"{len(methods) - rows} more methods are on the page")
    if report.get("online"):
        lines = [["", "online, each label seen afterwards", "right, %", "vs best in hindsight"]]
        for rank, row in enumerate(report["online"], 1):
            lines.append([str(rank), row["name"], points(row["accuracy"][0]), format_value(row, "over_best")])
        words += [*aligned(lines), ""]
    reasons: dict[str, list[str]] = {}
    for row in report["left_out"]:
        reasons.setdefault(row["reason"], []).append(row["name"])
    for reason, left in reasons.items():
        words += textwrap.wrap(f"left out: {', '.join(left)} ({reason})", 100, subsequent_indent="  ")
    return "\n".join(words).rstrip()


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their longest cell, numbers to the right; only the second column is words."""
    columns = []
    for at, column in enumerate(zip(*lines, strict=True)):
        width = max(map(len, column))
        columns.append([cell.ljust(width) if at == 1 else cell.rjust(width) for cell in column])
    return ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]


def format_value(method: dict[str, Any], column: str) -> str:
    """One cell of the ranked table, as text; '–' where there is no value."""
    value = method.get(column)
    if value is None:
        return "–"
    if column == "over_plurality":
        return signed(value[0])
    if column.startswith("over_"):
        return f"{signed(value[0])} ({signed(value[1])} to {signed(value[2])})"
    shown = {"abstained": "{:.1%}".format, "asked": "{:.1f}".format, "cost": price, "seconds": duration}
    return shown[column](value)


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


def join_options(method: dict[str, Any]) -> str:
    """'k=3, seed=0'; an option that is None is not set."""
    return ", ".join(f"{name}={value}" for name, value in (method.get("options") or {}).items() if value is not None)


def on_a_line(value: Any) -> Any:
    """The same content, every text printable and on one line."""
    if isinstance(value, str):
        return re.sub(r"[\n\t]", " ", printable(value))
    if isinstance(value, dict):
        return {on_a_line(key): on_a_line(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [on_a_line(item) for item in value]
    return value
