"""Training steps on a real model: ours against TRL's SFTTrainer, full fine-tuning and LoRA.

    python -m tests.benchmarks.student_step_real [--steps N] [--repeats N] [--threads N] [--source NAME --root DIR]

16 rows (a question and one answer; the loss is of the answer and the end mark) per optimizer step on both sides. Full:
float32 weights, under autocast where `real.PRECISION` is bfloat16. LoRA: rank 8 beside every linear layer; the peer's
base is in that precision and its adapters in float32. The peer's best setting is looked for: padded
batches of similar length (16, or 4 accumulated 4 times), or packed (`bfd`) into about as many tokens. `our_dtype` says
what our layers compute in. One JSON line with a ratio of each mode (seconds for the same answers); exit 1 where the two
losses of the untrained model differ by more than TOLERANCE of their value.
"""

import copy
import math
import sys
import tempfile
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import peft
import torch

from tests.benchmarks import real
from tests.benchmarks.student_step import BATCH, SETTINGS, answer_tokens, encode_ours, losses, ours, theirs
from w2s.models.load import Loaded
from w2s.store.records import Example

TOLERANCE = 0.02
OURS = replace(SETTINGS, precision=real.PRECISION)
IS_BF16 = real.PRECISION == "bfloat16"
RANK = 8
GROUPED = {"bf16": IS_BF16, "train_sampling_strategy": "group_by_length"}
PACKED = {"bf16": IS_BF16, "max_steps": -1, "num_train_epochs": 1, "packing": True}
PEER_SETTINGS = {
    "padded, 16": GROUPED,
    "padded, 4 x 4": GROUPED | {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4},
    "packed, 1 x 512": PACKED | {"per_device_train_batch_size": 1, "max_length": 512},
    "packed, 2 x 256": PACKED | {"per_device_train_batch_size": 2, "max_length": 256},
}


def lora() -> peft.LoraConfig:
    """The adapters that model.trainable=lora means."""
    return peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")


def compare(mode: str, model: real.Real, rows: list[Example], steps: int, repeats: int, folder: Path) -> dict:
    start = model.load("float32", trainable="lora" if mode == "lora" else "all", lora_rank=RANK)
    peer = model.load(real.PRECISION if mode == "lora" else "float32")
    seen: set[str] = set()

    def note(_layer: torch.nn.Module, _inputs: tuple, out: torch.Tensor) -> None:
        seen.add(str(out.dtype).removeprefix("torch."))

    def own() -> float:
        loaded = copy.deepcopy(start)
        first = next(layer for layer in loaded.module.base_model.modules() if isinstance(layer, torch.nn.Linear))
        first.register_forward_hook(note)
        return ours(loaded, rows, steps, folder / "ours", OURS)

    def other(options: dict) -> float:
        peft_config = lora() if mode == "lora" else None
        return theirs(copy.deepcopy(peer), rows, steps, folder / "peer", peft_config=peft_config, **options)

    peers = {name: partial(other, options) for name, options in PEER_SETTINGS.items()}
    found = real.compare(own, peers, repeats, clock=lambda work: (work(), None))
    encoded = encode_ours(start, rows)
    assert max(one.tokens for one in encoded) < 256, "packing would cut rows"
    answers = int(answer_tokens(encoded).sum())
    return found.told() | {
        "our_dtype": "+".join(sorted(seen)),
        "answer_tokens_per_second": round(answers / min(found.seconds), 1),
        "peer_answer_tokens_per_second": round(answers / min(found.peer_seconds), 1),
        "gflop_per_second": round(operations(start, rows, mode) / min(found.seconds) / 1e9, 1),
    }


def operations(loaded: Loaded, rows: list[Example], mode: str) -> int:
    """FLOP of training: 2 per weight and token forward, 2 backward to the inputs, and unless LoRA 2 to the weights."""
    body, head = real.count_weights(loaded.module)
    encoded = encode_ours(loaded, rows)
    tokens = sum(one.tokens for one in encoded)
    return (4 if mode == "lora" else 6) * (body * tokens + head * int(answer_tokens(encoded).sum()))


def main() -> int:
    asked = real.arguments(steps=4, repeats=2)
    rows = real.questions(asked, BATCH * asked.steps)
    with real.smollm(rows, asked.width) as model, tempfile.TemporaryDirectory() as name:
        with torch.autocast("cpu", torch.bfloat16, enabled=IS_BF16):
            own_loss, peer_loss = losses(model.load("float32"), rows, Path(name), bf16=IS_BF16)
        found = {
            mode: compare(mode, model, rows, asked.steps, asked.repeats, Path(name) / mode) for mode in ("full", "lora")
        }
    fastest = real.peak()
    for mode in found.values():
        mode["share_of_peak"] = round(1e9 * mode.pop("gflop_per_second") / fastest, 3)
    real.report(
        "student_step_real", model, asked, ratio=min(mode["ratio"] for mode in found.values()), goal=2,
        peer=f"trl {version('trl')} SFTTrainer", **found, rows=len(rows), steps=asked.steps, batch=BATCH,
        peak_gflops=round(fastest / 1e9), losses=[round(own_loss, 4), round(peer_loss, 4)],
    )  # fmt: skip
    return int(not math.isclose(own_loss, peer_loss, rel_tol=TOLERANCE))


if __name__ == "__main__":
    sys.exit(main())
