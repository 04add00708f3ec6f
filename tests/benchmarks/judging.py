"""How many programs are judged per second, against one plain `subprocess.run([python, file])` for each.

Both judge the reference programs of HumanEval by its own tests, one per core at a time. Prints one JSON line; times are
medians over the repeats, in seconds for all programs. Run: python -m tests.benchmarks.judging [folder with humaneval/].
"""

import concurrent.futures
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from w2s.data.programs import humaneval
from w2s.grading.judge import judge
from w2s.sandbox.tiers import tier

WORKERS, REPEATS = len(os.sched_getaffinity(0)), 5


def plain(path: Path) -> bool:
    return subprocess.run([sys.executable, str(path)], capture_output=True, timeout=60).returncode == 0


def main() -> None:
    here = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    rows = [(e, g, g.answer) for e, g in zip(*humaneval(Path(sys.argv[1]) if sys.argv[1:] else here), strict=True)]
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for example, gold, answer in rows:
            entry, test = example.meta["entry_point"], gold.tests[0]["test"]
            paths.append(Path(folder) / f"{example.id}.py")
            paths[-1].write_text(f"{answer}\n{test}\ncheck({entry})\n")
        judge(rows[:4])  # starts the warm processes, which a run does once
        for _ in range(REPEATS):
            started = time.perf_counter()
            assert all(correct for correct, _, _ in judge(rows))
            seconds["ours"].append(time.perf_counter() - started)
            started = time.perf_counter()
            with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
                assert all(pool.map(plain, paths))
            seconds["peer"].append(time.perf_counter() - started)
    ours, peer = (statistics.median(seconds[name]) for name in ("ours", "peer"))
    figures = {"name": "judging", "ratio": peer / ours, "peer": "subprocess.run([python, file]), no sandbox"}
    figures |= {"seconds": ours, "peer_seconds": peer, "programs": len(rows), "programs_per_second": len(rows) / ours}
    figures |= {"peer_programs_per_second": len(rows) / peer, "workers": WORKERS, "tier": tier()}
    figures["spread"] = {name: [min(times), max(times)] for name, times in seconds.items()}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
