"""Running the story: each stage as soon as its parents are done, with a line of output, and the run's folder."""

import concurrent.futures
import graphlib
import os
import shlex
from collections.abc import Sequence
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
from w2s.story.main import TellStudy, build, tell_chain

THREADS = 256  # more than any machine has slots; they only wait for jobs


def run(configs: Sequence[Config], tell_study: TellStudy = tell_chain, *, replace: bool = False) -> list[list[Stage]]:
    """Make every missing stage, as many at a time as there are slots. Returns each config's stages.

    tell_study: declares the study's stages. replace: overwrite another run of the same name, otherwise a BadInput.
    """
    for config in () if replace else configs:
        refuse(config, describe_other_run(config))
    runtime = configs[0].runtime
    if any(config.runtime != runtime for config in configs):
        raise BadInput("runtime: it differs between the configs; configs that run together need the same")
    store = Store(Path(runtime.runs_dir) / "store")
    titles: dict[str, str] = {}

    def title(folder: Path) -> str:
        return next(filter(None, map(titles.get, folder.parts)), folder.name)

    # On an error the workers end first, so that no thread waits for their jobs.
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool, Workers(runtime, title=title) as workers:
        built = [build(config, workers.run, tell_study) for config in configs]
        todo: dict[str, Stage] = {}
        for config, stages in zip(configs, built, strict=True):
            if not replace:
                refuse(config, describe_other_stages(config, stages))
            missing = [stage for stage in stages if not store.done(stage)]
            say(f"{config.name}: {len(stages)} stages, {len(stages) - len(missing)} done, {len(missing)} to run")
            if config.limit:
                say(f"{config.name}: {smoke(config.limit)}")
            titles |= {f"{stage.folder_name}.partial": stage.title for stage in missing}
            todo |= {stage.key: stage for stage in missing if stage.key not in todo}
        execute(list(todo.values()), store, pool, workers.slots)
    return built


def execute(todo: list[Stage], store: Store, pool: concurrent.futures.Executor, slots: int) -> None:
    """Make stages as soon as their parents are done, in declaration order. After a failure no stage starts; it is
    raised when the running ones have ended."""
    place = {stage.key: at for at, stage in enumerate(todo)}
    graph: graphlib.TopologicalSorter[int] = graphlib.TopologicalSorter()
    for at, stage in enumerate(todo):
        graph.add(at, *{place[parent.key] for parent in stage.parents.values() if parent.key in place})
    graph.prepare()
    ready: list[int] = []
    running: dict[concurrent.futures.Future, int] = {}
    made, failure = 0, None
    with progress(len(todo), "stages") as advance:
        while running or (graph.is_active() and not failure):
            ready = sorted([*ready, *graph.get_ready()])
            while ready and len(running) < slots and not failure:
                at = ready.pop(0)
                running[pool.submit(store.make, todo[at])] = at
            ended, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in ended:
                at = running.pop(future)
                if future.exception():
                    failure = failure or future.exception()
                    continue
                graph.done(at)
                made += 1
                say(line_about(todo[at], store, made, len(todo)))
                advance()
    if failure:
        raise failure


SHOWN_FACTS = ("error", "alpha", "stop", "skipped", "used", "kept", "rows")


def line_about(stage: Stage, store: Store, at: int, total: int) -> str:
    """'[12/140] seed 0 · round 3: error 0.31, alpha 0.52 (1.9 s)'."""
    manifest = store.manifest(stage)
    facts = {key: value for key, value in manifest["facts"].items() if key in SHOWN_FACTS and value is not None}
    words = ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in facts.items()
    )
    return f"[{at}/{total}] {stage.title}{': ' if words else ''}{words} ({manifest['seconds']:.1f} s)"


PAGES = ("report.json", "metrics.json", *(f"{page}.{kind}" for page in ("report", "curve") for kind in ("html", "md")))


def write_run(config: Config, stages: Sequence[Stage], study: str, command: Sequence[str]) -> Path:
    """Write config.yaml and stages.json to runs/<name>/; evaluation and report start from them."""
    folder = find_folder(config)
    folder.mkdir(parents=True, exist_ok=True)
    if describe_other_run(config) or describe_other_stages(config, stages):
        for page in PAGES:  # of the replaced run
            (folder / page).unlink(missing_ok=True)
    listed = [
        {
            "name": stage.name,
            "title": hide(stage.title),
            "folder": stage.folder_name,
            "tags": dict(stage.tags),
            "parents": {role: parent.folder_name for role, parent in stage.parents.items()},
        }
        for stage in stages
    ]
    listing = {"study": study, "command": shlex.join(command), "stages": listed, "cores": os.cpu_count()}
    write_listing(folder, to_yaml(config), listing)
    return folder


# --- names in use ----------------------------------------------------------------------------------------------------


def find_folder(config: Config) -> Path:
    return Path(config.runtime.runs_dir) / config.name


def refuse(config: Config, why: str) -> None:
    if why:
        raise BadInput(f"name: {find_folder(config)} is in use: {why}; name=... for a new run, --replace to replace it")


def describe_other_run(config: Config) -> str:
    """What occupies the run's name, in words: other files, or the keys in which the other run's config differs."""
    folder = find_folder(config)
    known = folder / "config.yaml"
    if not folder.exists():
        return ""
    if not known.is_file():  # no run has finished there yet
        others = sorted({path.name for path in folder.iterdir()} - {"log.jsonl", "config.yaml.new"})
        return f"it holds {others[0]}, and no config.yaml of a run" if others else ""
    try:
        there = yaml.safe_load(known.read_text(encoding="utf-8"))
        differing = list(differences(there, shown(config), but=("runtime",)))
    except (OSError, ValueError, yaml.YAMLError):
        return "its config.yaml is not readable"
    more = f" and {len(differing) - 2} more keys" if len(differing) > 2 else ""
    return "; ".join(differing[:2]) + more


def describe_other_stages(config: Config, stages: Sequence[Stage]) -> str:
    """How many stages of an existing run with the same config are not among these, in words."""
    listing = read_sealed(find_folder(config) / LISTING) or {"stages": ()}
    there = {stage["folder"] for stage in listing["stages"]}
    gone = len(there - {stage.folder_name for stage in stages})
    what = "its config is the same, but data, code, environment or command differ"
    return f"{what} ({gone} of its {len(there)} stages are different)" if gone else ""
