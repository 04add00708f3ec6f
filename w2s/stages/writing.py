"""Stages in which models write answers, alone or together, and in which these are judged."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from w2s.config.fields import Learner
from w2s.grading.answers import NO_ANSWER
from w2s.grading.candidates import merge_all
from w2s.grading.inputs import find_entry
from w2s.grading.judge import judge
from w2s.sandbox.tiers import tier
from w2s.stages import Facts, Inputs, Tools, find_set
from w2s.stages.jobs import do_job
from w2s.stages.models import find_start, why_skipped
from w2s.stages.questions import read_gold
from w2s.store.log import show_progress
from w2s.store.records import Example, Outcome, Predictions, read_arrays, read_rows, write_rows
from w2s.workers.job import Sample

STOPS = {
    "code": ("\nclass ", "\ndef ", "\nif __name__", "\nprint(", "\n#", "\nQuestion:"),
    "program": ("\nif __name__", "\nprint(", "\nassert ", "\nQuestion:"),
    "answer": ("\nQuestion:",),
}
"""Texts that mark the end of an answer: a function whose head is in the prompt (code), a whole program with imports
and further functions (code whose prompt has no head), or a short answer."""


def texts(
    here: Path,
    inputs: Inputs,
    tools: Tools,
    *,
    on: str,
    writing: dict,
    seed: int,
    learner: Learner,
    untrained: bool = False,
    best_alone: bool = False,
    one_base: bool = True,
    samples: int = 1,
    temperature: float = 0.0,
    top: int = 0,
) -> Facts:
    """A model's texts for the set `on`; with a committee as parent, its learners write together, token by token.

    Writes SET_texts.jsonl (lines {"id", "texts", "logps", "ended"}). `writing` has max_new_tokens, stop, mixture and
    mix (see config.Writing). `best_alone`: only the committee's best learner; `untrained`: the base of `learner`;
    `one_base`: all models were trained from this base. `top` > 0: also soft.npz, the probabilities of the `top` most
    probable next tokens.
    """
    models, alphas = ([None], [1.0]) if untrained else find_writers(inputs, best_alone)
    if not models:
        return why_skipped(inputs["model"])
    examples = find_set(inputs, on)
    stop = [*STOPS[kind_of(read_rows(examples, Example))], *writing["stop"]]
    base, most = find_start(inputs, tools, learner), writing["max_new_tokens"]
    job = Sample(models, alphas, str(examples), most, samples, temperature, stop, seed, top)
    job = dataclasses.replace(job, mixture=writing["mixture"], mix=writing["mix"], base=base, one_base=one_base)
    done = do_job(here, tools, dataclasses.replace(job, runtime=tools.runtime))
    if (here / "samples.jsonl").exists():  # else a killed stage has already moved it
        (here / "samples.jsonl").rename(here / f"{on}_texts.jsonl")
    return {key: done[key] for key in ("rows", "unfinished", "untargeted") if key in done}


def kind_of(examples: Sequence[Example]) -> str:
    """The key in STOPS for the answers to these questions."""
    if examples[0].task == "code" and not all(f"def {find_entry(row)}" in row.prompt for row in examples):
        return "program"
    return examples[0].task


def find_writers(
    inputs: Inputs, best_alone: bool = False, alphas: Iterable[float] | None = None
) -> tuple[list[str], list[float]]:
    """Model folders and the alpha of each. A round's models (one per fold) share its alpha.

    alphas: of the rounds, instead of the committee's; those of rounds that do not vote are left out.
    """
    if "committee" not in inputs:
        models = sorted(inputs["model"].glob("fit-*/model"))
        return [str(model) for model in models], [1.0] * len(models)
    voters = json.loads((inputs["committee"] / "committee.json").read_text())
    used = zip(range(voters["used"]), voters["alphas"] if alphas is None else alphas, strict=False)
    folders, shares = [], []
    for at, alpha in [(voters["best_learner"], 1.0)] if best_alone else used:
        models = sorted(inputs[f"round-{voters['rounds'][at]['index']}"].glob("fit-*/model"))
        folders += [str(model) for model in models]
        shares += [alpha / len(models)] * len(models)
    return folders, shares


def judged(here: Path, inputs: Inputs, tools: Tools, *, by: str, on: str) -> Facts:
    """Judge the texts for the set `on`: programs in the sandbox, answers as text. Writes outcomes.jsonl."""
    if not (inputs["texts"] / f"{on}_texts.jsonl").exists():
        return {"skipped": "nothing was written"}
    written, gold = read_texts(inputs["texts"], on), read_gold(inputs["gold"])
    examples = read_rows(find_set(inputs, on), Example)
    rows = [(example, gold[example.id], text) for example in examples for text in written[example.id]["texts"]]
    with show_progress(f"{by} judged on {on}") as show:
        verdicts = judge(rows, allow_unsandboxed=tools.runtime.allow_unsandboxed, progress=show)
    outcomes = [
        Outcome(example.id, on, by, text, correct, status, round(seconds, 3))
        for (example, _, text), (correct, status, seconds) in zip(rows, verdicts, strict=True)
    ]
    write_rows(here / "outcomes.jsonl", outcomes)
    facts = {"rows": len(outcomes), "correct": sum(outcome.correct is True for outcome in outcomes)}
    facts |= {"no_answer": sum(outcome.status == NO_ANSWER for outcome in outcomes)}
    is_code = any(example.task == "code" for example in examples)
    return facts | ({"sandbox": tier(allow_unsandboxed=tools.runtime.allow_unsandboxed)} if is_code else {})


def read_texts(folder: Path, on: str) -> dict[str, dict]:
    """id -> {"texts", "logps", ...} written for that example of the set `on`, in the set's order."""
    lines = (folder / f"{on}_texts.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


def members_texts(inputs: Inputs, on: str) -> list[dict[str, dict]]:
    """Each learner's texts; rounds after the one that stopped the boosting have none."""
    folders = [path for role, path in sorted(inputs.items()) if role.startswith("texts-")]
    return [read_texts(path, on) for path in folders if (path / f"{on}_texts.jsonl").exists()]


def candidates(here: Path, inputs: Inputs, tools: Tools, *, on: str) -> Facts:
    """The distinct answers that the learners sampled for each question of the set `on`, as its choices.

    Equal answers, and programs with equal behaviour, are one candidate. Writes SET.jsonl.
    """
    examples = read_rows(inputs["questions"] / f"{on}.jsonl", Example)
    members = members_texts(inputs, on)
    rows = [(example, [text for texts in members for text in texts[example.id]["texts"]]) for example in examples]
    with show_progress(f"different answers to {on}") as show:
        merged = merge_all(rows, allow_unsandboxed=tools.runtime.allow_unsandboxed, progress=show)
    choices = [tuple(candidates.texts) or ("",) for candidates in merged]
    rows = [dataclasses.replace(example, choices=texts) for example, texts in zip(examples, choices, strict=True)]
    return {"rows": write_rows(here / f"{on}.jsonl", rows), "candidates": sum(map(len, choices))}


def winners(here: Path, inputs: Inputs, tools: Tools, *, on: str) -> Facts:
    """The text of each question's most probable candidate, in the format of SET_texts.jsonl."""
    opinion = read_arrays(inputs["opinion"] / f"{on}.npz", Predictions)
    choices = {row.id: row.choices for row in read_rows(inputs["candidates"] / f"{on}.jsonl", Example)}
    best_N = opinion.probs_NK.argmax(1)
    with np.errstate(divide="ignore"):
        logp_N = np.log(opinion.probs_NK.max(1))
    with open(here / f"{on}_texts.jsonl", "w", encoding="utf-8") as file:
        for key, best, logp in zip(opinion.ids.tolist(), best_N.tolist(), logp_N.tolist(), strict=True):
            file.write(json.dumps({"id": key, "texts": [choices[key][best]], "logps": [logp]}) + "\n")
    return {"rows": len(best_N)}
