"""Seccomp, security modules, capabilities."""

from __future__ import annotations

from ocirt import system as os
from ocirt.doctor.machine import INFO, LACKS, OK, wanted
from ocirt.plan.identity import CAPABILITIES
from ocirt.version import LIBRARIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocirt.doctor.machine import Finding, Machine


def seccomp(machine: Machine) -> Iterator[Finding]:
    """The kernel's part of it, and the library that compiles profiles."""
    actions = machine.text("/proc/sys/kernel/seccomp/actions_avail")
    advice = "the kernel was built without CONFIG_SECCOMP_FILTER"
    yield wanted("seccomp", bool(actions), actions or "missing", advice)
    library = _libseccomp(machine)
    yield wanted(
        "libseccomp", bool(library), library or "not found",
        "engines send filters: install libseccomp2 (Fedora, RHEL: libseccomp)",
    )  # fmt: skip


def modules(machine: Machine) -> Iterator[Finding]:
    """Which security modules are on."""
    for name, enabled in (
        ("apparmor", machine.host.apparmor()),
        ("selinux", machine.host.selinux()),
    ):
        yield name, INFO, "on" if enabled else "off", ""


def capabilities(machine: Machine) -> Iterator[Finding]:
    """What this process may hand to containers."""
    known, bounding = machine.host.known(), machine.host.bounding()
    missing = [name for bit, name in enumerate(CAPABILITIES) if known & ~bounding & (1 << bit)]
    advice = "containers cannot have them either; start the engine with the whole set"
    status = LACKS if missing and machine.uid == 0 else OK
    value = f"all but {', '.join(missing)}" if missing else "all"
    yield "capabilities", status, value, advice if status == LACKS else ""


def _libseccomp(machine: Machine) -> str:
    """Return the version that the library's file name tells, "0" for one that tells none."""
    for directory in LIBRARIES:
        path = machine.site.at(directory.format(os.uname().machine) + "/libseccomp.so.2")
        if os.path.exists(path):
            name = os.path.basename(os.path.realpath(path))
            return name.partition(".so.")[2]
    return ""
