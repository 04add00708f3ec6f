"""Published preference data: a prompt and two texts of which people or a judge preferred one (see w2s.data.pairs)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from w2s.data.own_pairs import file
from w2s.data.pairs import Pair, Pairs, dialogue, gather_pairs
from w2s.data.questions import check_splits, text
from w2s.data.reading import Row, rows
from w2s.store.records import BadInput

HH_SUBSETS = ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled")
HHH_PARTS = ("###The instruction to evaluate:\n", "###Response to evaluate:\n", "###Score Rubrics:")


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
        for one in check_splits("hh_rlhf", split, ("train", "test"))
        for part in (HH_SUBSETS if subset is None and root is not None else [subset or "all"])
    ]
    return gather_pairs("hh_rlhf", parts, dialogue, limit=limit, ties=ties, seed=seed)


def alpaca_eval(root: Path | None, *, limit: int | None = None, ties: bool = False, seed: int = 0) -> Pairs:
    """AlpacaEval: 15 models against text_davinci_003 on 805 instructions, GPT-4's choice. CC BY-NC 4.0.

    The hub has people's choices instead (tatsu-lab/alpaca_eval, alpaca_farm_human_annotations).
    """

    def fit(row: dict[str, Any]) -> Pair:
        preferred = one_of(row, "preference", {1: 0, 2: 1, 0: None, 1.5: None})
        prompt = "\n\n".join(part for part in (text(row, "instruction"), row.get("input") or "") if part.strip())
        meta = {"subset": row.get("dataset", ""), "generators": [str(row["generator_1"]), str(row["generator_2"])]}
        return Pair(prompt, text(row, "output_1"), text(row, "output_2"), preferred, meta)

    hub = ("tatsu-lab/alpaca_eval", "alpaca_farm_human_annotations")
    found = rows(root, "alpaca_eval", ["preferences_gpt4_vs_davinci003", "preferences"], hub, "validation")
    return gather_pairs("alpaca_eval", [("test", "", found)], fit, limit=limit, ties=ties, seed=seed)


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
    return gather_pairs("autoj", [("test", "", found)], fit, limit=limit, ties=ties, seed=seed)


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
    return gather_pairs("pandalm", [("test", "", found)], fit, limit=limit, ties=ties, seed=seed)


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
    return gather_pairs("hhh_alignment", [("test", "", found)], fit, limit=limit, ties=ties, seed=seed)


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


PREFERENCES = {
    "hh_rlhf": hh_rlhf,
    "alpaca_eval": alpaca_eval,
    "autoj": autoj,
    "pandalm": pandalm,
    "hhh_alignment": hhh_alignment,
    "file": file,
}
