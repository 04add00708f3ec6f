"""The tiny run that the tests of the spine share, and the same as a program: `python tests/spine.py run CONFIG ...`.

It is the whole chain on the embedded world, so small that it takes well under a minute of CPU time: the base models
are pretrained for a few steps only, which no config can ask for, so the recipes are cut short in the process that runs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

CONFIG = """
name: tiny
seeds: [0]
data:
  root: {root}
  sources: [{{name: world, easy: 400, hard: 500}}]
  easy_max: 0
  hard_min: 1
  near: null
  sizes: {{easy_fit: 160, easy_holdout: 60, transfer: 100, hard_test: 80}}
learners:
  - model: {{path: "builtin:weak"}}
    train: {{steps: 16, batch: 32, lr: 0.02}}
boosting:
  rounds: 2
  booster: {{name: samme, shrinkage: 0.5, clip: [0.05, 3.0]}}
student:
  model: {{path: "builtin:strong", trainable: attention}}
  train: {{steps: 8, batch: 32, lr: 0.003, holdout_share: 0.125, eval_every: 4}}
controls: {{long_learner: false, naive_student: false}}
evaluation:
  samples: 4
  programs: 2
  temperature: 0.5
  max_new_tokens: 8
  suites:
    - {{name: humaneval, limit: 3}}
    - {{name: file, path: own.jsonl}}
runtime: {{slots: 1, threads: 1, runs_dir: runs}}
"""

WRITTEN = """
name: tiny_written
seeds: [0]
data:
  root: {root}
  sources: [{{name: world, task: answer, easy: 300, hard: 400}}]
  easy_max: 0
  hard_min: 1
  near: null
  sizes: {{easy_fit: 160, easy_holdout: 40, transfer: 80, hard_test: 60}}
learners:
  - model: {{path: "builtin:weak_writer"}}
    train: {{steps: 80, batch: 32, lr: 0.02}}
boosting:
  rounds: 2
  booster: {{name: ensemw2s, clip: [0.05, 3.0]}}
writing: {{max_new_tokens: 6, samples: 2}}
student:
  model: {{path: "builtin:strong_writer", trainable: attention}}
  train: {{steps: 8, batch: 32, lr: 0.003, holdout_share: 0.125, eval_every: 4}}
controls: {{long_learner: false, naive_student: false}}
evaluation:
  samples: 4
  programs: 2
  temperature: 0.5
  max_new_tokens: 8
  suites:
    - {{name: humaneval, limit: 2}}
runtime: {{slots: 1, threads: 1, runs_dir: runs}}
"""

# HumanEval's columns; the tasks are ours.
TASKS = [
    ("add", "a, b", "the sum of a and b", "return a + b", ["(1, 2) == 3", "(-1, 1) == 0"]),
    ("last", "items", "the last item", "return items[-1]", ["([1, 2]) == 2", "('xy') == 'y'"]),
    ("even", "n", "whether n is even", "return n % 2 == 0", ["(2) == True", "(3) == False"]),
]
QUESTIONS = [
    {"prompt": f"weight ? a{n} b{n} c{n} =", "choices": [f"a{n}", f"b{n}", f"c{n}"], "answer": n % 3} for n in range(12)
]


def recipes() -> dict[str, dict]:
    from w2s.stages.models import PRETRAINING

    return PRETRAINING


def shorten() -> None:
    """Pretrain for a few steps only."""
    for weak, strong in (("weak", "strong"), ("weak_writer", "strong_writer")):
        recipes()[weak] |= {"lines": 1500}
        recipes()[strong] |= {"lines": 1500, "steps": 20, "batch": 32}


def write_data(root: Path) -> Path:
    """A data.root with three programs to write and twelve questions of one's own."""
    (root / "humaneval").mkdir(parents=True)
    with open(root / "humaneval" / "HumanEval.jsonl", "w") as file:
        for at, (name, arguments, words, body, checks) in enumerate(TASKS):
            test = "def check(candidate):\n" + "".join(f"    assert candidate{one}\n" for one in checks)
            prompt = f'def {name}({arguments}):\n    """Return {words}."""\n'
            row = {"task_id": f"Own/{at}", "prompt": prompt, "entry_point": name, "test": test}
            file.write(json.dumps({**row, "canonical_solution": f"    {body}\n"}) + "\n")
    (root / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    return root


def write_config(folder: Path) -> Path:
    """FOLDER/tiny.yaml, FOLDER/written.yaml and their data; runs go to ./runs of whoever runs them."""
    root = write_data(folder / "data")
    (folder / "tiny.yaml").write_text(CONFIG.format(root=root))
    (folder / "written.yaml").write_text(WRITTEN.format(root=root))
    return folder / "tiny.yaml"


if __name__ == "__main__":
    from w2s.cli import main

    shorten()
    main(sys.argv[1:])
