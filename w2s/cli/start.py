"""Commands to start from: `w2s init` (a commented config with example rows), `w2s config reference` and `schema`."""

import argparse
import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from w2s.config.registry import did_you_mean
from w2s.store.log import tell as print  # without control characters and secrets
from w2s.store.records import BadInput


def choice_rows() -> Iterator[dict]:
    from w2s.data.world import world

    for example, gold in zip(*world(None, easy=500, hard=400), strict=True):
        choices, level = list(example.choices), example.meta["level"]
        yield {"prompt": example.prompt, "choices": choices, "answer": gold.answer, "level": level}


def answer_rows() -> Iterator[dict]:
    from w2s.data.world import world

    for example, gold in zip(*world(None, task="answer", easy=500, hard=400), strict=True):
        yield {"prompt": example.prompt, "answer": gold.answer, "level": example.meta["level"]}


def code_rows() -> Iterator[dict]:
    """Easy tasks take one step, hard ones two."""
    for number in range(100):
        easy, hard = number + 601, number + 11
        text = f"Write a function add_{number} to add {number} to a number."
        yield code_row(easy, text, f"add_{number}", f"x + {number}", lambda x, n=number: x + n)
        text = f"Write a function triple_{number} to multiply a number by 3 and add {number}."
        yield code_row(hard, text, f"triple_{number}", f"3 * x + {number}", lambda x, n=number: 3 * x + n)


def code_row(task_id: int, text: str, name: str, formula: str, value: Callable[[int], int]) -> dict:
    tests = [f"assert {name}({x}) == {value(x)}" for x in (1, 4, 10)]
    return {"task_id": task_id, "text": text, "code": f"def {name}(x):\n    return {formula}", "test_list": tests}


CHOICES_EACH = 4
SHARES = {"model-a": 0.7, "model-b": 0.6, "model-c": 0.6, "model-d": 0.5, "model-e": 0.45}
"""Recorded model -> the share of questions that it answers correctly."""


def recorded_rows() -> Iterator[dict]:
    for number in range(200):
        choices = [f"choice {at}" for at in range(CHOICES_EACH)]
        yield {"id": f"q{number}", "prompt": f"Question {number}", "choices": choices, "gold": number % CHOICES_EACH}


def output_rows() -> Iterator[dict]:
    import numpy as np

    rng = np.random.default_rng(0)
    for row in recorded_rows():
        for model, share in SHARES.items():
            miss = 0 if rng.random() < share else int(rng.integers(1, CHOICES_EACH))
            yield {"id": row["id"], "model": model, "answer": (row["gold"] + miss) % CHOICES_EACH}


STARTS: dict[str, dict[str, Callable[[], Iterator[dict]]]] = {
    "choices": {"data/questions.jsonl": choice_rows},
    "answers": {"data/questions.jsonl": answer_rows},
    "code": {"data/mbpp/mbpp.jsonl": code_rows},
    "recorded": {"outputs/questions.jsonl": recorded_rows, "outputs/outputs.jsonl": output_rows},
}
"""Task -> path below the folder -> its rows. The task's config is starts/TASK.yaml, with DATA for the rows' folder."""


def write_start(task: str, folder: Path) -> str:
    """Write the config and the rows of a task below `folder`; returns a message. BadInput if a file exists."""
    if task not in STARTS:
        raise BadInput(f"init: {task!r} is not known{did_you_mean(task, STARTS)}; it can be: {', '.join(STARTS)}")
    rows, config = {folder / name: make for name, make in STARTS[task].items()}, folder / f"{task}.yaml"
    if existing := sorted(path for path in (config, *rows) if path.exists()):
        raise BadInput(f"{existing[0]}: it exists already; nothing was written (another DIR: w2s init {task} DIR)")
    for path, make in rows.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in make()))
    data = folder / Path(next(iter(STARTS[task]))).parts[0]
    template = Path(__file__).with_name("starts") / config.name
    config.write_text(template.read_text(encoding="utf-8").replace("DATA", json.dumps(str(data))), encoding="utf-8")
    commands = ["w2s combine --config"] if task == "recorded" else ["w2s plan", "w2s run"]
    following = [f"next:  {command} {shlex.quote(str(config))}" for command in commands]
    return "\n".join([*(f"wrote {path}" for path in (config, *rows)), *following])


def init(args: argparse.Namespace) -> None:
    """Write a commented config for a task and a folder of example rows, in a layout for your own data. No existing
    file is overwritten."""
    print(write_start(args.task, Path(args.folder)))


def config(args: argparse.Namespace) -> None:
    """Print the keys of a config: `w2s config reference` for people, `w2s config schema` for editors."""
    raise BadInput(f"config: {' '.join(args.about) or 'nothing'!r} given; allowed: reference, schema")


def config_reference(args: argparse.Namespace) -> None:
    """Print every key of a config with its type, range, default and meaning."""
    from w2s.config.reference import describe_keys

    print(describe_keys())


def config_schema(args: argparse.Namespace) -> None:
    """Print the JSON schema of a config, with which editors complete and check it: the shipped configs name
    configs/schema.json in their first line. With --plugins it includes the methods of your plug-ins."""
    from w2s.config.plugins import load_plugins
    from w2s.config.reference import make_schema

    load_plugins(args.plugins)
    print(json.dumps(make_schema(), indent=1))
