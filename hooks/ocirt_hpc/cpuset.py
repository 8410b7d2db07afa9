"""The CPUs and the memory nearest to a container's devices: a word of advice, or its cpuset.

    topology.cpuset = "suggest"   `ocirt hpc explain` says which; nothing is changed
                      "apply"     linux.resources.cpu gets them, where the config has neither
                      "off"
    ocirt.hpc/cpuset=nearest      (annotation) apply; `none`: do not

Devices on all NUMA nodes have no CPUs that are nearer than others.  What is applied lies within
what we have ourselves: a batch system has given that, and more of it is nobody's to give.

Source: Linux, Documentation/ABI/stable/sysfs-devices-node; cpuset(7), "FORMATS".
"""

from __future__ import annotations

from ocirt.kernel import procfs
from ocirt_hpc import topology
from ocirt_hpc.notes import SITE
from ocirt_hpc.request import annotation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ocirt_hpc.edits import Section
    from ocirt_hpc.host import Host, Pci
    from ocirt_hpc.notes import Notes

KEY = "ocirt.hpc/cpuset"
LARGEST = 1 << 16  # more CPUs than any machine has


class Near:
    """CPUs and memory nodes, by number."""

    def __init__(self, cpus: set[int], memory: set[int]) -> None:
        self.cpus = cpus
        self.memory = memory

    def __str__(self) -> str:
        return f"CPUs {text(self.cpus)}, memory of NUMA node {text(self.memory)}"


def near(host: Host, devices: Iterable[Pci]) -> Near | None:
    """Return what is nearest to the devices; None when that is all, or is not known."""
    memory = {topology.numa(one) for one in devices}
    there = topology.nodes(host)
    wanted = {node for node in memory if node in there}
    if not wanted or wanted != memory or len(wanted) == len(there):
        return None
    cpus: set[int] = set()
    for node in wanted:
        cpus |= numbers(host.text(f"{topology.NODES}/node{node}/cpulist") or "")
    return Near(cpus, wanted) if cpus else None


def sections(
    config: dict[str, Any],
    host: Host,
    devices: list[Pci],
    notes: Notes,
    setting: str,
    *,
    rootless: bool = False,
) -> list[Section]:
    """Return the edit that keeps a container near its devices, or note what it would be."""
    asked = annotation(config, KEY)
    wanted = asked is not None and asked.names == ["nearest"]
    if (asked is not None and not wanted) or (setting == "off" and not wanted) or not devices:
        return []
    found = near(host, devices)
    origin = asked.origin if asked and wanted else f"topology.cpuset={setting}"
    if found is None:
        if wanted:
            notes.leave_out(origin, "no CPUs are nearer to these devices than others")
        return []
    if not wanted and setting == "suggest":
        notes.suggest("topology", f"nearest to the devices: {found}")
        return []
    if rootless and not wanted:
        notes.skip(origin, f"{found}: a container without a cgroup of its own has no cpuset")
        return []
    for field, kept in (("Cpus_allowed_list", found.cpus), ("Mems_allowed_list", found.memory)):
        kept &= numbers(procfs.field("self", field))
        if not kept:
            notes.leave_out(origin, "we have none of what is nearest ourselves")
            return []
    if asked and wanted:
        notes.allow(asked)
    else:
        notes.rules[origin] = SITE
    return [(origin, {"cpuset": [{"cpus": text(found.cpus), "mems": text(found.memory)}]})]


def numbers(listed: str) -> set[int]:
    """Return the numbers of a list such as `0-3,8`; what is no number is passed over."""
    found: set[int] = set()
    for part in listed.strip().split(","):
        first, dash, last = part.partition("-")
        if first.isdecimal() and (not dash or last.isdecimal()):
            found.update(range(int(first), min(int(last or first), LARGEST) + 1))
    return found


def text(found: set[int]) -> str:
    """Return numbers as a list with ranges."""
    parts: list[list[int]] = []
    for number in sorted(found):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in parts)
