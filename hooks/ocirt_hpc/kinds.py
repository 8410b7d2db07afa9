"""Devices that are nodes and nothing more: other accelerators, fabrics, helpers.

One row of KINDS is one kind: how its devices are found, which nodes come with any of them, what
asks for it.  A site adds kinds in hpc.toml, as [device.NAME] with the same fields; no code.

    find = "pci:0x8086"         PCI functions of a vendor, by their nodes in /dev/dri
    find = "/dev/cxi#"          nodes by number; a second pattern joins those of the same number
    find = "pci:0x1da3 /dev/#"  nodes by number, but none that belongs to another vendor's function
    find = "amdgpu"             AMD's, which kfd knows (amdgpu.py)
    find = ""                   there is nothing to choose: `with` is all of it
    with = ["/dev/x=x:0"]       where the host lacks the node, its major number is that of the
                                driver x in /proc/devices, and its minor number 0
    env = ["A=x#", "B=#"]       A: all the chosen, as x0,x1; B: the number of one, else it is unset

Asked for by the annotation ocirt.hpc/NAME, by a variable that holds a list (all, none, void,
numbers, ranges, PCI addresses, AMD's unique ids), or by a switch (VARIABLE=enabled).

Source: Linux, Documentation/admin-guide/devices.txt and the drivers of each kind; AMD container
toolkit and others for the variables.
"""

from __future__ import annotations

from ocirt.errors import At, ConfigError
from ocirt_hpc.host import Node, pci_address
from ocirt_hpc.request import NO_ENV, Asked, annotation, variables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from ocirt_hpc.host import Host, Pci
    from ocirt_hpc.notes import Notes

    Row = Mapping[str, Any]

FIELDS: dict[str, tuple[object, str]] = {
    # field        default  what it says
    "find":       ("",      "how devices are found"),
    "with":       ([],      "nodes that come with any of them, where the host has them"),
    "mounts":     ([],      "paths of the host that come with any of them, read-only"),
    "env":        ([],      "variables that tell a library of them, where they are not set"),
    "variables":  ([],      "variables that hold a list of devices"),
    "switches":   ([],      "variables that ask for all of them by the value enabled"),
    "allowed":    (True,    "whether it may be asked for; False: only if the site says so"),
}  # fmt: skip

KINDS: dict[str, Row] = {
    "amd":      {"find": "amdgpu", "with": ["/dev/kfd"], "variables": ["AMD_VISIBLE_DEVICES"]},
    "intel":    {"find": "pci:0x8086"},
    "gaudi":    {"find": "pci:0x1da3 /dev/accel/accel# /dev/accel/accel_controlD#"
                         " /dev/hl# /dev/hl_controlD#",                  # these: Linux before 6.5
                 "variables": ["HABANA_VISIBLE_DEVICES"]},
    "neuron":   {"find": "/dev/neuron#", "variables": ["AWS_NEURON_VISIBLE_DEVICES"]},
    "ascend":   {"find": "/dev/davinci#", "variables": ["ASCEND_VISIBLE_DEVICES"],
                 "with": ["/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc"]},
    "cxi":      {"find": "/dev/cxi#",                                    # Slingshot
                 "env": ["FI_PROVIDER=cxi", "FI_CXI_DEVICE_NAME=cxi#"]},
    "hfi":      {"find": "/dev/hfi1_#", "env": ["HFI_UNIT=#"]},          # Omni-Path
    "gds":      {"find": "/dev/nvidia-fs#", "switches": ["NVIDIA_GDS"],  # GPUDirect Storage
                 "mounts": ["/run/udev", "/etc/cufile.json"]},
    "gdrcopy":  {"with": ["/dev/gdrdrv=gdrdrv:0"], "switches": ["NVIDIA_GDRCOPY"]},
    "nvswitch": {"find": "/dev/nvidia-nvswitch#", "with": ["/dev/nvidia-nvswitchctl"],
                 "switches": ["NVIDIA_NVSWITCH"]},
    "knem":     {"with": ["/dev/knem"]},
    "xpmem":    {"with": ["/dev/xpmem"]},
    "vfio":     {"find": "/dev/vfio/#", "with": ["/dev/vfio/vfio"], "allowed": False},
    "iommufd":  {"find": "/dev/vfio/devices/vfio#", "with": ["/dev/iommu"], "allowed": False},
}  # fmt: skip

NOTHING = ("", "void", "none")
OTHERS = "another vendor's"
OPTIONS = ["rbind", "ro", "nosuid", "nodev", "rprivate"]


class Device:
    """One device of a kind: its number, its nodes, its PCI address or "", AMD's id or ""."""

    def __init__(self, number: int, nodes: list[Node], address: str = "", unique: str = "") -> None:
        self.number = number
        self.nodes = nodes
        self.address = address
        self.unique = unique


def field(row: Row, name: str) -> Any:
    """Return a field of a row, or its default."""
    return row.get(name, FIELDS[name][0])


# --- what is asked for


def asked(
    config: dict[str, Any], kinds: Mapping[str, Row], notes: Notes, *, env_requests: bool
) -> list[tuple[str, Asked]]:
    """Return (kind, what asks for it) for every kind that is asked for."""
    env = variables(config)
    found = []
    for name, row in kinds.items():
        one = annotation(config, f"ocirt.hpc/{name}")
        if one is None:
            one = _of_env(row, env)
            if one is not None and not env_requests:
                notes.leave_out(one.origin, NO_ENV)
                one = None
        if one is None or one.names[0] in NOTHING:
            continue
        if not field(row, "allowed"):
            raise ConfigError(
                one.where, f"the site does not allow {name} (device.{name}.allowed in hpc.toml)"
            )
        found.append((name, one))
    return found


def _of_env(row: Row, env: dict[str, str]) -> Asked | None:
    for name in field(row, "variables"):
        value = env.get(name, "")
        if value not in NOTHING:
            return Asked(value, f"{name}={value}", f"process.env: {name}={value}")
    for name in field(row, "switches"):
        if env.get(name) == "enabled":
            return Asked("all", f"{name}=enabled", f"process.env: {name}")
    return None


# --- what there is


def find(host: Host, row: Row) -> list[Device]:
    """Return the devices of a kind, in order."""
    first, _, rest = field(row, "find").partition(" ")
    if first == "amdgpu":
        from ocirt_hpc import amdgpu

        return _with_nodes(host, amdgpu.find(host))
    if not first.startswith("pci:"):
        return _by_number(host, [first, *rest.split()])
    vendor = int(first[4:], 0)
    if not rest:
        functions = [pci for pci in host.pcis() if pci.number("vendor") == vendor]
        return _with_nodes(host, [(pci.address, "", pci.names("drm")) for pci in functions])
    found = _by_number(host, rest.split())
    for one in found:
        pcis = [pci for pci in (behind(host, node) for node in one.nodes) if pci is not None]
        if pcis:
            one.address = pcis[0].address if pcis[0].number("vendor") == vendor else OTHERS
    return [one for one in found if one.address != OTHERS]


def _with_nodes(host: Host, found: Iterable[tuple[str, str, list[str]]]) -> list[Device]:
    """Number those of (PCI address, unique id, names in /dev/dri) that have nodes there."""
    made: list[Device] = []
    for address, unique, names in found:
        nodes = [node for node in (host.node(f"/dev/dri/{name}") for name in names) if node]
        if nodes:
            made.append(Device(len(made), nodes, address, unique))
    return made


def behind(host: Host, node: Node) -> Pci | None:
    """Return the PCI function that a device node belongs to, or None."""
    place = f"/sys/dev/{'block' if node.kind == 'b' else 'char'}/{node.major}:{node.minor}/device"
    return host.pci(host.resolve(place).rpartition("/")[2]) if host.exists(place) else None


def _by_number(host: Host, patterns: list[str]) -> list[Device]:
    by_number: dict[int, list[Node]] = {}
    for pattern in patterns:
        folder, _, last = pattern.rpartition("/")
        before, _, after = last.partition("#")
        for name in host.dev_names(folder):
            number = name.removeprefix(before).removesuffix(after)
            if name != f"{before}{number}{after}" or not number.isdecimal():
                continue
            node = host.node(f"{folder}/{name}")
            if node is not None:
                by_number.setdefault(int(number), []).append(node)
    return [Device(number, by_number[number]) for number in sorted(by_number)]


def choose(name: str, found: list[Device], names: Iterable[str]) -> list[Device]:
    """Return the devices that numbers, ranges, PCI addresses or `all` mean, each once.

    ConfigError for one that there is not.
    """
    chosen: dict[int, Device] = {}
    for word in names:
        if word == "all":
            picked = found
        elif word.count(":") == 2:
            picked = [one for one in found if one.address == pci_address(word)]
        elif word.lower().startswith("0x"):
            unique = "0x" + word[2:].lower().rjust(16, "0")
            picked = [one for one in found if one.unique == unique]
        else:
            first, dash, last = word.partition("-")
            numbers = {one.number: one for one in found}
            if not (first.isascii() and first.isdecimal()):
                picked = []
            elif not dash:
                picked = [numbers[int(first)]] if int(first) in numbers else []
            elif last.isascii() and last.isdecimal() and int(last) - int(first) < len(found):
                wanted = range(int(first), int(last) + 1)
                picked = [numbers[one] for one in wanted if one in numbers]
                picked = picked if len(picked) == len(wanted) else []
            else:
                picked = []
        if not picked and word != "all":
            there = ", ".join(str(one.number) for one in found) or "none"
            raise ConfigError(f'there is no {name} device "{word}" (have {there})')
        chosen.update({one.number: one for one in picked})
    return list(chosen.values())


# --- what a container needs


def edits(
    host: Host, name: str, row: Row, one: Asked, *, new_nodes: bool
) -> tuple[list[Device], list[Node], dict[str, Any]] | None:
    """Return devices, nodes and other edits for a kind; None when the host has no such devices.

    new_nodes: whether nodes can be made that the host lacks.  ConfigError when devices were named
    that there are not.
    """
    with At(one.where):
        found = [_extra(host, word, new_nodes=new_nodes) for word in field(row, "with")]
        extra = [node for node in found if node is not None]
        chosen: list[Device] = []
        if field(row, "find"):
            chosen = choose(name, find(host, row), one.names)
            if not chosen:
                return None
        elif not extra:
            if one.names != ["all"]:
                paths = (word.partition("=")[0] for word in field(row, "with"))
                raise ConfigError(f"there is no {' or '.join(paths)} on this host")
            return None
    nodes = [node for device in chosen for node in device.nodes] + extra
    mounts = [
        {"containerPath": path, "hostPath": host.root + path, "options": OPTIONS}
        for path in field(row, "mounts")
        if host.exists(path)
    ]
    return chosen, nodes, {"mounts": mounts, "envDefault": _env(row, chosen)}


def _extra(host: Host, word: str, *, new_nodes: bool) -> Node | None:
    """Return a node of `with`, one that the host lacks by the number of its driver."""
    path, _, number = word.partition("=")
    node = host.node(path)
    if node is None and number and new_nodes:
        driver, _, minor = number.partition(":")
        major = host.major(driver)
        node = Node(path, major, int(minor)) if major is not None else None
    return node


def _env(row: Row, chosen: list[Device]) -> list[str]:
    made = []
    for item in field(row, "env"):
        name, _, value = item.partition("=")
        if value == "#" and len(chosen) > 1:
            continue
        if "#" in value:
            value = ",".join(value.replace("#", str(one.number)) for one in chosen)
        made.append(f"{name}={value}")
    return made
