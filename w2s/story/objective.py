"""The student of one seed: trained on labels alone, or on labels and then by its objective."""

from w2s.config.fields import Config
from w2s.prompts import shows_choices
from w2s.stages import objective as objectives
from w2s.store.artifacts import Stage
from w2s.store.records import BadInput
from w2s.story import choices
from w2s.story.models import find_shots, fit_student
from w2s.story.rewards import Scored, as_candidates
from w2s.story.teller import TRANSFER, Committee, Form, Sets, Speaker, Teller, number

SFT = "sft_student"


def train_student(
    teller: Teller, sets: Sets, form: Form, labels: Stage, committee: Committee, scored: Scored | None
) -> None:
    """`student`; with an objective other than sft it starts from `sft_student`, which learned from the labels."""
    config, objective = teller.config, teller.config.student.objective
    if objective["name"] == "sft":
        fit_student(teller, sets, form, "student", labels)
        return
    check_objective(config, form)
    parents = {"model": fit_student(teller, sets, form, SFT, labels), **find_shots(sets, teller.student)}
    options = {"objective": objective, "learner": teller.student, "seed": teller.seed}
    if objective["name"] == "dpo":
        parents |= {"pairs": agree_on_pairs(teller, sets, form, committee, scored)}
    else:
        parents |= {"questions": sets.questions, "scores": scored.scores, **number("judge", scored.models)}
        options |= choose_reward(config)
    tags = {"kind": "model", "model": "student"}
    model = teller.tell(objectives.optimise, f"student, {objective['name']}", parents, options, tags)
    form.ask(teller, sets, Speaker("student", teller.student, model, is_student=True))


def check_objective(config: Config, form: Form) -> None:
    """BadInput for objectives that questions with choices rule out."""
    if form is not choices:
        return
    name = config.student.objective["name"]
    model = config.student.model
    if name == "dpo" and shows_choices(model.prompt):
        # Its pairs would list only the chosen text and the rejected one, the chosen one always first.
        given = model.prompt["name"]
        raise BadInput(f"student.model.prompt: {given!r} given with dpo; a pair lacks its question's other choices")
    if name == "dpo" and model.normalise != "sum":
        raise BadInput(f"student.model.normalise: {model.normalise!r} given; allowed with dpo: sum, as its loss has it")
    if name != "dpo":
        allowed = "allowed for questions with choices: sft, dpo (a text by the student is not a choice)"
        raise BadInput(f"student.objective: {name!r} given; {allowed}")


def choose_reward(config: Config) -> dict:
    """How the reward models' scores become one reward, and how the student writes the scored texts."""
    return {
        "aggregate": config.rewards.aggregate,
        "standardised": config.rewards.standardise != "none",
        "writing": {"max_new_tokens": config.writing.max_new_tokens, "stop": config.writing.stop},
    }


def agree_on_pairs(teller: Teller, sets: Sets, form: Form, committee: Committee, scored: Scored) -> Stage:
    """Pairs of the transfer pool's candidates that the committee and the reward models agree on."""
    parents = {"opinion": form.find_opinion(teller, sets, committee, TRANSFER), "scores": scored.scores}
    parents |= as_candidates(form.find_candidates(teller, sets, committee, TRANSFER))
    options = {"aggregate": teller.config.rewards.aggregate, "standardised": teller.config.rewards.standardise}
    title = "pairs that committee and rewards agree on"
    return teller.tell(objectives.agreed_pairs, title, parents, options, {"kind": "pairs"})
