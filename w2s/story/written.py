"""Questions without choices: answers and programs that models write, token by token.

`story.choices` has the same functions for questions with choices. Rounds weight the tokens of the right answers; a
committee mixes its learners' next tokens, or votes over the whole answers they sampled; texts are judged in separate
stages.
"""

import dataclasses
import json
from typing import Any

from w2s.config.fields import Boosting
from w2s.stages import committee as committees
from w2s.stages import fusion, tokens, writing
from w2s.stages import labels as stages_of_labels
from w2s.store.artifacts import Stage
from w2s.story.models import (
    ask_about,
    ask_suites,
    find_base,
    find_shots,
    find_start,
    judge,
    tell_labels,
    untrain,
    write_suites,
    write_texts,
)
from w2s.story.questions import label_by_gold
from w2s.story.teller import HOLDOUT, TEST, TRANSFER, Answers, Committee, Learners, Sets, Speaker, Stages, Teller

LABELLERS = ("committee", "floor", "merged")  # only their texts become labels; no other writes for the transfer pool
VOTERS = "answer_level"  # the control that always votes over whole answers


def ask(teller: Teller, sets: Sets, speaker: Speaker, splits: tuple[str, ...] = (TEST,)) -> Answers | None:
    """A model's texts for splits and suites, judged, and its opinion on suites with choices."""
    untrained = speaker.model is None
    origin = find_start(teller, sets, speaker.learner) | ({} if untrained else {"model": speaker.model})
    options = {"learner": untrain(speaker.learner), "untrained": untrained}
    one_base = {"one_base": speaker.is_student or share_one_base(teller)}
    texts = {
        on: write(teller, sets, speaker.name, on, origin, {**options, **one_base, **find_top(teller, speaker, on)})
        for on in (splits if speaker.name in LABELLERS else (TEST,))
    }
    write_suites(teller, sets, speaker.name, origin, options)
    ask_suites(teller, sets, speaker, origin)
    return Answers(speaker.name, {"texts": texts[TRANSFER]}) if TRANSFER in texts else None


def find_top(teller: Teller, speaker: Speaker, on: str) -> dict[str, int]:
    """How many next tokens soft targets keep, where the merged learners write them."""
    label = teller.config.label
    soft = speaker.name == "merged" and label.made == "distribution" and on == TRANSFER
    return {"top": label.top} if soft else {}


def write(
    teller: Teller, sets: Sets, name: str, on: str, origin: Stages, options: dict[str, Any], kind: str = "texts"
) -> Stage:
    """A model's or committee's texts for a split; `texts` for the hard test are judged.

    options: the learner, whether all writers have one base, and how they write.
    """
    parents = {"questions": sets.questions, **origin}
    texts = write_texts(teller, name, on, parents, options, teller.config.writing.max_new_tokens, kind)
    if on == TEST and kind == "texts":
        judge_test(teller, sets, name, texts)
    return texts


def judge_test(teller: Teller, sets: Sets, name: str, texts: Stage) -> None:
    judge(teller, name, TEST, {"texts": texts, "questions": sets.questions, "gold": sets.gold[TEST]})


def share_one_base(teller: Teller) -> bool:
    """Whether all learners start from the same model with the same prompt, so that their adapters can share it."""
    models = [learner.model for learner in teller.config.learners]
    parts = [[one.path, one.revision, one.layers, one.prompt, one.shots] for one in models]
    starts = {json.dumps(part, sort_keys=True) for part in parts}
    return len(starts) == 1


# --- learners and committees -----------------------------------------------------------------------------------------


def boost(teller: Teller, sets: Sets, name: str, boosting: Boosting, labels: Stage) -> Learners:
    """The rounds over the tokens of the easy answers, each with the rounds before it as parents."""
    config, holdout = teller.config, label_by_gold(teller, sets, HOLDOUT)
    recipe = dataclasses.replace(boosting, rounds=1)  # more rounds must not change earlier ones
    fitted: dict[str, Stage] = {}
    for index in range(boosting.rounds):
        learner = config.learners[index % len(config.learners)]
        base = find_start(teller, sets, learner)
        title = "the untrained base ranks the easy answers"
        ranks = teller.tell(tokens.ranked, title, {"labels": labels, **base}, {"learner": untrain(learner)})
        parents = {"labels": labels, "holdout": holdout, **base, "untrained": ranks}
        parents |= fitted if boosting.booster["name"] != "bagging" else {}
        options = {"index": index, "learner": learner, "boosting": recipe}
        options |= {"mixture": config.writing.mixture, "seed": teller.seed}
        tags = {"kind": "round", "model": name, "index": index}
        title = f"{name} · round {index + 1}"
        fitted[f"round-{index}"] = teller.tell(tokens.token_round, title, parents, options, tags)
    return Learners(name, fitted)


def boost_answers(boosting: Boosting) -> Boosting:
    """The same boosting over whole answers instead of tokens."""
    return dataclasses.replace(boosting, tokens=dataclasses.replace(boosting.tokens, by="answer", window=0))


def combine(teller: Teller, sets: Sets, name: str, learners: Learners, alphas: dict, alone: bool = False) -> Committee:
    """The learners as the committee `name`: they write together, or vote over the answers they sampled."""
    label, count = teller.config.label, len(learners.rounds)
    parents = {"holdout": label_by_gold(teller, sets, HOLDOUT), **learners.rounds}
    options = {"alphas": alphas, "mixture": teller.config.writing.mixture, "rounds": count}
    tags = {"kind": "committee", "model": name}
    voters = teller.tell(tokens.writers, f"{name} · who writes", parents, options, tags)
    committee = Committee(name, learners, voters)
    votes = label.made in ("winner", "fused")
    if name == VOTERS or (votes and not alone):
        stages = answer_by_vote(teller, sets, committee)
    else:
        stages = write_together(teller, sets, committee, alone)
    if name == "committee":
        members = [write_alone(teller, sets, learners, at, TRANSFER) for at in range(count)]
        if "texts" in stages and label.select["name"] == "agreement":
            stages |= {f"texts-{at:02}": texts for at, texts in enumerate(members)}
    holdout = {}
    if name == "committee" and label.made == "winner" and teller.fits_temperature:
        opinion = find_opinion(teller, sets, committee, HOLDOUT)
        holdout = {"holdout": opinion, **find_candidates(teller, sets, committee, HOLDOUT)}
    return dataclasses.replace(committee, answers=Answers(name, stages, holdout) if stages else None)


def write_together(teller: Teller, sets: Sets, committee: Committee, alone: bool) -> dict[str, Stage]:
    """Texts by all learners together, or by the best alone; for the transfer pool only if the committee labels it."""
    label, learner = teller.config.label, teller.config.learners[0]
    origin = {"committee": committee.voters, **committee.learners.rounds, **find_start(teller, sets, learner)}
    options = {"learner": untrain(learner), "one_base": share_one_base(teller), "best_alone": alone}
    texts = {}
    for on in list_splits(committee):
        top = label.top if label.made == "distribution" and on == TRANSFER else 0
        texts[on] = write(teller, sets, committee.name, on, origin, {**options, "top": top})
    write_suites(teller, sets, committee.name, origin, {**options, "untrained": False})
    return {"texts": texts[TRANSFER]} if TRANSFER in texts else {}


def list_splits(committee: Committee) -> tuple[str, ...]:
    return (TRANSFER, TEST) if committee.name in LABELLERS else (TEST,)


def write_alone(
    teller: Teller, sets: Sets, learners: Learners, at: int, on: str, sampling: dict[str, Any] | None = None
) -> Stage:
    """One learner's own text for each question, or its samples."""
    learner = teller.config.learners[at % len(teller.config.learners)]
    origin = {"model": learners.rounds[f"round-{at}"], **find_start(teller, sets, learner)}
    options = {"learner": untrain(learner), "one_base": share_one_base(teller), **(sampling or {})}
    name, kind = f"{learners.name} · learner {at + 1}", "samples" if sampling else "member_texts"
    return write(teller, sets, name, on, origin, options, kind)


# --- votes over whole answers ----------------------------------------------------------------------------------------


def answer_by_vote(teller: Teller, sets: Sets, committee: Committee) -> dict[str, Stage]:
    """Each learner samples answers, all score all of them, and the combiner decides."""
    stages = {}
    for on in list_splits(committee):
        opinion = find_opinion(teller, sets, committee, on)
        candidates = sample_candidates(teller, sets, committee, on)
        texts = answer(teller, sets, committee.name, on, opinion, candidates)
        if on == TRANSFER and teller.config.label.made == "fused":
            stages = {"texts": fuse(teller, sets, committee, texts)}
        elif on == TRANSFER:
            stages = {"opinion": opinion, "candidates": candidates}
    return stages


def sample_candidates(teller: Teller, sets: Sets, committee: Committee, on: str) -> Stage:
    """The distinct answers among the learners' samples."""
    config, learners = teller.config.writing, committee.learners
    sampling = {"samples": config.samples, "temperature": config.temperature}
    parents = {"questions": sets.questions}
    for at in range(len(learners.rounds)):
        parents[f"texts-{at:02}"] = write_alone(teller, sets, learners, at, on, sampling)
    tags = {"kind": "candidates", "model": committee.name}
    return teller.tell(writing.candidates, f"{committee.name} · candidates of {on}", parents, {"on": on}, tags)


def fuse(teller: Teller, sets: Sets, committee: Committee, texts: Stage) -> Stage:
    """The committee's texts for the transfer pool, with its learners' next tokens in the student's vocabulary."""
    label, student = teller.config.label, teller.student
    parents = {"questions": sets.questions, "texts": texts, "committee": committee.voters, **committee.learners.rounds}
    start = find_base(teller, student)
    parents |= ({"student": start["base"]} if start else {}) | find_shots(sets, student)
    options = {"on": TRANSFER, "student": untrain(student), "top": label.top}
    options |= {"mixture": teller.config.writing.mixture, "combination": label.fusion}
    tags = {"kind": "fused", "model": committee.name}
    return teller.tell(fusion.fused, f"{committee.name} · next tokens for the student", parents, options, tags)


def answer(teller: Teller, sets: Sets, name: str, on: str, opinion: Stage, candidates: Stage) -> Stage:
    """The most probable candidates as texts; those for the hard test are judged."""
    parents, tags = {"opinion": opinion, "candidates": candidates}, {"kind": "texts", "model": name}
    texts = teller.tell(writing.winners, f"{name} answers {on}", parents, {"on": on}, tags)
    if on == TEST:
        judge_test(teller, sets, name, texts)
    return texts


def find_candidates(teller: Teller, sets: Sets, committee: Committee, on: str) -> Stages:
    """The answers that the learners sampled for a set."""
    return {on: sample_candidates(teller, sets, committee, on)}


def find_opinion(teller: Teller, sets: Sets, committee: Committee, on: str) -> Stage:
    """The committee's vote over the candidates of a set, which every learner scores."""
    name, candidates = committee.name, sample_candidates(teller, sets, committee, on)
    parents = {"committee": committee.voters}
    for at, model in enumerate(committee.learners.rounds.values()):
        speaker = Speaker(f"{name} · learner {at + 1}", teller.config.learners[0], model)
        asked = {on: candidates, "model": model}
        title = f"{speaker.name} scores {on}"
        parents[f"opinion-{at}"] = ask_about(teller, speaker, title, asked, (on,), "member_opinion")
    options = {"by": name, "combiner": teller.config.label.combiner, "sets": (on,)}
    tags = {"kind": "opinion", "model": name}
    return teller.tell(committees.combined, f"{name} votes on {on}", parents, options, tags)


def take_opinion(teller: Teller, sets: Sets, committee: Committee, by: str, opinion: Stage) -> Answers:
    """Answers by an opinion on the committee's candidates; its favourites for the hard test are judged."""
    answer(teller, sets, by, TEST, opinion, sample_candidates(teller, sets, committee, TEST))
    return Answers(by, {"opinion": opinion, "candidates": sample_candidates(teller, sets, committee, TRANSFER)})


def label(teller: Teller, sets: Sets, answers: Answers, *, shuffled: bool = False) -> Stage:
    """Pseudo-labels for the transfer pool: a model's or committee's texts, or the winners of a vote."""
    config = teller.config.label
    options = {"select": config.select, "check_examples": config.check_examples}
    if "candidates" in answers.stages:
        options |= {"soft": config.soft, "temperature": config.temperature}
        options |= {"accept": answers.accept} if answers.accept else {}
    return tell_labels(teller, sets, stages_of_labels.written_labels, answers, options, shuffled)
