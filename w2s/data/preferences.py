"""Preference data: a prompt and two texts of which people or a judge preferred one, as (Example, Gold).

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
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from w2s.data.duplicates import normalise
from w2s.data.questions import HELD_OUT, splits_of, text
from w2s.data.reading import Row, file_rows, rows
from w2s.records import BadInput, Example, Gold, example_id

HH_SUBSETS = ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled")
PUBLIC = {"dataset": "subset", "subset": "subset", "split": "split"}  # column -> meta
HHH_PARTS = ("###The instruction to evaluate:\n", "###Response to evaluate:\n", "###Score Rubrics:")


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


def hh_rlhf(
    root: Path | None,
    *,
    split: str | list[str] = "test",
    subset: Literal["harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled"]
    | None = "harmless-base",
    limit: int | None = None,
    ties: bool = False,
    seed: int = 0,
) -> Pairs:
    """Dialogues with two last answers, people's choice (Bai et al., arXiv 2204.05862). MIT. Offensive text.

    Dialogues that open alike are one group. subset null: all four together, the only way to read them from the hub.
    """
    if root is None and subset is not None:
        raise BadInput(
            f"hh_rlhf: subset: {subset!r} given; the hub has all subsets in one: give null, or data.root=DIR"
        )
    parts = [
        (one, part, rows(root, "hh_rlhf", [f"{part}-{one}"], ("Anthropic/hh-rlhf", None), one))
        for one in splits_of("hh_rlhf", split, ("train", "test"))
        for part in (HH_SUBSETS if subset is None and root is not None else [subset or "all"])
    ]
    return pairs_of("hh_rlhf", parts, dialogue, limit=limit, ties=ties, seed=seed)


def alpaca_eval(root: Path | None, *, limit: int | None = None, ties: bool = False, seed: int = 0) -> Pairs:
    """AlpacaEval: 15 models against text_davinci_003 on 805 instructions, GPT-4's choice. CC BY-NC 4.0.

    The hub has people's choices instead (tatsu-lab/alpaca_eval, alpaca_farm_human_annotations).
    """
    hub = ("tatsu-lab/alpaca_eval", "alpaca_farm_human_annotations")
    found = rows(root, "alpaca_eval", ["preferences_gpt4_vs_davinci003", "preferences"], hub, "validation")
    return pairs_of("alpaca_eval", [("test", "", found)], written, limit=limit, ties=ties, seed=seed)


def autoj(root: Path | None, *, limit: int | None = None, ties: bool = False, seed: int = 0) -> Pairs:
    """Auto-J's test pairs: 58 scenarios of 24, people's choice (Li et al., arXiv 2310.05470). No licence file."""

    def fit(row: dict[str, Any]) -> Pair:
        preferred = one_of(row, "label", {0: 0, 1: 1, 2: None})
        return Pair(
            text(row, "prompt"),
            text(row, "response 1"),
            text(row, "response 2"),
            preferred,
            {"subset": text(row, "scenario")},
        )

    found = file_or_refusal(root, "autoj", "testdata_pairwise")
    return pairs_of("autoj", [("test", "", found)], fit, limit=limit, ties=ties, seed=seed)


def pandalm(root: Path | None, *, limit: int | None = None, ties: bool = False, seed: int = 0) -> Pairs:
    """PandaLM's test pairs: 170 instructions, 5 models, the choice of most of 3 people (arXiv 2306.05087). Apache-2.0.

    A pair that no two annotators judge alike is a tie.
    """

    def fit(row: dict[str, Any]) -> Pair:
        cast = Counter(one_of(row, f"annotator{n}", {0: None, 1: 0, 2: 1}) for n in (1, 2, 3))
        preferred, most = cast.most_common(1)[0]
        prompt = "\n\n".join(part for part in (text(row, "instruction"), text(row, "input")) if part.strip())
        # Five published responses are the JSON value true, where the model wrote "True".
        first, second = (str(row[key]) if row[key] is True else text(row, key) for key in ("response1", "response2"))
        meta = {"subset": text(row, "motivation_app"), "row": str(row["idx"])}
        writers = text(row, "cmp_key").split("_")
        return Pair(prompt, first, second, preferred if most > 1 else None, {**meta, "generators": writers})

    found = file_or_refusal(root, "pandalm", "testset-v1")
    return pairs_of("pandalm", [("test", "", found)], fit, limit=limit, ties=ties, seed=seed)


def hhh_alignment(root: Path | None, *, limit: int | None = None, ties: bool = False, seed: int = 0) -> Pairs:
    """Helpful, honest, harmless and other: 221 pairs by hand (Askell et al., arXiv 2112.00861). Apache-2.0.

    Read from Prometheus' evaluation prompts, out of which instruction and responses are cut.
    """

    def fit(row: dict[str, Any]) -> Pair:
        prompt, chosen = cut(row, "chosen_instruction")
        other, rejected = cut(row, "rejected_instruction")
        if prompt != other:
            raise ValueError("the chosen and the rejected response answer different instructions")
        return Pair(prompt, chosen, rejected, 0, {"subset": text(row, "source")})

    found = file_or_refusal(root, "hhh_alignment", "hhh_alignment_eval")
    return pairs_of("hhh_alignment", [("test", "", found)], fit, limit=limit, ties=ties, seed=seed)


def file(root: Path | None, *, path: str, limit: int | None = None, ties: bool = False, seed: int = 0) -> Pairs:
    """Your own pairs: jsonl, json, csv (also .gz) or parquet, columns prompt, chosen, rejected.

    `path` is relative to `root` where there is one. prompt may be called instruction (an input beside it follows it) or
    input; in place of chosen and rejected there may be output_1, output_2 and preference or label (1, 2; 0 or 1.5: a
    tie), as in AlpacaEval and LLMBar. Optional columns: group, subset (or dataset), generator_1 and generator_2, split.
    """
    place = (Path(root) if root is not None else Path()) / path
    if not place.is_file():
        raise BadInput(f"file: path: there is no file {place}")
    source = Path(path).name.split(".")[0]
    return pairs_of(source, [("all", "", file_rows(place))], written, limit=limit, ties=ties, seed=seed)


def pairs_of(
    source: str,
    parts: Iterable[tuple[str, str, Iterable[Row]]],
    fit: Callable[[dict[str, Any]], Pair],
    *,
    limit: int | None,
    ties: bool,
    seed: int,
) -> Pairs:
    """The pairs of some (split, subset, rows), each once. `limit` draws a fixed sample of that many pairs.

    A row that does not fit, no pairs, and fewer than `limit` are each a BadInput.
    """
    if limit is not None and limit < 1:
        raise BadInput(f"{source}: limit: {limit} given; it must be at least 1")
    counts = dict.fromkeys(("rows", "kept", "repeats", "equal", "empty", "contradicted", "ties"), 0)
    said: dict[str, list[tuple[Example, int | None]]] = {}
    for split, subset, found in parts:
        for where, row in found:
            counts["rows"] += 1
            try:
                pair = fit(row)
                pair = pair._replace(prompt=pair.prompt.strip(), first=pair.first.strip(), second=pair.second.strip())
                if not pair.prompt:
                    raise ValueError("the prompt is empty")
            except KeyError as error:
                raise BadInput(f"{where}: column {error} is missing; it has: {', '.join(map(str, row))}") from None
            except (TypeError, ValueError, AttributeError, IndexError) as error:
                raise BadInput(f"{where}: {error}") from None
            if not (pair.first and pair.second) or pair.first == pair.second:
                counts["equal" if pair.first and pair.second else "empty"] += 1
                continue
            meta = {"split": split, "subset": subset, "row": where.split("/")[-1], **pair.meta}
            example, preferred = ordered(source, pair, meta, seed)
            said.setdefault(example.id, []).append((example, preferred))
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
    meta = {"group": group_of(pair.opening or pair.prompt), **meta}
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


def dialogue(row: dict[str, Any]) -> Pair:
    """Two whole dialogues: what both share, up to the last answer that both begin, is the prompt."""
    chosen, rejected = text(row, "chosen"), text(row, "rejected")
    turn = "\n\nAssistant:"
    at = os.path.commonprefix([chosen, rejected]).rfind(turn)  # noqa: RUF071 (these are no paths)
    if at < 0:
        raise ValueError("chosen and rejected share no prompt: 'Assistant:' begins no answer in both")
    prompt = chosen[:at].strip().removeprefix("Human:").strip()
    return Pair(prompt, chosen[at + len(turn) :], rejected[at + len(turn) :], 0, {}, prompt.split(turn)[0])


def written(row: dict[str, Any]) -> Pair:
    """chosen and rejected, or output_1, output_2 and preference (or label), as AlpacaEval and LLMBar have them."""
    if "chosen" in row or "output_1" not in row:
        names, preferred = ("chosen", "rejected"), 0
    else:
        column = "label" if "label" in row and "preference" not in row else "preference"
        names, preferred = ("output_1", "output_2"), one_of(row, column, {1: 0, 2: 1, 0: None, 1.5: None})
    meta = {key: row[column] for column, key in PUBLIC.items() if row.get(column) not in (None, "")}
    if "generator_1" in row and "generator_2" in row:
        meta["generators"] = [str(row["generator_1"]), str(row["generator_2"])]
    group = None if row.get("group") in (None, "") else str(row["group"])
    return Pair(asked(row), text(row, names[0]), text(row, names[1]), preferred, meta, group)


def asked(row: Mapping[str, Any]) -> str:
    """The prompt: column prompt, or instruction with the input beside it, or input alone."""
    if "prompt" in row or not {"instruction", "input"} & set(row):
        return text(row, "prompt")
    if "instruction" not in row:
        return text(row, "input")
    extra = text(row, "input") if row.get("input") else ""
    return "\n\n".join(part for part in (text(row, "instruction"), extra) if part.strip())


def one_of(row: Mapping[str, Any], column: str, meaning: Mapping[float, int | None]) -> int | None:
    """What a label means; a number that came as a text (csv) counts too."""
    value = row[column]
    try:
        if isinstance(value, bool) or float(value) not in meaning:
            raise ValueError
        return meaning[float(value)]
    except (TypeError, ValueError):
        allowed = ", ".join(f"{one:g}" for one in sorted(meaning))
        raise ValueError(f"{column}: {value!r} given; allowed: {allowed}") from None


def cut(row: Mapping[str, Any], column: str) -> tuple[str, str]:
    """(instruction, response) out of one of Prometheus' evaluation prompts."""
    whole, (asks, answers, rubrics) = text(row, column), HHH_PARTS
    if not 0 <= whole.find(asks) < whole.find(answers) < whole.rfind(rubrics):
        raise ValueError(f"{column}: it is not laid out as an instruction, a response and score rubrics")
    instruction, response = whole.split(asks, 1)[1].split(answers, 1)
    return instruction.strip(), response.rsplit(rubrics, 1)[0].strip()


def file_or_refusal(root: Path | None, folder: str, name: str) -> Iterable[Row]:
    """The rows of a set that its authors publish as a file, not on the hub."""
    if root is None:
        raise BadInput(f"{folder}: it is not read from the hub; local copies: data.root=DIR")
    return rows(root, folder, [name], (folder, None), "test")


@lru_cache(maxsize=1 << 16)
def group_of(instruction: str) -> str:
    """The same id for instructions that differ in case, white space or the punctuation of sentences alone."""
    return hashed(normalise(instruction))


def hashed(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


PREFERENCES = {
    "hh_rlhf": hh_rlhf,
    "alpaca_eval": alpaca_eval,
    "autoj": autoj,
    "pandalm": pandalm,
    "hhh_alignment": hhh_alignment,
    "file": file,
}
