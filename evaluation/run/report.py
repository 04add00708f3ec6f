"""report.html and report.md: a run's results on one self-contained page.

The text of questions, answers and configs comes from outside: jinja2 escapes it in both files and removes control
characters.
"""

import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from w2s.evaluation.run import pictures
from w2s.evaluation.run.contents import ReportData
from w2s.evaluation.run.metrics import ECE_BINS, MODELS, PAIRS
from w2s.evaluation.run.verdict import edge, find, known, points, remarks, sentence, verdict
from w2s.store.hidden import hide
from w2s.store.log import duration, printable
from w2s.store.records import Metric


def write_report(data: ReportData, folder: Path) -> list[str]:
    """report.html (self-contained, offline, no scripts) and report.md in `folder`; returns their names."""
    accuracy = accuracies(data)
    gaps = [known(data.metrics, data.suite, model, f"accuracy_minus_{other}") for model, other in PAIRS]
    gaps = [gap for gap in gaps if gap is not None]
    content = {
        "data": data,
        "verdict": sentence(verdict(data.metrics, data.suite)),
        "remarks": remarks(data.metrics, data.suite),
        "ladder": [accuracy[m] for m in dict.fromkeys((*pictures.LADDER, *MODELS)) if m in accuracy],
        "steps": sum(m in accuracy for m in pictures.LADDER),
        "curve": curve_of(data),
        "signed": lambda share: f"{100 * share:+.1f}",
        "stops": stops(data),
        "coming_back": coming_back(data),
        "gaps": gaps,
        "span": (min([0.0, *(gap.low for gap in gaps)]), max([0.01, *(gap.high for gap in gaps)])),
        "ece_bins": ECE_BINS,
        "trained": [one for one in data.training if not one.who.startswith("round ")],
        "others": other_suites(data),
        "seeds": sorted({seed for m in data.metrics for seed in m.seeds}),
        "seconds": sum(cost.seconds for cost in data.costs),
        "longest": max([cost.seconds for cost in data.costs], default=0) or 1,
        "pictures": draw(data),
    }
    return write_pages("report", content, folder)


def accuracies(data: ReportData) -> dict[str, Metric]:
    """model -> its accuracy on the hard suite, if known."""
    return {m.model: m for m in data.metrics if (m.suite, m.name) == (data.suite, "accuracy") and m.value is not None}


def draw(data: ReportData) -> dict[str, str]:
    """The pictures with data, by section."""
    drawn = {}
    if accuracy := accuracies(data):
        drawn["ladder"] = pictures.ladder(accuracy)
    rounds = [one for one in data.training if one.who.startswith("round ")]
    for who in sorted({one.who for one in data.training} - {one.who for one in rounds}):
        drawn[f"training {who}"] = pictures.training([one for one in data.training if one.who == who])
    if fits := [one for one in rounds if one.loss]:
        drawn["learners"] = pictures.learners([one for one in fits if one.seed == fits[0].seed])
    if boosted := [one["rounds"] for one in data.committees.values() if one["rounds"]]:
        drawn["rounds"] = pictures.rounds(boosted)
    if validated := [one for one in data.committees.values() if one["accuracy_by_rounds"]]:
        drawn["validation"] = pictures.validation(validated)
    if data.dependence is not None and len(data.dependence["error_correlation"]) > 1:
        drawn["dependence"] = pictures.heatmap(data.dependence["error_correlation"])
    if by_bin := curve_of(data):
        drawn["curve"] = pictures.curve(data.difficulty_bins, by_bin, data.difficulty_name)
    if data.calibration:
        drawn["calibration"] = pictures.calibration(data.calibration)
    return drawn


def curve_of(data: ReportData) -> dict[str, list[Metric | None]]:
    """Accuracy of the models on the ladder by bin of difficulty; empty with fewer than two bins."""
    if len(data.difficulty_bins) < 2:
        return {}
    names = [f"accuracy@{label}" for label in data.difficulty_bins]
    by_bin = {m: [find(data.metrics, data.suite, m, name) for name in names] for m in pictures.LADDER}
    return {model: values for model, values in by_bin.items() if any(values)}


def stops(data: ReportData) -> dict[str, list[int]]:
    """{why the boosting ended, after how many rounds: seeds}."""
    seeds: dict[str, list[int]] = {}
    for seed, one in data.committees.items():
        if one["rounds"] and one["rounds"][-1]["stop"]:
            seeds.setdefault(f"after {len(one['rounds'])} rounds: {one['rounds'][-1]['stop']}", []).append(seed)
    return seeds


def coming_back(data: ReportData) -> str:
    """Why the heaviest questions share one weight, if they do."""
    alike = data.heaviest[0].alike if data.heaviest else 0
    shown = f"; {len(data.heaviest)} of them, by id" if alike > len(data.heaviest) else ""
    why = "since the learners got them right or wrong in the same rounds"
    return f"{alike:,} questions share the highest weight in every round, {why}{shown}."


def every(points_of_curve: Sequence[tuple[int, float]], most: int = 10) -> list[tuple[int, float]]:
    """At most `most` points of a curve, the last among them."""
    return list(points_of_curve[:: -max(1, -(-len(points_of_curve) // most))])[::-1]


def at_step(points_of_curve: Sequence[tuple[int, float]], step: int, times: float = 1) -> str:
    """The value of a curve at a step, or at the first point after it; empty past its end."""
    return next((f"{times * value:.3g}" for at, value in points_of_curve if at >= step), "")


def other_suites(data: ReportData) -> dict[str, list[Metric]]:
    """Accuracy and pass@k on the other suites."""
    shown = [m for m in data.metrics if m.suite != data.suite and (m.name == "accuracy" or m.name.startswith("pass@"))]
    return {suite: [m for m in shown if m.suite == suite] for suite in sorted({m.suite for m in shown})}


def write_pages(template: str, content: dict[str, Any], folder: Path, *, name: str = "") -> list[str]:
    """TEMPLATE.html and TEMPLATE.md, filled, in `folder` as `name` (default: TEMPLATE); returns the files' names."""
    folder.mkdir(parents=True, exist_ok=True)
    for ending in (".html", ".md"):
        path = folder / f"{name or template}{ending}"
        path.write_text(fill(template + ending, content), encoding="utf-8", errors="backslashreplace")
    return [f"{name or template}{ending}" for ending in (".html", ".md")]


def fill(name: str, content: dict[str, Any]) -> str:
    """The template `name`, filled, with secrets hidden. All text but the pictures is escaped."""
    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parents[1] / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: type(value)(printable(value)) if isinstance(value, str) else value,
    )
    page.filters |= {one.__name__: one for one in (typeset, sentence, edge, every, at_step, cell, block)}
    page.filters |= {
        "points": lambda share: typeset(points(share)),
        "label": lambda model: pictures.LABELS.get(model, model.replace("_", " ")),
        "seconds": duration,
        "spark": lambda values: Markup(pictures.sparkline(values)),
        "rows": lambda table: zip(*table.values(), strict=True),
    }
    content = {**content, "pictures": {key: Markup(drawn) for key, drawn in content.get("pictures", {}).items()}}
    return hide(page.get_template(name).render(content))


def typeset(text: str) -> str:
    """Minus signs for hyphens before digits; no line break inside 'n = 12'."""
    return type(text)(re.sub(r"(?<![\w-])-(?=\d)", "−", text).replace("n = ", "n\u00a0=\u00a0"))


def cell(text: object) -> Markup:
    """Untrusted text for a line of Markdown: on one line, without HTML, links, pictures or table bars."""
    line = re.sub(r"([\\`*_\[\]|~!#$])", r"\\\1", " ".join(str(text).split()))
    return Markup(html.escape(line, quote=False))


def block(text: str) -> Markup:
    """Text verbatim, in a fence longer than any fence inside."""
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}\n{text.rstrip()}\n{fence}")
