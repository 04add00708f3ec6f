"""Stage keys, artifact folders, manifests, commit, resume and locks.

An artifact is a folder `<stage>-<key>`; the key is a hash of everything that made it, through all its ancestors. Work
happens under `<stage>-<key>.partial`; the manifest is written last, and one rename commits. A folder without the suffix
is always complete, and is only read through `check_artifact`.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import platform
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from w2s.store.files import make_folder, open_whole, write_json
from w2s.store.hidden import hide, hide_values
from w2s.store.log import say
from w2s.store.records import BadInput

MANIFEST = "manifest.json"


@dataclass(frozen=True, eq=False)
class Stage:
    """One step of a run: its name, what it depends on, and the work itself.

    `work(here, inputs)` gets its partial folder and the folders of its parents by role, and returns counts and costs
    for its manifest.
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
        self.folder = Path(folder).resolve()  # jobs name files by absolute paths

    def path(self, stage: Stage) -> Path:
        return self.folder / stage.folder_name

    def done(self, stage: Stage) -> bool:
        """Whether the artifact exists; a BadInput if something else has its name."""
        path = self.path(stage)
        return os.path.lexists(path) and bool(read_manifest(path))

    def manifest(self, stage: Stage) -> dict[str, Any]:
        return read_manifest(self.path(stage))

    def make(self, stage: Stage) -> Path:
        """The artifact of `stage`, made and committed unless it exists. Its parents must exist."""
        final = self.path(stage)
        if not self.done(stage):
            partial = final.with_name(final.name + ".partial")
            with hold_lock(partial):
                if not self.done(stage):  # another run may have made it while we waited for the lock
                    make_folder(partial)
                    started = time.time()
                    inputs = {role: self.checked(parent) for role, parent in stage.parents.items()}
                    facts = stage.work(partial, inputs) or {}
                    commit(stage, partial, final, facts, time.time() - started)
        return final

    def checked(self, stage: Stage) -> Path:
        return check_artifact(self.path(stage))


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an artifact; a BadInput unless it is exactly as it was written."""
    manifest = read_sealed(folder / MANIFEST)
    if manifest is None or f"{manifest['stage']}-{manifest['key']}" != folder.name:
        raise BadInput(
            describe_damage(folder, MANIFEST, "it is missing, damaged or of another artifact or version of w2s")
        )
    return manifest


def check_artifact(folder: Path, only: str | None = None) -> Path:
    """The folder of an artifact, after comparing each file with its manifest; a difference is a one-line BadInput.

    only: the one file to compare, where no other is read (a model's weights take seconds to hash). A file is hashed
    once per process (at 0.4 to 2 GB/s), and again if its size or one of its times has changed.
    """
    folder = Path(os.path.abspath(folder))
    listed, present = read_manifest(folder)["files"], list_files(folder)
    present.pop(MANIFEST, None)
    if missing := sorted(listed.keys() - present.keys()):
        raise BadInput(describe_damage(folder, missing[0], "it is missing"))
    if extra := sorted(present.keys() - listed.keys()):
        raise BadInput(describe_damage(folder, extra[0], "it does not belong there"))
    with _hashing:  # other threads that need the same artifact wait, and do not hash it again
        for name, status in present.items() if only is None else [(only, present[only])]:
            mark = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, listed[name]["sha256"])
            if _intact.get(folder / name) != mark:
                if status.st_size != listed[name]["size"] or hash_file(folder / name) != listed[name]["sha256"]:
                    raise BadInput(describe_damage(folder, name, "it is not as it was written"))
                _intact[folder / name] = mark
    return folder


_intact: dict[Path, tuple] = {}  # files whose hash was right -> their size and times then
_hashing = threading.Lock()


def describe_damage(folder: Path, name: str, how: str) -> str:
    return f"{folder / name}: {how}; delete the folder {folder.name} and run again"


def list_files(folder: Path) -> dict[str, os.stat_result]:
    """Relative name -> status of the files under a folder, sorted; anything but files and folders is a BadInput."""
    present = {}
    for where, folders, files in os.walk(folder):
        for path in (Path(where, name) for name in [*folders, *files]):
            status, name = path.lstat(), str(path.relative_to(folder))
            if stat.S_ISREG(status.st_mode):
                present[name] = status
            elif not stat.S_ISDIR(status.st_mode):
                raise BadInput(describe_damage(folder, name, "a link or special file, where only files are allowed"))
    return dict(sorted(present.items()))


def hash_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def commit(stage: Stage, partial: Path, final: Path, facts: dict[str, Any], seconds: float) -> None:
    """Flush every file, write the manifest last, rename once."""
    parents = {role: parent.folder_name for role, parent in stage.parents.items()}
    made = {"stage": stage.name, "title": hide(stage.title), "key": stage.key, "version": stage.version}
    made |= {"section": hide_values(stage.section), "parents": parents, "facts": hide_values(facts)}
    made |= {"seconds": round(seconds, 3), "commit": read_commit(), "versions": read_versions()}
    write_manifest(partial, made)
    os.rename(partial, final)
    folder = os.open(final.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """Flush each file of a folder to disk, then write its manifest: `facts`, and each file's size and hash."""
    for leftover in (MANIFEST, f"{MANIFEST}.new"):  # of a run that was killed just before the rename
        (folder / leftover).unlink(missing_ok=True)
    files = {}
    for name, status in list_files(folder).items():
        with open(folder / name, "rb") as file:
            os.fsync(file.fileno())
        files[name] = {"size": status.st_size, "sha256": hash_file(folder / name)}
    write_sealed(folder / MANIFEST, {**facts, "files": files})


LISTING = "stages.json"


def write_listing(folder: Path, config: str, facts: dict[str, Any]) -> None:
    """Write a run's config.yaml, and stages.json: `facts` (command, stages), sealed together with the config."""
    with open_whole(folder / "config.yaml") as file:
        file.write(config)
    write_sealed(folder / LISTING, {**facts, "config": hashlib.sha256(config.encode()).hexdigest()})


def read_listing(folder: Path) -> dict[str, Any]:
    """A run's stages.json; a BadInput unless it and config.yaml are as they were written."""
    listing, config = read_sealed(folder / LISTING), folder / "config.yaml"
    if listing is None:
        raise BadInput(f"{folder / LISTING}: it is missing, damaged or of another version; run the same command again")
    if not config.is_file() or hash_file(config) != listing["config"]:
        raise BadInput(f"{config}: it is not as it was written; run the same command again")
    return listing


@contextlib.contextmanager
def hold_lock(partial: Path) -> Iterator[None]:
    """Hold the lock beside a partial folder; the kernel frees it when its holder dies."""
    make_folder(partial.parent)
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
        path.unlink(missing_ok=True)  # a process that still waits for it checks for the finished artifact first


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON mapping whose "seal", the hash of everything else, reveals later changes."""
    write_json(path, {**value, "seal": make_seal(value)})


def read_sealed(path: Path) -> dict[str, Any] | None:
    """What `write_sealed` wrote; None if it is missing or was changed."""
    if not path.is_file():  # reading a pipe would block forever
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return value if value.pop("seal") == make_seal(value) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def make_seal(value: dict[str, Any]) -> str:
    text = json.dumps(json.loads(json.dumps(value)), sort_keys=True)  # keys become strings, as on reading
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def read_commit() -> str | None:
    """The commit of the running code, or None outside a checkout."""
    here = Path(__file__).resolve().parent
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True)
    return git.stdout.strip() or None


@functools.cache
def read_versions() -> dict[str, str]:
    """The versions that a result may depend on, read without importing the packages."""
    from importlib.metadata import PackageNotFoundError, version

    known = {"python": platform.python_version()}
    for name in ("w2s", "torch", "transformers", "deepspeed", "trl", "datasets", "scikit-learn", "numpy", "omegaconf"):
        with contextlib.suppress(PackageNotFoundError):
            known[name] = version(name)
    return known
