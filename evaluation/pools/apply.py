"""A fitted combiner on new questions, without gold: `w2s combine apply` and `w2s combine labels`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from w2s.config.registry import did_you_mean, differences, pick
from w2s.ensemble.ballots import NotApplicable
from w2s.ensemble.selection import SELECTORS, make_labels
from w2s.evaluation.pools.judging import answers_of
from w2s.pools.methods import apply
from w2s.pools.read import read_pool
from w2s.pools.records import ABSTAINED, NOT_RECORDED, Decision, Opinions, Truth, read_fitted, rightness, spent
from w2s.store.log import say
from w2s.store.records import BadInput, Example, write_arrays, write_rows

Named = tuple[str, tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def apply_fitted(
    folder: Path, outputs: Path, questions: Path | None, out: Path, *, method: str | None, encoder: str | None
) -> str:
    """One answer to each new question by a fitted method (None: the winner), as parquet; returns a summary."""
    check_folder(out.parent)
    if out.is_dir():
        raise BadInput(f"out: {out} is a folder; allowed: a file")
    if out.is_file() and not out.read_bytes()[:4] == b"PAR1":
        raise BadInput(f"out: {out} is in use: it is no parquet; --out FILE for another place")
    name, opinions, truth, decision = decide(folder, outputs, questions, method, encoder)
    right_N, cost_N = rightness(decision, truth), spent(decision, opinions)
    write_predictions(out, [(name, answers_of(decision, opinions), right_N)], opinions)
    lines = [f"{name}: {len(opinions.ids):,} questions, {int(decision.abstained_N.sum()):,} without an answer"]
    if cost_N is not None:
        lines.append(f"cost: {1000 * cost_N.mean():.4g} {written(folder).get('unit', '$')} per 1,000 questions")
    judged_N = np.isfinite(right_N)
    if judged_N.any():
        lines.append(f"right: {100 * right_N[judged_N].mean():.1f}% of {int(judged_N.sum()):,} questions with gold")
    return "\n".join([*lines, f"predictions: {out}"])


def label(
    folder: Path, outputs: Path, questions: Path | None, out: Path, *, method: str | None, encoder: str | None,
    select: dict, soft: bool, temperature: float,
) -> str:  # fmt: skip
    """PseudoLabels of new questions by a fitted method, beside the questions themselves; returns a summary.

    OUT/labels.npz and OUT/questions.jsonl (`Example` rows with the same ids): what `label.recorded` of the main job
    reads. Gold plays no part in it, even where the questions have some.
    """
    check_folder(out)
    there = {one.name for one in out.iterdir()} if out.is_dir() else set()
    if there != {"labels.npz", "questions.jsonl"} and (strange := sorted(there - {"labels.npz"})):
        what = f"it holds {strange[0]}, and not labels alone"
        raise BadInput(f"out: {out} is in use: {what}; --out DIR for another place")
    name, opinions, _, decision = decide(folder, outputs, questions, method, encoder)
    usable_N = np.array(
        [
            bool(prompt.strip()) and len(texts) > 1
            for prompt, texts in zip(opinions.prompt_N, opinions.texts_N, strict=True)
        ]
    )
    if not usable_N.any():
        raise BadInput(f"{outputs}: no question has both a prompt and choices; a student could not be asked them")
    if decision.probs_NK is None:
        decision = dataclasses.replace(decision, probs_NK=one_hot(decision, opinions))
    # Selectors keep a share of the questions that a student can be asked.
    opinions = opinions.questions(usable_N)
    decision = Decision(decision.abstained_N[usable_N], decision.probs_NK[usable_N, : opinions.mask_NK.shape[1]])
    mask_NK = opinions.mask_NK
    silent_N = decision.abstained_N | ~decision.probs_NK.any(1)
    probs_NK = np.where(silent_N[:, None], mask_NK / np.maximum(mask_NK.sum(1, keepdims=True), 1), decision.probs_NK)
    votes_MNK = (opinions.answer_MN[:, :, None] == np.arange(mask_NK.shape[1])).astype(float)
    keep_N, why_N = pick(SELECTORS, select, key="select")(opinions.ids, probs_NK, mask_NK, votes_MNK, opinions.group_N)
    why_N = np.where(silent_N, "no member has an answer", why_N)
    labels = make_labels(opinions.ids, probs_NK, mask_NK, keep_N & ~silent_N, why_N, soft=soft, temperature=temperature)
    out.mkdir(parents=True, exist_ok=True)
    write_arrays(out / "labels.npz", labels)
    write_rows(out / "questions.jsonl", [
        Example(str(key), "recorded", "choice", str(prompt), tuple(texts))
        for key, prompt, texts in zip(opinions.ids, opinions.prompt_N, opinions.texts_N, strict=True)
    ])  # fmt: skip
    dropped = int((~usable_N).sum())
    beside = f"; {dropped:,} questions without a prompt or choices left out" if dropped else ""
    kept = int((labels.weight_N > 0).sum())
    return f"{name}: {kept:,} of {len(opinions.ids):,} questions labelled{beside}\nlabels: {out}"


def decide(
    folder: Path, outputs: Path, questions: Path | None, method: str | None, encoder: str | None
) -> tuple[str, Opinions, Truth, Decision]:
    """The fitted method of a combine folder, its pool of new outputs, and what it answers."""
    report, notes = written(folder), []
    known = sorted(path.stem for path in (folder / "fitted").glob("*.npz"))
    name = method or report.get("winner")
    if name is None:
        raise BadInput(f"{folder / 'combine.json'}: not what `w2s combine` wrote; name a method with --method")
    if name not in known:
        raise BadInput(
            f"method: {name!r} was not fitted there{did_you_mean(name, known)}; there are: {', '.join(known)}"
        )
    fitted = read_fitted(folder / "fitted" / f"{name}.npz")
    opinions, truth = read_pool(
        outputs, questions, members=fitted.members.tolist(), notes=notes, **report.get("log", {})
    )
    for note in notes:
        say(note)
    # Where nothing says whether an answer was right, a group without answers has abstained.
    silent_MN = (opinions.answer_MN == NOT_RECORDED) & ~np.isfinite(truth.right_MN)
    opinions = dataclasses.replace(opinions, answer_MN=np.where(silent_MN, ABSTAINED, opinions.answer_MN))
    opinions = with_features(opinions, encoder)
    try:
        return name, opinions, truth, apply(fitted, opinions)
    except NotApplicable as reason:
        raise BadInput(f"{outputs}: {name} cannot be applied: {reason}") from None


def written(folder: Path) -> dict:
    """What `w2s combine` wrote of its findings; {} where it cannot be read."""
    report = folder / "combine.json"
    if not report.is_file():
        raise BadInput(f"{folder}: no combine.json there; it is written by `w2s combine`")
    try:
        found = json.loads(report.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def check_folder(folder: Path) -> None:
    """BadInput where a file stands in the way of this folder: told before the work, and nothing is made."""
    nearest = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if nearest.is_file():
        raise BadInput(f"out: {nearest} is a file; allowed: a folder")


def check_free(folder: Path, recipe: dict[str, Any], known: Sequence[str]) -> None:
    """BadInput where a folder of results holds something else, or the results of another recipe."""
    in_use = f"out: {folder} is in use: {{}}; --out DIR for another place, --replace to replace it"
    there = sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []
    strange = [name for name in there if name not in known and not name.endswith(".new")]
    if strange and "combine.json" not in there:
        raise BadInput(in_use.format(f"it holds {strange[0]}, and no combine.json"))
    if "combine.json" in there:
        try:
            was = json.loads((folder / "combine.json").read_text(encoding="utf-8"))["asked"]
        except (OSError, ValueError, KeyError, TypeError):
            raise BadInput(in_use.format("its combine.json is damaged, or of another version")) from None
        if found := list(differences(was, recipe)):
            raise BadInput(in_use.format("; ".join(found[:2])))


def with_features(opinions: Opinions, encoder: str | None) -> Opinions:
    """The same with features_ND by a sentence encoder; unchanged without one."""
    if encoder is None:
        return opinions
    from w2s.models.encode import encode

    return dataclasses.replace(opinions, features_ND=encode(encoder, opinions.prompt_N.tolist()))


def one_hot(decision: Decision, opinions: Opinions) -> np.ndarray:
    """The chosen members' answers as distributions; all 0 where there is none."""
    candidate_N, _, _ = answers_of(decision, opinions)
    return (candidate_N[:, None] == np.arange(opinions.mask_NK.shape[1])).astype(np.float64)


def write_predictions(path: Path, answers: Sequence[Named], opinions: Opinions) -> None:
    """A row for each (method, (candidate, probability, member), right or wrong) and question, as parquet.

    In `w2s combine` the answer is that of the fit that had not seen the question, in the first repeat.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = []
    for name, (candidate_N, confidence_N, member_N), right_N in answers:
        texts = zip(opinions.texts_N, candidate_N, strict=True)
        parts.append(pa.table({
            "id": opinions.ids.astype(str),
            "method": pa.array([name] * len(candidate_N)),
            "candidate": pa.array(candidate_N, pa.int32(), mask=candidate_N < 0),
            "answer": pa.array([text[at] if at >= 0 else None for text, at in texts], pa.string()),
            "confidence": pa.array(confidence_N, pa.float64(), from_pandas=True),
            "member": pa.array([str(opinions.members[at]) if at >= 0 else None for at in member_N], pa.string()),
            "right": pa.array(right_N, pa.float64(), from_pandas=True),
        }))  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.concat_tables(parts), path, compression="zstd")
