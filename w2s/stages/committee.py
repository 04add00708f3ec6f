"""Stages that combine opinions into one and turn it into pseudo-labels."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from w2s.boosting import adaboost
from w2s.config.registry import pick
from w2s.ensemble import dependence
from w2s.ensemble.alphas import ALPHAS
from w2s.ensemble.ballots import Ballots
from w2s.ensemble.combiners import COMBINERS, votes
from w2s.ensemble.selection import SELECTORS, make_labels
from w2s.ensemble.temperature import fit_temperature
from w2s.pools.records import ABSTAINED
from w2s.rewards import tilt
from w2s.stages import Facts, Inputs, Tools, find_set
from w2s.stages.questions import read_in_order, right_candidates
from w2s.stages.rounds import HOLDOUT, accuracy_by_rounds, find_answers, read_rounds, stack
from w2s.store.files import write_json
from w2s.store.records import (
    Predictions,
    PseudoLabels,
    Rewards,
    Round,
    align,
    load_arrays,
    read_arrays,
    take,
    write_arrays,
)

NO_OPINION = "the committee abstained"


def committee(here: Path, inputs: Inputs, tools: Tools, *, combiner: dict, alphas: dict, rounds: int) -> Facts:
    """Who votes, with which alpha: the rounds up to the best committee on easy_holdout; no test set is used.

    Writes committee.json: members (round, alpha, own accuracy), the accuracy by number of rounds, how much the
    learners' errors coincide, and the best single learner on easy_holdout.
    """
    records = read_rounds([inputs[f"round-{at}"] for at in range(rounds)])
    opinions = [read_arrays(inputs[f"round-{record.index}"] / "easy_holdout.npz", Predictions) for record in records]
    accuracy_R = accuracy_by_rounds(opinions, records, combiner, inputs["gold"])
    used = adaboost.best_rounds(accuracy_R) if any(record.alpha > 0 for record in records) else 1
    first, probs_RNK, abstained_RN = stack(opinions)
    gold_N = find_answers(first, inputs["gold"])
    wrong_RN = np.array([adaboost.wrongness(probs_NK, first.mask_NK, gold_N) for probs_NK in probs_RNK])
    answer_RN = np.where(abstained_RN, ABSTAINED, probs_RNK.argmax(2))
    ballots = Ballots(answer_RN, wrong_RN, gold_N, first.mask_NK.sum(1))
    return write_voters(here, records, used, ballots, alphas, accuracy_R)


def write_voters(
    here: Path, rounds: Sequence[Round], used: int, ballots: Ballots, alphas: dict, accuracy_R: np.ndarray
) -> Facts:
    """Write committee.json: the first `used` rounds vote. ballots: of all rounds, on easy_holdout."""
    wrong_RN, boosted_R = ballots.wrong_RN, np.array([max(record.alpha, 0.0) for record in rounds[:used]])
    evidence = dataclasses.replace(ballots, answer_RN=ballots.answer_RN[:used], wrong_RN=wrong_RN[:used])
    alpha_R = pick(ALPHAS, alphas)(boosted_R, evidence)
    if not alpha_R.any():
        alpha_R = np.ones(used)  # no round beat its reference: the first learner decides alone, and the report says so
    phi_RR = dependence.error_correlation(wrong_RN[:used])
    write_json(
        here / "committee.json",
        {
            "rounds": [dataclasses.asdict(record) for record in rounds],
            "used": used,
            "alphas": alpha_R.tolist(),
            "accuracy_by_rounds": accuracy_R.tolist(),
            "learner_accuracy": (1 - wrong_RN.mean(1)).tolist(),
            "best_learner": int(np.argmax(1 - wrong_RN.mean(1))),
            "error_correlation": phi_RR.tolist(),
            "effective_voters": dependence.effective_voters(phi_RR),
            "effective_directions": dependence.effective_directions(phi_RR),
            "warning": dependence.warning(phi_RR),
            "stop": rounds[-1].stop,
        },
    )
    return {"rounds": len(rounds), "used": used}


def combined(
    here: Path, inputs: Inputs, tools: Tools, *, by: str, combiner: dict, sets: Sequence[str], best_alone: bool = False
) -> Facts:
    """The committee's opinion on each set (with best_alone its best learner's), and every member's vote."""
    voters = json.loads((inputs["committee"] / "committee.json").read_text())
    members = [voters["best_learner"]] if best_alone else list(range(voters["used"]))
    alpha_R = np.ones(1) if best_alone else np.array(voters["alphas"])
    for name in sets:
        opinions = [read_arrays(inputs[f"opinion-{at}"] / f"{name}.npz", Predictions) for at in members]
        first, probs_RNK, abstained_RN = stack(opinions)
        probs_NK = pick(COMBINERS, combiner)(probs_RNK, first.mask_NK, alpha_R, abstained_RN)
        opinion = dataclasses.replace(first, probs_NK=probs_NK, abstained_N=abstained_RN.all(0), by=by)
        write_arrays(here / f"{name}.npz", opinion)
        votes_RNK = np.where(abstained_RN[..., None], 0.0, votes(probs_RNK, first.mask_NK))
        np.savez(here / f"{name}_votes.npz", ids=first.ids, votes_RNK=votes_RNK, alpha_R=alpha_R)
    return {"members": len(members)}


def pseudo_labels(
    here: Path,
    inputs: Inputs,
    tools: Tools,
    *,
    select: dict,
    soft: bool,
    temperature: float | None,
    seed: int,
    shuffled: bool = False,
    accept: dict | None = None,
) -> Facts:
    """The opinion on the transfer pool as training targets; `shuffled` assigns them to other questions at random.

    `accept`: keep only labels whose rewards reach a bound (rewards.tilt.accept). `temperature`: see find_temperature.
    """
    temperature, fitted = find_temperature(inputs, tools, soft, temperature)
    opinion = read_arrays(inputs["opinion"] / "transfer.npz", Predictions)
    sources_N = np.array([row.source for row in read_in_order(inputs["questions"] / "transfer.jsonl", opinion.ids)])
    selection = Selection(select, accept, soft, temperature)
    labels = label_opinion(inputs["opinion"], opinion, sources_N, ~opinion.abstained_N, NO_OPINION, selection)
    if shuffled:
        labels = shuffle(labels, opinion.mask_NK.sum(1), seed)
    write_arrays(here / "labels.npz", labels)
    return {"rows": len(labels.ids), "kept": int((labels.weight_N > 0).sum()), **fitted}


def find_temperature(inputs: Inputs, tools: Tools, soft: bool, temperature: float | None) -> tuple[float, Facts]:
    """The temperature of the labels and, if it is None and fitted here, the facts of the fit.

    Parents: `holdout`, the teacher's opinion on easy_holdout, `gold` of easy questions, and for written answers the
    candidates as `easy_holdout`. Among several right candidates (programs) the teacher's favourite counts.
    """
    if temperature is not None or not soft:
        return temperature or 1.0, {}
    opinion = read_arrays(inputs["holdout"] / f"{HOLDOUT}.npz", Predictions)
    opinion = take(opinion, ~opinion.abstained_N)
    right_NK = right_candidates(read_in_order(find_set(inputs, HOLDOUT), opinion.ids), inputs["gold"], tools)
    rows = np.flatnonzero((right_NK == 1).any(1))
    gold_N = np.where(right_NK == 1, opinion.probs_NK, -1)[rows].argmax(1)
    fitted = fit_temperature(opinion.probs_NK[rows], opinion.mask_NK[rows], gold_N)
    return fitted.temperature, {"fitted_temperature": fitted._asdict()}


class Selection(NamedTuple):
    """Which labels are kept, and how they are sharpened: options of the stages that label by an opinion."""

    select: dict
    accept: dict | None
    soft: bool
    temperature: float


def label_opinion(
    folder: Path, opinion: Predictions, sources_N: np.ndarray, usable_N: np.ndarray, unusable: str, how: Selection
) -> PseudoLabels:
    """The opinion on the transfer pool as labels. folder: the opinion's, which may also hold votes and rewards.

    Rows not in usable_N are dropped, for the reason `unusable`.
    """
    probs_NK, mask_NK, path = opinion.probs_NK, opinion.mask_NK, folder / "transfer_votes.npz"
    votes_RNK = load_arrays(path)["votes_RNK"] if path.exists() else votes(probs_NK, mask_NK)[None]
    keep_N, why_N = pick(SELECTORS, how.select)(opinion.ids, probs_NK, mask_NK, votes_RNK, sources_N)
    if how.accept is not None:
        rewards = align(read_arrays(folder / "transfer_rewards.npz", Rewards), opinion.ids)
        good_N, reason_N = tilt.accept(probs_NK, mask_NK, rewards.scores_MNK[0], **how.accept)
        keep_N, why_N = keep_N & good_N, np.where(keep_N, reason_N, why_N)
    keep_N, why_N = keep_N & usable_N, np.where(usable_N, why_N, unusable)
    return make_labels(opinion.ids, probs_NK, mask_NK, keep_N, why_N, soft=how.soft, temperature=how.temperature)


def shuffle(labels: PseudoLabels, count_N: np.ndarray, seed: int) -> PseudoLabels:
    """The targets permuted at random among rows with the same number of candidates."""
    rng, target_NK = np.random.default_rng([seed, 7]), labels.target_NK.copy()
    for count in np.unique(count_N):
        rows = np.flatnonzero(count_N == count)
        target_NK[rows] = labels.target_NK[rng.permutation(rows)]
    return dataclasses.replace(labels, target_NK=target_NK)
