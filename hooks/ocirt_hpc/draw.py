"""The devices of a node and how near they are to each other: as a tree, a matrix, a picture.

Rows and columns are GPUs and RDMA devices, in the order of their indices; what the words mean
stands in topology.py.
"""

from __future__ import annotations

from ocirt_hpc import rdma, topology
from ocirt_hpc.nvidia import driver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt_hpc.host import Host, Pci

COLOURS = {
    "X": "#e8e8e8", "PIX": "#2c7a4b", "PXB": "#7fb77e", "PHB": "#f2d16b", "NODE": "#e8975a",
    "SYS": "#c8553d",
}  # fmt: skip
CELL, LEFT, TOP = 44, 90, 40  # pixels


class Thing:
    """A device in the drawing: its short name, what it is, where it is on the bus."""

    def __init__(self, name: str, what: str, pci: Pci) -> None:
        self.name = name
        self.what = what
        self.pci = pci


def things(host: Host) -> list[Thing]:
    """Return the GPUs and RDMA devices that are on the bus."""
    found = []
    loaded = driver.find(host)
    for gpu in loaded.gpus if loaded else ():
        pci = host.pci(gpu.address)
        if pci is not None:
            found.append(Thing(f"GPU{gpu.index}", gpu.model, pci))
    for device in rdma.find(host):
        if device.pci is not None:
            ports = ", ".join(
                f"port {port.number} {port.layer}{'' if port.active else ' (down)'}"
                for port in device.ports
            )
            found.append(Thing(device.name, ports, device.pci))
    return found


def document(host: Host) -> dict[str, Any]:
    """Return the topology as data: devices, and the class of each pair."""
    found = things(host)
    return {
        "devices": [
            {
                "name": one.name,
                "what": one.what,
                "address": one.pci.address,
                "numaNode": topology.numa(one.pci),
                "cpus": _cpus(one),
            }
            for one in found
        ],
        "distance": {
            one.name: {other.name: topology.distance(one.pci, other.pci) for other in found}
            for one in found
        },
    }


def _cpus(one: Thing) -> str:
    return one.pci.host.text(f"{one.pci.path}/local_cpulist") or ""


def matrix(host: Host) -> str:
    """Return the classes as a table, with CPUs and NUMA node of each device."""
    made = document(host)
    names = [one["name"] for one in made["devices"]]
    rows = [["", *names, "CPUs", "NUMA"]]
    for one in made["devices"]:
        classes = [made["distance"][one["name"]][name] for name in names]
        rows.append([one["name"], *classes, one["cpus"] or "-", str(one["numaNode"])])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines) + "\n"


def tree(host: Host) -> str:
    """Return the devices below their NUMA node, host bridge and switches."""
    root: dict[str, Any] = {}
    leaves = {}
    for one in things(host):
        way = [f"NUMA node {topology.numa(one.pci)}", *topology.way(one.pci)]
        here = root
        for part in way:
            here = here.setdefault(part, {})
        leaves[way[-1]] = f"{one.name}  {one.pci.address}  {one.what}".rstrip()
    return "\n".join(_branch(root, leaves, "")) + "\n" if root else "no GPU and no RDMA device\n"


def _branch(here: dict[str, Any], leaves: dict[str, str], indent: str) -> list[str]:
    lines = []
    for name, below in here.items():
        # Ports with one device behind them say nothing: NUMA node and forks do.
        path = [name]
        while len(below) == 1 and path[-1] not in leaves:
            (step,) = below
            path.append(step)
            below = below[step]
        shown = path[:1] if not indent else []
        if path[-1] in leaves:
            lines += [indent + text for text in shown]
            lines.append(f"{indent}{'  ' if shown else ''}{leaves[path[-1]]}")
        else:
            label = path[0] if path[0].startswith("NUMA") else path[-1]
            lines.append(indent + label)
        lines += _branch(below, leaves, indent + "  ")
    return lines


def svg(host: Host) -> str:
    """Return the matrix as a picture: the nearer, the greener."""
    made = document(host)
    names = [one["name"] for one in made["devices"]]
    size = len(names) * CELL
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + size + 10}"'
        f' height="{TOP + size + 40}" font-family="sans-serif" font-size="11">'
    ]
    for row, name in enumerate(names):
        middle = TOP + row * CELL + CELL // 2 + 4
        parts.append(f'<text x="{LEFT - 8}" y="{middle}" text-anchor="end">{_text(name)}</text>')
        parts.append(
            f'<text x="{LEFT + row * CELL + CELL // 2}" y="{TOP - 8}"'
            f' text-anchor="middle">{_text(name)}</text>'
        )
        for column, other in enumerate(names):
            word = made["distance"][name][other]
            x, y = LEFT + column * CELL, TOP + row * CELL
            title = _text(f"{name} - {other}: {word}")
            parts.append(
                f'<rect x="{x}" y="{y}" width="{CELL - 2}" height="{CELL - 2}" rx="4"'
                f' fill="{COLOURS[word]}"><title>{title}</title></rect>'
                f'<text x="{x + CELL // 2 - 1}" y="{y + CELL // 2 + 4}"'
                f' text-anchor="middle">{word}</text>'
            )
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _text(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
