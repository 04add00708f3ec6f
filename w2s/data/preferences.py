"""Published preference data: a prompt and two texts, one preferred by people or a judge (see w2s.data.pairs)."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from w2s.data.own_pairs import file
from w2s.data.pairs import Fit, Pair, Pairs, dialogue, gather_pairs
from w2s.data.questions import check_splits, text
from w2s.data.reading import rows
from w2s.store.records import BadInput

HHSubset = Literal["harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled"]
HHH_PARTS = ("###The instruction to evaluate:\n", "###Response to evaluate:\n", "###Score Rubrics:")


def hh_rlhf(
    root: Path | None,
    *,
    split: str | list[str] = "test",
    subset: HHSubset | None = "harmless-base",
    limit: int | None = None,
    ties: bool = False,
    seed: int = 0,
) -> Pairs:
    """Dialogues with two last answers, judged by people (Bai et al., arXiv 2204.05862). MIT. Offensive text.

    Dialogues with the same opening are one group. subset null: all four, the only way to read from the hub.
    """
    if root is None and subset is not None:
        hint = "the hub has all subsets in one: give null, or data.root=DIR"
        raise BadInput(f"hh_rlhf: subset: {subset!r} given; {hint}")
    parts = [
        (name, part, rows(root, "hh_rlhf", [f"{part}-{name}"], ("Anthropic/hh-rlhf", None), name))
        for name in check_splits("hh_rlhf", split, ("train", "test"))
        for part in (get_args(HHSubset) if subset is None and root is not None else [subset or "all"])
    ]
    return gather_pairs("hh_rlhf", parts, dialogue, limit, ties, seed)


def alpaca_eval(root: Path | None, *, limit: int | None = None, ties: bool = False, seed: int = 0) -> Pairs:
    """AlpacaEval: 15 models against text_davinci_003 on 805 instructions, judged by GPT-4. CC BY-NC 4.0.

    The hub has human judgements instead (tatsu-lab/alpaca_eval, alpaca_farm_human_annotations).
    """

    def fit(row: dict[str, Any]) -> Pair:
        preferred = one_of(row, "preference", {1: 0, 2: 1, 0: None, 1.5: None})
        prompt = "\n\n".join(part for part in (text(row, "instruction"), row.get("input") or "") if part.strip())
        meta = {"subset": row.get("dataset", ""), "generators": [str(row["generator_1"]), str(row["generator_2"])]}
        return Pair(prompt, text(row, "output_1"), text(row, "output_2"), preferred, meta)

    hub = ("tatsu-lab/alpaca_eval", "alpaca_farm_human_annotations")
    published = rows(root, "alpaca_eval", ["preferences_gpt4_vs_davinci003", "preferences"], hub, "validation")
    return gather_pairs("alpaca_eval", [("test", "", published)], fit, limit, ties, seed)


def autoj(root: Path | None, *, limit: int | None = None, ties: bool = False, seed: int = 0) -> Pairs:
    """Auto-J's test pairs: 58 scenarios of 24, judged by people (Li et al., arXiv 2310.05470). No licence file."""

    def fit(row: dict[str, Any]) -> Pair:
        preferred = one_of(row, "label", {0: 0, 1: 1, 2: None})
        texts = (text(row, name) for name in ("prompt", "response 1", "response 2"))
        return Pair(*texts, preferred, {"subset": text(row, "scenario")})

    return read_local("autoj", "testdata_pairwise", root, fit, limit, ties, seed)


def pandalm(root: Path | None, *, limit: int | None = None, ties: bool = False, seed: int = 0) -> Pairs:
    """PandaLM's test pairs: 170 instructions, 5 models, judged by a majority of 3 people (2306.05087). Apache-2.0.

    A pair is a tie where no two annotators agree.
    """

    def fit(row: dict[str, Any]) -> Pair:
        cast = Counter(one_of(row, f"annotator{n}", {0: None, 1: 0, 2: 1}) for n in (1, 2, 3))
        preferred, most = cast.most_common(1)[0]
        prompt = "\n\n".join(part for part in (text(row, "instruction"), text(row, "input")) if part.strip())
        # Five published responses are the JSON value true, where the model wrote "True".
        first, second = (str(row[key]) if row[key] is True else text(row, key) for key in ("response1", "response2"))
        meta = {"subset": text(row, "motivation_app"), "row": str(row["idx"])}
        meta["generators"] = text(row, "cmp_key").split("_")
        return Pair(prompt, first, second, preferred if most > 1 else None, meta)

    return read_local("pandalm", "testset-v1", root, fit, limit, ties, seed)


def hhh_alignment(root: Path | None, *, limit: int | None = None, ties: bool = False, seed: int = 0) -> Pairs:
    """Helpful, honest, harmless and other: 221 hand-written pairs (Askell et al., arXiv 2112.00861). Apache-2.0.

    Instruction and responses are cut out of Prometheus' evaluation prompts.
    """

    def fit(row: dict[str, Any]) -> Pair:
        prompt, chosen = cut(row, "chosen_instruction")
        other, rejected = cut(row, "rejected_instruction")
        if prompt != other:
            raise ValueError("the chosen and the rejected response answer different instructions")
        return Pair(prompt, chosen, rejected, 0, {"subset": text(row, "source")})

    return read_local("hhh_alignment", "hhh_alignment_eval", root, fit, limit, ties, seed)


def one_of(row: Mapping[str, Any], column: str, meaning: Mapping[float, int | None]) -> int | None:
    """What a label means; in a csv a number is a text."""
    value = row[column]
    try:
        if isinstance(value, bool) or float(value) not in meaning:
            raise ValueError
        return meaning[float(value)]
    except (TypeError, ValueError):
        allowed = ", ".join(f"{code:g}" for code in sorted(meaning))
        raise ValueError(f"{column}: {value!r} given; allowed: {allowed}") from None


def cut(row: Mapping[str, Any], column: str) -> tuple[str, str]:
    """(instruction, response) in one of Prometheus' evaluation prompts."""
    whole, (asks, answers, rubrics) = text(row, column), HHH_PARTS
    if not 0 <= whole.find(asks) < whole.find(answers) < whole.rfind(rubrics):
        raise ValueError(f"{column}: it is not laid out as an instruction, a response and score rubrics")
    instruction, response = whole.split(asks, 1)[1].split(answers, 1)
    return instruction.strip(), response.rsplit(rubrics, 1)[0].strip()


def read_local(source: str, name: str, root: Path | None, fit: Fit, limit: int | None, ties: bool, seed: int) -> Pairs:
    """The pairs of a dataset that its authors publish as a file, not on the hub."""
    if root is None:
        raise BadInput(f"{source}: it is not read from the hub; local copies: data.root=DIR")
    published = rows(root, source, [name], (source, None), "test")
    return gather_pairs(source, [("test", "", published)], fit, limit, ties, seed)


PREFERENCES = {source.__name__: source for source in (hh_rlhf, alpaca_eval, autoj, pandalm, hhh_alignment, file)}
