"""`w2s merge`: models in folders as one model in a folder, outside any run."""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from w2s.config.fields import Runtime
from w2s.data.own import file
from w2s.merging import mergekit
from w2s.merging.methods import as_shares, check_method
from w2s.models import folders
from w2s.stages.jobs import Workers
from w2s.store.files import make_folder, write_json
from w2s.store.log import say
from w2s.store.records import BadInput, write_rows
from w2s.workers.job import Merge
from w2s.workers.job_files import write_job


def read_recipe(path: Path) -> dict[str, Any]:
    """The arguments of `merge_folders` that a mergekit configuration stands for."""
    recipe = dataclasses.asdict(mergekit.read(path))
    for note in recipe.pop("notes"):
        say(note)
    return recipe


def merge_folders(
    models: Sequence[str],
    out: Path,
    *,
    base: str | None = None,
    method: dict[str, Any],
    weights: Sequence[float] | None = None,
    scale: float = 1.0,
    seed: int = 0,
    dtype: str | None = None,
    questions: str | None = None,
    root: str | None = None,
    replace: bool = False,
) -> str:
    """Merge the models in folders (or names below `root`) into the folder `out`; returns what to tell the user.

    merge.json in the folder says how it was made. weights: None: equal. questions: a file of one's own questions, for
    the methods fisher and regmean. BadInput before anything is written.
    """
    problems = [] if models else ["models: none given; allowed: at least 1"]
    places = [find_folder(model, root, problems) for model in models]
    start = find_folder(base, root, problems) if base else None
    if out.exists() and not replace:
        problems.append(f"{out}: it is there already; allowed: another folder, or --replace")
    if problems:
        raise BadInput("\n".join(problems))
    given = list(weights) if weights else [1.0] * len(places)
    as_shares(given, len(places))
    if method["name"] not in ADAPTERS:
        check_method(method, len(places), has_base=start is not None)
    if (method["name"] in MEASURED) != (questions is not None):
        words = f"{' and '.join(MEASURED)} need a file, other methods take none"
        raise BadInput(f"--questions: {questions or 'none'} given for {method['name']}; {words}")
    rows = file(None, path=questions)[0] if questions else []
    job = Merge([str(one) for one in places], given, method, str(start) if start else None, scale, seed, dtype=dtype)
    work = out.resolve().with_name(f"{out.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    make_folder(work)
    if rows:
        write_rows(work / "questions.jsonl", rows)
        job = dataclasses.replace(job, examples="questions.jsonl")
    try:
        write_job(work, job)
        with Workers(Runtime(slots=1, processes=1), title=lambda _: f"merge into {out}") as workers:
            done = workers.run(work)
        made = {"models": list(map(str, models)), "base": base, "method": method, "scale": scale, "seed": seed, **done}
        write_json(work / "model" / "merge.json", made)
        shutil.rmtree(out, ignore_errors=True)
        (work / "model").rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return describe(out, models, done)


MEASURED = ("fisher", "regmean")
"""Methods that ask every model about questions first."""
ADAPTERS = ("cat", "svd")
"""Methods for LoRA adapters, whose folders peft wrote."""


def find_folder(model: str, root: str | None, problems: list[str]) -> Path | None:
    """The folder of a model or an adapter; adds a line to `problems` if there is none."""
    place = folders.locate(model, root) or Path(model)
    if place.is_dir():
        return place.resolve()
    if place.is_file():
        problems.append(f"{model}: a file; allowed: a folder with safetensors (of a GGUF file, a run makes one)")
    else:
        problems.append(f"{model}: there is no such folder" + (f" here or in {root}" if root else ""))
    return None


def describe(out: Path, models: Sequence[str], done: dict[str, Any]) -> str:
    lines = [f"{'model':40} {'weight':>7}  {'moved':>7}  largest step"]
    for at, model in enumerate(models):
        moved = f"{done['moved'][at]:7.2%}  {done['largest'][at]:.2g}" if "moved" in done else "      -  -"
        lines.append(f"{model[-40:]:40} {done['weights'][at]:7.3f}  {moved}")
    if "cosine" in done:
        lines.append(f"mean cosine of two steps: {done['cosine']:.2f}")
    lines += [f"note: {done['warning']}"] if "warning" in done else []
    return "\n".join([*lines, f"merged: {out} (sha256 {done['sha256'][:16]})"])
