"""The probe for over-optimisation, stage by stage: what reward models choose among a policy's samples, judged by gold.

`tell_probe` is the story of one seed. The reward models learn from the policy's own samples on easy questions, and are
then asked about its samples on hard ones, whose gold only the grading sees.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from w2s.config.fields import Config, Evaluation, Learner
from w2s.config.load import cross_checks
from w2s.rewards.aggregators import AGGREGATORS, make_spec
from w2s.stages import Tools, models, rewards
from w2s.stages import curve as stages_of_curve
from w2s.stages.objective import optimise
from w2s.store.artifacts import Stage
from w2s.store.records import BadInput
from w2s.story import rewards as rewarded
from w2s.story.checks import misfits
from w2s.story.written import POOL, TEST, WrittenStory, is_written

EASY, PROBE = "easy_holdout", "probe"
RL = ("grpo", "rloo")
MEMBER = "member"
"""One reward model, among the ways of making a reward of several."""


def tell_probe(config: Config, seed: int, tools: Tools, tell: Callable[..., Stage]) -> None:
    """The story of one seed."""
    if not is_written(tools.rows(seed)[0]):
        raise BadInput("data.sources: questions with choices given; `rewards curve` needs written answers or code")
    story = Probe(dataclasses.replace(config, evaluation=Evaluation()), seed, tools, tell)
    curve = config.rewards.curve

    # 1. The policy, fitted on the easy gold; its samples on easy questions that it has not seen make pairs.
    story.split_questions()
    story.fit_policy()
    pairs = story.pairs(story.samples(EASY, config.writing.samples, config.writing.temperature))

    # 2. Reward models of every kind learn from these pairs.
    ensembles = story.ensembles(pairs)

    # 3. The policy's samples on hard questions: every reward model scores them, and gold grades them.
    samples = story.samples(PROBE, curve.samples, curve.temperature)
    story.judged(samples, ensembles)

    # 4. If asked: the policy learns from these rewards, by RL, and gold grades what it writes meanwhile.
    if config.student.objective["name"] in RL:
        story.reinforced(ensembles["separate"])


class Probe(WrittenStory):
    """The probe's stages as they are told."""

    def fit_policy(self) -> None:
        """The first learner or the student's base on the easy gold: the main job's `floor` or `easy_gold`."""
        self.by_student = self.config.rewards.curve.policy == "student"
        self.policy: Learner = self.student if self.by_student else self.config.learners[0]
        base = self.base(self.policy)
        model = self.tell(
            models.fit, "policy", {"questions": self.questions, "labels": self.gold_targets("easy_fit"), **base},
            tags={"kind": "model", "model": "policy"},
            learner=self.policy, seed=self.seed, split="easy_fit", longer=1, is_student=self.by_student,
        )  # fmt: skip
        self.origin = {"model": model, **base}
        self.probe = self.tell(
            stages_of_curve.first_questions, "questions of the probe", {"questions": self.questions},
            tags={"kind": "probe_questions"}, on=PROBE, split=TEST, count=self.config.rewards.curve.questions,
        )  # fmt: skip

    def samples(self, on: str, count: int, temperature: float) -> Stage:
        origin = self.origin | ({PROBE: self.probe} if on == PROBE else {})
        how = {"kind": "samples", "samples": count, "temperature": temperature}
        return self.texts("policy", on, origin, self.policy, **how)

    def pairs(self, samples: Stage) -> Stage:
        """Right samples over wrong ones."""
        return self.tell(
            stages_of_curve.sample_pairs, "pairs of the policy's samples",
            {"questions": self.questions, "texts": samples, "gold": self.gold["easy"]},
            tags={"kind": "pairs"}, on=EASY, count=self.config.rewards.curve.pairs, seed=self.seed,
        )  # fmt: skip

    def ensembles(self, pairs: Stage) -> dict[str, dict[str, Stage]]:
        """kind -> name -> its reward models; kinds of one base have the first."""
        given, found = self.config.rewards, {}
        for kind in ("separate", "heads", "warm"):
            bases = given.models if kind == "separate" else given.models[:1]
            found[kind] = rewarded.reward_models(self, dataclasses.replace(given, kind=kind, models=bases), pairs)
        return found

    def judged(self, samples: Stage, ensembles: dict[str, dict[str, Stage]]) -> None:
        """The samples' rewards, one stage for each kind of ensemble, and their gold."""
        texts = self.tell(
            stages_of_curve.distinct, "different samples", {PROBE: self.probe, "texts": samples},
            tags={"kind": "samples_merged"}, on=PROBE,
        )  # fmt: skip
        for kind, members in ensembles.items():
            self.scores(kind, members, texts, PROBE)
        self.tell(
            stages_of_curve.graded, "gold of the samples", {PROBE: texts, "gold": self.gold[TEST]},
            tags={"kind": "sample_gold"}, on=PROBE,
        )  # fmt: skip

    def scores(self, who: str, members: dict[str, Stage], texts: Stage, on: str) -> Stage:
        """What reward models say of a set's different texts."""
        return self.tell(
            rewards.scores, f"rewards of samples of {on} · {who}", {on: texts, **rewarded.numbered("model", members)},
            tags={"kind": "rewards", "model": who, "set": on}, names=list(members), sets=(on,),
        )  # fmt: skip

    def reinforced(self, members: dict[str, Stage]) -> None:
        """The policy trained on the transfer pool's questions, once for each way in which rewards become one."""
        said = self.samples(POOL, self.config.writing.samples, self.config.writing.temperature)
        texts = self.tell(
            stages_of_curve.distinct, f"different samples of {POOL}", {"questions": self.questions, "texts": said},
            on=POOL,
        )  # fmt: skip
        objective, given, writing = self.config.student.objective, self.config.rewards, self.config.writing
        for way in given.curve.optimised:
            judges = dict(list(members.items())[:1]) if way == MEMBER else members
            scores = self.scores("separate" if way != MEMBER else MEMBER, judges, texts, POOL)
            aggregate = make_spec("mean" if way == MEMBER else way, given.aggregate)
            trained = self.tell(
                optimise, f"policy, {objective['name']} on {way}",
                {"model": self.origin["model"], "questions": self.questions, "scores": scores,
                 **rewarded.numbered("judge", judges)},
                tags={"kind": "optimised", "model": way}, objective=objective, learner=self.policy, seed=self.seed,
                aggregate=aggregate, standardised=given.standardise != "none",
                writing={"max_new_tokens": writing.max_new_tokens, "stop": writing.stop},
            )  # fmt: skip
            self.tell(
                stages_of_curve.graded_rollouts, f"gold of what it wrote · {way}",
                {"optimised": trained, "questions": self.questions, "gold": self.gold[POOL]},
                tags={"kind": "rollout_gold", "model": way}, on=POOL,
            )  # fmt: skip


def checks(config: Config) -> list[str]:
    """What keys that depend on each other must satisfy."""
    given, allowed = config.rewards, (MEMBER, *AGGREGATORS)
    problems, by = cross_checks(config), config.student.objective["name"]
    if config.limit:
        problems.append(f"limit: {config.limit} given; it goes with `w2s run` and `w2s evaluate`")
    if by == "dpo":
        problems.append("student.objective: 'dpo' given; allowed here: sft (no RL), grpo, rloo")
    elif by in RL and not given.curve.optimised:
        problems.append(f"rewards.curve.optimised: none given; {by} needs at least one of {', '.join(allowed)}")
    elif by in RL and given.curve.policy == "learner":  # the student's own fit is checked with the methods
        problems += misfits(config, config.learners[0], "learners.0")
    if given.members < 2:
        problems.append(f"rewards.members: {given.members} given; allowed: 2 or more")
    return problems + [
        f"rewards.curve.optimised: {way!r} given; allowed: {', '.join(allowed)}"
        for way in given.curve.optimised
        if way not in allowed
    ]
