"""Texts that a language model, or several together token by token, write for prompts.

job.json: {"worker": "sample", "models": [model folder, or null, ...], "alphas": one for each, "mixture": linear or
log_linear, "mix": all or disagree, "learner" and "path": of the untrained base that null stands for, "base":
{"learner", "path"} or null: what the models began as (LoRA adapters then share it), "examples": examples.jsonl,
"samples": texts per example, "max_new_tokens", "temperature" (0 = greedy), "stop": texts that end an answer, "seed",
"top": how many probable next tokens to tell, "runtime"}
-> samples.jsonl, {"id", "texts", "logps", "ended"} a line, in the order of the examples; if `top`, soft.npz
(TokenTargets) of the first texts. One that is no target has no tokens there: it has not ended, or its tokens are not
those that the tokenizer cuts it into. done.json says how many, and how many texts have not ended ("untargeted",
"unfinished").
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from w2s.boosting.tokens import gathered
from w2s.config.fields import Runtime
from w2s.config.registry import build, pick
from w2s.models import load
from w2s.models.adapters import share
from w2s.models.batches import encode, worded
from w2s.models.committee import Written, decode, fitted, readable
from w2s.models.generate import Voice, vocabulary
from w2s.models.tokens import fingerprint
from w2s.models.train import World
from w2s.prompts import PROMPTS
from w2s.store.files import open_whole
from w2s.store.records import BadInput, Example, TokenTargets, read_arrays, write_arrays
from w2s.workers import cuts
from w2s.workers.examples import read_examples
from w2s.workers.parts import drop_parts, make_parts
from w2s.workers.predict import open_model

Part = tuple[list[Written], list[str], TokenTargets | None]  # texts, the id of each one's example, targets


def run(folder: Path, job: dict[str, Any], world: World) -> dict[str, Any]:
    """Do the job in `folder`; what `done.json` says of it."""
    voices = open_voices(folder, job, build(Runtime, job.get("runtime") or {}, "runtime", []), world)
    examples = list(read_examples(folder / job["examples"]))
    if not examples:
        raise BadInput(f"{job['examples']}: there is no example in it")
    parts = make_parts(
        folder, {"samples": examples}, world, lambda rows, skip: write_texts(voices, job, rows, skip), save
    )["samples"]
    facts = {"rows": len(examples), **cuts_of(voices, job, examples, world)}
    if world.rank == 0:
        lines = [json.loads(line) for part in parts for line in (part / "texts.jsonl").read_text().splitlines()]
        found = {(line["id"], line["number"]): line for line in lines}
        told = [[found[example.id, number] for number in range(job["samples"])] for example in examples]
        fields = {"texts": "text", "logps": "logp", "ended": "ended"}
        columns = [{name: [one[key] for one in row] for name, key in fields.items()} for row in told]
        made = [json.dumps({"id": e.id, **texts}) + "\n" for e, texts in zip(examples, columns, strict=True)]
        with open_whole(folder / "samples.jsonl") as file:
            file.writelines(made)
        facts["unfinished"] = sum(not line["ended"] for line in lines)
        if job.get("top"):
            soft = [read_arrays(part / "soft.npz", TokenTargets) for part in parts]
            soft = gathered(soft, np.array([example.id for example in examples]))
            write_arrays(folder / "soft.npz", soft)
            facts["untargeted"] = int((soft.length_N == 0).sum())
        drop_parts(folder, world)
    return facts


def open_voices(folder: Path, job: dict[str, Any], runtime: Runtime, world: World) -> list[Voice]:
    """The job's models; one voice for all of them where they are LoRA adapters of its "base"."""
    paths, base = job["models"], job.get("base")
    adapted = len(paths) > 1 and all(path and (folder / path / load.ADAPTER).exists() for path in paths)
    if adapted and base and not load.read_marks(base["path"]).get("from_scratch"):  # there each drew its own weights
        adapters = [load.read_adapter(folder / path) for path in paths]
        return share(open_model(folder, None, base, runtime, world), adapters)
    voices = [Voice(open_model(folder, path, job, runtime, world)) for path in paths]
    for model in (voice.loaded.model for voice in voices):
        if model.kind != "lm":
            raise BadInput(f"model.kind: {model.kind!r} given; allowed: lm (only a language model writes text)")
        if model.prompt != voices[0].loaded.model.prompt:
            raise BadInput(
                f"model.prompt: {model.prompt} given; allowed: {voices[0].loaded.model.prompt}, as the first"
            )
    return voices


def cuts_of(voices: Sequence[Voice], job: dict[str, Any], examples: list[Example], world: World) -> dict[str, Any]:
    """What `cuts.count` says of prompts that texts are written for: what was scored besides has another window."""
    first, mine = voices[0].loaded, examples[world.rank :: world.size]
    cut_N = fitted(voices, worded(first, mine), job["max_new_tokens"])[2]
    told = dataclasses.replace(first, cuts={e.id: (True, False) for e, cut in zip(mine, cut_N, strict=True) if cut})
    name, by = Path(job["examples"]).stem, str(job["models"][0] or job.get("path"))
    return cuts.count(told, {name: examples}, by, world, tokens=readable(voices))


def write_texts(voices: Sequence[Voice], job: dict[str, Any], examples: list[Example], skip: int) -> Iterator[Part]:
    """Batches of texts and, if asked for, targets of those that are an example's first."""
    first = voices[0].loaded
    words, top = pick(PROMPTS, first.model.prompt), min(job.get("top", 0), vocabulary(voices))
    batches = decode(
        voices,
        [words(example) for example in examples],
        job["alphas"],
        mixture=job.get("mixture", "linear"),
        mix=job.get("mix", "all"),
        max_new_tokens=job["max_new_tokens"],
        samples=job["samples"],
        temperature=job["temperature"],
        stop=job["stop"],
        seed=job["seed"],
        top=top,
        skip=skip,
    )
    tokenizer = fingerprint(first.tokenizer)
    for texts in batches:
        firsts = [one for one in texts if one.number == 0]
        soft = targets(first, [examples[one.prompt] for one in firsts], firsts, top, tokenizer) if top else None
        yield texts, [examples[one.prompt].id for one in texts], soft


def targets(
    loaded: load.Loaded, examples: list[Example], texts: list[Written], top: int, tokenizer: str
) -> TokenTargets:
    """The most probable tokens at each token of a text and at its end, for texts that the tokenizer cuts as written."""
    as_read = [dataclasses.replace(e, choices=(one.text,)) for e, one in zip(examples, texts, strict=True)]
    read = [encoded.rows[0].token_P.tolist() for encoded in encode(loaded, as_read)]
    fits = [one.ended and row[:-1] == one.tokens for one, row in zip(texts, read, strict=True)]
    length_N = np.array([len(row) if fit else 0 for row, fit in zip(read, fits, strict=True)], dtype=np.int64)
    token_TJ, prob_TJ = (
        np.concatenate([np.zeros((0, top)), *(getattr(one, name) for one, fit in zip(texts, fits, strict=True) if fit)])
        for name in ("token_SJ", "prob_SJ")
    )
    ids = np.array([example.id for example in examples], dtype=str)
    return TokenTargets(ids, length_N, token_TJ.astype(np.int32), prob_TJ.astype(np.float16), tokenizer)


def save(folder: Path, part: Part) -> int:
    texts, ids, soft = part
    with open(folder / "texts.jsonl", "w", encoding="utf-8") as file:
        for one, key in zip(texts, ids, strict=True):
            told = {"id": key, "number": one.number, "text": one.text, "logp": one.logp, "ended": one.ended}
            file.write(json.dumps(told) + "\n")
    if soft is not None:
        write_arrays(folder / "soft.npz", soft)
    return sum(one.number == 0 for one in texts)


if __name__ == "__main__":
    from w2s.workers.serve import once

    once("sample")
