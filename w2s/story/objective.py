"""The student as one seed tells it: from labels alone, or from labels and on by its objective."""

from __future__ import annotations

from typing import TYPE_CHECKING

from w2s.stages.objective import agreed_pairs as agreed
from w2s.stages.objective import optimise
from w2s.stages.reward_labels import TRANSFER
from w2s.store.artifacts import Stage
from w2s.store.records import BadInput
from w2s.story import rewards as rewarded
from w2s.story.written import is_written

if TYPE_CHECKING:
    from w2s.story.choices import Story

SFT = "sft_student"


def student(story: Story, labels: Stage) -> None:
    """`student`; with an objective other than sft it begins as `sft_student`, which has learned the labels."""
    config, objective = story.config, story.config.student.objective
    if objective["name"] == "sft":
        story.fit("student", story.student, labels, TRANSFER)
        return
    by_choice = not is_written(story.tools.rows(story.seed)[0])
    if by_choice and objective["name"] == "dpo" and story.student.model.prompt["name"] == "listed":
        # Its pairs would list the chosen text and the rejected one alone, the chosen one always first.
        raise BadInput("student.model.prompt: 'listed' given with dpo; a pair has not all of a question's choices")
    model = story.fit(SFT, story.student, labels, TRANSFER)
    how = {"objective": objective, "learner": story.student, "seed": story.seed}
    if objective["name"] == "dpo":
        parents = {"model": model, "pairs": agreed_pairs(story)}
    else:
        if by_choice:
            raise BadInput(
                f"student.objective: {objective['name']!r} given; allowed for questions with choices: sft, dpo "
                "(what the student would write is no choice)"
            )
        parents = {"model": model, "questions": story.questions, "scores": rewarded.scores(story)}
        parents |= rewarded.numbered("judge", rewarded.reward_models(story))
        how |= {
            "aggregate": config.rewards.aggregate,
            "standardised": config.rewards.standardise != "none",
            "writing": {"max_new_tokens": config.writing.max_new_tokens, "stop": config.writing.stop},
        }
    model = story.tell(
        optimise, f"student, {objective['name']}", parents, tags={"kind": "model", "model": "student"}, **how
    )
    story.ask("student", model=model)


def agreed_pairs(story: Story) -> Stage:
    """Pairs of the transfer pool's candidates that the committee and the reward models agree on."""
    candidates = story.candidates_of(TRANSFER)
    parents = {"opinion": story.opinion_on(TRANSFER), "scores": rewarded.scores(story)}
    parents |= {"candidates": candidates[TRANSFER]} if TRANSFER in candidates else candidates
    return story.tell(
        agreed, "pairs that committee and rewards agree on", parents, tags={"kind": "pairs"},
        aggregate=story.config.rewards.aggregate, standardised=story.config.rewards.standardise,
    )  # fmt: skip
