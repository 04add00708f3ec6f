"""Several runs side by side: compare.html and compare.md."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from w2s.evaluation.run.contents import ReportData
from w2s.evaluation.run.metrics import MODELS, Answers
from w2s.evaluation.run.pictures import ladder
from w2s.evaluation.run.report import accuracies, write_pages
from w2s.evaluation.run.verdict import find, known, sentence, verdict
from w2s.evaluation.statistics import Scores, contrast


def compare(runs: Sequence[tuple[ReportData, Answers | None]], folder: Path) -> None:
    """Write compare.html and compare.md, every run against the first. Each run may bring its answers to its suite (as
    `metrics.measure` takes them); if two runs judged the same questions under the same seeds, the difference is paired
    by question. Otherwise its interval combines the runs' own (square-and-add, Newcombe 1998), and the table says so.
    Runs on different suites have no difference."""
    tables = []
    for model in MODELS:
        row = [known(data.metrics, data.suite, model, "accuracy") for data, _ in runs]
        if any(row):
            against = [_between(runs[0], other, model) for other in runs[1:]]
            tables.append({"model": model, "values": row, "against": [None, *against]})
    content = {
        "runs": [data for data, _ in runs],
        "verdicts": [sentence(verdict(data.metrics, data.suite)) for data, _ in runs],
        "pgr": [find(data.metrics, data.suite, "student", "pgr") for data, _ in runs],
        "table": tables,
        "pictures": {data.run: ladder(accuracies(data)) if accuracies(data) else "" for data, _ in runs},
    }
    write_pages("compare", content, folder)


def _between(first: tuple[ReportData, Answers | None], other: tuple[ReportData, Answers | None], model: str) -> Any:
    """Accuracy of `model` in the other run minus the first: value, low, high in points, and whether it is paired."""
    (data, answers), (data_two, answers_two) = first, other
    one, two = (known(d.metrics, d.suite, model, "accuracy") for d in (data, data_two))
    if one is None or two is None or data.suite != data_two.suite:
        return None
    shared = []
    for seed in sorted(set(answers or {}) & set(answers_two or {})):
        left, right = answers[seed].get(model), answers_two[seed].get(model)
        if left is None or right is None or sorted(left.ids.tolist()) != sorted(right.ids.tolist()):
            continue
        pair = [answered.correct_N[answered.ids.argsort()] for answered in (left, right)]
        shared.append(Scores(np.sort(left.ids), np.stack(pair, axis=1)))
    if shared and len(shared) == len(set(one.seeds) | set(two.seeds)):
        gap = contrast(shared, [-1.0, 1.0])
        return {"value": gap.value, "low": gap.low, "high": gap.high, "paired": True}
    value = two.value - one.value
    low = value - ((two.value - two.low) ** 2 + (one.high - one.value) ** 2) ** 0.5
    high = value + ((two.high - two.value) ** 2 + (one.value - one.low) ** 2) ** 0.5
    return {"value": value, "low": low, "high": high, "paired": False}
