"""RUN/student/: the trained student as a folder that `w2s evaluate` loads, with a model card."""

import contextlib
import os
import re
import shutil
from pathlib import Path
from typing import Any

from w2s.config.fields import Model
from w2s.config.registry import pick
from w2s.config.tables import load_table
from w2s.evaluation.run.contents import ReportData
from w2s.evaluation.run.report import fill
from w2s.evaluation.run.runs import Run, find_teacher
from w2s.evaluation.run.verdict import sentence, verdict
from w2s.prompts import PROMPTS, in_words, show

KINDS = {
    "lm": (
        "AutoModelForCausalLM",
        "text-generation",
        "A candidate's score is its log-likelihood behind the prompt, joined by one space.",
    ),
    "pair": (
        "AutoModelForSequenceClassification",
        "text-classification",
        "It reads prompt and candidate as a pair of texts; its one logit is the candidate's score.",
    ),
    "towers": (
        "AutoModel",
        "feature-extraction",
        "A candidate's score is the cosine of the encoded prompt and the encoded candidate.",
    ),
    "probe": (
        "",
        "text-classification",
        "It is a linear head on a frozen model, which w2s.json names (base) and which must stay where it is. Prompt "
        "and candidate are read together; the score is the head's weights in probe.npz times the hidden state of the "
        "last token (or, by pooling, the mean of all) after the first layers (as many as layers says) and the final "
        "norm.",
    ),
}
"""Kind of model -> the class of transformers that loads it ("": none does), the hub's name of its task, and how it
answers."""
SHOWN = ("student", "ceiling", "committee", "floor", "zero_shot")
LABELLERS = {
    "committee": "a committee",
    "rewarded": "a committee, tilted by reward models",
    "merged": "a committee, merged into one model",
}
HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")


def write_student(run: Run, data: ReportData) -> list[str]:
    """Write the first student to RUN/student/, those of further seeds to its seed-S/. Weights are hard links
    into the store (copies if the file system has no links), so that they take no space and the folder can be moved;
    small files are copied, so that editing them changes no artifact. Returns the pages written: none if there is no
    student."""
    found = {s: a.path / "fit-0" / "model" for s in run.seeds for a in run.find("model", seed=s, model="student")}
    found = {seed: path for seed, path in found.items() if path.is_dir()}
    if not found:
        return []
    final, partial = run.folder / "student", run.folder / "student.partial"
    shutil.rmtree(partial, ignore_errors=True)
    for seed, path in found.items():
        here = partial if seed == next(iter(found)) else partial / f"seed-{seed}"
        shutil.copytree(path, here, copy_function=link_weights)
    (partial / "README.md").write_text(card(run, data), encoding="utf-8")
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    return ["student/README.md"]


def link_weights(source: str, target: str) -> None:
    if source.endswith(".safetensors"):
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    shutil.copyfile(source, target)


def describe_kind(name: str) -> tuple[str, str, str]:
    """The description in KINDS of a plug-in's kind; only its name if the plug-in is missing."""
    kind = load_table("kinds").get(name)
    about = getattr(kind, "about", "") or f"Candidates are scored by the kind {name}, of a plug-in."
    return "AutoModel" if kind is None else getattr(kind, "auto", ""), "text-classification", about


def card(run: Run, data: ReportData) -> str:
    """The model card, in the hub's form."""
    config, seed = run.config, run.seeds[0]
    model = Model(**config["student"]["model"])
    loader, pipeline, scoring = KINDS.get(model.kind) or describe_kind(model.kind)
    example = next(iter(run.questions("transfer", seed).values()))
    content: dict[str, Any] = {
        "data": data,
        "verdict": sentence(verdict(data.metrics, data.suite)),
        "flow": {step.name: step for step in data.flow},
        "path": model.path,
        "base_model": model.path if HUB_NAME.fullmatch(model.path) and not Path(model.path).exists() else "",
        "pipeline": pipeline,
        "loader": loader,
        "scoring": scoring,
        "prompt": show(in_words(pick(PROMPTS, model.prompt), example).prompt),
        "sources": ", ".join(sorted({str(one["name"]) for one in config["data"]["sources"]})),
        "labeller": LABELLERS[find_teacher(run)],
        "learners": ", ".join(dict.fromkeys(one["model"]["path"] for one in config["learners"])),
        "objective": config["student"]["objective"]["name"],
        "seeds": run.seeds,
        "results": [
            m
            for m in data.metrics
            if m.value is not None
            and (m.name == "accuracy" or m.name.startswith("pass@"))
            and m.model in (SHOWN if m.suite == data.suite else SHOWN[:1])
        ],
    }
    return fill("student.md", content)
