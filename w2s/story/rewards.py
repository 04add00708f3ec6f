"""The reward models of one seed: their pairs, training and scores, and the labels tilted by them."""

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from w2s.config.fields import Config, Learner, RewardModels
from w2s.config.registry import pick
from w2s.data.rows import hash_rows, take_first
from w2s.rewards.pairs import PAIRS, DrawnPairs
from w2s.stages import models, reward_labels, rewards
from w2s.store.artifacts import Stage
from w2s.store.records import take
from w2s.story.models import find_base
from w2s.story.teller import FIT, HOLDOUT, TEST, TRANSFER, Answers, Committee, Form, Sets, Stages, Teller, number

REWARDED = "rewarded"


def make_preference_reader(config: Config) -> Callable[[], DrawnPairs] | None:
    """A function that reads the preference pairs for training reward models, once; None if pairs are made from the
    run's own candidates."""
    if config.rewards.pairs["name"] != "preferences":
        return None
    root = Path(config.data.root) if config.data.root else None

    @cache
    def read() -> DrawnPairs:
        pairs = pick(PAIRS, config.rewards.pairs, key="rewards.pairs")(root)
        kept = {row.id for row in take_first((pairs.examples, []), config.limit)[0]}
        index_N = np.flatnonzero([row.id in kept for row in pairs.examples])
        examples = [pairs.examples[at] for at in index_N]
        return DrawnPairs(examples, take(pairs.labels, index_N), {**pairs.counts, "pairs": len(examples)})

    return read


@dataclasses.dataclass(frozen=True)
class Scored:
    """Reward models, and their scores of the committee's candidates."""

    models: Stages
    scores: Stage


def score_candidates(teller: Teller, sets: Sets, form: Form, committee: Committee) -> Scored | None:
    """Reward models and their scores of the committee's candidates; None if neither labels nor objective need them."""
    config = teller.config
    if config.label.reward.use == "none" and config.student.objective["name"] == "sft":
        return None
    pairs = draw_pairs(teller, sets, form, committee)
    members = fit_models(teller, config.rewards, pairs)
    # An objective needs scores for the transfer pool, labels for two more sets.
    splits = (TRANSFER,) if config.label.reward.use == "none" else (HOLDOUT, TRANSFER, TEST)
    candidates = {}
    for on in splits:
        candidates |= form.find_candidates(teller, sets, committee, on)
    return Scored(members, score(teller, "rewards of candidates", members, candidates, splits, {}))


def score(
    teller: Teller, title: str, members: Stages, candidates: Stages, sets: tuple[str, ...], tags: dict[str, str]
) -> Stage:
    """The members' scores of the candidates of some sets."""
    parents, options = {**number("model", members), **candidates}, {"names": list(members), "sets": sets}
    return teller.tell(rewards.scores, title, parents, options, {"kind": "rewards", **tags})


def tilt(teller: Teller, sets: Sets, form: Form, committee: Committee, scored: Scored) -> Answers:
    """The committee's answers, tilted by rewards."""
    config, reward = teller.config.rewards, teller.config.label.reward
    parents = {on: form.find_opinion(teller, sets, committee, on) for on in (TRANSFER, TEST, HOLDOUT)}
    parents |= {"scores": scored.scores, "gold": sets.gold["easy"]}
    parents |= as_candidates(form.find_candidates(teller, sets, committee, HOLDOUT))
    options = {"by": REWARDED, "aggregate": config.aggregate, "standardised": config.standardise}
    options |= {"use": reward.use, "strength": reward.strength}
    tags = {"kind": "opinion", "model": REWARDED}
    opinion = teller.tell(reward_labels.tilted, "the committee, tilted by rewards", parents, options, tags)
    answers = form.take_opinion(teller, sets, committee, REWARDED, opinion)
    holdout = {}
    if teller.fits_temperature:
        holdout = {"holdout": opinion, **form.find_candidates(teller, sets, committee, HOLDOUT)}
    return dataclasses.replace(answers, accept=reward.accept, holdout=holdout)


def as_candidates(parents: Stages) -> Stages:
    """The stage with a set's candidates in the role `candidates`, or `questions` if they are its choices."""
    return {role if role == "questions" else "candidates": stage for role, stage in parents.items()}


# --- pairs and models ------------------------------------------------------------------------------------------------


def draw_pairs(teller: Teller, sets: Sets, form: Form, committee: Committee) -> Stage:
    """The pairs that reward models are trained on: preferences, or the committee's candidates by gold or by opinion."""
    method = teller.config.rewards.pairs
    options = {"method": method}
    if method["name"] == "preferences":
        drawn = teller.tools.preferences()
        content = hash_rows((drawn.examples, drawn.labels.target_NK.tolist()))
        options |= {"content": content, "near": teller.config.data.near}
        parents = {"questions": sets.questions}
    elif method["name"] == "gold":
        candidates = form.find_candidates(teller, sets, committee, FIT)
        parents = {"gold": sets.gold["easy"], **as_candidates(candidates)}
    else:
        opinion = form.find_opinion(teller, sets, committee, TRANSFER)
        candidates = form.find_candidates(teller, sets, committee, TRANSFER)
        parents = {"opinion": opinion, **as_candidates(candidates)}
    return teller.tell(reward_labels.reward_pairs, "pairs for reward models", parents, options, {"kind": "pairs"})


def fit_models(teller: Teller, config: RewardModels, pairs: Stage) -> Stages:
    """Name -> the stage of a reward model (or an ensemble with a shared trunk), trained on the pairs."""
    if config.kind in ("heads", "adapters"):
        return fit_jointly(teller, config, pairs)
    if config.kind == "separate":
        return fit_separately(teller, config, pairs)
    return average(teller, fit_separately(teller, config, pairs, fit_head(teller, config, pairs)))


def fit_separately(teller: Teller, config: RewardModels, pairs: Stage, start: Stage | None = None) -> Stages:
    """Separate members, each with its own seed; several bases take turns, or all begin as `start`."""
    members, parents = {}, {"labels": pairs} | ({"base": start} if start else {})
    for at in range(config.members):
        title = f"reward model {at + 1}{', warm' if start else ''}"
        learner = config.models[at % len(config.models)]
        members[f"reward {at + 1}"] = fit(teller, title, learner, parents, first_seed(teller) + at)
    return members


def fit_head(teller: Teller, config: RewardModels, pairs: Stage) -> Stage:
    """A head trained alone on its base: the start of members whose weights are averaged."""
    model, train = config.models[0].model, config.models[0].train
    train = dataclasses.replace(train, steps=config.head_steps, holdout_share=0.0, patience=None)
    learner = Learner(dataclasses.replace(model, trainable="head"), train)
    return fit(teller, "the head of reward models", learner, {"labels": pairs}, first_seed(teller))


def fit(teller: Teller, title: str, learner: Learner, parents: Stages, seed: int) -> Stage:
    """One reward model, from its own base unless the parents include another start."""
    parents = parents if "base" in parents else {**find_base(teller, learner), **parents}
    options = {"learner": learner, "seed": seed, "split": "pairs"}
    tags = {"kind": "reward_model", "model": title.removesuffix(", warm").replace("reward model", "reward")}
    return teller.tell(models.fit, title, parents, options, tags)


def average(teller: Teller, members: Stages) -> Stages:
    """The mean of the members' weights (WARM)."""
    name, parents = "reward mean", number("model", members)
    tags = {"kind": "reward_model", "model": name}
    return {name: teller.tell(rewards.averaged, "the mean of reward models", parents, {}, tags)}


def fit_jointly(teller: Teller, config: RewardModels, pairs: Stage) -> Stages:
    """Members that share a body: heads or adapters."""
    parents = {"labels": pairs, **find_base(teller, config.models[0])}
    options = {"rewards": rewards.of_training(config), "seed": first_seed(teller)}
    tags = {"kind": "reward_model", "model": "rewards"}
    return {"rewards": teller.tell(rewards.ensemble, f"reward models, {config.kind}", parents, options, tags)}


def first_seed(teller: Teller) -> int:
    """The seed of the first member; the others count up from it."""
    return 1000 * (teller.seed + 1)
