"""The stages of reward models as one seed tells them: their pairs, their training, their scores, what these do.

What differs between questions with choices and without is the story's: `candidates_of(on)`, the parents that hold a
set's candidates, `opinion_on(on)`, the committee's opinion of them, and `answers_of(who, opinion)`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from w2s.config.fields import Config, Learner, RewardModels
from w2s.config.registry import pick
from w2s.data.rows import hash_rows, take_first
from w2s.rewards.pairs import PAIRS, DrawnPairs
from w2s.stages import models, reward_labels, rewards
from w2s.stages.reward_labels import FIT, HOLDOUT, TEST, TRANSFER
from w2s.store.artifacts import Stage
from w2s.store.records import take

if TYPE_CHECKING:
    from w2s.story.choices import Story

REWARDED = "rewarded"


def preferences_of(config: Config) -> Callable[[], DrawnPairs] | None:
    """Reads the preference pairs that reward models are trained on, once; None where they are of another kind."""
    if config.rewards.pairs["name"] != "preferences":
        return None
    root = Path(config.data.root) if config.data.root else None

    @cache
    def read() -> DrawnPairs:
        found = pick(PAIRS, config.rewards.pairs, key="rewards.pairs")(root)
        kept = {row.id for row in take_first((found.examples, []), config.limit)[0]}
        index_N = np.flatnonzero([row.id in kept for row in found.examples])
        examples = [found.examples[at] for at in index_N]
        return DrawnPairs(examples, take(found.labels, index_N), {**found.counts, "pairs": len(examples)})

    return read


def teacher(story: Story) -> str:
    """Who labels the transfer pool: the committee, or the committee that rewards have tilted."""
    config = story.config
    if config.label.reward.use == "none":
        return "committee"
    parents = {name: story.opinion_on(name) for name in (TRANSFER, TEST, HOLDOUT)}
    parents |= {"scores": scores(story), "gold": story.gold["easy"]}
    candidates = story.candidates_of(HOLDOUT)
    parents |= {"candidates": candidates[HOLDOUT]} if HOLDOUT in candidates else candidates
    story.answers_of(REWARDED, story.tell(
        reward_labels.tilted, "the committee, tilted by rewards", parents, tags={"kind": "opinion", "model": REWARDED},
        by=REWARDED, aggregate=config.rewards.aggregate, standardised=config.rewards.standardise,
        use=config.label.reward.use, strength=config.label.reward.strength,
    ))  # fmt: skip
    return REWARDED


def scores(story: Story) -> Stage:
    """What the reward models say of the candidates: an objective needs the pool's, labels need three sets'."""
    found = reward_models(story)
    sets = (TRANSFER,) if story.config.label.reward.use == "none" else (HOLDOUT, TRANSFER, TEST)
    parents = numbered("model", found)
    for name in sets:
        parents |= story.candidates_of(name)
    return story.tell(
        rewards.scores, "rewards of candidates", parents, tags={"kind": "rewards"}, names=list(found), sets=sets
    )


def reward_models(story: Story, wanted: RewardModels | None = None, labels: Stage | None = None) -> dict[str, Stage]:
    """Name -> the stage of a reward model (or of an ensemble that shares a trunk), trained on the pairs.

    wanted, labels: other ones than the config's and their pairs.
    """
    wanted, labels = wanted or story.config.rewards, labels or pairs(story)
    if wanted.kind in ("heads", "adapters"):
        return joint(story, wanted, labels)
    if wanted.kind == "separate":
        return separate(story, wanted, labels)
    return averaged(story, separate(story, wanted, labels, start_of(story, wanted, labels)))


def separate(story: Story, wanted: RewardModels, labels: Stage, start: Stage | None = None) -> dict[str, Stage]:
    """Members that are models of their own, each with its seed; several bases take turns, or all begin as `start`."""
    return {
        f"reward {at + 1}": fit(
            story, f"reward model {at + 1}" + (", warm" if start else ""), wanted.models[at % len(wanted.models)],
            labels, first_seed(story) + at, start,
        )
        for at in range(wanted.members)
    }  # fmt: skip


def start_of(story: Story, wanted: RewardModels, labels: Stage) -> Stage:
    """The model with its head trained alone, which members begin as whose weights are averaged."""
    head = head_of(wanted.models[0], wanted.head_steps)
    return fit(story, "the head of reward models", head, labels, first_seed(story))


def averaged(story: Story, members: Mapping[str, Stage]) -> dict[str, Stage]:
    """The mean of the members' weights (WARM)."""
    parents = numbered("model", members)
    tags = {"kind": "reward_model", "model": "reward mean"}
    return {"reward mean": story.tell(rewards.averaged, "the mean of reward models", parents, tags=tags)}


def joint(story: Story, wanted: RewardModels, labels: Stage) -> dict[str, Stage]:
    """Members on one body: heads, or adapters."""
    return {"rewards": story.tell(
        rewards.ensemble, f"reward models, {wanted.kind}", {"labels": labels, **story.base(wanted.models[0])},
        tags={"kind": "reward_model", "model": "rewards"}, rewards=rewards.of_training(wanted), seed=first_seed(story),
    )}  # fmt: skip


def first_seed(story: Story) -> int:
    """The first member's; the others count up from it."""
    return 1000 * (story.seed + 1)


def fit(story: Story, title: str, learner: Learner, labels: Stage, seed: int, start: Stage | None = None) -> Stage:
    """One reward model by itself, from its base or from another one."""
    parents = {"labels": labels, **({"base": start} if start else story.base(learner))}
    tags = {"kind": "reward_model", "model": title.removesuffix(", warm").replace("reward model", "reward")}
    return story.tell(models.fit, title, parents, tags=tags, learner=learner, seed=seed, split="pairs")


def head_of(learner: Learner, steps: int) -> Learner:
    """The learner that trains its head alone, for so many steps."""
    model, train = learner.model, learner.train
    train = dataclasses.replace(train, steps=steps, holdout_share=0.0, patience=None)
    return Learner(dataclasses.replace(model, trainable="head"), train)


def numbered(role: str, stages: Mapping[str, Stage]) -> dict[str, Stage]:
    """The stages as parents: ROLE-00, ROLE-01, ..."""
    return {f"{role}-{at:02}": one for at, one in enumerate(stages.values())}


def pairs(story: Story) -> Stage:
    """What reward models are trained on."""
    method, title, tags = story.config.rewards.pairs, "pairs for reward models", {"kind": "pairs"}
    if method["name"] == "preferences":
        found = story.tools.preferences()
        content = hash_rows((found.examples, found.labels.target_NK.tolist()))
        return story.tell(
            reward_labels.reward_pairs, title, {"questions": story.questions}, tags=tags, method=method,
            content=content, near=story.config.data.near,
        )  # fmt: skip
    on = FIT if method["name"] == "gold" else TRANSFER
    evidence = {"gold": story.gold["easy"]} if on == FIT else {"opinion": story.opinion_on(TRANSFER)}
    candidates = story.candidates_of(on)
    parents = evidence | ({"candidates": candidates[on]} if on in candidates else candidates)
    return story.tell(reward_labels.reward_pairs, title, parents, tags=tags, method=method)
