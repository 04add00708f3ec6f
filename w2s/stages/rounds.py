"""One boosting round as a stage, and questions' difficulty by cross-fitted learners."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from w2s.boosting import adaboost, diagnostics
from w2s.boosting.tokens import by_row
from w2s.config.fields import Boosting, Learner
from w2s.config.registry import pick
from w2s.data.difficulty import folds as assign_folds
from w2s.ensemble.combiners import COMBINERS
from w2s.stages import Facts, Inputs, Tools
from w2s.stages.costs import refits
from w2s.stages.models import LABELS, ask_model, base_folder, costs, find_start, fit_model, mean_opinion, states_folder
from w2s.stages.questions import as_targets, read_gold
from w2s.store.files import write_json
from w2s.store.records import (
    Predictions,
    PseudoLabels,
    Round,
    TokenWeights,
    Weights,
    align,
    concatenate,
    load_arrays,
    read_arrays,
    take,
    write_arrays,
    write_rows,
)
from w2s.workers.job import Finetune

FIT, HOLDOUT = "easy_fit", "easy_holdout"


@dataclass(frozen=True)
class BoostingRound:
    """One round over questions with choices; the samples are rows. `stages.tokens` overrides what differs for written
    answers."""

    here: Path
    inputs: Inputs
    tools: Tools
    index: int
    learner: Learner
    boosting: Boosting
    seed: int
    combiner: dict | None = None
    """Required with patience."""

    @property
    def name(self) -> str:
        return f"round-{self.index}"

    @property
    def round_seed(self) -> int:
        return self.seed * 1000 + self.index

    @property
    def is_bagging(self) -> bool:
        return self.boosting.booster["name"] == "bagging"

    def count_draws(self, weight_N: np.ndarray) -> np.ndarray:
        """How often each row is in the round's bootstrap sample, which has as many rows."""
        size = len(weight_N)
        return np.bincount(adaboost.bootstrap(weight_N, size, self.round_seed), minlength=size)

    def run(self) -> Facts:
        """Fit on the weighted samples, judge rows not trained on, and find an alpha and the next weights.

        The models that speak for the round are fit-0, fit-1, ...; with `boosting.refit`, fit-0 is fitted on all rows,
        and fold-0, fold-1, ... only judge the rows they have not seen.

        Writes round.json, weights.npz (for the next round), and the round's predictions on easy_fit (out of fold) and
        easy_holdout. If an earlier round stopped the boosting, round.json is null.
        """
        here, inputs = self.here, self.inputs
        parents = [inputs[role] for at in range(self.index) if (role := f"round-{at}") in inputs]  # bagging has none
        earlier = read_rounds(parents)
        if any(record.stop for record in earlier):
            write_json(here / "round.json", None)
            return {"skipped": earlier[-1].stop}
        labels = read_arrays(inputs["labels"] / LABELS, PseudoLabels)
        weights = self.read_weights(labels, parents[-1] / "weights.npz" if parents else None)
        parts, judged_N, facts = self.fit_and_ask(labels, weights)
        opinion, holdout = self.gather(parts, labels)
        record, weights = self.update(labels, weights, opinion, judged_N)
        write_arrays(here / "weights.npz", weights)
        write_arrays(here / "easy_fit.npz", opinion)
        write_arrays(here / "easy_holdout.npz", holdout)
        record = self.watch(record, earlier, holdout)
        write_json(here / "round.json", asdict(record))
        return {**asdict(record), **costs(facts), "refit": refits(self.boosting, len(labels.ids))}

    def fit_and_ask(self, labels: PseudoLabels, weights: Any) -> tuple[list[dict], np.ndarray | None, list[dict]]:
        """Fit the round's models as `boosting` says; returns their predictions by set, judged_N and training facts.

        judged_N: the rows whose errors count; None: all.
        """
        errors, folds = self.boosting.errors, self.boosting.folds
        fold_N, again = assign_folds(labels.ids, folds, self.round_seed), refits(self.boosting, len(labels.ids))
        # The fold that each model does not train on; None: it trains on all rows.
        held_out = {"cross_fit": list(range(folds)), "rotate": [self.index % folds], "in_sample": [None]}[errors]
        models = [(f"fold-{fold}" if again else f"fit-{at}", fold) for at, fold in enumerate(held_out)]
        models += [("fit-0", None)] if again else []
        base = find_start(self.inputs, self.tools, self.learner)
        job = Finetune(base.learner, 0, str(self.targets), LABELS, base.path)
        job = dataclasses.replace(job, weighting=self.boosting.weighting, runtime=self.tools.runtime)
        job = dataclasses.replace(job, states=states_folder(self.inputs))
        parts, facts = [], []
        for at, (name, fold) in enumerate(models):
            folder, job = self.here / name, dataclasses.replace(job, seed=self.round_seed * 10 + at)
            rows = np.arange(len(fold_N)) if fold is None else np.flatnonzero(fold_N != fold)
            chosen_weights = self.make_training_weights(weights, rows)
            facts.append(fit_model(folder, self.tools, job, take(labels, rows), chosen_weights))
            # With cross-fitting, a row's prediction is that of the model that did not train on it.
            ids = labels.ids[fold_N == fold].tolist() if errors == "cross_fit" else None
            judges, speaks = fold is not None or not again, fold is None or not again
            asked = ({FIT: ids} if judges else {}) | ({HOLDOUT: None} if speaks else {})
            parts.append(self.ask(at, folder / "model", asked))
        return parts, fold_N == held_out[0] if errors == "rotate" else None, facts

    @property
    def targets(self) -> Path:
        """The file of the labelled examples."""
        return self.inputs["questions"] / "easy_fit.jsonl"

    def read_weights(self, labels: PseudoLabels, path: Path | None) -> Weights:
        """The weights that the previous round wrote to `path`, in the order of the labels; None: uniform ones."""
        if path is None:
            return Weights(labels.ids, np.full(len(labels.ids), 1 / len(labels.ids)))
        return align(read_arrays(path, Weights), labels.ids)

    def make_training_weights(self, weights: Weights, rows: np.ndarray) -> Weights:
        """The weights (sum 1) of the rows that one model trains on; for bagging, of a bootstrap sample of them."""
        chosen = take(weights, rows)
        weight_N = chosen.weight_N
        if self.is_bagging:
            weight_N = self.count_draws(weight_N) / len(rows)
        return dataclasses.replace(chosen, weight_N=weight_N / weight_N.sum())

    def ask(self, at: int, model: Path, asked: Mapping[str, list[str] | None]) -> dict[str, Predictions]:
        """The model's predictions on the sets in `asked`, each limited to these ids (None: all rows)."""
        sets = {name: self.inputs["questions"] / f"{name}.jsonl" for name in asked}
        only, states = {name: ids for name, ids in asked.items() if ids is not None}, states_folder(self.inputs)
        return ask_model(self.here / f"ask-{at}", self.tools, model, sets, self.name, only or None, states)

    def gather(self, parts: Sequence[dict[str, Predictions]], labels: PseudoLabels) -> tuple[Predictions, Predictions]:
        """The round's predictions on easy_fit, in the order of the labels, and on easy_holdout."""
        fit, holdout = ([part[name] for part in parts if name in part] for name in (FIT, HOLDOUT))
        return align(concatenate(fit), labels.ids), mean_opinion(holdout)

    def update(
        self, labels: PseudoLabels, weights: Weights, opinion: Predictions, judged_N: np.ndarray | None
    ) -> tuple[Round, Weights]:
        """The round's record and the weights of the next round. judged_N: the rows whose errors count; None: all."""
        boosting, gold_N, untrained_N = self.boosting, labels.target_NK.argmax(1), None
        if "untrained" in self.inputs:
            base = align(read_arrays(self.inputs["untrained"] / "easy_fit.npz", Predictions), labels.ids)
            untrained_N = adaboost.wrongness(base.probs_NK, base.mask_NK, gold_N)
        wrong_N = adaboost.wrongness(opinion.probs_NK, opinion.mask_NK, gold_N)
        record, weight_N = adaboost.boosting_round(
            self.index,
            self.name,
            adaboost.Samples(weights.weight_N, wrong_N, opinion.mask_NK.sum(1), untrained_N, judged_N),
            booster=pick(adaboost.BOOSTERS, boosting.booster),
            share_floor=boosting.min_effective_share,
            least_share=boosting.least_effective_share,
        )
        return record, Weights(labels.ids, weight_N)

    def watch(self, record: Round, earlier: Sequence[Round], holdout: Predictions) -> Round:
        """The record, with a reason to stop if the committee has not improved on easy_holdout for `patience` rounds."""
        inputs, patience = self.inputs, self.boosting.patience
        if patience is None or record.stop:
            return record
        opinions = [read_arrays(inputs[f"round-{past.index}"] / "easy_holdout.npz", Predictions) for past in earlier]
        accuracy_R = accuracy_by_rounds([*opinions, holdout], [*earlier, record], self.combiner, inputs["gold"])
        return dataclasses.replace(record, stop=adaboost.stale_reason(accuracy_R, patience=patience))


def read_round(folder: Path) -> Round | None:
    """The round's record; None if an earlier round stopped the boosting."""
    values = json.loads((folder / "round.json").read_text())
    return None if values is None else Round(**values)


def read_rounds(folders: Sequence[Path]) -> list[Round]:
    """The records of the rounds that ran."""
    return [record for folder in folders if (record := read_round(folder)) is not None]


def row_weights(folder: Path) -> Weights:
    """The weight of each question after the round in `folder`; the sum over its tokens if these have weights."""
    path = folder / "weights.npz"
    if "weight_T" not in load_arrays(path):
        return read_arrays(path, Weights)
    return by_row(read_arrays(path, TokenWeights))[0]


def boosting_round(
    here: Path,
    inputs: Inputs,
    tools: Tools,
    *,
    index: int,
    learner: Learner,
    boosting: Boosting,
    combiner: dict | None,
    seed: int,
) -> Facts:
    """One round over questions with choices; `combiner` is required if boosting has patience."""
    return BoostingRound(here, inputs, tools, index, learner, boosting, seed, combiner).run()


def accuracy_by_rounds(
    opinions: Sequence[Predictions], rounds: Sequence[Round], combiner: dict, gold_folder: Path
) -> np.ndarray:
    """The committee's accuracy on easy_holdout after 1, 2, ... rounds."""
    first, probs_RNK, abstained_RN = stack(opinions)
    gold_N = find_answers(first, gold_folder)
    alpha_R = np.array([max(record.alpha, 0.0) for record in rounds])
    combine = pick(COMBINERS, combiner)
    return diagnostics.accuracy_by_rounds(probs_RNK, first.mask_NK, alpha_R, gold_N, abstained_RN, combiner=combine)


def stack(opinions: Sequence[Predictions]) -> tuple[Predictions, np.ndarray, np.ndarray]:
    """The first opinion, and probs_RNK and abstained_RN of all, in its order."""
    first = opinions[0]
    aligned = [align(opinion, first.ids) for opinion in opinions]
    return first, np.array([row.probs_NK for row in aligned]), np.array([row.abstained_N for row in aligned])


def find_answers(opinion: Predictions, gold_folder: Path) -> np.ndarray:
    """gold_N: the position of the right choice in each of the opinion's rows."""
    gold = read_gold(gold_folder)
    return np.array([gold[key].answer for key in opinion.ids.tolist()])


def cross_fitted(
    here: Path, inputs: Inputs, tools: Tools, *, learner: Learner, folds: int, seed: int, content: str
) -> Facts:
    """For every question of the run, the opinion of a learner that was not trained on it: pool.npz.

    This difficulty uses the gold of every question, including the transfer pool's; the run's report says so.
    """
    examples, gold = tools.rows(seed)
    examples = list({example.id: example for example in examples}.values())
    write_rows(here / "pool.jsonl", examples)
    labels = as_targets(examples, {row.id: row.answer for row in gold})
    fold_N = assign_folds(labels.ids, folds, seed)
    opinions, facts = [], []
    for fold in range(folds):
        write_rows(here / f"fold-{fold}.jsonl", [examples[at] for at in np.flatnonzero(fold_N == fold)])
        path, folder = str(here / "pool.jsonl"), here / f"fit-{fold}"
        base, states = base_folder(inputs, tools, learner), states_folder(inputs)
        job = Finetune(learner, seed * 1000 + fold, path, LABELS, base, states=states, runtime=tools.runtime)
        facts.append(fit_model(folder, tools, job, take(labels, np.flatnonzero(fold_N != fold))))
        sets, model = {"pool": here / f"fold-{fold}.jsonl"}, folder / "model"
        asked = ask_model(here / f"ask-{fold}", tools, model, sets, "cross_fitted", states=states)
        opinions.append(asked["pool"])
    write_arrays(here / "pool.npz", concatenate(opinions))
    return {"rows": len(examples), **costs(facts)}
