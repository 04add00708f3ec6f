"""`w2s show` and `w2s why`: what an artifact is and holds, and how one question got its label."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from w2s.records import BadInput, Example, Gold, Predictions, PseudoLabels, Weights, read_arrays, read_rows
from w2s.store import read_manifest

PREVIEW_ROWS = 3
WIDTH = 110


def find_artifact(name: str, runs_dir: Path) -> Path:
    """A folder of the store, by path or by the start of its name."""
    if (Path(name) / "manifest.json").is_file():
        return Path(name)
    found = sorted(p for p in (runs_dir / "store").glob(f"{name}*") if (p / "manifest.json").is_file())
    if not found:
        raise BadInput(f"{name}: no such artifact in {runs_dir / 'store'}")
    if len(found) > 1:
        raise BadInput(f"{name}: {len(found)} artifacts begin so ({', '.join(p.name for p in found[:3])}, ...)")
    return found[0]


def describe_artifact(name: str, runs_dir: Path) -> str:
    """The manifest in words, and the first rows of each record."""
    folder = find_artifact(name, runs_dir)
    manifest = read_manifest(folder)
    lines = [f"{folder.name}: {manifest['title']}", f"made in {manifest['seconds']} s at commit {manifest['commit']}"]
    lines += [f"from {role}: {parent}" for role, parent in manifest["parents"].items()]
    lines += ["options: " + shorten(json.dumps(manifest["section"], ensure_ascii=False), 10 * WIDTH)]
    lines += [f"{key}: {value}" for key, value in manifest["facts"].items()]
    for name, file in manifest["files"].items():
        lines.append(f"\n{name} ({file['size']:,} bytes)")
        if "/" not in name:
            lines += [f"  {shorten(line)}" for line in preview(folder / name)]
    return "\n".join(lines)


def preview(path: Path) -> list[str]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return [f"{key} {arrays[key].shape}: {str(arrays[key][:2]).split()}" for key in arrays if arrays[key].ndim]
    if path.suffix in (".jsonl", ".json", ".txt"):
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[:PREVIEW_ROWS]
    return []


def shorten(text: str, width: int = WIDTH) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def describe_row(run: Path, row: str) -> str:
    """Every learner's vote and alpha, the question's weight by round, its label and why: for each seed it is in."""
    listed = json.loads((run / "stages.json").read_text())["stages"]
    store = run.parent / "store"
    stages = [{**stage, "path": store / stage["folder"]} for stage in listed]
    lines: list[str] = []
    for asked in (s for s in stages if s["name"] == "questions"):
        for split in ("easy_fit", "easy_holdout", "transfer", "hard_test"):
            for example in read_rows(asked["path"] / f"{split}.jsonl", Example):
                if example.id.startswith(row):
                    seed = asked["tags"]["seed"]
                    mine = [s for s in stages if s["tags"].get("seed") == seed]
                    lines += [*describe_in_seed(example, split, seed, mine), ""]
    if not lines:
        raise BadInput(f"{row}: no question of {run} has an id that begins so")
    return "\n".join(lines)


def describe_in_seed(example: Example, split: str, seed: int, stages: list[Mapping[str, Any]]) -> list[str]:
    """The story of one question in one seed."""
    lines = [f"{example.id} · seed {seed} · {split} · {example.source}", f"  {shorten(example.prompt)}"]
    answer = next(
        (g.answer for s in stages if s["name"] == "gold" for g in gold_rows(s, split) if g.id == example.id), None
    )
    lines += [f"  {'→' if at == answer else ' '} {at}. {shorten(choice)}" for at, choice in enumerate(example.choices)]
    rounds = [s for s in stages if s["tags"].get("kind") == "round" and s["tags"]["model"] == "committee"]
    if split == "easy_fit":
        lines += weight_lines(example.id, rounds)
    else:
        lines += vote_lines(example.id, split, stages)
    if split == "transfer":
        for stage in (s for s in stages if s["tags"].get("kind") == "labels"):
            labels = read_arrays(stage["path"] / "labels.npz", PseudoLabels)
            at = position(labels.ids, example.id)
            kept = "kept" if labels.weight_N[at] > 0 else "dropped"
            lines.append(
                f"  label by {stage['tags']['model']}: {numbers(labels.target_NK[at])}, {kept} ({labels.why_N[at]})"
            )
    return lines


def gold_rows(stage: Mapping[str, Any], split: str) -> list[Gold]:
    is_it = stage["tags"]["split"] == ("easy" if split.startswith("easy") else split)
    return read_rows(stage["path"] / "gold.jsonl", Gold) if is_it else []


def weight_lines(key: str, rounds: list[Mapping[str, Any]]) -> list[str]:
    """Each round's opinion of an easy question, and the weight it then got (1 = as heavy as the average row)."""
    lines = ["  round   weight after   chose  probabilities (by a model that did not train on it)"]
    for stage in rounds:
        if not (stage["path"] / "weights.npz").exists():
            break
        weights = read_arrays(stage["path"] / "weights.npz", Weights)
        opinion = read_arrays(stage["path"] / "easy_fit.npz", Predictions)
        weight = weights.weight_N[position(weights.ids, key)] * len(weights.ids)
        probs = opinion.probs_NK[position(opinion.ids, key)]
        lines.append(f"  {stage['tags']['index'] + 1:5}   {weight:12.2f}   {probs.argmax():5}  {numbers(probs)}")
    return lines


def vote_lines(key: str, split: str, stages: list[Mapping[str, Any]]) -> list[str]:
    """Each learner's alpha and distribution, the committee's, and every other model's."""
    committee = next(s for s in stages if s["tags"].get("kind") == "committee" and s["tags"]["model"] == "committee")
    voters = json.loads((committee["path"] / "committee.json").read_text())
    lines = [f"  {'who':28} {'alpha':>6}  chose  probabilities"]
    for stage in stages:
        who, kind = stage["tags"].get("model", ""), stage["tags"].get("kind")
        path = stage["path"] / f"{split}.npz"
        if split == "easy_holdout" and kind == "round" and who == "committee":
            who, kind = f"committee · learner {stage['tags']['index'] + 1}", "member_opinion"
        if kind not in ("opinion", "member_opinion") or not path.exists() or "bagged ·" in who:
            continue
        opinion = read_arrays(path, Predictions)
        probs = opinion.probs_NK[position(opinion.ids, key)]
        at = int(who.rsplit(" ", 1)[-1]) - 1 if kind == "member_opinion" else -1
        alpha = f"{voters['alphas'][at]:.3f}" if 0 <= at < voters["used"] else "-"
        lines.append(f"  {who:28} {alpha:>6}  {probs.argmax():5}  {numbers(probs)}")
    return lines


def position(ids: np.ndarray, key: str) -> int:
    return int(np.flatnonzero(ids == key)[0])


def numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.3f}" for value in values)
