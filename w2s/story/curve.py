"""THE STORY of the over-optimisation curve: what reward models choose among a policy's samples, judged by gold.

`chain` is the story of one seed. The reward models learn from the policy's samples on easy questions, then score its
samples on hard ones; only the grading sees the gold of these.
"""

import dataclasses
from collections.abc import Callable

from w2s.config.fields import Config, Evaluation
from w2s.config.load import cross_checks
from w2s.rewards.aggregators import AGGREGATORS, make_spec
from w2s.stages import Tools
from w2s.stages import curve as stages_of_curve
from w2s.stages.objective import optimise
from w2s.store.artifacts import Stage
from w2s.store.records import BadInput
from w2s.story.checks import check_written, misfits
from w2s.story.models import find_shots, find_start, fit, untrain
from w2s.story.objective import choose_reward
from w2s.story.questions import is_written, label_by_gold, split_questions
from w2s.story.rewards import fit_models, score
from w2s.story.teller import FIT, HOLDOUT, TEST, TRANSFER, Sets, Speaker, Stages, Teller, number
from w2s.story.written import share_one_base, write

CURVE = "curve"
"""The set that the curve is measured on: the first questions of hard_test."""
RL = ("grpo", "rloo")
MEMBER = "member"
"""A single reward model, as one of the ways to make a reward."""


def tell_curve(config: Config, tools: Tools, declare: Callable[..., Stage]) -> None:
    """The study of `w2s rewards curve`."""
    for seed in config.seeds:
        chain(Teller(dataclasses.replace(config, evaluation=Evaluation()), seed, tools, declare))


def chain(teller: Teller) -> None:
    """The story of one seed."""
    config = teller.config
    if not is_written(teller.tools.rows(teller.seed)[0]):
        raise BadInput("data.sources: questions with choices given; `rewards curve` needs written answers or code")
    check_written(config)

    # 1. The policy, fitted on the easy gold; its samples on easy questions not trained on make pairs.
    sets = split_questions(teller)
    policy = fit_policy(teller, sets, label_by_gold(teller, sets, FIT))
    pairs = draw_pairs(teller, sets, sample(teller, sets, policy, HOLDOUT))

    # 2. Reward models of every kind learn from these pairs; kinds with one base use the first.
    ensembles = {}
    for kind in ("separate", "heads", "warm"):
        bases = config.rewards.models if kind == "separate" else config.rewards.models[:1]
        ensembles[kind] = fit_models(teller, dataclasses.replace(config.rewards, kind=kind, models=bases), pairs)

    # 3. The policy's samples on hard questions: every reward model scores them, and gold grades them.
    texts = sample_for_curve(teller, sets, policy)
    for kind, members in ensembles.items():
        score_samples(teller, kind, members, texts, CURVE)
    parents = {CURVE: texts, "gold": sets.gold[TEST]}
    teller.tell(stages_of_curve.graded, "gold of the samples", parents, {"on": CURVE}, {"kind": "sample_gold"})

    # 4. Optionally the policy learns from these rewards by RL, and gold grades what it writes meanwhile.
    if config.student.objective["name"] in RL:
        parents = {"questions": sets.questions, "texts": sample(teller, sets, policy, TRANSFER)}
        title = f"different samples of {TRANSFER}"  # they give rewards their unit
        candidates = teller.tell(stages_of_curve.distinct, title, parents, {"on": TRANSFER})
        for way in config.rewards.curve.optimised:
            reinforce(teller, sets, policy, ensembles["separate"], candidates, way)


def fit_policy(teller: Teller, sets: Sets, easy: Stage) -> Speaker:
    """The first learner or the student's base on the easy gold: the main job's `floor` or `easy_gold`."""
    by_student = teller.config.rewards.curve.policy == "student"
    base = Speaker("policy", teller.student if by_student else teller.config.learners[0], is_student=by_student)
    return dataclasses.replace(base, model=fit(teller, sets, base, easy, FIT))


def sample(teller: Teller, sets: Sets, policy: Speaker, on: str, questions: Stages | None = None) -> Stage:
    """The policy's samples on a split, or on the set of the curve, whose questions have their own stage."""
    origin = {"model": policy.model, **find_start(teller, sets, policy.learner), **(questions or {})}
    config = teller.config.rewards.curve if questions else teller.config.writing
    options = {"learner": untrain(policy.learner), "one_base": policy.is_student or share_one_base(teller)}
    options |= {"samples": config.samples, "temperature": config.temperature}
    return write(teller, sets, policy.name, on, origin, options, kind="samples")


def draw_pairs(teller: Teller, sets: Sets, samples: Stage) -> Stage:
    """Pairs of a right sample and a wrong one."""
    parents = {"questions": sets.questions, "texts": samples, "gold": sets.gold["easy"]}
    options = {"on": HOLDOUT, "count": teller.config.rewards.curve.pairs, "seed": teller.seed}
    title = "pairs of the policy's samples"
    return teller.tell(stages_of_curve.sample_pairs, title, parents, options, {"kind": "pairs"})


def sample_for_curve(teller: Teller, sets: Sets, policy: Speaker) -> Stage:
    """The distinct texts among the policy's samples on the first questions of hard_test."""
    parents, tags = {"questions": sets.questions}, {"kind": "curve_questions"}
    options = {"on": CURVE, "split": TEST, "count": teller.config.rewards.curve.questions}
    first = teller.tell(stages_of_curve.first_questions, "questions of the curve", parents, options, tags)
    parents = {CURVE: first, "texts": sample(teller, sets, policy, CURVE, {CURVE: first})}
    tags = {"kind": "samples_merged"}
    return teller.tell(stages_of_curve.distinct, "different samples", parents, {"on": CURVE}, tags)


def score_samples(teller: Teller, name: str, members: Stages, texts: Stage, on: str) -> Stage:
    """The rewards of a set's distinct texts."""
    tags = {"model": name, "set": on}
    return score(teller, f"rewards of samples of {on} · {name}", members, {on: texts}, (on,), tags)


def reinforce(teller: Teller, sets: Sets, policy: Speaker, members: Stages, texts: Stage, way: str) -> None:
    """Train the policy on the transfer pool by the members' rewards, aggregated in this way, and grade it by gold."""
    config = teller.config
    judges = dict(list(members.items())[:1]) if way == MEMBER else members
    scores = score_samples(teller, MEMBER if way == MEMBER else "separate", judges, texts, TRANSFER)
    parents = {"model": policy.model, "questions": sets.questions, "scores": scores, **number("judge", judges)}
    parents |= find_shots(sets, policy.learner)
    options = {"objective": config.student.objective, "learner": policy.learner, "seed": teller.seed}
    options |= choose_reward(config)
    options["aggregate"] = make_spec("mean" if way == MEMBER else way, config.rewards.aggregate)
    title = f"policy, {config.student.objective['name']} on {way}"
    optimised = teller.tell(optimise, title, parents, options, {"kind": "optimised", "model": way})
    parents = {"optimised": optimised, "questions": sets.questions, "gold": sets.gold[TRANSFER]}
    options, tags = {"on": TRANSFER}, {"kind": "rollout_gold", "model": way}
    teller.tell(stages_of_curve.graded_rollouts, f"gold of what it wrote · {way}", parents, options, tags)


def checks(config: Config) -> list[str]:
    """A line for everything in the config that this study does not support."""
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
    unknown = [way for way in curve.optimised if way not in allowed]
    return problems + [f"rewards.curve.optimised: {way!r} given; allowed: {', '.join(allowed)}" for way in unknown]
