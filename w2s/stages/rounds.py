"""The stage of one boosting round."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from w2s.boosting import adaboost, diagnostics
from w2s.config.fields import Boosting, Learner
from w2s.config.registry import pick
from w2s.data.difficulty import folds as fold_of
from w2s.ensemble.combiners import COMBINERS
from w2s.stages import Facts, Inputs, Tools
from w2s.stages.models import ask_model, base_folder, costs, fit_model, mean_opinion
from w2s.stages.questions import answers, as_targets
from w2s.store.files import write_json
from w2s.store.records import (
    Predictions,
    PseudoLabels,
    Round,
    Weights,
    align,
    read_arrays,
    take,
    write_arrays,
    write_rows,
)


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
    """One round: fit on the weighted rows, judge on rows not trained on, give an alpha and the next weights.

    Writes round.json, weights.npz (for the next round), and its opinions `easy_fit.npz` (out of fold) and
    `easy_holdout.npz`. `combiner` is needed where boosting has patience. After a round that stopped the boosting it
    only says so.
    """
    told = [read_round(inputs[f"round-{at}"]) for at in range(index) if f"round-{at}" in inputs]  # bagging has none
    rounds = [one for one in told if one is not None]
    if any(one.stop for one in rounds):
        write_json(here / "round.json", None)
        return {"skipped": rounds[-1].stop}
    labels = read_arrays(inputs["labels"] / "labels.npz", PseudoLabels)
    ids, gold_N = labels.ids, labels.target_NK.argmax(1)
    weights = Weights(ids, np.full(len(ids), 1 / len(ids)))
    if rounds:
        weights = align(read_arrays(inputs[f"round-{index - 1}"] / "weights.npz", Weights), ids)
    opinion, holdout, judged_N, facts = fit_and_judge(
        here, inputs, tools, index=index, learner=learner, boosting=boosting, labels=labels, weights=weights, seed=seed
    )
    opinion = align(opinion, ids)
    untrained = None
    if "untrained" in inputs:
        base = align(read_arrays(inputs["untrained"] / "easy_fit.npz", Predictions), ids)
        untrained = adaboost.wrongness(base.probs_NK, base.mask_NK, gold_N)
    found, new_N = adaboost.boosting_round(
        index,
        f"round-{index}",
        weights.weight_N,
        adaboost.wrongness(opinion.probs_NK, opinion.mask_NK, gold_N),
        opinion.mask_NK.sum(1),
        untrained,
        judged_N,
        booster=pick(adaboost.BOOSTERS, boosting.booster),
        share_floor=boosting.min_effective_share,
        least_share=boosting.least_effective_share,
    )
    write_arrays(here / "weights.npz", Weights(ids, new_N))
    write_arrays(here / "easy_fit.npz", opinion)
    write_arrays(here / "easy_holdout.npz", holdout)
    found = with_patience(found, rounds, inputs, holdout, boosting, combiner)
    write_json(here / "round.json", dataclasses.asdict(found))
    return {**dataclasses.asdict(found), **costs(facts)}


def fit_and_judge(
    here: Path,
    inputs: Inputs,
    tools: Tools,
    *,
    index: int,
    learner: Learner,
    boosting: Boosting,
    labels: PseudoLabels,
    weights: Weights,
    seed: int,
) -> tuple[Predictions, Predictions, np.ndarray | None, list[dict]]:
    """The round's models, and their opinion on easy_fit and easy_holdout, as `boosting.errors` asks.

    Also judged_N, the rows whose errors count (None: all), and each model's training facts.
    """
    fold_N, held_out = folds_of(labels.ids, boosting, index, seed)
    sets = {name: inputs["questions"] / f"{name}.jsonl" for name in ("easy_fit", "easy_holdout")}
    opinions, facts = [], []
    for at, fold in enumerate(held_out):
        rows = np.flatnonzero(fold_N != fold) if fold is not None else np.arange(len(fold_N))
        order = take(weights, rows)
        if boosting.booster["name"] == "bagging":
            drawn = adaboost.resample(order.weight_N, len(rows), seed * 1000 + index, how="multinomial")
            order = dataclasses.replace(order, weight_N=np.bincount(drawn, minlength=len(rows)) / len(rows))
        fitted = fit_model(
            here / f"fit-{at}",
            tools,
            learner=learner,
            base=base_folder(inputs, learner),
            seed=(seed * 1000 + index) * 10 + at,
            examples=sets["easy_fit"],
            labels=take(labels, rows),
            weights=dataclasses.replace(order, weight_N=order.weight_N / order.weight_N.sum()),
            weighting=boosting.weighting,
        )
        facts.append(fitted)
        name = f"round-{index}"
        # Cross-fitted, each row's opinion is that of the model that did not train on it.
        only = {"easy_fit": labels.ids[fold_N == fold].tolist()} if boosting.errors == "cross_fit" else None
        model = here / f"fit-{at}" / "model"
        opinions.append(ask_model(here / f"ask-{at}", tools, sets=sets, by=name, model=model, only=only))
    merged = joined([one["easy_fit"] for one in opinions])
    judged_N = fold_N == held_out[0] if boosting.errors == "rotate" else None
    return merged, mean_opinion([one["easy_holdout"] for one in opinions]), judged_N, facts


def folds_of(ids: np.ndarray, boosting: Boosting, index: int, seed: int) -> tuple[np.ndarray, list[int | None]]:
    """fold_N of a round, and the fold that each of its models does not train on (None: it trains on all rows)."""
    out = {"cross_fit": list(range(boosting.folds)), "rotate": [index % boosting.folds], "in_sample": [None]}
    return fold_of(ids, boosting.folds, seed * 1000 + index), out[boosting.errors]


def with_patience(
    found: Round, rounds: list[Round], inputs: Inputs, holdout: Predictions, boosting: Boosting, combiner: dict
) -> Round:
    """The round with the reason to stop, where the committee has not improved on easy_holdout for `patience` rounds."""
    if boosting.patience is None or found.stop:
        return found
    earlier = [read_arrays(inputs[f"round-{at}"] / "easy_holdout.npz", Predictions) for at in range(len(rounds))]
    accuracy_R = staged([*earlier, holdout], [*rounds, found], combiner, inputs["gold"])
    return dataclasses.replace(found, stop=adaboost.stale_reason(accuracy_R, patience=boosting.patience))


def read_round(folder: Path) -> Round | None:
    """The round's record; None where an earlier round had stopped the boosting."""
    values = json.loads((folder / "round.json").read_text())
    return None if values is None else Round(**values)


def staged(opinions: Sequence[Predictions], rounds: Sequence[Round], combiner: dict, gold_folder: Path) -> np.ndarray:
    """The committee's accuracy on easy_holdout after 1, 2, ... rounds."""
    first, probs_RNK, abstained_RN = stack(opinions)
    gold_N = gold_of(first, gold_folder)
    alpha_R = np.array([max(one.alpha, 0.0) for one in rounds])
    combine = pick(COMBINERS, combiner)
    return diagnostics.staged_accuracy(probs_RNK, first.mask_NK, alpha_R, gold_N, abstained_RN, combiner=combine)


def stack(opinions: Sequence[Predictions]) -> tuple[Predictions, np.ndarray, np.ndarray]:
    """The first opinion, and probs_RNK and abstained_RN of all in its order."""
    first = opinions[0]
    aligned = [align(one, first.ids) for one in opinions]
    return first, np.array([one.probs_NK for one in aligned]), np.array([one.abstained_N for one in aligned])


def gold_of(opinion: Predictions, gold_folder: Path) -> np.ndarray:
    answer = answers(gold_folder)
    return np.array([answer[key] for key in opinion.ids.tolist()])


def cross_fitted(
    here: Path, inputs: Inputs, tools: Tools, *, learner: Learner, folds: int, seed: int, content: str
) -> Facts:
    """How a learner that never trained on a question judges it, for every question of the pool: pool.npz.

    This difficulty sees the gold of every question, the transfer pool's too; the report of such a run says so.
    """
    examples, gold = tools.rows(seed)
    examples = list({example.id: example for example in examples}.values())
    write_rows(here / "pool.jsonl", examples)
    labels = as_targets(examples, {row.id: row.answer for row in gold})
    fold_N = fold_of(labels.ids, folds, seed)
    opinions, facts = [], []
    for fold in range(folds):
        held = np.flatnonzero(fold_N == fold)
        write_rows(here / f"fold-{fold}.jsonl", [examples[at] for at in held])
        facts.append(
            fit_model(
                here / f"fit-{fold}",
                tools,
                learner=learner,
                base=base_folder(inputs, learner),
                seed=seed * 1000 + fold,
                examples=here / "pool.jsonl",
                labels=take(labels, np.flatnonzero(fold_N != fold)),
            )
        )
        asked = {"pool": here / f"fold-{fold}.jsonl"}
        model = here / f"fit-{fold}" / "model"
        opinions.append(ask_model(here / f"ask-{fold}", tools, sets=asked, by="cross_fitted", model=model)["pool"])
    write_arrays(here / "pool.npz", joined(opinions))
    return {"rows": len(examples), **costs(facts)}


def joined(parts: Sequence[Predictions]) -> Predictions:
    """Opinions on different rows as one, narrower ones padded."""
    wide = max(part.probs_NK.shape[1] for part in parts)

    def stacked(name: str) -> np.ndarray:
        arrays = [getattr(part, name) for part in parts]
        return np.concatenate([np.pad(a, ((0, 0), (0, wide - a.shape[1]))) for a in arrays])

    ids, abstained_N = (np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "abstained_N"))
    return Predictions(ids, stacked("probs_NK"), stacked("mask_NK"), abstained_N, parts[0].by)
