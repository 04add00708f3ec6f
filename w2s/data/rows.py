"""The rows that a config asks for, and what identifies them: their content, not the place they were read from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

from w2s.config import Config
from w2s.data.sources import SOURCES
from w2s.records import Example, Gold
from w2s.registry import options, pick

ENDS = 1 << 20  # bytes at each end of a file that its hash reads


def rows_of(config: Config) -> Callable[[int], tuple[list[Example], list[Gold]]]:
    """seed -> all questions of the sources; a source that draws by seed gets the run's."""

    @cache
    def rows(seed: int) -> tuple[list[Example], list[Gold]]:
        examples, gold = [], []
        for at, spec in enumerate(config.data.sources):
            more, its_gold = read_source(config, spec, f"data.sources.{at}", seed)
            examples += more
            gold += its_gold
        return examples, gold

    return rows


def suite_rows_of(config: Config) -> Callable[[str], tuple[list[Example], list[Gold]]]:
    specs = {suite_name(spec): (at, spec) for at, spec in enumerate(config.evaluation.suites)}
    return cache(lambda name: read_source(config, specs[name][1], f"evaluation.suites.{specs[name][0]}", 0))


def read_source(config: Config, spec: dict, key: str, seed: int) -> tuple[list[Example], list[Gold]]:
    seeded = "seed" in options(SOURCES[spec["name"]]) and "seed" not in spec
    root = Path(config.data.root) if config.data.root else None
    return pick(SOURCES, {**spec, **({"seed": seed} if seeded else {})}, key=key)(root)


def folder_content(folder: Path) -> str | None:
    """A hash of a local model's files (of large ones, their size and both ends); None where there is no such folder."""
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


def content_of(rows: tuple[list[Example], list[Gold]]) -> str:
    """A hash of questions and gold: the rows are the data set's identity, wherever they came from."""
    digest = hashlib.sha256()
    for row in (*rows[0], *rows[1]):
        digest.update(repr(row).encode())
    return digest.hexdigest()[:16]
