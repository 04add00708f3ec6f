"""Models as one seed tells them: what they start from, their training on labels, and what they write for a suite."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from w2s.config.fields import Learner, Model, Train
from w2s.data.rows import hash_folder
from w2s.models.kinds import find_kind
from w2s.stages import models, writing
from w2s.store.artifacts import Stage
from w2s.story.checks import builtin_recipe
from w2s.story.teller import FIT, TEST, TRANSFER, UNSEEDED, Fitted, Form, Sets, Speaker, Teller


def find_base(teller: Teller, learner: Learner) -> dict[str, Stage]:
    """What a learner starts from: a builtin model, or a local folder as it is now; for a hub name, nothing."""
    scheme, _, name = learner.model.path.partition(":")
    if not find_kind(learner.model.kind).is_network:
        return {}
    tags = {"seed": UNSEEDED}
    if scheme != "builtin":
        content = hash_folder(Path(learner.model.path))
        if not content:
            return {}
        title = f"base model {learner.model.path}"
        return {"base": teller.declare(models.local_model, title, parents={}, options={"content": content}, tags=tags)}
    sources = teller.config.data.sources
    world = teller.seed % next((spec.get("worlds", 2) for spec in sources if spec["name"] == "world"), 1)
    options = {"builtin": name, "world": world, "recipe": builtin_recipe(name, teller.config.limit)}
    title = f"world {world} · base model {name}"
    return {"base": teller.declare(models.pretrain, title, parents={}, options=options, tags=tags)}


def untrain(learner: Learner) -> Learner:
    """The learner without what only its training depends on: its base answers the same."""
    model = dataclasses.replace(learner.model, trainable=Model.trainable, lora_rank=Model.lora_rank)
    return Learner(model, Train(max_tokens=learner.train.max_tokens))


def fit_learner(teller: Teller, sets: Sets, form: Form, name: str, labels: Stage, *, longer: int = 1) -> Fitted:
    """The first learner, trained on labels of easy_fit (`longer` times as long) and asked about every set."""
    learner = teller.config.learners[0]
    options = {"learner": learner, "split": FIT, "longer": longer, "is_student": False}
    model = fit(teller, sets, name, labels, options)
    return Fitted(model, form.ask(teller, sets, Speaker(name, learner, model), (TRANSFER, TEST)))


def fit_student(teller: Teller, sets: Sets, form: Form, name: str, labels: Stage, *, split: str = TRANSFER) -> Fitted:
    """The student's base, trained on labels of a split and asked about the hard test and every further suite."""
    options = {"learner": teller.student, "split": split, "longer": 1, "is_student": True}
    model = fit(teller, sets, name, labels, options)
    return Fitted(model, form.ask(teller, sets, Speaker(name, teller.student, model, is_student=True)))


def fit(teller: Teller, sets: Sets, name: str, labels: Stage, options: Mapping[str, Any]) -> Stage:
    return teller.tell(
        models.fit,
        name,
        parents={"questions": sets.questions, "labels": labels, **find_base(teller, options["learner"])},
        options={"seed": teller.seed, **options},
        tags={"kind": "model", "model": name},
    )


# --- further suites --------------------------------------------------------------------------------------------------


def ask_suites(
    teller: Teller, sets: Sets, speaker: Speaker, origin: Mapping[str, Stage], kind: str = "opinion"
) -> dict[str, Stage]:
    """Suite -> the opinion on its choices, each a stage of its own: a further suite adds stages and changes none."""
    learner = untrain(speaker.learner) if speaker.model is None else None
    return {
        name: teller.tell(
            models.opinion,
            f"{speaker.name} answers {name}",
            parents={name: suite, **origin},
            options={"by": speaker.name, "sets": (name,), "learner": learner},
            tags={"kind": kind, "model": speaker.name},
        )
        for name, suite in sets.suites.items()
    }


def write_suites(
    teller: Teller, sets: Sets, name: str, origin: Mapping[str, Stage], options: Mapping[str, Any]
) -> None:
    """What a language model (or a committee) writes for further suites, judged. options: learner and who writes."""
    evaluation = teller.config.evaluation
    sampling = {"samples": evaluation.programs, "temperature": evaluation.temperature}
    for on, (suite, gold) in sets.written_suites.items():
        texts = teller.tell(
            writing.texts,
            f"{name} writes {on}",
            parents={on: suite, **origin},
            options={
                "on": on,
                "writing": choose_writing(teller, evaluation.max_new_tokens),
                "seed": teller.seed,
                **sampling,
                **options,
            },
            tags={"kind": "texts", "model": name},
        )
        judge_texts(teller, name, on, {"texts": texts, on: suite, "gold": gold})


def choose_writing(teller: Teller, max_new_tokens: int) -> dict[str, Any]:
    """How texts are written, by one learner or by several together."""
    config = teller.config.writing
    return {"max_new_tokens": max_new_tokens, "stop": config.stop, "mixture": config.mixture, "mix": config.mix}


def judge_texts(teller: Teller, name: str, on: str, parents: Mapping[str, Stage]) -> None:
    """What was written, right or wrong. Nothing that is trained descends from this."""
    teller.tell(
        writing.judged,
        f"{name} judged on {on}",
        parents=parents,
        options={"by": name, "on": on},
        tags={"kind": "outcomes", "model": name, "suite": on},
    )
