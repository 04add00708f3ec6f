"""From the folder of a run to its numbers and its report: `finish`, and `compare` for several runs.

`stages.json` lists the artifacts of the run; everything shown is read from them. metrics.json holds no times and no
paths, so a run that was killed and resumed has the same bytes as one that was not.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from w2s.boosting.diagnostics import heaviest_rows
from w2s.config.smoke import smoke
from w2s.evaluation.run import compare as comparison
from w2s.evaluation.run.contents import (
    Calibration,
    Cost,
    Dependence,
    HeavyRow,
    ReportData,
    Reproduce,
    Sample,
    SeedRounds,
    Step,
    Vote,
)
from w2s.evaluation.run.exports import write_exports
from w2s.evaluation.run.metrics import Answers, calibration_bins
from w2s.evaluation.run.pictures import LADDER
from w2s.evaluation.run.report import write_report
from w2s.evaluation.run.runs import (
    SUITE,
    Artifact,
    Findings,
    Run,
    answer_text,
    bins,
    finish_study,
    gold_of,
    measure_run,
    open_run,
    questions_of,
    read_texts,
    row_weights,
)
from w2s.evaluation.run.student import write_student
from w2s.evaluation.run.verdict import sentence, verdict
from w2s.evaluation.shown import below_chance, cut, hard_answers, training
from w2s.grading.judge import grade_answer
from w2s.store.records import Example, Metric, Predictions, PseudoLabels, Round, align, read_arrays, read_rows

SHOWN_BINS = 8
SYNTHETIC = "The questions are synthetic: they come from the embedded world, made up by a program."


def finish(folder: Path, *, again: bool = False) -> str:
    """metrics.json, the report, the exports and the student of a run; returns the verdict (see `finish_study`)."""
    return finish_study(folder, find_out, again=again)


def find_out(run: Run) -> Findings:
    """The results of `w2s run`, ready to be written."""
    answers, metrics = measure_run(run)
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
        found.append((report_data(run, answers, metrics), answers))
    names = "+".join(folder.name for folder in folders)
    if len(names) > 200:  # a file's name ends at 255 bytes
        names = f"{names[:200]}-{hashlib.sha256(names.encode()).hexdigest()[:8]}"
    out = out or folders[0].parent / "compare" / names
    comparison.compare(found, out)
    return out / "compare.html"


def report_data(run: Run, answers: Answers, metrics: Sequence[Metric]) -> ReportData:
    seed = run.seeds[0]
    config, hard = run.config, questions_of(run, seed, SUITE)
    doubts = [sentence(smoke(config["limit"]))] if config.get("limit") else []
    doubts += [SYNTHETIC] if any(row.meta.get("synthetic") for row in hard.values()) else []
    off = [name for name, on in config["controls"].items() if not on]
    voters = {s: read_committee(run, s) for s in run.seeds}
    notes = [f"seed {s}: {v['warning']}" for s, v in voters.items() if v["warning"]]
    notes += [
        f"seed {s}: no round beat its reference, so the first learner stands alone"
        for s, v in voters.items()
        if not any(one["alpha"] > 0 for one in v["rounds"])
    ]
    for suite in sorted({a.tags["suite"] for a in run.find("suite")}):
        repeated = sum(len(run.leaked[suite, s]) for s in run.seeds)
        if repeated:
            notes.append(f"questions of {suite} that repeat one trained on, left out of its numbers: {repeated:,}")
    notes += [f"seed {s}: {words}" for s in run.seeds for words in reward_notes(run, s)]
    notes += [words for s in run.seeds for words in below_chance(answers, s)]
    return ReportData(
        run=config["name"],
        suite=SUITE,
        written=run.written,
        metrics=tuple(metrics),
        synthetic=" ".join(doubts),
        flow=flow(run, voters),
        duplicates=duplicates(run),
        controls_off=tuple(off),
        rounds=tuple(
            SeedRounds(s, tuple(Round(**r) for r in v["rounds"]), tuple(v["accuracy_by_rounds"]), v["used"])
            for s, v in voters.items()
        ),
        dependence=dependence_of(voters[seed]),
        heaviest=heaviest(run, seed),
        difficulty_bins=bins(run)[0],
        difficulty_name=f"difficulty by {config['data']['difficulty']['name']}, easy to hard",
        calibration=tuple(
            Calibration(m, tuple(calibration_bins(answers[seed][m], SHOWN_BINS)))
            for m in LADDER
            if m in answers[seed] and answers[seed][m].opinion is not None
        ),
        costs=costs(run),
        answers=hard_answers(run, answers, seed),
        samples=samples(run, seed),
        training=training(run),
        reproduce=reproduce(run),
        notes=tuple(notes),
    )


def read_committee(run: Run, seed: int) -> dict[str, Any]:
    (artifact,) = run.find("committee", seed=seed, model="committee")
    return json.loads((artifact.path / "committee.json").read_text())


def reward_notes(run: Run, seed: int) -> list[str]:
    """How rewards were used, their accuracy on easy_holdout, how far members agree, and what they already know."""
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
            found.append(
                "the reward models begin as the student's base and learn from the easy gold: what they bring is to be "
                "measured against that base on the easy gold alone"
            )
    return found


def flow(run: Run, voters: Mapping[int, dict[str, Any]]) -> tuple[Step, ...]:
    """The boxes, with the first seed's counts."""
    seed = run.seeds[0]
    (questions,) = run.find("questions", seed=seed)
    facts = questions.manifest["facts"]
    labels = labels_of(run, seed)
    weight_N = read_arrays(labels.path / "labels.npz", PseudoLabels).weight_N
    kept = int((weight_N > 0).sum())
    rounds = voters[seed]
    return (
        Step("easy questions", f"{facts['easy_fit']:,}", "with gold"),
        Step("boosting", f"{len(rounds['rounds'])} rounds", rounds["stop"] or "all that were asked for"),
        Step("committee", f"{rounds['used']} learners", f"chosen on {facts['easy_holdout']:,} held-out easy questions"),
        Step("transfer pool", f"{facts['transfer']:,}", "hard, without gold"),
        Step("pseudo-labels", f"{kept:,} kept", f"{len(weight_N) - kept:,} dropped"),
        Step("student", run.config["student"]["model"]["path"], "trained on the pseudo-labels alone"),
        Step("hard test", f"{facts['hard_test']:,}", "held out"),
    )


def labels_of(run: Run, seed: int) -> Artifact:
    """The labels that the student learned from: the committee's, tilted by rewards where there are any."""
    return [*run.find("labels", seed=seed, model="rewarded"), *run.find("labels", seed=seed, model="committee")][0]


def duplicates(run: Run) -> dict[str, int]:
    """Questions removed from a split because another split holds a duplicate, over all seeds."""
    found: dict[str, int] = defaultdict(int)
    for artifact in run.find("questions"):
        for kind in ("exact", "near"):
            for where, count in artifact.manifest["facts"].get(f"removed_{kind}", {}).items():
                found[f"{kind}: {where}"] += count
    return dict(found)


def dependence_of(voters: dict[str, Any]) -> Dependence | None:
    phi = voters["error_correlation"]
    names = tuple(f"{at + 1}" for at in range(len(phi)))
    return Dependence(
        names,
        tuple(tuple(row) for row in phi),
        voters["effective_voters"],
        voters["effective_directions"],
        voters["warning"],
    )


def heaviest(run: Run, seed: int) -> tuple[HeavyRow, ...]:
    """The easy questions that weighed most, with their weight in each round."""
    rounds = [a for a in run.find("round", seed=seed, model="committee") if (a.path / "weights.npz").exists()]
    weights = [row_weights(a.path) for a in rounds]
    ids = weights[0].ids
    weight_RN = np.array([align(one, ids).weight_N for one in weights])
    rows, gold, found = questions_of(run, seed, "easy_fit"), gold_of(run, "easy", seed), []
    for key, weight_R in heaviest_rows(ids, weight_RN, top=8):
        alike = int(np.isclose(weight_RN * len(ids), weight_R[:, None]).all(0).sum())
        answer = cut(answer_text(rows[key], gold[key]))
        found.append(HeavyRow(key, rows[key].prompt, answer, tuple(weight_R.tolist()), seed, alike))
    return tuple(found)


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


def samples(run: Run, seed: int) -> tuple[Sample, ...]:
    """Questions of the transfer pool with every learner's answer and the label, some of each kind of outcome."""
    made = labels_of(run, seed)
    labels = read_arrays(made.path / "labels.npz", PseudoLabels)
    rows, gold = questions_of(run, seed, "transfer"), gold_of(run, "transfer", seed)
    targets = {row.id: row for row in read_rows(made.path / "targets.jsonl", Example)} if run.written else rows
    count, ids = run.config["evaluation"]["samples"], labels.ids.tolist()
    choices, best_N = [targets[key].choices for key in ids], labels.target_NK.argmax(1)
    label_N = [texts[best] if texts else "" for texts, best in zip(choices, best_N, strict=True)]
    kind_N = np.array(
        [
            looks_right(rows[key], label, gold[key], kept)
            for key, label, kept in zip(ids, label_N, labels.weight_N > 0, strict=True)
        ]
    )
    rng = np.random.default_rng(0)  # the same questions each time the report is written
    kinds, half = [rng.permutation(np.flatnonzero(kind_N == kind)) for kind in (False, True)], -(-count // 2)
    chosen = [*(some[:half] for some in kinds), *(some[half:] for some in kinds)]
    heard = votes(run, seed)
    found = []
    for at in np.concatenate(chosen)[:count].tolist():
        row, share, why = rows[ids[at]], labels.target_NK[at].max(), str(labels.why_N[at])
        label = cut(label_N[at]) if run.written else f"{label_N[at]} ({share:.2f})"
        why += f", share {share:.2f}" if run.written and len(choices[at]) > 1 else ""
        cast = tuple(Vote(f"learner {i + 1}", *said[row.id]) for i, said in enumerate(heard))
        found.append(Sample(row.id, row.prompt, row.choices, cast, label, why, cut(answer_text(row, gold[row.id]))))
    return tuple(found)


def looks_right(row: Example, label: str, answer: int | str, kept: bool) -> bool:
    """Whether a label is right, so that both kinds are shown; programs are not run here: whether it was kept."""
    if row.task == "code":
        return kept
    return grade_answer(label, answer_text(row, answer))[0] is True


def votes(run: Run, seed: int) -> list[dict[str, tuple[str, float]]]:
    """The answer of each learner to each question of the transfer pool, and its probability."""
    used, members = read_committee(run, seed)["used"], {}
    for kind in ("member_opinion", "member_texts"):
        members[kind] = [a for a in run.find(kind, seed=seed) if a.tags["model"].startswith("committee ·")]
    opinions = [a.path / "transfer.npz" for a in members["member_opinion"] if (a.path / "transfer.npz").exists()]
    if not opinions:
        texts = [read_texts(a.path / "transfer_texts.jsonl") for a in members["member_texts"][:used]]
        return [{key: (cut(said[0][0]), round(np.exp(said[0][1]), 3)) for key, said in one.items()} for one in texts]
    rows = questions_of(run, seed, "transfer")
    for made in run.find("candidates", seed=seed, model="committee"):
        if (made.path / "transfer.jsonl").exists():
            rows = {row.id: row for row in read_rows(made.path / "transfer.jsonl", Example)}
    found = []
    for opinion in (read_arrays(path, Predictions) for path in opinions[:used]):
        best = zip(opinion.ids.tolist(), opinion.probs_NK.argmax(1), opinion.probs_NK.max(1), strict=True)
        found.append({key: (cut(rows[key].choices[at]), round(float(most), 3)) for key, at, most in best})
    return found


def reproduce(run: Run) -> Reproduce:
    manifest = run.artifacts[-1].manifest
    tiers = [artifact.manifest["facts"].get("sandbox") for artifact in run.find("outcomes")]
    return Reproduce(
        command=run.command,
        config=(run.folder / "config.yaml").read_text(),
        versions=manifest["versions"],
        commit=manifest["commit"] or "",
        sandbox=", ".join(sorted({str(one) for one in tiers if one})),
    )
