"""The system calls that a program may make: an allowlist as a classic BPF filter (seccomp(2)), x86-64 and aarch64.

All others fail with EPERM: no new process, no exec, no socket but a socket pair, no signals to others, no ptrace,
mount, namespaces, bpf, io_uring, keyctl, perf, userfaultfd, shared memory segments, message queues, or locks that
other processes could see.
"""

import ctypes
import errno
import functools
import platform
import struct

# name x86-64 aarch64; "-" where the machine has no such call. From the kernel's unistd headers.
ALLOWED = """
read 0 63; write 1 64; readv 19 65; writev 20 66; pread64 17 67; pwrite64 18 68; preadv 295 69; pwritev 296 70;
lseek 8 62; close 3 57; close_range 436 436; fstat 5 80; stat 4 -; lstat 6 -; newfstatat 262 79; statx 332 291;
access 21 -; faccessat 269 48; faccessat2 439 439; open 2 -; openat 257 56; getcwd 79 17; chdir 80 49; fchdir 81 50;
mkdir 83 -; mkdirat 258 34; rmdir 84 -; unlink 87 -; unlinkat 263 35; rename 82 -; renameat 264 38;
renameat2 316 276; symlink 88 -; symlinkat 266 36; readlink 89 -; readlinkat 267 78; truncate 76 45;
ftruncate 77 46; fsync 74 82; fdatasync 75 83; getdents 78 -; getdents64 217 61; dup 32 23; dup2 33 -; dup3 292 24;
pipe 22 -; pipe2 293 59; poll 7 -; ppoll 271 73; select 23 -; pselect6 270 72; epoll_create1 291 20;
epoll_ctl 233 21; epoll_wait 232 -; epoll_pwait 281 22; eventfd2 290 19; chmod 90 -;
fchmod 91 52; fchmodat 268 53; utimensat 280 88; umask 95 166; statfs 137 43; fstatfs 138 44;
copy_file_range 326 285; sendfile 40 71; fadvise64 221 223; fallocate 285 47; mmap 9 222; munmap 11 215;
mprotect 10 226; mremap 25 216; madvise 28 233; brk 12 214; msync 26 227; mincore 27 232; membarrier 324 283;
rt_sigaction 13 134; rt_sigprocmask 14 135; rt_sigreturn 15 139; rt_sigpending 127 136; rt_sigtimedwait 128 137;
rt_sigsuspend 130 133; sigaltstack 131 132; getpid 39 172; gettid 186 178; getppid 110 173; getuid 102 174;
geteuid 107 175; getgid 104 176; getegid 108 177; getresuid 118 148; getresgid 120 150; getgroups 115 158;
getpgid 121 155; getpgrp 111 -; getsid 124 156; clock_gettime 228 113; clock_getres 229 114;
clock_nanosleep 230 115; nanosleep 35 101; gettimeofday 96 169; time 201 -; times 100 153; getrusage 98 165;
getitimer 36 102; setitimer 38 103; alarm 37 -; pause 34 -; sched_yield 24 124; sched_getaffinity 204 123;
getcpu 309 168; futex 202 98; futex_waitv 449 449; set_robust_list 273 99; get_robust_list 274 100; rseq 334 293;
set_tid_address 218 96; arch_prctl 158 -; exit 60 93; exit_group 231 94; restart_syscall 219 128; uname 63 160;
sysinfo 99 179; getrandom 318 278; getrlimit 97 163; wait4 61 260; waitid 247 95; sendto 44 206; recvfrom 45 207;
shutdown 48 210; getsockopt 55 209; setsockopt 54 208; getsockname 51 204; getpeername 52 205
"""
# Allowed for some arguments only; the rules are in `program`.
GUARDED = "clone 56 220; clone3 435 435; fcntl 72 25; ioctl 16 29; prlimit64 302 261; socketpair 53 199"
MACHINES = {"x86_64": (1, 0xC000003E), "aarch64": (2, 0xC00000B7)}  # column of the table, AUDIT_ARCH

CLONE_THREAD = 0x00010000
NEW_NAMESPACES = 0x7E020080  # CLONE_NEW{TIME,NS,CGROUP,UTS,IPC,USER,PID,NET}
FCNTLS = (0, 1, 2, 3, 1030)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC: no locks, leases, owners, signals
F_SETFL, O_ASYNC = 4, 0x2000
IOCTLS = (0x5401, 0x5450, 0x5451, 0x5421, 0x541B)  # TCGETS, FIONCLEX, FIOCLEX, FIONBIO, FIONREAD
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
Steps = list[tuple[int, int, int, int]]  # code, jump if true, jump if false, operand


def supported() -> bool:
    return platform.machine() in MACHINES


def numbers(table: str, machine: str) -> dict[str, int]:
    column = MACHINES[machine][0]
    cells = [line.split() for line in table.split(";")]
    return {line[0]: int(line[column]) for line in cells if line[column] != "-"}


def within(ranges: list[tuple[int, int]], allow: Steps, refuse: Steps) -> Steps:
    """Binary search: the kernel walks a new filter once per call number, so a long chain would slow down each start."""
    if len(ranges) == 1:
        ((first, last),) = ranges
        return [(AT_LEAST, 0, 2, first), (AT_LEAST, 1, 0, last + 1), *allow, *refuse]
    low, high = (within(half, allow, refuse) for half in (ranges[: len(ranges) // 2], ranges[len(ranges) // 2 :]))
    return [(AT_LEAST, len(low), 0, ranges[len(ranges) // 2][0]), *low, *high]


@functools.cache
def program(machine: str) -> bytes:
    """The filter, as struct sock_filter[]."""
    guarded = numbers(GUARDED, machine)
    allow: Steps = [(RETURN, 0, 0, ALLOW)]
    refuse: Steps = [(RETURN, 0, 0, REFUSE | errno.EPERM)]

    def under(name: str, steps: Steps) -> Steps:
        return [(EQUAL, 0, len(steps), guarded[name]), *steps]

    def chosen(values: tuple[int, ...]) -> Steps:
        return [step for value in values for step in ((EQUAL, 0, 1, value), *allow)]

    def only(name: str, argument: int, *values: int) -> Steps:
        return under(name, [(LOAD, 0, 0, 16 + 8 * argument), *chosen(values), *refuse])

    steps: Steps = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, MACHINES[machine][1]), (RETURN, 0, 0, KILL), (LOAD, 0, 0, 0)]
    thread = [(LOAD, 0, 0, 16), (ANY_BIT, 0, 2, CLONE_THREAD), (ANY_BIT, 1, 0, NEW_NAMESPACES), *allow, *refuse]
    steps += under("clone", thread)
    # glibc falls back to clone, whose flags a filter can see.
    steps += under("clone3", [(RETURN, 0, 0, REFUSE | errno.ENOSYS)])
    reading = [(LOAD, 0, 0, 32), (EQUAL, 0, 3, 0), (LOAD, 0, 0, 36), (EQUAL, 0, 1, 0), *allow, *refuse]
    steps += under("prlimit64", reading)  # reading a limit, not setting one
    flags = [(EQUAL, 0, 3, F_SETFL), (LOAD, 0, 0, 32), (ANY_BIT, 1, 0, O_ASYNC), *allow]
    steps += under("fcntl", [(LOAD, 0, 0, 24), *chosen(FCNTLS), *flags, *refuse])
    steps += only("ioctl", 1, *IOCTLS) + only("socketpair", 0, 1)
    ranges: list[tuple[int, int]] = []
    for number in sorted(numbers(ALLOWED, machine).values()):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return b"".join(struct.pack("=HBBI", *step) for step in [*steps, *within(ranges, allow, refuse)])


class Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def install() -> None:
    """Allow this process no other system calls from now on. OSError where the kernel has no seccomp filters."""
    steps = program(platform.machine())
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(Filter(len(steps) // 8, steps)), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")
