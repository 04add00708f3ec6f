"""Texts that a generative model writes for prompts.

job.json: {"worker": "sample", "model": folder, or null and "learner" and "path", "examples": examples.jsonl, "samples":
texts per example, "max_new_tokens", "temperature" (0 = greedy), "stop": texts that end an answer, "seed", "runtime"}
-> samples.jsonl, {"id", "texts"} a line, in the order of the examples
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from w2s.config import Runtime, build
from w2s.log import progress
from w2s.models.generate import generate
from w2s.models.train import World
from w2s.prompts import PROMPTS
from w2s.records import BadInput, Example
from w2s.registry import pick
from w2s.workers.examples import read_examples
from w2s.workers.predict import open_model

CHUNK = 64  # examples; each chunk is written when it is there, so that a killed job goes on


def run(folder: Path, job: dict[str, Any], world: World) -> dict[str, Any]:
    """Do the job in `folder`; what `done.json` says of it."""
    loaded = open_model(folder, job, build(Runtime, job.get("runtime") or {}, "runtime", []), world)
    if loaded.model.kind != "lm":
        raise BadInput(f"model.kind: {loaded.model.kind!r} given; allowed: lm (only a language model writes text)")
    examples = list(read_examples(folder / job["examples"]))
    prompts = [pick(PROMPTS, loaded.model.prompt)(example) for example in examples]
    starts = range(0, len(examples), CHUNK)
    with progress(len(examples), "prompts answered") as advance:
        for turn, start in enumerate(starts):
            part = folder / f"samples-{start}.jsonl"
            if turn % world.size == world.rank and not part.exists():
                texts = generate(
                    loaded,
                    prompts[start : start + CHUNK],
                    max_new_tokens=job["max_new_tokens"],
                    samples=job["samples"],
                    temperature=job["temperature"],
                    stop=job["stop"],
                    seed=job["seed"] + start,
                )
                write_texts(part, examples[start : start + CHUNK], texts)
            advance(len(prompts[start : start + CHUNK]))
    world.barrier()
    if world.rank == 0:
        parts = [folder / f"samples-{start}.jsonl" for start in starts]
        (folder / "samples.jsonl").write_text("".join(part.read_text(encoding="utf-8") for part in parts))
        for part in parts:
            part.unlink()
    return {"rows": len(examples)}


def write_texts(path: Path, examples: list[Example], texts: list[list[str]]) -> None:
    lines = [json.dumps({"id": e.id, "texts": t}) for e, t in zip(examples, texts, strict=True)]
    partial = path.with_suffix(".partial")
    partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    from w2s.workers.serve import once

    once("sample")
