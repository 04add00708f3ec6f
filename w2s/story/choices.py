"""Questions with choices: rounds weight questions, and an opinion is a distribution over each question's choices.

`story.written` has the same functions for written answers.
"""

import dataclasses
from typing import Any

from w2s.config.fields import Boosting, Learner, Tokens
from w2s.stages import committee as committees
from w2s.stages import models, rounds
from w2s.store.artifacts import Stage
from w2s.story.models import ask_about, ask_suites, find_start, find_states, tell_labels, untrain, write_suites
from w2s.story.teller import FIT, HOLDOUT, TEST, TRANSFER, Answers, Committee, Learners, Sets, Speaker, Stages, Teller

OWN = ""  # the run's own sets, as opposed to further suites


def ask(teller: Teller, sets: Sets, speaker: Speaker, splits: tuple[str, ...] = (TEST,)) -> Answers:
    """A model's opinion on splits and on suites with choices; for other suites a language model writes."""
    if speaker.name == "floor" and teller.fits_temperature:  # its answers may become labels
        splits = (*splits, HOLDOUT)
    opinions = ask_sets(teller, sets, speaker, splits)
    if speaker.learner.model.kind == "lm":
        learner = untrain(speaker.learner) if speaker.model is None else speaker.learner
        options = {"learner": learner, "untrained": speaker.model is None}
        write_suites(teller, sets, speaker.name, find_origin(teller, sets, speaker), options)
    return Answers(speaker.name, {"opinion": opinions[OWN]}, {"holdout": opinions[OWN]} if HOLDOUT in splits else {})


def ask_sets(teller: Teller, sets: Sets, speaker: Speaker, splits: tuple[str, ...], *, alone: bool = True) -> Stages:
    """Set -> a model's opinion: on the splits under OWN, and on each suite. alone: it is in no committee."""
    kinds = ("opinion", "opinion") if alone else ("member_opinion", "member_suite")
    origin = find_origin(teller, sets, speaker)
    parents = {"questions": sets.questions, **origin}
    own = ask_about(teller, speaker, f"{speaker.name} answers", parents, splits, kinds[0])
    return {OWN: own, **ask_suites(teller, sets, speaker, origin, kinds[1])}


def find_origin(teller: Teller, sets: Sets, speaker: Speaker) -> Stages:
    return find_start(teller, sets, speaker.learner) if speaker.model is None else {"model": speaker.model}


def boost(teller: Teller, sets: Sets, name: str, boosting: Boosting, labels: Stage) -> Learners:
    """The rounds, each with the rounds before it as parents, and every learner's opinions."""
    config = teller.config
    combiner = config.label.combiner if boosting.patience else None
    # More rounds must not change earlier ones, nor must settings for tokens.
    recipe = dataclasses.replace(boosting, rounds=1, tokens=Tokens())
    fitted: dict[str, Stage] = {}
    for index in range(boosting.rounds):
        learner = config.learners[index % len(config.learners)]
        parents = {"questions": sets.questions, "labels": labels, **find_start(teller, sets, learner)}
        parents |= find_states(teller, learner, parents)
        parents |= ask_untrained(teller, sets, boosting, learner)
        parents |= fitted if boosting.booster["name"] != "bagging" else {}
        parents |= {"gold": sets.gold["easy"]} if boosting.patience else {}
        options = {"index": index, "learner": learner, "boosting": recipe, "seed": teller.seed, "combiner": combiner}
        tags = {"kind": "round", "model": name, "index": index}
        title = f"{name} · round {index + 1}"
        fitted[f"round-{index}"] = teller.tell(rounds.boosting_round, title, parents, options, tags)
    opinions = []
    for index, model in enumerate(fitted.values()):
        learner = config.learners[index % len(config.learners)]
        speaker = Speaker(f"{name} · learner {index + 1}", learner, model)
        opinions.append(ask_sets(teller, sets, speaker, (TRANSFER, TEST), alone=False))
    return Learners(name, fitted, tuple(opinions))


def ask_untrained(teller: Teller, sets: Sets, boosting: Boosting, learner: Learner) -> Stages:
    """The untrained base's opinion on easy_fit, if the booster measures rounds against it."""
    booster = boosting.booster
    if booster["name"] != "ensemw2s" or booster.get("reference", "untrained") != "untrained":
        return {}
    parents = {"questions": sets.questions, **find_start(teller, sets, learner)}
    options = {"by": "untrained", "sets": (FIT,), "learner": untrain(learner)}
    return {"untrained": teller.tell(models.opinion, "the untrained base answers", parents, options)}


def combine(teller: Teller, sets: Sets, name: str, learners: Learners, alphas: dict, alone: bool = False) -> Committee:
    """The learners' opinions as one, or with `alone` the best learner's: on the run's own sets and on every suite."""
    parents = {"gold": sets.gold["easy"], **learners.rounds}
    options = {"combiner": teller.config.label.combiner, "alphas": alphas, "rounds": len(learners.rounds)}
    tags = {"kind": "committee", "model": name}
    voters = teller.tell(committees.committee, f"{name} · who votes", parents, options, tags)
    opinions = {}
    for suite in (OWN, *sets.suites):
        members = [opinions_by_set[suite] for opinions_by_set in learners.opinions]
        options = {"sets": (suite,) if suite else (TRANSFER, TEST), "best_alone": alone}
        opinions[suite] = vote(teller, name, voters, members, f"{name} answers{suite and f' {suite}'}", options)
    committee = Committee(name, learners, voters, Answers(name, {"opinion": opinions[OWN]}))
    if name != "committee" or not teller.fits_temperature:
        return committee
    holdout = {"holdout": find_opinion(teller, sets, committee, HOLDOUT)}
    return dataclasses.replace(committee, answers=dataclasses.replace(committee.answers, holdout=holdout))


def vote(teller: Teller, name: str, voters: Stage, opinions: list[Stage], title: str, options: dict[str, Any]) -> Stage:
    """A committee's opinion from its learners'. options: the sets, and whether the best learner decides alone."""
    parents = {"committee": voters} | {f"opinion-{at}": opinion for at, opinion in enumerate(opinions)}
    options = {"by": name, "combiner": teller.config.label.combiner, **options}
    return teller.tell(committees.combined, title, parents, options, {"kind": "opinion", "model": name})


def find_candidates(teller: Teller, sets: Sets, committee: Committee, on: str) -> Stages:
    """No stages: a question's candidates are its choices."""
    return {"questions": sets.questions}


def find_opinion(teller: Teller, sets: Sets, committee: Committee, on: str) -> Stage:
    """The committee's opinion on transfer, hard_test or easy_holdout; its rounds already predicted the last."""
    if on != HOLDOUT:
        return committee.answers.stages["opinion"]
    name, opinions = committee.name, list(committee.learners.rounds.values())
    return vote(teller, name, committee.voters, opinions, f"{name} answers {on}", {"sets": (on,)})


def take_opinion(teller: Teller, sets: Sets, committee: Committee, by: str, opinion: Stage) -> Answers:
    """The opinion's answers; it already covers the transfer pool and the hard test."""
    return Answers(by, {"opinion": opinion})


def label(teller: Teller, sets: Sets, answers: Answers, *, shuffled: bool = False) -> Stage:
    """Pseudo-labels for the transfer pool from an opinion."""
    config = teller.config.label
    options = {"select": config.select, "soft": config.soft, "temperature": config.temperature}
    options |= {"accept": answers.accept} if answers.accept else {}
    return tell_labels(teller, sets, committees.pseudo_labels, answers, options, shuffled)
