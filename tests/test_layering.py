"""Who may import whom (DESIGN, section 3), read from the sources with ast."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Floors from the ground up: a room imports rooms of lower floors only.
FLOORS = [
    {"store", "sandbox"},
    {"config", "prompts", "boosting", "ensemble"},
    {"data", "models", "merging", "fusion"},
    {"grading", "rewards"},
    {"pools", "workers"},
    {"stages", "plugins"},
    {"story", "evaluation"},
    {"w2s"},
    {"cli"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
TORCH = {"torch", "transformers", "deepspeed", "trl", "peft", "accelerate", "safetensors", "tokenizers"}
FILES = sorted([*ROOT.glob("w2s/**/*.py"), *ROOT.glob("evaluation/**/*.py")])


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "evaluation" if parts[0] == "evaluation" else "w2s" if parts == ("w2s", "__init__") else parts[1]


def imports(path: Path, *, at_the_top: bool = False) -> set[str]:
    """Whole names of what a file imports; `if TYPE_CHECKING` is no import."""
    found, tree = set(), ast.parse(path.read_text())
    skipped = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in tree.body if at_the_top else ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def rooms_imported(path: Path) -> set[str]:
    names = [name.split(".") for name in imports(path)]
    return {n[1] for n in names if n[0] == "w2s" and len(n) > 1}


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def modules(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__").removeprefix("w2s.")


def edges() -> dict[str, set[str]]:
    """File -> the files of this project that it imports, by module name without `w2s.`."""
    known = {modules(path) for path in FILES if path.stat().st_size}
    found = {}
    for path in FILES:
        names = {name.removeprefix("w2s.") for name in imports(path) if name.startswith("w2s.")}
        prefixes = {".".join(name.split(".")[:n]) for name in names for n in range(1, name.count(".") + 2)}
        found[modules(path)] = (prefixes & known) - {modules(path)}
    return found


def test_every_room_has_a_floor():
    assert {room_of(path) for path in FILES} == set(FLOOR)


@pytest.mark.parametrize("path", FILES, ids=short)
def test_a_file_imports_only_its_own_room_and_those_below(path):
    room = room_of(path)
    above = {other for other in rooms_imported(path) - {room} if FLOOR[other] >= FLOOR[room]}
    assert not above, f"{short(path)} (floor {FLOOR[room]}) imports {above}"


def test_no_files_import_each_other_in_a_circle():
    graph = graphlib.TopologicalSorter(edges())
    graph.prepare()  # CycleError names the circle


def test_the_house_stays_small(record_property):
    files = [path for path in FILES if path.stat().st_size]
    rooms = {room_of(path) for path in files}
    arrows = {(room_of(path), other) for path in files for other in rooms_imported(path) - {room_of(path)}}
    lines = sum(len(path.read_text().splitlines()) for path in files)
    print(f"{len(rooms)} rooms, {len(FLOORS)} floors, {len(arrows)} arrows, {lines} lines")
    assert len(rooms) <= 20
    assert len(FLOORS) <= 9
    assert len(arrows) <= 88


# RL-Focal trains two small networks (DESIGN, section 3): torch inside functions, none when the tables are imported.
TRAINS_NETWORKS = {"w2s/plugins/rl_focal/agents.py"}


@pytest.mark.parametrize("path", [p for p in FILES if room_of(p) not in ("models", "workers")], ids=short)
def test_torch_begins_in_models_and_the_pipeline_process_holds_no_tensors(path):
    found = imports(path, at_the_top=short(path) in TRAINS_NETWORKS)
    found = {name.split(".")[0] for name in found} & TORCH
    assert not found, f"{short(path)} imports {found}"


def test_nothing_imports_the_plug_ins_that_ship():
    assert not [short(path) for path in FILES if room_of(path) != "plugins" and "plugins" in rooms_imported(path)]


def test_the_plug_in_that_ships_loads_no_torch():
    code = "import sys, w2s.plugins.rl_focal; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("path", [p for p in FILES if room_of(p) in ("stages", "story")], ids=short)
def test_stages_and_story_know_of_workers_only_the_types_of_their_jobs(path):
    assert "evaluation" not in rooms_imported(path)
    known = ("w2s.workers.job.", "w2s.workers.job_files.")
    assert all(name.startswith(known) for name in imports(path) if name.startswith("w2s.workers"))


def test_the_types_of_jobs_load_no_torch():
    code = "import sys, w2s.workers.job_files; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_numeric_rooms_touch_no_file():
    for path in FILES:
        if room_of(path) in ("boosting", "ensemble"):
            assert not {"pathlib.Path", "json", "os", "io", "shutil"} & imports(path), short(path)


def test_the_command_line_imports_nothing_heavy_at_the_top():
    assert {name.split(".")[0] for name in imports(ROOT / "w2s/cli/__init__.py", at_the_top=True)} <= {
        "__future__", "argparse", "json", "sys", "textwrap", "typing", "pathlib", "w2s",
    }  # fmt: skip


def test_no_file_is_longer_than_a_person_reads():
    assert not {short(path): n for path in FILES if (n := len(path.read_text().splitlines())) > 350}


def test_no_function_is_longer_than_a_screen():
    long = {
        f"{short(path)}: {node.name}": node.end_lineno - node.lineno + 1
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno + 1 > 56
    }
    assert not long
