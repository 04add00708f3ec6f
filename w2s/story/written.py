"""The stages of one seed for questions without choices: answers and programs that models write, token by token.

What differs from `story.Story`: rounds weigh the tokens of the right answers; a committee writes with its learners'
next tokens mixed, or votes over the whole answers that they sampled; texts are judged in stages of their own.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from w2s.config.fields import Boosting, Learner
from w2s.stages import committee, labels, models, tokens, writing
from w2s.store.artifacts import Stage
from w2s.store.records import BadInput, Example
from w2s.story.checks import check_written
from w2s.story.choices import Story, untrained

POOL, TEST = "transfer", "hard_test"
LABELLERS = ("committee", "floor")  # only their texts become labels, so only they write for the transfer pool


def is_written(examples: Sequence[Example]) -> bool:
    """Whether the questions have no choices; some of both is a BadInput."""
    tasks = {row.task for row in examples}
    if "choice" in tasks and len(tasks) > 1:
        raise BadInput("data.sources: questions with choices and without in one run; give each kind a run of its own")
    return "choice" not in tasks


class WrittenStory(Story):
    """`opinions[who]` is what somebody wrote for the transfer pool, or a committee's vote over sampled candidates."""

    def split_questions(self) -> None:
        check_written(self.config)
        super().split_questions()
        self.holdout = self.gold_targets("easy_holdout")
        self.candidates: dict[str, Stage] = {}

    def ask(
        self, who: str, *, model: Stage | None = None, learner: Learner | None = None, sets: tuple[str, ...] = (TEST,),
    ) -> None:  # fmt: skip
        """What a model writes for its sets and for every further suite, judged; its opinion on suites with choices."""
        of = learner or (self.config.learners[0] if POOL in sets else self.student)
        origin = self.base(of) | ({} if model is None else {"model": model})
        for on in sets if who in LABELLERS else (TEST,):
            said = self.texts(who, on, origin, of, untrained=model is None)
            if on == POOL:
                self.opinions[who] = said
        for name in self.written:
            self.write(who, name, untrained(of), origin, untrained=model is None)
        for name, suite in self.suites.items():
            self.tell(
                models.opinion, f"{who} answers {name}", {name: suite, **origin},
                tags={"kind": "opinion", "model": who}, by=who, sets=(name,),
                learner=untrained(of) if model is None else None,
            )  # fmt: skip

    def texts(self, who: str, on: str, origin: dict[str, Stage], of: Learner, *, kind: str = "texts", **how) -> Stage:
        """What somebody writes for the transfer pool or the hard test; the latter is judged."""
        verb = "samples" if kind == "samples" else "writes"
        said = self.tell(
            writing.texts, f"{who} {verb} {on}", {"questions": self.questions, **origin},
            tags={"kind": kind, "model": who}, on=on, writing=self.writing(self.config.writing.max_new_tokens),
            seed=self.seed, learner=untrained(of), one_base=self.one_base() or of is self.student, **how,
        )  # fmt: skip
        if on == TEST and kind == "texts":
            self.judge(who, on, said, {"questions": self.questions, "gold": self.gold[TEST]})
        return said

    def one_base(self) -> bool:
        """Whether all learners begin as the same model, asked in the same words: then their adapters can share it."""
        models = [one.model for one in self.config.learners]
        starts = {json.dumps([one.path, one.revision, one.layers, one.prompt], sort_keys=True) for one in models}
        return len(starts) == 1

    def boost(self, who: str, boosting: Boosting, labels: Stage) -> None:
        """The rounds over the tokens of the easy answers, and the committee they make."""
        config, told = self.config, {}
        recipe = dataclasses.replace(boosting, rounds=1)  # more rounds must not change the ones that are there
        for index in range(boosting.rounds):
            learner = config.learners[index % len(config.learners)]
            base = self.base(learner)
            parents = {"labels": labels, "holdout": self.holdout, **base}
            parents["untrained"] = self.tell(
                tokens.ranked, "the untrained base ranks the easy answers", {"labels": labels, **base},
                learner=untrained(learner),
            )  # fmt: skip
            parents |= told if boosting.booster["name"] != "bagging" else {}
            told[f"round-{index}"] = self.tell(
                tokens.token_round, f"{who} · round {index + 1}", parents,
                tags={"kind": "round", "model": who, "index": index},
                index=index, learner=learner, boosting=recipe, mixture=config.writing.mixture, seed=self.seed,
            )  # fmt: skip
        self.rounds[who] = told
        self.combine(who, who, alphas=config.label.alphas if who == "committee" else {"name": "boosting"})

    def answer_level(self, easy: Stage) -> None:
        """Learners boosted by whole answers, which vote over whole answers."""
        by_answer = dataclasses.replace(self.config.boosting.tokens, by="answer", window=0)
        self.boost("answer_level", dataclasses.replace(self.config.boosting, tokens=by_answer), easy)

    def combine(self, who: str, learners: str, *, alphas: dict | None = None, best_alone: bool = False) -> None:
        """Many learners as one, under the name `who`: writing together, or voting over the answers they sampled."""
        config, told = self.config, self.rounds[learners]
        voters = self.tell(
            tokens.writers, f"{who} · who writes", {"holdout": self.holdout, **told},
            tags={"kind": "committee", "model": who},
            alphas=alphas or config.label.alphas, mixture=config.writing.mixture, rounds=len(told),
        )  # fmt: skip
        self.voters[who] = voters
        together = {"committee": voters, **told, **self.base(config.learners[0])}
        by_vote = who == "answer_level" or (config.label.made == "winner" and not best_alone)
        for on in (POOL, TEST) if who in LABELLERS else (TEST,):
            if by_vote:
                self.vote(who, learners, on)
                continue
            top = config.label.top if config.label.made == "distribution" and on == POOL else 0
            said = self.texts(who, on, together, config.learners[0], best_alone=best_alone, top=top)
            if on == POOL:
                self.opinions[who] = said
        for name in () if by_vote else self.written:
            how = {"untrained": False, "best_alone": best_alone, "one_base": self.one_base()}
            self.write(who, name, untrained(config.learners[0]), together, **how)
        if who == "committee":
            self.members[who] = [self.member(who, at, POOL) for at in range(len(told))]

    def member(self, learners: str, at: int, on: str, **how) -> Stage:
        """One round's own text for each question, or its samples."""
        of = self.config.learners[at % len(self.config.learners)]
        origin = {"model": self.rounds[learners][f"round-{at}"], **self.base(of)}
        kind = "samples" if how else "member_texts"
        return self.texts(f"{learners} · learner {at + 1}", on, origin, of, kind=kind, **how)

    def sampled(self, who: str, learners: str, on: str) -> Stage:
        """The different answers that each learner's samples come to."""
        how = {"samples": self.config.writing.samples, "temperature": self.config.writing.temperature}
        told = {f"texts-{at:02}": self.member(learners, at, on, **how) for at in range(len(self.rounds[learners]))}
        return self.tell(
            writing.candidates, f"{who} · candidates of {on}", {"questions": self.questions, **told},
            tags={"kind": "candidates", "model": who}, on=on,
        )  # fmt: skip

    def vote(self, who: str, learners: str, on: str) -> None:
        """Each learner samples answers, all score all of them, and the combiner decides."""
        opinion, found = self.voted_on(who, learners, on)
        self.answer(who, on, opinion, found)
        if on != TEST:
            self.opinions[who], self.candidates[who] = opinion, found

    def voted_on(self, who: str, learners: str, on: str) -> tuple[Stage, Stage]:
        """The learners' vote over the candidates of a set, and these."""
        found, config = self.sampled(who, learners, on), self.config
        opinions = {
            f"opinion-{at}": self.tell(
                models.opinion, f"{who} · learner {at + 1} scores {on}", {on: found, "model": one},
                tags={"kind": "member_opinion", "model": f"{who} · learner {at + 1}"},
                by=f"{who} · learner {at + 1}", sets=(on,), learner=None,
            )
            for at, one in enumerate(self.rounds[learners].values())
        }  # fmt: skip
        opinion = self.tell(
            committee.combined, f"{who} votes on {on}", {"committee": self.voters[who], **opinions},
            tags={"kind": "opinion", "model": who}, by=who, combiner=config.label.combiner, sets=(on,),
        )  # fmt: skip
        return opinion, found

    def answer(self, who: str, on: str, opinion: Stage, found: Stage) -> None:
        """The most probable candidates as texts; those for the hard test are judged."""
        said = self.tell(
            writing.winners, f"{who} answers {on}", {"opinion": opinion, "candidates": found},
            tags={"kind": "texts", "model": who}, on=on,
        )  # fmt: skip
        if on == TEST:
            self.judge(who, on, said, {"questions": self.questions, "gold": self.gold[TEST]})

    def candidates_of(self, on: str) -> dict[str, Stage]:
        return {on: self.sampled("committee", "committee", on)}

    def opinion_on(self, on: str) -> Stage:
        return self.voted_on("committee", "committee", on)[0]

    def answers_of(self, who: str, opinion: Stage) -> None:
        self.opinions[who], self.candidates[who] = opinion, self.candidates_of(POOL)[POOL]
        self.answer(who, TEST, opinion, self.candidates_of(TEST)[TEST])

    def label(self, who: str, *, shuffled: bool = False) -> Stage:
        label, parents, how = self.config.label, {"questions": self.questions}, {}
        if who in self.candidates:
            parents |= {"opinion": self.opinions[who], "candidates": self.candidates[who]}
            how = {"soft": label.soft, "temperature": label.temperature, **self.accept(who)}
        else:
            parents["texts"] = self.opinions[who]
            if label.select["name"] == "agreement" and who == "committee":
                parents |= {f"texts-{at:02}": one for at, one in enumerate(self.members["committee"])}
        return self.tell(
            labels.written_labels, f"labels by {who}" + (", shuffled" if shuffled else ""), parents,
            tags={"kind": "labels", "model": "shuffled" if shuffled else who}, select=label.select,
            check_examples=label.check_examples, seed=self.seed, shuffled=shuffled, **how,
        )  # fmt: skip
