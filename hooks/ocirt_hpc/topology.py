"""How near two devices are to each other, as `nvidia-smi topo -m` calls it, from sysfs alone.

    PIX   one PCIe switch between them at most
    PXB   several switches, but not the host bridge
    PHB   the host bridge
    NODE  several host bridges of one NUMA node
    SYS   the link between CPUs

NVLink is not among them: procfs and sysfs do not tell who is linked to whom.

Source: Linux, Documentation/PCI/sysfs-pci.rst, Documentation/ABI/stable/sysfs-devices-node;
nvidia-smi(1), "topo".
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeVar

    from ocirt_hpc.host import Host, Pci

    Thing = TypeVar("Thing")

NODES = "/sys/devices/system/node"

# From near to far.
CLASSES = ("X", "PIX", "PXB", "PHB", "NODE", "SYS")


def distance(one: Pci, other: Pci) -> str:
    """Return the class of two PCI functions."""
    if one.address == other.address:
        return "X"
    mine, theirs = way(one), way(other)
    shared = 0
    while shared < min(len(mine), len(theirs)) and mine[shared] == theirs[shared]:
        shared += 1
    if shared >= 2:
        # Beyond what they share: a port of the switch and the device itself, if it is one switch.
        return "PIX" if max(len(mine), len(theirs)) - shared <= 2 else "PXB"
    if shared == 1:
        return "PHB"
    node = numa(one)
    return "NODE" if node == numa(other) and node is not None else "SYS"


def numa(one: Pci) -> int | None:
    """Return the NUMA node, or None when it is not known; of a machine of one node that is 0."""
    number = one.number("numa_node")
    if number is not None and number >= 0:
        return number
    return None if len(nodes(one.host)) > 1 else 0


def nodes(host: Host) -> list[int]:
    """Return the numbers of the NUMA nodes; [] when the kernel knows of none."""
    names = (name.removeprefix("node") for name in host.names(NODES))
    return sorted(int(name) for name in names if name.isdecimal())


def nearest(one: Pci, others: Iterable[tuple[Thing, Pci]]) -> list[Thing]:
    """Return those of the others that are nearest; all of them where it is a tie."""
    ranked = [(CLASSES.index(distance(one, pci)), thing) for thing, pci in others]
    best = min((rank for rank, _ in ranked), default=0)
    return [thing for rank, thing in ranked if rank == best]


def way(one: Pci) -> list[str]:
    """Return host bridge, bridges and function: /sys/devices/pci0000:60/0000:60:01.0/..."""
    return [part for part in one.path.split("/") if part.startswith("pci") or part.count(":") == 2]
