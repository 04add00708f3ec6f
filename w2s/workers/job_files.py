"""job.json, which tells a worker its job: written by stages, read and checked by the worker. No torch."""

import dataclasses
import json
import typing
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from w2s.config.registry import describe, did_you_mean, fits
from w2s.store.files import write_json
from w2s.store.hidden import hide_values, reveal_values
from w2s.store.records import BadInput
from w2s.workers.job import WORKERS, Job

FILE = "job.json"


def find_worker(job: Job) -> str:
    """The name of the worker that does jobs of this type."""
    return next(name for name, worker in WORKERS.items() if worker.job is type(job))


def write_job(folder: Path, job: Job, plugins: Mapping[str, str] | None = None) -> None:
    """Write job.json, with references to environment variables, which the worker fills in, instead of their values.

    plugins: place -> sha256 of the plug-ins that the worker needs (see `config.plugins.list_loaded`).
    """
    values = {"worker": find_worker(job), **({"plugins": dict(plugins)} if plugins else {}), **asdict(job)}
    write_json(folder / FILE, hide_values(values))


def read_plugins(folder: Path) -> dict[str, str]:
    """Place -> sha256 of the plug-ins that the job of job.json needs."""
    plugins = read_values(folder).get("plugins", {})
    if not isinstance(plugins, dict) or not all(isinstance(sha256, str) for sha256 in plugins.values()):
        raise BadInput(
            f"{folder / FILE}: plugins: {plugins!r} given; allowed: a mapping of a path or module to its sha256"
        )
    return plugins


def read_values(folder: Path) -> dict[str, Any]:
    """The content of job.json, with values from this process' environment."""
    path = folder / FILE
    try:
        values = reveal_values(json.loads(path.read_text(encoding="utf-8")))
        return {**values}
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(f"{path}: not readable: {getattr(error, 'strerror', None) or error}") from None


def read_job(folder: Path) -> Job:
    """The job in job.json; BadInput for a key that is unknown, missing or of the wrong type."""
    path, values = folder / FILE, read_values(folder)
    name, _ = values.pop("worker", None), values.pop("plugins", None)
    if name not in WORKERS:
        raise BadInput(f"{path}: worker: {name!r} given; allowed: {', '.join(WORKERS)}")
    try:
        return read_fields(WORKERS[name].job, values, "")
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None


def read_fields(kind: type, values: Any, prefix: str) -> Any:
    """`values` as a dataclass of `kind`; a BadInput names its keys with `prefix`."""
    if not isinstance(values, dict):
        raise BadInput(f"{prefix.removesuffix('.')}: {values!r} given; allowed: a mapping")
    types = typing.get_type_hints(kind)
    for name in values:
        if name not in types:
            raise BadInput(f"{prefix}{name}: there is no such key{did_you_mean(name, types)}")
    for item in dataclasses.fields(kind):
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if required and item.name not in values:
            raise BadInput(f"{prefix}{item.name}: missing; allowed: {describe(types[item.name])}")
    return kind(**{name: read_value(types[name], value, f"{prefix}{name}") for name, value in values.items()})


def read_value(annotation: Any, value: Any, key: str) -> Any:
    """One field's value, as a record if the annotation is a dataclass (X, or X | None)."""
    record = next((t for t in (annotation, *typing.get_args(annotation)) if dataclasses.is_dataclass(t)), None)
    if record is annotation or (record and value is not None):
        return read_fields(record, {} if value is None else value, f"{key}.")
    if not fits(value, annotation):
        raise BadInput(f"{key}: {value!r} given; allowed: {describe(annotation)}")
    return value
