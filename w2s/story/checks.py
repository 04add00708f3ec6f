"""Every table of methods, checked when the config is read and listed by `w2s methods`."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from w2s.boosting.adaboost import BOOSTERS
from w2s.config.fields import Config, Learner, Model, Train
from w2s.config.load import all_learners
from w2s.config.registry import describe, did_you_mean, options, pick, summary
from w2s.config.smoke import smoke_steps
from w2s.data.difficulty import DIFFICULTY
from w2s.data.preferences import PREFERENCES
from w2s.data.sources import SOURCES
from w2s.ensemble.alphas import ALPHAS
from w2s.ensemble.combiners import COMBINERS
from w2s.ensemble.selection import SELECTORS
from w2s.models import folders, objectives
from w2s.prompts import PROMPTS
from w2s.rewards.aggregators import AGGREGATORS
from w2s.rewards.pairs import PAIRS
from w2s.rewards.tilt import accept
from w2s.stages.models import PRETRAINING
from w2s.store.records import BadInput, Example

VOCABULARY_LINES = 20_000
"""Lines of a corpus that have all of its words."""


def table(name: str) -> dict[str, Callable]:
    """A table by name. Those that bring torch or scikit-learn with them are imported only when they are asked for."""
    if name == "combine":
        from w2s.pools.methods import METHODS

        return METHODS
    if name == "losses":
        from w2s.models.losses import LOSSES

        return LOSSES
    if name == "pipelines":
        from w2s.models.pipelines import PIPELINES

        return PIPELINES
    return TABLES[name]


TABLES = {
    "sources": SOURCES,
    "difficulty": DIFFICULTY,
    "prompts": PROMPTS,
    "boosters": BOOSTERS,
    "combiners": COMBINERS,
    "alphas": ALPHAS,
    "selectors": SELECTORS,
    "pairs": PAIRS,
    "preferences": PREFERENCES,
    "aggregators": AGGREGATORS,
    "objectives": objectives.OBJECTIVES,
    "combine": None,
    "losses": None,
    "pipelines": None,
}


def describe_methods(only: str | None) -> str:
    """A line for each method, and with one table its options as well."""
    if only is not None and only not in TABLES:
        raise BadInput(f"table: {only!r} is not known{did_you_mean(only, TABLES)}; it can be: {', '.join(TABLES)}")
    lines = []
    for title in [only] if only else TABLES:
        lines.append(title)
        for name, method in table(title).items():
            lines.append(f"  {name:18} {summary(method)}")
            for option, parameter in options(method).items() if only else ():
                default = "needed" if parameter.default is parameter.empty else f"default {parameter.default}"
                lines.append(f"  {'':18}   {option}: {describe(parameter.annotation)} ({default})")
    return "\n".join(lines)


def check_methods(config: Config) -> None:
    """Every method name and option in the config, before anything runs; all problems at once.

    Ranges are the methods' own to know, so those that are cheap to call are called once, on two made-up rows.
    """
    asked = [("sources", spec, f"data.sources.{at}") for at, spec in enumerate(config.data.sources)]
    asked += [("sources", spec, f"evaluation.suites.{at}") for at, spec in enumerate(config.evaluation.suites)]
    asked += [
        ("difficulty", config.data.difficulty, "data.difficulty"),
        ("boosters", config.boosting.booster, "boosting.booster"),
        ("combiners", config.label.combiner, "label.combiner"),
        ("alphas", config.label.alphas, "label.alphas"),
        ("selectors", config.label.select, "label.select"),
        ("pairs", config.rewards.pairs, "rewards.pairs"),
        ("aggregators", config.rewards.aggregate, "rewards.aggregate"),
        ("objectives", config.student.objective, "student.objective"),
    ]
    if config.label.reward.accept is not None:
        asked.append(("accept", {**config.label.reward.accept, "name": "accept"}, "label.reward.accept"))
    learners = all_learners(config)
    for key, learner in learners.items():
        asked.append(("prompts", learner.model.prompt, f"{key}.model.prompt"))
        if learner.train.loss != Train().loss:
            asked.append(("losses", learner.train.loss, f"{key}.train.loss"))
        if learner.model.pipeline:
            asked.append(("pipelines", learner.model.pipeline, f"{key}.model.pipeline"))
    problems = []
    for name, spec, key in asked:
        try:
            method = pick(ACCEPT if name == "accept" else table(name), spec, key=key)
            if name in TRIALS:
                with_key(key, TRIALS[name], method)
        except BadInput as error:
            problems.append(str(error))
    problems += misfits(config)
    for one in config.rewards.models[:1]:
        problems += too_deep("rewards.layers", config.rewards.layers, one.model)
    for key, learner in learners.items():
        problems += unknown_model(f"{key}.model", learner.model)
        if key.startswith("rewards.") and learner.model.prompt["name"] == "listed":
            problems.append(f"{key}.model.prompt: 'listed' given; a pair has not all of a question's choices")
    if problems:
        raise BadInput("\n".join(problems))


def check_written(config: Config) -> None:
    """What questions without choices rule out; all problems at once."""
    learners = {f"learners.{at}": one for at, one in enumerate(config.learners)} | {"student": config.student}
    problems = [
        f"{key}.model.kind: {one.model.kind!r} given; allowed for questions without choices: lm"
        for key, one in learners.items()
        if one.model.kind != "lm"
    ]
    if config.label.made != "winner":  # learners that write together are asked in the same words
        problems += [
            f"learners.{at}.model.prompt: {one.model.prompt} given; allowed: that of learners.0, or label.made: winner"
            for at, one in enumerate(config.learners)
            if one.model.prompt != config.learners[0].model.prompt
        ]
    if config.boosting.patience is not None:
        problems.append("boosting.patience: it watches questions with choices; allowed for others: null")
    if config.data.difficulty["name"] == "loss":
        problems.append("data.difficulty: 'loss' given; it needs questions with choices")
    if config.label.reward.use != "none" and config.label.made != "winner":
        problems.append(f"label.reward.use: {config.label.reward.use!r} given; written answers need label.made: winner")
    if config.label.recorded:
        problems.append("label.recorded: it labels questions with choices; allowed for others: null")
    for key, one in learners.items():
        if one.train.loss != Train().loss:
            from w2s.models.losses import pick_loss

            try:
                pick_loss(one.train.loss, "answer", key=f"{key}.train.loss")
            except BadInput as error:
                problems.append(str(error))
    if problems:
        raise BadInput("\n".join(problems))


def with_key(key: str, trial: Callable, method: Callable) -> None:
    """The trial; where it refuses an option, the message begins with the config's key."""
    try:
        trial(method)
    except BadInput as error:
        raise BadInput(f"{key}.{error}") from None


IDS = np.array(["a", "b"])
PROBS_RNK = np.array([[[0.6, 0.4], [0.3, 0.7]]])
MASK_NK = np.ones((2, 2), dtype=bool)
TRIALS: dict[str, Callable] = {
    "boosters": lambda method: method(0.3, 0.5, 0.4),
    "combiners": lambda method: method(PROBS_RNK, MASK_NK, np.ones(1), None),
    "selectors": lambda method: method(IDS, PROBS_RNK[0], MASK_NK, PROBS_RNK, IDS),
    "pairs": lambda method: try_pairs(method),
    "aggregators": lambda method: method(PROBS_RNK, MASK_NK),
    "objectives": lambda method: method(),
    "accept": lambda method: method(PROBS_RNK[0], MASK_NK, PROBS_RNK[0]),
}
ACCEPT = {"accept": accept}


def try_pairs(method: functools.partial) -> None:
    """The options of a method of PAIRS; of preferences, which would be read, those of the source."""
    if method.func is PAIRS["preferences"]:
        pick(PREFERENCES, method.keywords["source"], key="source")
    else:
        method([Example(key, "trial", "choice", key, ("a", "b")) for key in IDS], np.eye(2))


def misfits(config: Config, learner: Learner | None = None, key: str = "student") -> list[str]:
    """Where the student (or `learner`) cannot be trained by its objective; what is wrong in that is told elsewhere."""
    try:
        objective = pick(objectives.OBJECTIVES, config.student.objective)()
    except BadInput:
        return []
    try:
        objectives.check(objective, learner or config.student, key)
    except BadInput as error:
        return [str(error)]
    return []


def unknown_model(key: str, model: Model) -> list[str]:
    """A builtin model that there is not, a folder without a model, or more layers than it has."""
    if model.kind == "sklearn":
        return []
    name = model.path.removeprefix("builtin:")
    if name != model.path and name not in PRETRAINING:
        known = ", ".join(f"builtin:{one}" for one in PRETRAINING)
        return [f"{key}.path: {model.path!r} is not known{did_you_mean(name, PRETRAINING)}; it can be: {known}"]
    if why := folders.absent(model.path):
        return [f"{key}.path: {why}"]
    folders.damage(model.path)
    return too_deep(f"{key}.layers", model.layers, model)


def too_deep(key: str, layers: int | None, model: Model) -> list[str]:
    """More layers than the model has, or than are left of it."""
    most = min(folders.depth(model.path), model.layers or math.inf)
    if layers is None or layers <= most:
        return []
    return [f"{key}: {layers} given; allowed: at most {most}, as {model.path} has"]


def builtin_recipe(name: str, limit: int | None = None) -> dict[str, Any]:
    """How builtin:`name` is pretrained; with a `limit`, as in any smoke run, for a few steps."""
    recipe = PRETRAINING[name]
    if not limit:
        return recipe
    return recipe | {"lines": min(recipe["lines"], VOCABULARY_LINES), "steps": smoke_steps(recipe["steps"])}
