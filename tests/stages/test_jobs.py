"""Warm workers, their ends and their failures, with a small program in the place of DeepSpeed's launcher."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from w2s.config.fields import Runtime
from w2s.stages import jobs
from w2s.store import log
from w2s.store.records import BadInput

# Like the real one: a launcher, and beneath it a rank that does what the job says and answers on the pipe.
RANK = """
import json, os, pathlib, sys, threading, time
for line in sys.stdin:
    folder = pathlib.Path(line.strip())
    job = json.loads((folder / "job.json").read_text())
    (folder / "pid").write_text(str(os.getpid()))
    print("[INFO] noise", flush=True)
    print("starting", job["do"], flush=True)
    if job["do"] == "sleep":
        time.sleep(60)
    if job["do"] == "crash":
        print("Traceback: out of luck", flush=True)
        os._exit(3)
    if job["do"] == "bad":
        told = {"failed": str(folder), "kind": "BadInput", "message": "train.lr: too much"}
        print("w2s: " + json.dumps(told), flush=True)
        os._exit(1)
    if job["do"] == "lie":
        print("w2s: " + json.dumps({"done": str(folder)}), flush=True)
        continue
    time.sleep(job.get("seconds", 0))
    print("w2s: " + json.dumps({"progress": 1, "of": 2, "note": "half"}), flush=True)
    (folder / "done.json").write_text(json.dumps({"by": os.getpid()}))
    print("w2s: " + json.dumps({"done": str(folder)}), flush=True)
os.killpg(0, 9)
"""


@pytest.fixture
def launched(tmp_path, monkeypatch):
    """Puts the stand-in where the launcher is looked for."""
    (tmp_path / "rank.py").write_text(RANK)
    script = tmp_path / "launcher"
    script.write_text(f"#!/bin/sh\n{sys.executable} {tmp_path}/rank.py\nexit 0\n")
    script.chmod(0o755)
    monkeypatch.setattr(jobs, "launcher", lambda: str(script))
    return str(script)


@pytest.fixture
def job(tmp_path):
    def write(name: str, **values) -> Path:
        (tmp_path / name).mkdir()
        (tmp_path / name / "job.json").write_text(json.dumps({"worker": "finetune", "do": "work", **values}))
        return tmp_path / name

    return write


def gone(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.1)
    return False


def test_one_warm_worker_takes_job_after_job(launched, job):
    with jobs.Workers(Runtime(slots=2)) as workers:
        pids = {workers.run(job(name))["by"] for name in "abc"}
    assert len(pids) == 1
    assert gone(pids.pop())


def test_slots_bound_how_many_jobs_run_at_a_time(launched, job):
    folders = [job(name, seconds=0.3) for name in "abcd"]
    with jobs.Workers(Runtime(slots=2)) as workers:
        found = []
        threads = [threading.Thread(target=lambda f=f: found.append(workers.run(f)["by"])) for f in folders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
        assert len(set(found)) == 2


def test_a_finished_job_starts_nothing(launched, job):
    folder = job("a")
    (folder / "done.json").write_text('{"rows": 3}')
    with jobs.Workers(Runtime(slots=1)) as workers:
        assert workers.run(folder) == {"rows": 3}
        assert not workers._workers


def test_a_crash_names_its_last_lines_and_the_command_and_the_worker_is_replaced(launched, job):
    with jobs.Workers(Runtime(slots=1)) as workers:
        first = workers.run(job("first"))["by"]
        with pytest.raises(jobs.JobFailed) as caught:
            workers.run(job("broken", do="crash"))
        text = str(caught.value)
        assert "Traceback: out of luck" in text
        assert "noise" not in text
        assert "starting work" not in text  # that was another job
        assert "deepspeed --num_gpus 1" in text
        assert "--module w2s.workers.serve" in text
        assert workers.run(job("next"))["by"] != first


def test_a_launcher_that_says_all_is_well_is_not_believed(launched, job):
    with jobs.Workers(Runtime(slots=1)) as workers, pytest.raises(jobs.JobFailed):
        workers.run(job("a", do="lie"))


def test_what_a_person_gave_wrong_comes_back_as_their_one_line(launched, job):
    with jobs.Workers(Runtime(slots=1)) as workers, pytest.raises(BadInput, match=r"^train\.lr: too much$"):
        workers.run(job("a", do="bad"))


def test_progress_is_told_under_the_title_of_the_job(launched, job, capsys, monkeypatch):
    monkeypatch.setattr(log, "PLAIN_EVERY_S", 0.0)
    with jobs.Workers(Runtime(slots=1), title=lambda folder: f"the job {folder.name}") as workers:
        workers.run(job("a"))
    assert capsys.readouterr().err == "the job a: 1 of 2 (50%), half\n"


@pytest.mark.parametrize("victim", ["launcher", "rank"])
def test_killing_one_process_fails_the_job_and_leaves_none(launched, job, victim):
    folder = job("a", do="sleep")
    errors = []

    def work(workers):
        try:
            workers.run(folder)
        except jobs.JobFailed as error:
            errors.append(error)

    with jobs.Workers(Runtime(slots=1)) as workers:
        thread = threading.Thread(target=work, args=(workers,))
        thread.start()
        rank = wait_for_pid(folder)
        launcher = workers._workers[0]._process.pid
        os.kill(launcher if victim == "launcher" else rank, signal.SIGKILL)
        thread.join(30)
        assert len(errors) == 1
        assert gone(rank)
        assert gone(launcher)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_when_the_pipeline_dies_no_worker_outlives_it(launched, job, how):
    folder = job("a", seconds=1.0)
    program = f"""
        from w2s.config.fields import Runtime
        from w2s.stages import jobs
        jobs.launcher = lambda: {launched!r}
        with jobs.Workers(Runtime(slots=1)) as workers:
            workers.run({str(folder)!r})
            workers.run({str(job("b", do="work", seconds=1.0))!r})
    """
    pipeline = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)])
    rank = wait_for_pid(folder)
    pipeline.send_signal(how)
    pipeline.wait()
    assert gone(rank)


def test_two_graphics_cards_are_dealt_out_to_two_slots(monkeypatch):
    monkeypatch.setattr(jobs, "count_accelerators", lambda: 4)
    workers = jobs.Workers(Runtime(slots=2))
    assert workers.processes == 2
    commands = [" ".join(workers._command(slot)) for slot in (0, 1)]
    assert "--include localhost:0,1 " in commands[0]
    assert "--include localhost:2,3 " in commands[1]


def test_several_machines_take_one_launch_per_job(launched, job, tmp_path, monkeypatch):
    folder = job("a")
    script = Path(launched)
    script.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/words\necho \'{{"rows": 1}}\' > {folder}/done.json\n')
    with jobs.Workers(Runtime(hostfile="hosts")) as workers:
        assert workers.run(folder) == {"rows": 1}
    words = (tmp_path / "words").read_text()
    assert words.startswith("--hostfile hosts ")
    assert words.endswith(f"--no_local_rank --module w2s.workers.serve {folder}\n")


def wait_for_pid(folder: Path) -> int:
    for _ in range(300):
        text = (folder / "pid").read_text() if (folder / "pid").exists() else ""
        if text:
            return int(text)
        time.sleep(0.1)
    raise AssertionError("the job never started")


def kill_when_it_works(pid: Path, number: int) -> None:
    while not (pid.exists() and pid.read_text()):
        time.sleep(0.02)
    time.sleep(0.2)  # for the lines it says next
    os.kill(int(pid.read_text()), number)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, 40])
def test_a_killed_launcher_is_told_with_its_signal_and_all_that_it_said(launched, job, number):
    folder, rank = job("one", do="sleep"), Path(launched).with_name("rank.py")
    Path(launched).write_text(f"#!/bin/sh\necho about to die\nexec {sys.executable} {rank}\n")
    with jobs.Workers(Runtime(slots=1)) as workers:
        threading.Thread(target=kill_when_it_works, args=(folder / "pid", number)).start()
        with pytest.raises(jobs.JobFailed) as caught:
            workers.run(folder)
    said = str(caught.value)
    assert f"ended by signal {int(number)}" in said
    assert ("SIGKILL: by another program, or by the system when memory ran out" in said) == (number == signal.SIGKILL)
    assert f"Its output: {folder / jobs.LOG}. The last lines:\nabout to die\nstarting sleep\nTo run it" in said
    assert "[INFO] noise" in (folder / jobs.LOG).read_text()
    assert "it said nothing" not in said


def test_a_launcher_that_dies_in_silence_is_told_with_how_it_ended(launched, job):
    ends = {"kill -9 $$": "ended by signal 9, SIGKILL", "exit 3": "ended with exit code 3", "exit 0": "exit code 0"}
    for line, told in ends.items():
        Path(launched).write_text(f"#!/bin/sh\n{line}\n")
        with jobs.Workers(Runtime(slots=1)) as workers, pytest.raises(jobs.JobFailed, match=told) as caught:
            workers.run(job(line.replace(" ", "")))
        assert "It printed nothing.\nTo run it again: " in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "\0"])
def test_a_damaged_marker_is_told_in_one_line(launched, job, text):
    folder = job("one")
    (folder / "done.json").write_text(text)
    with jobs.Workers(Runtime(slots=1)) as workers, pytest.raises(BadInput, match=r"done\.json: damaged"):
        workers.run(folder)


def test_the_log_of_a_failed_attempt_goes_when_the_job_is_done(launched, job):
    folder = job("one", do="crash")
    with jobs.Workers(Runtime(slots=1)) as workers:
        with pytest.raises(jobs.JobFailed, match="out of luck"):
            workers.run(folder)
        assert "out of luck" in (folder / jobs.LOG).read_text()
        (folder / "job.json").write_text(json.dumps({"worker": "finetune", "do": "work"}))
        workers.run(folder)
    assert not (folder / jobs.LOG).exists()
