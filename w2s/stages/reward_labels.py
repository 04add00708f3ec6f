"""Stages that make reward models' pairs and tilt a committee's opinion by their scores."""

import dataclasses
import itertools
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from w2s.config.registry import pick
from w2s.data.duplicates import remove_leaks
from w2s.ensemble.combiners import votes
from w2s.rewards.aggregators import AGGREGATORS, disagreement, standardise, unjudged
from w2s.rewards.pairs import PAIRS, DrawnPairs
from w2s.rewards.tilt import STRENGTHS, ChosenStrength, choose_strength, tilt
from w2s.stages import Facts, Inputs, Tools
from w2s.stages.questions import gold_text, read_gold, read_in_order, right_candidates
from w2s.stages.reward_study import bare
from w2s.store.files import write_json
from w2s.store.records import (
    BadInput,
    Example,
    Predictions,
    Rewards,
    align,
    read_arrays,
    read_rows,
    take,
    write_arrays,
    write_rows,
)

FIT, HOLDOUT, TRANSFER, TEST = "easy_fit", "easy_holdout", "transfer", "hard_test"


def reward_pairs(
    here: Path, inputs: Inputs, tools: Tools, *, method: dict, content: str | None = None, near: float | None = None
) -> Facts:
    """The training data of reward models: targets.jsonl (two choices each) and labels.npz.

    Written questions have the parent `candidates`. `content` is the hash of a preference set's pairs; pairs whose
    prompt is, or is `near`, a question that the run labels or is judged on (see data.duplicates) are left out.
    """
    draw, where = pick(PAIRS, method, key="rewards.pairs"), inputs.get("candidates", inputs.get("questions"))
    if method["name"] == "preferences":
        pairs = without_leaks(tools.preferences(), where, near)
    elif method["name"] == "gold":
        examples = read_rows(where / f"{FIT}.jsonl", Example)
        pairs = draw(*with_gold(examples, right_candidates(examples, inputs["gold"], tools), inputs["gold"]))
    else:
        opinion = read_arrays(inputs["opinion"] / f"{TRANSFER}.npz", Predictions)
        judged_N = ~opinion.abstained_N
        probs_NK = np.where(opinion.mask_NK, opinion.probs_NK, np.nan)[judged_N]
        pairs = draw(read_in_order(where / f"{TRANSFER}.jsonl", opinion.ids[judged_N]), probs_NK)
    write_rows(here / "targets.jsonl", pairs.examples)
    write_arrays(here / "labels.npz", pairs.labels)
    return {"rows": len(pairs.examples), **pairs.counts}


def without_leaks(pairs: DrawnPairs, questions: Path, near: float | None) -> DrawnPairs:
    """The pairs on questions that the reward models will not score; the others are counted as `leaked`."""
    judged = [row for on in (HOLDOUT, TRANSFER, TEST) for row in read_rows(questions / f"{on}.jsonl", Example)]
    kept = {row.id for row in remove_leaks(bare(pairs.examples), bare(judged), near=near)[0]}
    if not kept:
        raise BadInput(f"rewards.pairs: all {len(pairs.examples)} pairs are about questions of the run itself")
    kept_N = np.isin(pairs.labels.ids, list(kept))
    counts = {**pairs.counts, "leaked": len(pairs.examples) - len(kept)}
    return DrawnPairs([row for row in pairs.examples if row.id in kept], take(pairs.labels, kept_N), counts)


def with_gold(examples: list[Example], right_NK: np.ndarray, gold_folder: Path) -> tuple[list[Example], np.ndarray]:
    """Add the gold text to the candidates of written questions that have no right one.

    Only to these: if the gold text were always the better one, style alone would tell it from model-written texts.
    """
    if examples[0].task == "choice":
        return examples, right_NK
    gold = read_gold(gold_folder)
    right_NK = np.pad(right_NK, ((0, 0), (0, 1)), constant_values=np.nan)
    added = []
    for row, right_K in zip(examples, right_NK, strict=True):
        if not (right_K == 1).any():
            right_K[len(row.choices)] = 1
            row = dataclasses.replace(row, choices=(*row.choices, gold_text(row, gold[row.id])))
        added.append(row)
    return added, right_NK


def tilted(
    here: Path,
    inputs: Inputs,
    tools: Tools,
    *,
    by: str,
    aggregate: dict,
    standardised: str,
    use: str,
    strength: float | None,
) -> Facts:
    """The committee's opinion on the transfer pool and the hard test, tilted by rewards.

    Parents: `scores`, the opinions as transfer, hard_test and easy_holdout, and `gold` of easy questions; for written
    answers also `candidates` of easy_holdout. If no strength is set, it is the one that makes easy_holdout's right
    candidates most likely. Writes SET.npz, SET_votes.npz (the learners'), SET_rewards.npz (one row of Rewards: the
    members' aggregated scores) and rewards.json, where agreement is the share of questions on which two members have
    the same favourite.
    """
    names, folder = (HOLDOUT, TRANSFER, TEST), inputs["scores"]
    sets = {name: read_scored(inputs[name], folder, name, aggregate, standardised) for name in names}
    holdout, transfer = sets[HOLDOUT], sets[TRANSFER]
    where = inputs.get("candidates", inputs.get("questions"))
    examples = read_in_order(where / f"{HOLDOUT}.jsonl", holdout.opinion.ids)
    right_NK = right_candidates(examples, inputs["gold"], tools)
    chosen = evidence(holdout.opinion, holdout.rewards_NK, right_NK)
    strength = chosen.strength if strength is None else strength
    opinions = {name: rewarded(part.opinion, part.rewards_NK, use, strength, by) for name, part in sets.items()}
    write_arrays(here / f"{HOLDOUT}.npz", opinions[HOLDOUT])
    for name in (TRANSFER, TEST):
        write_arrays(here / f"{name}.npz", opinions[name])
        shutil.copyfile(inputs[name] / f"{name}_votes.npz", here / f"{name}_votes.npz")
        models = np.array([f"together ({aggregate['name']})"])
        rewards = Rewards(opinions[name].ids, sets[name].rewards_NK[None], models)
        write_arrays(here / f"{name}_rewards.npz", rewards)
    report = {
        "use": use,
        "strength": strength if use == "tilt" else None,
        "chosen": chosen.strength,
        "grid": chosen.grid_G.tolist(),
        "likelihoods": [value if np.isfinite(value) else None for value in chosen.likelihood_G.tolist()],
        "rows": chosen.rows,
        "members": transfer.scores.models.tolist(),
        **measure_holdout(holdout, opinions[HOLDOUT], right_NK),
        "agreement": agreement(transfer.even_MNK, transfer.mask_NK),
        "disagreement": float(np.nan_to_num(np.nanmean(disagreement(transfer.even_MNK, transfer.mask_NK)))),
        "unjudged": {name: unjudged(part.scores.scores_MNK, part.mask_NK).tolist() for name, part in sets.items()},
    }
    write_json(here / "rewards.json", report)
    return {key: report[key] for key in ("strength", "chosen", "rows", "accuracy")}


@dataclass(frozen=True)
class Scored:
    """A set as the committee and the reward models see it."""

    opinion: Predictions
    scores: Rewards
    even_MNK: np.ndarray
    """The standardised scores of each member."""
    rewards_NK: np.ndarray
    """The members' standardised scores, aggregated."""

    @property
    def mask_NK(self) -> np.ndarray:
        return self.opinion.mask_NK


def read_scored(opinions: Path, scores: Path, name: str, aggregate: dict, standardised: str) -> Scored:
    """The set `name` from two folders, in the order of the committee's opinion."""
    opinion = read_arrays(opinions / f"{name}.npz", Predictions)
    scores = align(read_arrays(scores / f"{name}.npz", Rewards), opinion.ids)
    even_MNK = scores.scores_MNK
    if standardised != "none":
        even_MNK = standardise(even_MNK, opinion.mask_NK, by=standardised)
    combine = pick(AGGREGATORS, aggregate, key="rewards.aggregate")
    return Scored(opinion, scores, even_MNK, combine(even_MNK, opinion.mask_NK))


def measure_holdout(holdout: Scored, opinion: Predictions, right_NK: np.ndarray) -> dict[str, Any]:
    """Accuracies on easy_holdout: of the committee, the rewards, the tilted `opinion` and each member."""
    accuracy = {
        "committee": share_right(holdout.opinion.probs_NK, holdout.mask_NK, right_NK),
        "rewards": share_right(holdout.rewards_NK, holdout.mask_NK, right_NK),
        opinion.by: share_right(opinion.probs_NK, holdout.mask_NK, right_NK),
    }
    members = [share_right(scores_NK, holdout.mask_NK, right_NK) for scores_NK in holdout.even_MNK]
    return {"accuracy": accuracy, "member_accuracy": members}


def evidence(opinion: Predictions, rewards_NK: np.ndarray, right_NK: np.ndarray) -> ChosenStrength:
    """The strength that fits held-out questions best; those without a right candidate do not count.

    Among several right candidates (programs) the committee's favourite counts. Without such questions it is 0.
    """
    rows = np.flatnonzero((right_NK == 1).any(1))
    if not len(rows):
        return ChosenStrength(0.0, np.unique(STRENGTHS), np.full(len(STRENGTHS), np.nan), 0)
    gold_N = np.where(right_NK == 1, opinion.probs_NK, -1)[rows].argmax(1)
    return choose_strength(opinion.probs_NK[rows], opinion.mask_NK[rows], rewards_NK[rows], gold_N)


def rewarded(opinion: Predictions, rewards_NK: np.ndarray, use: str, strength: float, by: str) -> Predictions:
    """The opinion, tilted or (best_of_n) all on the highest reward; a row without rewards is unchanged."""
    if use == "tilt":
        probs_NK = tilt(opinion.probs_NK, opinion.mask_NK, rewards_NK, strength=strength)
    else:
        known_NK = ~np.isnan(rewards_NK)
        best_NK = votes(np.where(known_NK, rewards_NK, -np.inf), opinion.mask_NK & known_NK.any(1, keepdims=True))
        probs_NK = np.where(known_NK.any(1, keepdims=True), best_NK, opinion.probs_NK)
    return dataclasses.replace(opinion, probs_NK=probs_NK, by=by)


def share_right(scores_NK: np.ndarray, mask_NK: np.ndarray, right_NK: np.ndarray) -> float:
    """How often a right candidate has the highest score; ties share, candidates without a score come last."""
    best_NK = votes(np.where(np.isnan(scores_NK), -np.inf, scores_NK), mask_NK)
    return float((best_NK * (right_NK == 1)).sum(1).mean())


def agreement(scores_MNK: np.ndarray, mask_NK: np.ndarray) -> float | None:
    """The share of questions on which two members have the same favourite, over all pairs; None with one member."""
    best_MNK = votes(np.where(np.isnan(scores_MNK), -np.inf, scores_MNK), mask_NK)
    pairs = [float((a_NK * b_NK).sum(1).mean()) for a_NK, b_NK in itertools.combinations(best_MNK, 2)]
    return float(np.mean(pairs)) if pairs else None
