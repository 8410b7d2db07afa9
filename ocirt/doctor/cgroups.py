"""Who can make cgroups, the hierarchies, their controllers, and what this user may do."""

from __future__ import annotations

from ocirt import system as os
from ocirt.cgroup import layout, v1
from ocirt.doctor.machine import FAILS, INFO, LACKS, OK, wanted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocirt.doctor.machine import Finding, Machine


def drivers(machine: Machine) -> Iterator[Finding]:
    """Who can make them."""
    own = "/run" if machine.uid == 0 else f"/run/user/{machine.uid}"
    found = "fs systemd" if machine.host.exists(f"{own}/systemd/private") else "fs"
    yield "drivers", INFO, found, ""


def hierarchies(machine: Machine) -> Iterator[Finding]:
    """What is mounted, the controllers, and what this user may do with them."""
    if layout.unified(machine.cgroups):
        yield "mode", OK, "v2", ""
        found = machine.text("/sys/fs/cgroup/cgroup.controllers").split()
        yield from _controllers(found, ("cpu", "cpuset", "io", "memory", "pids"))
        yield from _delegation(machine)
        return
    mounted = layout.v1_mounts(machine.cgroups, machine.proc)
    if not mounted:
        status = FAILS if machine.uid == 0 else LACKS
        yield "mode", status, "none", "mount -t cgroup2 cgroup2 /sys/fs/cgroup"
        return
    hybrid = layout.unified(machine.cgroups + "/unified")
    yield "mode", OK, "v1, with a v2 hierarchy beside it" if hybrid else "v1", ""
    found = [name for names, _, _ in mounted for name in names.split(",")]
    usual = ("cpu", "cpuset", "devices", "freezer", "memory", "pids")
    yield from _controllers([name for name in found if name in v1.CONTROLLERS], usual)
    if machine.uid != 0:
        advice = "v1 gives users none: boot with systemd.unified_cgroup_hierarchy=1"
        yield "delegation", LACKS, "none", advice


def _controllers(found: list[str], usual: tuple[str, ...]) -> Iterator[Finding]:
    missing = [name for name in usual if name not in found]
    advice = "limits on these are refused: enable them on the kernel's command line or in its build"
    value = " ".join(found) + (f" (no {', '.join(missing)})" if missing else "")
    yield wanted("controllers", not missing, value, advice)


def _delegation(machine: Machine) -> Iterator[Finding]:
    own = layout.own_paths(machine.proc).get("", "/")
    path = machine.cgroups + own
    if machine.uid == 0:
        yield wanted(
            "delegation", _owned(machine.cgroups + "/cgroup.procs", 0), "root",
            "this is a container's view of cgroups: give it a writable one",
        )  # fmt: skip
        return
    # A user's engines make their cgroups below the nearest one that is theirs.
    while path != machine.cgroups and not _owned(path + "/cgroup.subtree_control", machine.uid):
        path = os.path.dirname(path)
    if path == machine.cgroups:
        advice = "log in by a session of systemd (loginctl enable-linger USER), or use systemd-run"
        yield "delegation", LACKS, "none", advice
        return
    given = "cgroup.controllers"
    found = machine.text(f"/sys/fs/cgroup{path[len(machine.cgroups) :]}/{given}").split()
    missing = [name for name in ("cpu", "memory", "pids") if name not in found]
    advice = "[Service] Delegate=cpu cpuset io memory pids in user@.service.d/delegate.conf"
    yield wanted("delegation", not missing, " ".join(found), advice)


def _owned(path: str, uid: int) -> bool:
    try:
        return os.stat(path).st_uid == uid
    except OSError:
        return False
