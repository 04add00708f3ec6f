"""Pairs of texts of which one is preferred, as (Example, Gold), whatever set they come from.

A pair is an Example of task choice whose two choices stand in an order that a hash of seed, prompt and texts decides;
Gold is the index of the preferred one. Example.meta: group (an id of the instruction: the same in every set, and splits
go by it), subset, generators (who wrote the choices, in their order; where the set says), length_difference (characters
of the first choice less those of the second), tie, row, split and repeats (how many rows say the same again).

Left out and counted: pairs of equal texts, of an empty text, pairs that the set judges in two ways, and, unless
`ties`, pairs without a preference. A kept tie has meta tie true, and its Gold is the first choice: in an order of
chance, a coin. Texts lose the white space around them, which would tell one writer from another.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from w2s.data.duplicates import normalise
from w2s.data.questions import HELD_OUT, text
from w2s.data.reading import Row, some
from w2s.store.problems import Problems
from w2s.store.records import BadInput, Example, Gold, example_id

ANSWER = "\n\nAssistant:"  # what begins an answer in a dialogue that is one text


class Pairs(NamedTuple):
    """Pairs and what became of the rows: counts rows = kept + repeats + equal + empty + contradicted + ties.

    ties are those left out; repeats are rows that say again, in either order, what a kept one says. A limit is drawn
    from the kept.
    """

    examples: list[Example]
    gold: list[Gold]
    counts: dict[str, int]


class Pair(NamedTuple):
    """What one row says. preferred: 0 (first), 1 (second) or None (a tie)."""

    prompt: str
    first: str
    second: str
    preferred: int | None
    meta: dict[str, Any]
    opening: str | None = None  # what names the group, where it is not the whole prompt


def dialogue(row: dict[str, Any]) -> Pair:
    """Two whole dialogues: what both share, up to the last answer that both begin, is the prompt."""
    chosen, rejected = text(row, "chosen"), text(row, "rejected")
    at = os.path.commonprefix([chosen, rejected]).rfind(ANSWER)  # noqa: RUF071 (these are no paths)
    if at < 0:
        raise ValueError("chosen and rejected share no prompt: 'Assistant:' begins no answer in both")
    prompt = chosen[:at].strip().removeprefix("Human:").strip()
    return Pair(prompt, chosen[at + len(ANSWER) :], rejected[at + len(ANSWER) :], 0, {}, prompt.split(ANSWER)[0])


def gather_pairs(
    source: str,
    parts: Iterable[tuple[str, str, Iterable[Row]]],
    fit: Callable[[dict[str, Any]], Pair],
    *,
    limit: int | None,
    ties: bool,
    seed: int,
    problems: Problems | None = None,
) -> Pairs:
    """The pairs of some (split, subset, rows), each once. `limit` draws a fixed sample of that many pairs.

    Rows that do not fit are a BadInput together, after the `problems` that reading had; so are no pairs, and fewer than
    `limit`.
    """
    if limit is not None and limit < 1:
        raise BadInput(f"{source}: limit: {limit} given; it must be at least 1")
    counts = dict.fromkeys(("rows", "kept", "repeats", "equal", "empty", "contradicted", "ties"), 0)
    said: dict[str, list[tuple[Example, int | None]]] = {}
    problems = problems or Problems()
    for split, subset, found in parts:
        for where, row in found:
            counts["rows"] += 1
            try:
                pair = fit(row)
                pair = pair._replace(prompt=pair.prompt.strip(), first=pair.first.strip(), second=pair.second.strip())
                if not pair.prompt:
                    raise ValueError("the prompt is empty")
                if not (pair.first and pair.second) or pair.first == pair.second:
                    counts["equal" if pair.first and pair.second else "empty"] += 1
                    continue
                meta = {"split": split, "subset": subset, "row": where.split("/")[-1], **pair.meta}
                example, preferred = ordered(source, pair, meta, seed)
                said.setdefault(example.id, []).append((example, preferred))
            except KeyError as error:
                problems.add(f"{where}: column {error} is missing; it has: {some(row)}")
            except (TypeError, ValueError, AttributeError, IndexError) as error:
                problems.add(f"{where}: {error}")
    problems.tell()
    kept = {key: settled for key, alike in said.items() if (settled := settle(alike, counts, ties)) is not None}
    if len(kept) < (limit or 1):
        wanted = "pairs" if limit is None else f"{limit} pairs (limit)"
        raise BadInput(f"{source}: {wanted} asked for, {len(kept)} found of {counts['rows']} rows")
    counts["kept"] = len(kept)
    chosen = set(sorted(kept)[:limit])
    pairs = [pair for key, pair in kept.items() if key in chosen]
    return Pairs([example for example, _ in pairs], [gold for _, gold in pairs], counts)


def ordered(source: str, pair: Pair, meta: dict[str, Any], seed: int) -> tuple[Example, int | None]:
    """The pair in the order that its texts decide, whichever way it was published, and the preferred index."""
    texts = tuple(sorted((pair.first, pair.second)))
    if int(hashed(str(seed), pair.prompt, *texts), 16) % 2:
        texts = texts[::-1]
    turned = texts[0] != pair.first
    preferred = None if pair.preferred is None else int(pair.preferred != turned)
    if writers := meta.get("generators"):
        meta["generators"] = list(reversed(writers)) if turned else list(writers)
    meta = {"group": hash_instruction(pair.opening or pair.prompt), **meta}
    meta |= {"length_difference": len(texts[0]) - len(texts[1]), "tie": preferred is None}
    return Example(example_id(source, pair.prompt, texts), source, "choice", pair.prompt, texts, meta), preferred


def settle(alike: list[tuple[Example, int | None]], counts: dict[str, int], ties: bool) -> tuple[Example, Gold] | None:
    """One pair out of the rows that hold it, of the most held-out split; None where it is left out."""
    example, preferred = max(alike, key=lambda one: HELD_OUT.get(one[0].meta["split"], 0))
    if any(other != preferred for _, other in alike):
        counts["contradicted"] += len(alike)
        return None
    if preferred is None and not ties:
        counts["ties"] += len(alike)
        return None
    if len(alike) > 1:
        counts["repeats"] += len(alike) - 1
        example.meta["repeats"] = len(alike) - 1
    return example, Gold(example.id, preferred or 0)


def split_by_group(examples: Sequence[Example], shares: Mapping[str, float], seed: int) -> dict[str, np.ndarray]:
    """Ids by split, no instruction (meta `group`) in two of them.

    shares: the splits' proportions, above 0 (only their ratios matter). The groups, in an order that the seed draws and
    that does not depend on the rows', fill the splits one after the other; a split's size is off by less than a group.
    A split that stays empty is a BadInput.
    """
    if not shares or any(not 0 < share < np.inf for share in shares.values()):
        raise BadInput(f"shares: {dict(shares)} given; allowed: splits with numbers above 0")
    members: dict[str, list[str]] = {}
    for example in examples:
        members.setdefault(str(example.meta["group"]), []).append(example.id)
    order = sorted(members, key=lambda group: hashed(str(seed), group))
    # A group goes where its middle falls, so that no split loses more than half a group to the one before.
    size_G = np.array([len(members[group]) for group in order])
    middle_G = size_G.cumsum() - size_G / 2
    ends = np.cumsum(list(shares.values())) / sum(shares.values()) * size_G.sum()
    split_G = np.minimum(np.searchsorted(ends, middle_G), len(ends) - 1)
    found = {}
    for at, name in enumerate(shares):
        ids = [key for group in np.flatnonzero(split_G == at) for key in sorted(members[order[group]])]
        if not ids:
            raise BadInput(f"shares: {name!r} gets none of {len(examples)} pairs on {len(order)} instructions")
        found[name] = np.array(ids)
    return found


@lru_cache(maxsize=1 << 16)
def hash_instruction(instruction: str) -> str:
    """The same id for instructions that differ in case, white space or the punctuation of sentences alone."""
    return hashed(normalise(instruction))


def hashed(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
