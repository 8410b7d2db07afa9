"""Run a seccomp program (classic BPF) on a made-up system call, by the kernel's rules.

bpf(4) of BSD and Documentation/networking/filter.rst; the checks are those of the kernel's
bpf_check_classic and seccomp_check_filter, so that a program that it would refuse fails here.
"""

from __future__ import annotations

import struct

MOST = 4096
WORD = 0xFFFFFFFF
JUMPS = {0x15: "==", 0x25: ">", 0x35: ">=", 0x45: "&"}


def decode(program):
    assert len(program) % 8 == 0
    code = list(struct.iter_unpack("=HBBI", program))
    assert 0 < len(code) <= MOST
    for place, (op, if_true, if_false, value) in enumerate(code):
        if op == 0x20:
            assert value % 4 == 0
            assert value < 64
        elif op == 0x05:
            assert place + 1 + value < len(code)
        elif op in JUMPS:
            assert place + 1 + max(if_true, if_false) < len(code)
        else:
            assert op in (0x06, 0x54, 0x07, 0x87), f"operation {op:#x}"
    assert code[-1][0] == 0x06
    return code


def run(code, arch, number, args=(0,) * 6):
    """Return the action that decoded `code` takes."""
    return trace(code, arch, number, args)[-1][3]


def trace(code, arch, number, args=(0,) * 6):
    """Return the instructions that decoded `code` goes through, the last of which returns."""
    steps = []
    data = struct.pack("=IIQ6Q", number & WORD, arch, 0x7F0000000000, *args)
    accumulator = index = place = 0
    while True:
        op, if_true, if_false, value = code[place]
        steps.append(code[place])
        place += 1
        if op == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif op == 0x54:
            accumulator &= value
        elif op == 0x07:
            index = accumulator
        elif op == 0x87:
            accumulator = index
        elif op == 0x05:
            place += value
        elif op == 0x06:
            return steps
        else:
            true = {
                "==": accumulator == value,
                ">": accumulator > value,
                ">=": accumulator >= value,
                "&": accumulator & value != 0,
            }[JUMPS[op]]
            place += if_true if true else if_false
