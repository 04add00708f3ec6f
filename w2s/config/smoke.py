"""Smoke runs: of every set a few questions and of every training a few steps, marked as such wherever they are told."""

from __future__ import annotations

import dataclasses
from typing import Any

from w2s.config.fields import Config

SMOKE_STEPS = 100


def limited(config: Config) -> Config:
    """With `limit`, a smoke run's: no training takes more than SMOKE_STEPS, and the name says so.

    Trainings that are counted in epochs shrink with their sets.
    """
    if not config.limit:
        return config

    def smoked(one: Any) -> Any:
        return dataclasses.replace(one, train=dataclasses.replace(one.train, steps=smoke_steps(one.train.steps)))

    student, rewards = smoked(config.student), config.rewards
    objective = {key: smoke_steps(value) if key == "steps" else value for key, value in student.objective.items()}
    return dataclasses.replace(
        config,
        name=config.name.removesuffix(f"-limit-{config.limit}") + f"-limit-{config.limit}",
        learners=[smoked(one) for one in config.learners],
        student=dataclasses.replace(student, objective=objective),
        rewards=dataclasses.replace(
            rewards, models=[smoked(one) for one in rewards.models], head_steps=smoke_steps(rewards.head_steps)
        ),
    )


def smoke_steps(steps: Any) -> Any:
    return min(steps, SMOKE_STEPS) if isinstance(steps, int) else steps


def smoke(limit: int | None) -> str:
    """What marks a smoke run wherever it is told; nothing for a whole run."""
    if not limit:
        return ""
    return (
        f"smoke run: of every set the first {limit:,} questions by id, no training longer than {SMOKE_STEPS} steps; "
        "its numbers show only that everything runs"
    )
