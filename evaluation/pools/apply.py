"""A fitted combiner on new questions, without gold: `w2s combine apply` and `w2s combine labels`."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from w2s.config.plugins import load_plugins
from w2s.config.registry import did_you_mean, pick
from w2s.ensemble.ballots import NotApplicable
from w2s.ensemble.selection import SELECTORS, make_labels
from w2s.evaluation.pools.folders import check_folder, check_labels, check_predictions, read_report
from w2s.evaluation.pools.judging import find_answers
from w2s.evaluation.pools.pool import add_features
from w2s.pools.methods import APPLY, apply
from w2s.pools.read import read_pool
from w2s.pools.records import ABSTAINED, NOT_RECORDED, Decision, Opinions, Truth, read_fitted, rightness, spent
from w2s.store.files import write_json
from w2s.store.log import say
from w2s.store.records import BadInput, Example, PseudoLabels, write_arrays, write_rows

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Answers = tuple[str, tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class NewOutputs:
    """New recorded outputs: their files or tables, and the sentence encoder if the method was fitted with one."""

    outputs: Path | pd.DataFrame
    questions: Path | pd.DataFrame | None = None
    encoder: str | None = None

    @property
    def recipe(self) -> dict[str, str | None]:
        """The inputs by name, as plain texts."""
        return {
            "outputs": name_input(self.outputs),
            "questions": None if self.questions is None else name_input(self.questions),
            "encoder": self.encoder,
        }


@dataclass(frozen=True)
class LabelOptions:
    """How pseudo-labels are made: a selector's spec {name: ..., **options}, soft or hard targets, their temperature."""

    select: dict[str, Any] = field(default_factory=lambda: {"name": "everything"})
    soft: bool = True
    temperature: float = 1.0


@dataclass(frozen=True)
class Applied:
    """The answers of a fitted method to new questions; `unit` is that of the costs."""

    method: str
    opinions: Opinions
    truth: Truth
    decision: Decision
    unit: str

    @property
    def table(self) -> pa.Table:
        """A row for each question: see `predictions`."""
        right_N = rightness(self.decision, self.truth)
        return predictions([(self.method, find_answers(self.decision, self.opinions), right_N)], self.opinions)

    @property
    def summary(self) -> str:
        """Answers, abstentions, cost and, on questions with gold, accuracy, on a line each."""
        right_N, cost_N = rightness(self.decision, self.truth), spent(self.decision, self.opinions)
        silent = int(self.decision.abstained_N.sum())
        lines = [f"{self.method}: {len(self.opinions.ids):,} questions, {silent:,} without an answer"]
        if cost_N is not None:
            lines.append(f"cost: {1000 * cost_N.mean():.4g} {self.unit} per 1,000 questions")
        judged_N = np.isfinite(right_N)
        if judged_N.any():
            lines.append(f"right: {100 * right_N[judged_N].mean():.1f}% of {int(judged_N.sum()):,} questions with gold")
        return "\n".join(lines)


@dataclass(frozen=True)
class Labelled:
    """Pseudo-labels by a fitted method, the questions they belong to, and how many questions no student can answer."""

    method: str
    labels: PseudoLabels
    questions: list[Example]
    dropped: int

    @property
    def summary(self) -> str:
        """How many questions got a label, on one line."""
        kept = int((self.labels.weight_N > 0).sum())
        dropped = f"; {self.dropped:,} questions without a prompt or choices left out" if self.dropped else ""
        return f"{self.method}: {kept:,} of {len(self.questions):,} questions labelled{dropped}"


def apply_new(
    folder: Path, new: NewOutputs, *, method: str | None = None, out: Path | None = None, replace: bool = False
) -> Applied:
    """One answer to each new question by a fitted method (None: the winner); written to `out` as parquet.

    An `out` that holds anything but the predictions of the same method for the same outputs is a BadInput unless
    `replace` is set.
    """
    recipe = {"folder": str(folder), "method": choose_method(folder, method), **new.recipe}
    if out is not None:
        check_predictions(out, recipe, replace=replace)
    applied = apply_fitted(folder, new, method)
    if out is not None:
        write_predictions(out, applied.table, recipe)
    return applied


def label_new(
    folder: Path,
    new: NewOutputs,
    options: LabelOptions,
    *,
    method: str | None = None,
    out: Path | None = None,
    replace: bool = False,
) -> Labelled:
    """Pseudo-labels of new questions by a fitted method (None: the winner); written to the folder `out`.

    `label.recorded` of the main job reads OUT/labels.npz and OUT/questions.jsonl (`Example` rows with the same ids);
    OUT/labels.json says how they were made. Gold is not used, even if present. An `out` that holds anything but the
    same labels is a BadInput unless `replace` is set.
    """
    recipe = {"folder": str(folder), "method": choose_method(folder, method), **new.recipe}
    recipe |= dataclasses.asdict(options)
    if out is not None:
        check_labels(out, recipe, replace=replace)
    labelled = make_pseudo_labels(apply_fitted(folder, new, method), recipe["outputs"], options)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "labels.json", recipe)
        write_arrays(out / "labels.npz", labelled.labels)
        write_rows(out / "questions.jsonl", labelled.questions)
    return labelled


def choose_method(folder: Path, method: str | None) -> str:
    """The method to apply: the one named, or the winner of the folder's combine.json."""
    report = read_report(folder)
    known = sorted(path.stem for path in (folder / "fitted").glob("*.npz"))
    name = method or report.get("winner")
    if name is None:
        raise BadInput(f"{folder / 'combine.json'}: not what `w2s combine` wrote; name a method with --method")
    if name not in known:
        near = did_you_mean(name, known)
        raise BadInput(f"method: {name!r} was not fitted there{near}; there are: {', '.join(known)}")
    return name


def apply_fitted(folder: Path, new: NewOutputs, method: str | None) -> Applied:
    """The answers of a fitted method of a combine folder to new outputs."""
    load_plugins(shipped=True)
    name, report, notes = choose_method(folder, method), read_report(folder), []
    fitted = read_fitted(folder / "fitted" / f"{name}.npz")
    if fitted.kind not in APPLY:
        plugins = ", ".join(report.get("asked", {}).get("plugins", {})) or "its plug-in"
        raise BadInput(f"method: {name!r} needs a plug-in that is not loaded: {plugins} (--plugins FILE)")
    log = report.get("log", {})
    log = {key: log.get(key, ()) for key in ("metrics", "filters")}
    opinions, truth = read_pool(new.outputs, new.questions, members=fitted.members.tolist(), notes=notes, **log)
    for note in notes:
        say(note)
    # Without knowledge of right and wrong, a group without answers has abstained.
    silent_MN = (opinions.answer_MN == NOT_RECORDED) & ~np.isfinite(truth.right_MN)
    opinions = dataclasses.replace(opinions, answer_MN=np.where(silent_MN, ABSTAINED, opinions.answer_MN))
    opinions = add_features(opinions, new.encoder)
    try:
        return Applied(name, opinions, truth, apply(fitted, opinions), report.get("unit", "$"))
    except NotApplicable as reason:
        raise BadInput(f"{new.recipe['outputs']}: {name} cannot be applied: {reason}") from None


def make_pseudo_labels(applied: Applied, outputs: str, options: LabelOptions) -> Labelled:
    """Labels of the questions that a student can learn from: those with a prompt and at least two choices."""
    opinions, decision = applied.opinions, applied.decision
    questions = zip(opinions.prompt_N, opinions.texts_N, strict=True)
    usable_N = np.array([bool(prompt.strip()) and len(texts) > 1 for prompt, texts in questions])
    if not usable_N.any():
        raise BadInput(f"{outputs}: no question has both a prompt and choices, which a student needs")
    if decision.probs_NK is None:
        candidate_N = find_answers(decision, opinions)[0]
        one_hot_NK = (candidate_N[:, None] == np.arange(opinions.mask_NK.shape[1])).astype(np.float64)
        decision = dataclasses.replace(decision, probs_NK=one_hot_NK)
    # Selectors keep a share of the questions that a student can learn from.
    opinions = opinions.questions(usable_N)
    decision = Decision(decision.abstained_N[usable_N], decision.probs_NK[usable_N, : opinions.mask_NK.shape[1]])
    mask_NK = opinions.mask_NK
    silent_N = decision.abstained_N | ~decision.probs_NK.any(1)
    uniform_NK = mask_NK / np.maximum(mask_NK.sum(1, keepdims=True), 1)
    probs_NK = np.where(silent_N[:, None], uniform_NK, decision.probs_NK)
    votes_MNK = (opinions.answer_MN[:, :, None] == np.arange(mask_NK.shape[1])).astype(float)
    select = pick(SELECTORS, options.select, key="select")
    keep_N, why_N = select(opinions.ids, probs_NK, mask_NK, votes_MNK, opinions.group_N)
    why_N = np.where(silent_N, "no member has an answer", why_N)
    how = {"soft": options.soft, "temperature": options.temperature}
    labels = make_labels(opinions.ids, probs_NK, mask_NK, keep_N & ~silent_N, why_N, **how)
    asked = zip(opinions.ids, opinions.prompt_N, opinions.texts_N, strict=True)
    examples = [Example(str(key), "recorded", "choice", str(prompt), tuple(texts)) for key, prompt, texts in asked]
    return Labelled(applied.method, labels, examples, int((~usable_N).sum()))


def name_input(table: Path | pd.DataFrame) -> str:
    """A file by its path; a table in memory has no name."""
    return str(table) if isinstance(table, Path) else f"a table of {len(table):,} rows"


def predictions(answers: Sequence[Answers], opinions: Opinions) -> pa.Table:
    """A row for each (method, (candidate, probability, member), right or wrong) and question.

    In `w2s combine` the answer is that of the fit that had not seen the question, in the first repeat.
    """
    import pyarrow as pa

    parts = []
    for name, (candidate_N, confidence_N, member_N), right_N in answers:
        texts = zip(opinions.texts_N, candidate_N, strict=True)
        columns = {
            "id": opinions.ids.astype(str),
            "method": pa.array([name] * len(candidate_N)),
            "candidate": pa.array(candidate_N, pa.int32(), mask=candidate_N < 0),
            "answer": pa.array([text[at] if at >= 0 else None for text, at in texts], pa.string()),
            "confidence": pa.array(confidence_N, pa.float64(), from_pandas=True),
            "member": pa.array([str(opinions.members[at]) if at >= 0 else None for at in member_N], pa.string()),
            "right": pa.array(right_N, pa.float64(), from_pandas=True),
        }
        parts.append(pa.table(columns))
    return pa.concat_tables(parts)


def write_predictions(path: Path, table: pa.Table, recipe: dict[str, Any] | None = None) -> None:
    """Write parquet, completely or not at all, with the recipe in its metadata."""
    import pyarrow.parquet as pq

    check_folder(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    if recipe is not None:
        table = table.replace_schema_metadata({"w2s": json.dumps(recipe)})
    beside = path.with_name(path.name + ".new")
    pq.write_table(table, beside, compression="zstd")
    os.replace(beside, path)
