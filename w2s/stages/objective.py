"""Stages of a student's objective: pairs that committee and rewards agree on, and training after the labels."""

import dataclasses
from pathlib import Path

import numpy as np

from w2s.config.fields import Learner, Writing
from w2s.rewards.agreement import AGREED, find_agreed_pairs
from w2s.stages import Facts, Inputs, Tools
from w2s.stages.committee import NO_OPINION
from w2s.stages.jobs import do_job
from w2s.stages.models import student_runtime, why_skipped, with_shots
from w2s.stages.questions import read_in_order
from w2s.stages.reward_labels import read_scored
from w2s.stages.rewards import list_models
from w2s.store.records import BadInput, PseudoLabels, Rewards, read_arrays, write_arrays, write_rows
from w2s.workers.job import Judges, Objective, Pairs

TRANSFER = "transfer"
ALIKE = "the texts of both are the same"


def agreed_pairs(here: Path, inputs: Inputs, tools: Tools, *, aggregate: dict, standardised: str) -> Facts:
    """Pairs of the transfer pool on which the parents `opinion` and `scores` agree: targets.jsonl and labels.npz.

    Chosen first, rejected second. The candidates are in the parent `candidates`, else in `questions`. The facts count
    the questions without a pair by reason.
    """
    scored = read_scored(inputs["opinion"], inputs["scores"], TRANSFER, aggregate, standardised)
    opinion = scored.opinion
    chosen_N, rejected_N, why_N = find_agreed_pairs(opinion.probs_NK, opinion.mask_NK, scored.rewards_NK)
    where = inputs.get("candidates", inputs.get("questions"))
    examples = read_in_order(where / f"{TRANSFER}.jsonl", opinion.ids)
    pairs, reasons = [], np.where(opinion.abstained_N, NO_OPINION, why_N)
    for at in np.flatnonzero(reasons == AGREED).tolist():
        row = examples[at]
        texts = (row.choices[chosen_N[at]], row.choices[rejected_N[at]])
        if texts[0].strip() == texts[1].strip():
            reasons[at] = ALIKE
        else:
            pairs.append(dataclasses.replace(row, choices=texts))
    if not pairs:
        words, count = np.unique(reasons, return_counts=True)
        most = f"{words[count.argmax()]} ({count.max()} of {count.sum()})"
        raise BadInput(f"student.objective: no question of {TRANSFER} is left for dpo: {most}")
    write_rows(here / "targets.jsonl", pairs)
    ids, ones = np.array([row.id for row in pairs]), np.ones(len(pairs))
    target_N2 = np.tile([1.0, 0.0], (len(pairs), 1))
    write_arrays(here / "labels.npz", PseudoLabels(ids, target_N2, ones, np.full(len(pairs), AGREED)))
    dropped = {words: int((reasons == words).sum()) for words in sorted(set(reasons) - {AGREED})}
    return {"rows": len(pairs), "dropped": dropped}


def optimise(
    here: Path,
    inputs: Inputs,
    tools: Tools,
    *,
    objective: dict,
    learner: Learner,
    seed: int,
    aggregate: dict | None = None,
    standardised: bool = True,
    writing: dict | None = None,
) -> Facts:
    """The parent `model` after further training, on `pairs` or on rewards by the parents judge-00, judge-01, ...

    Rewards need the parents `questions` and `scores`: unless `standardised` is false, a member's rewards have mean 0
    and variance 1 over the candidates of the transfer pool.
    """
    start = inputs["model"] / "fit-0" / "model"
    if not start.exists():
        return why_skipped(inputs["model"])
    learner, runtime = with_shots(inputs, learner), student_runtime(tools.runtime)
    job = Objective(objective, learner, seed, str(start), runtime=runtime)
    if "pairs" in inputs:
        pairs = Pairs(str(inputs["pairs"] / "targets.jsonl"), str(inputs["pairs"] / "labels.npz"))
        job = dataclasses.replace(job, pairs=pairs)
    else:
        examples = str(inputs["questions"] / f"{TRANSFER}.jsonl")
        judges = Judges(list_models(inputs, "judge-"), aggregate, *units(inputs, standardised))
        job = dataclasses.replace(job, examples=examples, rewards=judges, writing=Writing(**writing))
    done = do_job(here / "fit-0", tools, job)
    return {key: value for key, value in done.items() if key not in ("worker", "seconds")}


def units(inputs: Inputs, standardised: bool) -> tuple[list[float] | None, list[float] | None]:
    """Each member's mean and standard deviation over the candidates of the transfer pool; 1 if it is constant."""
    if not standardised:
        return None, None
    scores_MNK = read_arrays(inputs["scores"] / f"{TRANSFER}.npz", Rewards).scores_MNK
    known_MP = [scores_NK[~np.isnan(scores_NK)] for scores_NK in scores_MNK]
    if not all(len(known_P) for known_P in known_MP):
        raise BadInput("rewards: a reward model has scored no candidate of the transfer pool")
    return [float(known_P.mean()) for known_P in known_MP], [float(known_P.std()) or 1.0 for known_P in known_MP]
