"""Programs that attack the judge by what they return, how they die, and what they leave to those that come after."""

import signal
import time

import pytest

from tests.sandbox.programs import run_program
from w2s.grading.behaviour import outputs
from w2s.grading.judge import grade
from w2s.sandbox.program import Limits
from w2s.store.records import Example, Gold

ASKED = Example("id", "made", "code", "def f(x):\n", meta={"entry_point": "f"})
TESTS = {
    "check": {"kind": "check", "entry_point": "f", "setup": "", "test": "def check(f):\n    assert f(1) == 2\n"},
    "inputs": {"kind": "inputs", "entry_point": "f", "base": [[1]] * 3, "plus": [], "compare": "equal", "atol": 0.0},
}
WRITES = """
import os, time
def frame(body, kind=1): return len(body).to_bytes(4, "big") + bytes([kind]) + body
def many(tag, parts): return b'{"%s": [' % tag.encode() + b", ".join(parts) + b"]}"
def f(x):
    os.write(3, frame(BODY))
    time.sleep(9)
PRIME = 2**61 - 1  # whole numbers are hashed modulo this
BODY = """
RETURNED = {
    "whole numbers of one hash": "many('set', (b'%d' % (i * PRIME) for i in range(400000)))",
    "keys of one hash": "many('dict', (b'{\"tuple\": [%d, 0]}' % (i * PRIME) for i in range(200000)))",
    "negative numbers of one hash": "many('frozenset', (b'%d' % (-i * PRIME - 5) for i in range(400000)))",
    "hexadecimal numbers of one hash": "many('set', (b'{\"int\": \"%x\"}' % (i * PRIME) for i in range(300000)))",
    "a wrong tag under deep nesting": "b'[' * 900 + b'{\"x\": 1}' + b']' * 900",
    "a long text under deep nesting": 'b\'{"set": [\' * 300 + b\'"\' + b"x" * (15 << 20) + b\'"\' + b"]}" * 300',
    "nothing but brackets": "b'[' * (15 << 20)",
    "millions of small things": "b'[' + b','.join([b'{}'] * 5000000) + b']'",
    "one long number": "b'1' * (15 << 20)",
    "one long hexadecimal number": "b'{\"int\": \"' + b'f' * (15 << 20) + b'\"}'",
    "one long float": "b'{\"float\": \"' + b'1' * (15 << 20) + b'\"}'",
    "no UTF-8": "b'\\xff' * 100",
    "an unknown tag": 'b\'{"eval": "1"}\'',
    "nothing": "b''",
}


def judged(source, kind, timeout_s=1.5):
    """(verdict, seconds of this very process, seconds in all)."""
    own, started = time.process_time(), time.monotonic()
    verdict = grade(ASKED, Gold("id", "def f(x): return 2", (TESTS[kind],)), source, Limits(timeout_s))
    return verdict, time.process_time() - own, time.monotonic() - started


@pytest.mark.parametrize("kind", TESTS)
@pytest.mark.parametrize("name", RETURNED)
def test_no_result_keeps_the_judge_busy(name, kind):
    (correct, status), own_s, _ = judged(WRITES + RETURNED[name], kind)
    assert correct is False, status
    assert own_s < 3, status  # it reads and passes on bytes, whatever they mean


@pytest.mark.parametrize("kind", TESTS)
@pytest.mark.parametrize(
    "loop",
    [
        "BODY = frame(b'[' + b','.join([b'[]'] * 5000000) + b']')",
        "BODY = frame(b'2') * 100000",
        "BODY = frame(b'')",
        "BODY = frame(b'9' * (1 << 20), 2)",
        "BODY = b'['\nos.write(3, (16 << 20).to_bytes(4, 'big') + b'\\1')",  # a frame that comes byte by byte
    ],
    ids=["huge frames", "very many frames", "empty frames", "long errors", "a byte at a time"],
)
def test_no_flood_takes_longer_than_the_program_may(loop, kind):
    body, *ahead = loop.split("\n")
    source = WRITES.split("def f(")[0] + body + "\ndef f(x):\n " + "".join(one + "\n " for one in ahead)
    verdict, own_s, _ = judged(source + "while True: os.write(3, BODY)", kind)
    assert verdict[0] is False or verdict == (True, "judged"), verdict  # b"2" is right, however often it is said
    assert own_s < 3


def test_results_are_spelled_under_the_limits_of_the_program_too():
    source = WRITES + RETURNED["whole numbers of one hash"].replace("400000", "40000")
    own = time.process_time()
    assert outputs(source, "f", [[1]] * 2, Limits(1, 256)) == ("<timeout>",) * 2
    assert time.process_time() - own < 3


def test_an_object_equals_nothing_not_even_itself():
    tests = TESTS["check"] | {"test": "def check(f):\n    assert f(1) == f(1)\n"}
    for source in (WRITES.replace("time.sleep(9)", "os.write(3, frame(BODY))") + "b'{\"object\": 0}'",
                   "one = object()\ndef f(x): return one"):  # fmt: skip
        verdict = grade(ASKED, Gold("id", "def f(x): return 2", (tests,)), source, Limits(2))
        assert verdict[0] is False, verdict


@pytest.mark.parametrize("keyword", ["name", "self", "call", "look", "arguments", "calls", "count", "beside", "args"])
def test_tests_may_call_with_any_keyword(keyword):
    tests = TESTS["check"] | {"test": f"def check(f):\n    assert f({keyword}=1) == 2\n    assert f(1) == 2\n"}
    gold = Gold("id", "", (tests,))
    assert grade(ASKED, gold, f"def f({keyword}): return {keyword} + 1") == (True, "judged")
    assert grade(ASKED, gold, "def f(**named): return 2")[0] is False
    assert grade(ASKED, gold, f"def f({keyword}): return 3") == (False, "judged")


# --- how it dies ----


@pytest.mark.parametrize("number", [*range(1, 32), *range(32, 65)])
def test_whatever_signal_ends_a_program_the_judge_goes_on(number):
    """The filter refuses every way to send a signal, so the wait status of one that died of it is made here."""
    from w2s.sandbox.program import Program

    program = Program.__new__(Program)
    program.left_s, program.close = 9.0, lambda: number
    reply = program.crash()
    known = [one.name for one in signal.Signals if one == number]
    assert reply.error == f"ended by {known[0] if known else f'signal {number}'}"


SIGNAL_ITSELF = """
import fcntl, os, socket
def f(number):
    ours, theirs = socket.socketpair()
    for order, value in ((8, os.getpid()), (10, number)):
        fcntl.fcntl(ours, order, value)
    fcntl.fcntl(ours, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    theirs.send(b"x")
    return "alive"
"""


@pytest.mark.parametrize("number", [10, 34, 40, 64])
def test_a_program_cannot_have_a_signal_sent(number):
    (reply,) = run_program(SIGNAL_ITSELF, [("f", (number,))])
    assert reply.error.startswith("PermissionError")


# --- what it leaves ----

LEAVES = {
    "a folder that nobody may enter": "os.chmod('/tmp', 0)",
    "a folder that nobody may write": "os.chmod(os.getcwd(), 0o500)",
    "a folder that gives its group away": "os.chmod('/tmp', 0o7777)",
    "a lock on a device": "fcntl.flock(os.open('/dev/null', os.O_RDWR), fcntl.LOCK_EX)",
    "a lock on what it inherited": "fcntl.flock(0, fcntl.LOCK_EX)",
    "a record lock": "fcntl.lockf(os.open('/dev/null', os.O_RDWR), fcntl.LOCK_EX)",
    "a lock on the standard library": "fcntl.flock(os.open(os.__file__, os.O_RDONLY), fcntl.LOCK_EX)",
    "a lease": "fcntl.fcntl(os.open(os.__file__, os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK)",
    "an owner": "fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())",
    "a signal": "fcntl.fcntl(1, 10, 40)",
    "flags": "[fcntl.fcntl(n, fcntl.F_SETFL, os.O_NONBLOCK | os.O_APPEND) for n in range(3)]",
    "no blocking": "[os.set_blocking(n, False) for n in range(3)]",
    "closed descriptors": "[os.close(n) for n in range(3)]",
    "other limits": "resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))",
    "a mask": "os.umask(0o777)",
    "signals held back": "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))",
    "signals ignored": "[signal.signal(n, signal.SIG_IGN) for n in range(1, 32) if n not in (9, 19)]",
    "an alarm": "signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)",
    "a full disk": "open('/tmp/full', 'wb').write(b'x' * (15 << 20))",
    "many files": "[open(f'/tmp/{n}', 'w') and None for n in range(3000)]",
    "a module": "json.loads = None",
}
STATE = """
import fcntl, json, os, resource, signal, stat
def f(x):
    flags = [fcntl.fcntl(n, fcntl.F_GETFL) for n in range(3)], [os.fstat(n).st_rdev for n in range(3)]
    mask = os.umask(0o22)
    handlers = [str(signal.getsignal(n)) for n in range(1, 32)]
    open("/tmp/mine", "w").write("x")
    held = os.listdir("/tmp"), oct(stat.S_IMODE(os.stat("/tmp").st_mode)), os.getcwd()
    limits = [resource.getrlimit(n) for n in range(16)]
    rest = signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.getitimer(signal.ITIMER_REAL), callable(json.loads)
    return repr((flags, mask, handlers, held, limits, rest))
"""


@pytest.mark.parametrize("name", LEAVES)
def test_a_program_starts_in_a_state_that_no_other_has_touched(name):
    (fresh,) = run_program(STATE, [("f", (1,))])
    source = f"import fcntl, json, os, resource, signal, sys\ndef f(x):\n    {LEAVES[name]}\n"
    (reply,) = run_program(source, [("f", (1,))])
    assert reply.status in ("ok", "exception"), reply
    (after,) = run_program(STATE, [("f", (1,))])
    assert after.status == "ok", after
    assert after.value == fresh.value
