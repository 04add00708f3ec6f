"""Jobs: a folder goes to a worker process, a completion marker comes back. No tensors here.

`Workers` keeps processes warm, because importing torch and DeepSpeed takes 5 to 10 seconds and a run has dozens of
jobs. The `deepspeed` launcher starts each in its own session; signals go to the whole group, because the launcher alone
leaves its ranks behind. A job is done when its `done.json` exists; exit codes are not trusted, because a launcher whose
inner process was killed exits with 0.
"""

from __future__ import annotations

import collections
import contextlib
import glob
import json
import os
import queue
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from w2s.config.fields import Runtime
from w2s.config.plugins import list_loaded
from w2s.stages import Tools
from w2s.store.hidden import hide
from w2s.store.log import MARK, say, show_progress
from w2s.store.records import BadInput
from w2s.workers.job import Job
from w2s.workers.job_files import write_job

TAIL_LINES = 40
LOG_LINES = 10_000
LOG = "failed.log"
NOISE = ("[INFO]", "[WARNING]", "FutureWarning", "return func(*args")


class JobFailed(RuntimeError):
    """A job ended without its marker. The message holds the worker's last lines and the command to run it again."""


def do_job(folder: Path, tools: Tools, job: Job) -> dict[str, Any]:
    """Do `job` in `folder` unless it is done; returns its done.json: rows, steps, tokens, seconds, ..."""
    done = read_done(folder)
    if done is None:
        folder.mkdir(parents=True, exist_ok=True)
        write_job(folder, job, list_loaded())
        tools.run_job(folder)
        done = read_done(folder)
    return done


def read_done(folder: Path) -> dict[str, Any] | None:
    """The done.json of a finished job (seconds, rows, tokens, ...); None if it is not finished."""
    try:
        done = json.loads((folder / "done.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        done = None
    if not isinstance(done, dict):
        raise BadInput(f"{folder / 'done.json'}: damaged; delete the folder {folder} and run again")
    return done


def count_accelerators() -> int:
    """The number of accelerators that this process may use, counted without torch."""
    if os.environ.get("DS_ACCELERATOR") == "cpu":
        return 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    present = len(glob.glob("/dev/nvidia[0-9]*"))
    return present if visible is None else min(present, len([v for v in visible.split(",") if v.strip()]))


def count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """Warm workers, `slots` at a time; a context manager. `run` may be called from any number of threads."""

    def __init__(self, runtime: Runtime, *, title: Callable[[Path], str] = lambda folder: folder.name):
        """title: a job's folder -> the job's name in progress lines."""
        self.runtime, self.title = runtime, title
        gpus = count_accelerators()
        self.slots = runtime.slots or (1 if gpus else count_cores())
        self.processes = runtime.processes or max(1, gpus // self.slots)
        self._free: queue.LifoQueue[int] = queue.LifoQueue()  # few workers, kept busy
        for slot in range(self.slots):
            self._free.put(slot)
        self._workers: dict[int, Worker] = {}
        self._closed = False

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_) -> None:
        self._closed = True
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()

    def run(self, folder: Path) -> dict[str, Any]:
        """Run the job in `folder` unless it is done, wait for it, and return its `done.json`.

        BadInput with the worker's message if the job's input is at fault, else JobFailed.
        """
        folder = Path(folder).resolve()
        done = read_done(folder)
        if done is not None:
            return done
        slot = self._free.get()
        try:
            if self._closed:
                raise JobFailed(f"the job {folder} was not started: the run has ended")
            if self.runtime.hostfile:
                return finish(folder, launch(folder, self.runtime), self.runtime)
            worker = self._workers.get(slot)
            if worker is None or not worker.alive():
                env = environment(self.runtime, self.slots) | self._cores(slot)
                worker = self._workers[slot] = Worker(self._command(slot), env)
            with show_progress(self.title(folder)) as show:
                answer = worker.run(folder, lambda line: show(line["progress"], line["of"], line["note"]))
            return finish(folder, answer, self.runtime)
        finally:
            self._free.put(slot)

    def _cores(self, slot: int) -> dict[str, str]:
        """On a CPU each slot has its own cores: the scheduler might otherwise keep two busy workers on one core."""
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        if count_accelerators() or not 1 < self.slots <= len(cores):
            return {}
        return {"W2S_CORES": ",".join(map(str, cores[slot :: self.slots]))}

    def _command(self, slot: int) -> list[str]:
        where = ["--num_gpus", str(self.processes)]
        if count_accelerators() and self.slots > 1:
            first = slot * self.processes
            where = ["--include", "localhost:" + ",".join(map(str, range(first, first + self.processes)))]
        port = ["--master_port", str(free_port())]
        return [launcher(), *where, *port, "--no_local_rank", "--module", "w2s.workers.serve"]


class Worker:
    """One warm worker: its launcher and its ranks, in their own session."""

    def __init__(self, command: list[str], env: dict[str, str]):
        self._answers: queue.Queue[dict | None] = queue.Queue()
        self._said: collections.deque[str] = collections.deque(maxlen=LOG_LINES)
        self._process = start_process(command, env | {"W2S_PIPE": "1"}, stdin=subprocess.PIPE)
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()

    def _read(self) -> None:
        for line in self._process.stdout:
            if line.startswith(MARK):
                self._answers.put(json.loads(line[len(MARK) :]))
            else:
                self._said.append(line.rstrip())
        self._answers.put(None)

    def _watch(self) -> None:
        self._process.wait()
        kill_group(self._process.pid)  # end what the launcher left behind, so that the pipe closes

    def alive(self) -> bool:
        return self._process.poll() is None

    def run(self, folder: Path, show: Callable[[dict], None]) -> dict[str, Any]:
        """The worker's answer: {"done": folder} or {"failed": folder, "kind", "said", "code"}."""
        with contextlib.suppress(OSError):
            self._process.stdin.write(f"{folder}\n")
            self._process.stdin.flush()
        while (answer := self._answers.get()) is not None:
            if "progress" not in answer:
                break
            show(answer)
        if answer is None or "failed" in answer:
            code = None
            if answer is None:  # it ends by itself
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = self._process.wait(timeout=10)
            self.close()
            answer = {"failed": str(folder), "kind": "", **(answer or {}), "said": list(self._said), "code": code}
        self._said.clear()  # its further lines belong to the next job
        return answer

    def close(self) -> None:
        """End the worker and all processes it started. Finished work is on disk, so nothing is lost."""
        kill_group(self._process.pid)
        self._process.wait()


def launch(folder: Path, runtime: Runtime) -> dict[str, Any]:
    """Run one job in its own launch, as several machines need it; returns the answer of `Worker.run`."""
    process = start_process([launcher(), *one_shot(folder, runtime)], environment(runtime, 1))
    try:
        said = collections.deque((line.rstrip() for line in process.stdout), maxlen=LOG_LINES)
        process.wait()
    finally:
        kill_group(process.pid)
    if read_done(folder):
        return {"done": str(folder)}
    return {"failed": str(folder), "kind": "", "said": list(said), "code": process.returncode}


def start_process(command: list[str], env: dict[str, str], stdin: int | None = None) -> subprocess.Popen:
    """Start a launcher in its own session, with its output as one text stream."""
    out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    return subprocess.Popen(command, env=env, stdin=stdin, start_new_session=True, **out)


def finish(folder: Path, answer: dict[str, Any], runtime: Runtime) -> dict[str, Any]:
    """done.json after a worker's answer; BadInput or JobFailed if the job is not done."""
    done = read_done(folder)
    if done is not None and "failed" not in answer:
        (folder / LOG).unlink(missing_ok=True)  # from an earlier attempt
        tell_cuts(done)
        return done
    if answer.get("kind") == "BadInput":
        raise BadInput(answer["message"])
    said, how = answer.get("said", []), ending(answer.get("code"))
    output = "It printed nothing."
    if said:
        (folder / LOG).write_text(hide("\n".join(said)) + "\n", encoding="utf-8", errors="backslashreplace")
        tail = [line for line in said if not any(noise in line for noise in NOISE)][-TAIL_LINES:]
        output = "\n".join([f"Its output: {folder / LOG}. The last lines:", *tail])
    raise JobFailed(f"the job {folder} failed{how}. {output}\nTo run it again: {rerun_line(folder, runtime)}")


def ending(code: int | None) -> str:
    """' (its launcher was ended by signal 9, SIGKILL, ...)': how a process ended unexpectedly."""
    if code is None:
        return ""
    if code >= 0:
        return f" (its launcher ended with exit code {code} before the work was done)"
    name = next((f", {number.name}" for number in signal.Signals if number == -code), "")
    why = ": by another program, or by the system when memory ran out" if -code == signal.SIGKILL else ""
    return f" (its launcher was ended by signal {-code}{name}{why})"


def tell_cuts(done: dict[str, Any]) -> None:
    """Print a line for each set that a model could not read whole."""
    for name, cut in done.get("cut", {}).items():
        prompts = f"{cut['prompts']:,} of {cut['of']:,} prompts lost their beginning"
        answers = f", in {cut['answers']:,} an answer lost its end" if cut["answers"] else ""
        say(f"{name}: {prompts}{answers}: {cut['by']} reads at most {cut['tokens']:,} tokens", {"cut": cut})


def one_shot(folder: Path, runtime: Runtime) -> list[str]:
    """The launcher's arguments for one job in its own launch."""
    where = ["--num_gpus", str(runtime.processes or max(1, count_accelerators()))]
    if runtime.hostfile:
        where = ["--hostfile", runtime.hostfile]
    port = ["--master_port", str(free_port())]
    return [*where, *port, "--no_local_rank", "--module", "w2s.workers.serve", str(folder)]


def rerun_line(folder: Path, runtime: Runtime) -> str:
    """The command line that runs the job by hand."""
    env = {k: v for k, v in environment(runtime, 1).items() if k in ("DS_ACCELERATOR", "OMP_NUM_THREADS")}
    words = ["deepspeed", *one_shot(folder, runtime)]
    return " ".join([f"{k}={v}" for k, v in env.items()] + [shlex.quote(word) for word in words])


def environment(runtime: Runtime, slots: int) -> dict[str, str]:
    """A worker's environment: threads are shared out, and DeepSpeed uses the CPU if there is no accelerator."""
    processes = runtime.processes or 1
    threads = runtime.threads or max(1, count_cores() // (slots * processes))
    # Passive waiting: beside a busy process, two spinning OpenMP threads are 3 to 30 times slower.
    env = dict(os.environ) | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    env |= {"TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1", "TRANSFORMERS_VERBOSITY": "error"}
    if not count_accelerators():
        env["DS_ACCELERATOR"] = "cpu"
    return env


def launcher() -> str:
    """DeepSpeed's launcher, if possible from this Python's environment."""
    beside = Path(sys.executable).with_name("deepspeed")
    return str(beside) if beside.exists() else "deepspeed"


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


def kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
