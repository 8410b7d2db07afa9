"""Compile a `linux.seccomp`: libseccomp's program, behind a stub for system calls yet to come.

A profile lists what its author knew.  A C library that is newer tries newer calls first and falls
back on ENOSYS only; the profile's default, mostly EPERM, breaks it (clone3, faccessat2).  So where
the default is to refuse, a call above all that the profile names gets ENOSYS.

Only run on a miss of the cache in `seccomp.py`.  To support one more action or flag, add a row.

runtime-spec, config-linux.md, "Seccomp"; seccomp(2); bpf_prog of linux/filter.h.
"""

from __future__ import annotations

from _struct import Struct
from errno import ENOSYS, EPERM

from ocirt.errors import At, ConfigError
from ocirt.plan.libseccomp import COMPARE, MOST_ARGS, NO_SUCH_SYSCALL, Comparison, Library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.plan.libseccomp import Filter

# linux/seccomp.h; the low 16 bits are the action's data
ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
WITH_DATA = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
NOTIFY = "SCMP_ACT_NOTIFY"
LARGEST_ERRNO = 4095

# linux/seccomp.h.  TSYNC is about further threads; the init has none.
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,
    "SECCOMP_FILTER_FLAG_LOG": 1 << 1,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 1 << 2,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 1 << 5,
}
DEFAULT_FLAGS = ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
WAIT_KILLABLE_RECV = FLAGS["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]

# linux/audit.h; libseccomp's tokens are the kernel's numbers, but for x32, which the kernel tells
# from x86-64 by a bit of the system call's number
AUDIT_ARCH_S390 = 0x00000016
AUDIT_ARCH_S390X = 0x80000016
AUDIT_ARCH_X86_64 = 0xC000003E
ARCH_X32 = 0x4000003E
X32_BIT = 0x40000000

# linux/bpf_common.h, as the operations that the stub needs
LD_ABS = 0x20  # BPF_LD | BPF_W | BPF_ABS
JA = 0x05  # BPF_JMP | BPF_JA
JEQ = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
JGT = 0x25  # BPF_JMP | BPF_JGT | BPF_K
JSET = 0x45  # BPF_JMP | BPF_JSET | BPF_K
RET = 0x06  # BPF_RET | BPF_K
MOST_INSTRUCTIONS = 4096  # BPF_MAXINSNS

# struct seccomp_data
NR, ARCH = 0, 4

# Beyond so many rules the search by halves is worth its code; and libseccomp up to 2.5.4 goes
# wrong with it when there are none.
MANY = 32

_INSTRUCTION = Struct("=HBBI")


def build(section: dict[str, Any]) -> tuple[bytes, int, bool, str]:
    """Return the program, the flags for seccomp(2), whether it notifies, and libseccomp's file."""
    flags = _flags(section)
    listener = _check_notify(section)
    if not listener:
        flags &= ~WAIT_KILLABLE_RECV  # nobody waits, and the kernel refuses it then
    library = Library()
    default_name = section["defaultAction"]
    default = _action(default_name, section.get("defaultErrnoRet"), "defaultErrnoRet")
    rules = section.get("syscalls") or ()
    architectures = _architectures(section, library)
    with library.filter(default) as new:
        for index, token in enumerate(architectures):
            with At(f"architectures[{index}]"):
                new.add_architecture(token)
        if len(rules) > MANY:
            new.optimize()
        for index, rule in enumerate(rules):
            with At(f"syscalls[{index}]"):
                _add(rule, default, new, library)
        program = new.export()
    if default_name not in PERMISSIVE and default != ACTIONS["SCMP_ACT_ERRNO"] | ENOSYS:
        names = {name for rule in rules for name in rule["names"]}
        program = stub(_last(names, architectures, library)) + program
    count = _count(program)
    if count > MOST_INSTRUCTIONS:
        raise ConfigError(f"comes to {count} instructions, the kernel takes {MOST_INSTRUCTIONS}")
    return program, flags, listener, library.path


def _flags(section: dict[str, Any]) -> int:
    """Return the flags for seccomp(2); without a list it is SPEC_ALLOW, with an empty one none."""
    names = section.get("flags")
    flags = 0
    for index, name in enumerate(DEFAULT_FLAGS if names is None else names):
        if name not in FLAGS:
            raise ConfigError(f"flags[{index}]", f"seccomp flag {name} is not known to ocirt")
        flags |= FLAGS[name]
    return flags


def _check_notify(section: dict[str, Any]) -> bool:
    """Whether some rule notifies; refuse what could only lead to a deadlock."""
    if section["defaultAction"] == NOTIFY:
        raise ConfigError("defaultAction", f"{NOTIFY} cannot be used as default action")
    notifies = False
    for index, rule in enumerate(section.get("syscalls") or ()):
        if rule["action"] == NOTIFY:
            notifies = True
            # The init itself has to write while nobody listens yet.
            if "write" in rule["names"]:
                raise ConfigError(
                    f"syscalls[{index}]", f"{NOTIFY} cannot be used for the write syscall"
                )
    if notifies and not section.get("listenerPath"):
        raise ConfigError("listenerPath", f"is needed for {NOTIFY}")
    return notifies


def _action(name: str, data: int | None, field: str) -> int:
    """Return the kernel's number of an action, with its errno if it takes one."""
    action = ACTIONS.get(name)
    if action is None:
        raise ConfigError(f"string {name} is not a valid action for seccomp")
    if name in WITH_DATA:
        value = EPERM if data is None else data
        if not 0 <= value <= (LARGEST_ERRNO if name == "SCMP_ACT_ERRNO" else 0xFFFF):
            raise ConfigError(field, f"{value} is not an errno")
        return action | value
    if data is not None:
        raise ConfigError(field, f"{name} takes no errno")
    return action


def _architectures(section: dict[str, Any], library: Library) -> list[int]:
    """Return libseccomp's tokens: those named, and the machine's own."""
    found = []
    for index, name in enumerate(section.get("architectures") or ()):
        token = library.architecture(name.removeprefix("SCMP_ARCH_").lower())
        if not token:
            raise ConfigError(
                f"architectures[{index}]", f"string {name} is not a valid arch for seccomp"
            )
        found.append(token)
    if library.native() not in found:
        found.append(library.native())
    return found


def _add(rule: dict[str, Any], default: int, new: Filter, library: Library) -> None:
    """Add one entry of `syscalls`."""
    action = _action(rule["action"], rule.get("errnoRet"), "errnoRet")
    conditions = []
    for index, condition in enumerate(rule.get("args") or ()):
        with At(f"args[{index}]"):
            conditions.append(_comparison(condition))
    if action == default:
        return  # libseccomp refuses a rule that changes nothing
    used = [condition.arg for condition in conditions]
    if len(set(used)) < len(used):
        # libseccomp takes an argument once per rule.  The peers then read all conditions of the
        # entry as alternatives, and profiles rely on it.
        groups = [[condition] for condition in conditions]
    else:
        groups = [conditions]
    for name in rule["names"]:
        number = library.syscall(name)
        if number == NO_SUCH_SYSCALL:
            continue  # profiles name calls of every kernel there is
        for group in groups:
            with At(name):
                new.add_rule(action, number, group)


def _comparison(condition: dict[str, Any]) -> Comparison:
    op = COMPARE.get(condition["op"])
    if op is None:
        raise ConfigError(f"string {condition['op']} is not a valid operator for seccomp")
    if not 0 <= condition["index"] < MOST_ARGS:
        raise ConfigError("index", f"{condition['index']} is not within 0-{MOST_ARGS - 1}")
    return Comparison(condition["index"], op, condition["value"], condition.get("valueTwo") or 0)


def _last(names: set[str], architectures: list[int], library: Library) -> dict[int, dict[int, int]]:
    """Return the largest number named: {audit architecture: {libseccomp's token: number}}."""
    found: dict[int, dict[int, int]] = {}
    for token in architectures:
        numbers = [library.syscall_on(token, name) for name in names]
        largest = max(numbers, default=-1)
        if largest >= 0:
            audit = AUDIT_ARCH_X86_64 if token == ARCH_X32 else token
            found.setdefault(audit, {})[token] = largest
    return found


def stub(last: dict[int, dict[int, int]]) -> bytes:
    """Return instructions that answer ENOSYS beyond `last`, and else run into what follows.

    An architecture that is not in `last` is left to the filter, and so are the numbers of x32
    where it is not named: the filter has its own answer to those.
    """
    code = b""
    # From the last to the first, since each section jumps over all that follow it.
    for audit, by_token in reversed(last.items()):
        body = _section(audit, by_token) + _op(JA, _count(code))
        code = _op(JEQ, audit, 0, _count(body)) + body + code
    return _op(LD_ABS, ARCH) + code if code else b""


def _section(audit: int, by_token: dict[int, int]) -> bytes:
    """Return the part of one architecture; what is not refused runs out of its end."""
    start = _op(LD_ABS, NR)
    plain = _refuse_above(by_token.get(audit))
    if audit in (AUDIT_ARCH_S390, AUDIT_ARCH_S390X):
        # The kernel shows a number beyond its table as 0: straight to the refusal.
        return start + _op(JEQ, 0, 1, 0) + plain
    if audit == AUDIT_ARCH_X86_64:
        wide = _refuse_above(by_token.get(ARCH_X32))
        plain += _op(JA, _count(wide))
        return start + _op(JSET, X32_BIT, _count(plain), 0) + plain + wide
    return start + plain


def _refuse_above(number: int | None) -> bytes:
    if number is None:
        return b""
    return _op(JGT, number, 0, 1) + _op(RET, ACTIONS["SCMP_ACT_ERRNO"] | ENOSYS)


def _count(code: bytes) -> int:
    return len(code) // _INSTRUCTION.size


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, if_true, if_false, value)
