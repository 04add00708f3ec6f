"""A warm worker: job folders come in on standard input, one line each; a completion marker and one line go out.

    deepspeed --num_gpus 2 --no_local_rank --module w2s.workers.serve

Rank 0 reads the lines and tells the other ranks. When the pipe closes the pipeline is gone, so the whole process group
ends at once, in the middle of a job too: the job goes on from its checkpoint when it is run again. `once` is the same
for one job, named on the command line.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from w2s.store import log
from w2s.store.files import describe_disk_error, open_whole
from w2s.store.hidden import hide_values, reveal_values
from w2s.store.records import BadInput

DONE = "done.json"


def main() -> None:
    """Serve until standard input ends."""
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
        folder = Path(line[0])
        answer = run_job(folder, world)
        if world.rank == 0:
            log.write_to_pipe(answer)
        if "failed" in answer:
            leave(1)


def once(name: str) -> None:
    """Run the job whose folder is the only argument: `python -m w2s.workers.NAME JOB`, or the same by `deepspeed`."""
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "job.json").exists():
        sys.exit(f"usage: python -m w2s.workers.{name} JOB, a folder with a job.json")
    world = join()
    answer = run_job(Path(sys.argv[1]), world)
    if world.rank == 0 and os.environ.get("W2S_PIPE"):
        log.write_to_pipe(answer)
    elif answer.get("kind") == "BadInput":
        log.say(answer["message"])
    leave(0 if "done" in answer else 1)


def run_job(folder: Path, world: Any) -> dict[str, Any]:
    """Run the job in `folder` unless it is done; {"done": folder} or {"failed": folder, "kind", "message"}."""
    from w2s.workers import finetune, objective, predict, pretrain, rank, reward, sample

    modules = (finetune, objective, predict, pretrain, rank, reward, sample)
    workers: dict[str, Callable] = {module.__name__.rpartition(".")[2]: module.run for module in modules}
    start = time.monotonic()
    try:
        if not (folder / DONE).exists():
            job = reveal_values(json.loads((folder / "job.json").read_text(encoding="utf-8")))
            if job.get("worker") not in workers:
                raise BadInput(f"{folder}/job.json: worker: {job.get('worker')!r} given; allowed: {', '.join(workers)}")
            summary = workers[job["worker"]](folder, job, world)
            world.barrier()
            if world.rank == 0:
                summary |= {"worker": job["worker"], "seconds": round(time.monotonic() - start, 3)}
                with open_whole(folder / DONE) as file:
                    json.dump(hide_values(summary), file, indent=1)
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
    """A model and its optimizer refer to each other; the next job needs their room."""
    import torch

    gc.collect()
    gc.freeze()  # what is left are modules: looking through them again after every job takes half a second
    if world.device.type == "cuda":
        torch.cuda.empty_cache()


def join() -> Any:
    """This process' place among the ranks that the launcher started (alone without a launcher)."""
    if cores := os.environ.get("W2S_CORES"):
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})  # see jobs.Workers
    import torch
    import transformers

    from w2s.models.train import World

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
    """A group for the lines, that may wait for days: the pipeline has other things to do between jobs."""
    if world.size == 1:
        return None
    import torch.distributed as dist

    return dist.new_group(backend="gloo", timeout=datetime.timedelta(days=30))


def read_lines(lines: queue.Queue[str]) -> None:
    for line in sys.stdin:
        if line.strip():
            lines.put(line.strip())
    # The launcher put itself and every rank of this machine into one group; nothing else is in it (see jobs.Worker).
    if os.getpgrp() != os.getpid() and os.environ.get("W2S_PIPE"):
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(0)


def leave(code: int) -> None:
    """End the process. A rank of gloo sometimes aborts when the interpreter tears down after it has finished."""
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
