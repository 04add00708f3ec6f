import json
import os
import subprocess
import sys
import textwrap
import time

import pytest

from tests.sandbox.programs import run_program
from w2s.sandbox import run as sandbox_run
from w2s.sandbox import tiers
from w2s.sandbox.plain import NotPlain, Object
from w2s.sandbox.program import Limits
from w2s.sandbox.run import open_program

ECHO = "def echo(x): return x"


def one(source, *arguments, name="f", **limits):
    (reply,) = run_program(textwrap.dedent(source), [(name, arguments)], Limits(**limits))
    return reply


def test_a_program_is_loaded_once_and_answers_call_by_call():
    source = "n = 0\ndef f(x, *, y=1):\n global n\n n += 1\n return n, x + y"
    replies = run_program(source, [("f", (1,)), ("f", (2,), {"y": 5}), ("f", ())])
    assert [r.value for r in replies] == [(1, 2), (2, 7), None]
    assert replies[2].status == "exception"
    assert replies[2].error.startswith("TypeError")


def test_annotations_need_no_import():
    assert one("def f(x: List[int]) -> Optional[Any]:\n return x", [1]).value == [1]


def test_arguments_are_copies_so_a_program_cannot_change_ours():
    mine = [3, 1, 2]
    assert one("def f(x):\n x.sort()\n return x", mine).value == [1, 2, 3]
    assert mine == [3, 1, 2]


@pytest.mark.parametrize(
    ("source", "status", "error"),
    [
        ("def f(: pass", "exception", "SyntaxError"),
        ("raise SystemExit(0)", "exception", "SystemExit"),
        ("def f(): raise KeyboardInterrupt", "exception", "KeyboardInterrupt"),
        ("def f(): return 1 / 0", "exception", "ZeroDivisionError"),
        ("def f(): return f()", "exception", "RecursionError"),
        ("def f(): return [0] * 10**9", "memory", "MemoryError"),
        ("def f():\n x = []\n while True: x.append('x' * 10**6)", "memory", "MemoryError"),
        ("def f():\n while True: pass", "timeout", ""),
        ("import time\ntime.sleep(60)", "timeout", ""),
        ("def f(): return 'x' * 10**7", "too large", ""),
        ("def f(): return [0] * 10**6", "too large", ""),
        ("def f(): return object()", "not plain", ""),
        ("def f(): return (x for x in [1])", "not plain", ""),
        ("def f():\n x = []\n x.append(x)\n return x", "not plain", ""),
        ("import os\nos._exit(0)", "crashed", ""),
        ("import os\ndef f(): os._exit(0)", "crashed", ""),
        ("import ctypes\ndef f(): ctypes.string_at(0)", "crashed", "ended by SIGSEGV"),
        ("import os\ndef f(): os.write(3, b'garbage ' * 9)", "too large", ""),
        ("import os\ndef f(): os.write(3, bytes([0, 0, 0, 7, 200]) + b'garbage')", "crashed", ""),
        ("import os\ndef f(): os.write(3, b'\\0\\0\\0\\7\\0garbage')", "crashed", ""),
        ("import os\ndef f(): os.close(3)", "crashed", ""),
        ("def f():\n with open('x', 'wb') as x:\n  while True: x.write(b'x' * 2**20)", "exception", "OSError"),
    ],
)
def test_the_status_says_how_a_call_ended(source, status, error):
    reply = one(source, timeout_s=1.5 if status == "timeout" else 60)
    assert reply.status == status, reply
    assert error in reply.error


def test_a_thread_bomb_is_held_and_later_programs_run():
    bomb = "import threading, time\ndef f():\n while True: threading.Thread(target=time.sleep, args=(60,)).start()"
    assert one(bomb, timeout_s=3).status in ("exception", "memory", "timeout")
    assert one(ECHO, 1, name="echo").value == 1


def test_threads_timers_and_handlers_do_not_outlive_a_program():
    source = """
        import atexit, os, signal, threading, time
        def late():
            while True:
                open("late", "a").write("x")
        for _ in range(5):
            threading.Thread(target=late).start()
        atexit.register(late)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        def f(): return 1
    """
    assert one(source).value == 1
    assert one("import os\ndef f(): return os.listdir('.')").value == []


def test_every_program_gets_an_empty_folder_that_is_gone_afterwards():
    source = """
        import os
        def f():
            before = os.listdir(".")
            os.makedirs("a/b")
            open("a/b/c", "w").write("x")
            os.symlink("/", "link")
            return before, os.getcwd() == os.environ["HOME"], sorted(os.environ)
    """
    for _ in range(3):
        assert one(source).value == ([], True, ["HOME", "LANG", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TMPDIR"])


def test_a_folder_that_cannot_be_emptied_ends_the_warm_process_not_the_service():
    source = "import os\ndef f():\n os.mkdir('a')\n open('a/b', 'w')\n os.chmod('a', 0)\n return 1"
    deep = "import os\ndef f():\n for _ in range(1500):\n  os.mkdir('d')\n  os.chdir('d')\n return 1"
    for program in (source, deep):
        assert one(program).value == 1
        assert one("import os\ndef f(): return os.listdir('.')").value == []


def test_a_program_sees_nothing_of_an_earlier_one():
    assert one("import builtins, math, sys\nmath.pi = builtins.leak = sys.leak = 3\ndef f(): return 1").value == 1
    source = "import builtins, math, sys\ndef f(): return math.pi, hasattr(builtins, 'leak'), hasattr(sys, 'leak')"
    assert one(source).value == (3.141592653589793, False, False)


def test_the_memory_of_a_program_holds_no_earlier_source_or_call():
    word = "quagga" + "zebra"
    assert one(f"x = '{word}'\ndef f(y): return y", word).value == word
    source = """
        import gc
        def f(a, b):
            word = a + b
            many = [o for o in gc.get_objects() if isinstance(o, (list, dict, tuple)) and len(o) < 10**4]
            texts = [v for o in many for v in (o.values() if isinstance(o, dict) else o) if type(v) is str]
            return [1 for v in texts if v == word and v is not word]
    """
    assert one(source, "quagga", "zebra").value == []


def look(program, name):
    """The value of one of the program's global names."""
    program.send("order", json.dumps([[name, [], {}, True]]).encode())
    return program.receive()


def test_what_is_not_plain_can_stay_inside_and_be_passed_back():
    source = "class Node:\n def __init__(s, v): s.v = v\nroot = Node(7)\ndef value(n): return n.v"
    with open_program(source, Limits(), keep_objects=True) as program:
        root = look(program, "root").value
        assert isinstance(root, Object)
        assert program.call("value", [root]).value == 7
        assert program.call("value", [program.call("Node", [8]).value]).value == 8
        assert look(program, "nothing").status == "exception"


def test_a_program_may_ask_its_partner_and_one_without_a_partner_nobody():
    source = """
        def double(x, **named):
            if x is None:
                raise ValueError("none given")
            return x * 2, named
        half = 0.5
    """
    tests = """
        double, half = _partner.function("double"), _partner.value("half")
        def f(x): return double(x), half
        def clashes(): return double(1, name=2, self=3, call=4, arguments=5, look=6, named=7)
    """
    with (
        open_program(textwrap.dedent(source), Limits()) as program,
        open_program(textwrap.dedent(tests), Limits(), partner=program) as tester,
    ):
        assert tester.call("f", [3]).value == ((6, {}), 0.5)
        assert tester.call("f", [None]).error == "ValueError: none given"
        named = {"name": 2, "self": 3, "call": 4, "arguments": 5, "look": 6, "named": 7}
        assert tester.call("clashes", []).value == (2, named)
    forged = """
        import os, sys
        def f():
            child = sys.modules["w2s.sandbox.child"]
            os.write(3, child.HEAD.pack(6, child.KINDS.index("call")) + b"\\0\\0\\0\\1[]")
    """
    assert one(forged).status == "crashed"


def test_an_argument_that_is_not_plain_is_refused_before_it_is_sent():
    with pytest.raises(NotPlain, match="object is not plain data"):
        run_program(ECHO, [("echo", (object(),))])


def test_texts_hash_alike_in_every_warm_process():
    source = "def f(): return list({str(i) for i in range(20)})"
    first = one(source).value
    sandbox_run.end_all()
    assert one(source).value == first


def test_no_process_and_no_folder_is_left_when_all_warm_processes_are_given_up():
    with open_program("import time\ndef f(): time.sleep(60)", Limits()) as program:
        pid = program.warm.process.pid
    sandbox_run.end_all()
    assert not os.path.exists(f"/proc/{pid}")


def test_everything_ends_when_the_process_that_judges_is_killed(tmp_path):
    code = """
        import sys, threading, time
        from w2s.sandbox import run as r
        from w2s.sandbox.program import Limits
        def hang():
            with r.open_program("while True: pass", Limits(60)):
                pass
        threading.Thread(target=hang).start()
        while not r.STARTED: time.sleep(0.01)
        time.sleep(0.2)
        print(*r.STARTED, flush=True)
        time.sleep(60)
    """
    code = textwrap.dedent(code).replace("r.STARTED", "started")
    code = "started = []\n" + code.replace(
        "from w2s.sandbox import run as r\n",
        "from w2s.sandbox import run as r\n"
        "init = r.Warm.__init__\n"
        "def noted(self, mode):\n    init(self, mode)\n    started.append(self.process.pid)\n"
        "r.Warm.__init__ = noted\n",
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        pids = process.stdout.readline().split()
        process.kill()
    assert pids
    for _ in range(100):
        if not any(os.path.exists(f"/proc/{pid}") for pid in pids):
            return
        time.sleep(0.05)
    pytest.fail("a sandboxed process outlived its judge")


def test_without_a_sandbox_it_refuses_in_one_line_that_names_the_flag(monkeypatch):
    monkeypatch.setattr(tiers, "try_tiers", lambda: {"namespaces": {"works": False, "why": "not permitted"}})
    with pytest.raises(tiers.Unsafe, match=r"^no sandbox .*namespaces: not permitted.*runtime.allow_unsandboxed=true"):
        run_program(ECHO, [("echo", (1,))])
    (reply,) = run_program(ECHO, [("echo", (1,))], Limits(allow_unsandboxed=True))
    assert reply.value == 1
    assert tiers.describe()["tier"] == "none"


def test_a_wall_that_does_not_hold_is_noticed_by_the_probe(monkeypatch):
    monkeypatch.setattr(tiers, "ATTEMPTS", tiers.ATTEMPTS.replace("import socket; socket.socket()", "0"))
    with pytest.raises(tiers.Unsafe, match="network is not held back"):
        tiers.attempt(tiers.tier())


def test_describe_names_the_tier_and_the_kernel_features_it_found(walls):
    found = tiers.describe()
    assert found["tier"] == walls
    assert found["seccomp"] is True
    assert found["landlock"] >= 0
