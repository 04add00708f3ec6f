"""Two processes of DeepSpeed's launcher, started once for the whole file: equality, kills, resuming."""

import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from w2s.config.fields import Runtime
from w2s.models import train
from w2s.stages.jobs import JobFailed, Workers
from w2s.store.records import Predictions, read_arrays
from w2s.workers import finetune, predict
from w2s.workers.job import Predict
from w2s.workers.job_files import read_job, write_job

ROOT = Path(__file__).resolve().parents[2]
STEPS = {"steps": 8, "batch": 10, "holdout_share": 0.2, "eval_every": 4}


@pytest.fixture(scope="module")
def two():
    with Workers(Runtime(slots=1, processes=2, threads=1)) as workers:
        yield workers


def history(folder: Path) -> dict:
    return json.loads((folder / "train.json").read_text())


def alone(folder: Path) -> dict:
    finetune.run(folder, read_job(folder), train.World())
    return history(folder)


def ranks_of(workers: Workers) -> list[psutil.Process]:
    """The processes that hold a rank: the launcher's grandchildren."""
    launcher = psutil.Process(workers._workers[0]._process.pid)
    return [rank for inner in launcher.children() for rank in inner.children()]


def check_equality(
    finetune_job, two: Workers, asked: list[str], precision: str = "float32", tolerance: float = 1e-3
) -> None:
    steps = STEPS | {"precision": precision}
    plain = alone(finetune_job("plain", steps))
    for at, deepspeed in enumerate(asked):
        folder = finetune_job(f"job-{at}", steps, runtime={"deepspeed": deepspeed, "micro_batch": 2})
        two.run(folder)
        found = history(folder)
        assert found["losses"] == pytest.approx(plain["losses"], abs=tolerance), deepspeed
        looks = [loss for _, loss in plain["looks"]]
        assert [loss for _, loss in found["looks"]] == pytest.approx(looks, abs=tolerance)


def test_one_and_two_processes_and_every_zero_stage_give_the_same_losses(finetune_job, two):
    check_equality(finetune_job, two, ["zero0", *(f"{ROOT}/launch/zero{stage}.json" for stage in (1, 2, 3))])


def test_two_processes_in_bfloat16_give_the_losses_of_one(finetune_job, two):
    check_equality(finetune_job, two, ["zero0", "zero2", "zero3"], "bfloat16", 2e-2)


@pytest.mark.slow
def test_offload_and_the_stages_by_name_give_the_same_losses(finetune_job, two):
    check_equality(finetune_job, two, [f"{ROOT}/launch/zero3_offload.json", "auto", "zero1", "zero2", "zero3"])


def test_two_processes_predict_what_one_does(finetune_job, tiny, two, tmp_path):
    fitted = finetune_job("fitted", STEPS)
    alone(fitted)
    job = Predict({"e": str(tiny / "examples.jsonl")}, by="x", model=str(fitted / "model"))
    for name in ("one", "both"):
        (tmp_path / name).mkdir()
        write_job(tmp_path / name, job)
    predict.run(tmp_path / "one", job, train.World())
    two.run(tmp_path / "both")
    one, both = (read_arrays(tmp_path / name / "e.npz", Predictions) for name in ("one", "both"))
    assert one.ids.tolist() == both.ids.tolist()
    assert np.abs(one.probs_NK - both.probs_NK).max() < 1e-5


def test_a_killed_rank_fails_the_job_within_a_minute_and_the_job_goes_on_where_it_was(finetune_job, two):
    runtime = {"deepspeed": "zero2", "checkpoint_every": 5}
    whole = finetune_job("whole", STEPS | {"steps": 60}, runtime=runtime)
    cut = finetune_job("cut", STEPS | {"steps": 60}, runtime=runtime)
    two.run(whole)
    ranks, failed = ranks_of(two), []
    assert len(ranks) == 2

    def work():
        with pytest.raises(JobFailed) as caught:
            two.run(cut)
        failed.append(str(caught.value))

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(lambda: (cut / "checkpoint" / "state.json").exists())
    ranks[1].kill()
    start = time.monotonic()
    thread.join(60)
    assert time.monotonic() - start < 60
    assert "deepspeed --num_gpus 2" in failed[0]
    assert not any(alive(rank) for rank in ranks)
    assert not (cut / "done.json").exists()
    assert json.loads((cut / "checkpoint" / "state.json").read_text())["step"] >= 5
    two.run(cut)
    assert {**history(cut), "seconds": 0} == {**history(whole), "seconds": 0}
    names = sorted(p.name for p in (whole / "model").iterdir())
    assert names == sorted(p.name for p in (cut / "model").iterdir())
    assert all((whole / "model" / n).read_bytes() == (cut / "model" / n).read_bytes() for n in names)


@pytest.mark.slow
def test_when_the_pipeline_is_killed_in_the_middle_of_a_job_no_rank_outlives_it(finetune_job):
    folder = finetune_job("job", STEPS | {"steps": 20_000, "eval_every": 10_000}, runtime={"checkpoint_every": 50})
    program = f"""if True:
        from w2s.config.fields import Runtime
        from w2s.stages.jobs import Path, Workers
        with Workers(Runtime(slots=1, processes=2, threads=1)) as workers:
            workers.run(Path({str(folder)!r}))
    """
    pipeline = psutil.Popen([sys.executable, "-c", program])
    wait_for(lambda: (folder / "checkpoint" / "state.json").exists())
    below = pipeline.children(recursive=True)
    pipeline.kill()
    pipeline.wait()
    assert len(below) == 4  # two launchers, two ranks
    assert not any(alive(process) for process in below)


def wait_for(condition) -> None:
    for _ in range(24_000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to pass within four minutes")


def alive(process: psutil.Process) -> bool:
    for _ in range(50):
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        time.sleep(0.1)
    return True
