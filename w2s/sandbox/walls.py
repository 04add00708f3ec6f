"""The walls around a program, built with bare system calls: namespaces and mounts, capabilities, Landlock.

Runs in the process to be confined, before it has any untrusted code. References: namespaces(7), pivot_root(2),
mount_setattr(2), capabilities(7), landlock(7).
"""

import contextlib
import ctypes
import os
import platform
import signal
import socket
import struct
from collections.abc import Sequence

UNSHARE = 0x7E020000  # new cgroup, UTS, IPC, user, PID, network and mount namespaces
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH, AT_FDCWD, AT_RECURSIVE = 2, -100, 0x8000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
CAPSET = {"x86_64": 126, "aarch64": 91}
MOUNT_SETATTR, LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_ENFORCE = 442, 444, 445, 446  # the same on every machine
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
INSIDE_ID = 1000
LIBRARIES = "/libraries"

Channel, Paths = socket.socket, Sequence[str]

libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> int:
    """A libc function by name, or a system call by number; OSError when it fails."""
    given = [ctypes.c_long(a) if isinstance(a, int) else a.encode() if isinstance(a, str) else a for a in arguments]
    result = getattr(libc, name)(*given)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{arguments[:3]}: {os.strerror(number)}")
    return result


def separate(control: Channel, root: str, reads: Paths, hidden: Paths, libraries: Paths, scratch_mb: int) -> None:
    """Continue as process 1 of new namespaces, which see only `reads` (read-only) and an empty /tmp of their own.

    libraries: packages that appear in LIBRARIES, wherever they are outside. root: an empty folder in which the new tree
    is built. The caller at the other end of `control` writes the id maps on b"M", because only a process outside may
    map two ids (`id_maps`), and answers with a byte.
    """
    call("unshare", UNSHARE)
    control.send(b"M")
    control.recv(1)
    outer = os.fork()
    if outer:
        control.close()
        os.waitpid(outer, 0)
        os._exit(0)
    call("mount", "none", "/", None, MS_REC | MS_PRIVATE, None)
    call("mount", "tmpfs", root, "tmpfs", MS_NOSUID, "size=4m,mode=755")
    for path in (*reads, *DEVICES):
        place(path, root + path)
    for path in filter(os.path.isdir, hidden):
        call("mount", "tmpfs", root + path, "tmpfs", MS_NOSUID | MS_NODEV, "size=4k,mode=755")
    for path in libraries:
        place(path, f"{root}{LIBRARIES}/{os.path.basename(path)}")
    os.makedirs(root + LIBRARIES, exist_ok=True)
    os.mkdir(root + "/tmp")
    os.chdir(root)
    call("syscall", PIVOT_ROOT[platform.machine()], b".", b".")
    call("umount2", ".", MNT_DETACH)
    os.chdir("/")
    read_only = struct.pack("4Q", MS_RDONLY | MS_NOSUID, 0, 0, 0)  # struct mount_attr: set, clear, propagation, userns
    call("syscall", MOUNT_SETATTR, AT_FDCWD, b"/", AT_RECURSIVE, read_only, len(read_only))
    options = f"size={scratch_mb}m,nr_inodes=4096,mode=700,uid={INSIDE_ID},gid={INSIDE_ID}"
    call("mount", "tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
    call("sethostname", "sandbox", 7)


def place(source: str, target: str) -> None:
    """Bind `source` (a file or folder; a missing one is skipped) to `target`."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif os.path.exists(source):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o444))
    else:
        return
    call("mount", source, target, None, MS_BIND | MS_REC, None)


def id_maps(pid: int) -> None:
    """Write the id maps of a process that has just entered its own user namespace.

    Root maps two ids: itself, to build the tree, and the overflow id 65534, for programs: the kernel exempts
    root from RLIMIT_NPROC, and root's files stay out of reach. Other users can map only their own id.
    """
    maps = [f"0 0 1\n{INSIDE_ID} 65534 1\n"] if os.geteuid() == 0 else []
    for kind, own in (("uid", os.geteuid()), ("gid", os.getegid())):
        if not maps:
            write(f"/proc/{pid}/setgroups", "deny")
        for text in (*maps, f"{INSIDE_ID} {own} 1\n"):
            try:
                write(f"/proc/{pid}/{kind}_map", text)
                break
            except OSError:
                if text not in maps:
                    raise


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def give_up_power() -> None:
    """Become an ordinary user that has no capabilities, cannot gain any, and whose memory no other process may read."""
    if os.getuid() == 0:
        with contextlib.suppress(OSError):  # an outer sandbox may forbid it; the groups then map to nobody
            os.setgroups([])
        with contextlib.suppress(OSError):  # 1000 is not mapped where the caller could map one id only
            os.setresgid(*[INSIDE_ID] * 3)
            os.setresuid(*[INSIDE_ID] * 3)
    header = struct.pack("Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    call("syscall", CAPSET[platform.machine()], header, bytes(24))
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # last: a change of ids clears it


def landlock(reads: Sequence[str], folder: str) -> int:
    """Deny this process and its children all files except `reads` (read) and `folder` (all but devices and sockets).

    Also deny TCP, and abstract sockets and signals to outside processes, as far as the kernel's version supports that.
    Returns Landlock's version, 0 where the kernel has none.
    """
    try:
        version = call("syscall", LANDLOCK_CREATE, None, 0, 1)
    except OSError:
        return 0
    files = (1 << {1: 13, 2: 14}.get(version, 15 if version < 5 else 16)) - 1
    attributes = struct.pack("3Q", files, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    ruleset = call("syscall", LANDLOCK_CREATE, attributes, {1: 8, 2: 8, 3: 8, 4: 16, 5: 16}.get(version, 24), 0)
    on_file = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15  # execute, write, read, truncate, ioctl
    read, devices = 1 << 2 | 1 << 3, 1 << 1 | 1 << 2 | 1 << 14
    no_nodes = files & ~(1 << 0 | 1 << 6 | 1 << 9 | 1 << 11)  # not: execute, make devices and sockets
    rules = [(path, read | 1 << 0) for path in reads] + [(path, devices) for path in DEVICES] + [(folder, no_nodes)]
    for path, rights in rules:
        with contextlib.suppress(FileNotFoundError):
            at = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rights &= files if os.path.isdir(path) else files & on_file
            call("syscall", LANDLOCK_ADD, ruleset, 1, struct.pack("=Qi", rights, at), 0)
            os.close(at)
    call("syscall", LANDLOCK_ENFORCE, ruleset, 0)
    os.close(ruleset)
    return version
