"""Fixtures for every test."""

import os

# Before torch is imported anywhere: two spinning threads with a busy neighbour collapse 3 to 30 times.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")

from pathlib import Path

import hypothesis
import pytest

from tests import spine
from w2s.store import log

# No test is timed: a busy machine is no failure.
hypothesis.settings.register_profile("w2s", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("w2s")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and recordings beside the checkout (or $W2S_SHARED); tests skip where it is missing."""
    folder = Path(os.environ.get("W2S_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared data at {folder}: set W2S_SHARED to a folder with data/ and recorded/")
    return folder


@pytest.fixture(scope="session")
def real_models() -> Path:
    """The folder $W2S_REAL_MODELS with two pretrained language models, as models.root; tests skip where it is unset."""
    from tests.real_models import MODELS

    root = os.environ.get("W2S_REAL_MODELS")
    if not root:
        pytest.skip("no real models: `python -m tests.real_models DIR` unpacks them; then set W2S_REAL_MODELS=DIR")
    if missing := [name for name in MODELS if not (Path(root) / name).is_file()]:
        pytest.skip(f"W2S_REAL_MODELS: no {missing[0]} in {root}: `python -m tests.real_models {root}` unpacks it")
    return Path(root).resolve()


@pytest.fixture(autouse=True)
def close_log():
    """A command's log file is not the next test's."""
    yield
    log.to_file(None)


@pytest.fixture
def tiny_config(tmp_path, monkeypatch) -> Path:
    """The tiny run's config in a folder of its own, which is the working directory; nothing has run there."""
    monkeypatch.chdir(tmp_path)
    return spine.write_config(tmp_path)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """The tiny run, finished: the folder that holds tiny.yaml, data/ and runs/ (the run itself is runs/tiny)."""
    from w2s.cli import main

    folder = tmp_path_factory.mktemp("spine")
    config = spine.write_config(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shorten(patch)
        try:
            main(["run", str(config)])
        finally:
            log.to_file(None)
    return folder


@pytest.fixture(scope="session")
def written_run(tmp_path_factory) -> Path:
    """The tiny run of short answers, finished: the folder with written.yaml, data/ and runs/tiny_written."""
    from w2s.cli import main

    folder = tmp_path_factory.mktemp("written")
    spine.write_config(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shorten(patch)
        try:
            main(["run", str(folder / "written.yaml")])
        finally:
            log.to_file(None)
    return folder


@pytest.fixture
def own_tables(monkeypatch):
    """The tables of methods, which lose again what plug-ins add to them in the test."""
    from w2s.config import plugins
    from w2s.config.tables import load_table

    before = plugins._loaded
    monkeypatch.setattr(plugins, "_loaded", dict(before))
    yield
    for path in plugins._loaded.keys() - before.keys():
        for table, name in plugins._loaded[path].added:
            load_table(table).pop(name, None)


def shorten(patch: pytest.MonkeyPatch) -> None:
    """Base models that are pretrained for a few steps only."""
    for recipe in spine.recipes():
        patch.setitem(spine.recipes(), recipe, dict(spine.recipes()[recipe]))
    spine.shorten()


@pytest.fixture
def in_tiny_run(tiny_run, monkeypatch) -> Path:
    """The finished tiny run as the working directory, with its short recipes. Not to be changed."""
    monkeypatch.chdir(tiny_run)
    shorten(monkeypatch)
    return tiny_run


@pytest.fixture
def tools():
    """`Tools` for the stages' own tests: questions of the world, and no jobs."""
    from w2s.config.fields import Runtime
    from w2s.data.world import world
    from w2s.stages import Tools

    def refuse(folder: Path) -> None:
        raise AssertionError(f"no job was expected, {folder} was asked for")

    return Tools(Runtime(), lambda seed: world(None, easy=300, hard=300, seed=seed), None, refuse)
