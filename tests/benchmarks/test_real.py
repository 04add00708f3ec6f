"""Every benchmark on a real model runs, on a narrow model with random weights: its figures mean nothing here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ALL = ["--repeats=1", "--threads=1", "--width=72"]
SMALL = {
    "committee_lora_real": ["--questions=8", "--tokens=3"],
    "decode_real": ["--questions=8", "--tokens=3"],
    "features_real": ["--questions=8"],
    "scoring_real": ["--questions=8"],
    "student_step_real": ["--steps=1"],
}
"""What makes a program short, beside ALL."""
NEEDS = {"scoring_real": "lm_eval"}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", sorted(path.stem for path in HERE.glob("*_real.py")))
def test_it_runs_to_its_line(name, tmp_path):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    env = {key: value for key, value in os.environ.items() if key != "W2S_REAL_MODELS"}
    words = [sys.executable, "-m", f"tests.benchmarks.{name}", *ALL, *SMALL.get(name, [])]
    done = subprocess.run(words, cwd=HERE.parents[1], env=env, capture_output=True, text=True, timeout=800)
    line = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}
    assert line.get("name") == name, done.stderr[-4000:]
    assert line["weights"].startswith("random, narrower")
