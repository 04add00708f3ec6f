"""Questions with choices: rounds weigh questions, and an opinion is a distribution over the choices of each.

The functions of `story.teller.Form`; `story.written` has those for written answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from w2s.config.fields import Boosting, Learner, Tokens
from w2s.stages import committee as committees
from w2s.stages import models, rounds
from w2s.store.artifacts import Stage
from w2s.story.models import ask_suites, find_base, untrain, write_suites
from w2s.story.teller import FIT, HOLDOUT, TEST, TRANSFER, Answers, Committee, Learners, Sets, Speaker, Teller

OWN = ""  # the run's own sets, beside its further suites


def ask(teller: Teller, sets: Sets, speaker: Speaker, splits: tuple[str, ...] = (TEST,)) -> Answers:
    """The opinion of a model on splits and suites with choices; for other suites a language model writes."""
    opinions = ask_sets(teller, sets, speaker, splits)
    if speaker.learner.model.kind == "lm":
        learner = untrain(speaker.learner) if speaker.model is None else speaker.learner
        options = {"learner": learner, "untrained": speaker.model is None}
        write_suites(teller, sets, speaker.name, find_origin(teller, speaker), options)
    return Answers(speaker.name, {"opinion": opinions[OWN]})


def ask_sets(
    teller: Teller,
    sets: Sets,
    speaker: Speaker,
    splits: tuple[str, ...],
    kinds: tuple[str, str] = ("opinion", "opinion"),
) -> dict[str, Stage]:
    """Set -> a model's opinion: under OWN that on the splits, and that on each suite. kinds: the tags of these two."""
    origin = find_origin(teller, speaker)
    own = teller.tell(
        models.opinion,
        f"{speaker.name} answers",
        parents={"questions": sets.questions, **origin},
        options={
            "by": speaker.name,
            "sets": splits,
            "learner": untrain(speaker.learner) if speaker.model is None else None,
        },
        tags={"kind": kinds[0], "model": speaker.name},
    )
    return {OWN: own, **ask_suites(teller, sets, speaker, origin, kinds[1])}


def find_origin(teller: Teller, speaker: Speaker) -> dict[str, Stage]:
    return find_base(teller, speaker.learner) if speaker.model is None else {"model": speaker.model}


def boost(teller: Teller, sets: Sets, name: str, boosting: Boosting, labels: Stage) -> Learners:
    """The rounds, each with the rounds before it as parents, and every learner's opinions."""
    config = teller.config
    # More rounds must not change the ones that are there, nor must what weighs tokens.
    recipe = dataclasses.replace(boosting, rounds=1, tokens=Tokens())
    told: dict[str, Stage] = {}
    opinions = []
    for index in range(boosting.rounds):
        learner = config.learners[index % len(config.learners)]
        parents = {"questions": sets.questions, "labels": labels, **find_base(teller, learner)}
        parents |= ask_untrained(teller, sets, boosting, learner)
        parents |= told if boosting.booster["name"] != "bagging" else {}
        parents |= {"gold": sets.gold["easy"]} if boosting.patience else {}
        told[f"round-{index}"] = teller.tell(
            rounds.boosting_round,
            f"{name} · round {index + 1}",
            parents=parents,
            options={
                "index": index,
                "learner": learner,
                "boosting": recipe,
                "seed": teller.seed,
                "combiner": config.label.combiner if boosting.patience else None,
            },
            tags={"kind": "round", "model": name, "index": index},
        )
    for index, model in enumerate(told.values()):
        learner = config.learners[index % len(config.learners)]
        speaker = Speaker(f"{name} · learner {index + 1}", learner, model)
        opinions.append(ask_sets(teller, sets, speaker, (TRANSFER, TEST), ("member_opinion", "member_suite")))
    return Learners(name, told, tuple(opinions))


def ask_untrained(teller: Teller, sets: Sets, boosting: Boosting, learner: Learner) -> dict[str, Stage]:
    """The opinion of the untrained base on easy_fit, where the booster measures rounds against it."""
    booster = boosting.booster
    if booster["name"] != "ensemw2s" or booster.get("reference", "untrained") != "untrained":
        return {}
    opinion = teller.tell(
        models.opinion,
        "the untrained base answers",
        parents={"questions": sets.questions, **find_base(teller, learner)},
        options={"by": "untrained", "sets": (FIT,), "learner": untrain(learner)},
    )
    return {"untrained": opinion}


def combine(
    teller: Teller, sets: Sets, name: str, learners: Learners, alphas: dict, *, best_alone: bool = False
) -> Committee:
    """Many learners' opinions as one, under `name`: on the run's own sets, and on every suite."""
    combiner = teller.config.label.combiner
    voters = teller.tell(
        committees.committee,
        f"{name} · who votes",
        parents={"gold": sets.gold["easy"], **learners.rounds},
        options={"combiner": combiner, "alphas": alphas, "rounds": len(learners.rounds)},
        tags={"kind": "committee", "model": name},
    )
    committee = Committee(name, learners, voters)
    opinions = {}
    for suite in (OWN, *sets.suites):
        members = {f"opinion-{at}": member[suite] for at, member in enumerate(learners.opinions)}
        opinions[suite] = vote(
            teller,
            committee,
            members,
            title=f"{name} answers{suite and f' {suite}'}",
            options={"sets": (suite,) if suite else (TRANSFER, TEST), "best_alone": best_alone},
        )
    return dataclasses.replace(committee, answers=Answers(name, {"opinion": opinions[OWN]}))


def vote(teller: Teller, committee: Committee, members: Mapping[str, Stage], *, title: str, options: Mapping) -> Stage:
    """The opinions of a committee's learners as one."""
    return teller.tell(
        committees.combined,
        title,
        parents={"committee": committee.voters, **members},
        options={"by": committee.name, "combiner": teller.config.label.combiner, **options},
        tags={"kind": "opinion", "model": committee.name},
    )


def find_candidates(teller: Teller, sets: Sets, committee: Committee, on: str) -> dict[str, Stage]:
    """The candidates of a question are its choices."""
    return {"questions": sets.questions}


def find_opinion(teller: Teller, sets: Sets, committee: Committee, on: str) -> Stage:
    """The committee's opinion on transfer, hard_test, or easy_holdout, which its rounds were asked about."""
    if on != HOLDOUT:
        return committee.answers.stages["opinion"]
    members = {f"opinion-{at}": stage for at, stage in enumerate(committee.learners.rounds.values())}
    return vote(teller, committee, members, title=f"{committee.name} answers {on}", options={"sets": (on,)})


def take_opinion(teller: Teller, sets: Sets, committee: Committee, by: str, opinion: Stage) -> Answers:
    """An opinion on the transfer pool and the hard test is all that is needed."""
    return Answers(by, {"opinion": opinion})


def label(teller: Teller, sets: Sets, answers: Answers, *, shuffled: bool = False) -> Stage:
    """Pseudo-labels for the transfer pool, made of an opinion."""
    config = teller.config.label
    options = {"select": config.select, "soft": config.soft, "temperature": config.temperature}
    options |= {"seed": teller.seed, "shuffled": shuffled}
    options |= {"accept": answers.accept} if answers.accept else {}
    return teller.tell(
        committees.pseudo_labels,
        f"labels by {answers.by}" + (", shuffled" if shuffled else ""),
        parents={"questions": sets.questions, **answers.stages},
        options=options,
        tags={"kind": "labels", "model": "shuffled" if shuffled else answers.by},
    )
