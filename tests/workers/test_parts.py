"""Chunks of a job on the disk."""

import json
import shutil

import pytest

from w2s.models.train import World
from w2s.store.records import Example
from w2s.workers import parts

ROWS = [Example(f"e{at}", "t", "answer", f"question {at}") for at in range(5)]


def make(rows, skip):
    yield from ((1, {"ids.jsonl": [row.id]}) for row in rows[skip:])


def made(folder):
    found = parts.make_parts(folder, {"set": ROWS}, World(), make)["set"]
    return sorted(json.loads((part / "ids.jsonl").read_text()) for part in found)


def test_a_job_killed_while_its_parts_are_dropped_finds_all_of_them_or_none(tmp_path, monkeypatch):
    ids, remove, seen = [row.id for row in ROWS], shutil.rmtree, []
    assert made(tmp_path) == ids

    def torn(folder, **_):
        """Removes the first part, then the process is killed."""
        if folder.exists():
            seen.append(folder)
            remove(min(folder.iterdir()))
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", torn)
    with pytest.raises(KeyboardInterrupt):
        parts.drop_parts(tmp_path, World())
    monkeypatch.undo()
    assert len(seen) == 1
    assert made(tmp_path) == ids
    parts.drop_parts(tmp_path, World())
    assert not list(tmp_path.iterdir())
