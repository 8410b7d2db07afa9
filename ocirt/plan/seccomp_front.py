"""What stands in front of libseccomp's program: answers that it would get wrong, or not give.

ENOSYS beyond the profile.  A profile lists what its author knew.  A C library that is newer tries
newer calls first and falls back on ENOSYS only; the profile's default, mostly EPERM, breaks it
(clone3, faccessat2).  So where the default is to refuse, a call above all that the profile names
gets ENOSYS.

Tangled rules.  libseccomp (2.5.4) merges several rules with conditions for one system call into a
tree.  Where they compare one argument by anything but equality it loses some of them (`arg0 >=
2**63 or arg0 < 2**31` lets 2**32 - 1 pass), and now and then it never returns.  Such calls are
decided here, rule by rule in the profile's order.

For each architecture, one section; a call that it does not decide runs out of its end, and at
last into libseccomp's program, which loads afresh what it wants to know.

seccomp(2); linux/filter.h, linux/bpf_common.h; struct seccomp_data of linux/seccomp.h.
"""

from __future__ import annotations

import sys
from _struct import Struct
from errno import ENOSYS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.plan.libseccomp import Comparison

    # one instruction: code, value, what to do if true, if false; 0 goes on
    Step = tuple[int, int, int, int]
    # the rules of one system call: (action, conditions that all have to hold)
    Rules = list[tuple[int, list[Comparison]]]

# linux/audit.h; libseccomp's tokens are the kernel's numbers, but for x32, which the kernel tells
# from x86-64 by a bit of the system call's number
AUDIT_ARCH_64BIT = 0x80000000
AUDIT_ARCH_S390 = 0x00000016
AUDIT_ARCH_S390X = 0x80000016
AUDIT_ARCH_X86_64 = 0xC000003E
ARCH_X32 = 0x4000003E
X32_BIT = 0x40000000

# linux/bpf_common.h
LD_ABS = 0x20  # BPF_LD | BPF_W | BPF_ABS
AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
JA = 0x05  # BPF_JMP | BPF_JA
JEQ = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
JGT = 0x25  # BPF_JMP | BPF_JGT | BPF_K
JGE = 0x35  # BPF_JMP | BPF_JGE | BPF_K
JSET = 0x45  # BPF_JMP | BPF_JSET | BPF_K
RET = 0x06  # BPF_RET | BPF_K

RET_ENOSYS = 0x00050000 | ENOSYS

# struct seccomp_data
NR, ARCH, ARGS = 0, 4, 16
LOW, HIGH = (0, 4) if sys.byteorder == "little" else (4, 0)

# enum scmp_compare of libseccomp: the jumps that decide on the lower half; PASS and FAIL
# are resolved once the length of what follows is known
PASS, FAIL = -1, -2
NE, LT, LE, EQ, GE, GT, MASKED_EQ = range(1, 8)
EXACT = (EQ, MASKED_EQ)
LOWER = {
    NE: (JEQ, FAIL, PASS),
    LT: (JGE, FAIL, PASS),
    LE: (JGT, FAIL, PASS),
    EQ: (JEQ, PASS, FAIL),
    GE: (JGE, PASS, FAIL),
    GT: (JGT, PASS, FAIL),
    MASKED_EQ: (JEQ, PASS, FAIL),
}
UPPER: dict[int, tuple[tuple[int, int, int], ...]] = {
    NE: ((JEQ, 0, PASS),),
    LT: ((JGT, FAIL, 0), (JEQ, 0, PASS)),
    LE: ((JGT, FAIL, 0), (JEQ, 0, PASS)),
    EQ: ((JEQ, 0, FAIL),),
    GE: ((JGT, PASS, 0), (JEQ, 0, FAIL)),
    GT: ((JGT, PASS, 0), (JEQ, 0, FAIL)),
    MASKED_EQ: ((JEQ, 0, FAIL),),
}

_INSTRUCTION = Struct("=HBBI")


def is_tangled(rules: Rules) -> bool:
    """Whether libseccomp cannot be trusted with these rules of one system call."""
    # A rule without conditions outweighs all others there, and leaves no tree.
    if len(rules) < 2 or any(not conditions for _, conditions in rules):
        return False
    return any(one.op not in EXACT for _, conditions in rules for one in conditions)


def front(last: dict[int, int], tangled: dict[int, list[tuple[int, Rules]]], default: int) -> bytes:
    """Return the instructions to put in front.

    Both are keyed by libseccomp's token of an architecture.  last: the largest number that the
    profile names, where calls beyond it are to get ENOSYS.  tangled: (number, rules) of the
    system calls to be decided here; `default` is the action when none of the rules holds.

    An architecture that is in neither is left to libseccomp's program, and so are the numbers of
    x32 where x32 is not in the profile.
    """
    code = b""
    tokens = list(dict.fromkeys([*last, *tangled]))
    audits = dict.fromkeys(AUDIT_ARCH_X86_64 if token == ARCH_X32 else token for token in tokens)
    # From the last to the first, since each section jumps over all that follow it.
    for audit in reversed(audits):
        body = _op(LD_ABS, NR) + _above(audit, last)
        for token in (audit, ARCH_X32) if audit == AUDIT_ARCH_X86_64 else (audit,):
            for number, rules in tangled.get(token, ()):
                body += _decide(number, rules, default, bool(token & AUDIT_ARCH_64BIT))
        body += _op(JA, count(code))
        code = _op(JEQ, audit, 1, 0) + _op(JA, count(body)) + body + code
    return _op(LD_ABS, ARCH) + code if code else b""


def count(code: bytes) -> int:
    """Return the number of instructions."""
    return len(code) // _INSTRUCTION.size


def _above(audit: int, last: dict[int, int]) -> bytes:
    """Refuse the numbers beyond the last one known, with the number loaded."""
    plain = _refuse_above(last.get(audit))
    if audit in (AUDIT_ARCH_S390, AUDIT_ARCH_S390X) and plain:
        # The kernel shows a number beyond its table as 0: straight to the refusal.
        return _op(JEQ, 0, 1, 0) + plain
    if audit == AUDIT_ARCH_X86_64:
        wide = _refuse_above(last.get(ARCH_X32))
        if not plain + wide:
            return b""
        plain += _op(JA, count(wide))
        return _op(JSET, X32_BIT, count(plain), 0) + plain + wide
    return plain


def _refuse_above(number: int | None) -> bytes:
    return b"" if number is None else _op(JGT, number, 0, 1) + _op(RET, RET_ENOSYS)


def _decide(number: int, rules: Rules, default: int, wide: bool) -> bytes:
    """Decide one system call for good, with the number loaded."""
    body = b"".join(_rule(action, conditions, wide) for action, conditions in rules)
    body += _op(RET, default)
    return _op(JEQ, number, 1, 0) + _op(JA, count(body)) + body


def _rule(action: int, conditions: list[Comparison], wide: bool) -> bytes:
    """Return `action` if all conditions hold, else run out of the end."""
    groups = [_condition(one, wide) for one in conditions]
    end = sum(map(len, groups)) + 1
    code, place = b"", 0
    for group in groups:
        after = place + len(group)
        for operation, value, *jumps in group:
            place += 1
            targets = {0: 0, PASS: after - place, FAIL: end - place}
            code += _op(operation, value, *[targets[jump] for jump in jumps])
    return code + _op(RET, action)


def _condition(one: Comparison, wide: bool) -> list[Step]:
    """Compare an argument, the upper half first; a 32-bit architecture has the lower one only."""
    masked = one.op == MASKED_EQ
    value = one.datum_a & one.datum_b if masked else one.datum_a
    steps: list[Step] = []
    for shift, offset in ((32, HIGH), (0, LOW)):
        if shift and not wide:
            continue
        half = value >> shift & 0xFFFFFFFF
        steps.append((LD_ABS, ARGS + 8 * one.arg + offset, 0, 0))
        if masked:
            steps.append((AND, one.datum_a >> shift & 0xFFFFFFFF, 0, 0))
        jumps = UPPER[one.op] if shift else (LOWER[one.op],)
        steps += [(code, half, if_true, if_false) for code, if_true, if_false in jumps]
    return steps


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, if_true, if_false, value)
