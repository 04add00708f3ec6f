"""Stages of boosting over written answers: a base's ranks of their tokens, one round, and the committee of writers."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from w2s.boosting import adaboost, tokens
from w2s.config.fields import Boosting, Learner
from w2s.config.registry import pick
from w2s.ensemble.ballots import Ballots
from w2s.grading.endings import final_answer
from w2s.stages import Facts, Inputs, Tools
from w2s.stages.committee import write_voters
from w2s.stages.models import find_start, rank
from w2s.stages.questions import read_in_order
from w2s.stages.rounds import FIT, BoostingRound, read_rounds
from w2s.store.records import PseudoLabels, Round, TokenRanks, TokenWeights, read_arrays, write_arrays

RIGHT, WRONG = 0, 1


def ranked(here: Path, inputs: Inputs, tools: Tools, *, learner: Learner) -> Facts:
    """How the untrained base of `learner` ranks the tokens of the easy answers: easy_fit.npz (TokenRanks)."""
    base = find_start(inputs, tools, learner)
    ranks = rank(here / "rank", tools, [[None]], [1.0], inputs["labels"] / "targets.jsonl", base=base)[0]
    write_arrays(here / "easy_fit.npz", ranks)
    return {"rows": len(ranks.ids)}


@dataclass(frozen=True)
class Answers(BoostingRound):
    """One round over written answers; the samples are tokens or whole answers."""

    mixture: str = "linear"
    """How the models of the round are mixed."""

    @property
    def targets(self) -> Path:
        return self.inputs["labels"] / "targets.jsonl"

    def read_base(self, labels: PseudoLabels) -> TokenRanks:
        """How the untrained base ranks the tokens of easy_fit."""
        return tokens.gathered([read_arrays(self.inputs["untrained"] / "easy_fit.npz", TokenRanks)], labels.ids)

    def read_weights(self, labels: PseudoLabels, path: Path | None) -> TokenWeights:
        base = self.read_base(labels)
        uniform = tokens.layout(base, tokens.uniform(base.length_N, by=self.boosting.tokens.by))
        return uniform if path is None else tokens.carry(read_arrays(path, TokenWeights), uniform)

    def make_training_weights(self, weights: TokenWeights, rows: np.ndarray) -> TokenWeights:
        chosen = tokens.take_rows(weights, rows)
        weight_T = chosen.weight_T
        if self.is_bagging:
            weight_N = tokens.by_row(chosen)[0].weight_N
            times_N = self.count_draws(weight_N) / (len(rows) * weight_N)
            weight_T = weight_T * np.repeat(times_N, chosen.length_N)
        return dataclasses.replace(chosen, weight_T=weight_T / weight_T.sum())

    def ask(self, at: int, model: Path, asked: Mapping[str, list[str] | None]) -> dict[str, TokenRanks]:
        """Ranks of the tokens of easy_fit, if asked; those of easy_holdout are found for all models together."""
        if FIT not in asked:
            return {}
        return {FIT: rank(self.here / f"rank-{at}", self.tools, [[model]], [1.0], self.targets, ids=asked[FIT])[0]}

    def gather(self, parts: Sequence[dict[str, TokenRanks]], labels: PseudoLabels) -> tuple[TokenRanks, TokenRanks]:
        models, targets = sorted(self.here.glob("fit-*/model")), self.inputs["holdout"] / "targets.jsonl"
        holdout = rank(self.here / "rank-holdout", self.tools, [models], [1.0], targets, mixture=self.mixture)[0]
        return tokens.gathered([part[FIT] for part in parts if part], labels.ids), holdout

    def update(
        self, labels: PseudoLabels, weights: TokenWeights, opinion: TokenRanks, judged_N: np.ndarray | None
    ) -> tuple[Round, TokenWeights]:
        boosting, base = self.boosting, self.read_base(labels)
        record, weight_T = tokens.token_round(
            self.index,
            self.name,
            weights.weight_T,
            tokens.wrongness(opinion.above_T, opinion.tied_T),
            opinion.length_N,
            tokens.wrongness(base.above_T, base.tied_T),
            judged_N,
            self.mark_counted(weights),
            booster=pick(adaboost.BOOSTERS, boosting.booster),
            vocabulary=opinion.vocabulary,
            by=boosting.tokens.by,
            window=boosting.tokens.window,
            cap=boosting.tokens.cap,
            share_floor=boosting.min_effective_share,
            least_share=boosting.least_effective_share,
        )
        return record, dataclasses.replace(weights, weight_T=weight_T)

    def mark_counted(self, weights: TokenWeights) -> np.ndarray | None:
        """count_T: which tokens count as right or wrong; None: all."""
        if self.boosting.tokens.count == "all":
            return None
        texts = [row.choices[0] for row in read_in_order(self.targets, weights.ids)]
        from_N = np.array([max(text.rfind(final_answer(text) or text), 0) for text in texts])
        return tokens.overlapping(weights, from_N, np.array([len(text) for text in texts]))


def token_round(
    here: Path,
    inputs: Inputs,
    tools: Tools,
    *,
    index: int,
    learner: Learner,
    boosting: Boosting,
    mixture: str,
    seed: int,
) -> Facts:
    """One round over the tokens of written answers."""
    return Answers(here, inputs, tools, index, learner, boosting, seed, mixture=mixture).run()


def writers(here: Path, inputs: Inputs, tools: Tools, *, alphas: dict, mixture: str, rounds: int) -> Facts:
    """The committee's writers and alphas: the rounds up to the best committee on easy_holdout. Writes committee.json.

    An answer is right if each token is the most probable one given the right tokens before it: then greedy decoding
    writes it. Learners with different tokenizers cannot be mixed: all rounds stay, and vote over whole answers.
    """
    records = read_rounds([inputs[f"round-{at}"] for at in range(rounds)])
    alone = [read_arrays(inputs[f"round-{record.index}"] / "easy_holdout.npz", TokenRanks) for record in records]
    wrong_RN = np.array([wrong_answers(tokens.gathered([ranks], alone[0].ids)) for ranks in alone])
    alpha_R = np.array([max(record.alpha, 0.0) for record in records])
    accuracy_R, used = [], len(records)
    if len({ranks.tokenizer for ranks in alone}) == 1 and alpha_R.any():
        models = [sorted(inputs[f"round-{record.index}"].glob("fit-*/model")) for record in records]
        targets = inputs["holdout"] / "targets.jsonl"
        mixed = rank(here / "rank", tools, models, alpha_R, targets, mixture=mixture)
        accuracy_R = [1 - wrong_answers(ranks).mean() for ranks in mixed]
        used = adaboost.best_rounds(accuracy_R)
    gold_N = np.full(wrong_RN.shape[1], RIGHT)
    ballots = Ballots(np.where(wrong_RN > 0.5, WRONG, RIGHT), wrong_RN, gold_N, np.full(len(gold_N), 2))
    return write_voters(here, records, used, ballots, alphas, np.array(accuracy_R))


def wrong_answers(ranks: TokenRanks) -> np.ndarray:
    """wrong_N, 0 to 1: how wrong each row's whole answer is."""
    return tokens.answer_wrong(tokens.wrongness(ranks.above_T, ranks.tied_T), ranks.length_N)
