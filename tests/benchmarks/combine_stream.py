"""How much memory millions of questions x 16 models take, from parquet files to decisions.

Writes a drawn pool of ten choices by chunks in the documented format (into a temporary folder), then a process of its
own reads it, fits each method on all of it and applies it to all of it; its peak resident memory is the figure. The
speed is compared on a million answers: our plurality, fit and apply, against crowd-kit's MajorityVote, each from arrays
or a data frame in memory. Run: python -m tests.benchmarks.combine_stream [--questions 10000000]. Prints one JSON line.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.combine_all import drawn

MEMBERS, CHOICES, CHUNK = 16, 10, 50_000
METHODS = ["plurality", "samme", "dawid_skene", "one_coin", "greedy_information"]


def write_pool(folder: Path, questions: int) -> float:
    """questions.parquet and outputs.parquet, chunk by chunk; returns their size in GB."""
    import pyarrow as pa
    from pyarrow import parquet

    letters = pa.array([list("ABCDEFGHIJ")], pa.list_(pa.string()))
    asked = given = None
    for first in range(0, questions, CHUNK):
        rows = min(CHUNK, questions - first)
        opinions, truth = drawn(MEMBERS, rows, CHOICES, full=False, seed=first)
        ids = pa.array([f"q{at:08d}" for at in range(first, first + rows)])
        choices = letters.take(pa.array(np.zeros(rows, np.int32)))
        asks = pa.table({"id": ids, "choices": choices, "gold": pa.array(truth.gold_N).cast(pa.string())})
        answer = opinions.answer_MN.T.ravel()
        cells = {
            "id": ids.take(pa.array(np.repeat(np.arange(rows), MEMBERS))),
            "model": pa.array(opinions.members.tolist()).take(pa.array(np.tile(np.arange(MEMBERS), rows))),
            "answer": pa.array(answer, mask=answer < 0).cast(pa.string()),
        }
        outputs = pa.table(cells)
        asked = asked or parquet.ParquetWriter(folder / "questions.parquet", asks.schema, compression="zstd")
        given = given or parquet.ParquetWriter(folder / "outputs.parquet", outputs.schema, compression="zstd")
        asked.write_table(asks)
        given.write_table(outputs)
    asked.close()
    given.close()
    return sum(path.stat().st_size for path in folder.iterdir()) / 1e9


def child(folder: Path) -> dict:
    """Read, fit, apply by chunks, in this process; its peak memory in GiB after each step."""
    from w2s.pools.methods import apply, fit
    from w2s.pools.read import read_pool
    from w2s.pools.records import rightness

    started, found = time.perf_counter(), {}
    opinions, truth = read_pool(folder)
    found["read"] = {"seconds": time.perf_counter() - started, "peak_gib": peak_gib()}
    for name in METHODS:
        started, right = time.perf_counter(), 0.0
        fitted = fit(name, opinions, truth)
        middle = time.perf_counter()
        for first in range(0, len(opinions.ids), 10 * CHUNK):
            rows = slice(first, first + 10 * CHUNK)
            right += rightness(apply(fitted, opinions.questions(rows)), truth.questions(rows)).sum()
        found[name] = {"fit_seconds": middle - started, "apply_seconds": time.perf_counter() - middle}
        found[name] |= {"peak_gib": peak_gib(), "accuracy": right / len(opinions.ids)}
    return found


def peak_gib() -> float:
    """The most memory that this process ever held (Linux counts it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def race() -> tuple[float, float]:
    """Seconds of our plurality and of crowd-kit's on a million answers."""
    import pandas
    from crowdkit.aggregation import MajorityVote

    from w2s.pools.methods import apply, fit

    opinions, truth = drawn(MEMBERS, 62_500, CHOICES, full=False)
    member, row = np.nonzero(opinions.answer_MN >= 0)
    data = pandas.DataFrame({"task": row, "worker": member, "label": opinions.answer_MN[member, row]})
    started = time.perf_counter()
    apply(fit("plurality", opinions, truth), opinions)
    middle = time.perf_counter()
    MajorityVote().fit_predict(data)
    return middle - started, time.perf_counter() - middle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--questions", type=int, default=1_000_000)
    parser.add_argument("--child", type=Path, help="a folder that this benchmark wrote: measure in this process")
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(child(asked.child)))
        return
    with tempfile.TemporaryDirectory() as folder:
        size_gb = write_pool(Path(folder), asked.questions)
        command = [sys.executable, "-m", "tests.benchmarks.combine_stream", "--child", folder]
        steps = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
    ours, peer = race()
    figures = {"name": "combine_stream", "ratio": peer / ours, "peer": "crowd-kit MajorityVote, 1,000,000 answers"}
    figures |= {"questions": asked.questions, "members": MEMBERS, "parquet_gb": size_gb}
    figures |= {"peak_gib": max(step["peak_gib"] for step in steps.values()), "steps": steps}
    print(json.dumps(figures | {"plurality_seconds": ours, "peer_seconds": peer}))


if __name__ == "__main__":
    main()
