"""Everything in a boosting round that is not model time: `python -m tests.benchmarks.round_overhead [--steps N]`.

Real rounds of the pipeline, on one warm worker: 4,000 easy questions, two-fold cross-fitting, learners that train for
10 to 20 seconds each. `seconds` is a round's wall time less `peer_seconds`, the time that its jobs spend inside the
worker (fit and predict: `done.json`); `ratio` is their quotient's median over the rounds, `spread` its least and
largest. Within the worker's time, `training_seconds` are the training loops alone. The worker's start (imports of torch
and DeepSpeed, once per run) is not in it: the base model's stage comes before.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from tests import spine
from w2s.config.load import load
from w2s.stages.jobs import Workers
from w2s.store.artifacts import Stage, Store
from w2s.story.main import build

CONFIG = """
data:
  sources: [{{name: world}}]
  easy_max: 0
  hard_min: 1
  near: null
  sizes: {{easy_fit: 4000, easy_holdout: 500, transfer: 500, hard_test: 500}}
learners:
  - model: {{path: "builtin:strong"}}
    train: {{steps: {steps}, batch: 64, lr: 0.003}}
boosting:
  rounds: {rounds}
  booster: {{name: samme, clip: [0.05, 3.0]}}
runtime: {{slots: 1, runs_dir: {folder}/runs}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500, help="of a learner's training")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    spine.shorten()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "benchmark.yaml"
        path.write_text(CONFIG.format(folder=folder, **vars(asked)))
        config = load(path)
        store = Store(Path(config.runtime.runs_dir) / "store")
        with Workers(config.runtime) as workers:
            told = build(config, workers.run)
            rounds = [
                stage for stage in told if stage.tags.get("kind") == "round" and stage.tags["model"] == "committee"
            ]
            measured = [measure(store, stage) for stage in rounds]
    shares = [(wall - inside) / wall for wall, inside, _ in measured]
    print(json.dumps({
        "name": "round_overhead",
        "ratio": round(statistics.median(shares), 4),
        "peer": "the round's model time (fit and predict inside the worker)",
        "seconds": round(statistics.median(wall - inside for wall, inside, _ in measured), 3),
        "peer_seconds": round(statistics.median(inside for _, inside, _ in measured), 3),
        "spread": [round(min(shares), 4), round(max(shares), 4)],
        "training_seconds": round(statistics.median(training for _, _, training in measured), 3),
        "rounds": len(measured),
    }))  # fmt: skip


def measure(store: Store, stage: Stage) -> tuple[float, float, float]:
    """(wall seconds of the round, seconds inside the worker, of them seconds of training), its parents being there."""
    for parent in stage.parents.values():
        make(store, parent)
    started = time.perf_counter()
    folder = store.make(stage)
    wall = time.perf_counter() - started
    inside = sum(json.loads(path.read_text())["seconds"] for path in folder.glob("*/done.json"))
    training = sum(json.loads(path.read_text())["seconds"] for path in folder.glob("*/train.json"))
    return wall, inside, training


def make(store: Store, stage: Stage) -> None:
    for parent in stage.parents.values():
        make(store, parent)
    store.make(stage)


if __name__ == "__main__":
    main()
