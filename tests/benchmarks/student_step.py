"""Training steps: ours (length-grouped batches, the vocabulary head only where labels are) against TRL's SFTTrainer.

    python -m tests.benchmarks.student_step [steps] [repeats]

The same random-weight Llama (vocabulary 32,000), the same prompts and answers of mixed length, the same loss (the
answer's tokens and the end mark), batch and optimizer, tokenised beforehand, in turn. One JSON line; exit 1 where the
two losses of the untrained model differ by more than 1e-3 (then they would not train the same thing).
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import statistics
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import numpy as np
import torch
import transformers

from tests.benchmarks.scoring import make_model
from w2s.config.fields import Model, Runtime, Train
from w2s.models import batches, lm, load, records, score, train
from w2s.prompts import continuation
from w2s.store.records import Example

BATCH = 16
SETTINGS = Train(batch=BATCH, lr=1e-5, schedule="linear", beta2=0.999, weight_decay=0.0)


def make_rows(count: int, seed: int = 0) -> list[Example]:
    """Prompts of 8 to 150 made-up words (most of them short), each with its one answer of 1 to 8."""
    rng = np.random.default_rng(seed)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    words = ["".join(rng.choice(syllables, rng.integers(1, 4))) for _ in range(3000)]
    lengths = np.clip(rng.lognormal(3.3, 0.7, count).astype(int), 8, 150)
    # An Example has at least two choices; only the first is trained on.
    return [
        Example(str(at), "made up", "choice", " ".join(rng.choice(words, size)) + "?", (answer, "-"))
        for at, size in enumerate(lengths)
        for answer in [" ".join(rng.choice(words, rng.integers(1, 9)))]
    ]


def encode_ours(loaded: load.Loaded, rows: list[Example]) -> list[records.Encoded]:
    """As SFTTrainer does, with the end mark behind the answer."""
    answers = [dataclasses.replace(row, task="answer", choices=row.choices[:1]) for row in rows]
    return lm.encode(loaded, batches.worded(loaded, rows), answers)


def answer_tokens(encoded: list[records.Encoded]) -> np.ndarray:
    return np.array([len(one.rows[0].token_P) for one in encoded])


def ours(loaded: load.Loaded, rows: list[Example], steps: int, folder: Path, settings: Train = SETTINGS) -> float:
    """Seconds of `steps` steps of our loop."""
    encoded = encode_ours(loaded, rows)
    tokens_N = answer_tokens(encoded)

    def objective(call, index_B, share):
        scores_B1 = call(batches.collate(loaded, [encoded[at] for at in index_B]))
        # SFTTrainer's loss: the mean over the step's answer tokens.
        return -scores_B1[:, 0] * (len(index_B) / tokens_N[index_B].sum())

    plan = batches.plan_batches([one.tokens for one in encoded], BATCH, steps, 0)
    start = time.perf_counter()
    train.fit(score.Scorer(loaded), plan, objective, settings, Runtime(checkpoint_every=10**9), folder=folder)
    return time.perf_counter() - start


def make_peer(loaded: load.Loaded, rows: list[Example], steps: int, folder: Path, peft_config=None, **options: Any):
    """TRL's trainer as it comes, but for the CPU and what a CPU cannot do, and for `options` of its SFTConfig."""
    import datasets
    import trl

    datasets.disable_progress_bars()
    pairs = [
        {"prompt": words.prompt, "completion": continuation(row.choices[0])}
        for row, words in zip(rows, batches.worded(loaded, rows), strict=True)
    ]
    options = {"max_steps": steps, "per_device_train_batch_size": BATCH, "bf16": False, "max_length": 1024} | options
    settings = trl.SFTConfig(
        output_dir=str(folder), learning_rate=SETTINGS.lr, adam_beta2=SETTINGS.beta2, use_cpu=True,
        gradient_checkpointing=False, completion_only_loss=True, save_strategy="no", report_to="none",
        disable_tqdm=True, logging_strategy="no", **options,
    )  # fmt: skip
    return trl.SFTTrainer(
        model=loaded.module, args=settings, train_dataset=datasets.Dataset.from_list(pairs),
        processing_class=loaded.tokenizer, peft_config=peft_config,
    )  # fmt: skip


def theirs(loaded: load.Loaded, rows: list[Example], steps: int, folder: Path, **options: Any) -> float:
    trainer = make_peer(loaded, rows, steps, folder, **options)
    start = time.perf_counter()
    trainer.train()
    return time.perf_counter() - start


def losses(loaded: load.Loaded, rows: list[Example], folder: Path, **options: Any) -> tuple[float, float]:
    """The untrained model's loss on the first batch of rows by both sides."""
    encoded = encode_ours(loaded, rows[:BATCH])
    trainer = make_peer(loaded, rows[:BATCH], 1, folder, **options)
    with torch.no_grad():
        own = -score.scores(loaded, batches.collate(loaded, encoded)).sum() / answer_tokens(encoded).sum()
        batch = next(iter(trainer.get_train_dataloader()))
        peer = trainer.model(**{k: v for k, v in batch.items() if k in ("input_ids", "attention_mask", "labels")}).loss
    return float(own), float(peer)


def main(steps: int = 10, repeats: int = 3) -> int:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    rows = make_rows(BATCH * steps)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder / "model", [row.prompt for row in rows])
        start = load.load(Model(path=str(folder / "model")), max_tokens=1024)
        own_loss, peer_loss = losses(start, rows, folder)
        seconds, peer_seconds = [], []
        for repeat in range(repeats + 1):  # the first round warms up
            loaded, peer = (copy.deepcopy(start) for _ in range(2))
            took = ours(loaded, rows, steps, folder), theirs(peer, rows, steps, folder)
            if repeat:
                seconds.append(took[0])
                peer_seconds.append(took[1])
    ratios = [b / a for a, b in zip(seconds, peer_seconds, strict=True)]
    told = {
        "name": "student_step",
        "ratio": round(statistics.median(ratios), 3),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "peer": f"trl {version('trl')} SFTTrainer",
        "seconds": [round(s, 3) for s in seconds],
        "peer_seconds": [round(s, 3) for s in peer_seconds],
        "examples_per_second": round(BATCH * steps / statistics.median(seconds), 1),
        "peer_examples_per_second": round(BATCH * steps / statistics.median(peer_seconds), 1),
        "losses": [round(own_loss, 5), round(peer_loss, 5)],
    }
    print(json.dumps(told))
    return 0 if math.isclose(own_loss, peer_loss, abs_tol=1e-3) else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
