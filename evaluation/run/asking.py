"""What a label costs: the committee, its learners merged into one model, its best learner and the student, asked the
same questions; and what the merge found."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from w2s.evaluation.run.contents import LabelCost
from w2s.evaluation.run.runs import SUITE, Artifact, Run
from w2s.evaluation.run.verdict import known
from w2s.store.records import Metric

ASKED = ("committee", "merged", "merged_uniform", "best_learner", "student")
BUMP = 0.05
"""Nats: a loss on the way that is higher than at both ends by less is no bump."""


def price_labels(run: Run, metrics: Sequence[Metric]) -> tuple[LabelCost, ...]:
    """A row for each model of a run with a merged one: the mean over the seeds whose jobs recorded their time."""
    if not run.find("merged"):
        return ()
    found = []
    for model in ASKED:
        prices = [price for seed in run.seeds if (price := price_asking(run, seed, model))]
        accuracy = known(metrics, SUITE, model, "accuracy")
        if prices and accuracy:
            passes, seconds = np.mean(prices, axis=0).tolist()
            gap = known(metrics, SUITE, model, "accuracy_minus_committee")
            found.append(LabelCost(model, passes, seconds, accuracy, gap))
    return tuple(found)


def price_asking(run: Run, seed: int, model: str) -> tuple[float, float] | None:
    """(models that read each question, seconds of their jobs per 1,000 questions); None if nothing recorded them."""
    asked = run.find("texts", seed=seed, model=model) or run.find("opinion", seed=seed, model=model)
    asked = [one for one in asked if one.manifest["section"].get("on", SUITE) == SUITE and is_own(one)]
    members = [one for one in asked if one.name == "combined"]
    if members:
        (committee,) = run.find("committee", seed=seed, model="committee")
        voters = json.loads((committee.path / "committee.json").read_text(encoding="utf-8"))
        at = [voters["best_learner"]] if model == "best_learner" else range(voters["used"])
        names = [f"committee · learner {index + 1}" for index in at]
        asked = [one for name in names for one in run.find("member_opinion", seed=seed, model=name) if is_own(one)]
    jobs = [job for one in asked for job in read_jobs(one)]
    return (float(sum(job[0] for job in jobs)), sum(job[1] for job in jobs)) if jobs else None


def is_own(artifact: Artifact) -> bool:
    """Whether an artifact is about the run's own questions, not those of a further suite."""
    section = artifact.manifest["section"]
    return SUITE in section.get("sets", [section.get("on", SUITE)])


def read_jobs(artifact: Artifact) -> Iterator[tuple[int, float]]:
    """(models, seconds per 1,000 questions) of each job that asked models in a stage."""
    for file in sorted(artifact.path.glob("**/done.json")):
        done, job = json.loads(file.read_text()), json.loads(file.with_name("job.json").read_text())
        rows = sum(done["rows"].values()) if isinstance(done["rows"], dict) else done["rows"]
        if rows:
            yield len(job.get("models", [0])), 1000 * done["seconds"] / rows


def describe_merges(run: Run) -> list[str]:
    """Sentences about each merge: how far the learners moved, how alike their steps are, and a bump on the way."""
    notes = []
    for artifact in run.find("merged", model="merged"):
        facts, who = artifact.manifest["facts"], f"seed {artifact.tags['seed']}: the merged learners"
        if "moved" in facts:
            ends = dict.fromkeys(f"{100 * share:.2g}" for share in (min(facts["moved"]), max(facts["moved"])))
            steps = f"moved by {' to '.join(ends)}% of their base"
            notes.append(f"{who} {steps}; mean cosine of their steps: {facts['cosine']:.2f}")
        notes += [f"{who}: {describe_search(facts)}"] if "gain" in facts else []
        notes += [f"{who}: {facts['warning']}"] if facts.get("warning") else []
    for artifact in run.find("barrier"):
        way = json.loads((artifact.path / "barrier.json").read_text(encoding="utf-8"))
        notes.append(f"seed {artifact.tags['seed']}: {describe_way(way)}")
    return notes


def describe_search(facts: dict[str, Any]) -> str:
    """What searched weights bring on the questions of the search, and on those that it never saw."""
    sides = (f"{facts[side]['start']:.3f} to {facts[side]['searched']:.3f}" for side in ("on_searched", "on_certified"))
    searched, certified = sides
    gain = f"{facts['gain']['mean']:+.3f} (standard error {facts['gain']['standard_error']:.3f})"
    words = f"searched weights take the right answers' log-probability from {searched} on the questions searched on"
    return f"{words}, and from {certified}, by {gain}, on others that the search never saw"


def describe_way(way: dict[str, Any]) -> str:
    """The loss from the base to the merged model, in words."""
    loss, share = way["loss"], way["at"]
    worst = int(np.argmax(loss))
    ends = f"from {loss[0]:.3g} at the base to {loss[-1]:.3g} at the merged model"
    words = f"the loss on held-out easy questions goes {ends}"
    bump = loss[worst] - max(loss[0], loss[-1])
    if bump > BUMP:
        return f"{words}, over a bump of {bump:.2g} at {share[worst]:g} of the way: the learners are not in one basin"
    return f"{words}, without a bump"
