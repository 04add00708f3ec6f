"""Stage keys, artifact folders, manifests, commit, resume and locks.

An artifact is a folder `<stage>-<key>`; the key is a hash of everything that made it, through all its ancestors. Work
happens under `<stage>-<key>.partial`; the manifest is written last and one rename commits. A folder without the suffix
is complete, always.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from w2s.log import say
from w2s.records import BadInput

MANIFEST = "manifest.json"


@dataclass(frozen=True, eq=False)
class Stage:
    """One step of a run: what it is called, what it depends on, and the work itself.

    `work(here, inputs)` gets its partial folder and the folders of its parents by role, and returns the counts and
    costs for its manifest.
    """

    name: str
    title: str
    section: Any
    parents: Mapping[str, Stage]
    work: Callable[[Path, Mapping[str, Path]], dict[str, Any] | None]
    version: int = 1
    tags: Mapping[str, Any] = field(default_factory=dict)
    """For the report: seed, model... Never part of the key."""

    @functools.cached_property
    def key(self) -> str:
        parents = {role: parent.key for role, parent in self.parents.items()}
        recipe = [self.name, self.version, self.section, parents]
        return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def folder_name(self) -> str:
        return f"{self.name}-{self.key}"


class Store:
    """The artifacts under one folder, shared by all runs there."""

    def __init__(self, folder: Path):
        self.folder = Path(folder).resolve()  # jobs name files by whole paths
        self._checked: set[str] = set()

    def path(self, stage: Stage) -> Path:
        return self.folder / stage.folder_name

    def done(self, stage: Stage) -> bool:
        return self.path(stage).is_dir()

    def manifest(self, stage: Stage) -> dict[str, Any]:
        return read_manifest(self.path(stage))

    def make(self, stage: Stage) -> Path:
        """The artifact of `stage`, whose parents exist: read if it is there, else made and committed."""
        final = self.path(stage)
        if not final.is_dir():
            partial = final.with_name(final.name + ".partial")
            with locked(partial):
                if not final.is_dir():  # another run may have made it while we waited for the lock
                    partial.mkdir(parents=True, exist_ok=True)
                    started = time.time()
                    inputs = {role: self.checked(parent) for role, parent in stage.parents.items()}
                    facts = stage.work(partial, inputs) or {}
                    commit(stage, partial, final, facts, time.time() - started)
        return final

    def checked(self, stage: Stage) -> Path:
        """The folder of a finished stage, its files compared with its manifest once per process."""
        path = self.path(stage)
        if path.name not in self._checked:
            verify(path)
            self._checked.add(path.name)
        return path


def read_manifest(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        raise BadInput(f"{folder}: {MANIFEST} is missing or damaged; delete the folder and run again") from None


def verify(folder: Path) -> None:
    """A damaged artifact is named before it is used."""
    for name, expected in read_manifest(folder)["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != expected["size"] or sha256(path) != expected["sha256"]:
            raise BadInput(f"{path}: it is not as it was written; delete the folder {folder.name} and run again")


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def commit(stage: Stage, partial: Path, final: Path, facts: dict[str, Any], seconds: float) -> None:
    """Flush every file, write the manifest last, rename once."""
    files = {}
    for path in sorted(p for p in partial.rglob("*") if p.is_file() and p.name != MANIFEST):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        files[str(path.relative_to(partial))] = {"size": path.stat().st_size, "sha256": sha256(path)}
    manifest = {
        "stage": stage.name,
        "title": stage.title,
        "key": stage.key,
        "version": stage.version,
        "section": stage.section,
        "parents": {role: parent.folder_name for role, parent in stage.parents.items()},
        "files": files,
        "facts": facts,
        "seconds": round(seconds, 3),
        "commit": git_commit(),
        "versions": versions(),
    }
    with open(partial / MANIFEST, "w") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.rename(partial, final)
    folder = os.open(final.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


@contextlib.contextmanager
def locked(partial: Path) -> Iterator[None]:
    """Hold the lock beside a partial folder; the kernel frees it when its holder dies."""
    partial.parent.mkdir(parents=True, exist_ok=True)
    path = partial.with_suffix(".lock")
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            say(f"waiting for {file.read().strip() or 'another process'}, which is making {partial.stem}")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield
        path.unlink(missing_ok=True)  # whoever still waits on this file looks for the finished artifact first


def write_json(path: Path, value: Any) -> None:
    """JSON, complete or not there at all."""
    beside = path.with_name(path.name + ".new")
    with open(beside, "w") as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


@functools.cache
def git_commit() -> str | None:
    """The commit of the code that runs, or None outside a checkout."""
    here = Path(__file__).resolve().parent
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True)
    return found.stdout.strip() or None


@functools.cache
def versions() -> dict[str, str]:
    """The versions a result may depend on, read without importing anything heavy."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("w2s", "torch", "transformers", "deepspeed", "trl", "datasets", "scikit-learn", "numpy", "omegaconf"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
