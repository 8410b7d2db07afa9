"""The devices of a node and how near they are to each other: as a tree, a matrix, a picture.

Shown are GPUs and other accelerators, RDMA devices and other fabrics: each by the name that asks
for it (`GPU3`: NVIDIA_VISIBLE_DEVICES=3; `amd0`; `NIC1 mlx5_1`: OCIRT_RDMA_DEVICES=1 or mlx5_1).
What the classes of nearness mean stands in topology.py.
"""

from __future__ import annotations

from ocirt_hpc import kinds, rdma, topology
from ocirt_hpc.nvidia import driver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt_hpc.host import Host, Pci

# What is near stands out.
COLOURS = {
    "X": "#ffffff", "PIX": "#2c7a4b", "PXB": "#7fb77e", "PHB": "#c5e0b8", "NODE": "#f3e3bd",
    "SYS": "#ececec",
}  # fmt: skip
# What kinds of kinds.py are, for colours and for what is near.
SORTS = {"amd": "gpu", "intel": "gpu", "gaudi": "gpu", "cxi": "nic", "hfi": "nic"}
FILLS = {"gpu": "#d7ecd0", "nic": "#d3e3f6", "other": "#ece3f4"}
DOWN = "#f4d9d5"

MEANINGS = {
    "PIX": "one PCIe switch",
    "PXB": "several PCIe switches",
    "PHB": "a host bridge",
    "NODE": "several host bridges of one NUMA node",
    "SYS": "the link between CPUs",
}

UNKNOWN = "no known NUMA node"


class Thing:
    """A device in the drawing.

    name   what it is called in a request
    kind   gpu, nic, other
    label  its column in the matrix
    what   its model, or its ports
    link   of the PCIe, such as `16.0 GT/s x16`, "" if it is not told
    down   of a NIC: no port has a link
    """

    def __init__(self, name: str, kind: str, what: str, pci: Pci) -> None:
        self.name = name
        self.kind = kind
        self.label = name
        self.what = what
        self.pci = pci
        self.down = False
        speed, width = (
            pci.host.text(f"{pci.path}/current_link_{word}") for word in ("speed", "width")
        )
        self.link = f"{speed.removesuffix(' PCIe')} x{width}" if speed and width else ""
        self.virtual = pci.host.exists(f"{pci.path}/physfn")

    @property
    def where(self) -> str:
        """Its address, and what is to be said about it."""
        return f"{self.pci.address}{' virtual function' if self.virtual else ''}"


# --- what there is


def things(host: Host) -> list[Thing]:
    """Return the devices that are on the bus."""
    found = []
    loaded = driver.find(host)
    for gpu in loaded.gpus if loaded else ():
        pci = host.pci(gpu.address)
        if pci is not None:
            found.append(Thing(f"GPU{gpu.index}", "gpu", gpu.model, pci))
    nics = []
    for device in rdma.find(host):
        if device.pci is not None:
            thing = Thing(device.name, "nic", _ports(host, device), device.pci)
            thing.label = f"NIC{device.index}"
            thing.down = not any(port.active for port in device.ports)
            nics.append(thing)
    there = {one.pci.address for one in (*found, *nics)}
    for name, row in kinds.KINDS.items():
        for one in kinds.find(host, row):
            pci = host.pci(one.address) if one.address else kinds.behind(host, one.nodes[0])
            if pci is not None and pci.address not in there:
                there.add(pci.address)
                nodes = " ".join(node.path for node in one.nodes)
                found.append(Thing(f"{name}{one.number}", SORTS.get(name, "other"), nodes, pci))
    return found + nics


def _ports(host: Host, device: rdma.Device) -> str:
    """Word the ports of a device, and name its network devices."""
    words = []
    for port in device.ports:
        rate = host.text(f"{rdma.CLASS}/{device.name}/ports/{port.number}/rate") or ""
        number = f"port {port.number} " if len(device.ports) > 1 else ""
        speed = rate.partition(" (")[0].replace("sec", "s")
        words.append(f"{number}{port.layer} {speed if port.active else 'down'}".rstrip())
    nets = device.pci.names("net") if device.pci else []
    return ", ".join(words + nets)


def off_bus(host: Host) -> list[tuple[str, str]]:
    """Return (name, ports) of RDMA devices that are on no bus: made by software."""
    return [(one.name, _ports(host, one)) for one in rdma.find(host) if one.pci is None]


def document(host: Host) -> dict[str, Any]:
    """Return the topology as data: NUMA nodes, devices, the class of each pair, what is nearest."""
    found = things(host)
    nics = [(one, one.pci) for one in found if one.kind == "nic" and not one.down]
    nearest = {}
    for one in found:
        if one.kind == "gpu":
            near = topology.nearest(one.pci, nics)
            word = topology.distance(one.pci, near[0].pci) if near else ""
            nearest[one.name] = {"nics": [nic.name for nic in near], "class": word}
    return {
        "numaNodes": [_node(host, number) for number in topology.nodes(host)],
        "devices": [
            {
                "name": one.name,
                "kind": one.kind,
                "label": one.label,
                "what": one.what,
                "address": one.pci.address,
                "virtual": one.virtual,
                "link": one.link,
                "numaNode": topology.numa(one.pci),
                "cpus": one.pci.host.text(f"{one.pci.path}/local_cpulist") or "",
            }
            for one in found
        ],
        "distance": {
            one.name: {other.name: topology.distance(one.pci, other.pci) for other in found}
            for one in found
        },
        "nearest": nearest,
        "offBus": [{"name": name, "what": what} for name, what in off_bus(host)],
    }


def _node(host: Host, number: int) -> dict[str, Any]:
    place = f"{topology.NODES}/node{number}"
    memory = 0
    for line in (host.text(f"{place}/meminfo") or "").splitlines():
        words = line.split()
        if "MemTotal:" in words and words[-2].isdecimal():
            memory = int(words[-2]) << 10
    distances = (host.text(f"{place}/distance") or "").split()
    return {
        "node": number,
        "cpus": host.text(f"{place}/cpulist") or "",
        "memory": memory,
        "distances": [int(word) for word in distances if word.isdecimal()],
    }


def _titles(host: Host) -> dict[int | None, str]:
    """Return how each NUMA node is called, with its CPUs and its memory."""
    titles: dict[int | None, str] = {None: UNKNOWN}
    for number in topology.nodes(host) or [0]:
        node = _node(host, number)
        words = [f"NUMA node {number}"]
        words += [f"CPUs {node['cpus']}"] if node["cpus"] else []
        words += [f"{node['memory'] / (1 << 30):.0f} GiB"] if node["memory"] else []
        titles[number] = ", ".join(words)
    return titles


# --- as a tree


class Branch:
    """A place in the tree: a NUMA node, a host bridge, a switch, with what is below it."""

    def __init__(self, name: str, thing: Thing | None = None) -> None:
        self.name = name
        self.thing = thing
        self.below: dict[str, Branch] = {}

    def title(self) -> str:
        """What a fork is called: PCI functions that are no devices are bridges."""
        if self.name.startswith("pci"):
            return f"host bridge {self.name.removeprefix('pci')}"
        return f"switch {self.name}" if self.name.count(":") == 2 else self.name


def branches(host: Host) -> list[Branch]:
    """Return the NUMA nodes with what is below them; bridges with one thing below are left out."""
    titles, root = _titles(host), Branch("")
    found = things(host)
    for number, title in titles.items():
        if number is not None:
            root.below[title] = Branch(title)
    for one in found:
        number = topology.numa(one.pci)
        here = root
        for part in (titles.get(number, f"NUMA node {number}"), *topology.way(one.pci)):
            here = here.below.setdefault(part, Branch(part))
        here.thing = one
    if not found:
        return []
    for branch in root.below.values():
        branch.below = {one.name: one for one in map(_short, branch.below.values())}
    return list(root.below.values())


def _short(branch: Branch) -> Branch:
    """Pass over bridges that say nothing: NUMA nodes, forks and devices do."""
    while branch.thing is None and len(branch.below) == 1:
        (branch,) = branch.below.values()
    branch.below = {one.name: one for one in map(_short, branch.below.values())}
    return branch


def tree(host: Host) -> str:
    """Return the devices below their NUMA node, host bridge and switches."""
    found = branches(host)
    names = [one.name for one in things(host)]
    width = max(map(len, names), default=0)
    lines = []
    for node in found:
        lines += [node.name, *_lines(node, "", width)]
        lines += [] if node.below else ["   nothing"]
    for name, what in off_bus(host):
        lines.append(f"{name}  on no bus  {what}".rstrip())
    return "\n".join(lines or ["no GPU, no accelerator and no RDMA device"]) + "\n"


def _lines(branch: Branch, indent: str, width: int) -> list[str]:
    lines = []
    for place, one in enumerate(branch.below.values(), 1):
        last = place == len(branch.below)
        text = one.title()
        if one.thing is not None:
            thing = one.thing
            text = f"{thing.name:{width}}  {thing.where}  {thing.what}".rstrip()
            text += f"  (PCIe {thing.link})" if thing.link else ""
        lines.append(f"{indent}{'└─' if last else '├─'} {text}")
        lines += _lines(one, f"{indent}{'   ' if last else '│  '}", width)
    return lines


# --- as a matrix


def matrix(host: Host) -> str:
    """Return the classes as a table, with the legend, and for each GPU what is nearest."""
    made = document(host)
    devices = made["devices"]
    if not devices:
        return ""
    # Names of NICs can be long: their columns have their numbers.
    rows = [["", "", *(one["label"] for one in devices)]]
    for one in devices:
        classes = [made["distance"][one["name"]][other["name"]] for other in devices]
        rows.append([one["label"], one["name"] if one["kind"] == "nic" else "", *classes])
    used = {word for row in rows[1:] for word in row[2:]}
    lines = [*_table(rows), ""]
    lines += [f"{word:4}  {MEANINGS[word]}" for word in MEANINGS if word in used]
    near = [["", "nearest NIC", "", "CPUs", "NUMA node"]]
    for one in devices:
        if one["name"] in made["nearest"]:
            found = made["nearest"][one["name"]]
            node = one["numaNode"]
            place = "unknown" if node is None else str(node)
            nics = " ".join(found["nics"]) or "none with a link"
            near.append([one["name"], nics, found["class"], one["cpus"] or "unknown", place])
    if len(near) > 1:
        lines += ["", *_table(near)]
    return "\n".join(lines) + "\n"


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(map(str.ljust, row, widths)).strip("\n").rstrip() for row in rows]


# --- as a picture

TILE, LINE, GAP, HEAD = 216, 15, 8, 22  # pixels: width of a device, line, distance, title of a box
ACROSS = 4  # boxes in a row
CELL, LEFT = 44, 120


class Box:
    """A piece of the picture: its size, and what draws it at a place."""

    def __init__(self, width: int, height: int, parts: list[tuple[int, int, Box]]) -> None:
        self.width = width
        self.height = height
        self.parts = parts
        self.title = ""
        self.thing: Thing | None = None

    def draw(self, x: int, y: int, out: list[str]) -> None:
        """Add the elements of this piece and of all in it."""
        fill, stroke = "#ffffff", "#9aa0a6"
        if self.thing is not None:
            fill = DOWN if self.thing.down else FILLS[self.thing.kind]
        elif self.title.startswith(("NUMA", UNKNOWN)):
            fill = "#f6f6f4"
        out.append(
            f'<rect x="{x}" y="{y}" width="{self.width}" height="{self.height}" rx="5"'
            f' fill="{fill}" stroke="{stroke}"/>'
        )
        if self.thing is not None:
            thing = self.thing
            link = f", PCIe {thing.link}" if thing.link else ""
            for row, text in enumerate((thing.name, thing.what, thing.where + link), 1):
                weight = ' font-weight="bold"' if row == 1 else ""
                out.append(_label(x + 8, y + row * LINE, _cut(text), weight))
        elif self.title:
            out.append(_label(x + 8, y + 15, self.title, ' fill="#444444"'))
        for left, top, part in self.parts:
            part.draw(x + left, y + top, out)


def _box(branch: Branch) -> Box:
    """Lay a branch out: devices of one switch below each other, everything else side by side."""
    if branch.thing is not None:
        tile = Box(TILE, 3 * LINE + 8, [])
        tile.thing = branch.thing
        return tile
    made = [_box(one) for one in branch.below.values()]
    tiles = [one for one in made if one.thing is not None]
    boxes = [one for one in made if one.thing is None]
    rows = [boxes[start : start + ACROSS] for start in range(0, len(boxes), ACROSS)]
    step = ACROSS if boxes or branch.name.startswith(("NUMA", UNKNOWN)) else 1
    rows += [tiles[start : start + step] for start in range(0, len(tiles), step)]
    parts: list[tuple[int, int, Box]] = []
    top, width = HEAD, TILE
    for row in rows:
        across = GAP
        for one in row:
            parts.append((across, top, one))
            across += one.width + GAP
        top += max(one.height for one in row) + GAP
        width = max(width, across - 2 * GAP)
    box = Box(width + 2 * GAP, max(top, HEAD + GAP), parts)
    box.title = branch.title() + ("" if made else ": nothing")
    return box


def svg(host: Host) -> str:
    """Return the tree as boxes in boxes, and the matrix below it: the nearer, the greener."""
    made = document(host)
    out: list[str] = []
    top, width = GAP, LEFT
    for branch in branches(host):
        box = _box(branch)
        box.draw(GAP, top, out)
        top += box.height + GAP
        width = max(width, box.width + 2 * GAP)
    for name, what in off_bus(host):
        top += LINE
        out.append(_label(GAP, top, f"{name} on no bus: {what}"))
    devices = made["devices"]
    top += 3 * LINE
    for row, one in enumerate(devices):
        middle = top + row * CELL + CELL // 2 + 4
        name = one["name"] if one["label"] == one["name"] else f"{one['label']} {one['name']}"
        out.append(_label(LEFT - 8, middle, _cut(name, 17), ' text-anchor="end"'))
        column = LEFT + row * CELL + CELL // 2
        out.append(_label(column, top - 8, one["label"], ' text-anchor="middle"'))
        for place, other in enumerate(devices):
            word = made["distance"][one["name"]][other["name"]]
            x, y = LEFT + place * CELL, top + row * CELL
            title = _text(f"{one['name']} - {other['name']}: {MEANINGS.get(word, 'the same')}")
            colour = ' fill="#ffffff"' if word == "PIX" else ""
            out.append(
                f'<rect x="{x}" y="{y}" width="{CELL - 2}" height="{CELL - 2}" rx="4"'
                f' fill="{COLOURS[word]}"><title>{title}</title></rect>'
            )
            out.append(
                _label(x + CELL // 2 - 1, y + CELL // 2 + 4, word, f' text-anchor="middle"{colour}')
            )
    top += len(devices) * CELL + LINE
    for word, meaning in MEANINGS.items() if devices else ():
        out.append(
            f'<rect x="{GAP}" y="{top - 10}" width="12" height="12" fill="{COLOURS[word]}"/>'
        )
        out.append(_label(GAP + 18, top, f"{word}: {meaning}"))
        top += LINE + 3
    width = max(width, LEFT + len(devices) * CELL + GAP)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top + GAP}"'
        f' viewBox="0 0 {width} {top + GAP}" font-family="sans-serif" font-size="11">'
    )
    ground = f'<rect width="{width}" height="{top + GAP}" fill="#ffffff"/>'
    return "\n".join([head, ground, *out, "</svg>"]) + "\n"


def _label(x: int, y: int, text: str, more: str = "") -> str:
    return f'<text x="{x}" y="{y}"{more}>{_text(text)}</text>'


def _cut(text: str, most: int = 36) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _text(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
