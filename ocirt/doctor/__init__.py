"""What a machine can do for containers, as rows: area, name, status, value, advice.

One more row is one more function in CHECKS.  It looks at a Machine (machine.py) and yields what
it finds; whatever is `lacks` or `fails` comes with advice.  Nothing is changed.
"""

from __future__ import annotations

from ocirt.doctor import cgroups, devices, kernel, parts, registry, security, users
from ocirt.doctor.machine import FAILS, INFO, LACKS, OK, Machine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.doctor.machine import Check

    Row = tuple[str, str, str, str, str]  # area, name, status, value, advice

__all__ = ["CHECKS", "FAILS", "INFO", "LACKS", "OK", "Machine", "examine"]

CHECKS: tuple[tuple[str, Check], ...] = (
    # area          looks at it
    ("kernel",      kernel.version),
    ("kernel",      kernel.syscalls),
    ("kernel",      kernel.memfd),
    ("namespaces",  kernel.namespaces),
    ("namespaces",  kernel.limits),
    ("namespaces", users.namespace),
    ("id mappings", users.helpers),
    ("id mappings", users.ranges),
    ("cgroups",     cgroups.drivers),
    ("cgroups",     cgroups.hierarchies),
    ("security",    security.seccomp),
    ("security",    security.modules),
    ("security",    security.capabilities),
    ("engines",     registry.registrations),
    ("ocirt",       parts.own),
    ("ocirt",       parts.criu),
    ("devices",     devices.cdi),
    ("devices",     devices.nvidia),
    ("devices",     devices.render),
    ("devices",     devices.fabrics),
)  # fmt: skip


def examine(machine: Machine) -> list[Row]:
    """Return every row."""
    return [(area, *finding) for area, check in CHECKS for finding in check(machine)]
