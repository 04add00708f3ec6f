"""`w2s combine`: recorded outputs -> every method judged on held-out questions -> a folder to read and to use.

The folder holds combine.json (all numbers), combine.html, predictions.parquet (each method's answer to each question)
and fitted/METHOD.npz, which `apply` uses on new questions and `labels` turns into training labels for a student.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from w2s.config.plugins import list_loaded
from w2s.ensemble.ballots import NotApplicable
from w2s.evaluation.pools import judging
from w2s.evaluation.pools.apply import predictions, write_predictions
from w2s.evaluation.pools.describe import compare, describe
from w2s.evaluation.pools.folders import check_folder, check_results
from w2s.evaluation.pools.forecast import choose_feasible
from w2s.evaluation.pools.judging import Judged
from w2s.evaluation.pools.pool import Pool, load_pool
from w2s.evaluation.pools.report import render
from w2s.evaluation.pools.settings import Settings
from w2s.pools import methods
from w2s.pools.records import Fitted, write_fitted
from w2s.store.files import write_json
from w2s.store.log import say

FILES = ("combine.json", "combine.html", "predictions.parquet", "fitted")


def run_combine(
    settings: Settings, specs: list[dict[str, Any]], command: str, *, pool: Pool | None = None, replace: bool = False
) -> dict[str, Any]:
    """Judge every method, fit it on all questions with gold, and write the folder; returns combine.json's content.

    pool: the pool, if already read. replace: overwrite results of other work in the folder, otherwise a BadInput.
    """
    check_folder(settings.folder)
    recipe = json.loads(json.dumps({**dataclasses.asdict(settings), "methods": specs, "out": None}))
    del recipe["plugins"]
    if plugins := list_loaded():  # their content counts, and `apply` names missing ones
        recipe["plugins"] = plugins
    if not replace:
        check_results(settings.folder, recipe, known=FILES)
    pool = pool or load_pool(settings)
    say(f"{len(pool.opinions.ids):,} questions, {len(pool.members)} members")
    specs, infeasible = choose_feasible(specs, settings.method_names, pool.opinions, pool.truth, settings.repeats)
    judged, left_out = judging.judge(specs, pool.opinions, pool.truth, repeats=settings.repeats, seed=settings.seed)
    left_out |= infeasible
    judged = drop_needless(settings, judged, left_out)
    report = describe(settings, judged, left_out, pool, command) | {"asked": recipe}
    if settings.online:
        try:
            report["online"] = judge_online(settings, specs, pool)
        except NotApplicable as reason:
            report["left_out"].append({"name": "online", "reason": str(reason)})
    report["remarks"] += write_fits(settings.folder / "fitted", judged, pool)
    answers = [(one.name, (one.candidate_N, one.confidence_N, one.member_N), one.right_RN[0]) for one in judged]
    write_predictions(settings.folder / "predictions.parquet", predictions(answers, pool.opinions))
    write_json(settings.folder / "combine.json", report)
    (settings.folder / "combine.html").write_text(render(report), encoding="utf-8")
    return report


def write_fits(folder: Path, judged: list[Judged], pool: Pool) -> list[str]:
    """Fit every judged method on all questions, a file each; returns a remark on each that cannot be fitted."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.npz"):
        stale.unlink()  # of an earlier run, perhaps on another pool
    remarks = []

    def refit(method: Judged) -> Fitted | NotApplicable:
        try:
            return methods.fit({"name": method.name, **method.options}, pool.opinions, pool.truth)
        except NotApplicable as reason:
            return reason

    for method, fitted in zip(judged, judging.map_on_cores(refit, judged), strict=True):
        if isinstance(fitted, NotApplicable):
            remarks.append(f"{method.name} was judged, but cannot be fitted on all questions: {fitted}")
        else:
            write_fitted(folder / f"{method.name}.npz", fitted)
    return remarks


def drop_needless(settings: Settings, judged: list[Judged], left_out: dict[str, str]) -> list[Judged]:
    """Leave out plurality, judged by default, if no votes were requested and it would cost questions.

    A vote cannot be judged where answers were not recorded, and all methods are compared on the same questions.
    """
    others = [method for method in judged if method.name != "plurality"]
    votes_wanted = {"all", "votes", "plurality"} & set(settings.method_names)
    if votes_wanted or len(others) < 2 or (judging.common(judged) == judging.common(others)).all():
        return judged
    left_out["plurality"] = "not all answers were recorded"
    return others


def judge_online(settings: Settings, specs: list[dict[str, Any]], pool: Pool) -> list[dict[str, Any]]:
    """The online protocol's table, best first; best_single is the best member in hindsight."""
    method = next((methods.online(spec) for spec in specs if spec["name"] in methods.ONLINE), None)
    splits = {"repeats": settings.repeats, "seed": settings.seed}
    columns = judging.judge_online(pool.opinions, pool.truth, method=method, **splits)
    rows_N = np.isfinite(next(iter(columns.values()))).all(0)
    rows = [{"name": name, **compare(name, columns, rows_N)} for name in columns]
    return sorted(rows, key=lambda row: -row["accuracy"][0])
