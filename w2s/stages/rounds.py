"""One boosting round as a stage: its skeleton, and what is particular to questions with choices."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from w2s.boosting import adaboost, diagnostics
from w2s.config.fields import Boosting, Learner
from w2s.config.registry import pick
from w2s.data.difficulty import folds as assign_folds
from w2s.ensemble.combiners import COMBINERS
from w2s.stages import Facts, Inputs, Tools
from w2s.stages.models import ask_model, base_folder, costs, fit_model, mean_opinion
from w2s.stages.questions import answers, as_targets
from w2s.store.files import write_json
from w2s.store.records import (
    Predictions,
    PseudoLabels,
    Round,
    TokenWeights,
    Weights,
    align,
    concatenate,
    read_arrays,
    take,
    write_arrays,
    write_rows,
)


@dataclass(frozen=True)
class RoundStage:
    """The folder, parents, tools and options of one round's stage."""

    here: Path
    inputs: Inputs
    tools: Tools
    index: int
    learner: Learner
    boosting: Boosting
    seed: int

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
        """How often each row is in the round's bootstrap sample of as many rows."""
        size = len(weight_N)
        return np.bincount(adaboost.bootstrap(weight_N, size, self.round_seed), minlength=size)


class SampleKind(Protocol):
    """What a round does in its own way for each kind of samples: `Rows` here, `Answers` in stages.tokens.

    `targets`: the file of examples that the labels are about.
    """

    @property
    def targets(self) -> Path: ...

    def read_weights(self, labels: PseudoLabels, path: Path | None) -> Weights | TokenWeights:
        """The weights that the round before wrote to `path`, in the order of the labels; None: uniform ones."""

    def make_training_weights(self, weights: Any, rows: np.ndarray) -> Weights | TokenWeights:
        """The weights (sum 1) of the rows that one model trains on; for bagging, of a bootstrap sample of them."""

    def ask(self, fold: int, model: Path, ids: list[str] | None) -> Any:
        """What the model says of these rows of easy_fit; None: of all."""

    def gather(self, parts: Sequence[Any], labels: PseudoLabels) -> tuple[Any, Any]:
        """What the round says of easy_fit, in the order of the labels, and of easy_holdout."""

    def update(
        self, labels: PseudoLabels, weights: Any, opinion: Any, judged_N: np.ndarray | None
    ) -> tuple[Round, Weights | TokenWeights]:
        """The round's record and the weights of the next round. judged_N: the rows whose errors count; None: all."""

    def watch(self, record: Round, earlier: Sequence[Round], holdout: Any) -> Round:
        """The record, with a reason to stop if the committee no longer improves on easy_holdout."""


def run_round(stage: RoundStage, kind: SampleKind) -> Facts:
    """One round: fit on the weighted samples, judge rows not trained on, find an alpha and the next weights.

    Writes round.json, weights.npz (for the next round), and what the round says of easy_fit (out of fold) and of
    easy_holdout. If an earlier round stopped the boosting, round.json is null.
    """
    here, inputs = stage.here, stage.inputs
    parents = [inputs[role] for at in range(stage.index) if (role := f"round-{at}") in inputs]  # bagging has none
    earlier = read_rounds(parents)
    if any(record.stop for record in earlier):
        write_json(here / "round.json", None)
        return {"skipped": earlier[-1].stop}
    labels = read_arrays(inputs["labels"] / "labels.npz", PseudoLabels)
    weights = kind.read_weights(labels, parents[-1] / "weights.npz" if parents else None)
    parts, judged_N, facts = fit_and_ask(stage, kind, labels, weights)
    opinion, holdout = kind.gather(parts, labels)
    record, weights = kind.update(labels, weights, opinion, judged_N)
    write_arrays(here / "weights.npz", weights)
    write_arrays(here / "easy_fit.npz", opinion)
    write_arrays(here / "easy_holdout.npz", holdout)
    record = kind.watch(record, earlier, holdout)
    write_json(here / "round.json", asdict(record))
    return {**asdict(record), **costs(facts)}


def fit_and_ask(
    stage: RoundStage, kind: SampleKind, labels: PseudoLabels, weights: Weights | TokenWeights
) -> tuple[list[Any], np.ndarray | None, list[dict]]:
    """Fits the round's models as `boosting.errors` asks: what each says, judged_N, and each one's training facts.

    judged_N: the rows whose errors count; None: all.
    """
    boosting = stage.boosting
    fold_N = assign_folds(labels.ids, boosting.folds, stage.round_seed)
    # The fold that each model does not train on; None: it trains on all rows.
    held_out = {
        "cross_fit": list(range(boosting.folds)),
        "rotate": [stage.index % boosting.folds],
        "in_sample": [None],
    }[boosting.errors]
    parts, facts = [], []
    for at, fold in enumerate(held_out):
        rows = np.arange(len(fold_N)) if fold is None else np.flatnonzero(fold_N != fold)
        done = fit_model(
            stage.here / f"fit-{at}",
            stage.tools,
            learner=stage.learner,
            base=base_folder(stage.inputs, stage.learner),
            seed=stage.round_seed * 10 + at,
            examples=kind.targets,
            labels=take(labels, rows),
            weights=kind.make_training_weights(weights, rows),
            weighting=boosting.weighting,
        )
        facts.append(done)
        # Cross-fitted, what the round says of a row is what the model says that did not train on it.
        ids = labels.ids[fold_N == fold].tolist() if boosting.errors == "cross_fit" else None
        parts.append(kind.ask(at, stage.here / f"fit-{at}" / "model", ids))
    return parts, fold_N == held_out[0] if boosting.errors == "rotate" else None, facts


def read_round(folder: Path) -> Round | None:
    """The round's record; None if an earlier round stopped the boosting."""
    values = json.loads((folder / "round.json").read_text())
    return None if values is None else Round(**values)


def read_rounds(folders: Sequence[Path]) -> list[Round]:
    """The records of the rounds that took place."""
    return [record for folder in folders if (record := read_round(folder)) is not None]


@dataclass(frozen=True)
class Rows:
    """Boosting of questions with choices: whole rows are the samples. `combiner`: needed with patience."""

    stage: RoundStage
    combiner: dict | None

    @property
    def targets(self) -> Path:
        return self.stage.inputs["questions"] / "easy_fit.jsonl"

    def read_weights(self, labels: PseudoLabels, path: Path | None) -> Weights:
        if path is None:
            return Weights(labels.ids, np.full(len(labels.ids), 1 / len(labels.ids)))
        return align(read_arrays(path, Weights), labels.ids)

    def make_training_weights(self, weights: Weights, rows: np.ndarray) -> Weights:
        chosen = take(weights, rows)
        weight_N = chosen.weight_N
        if self.stage.is_bagging:
            weight_N = self.stage.count_draws(weight_N) / len(rows)
        return dataclasses.replace(chosen, weight_N=weight_N / weight_N.sum())

    def ask(self, fold: int, model: Path, ids: list[str] | None) -> dict[str, Predictions]:
        stage = self.stage
        sets = {name: stage.inputs["questions"] / f"{name}.jsonl" for name in ("easy_fit", "easy_holdout")}
        only = None if ids is None else {"easy_fit": ids}
        return ask_model(stage.here / f"ask-{fold}", stage.tools, sets=sets, by=stage.name, model=model, only=only)

    def gather(self, parts: Sequence[dict[str, Predictions]], labels: PseudoLabels) -> tuple[Predictions, Predictions]:
        opinion = align(concatenate([part["easy_fit"] for part in parts]), labels.ids)
        return opinion, mean_opinion([part["easy_holdout"] for part in parts])

    def update(
        self, labels: PseudoLabels, weights: Weights, opinion: Predictions, judged_N: np.ndarray | None
    ) -> tuple[Round, Weights]:
        stage, boosting, gold_N = self.stage, self.stage.boosting, labels.target_NK.argmax(1)
        untrained_N = None
        if "untrained" in stage.inputs:
            base = align(read_arrays(stage.inputs["untrained"] / "easy_fit.npz", Predictions), labels.ids)
            untrained_N = adaboost.wrongness(base.probs_NK, base.mask_NK, gold_N)
        wrong_N = adaboost.wrongness(opinion.probs_NK, opinion.mask_NK, gold_N)
        record, weight_N = adaboost.boosting_round(
            stage.index,
            stage.name,
            adaboost.Samples(weights.weight_N, wrong_N, opinion.mask_NK.sum(1), untrained_N, judged_N),
            booster=pick(adaboost.BOOSTERS, boosting.booster),
            share_floor=boosting.min_effective_share,
            least_share=boosting.least_effective_share,
        )
        return record, Weights(labels.ids, weight_N)

    def watch(self, record: Round, earlier: Sequence[Round], holdout: Predictions) -> Round:
        inputs, patience = self.stage.inputs, self.stage.boosting.patience
        if patience is None or record.stop:
            return record
        opinions = [read_arrays(inputs[f"round-{one.index}"] / "easy_holdout.npz", Predictions) for one in earlier]
        accuracy_R = accuracy_by_rounds([*opinions, holdout], [*earlier, record], self.combiner, inputs["gold"])
        return dataclasses.replace(record, stop=adaboost.stale_reason(accuracy_R, patience=patience))


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
    """One round over questions with choices (`run_round`); `combiner` is needed if boosting has patience."""
    stage = RoundStage(here, inputs, tools, index, learner, boosting, seed)
    return run_round(stage, Rows(stage, combiner))


def accuracy_by_rounds(
    opinions: Sequence[Predictions], rounds: Sequence[Round], combiner: dict, gold_folder: Path
) -> np.ndarray:
    """The committee's accuracy on easy_holdout after 1, 2, ... rounds."""
    first, probs_RNK, abstained_RN = stack(opinions)
    gold_N = read_gold(first, gold_folder)
    alpha_R = np.array([max(record.alpha, 0.0) for record in rounds])
    combine = pick(COMBINERS, combiner)
    return diagnostics.accuracy_by_rounds(probs_RNK, first.mask_NK, alpha_R, gold_N, abstained_RN, combiner=combine)


def stack(opinions: Sequence[Predictions]) -> tuple[Predictions, np.ndarray, np.ndarray]:
    """The first opinion, and probs_RNK and abstained_RN of all in its order."""
    first = opinions[0]
    aligned = [align(opinion, first.ids) for opinion in opinions]
    return first, np.array([one.probs_NK for one in aligned]), np.array([one.abstained_N for one in aligned])


def read_gold(opinion: Predictions, gold_folder: Path) -> np.ndarray:
    """gold_N: the right positions of the opinion's rows."""
    answer = answers(gold_folder)
    return np.array([answer[key] for key in opinion.ids.tolist()])


def cross_fitted(
    here: Path, inputs: Inputs, tools: Tools, *, learner: Learner, folds: int, seed: int, content: str
) -> Facts:
    """How a learner that never trained on a question judges it, for every question of the run: pool.npz.

    This difficulty sees the gold of every question, the transfer pool's included; the report of such a run says so.
    """
    examples, gold = tools.rows(seed)
    examples = list({example.id: example for example in examples}.values())
    write_rows(here / "pool.jsonl", examples)
    labels = as_targets(examples, {row.id: row.answer for row in gold})
    fold_N = assign_folds(labels.ids, folds, seed)
    opinions, facts = [], []
    for fold in range(folds):
        write_rows(here / f"fold-{fold}.jsonl", [examples[at] for at in np.flatnonzero(fold_N == fold)])
        done = fit_model(
            here / f"fit-{fold}",
            tools,
            learner=learner,
            base=base_folder(inputs, learner),
            seed=seed * 1000 + fold,
            examples=here / "pool.jsonl",
            labels=take(labels, np.flatnonzero(fold_N != fold)),
        )
        facts.append(done)
        sets, model = {"pool": here / f"fold-{fold}.jsonl"}, here / f"fit-{fold}" / "model"
        opinions.append(ask_model(here / f"ask-{fold}", tools, sets=sets, by="cross_fitted", model=model)["pool"])
    write_arrays(here / "pool.npz", concatenate(opinions))
    return {"rows": len(examples), **costs(facts)}
