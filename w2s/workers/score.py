"""Every reward model's scores of every candidate: the worker of job.Score.

Examples are shared out over the processes; a killed job resumes with the missing models and chunks.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from w2s.config.fields import Runtime
from w2s.models.folders import read_marks, read_model
from w2s.models.kinds import find_kind, load_fitted
from w2s.models.members import open_members, rewards
from w2s.models.records import Loaded
from w2s.models.world import World
from w2s.store.records import BadInput, Example, Rewards, align, read_arrays, write_arrays
from w2s.workers.embed import find_states, open_body, read_base
from w2s.workers.examples import count_cuts, read_sets
from w2s.workers.job import Score
from w2s.workers.parts import Chunk, drop_parts, make_parts


def run(folder: Path, job: Score, world: World) -> dict[str, Any]:
    """Do the job in `folder`; returns the summary for done.json."""
    names = job.names or job.models
    if not job.models or len(set(names)) < len(job.models) or len(names) != len(job.models):
        raise BadInput(f"models: {job.models} given; allowed: at least 1, all with different names")
    sets, cut = read_sets(folder, job.examples), {}
    for at, path in enumerate(job.models):
        score_by(folder / f"model-{at}", folder / path, sets, job.runtime, world)
        cuts = json.loads((folder / f"model-{at}" / "cuts.json").read_text())
        cut |= {f"{name} ({names[at]})": counts for name, counts in cuts.get("cut", {}).items()}
    if world.rank == 0:
        for name, examples in sets.items():
            ids = np.array([example.id for example in examples])
            write_arrays(folder / f"{name}.npz", join_models(folder, name, names, ids))
    world.barrier()
    if world.rank == 0:
        for at in range(len(job.models)):
            shutil.rmtree(folder / f"model-{at}")
    return {"rows": {name: len(examples) for name, examples in sets.items()}, **({"cut": cut} if cut else {})}


Judge = Callable[[list[Example], int, int], Iterator[tuple[np.ndarray, np.ndarray]]]
"""(examples, width K, chunks to skip) -> ids_N and scores_MNK chunk by chunk, nan where there is no score."""


def open_judge(folder: Path, runtime: Runtime, world: World) -> tuple[Loaded, int, Judge]:
    """The network of the reward models in a folder, how many they are, and how they score: a plain model of kind pair,
    an ensemble, or a probe."""
    marks = read_marks(folder)
    if "members" in marks or not find_kind(read_model(folder)[0].kind).reads_states:
        members = open_members(folder, device=world.device)

        def judge(rows: list[Example], wide: int, skip: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
            ids = np.array([example.id for example in rows])
            for index, scores_MNK in rewards(members, rows, width=wide, skip=skip):
                yield ids[index], scores_MNK

        return members.loaded, members.ensemble.members, judge
    kind, head = load_fitted(folder)
    body = open_body(read_base(folder), runtime, world)

    def judge_states(rows: list[Example], wide: int, skip: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for states in find_states(body, rows, skip=skip):
            scores_NK = kind.scores(head, states)
            scores_NK = np.where(np.isfinite(scores_NK), scores_NK, np.nan)
            yield states.ids, np.pad(scores_NK, ((0, 0), (0, wide - scores_NK.shape[1])), constant_values=np.nan)[None]

    return body, 1, judge_states


def score_by(folder: Path, model: Path, sets: dict[str, list[Example]], runtime: Runtime, world: World) -> None:
    """Write one model's scores as NAME.npz in `folder`, unless they exist."""
    if all((folder / f"{name}.npz").exists() for name in sets):
        return
    loaded, count, judge = open_judge(model, runtime, world)
    wide = max((len(example.choices) for rows in sets.values() for example in rows), default=1)

    def make(rows: list[Example], skip: int) -> Iterator[Chunk]:
        for ids, scores_MNK in judge(rows, wide, skip):
            yield len(ids), {"rewards.npz": Rewards(ids, scores_MNK, np.arange(count).astype(str))}

    parts = make_parts(folder, sets, world, make)
    cut = count_cuts(loaded, sets, model.name, world)
    if world.rank == 0:
        (folder / "cuts.json").write_text(json.dumps(cut))
        for name, examples in sets.items():
            chunks = [read_arrays(part / "rewards.npz", Rewards) for part in parts[name]]
            write_arrays(folder / f"{name}.npz", join_chunks(chunks, examples))
        drop_parts(folder, world)
    world.barrier()


def join_chunks(chunks: list[Rewards], examples: list[Example]) -> Rewards:
    """One model's scores of a set, in the order of its examples and no wider than their candidates."""
    widest = max(len(example.choices) for example in examples)
    ids = np.concatenate([chunk.ids for chunk in chunks])
    scores_MNK = np.concatenate([chunk.scores_MNK for chunk in chunks], axis=1)[..., :widest]
    return align(Rewards(ids, scores_MNK, chunks[0].models), np.array([example.id for example in examples]))


def join_models(folder: Path, name: str, names: list[str], ids: np.ndarray) -> Rewards:
    """All models' scores of one set; the members of an ensemble are named NAME/0, NAME/1, ..."""
    rewards_by_model = [read_arrays(folder / f"model-{at}" / f"{name}.npz", Rewards) for at in range(len(names))]
    models = []
    for name, scores in zip(names, rewards_by_model, strict=True):
        models += [name] if len(scores.models) == 1 else [f"{name}/{member}" for member in scores.models]
    return Rewards(ids, np.concatenate([scores.scores_MNK for scores in rewards_by_model]), np.array(models))
