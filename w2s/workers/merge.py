"""One model whose weights are merged from several of one base, tensor by tensor: the worker of job.Merge.

Memory holds one tensor of every model. The file is the same for any order of the models and any cut into shards.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from w2s.config.fields import Model
from w2s.config.registry import pick
from w2s.config.values import Count
from w2s.merging.methods import Tensor, as_shares, check_method, mean_cosine, merge_tensor
from w2s.models import load, tensors
from w2s.models.folders import MARKS, read_marks
from w2s.models.statistics import STATISTICS, find_statistics
from w2s.models.tensors import WEIGHTS, Spec, Weights
from w2s.models.world import World
from w2s.store.artifacts import hash_file
from w2s.store.records import BadInput
from w2s.workers.examples import read_sets
from w2s.workers.job import Merge
from w2s.workers.merge_adapters import WEIGHTS as ADAPTER_WEIGHTS
from w2s.workers.merge_adapters import is_adapter, merge_adapters

SETTINGS = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
            "chat_template.jinja", "chat_template.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model",
            "generation_config.json", MARKS)  # fmt: skip
"""Files that must be the same in all models."""
UNSAID = ("transformers_version", "_name_or_path", "torch_dtype", "dtype")
"""Keys of these files that say nothing about the model: which version wrote it, and where it came from."""
LARGE = 0.03
"""A delta beyond this is too large to drop values from (arXiv 2311.03099)."""


def run(folder: Path, job: Merge, world: World) -> dict[str, Any]:
    """Do the job in `folder`; returns the summary for done.json."""
    if world.rank:
        world.barrier()
        return {}
    models, base = [folder / path for path in job.models], folder / job.base if job.base else None
    weight_R = as_shares(job.weights, len(models))
    if any(map(is_adapter, models)) or job.method["name"] in ("cat", "svd"):
        return run_adapters(folder, models, weight_R, job)
    check_method(job.method, len(models), has_base=base is not None)
    if (job.method["name"] in STATISTICS) != (job.examples is not None):
        words = f"{' and '.join(STATISTICS)} need questions, other methods take none"
        raise BadInput(f"examples: {job.examples!r} given for {job.method['name']}; {words}")
    partial, out = folder / "model.partial", folder / "model"
    shutil.rmtree(partial, ignore_errors=True)
    with contextlib.ExitStack() as opened:
        learners = [opened.enter_context(Weights(path)) for path in models]
        start = opened.enter_context(Weights(base)) if base else None
        if problems := compare(learners, start):
            raise BadInput("\n".join(problems))
        known = [opened.enter_context(Weights(path)) for path in measure(folder, models, job, world)]
        partial.mkdir()
        copy_settings(models[0], partial)
        merger = Merger(learners, start, weight_R, job, known)
        sha256 = tensors.write(partial / WEIGHTS, merger.specs, merger.make())
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    world.barrier()
    return {"models": len(models), "sha256": sha256, **merger.facts()}


def measure(folder: Path, models: Sequence[Path], job: Merge, world: World) -> list[Path]:
    """Folders with the statistics of each model that the method needs, made unless they are there; none if it needs
    none."""
    if job.examples is None:
        return []
    made, (examples,) = [], read_sets(folder, {"questions": job.examples}).values()
    for at, path in enumerate(models):
        made.append(folder / f"statistics-{at:02}")
        if made[-1].exists():
            continue
        if read_marks(path):
            loaded = load.load_folder(path, device=world.device, precision="float32")
        else:  # not one that w2s saved
            loaded = load.load(Model(path=str(path)), device=world.device)
        found = find_statistics(job.method["name"], loaded, examples, job.seed)
        partial = made[-1].with_suffix(".partial")
        partial.mkdir(exist_ok=True)
        load.write_tensors(partial / WEIGHTS, found)
        partial.rename(made[-1])
    return made


def run_adapters(folder: Path, models: Sequence[Path], weight_R: np.ndarray, job: Merge) -> dict[str, Any]:
    """The same for LoRA adapters: the merged one needs no base."""
    if others := [str(path) for path in models if not is_adapter(path)]:
        raise BadInput(f"{others[0]}: no LoRA adapter; allowed with {job.method['name']} or other adapters: adapters")
    rank = pick({"cat": cat, "svd": svd}, job.method)()
    partial, out = folder / "model.partial", folder / "model"
    shutil.rmtree(partial, ignore_errors=True)
    merge_adapters(models, weight_R, job.scale, rank, partial)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    weights = (weight_R * job.scale).tolist()
    return {"models": len(models), "weights": weights, "sha256": hash_file(out / ADAPTER_WEIGHTS)}


def cat() -> None:
    """Exact: the merged adapter's rank is the sum of the ranks."""


def svd(*, rank: Count) -> int:
    """The nearest adapter of this rank."""
    return rank


def compare(learners: Sequence[Weights], base: Weights | None) -> list[str]:
    """A line for each way in which the models are not of one base."""
    first, problems = learners[0], []
    for other in learners[1:]:
        for name in SETTINGS:
            if read_settings(first.folder / name) != read_settings(other.folder / name):
                problems.append(f"{other.folder}: {name} differs from that of {first.folder}; allowed: the same in all")
        problems += differences(other, first, exact=True)
    if base is not None:
        problems += differences(first, base, exact=False)
    return problems


def differences(model: Weights, other: Weights, *, exact: bool) -> list[str]:
    """Tensors of a model that `other` lacks or has in another shape; with exact, also those that only `other` has."""
    wrong = sorted(model.specs.keys() - other.specs.keys())
    wrong += sorted(other.specs.keys() - model.specs.keys()) if exact else []
    unequal = [n for n, s in model.specs.items() if n in other.specs and other.specs[n].shape != s.shape]
    problems = []
    if wrong:
        problems.append(
            f"{model.folder}: {len(wrong)} tensors are not in both it and {other.folder}: {first_three(wrong)}"
        )
    if unequal:
        shapes = [f"{n} {list(model.specs[n].shape)} against {list(other.specs[n].shape)}" for n in unequal]
        problems.append(
            f"{model.folder}: {len(unequal)} tensors have other shapes in {other.folder}: {first_three(shapes)}"
        )
    return problems


def first_three(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def read_settings(path: Path) -> Any:
    """What a file of settings says, without the keys in UNSAID; None if it is missing."""
    if not path.is_file():
        return None
    content = path.read_bytes()
    if path.suffix != ".json":
        return content
    with contextlib.suppress(ValueError):
        content = json.loads(content)
    return {k: v for k, v in content.items() if k not in UNSAID} if isinstance(content, dict) else content


def copy_settings(source: Path, target: Path) -> None:
    for name in SETTINGS:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


class Merger:
    """The merge of some models, tensor by tensor, and what was seen on the way."""

    def __init__(
        self,
        learners: Sequence[Weights],
        base: Weights | None,
        weight_R: np.ndarray,
        job: Merge,
        known: Sequence[Weights] = (),
    ):
        self.learners, self.base, self.weight_R, self.job, self.known = learners, base, weight_R, job, known
        source = base or learners[0]
        self.specs = {name: self.outcome(source.specs[name]) for name in learners[0].specs}
        count = len(learners)
        self.dots_RR, self.base_squared, self.largest_R = np.zeros((count, count)), 0.0, np.zeros(count)

    def outcome(self, spec: Spec) -> Spec:
        return (
            spec._replace(dtype=getattr(torch, self.job.dtype))
            if self.job.dtype and spec.dtype.is_floating_point
            else spec
        )

    def make(self) -> Iterator[torch.Tensor]:
        """The merged tensors, in order."""
        for name, spec in self.specs.items():
            read = [learner.read(name) for learner in self.learners]
            if not spec.dtype.is_floating_point:
                if any(not torch.equal(read[0], one) for one in read[1:]):
                    raise BadInput(f"{name}: it holds whole numbers that differ among the models")
                yield read[0]
                continue
            yield torch.from_numpy(self.merge(name, read)).to(spec.dtype)

    def merge(self, name: str, read: Sequence[torch.Tensor]) -> np.ndarray:
        hashes = [hashlib.sha256(tensors.as_bytes(one)).hexdigest() for one in read]
        # One order for any order in which the models are listed; equal tensors are told apart by their weights alone.
        order = sorted(range(len(read)), key=lambda at: (hashes[at], self.weight_R[at]))
        base_S = (self.base.read(name) if self.base else read[order[0]]).float().numpy()
        deltas = [read[at].float().numpy() - base_S for at in order]
        self.note(order, base_S, deltas)
        seeds = [f"{self.job.seed} {name} {hashes[at]} {place}" for place, at in enumerate(order)]

        def draw(at: int) -> np.random.Generator:
            return np.random.default_rng(int.from_bytes(hashlib.sha256(seeds[at].encode()).digest()[:16]))

        known = None
        if self.known and all(name in one.specs for one in self.known):
            known = [self.known[at].read(name).numpy() for at in order]
        tensor = Tensor(name, base_S, deltas, self.weight_R[order], draw, known)
        return merge_tensor(tensor, self.job.method, self.job.scale)

    def note(self, order: Sequence[int], base_S: np.ndarray, deltas: Sequence[np.ndarray]) -> None:
        dots = np.array([[np.vdot(a, b) for b in deltas] for a in deltas], dtype=float)
        self.dots_RR[np.ix_(order, order)] += dots
        self.base_squared += float(np.vdot(base_S, base_S))
        for at, delta in zip(order, deltas, strict=True):
            self.largest_R[at] = max(self.largest_R[at], np.abs(delta).max(initial=0))

    def facts(self) -> dict[str, Any]:
        """The coefficients, and with a base how far each learner is from it and how alike the deltas are."""
        found = {"weights": (self.weight_R * self.job.scale).tolist()}
        if self.base is None:
            return found
        norm_R = np.sqrt(np.diag(self.dots_RR))
        scale_RR = np.outer(norm_R, norm_R)
        cosine_RR = np.divide(self.dots_RR, scale_RR, out=np.zeros_like(scale_RR), where=scale_RR > 0)
        found |= {"moved": (norm_R / np.sqrt(self.base_squared)).tolist(), "largest": self.largest_R.tolist()}
        found |= {"cosines": cosine_RR.tolist(), "cosine": mean_cosine(self.dots_RR)}
        if self.job.method["name"] in ("dare", "della") and self.largest_R.max() > LARGE:
            found["warning"] = (
                f"a weight moved by {self.largest_R.max():.2g}: {self.job.method['name']} suits small steps"
            )
        return found
