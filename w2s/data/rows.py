"""The rows that a config names, and their identity: a hash of their content, wherever they were read from."""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

from w2s.config.fields import Config
from w2s.config.registry import options, pick
from w2s.data.sources import SOURCES
from w2s.store.records import Example, Gold

ENDS = 1 << 20  # bytes hashed at each end of a file


def make_row_reader(config: Config) -> Callable[[int], tuple[list[Example], list[Gold]]]:
    """seed -> all questions of the sources; a source that draws by seed gets the run's."""

    @cache
    def source(at: int, seed: int | None) -> tuple[list[Example], list[Gold]]:
        return read_source(config, config.data.sources[at], f"data.sources.{at}", seed)

    @cache
    def rows(seed: int) -> tuple[list[Example], list[Gold]]:
        parts = [source(at, seed if draws_by_seed(spec) else None) for at, spec in enumerate(config.data.sources)]
        return [row for part in parts for row in part[0]], [row for part in parts for row in part[1]]

    return rows


def make_suite_reader(config: Config) -> Callable[[str], tuple[list[Example], list[Gold]]]:
    specs = {suite_name(spec): (at, spec) for at, spec in enumerate(config.evaluation.suites)}

    @cache
    def rows(name: str) -> tuple[list[Example], list[Gold]]:
        at, spec = specs[name]
        return take_first(read_source(config, spec, f"evaluation.suites.{at}", 0), config.limit)

    return rows


def take_first(rows: tuple[list[Example], list[Gold]], limit: int | None) -> tuple[list[Example], list[Gold]]:
    """The first `limit` questions by id, in their own order; None: all."""
    kept = set(sorted({row.id for row in rows[0]})[:limit])
    return [row for row in rows[0] if row.id in kept], [row for row in rows[1] if row.id in kept]


def read_source(config: Config, spec: dict, key: str, seed: int | None) -> tuple[list[Example], list[Gold]]:
    root = Path(config.data.root) if config.data.root else None
    return pick(SOURCES, spec | {"seed": seed} if draws_by_seed(spec) else spec, key=key)(root)


def draws_by_seed(spec: dict) -> bool:
    """Whether the source draws its questions by the run's seed."""
    return "seed" in options(SOURCES[spec["name"]]) and "seed" not in spec


def hash_folder(folder: Path) -> str | None:
    """A hash of a local model's files (size and both ends of large ones); None if there is no such folder."""
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder)} {size}".encode())
        with open(path, "rb") as file:
            digest.update(file.read(ENDS))
            file.seek(max(size - ENDS, 0))
            digest.update(file.read(ENDS))
    return digest.hexdigest()[:16]


def suite_name(spec: dict) -> str:
    return str(spec["name"])


def hash_rows(rows: tuple[list[Example], list[Gold]]) -> str:
    """A hash of questions and gold: a dataset is its rows, wherever they came from."""
    digest = hashlib.sha256()
    for row in (*rows[0], *rows[1]):
        digest.update(repr(row).encode())
    return digest.hexdigest()[:16]
