"""Compile a `linux.seccomp`: names into numbers, libseccomp's program, and the front before it.

Only run on a miss of the cache in `seccomp.py`.  To support one more action or flag, add a row.

runtime-spec, config-linux.md, "Seccomp"; seccomp(2).
"""

from __future__ import annotations

from errno import EEXIST, ENOSYS, EPERM

from ocirt.errors import At, ConfigError
from ocirt.plan.libseccomp import COMPARE, MOST_ARGS, NO_SUCH_SYSCALL, Comparison, Library
from ocirt.plan.seccomp_front import count, front, is_tangled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.plan.libseccomp import Filter
    from ocirt.plan.seccomp_front import Rules

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

MOST_INSTRUCTIONS = 4096  # BPF_MAXINSNS

# Beyond so many system calls the search by halves is worth its code; and libseccomp up to 2.5.4
# goes wrong with it when there are none.  The kernel runs a new filter once for each call that it
# has, so a search from first to last is half of what a container costs it.
MANY = 32


def build(section: dict[str, Any]) -> tuple[bytes, int, bool, str]:
    """Return the program, the flags for seccomp(2), whether it notifies, and libseccomp's file."""
    flags = _flags(section)
    listener = _check_notify(section)
    if not listener:
        flags &= ~WAIT_KILLABLE_RECV  # nobody waits, and the kernel refuses it then
    library = Library()
    default_name = section["defaultAction"]
    default = _action(default_name, section.get("defaultErrnoRet"), "defaultErrnoRet")
    entries = section.get("syscalls") or ()
    architectures = _architectures(section, library)
    by_name: dict[str, Rules] = {}
    for index, entry in enumerate(entries):
        with At(f"syscalls[{index}]"):
            for name, rule in _rules(entry, default):
                by_name.setdefault(name, []).append(rule)
    tangled = {name: rules for name, rules in by_name.items() if is_tangled(rules)}
    with library.filter(default) as new:
        for index, token in enumerate(architectures):
            with At(f"architectures[{index}]"):
                new.add_architecture(token)
        if sum(library.syscall(name) != NO_SUCH_SYSCALL for name in by_name) > MANY:
            new.optimize()
        for name, rules in by_name.items():
            with At(f"syscalls: {name}"):
                _add(name, _invisible(rules, default) if name in tangled else rules, new, library)
        program = new.export()
    last = {}
    if default_name not in PERMISSIVE and default != ACTIONS["SCMP_ACT_ERRNO"] | ENOSYS:
        names = {name for entry in entries for name in entry["names"]}
        last = _last(names, architectures, library)
    program = front(last, _numbers(tangled, architectures, library), default) + program
    if count(program) > MOST_INSTRUCTIONS:
        raise ConfigError(
            f"comes to {count(program)} instructions, the kernel takes {MOST_INSTRUCTIONS}"
        )
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


def _rules(entry: dict[str, Any], default: int) -> list[tuple[str, tuple[int, list[Comparison]]]]:
    """Take an entry of `syscalls` apart: (name, (action, conditions that all have to hold))."""
    action = _action(entry["action"], entry.get("errnoRet"), "errnoRet")
    conditions = []
    for index, condition in enumerate(entry.get("args") or ()):
        with At(f"args[{index}]"):
            conditions.append(_comparison(condition))
    if action == default:
        return []  # libseccomp refuses a rule that changes nothing
    used = [condition.arg for condition in conditions]
    groups = [conditions]
    if len(set(used)) < len(used):
        # libseccomp takes an argument once per rule.  The peers then read all conditions of the
        # entry as alternatives, and profiles rely on it.
        groups = [[condition] for condition in conditions]
    return [(name, (action, group)) for name in entry["names"] for group in groups]


def _add(name: str, rules: Rules, new: Filter, library: Library) -> None:
    """Give the rules of one system call to libseccomp; an unknown name is of another kernel."""
    number = library.syscall(name)
    if number == NO_SUCH_SYSCALL:
        return
    for action, conditions in rules:
        if new.add_rule(action, number, conditions) == -EEXIST:
            raise ConfigError("has another action for the same arguments already")


def _invisible(rules: Rules, default: int) -> Rules:
    """Return what libseccomp gets of tangled rules, which the front decides where it can.

    It cannot where the call comes by way of socketcall, on 32-bit x86: the arguments are out of
    sight there.  libseccomp ignores conditions then, so the mildest action counts.
    """
    actions = [action for action, _ in rules]
    mildest = max([*actions, default], key=lambda action: -1 if action >> 31 else action)
    return [] if mildest == default else [(mildest, [])]


def _numbers(
    tangled: dict[str, Rules], architectures: list[int], library: Library
) -> dict[int, list[tuple[int, Rules]]]:
    """Return (number, rules) of the calls that the front decides, for each architecture."""
    found: dict[int, list[tuple[int, Rules]]] = {}
    for name, rules in tangled.items():
        for token in architectures:
            number = library.direct_number(token, name)
            if number >= 0:
                found.setdefault(token, []).append((number, rules))
    return found


def _comparison(condition: dict[str, Any]) -> Comparison:
    op = COMPARE.get(condition["op"])
    if op is None:
        raise ConfigError(f"string {condition['op']} is not a valid operator for seccomp")
    if not 0 <= condition["index"] < MOST_ARGS:
        raise ConfigError("index", f"{condition['index']} is not within 0-{MOST_ARGS - 1}")
    return Comparison(condition["index"], op, condition["value"], condition.get("valueTwo") or 0)


def _last(names: set[str], architectures: list[int], library: Library) -> dict[int, int]:
    """Return the largest number that the profile names on each architecture."""
    found = {}
    for token in architectures:
        largest = max([library.syscall_on(token, name) for name in names], default=-1)
        if largest >= 0:
            found[token] = largest
    return found
