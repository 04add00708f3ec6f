"""Pairs of texts of which one is preferred, as (Example, Gold), from any dataset.

A pair is an Example of task choice whose two choices stand in an order that a hash of seed, prompt and texts decides;
Gold is the index of the preferred one. Example.meta: group (an id of the instruction, the same in every dataset; splits
go by it), subset, generators (who wrote the choices, in their order, where the dataset says), length_difference
(characters of the first choice minus those of the second), tie, row, split and repeats (how many rows repeat this one).

Left out and counted: pairs of equal texts, pairs with an empty text, pairs that the dataset judges in two ways, and,
unless `ties`, pairs without a preference. A kept tie has meta tie true, and its Gold is the first choice: a coin flip,
since the order is random. Texts are stripped of surrounding white space, which would tell one writer from another.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from w2s.data.duplicates import normalise
from w2s.data.questions import HELD_OUT, text
from w2s.data.reading import Row, check_limit, fit_rows
from w2s.store.problems import Problems
from w2s.store.records import BadInput, Example, Gold, example_id, hash_texts

ANSWER = "\n\nAssistant:"  # what begins an answer in a dialogue that is one text


class Pairs(NamedTuple):
    """Pairs and what became of the rows: counts rows = kept + repeats + equal + empty + contradicted + ties.

    ties: ties left out. repeats: rows with the pair and the preference of a kept row, in either order. A limit is
    drawn from the kept pairs.
    """

    examples: list[Example]
    gold: list[Gold]
    counts: dict[str, int]


class Pair(NamedTuple):
    """The content of one row. preferred: 0 (first), 1 (second) or None (a tie)."""

    prompt: str
    first: str
    second: str
    preferred: int | None
    meta: dict[str, Any]
    opening: str | None = None  # names the group, where the whole prompt does not


Fit = Callable[[dict[str, Any]], Pair]
Parts = Iterable[tuple[str, str, Iterable[Row]]]  # (split, subset, its rows)


def dialogue(row: dict[str, Any]) -> Pair:
    """Two whole dialogues: the prompt is their common part, up to the last answer that begins in both."""
    chosen, rejected = text(row, "chosen"), text(row, "rejected")
    at = os.path.commonprefix([chosen, rejected]).rfind(ANSWER)  # noqa: RUF071 (these are no paths)
    if at < 0:
        raise ValueError("chosen and rejected share no prompt: 'Assistant:' begins no answer in both")
    prompt = chosen[:at].strip().removeprefix("Human:").strip()
    return Pair(prompt, chosen[at + len(ANSWER) :], rejected[at + len(ANSWER) :], 0, {}, prompt.split(ANSWER)[0])


def gather_pairs(
    source: str, parts: Parts, fit: Fit, limit: int | None, ties: bool, seed: int, problems: Problems | None = None
) -> Pairs:
    """The pairs of some rows, each once. `limit` draws a fixed sample of this size.

    All rows that do not fit are one BadInput, after the `problems` of reading; so are fewer pairs than `limit`.
    """
    check_limit(source, limit)
    counts = dict.fromkeys(("rows", "kept", "repeats", "equal", "empty", "contradicted", "ties"), 0)
    by_id: dict[str, list[tuple[Example, int | None]]] = {}
    problems = problems or Problems()
    for split, subset, rows in parts:

        def make(where: str, row: dict, split: str = split, subset: str = subset) -> tuple[Example, int | None] | None:
            counts["rows"] += 1
            pair = fit(row)
            pair = pair._replace(prompt=pair.prompt.strip(), first=pair.first.strip(), second=pair.second.strip())
            if not pair.prompt:
                raise ValueError("the prompt is empty")
            if not (pair.first and pair.second) or pair.first == pair.second:
                counts["equal" if pair.first and pair.second else "empty"] += 1
                return None
            meta = {"split": split, "subset": subset, "row": where.split("/")[-1], **pair.meta}
            return order_pair(source, pair, meta, seed)

        for record in filter(None, fit_rows(rows, make, problems)):
            by_id.setdefault(record[0].id, []).append(record)
    problems.tell()
    kept = {key: settled for key, alike in by_id.items() if (settled := settle(alike, counts, ties)) is not None}
    if len(kept) < (limit or 1):
        needed = "pairs" if limit is None else f"{limit} pairs (limit)"
        raise BadInput(f"{source}: {needed} needed, {len(kept)} found in {counts['rows']} rows")
    counts["kept"] = len(kept)
    chosen = set(sorted(kept)[:limit])
    pairs = [pair for key, pair in kept.items() if key in chosen]
    return Pairs([example for example, _ in pairs], [gold for _, gold in pairs], counts)


def order_pair(source: str, pair: Pair, meta: dict[str, Any], seed: int) -> tuple[Example, int | None]:
    """The pair in the order that a hash of its texts decides, not the published one, and the preferred index."""
    texts = tuple(sorted((pair.first, pair.second)))
    if int(hash_texts(str(seed), pair.prompt, *texts), 16) % 2:
        texts = texts[::-1]
    turned = texts[0] != pair.first
    preferred = None if pair.preferred is None else int(pair.preferred != turned)
    if writers := meta.get("generators"):
        meta["generators"] = list(reversed(writers)) if turned else list(writers)
    meta = {"group": hash_instruction(pair.opening or pair.prompt), **meta}
    meta |= {"length_difference": len(texts[0]) - len(texts[1]), "tie": preferred is None}
    return Example(example_id(source, pair.prompt, texts), source, "choice", pair.prompt, texts, meta), preferred


def settle(alike: list[tuple[Example, int | None]], counts: dict[str, int], ties: bool) -> tuple[Example, Gold] | None:
    """One pair for all its rows, from the most held-out split; None if it is left out."""
    example, preferred = max(alike, key=lambda row: HELD_OUT.get(row[0].meta["split"], 0))
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

    shares: the splits' proportions, above 0 (only their ratios matter). The groups fill the splits one after the other,
    in an order that the seed draws, independent of the rows' order; a split's size is off by less than a group. A split
    that stays empty is a BadInput.
    """
    if not shares or any(not 0 < share < np.inf for share in shares.values()):
        raise BadInput(f"shares: {dict(shares)} given; allowed: splits with numbers above 0")
    members: dict[str, list[str]] = {}
    for example in examples:
        members.setdefault(str(example.meta["group"]), []).append(example.id)
    order = sorted(members, key=lambda group: hash_texts(str(seed), group))
    # A group goes where its middle falls, so that no split loses more than half a group to the previous one.
    size_G = np.array([len(members[group]) for group in order])
    middle_G = size_G.cumsum() - size_G / 2
    ends = np.cumsum(list(shares.values())) / sum(shares.values()) * size_G.sum()
    split_G = np.minimum(np.searchsorted(ends, middle_G), len(ends) - 1)
    splits = {}
    for at, name in enumerate(shares):
        ids = [key for group in np.flatnonzero(split_G == at) for key in sorted(members[order[group]])]
        if not ids:
            raise BadInput(f"shares: {name!r} gets none of {len(examples)} pairs on {len(order)} instructions")
        splits[name] = np.array(ids)
    return splits


@lru_cache(maxsize=1 << 16)
def hash_instruction(instruction: str) -> str:
    """The same id for instructions that differ only in case, white space or sentence punctuation."""
    return hash_texts(normalise(instruction))
