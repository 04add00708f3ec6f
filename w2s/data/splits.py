"""Easy-to-hard splits without leaks: easy_fit, easy_holdout, transfer, hard_test."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from w2s.config.fields import Data
from w2s.data.difficulty import shuffle
from w2s.data.duplicates import Leak, Like, groups, leak_of
from w2s.store.records import BadInput, Example, Gold

SPLITS = ("easy_fit", "easy_holdout", "transfer", "hard_test")
FILL_ORDER = ("hard_test", "transfer", "easy_holdout", "shots", "easy_fit")  # the first filled never loses a row
SHARES = {"easy_fit": 8, "easy_holdout": 1, "transfer": 2, "hard_test": 1}  # where no size is given


@dataclass(frozen=True)
class Splits:
    """Ids by split, in a seeded random order; `hash` changes exactly when the membership does.

    counts (plain numbers, for the manifest and the report):
    pool (all rows) · repeated_ids (of them, rows whose id occurred before) · without_difficulty · easy · hard · between
    (neither) · tied_at_threshold, tied_as_easy (easy_share: questions with exactly the score at the cut, and those of
    them that the seed made easy) · reserved (rows of test_splits that hard_test did not take: never trained on) ·
    <split> · removed_exact, removed_near: {"easy, in hard_test": how many questions were removed, ...} · unused (easy
    and hard rows that no split took) · repeats (of them, exact duplicates of a row in the split they would have joined)
    · answered_differently (exact duplicates whose gold differs). pool = repeated_ids + without_difficulty + between +
    reserved + the four splits + the removed + unused.
    removed: the rows removed because a split filled before holds a duplicate. shots: easy questions that prompts show,
    in no split.
    """

    easy_fit: np.ndarray
    easy_holdout: np.ndarray
    transfer: np.ndarray
    hard_test: np.ndarray
    hash: str
    counts: dict[str, Any]
    removed: tuple[Leak, ...]
    shots: np.ndarray


def split(
    examples: Sequence[Example],
    gold: Sequence[Gold],
    score_N: np.ndarray,
    data: Data,
    seed: int = 0,
    *,
    shots: int = 0,
) -> Splits:
    """Divide questions with difficulty scores (nan = unknown, left out) into the four splits.

    Easy: score <= easy_max, hard: score >= hard_min; or easy_share: the easiest share of the questions is easy and
    the rest hard, ties broken by the seed. test_splits: the published splits (meta `split`) that alone feed hard_test
    and feed nothing else; None: hard_test and transfer are drawn from the same hard questions. sizes: by split, None =
    the rest (8 : 1 between easy_fit and easy_holdout, 2 : 1 between transfer and hard_test). shots: how many easy
    questions are set apart for prompts to show.

    Splits are filled in the order of FILL_ORDER. A question that duplicates one of a split filled before (exactly, or
    nearly: see duplicates.py) is removed, so hard_test never loses a row to training. The order of the rows does not
    matter. A split below its size is a BadInput, unless allow_fewer; an empty split always is.
    """
    counts: dict[str, Any] = {"pool": len(examples)}
    held_out = set(data.test_splits or ())
    rows = known_rows(examples, gold, score_N, held_out, counts, seed)
    easy, hard = divide(rows, data, counts)
    easy_left = [row for row in easy if row.split not in held_out]
    pools = {
        "hard_test": [row for row in hard if data.test_splits is None or row.split in held_out],
        "transfer": [row for row in hard if row.split not in held_out],
        "easy_holdout": easy_left,
        "easy_fit": easy_left,
    } | ({"shots": easy_left} if shots else {})
    group_N, like = groups([row.example for row in rows], near=data.near)
    group_of = {row.example.id: group for row, group in zip(rows, group_N.tolist(), strict=True)}
    counts["answered_differently"] = differing(rows, group_of)
    chosen, removed = fill(pools, group_of, like, data, shots, counts)
    placed = sum(len(ids) for ids in chosen.values()) + len(removed)
    published_test = sum(row.split in held_out for row in [*easy, *hard])
    counts["reserved"] = published_test - len(chosen["hard_test"]) if held_out else 0
    counts["unused"] = len(easy) + len(hard) - placed - counts["reserved"]
    check_sizes(chosen, data, counts, shots)
    ids = [np.array(chosen[name], dtype=str) for name in SPLITS]
    members = [*SPLITS, "shots"] if shots else SPLITS
    membership = "\n".join(f"{name}:{','.join(sorted(chosen[name]))}" for name in members)
    digest = hashlib.sha256(membership.encode()).hexdigest()[:16]
    return Splits(*ids, digest, counts, tuple(removed), np.array(chosen.get("shots", []), dtype=str))


@dataclass(frozen=True)
class Row:
    example: Example
    answer: Any
    score: float
    split: str | None


def known_rows(
    examples: Sequence[Example], gold: Sequence[Gold], score_N: np.ndarray, held_out: Set[str], counts: dict, seed: int
) -> list[Row]:
    """One row per id that has gold and a score, in seeded order.

    Of rows with the same id, one of a test split is taken, so that published test questions are never trained on.
    """
    if not len(examples) == len(gold) == len(score_N):
        raise ValueError(f"split: {len(examples)} examples, {len(gold)} gold and {len(score_N)} scores given")
    answer_of = {row.id: row.answer for row in sorted(gold, key=lambda row: str(row.answer))}
    if missing := [example.id for example in examples if example.id not in answer_of]:
        raise ValueError(f"split: {len(missing)} examples have no gold ({', '.join(missing[:3])})")
    best: dict[str, tuple[tuple[bool, str, float], Row]] = {}
    for example, score in zip(examples, np.asarray(score_N, dtype=float).tolist(), strict=True):
        published = example.meta.get("split")
        priority = (published in held_out, str(published), -np.inf if np.isnan(score) else score)
        if example.id not in best or priority > best[example.id][0]:
            best[example.id] = priority, Row(example, answer_of[example.id], score, published)
    counts["repeated_ids"] = len(examples) - len(best)
    rows = [best[key][1] for key in shuffle(best, seed)]
    known = [row for row in rows if not np.isnan(row.score)]
    counts["without_difficulty"] = len(rows) - len(known)
    if missing := sorted(held_out - {row.split for row in rows}):
        raise BadInput(f"test_splits: {missing[0]!r} given, no question has it as its published split")
    return known


def divide(rows: list[Row], data: Data, counts: dict[str, Any]) -> tuple[list[Row], list[Row]]:
    """(easy, hard), each still in seeded order."""
    counts |= {"tied_at_threshold": 0, "tied_as_easy": 0}
    if data.easy_share is None:
        easy = [row for row in rows if row.score <= data.easy_max]
        hard = [row for row in rows if row.score >= data.hard_min]
    else:
        by_score = sorted(rows, key=lambda row: row.score)  # a stable sort: the seed's order breaks ties
        cut = round(data.easy_share * len(rows))
        easy_ids = {row.example.id for row in by_score[:cut]}
        easy = [row for row in rows if row.example.id in easy_ids]
        hard = [row for row in rows if row.example.id not in easy_ids]
        if 0 < cut < len(rows) and by_score[cut - 1].score == by_score[cut].score:
            at_cut = by_score[cut].score
            counts["tied_at_threshold"] = sum(row.score == at_cut for row in rows)
            counts["tied_as_easy"] = sum(row.score == at_cut for row in easy)
    counts.update(easy=len(easy), hard=len(hard), between=len(rows) - len(easy) - len(hard))
    return easy, hard


def fill(
    pools: dict[str, list[Row]], group_of: dict[str, int], like: Like, data: Data, shots: int, counts: dict[str, Any]
) -> tuple[dict[str, list[str]], list[Leak]]:
    """Ids by split, each question in one split only, and the removed duplicates."""
    chosen: dict[str, list[str]] = {}
    split_of: dict[str, str] = {}
    held: dict[int, str] = {}  # group -> the id that stands for it in the splits filled so far
    removed: list[Leak] = []
    duplicates: dict[str, Counter[str]] = {"exact": Counter(), "near": Counter()}
    repeats: set[str] = set()
    for name in [name for name in FILL_ORDER if name in pools]:
        free: list[str] = []
        own: dict[int, str] = {}
        for row in pools[name]:
            key = row.example.id
            group = group_of[key]
            if key in split_of:
                continue
            if (leak := leak_of(key, group, held, like)) is not None:
                removed.append(leak)
                side = name if name in ("hard_test", "transfer") else "easy"  # the easy splits draw from one pool
                duplicates[leak.kind][f"{side}, in {split_of[leak.kept]}"] += 1
                split_of[key] = "removed"
            elif own.setdefault(group, key) != key:
                repeats.add(key)
            else:
                free.append(key)
        chosen[name] = free[: split_size(name, len(free), data, shots)]
        split_of.update(dict.fromkeys(chosen[name], name))
        held.update({group_of[key]: key for key in chosen[name]})
        counts[name] = len(chosen[name])
    counts.update({f"removed_{kind}": dict(count) for kind, count in duplicates.items()})
    counts["repeats"] = len(repeats - split_of.keys())
    return chosen, removed


def split_size(name: str, free: int, data: Data, shots: int = 0) -> int:
    """How many of the `free` questions the split takes; its partner, filled after it, gets the rest."""
    size = shots if name == "shots" else getattr(data.sizes, name)
    if size is not None:
        return min(size, free)
    partner = {"hard_test": "transfer", "easy_holdout": "easy_fit"}.get(name)
    if partner is None or (name == "hard_test" and data.test_splits is not None):
        return free
    share = round(free * SHARES[name] / (SHARES[name] + SHARES[partner]))
    left = free - (getattr(data.sizes, partner) or 0) - (shots if partner == "easy_fit" else 0)
    return min(share, left) if left > 0 else share  # else the partner is short, which is reported


def differing(rows: list[Row], group_of: dict[str, int]) -> int:
    """The number of groups of exact duplicates, with the same choices, whose answers differ."""
    answers: dict[tuple[int, frozenset[str]], set[str]] = {}
    for row in rows:
        choices = row.example.choices
        answer = choices[row.answer] if choices else str(row.answer)
        answers.setdefault((group_of[row.example.id], frozenset(choices)), set()).add(answer)
    return sum(len(group) > 1 for group in answers.values())


def check_sizes(chosen: Mapping[str, Sequence[str]], data: Data, counts: Mapping[str, Any], shots: int = 0) -> None:
    """Raise one BadInput that lists every split that is too small."""
    sizes, short = asdict(data.sizes) | ({"shots": shots} if shots else {}), []
    for name in sizes:
        if len(chosen[name]) < (1 if data.allow_fewer else sizes[name] or 1):
            short.append(f"{name}: {sizes[name] or 'at least 1'} needed, {len(chosen[name])} found")
    if short:
        taken = sum(counts["removed_exact"].values()) + sum(counts["removed_near"].values())
        pool = f"{counts['easy']} easy and {counts['hard']} hard questions, {taken} duplicates removed"
        hint = "; allow_fewer: true continues with fewer" if any(sizes.values()) and not data.allow_fewer else ""
        raise BadInput(f"sizes: {'; '.join(short)} (of {pool}){hint}")
