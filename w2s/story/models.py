"""The models of one seed: what they start from, their training on labels, their opinions and their texts."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from w2s.config.fields import Learner, Model, Train
from w2s.data.rows import hash_folder
from w2s.models.kinds import find_kind
from w2s.stages import models, writing
from w2s.store.artifacts import Stage
from w2s.story.checks import builtin_recipe
from w2s.story.teller import FIT, TEST, TRANSFER, UNSEEDED, Answers, Form, Sets, Speaker, Stages, Teller


def find_base(teller: Teller, learner: Learner) -> Stages:
    """The stage a learner starts from: a builtin model, or a local folder as it is now; none for a hub name."""
    scheme, _, name = learner.model.path.partition(":")
    if not find_kind(learner.model.kind).is_network:
        return {}
    tags = {"seed": UNSEEDED}
    if scheme != "builtin":
        content = hash_folder(Path(learner.model.path))
        if not content:
            return {}
        title = f"base model {learner.model.path}"
        return {"base": teller.declare(models.local_model, title, {}, {"content": content}, tags)}
    sources = teller.config.data.sources
    world = teller.seed % next((spec.get("worlds", 2) for spec in sources if spec["name"] == "world"), 1)
    options = {"builtin": name, "world": world, "recipe": builtin_recipe(name, teller.config.limit)}
    return {"base": teller.declare(models.pretrain, f"world {world} · base model {name}", {}, options, tags)}


def find_start(teller: Teller, sets: Sets, learner: Learner) -> Stages:
    """What a learner that answers questions starts from: its base and the solved examples that its prompts show."""
    return {**find_base(teller, learner), **find_shots(sets, learner)}


def find_shots(sets: Sets, learner: Learner) -> Stages:
    """The stage of the solved examples that the learner's prompts show, if they are drawn from the run's questions."""
    drawn = isinstance(learner.model.shots, int) and learner.model.shots > 0
    return {"shots": sets.shots} if drawn else {}


def untrain(learner: Learner) -> Learner:
    """The learner without training-only settings, which do not change its base's answers."""
    model = dataclasses.replace(learner.model, trainable=Model.trainable, lora_rank=Model.lora_rank)
    return Learner(model, Train(max_tokens=learner.train.max_tokens))


def fit_learner(teller: Teller, sets: Sets, form: Form, name: str, labels: Stage, *, longer: int = 1) -> Answers | None:
    """The first learner's answers after training on labels of easy_fit (`longer` times as long)."""
    learner = teller.config.learners[0]
    model = fit(teller, sets, Speaker(name, learner), labels, FIT, longer)
    return form.ask(teller, sets, Speaker(name, learner, model), (TRANSFER, TEST))


def fit_student(teller: Teller, sets: Sets, form: Form, name: str, labels: Stage, *, split: str = TRANSFER) -> Stage:
    """The student's base, trained on labels of a split, with its answers to the hard test and every further suite."""
    student = Speaker(name, teller.student, is_student=True)
    model = fit(teller, sets, student, labels, split)
    form.ask(teller, sets, dataclasses.replace(student, model=model))
    return model


def fit(teller: Teller, sets: Sets, base: Speaker, labels: Stage, split: str, longer: int = 1) -> Stage:
    """The base, trained on labels of a split for `longer` times the configured length."""
    parents = {"questions": sets.questions, "labels": labels, **find_start(teller, sets, base.learner)}
    options = {"learner": base.learner, "seed": teller.seed, "split": split}
    options |= {"longer": longer, "is_student": base.is_student}
    return teller.tell(models.fit, base.name, parents, options, {"kind": "model", "model": base.name})


# --- opinions and texts ----------------------------------------------------------------------------------------------


def ask_about(
    teller: Teller, speaker: Speaker, title: str, parents: Stages, sets: tuple[str, ...], kind: str = "opinion"
) -> Stage:
    """A model's opinion on the candidates of some sets. kind: the tag of the stage."""
    learner = untrain(speaker.learner) if speaker.model is None else None
    options = {"by": speaker.name, "sets": sets, "learner": learner}
    return teller.tell(models.opinion, title, parents, options, {"kind": kind, "model": speaker.name})


def ask_suites(teller: Teller, sets: Sets, speaker: Speaker, origin: Stages, kind: str = "opinion") -> Stages:
    """Suite -> the opinion on its choices, each its own stage: a further suite adds stages and changes none."""
    return {
        name: ask_about(teller, speaker, f"{speaker.name} answers {name}", {name: suite, **origin}, (name,), kind)
        for name, suite in sets.suites.items()
    }


def write_suites(teller: Teller, sets: Sets, name: str, origin: Stages, options: dict[str, Any]) -> None:
    """The texts of a language model (or a committee) for further suites, judged. options: learner and who writes."""
    evaluation = teller.config.evaluation
    options = {"samples": evaluation.programs, "temperature": evaluation.temperature, **options}
    for on, (suite, gold) in sets.written_suites.items():
        texts = write_texts(teller, name, on, {on: suite, **origin}, options, evaluation.max_new_tokens)
        judge(teller, name, on, {"texts": texts, on: suite, "gold": gold})


def write_texts(
    teller: Teller, name: str, on: str, parents: Stages, options: dict[str, Any], max_tokens: int, kind: str = "texts"
) -> Stage:
    """The texts of a model or a committee for a set. kind: the tag of the stage."""
    config = teller.config.writing
    how = {"max_new_tokens": max_tokens, "stop": config.stop, "mixture": config.mixture, "mix": config.mix}
    options = {"on": on, "writing": how, "seed": teller.seed, **options}
    title = f"{name} {'samples' if kind == 'samples' else 'writes'} {on}"
    return teller.tell(writing.texts, title, parents, options, {"kind": kind, "model": name})


def judge(teller: Teller, name: str, on: str, parents: Stages) -> None:
    """Judge texts as right or wrong. Nothing that is trained descends from this."""
    tags = {"kind": "outcomes", "model": name, "suite": on}
    teller.tell(writing.judged, f"{name} judged on {on}", parents, {"by": name, "on": on}, tags)


def tell_labels(
    teller: Teller, sets: Sets, work: Callable, answers: Answers, options: dict[str, Any], shuffled: bool
) -> Stage:
    """Pseudo-labels for the transfer pool, made from answers by `work`."""
    parents = {"questions": sets.questions, **answers.stages}
    tags = {"kind": "labels", "model": "shuffled" if shuffled else answers.by}
    title = f"labels by {answers.by}{', shuffled' if shuffled else ''}"
    return teller.tell(work, title, parents, {**options, "seed": teller.seed, "shuffled": shuffled}, tags)
