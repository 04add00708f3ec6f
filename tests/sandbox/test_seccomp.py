"""The filter is run here by a small interpreter of classic BPF, for both machines."""

import struct

import pytest

from w2s.sandbox import seccomp


def verdict(machine, number, *arguments, arch=None):
    arguments = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("=IIQ6Q", number, arch or seccomp.MACHINES[machine][1], 0, *arguments)
    steps = list(struct.iter_unpack("=HBBI", seccomp.program(machine)))
    at = held = 0
    while True:
        code, if_true, if_false, operand = steps[at]
        at += 1
        if code == seccomp.RETURN:
            return operand
        if code == seccomp.LOAD:
            (held,) = struct.unpack_from("=I", data, operand)
        else:
            tests = {seccomp.EQUAL: held == operand, seccomp.AT_LEAST: held >= operand, seccomp.ANY_BIT: held & operand}
            at += if_true if tests[code] else if_false


@pytest.mark.parametrize("machine", seccomp.MACHINES)
def test_exactly_the_listed_calls_are_allowed(machine):
    listed = set(seccomp.numbers(seccomp.ALLOWED, machine).values())
    guarded = set(seccomp.numbers(seccomp.GUARDED, machine).values())
    for number in {*range(700), *range(0x40000000, 0x40000300)} - guarded:
        assert (verdict(machine, number) == seccomp.ALLOW) == (number in listed), number


@pytest.mark.parametrize("machine", seccomp.MACHINES)
def test_guarded_calls_are_allowed_for_some_arguments_only(machine):
    number = seccomp.numbers(seccomp.GUARDED, machine)
    thread = 0x3D0F00  # what glibc passes for a thread
    assert verdict(machine, number["clone"], thread) == seccomp.ALLOW
    for flags in (17, 0x4111, thread | 0x10000000, thread | 0x20000000):
        assert verdict(machine, number["clone"], flags) != seccomp.ALLOW
    assert verdict(machine, number["clone3"]) != seccomp.ALLOW
    assert verdict(machine, number["prlimit64"], 0, 9, 0, 1) == seccomp.ALLOW
    for pointer in (1, 1 << 40):
        assert verdict(machine, number["prlimit64"], 0, 9, pointer, 0) != seccomp.ALLOW
    assert verdict(machine, number["socketpair"], 1) == seccomp.ALLOW
    assert verdict(machine, number["socketpair"], 2) != seccomp.ALLOW
    assert verdict(machine, number["fcntl"], 0, 1030, 3) == seccomp.ALLOW
    assert verdict(machine, number["fcntl"], 0, 4, 0x800) == seccomp.ALLOW
    for order, value in ((4, 0x2800), (6, 0), (8, 1), (10, 40), (15, 0), (37, 0), (1024, 0), (1026, 0)):
        assert verdict(machine, number["fcntl"], 0, order, value) != seccomp.ALLOW
    assert verdict(machine, number["ioctl"], 0, 0x5401) == seccomp.ALLOW
    assert verdict(machine, number["ioctl"], 0, 0x5412) != seccomp.ALLOW


@pytest.mark.parametrize("machine", seccomp.MACHINES)
def test_calls_of_another_machine_end_the_process(machine):
    assert verdict(machine, 1, arch=0x40000003) == seccomp.KILL
