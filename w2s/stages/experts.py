"""Stages that make one sparse model of dense ones, and which examples each of its experts is for."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from w2s.config.fields import Learner
from w2s.stages import Facts, Inputs, Tools, find_set
from w2s.stages.jobs import do_job
from w2s.stages.models import base_folder
from w2s.stages.rounds import FIT, HOLDOUT, find_answers, row_weights
from w2s.store.log import say
from w2s.store.records import Example, Predictions, Weights, align, read_arrays, read_rows, write_arrays
from w2s.workers.job import Experts

ROUNDING = 1e-9
"""Probabilities that differ by less are the same."""


def upcycled(
    here: Path, inputs: Inputs, tools: Tools, *, learner: Learner, experts: int, active: int, balance: float, seed: int
) -> Facts:
    """The learner's base with each MLP copied `experts` times: the same outputs, up to rounding, until it is trained.

    The routers' rows are drawn with a small standard deviation (job.Experts.noise), so that the copies part.
    """
    path = base_folder(inputs, tools, learner)
    job = Experts([path] * experts, [1.0] * experts, layers=learner.model.layers, active=active, balance=balance)
    return told(do_job(here, tools, dataclasses.replace(job, seed=seed, runtime=tools.runtime)))


def mixture(
    here: Path,
    inputs: Inputs,
    tools: Tools,
    *,
    learner: Learner,
    router: str,
    rest: str,
    active: int,
    balance: float,
    seed: int,
) -> Facts:
    """The committee's learners as the experts of one model, not trained further.

    Parents: `committee` (who votes, with which alpha), `round-0`, ..., and for rest: base their `base`. Every model
    that speaks for a round is an expert; they share its alpha and its examples. router: zero draws its rows; hidden
    turns them towards the examples that the rounds weighted; weights towards those of easy_holdout that the learner
    got right and the committee (parent `holdout`) did not (parent `gold`).
    """
    voters = json.loads((inputs["committee"] / "committee.json").read_text(encoding="utf-8"))
    rounds = [inputs[f"round-{at}"] for at in range(voters["used"])]
    models = [sorted(folder.glob("fit-*/model")) for folder in rounds]
    weights = [alpha / len(own) for alpha, own in zip(voters["alphas"], models, strict=True) for _ in own]
    if len(weights) < active:
        say(f"experts: active is {len(weights)}, as so many models speak for the committee; {active} was asked for")
    job = {"models": [str(model) for own in models for model in own], "weights": weights}
    job |= {"active": min(active, len(weights))}
    job |= {"base": base_folder(inputs, tools, learner) if rest == "base" else None, "balance": balance, "seed": seed}
    job |= {"layers": learner.model.layers}
    facts = {}
    if router == "hidden":
        towards, on = [read_past_weights(inputs, at) for at in range(voters["used"])], FIT
    elif router == "weights":
        opinions = [read_arrays(folder / f"{HOLDOUT}.npz", Predictions) for folder in rounds]
        committee, on = read_arrays(inputs["holdout"] / f"{HOLDOUT}.npz", Predictions), HOLDOUT
        towards, facts = favour(opinions, committee, find_answers(committee, inputs["gold"]))
    if router != "zero":
        own = [weights for weights, models in zip(towards, models, strict=True) for _ in models]
        job |= {"examples": str(find_set(inputs, on)), "towards": write_towards(here / "fit-0", own)}
    return {**told(do_job(here / "fit-0", tools, Experts(**job, runtime=tools.runtime))), **facts}


def read_past_weights(inputs: Inputs, at: int) -> Weights:
    """The weights of easy_fit with which the round `at` was fitted: what the round before it wrote, at first equal."""
    if at:
        return row_weights(inputs[f"round-{at - 1}"])
    ids = np.array([row.id for row in read_rows(find_set(inputs, FIT), Example)])
    return Weights(ids, np.full(len(ids), 1 / len(ids)))


def favour(
    opinions: Sequence[Predictions], committee: Predictions, gold_N: np.ndarray
) -> tuple[list[Weights], dict[str, Any]]:
    """For each learner the examples that it gets right and the committee does not, in equal shares; and their counts.

    gold_N: the position of the right answer in each of the committee's rows. A learner with no such example gets those
    to which it gives the right answer more probability than the committee does, by how much more; if there is none
    either, all examples. Either is said.
    """
    rows = np.arange(len(gold_N))
    found, counts = [], []
    for at, opinion in enumerate(opinions):
        own = align(opinion, committee.ids)
        right_N, found_N = (one.probs_NK.argmax(1) == gold_N for one in (own, committee))
        weight_N = (right_N & ~found_N).astype(float)
        counts.append(int(weight_N.sum()))
        if not weight_N.any():
            more_N = own.probs_NK[rows, gold_N] - committee.probs_NK[rows, gold_N]
            weight_N = np.where(more_N > ROUNDING, more_N, 0.0)
            instead = f"those {int((weight_N > 0).sum())} that it finds likelier" if weight_N.any() else "all"
            say(f"experts: learner {at + 1} is never right where the committee is wrong; its router takes {instead}")
        weight_N = weight_N if weight_N.any() else np.ones(len(rows))
        found.append(Weights(committee.ids, weight_N / weight_N.sum()))
    return found, {"won": counts}


def write_towards(here: Path, weights: Sequence[Weights]) -> list[str]:
    """Write the examples of each expert beside the job; returns the files' names."""
    here.mkdir(parents=True, exist_ok=True)
    names = [f"towards-{at:02}.npz" for at in range(len(weights))]
    for name, one in zip(names, weights, strict=True):
        write_arrays(here / name, one)
    return names


def told(done: dict[str, Any]) -> Facts:
    return {key: value for key, value in done.items() if key not in ("worker", "seconds")}
