"""Mixtures of experts in one seed: what the student starts from, its dense controls, and the committee as one model."""

from w2s.config.fields import Learner
from w2s.stages import experts
from w2s.store.artifacts import Stage
from w2s.story.models import find_base, fit_student, upcycle
from w2s.story.teller import HOLDOUT, Committee, Form, Sets, Speaker, Teller


def fit_dense_students(teller: Teller, sets: Sets, form: Form, labels: Stage) -> None:
    """The student's model itself, trained on the same labels: for as many steps, and for as many that cost as much."""
    fit_student(teller, sets, form, "dense_student", labels, dense={})
    fit_student(teller, sets, form, "dense_at_cost", labels, dense={"sparse": upcycle(teller)["base"]})


def mix_learners(teller: Teller, sets: Sets, form: Form, committee: Committee) -> None:
    """The committee's learners as the experts of one model, and its answers."""
    config, learner = teller.config.experts, teller.config.learners[0]
    parents = {"committee": committee.voters, **committee.learners.rounds, "questions": sets.questions}
    parents |= find_base(teller, learner) if config.rest == "base" else {}
    if config.router == "weights":
        parents |= {"holdout": form.find_opinion(teller, sets, committee, HOLDOUT), "gold": sets.gold["easy"]}
    options = {"learner": Learner(learner.model), "router": config.router, "rest": config.rest, "seed": teller.seed}
    options |= {"active": config.active, "balance": config.balance}
    tags = {"kind": "model", "model": "experts"}
    model = teller.tell(experts.mixture, "the committee's learners as experts", parents, options, tags)
    form.ask(teller, sets, Speaker("experts", learner, model))
