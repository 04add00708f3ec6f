"""Stages of boosting over written answers: how a base ranks their tokens, one round, and who writes together."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict
from pathlib import Path

import numpy as np

from w2s.boosting import adaboost, tokens
from w2s.config.fields import Boosting, Learner
from w2s.config.fields import Tokens as Weighing
from w2s.config.registry import pick
from w2s.ensemble.ballots import Ballots
from w2s.grading.answers import final_answer
from w2s.stages import Facts, Inputs, Tools
from w2s.stages.committee import write_voters
from w2s.stages.models import base_folder, costs, fit_model, rank
from w2s.stages.rounds import folds_of, read_round
from w2s.store.files import write_json
from w2s.store.records import (
    Example,
    PseudoLabels,
    TokenRanks,
    TokenWeights,
    read_arrays,
    read_rows,
    take,
    write_arrays,
)

RIGHT, WRONG = 0, 1


def ranked(here: Path, inputs: Inputs, tools: Tools, *, learner: Learner) -> Facts:
    """How the untrained base of `learner` ranks the tokens of the easy answers: easy_fit.npz (TokenRanks)."""
    targets, path = inputs["labels"] / "targets.jsonl", base_folder(inputs, learner)
    found = rank(here / "rank", tools, [[None]], [1.0], targets, learner=learner, path=path)
    write_arrays(here / "easy_fit.npz", found[0])
    return {"rows": len(found[0].ids)}


def token_round(
    here: Path, inputs: Inputs, tools: Tools, *, index: int, learner: Learner, boosting: Boosting, mixture: str,
    seed: int,
) -> Facts:  # fmt: skip
    """One round: fit on the weighted tokens, rank those of rows not trained on, give an alpha and the next weights.

    Writes round.json, weights.npz (TokenWeights, for the next round), and how the round ranks the right tokens of
    easy_fit (out of fold) and easy_holdout. After a round that stopped the boosting it only says so.
    """
    told = [read_round(inputs[f"round-{at}"]) for at in range(index) if f"round-{at}" in inputs]  # bagging has none
    rounds = [one for one in told if one is not None]
    if any(one.stop for one in rounds):
        write_json(here / "round.json", None)
        return {"skipped": rounds[-1].stop}
    labels = read_arrays(inputs["labels"] / "labels.npz", PseudoLabels)
    base = tokens.gathered([read_arrays(inputs["untrained"] / "easy_fit.npz", TokenRanks)], labels.ids)
    by = boosting.tokens.by
    weights = tokens.layout(base, tokens.uniform(base.length_N, by=by))
    if rounds:
        weights = tokens.carry(read_arrays(inputs[f"round-{index - 1}"] / "weights.npz", TokenWeights), weights)
    ranks, judged_N, facts = fit_and_rank(
        here, inputs, tools, index=index, learner=learner, boosting=boosting, labels=labels, weights=weights, seed=seed
    )
    found, new_T = tokens.token_round(
        index,
        f"round-{index}",
        weights.weight_T,
        tokens.wrongness(ranks.above_T, ranks.tied_T),
        ranks.length_N,
        tokens.wrongness(base.above_T, base.tied_T),
        judged_N,
        counted(weights, inputs["labels"] / "targets.jsonl", boosting.tokens),
        booster=pick(adaboost.BOOSTERS, boosting.booster),
        vocabulary=ranks.vocabulary,
        by=by,
        window=boosting.tokens.window,
        cap=boosting.tokens.cap,
        share_floor=boosting.min_effective_share,
        least_share=boosting.least_effective_share,
    )
    models = sorted(here.glob("fit-*/model"))
    holdout = rank(here / "rank-holdout", tools, [models], [1.0], inputs["holdout"] / "targets.jsonl", mixture)
    write_arrays(here / "weights.npz", dataclasses.replace(weights, weight_T=new_T))
    write_arrays(here / "easy_fit.npz", ranks)
    write_arrays(here / "easy_holdout.npz", holdout[0])
    write_json(here / "round.json", asdict(found))
    return {**asdict(found), **costs(facts)}


def fit_and_rank(
    here: Path, inputs: Inputs, tools: Tools, *, index: int, learner: Learner, boosting: Boosting, labels: PseudoLabels,
    weights: TokenWeights, seed: int,
) -> tuple[TokenRanks, np.ndarray | None, list[dict]]:  # fmt: skip
    """The round's models, and how each ranks the tokens of easy_fit that `boosting.errors` asks it about.

    Also judged_N, the rows whose errors count (None: all), and each model's training facts.
    """
    fold_N, held_out = folds_of(labels.ids, boosting, index, seed)
    targets = inputs["labels"] / "targets.jsonl"
    parts, facts = [], []
    for at, fold in enumerate(held_out):
        rows = np.flatnonzero(fold_N != fold) if fold is not None else np.arange(len(fold_N))
        order = tokens.take_rows(weights, rows)
        if boosting.booster["name"] == "bagging":
            weight_N = tokens.by_row(order)[0].weight_N
            drawn = adaboost.resample(weight_N, len(rows), seed * 1000 + index, how="multinomial")
            times_N = np.bincount(drawn, minlength=len(rows)) / (len(rows) * weight_N)
            order = dataclasses.replace(order, weight_T=order.weight_T * np.repeat(times_N, order.length_N))
        fitted = fit_model(
            here / f"fit-{at}",
            tools,
            learner=learner,
            base=base_folder(inputs, learner),
            seed=(seed * 1000 + index) * 10 + at,
            examples=targets,
            labels=take(labels, rows),
            weights=dataclasses.replace(order, weight_T=order.weight_T / order.weight_T.sum()),
            weighting=boosting.weighting,
        )
        facts.append(fitted)
        only = {"targets": labels.ids[fold_N == fold].tolist()} if boosting.errors == "cross_fit" else None
        parts.append(rank(here / f"rank-{at}", tools, [[here / f"fit-{at}" / "model"]], [1.0], targets, only=only)[0])
    judged_N = fold_N == held_out[0] if boosting.errors == "rotate" else None
    return tokens.gathered(parts, labels.ids), judged_N, facts


def counted(weights: TokenWeights, targets: Path, weighing: Weighing) -> np.ndarray | None:
    """Which tokens count as right or wrong; None: all of them."""
    if weighing.count == "all":
        return None
    texts = {row.id: row.choices[0] for row in read_rows(targets, Example)}
    texts = [texts[key] for key in weights.ids.tolist()]
    from_N = np.array([max(text.rfind(final_answer(text) or text), 0) for text in texts])
    return tokens.overlapping(weights, from_N, np.array([len(text) for text in texts]))


def writers(here: Path, inputs: Inputs, tools: Tools, *, alphas: dict, mixture: str, rounds: int) -> Facts:
    """Who writes together, with which alpha: the rounds up to the best committee on easy_holdout. See committee.json.

    An answer is right where each of its tokens is the most probable one behind the right ones: then a greedy text is
    the right one. Learners with unlike tokenizers cannot be mixed: then all rounds stay, and vote over whole answers.
    """
    found = [read_round(inputs[f"round-{at}"]) for at in range(rounds)]
    found = [one for one in found if one is not None]
    alone = [read_arrays(inputs[f"round-{one.index}"] / "easy_holdout.npz", TokenRanks) for one in found]
    wrong_RN = np.array([wrong_answers(tokens.gathered([one], alone[0].ids)) for one in alone])
    alpha_R = np.array([max(one.alpha, 0.0) for one in found])
    staged, used = [], len(found)
    if len({one.tokenizer for one in alone}) == 1 and alpha_R.any():
        models = [sorted(inputs[f"round-{one.index}"].glob("fit-*/model")) for one in found]
        ranks = rank(here / "rank", tools, models, alpha_R, inputs["holdout"] / "targets.jsonl", mixture)
        staged = [1 - wrong_answers(one).mean() for one in ranks]
        used = adaboost.best_rounds(staged)
    answer_RN = np.where(wrong_RN > 0.5, WRONG, RIGHT)
    gold_N = np.full(wrong_RN.shape[1], RIGHT)
    evidence = Ballots(answer_RN[:used], wrong_RN[:used], gold_N, np.full(len(gold_N), 2))
    return write_voters(here, found, alpha_R[:used], evidence, alphas, np.array(staged), wrong_RN)


def wrong_answers(ranks: TokenRanks) -> np.ndarray:
    """wrong_N: how wrong each row's answer is as a whole, 0 to 1."""
    return tokens.answer_wrong(tokens.wrongness(ranks.above_T, ranks.tied_T), ranks.length_N)
