"""A warm worker: job folders come in on standard input, one per line; a completion marker and one line go out.

    deepspeed --num_gpus 2 --no_local_rank --module w2s.workers.serve [JOB]

Rank 0 reads the lines and broadcasts them to the other ranks. A closed pipe means that the pipeline is gone, so the
whole process group ends at once, even in mid-job: run again, the job resumes from its checkpoint. With a job's folder
on the command line, the worker does this one job and ends.
"""

import contextlib
import datetime
import gc
import importlib
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from w2s.config.plugins import load_expected
from w2s.store import log
from w2s.store.files import describe_disk_error, write_json
from w2s.store.hidden import hide_values
from w2s.store.records import BadInput
from w2s.workers.job import WORKERS
from w2s.workers.job_files import FILE, find_worker, read_job, read_plugins

DONE = "done.json"


def main() -> None:
    """Do the job on the command line, or serve until standard input ends."""
    if len(sys.argv) > 1:
        serve_one(sys.argv[1:])
    world = join()
    lines: queue.Queue[str] = queue.Queue()
    if world.rank == 0:
        threading.Thread(target=read_lines, args=(lines,), daemon=True).start()
    control = control_group(world)
    while True:
        line = [lines.get() if world.rank == 0 else ""]
        if control is not None:
            import torch.distributed as dist

            dist.broadcast_object_list(line, src=0, group=control)
        answer = run_job(Path(line[0]), world)
        if world.rank == 0:
            log.write_to_pipe(answer)
        if "failed" in answer:
            leave(1)


def serve_one(arguments: Sequence[str]) -> NoReturn:
    """Do one job, started by hand or in its own launch, and end the process."""
    folder = Path(arguments[0])
    if len(arguments) != 1 or not (folder / FILE).exists():
        sys.exit(f"usage: python -m w2s.workers.serve JOB, a folder with a {FILE}")
    world = join()
    answer = run_job(folder, world)
    if world.rank == 0 and os.environ.get("W2S_PIPE"):
        log.write_to_pipe(answer)
    elif answer.get("kind") == "BadInput":
        log.say(answer["message"])
    leave(0 if "done" in answer else 1)


def run_job(folder: Path, world: Any) -> dict[str, Any]:
    """Run the job in `folder` unless it is done; returns {"done": folder} or {"failed": folder, "kind", "message"}."""
    start = time.monotonic()
    try:
        if not (folder / DONE).exists():
            load_expected(read_plugins(folder))
            job = read_job(folder)
            name = find_worker(job)
            summary = importlib.import_module(WORKERS[name].module).run(folder, job, world)
            world.barrier()
            if world.rank == 0:
                summary |= {"worker": name, "seconds": round(time.monotonic() - start, 3)}
                write_json(folder / DONE, hide_values(summary))
        world.barrier()
        free_memory(world)
        return {"done": str(folder)}
    except Exception as error:
        if words := describe_disk_error(error):
            return {"failed": str(folder), "kind": "BadInput", "message": words}
        if not isinstance(error, BadInput):
            traceback.print_exc()
        return {"failed": str(folder), "kind": type(error).__name__, "message": str(error)}


def free_memory(world: Any) -> None:
    """Collect garbage: a model and its optimizer refer to each other, and the next job needs their memory."""
    import torch

    gc.collect()
    gc.freeze()  # only modules are left; searching them after every job takes half a second
    if world.device.type == "cuda":
        torch.cuda.empty_cache()


def join() -> Any:
    """This process' World among the launcher's ranks; without a launcher it is alone."""
    if cores := os.environ.get("W2S_CORES"):
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})  # see jobs.Workers
    import torch
    import transformers

    from w2s.models.world import World

    transformers.utils.logging.disable_progress_bar()
    size, rank, local = (int(os.environ.get(n, d)) for n, d in (("WORLD_SIZE", 1), ("RANK", 0), ("LOCAL_RANK", 0)))
    gpu = torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu"
    if gpu:
        torch.cuda.set_device(local)
    if size > 1:
        from w2s.models.engine import import_deepspeed

        import_deepspeed().init_distributed("nccl" if gpu else "gloo", verbose=False)
    return World(rank, size, torch.device("cuda", local) if gpu else torch.device("cpu"))


def control_group(world: Any) -> Any:
    """A group for broadcasting lines, with a timeout of days: the pipeline does other things between jobs."""
    if world.size == 1:
        return None
    import torch.distributed as dist

    return dist.new_group(backend="gloo", timeout=datetime.timedelta(days=30))


def read_lines(lines: queue.Queue[str]) -> None:
    for line in sys.stdin:
        if line.strip():
            lines.put(line.strip())
    # The launcher and all ranks of this machine are in one process group, and nothing else is (see jobs.Worker).
    if os.getpgrp() != os.getpid() and os.environ.get("W2S_PIPE"):
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(0)


def leave(code: int) -> None:
    """End the process at once: a rank under gloo sometimes aborts while the interpreter shuts down."""
    import torch.distributed as dist

    if dist.is_initialized() and code == 0:
        with contextlib.suppress(Exception):
            dist.barrier()
            dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
