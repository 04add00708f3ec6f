"""What `w2s combine --methods plurality` takes on a million questions x 10 models, against pandas counting the votes.

Writes a drawn pool of four choices in the documented format (parquet, into a temporary folder). Three processes, one
after the other and each measured whole (CPU, and the most memory it ever held): pandas reads both tables, counts the
votes of each question and compares the most frequent answer with gold; ours does the same by its own reader and
plurality; and the command itself, which judges it and the best single model, with intervals, over five cuts into
halves, and writes the page and the predictions. Run: python -m tests.benchmarks.combine_votes [--questions 1000000].
Prints one JSON line; the ratios are ours to pandas'.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks import combine_stream

MEMBERS, CHOICES = 10, 4

PANDAS = """
import sys
import pandas
folder = sys.argv[1]
outputs = pandas.read_parquet(f"{folder}/outputs.parquet", columns=["id", "answer"]).dropna()
questions = pandas.read_parquet(f"{folder}/questions.parquet", columns=["id", "gold"])
votes = outputs.groupby(["id", "answer"], sort=False).size().reset_index(name="votes")
first = votes.sort_values("votes", ascending=False, kind="stable").drop_duplicates("id")
both = questions.merge(first, on="id", how="left")
print((both.answer == both.gold).mean())
"""

OURS = """
import sys
from pathlib import Path
from w2s.data.outputs import read_pool
from w2s.ensemble.pool import apply, fit
from w2s.opinions import rightness
opinions, truth = read_pool(Path(sys.argv[1]))
print(rightness(apply(fit("plurality", opinions, truth), opinions), truth).mean())
"""


MEASURE = """
import json, resource, subprocess, sys
said = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, check=True, text=True).stdout
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(said.splitlines()[-1])
print(json.dumps({"cpu_seconds": used.ru_utime + used.ru_stime, "peak_gib": used.ru_maxrss / 2**20}))
"""


def measured(*words: str) -> dict:
    """CPU seconds and peak GiB of one process, and the last line it prints."""
    command = [sys.executable, "-c", MEASURE, *words]
    *_, last, figures = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()
    return {**json.loads(figures), "said": last}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--questions", type=int, default=1_000_000)
    asked = parser.parse_args()
    combine_stream.MEMBERS, combine_stream.CHOICES = MEMBERS, CHOICES
    with tempfile.TemporaryDirectory() as folder:
        combine_stream.write_pool(Path(folder), asked.questions)
        command = [
            sys.executable,
            "-m",
            "w2s.cli",
            "combine",
            folder,
            "--methods",
            "plurality",
            "--out",
            f"{folder}/out",
        ]
        found = {
            "pandas": measured(sys.executable, "-c", PANDAS, folder),
            "counting": measured(sys.executable, "-c", OURS, folder),
            "command": measured(sys.executable, *command),
        }
    peer = found["pandas"]
    figures = {"name": "combine_votes", "peer": "pandas", "questions": asked.questions, "members": MEMBERS}
    for name in ("counting", "command"):
        for what in ("cpu_seconds", "peak_gib"):
            figures[f"{name}_{what}_ratio"] = found[name][what] / peer[what]
    print(json.dumps({**figures, **found}))


if __name__ == "__main__":
    main()
