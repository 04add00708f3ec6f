"""Checks of a config's methods, options and models, before anything runs."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from w2s.config.fields import Config, Learner, Model, Train
from w2s.config.load import all_learners
from w2s.config.registry import did_you_mean, pick
from w2s.config.smoke import smoke_steps
from w2s.config.tables import load_table
from w2s.config.values import leaves
from w2s.data.preferences import PREFERENCES
from w2s.models import backends, folders, objectives, sparse
from w2s.models.kinds import find_kind
from w2s.models.records import Network
from w2s.prompts import read_shots, shows_choices
from w2s.rewards.pairs import PAIRS
from w2s.rewards.tilt import accept
from w2s.stages.jobs import count_accelerators
from w2s.stages.models import PRETRAINING
from w2s.store.records import BadInput, Example

MARKED = ("max_tokens", "precision")
"""What a trained model's folder says of its training."""
VOCABULARY_LINES = 20_000
"""This many lines of a corpus contain all of its words."""


def check_methods(config: Config) -> None:
    """Check every method name and option in the config; BadInput lists all problems at once.

    Only the methods know their ranges, so those that are cheap to call are called once, on two made-up rows.
    """
    specs = list(method_specs(config))
    if config.label.reward.accept is not None:
        specs.append(("accept", {**config.label.reward.accept, "name": "accept"}, "label.reward.accept"))
    problems = []
    for table, spec, key in specs:
        try:
            method = pick(ACCEPT if table == "accept" else load_table(table), spec, key=key)
            if table in TRIALS:
                with_key(key, TRIALS[table], method)
        except BadInput as error:
            problems.append(str(error))
    problems += misfits(config) + mixture_checks(config) + merging_checks(config)
    for learner in config.rewards.models[:1]:
        problems += too_deep("rewards.layers", config.rewards.layers, learner.model, config.models.root)
    accelerators = None if config.runtime.hostfile else count_accelerators()
    for key, learner in all_learners(config).items():
        problems += unknown_model(f"{key}.model", learner.model, config.models.root)
        problems += backends.lacking(learner.model, accelerators, f"{key}.model")
        if not isinstance(find_kind(learner.model.kind), Network) and learner.train.loss != Train().loss:
            allowed = f"cross_entropy, as kind {learner.model.kind} has a loss of its own"
            problems.append(f"{key}.train.loss: {learner.train.loss} given; allowed: {allowed}")
        problems += unfit_words(f"{key}.model", learner.model, config.models.root)
        if key.startswith("rewards.") and shows_choices(learner.model.prompt):
            given = learner.model.prompt["name"]
            problems.append(f"{key}.model.prompt: {given!r} given; a pair lacks its question's other choices")
    if problems:
        raise BadInput("\n".join(problems))


def method_specs(config: Config) -> Iterator[tuple[str, dict[str, Any], str]]:
    """(table, {name, options}, key) of every method that the config names. `w2s rewards run` checks its own suites."""
    for leaf in leaves(config):
        if leaf.table is None or leaf.value is None or leaf.key.startswith("rewards.study."):
            continue
        if leaf.value == getattr(leaf.section(), leaf.name):  # defaults are valid, and some tables import slowly
            continue
        if isinstance(leaf.value, list):
            yield from ((leaf.table, spec, f"{leaf.key}.{at}") for at, spec in enumerate(leaf.value))
        else:
            yield leaf.table, leaf.value, leaf.key


def check_written(config: Config) -> None:
    """Check what questions without choices rule out; BadInput lists all problems at once."""
    learners = {f"learners.{at}": learner for at, learner in enumerate(config.learners)} | {"student": config.student}
    problems = [
        f"{key}.model.kind: {learner.model.kind!r} given; allowed for questions without choices: lm"
        for key, learner in learners.items()
        if learner.model.kind != "lm"
    ]
    votes = config.label.made in ("winner", "fused")
    allowed, first = "allowed: as for learners.0, or label.made: winner or fused", config.learners[0].model
    for at, model in enumerate(learner.model for learner in config.learners):
        for name in ("prompt", "shots"):
            given = getattr(model, name)
            if not votes and given != getattr(first, name):  # they mix token by token
                problems.append(f"learners.{at}.model.{name}: {given} given; {allowed}")
    if config.boosting.patience is not None:
        problems.append("boosting.patience: it needs questions with choices; allowed for others: null")
    if config.data.difficulty["name"] == "loss":
        problems.append("data.difficulty: 'loss' given; it needs questions with choices")
    if config.label.reward.use != "none" and config.label.made != "winner":
        problems.append(f"label.reward.use: {config.label.reward.use!r} given; written answers need label.made: winner")
    if config.label.temperature is None and config.label.made != "winner":
        allowed = "a number, or null with label.made: winner (texts have no distribution over candidates)"
        problems.append(f"label.temperature: null given; allowed for questions without choices: {allowed}")
    if config.label.teacher == "merged" and votes:
        words = "allowed with label.teacher: merged: decoded, distribution"
        problems.append(f"label.made: {config.label.made!r} given; {words}")
    if config.controls.experts and config.experts.router == "weights":
        words = "it needs questions with choices; allowed for others: zero, hidden"
        problems.append(f"experts.router: 'weights' given; {words}")
    if config.label.recorded:
        problems.append("label.recorded: it labels questions with choices; allowed for others: null")
    for key, learner in learners.items():
        if learner.train.loss != Train().loss:
            from w2s.models.losses import pick_loss

            try:
                pick_loss(learner.train.loss, "answer", key=f"{key}.train.loss")
            except BadInput as error:
                problems.append(str(error))
    if problems:
        raise BadInput("\n".join(problems))


def with_key(key: str, trial: Callable, method: Callable) -> None:
    """Run the trial; if it refuses an option, the message begins with the config's key."""
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
    """Try the options of a method of PAIRS; for preferences only the source's, as the rest would read files."""
    if method.func is PAIRS["preferences"]:
        pick(PREFERENCES, method.keywords["source"], key="source")
    else:
        method([Example(key, "trial", "choice", key, ("a", "b")) for key in IDS], np.eye(2))


def misfits(config: Config, learner: Learner | None = None, key: str = "student") -> list[str]:
    """Why the student (or `learner`) cannot be trained by its objective. A faulty objective is reported elsewhere."""
    try:
        objective = pick(objectives.OBJECTIVES, config.student.objective)()
    except BadInput:
        return []
    try:
        objectives.check(objective, learner or config.student, key)
    except BadInput as error:
        return [str(error)]
    return []


def mixture_checks(config: Config) -> list[str]:
    """Mixtures of experts that cannot be made of these models."""
    problems, mixture, root = [], config.experts, config.models.root
    if config.student.start == "upcycled":
        problems += unfit_experts("student.start: upcycled", "student.model", config.student.model, root)
        model = config.student.model
        if model.trainable == "lora" and model.lora_targets is None:
            words = "null given with student.start: upcycled; allowed: names such as [q_proj, v_proj]"
            problems.append(f"student.model.lora_targets: {words} (adapters leave out the experts and their routers)")
        if config.student.objective["name"] != "sft":
            words = f"{config.student.objective['name']!r} given with student.start: upcycled; allowed: sft"
            problems.append(f"student.objective: {words} (the others train without the load-balancing loss)")
        if mixture.active > mixture.count:
            problems.append(
                f"experts.active: {mixture.active} given; allowed: at most {mixture.count}, as experts.count"
            )
    elif config.controls.dense_student:
        problems.append("controls.dense_student: true given; it needs student.start: upcycled")
    if config.controls.experts:
        first = config.learners[0].model
        for at, model in enumerate(learner.model for learner in config.learners):
            problems += unfit_experts("controls.experts", f"learners.{at}.model", model, root)
            for name in ("path", "revision", "layers", "prompt", "shots", "normalise"):
                if getattr(model, name) != getattr(first, name):
                    words = f"{getattr(model, name)!r} given with controls.experts; allowed: as for learners.0"
                    problems.append(f"learners.{at}.model.{name}: {words}")
    return problems


def unfit_experts(wish: str, key: str, model: Model, root: str | None) -> list[str]:
    """Why models like this one cannot be experts of one model."""
    if model.kind != "lm":
        return [f"{key}.kind: {model.kind!r} given with {wish}; allowed: lm"]
    for name, allowed in (("quantise", "none"), ("revision", None)):
        if getattr(model, name) != allowed:
            return [f"{key}.{name}: {getattr(model, name)!r} given with {wish}; allowed: {allowed or 'null'}"]
    if folders.absent(model.path, root):  # told elsewhere
        return []
    return [f"{key}.path: {model.path}: {why}" for why in [sparse.unfit(model.path, root)] if why]


def merging_checks(config: Config) -> list[str]:
    """Learners that cannot be merged into one model, and uses that a merged model does not have."""
    label, student = config.label, config.student
    uses = {"label.teacher: merged": label.teacher == "merged", "student.start: merged": student.start == "merged"}
    wishes = [wish for wish, on in {**uses, "controls.merged": config.controls.merged}.items() if on]
    if not wishes:
        return []
    problems, first = unmergeable(config, wishes[0]), config.learners[0].model
    if label.teacher == "merged":
        if label.reward.use != "none":
            problems.append(f"label.reward.use: {label.reward.use!r} given; allowed with label.teacher: merged: none")
        if label.select["name"] == "agreement":
            problems.append("label.select: 'agreement' given; with label.teacher: merged one model votes, with itself")
    if student.start == "merged":
        for name in ("kind", "path", "revision", "layers"):
            given, allowed = getattr(student.model, name), getattr(first, name)
            if given != allowed:
                words = f"{given!r} given with student.start: merged; allowed: {allowed!r}, as the learners"
                problems.append(f"student.model.{name}: {words}")
    return [*problems, *merge_options(config)]


def unmergeable(config: Config, wish: str) -> list[str]:
    """Why the learners are not language models trained from the same weights."""
    problems, first, root = [], config.learners[0], config.models.root
    for at, learner in enumerate(config.learners):
        key, model = f"learners.{at}.model", learner.model
        if model.kind != "lm":
            why = "a head is drawn for each learner" if getattr(find_kind(model.kind), "head", False) else ""
            allowed = f"allowed: lm{why and f' ({why})'}"
            problems.append(f"{key}.kind: {model.kind!r} given with {wish}; {allowed}")
        elif not model.path.startswith("builtin:") and folders.locate(model.path, root) is None:
            allowed = "a model on this machine (models.root), as the learners' steps from it are needed"
            problems.append(f"{key}.path: {model.path!r} given with {wish}; allowed: {allowed}")
        elif is_drawn(model, root):
            problems.append(f"{key}.path: {model.path!r} given with {wish}; each learner draws its own weights there")
        if model.quantise != "none":
            problems.append(f"{key}.quantise: {model.quantise!r} given with {wish}; allowed: none")
        for part, names in (("model", [one.name for one in dataclasses.fields(Model)]), ("train", MARKED)):
            for name in names:
                given, allowed = (getattr(getattr(one, part), name) for one in (learner, first))
                if given != allowed:
                    words = f"{given!r} given with {wish}; allowed: {allowed!r}, as for learners.0"
                    problems.append(f"learners.{at}.{part}.{name}: {words}")
    return problems


def is_drawn(model: Model, root: str | None) -> bool:
    """Whether learners start from random weights of their own instead of trained ones."""
    name = model.path.removeprefix("builtin:")
    if name != model.path:
        return name in PRETRAINING and PRETRAINING[name]["steps"] == 0
    place = folders.locate(model.path, root)
    return bool(place and folders.read_marks(place).get("from_scratch"))


def merge_options(config: Config) -> list[str]:
    """A method, weights or a scale that this run cannot have."""
    problems, merging = [], config.merging
    name, rounds = merging.method["name"], config.boosting.rounds
    if name in ("fisher", "regmean"):
        problems.append(f"merging.method: {name!r} given; a run has none of the statistics that it needs")
    if name == "slerp" and rounds != 2:
        problems.append(f"merging.method: 'slerp' given with boosting.rounds: {rounds}; it takes 2 models")
    if merging.weights == "searched" and name != "mean":
        problems.append(f"merging.method: {name!r} given; allowed with merging.weights: searched: mean")
    if not isinstance(merging.weights, str):
        if len(merging.weights) != rounds:
            allowed = f"{rounds}, one for each of boosting.rounds"
            problems.append(f"merging.weights: {len(merging.weights)} numbers given; allowed: {allowed}")
        elif not merging.weights[0]:
            problems.append(
                "merging.weights.0: 0 given; allowed: above 0, as the committee may end with its first round"
            )
    return problems


def unknown_model(key: str, model: Model, root: str | None) -> list[str]:
    """An unknown builtin model, a folder or file without a model, or more layers than the model has."""
    if not find_kind(model.kind).has_base:
        return []
    name = model.path.removeprefix("builtin:")
    if name != model.path and name not in PRETRAINING:
        known = ", ".join(f"builtin:{recipe}" for recipe in PRETRAINING)
        return [f"{key}.path: {model.path!r} is not known{did_you_mean(name, PRETRAINING)}; it can be: {known}"]
    if why := folders.absent(model.path, root):
        return [f"{key}.path: {why}"]
    if place := folders.locate(model.path, root):
        folders.damage(str(place))
    return too_deep(f"{key}.layers", model.layers, model, root) + too_deep(f"{key}.top", model.top, model, root)


def unfit_words(key: str, model: Model, root: str | None) -> list[str]:
    """Solved examples, a normalisation or a chat that the model cannot have."""
    problems = []
    if not find_kind(model.kind).writes:
        for name, plain in (("shots", 0), ("normalise", "sum")):
            if getattr(model, name) != plain:
                problems.append(f"{key}.{name}: {getattr(model, name)!r} given; allowed for kind {model.kind}: {plain}")
    if isinstance(model.shots, list):
        try:
            read_shots(model.shots, f"{key}.shots")
        except BadInput as error:
            problems.append(str(error))
    if model.prompt.get("name") == "chat" and not folders.may_chat(model.path, root):
        problems.append(f"{key}.prompt: 'chat' given, but the tokenizer of {model.path} has no chat template")
    return problems


def too_deep(key: str, layers: int | None, model: Model, root: str | None) -> list[str]:
    """More layers than the model has, or than model.layers keeps."""
    if layers is None:
        return []
    most = min(folders.depth(model.path, root), model.layers or math.inf)
    if layers <= most:
        return []
    return [f"{key}: {layers} given; allowed: at most {most}, as {model.path} has"]


def builtin_recipe(name: str, limit: int | None = None) -> dict[str, Any]:
    """How builtin:`name` is pretrained; with a `limit`, for a few steps, like all training in a smoke run."""
    recipe = PRETRAINING[name]
    if not limit:
        return recipe
    return recipe | {"lines": min(recipe["lines"], VOCABULARY_LINES), "steps": smoke_steps(recipe["steps"])}
