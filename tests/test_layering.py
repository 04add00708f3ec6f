"""Who may import whom (DESIGN, section 3), read from the sources with ast."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEVELS = [
    {"records", "opinions", "registry", "hidden", "log", "sandbox", "answers"},
    {
        "store",
        "config",
        "config_file",
        "config_studies",
        "flags",
        "prompts",
        "grading",
        "inputs",
        "behaviour",
        "candidates",
        "data",
        "boosting",
        "ensemble",
    },
    {"models", "rewards"},
    {"workers", "evaluation"},
    {
        "jobs",
        "stages",
        "methods",
        "story",
        "written",
        "rewarded",
        "aligned",
        "pipeline",
        "execution",
        "plan",
        "preferring",
        "overoptimised",
    },
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
TORCH = {"torch", "transformers", "deepspeed", "trl", "peft", "accelerate", "safetensors", "tokenizers"}
FILES = sorted([*ROOT.glob("w2s/**/*.py"), *ROOT.glob("evaluation/**/*.py")])


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "evaluation" if parts[0] == "evaluation" else parts[1]


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


def test_every_room_has_a_level():
    rooms = {room_of(path) for path in FILES} - {"__init__"}
    assert rooms == set(LEVEL)


# Level 4 reads the method tables to check names, and evaluation shares the job stages of `w2s evaluate`.
ALLOWED = {
    ("methods", "models"): {
        "w2s.models.folders",
        "w2s.models.losses.LOSSES",
        "w2s.models.losses.pick_loss",
        "w2s.models.objectives",
        "w2s.models.pipelines.PIPELINES",
    },
    ("evaluation", "jobs"): {"w2s.jobs.Workers"},
    ("evaluation", "stages"): {"w2s.stages.Tools", "w2s.stages.writing.judged", "w2s.stages.writing.texts"},
}


@pytest.mark.parametrize("path", FILES, ids=short)
def test_a_file_imports_only_its_own_level_and_those_below(path):
    room = room_of(path)
    if room == "__init__":
        return
    for other in rooms_imported(path) - {room}:
        if (room, other) in ALLOWED:
            used = {n for n in imports(path) if n.startswith(f"w2s.{other}.")}
            assert used <= ALLOWED[room, other], f"{short(path)} takes {used - ALLOWED[room, other]}"
        else:
            assert LEVEL[other] <= LEVEL[room], f"{short(path)} (level {LEVEL[room]}) imports {other} ({LEVEL[other]})"


# RL-Focal trains two small networks (DESIGN, section 3): torch inside functions, none when the tables are imported.
TRAINS_NETWORKS = {"w2s/ensemble/focal_agents.py"}


@pytest.mark.parametrize("path", [p for p in FILES if LEVEL.get(room_of(p), 0) in (0, 1, 4, 5)], ids=short)
def test_torch_begins_at_level_2_and_the_pipeline_process_holds_no_tensors(path):
    found = imports(path, at_the_top=short(path) in TRAINS_NETWORKS)
    found = {name.split(".")[0] for name in found} & TORCH
    assert not found, f"{short(path)} imports {found}"


def test_the_table_of_focal_loads_no_torch():
    code = "import sys, w2s.ensemble.focal; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("path", [p for p in FILES if room_of(p) in LEVELS[4]], ids=short)
def test_level_4_starts_workers_by_name_only(path):
    assert not rooms_imported(path) & {"workers", "evaluation"}


def test_only_the_command_line_imports_both_packages():
    both = [short(path) for path in FILES if path.parts[-2] != "evaluation" and "evaluation" in rooms_imported(path)]
    assert both == ["w2s/cli.py"]


def test_numeric_rooms_touch_no_file():
    for path in FILES:
        if room_of(path) in ("boosting", "ensemble"):
            assert not {"pathlib.Path", "json", "os", "io", "shutil"} & imports(path), short(path)


def test_the_command_line_imports_nothing_heavy_at_the_top():
    assert {name.split(".")[0] for name in imports(ROOT / "w2s/cli.py", at_the_top=True)} <= {
        "__future__", "argparse", "json", "sys", "pathlib", "w2s",
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
