"""The models of one seed: what they start from, their training on labels, their opinions and their texts."""

import dataclasses
from collections.abc import Callable
from typing import Any

from w2s.config.fields import Boosting, Config, Learner, Model, Train
from w2s.config.load import all_learners
from w2s.data.rows import draws_by_seed
from w2s.models.kinds import find_kind
from w2s.stages import Place, experts, models, writing
from w2s.store.artifacts import Stage
from w2s.store.hidden import hide
from w2s.story.checks import builtin_recipe
from w2s.story.teller import FIT, TEST, TRANSFER, UNSEEDED, Answers, Form, Sets, Speaker, Stages, Teller


def find_base(teller: Teller, learner: Learner) -> Stages:
    """The stage a learner starts from: a builtin model, or a local folder or file as it is now; none for a model of the
    hub."""
    path = learner.model.path
    scheme, _, name = path.partition(":")
    if not find_kind(learner.model.kind).has_base:
        return {}
    tags = {"seed": UNSEEDED, "kind": "base", "model": hide(path)}
    if scheme != "builtin":
        if path not in teller.tools.models:
            return {}
        place = teller.tools.models[path]
        work = models.dequantised if place.path.is_file() else models.local_model
        return {"base": teller.declare(work, f"base model {path}", {}, {"content": place.content}, tags)}
    sources = teller.config.data.sources
    world = teller.seed % next((spec.get("worlds", 2) for spec in sources if spec["name"] == "world"), 1)
    options = {"builtin": name, "world": world, "recipe": builtin_recipe(name, teller.config.limit)}
    return {"base": teller.declare(models.pretrain, f"world {world} · base model {name}", {}, options, tags)}


def find_places(config: Config) -> dict[str, Place]:
    """model.path -> where it is, for every model of the config that is read from this machine."""
    bases = [learner.model for learner in all_learners(config).values()]
    paths = {model.path for model in bases if find_kind(model.kind).has_base}
    places = {path: models.find_place(path, config.models.root) for path in sorted(paths)}
    return {path: place for path, place in places.items() if place}


def find_states(teller: Teller, learner: Learner, parents: Stages, suite: str = "", content: str = "") -> Stages:
    """The hidden states that the learner reads, if it reads any: of a suite, or of all questions of the run.

    Seeds with the same questions share them; a smoke run makes only those of its splits. parents: with the suite, or
    with the questions, unless their `content` (a hash) is given.
    """
    if not find_kind(learner.model.kind).reads_states:
        return {}
    options, base = {"learner": untrain(learner)}, find_base(teller, learner)
    title = f"hidden states of {learner.model.path} at layer {learner.model.layers or 'last'}"
    if suite:
        options, parents = {**options, "on": suite}, {suite: parents[suite], **base}
        return {
            "states": teller.declare(models.hidden_states, f"{title} · {suite}", parents, options, {"seed": UNSEEDED})
        }
    if teller.config.limit and not content:
        parents = {"questions": parents["questions"], **base}
        return {"states": teller.tell(models.hidden_states, title, parents, options)}
    options["content"] = content or parents["questions"].section["content"]
    if any(map(draws_by_seed, teller.config.data.sources)):
        return {"states": teller.tell(models.hidden_states, title, base, {**options, "seed": teller.seed})}
    return {"states": teller.declare(models.hidden_states, title, base, options, {"seed": UNSEEDED})}


def find_start(teller: Teller, sets: Sets, learner: Learner) -> Stages:
    """What a learner that answers questions starts from: its base and the solved examples that its prompts show."""
    return {**find_base(teller, learner), **find_shots(sets, learner)}


def find_shots(sets: Sets, learner: Learner) -> Stages:
    """The stage of the solved examples that the learner's prompts show, if they are drawn from the run's questions."""
    drawn = isinstance(learner.model.shots, int) and learner.model.shots > 0
    return {"shots": sets.shots} if drawn else {}


def untrain(learner: Learner) -> Learner:
    """The learner without training-only settings, which do not change its base's answers."""
    model = dataclasses.replace(learner.model, trainable=Model.trainable, top=Model.top, l2=Model.l2)
    model = dataclasses.replace(model, lora_rank=Model.lora_rank, lora_targets=Model.lora_targets)
    return Learner(model, Train(max_tokens=learner.train.max_tokens, precision=learner.train.precision))


def fit_learner(
    teller: Teller, sets: Sets, form: Form, name: str, labels: Stage, *, steps_of: Boosting | None = None
) -> Answers | None:
    """The first learner's answers after training on labels of easy_fit (for the steps of all these rounds)."""
    learner = teller.config.learners[0]
    model = fit(teller, sets, Speaker(name, learner), labels, FIT, steps_of)
    return form.ask(teller, sets, Speaker(name, learner, model), (TRANSFER, TEST))


def fit_student(
    teller: Teller,
    sets: Sets,
    form: Form,
    name: str,
    labels: Stage,
    *,
    split: str = TRANSFER,
    dense: Stages | None = None,
) -> Stage:
    """The student's start, trained on labels of a split, with its answers to the hard test and every further suite.

    dense: parents of a student that starts from its model itself where the others are upcycled.
    """
    student = Speaker(name, teller.student, is_student=True)
    model = fit(
        teller, sets, student, labels, split, start={**upcycle(teller), **teller.start} if dense is None else dense
    )
    form.ask(teller, sets, dataclasses.replace(student, model=model))
    return model


def upcycle(teller: Teller) -> Stages:
    """What students start from instead of their model, if anything: a mixture of experts that are its copies."""
    if teller.config.student.start != "upcycled":
        return {}
    mixture, learner = teller.config.experts, untrain(teller.student)
    options = {"learner": Learner(learner.model), "seed": teller.seed, "experts": mixture.count}
    options |= {"active": mixture.active, "balance": mixture.balance}
    title = f"{mixture.count} copies of {learner.model.path} as experts"
    return {"base": teller.tell(experts.upcycled, title, find_base(teller, learner), options, {"kind": "upcycled"})}


def fit(
    teller: Teller,
    sets: Sets,
    base: Speaker,
    labels: Stage,
    split: str,
    steps_of: Boosting | None = None,
    start: Stages | None = None,
) -> Stage:
    """The base, trained on labels of a split for the configured length, or the steps of all these rounds.

    start: further parents; its `base` replaces the learner's own.
    """
    parents = {"questions": sets.questions, "labels": labels, **find_start(teller, sets, base.learner)}
    parents |= start or {}
    parents |= find_states(teller, base.learner, parents)
    options = {"learner": base.learner, "seed": teller.seed, "split": split}
    options |= {"steps_of": steps_of, "is_student": base.is_student}
    return teller.tell(models.fit, base.name, parents, options, {"kind": "model", "model": base.name})


# --- opinions and texts ----------------------------------------------------------------------------------------------


def ask_about(
    teller: Teller, speaker: Speaker, title: str, parents: Stages, sets: tuple[str, ...], kind: str = "opinion"
) -> Stage:
    """A model's opinion on the candidates of some sets. kind: the tag of the stage."""
    learner = untrain(speaker.learner) if speaker.model is None else None
    parents = {**parents, **find_states(teller, speaker.learner, parents, sets[0] if sets[0] in parents else "")}
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
    parents = {"questions": sets.questions, **answers.stages, **answers.holdout}
    parents |= {"gold": sets.gold["easy"]} if answers.holdout else {}
    tags = {"kind": "labels", "model": "shuffled" if shuffled else answers.by}
    title = f"labels by {answers.by}{', shuffled' if shuffled else ''}"
    return teller.tell(work, title, parents, {**options, "seed": teller.seed, "shuffled": shuffled}, tags)
