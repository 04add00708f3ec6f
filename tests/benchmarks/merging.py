"""Merging models in the shapes of SmolLM2-135M: files to a file, against peft's in-memory merge and mergekit.

    python -m tests.benchmarks.merging [--learners N] [--repeats N] [--threads N]

Both sides start from folders of safetensors and end with one on disk. peft's `merge_utils` works on tensors in memory,
so its side reads every model, merges tensor by tensor and writes with safetensors; mergekit (where it can be imported)
runs with `low_cpu_memory` and `lazy_unpickle`, its settings for little memory. W2S_REAL_MODELS is not needed: the time
depends on shapes alone. One JSON line: the ratio (peer / ours) of each method, and how much anonymous memory each side
grew by per learner (measured with 2 and with N learners, each in a process of its own); exit 1 where the results differ
by more than TOLERANCE of their norm.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.benchmarks.real import SHAPES

TOLERANCE = 1e-5
METHODS = {"mean": {"name": "mean"}, "ties": {"name": "ties", "density": 0.2}, "dare": {"name": "dare", "density": 0.8}}


def make_models(folder: Path, count: int) -> None:
    """A base with random weights and learners a small step away."""
    import transformers

    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPES, tie_word_embeddings=True))
    model.save_pretrained(folder / "base")
    start = load_file(folder / "base" / "model.safetensors")
    for at in range(count):
        (folder / f"learner-{at}").mkdir()
        moved = {name: value + 1e-3 * torch.randn_like(value) for name, value in start.items()}
        save_file(moved, folder / f"learner-{at}" / "model.safetensors", {"format": "pt"})
        model.config.save_pretrained(folder / f"learner-{at}")


def ours(folder: Path, method: str, count: int) -> Path:
    from w2s.models.world import World
    from w2s.workers import merge
    from w2s.workers.job import Merge

    (folder / "ours").mkdir(exist_ok=True)
    learners = [str(folder / f"learner-{at}") for at in range(count)]
    merge.run(folder / "ours", Merge(learners, [1.0] * count, METHODS[method], str(folder / "base")), World())
    return folder / "ours" / "model" / "model.safetensors"


def theirs(folder: Path, method: str, count: int) -> Path:
    from peft.utils import merge_utils

    base = load_file(folder / "base" / "model.safetensors")
    learners = [load_file(folder / f"learner-{at}" / "model.safetensors") for at in range(count)]
    share, made = torch.full((count,), 1 / count), {}
    torch.manual_seed(0)
    for name, start in base.items():
        deltas = [learner.pop(name) - start for learner in learners]
        if method == "mean" or start.dim() < 2:
            step = merge_utils.task_arithmetic(deltas, share)
        elif method == "ties":
            step = merge_utils.ties(deltas, torch.ones(count), 0.2)
        else:
            step = merge_utils.dare_linear(deltas, share, 0.8)
        made[name] = start + step
    save_file(made, folder / "peft.safetensors", {"format": "pt"})
    return folder / "peft.safetensors"


def mergekit(folder: Path, method: str, count: int) -> Path:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge

    name = {"mean": "task_arithmetic", "ties": "ties", "dare": "dare_linear"}[method]
    density = {"mean": 1.0, "ties": 0.2, "dare": 0.8}[method]
    options = {"density": density} if method != "mean" else {}
    models = [
        {"model": str(folder / f"learner-{at}"), "parameters": {"weight": 1 / count, **options}} for at in range(count)
    ]
    config = {"merge_method": name, "base_model": str(folder / "base"), "models": models, "dtype": "float32"}
    settings = MergeOptions(copy_tokenizer=False, lazy_unpickle=True, low_cpu_memory=True, quiet=True)
    run_merge(MergeConfiguration.model_validate(config), str(folder / "mergekit"), settings)
    return folder / "mergekit" / "model.safetensors"


SIDES = {"ours": ours, "peft": theirs, "mergekit": mergekit}


def watch(side: str, method: str, folder: Path, count: int, threads: int) -> dict:
    """Seconds of a side after its imports, and the growth of its anonymous memory, in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.merging", "--side", side, "--method", method]
    command += ["--folder", str(folder), "--learners", str(count), "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def anonymous() -> int:
    """Bytes of this process that are in no file."""
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("RssAnon")).split()[1])


def run_side(asked: argparse.Namespace) -> None:
    import threading

    import w2s.workers.merge  # noqa: F401  # imports are not timed

    if asked.side == "mergekit":
        import mergekit.merge  # noqa: F401
    if asked.side == "peft":
        import peft.utils.merge_utils  # noqa: F401
    torch.set_num_threads(asked.threads)
    start, peak, done = anonymous(), [0], threading.Event()

    def look() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], anonymous() - start)

    watcher = threading.Thread(target=look)
    watcher.start()
    began = time.perf_counter()
    SIDES[asked.side](asked.folder, asked.method, asked.learners)
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    print(json.dumps({"seconds": seconds, "grown": peak[0]}))


def differ(folder: Path) -> float:
    """The difference of our file and peft's, as a share of the merged step's norm."""
    files = (folder / "base" / "model.safetensors", folder / "ours" / "model" / "model.safetensors")
    base, a, b = (load_file(path) for path in (*files, folder / "peft.safetensors"))
    apart = sum(float((a[name] - b[name]).double().square().sum()) for name in base)
    step = sum(float((b[name] - base[name]).double().square().sum()) for name in base)
    return (apart / step) ** 0.5


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--learners", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        run_side(asked)
        return 0
    peers = ["peft"] + ["mergekit"] * (importlib.util.find_spec("mergekit") is not None)
    found, apart = {}, {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_models(folder, asked.learners)
        for method in METHODS:
            runs = {side: [] for side in ("ours", *peers)}
            for _ in range(asked.repeats):
                for side in runs:
                    runs[side].append(watch(side, method, folder, asked.learners, asked.threads))
            if method != "dare":  # random on both sides
                apart[method] = differ(folder)
            seconds = {side: statistics.median(one["seconds"] for one in some) for side, some in runs.items()}
            grown = {side: max(one["grown"] for one in some) for side, some in runs.items()}
            fewer = {side: watch(side, method, folder, 2, asked.threads)["grown"] for side in runs}
            each = {side: (grown[side] - fewer[side]) / max(1, asked.learners - 2) / 2**20 for side in runs}
            found[method] = {
                "ratio": {side: round(seconds[side] / seconds["ours"], 2) for side in peers},
                "seconds": {side: round(value, 2) for side, value in seconds.items()},
                "mib_grown": {side: round(value / 2**20) for side, value in grown.items()},
                "mib_per_learner": {side: round(value, 1) for side, value in each.items()},
            }
    line = {"name": "merging", "ratio": min(min(one["ratio"].values()) for one in found.values()), "goal": 1, **found}
    line |= {"peers": {side: version(side) for side in peers}, "differ": apart, "learners": asked.learners}
    print(json.dumps(line | {"repeats": asked.repeats, "threads": asked.threads}))
    return int(max(apart.values()) > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
