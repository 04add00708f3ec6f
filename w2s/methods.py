"""Every table of methods, checked when the config is read and listed by `w2s methods`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from w2s.boosting.adaboost import BOOSTERS
from w2s.config import Config
from w2s.data.difficulty import DIFFICULTY
from w2s.data.sources import SOURCES
from w2s.ensemble.combiners import COMBINERS
from w2s.ensemble.dependence import ALPHAS
from w2s.ensemble.selection import SELECTORS
from w2s.prompts import PROMPTS
from w2s.records import BadInput
from w2s.registry import describe, did_you_mean, options, pick, summary
from w2s.stages.models import PRETRAINING


def tables() -> dict[str, dict[str, Callable]]:
    """Name -> table. Those of the models are imported here: torch takes a second."""
    from w2s.models.losses import LOSSES
    from w2s.models.pipelines import PIPELINES

    return {
        "sources": SOURCES,
        "difficulty": DIFFICULTY,
        "prompts": PROMPTS,
        "pipelines": PIPELINES,
        "losses": LOSSES,
        "boosters": BOOSTERS,
        "combiners": COMBINERS,
        "alphas": ALPHAS,
        "selectors": SELECTORS,
    }


def describe_methods(only: str | None) -> str:
    """A line for each method, and with one table its options as well."""
    found = tables()
    if only is not None and only not in found:
        raise BadInput(f"table: {only!r} is not known{did_you_mean(only, found)}; it can be: {', '.join(found)}")
    lines = []
    for table in [only] if only else found:
        lines.append(table)
        for name, method in found[table].items():
            lines.append(f"  {name:18} {summary(method)}")
            for option, parameter in options(method).items() if only else ():
                default = "needed" if parameter.default is parameter.empty else f"default {parameter.default}"
                lines.append(f"  {'':18}   {option}: {describe(parameter.annotation)} ({default})")
    return "\n".join(lines)


def check_methods(config: Config) -> None:
    """Every method name and option in the config, before anything runs; all problems at once."""
    found = tables()
    asked = [(SOURCES, spec, f"data.sources.{at}") for at, spec in enumerate(config.data.sources)]
    asked += [(SOURCES, spec, f"evaluation.suites.{at}") for at, spec in enumerate(config.evaluation.suites)]
    asked += [
        (DIFFICULTY, config.data.difficulty, "data.difficulty"),
        (BOOSTERS, config.boosting.booster, "boosting.booster"),
        (COMBINERS, config.label.combiner, "label.combiner"),
        (ALPHAS, config.label.alphas, "label.alphas"),
        (SELECTORS, config.label.select, "label.select"),
    ]
    for key, learner in [
        *((f"learners.{at}", one) for at, one in enumerate(config.learners)),
        ("student", config.student),
    ]:
        asked += [
            (PROMPTS, learner.model.prompt, f"{key}.model.prompt"),
            (found["losses"], learner.train.loss, f"{key}.train.loss"),
        ]
        if learner.model.pipeline:
            asked.append((found["pipelines"], learner.model.pipeline, f"{key}.model.pipeline"))
    problems = []
    for table, spec, key in asked:
        try:
            pick(table, spec, key=key)
        except BadInput as error:
            problems.append(str(error))
    if problems:
        raise BadInput("\n".join(problems))


def builtin_recipe(name: str) -> dict[str, Any]:
    """How builtin:`name` is pretrained."""
    if name not in PRETRAINING:
        known = ", ".join(f"builtin:{one}" for one in PRETRAINING)
        raise BadInput(f"model.path: 'builtin:{name}' is not known{did_you_mean(name, PRETRAINING)}; it can be: {known}")
    return PRETRAINING[name]
