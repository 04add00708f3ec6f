"""Running the story: stages as soon as their parents are there, a line for each, and the run's own folder."""

from __future__ import annotations

import concurrent.futures
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from w2s.config.fields import Config
from w2s.config.load import shown, to_yaml
from w2s.config.registry import differences
from w2s.config.smoke import smoke
from w2s.stages.jobs import Workers
from w2s.store.artifacts import LISTING, Stage, Store, read_sealed, write_listing
from w2s.store.hidden import hide
from w2s.store.log import progress, say
from w2s.store.records import BadInput
from w2s.story.main import build

THREADS = 256  # more than any machine has slots: they only wait for jobs


def run(configs: Sequence[Config], tell_seed: Callable | None = None, *, replace: bool = False) -> list[list[Stage]]:
    """Make every stage that is not there yet, as many at a time as there are slots. Returns each config's stages.

    tell_seed: the story of one seed, where it is not the main job's. replace: another run of the same name may give
    way; without it that is a BadInput.
    """
    for config in () if replace else configs:
        refuse(config, other_run(config))
    runtime = configs[0].runtime
    if any(one.runtime != runtime for one in configs):
        raise BadInput("runtime: it differs between the configs; those that run together need the same")
    store = Store(Path(runtime.runs_dir) / "store")
    titles: dict[str, str] = {}

    def title(folder: Path) -> str:
        return next(filter(None, map(titles.get, folder.parts)), folder.name)

    # When something goes wrong the workers end first, so that no thread waits for their jobs.
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool, Workers(runtime, title=title) as workers:
        found = [build(config, workers.run, tell_seed) for config in configs]
        todo: dict[str, Stage] = {}
        for config, told in zip(configs, found, strict=True):
            if not replace:
                refuse(config, other_stages(config, told))
            missing = [stage for stage in told if not store.done(stage)]
            say(f"{config.name}: {len(told)} stages, {len(told) - len(missing)} done, {len(missing)} to run")
            if config.limit:
                say(f"{config.name}: {smoke(config.limit)}")
            titles |= {f"{stage.folder_name}.partial": stage.title for stage in missing}
            todo |= {stage.key: stage for stage in missing if stage.key not in todo}
        execute(list(todo.values()), store, pool, workers.slots)
    return found


def execute(todo: list[Stage], store: Store, pool: concurrent.futures.Executor, slots: int) -> None:
    """Run stages as soon as their parents are there; after a failure nothing new starts, and it is raised."""
    waiting, running, total = list(todo), {}, len(todo)
    unmade = {stage.key for stage in todo}
    failure = None
    with progress(total, "stages") as advance:
        while running or (waiting and not failure):
            for stage in [s for s in waiting if not any(p.key in unmade for p in s.parents.values())]:
                if len(running) == slots or failure:
                    break
                waiting.remove(stage)
                running[pool.submit(store.make, stage)] = stage
            done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                stage = running.pop(future)
                if future.exception():
                    failure = failure or future.exception()
                else:
                    unmade.discard(stage.key)
                    say(line_about(stage, store, total - len(unmade), total))
                    advance()
    if failure:
        raise failure


def line_about(stage: Stage, store: Store, at: int, total: int) -> str:
    """'[12/140] seed 0 · round 3: error 0.31, alpha 0.52 (1.9 s)'."""
    manifest = store.manifest(stage)
    wanted = ("error", "alpha", "stop", "skipped", "used", "kept", "rows")
    facts = {k: v for k, v in manifest["facts"].items() if k in wanted and v is not None}
    words = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in facts.items())
    return f"[{at}/{total}] {stage.title}{': ' if words else ''}{words} ({manifest['seconds']:.1f} s)"


PAGES = ("report.json", "metrics.json", *(f"{page}.{kind}" for page in ("report", "curve") for kind in ("html", "md")))


def write_run(config: Config, told: list[Stage], command: list[str]) -> Path:
    """runs/<name>/ with config.yaml and stages.json, from which evaluation and report are made."""
    folder = folder_of(config)
    folder.mkdir(parents=True, exist_ok=True)
    if other_run(config) or other_stages(config, told):
        for page in PAGES:  # of the run that gives way
            (folder / page).unlink(missing_ok=True)
    listed = [
        {
            "name": s.name,
            "title": hide(s.title),
            "folder": s.folder_name,
            "tags": dict(s.tags),
            "parents": {r: p.folder_name for r, p in s.parents.items()},
        }
        for s in told
    ]
    write_listing(folder, to_yaml(config), {"command": shlex.join(command), "stages": listed, "cores": os.cpu_count()})
    return folder


# --- names in use ----------------------------------------------------------------------------------------------------


def folder_of(config: Config) -> Path:
    return Path(config.runtime.runs_dir) / config.name


def refuse(config: Config, why: str) -> None:
    if why:
        raise BadInput(f"name: {folder_of(config)} is in use: {why}; name=... for a new run, --replace to replace it")


def other_run(config: Config) -> str:
    """What lies under the run's name and is not this run, in words: files of others, or what its config differs in."""
    folder, known = folder_of(config), folder_of(config) / "config.yaml"
    if not folder.exists():
        return ""
    if not known.is_file():  # no run has ended there yet
        others = sorted({one.name for one in folder.iterdir()} - {"log.jsonl", "config.yaml.new"})
        return f"it holds {others[0]}, and no config.yaml of a run" if others else ""
    try:
        found = list(differences(yaml.safe_load(known.read_text(encoding="utf-8")), shown(config), but=("runtime",)))
    except (OSError, ValueError, yaml.YAMLError):
        return "its config.yaml is not readable"
    more = f" and {len(found) - 2} more keys" if len(found) > 2 else ""
    return "; ".join(found[:2]) + more


def other_stages(config: Config, told: Sequence[Stage]) -> str:
    """How many stages of a run that lies there with the same config are not among these, in words."""
    there = {one["folder"] for one in (read_sealed(folder_of(config) / LISTING) or {"stages": ()})["stages"]}
    gone = len(there - {stage.folder_name for stage in told})
    what = "its config is the same, but data, code, environment or command differ"
    return f"{what} ({gone} of its {len(there)} stages are different)" if gone else ""
