"""Commands to start from: `w2s init` (a commented config with example rows), `w2s config reference` and `schema`."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from w2s.config.registry import did_you_mean
from w2s.store.log import (
    tell as print,  # nothing that a model or a file says steers the terminal, and secrets stay hidden
)
from w2s.store.records import BadInput

CHOICES = """\
# Questions with choices: weak learners are boosted on the easy ones and label the hard ones, and a student learns from
# these labels. Every key is explained by `w2s config reference`, every method by `w2s methods`.
name: choices             # results go to runs/choices
seeds: [0]                # [0, 1, 2] repeats the whole chain and gives intervals over seeds

data:
  root: DATA
  # Your own rows: prompt, choices, answer (an index, a letter or the text), level (how hard). These here are synthetic.
  sources: [{name: file, path: questions.jsonl}]
  easy_max: 0             # questions of level 0 are easy; or instead of both: easy_share: 0.5
  hard_min: 1             # questions of level 1 and above are hard
  near: null              # these rows share most of their words; for your own 0.8 finds near duplicates

learners:                 # weak models, taken in turn by the rounds: a hub name or a folder; builtin ones are tiny
  - model: {path: "builtin:weak"}      # e.g. Qwen/Qwen2.5-0.5B with prompt: {name: qa}, trainable: lora
    train: {steps: 250, batch: 64, lr: 0.02}    # pretrained models: epochs: 2, lr: 1e-5 (adapters 2e-4)

boosting:
  rounds: 4
  booster: {name: samme, clip: [0.05, 3.0]}     # the lower bound keeps a learner at chance from ending the run

label:
  combiner: {name: soft_vote}                   # how the learners' opinions become one
  select: {name: everything}                    # e.g. {name: confidence, keep_share: 0.7}

student:
  model: {path: "builtin:strong", trainable: body}    # the strong model, e.g. Qwen/Qwen2.5-1.5B
  train: {steps: 200, batch: 64, lr: 0.006}
"""

ANSWERS = """\
# Short answers: no choices are given; the learners write, and are boosted token by token. Every key is explained by
# `w2s config reference`, every method by `w2s methods`.
name: answers             # results go to runs/answers
seeds: [0]                # [0, 1, 2] repeats the whole chain and gives intervals over seeds

data:
  root: DATA
  sources: [{name: file, path: questions.jsonl}]    # your own rows: prompt, answer, level. These here are synthetic.
  easy_max: 0             # questions of level 0 are easy; or instead of both: easy_share: 0.5
  hard_min: 1             # questions of level 1 and above are hard
  near: null              # these rows share most of their words; for your own 0.8 finds near duplicates

learners:                 # weak models, taken in turn by the rounds: a hub name or a folder; builtin ones are tiny
  - model: {path: "builtin:weak_writer"}            # e.g. Qwen/Qwen2.5-0.5B with prompt: {name: qa}
    train: {steps: 300, batch: 64, lr: 0.015}

boosting:
  rounds: 3
  booster: {name: ensemw2s, reference: untrained, clip: [0.05, 3.0]}

writing: {max_new_tokens: 6, samples: 2}            # longest answer in tokens; for text of people also stop: ["\\n"]

label: {made: decoded}  # the committee writes token by token; winner: whole answers are sampled and voted on

student:
  model: {path: "builtin:strong_writer", trainable: attention}
  train: {steps: 150, batch: 128, lr: 0.004}
"""

CODE = """\
# Programs, judged by running them in the sandbox. Every key is explained by `w2s config reference`, every method by
# `w2s methods`.
name: code                # results go to runs/code
seeds: [0]                # [0, 1, 2] repeats the whole chain and gives intervals over seeds

data:
  root: DATA
  # Tasks in the layout of MBPP, in mbpp/mbpp.jsonl: task_id, text, code, test_list. Its splits are ranges of task_id:
  # test 11 to 510, train 601 to 974. Others: `w2s methods sources`.
  sources:
    - {name: mbpp, split: train, level: 0}
    - {name: mbpp, split: test, level: 1}
  easy_max: 0
  hard_min: 1
  near: null              # these tasks share most of their words; for your own 0.8 finds near duplicates

learners:                 # builtin models are tiny and cannot program: put your own here, e.g. Qwen/Qwen2.5-Coder-0.5B
  - model: {path: "builtin:weak_writer"}
    train: {steps: 50, batch: 16, lr: 0.01}

boosting:
  rounds: 2
  booster: {name: ensemw2s, reference: untrained, clip: [0.05, 3.0]}

writing: {max_new_tokens: 32, samples: 2}           # longest program in tokens; 256 for real tasks

label: {made: winner, check_examples: true}         # programs vote by what they do, and must pass the shown example

student:
  model: {path: "builtin:strong_writer"}            # e.g. Qwen/Qwen2.5-Coder-1.5B
  train: {steps: 50, batch: 16, lr: 0.004}
"""

RECORDED = """\
# Recorded answers of many models become the best one opinion: `w2s combine --config` with this file.
outputs: DATA             # outputs.jsonl: id, model, answer; questions.jsonl: id, prompt, choices, gold
methods: [votes, label models]    # families or names (`w2s methods combine`), or [all]
models: []                # only these models; [] is all
costs: {}                 # dollars of one answer, e.g. {gpt-4*: 0.03, "*": 0.001}: adds cascades and routing
repeats: 5                # random halves: methods are fitted on one and judged on the other
"""


def choice_rows() -> Iterator[dict]:
    from w2s.data.world import world

    for example, gold in zip(*world(None, easy=500, hard=400), strict=True):
        yield {
            "prompt": example.prompt,
            "choices": list(example.choices),
            "answer": gold.answer,
            "level": example.meta["level"],
        }


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
"""Recorded model -> the share of the questions that it answers correctly."""


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


@dataclass(frozen=True)
class Start:
    """What `w2s init` writes for a task, and which commands come next."""

    config: str
    """The config's text; DATA stands for the folder of the rows."""
    files: dict[str, Callable[[], Iterator[dict]]]
    """Path below the folder -> its rows."""
    commands: tuple[str, ...]
    """Each takes the config."""


STARTS = {
    "choices": Start(CHOICES, {"data/questions.jsonl": choice_rows}, ("w2s plan", "w2s run")),
    "answers": Start(ANSWERS, {"data/questions.jsonl": answer_rows}, ("w2s plan", "w2s run")),
    "code": Start(CODE, {"data/mbpp/mbpp.jsonl": code_rows}, ("w2s plan", "w2s run")),
    "recorded": Start(
        RECORDED,
        {"outputs/questions.jsonl": recorded_rows, "outputs/outputs.jsonl": output_rows},
        ("w2s combine --config",),
    ),
}


def write_start(task: str, folder: Path) -> str:
    """Writes the config and the rows of a task below `folder`; returns what to say. What exists is a BadInput."""
    if task not in STARTS:
        raise BadInput(f"init: {task!r} is not known{did_you_mean(task, STARTS)}; it can be: {', '.join(STARTS)}")
    start, config = STARTS[task], folder / f"{task}.yaml"
    paths = {config, *(folder / name for name in start.files)}
    if existing := sorted(path for path in paths if path.exists()):
        raise BadInput(f"{existing[0]}: it exists already; nothing was written (another DIR: w2s init {task} DIR)")
    for name, rows in start.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows()))
    data = folder / Path(next(iter(start.files))).parts[0]
    config.write_text(start.config.replace("DATA", json.dumps(str(data))))
    wrote = [f"wrote {path}" for path in (config, *(folder / name for name in start.files))]
    following = [f"next:  {command} {shlex.quote(str(config))}" for command in start.commands]
    return "\n".join([*wrote, *following])


def init(args: argparse.Namespace) -> None:
    """Write a commented config for a task and a folder of example rows, in the layout that your own data may have.
    Nothing that exists is overwritten."""
    print(write_start(args.task, Path(args.folder)))


def config(args: argparse.Namespace) -> None:
    """What a config may hold: `w2s config reference` for people, `w2s config schema` for editors."""
    raise BadInput(f"config: {' '.join(args.about) or 'nothing'!r} given; allowed: reference, schema")


def config_reference(args: argparse.Namespace) -> None:
    """Every key of a config with its type, range, default and meaning."""
    from w2s.config.reference import describe_keys

    print(describe_keys())


def config_schema(args: argparse.Namespace) -> None:
    """The JSON schema of a config, by which editors complete and check one: the shipped configs name
    configs/schema.json in their first line. With --plugins it knows the methods of yours."""
    from w2s.config.plugins import load_plugins
    from w2s.config.reference import make_schema

    load_plugins(args.plugins)
    print(json.dumps(make_schema(), indent=1))
