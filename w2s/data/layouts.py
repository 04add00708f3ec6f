"""The user's own files and their column names: spellings, numbered or lettered families, unread columns."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from w2s.data.reading import Row, some
from w2s.store.log import say
from w2s.store.records import BadInput

NUMBERED = re.compile(r"(.*?)(\d{1,2}|[a-z])")
say_once = lru_cache(maxsize=256)(say)  # a file may be read for every seed


def find_file(root: Path | None, path: str) -> Path:
    """`path`, relative to `root` if given; a missing file is a BadInput."""
    place = (Path(root) if root is not None else Path()) / path
    if not place.is_file():
        raise BadInput(f"file: path: there is no file {place}")
    return place


def missing_column(name: str, row: Mapping[str, Any], spelled: Mapping[str, str]) -> ValueError:
    return ValueError(f"column {spelled.get(name, name)!r} is missing; it has: {some(spelled[key] for key in row)}")


@lru_cache(maxsize=1 << 14)
def plain(name: str) -> str:
    """A column's name without case, separators and surrounding marks: the same for "Option A" and (option_a)."""
    return re.sub(r"[\s_-]+", "", name.strip("()[].:* ")).casefold()


def plain_rows(rows: Iterable[Row]) -> tuple[list[Row], dict[str, str]]:
    """Rows by plain names, and the file's own spelling of each; two columns with one plain name are a BadInput."""
    spelled: dict[str, str] = {}
    renamed = []
    for where, row in rows:
        for name in row:
            if spelled.setdefault(plain(name), name) != name and spelled[plain(name)] in row:
                raise BadInput(f"{where}: the columns {spelled[plain(name)]!r} and {name!r} differ only in spelling")
        renamed.append((where, {plain(name): value for name, value in row.items()}))
    return renamed, spelled


def filled(value: Any) -> bool:
    """Whether a cell holds anything (pandas writes NaN for an empty one)."""
    return bool(value.strip()) if isinstance(value, str) else not (value is None or value == [] or value != value)


def families(names: Iterable[str]) -> dict[str, list[str]]:
    """Stem -> its columns (plain names), two or more, numbered from 0 or 1 or lettered from a."""
    by_stem: dict[tuple[str, bool], dict[int, str]] = defaultdict(dict)
    for name in names:
        if match := NUMBERED.fullmatch(name):
            stem, mark = match.groups()
            by_stem[stem, mark.isdigit()][int(mark) if mark.isdigit() else ord(mark) - ord("a")] = name
    runs = {}
    for (stem, digits), members in by_stem.items():
        first = 1 if digits and 0 not in members else 0
        run = [members[at] for at in range(first, first + len(members)) if at in members]
        if len(run) == len(members) > 1:
            runs[stem] = run
    return runs


def unread(place: Path, spelled: Mapping[str, str], used: Collection[str]) -> list[str]:
    """A line that names the unused columns, if any."""
    unused = [name for key, name in spelled.items() if key not in used]
    return [f"{place}: columns not read: {some(unused)}"] if unused else []
