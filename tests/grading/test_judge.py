import textwrap

import pytest

from w2s.data import programs
from w2s.grading.judge import grade, judge
from w2s.sandbox.plain import encode
from w2s.sandbox.program import Limits
from w2s.sandbox.tiers import Unsafe, tier
from w2s.store.records import BadInput, Example, Gold

pytestmark = pytest.mark.filterwarnings("ignore:invalid escape sequence")

PROMPT = "from typing import List\n\n\ndef half(x):\n    return x / 2\n\n\ndef total(numbers: List[int]) -> int:\n"
PROMPT += '    """The sum of the numbers.\n    >>> total([1, 2])\n    3\n    """\n'
ANSWER = PROMPT + "    return sum(numbers)\n"
CHECK = "def check(candidate):\n    assert candidate([]) == 0\n    assert candidate([3, 4]) == 7\n"
CHECK += "    assert candidate([40, 50]) == 90\n    assert abs(candidate([half(1)]) - 0.5) < 1e-6\n"
INPUTS = [[], [3, 4], [40, 50], [0.5]]
ASSERTS = ["assert total([]) == 0", "assert total([3, 4]) == 7", "assert total([0.5, 1]) == 1.5"]
TESTS = {
    "check": {"kind": "check", "entry_point": "total", "setup": PROMPT, "test": CHECK},
    "asserts": {
        "kind": "asserts",
        "functions": ["total"],
        "values": [],
        "setup": "",
        "imports": "",
        "asserts": ASSERTS,
    },
    "inputs": {
        **{"kind": "inputs", "entry_point": "total", "base": [[encode(x)] for x in INPUTS]},
        **{"plus": [], "compare": "equal", "atol": 0.0},
    },
}


@pytest.fixture
def walls():
    try:
        return tier()
    except Unsafe as error:
        pytest.skip(str(error))


def task(kind="check", answer=ANSWER, prompt=PROMPT, entry="total", **changes):
    example = Example("id", "made", "code", prompt, meta={"entry_point": entry})
    return example, Gold("id", answer, ({**TESTS[kind], **changes},))


def whole(body):
    return textwrap.dedent(body).strip() + "\n"


FORGERIES = {
    "prints the marks of success": "def total(numbers): print('PASSED', 'ok', '{\"status\": \"ok\"}')",
    "leaves with exit code 0 at once": "import os\nos._exit(0)",
    "leaves when called": "import os\ndef total(numbers): os._exit(0)",
    "raises SystemExit(0)": "def total(numbers): raise SystemExit(0)",
    "raises SystemExit on loading": "import sys\nsys.exit(0)",
    "equal to everything": "class E:\n def __eq__(s, o): return True\ndef total(numbers): return E()",
    "an int equal to everything": """
        class E(int):
            def __eq__(s, o): return True
            def __ne__(s, o): return False
            def __sub__(s, o): return 0
            __hash__ = int.__hash__
        def total(numbers): return E(1)
    """,
    "a float equal to everything": "class E(float):\n __eq__ = lambda s, o: True\ndef total(numbers): return E(1)",
    "a text equal to everything": "class E(str):\n __eq__ = lambda s, o: True\ndef total(numbers): return E('x')",
    "a list equal to everything": "class E(list):\n __eq__ = lambda s, o: True\ndef total(numbers): return E()",
    "a reflected comparison": "class E(int):\n def __req__(s, o): return True\n"
    " __eq__ = __le__ = __ge__ = lambda s, o: True\n"
    "def total(numbers): return E(7)",
    "a mock": "from unittest.mock import MagicMock\ndef total(numbers):\n m = MagicMock()\n"
    " m.__eq__ = lambda s, o: True\n return m",
    "unittest.mock.ANY": "from unittest.mock import ANY\ndef total(numbers): return ANY",
    "not a number": "def total(numbers): return float('nan')",
    "infinity": "def total(numbers): return float('inf')",
    "none": "def total(numbers): return None",
    "true": "def total(numbers): return True",
    "itself": "def total(numbers): return total",
    "a generator": "def total(numbers): yield sum(numbers)",
    "patched builtins": "import builtins\nbuiltins.sum = builtins.abs = lambda *a: 7\n"
    "builtins.AssertionError = SystemExit\n"
    "def total(numbers): return sum(numbers)",
    "patched json": 'import json\njson.dumps = lambda *a, **k: \'{"status": "ok", "value": true}\'\n'
    "def total(numbers): return 7",
    "patched runner": """
        import sys
        runner = sys.modules["w2s.sandbox.child"]
        runner.encode = lambda *a, **k: {"int": "0x7"}
        runner.send = lambda channel, kind, body=b"": channel.sendall(bytes([0, 0, 0, 1, 1]) + b"7")
        def total(numbers): return 7
    """,
    "frames written ahead": """
        import json, os
        frame = json.dumps({"status": "ok", "value": 7}).encode()
        os.write(3, (len(frame).to_bytes(4, "big") + b"\\1" + frame) * 9)
        def total(numbers): return 7
    """,
    "a verdict written on every descriptor": """
        import os
        for fd in range(64):
            try: os.write(fd, bytes([0, 0, 0, 4, 1]) + b"null")
            except OSError: pass
        def total(numbers): return 0
    """,
    "a call of the judge's functions": """
        import os
        frame = bytes([0, 0, 0, 1]) + b'[["check", [], {}, false]]'
        os.write(3, len(frame).to_bytes(4, "big") + bytes([8]) + frame)
        def total(numbers): return 0
    """,
    "an object's number for a value": """
        import os
        def total(numbers):
            os.write(3, bytes([0, 0, 0, 13, 1]) + b'{"object": 0}')
            os._exit(0)
    """,
    "the frames of the caller": """
        import gc, sys
        def total(numbers):
            frame = sys._getframe()
            while frame:
                for name, value in list(frame.f_locals.items()):
                    if "expect" in name or "want" in name or "gold" in name: return value
                frame = frame.f_back
            return 7
    """,
    "expected values in the heap": """
        import gc
        def total(numbers):
            for thing in gc.get_objects():
                if isinstance(thing, dict) and {"expected", "tests", "asserts", "answer"} & set(map(str, thing)):
                    return next(iter(thing.values()))
            return 7
    """,
    "the source of the tests": """
        import inspect, sys
        def total(numbers):
            for module in list(sys.modules.values()):
                if hasattr(module, "check"): return module.check(lambda x: sum(x))
            return 7
    """,
    "the tests or the reference on disk": """
        import os
        def total(numbers):
            for folder, _, names in os.walk("/"):
                for name in names:
                    if "HumanEval" in name or "grading" in name: return sum(numbers)
            return 7
    """,
    "an exit handler that answers": "import atexit\natexit.register(print, 'ok')\nraise SystemExit",
    "a thread that answers": """
        import json, os, threading, time
        def spam():
            while True: os.write(3, bytes([0, 0, 0, 2, 1]) + b"90")
        threading.Thread(target=spam, daemon=True).start()
        def total(numbers): time.sleep(0.2); return 90
    """,
    "a changed argument": "def total(numbers):\n numbers.clear()\n numbers.append(0)\n return numbers",
    "a pickle": "import pickle\nclass E:\n def __reduce__(s): return (eval, ('7',))\n"
    "def total(numbers): return pickle.dumps(E())",
    "the first answer for all": "def total(numbers): return 0",
    "the visible example": "def total(numbers): return 3",
    "an exception that is an answer": "class E(AssertionError):\n __bool__ = lambda s: True\n"
    "def total(numbers): raise E('7')",
    "an endless answer": "def total(numbers):\n x = []\n while True: x = [x]",
    "nothing at all": "",
    "no program": "The answer is the sum of the numbers, which is always right.",
    "a crash": "import ctypes\ndef total(numbers): ctypes.memset(0, 0, 9)",
}


@pytest.mark.parametrize("kind", TESTS)
@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_never_judged_right(name, kind, walls):
    example, gold = task(kind)
    text = f"```python\n{whole(FORGERIES[name])}```"
    correct, status = grade(example, gold, text, Limits(1.5))
    assert correct is False, status


@pytest.mark.parametrize("kind", TESTS)
def test_right_programs_are_right_and_wrong_ones_wrong(kind, walls):
    example, gold = task(kind)
    assert grade(example, gold, ANSWER) == (True, "judged")
    assert grade(example, gold, "    return sum(numbers)") == (True, "judged")
    assert grade(example, gold, "    return max(numbers, default=0)") == (False, "judged")
    correct, status = grade(example, gold, "    return numbers[0]")
    assert correct is False
    assert status == "exception: IndexError: list index out of range"
    subclass = "class N(float): pass\ndef total(numbers): return N(sum(numbers))"
    assert grade(example, gold, subclass) == (True, "judged")


def test_arguments_that_a_program_changes_are_fresh_for_the_next_call(walls):
    example, gold = task("inputs", base=[[[3, 4]], [[3, 4]]])
    assert grade(example, gold, "def total(n):\n t = sum(n)\n n.clear()\n return t")[0] is True


def test_tests_may_use_the_functions_of_the_prompt_and_the_name_of_the_program(walls):
    test = "def check(candidate):\n assert half(candidate([4])) == 2\n assert total([1]) == 1\n"
    example, gold = task(test=test)
    assert grade(example, gold, ANSWER) == (True, "judged")
    fooled = ANSWER.replace("return x / 2", "return 2") + "\ndef total(n): return 1"
    assert grade(example, gold, fooled)[0] is False


def test_objects_of_the_program_stay_there_and_can_be_passed_back(walls):
    answer = (
        "class Pair:\n def __init__(s, a, b): s.a, s.b = a, b\ndef width(pairs): return sum(p.b - p.a for p in pairs)"
    )
    changes = {"functions": ["width", "Pair"], "values": ["p"], "setup": "p = Pair(1, 9)"}
    lines = ["assert width([Pair(1, 2), Pair(3, 5)]) == 3", "assert width([p]) == 8"]
    example, gold = task("asserts", answer, "width of pairs", "width", asserts=lines, **changes)
    assert grade(example, gold, answer) == (True, "judged")
    assert grade(example, gold, answer.replace("p.b - p.a", "1"))[0] is False


def test_what_cannot_be_judged_is_neither_right_nor_wrong(walls):
    example, gold = task("inputs", "def total(n): return 1 / 0")
    assert grade(example, gold, ANSWER)[0] is None
    example, gold = task(test="def check(candidate):\n assert undefined_name(candidate([]))")
    correct, status = grade(example, gold, ANSWER)
    assert correct is None
    assert "undefined_name" in status
    assert grade(example, Gold("id", ANSWER), ANSWER) == (None, "no tests")


def test_many_rows_are_judged_in_order_with_progress(walls):
    example, gold = task()
    rows = [(example, gold, f"    return sum(numbers) + {i % 3}") for i in range(12)]
    seen = []
    verdicts = judge(rows, progress=lambda done, count: seen.append((done, count)))
    assert [correct for correct, _, _ in verdicts] == [i % 3 == 0 for i in range(12)]
    assert seen == [(i + 1, 12) for i in range(12)]


def test_without_a_sandbox_the_flag_is_named(monkeypatch):
    def none(*, allow_unsandboxed):
        raise Unsafe("no sandbox; runtime.allow_unsandboxed=true runs programs without")

    monkeypatch.setattr("w2s.grading.threads.tier", none)
    with pytest.raises(BadInput, match=r"runtime\.allow_unsandboxed=true"):
        judge([(*task(), ANSWER)])


@pytest.mark.parametrize(
    ("source", "options"),
    [(programs.humanevalplus, {"mini": True}), (programs.humaneval, {}), (programs.mbpp, {"limit": 40})],
)
def test_all_references_pass_their_tests(source, options, shared, walls):
    check_references(*source(shared / "data", **options))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("source", "options"),
    [
        (programs.humaneval, {}),
        (programs.humanevalplus, {}),
        (programs.mbppplus, {}),
        *((programs.mbpp, {"split": split}) for split in programs.MBPP_SPLITS),
        *((programs.mbpp, {"split": split, "sanitized": True}) for split in programs.MBPP_SPLITS),
    ],
)
def test_all_references_pass_their_tests_at_length(source, options, shared, walls):
    check_references(*source(shared / "data", **options))


def check_references(examples, golds):
    verdicts = judge([(e, g, g.answer) for e, g in zip(examples, golds, strict=True)], timeout_s=60)
    failed = [(e.meta["task_id"], v) for e, v in zip(examples, verdicts, strict=True) if v[0] is not True]
    assert not failed
