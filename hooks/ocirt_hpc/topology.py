"""How near two devices are to each other, as `nvidia-smi topo -m` calls it, from sysfs alone.

    PIX   one PCIe switch between them at most
    PXB   several switches, but not the host bridge
    PHB   the host bridge
    NODE  several host bridges of one NUMA node
    SYS   the link between CPUs

Source: Linux, Documentation/PCI/sysfs-pci.rst; nvidia-smi(1), "topo".
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeVar

    from ocirt_hpc.host import Pci

    Thing = TypeVar("Thing")

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
    return "NODE" if numa(one) == numa(other) else "SYS"


def numa(one: Pci) -> int:
    """Return the NUMA node; a machine of one node may say -1, which is 0."""
    return max(one.number("numa_node") or 0, 0)


def nearest(one: Pci, others: Iterable[tuple[Thing, Pci]]) -> list[Thing]:
    """Return those of the others that are nearest; all of them where it is a tie."""
    ranked = [(CLASSES.index(distance(one, pci)), thing) for thing, pci in others]
    best = min((rank for rank, _ in ranked), default=0)
    return [thing for rank, thing in ranked if rank == best]


def way(one: Pci) -> list[str]:
    """Return host bridge, bridges and function: /sys/devices/pci0000:60/0000:60:01.0/..."""
    return [part for part in one.path.split("/") if part.startswith("pci") or part.count(":") == 2]
