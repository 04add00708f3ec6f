"""kill -9 at random moments, then the same command again: always the numbers of the run that nobody disturbed.

The default test run has two kills and an interrupt. Thirty kills, over several runs of the tiny chain:

    pytest -m slow tests/test_kill.py

Anything of a run can be hit: the pipeline, the launcher of a worker, what the launcher started, or a rank. The seed of
the moments is in the tests' names; $W2S_KILL_SEED draws others.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import spine
from w2s.store.artifacts import check_artifact

PROGRAM = [sys.executable, str(Path(spine.__file__)), "run", "tiny.yaml"]
SEED = int(os.environ.get("W2S_KILL_SEED", "0"))
KIND = ("pipeline", "launcher", "inner launcher", "rank")


def start(folder: Path) -> subprocess.Popen:
    """The tiny run as a person starts it; the mark in its environment finds whatever it starts, however deep."""
    env = os.environ | {"W2S_TEST_RUN": str(folder)}
    return subprocess.Popen(
        PROGRAM, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job inherits "ignore"
    )  # fmt: skip


def processes(folder: Path) -> dict[int, str]:
    """pid -> which part of the run it is, of those that live."""
    mark, found = f"W2S_TEST_RUN={folder}\0".encode(), {}
    for place in Path("/proc").iterdir():
        if not place.name.isdigit():
            continue
        try:
            if mark not in (place / "environ").read_bytes() + b"\0":
                continue
            words = (place / "cmdline").read_bytes().decode().split("\0")
            if (place / "stat").read_text().rsplit(") ", 1)[1][0] == "Z" or words == [""]:
                continue
        except (OSError, IndexError):
            continue
        found[int(place.name)] = part(words)
    return found


def part(words: list[str]) -> str:
    if "deepspeed.launcher.launch" in words:
        return "inner launcher"
    if any(Path(word).name == "deepspeed" for word in words[:2]):
        return "launcher"
    if any("spine.py" in word for word in words):
        return "pipeline"
    return "rank" if any(word.startswith("w2s.workers") for word in words) else "other"


def gone(folder: Path, within_s: float = 60) -> dict[int, str]:
    """What is still there after a while: nothing, if all is well."""
    end = time.monotonic() + within_s
    while (left := processes(folder)) and time.monotonic() < end:
        time.sleep(0.1)
    return left


def hit(folder: Path, run: subprocess.Popen, kind: str, delay_s: float, how: int = signal.SIGKILL) -> bool:
    """Wait, then kill one process of that kind; False where there was none any more."""
    end = time.monotonic() + delay_s
    while time.monotonic() < end and run.poll() is None:
        time.sleep(0.02)
    # A child that the pipeline has just forked looks like it for a moment.
    victims = [
        pid for pid, what in processes(folder).items() if what == kind and (kind != "pipeline" or pid == run.pid)
    ]
    if run.poll() is not None or not victims:
        return False
    os.kill(random.Random(delay_s).choice(victims), how)
    return True


def wait_for_work(folder: Path, run: subprocess.Popen) -> None:
    """Until something is being made: before that there is nothing to be lost."""
    while run.poll() is None and not list((folder / "runs/store").glob("*.partial")):
        time.sleep(0.05)


def finish(run: subprocess.Popen) -> tuple[int, str]:
    said = run.communicate(timeout=240)[1]
    return run.returncode, said


def same_numbers(folder: Path, reference: Path) -> None:
    """metrics.json to the byte; the same artifacts, all whole, and nothing beside them."""
    one, other = (where / "runs/tiny/metrics.json" for where in (folder, reference))
    assert one.read_bytes() == other.read_bytes()
    store = folder / "runs/store"
    assert {path.name for path in store.iterdir()} == {path.name for path in (reference / "runs/store").iterdir()}
    for artifact in store.iterdir():
        check_artifact(artifact)


def disturb(folder: Path, rng: random.Random, kills: int, longest_s: float) -> list[str]:
    """Kill `kills` times, each in a run that goes on from the one before; then let it end. What was hit, in order."""
    hits: list[str] = []
    while len(hits) < kills:
        run, kind = start(folder), rng.choice(KIND)
        wait_for_work(folder, run)
        if hit(folder, run, kind, rng.uniform(0, longest_s)):
            hits.append(kind)
            code, said = finish(run)
            assert code != 0, f"{kind} was killed, and the run says all is well: {said}"
            assert "Traceback (most recent call last)" not in said.split("The last lines:")[0], said
            assert not gone(folder), f"processes outlived a killed {kind}"
        elif run.poll() is None:  # no such process at that moment
            run.send_signal(signal.SIGKILL)
            finish(run)
            assert not gone(folder)
        else:
            assert finish(run)[0] == 0
            break
    code, said = finish(start(folder))
    assert code == 0, said
    assert not gone(folder, 20)
    return hits


@pytest.fixture
def folder(tmp_path, tiny_run) -> Path:
    """The same config and data as the undisturbed run's."""
    spine.write_data(tmp_path / "data")
    (tmp_path / "tiny.yaml").write_text((tiny_run / "tiny.yaml").read_text())
    return tmp_path


def remove_last(folder: Path, tiny_run: Path, *kinds: str) -> None:
    """The finished run, but for the last artifacts: what the fast tests begin with."""
    import shutil

    shutil.copytree(tiny_run / "runs", folder / "runs")
    for kind in kinds:
        for artifact in (folder / "runs/store").glob(f"{kind}-*"):
            shutil.rmtree(artifact)
    for name in ("metrics.json", "report.html", "report.json"):
        (folder / "runs/tiny" / name).unlink()


def test_after_two_kills_the_same_command_ends_with_the_same_numbers(folder, tiny_run):
    remove_last(folder, tiny_run, "pseudo_labels", "boosting_round")
    for kind, delay_s in (("pipeline", 1.0), ("rank", 2.0)):
        run = start(folder)
        while run.poll() is None and kind not in processes(folder).values():
            time.sleep(0.05)
        wait_for_work(folder, run)
        assert hit(folder, run, kind, delay_s)
        code, said = finish(run)
        assert code == (-9 if kind == "pipeline" else 1)
        assert kind == "pipeline" or "To run it again: " in said
        assert not gone(folder), f"a process outlived the killed {kind}"
    code, said = finish(start(folder))
    assert code == 0, said
    same_numbers(folder, tiny_run)
    assert not gone(folder, 20)


def test_an_interrupt_ends_everything_at_once_and_says_how_to_go_on(folder, tiny_run):
    remove_last(folder, tiny_run, "boosting_round")
    run = start(folder)
    wait_for_work(folder, run)
    assert hit(folder, run, "pipeline", 2.0, signal.SIGINT)
    code, said = finish(run)
    assert code == 130, said
    assert "the same command resumes where it stopped" in said
    assert "Traceback" not in said
    assert not gone(folder, 20)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [SEED + n for n in range(5)])
def test_thirty_kills_at_random_moments_change_no_number(folder, tiny_run, seed):
    hits = disturb(folder, random.Random(seed), 6, longest_s=12.0)
    assert hits
    same_numbers(folder, tiny_run)
