"""Stages that give reward models their pairs, and that let their scores tilt a committee's opinion."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from pathlib import Path

import numpy as np

from w2s.config.registry import pick
from w2s.data.duplicates import remove_leaks
from w2s.ensemble.combiners import votes
from w2s.grading.judge import judge
from w2s.rewards.aggregators import AGGREGATORS, disagreement, standardise, unjudged
from w2s.rewards.pairs import PAIRS, DrawnPairs
from w2s.rewards.tilt import STRENGTHS, ChosenStrength, choose_strength, tilt
from w2s.stages import Facts, Inputs, Tools
from w2s.stages.questions import gold_text
from w2s.stages.reward_study import bare
from w2s.store.files import write_json
from w2s.store.records import (
    BadInput,
    Example,
    Gold,
    Predictions,
    Rewards,
    align,
    candidate_mask,
    read_arrays,
    read_rows,
    take,
    write_arrays,
    write_rows,
)

FIT, HOLDOUT, POOL, TEST = "easy_fit", "easy_holdout", "transfer", "hard_test"


def reward_pairs(
    here: Path, inputs: Inputs, tools: Tools, *, method: dict, content: str | None = None, near: float | None = None
) -> Facts:  # fmt: skip
    """What reward models are trained on: targets.jsonl (two choices each) and labels.npz.

    Written questions have the parent `candidates`. `content` is the hash of a preference set's pairs; those whose
    prompt is a question that the run labels or is judged on, or (see data.duplicates) is `near` one, are left out.
    """
    draw, where = pick(PAIRS, method, key="rewards.pairs"), inputs.get("candidates", inputs.get("questions"))
    if method["name"] == "preferences":
        found = without_leaks(tools.preferences(), where, near)
    elif method["name"] == "gold":
        examples = read_rows(where / f"{FIT}.jsonl", Example)
        found = draw(*with_gold(examples, right_candidates(examples, inputs["gold"], tools), inputs["gold"]))
    else:
        opinion = read_arrays(inputs["opinion"] / f"{POOL}.npz", Predictions)
        by_id = {row.id: row for row in read_rows(where / f"{POOL}.jsonl", Example)}
        heard = opinion.ids[~opinion.abstained_N].tolist()
        probs_NK = np.where(opinion.mask_NK, opinion.probs_NK, np.nan)[~opinion.abstained_N]
        found = draw([by_id[key] for key in heard], probs_NK)
    write_rows(here / "targets.jsonl", found.examples)
    write_arrays(here / "labels.npz", found.labels)
    return {"rows": len(found.examples), **found.counts}


def without_leaks(found: DrawnPairs, questions: Path, near: float | None) -> DrawnPairs:
    """The pairs about questions that rewards are not asked about; the others are counted as `leaked`."""
    asked = [row for on in (HOLDOUT, POOL, TEST) for row in read_rows(questions / f"{on}.jsonl", Example)]
    kept = {row.id for row in remove_leaks(bare(found.examples), bare(asked), near=near)[0]}
    if not kept:
        raise BadInput(f"rewards.pairs: all {len(found.examples)} pairs are about questions of the run itself")
    kept_N = np.isin(found.labels.ids, list(kept))
    counts = {**found.counts, "leaked": len(found.examples) - len(kept)}
    return DrawnPairs([row for row in found.examples if row.id in kept], take(found.labels, kept_N), counts)


def right_candidates(examples: list[Example], gold_folder: Path, tools: Tools) -> np.ndarray:
    """right_NK: 1 right, 0 wrong, nan where nobody could tell or there is no candidate."""
    gold = {row.id: row for row in read_rows(gold_folder / "gold.jsonl", Gold)}
    right_NK = np.full(candidate_mask(np.array([len(row.choices) for row in examples])).shape, np.nan)
    if examples[0].task == "choice":
        for at, row in enumerate(examples):
            right_NK[at, : len(row.choices)] = np.arange(len(row.choices)) == gold[row.id].answer
        return right_NK
    places = [(at, k) for at, row in enumerate(examples) for k in range(len(row.choices))]
    rows = [(examples[at], gold[examples[at].id], examples[at].choices[k]) for at, k in places]
    verdicts = judge(rows, allow_unsandboxed=tools.runtime.allow_unsandboxed)
    for place, (correct, _, _) in zip(places, verdicts, strict=True):
        right_NK[place] = np.nan if correct is None else correct
    return right_NK


def with_gold(
    examples: list[Example], right_NK: np.ndarray, gold_folder: Path
) -> tuple[list[Example], np.ndarray]:  # fmt: skip
    """Written questions of which no candidate is right get the gold text as one more.

    Only these: were the gold text always the better one, its style alone would tell it from what models write.
    """
    if examples[0].task == "choice":
        return examples, right_NK
    gold = {row.id: row for row in read_rows(gold_folder / "gold.jsonl", Gold)}
    right_NK = np.pad(right_NK, ((0, 0), (0, 1)), constant_values=np.nan)
    added = []
    for row, right_K in zip(examples, right_NK, strict=True):
        if not (right_K == 1).any():
            right_K[len(row.choices)] = 1
            row = dataclasses.replace(row, choices=(*row.choices, gold_text(row, gold[row.id])))
        added.append(row)
    return added, right_NK


def tilted(
    here: Path, inputs: Inputs, tools: Tools, *, by: str, aggregate: dict, standardised: str, use: str,
    strength: float | None,
) -> Facts:  # fmt: skip
    """The committee's opinion on the transfer pool and the hard test, tilted by rewards.

    Parents: `scores`, the opinions as transfer, hard_test and easy_holdout, and `gold` of easy questions; of written
    ones also `candidates` of easy_holdout. The strength, where none is given, is the one under which easy_holdout's
    right candidates are the most likely. Writes SET.npz, SET_votes.npz (the learners'), SET_rewards.npz (one row of
    Rewards: the members' scores as one) and rewards.json, where agreement is the share of questions on which two
    members have the same favourite.
    """
    opinions = {name: read_arrays(inputs[name] / f"{name}.npz", Predictions) for name in (HOLDOUT, POOL, TEST)}
    scores = {
        name: align(read_arrays(inputs["scores"] / f"{name}.npz", Rewards), one.ids) for name, one in opinions.items()
    }
    even = {
        name: one.scores_MNK
        if standardised == "none"
        else standardise(one.scores_MNK, opinions[name].mask_NK, by=standardised)
        for name, one in scores.items()
    }
    rewards = {name: pick(AGGREGATORS, aggregate)(even[name], one.mask_NK) for name, one in opinions.items()}
    right_NK = holdout_verdicts(opinions[HOLDOUT], inputs, tools)
    chosen = evidence(opinions[HOLDOUT], rewards[HOLDOUT], right_NK)
    strength = chosen.strength if strength is None else strength
    found = {name: rewarded(one, rewards[name], use, strength, by) for name, one in opinions.items()}
    for name in (POOL, TEST):
        write_arrays(here / f"{name}.npz", found[name])
        shutil.copyfile(inputs[name] / f"{name}_votes.npz", here / f"{name}_votes.npz")
        one = Rewards(found[name].ids, rewards[name][None], np.array([f"together ({aggregate['name']})"]))
        write_arrays(here / f"{name}_rewards.npz", one)
    mask_NK, pool_NK = opinions[HOLDOUT].mask_NK, opinions[POOL].mask_NK
    accuracy = {
        "committee": share_right(opinions[HOLDOUT].probs_NK, mask_NK, right_NK),
        "rewards": share_right(rewards[HOLDOUT], mask_NK, right_NK),
        by: share_right(found[HOLDOUT].probs_NK, mask_NK, right_NK),
    }
    report = {
        "use": use,
        "strength": strength if use == "tilt" else None,
        "chosen": chosen.strength,
        "grid": chosen.grid_G.tolist(),
        "likelihoods": [one if np.isfinite(one) else None for one in chosen.likelihood_G.tolist()],
        "rows": chosen.rows,
        "members": scores[POOL].models.tolist(),
        "accuracy": accuracy,
        "member_accuracy": [share_right(one_NK, mask_NK, right_NK) for one_NK in even[HOLDOUT]],
        "agreement": agreement(even[POOL], pool_NK),
        "disagreement": float(np.nan_to_num(np.nanmean(disagreement(even[POOL], pool_NK)))),
        "unjudged": {name: unjudged(one.scores_MNK, opinions[name].mask_NK).tolist() for name, one in scores.items()},
    }
    write_json(here / "rewards.json", report)
    return {key: report[key] for key in ("strength", "chosen", "rows", "accuracy")}


def holdout_verdicts(opinion: Predictions, inputs: Inputs, tools: Tools) -> np.ndarray:
    """right_NK of the held-out easy questions, in the opinion's order."""
    where = inputs.get("candidates", inputs.get("questions"))
    by_id = {row.id: row for row in read_rows(where / f"{HOLDOUT}.jsonl", Example)}
    return right_candidates([by_id[key] for key in opinion.ids.tolist()], inputs["gold"], tools)


def evidence(opinion: Predictions, rewards_NK: np.ndarray, right_NK: np.ndarray) -> ChosenStrength:
    """The strength that held-out questions ask for; those without a right candidate have no say.

    Of several right ones (programs) the committee's favourite counts. Without any question to decide it is 0.
    """
    rows = np.flatnonzero((right_NK == 1).any(1))
    if not len(rows):
        return ChosenStrength(0.0, np.unique(STRENGTHS), np.full(len(STRENGTHS), np.nan), 0)
    gold_N = np.where(right_NK == 1, opinion.probs_NK, -1)[rows].argmax(1)
    return choose_strength(opinion.probs_NK[rows], opinion.mask_NK[rows], rewards_NK[rows], gold_N)


def rewarded(opinion: Predictions, rewards_NK: np.ndarray, use: str, strength: float, by: str) -> Predictions:
    """The opinion tilted, or (best_of_n) all probability on the highest reward; unchanged where nothing has one."""
    if use == "tilt":
        probs_NK = tilt(opinion.probs_NK, opinion.mask_NK, rewards_NK, strength=strength)
    else:
        known_NK = ~np.isnan(rewards_NK)
        best_NK = votes(np.where(known_NK, rewards_NK, -np.inf), opinion.mask_NK & known_NK.any(1, keepdims=True))
        probs_NK = np.where(known_NK.any(1, keepdims=True), best_NK, opinion.probs_NK)
    return dataclasses.replace(opinion, probs_NK=probs_NK, by=by)


def share_right(scores_NK: np.ndarray, mask_NK: np.ndarray, right_NK: np.ndarray) -> float:
    """How often the highest score is a right candidate's; ties share, what is not scored comes last."""
    best_NK = votes(np.where(np.isnan(scores_NK), -np.inf, scores_NK), mask_NK)
    return float((best_NK * (right_NK == 1)).sum(1).mean())


def agreement(scores_MNK: np.ndarray, mask_NK: np.ndarray) -> float | None:
    """The share of questions on which two members have the same favourite, over all pairs; None with one member."""
    best_MNK = votes(np.where(np.isnan(scores_MNK), -np.inf, scores_MNK), mask_NK)
    pairs = [float((a_NK * b_NK).sum(1).mean()) for a_NK, b_NK in itertools.combinations(best_MNK, 2)]
    return float(np.mean(pairs)) if pairs else None
