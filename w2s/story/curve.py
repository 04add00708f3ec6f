"""THE STORY of the over-optimisation curve: what reward models choose among a policy's samples, judged by gold.

`chain` is the story of one seed. The reward models learn from the policy's own samples on easy questions, and then
score its samples on hard ones, whose gold only the grading sees.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from w2s.config.fields import Config, Evaluation
from w2s.config.load import cross_checks
from w2s.rewards.aggregators import AGGREGATORS, make_spec
from w2s.stages import Tools, models, rewards
from w2s.stages import curve as stages_of_curve
from w2s.stages.objective import optimise
from w2s.store.artifacts import Stage
from w2s.store.records import BadInput
from w2s.story.checks import check_written, misfits
from w2s.story.models import find_base, untrain
from w2s.story.questions import is_written, label_by_gold, split_questions
from w2s.story.rewards import fit_models
from w2s.story.teller import FIT, HOLDOUT, TEST, TRANSFER, Sets, Speaker, Teller, number
from w2s.story.written import share_one_base, write

CURVE = "curve"
"""The set that the curve is measured on: the first questions of hard_test."""
RL = ("grpo", "rloo")
MEMBER = "member"
"""One reward model, among the ways of making a reward of several."""


def tell_curve(config: Config, tools: Tools, declare: Callable[..., Stage]) -> None:
    """The study of `w2s rewards curve`."""
    for seed in config.seeds:
        chain(Teller(dataclasses.replace(config, evaluation=Evaluation()), seed, tools, declare))


def chain(teller: Teller) -> None:
    """The story of one seed."""
    config, curve = teller.config, teller.config.rewards.curve
    if not is_written(teller.tools.rows(teller.seed)[0]):
        raise BadInput("data.sources: questions with choices given; `rewards curve` needs written answers or code")
    check_written(config)

    # 1. The policy, fitted on the easy gold; its samples on easy questions that it has not seen make pairs.
    sets = split_questions(teller)
    policy = fit_policy(teller, sets, label_by_gold(teller, sets, FIT))
    easy_samples = sample(teller, sets, policy, HOLDOUT, config.writing.samples, config.writing.temperature)
    pairs = draw_pairs(teller, sets, easy_samples)

    # 2. Reward models of every kind learn from these pairs.
    ensembles = fit_ensembles(teller, pairs)

    # 3. The policy's samples on hard questions: every reward model scores them, and gold grades them.
    questions = take_first_questions(teller, sets)
    samples = sample(teller, sets, policy, CURVE, curve.samples, curve.temperature, {CURVE: questions})
    texts = merge_samples(teller, samples, {CURVE: questions})
    for kind, members in ensembles.items():
        score(teller, kind, members, texts, CURVE)
    grade(teller, sets, texts)

    # 4. If asked: the policy learns from these rewards, by RL, and gold grades what it writes meanwhile.
    if config.student.objective["name"] in RL:
        rollouts = sample(teller, sets, policy, TRANSFER, config.writing.samples, config.writing.temperature)
        candidates = merge_transfer(teller, sets, rollouts)
        for way in curve.optimised:
            reinforce(teller, sets, policy, ensembles["separate"], candidates, way)


def fit_policy(teller: Teller, sets: Sets, easy: Stage) -> Speaker:
    """The first learner or the student's base on the easy gold: the main job's `floor` or `easy_gold`."""
    by_student = teller.config.rewards.curve.policy == "student"
    learner = teller.student if by_student else teller.config.learners[0]
    model = teller.tell(
        models.fit,
        "policy",
        parents={"questions": sets.questions, "labels": easy, **find_base(teller, learner)},
        options={
            "learner": learner,
            "seed": teller.seed,
            "split": FIT,
            "longer": 1,
            "is_student": by_student,
        },
        tags={"kind": "model", "model": "policy"},
    )
    return Speaker("policy", learner, model, by_student)


def sample(
    teller: Teller,
    sets: Sets,
    policy: Speaker,
    on: str,
    count: int,
    temperature: float,
    questions: Mapping[str, Stage] | None = None,
) -> Stage:
    """The policy's samples on a set. questions: the stage that holds these, unless the set is a split."""
    return write(
        teller,
        sets,
        policy.name,
        on,
        {"model": policy.model, **find_base(teller, policy.learner), **(questions or {})},
        {
            "learner": untrain(policy.learner),
            "one_base": policy.is_student or share_one_base(teller),
            "samples": count,
            "temperature": temperature,
        },
        kind="samples",
    )


def draw_pairs(teller: Teller, sets: Sets, samples: Stage) -> Stage:
    """Right samples over wrong ones."""
    return teller.tell(
        stages_of_curve.sample_pairs,
        "pairs of the policy's samples",
        parents={"questions": sets.questions, "texts": samples, "gold": sets.gold["easy"]},
        options={"on": HOLDOUT, "count": teller.config.rewards.curve.pairs, "seed": teller.seed},
        tags={"kind": "pairs"},
    )


def fit_ensembles(teller: Teller, pairs: Stage) -> dict[str, dict[str, Stage]]:
    """Kind -> name -> its reward models; kinds of one base have the first."""
    config, ensembles = teller.config.rewards, {}
    for kind in ("separate", "heads", "warm"):
        bases = config.models if kind == "separate" else config.models[:1]
        ensembles[kind] = fit_models(teller, dataclasses.replace(config, kind=kind, models=bases), pairs)
    return ensembles


def take_first_questions(teller: Teller, sets: Sets) -> Stage:
    return teller.tell(
        stages_of_curve.first_questions,
        "questions of the curve",
        parents={"questions": sets.questions},
        options={"on": CURVE, "split": TEST, "count": teller.config.rewards.curve.questions},
        tags={"kind": "curve_questions"},
    )


def merge_samples(teller: Teller, samples: Stage, questions: Mapping[str, Stage]) -> Stage:
    """The different texts among the samples."""
    return teller.tell(
        stages_of_curve.distinct,
        "different samples",
        parents={**questions, "texts": samples},
        options={"on": CURVE},
        tags={"kind": "samples_merged"},
    )


def merge_transfer(teller: Teller, sets: Sets, samples: Stage) -> Stage:
    """The same of the transfer pool, which gives rewards their unit."""
    return teller.tell(
        stages_of_curve.distinct,
        f"different samples of {TRANSFER}",
        parents={"questions": sets.questions, "texts": samples},
        options={"on": TRANSFER},
    )


def score(teller: Teller, name: str, members: Mapping[str, Stage], texts: Stage, on: str) -> Stage:
    """The rewards of a set's different texts."""
    return teller.tell(
        rewards.scores,
        f"rewards of samples of {on} · {name}",
        parents={on: texts, **number("model", members)},
        options={"names": list(members), "sets": (on,)},
        tags={"kind": "rewards", "model": name, "set": on},
    )


def grade(teller: Teller, sets: Sets, texts: Stage) -> None:
    teller.tell(
        stages_of_curve.graded,
        "gold of the samples",
        parents={CURVE: texts, "gold": sets.gold[TEST]},
        options={"on": CURVE},
        tags={"kind": "sample_gold"},
    )


def reinforce(
    teller: Teller, sets: Sets, policy: Speaker, members: Mapping[str, Stage], texts: Stage, way: str
) -> None:
    """The policy trained on the transfer pool, with the members' rewards made one in this way, and graded by gold."""
    config = teller.config
    judges = dict(list(members.items())[:1]) if way == MEMBER else members
    scores = score(teller, MEMBER if way == MEMBER else "separate", judges, texts, TRANSFER)
    writing = {"max_new_tokens": config.writing.max_new_tokens, "stop": config.writing.stop}
    optimised = teller.tell(
        optimise,
        f"policy, {config.student.objective['name']} on {way}",
        parents={
            "model": policy.model,
            "questions": sets.questions,
            "scores": scores,
            **number("judge", judges),
        },
        options={
            "objective": config.student.objective,
            "learner": policy.learner,
            "seed": teller.seed,
            "aggregate": make_spec("mean" if way == MEMBER else way, config.rewards.aggregate),
            "standardised": config.rewards.standardise != "none",
            "writing": writing,
        },
        tags={"kind": "optimised", "model": way},
    )
    teller.tell(
        stages_of_curve.graded_rollouts,
        f"gold of what it wrote · {way}",
        parents={"optimised": optimised, "questions": sets.questions, "gold": sets.gold[TRANSFER]},
        options={"on": TRANSFER},
        tags={"kind": "rollout_gold", "model": way},
    )


def checks(config: Config) -> list[str]:
    """A line for everything in the config that this study cannot work with."""
    members, curve, allowed = config.rewards.members, config.rewards.curve, (MEMBER, *AGGREGATORS)
    problems, objective = cross_checks(config), config.student.objective["name"]
    if config.limit:
        problems.append(f"limit: {config.limit} given; it goes with `w2s run` and `w2s evaluate`")
    if objective == "dpo":
        problems.append("student.objective: 'dpo' given; allowed here: sft (no RL), grpo, rloo")
    elif objective in RL and not curve.optimised:
        problems.append(f"rewards.curve.optimised: none given; {objective} needs at least one of {', '.join(allowed)}")
    elif objective in RL and curve.policy == "learner":  # the student's own fit is checked with the methods
        problems += misfits(config, config.learners[0], "learners.0")
    if members < 2:
        problems.append(f"rewards.members: {members} given; allowed: 2 or more")
    return problems + [
        f"rewards.curve.optimised: {way!r} given; allowed: {', '.join(allowed)}"
        for way in curve.optimised
        if way not in allowed
    ]
