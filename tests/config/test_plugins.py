"""Methods from outside: what a plug-in adds, and what it is refused for."""

import hashlib
import sys
from pathlib import Path

import pytest

from w2s.config import plugins
from w2s.config.plugins import hash_of, load_plugins
from w2s.config.registry import pick
from w2s.config.tables import load_table
from w2s.store.records import BadInput

TWICE = '''
from w2s.config.values import Positive

def twice(rounds, *, factor: Positive = 2.0):
    """Twice the alphas."""
    return rounds * factor

METHODS = {"alphas": {"twice": twice}}
'''
pytestmark = pytest.mark.usefixtures("own_tables")


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def put(text: str, name: str = "mine.py") -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return name

    return put


def refused(*names: str) -> str:
    with pytest.raises(BadInput) as caught:
        load_plugins(names)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_adds_its_methods_and_is_named_with_its_hash(write, capsys):
    sha256 = hashlib.sha256(TWICE.encode()).hexdigest()
    assert load_plugins([write(TWICE)]) == {("alphas", "twice"): sha256}
    assert pick(load_table("alphas"), {"name": "twice", "factor": 3})(2) == 6
    assert capsys.readouterr().err == f"plug-in mine.py (sha256 {sha256[:12]}) adds alphas.twice\n"
    assert (hash_of("alphas", "twice"), hash_of("alphas", "uniform")) == (sha256, None)
    with pytest.raises(BadInput, match=r"allowed: a number \(above 0\)"):
        pick(load_table("alphas"), {"name": "twice", "factor": 0})


def test_loading_the_same_twice_changes_and_says_nothing(write, capsys):
    first = load_plugins([write(TWICE)])
    method = load_table("alphas")["twice"]
    capsys.readouterr()
    assert load_plugins(["mine.py", str(Path("mine.py").resolve())]) == first
    assert load_table("alphas")["twice"] is method
    assert capsys.readouterr().err == ""


def test_a_plug_in_that_changes_while_it_is_loaded_is_refused(write):
    load_plugins([write(TWICE)])
    write(TWICE + "\n")
    assert refused("mine.py") == "plugins: mine.py: it has changed since it was loaded; start again"


def test_a_package_may_import_its_own_files_and_all_of_them_are_in_its_hash(write):
    write("from .inner import twice\nMETHODS = {'alphas': {'twice': twice}}", "pack/__init__.py")
    write(TWICE, "pack/inner.py")
    before = load_plugins(["pack"])["alphas", "twice"]
    load_table("alphas").pop("twice")
    plugins._loaded.popitem()
    write(TWICE + "\n", "pack/inner.py")
    assert load_plugins(["pack/"])["alphas", "twice"] != before


def test_a_module_is_found_by_its_name(write, monkeypatch):
    write(TWICE, "methods_of_mine.py")
    monkeypatch.syspath_prepend(Path.cwd())
    assert set(load_plugins(["methods_of_mine"])) == {("alphas", "twice")}
    assert sys.modules.pop("methods_of_mine").twice is load_table("alphas")["twice"]


def test_installed_plug_ins_are_loaded_by_their_entry_point(write, monkeypatch):
    write(TWICE, "installed_methods.py")
    write("[w2s.plugins]\nmine = installed_methods\n", "mine-1.dist-info/entry_points.txt")
    write("Metadata-Version: 2.1\nName: mine\nVersion: 1\n", "mine-1.dist-info/METADATA")
    monkeypatch.syspath_prepend(Path.cwd())
    assert set(load_plugins()) == {("alphas", "twice")}
    sys.modules.pop("installed_methods")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("METHODS = {'alphas': {'uniform': print}}", "alphas: 'uniform' exists already; give it another name"),
        ("METHODS = {'alpha': {'x': print}}", "METHODS: 'alpha' is not known (did you mean 'alphas'?); it can be: sou"),
        ("METHODS = {'alphas': {'x': 3}}", "alphas: 'x': 3 given; allowed: a function"),
        ("METHODS = {'alphas': [print]}", "METHODS is needed: a dict {table: {name: function}}"),
        ("", "METHODS is needed: a dict {table: {name: function}}"),
        ("x = 1\nimport nothing_like_it", "line 2: ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("x = (", "line 1: SyntaxError: "),
        ("raise ValueError('no')", "line 1: ValueError: no"),
    ],
)
def test_what_is_wrong_with_a_plug_in_is_one_line_that_names_it(write, text, said):
    assert refused(write(text)).startswith(f"plugins: mine.py: {said}")
    assert "x" not in load_table("alphas")


@pytest.mark.parametrize("name", ["nothing.py", "nowhere/", "no_such_module", "math", "..", ""])
def test_what_is_not_there_is_said(write, name):
    assert refused(name).startswith(f"plugins: {name}: ")


def test_a_plug_in_with_a_name_that_exists_adds_nothing_at_all(write):
    text = TWICE.replace('{"twice": twice}', '{"twice": twice, "uniform": twice}')
    assert "'uniform' exists already" in refused(write(text))
    assert "twice" not in load_table("alphas")


def test_reading_a_config_runs_no_plug_in(write):
    from w2s.config.load import load

    write("raise SystemExit('it ran')")
    write("plugins: [mine.py]\ndata: {easy_max: 0, hard_min: 1}\n", "c.yaml")
    assert load("c.yaml").plugins == ["mine.py"]
