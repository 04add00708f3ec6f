"""The stages of one seed as they are told, for questions with choices. `written.py` has those for written answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from w2s.config.fields import Boosting, Config, Learner, Model, Tokens, Train
from w2s.data.rows import hash_folder, hash_rows, suite_name
from w2s.stages import Tools, committee, models, questions, rounds, writing
from w2s.store.artifacts import Stage
from w2s.store.records import BadInput
from w2s.story.checks import builtin_recipe
from w2s.story.rewards import REWARDED

UNSEEDED = None
OWN = ""  # the run's own sets, beside its further suites


class Story:
    """The stages of one seed as they are told; `opinions` holds who has said something about the sets."""

    def __init__(self, config: Config, seed: int, tools: Tools, tell: Callable[..., Stage]):
        self.config, self.seed, self.tools, self._tell = config, seed, tools, tell
        # Without its objective: what it learns from labels is the same whatever comes after.
        self.student = Learner(config.student.model, config.student.train)
        self.opinions: dict[str, Stage] = {}
        self.voters: dict[str, Stage] = {}
        self.rounds: dict[str, dict[str, Stage]] = {}
        self.members: dict[str, list[dict[str, Stage]]] = {}
        self.suites: dict[str, Stage] = {}
        self.written: dict[str, tuple[Stage, Stage]] = {}

    def tell(self, work: Callable, title: str, parents: Mapping[str, Stage], *, tags: dict | None = None, **choices):
        return self._tell(work, f"seed {self.seed} · {title}", parents, {"seed": self.seed, **(tags or {})}, **choices)

    def split_questions(self) -> None:
        data, seed, content = self.config.data, self.seed, hash_rows(self.tools.rows(self.seed))
        parents = {}
        if data.difficulty["name"] == "loss":
            parents = {"difficulty": self.tell(
                rounds.cross_fitted, "how hard each question is", self.base(self.config.learners[0]),
                learner=self.config.learners[0], folds=self.config.boosting.folds, seed=seed, content=content,
            )}  # fmt: skip
        where = dataclasses.replace(data, root=None)  # the rows count, not the folder they lie in
        self.questions = self.tell(
            questions.questions,
            "questions",
            parents,
            tags={"kind": "questions"},
            data=where,
            seed=seed,
            content=content,
            **({"limit": self.config.limit} if self.config.limit else {}),  # a whole run's keys do not know of it
        )
        self.gold = {
            name: self.tell(
                questions.gold, f"gold of {name}", {"questions": self.questions}, tags={"kind": "gold", "split": name},
                splits=splits, seed=seed, content=content,
            )
            for name, splits in {
                "easy": ("easy_fit", "easy_holdout"), "transfer": ("transfer",), "hard_test": ("hard_test",)
            }.items()
        }  # fmt: skip
        for spec in self.config.evaluation.suites:
            self.add_suite(suite_name(spec))

    def add_suite(self, name: str) -> None:
        """A further suite: asked for opinions where it has choices, else for texts that are then judged."""
        rows = self.tools.suite_rows(name)
        tags, choices = {"suite": name, "seed": UNSEEDED}, {"name": name, "content": hash_rows(rows)}
        suite = self.tell(questions.suite, name, {}, tags={"kind": "suite", **tags}, **choices)
        gold = self.tell(questions.suite_gold, f"gold of {name}", {}, tags={"kind": "suite_gold", **tags}, **choices)
        if all(row.task == "choice" for row in rows[0]):
            self.suites[name] = suite
        else:
            self.written[name] = (suite, gold)

    def gold_targets(self, split: str) -> Stage:
        gold = self.gold[split if split in self.gold else "easy"]
        parents = {"questions": self.questions, "gold": gold}
        return self.tell(questions.gold_targets, f"gold of {split} as targets", parents, split=split)

    def recorded(self) -> Stage:
        """Labels of models that nobody trained here, made by `w2s combine labels`."""
        content = hash_folder(self.tools.recorded)
        if content is None or not (self.tools.recorded / "labels.npz").is_file():
            allowed = "a folder that `w2s combine labels` wrote"
            raise BadInput(f"label.recorded: {str(self.tools.recorded)!r} given; allowed: {allowed}")
        parents, tags = {"questions": self.questions}, {"kind": "labels", "model": "recorded"}
        return self.tell(questions.recorded_targets, "recorded labels", parents, tags=tags, content=content)

    def base(self, learner: Learner) -> dict[str, Stage]:
        """What a learner starts from: a builtin model, or a local folder as it is now; for a hub name, nothing."""
        scheme, _, name = learner.model.path.partition(":")
        if learner.model.kind == "sklearn":
            return {}
        if scheme != "builtin":
            content = hash_folder(Path(learner.model.path))
            tags, title = {"seed": UNSEEDED}, f"base model {learner.model.path}"
            return {"base": self._tell(models.local_model, title, {}, tags, content=content)} if content else {}
        worlds = next((s.get("worlds", 2) for s in self.config.data.sources if s["name"] == "world"), 1)
        world = self.seed % worlds
        recipe = builtin_recipe(name, self.config.limit)
        return {"base": self._tell(
            models.pretrain, f"world {world} · base model {name}", {}, {"seed": UNSEEDED},
            builtin=name, world=world, recipe=recipe,
        )}  # fmt: skip

    def fit(self, who: str, learner: Learner, labels: Stage, split: str, *, longer: int = 1) -> Stage:
        """One model on the labels of one split, asked about the suites (and, if a teacher, the transfer pool)."""
        is_student = learner is self.student
        parents = {"questions": self.questions, "labels": labels, **self.base(learner)}
        model = self.tell(
            models.fit, who, parents, tags={"kind": "model", "model": who},
            learner=learner, seed=self.seed, split=split, longer=longer, is_student=is_student,
        )  # fmt: skip
        self.ask(who, model=model, sets=("hard_test",) if is_student else ("transfer", "hard_test"))
        return model

    def ask(
        self, who: str, *, model: Stage | None = None, learner: Learner | None = None,
        sets: tuple[str, ...] = ("hard_test",), speaker: bool = True,
    ) -> dict[str, Stage]:  # fmt: skip
        """A model's opinion on its sets and, apart from it, on every further suite: a new suite adds stages only."""
        learner = None if learner is None else untrained(learner)
        origin = {"model": model} if model is not None else self.base(learner)
        kind = "opinion" if speaker else "member_opinion"
        found = {OWN: self.tell(
            models.opinion, f"{who} answers", {"questions": self.questions, **origin},
            tags={"kind": kind, "model": who}, by=who, sets=sets, learner=learner,
        )}  # fmt: skip
        for name, suite in self.suites.items():
            found[name] = self.tell(
                models.opinion, f"{who} answers {name}", {name: suite, **origin},
                tags={"kind": kind if speaker else "member_suite", "model": who}, by=who, sets=(name,), learner=learner,
            )  # fmt: skip
        if speaker:
            self.opinions[who] = found[OWN]
            who_is = learner or (self.config.learners[0] if "transfer" in sets else self.student)
            for name in self.written if who_is.model.kind == "lm" else ():
                self.write(who, name, who_is, origin, untrained=learner is not None)
        return found

    def write(self, who: str, suite: str, learner: Learner, origin: dict[str, Stage], **how: bool) -> None:
        """A language model's programs (or free-form answers) for a further suite, judged."""
        asked, gold = self.written[suite]
        evaluation = self.config.evaluation
        said = self.tell(
            writing.texts, f"{who} writes {suite}", {suite: asked, **origin}, tags={"kind": "texts", "model": who},
            on=suite, writing=self.writing(evaluation.max_new_tokens), seed=self.seed, learner=learner, **how,
            samples=evaluation.programs, temperature=evaluation.temperature,
        )  # fmt: skip
        self.judge(who, suite, said, {suite: asked, "gold": gold})

    def writing(self, max_new_tokens: int) -> dict[str, Any]:
        """How texts are written, one at a time or by several learners."""
        found = self.config.writing
        return {"max_new_tokens": max_new_tokens, "stop": found.stop, "mixture": found.mixture, "mix": found.mix}

    def judge(self, who: str, on: str, said: Stage, parents: dict[str, Stage]) -> None:
        """What was written, right or wrong. Nothing that is trained descends from this."""
        tags = {"kind": "outcomes", "model": who, "suite": on}
        self.tell(writing.judged, f"{who} judged on {on}", {"texts": said, **parents}, tags=tags, by=who, on=on)

    def boost(self, who: str, boosting: Boosting, labels: Stage) -> None:
        """The rounds, each with the one before as parent, and the committee they make."""
        config, told, shared = self.config, {}, {"questions": self.questions, "labels": labels}
        # More rounds must not change the ones that are there, nor must what weighs tokens.
        recipe = dataclasses.replace(boosting, rounds=1, tokens=Tokens())
        for index in range(boosting.rounds):
            learner = config.learners[index % len(config.learners)]
            parents = {**shared, **self.base(learner), **self.untrained(boosting, learner)}
            parents |= told if boosting.booster["name"] != "bagging" else {}
            if boosting.patience:
                parents["gold"] = self.gold["easy"]
            told[f"round-{index}"] = self.tell(
                rounds.boosting_round, f"{who} · round {index + 1}", parents,
                tags={"kind": "round", "model": who, "index": index},
                index=index, learner=learner, boosting=recipe, seed=self.seed,
                combiner=config.label.combiner if boosting.patience else None,
            )  # fmt: skip
        self.rounds[who] = told
        both = ("transfer", "hard_test")
        self.members[who] = [
            self.ask(f"{who} · learner {at + 1}", model=one, sets=both, speaker=False)
            for at, one in enumerate(told.values())
        ]
        self.combine(who, who, alphas=config.label.alphas if who == "committee" else {"name": "boosting"})

    def answer_level(self, easy: Stage) -> None:
        """Where questions have choices every round is by whole answers already."""

    def untrained(self, boosting: Boosting, learner: Learner) -> dict[str, Stage]:
        """The untrained base's opinion on easy_fit, where the booster measures rounds against it."""
        booster = boosting.booster
        if booster["name"] != "ensemw2s" or booster.get("reference", "untrained") != "untrained":
            return {}
        parents = {"questions": self.questions, **self.base(learner)}
        return {"untrained": self.tell(
            models.opinion, "the untrained base answers", parents,
            by="untrained", sets=("easy_fit",), learner=untrained(learner),
        )}  # fmt: skip

    def combine(self, who: str, learners: str, *, alphas: dict | None = None, best_alone: bool = False) -> None:
        """Many learners' opinions into one, under the name `who`."""
        told = self.rounds[learners]
        alphas = alphas or self.config.label.alphas
        voters = self.tell(
            committee.committee, f"{who} · who votes", {"gold": self.gold["easy"], **told},
            tags={"kind": "committee", "model": who},
            combiner=self.config.label.combiner, alphas=alphas, rounds=len(told),
        )  # fmt: skip
        self.voters[who] = voters
        for name in (OWN, *self.suites):
            opinions = {f"opinion-{at}": asked[name] for at, asked in enumerate(self.members[learners])}
            found = self.tell(
                committee.combined, f"{who} answers{name and f' {name}'}", {"committee": voters, **opinions},
                tags={"kind": "opinion", "model": who}, by=who, combiner=self.config.label.combiner,
                sets=(name,) if name else ("transfer", "hard_test"), best_alone=best_alone,
            )  # fmt: skip
            if not name:
                self.opinions[who] = found

    def candidates_of(self, on: str) -> dict[str, Stage]:
        """The parents that hold the candidates of a set; those of choice questions stand in the questions."""
        return {"questions": self.questions}

    def opinion_on(self, on: str) -> Stage:
        """The committee's opinion on a set: transfer, hard_test or easy_holdout, which its rounds were asked about."""
        if on != "easy_holdout":
            return self.opinions["committee"]
        rounds = {f"opinion-{at}": one for at, one in enumerate(self.rounds["committee"].values())}
        return self.tell(
            committee.combined, f"committee answers {on}", {"committee": self.voters["committee"], **rounds},
            tags={"kind": "opinion", "model": "committee"}, by="committee", combiner=self.config.label.combiner,
            sets=(on,),
        )  # fmt: skip

    def answers_of(self, who: str, opinion: Stage) -> None:
        """Somebody has this opinion on the transfer pool and the hard test."""
        self.opinions[who] = opinion

    def accept(self, who: str) -> dict[str, Any]:
        """Only where rewards had a say do they also accept or reject."""
        bound = self.config.label.reward.accept if who == REWARDED else None
        return {"accept": bound} if bound else {}

    def label(self, who: str, *, shuffled: bool = False) -> Stage:
        title = f"labels by {who}" + (", shuffled" if shuffled else "")
        parents, label = {"questions": self.questions, "opinion": self.opinions[who]}, self.config.label
        return self.tell(
            committee.pseudo_labels, title, parents, tags={"kind": "labels", "model": "shuffled" if shuffled else who},
            select=label.select, soft=label.soft, temperature=label.temperature, seed=self.seed, shuffled=shuffled,
            **self.accept(who),
        )  # fmt: skip


def untrained(learner: Learner) -> Learner:
    """The learner without what only its training depends on: its base answers the same."""
    model = dataclasses.replace(learner.model, trainable=Model.trainable, lora_rank=Model.lora_rank)
    return Learner(model, Train(max_tokens=learner.train.max_tokens))
