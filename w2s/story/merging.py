"""Merging in one seed: the committee's learners as one model, which answers, and labels or is where students start."""

from typing import Any

from w2s.stages import merging
from w2s.store.artifacts import Stage
from w2s.story.models import find_start, untrain
from w2s.story.questions import label_by_gold
from w2s.story.teller import HOLDOUT, TEST, TRANSFER, Answers, Committee, Form, Sets, Speaker, Stages, Teller

MERGED = "merged"


def merge(teller: Teller, sets: Sets, committee: Committee, name: str = MERGED, weights: str | None = None) -> Stage:
    """The committee's learners as one model. weights: instead of merging.weights."""
    config, (parents, options) = teller.config.merging, describe(teller, sets, committee)
    weights = weights or config.weights
    options |= {"weights": weights, "scale": config.scale}
    if weights == "searched":
        parents |= hold_out(teller, sets)
        options |= {"evaluations": config.evaluations}
    return teller.tell(merging.merged, f"{name} learners", parents, options, {"kind": "merged", "model": name})


def describe(teller: Teller, sets: Sets, committee: Committee) -> tuple[dict[str, Stage], dict[str, Any]]:
    """The parents and options of every stage that merges."""
    learner = teller.config.learners[0]
    parents = {"committee": committee.voters, **committee.learners.rounds, **find_start(teller, sets, learner)}
    return parents, {"learner": untrain(learner), "method": teller.config.merging.method, "seed": teller.seed}


def ask_merged(teller: Teller, sets: Sets, form: Form, committee: Committee) -> Answers | None:
    """The merged model's answers, if it labels or is a control; as a control also those of the learners' plain mean,
    and what lies on the way from the base."""
    config, learner = teller.config, teller.config.learners[0]
    labels = config.label.teacher == MERGED
    if not labels and not config.controls.merged:
        return None
    splits = (TRANSFER, TEST) if labels else (TEST,)
    splits += (HOLDOUT,) if labels and teller.fits_temperature else ()
    answers = form.ask(teller, sets, Speaker(MERGED, learner, merge(teller, sets, committee)), splits)
    if config.controls.merged:
        name = "merged_uniform"
        form.ask(teller, sets, Speaker(name, learner, merge(teller, sets, committee, name, "uniform")))
        look_on_the_way(teller, sets, committee)
    return answers


def hold_out(teller: Teller, sets: Sets) -> Stages:
    """The questions, and the gold of easy_holdout as targets."""
    return {"questions": sets.questions, "holdout": label_by_gold(teller, sets, HOLDOUT)}


def look_on_the_way(teller: Teller, sets: Sets, committee: Committee) -> None:
    """The loss on easy_holdout along the line from the base to the merged model."""
    parents, options = describe(teller, sets, committee)
    parents |= {"merged": merge(teller, sets, committee), **hold_out(teller, sets)}
    tags = {"kind": "barrier", "model": MERGED}
    teller.tell(merging.barrier, "from the base to the merged learners", parents, options, tags)
