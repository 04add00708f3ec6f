"""Programs that use libraries which are installed beside w2s."""

import importlib.util
import os

import pytest

from tests.sandbox.programs import run_program
from w2s.grading import judge as grading
from w2s.grading.judge import grade
from w2s.sandbox import warm
from w2s.sandbox.program import Limits
from w2s.store.records import Example, Gold

USES = {
    "numpy": "import numpy as np\ndef f(x): return float(np.linalg.norm(np.array(x)))",
    "scipy": "from scipy.spatial.distance import euclidean\ndef f(x): return float(euclidean(x, [0, 0]))",
    "sympy": "import sympy\ndef f(x): return float(sympy.sqrt(sum(sympy.Integer(n) ** 2 for n in x)))",
    "pandas": "import pandas as pd\ndef f(x): return float((pd.Series(x) ** 2).sum() ** 0.5)",
    "networkx": "import networkx as nx\ndef f(x): return float(len(nx.path_graph(5 + x[0] * 0)))",
}
TEST = {"kind": "check", "entry_point": "f", "setup": "", "test": "def check(f):\n    assert f([3, 4]) == 5\n"}
ASKED = Example("id", "made", "code", "def f(x):\n", meta={"entry_point": "f"})


@pytest.mark.parametrize("name", USES)
def test_a_program_may_use_a_library_inside_the_walls(name):
    pytest.importorskip(name)
    assert grade(ASKED, Gold("id", "", (TEST,)), USES[name], Limits(20, 1024)) == (True, "judged")


def test_numpy_needs_no_more_than_the_usual_limits():
    pytest.importorskip("numpy")
    verdict = grade(ASKED, Gold("id", "", (TEST,)), USES["numpy"], Limits(20))
    assert verdict == (True, "judged")
    (reply,) = run_program("import numpy as np\ndef f(): return np.ones((20000, 20000))", [("f", ())], Limits(20))
    assert reply.status in ("memory", "exception")


def test_numbers_of_numpy_are_numbers_and_its_arrays_are_not_plain():
    pytest.importorskip("numpy")
    source = """
import numpy as np
def f(): return [np.int64(3), np.float32(0.5), np.bool_(True), np.str_("a"), np.complex128(1j), {np.int8(1): None}]
def g(): return np.arange(3)
def h(): return np.datetime64("2020-01-01")
"""
    numbers, array, date = run_program(source, [("f", ()), ("g", ()), ("h", ())], Limits(20))
    assert numbers.value == [3, 0.5, True, "a", 1j, {1: None}]
    assert [type(one) for one in numbers.value] == [int, float, bool, str, complex, dict]
    assert array.status == date.status == "not plain"


@pytest.mark.parametrize("source", ["import {}\n", "def f(x):\n    from {}.sub import y\n    return 5\n"])
def test_what_is_not_installed_is_told_and_not_judged(source, monkeypatch):
    source = source.format("thislibrary")
    assert grade(ASKED, Gold("id", "", (TEST,)), source)[0] is False  # a module that nobody has is the program's fault
    monkeypatch.setattr(grading, "LIBRARIES", ("numpy", "thislibrary"))
    assert grade(ASKED, Gold("id", "", (TEST,)), source) == (None, "needs thislibrary, which is not in the sandbox")
    broken = source.replace("thislibrary", "numpy.nothing")  # numpy is there, so this is the program's fault
    assert grade(ASKED, Gold("id", "", (TEST,)), broken)[0] is False


def test_only_the_named_libraries_are_lent():
    lent = [os.path.basename(path) for path in warm.libraries()]
    assert set(lent) <= {f"{name}{end}" for name in (*warm.LIBRARIES, *warm.NEEDED) for end in ("", ".libs", ".py")}
    assert "numpy" in lent or importlib.util.find_spec("numpy") is None
    source = "import os\ndef f(): return sorted(os.listdir('/libraries')), os.access('/libraries/numpy', os.W_OK)"
    (reply,) = run_program(source, [("f", ())])
    assert reply.value == (sorted(lent), False)
