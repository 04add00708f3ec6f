"""Other people's methods: a plug-in adds functions to the tables of methods (`config.tables`).

A plug-in is a Python file, a package (a folder with __init__.py) or an importable module with a plain dict
`METHODS = {table: {name: function}}`. A config lists its plug-ins under `plugins`; packages that are installed with an
entry point in the group `w2s.plugins` are always loaded. The hash covers the plug-in's own files, not what they import.

A plug-in is code and runs with your rights. So only the config that a command names (and its `base:` file) may list
one, and each is named with its hash when it is loaded. A config.yaml that lies in a run's folder, or came with recorded
outputs or a model, is data: whoever reads one of those never calls `load_plugins` with what it lists.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from w2s.config.tables import load_table
from w2s.store.log import say
from w2s.store.records import BadInput

GROUP = "w2s.plugins"
SHOWN = 12  # hexadecimal digits of a hash in a line that people read

Added = dict[tuple[str, str], str]
"""(table, method's name) -> sha256 of the plug-in that added it."""


class Plugin(NamedTuple):
    """A plug-in before its code has run."""

    name: str
    """As the config or the entry point spells it."""
    files: tuple[Path, ...]
    """Its Python files; the first is the one to import."""
    module: str | None
    """The importable module that it is; None: a file or package by path."""

    @property
    def sha256(self) -> str:
        """Of the file, or of the relative names and contents of the package's .py files."""
        if len(self.files) == 1:
            return hashlib.sha256(self.files[0].read_bytes()).hexdigest()
        content = hashlib.sha256()
        for path in self.files:
            content.update(f"{path.relative_to(self.files[0].parent).as_posix()}\0".encode())
            content.update(hashlib.sha256(path.read_bytes()).digest())
        return content.hexdigest()


_loaded: dict[Path, tuple[str, Added]] = {}  # a plug-in's first file -> its hash, and what it added


def load_plugins(names: Sequence[str] = ()) -> Added:
    """Loads the installed plug-ins and those that `names` lists; returns what all of them added to the tables.

    names: paths of .py files or packages, or names of modules. What is loaded already is not loaded again. Whatever
    cannot be found or imported, has no METHODS, or names an unknown table or a method that exists is a BadInput.
    """
    installed = [entry.module for entry in importlib.metadata.entry_points(group=GROUP)]
    added: Added = {}
    for name in [*installed, *names]:
        added |= load_plugin(find_plugin(name))
    return added


def hash_of(table: str, name: str) -> str | None:
    """The sha256 of the plug-in that added this method; None for a method of w2s itself."""
    hashes = (added[table, name] for _, added in _loaded.values() if (table, name) in added)
    return next(hashes, None)


def find_plugin(name: str) -> Plugin:
    path = Path(name)
    if path.is_file():
        return Plugin(name, (path.resolve(),), None)
    if path.is_dir():
        return Plugin(name, package_files(name, path.resolve()), None)
    if name.endswith(".py") or "/" in name:
        raise BadInput(f"plugins: {name}: there is no such file")
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise BadInput(f"plugins: {name}: there is no such file, and no Python module of that name")
    if spec.submodule_search_locations:
        return Plugin(name, package_files(name, Path(spec.origin).resolve().parent), name)
    return Plugin(name, (Path(spec.origin).resolve(),), name)


def package_files(name: str, folder: Path) -> tuple[Path, ...]:
    """The package's Python files, its __init__.py first."""
    start = folder / "__init__.py"
    if not start.is_file():
        raise BadInput(f"plugins: {name}: a package needs a file __init__.py")
    return start, *sorted(path for path in folder.rglob("*.py") if path != start)


def load_plugin(plugin: Plugin) -> Added:
    """Runs the plug-in's code and puts its methods into the tables, all of them or none."""
    sha256 = plugin.sha256
    if plugin.files[0] in _loaded:
        before, added = _loaded[plugin.files[0]]
        if before != sha256:
            raise BadInput(f"plugins: {plugin.name}: it has changed since it was loaded; start again")
        return added
    methods = read_methods(plugin, import_module(plugin, sha256))
    for table, name in methods:
        if name in load_table(table):
            raise BadInput(f"plugins: {plugin.name}: {table}: {name!r} exists already; give it another name")
    for (table, name), method in methods.items():
        load_table(table)[name] = method
    added = dict.fromkeys(methods, sha256)
    _loaded[plugin.files[0]] = sha256, added
    shown = ", ".join(f"{table}.{name}" for table, name in methods) or "nothing"
    say(f"plug-in {plugin.name} (sha256 {sha256[:SHOWN]}) adds {shown}")
    return added


def import_module(plugin: Plugin, sha256: str) -> ModuleType:
    name = plugin.module or f"w2s_plugin_{sha256[:SHOWN]}"
    try:
        if plugin.module:
            return importlib.import_module(name)
        start = plugin.files[0]
        inner = [str(start.parent)] if start.name == "__init__.py" else None
        spec = importlib.util.spec_from_file_location(name, start, submodule_search_locations=inner)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)  # before it runs: a package imports its own
        spec.loader.exec_module(module)
        return module
    except Exception as error:
        sys.modules.pop(name, None)
        raise BadInput(f"plugins: {plugin.name}: {place_of(error, plugin)}{type(error).__name__}: {error}") from error


def place_of(error: Exception, plugin: Plugin) -> str:
    """'line 3: ', the last line of the plug-in that ran into the error."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) in plugin.files]
    line = frames[-1].lineno if frames else getattr(error, "lineno", None)
    return f"line {line}: " if line else ""


def read_methods(plugin: Plugin, module: ModuleType) -> dict[tuple[str, str], Any]:
    """(table, name) -> function, as the module's METHODS says."""
    tables = getattr(module, "METHODS", None)
    if not isinstance(tables, Mapping) or not all(isinstance(methods, Mapping) for methods in tables.values()):
        raise BadInput(f"plugins: {plugin.name}: METHODS is needed: a dict {{table: {{name: function}}}}")
    methods = {}
    for table, named in tables.items():
        load_table(table, key=f"plugins: {plugin.name}: METHODS")
        for name, method in named.items():
            if not isinstance(name, str) or not callable(method):
                raise BadInput(f"plugins: {plugin.name}: {table}: {name!r}: {method!r} given; allowed: a function")
            methods[table, name] = method
    return methods
