"""Programs that try to get out. Each defines attempt(t), which returns something true where it got what it wanted."""

import os
import socket
import subprocess
import sys
import threading

import pytest

from tests.sandbox.programs import run_program
from w2s.sandbox.program import Limits

CALL = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def sys(number, *a):
    return libc.syscall(ctypes.c_long(number), *[ctypes.c_long(x) if isinstance(x, int) else x for x in a]) >= 0
"""
X86 = os.uname().machine == "x86_64"

ATTEMPTS = {
    # files of the host
    "read /etc/passwd": "def attempt(t): return open('/etc/passwd').read()",
    "read /etc/shadow": "def attempt(t): return open('/etc/shadow').read()",
    "read a secret file": "def attempt(t): return open(t['secret']).read()",
    "read the project": "def attempt(t): return open(t['project']).read()",
    "list the project": "import os\ndef attempt(t): return os.listdir(os.path.dirname(t['project']))",
    "list the home": "import os\ndef attempt(t): return os.listdir(t['home'])",
    "import the project": "def attempt(t):\n import w2s.records\n return True",
    "import installed packages": "def attempt(t):\n import hypothesis\n return True",
    "climb out by ..": "def attempt(t): return open('../' * 30 + t['secret'].lstrip('/')).read()",
    "a symbolic link out": "import os\ndef attempt(t):\n os.symlink(t['secret'], 'link')\n return open('link').read()",
    "a hard link out": "import os\ndef attempt(t):\n os.link(t['secret'], 'link')\n return open('link').read()",
    "chroot": "import os\ndef attempt(t):\n os.chroot('/tmp')\n return True",
    "write beside the secret": "def attempt(t): return open(t['secret'] + '.new', 'w').write('x')",
    "write to the standard library": "import os\ndef attempt(t): return open(os.__file__, 'a').write('#')",
    "write to the root folder": "def attempt(t): return open('/x', 'w').write('x')",
    "remove the secret": "import os\ndef attempt(t):\n os.remove(t['secret'])\n return True",
    "a device": "import os, stat\ndef attempt(t):\n"
    " os.mknod('disk', 0o600 | stat.S_IFBLK, os.makedev(254, 0))\n return True",
    "shared memory": "from multiprocessing import shared_memory as s\n"
    "def attempt(t): return s.SharedMemory('x', True, 9).size",
    # processes
    "/proc of others": "import os\ndef attempt(t): return os.listdir('/proc')",
    "memory through /proc": "def attempt(t): return open('/proc/self/mem', 'rb')",
    "environment through /proc": "def attempt(t): return open('/proc/1/environ').read()",
    "environment": "import os\ndef attempt(t): return [v for v in os.environ.values() if 'hush' in v]",
    "environment block in memory": CALL
    + "def attempt(t):\n libc.getenv.restype = ctypes.c_char_p\n return libc.getenv(b'W2S_TEST_SECRET')",
    "fork": "import os\ndef attempt(t):\n pid = os.fork()\n return pid or os._exit(0)",
    "fork bomb": "import os\ndef attempt(t):\n while True: os.fork()",
    "fork by clone": CALL + "def attempt(t): return sys(56, 17, 0, 0, 0, 0)",
    "vfork": CALL + "def attempt(t): return sys(58)",
    "clone3": CALL + "def attempt(t): return sys(435, ctypes.create_string_buffer(88), 88)",
    "daemon by double fork": "import os\ndef attempt(t):\n if os.fork() == 0:\n  os.setsid()\n"
    "  os.fork()\n return True",
    "exec": "import os\ndef attempt(t): os.execv('/bin/sh', ['sh', '-c', 'true'])",
    "subprocess": "import subprocess\ndef attempt(t): return subprocess.run(['/bin/true']).returncode == 0",
    "os.system": "import os\ndef attempt(t): return os.system('true') == 0",
    "kill a process outside": "import os\ndef attempt(t):\n os.kill(t['pid'], 9)\n return True",
    "kill the parent": "import os\ndef attempt(t):\n os.kill(os.getppid() or 1, 9)\n return True",
    "kill everything": "import os\ndef attempt(t):\n os.kill(-1, 9)\n return True",
    "signal by pidfd": "import os, signal\ndef attempt(t):\n"
    " signal.pidfd_send_signal(os.pidfd_open(1), 9)\n return True",
    "ptrace": CALL + "def attempt(t): return sys(101, 16, t['pid'], 0, 0)",
    "ptrace the parent": CALL + "def attempt(t): return sys(101, 16, os.getppid() or 1, 0, 0)",
    "process_vm_readv": CALL
    + "def attempt(t): return sys(310, 1, ctypes.create_string_buffer(16), 1, b' ' * 16, 1, 0)",
    "descriptor of another process": CALL + "def attempt(t): return sys(438, sys(434, 1, 0), 3, 0)",
    # network
    "connect by TCP": "import socket\ndef attempt(t): return socket.create_connection(('127.0.0.1', t['port']), 1)",
    "connect by IPv6": "import socket\ndef attempt(t): return socket.socket(socket.AF_INET6)",
    "send by UDP": "import socket\n"
    "def attempt(t): return socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('1.1.1.1', 53))",
    "raw socket": "import socket\ndef attempt(t): return socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "listen": "import socket\ndef attempt(t): return socket.create_server(('127.0.0.1', 0))",
    "abstract unix socket": "import socket\ndef attempt(t):\n s = socket.socket(socket.AF_UNIX)\n"
    " s.connect(t['abstract'])\n return s",
    "unix socket": "import socket\ndef attempt(t):\n s = socket.socket(socket.AF_UNIX)\n s.bind('s')\n return s",
    "netlink": "import socket\ndef attempt(t): return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
    "name look-up": "import socket\ndef attempt(t): return socket.gethostbyname('example.org')",
    # power
    "become root": "import os\ndef attempt(t):\n os.setuid(0)\n return True",
    "be root": "import os\ndef attempt(t): return os.getuid() == 0",
    "another user": "import os\ndef attempt(t):\n os.setresuid(1, 1, 1)\n return True",
    "mount": CALL + "def attempt(t): return sys(165, b'none', b'/tmp', b'proc', 0, 0)",
    "unmount": CALL + "def attempt(t): return sys(166, b'/tmp', 2)",
    "new user namespace": CALL + "def attempt(t): return sys(272, 0x10000000)",
    "enter a namespace": CALL + "def attempt(t): return sys(308, 0, 0)",
    "pivot_root": CALL + "def attempt(t): return sys(155, b'/', b'/tmp')",
    "new mount interface": CALL + "def attempt(t): return sys(430, b'tmpfs', 0)",
    "bpf": CALL + "def attempt(t): return sys(321, 0, ctypes.create_string_buffer(120), 120)",
    "io_uring": CALL + "def attempt(t): return sys(425, 8, ctypes.create_string_buffer(120))",
    "keyctl": CALL + "def attempt(t): return sys(250, 0, -3, 1)",
    "userfaultfd": CALL + "def attempt(t): return sys(323, 1)",
    "perf events": CALL + "def attempt(t): return sys(298, ctypes.create_string_buffer(120), 0, -1, -1, 0)",
    "memory file to run": CALL + "def attempt(t): return sys(319, b'x', 0)",
    "run a file of its own": CALL + "def attempt(t):\n open('x.so', 'wb').write(open(ctypes.__file__, 'rb').read())\n"
    " os.chmod('x.so', 0o755)\n os.execv('./x.so', ['x'])",
    "System V shared memory": CALL + "def attempt(t): return sys(29, 0, 4096, 0o1600)",
    "message queue": CALL + "def attempt(t): return sys(240, b'x', 66, 0o600, 0)",
    "kernel log": CALL + "def attempt(t): return sys(103, 3, ctypes.create_string_buffer(64), 64)",
    "load a module": CALL + "def attempt(t): return sys(175, b'', 0, b'')",
    "reboot": CALL + "def attempt(t): return sys(169, 0xFEE1DEAD, 672274793, 0, 0)",
    "another filter": CALL + "def attempt(t): return sys(317, 0, 0, 0)",
    "lift a limit": "import resource as r\ndef attempt(t):\n r.setrlimit(r.RLIMIT_AS, (-1, -1))\n return True",
    "i386 calls by x32 numbers": CALL + "def attempt(t): return sys(0x40000000 + 41, 2, 1, 0)",
    "terminal input": "import fcntl, termios\ndef attempt(t):\n fcntl.ioctl(0, termios.TIOCSTI, b'x')\n return True",
    # descriptors
    "an inherited descriptor": "import os\ndef attempt(t):\n for fd in range(4, 64):\n  try: os.write(fd, b'x')\n"
    "  except OSError: continue\n  return fd",
}


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    """What the programs are after; all of it must be as before at the end."""
    os.environ["W2S_TEST_SECRET"] = "hush"
    secret = tmp_path_factory.mktemp("host") / "secret.txt"
    secret.write_text("hush")
    abstract = f"\0w2s-test-{os.getpid()}"
    visits = []
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as victim,
    ):
        unix.bind(abstract)
        unix.listen()
        for server in (tcp, unix):
            threading.Thread(target=lambda s=server: visits.append(s.accept()), daemon=True).start()
        found = {"secret": str(secret), "project": __file__, "home": os.path.expanduser("~"), "abstract": abstract}
        yield found | {"port": tcp.getsockname()[1], "pid": victim.pid}
        alive = victim.poll() is None
        victim.kill()
    del os.environ["W2S_TEST_SECRET"]
    assert alive, "a process outside was killed"
    assert not visits, "a program reached a server outside"
    assert [path.name for path in secret.parent.iterdir()] == ["secret.txt"]


@pytest.mark.parametrize("name", ATTEMPTS)
def test_an_escape_attempt_is_contained(name, targets):
    if not X86 and ATTEMPTS[name].startswith(CALL):
        pytest.skip("its call numbers are those of x86-64")
    (reply,) = run_program(ATTEMPTS[name], [("attempt", (targets,))], Limits(10))
    assert reply.status != "ok" or not reply.value, reply
    assert reply.status != "timeout", "it was held up, not held back"


def test_the_same_attempts_succeed_without_walls(targets):
    """The attempts are real: in a plain process they get what they want."""
    for name in (
        "read a secret file",
        "list the home",
        "/proc of others",
        "environment",
        "fork",
        "subprocess",
        "listen",
    ):
        code = f"{ATTEMPTS[name]}\nr = attempt({targets!r})\nassert r, r"
        assert subprocess.run([sys.executable, "-c", code]).returncode == 0, name
