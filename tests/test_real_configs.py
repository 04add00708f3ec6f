"""The configs of configs/real on the models they name: from a few rows to the report, killed on the way and resumed.

    W2S_REAL_MODELS=DIR pytest -m slow tests/test_real_configs.py

DIR is what `python -m tests.real_models DIR` wrote. $W2S_KILL_SEED draws other moments for the kills.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.real_models import ENCODER
from tests.test_kill import gone
from w2s.store.artifacts import check_artifact

CONFIGS = Path(__file__).resolve().parents[1] / "configs/real"
SEED = int(os.environ.get("W2S_KILL_SEED", "0"))
FEW = {
    "mbpp_code": ["--limit", "6"],
    "preferences": ["rewards.pairs.source.limit=24", *(f"rewards.study.suites.{at}.limit=6" for at in range(3))],
}
"""What makes a run of a config short; --limit 12 for those that are not named."""


def start(name: str, folder: Path, models: Path, shared: Path) -> subprocess.Popen:
    """The run as a person starts it, in a process group of its own; the mark in its environment finds its workers."""
    command = ["rewards", "run"] if name == "preferences" else ["run"]
    words = [sys.executable, "-m", "w2s.cli", *command, str(CONFIGS / f"{name}.yaml"), "seeds=[0]"]
    words += [*FEW.get(name, ["--limit", "12"]), f"models.root={models}", f"data.root={shared / 'data'}"]
    env = os.environ | {"W2S_TEST_RUN": str(folder), "OMP_WAIT_POLICY": "passive"}
    log = (folder / "said.txt").open("a")
    return subprocess.Popen(words, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)


def finish(run: subprocess.Popen, folder: Path) -> None:
    assert run.wait(timeout=1500) == 0, (folder / "said.txt").read_text()[-4000:]
    assert not gone(folder)


def made(folder: Path) -> list[Path]:
    """The finished artifacts."""
    return [path.parent for path in (folder / "runs/store").glob("*/manifest.json")]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_a_few_rows_from_start_to_report_killed_and_resumed(name, tmp_path, real_models, shared):
    if name == "preferences" and not (real_models / ENCODER).is_dir():
        pytest.skip(f"no {ENCODER} in {real_models}: `python -m tests.real_models {real_models}` unpacks it")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    finish(start(name, whole, real_models, shared), whole)
    (report,) = (whole / "runs").glob("*/report.html")
    assert report.stat().st_size > 10_000

    rng = random.Random(f"{name} {SEED}")
    least = rng.randrange(len(made(whole)))
    run = start(name, killed, real_models, shared)
    while run.poll() is None and len(made(killed)) < least:
        time.sleep(0.05)
    time.sleep(rng.uniform(0, 5))
    if run.poll() is None:
        os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert not gone(killed), "processes outlived the killed run"
    finish(start(name, killed, real_models, shared), killed)

    one, other = ((folder / "runs" / report.parent.name / "metrics.json").read_bytes() for folder in (whole, killed))
    assert one == other
    assert {path.name for path in made(whole)} == {path.name for path in made(killed)}
    for artifact in made(killed):
        check_artifact(artifact)
