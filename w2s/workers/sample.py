"""Texts that a language model, or several together token by token, write for prompts: the worker of job.Sample."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from w2s.boosting.tokens import gathered
from w2s.models import load
from w2s.models.adapters import share
from w2s.models.batches import encode, worded
from w2s.models.committee import Written, count_readable, decode, fitted
from w2s.models.generate import Voice, vocabulary
from w2s.models.tokens import fingerprint
from w2s.models.world import World
from w2s.store.files import open_whole
from w2s.store.records import BadInput, Example, TokenTargets, read_arrays, write_arrays
from w2s.workers.examples import count_cuts, read_sets
from w2s.workers.job import Sample
from w2s.workers.parts import Chunk, drop_parts, make_parts
from w2s.workers.predict import open_model

FACTS = ("number", "text", "logp", "ended")


def run(folder: Path, job: Sample, world: World) -> dict[str, Any]:
    """Do the job in `folder`; returns the summary for done.json."""
    voices = open_voices(folder, job, world)
    sets = read_sets(folder, {"samples": job.examples})
    parts = make_parts(folder, sets, world, lambda rows, skip: write_texts(voices, job, rows, skip))["samples"]
    examples = sets["samples"]
    facts = {"rows": len(examples), **count_prompt_cuts(voices, job, examples, world)}
    if world.rank == 0:
        lines = [json.loads(line) for part in parts for line in (part / "texts.jsonl").read_text().splitlines()]
        write_samples(folder / "samples.jsonl", lines, examples, job.samples)
        facts["unfinished"] = sum(not line["ended"] for line in lines)
        if job.top:
            targets = [read_arrays(part / "soft.npz", TokenTargets) for part in parts]
            soft = gathered(targets, np.array([example.id for example in examples]))
            write_arrays(folder / "soft.npz", soft)
            facts["untargeted"] = int((soft.length_N == 0).sum())
        drop_parts(folder, world)
    return facts


def write_samples(path: Path, lines: list[dict[str, Any]], examples: list[Example], samples: int) -> None:
    """Write samples.jsonl, one line per example, from lines with one text each in any order."""
    by_place = {(line["id"], line["number"]): line for line in lines}
    rows = []
    for example in examples:
        texts = [by_place[example.id, number] for number in range(samples)]
        columns = {"texts": "text", "logps": "logp", "ended": "ended"}
        rows.append({"id": example.id, **{name: [text[key] for text in texts] for name, key in columns.items()}})
    with open_whole(path) as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def open_voices(folder: Path, job: Sample, world: World) -> list[Voice]:
    """The job's models; one voice for all if they are LoRA adapters of one base."""
    paths = job.models
    adapted = len(paths) > 1 and all(path and (folder / path / load.ADAPTER).exists() for path in paths)
    # Learners that start from scratch each drew their own weights; those on a quantised base are saved with its values.
    one = job.one_base and job.base.learner.model.quantise == "none"
    if adapted and one and not load.read_marks(job.base.path).get("from_scratch"):
        adapters = [load.read_adapter(folder / path) for path in paths]
        return share(open_model(folder, None, job, world), adapters)
    voices = [Voice(open_model(folder, path, job, world)) for path in paths]
    for model in (voice.loaded.model for voice in voices):
        if model.kind != "lm":
            raise BadInput(f"model.kind: {model.kind!r} given; allowed: lm (only a language model writes text)")
        for name in ("prompt", "shots"):
            given, first = (getattr(one, name) for one in (model, voices[0].loaded.model))
            if given != first:
                raise BadInput(f"model.{name}: {given} given; allowed: {first}, as for the first")
    return voices


def count_prompt_cuts(voices: Sequence[Voice], job: Sample, examples: list[Example], world: World) -> dict[str, Any]:
    """`count_cuts` of prompts as cut for writing; scoring, which came later, has another window."""
    first, mine = voices[0].loaded, examples[world.rank :: world.size]
    cut_N = fitted(voices, [row.prompt for row in worded(first, mine)], job.max_new_tokens)[2]
    cuts = {example.id: (True, False) for example, cut in zip(mine, cut_N, strict=True) if cut}
    by = str(job.models[0] or job.base.path)
    sets = {Path(job.examples).stem: examples}
    return count_cuts(dataclasses.replace(first, cuts=cuts), sets, by, world, tokens=count_readable(voices))


def write_texts(voices: Sequence[Voice], job: Sample, examples: list[Example], skip: int) -> Iterator[Chunk]:
    """Batches of texts and, if job.top, targets of each example's first text."""
    first = voices[0].loaded
    top = min(job.top, vocabulary(voices))
    batches = decode(
        voices,
        [row.prompt for row in worded(first, examples)],
        job.alphas,
        mixture=job.mixture,
        mix=job.mix,
        max_new_tokens=job.max_new_tokens,
        samples=job.samples,
        temperature=job.temperature,
        stop=job.stop,
        seed=job.seed,
        top=top,
        skip=skip,
    )
    tokenizer = fingerprint(first)
    for texts in batches:
        firsts = [text for text in texts if text.number == 0]
        rows = [{"id": examples[text.prompt].id, **{key: getattr(text, key) for key in FACTS}} for text in texts]
        files: dict[str, Any] = {"texts.jsonl": rows}
        if top:
            questions = [examples[text.prompt] for text in firsts]
            files["soft.npz"] = make_targets(first, questions, firsts, top, tokenizer)
        yield len(firsts), files


def make_targets(
    loaded: load.Loaded, examples: list[Example], texts: list[Written], top: int, tokenizer: str
) -> TokenTargets:
    """The most probable tokens in each token's place and at the end, for texts that the tokenizer cuts as written."""
    as_read = [dataclasses.replace(row, choices=(text.text,)) for row, text in zip(examples, texts, strict=True)]
    read = [encoded.rows[0].token_P.tolist() for encoded in encode(loaded, as_read)]
    fits = [text.ended and row[:-1] == text.tokens for text, row in zip(texts, read, strict=True)]
    length_N = np.array([len(row) if fit else 0 for row, fit in zip(read, fits, strict=True)], dtype=np.int64)
    whole = [text for text, fit in zip(texts, fits, strict=True) if fit]
    token_TJ = np.concatenate([np.zeros((0, top)), *(text.token_SJ for text in whole)])
    prob_TJ = np.concatenate([np.zeros((0, top)), *(text.prob_SJ for text in whole)])
    ids = np.array([example.id for example in examples], dtype=str)
    return TokenTargets(ids, length_N, token_TJ.astype(np.int32), prob_TJ.astype(np.float16), tokenizer)
