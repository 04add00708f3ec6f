"""What each student was taught: its labels, judged by gold that no student sees, and how long it trained on them.

Metrics (`model` is the student, `suite` the split that the labels are for): labels_right · labels_confidence (mean
probability of the most probable candidate) · labels_ece (in metrics.ECE_BINS bins of equal mass) · labels_log_loss
(mean -ln p(right), nats) · steps, best_step (optimizer steps taken, and those of the kept checkpoint; means over seeds)
· unconverged (share of seeds whose loss on held-out labels was lowest at the last step allowed). Rows that were dropped
do not count. Texts have no distribution over candidates, and programs are not run here.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from w2s.evaluation.run.contents import Taught
from w2s.evaluation.run.metrics import MODELS, Judged, Suite, calibration_error, judge, make_metric
from w2s.evaluation.run.runs import Artifact, Run, answer_text
from w2s.evaluation.statistics import Interval, contrast, rate
from w2s.grading.judge import grade_answer
from w2s.store.artifacts import check_artifact, read_manifest
from w2s.store.records import Example, Metric, Predictions, PseudoLabels, candidate_mask, read_arrays, read_rows, take

STUDENTS = (
    "student",
    "sft_student",
    "unrewarded",
    "naive_student",
    "dense_student",
    "dense_at_cost",
    "recorded_student",
    "shuffled",
    "easy_gold",
    "ceiling",
)
SPLITS = {"easy_gold": "easy_fit"}
TRAINED = "fit-0/train.json"
CERTAIN = "a right answer has probability 0"


@dataclass(frozen=True)
class Lesson:
    """One student of one seed: its labels that were kept, judged (None: by gold, or not judged here), and its fit, or
    why it was skipped."""

    kept: int
    judged: Judged | None
    temperature: str
    fit: Mapping[str, Any]


def read_lessons(run: Run) -> dict[str, dict[int, Lesson]]:
    """student -> seed -> what it was taught, in the order of MODELS."""
    fits = [one for one in run.find("model") if one.name == "fit" and one.tags["model"] in STUDENTS]
    lessons: dict[str, dict[int, Lesson]] = {}
    for model in MODELS:
        for artifact in (one for one in fits if one.tags["model"] == model):
            if "labels" in artifact.manifest["parents"]:
                lessons.setdefault(model, {})[artifact.tags["seed"]] = read_lesson(run, artifact)
    return lessons


def read_lesson(run: Run, artifact: Artifact) -> Lesson:
    folder = check_artifact(artifact.folder.parent / artifact.manifest["parents"]["labels"])
    made, labels = read_manifest(folder), read_arrays(folder / "labels.npz", PseudoLabels)
    labels = take(labels, labels.weight_N > 0)
    judged = None
    if made["stage"] != "gold_targets":
        seed, targets = artifact.tags["seed"], folder / "targets.jsonl"
        rows = read_rows(targets, Example) if targets.exists() else run.questions("transfer", seed).values()
        judged = judge_labels(labels, {row.id: row for row in rows}, run.gold("transfer", seed))
    fit = {"skipped": artifact.manifest["facts"].get("skipped")}
    if (artifact.folder / TRAINED).exists():
        fit = json.loads((check_artifact(artifact.folder, TRAINED) / TRAINED).read_text())
    return Lesson(len(labels.ids), judged, describe_temperature(made), fit)


def describe_temperature(made: Mapping[str, Any]) -> str:
    """The temperature in the manifest of labels; empty where they are not soft."""
    section, fitted = made["section"], made["facts"].get("fitted_temperature")
    if not section.get("soft"):
        return ""
    if not fitted:
        return f"{section['temperature']:.3g}"
    return f"{fitted['temperature']:.3g}, fitted" if fitted["rows"] else "1, as no right answer was there to fit"


def judge_labels(labels: PseudoLabels, rows: Mapping[str, Example], gold: Mapping[str, int | str]) -> Judged | None:
    """The labels judged as if they were a model's answers; texts without their distribution, programs not at all."""
    ids = labels.ids.tolist()
    if not ids or rows[ids[0]].task == "code":
        return None
    if rows[ids[0]].task == "choice":
        mask_NK = candidate_mask(np.array([len(rows[key].choices) for key in ids]))
        probs_NK = labels.target_NK[:, : mask_NK.shape[1]]
        opinion = Predictions(labels.ids, probs_NK, mask_NK, np.zeros(len(ids), bool), "labels")
        return judge(opinion, {key: int(gold[key]) for key in ids})
    texts = [rows[key].choices[at] for key, at in zip(ids, labels.target_NK.argmax(1).tolist(), strict=True)]
    verdicts = [grade_answer(text, answer_text(rows[key], gold[key]))[0] for key, text in zip(ids, texts, strict=True)]
    nothing_N = np.zeros(len(ids), bool)
    return Judged(labels.ids, np.array([float(right is True) for right in verdicts]), nothing_N, nothing_N)


def measure_labels(run: Run) -> list[Metric]:
    """The metrics of every student's labels and of its fit."""
    found = []
    for model, lessons in read_lessons(run).items():
        suite = SPLITS.get(model, "transfer")
        judged = {seed: {model: one.judged} for seed, one in lessons.items() if one.judged is not None}
        if judged:
            found += measure_taught(Suite(suite, judged, (model,)))
        fits = {seed: one.fit for seed, one in lessons.items() if "step" in one.fit}
        values = {"steps": [fit["step"] for fit in fits.values()]}
        values["best_step"] = [best_step(fit) for fit in fits.values()]
        if any(fit["looks"] for fit in fits.values()):
            values["unconverged"] = [float(is_unconverged(fit)) for fit in fits.values()]
        for name, found_S in values.items():
            if found_S:
                value = Interval(float(np.mean(found_S)), None, None, len(found_S))
                found.append(make_metric(suite, model, name, value, sorted(fits)))
    return found


def measure_taught(one: Suite) -> list[Metric]:
    right = rate(one.scores())
    found = [one.metric("labels_right", right)]
    if any(judged.opinion is None for seed in one.seeds for judged in one.judged(seed)):
        return found
    confidence = contrast(one.scores(lambda judged: judged.opinion.probs_NK.max(1)), [1.0])
    ece = np.mean([calibration_error(one.judged(seed)[0]) for seed in one.seeds])
    loss = np.mean([log_loss(one.judged(seed)[0]).mean() for seed in one.seeds])
    known = (float(loss), None) if np.isfinite(loss) else (None, CERTAIN)
    loss = Interval(known[0], None, None, right.n, known[1])
    named = {"labels_confidence": confidence, "labels_ece": Interval(float(ece), None, None, right.n)}
    return found + [one.metric(name, value) for name, value in {**named, "labels_log_loss": loss}.items()]


def log_loss(judged: Judged) -> np.ndarray:
    """-ln p(right) in nats of each row; infinite where the label excludes the right candidate."""
    p_N = np.take_along_axis(judged.opinion.probs_NK, judged.gold_N[:, None], 1)[:, 0]
    with np.errstate(divide="ignore"):
        return -np.log(p_N)


def best_step(fit: Mapping[str, Any]) -> int:
    """The step of the checkpoint that was kept."""
    return min(fit["looks"], key=lambda look: look[1])[0] if fit["looks"] else fit["step"]


def is_unconverged(fit: Mapping[str, Any]) -> bool:
    """Whether the loss on held-out labels was lowest at the last step allowed."""
    return bool(fit["looks"]) and best_step(fit) == fit["step"] == fit.get("most_steps", fit["step"])


def explain_stop(fit: Mapping[str, Any]) -> str:
    """Why a fit ended, in words."""
    if "step" not in fit:
        return f"not trained: {fit['skipped']}" if fit.get("skipped") else "solved at once"
    if not fit["looks"]:
        return "took all its steps: no labels were held out"
    if is_unconverged(fit):
        return "not converged: best on held-out labels at its last step"
    if fit["step"] < fit.get("most_steps", fit["step"]):
        return "stopped: no better on held-out labels"
    return "took all its steps; the best checkpoint was kept"


def describe_taught(run: Run, metrics: Sequence[Metric]) -> tuple[Taught, ...]:
    """A row of the report for each student, over all seeds."""
    rows = []
    for model, lessons in read_lessons(run).items():
        fits, suite = [one.fit for one in lessons.values()], SPLITS.get(model, "transfer")
        number = {m.name: m.value for m in metrics if (m.suite, m.model) == (suite, model)}
        numbers = [number.get(f"labels_{name}") for name in ("right", "confidence", "ece", "log_loss")]
        stops = Counter(map(explain_stop, fits))
        why = "; ".join(
            words + (f" ({count} of {len(fits)} seeds)" if len(stops) > 1 else "") for words, count in stops.items()
        )
        steps = [spread([fit[name] for fit in fits if name in fit]) for name in ("step", "most_steps")]
        best = spread([best_step(fit) for fit in fits if "step" in fit])
        temperature = ", ".join(dict.fromkeys(one.temperature for one in lessons.values() if one.temperature))
        rows.append(
            Taught(model, spread([one.kept for one in lessons.values()]), *numbers, temperature, *steps, best, why)
        )
    return tuple(rows)


def spread(values: Sequence[int]) -> str:
    """One number, or the least to the most; empty without any."""
    if not values:
        return ""
    return f"{min(values):,}" if min(values) == max(values) else f"{min(values):,} to {max(values):,}"
