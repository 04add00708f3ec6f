"""Judged answers -> Metric rows, metrics.json and the verdict in a sentence.

Names of models are fixed: see MODELS. Names of metrics (`model` is the one measured):

accuracy · accuracy@BIN (one bin of difficulty) · accuracy_minus_OTHER (paired difference to the model OTHER, see PAIRS)
smallest_difference_OTHER (the least difference to OTHER detectable here with 80% power) · pgr · brier (0 to 2) ·
ece (0 to 1) · abstained, unjudged (shares) · disagreement, imitation, imitation_if_independent (a student's, with its
teacher) · pass@K. Shares and accuracies run from 0 to 1; "points" are hundredths of them.

`n` counts different questions over all seeds. An undefined number has value None and a reason.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from w2s.boosting.adaboost import wrongness
from w2s.evaluation.statistics import Interval, Scores, contrast, pass_at_k, rate, ratio, smallest_difference
from w2s.grading.answers import NO_ANSWER
from w2s.store.hidden import hide
from w2s.store.records import Metric, Outcome, Predictions, align

MODELS = {
    "floor": ("floor", "the floor"),
    "best_learner": ("best single learner", "its best single learner"),
    "committee": ("committee", "its committee"),
    "rewarded": ("committee with rewards", "its committee, tilted by rewards"),
    "student": ("student", "the student"),
    "ceiling": ("ceiling", "the ceiling"),
    "uniform": ("equal alphas", "equal alphas"),
    "bagged": ("bagged learners", "bagging"),
    "answer_level": ("boosted by answers", "boosting by whole answers"),
    "merged": ("learners merged", "its learners merged into one model"),
    "merged_uniform": ("merged, equal weights", "the learners merged with equal weights"),
    "experts": ("learners as experts", "its learners as experts of one model"),
    "long_learner": ("one long learner", "one learner trained as long"),
    "naive_student": ("student of the floor", "a student of the floor"),
    "dense_student": ("dense student", "the dense model trained as long"),
    "dense_at_cost": ("dense student, same cost", "the dense model trained at the same cost"),
    "recorded_student": ("student of recorded labels", "a student of the recorded labels"),
    "sft_student": ("student before RL or DPO", "itself before its objective"),
    "unrewarded": ("student without rewards", "a student without rewards"),
    "zero_shot": ("base, untouched", "its untouched base"),
    "easy_gold": ("base on easy gold", "its base on the easy gold alone"),
    "shuffled": ("shuffled labels", "a student of shuffled labels"),
}
"""Model -> its label in pictures and tables, and the words for it in a sentence about the student or the committee."""
OF_STUDENT = ("committee", "floor", "naive_student", "recorded_student", "sft_student", "unrewarded", "rewarded")
OF_STUDENT += ("dense_student", "dense_at_cost")
OF_COMMITTEE = ("floor", "best_learner", "uniform", "bagged", "answer_level", "long_learner", "experts")
PAIRS = (
    *(("student", other) for other in OF_STUDENT),
    ("sft_student", "unrewarded"),
    *(("student", other) for other in ("zero_shot", "easy_gold", "shuffled")),
    *(("committee", other) for other in OF_COMMITTEE),
    ("rewarded", "committee"),
    *(("merged", other) for other in ("committee", "merged_uniform", "best_learner")),
    ("merged_uniform", "committee"),
    ("student", "merged"),
    *(("ceiling", other) for other in ("floor", "student", "easy_gold")),
)
"""(model, other): the differences that are measured, in the order of the report."""
TEACHERS = {"student": None, "sft_student": None, "unrewarded": "committee", "naive_student": "floor"}
"""Student -> the model whose labels it learned from; None: the run's teacher."""
ECE_BINS = 15
NOT_APART = "ceiling and floor cannot be told apart"


@dataclass(frozen=True)
class Judged:
    """One model's answers to one suite in one seed, judged.

    correct_N is 1 right, 0 wrong; if gold is among t tied most probable candidates, 1/t (as in boosting).
    unjudged_N marks answers that could not be judged; abstained_N those without an answer, or with none found in the
    text. Both count as wrong, and their shares are separate metrics.
    opinion and gold_N (index of the right candidate, -1 if it is missing) are None for free-form answers.
    """

    ids: np.ndarray
    correct_N: np.ndarray
    unjudged_N: np.ndarray
    abstained_N: np.ndarray
    opinion: Predictions | None = None
    gold_N: np.ndarray | None = None


Answers = Mapping[int, Mapping[str, Judged]]  # seed -> model -> its answers; the same ids for all models of a seed


def judge(opinion: Predictions, gold: Mapping[str, int]) -> Judged:
    """An opinion judged by {id: index of the right candidate}, -1 if no candidate is right."""
    missing = [key for key in opinion.ids.tolist() if key not in gold]
    if missing:
        raise ValueError(f"{opinion.by}: {len(missing)} questions have no gold answer ({', '.join(missing[:3])})")
    gold_N = np.array([gold[key] for key in opinion.ids.tolist()], dtype=int)
    correct_N = np.zeros(len(gold_N))
    known_N = gold_N >= 0
    correct_N[known_N] = 1 - wrongness(opinion.probs_NK[known_N], opinion.mask_NK[known_N], gold_N[known_N])
    return Judged(opinion.ids, correct_N, np.zeros(len(gold_N), bool), opinion.abstained_N, opinion, gold_N)


def judge_outcomes(outcomes: Sequence[Outcome]) -> Judged:
    """Judged programs or short answers; the first of several outcomes of a question is its answer."""
    first: dict[str, Outcome] = {}
    for one in outcomes:
        first.setdefault(one.id, one)
    right_N = np.array([float(one.correct or 0) for one in first.values()])
    unjudged_N = np.array([one.correct is None for one in first.values()], dtype=bool)
    silent_N = np.array([one.status == NO_ANSWER for one in first.values()], dtype=bool)
    return Judged(np.array(list(first)), right_N, unjudged_N, silent_N)


def measure(
    suite: str, answers: Answers, *, bins: Mapping[str, str] | None = None, teacher: str = "committee"
) -> list[Metric]:
    """Every metric of one suite. `bins` maps an id to the label of its bin of difficulty. teacher: of the student."""
    answers = {seed: in_one_order(models) for seed, models in answers.items()}
    if not answers or not all(answers.values()):
        raise ValueError(f"{suite}: an empty set has no accuracy")
    models = [model for model in MODELS if any(model in seed for seed in answers.values())]
    models += sorted({model for seed in answers.values() for model in seed} - set(MODELS))  # w2s evaluate: any name
    found = []
    for model in models:
        one = Suite(suite, answers, (model,))
        found += accuracies(one, bins) + calibrations(one)
    for model, other in PAIRS:
        if model in models and other in models:
            found += differences(Suite(suite, answers, (model, other)))
    for student, taught_by in TEACHERS.items():
        if student in models:
            found += recovered(suite, answers, student, models)
            if (taught_by or teacher) in models:
                found += imitations(suite, answers, student, taught_by or teacher)
    return found


@dataclass(frozen=True)
class Suite:
    """Some models' answers in the seeds that have them all."""

    suite: str
    answers: Answers
    models: tuple[str, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(sorted(s for s, found in self.answers.items() if all(m in found for m in self.models)))

    def judged(self, seed: int) -> list[Judged]:
        return [self.answers[seed][model] for model in self.models]

    def scores(self, values=lambda judged: judged.correct_N, keep=lambda judged: slice(None)) -> list[Scores]:
        """One column per model: `values` of each Judged, on the rows of `keep`."""
        found = []
        for seed in self.seeds:
            all_judged = self.judged(seed)
            rows = keep(all_judged[0])
            values_NM = np.stack([values(one) for one in all_judged], axis=1)[rows]
            found.append(Scores(all_judged[0].ids[rows], np.asarray(values_NM, dtype=float)))
        return [one for one in found if len(one.ids)]

    def metric(self, name: str, interval: Interval) -> Metric:
        return make_metric(self.suite, self.models[0], name, interval, self.seeds)


def make_metric(suite: str, model: str, name: str, interval: Interval, seeds: Iterable[int]) -> Metric:
    """An interval as a metric; an unbounded end is None."""
    low, high = (None if end is None or not np.isfinite(end) else end for end in (interval.low, interval.high))
    return Metric(suite, model, name, interval.value, low, high, interval.n, tuple(seeds), interval.reason)


def in_one_order(models: Mapping[str, Judged]) -> dict[str, Judged]:
    """All models of a seed on the same ids in the same order; other ids are a ValueError."""
    ids = np.sort(next(iter(models.values())).ids) if models else None
    ordered = {}
    for model, one in models.items():
        order_N = np.argsort(one.ids, kind="stable")
        if not np.array_equal(one.ids[order_N], ids):
            raise ValueError(f"{model} was not judged on the same questions as {next(iter(models))}")
        opinion = None if one.opinion is None else align(one.opinion, ids)
        gold_N = None if one.gold_N is None else one.gold_N[order_N]
        columns = (column_N[order_N] for column_N in (one.correct_N, one.unjudged_N, one.abstained_N))
        ordered[model] = Judged(ids, *columns, opinion, gold_N)
    return ordered


def accuracies(one: Suite, bins: Mapping[str, str] | None) -> list[Metric]:
    found = [one.metric("accuracy", rate(one.scores()))]
    for label in sorted(set((bins or {}).values())):
        inside = one.scores(keep=lambda j, label=label: np.array([bins.get(i) == label for i in j.ids.tolist()], bool))
        if inside:
            found.append(one.metric(f"accuracy@{label}", rate(inside)))
    for name, values in (("unjudged", lambda j: j.unjudged_N), ("abstained", lambda j: j.abstained_N)):
        share = rate(one.scores(values))
        found += [one.metric(name, share)] if share.value else []
    return found


def calibrations(one: Suite) -> list[Metric]:
    """Brier score (sum over candidates, 0 to 2) and expected calibration error in 15 bins of equal mass."""
    if any(judged.opinion is None for seed in one.seeds for judged in one.judged(seed)):
        return []
    brier = contrast(one.scores(brier_score), [1.0], top=2.0)
    # No interval: a resample of a calibrated model looks uncalibrated, so its bootstrap is biased upwards.
    ece = np.mean([calibration_error(one.judged(seed)[0]) for seed in one.seeds])
    return [one.metric("brier", brier), one.metric("ece", Interval(float(ece), None, None, brier.n))]


def brier_score(judged: Judged) -> np.ndarray:
    """Per question, sum_k (p_k - [k is right])^2, plus 1 where no candidate is right."""
    right_NK = np.arange(judged.opinion.probs_NK.shape[1]) == judged.gold_N[:, None]
    return ((judged.opinion.probs_NK - right_NK) ** 2).sum(1) + (judged.gold_N < 0)


def calibration_bins(judged: Judged, count: int) -> list[tuple[float, float, int]]:
    """(mean confidence, accuracy, n) of at most `count` bins of equal mass, by the probability of the answer given."""
    confidence_N = judged.opinion.probs_NK.max(1)
    parts = np.array_split(np.argsort(confidence_N, kind="stable"), min(count, len(confidence_N)))
    return [(float(confidence_N[part].mean()), float(judged.correct_N[part].mean()), len(part)) for part in parts]


def calibration_error(judged: Judged) -> float:
    """ECE: mean |confidence - accuracy| over ECE_BINS bins of equal mass (Nixon et al. 2019 on why equal mass)."""
    found = calibration_bins(judged, ECE_BINS)
    return sum(n * abs(confidence - accuracy) for confidence, accuracy, n in found) / len(judged.ids)


def differences(both: Suite) -> list[Metric]:
    gap, least = f"accuracy_minus_{both.models[1]}", f"smallest_difference_{both.models[1]}"
    if not both.seeds:
        return [both.metric(gap, Interval(None, None, None, 0, "no seed has both"))]
    scores = both.scores()
    difference, value = contrast(scores, [1.0, -1.0]), smallest_difference(scores, [1.0, -1.0])
    smallest = Interval(value, None, None, difference.n, "the two never differ" if value is None else None)
    return [both.metric(gap, difference), both.metric(least, smallest)]


def recovered(suite: str, answers: Answers, student: str, models: Sequence[str]) -> list[Metric]:
    """PGR = (student - floor) / (ceiling - floor), paired by question over all three."""
    missing = [model for model in ("floor", "ceiling") if model not in models]
    three = Suite(suite, answers, (student, "floor", "ceiling"))
    if missing or not three.seeds:
        why = f"no {' and no '.join(missing)} in this run" if missing else "no seed has all three"
        return [Metric(suite, student, "pgr", None, None, None, 0, (), why)]
    return [three.metric("pgr", ratio(three.scores(), [1, -1, 0], [0, -1, 1], unclear=NOT_APART))]


def imitations(suite: str, answers: Answers, student: str, teacher: str) -> list[Metric]:
    """How much a student copies its teacher: disagreement, and the share of the teacher's wrong answers it repeats,
    next to that of independent errors: its error rate, spread evenly over the K - 1 wrong candidates."""
    both = Suite(suite, answers, (student, teacher))
    pairs = [both.judged(seed) for seed in both.seeds]
    if not pairs or any(one.opinion is None for pair in pairs for one in pair):
        return []
    differ, copies, expected, wrong = [], [], 0.0, 0
    for pupil, teacher in pairs:
        choice_N, taught_N = answer_given(pupil), answer_given(teacher)
        wrong_N = (taught_N >= 0) & (taught_N != teacher.gold_N)
        differ.append(Scores(pupil.ids, (choice_N != taught_N)[:, None].astype(float)))
        copies.append(Scores(pupil.ids, np.stack([wrong_N & (choice_N == taught_N), wrong_N], 1).astype(float)))
        others_N = np.maximum(teacher.opinion.mask_NK.sum(1) - 1, 1)
        expected += (1 - pupil.correct_N.mean()) * (1 / others_N[wrong_N]).sum()
        wrong += int(wrong_N.sum())
    found = [both.metric("disagreement", rate(differ))]
    found.append(both.metric("imitation", ratio(copies, [1, 0], [0, 1], unclear="the teacher hardly errs")))
    if wrong:
        found.append(both.metric("imitation_if_independent", Interval(float(expected / wrong), None, None, wrong)))
    return found


def answer_given(judged: Judged) -> np.ndarray:
    """The candidate chosen for each question (the first of tied ones), -1 where the model abstained."""
    return np.where(judged.opinion.abstained_N, -1, judged.opinion.probs_NK.argmax(1))


def count_passes(outcomes: Sequence[Outcome]) -> list[tuple[str, int, int]]:
    """(id, samples, passed) of each question, in order; unjudged samples have not passed."""
    passed: dict[str, list[bool]] = {}
    for one in outcomes:
        passed.setdefault(one.id, []).append(one.correct is True)
    return [(key, len(right), sum(right)) for key, right in passed.items()]


def measure_samples(
    suite: str, model: str, seeds: Mapping[int, Sequence[tuple[str, int, int]]], *, ks: Sequence[int] = (1, 10)
) -> list[Metric]:
    """pass@k from (task id, samples, passed) of each seed, with the interval over tasks (and seeds)."""
    found, tables = (
        [],
        [(np.array([i for i, _, _ in rows]), np.array([r[1:] for r in rows])) for rows in seeds.values()],
    )
    for k in ks:
        try:
            scores = [Scores(ids, pass_at_k(*count_N2.T, k)[:, None]) for ids, count_N2 in tables]
        except ValueError as error:
            tasks = len({i for rows in seeds.values() for i, _, _ in rows})
            if not tasks:
                raise
            share = Interval(None, None, None, tasks, str(error))
        else:
            share = contrast(scores, [1.0])
        found.append(make_metric(suite, model, f"pass@{k}", share, sorted(seeds)))
    return found


def difficulty_bins(difficulty: Mapping[str, float], *, count: int = 5) -> tuple[tuple[str, ...], dict[str, str]]:
    """(labels from easy to hard, {id: label}): one label per level if these are few, else bins of equal mass."""
    ids, value_N = list(difficulty), np.array(list(difficulty.values()), dtype=float)
    levels = np.unique(value_N)
    if len(levels) <= count + 1:
        labels = tuple(f"{level:g}" for level in levels)
        return labels, {i: f"{value:g}" for i, value in zip(ids, value_N, strict=True)}
    edges = np.unique(np.quantile(value_N, np.linspace(0, 1, count + 1)))
    which_N = np.clip(np.searchsorted(edges, value_N, side="right") - 1, 0, len(edges) - 2)
    inside = [value_N[which_N == b] for b in range(len(edges) - 1)]
    named = {b: f"{part.min():.3g} to {part.max():.3g}" for b, part in enumerate(inside) if len(part)}
    return tuple(named.values()), {i: named[b] for i, b in zip(ids, which_N.tolist(), strict=True)}


def write_metrics(path: Path, run: str, verdict: str, metrics: Sequence[Metric], *, limit: int | None = None) -> None:
    """Write metrics.json: the same numbers give the same bytes (sorted, 6 digits, no times and no paths). limit: the
    limit of questions per set, if any."""
    rank = {model: at for at, model in enumerate(MODELS)}
    rows = []
    for one in sorted(metrics, key=lambda m: (m.suite, rank.get(m.model, len(rank)), m.model, m.name)):
        row = dataclasses.asdict(one)
        for field in ("value", "low", "high"):
            row[field] = None if row[field] is None else round(float(row[field]), 6) + 0.0  # no -0.0
        rows.append(row)
    content = {"run": run, "verdict": verdict, **({"limit": limit} if limit else {}), "metrics": rows}
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    Path(path).write_text(hide(text) + "\n", encoding="utf-8", errors="backslashreplace")
