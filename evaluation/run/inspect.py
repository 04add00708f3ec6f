"""`w2s show` and `w2s why`: what an artifact is and holds, and how one question got its label."""

import dataclasses
import glob
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from w2s.evaluation.run.runs import Artifact, Run, open_run, outcomes_of
from w2s.grading.answers import NO_ANSWER
from w2s.stages.rounds import row_weights
from w2s.stages.writing import read_texts
from w2s.store import records
from w2s.store.artifacts import MANIFEST, check_artifact, read_manifest
from w2s.store.records import BadInput, Example, Predictions, read_arrays, read_rows

PREVIEW_ROWS = 3
WIDTH = 110
TEXT = 400  # characters of a written answer


def find_artifact(name: str, runs_dir: Path) -> Path:
    """A folder of the store, by path or by the start of its name."""
    if (Path(name) / MANIFEST).is_file():
        return Path(name)
    found = sorted((runs_dir / "store").glob(f"{glob.escape(name)}*/{MANIFEST}")) if name else []
    if not found:
        raise BadInput(f"{name}: no such artifact in {runs_dir / 'store'}")
    if len(found) > 1:
        raise BadInput(f"{name}: {len(found)} artifacts match ({', '.join(p.parent.name for p in found[:3])}, ...)")
    return found[0].parent


def describe_artifact(name: str, runs_dir: Path) -> str:
    """The manifest as text, and the first rows of each record."""
    folder = check_artifact(find_artifact(name, runs_dir))
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
        found = records.load_arrays(path).items()
        return [f"{key} {array.shape}: {str(array[:2]).split()}" for key, array in found if array.ndim]
    if path.suffix in (".jsonl", ".json", ".txt"):
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[:PREVIEW_ROWS]
    return []


def shorten(text: str, width: int = WIDTH) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def describe_row(folder: Path, row: str) -> str:
    """Votes and alphas of the learners, the question's weight by round, its label and why, for each of its seeds."""
    run, lines = open_run(folder), []
    for questions in run.find("questions"):
        seed = questions.tags["seed"]
        in_seed = dataclasses.replace(run, artifacts=[a for a in run.artifacts if a.tags.get("seed") == seed])
        for split in ("easy_fit", "easy_holdout", "transfer", "hard_test"):
            for example in read_rows(questions.path / f"{split}.jsonl", Example):
                if example.id.startswith(row):
                    lines += [*describe_in_seed(example, split, seed, in_seed), ""]
    if not lines:
        raise BadInput(f"{row}: no question of {folder} has an id that begins with it")
    return "\n".join(lines)


def describe_in_seed(example: Example, split: str, seed: int, run: Run) -> list[str]:
    """Everything about one question in one seed; `run` has only that seed's artifacts."""
    lines = [f"{example.id} · seed {seed} · {split} · {example.source}", *block(example.prompt, "  ")]
    name = "easy" if split.startswith("easy") else split
    answer = run.gold(name, seed).get(example.id) if run.find("gold", split=name) else None
    if example.task == "choice":
        choices = enumerate(example.choices)
        lines += [f"  {'→' if at == answer else ' '} {at}. {shorten(choice)}" for at, choice in choices]
    elif answer is not None:
        lines += block(str(answer), "  → ")
    if split == "easy_fit":
        lines += weight_lines(example, run.find("round", model="committee"))
    elif example.task == "choice":
        lines += vote_lines(example.id, split, run.artifacts, alphas_of(run))
    else:
        lines += text_lines(example.id, split, run) + candidate_lines(example.id, split, run)
    lines += reward_lines(example.id, split, run)
    labels = run.find("labels") if split == "transfer" else []
    return lines + [line for stage in labels for line in label_lines(example, stage)]


def block(text: str, head: str) -> list[str]:
    """A text as lines after `head`, later lines indented below the first; long texts are cut."""
    lines = shorten(text.strip("\n").rstrip(), TEXT).splitlines() or ["(nothing)"]
    return [(head if at == 0 else " " * len(head)) + shorten(line) for at, line in enumerate(lines)]


def label_lines(example: Example, stage: Artifact) -> list[str]:
    """The question's label, and why it was kept or dropped; for written answers, the most probable one."""
    labels = read_arrays(stage.path / "labels.npz", records.PseudoLabels)
    at = position(labels.ids, example.id)
    target, kept = labels.target_NK[at], f"{'kept' if labels.weight_N[at] > 0 else 'dropped'} ({labels.why_N[at]})"
    head = f"  label by {stage.tags['model']}: "
    if example.task == "choice":
        return [f"{head}{numbers(target)}, {kept}"]
    texts = next(r.choices for r in read_rows(stage.path / "targets.jsonl", Example) if r.id == example.id)
    share = f"share {target.max():.3f}, " if len(texts) > 1 else ""
    return [f"{head}{share}{kept}", *block(texts[int(target.argmax())] if texts else "", "      ")]


def weight_lines(example: Example, rounds: Sequence[Artifact]) -> list[str]:
    """The opinion of each round of an easy question, and its weight after that round (1: an average row)."""
    what = "chose  probabilities" if example.task == "choice" else "tokens of the answer that were not the likeliest"
    lines = [f"  round   weight after   {what} (by a model that did not train on it)"]
    for stage in rounds:
        if not (stage.path / "weights.npz").exists():
            break
        weights = row_weights(stage.path)
        weight = weights.weight_N[position(weights.ids, example.id)] * len(weights.ids)
        line = f"  {stage.tags['index'] + 1:5}   {weight:12.2f}   "
        if example.task == "choice":
            line += chosen(stage.path / "easy_fit.npz", example.id)
        else:
            line += missed_tokens(stage.path / "easy_fit.npz", example.id)
        lines.append(line)
    return lines


def chosen(path: Path, key: str) -> str:
    """The choice of an opinion, and the probabilities of all."""
    opinion = read_arrays(path, Predictions)
    probs = opinion.probs_NK[position(opinion.ids, key)]
    return f"{probs.argmax():5}  {numbers(probs)}"


def missed_tokens(path: Path, key: str) -> str:
    """'3 of 12': how many of an answer's tokens, given the right ones before, were not the model's first choice."""
    if not path.exists():
        return ""
    ranks = read_arrays(path, records.TokenRanks)
    at = position(ranks.ids, key)
    start = int(ranks.length_N[:at].sum())
    above_T = ranks.above_T[start : start + int(ranks.length_N[at])]
    return f"{int((above_T > 0).sum())} of {len(above_T)}"


def alphas_of(run: Run) -> dict[str, str]:
    """learner -> its alpha in its committee, as shown."""
    found = {}
    for stage in run.find("committee"):
        for at, alpha in enumerate(json.loads((stage.path / "committee.json").read_text())["alphas"]):
            found[f"{stage.tags['model']} · learner {at + 1}"] = f"{alpha:.3f}"
    return found


def vote_lines(key: str, split: str, stages: Sequence[Artifact], alphas: Mapping[str, str]) -> list[str]:
    """Each learner's alpha and distribution, the committee's, and every other model's."""
    lines = [f"  {'who':28} {'alpha':>6}  chose  probabilities"]
    for stage in stages:
        who, kind = stage.tags.get("model", ""), stage.tags.get("kind")
        if split == "easy_holdout" and kind == "round" and who == "committee":
            who, kind = f"committee · learner {stage.tags['index'] + 1}", "member_opinion"
        is_opinion = kind in ("opinion", "member_opinion") and "bagged ·" not in who
        if is_opinion and (path := stage.path / f"{split}.npz").exists():
            lines.append(f"  {who:28} {alphas.get(who, '-'):>6}  {chosen(path, key)}")
    return lines


def text_lines(key: str, split: str, run: Run) -> list[str]:
    """Each model's text, with its log-probability and whether it was right."""
    alphas, lines = alphas_of(run), []
    verdicts = {
        stage.tags["model"]: next((verdict_of(o) for o in outcomes_of(stage) if o.id == key), "-")
        for stage in run.outcomes(split)
    }
    for stage in run.find("member_texts") + run.find("texts"):
        who, exists = stage.tags["model"], (stage.path / f"{split}_texts.jsonl").exists()
        if exists and (said := read_texts(stage.path, split).get(key)):
            head = f"  {who:28} {alphas.get(who, '-'):>6}  {said['logps'][0]:8.2f}  {verdicts.get(who, '-'):8}  "
            lines += block(said["texts"][0], head)
    title = f"  {'who':28} {'alpha':>6}  {'log p':>8}  {'judged':8}  wrote"
    return [title, *lines] if lines else []


def verdict_of(outcome: records.Outcome) -> str:
    if outcome.status == NO_ANSWER:
        return "none"
    return {True: "right", False: "wrong", None: "unjudged"}[outcome.correct]


def candidate_lines(key: str, split: str, run: Run) -> list[str]:
    """If whole answers were voted on: the candidates, and every voter's distribution over them."""
    lines = []
    for stage in run.find("candidates"):
        owner, path = stage.tags["model"], stage.path / f"{split}.jsonl"
        row = next((r for r in read_rows(path, Example) if r.id == key), None) if path.exists() else None
        if row is None:
            continue
        lines.append(f"  candidates of {owner}:")
        lines += [line for at, text in enumerate(row.choices) for line in block(text, f"    {at}. ")]
        voters = [s for s in run.artifacts if s.tags.get("model", "").split(" · ")[0] == owner]
        lines += vote_lines(key, split, voters, alphas_of(run))
    return lines


def reward_lines(key: str, split: str, run: Run) -> list[str]:
    """The scores of each reward model for the candidates, their aggregate, and the opinion of the tilted committee."""
    lines = []
    for stage in run.find("rewards"):
        if (path := stage.path / f"{split}.npz").exists():
            lines += [f"  {'reward model':28} {'':>6}  first  rewards of the candidates", *score_lines(path, key)]
    for stage in run.find("opinion", model="rewarded") if lines else ():
        if (path := stage.path / f"{split}_rewards.npz").exists():
            strength = json.loads((stage.path / "rewards.json").read_text())["strength"]
            how = "best of n" if strength is None else f"tilted, strength {strength:g}"
            opinion = f"  {how:28} {'':>6}  {chosen(stage.path / f'{split}.npz', key)}"
            lines += [*score_lines(path, key), opinion]
    return lines


def score_lines(path: Path, key: str) -> list[str]:
    """A line of scores for each model or aggregate; nan: not judged, or no candidate."""
    rewards = read_arrays(path, records.Rewards)
    found = rewards.scores_MNK[:, position(rewards.ids, key)]
    best_M = np.where(np.isnan(found), -np.inf, found).argmax(1).tolist()
    named = zip(rewards.models.tolist(), best_M, found, strict=True)
    return [f"  {model:28} {'':>6}  {best:5}  {numbers(scores)}" for model, best, scores in named]


def position(ids: np.ndarray, key: str) -> int:
    return int(np.flatnonzero(ids == key)[0])


def numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.3f}" for value in values)
