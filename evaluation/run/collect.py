"""From a run's folder to its numbers and its report: `finish`, and `compare` for several runs.

`stages.json` lists the run's artifacts; everything shown is read from them. metrics.json holds no times and no paths,
so a run that was killed and resumed gives the same bytes as an uninterrupted one.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from w2s.boosting.diagnostics import heaviest_rows
from w2s.config.running import Controls
from w2s.config.smoke import smoke
from w2s.evaluation.run import compare as comparison
from w2s.evaluation.run.asking import describe_merges, price_labels
from w2s.evaluation.run.contents import Cost, HeavyRow, ReportData, Reproduce, Sample, Step, Vote
from w2s.evaluation.run.exports import write_exports
from w2s.evaluation.run.metrics import Answers, calibration_bins
from w2s.evaluation.run.mixtures import describe_mixtures, find_faults
from w2s.evaluation.run.pictures import LABELS, LADDER
from w2s.evaluation.run.report import write_report
from w2s.evaluation.run.runs import (
    SUITE,
    Findings,
    Run,
    answer_text,
    find_teacher,
    finish_study,
    measure_run,
    open_run,
    quantised_bases,
)
from w2s.evaluation.run.student import write_student
from w2s.evaluation.run.taught import describe_taught, measure_labels
from w2s.evaluation.run.verdict import sentence, verdict
from w2s.evaluation.shown import below_chance, cut, hard_answers, training
from w2s.grading.judge import grade_answer
from w2s.stages.rounds import row_weights
from w2s.stages.writing import read_texts
from w2s.store.records import Example, Metric, Predictions, PseudoLabels, align, read_arrays, read_rows

SHOWN_BINS = 8
SYNTHETIC = "The questions are synthetic: they come from the embedded world, made up by a program."


def finish(folder: Path, *, again: bool = False) -> str:
    """metrics.json, the report, the exports and the student of a run; returns the verdict (see `finish_study`)."""
    return finish_study(folder, find_out, again=again)


def find_out(run: Run) -> Findings:
    """The results of `w2s run`, ready to be written."""
    answers, metrics = measure_run(run)
    metrics += measure_labels(run)
    data = report_data(run, answers, metrics)

    def write() -> list[str]:
        write_exports(run)
        return [*write_report(data, run.folder), *write_student(run, data)]

    words = "; ".join(filter(None, (smoke(run.config.get("limit")), verdict(metrics, SUITE))))
    return Findings(words, metrics, write)


def compare(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Several runs side by side: compare.html and compare.md in `out`, or in compare/RUN+RUN beside the first run."""
    found = []
    for folder in folders:
        run = open_run(folder)
        answers, metrics = measure_run(run)
        metrics += measure_labels(run)
        found.append((report_data(run, answers, metrics), answers))
    names = "+".join(folder.name for folder in folders)
    if len(names) > 200:  # a file name has at most 255 bytes
        names = f"{names[:200]}-{hashlib.sha256(names.encode()).hexdigest()[:8]}"
    out = out or folders[0].parent / "compare" / names
    comparison.compare(found, out)
    return out / "compare.html"


def report_data(run: Run, answers: Answers, metrics: Sequence[Metric]) -> ReportData:
    config, seed = run.config, run.seeds[0]
    doubts = [sentence(smoke(config["limit"]))] if config.get("limit") else []
    doubts += [SYNTHETIC] if any(row.meta.get("synthetic") for row in run.questions(SUITE, seed).values()) else []
    committees = {s: read_committee(run, s) for s in run.seeds}
    opinions = {m: answers[seed][m] for m in LADDER if m in answers[seed] and answers[seed][m].opinion is not None}
    return ReportData(
        run=config["name"],
        suite=SUITE,
        written=run.written,
        metrics=tuple(metrics),
        synthetic=" ".join(doubts),
        flow=flow(run, committees[seed]),
        duplicates=duplicates(run),
        controls_off=tuple(name for name, on in config["controls"].items() if not on and getattr(Controls, name)),
        committees=committees,
        dependence=committees[seed],
        heaviest=heaviest(run, seed),
        difficulty_bins=run.bins[0],
        difficulty_name=f"difficulty by {config['data']['difficulty']['name']}, easy to hard",
        calibration={model: calibration_bins(one, SHOWN_BINS) for model, one in opinions.items()},
        taught=describe_taught(run, metrics),
        mixtures=describe_mixtures(run),
        label_costs=price_labels(run, metrics),
        merges=tuple(describe_merges(run)),
        costs=costs(run),
        answers=hard_answers(run, answers, seed),
        samples=samples(run, seed, committees[seed]["used"]),
        training=training(run),
        reproduce=reproduce(run),
        notes=tuple(warnings(run, answers, committees)),
    )


def warnings(run: Run, answers: Answers, committees: Mapping[int, dict[str, Any]]) -> list[str]:
    """Warnings about a run, one sentence each."""
    notes = [f"seed {s}: {one['warning']}" for s, one in committees.items() if one["warning"]]
    alone = [s for s, one in committees.items() if not any(fitted["alpha"] > 0 for fitted in one["rounds"])]
    notes += [f"seed {s}: no round beat its reference, so the first learner stands alone" for s in alone]
    notes += [
        f"seed {s}: {LABELS[model]}: not trained: {why}" for model, one in run.skipped.items() for s, why in one.items()
    ]
    repeated = {suite: sum(len(run.leaked[suite, s]) for s in run.seeds) for suite in run.suites}
    for suite, count in repeated.items():
        notes += [f"questions of {suite} that repeat one trained on, left out of its numbers: {count:,}"] * (count > 0)
    notes += [f"seed {s}: {words}" for s in run.seeds for words in reward_notes(run, s)] + quantised_bases(run)
    notes += find_faults(describe_mixtures(run))
    return notes + [words for s in run.seeds for words in below_chance(answers, s)]


def read_committee(run: Run, seed: int) -> dict[str, Any]:
    (artifact,) = run.find("committee", seed=seed, model="committee")
    return json.loads((artifact.path / "committee.json").read_text())


def reward_notes(run: Run, seed: int) -> list[str]:
    """How rewards were used, their accuracy on easy_holdout, the members' agreement, and what they already know."""
    found, config = [], run.config
    for artifact in run.find("opinion", seed=seed, model="rewarded"):
        used = json.loads((artifact.path / "rewards.json").read_text())
        how = f"strength {used['strength']:g}" if used["use"] == "tilt" else "the best of n alone"
        right = ", ".join(f"{name} {100 * share:.1f}%" for name, share in used["accuracy"].items())
        chose = used["use"] == "tilt" and config["label"]["reward"]["strength"] is None
        where = "held-out easy questions" + (", on which the strength was chosen" if chose else "")
        words = f"rewards in labels: {how}; right on {where}: {right}"
        if used["agreement"] is not None:
            words += f"; two members have the same favourite on {100 * used['agreement']:.1f}% of the transfer pool"
        unjudged = sum(sum(count) for count in used["unjudged"].values())
        found.append(words + (f"; {unjudged:,} candidates could not be judged" if unjudged else ""))
        leaked = sum(one.manifest["facts"].get("leaked", 0) for one in run.find("pairs", seed=seed))
        if leaked:
            found.append(f"{leaked:,} preference pairs are about questions that rewards are asked about: left out")
        bases = [one["model"]["path"] for one in config["rewards"]["models"]]
        if config["student"]["model"]["path"] in bases and config["rewards"]["pairs"]["name"] == "gold":
            words = "the reward models begin as the student's base and learn from the easy gold"
            found.append(f"{words}: what they bring is to be measured against that base on the easy gold alone")
    return found


def flow(run: Run, committee: Mapping[str, Any]) -> tuple[Step, ...]:
    """The boxes, with the first seed's counts."""
    seed = run.seeds[0]
    facts = run.find("questions", seed=seed)[0].manifest["facts"]
    weight_N = read_arrays(labels_folder(run, seed) / "labels.npz", PseudoLabels).weight_N
    kept = int((weight_N > 0).sum())
    start = "from the merged learners, " if run.config["student"].get("start") == "merged" else ""
    chosen = f"chosen on {facts['easy_holdout']:,} held-out easy questions"
    return (
        Step("easy questions", f"{facts['easy_fit']:,}", "with gold"),
        Step("boosting", f"{len(committee['rounds'])} rounds", committee["stop"] or "all of them ran"),
        Step("committee", f"{committee['used']} learners", chosen),
        Step("transfer pool", f"{facts['transfer']:,}", "hard, without gold"),
        Step("pseudo-labels", f"{kept:,} kept", f"{len(weight_N) - kept:,} dropped"),
        Step("student", run.config["student"]["model"]["path"], start + "trained on the pseudo-labels alone"),
        Step("hard test", f"{facts['hard_test']:,}", "held out"),
    )


def labels_folder(run: Run, seed: int) -> Path:
    """The folder of the student's labels: by the committee, the committee tilted by rewards, or its learners merged."""
    return run.find("labels", seed=seed, model=find_teacher(run))[0].path


def duplicates(run: Run) -> dict[str, int]:
    """Questions removed from a split because another split holds a duplicate, over all seeds."""
    removed: dict[str, int] = defaultdict(int)
    for artifact in run.find("questions"):
        for kind in ("exact", "near"):
            for where, count in artifact.manifest["facts"].get(f"removed_{kind}", {}).items():
                removed[f"{kind}: {where}"] += count
    return dict(removed)


def heaviest(run: Run, seed: int) -> tuple[HeavyRow, ...]:
    """The easy questions with the highest weights, with their weight in each round."""
    rounds = [a.path for a in run.find("round", seed=seed, model="committee") if (a.path / "weights.npz").exists()]
    weights = [row_weights(path) for path in rounds]
    ids = weights[0].ids
    weight_RN = np.array([align(one, ids).weight_N for one in weights])
    rows, gold, heavy = run.questions("easy_fit", seed), run.gold("easy", seed), []
    for key, weight_R in heaviest_rows(ids, weight_RN, top=8):
        alike = int(np.isclose(weight_RN * len(ids), weight_R[:, None]).all(0).sum())
        answer = cut(answer_text(rows[key], gold[key]))
        heavy.append(HeavyRow(key, rows[key].prompt, answer, tuple(weight_R.tolist()), seed, alike))
    return tuple(heavy)


def costs(run: Run) -> tuple[Cost, ...]:
    """Seconds and tokens by kind of stage, over all seeds."""
    seconds: dict[str, float] = defaultdict(float)
    tokens: dict[str, int] = defaultdict(int)
    for artifact in {a.folder: a for a in run.artifacts}.values():
        who, kind = artifact.tags.get("model", ""), artifact.tags.get("kind", "")
        label = artifact.name.replace("_", " ")
        if kind in ("round", "model"):
            label = f"boosting rounds ({who})" if kind == "round" else f"fit {who.replace('_', ' ')}"
        elif kind == "reward_model":
            label = "reward models"
        elif "opinion" in kind or kind in ("texts", "member_texts"):
            label = "answers"
        manifest = artifact.manifest
        seconds[label] += manifest["seconds"]
        tokens[label] += manifest["facts"].get("tokens") or 0
    return tuple(Cost(label, seconds[label], tokens[label] or None) for label in seconds if seconds[label] >= 0.05)


def samples(run: Run, seed: int, used: int) -> tuple[Sample, ...]:
    """Questions of the transfer pool with every learner's answer and the label, some of each kind of outcome."""
    folder, rows, gold = labels_folder(run, seed), run.questions("transfer", seed), run.gold("transfer", seed)
    labels, count = read_arrays(folder / "labels.npz", PseudoLabels), run.config["evaluation"]["samples"]
    targets = {row.id: row for row in read_rows(folder / "targets.jsonl", Example)} if run.written else rows
    ids, best_N, kept_N = labels.ids.tolist(), labels.target_NK.argmax(1), labels.weight_N > 0
    choices = [targets[key].choices for key in ids]
    label_N = [texts[best] if texts else "" for texts, best in zip(choices, best_N, strict=True)]
    named = zip(ids, label_N, kept_N, strict=True)
    kind_N = np.array([looks_right(rows[key], label, gold[key], kept) for key, label, kept in named])
    rng = np.random.default_rng(0)  # the same questions in every report
    kinds, half = [rng.permutation(np.flatnonzero(kind_N == kind)) for kind in (False, True)], -(-count // 2)
    chosen = np.concatenate([*(some[:half] for some in kinds), *(some[half:] for some in kinds)])[:count].tolist()
    heard, shown = votes(run, seed, used), []
    for at in chosen:
        row, share, why = rows[ids[at]], labels.target_NK[at].max(), str(labels.why_N[at])
        label = cut(label_N[at]) if run.written else f"{label_N[at]} ({share:.2f})"
        why += f", share {share:.2f}" if run.written and len(choices[at]) > 1 else ""
        cast = tuple(Vote(f"learner {i + 1}", *said[row.id]) for i, said in enumerate(heard))
        shown.append(Sample(row.id, row.prompt, row.choices, cast, label, why, cut(answer_text(row, gold[row.id]))))
    return tuple(shown)


def looks_right(row: Example, label: str, answer: int | str, kept: bool) -> bool:
    """Whether a label is right (of programs, which are not run here: kept), so that both kinds are shown."""
    return kept if row.task == "code" else grade_answer(label, answer_text(row, answer))[0] is True


def votes(run: Run, seed: int, used: int) -> list[dict[str, tuple[str, float]]]:
    """The answer of each learner to each question of the transfer pool, and its probability."""

    def members(kind: str) -> list[Path]:
        return [a.path for a in run.find(kind, seed=seed) if a.tags["model"].startswith("committee ·")]

    opinions = [path for folder in members("member_opinion") if (path := folder / "transfer.npz").exists()]
    if not opinions:
        written = [read_texts(folder, "transfer") for folder in members("member_texts")[:used]]
        first = [{key: (row["texts"][0], row["logps"][0]) for key, row in texts.items()} for texts in written]
        return [{key: (cut(text), round(np.exp(logp), 3)) for key, (text, logp) in one.items()} for one in first]
    rows = run.questions("transfer", seed)
    for artifact in run.find("candidates", seed=seed, model="committee"):
        if (path := artifact.path / "transfer.jsonl").exists():
            rows = {row.id: row for row in read_rows(path, Example)}
    heard = []
    for opinion in (read_arrays(path, Predictions) for path in opinions[:used]):
        best = zip(opinion.ids.tolist(), opinion.probs_NK.argmax(1), opinion.probs_NK.max(1), strict=True)
        heard.append({key: (cut(rows[key].choices[at]), round(float(most), 3)) for key, at, most in best})
    return heard


def reproduce(run: Run) -> Reproduce:
    manifest = run.artifacts[-1].manifest
    tiers = [artifact.manifest["facts"].get("sandbox") for artifact in run.find("outcomes")]
    config, sandbox = (run.folder / "config.yaml").read_text(), ", ".join(sorted({str(one) for one in tiers if one}))
    learners = [learner for artifact in run.artifacts if (learner := artifact.manifest["section"].get("learner"))]
    precisions = {learner["model"]["path"]: learner["train"]["precision"] for learner in learners}
    return Reproduce(run.command, config, manifest["versions"], manifest["commit"] or "", sandbox, precisions)
