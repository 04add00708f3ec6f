"""Other people's methods: a plug-in adds functions to the tables of methods (`config.tables`).

A plug-in is a Python file, a package (a folder with __init__.py) or an importable module with a plain dict
`METHODS = {table: {name: function}}`. To write one:

    import numpy as np
    from w2s.config.values import Share

    def trimmed(probs_RNK, mask_NK, alpha_R, abstained_RN=None, *, share: Share = 0.25):
        "The mean of the learners' probabilities without the lowest and the highest."
        cut = min(int(share * len(probs_RNK)), (len(probs_RNK) - 1) // 2)
        probs_NK = np.sort(probs_RNK, axis=0)[cut : len(probs_RNK) - cut].mean(0)
        return probs_NK / probs_NK.sum(1, keepdims=True)

    METHODS = {"combiners": {"trimmed": trimmed}}

A function's positional arguments are what the table's own functions take (read one of them: TABLES says where they
are), its keyword-only arguments the options that a config can set; `w2s methods TABLE --plugins FILE` shows them. Then

    w2s run CONFIG 'plugins=[mine.py]' 'label.combiner={name: trimmed, share: 0.2}'

or the same keys in the config. In the table kinds a name stands for a record, `models.records.Network` or `Estimator`.
The pipeline process loads plug-ins too, and holds no tensors: import torch (or transformers) inside the functions.

A config lists its plug-ins under `plugins`; packages that are installed with an entry point in the group `w2s.plugins`
are always loaded. The hash covers the plug-in's own files, not what they import. It is part of the key of every stage
whose options name a method of the plug-in (`find_used`), and workers load a plug-in only if its content is that hash.

A plug-in is code and runs with your rights. So only the config that a command names (and its `base:` file) may list
one, and each is named with its hash when it is loaded. A config.yaml that lies in a run's folder, or came with recorded
outputs or a model, is data: code that reads one never calls `load_plugins` with its list.
"""

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from w2s.config.fields import Config
from w2s.config.tables import TABLES, load_table
from w2s.config.values import leaves
from w2s.store.log import say
from w2s.store.records import BadInput

GROUP = "w2s.plugins"
SHIPPED = ("w2s.plugins.rl_focal",)
"""Plug-ins that ship with w2s. They combine recorded answers, so only commands that do so load them."""
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
    """Its name as an importable module; None for a file or package given by path."""

    @property
    def place(self) -> str:
        """Where another process finds it: an absolute path, or a module's name."""
        start = self.files[0]
        return self.module or str(start.parent if start.name == "__init__.py" else start)

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


class Loaded(NamedTuple):
    """A plug-in whose methods are in the tables."""

    place: str
    """As in Plugin."""
    sha256: str
    added: Added


_loaded: dict[Path, Loaded] = {}  # by the plug-in's first file


def load_plugins(names: Sequence[str] = (), *, shipped: bool = False) -> Added:
    """Load the installed plug-ins and those that `names` lists; returns what all of them added to the tables.

    names: paths of .py files or packages, or names of modules. shipped: also those of w2s itself. A loaded plug-in is
    not loaded again. One that cannot be found or imported, has no METHODS, or names an unknown table or an existing
    method is a BadInput.
    """
    entries = [entry.module for entry in importlib.metadata.entry_points(group=GROUP)]
    installed = [name for name in entries if name not in SHIPPED]
    added: Added = {}
    for name in [*(SHIPPED if shipped else ()), *installed, *names]:
        added |= load_plugin(find_plugin(name))
    return added


def load_expected(plugins: Mapping[str, str]) -> None:
    """Load plug-ins by place (see `list_loaded`); a BadInput if one's content does not have the expected sha256."""
    for place, sha256 in plugins.items():
        plugin = find_plugin(place)
        if plugin.sha256 != sha256:
            was, now = sha256[:SHOWN], plugin.sha256[:SHOWN]
            raise BadInput(f"plugins: {place}: it has changed since the run began (sha256 {was}, now {now}); run again")
        load_plugin(plugin)


def list_loaded() -> dict[str, str]:
    """Place -> sha256 of the loaded plug-ins, except those that ship with w2s."""
    return {plugin.place: plugin.sha256 for plugin in _loaded.values() if plugin.place not in SHIPPED}


def check_with_plugins(checks: Callable[[Config], list[str]]) -> Callable[[Config], list[str]]:
    """`checks`, run after loading the plug-ins that the config lists. Only for a config that a command names."""

    @functools.wraps(checks)
    def check(config: Config) -> list[str]:
        load_plugins(config.plugins)
        return checks(config)

    return check


def hash_of(table: str, name: str) -> str | None:
    """The sha256 of the plug-in that added this method; None for a method of w2s itself."""
    plugin = find_source(table, name)
    return plugin.sha256 if plugin else None


def find_source(table: str, name: str) -> Loaded | None:
    """The plug-in that added this method; None for a method of w2s itself."""
    return next((plugin for plugin in _loaded.values() if (table, name) in plugin.added), None)


def find_used(options: Any) -> dict[str, str]:
    """'table.name' -> sha256 of every plug-in method that these options (plain values) name: {name: X}, or X as the
    kind of a model."""
    named = set(walk_names(options, None))
    used = {f"{table}.{name}": hash_of(table, name) for table, name in sorted(named)}
    return {method: sha256 for method, sha256 in used.items() if sha256}


def walk_names(value: Any, key: str | None) -> Iterator[tuple[str, str]]:
    """Every (table, name) that a value may mean; under a key that the config does not have, a name of any table."""
    if isinstance(value, Mapping):
        if isinstance(name := value.get("name"), str):
            yield from ((table, name) for table in tables_by_key().get(key, TABLES))
        for inner, item in value.items():
            yield from walk_names(item, inner)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from walk_names(item, key)
    elif isinstance(value, str) and key == "kind":
        yield "kinds", value


@functools.cache
def tables_by_key() -> dict[str, set[str]]:
    """The last part of a config's key -> the tables that its methods are picked from."""
    tables: dict[str, set[str]] = {}
    for leaf in leaves(Config()):
        if leaf.table:
            tables.setdefault(leaf.name, set()).add(leaf.table)
    return tables


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
    """Run the plug-in's code and add its methods to the tables, all of them or none."""
    sha256 = plugin.sha256
    if loaded := _loaded.get(plugin.files[0]):
        if loaded.sha256 != sha256:
            raise BadInput(f"plugins: {plugin.name}: it has changed since it was loaded; start again")
        return loaded.added
    methods = read_methods(plugin, import_module(plugin, sha256))
    for table, name in methods:
        if name in load_table(table):
            raise BadInput(f"plugins: {plugin.name}: {table}: {name!r} exists already; give it another name")
    for (table, name), method in methods.items():
        load_table(table)[name] = method
    added = dict.fromkeys(methods, sha256)
    _loaded[plugin.files[0]] = Loaded(plugin.place, sha256, added)
    if plugin.place not in SHIPPED:
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
    """(table, name) -> function, or record of the table, from the module's METHODS."""
    tables = getattr(module, "METHODS", None)
    if not isinstance(tables, Mapping) or not all(isinstance(methods, Mapping) for methods in tables.values()):
        raise BadInput(f"plugins: {plugin.name}: METHODS is needed: a dict {{table: {{name: function}}}}")
    methods = {}
    for table, named in tables.items():
        records = find_records(load_table(table, key=f"plugins: {plugin.name}: METHODS"))
        allowed = " or ".join(record.__name__ for record in records) or "a function"
        for name, method in named.items():
            if not isinstance(name, str) or not (isinstance(method, records) if records else callable(method)):
                raise BadInput(f"plugins: {plugin.name}: {table}: {name!r}: {method!r} given; allowed: {allowed}")
            methods[table, name] = method
    return methods


def find_records(table: Mapping[str, Any]) -> tuple[type, ...]:
    """The types of a table's records; () where it holds functions."""
    types = {type(method) for method in table.values() if not callable(method)}
    return tuple(sorted(types, key=lambda record: record.__name__, reverse=True))
