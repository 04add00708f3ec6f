"""Train a student further after its labels, on pairs or rewards of its texts: the worker of job.Objective.

An empty text, and one that no member can judge, gets the lowest reward of its batch; done.json counts them. train.json
has, by step, the loss, the mean reward or (dpo) margin, and "kl": the student's divergence from the reference, in nats
per text (rloo: the mean log-ratio; grpo: TRL's estimate, which is never negative).

TRL's checkpoints are pickles and are not used: a killed job starts again, with the same result on a CPU.
"""

import collections
import dataclasses
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from w2s.config.registry import pick
from w2s.models import load
from w2s.models.committee import count_readable
from w2s.models.generate import Voice
from w2s.models.members import Members, open_members, rewards
from w2s.models.objectives import OBJECTIVES, check
from w2s.models.objectives import Objective as Method
from w2s.models.train import World, set_weights, timer
from w2s.models.trl import Judge, Tokens, fit, make_trainer, pair_tokens
from w2s.rewards.aggregators import AGGREGATORS
from w2s.store.records import BadInput, Example
from w2s.workers.examples import count_cuts, read_examples
from w2s.workers.finetune import load_start, read_labels
from w2s.workers.job import Judges, Objective

ROLLOUTS = "rollouts.jsonl"


def run(folder: Path, job: Objective, world: World) -> dict[str, Any]:
    """Do the job in `folder`; returns the summary for done.json."""
    method, job = choose_method(job)
    seconds, trl_files = timer(), folder / "trl"
    counts: dict[str, int] = {}
    loaded, judge = load_start(job, world), None
    if method.reads == "pairs":
        data = read_pairs(folder, job, loaded, counts)
    else:
        data = list(read_examples(folder / job.examples))
        judge = make_judge(folder, job.rewards, data, world, counts)
    trainer = make_trainer(
        method, loaded, data, job.learner.train, job.runtime, world, trl_files, job.seed, judge, job.writing
    )
    sets, reads = {"questions": data}, count_readable([Voice(loaded)])
    if judge is None:
        sets, reads = {"pairs": read_labels(folder, job.pairs)[0]}, loaded.max_tokens
    cut = count_cuts(loaded, sets, job.learner.model.path, world, tokens=reads)
    history, tokens, weights = fit(trainer)
    summary = {"rows": len(data), "steps": len(history), "tokens": tokens, **counts, **cut}
    measure, quarter = "margin" if method.reads == "pairs" else "reward", -(-len(history) // 4)
    for name, part in (("first", history[:quarter]), ("last", history[-quarter:])):
        summary[f"{measure}_{name}"] = float(np.mean([row[measure] for row in part]))
    if world.rank == 0:
        start = load_start(job, World())  # TRL has changed the trained one
        set_weights(start.module, weights)
        load.save(start, folder / "model")
        by_step = {key: [row[key] for row in history] for key in history[0]}
        (folder / "train.json").write_text(json.dumps({**summary, **by_step, "seconds": seconds()}))
        shutil.rmtree(trl_files, ignore_errors=True)
    return summary


def choose_method(job: Objective) -> tuple[Method, Objective]:
    """The objective's method, and the job with the method's training settings, both checked."""
    method = pick(OBJECTIVES, job.objective, key="objective")()
    learner = dataclasses.replace(job.learner, train=method.training(job.learner.train))
    check(method, learner, "learner")
    name = job.objective["name"]
    if method.reads == "nothing":
        raise BadInput(f"objective: {name!r} given; the student has already learned from its labels")
    if not getattr(job, method.reads):
        raise BadInput(f"objective: {name!r} given; it needs {method.reads}, which are missing")
    return method, dataclasses.replace(job, learner=learner)


def read_pairs(folder: Path, job: Objective, loaded: load.Loaded, counts: dict[str, int]) -> list[Tokens]:
    """The pairs in tokens; those with equal texts or without a preference are left out and counted in "equal"."""
    examples, labels, _ = read_labels(folder, job.pairs)
    odd = next((example for example in examples if len(example.choices) != 2), None)
    if odd is not None:
        raise BadInput(f"{job.pairs.examples}: {odd.id}: {len(odd.choices)} candidates given; allowed: 2")
    differ_N = np.array([len({text.strip() for text in example.choices}) == 2 for example in examples])
    differ_N &= labels.target_NK[:, 0] != labels.target_NK[:, 1]
    if not differ_N.any():
        raise BadInput(f"{job.pairs.examples}: every pair's texts are equal or equally good: nothing to prefer")
    counts["equal"] = int((~differ_N).sum())
    kept = [example for example, differ in zip(examples, differ_N, strict=True) if differ]
    return pair_tokens(loaded, kept, labels.target_NK[differ_N].argmax(1).tolist())


def make_judge(folder: Path, judges: Judges, examples: list[Example], world: World, counts: dict[str, int]) -> Judge:
    """A judge of texts for the questions in `examples`; rank 0 writes the rollouts and counts "unjudged" ones."""
    models = [open_members(folder / path, device=world.device) for path in judges.models]
    centre_M, scale_M = read_units(judges, sum(model.ensemble.members for model in models))
    aggregate = pick(AGGREGATORS, judges.aggregate, key="rewards.aggregate")
    by_id = {example.id: example for example in examples}
    counts["unjudged"] = 0
    (folder / ROLLOUTS).unlink(missing_ok=True)

    def judge(step: int, ids: list[str], texts: list[str]) -> list[float]:
        rows = [dataclasses.replace(by_id[key], choices=(text,)) for key, text in zip(ids, texts, strict=True)]
        scores_MB = (member_scores(models, rows) - centre_M[:, None]) / scale_M[:, None]
        # All processes' texts: two may share a question, and the lowest reward is that of the whole batch.
        parts = gather((ids, texts, scores_MB), world)
        ids_B, texts_B = ([value for part in parts for value in part[at]] for at in (0, 1))
        scores_MB = np.concatenate([part[2] for part in parts], axis=1)
        reward_B = compare(scores_MB, ids_B, aggregate)
        known_B = np.isfinite(reward_B) & np.array([bool(text.strip()) for text in texts_B])
        reward_B = np.where(known_B, reward_B, reward_B[known_B].min() if known_B.any() else 0.0)
        counts["unjudged"] += int((~known_B).sum())
        if world.rank == 0:
            rollouts = zip(ids_B, texts_B, scores_MB.T.tolist(), reward_B.tolist(), strict=True)
            with open(folder / ROLLOUTS, "a", encoding="utf-8") as file:
                for key, text, scores_M, reward in rollouts:
                    known_M = [None if np.isnan(score) else score for score in scores_M]
                    line = {"step": step, "id": key, "text": text, "rewards": known_M, "reward": reward}
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
        before = sum(len(part[0]) for part in parts[: world.rank])
        return reward_B[before : before + len(ids)].tolist()

    return judge


def read_units(judges: Judges, members: int) -> tuple[np.ndarray, np.ndarray]:
    """centre_M and scale_M of the members' scores."""
    centre_M = np.array(judges.centre_M or [0] * members, dtype=float)
    scale_M = np.array(judges.scale_M or [1] * members, dtype=float)
    if not (centre_M.shape == scale_M.shape == (members,) and np.isfinite(centre_M).all() and (scale_M > 0).all()):
        raise BadInput(
            f"rewards.scale_M: {scale_M.tolist()} given; allowed: {members} numbers above 0, as many in centre_M"
        )
    return centre_M, scale_M


def member_scores(models: list[Members], examples: list[Example]) -> np.ndarray:
    """scores_MB of examples with one candidate each, over the members of all models in order."""
    parts = []
    for members in models:
        scores_MB = np.full((members.ensemble.members, len(examples)), np.nan)
        for index, scores_MNK in rewards(members, examples, width=1):
            scores_MB[:, index] = scores_MNK[..., 0]
        parts.append(scores_MB)
    return np.concatenate(parts)


def compare(scores_MB: np.ndarray, ids_B: list[str], aggregate: Callable) -> np.ndarray:
    """reward_B, aggregated as in labelling: the texts of one question are its candidates."""
    _, row_B = np.unique(ids_B, return_inverse=True)
    places = collections.defaultdict(itertools.count)
    place_B = np.array([next(places[key]) for key in ids_B])
    mask_NK = np.zeros((row_B.max() + 1, place_B.max() + 1), dtype=bool)
    mask_NK[row_B, place_B] = True
    scores_MNK = np.full((len(scores_MB), *mask_NK.shape), np.nan)
    scores_MNK[:, row_B, place_B] = scores_MB
    return aggregate(scores_MNK, mask_NK)[row_B, place_B]


def gather(mine: Any, world: World) -> list[Any]:
    """Every process' object, in rank order."""
    if world.size == 1:
        return [mine]
    parts: list[Any] = [None] * world.size
    torch.distributed.all_gather_object(parts, mine)
    return parts
