"""Reduce the device rules of `linux.resources.devices`, and word them for the kernel.

The OCI list is sequential: a later rule overrides an earlier one, and a rule for every device
(`type` a) starts over.  The kernel wants a default and exceptions of the opposite sign, in which
order plays no part.  `reduce` turns the one into the other; cgroup v1 gets the exceptions as
lines of devices.allow or devices.deny, cgroup v2 as a small eBPF program.

Spec side:   runtime-spec, config-linux.md, "Allowed Device list" and "Default Devices"
Kernel side: Documentation/admin-guide/cgroup-v1/devices.rst; cgroup-v2.rst, "Device controller"
             (struct bpf_cgroup_dev_ctx and BPF_DEVCG_* of include/uapi/linux/bpf.h)
"""

from __future__ import annotations

from _struct import Struct

from ocirt.errors import At, ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    # type "b" or "c", major, minor (None: any), access bits, place in config.json
    Exception_ = tuple[str, int | None, int | None, int, str]
    Key = tuple[str, int | None, int | None]

MKNOD, READ, WRITE = 1, 2, 4  # BPF_DEVCG_ACC_
ALL = MKNOD | READ | WRITE
ACCESS = {"m": MKNOD, "r": READ, "w": WRITE}
_LETTERS = ("", "m", "r", "rm", "w", "wm", "rw", "rwm")  # by access bits
TYPES = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_

# What every container may use: any node may be made, and the default devices opened.
DEFAULTS: tuple[tuple[Key, int], ...] = (
    (("c", None, None), MKNOD),
    (("b", None, None), MKNOD),
    (("c", 1, 3), ALL),  # /dev/null
    (("c", 1, 5), ALL),  # /dev/zero
    (("c", 1, 7), ALL),  # /dev/full
    (("c", 1, 8), ALL),  # /dev/random
    (("c", 1, 9), ALL),  # /dev/urandom
    (("c", 5, 0), ALL),  # /dev/tty
    (("c", 5, 2), ALL),  # /dev/ptmx
    (("c", 136, None), ALL),  # /dev/pts/*
    (("c", 10, 200), ALL),  # /dev/net/tun
)


def reduce(rules: Iterable[dict[str, Any]]) -> tuple[bool, list[Exception_]]:
    """Return the default (True: allow) and its exceptions, the default devices included.

    ConfigError where a rule takes back a part of a wider exception ("all c devices may be
    read, but not c 1:8"): v1 cannot say that and would silently ignore it.
    """
    table = _Table()
    for i, rule in enumerate(rules):
        where = f"linux.resources.devices[{i}]"
        with At(where):
            table.apply(rule, where)
    with At("default devices"):
        for key, access in DEFAULTS:
            table.put(True, key, access, "default devices")
    return table.allow, [(*key, *value) for key, value in table.exceptions.items()]


def line(kind: str, major: int | None, minor: int | None, access: int) -> str:
    """Word an exception for devices.allow or devices.deny: `c 1:3 rwm`."""
    first = "*" if major is None else major
    second = "*" if minor is None else minor
    return f"{kind} {first}:{second} {_LETTERS[access]}"


class _Table:
    """A default, and exceptions from it: key -> (access bits, where)."""

    def __init__(self) -> None:
        self.allow = False
        self.exceptions: dict[Key, tuple[int, str]] = {}

    def apply(self, rule: dict[str, Any], where: str) -> None:
        kind = rule.get("type") or "a"
        access = 0
        for letter in rule.get("access") or "rwm":
            if letter not in ACCESS:
                raise ConfigError("access", f"{letter!r} is none of r, w and m")
            access |= ACCESS[letter]
        major, minor = _number(rule, "major"), _number(rule, "minor")
        if kind in TYPES:
            self.put(rule["allow"], (kind, major, minor), access, where)
        elif kind != "a":
            raise ConfigError("type", f"{kind!r} is none of a, b and c")
        elif access == ALL and major is None and minor is None:
            self.allow = rule["allow"]
            self.exceptions.clear()
        else:
            # Not every device or not every access: then it is no fresh start, whatever v1
            # makes of such a line.
            for kind in TYPES:
                self.put(rule["allow"], (kind, major, minor), access, where)

    def put(self, allow: bool, key: Key, access: int, where: str) -> None:
        if allow != self.allow:
            had, place = self.exceptions.get(key, (0, where))
            self.exceptions[key] = (had | access, place)
            return
        for other, (had, place) in list(self.exceptions.items()):
            if not had & access:
                continue
            if _covers(key, other):
                if had & ~access:
                    self.exceptions[other] = (had & ~access, place)
                else:
                    del self.exceptions[other]
            elif _overlap(other, key):
                verb = "allow" if allow else "deny"
                raise ConfigError(
                    f"cannot {verb} {line(*key, access)} out of {line(*other, had)} ({place})"
                )


def _number(rule: dict[str, Any], name: str) -> int | None:
    value = rule.get(name)
    if value is None or value == -1:
        return None
    if not 0 <= value < 1 << 31:
        raise ConfigError(name, f"{value} is no device number")
    return int(value)


def _covers(wide: Key, narrow: Key) -> bool:
    return wide[0] == narrow[0] and wide[1] in (None, narrow[1]) and wide[2] in (None, narrow[2])


def _overlap(one: Key, two: Key) -> bool:
    """Tell whether some device is meant by both keys."""
    return one[0] == two[0] and all(
        a is None or b is None or a == b for a, b in zip(one[1:], two[1:], strict=True)
    )


# --- cgroup v2: an eBPF program.  struct bpf_insn is opcode, registers (source << 4 | target),
# offset of a jump, immediate; the opcodes are sums of BPF_ constants of include/uapi/linux/bpf.h.
_INSN = Struct("=BBhi")
_LOAD = 0x61  # BPF_LDX | BPF_MEM | BPF_W: target = *(u32 *)(source + offset)
_COPY = 0xBC  # BPF_ALU | BPF_MOV | BPF_X
_SET = 0xB4  # BPF_ALU | BPF_MOV | BPF_K
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_SHIFT_RIGHT = 0x74  # BPF_ALU | BPF_RSH | BPF_K
_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_UNLESS_EQUAL = 0x55  # BPF_JMP | BPF_JNE | BPF_K
_EXIT = 0x95  # BPF_JMP | BPF_EXIT

_VERDICT, _CONTEXT, _TYPE, _ASKED, _SCRATCH = range(5)  # registers
_AT_MAJOR, _AT_MINOR = 4, 8  # in struct bpf_cgroup_dev_ctx; access_type is at 0


def program(rules: Iterable[dict[str, Any]]) -> bytes | None:
    """Return a program of BPF_PROG_TYPE_CGROUP_DEVICE, or None where everything is allowed.

    With "deny" as default each exception strikes out the access bits that it grants, and
    nothing left means allowed; with "allow" an exception that holds any of the bits denies.
    """
    allow, exceptions = reduce(rules)
    if allow and not exceptions:
        return None
    code = [
        _insn(_LOAD, _TYPE, _CONTEXT, 0),  # access_type: the type, and the access << 16
        _insn(_COPY, _ASKED, _TYPE),
        _insn(_AND, _TYPE, value=0xFFFF),
        _insn(_SHIFT_RIGHT, _ASKED, value=16),
    ]
    for kind, major, minor, access, _ in exceptions:
        code += _exception(allow, TYPES[kind], major, minor, access)
    code += [_insn(_SET, _VERDICT, value=int(allow)), _insn(_EXIT)]
    return b"".join(code)


def _insn(opcode: int, target: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return _INSN.pack(opcode, source << 4 | target, offset, value)


def _exception(
    allow: bool, kind: int, major: int | None, minor: int | None, access: int
) -> list[bytes]:
    """Return the block of one exception; built from its end, for the jumps over what follows."""
    block = [_insn(_SET, _VERDICT, value=int(not allow)), _insn(_EXIT)]
    if access != ALL and allow:
        block.insert(0, _insn(_IF_EQUAL, _SCRATCH, offset=len(block), value=0))
        block.insert(0, _insn(_AND, _SCRATCH, value=access))
        block.insert(0, _insn(_COPY, _SCRATCH, _ASKED))
    elif access != ALL:
        block.insert(0, _insn(_UNLESS_EQUAL, _ASKED, offset=len(block), value=0))
        block.insert(0, _insn(_AND, _ASKED, value=~access))
    # Numbers are loaded for each comparison: kept in a register, they would make the kernel's
    # verifier follow every block once for each outcome of all the blocks before it.
    for at, number in ((_AT_MINOR, minor), (_AT_MAJOR, major)):
        if number is not None:
            block.insert(0, _insn(_UNLESS_EQUAL, _SCRATCH, offset=len(block), value=number))
            block.insert(0, _insn(_LOAD, _SCRATCH, _CONTEXT, at))
    block.insert(0, _insn(_UNLESS_EQUAL, _TYPE, offset=len(block), value=kind))
    return block
