"""`w2s plan`: a run's stages, which of them are done, and what a model would see. Runs nothing."""

import re
import tempfile
from pathlib import Path

from w2s.config.fields import Config
from w2s.config.registry import pick
from w2s.config.smoke import smoke
from w2s.prompts import PROMPTS, in_words, show
from w2s.store.artifacts import Stage, Store
from w2s.store.records import Example, read_rows
from w2s.story.main import build
from w2s.story.teller import FIT, HOLDOUT, TEST, TRANSFER

SPLITS = (FIT, HOLDOUT, TRANSFER, TEST)


def describe_plan(config: Config) -> str:
    """The table of stages, rows and tokens by split, and the first prompt that learner and student would see."""
    store = Store(Path(config.runtime.runs_dir) / "store")
    stages = build(config, run_job=refuse)
    with tempfile.TemporaryDirectory() as folder:
        split = read_splits(stages, store, Path(folder))
        lines = [*list_stages(stages, store), "", *list_splits(split), "", *list_prompts(config, split)]
    return "\n".join([*filter(None, [smoke(config.limit)]), *lines])


def refuse(folder: Path) -> None:
    raise RuntimeError(f"a plan runs no job, but one was requested: {folder}")


def list_stages(stages: list[Stage], store: Store) -> list[str]:
    """A line per kind of stage, counting seeds and rounds together."""
    groups: dict[str, list[Stage]] = {}
    for stage in stages:
        label = re.sub(r"\d+", "#", stage.title.split(" · ", 1)[-1])
        groups.setdefault(label, []).append(stage)
    lines = [f"{'stage':44} {'done':>5} {'to run':>7}   which", "-" * 79]
    for label, group in groups.items():
        done = sum(store.done(stage) for stage in group)
        lines.append(f"{label:44} {done:5} {len(group) - done:7}   {group[0].name}")
    done = sum(store.done(stage) for stage in stages)
    return [*lines, f"{'all':44} {done:5} {len(stages) - done:7}"]


def read_splits(stages: list[Stage], store: Store, folder: Path) -> dict[str, list[Example]] | None:
    """The splits of the first seed: read if they exist, else made in a temporary folder."""
    stage = next(s for s in stages if s.tags.get("kind") == "questions")
    if store.done(stage):
        where = store.checked(stage)
    elif stage.parents:
        return None  # they depend on learners that have not run
    else:
        stage.work(folder, {})
        where = folder
    return {name: read_rows(where / f"{name}.jsonl", Example) for name in SPLITS}


def list_splits(split: dict[str, list[Example]] | None) -> list[str]:
    if split is None:
        return ["rows: known when the learners have scored the difficulty of the questions"]
    lines = [f"{'split (first seed)':24} {'rows':>8} {'about tokens':>14}"]
    for name, rows in split.items():
        words = sum(len(re.findall(r"\w+|[^\w\s]", " ".join([row.prompt, *row.choices]))) for row in rows)
        lines.append(f"{name:24} {len(rows):8,} {round(words * 1.3, -2):14,.0f}")
    return lines


def list_prompts(config: Config, split: dict[str, list[Example]] | None) -> list[str]:
    """The first question of the splits as the first learner and the student see it."""
    lines = []
    who_sees = ("learner 1", config.learners[0].model, FIT), ("student", config.student.model, TRANSFER)
    for who, model, name in who_sees:
        if split and split[name]:
            example = split[name][0]
            words = in_words(pick(PROMPTS, model.prompt), example)
            shots = model.shots if isinstance(model.shots, int) else len(model.shots)
            after = f", after {shots} solved examples" if shots else ""
            lines += [f"{who} ({model.path}, {model.kind}) would see{after}:"]
            lines += [f"  | {line}" for line in show(words.prompt).splitlines()]
            lines += [*(f"  candidate: {answer!r}" for answer in words.answers), ""]
    return lines
