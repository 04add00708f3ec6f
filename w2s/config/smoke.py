"""Smoke runs: a few questions of every set and a few steps of every training, marked wherever they are shown."""

import dataclasses
from typing import Any

from w2s.config.fields import Config, Learner

SMOKE_STEPS = 100


def shrink(config: Config) -> Config:
    """With `limit`, the config of a smoke run: no training takes more than SMOKE_STEPS, and the name says so.

    Training counted in epochs shrinks with its dataset.
    """
    if not config.limit:
        return config
    student, rewards = shrink_training(config.student), config.rewards
    objective = {key: smoke_steps(value) if key == "steps" else value for key, value in student.objective.items()}
    models = [shrink_training(learner) for learner in rewards.models]
    return dataclasses.replace(
        config,
        name=config.name.removesuffix(f"-limit-{config.limit}") + f"-limit-{config.limit}",
        learners=[shrink_training(learner) for learner in config.learners],
        student=dataclasses.replace(student, objective=objective),
        rewards=dataclasses.replace(rewards, models=models, head_steps=smoke_steps(rewards.head_steps)),
    )


def shrink_training(learner: Learner) -> Learner:
    return dataclasses.replace(
        learner, train=dataclasses.replace(learner.train, steps=smoke_steps(learner.train.steps))
    )


def smoke_steps(steps: Any) -> Any:
    return min(steps, SMOKE_STEPS) if isinstance(steps, int) else steps


def smoke(limit: int | None) -> str:
    """The line that marks a smoke run; '' for a full run."""
    if not limit:
        return ""
    return (
        f"smoke run: the first {limit:,} questions by id of every set, no training longer than {SMOKE_STEPS} steps; "
        "its numbers show only that everything runs"
    )
