"""InfiniBand, RoCE and iWARP: which RDMA devices there are, and what a container needs for them.

    nodes    /dev/infiniband/uverbsN and rdma_cm; umadN and issmN, which speak for the whole
             fabric, only where the site allows it
    sysfs    of several devices, the class directories show the chosen ones alone
    limits   RDMA pins memory, which counts against RLIMIT_MEMLOCK

Numbers come from sysfs, never by counting.  A device is called as rdma(8) and UCX call it:
mlx5_0, or ibp65s0 where udev renames.

Source: Linux, drivers/infiniband/core/uverbs_main.c, user_mad.c; rdma-core, libibverbs/init.c.
"""

from __future__ import annotations

from ocirt import log
from ocirt import system as os
from ocirt.errors import ConfigError
from ocirt_hpc import topology
from ocirt_hpc.host import Node, pci_address
from ocirt_hpc.limits import UNLIMITED, highest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from ocirt_hpc.host import Host, Pci
    from ocirt_hpc.tree import Tree

CLASS = "/sys/class/infiniband"
FOLDER = "/dev/infiniband"

# Classes of nodes: uverbsN for everybody; umadN and issmN with the site's consent.
KINDS = ("infiniband_verbs", "infiniband_mad")

ENOUGH = 1 << 30  # bytes; below that, large messages fail to register

OPTIONS = ["bind", "ro", "nosuid", "nodev", "noexec", "private"]


class Port:
    """A port: its number, link layer (InfiniBand, Ethernet), state (down, init, active)."""

    def __init__(self, number: int, layer: str, state: str) -> None:
        self.number = number
        self.layer = layer
        self.state = state

    @property
    def active(self) -> bool:
        """Whether its link is up."""
        return self.state == "active"


class Device:
    """An RDMA device: name, position among all, its nodes by class, its PCI function if any."""

    def __init__(self, name: str, index: int) -> None:
        self.name = name
        self.place = f"{CLASS}/{name}"
        self.index = index
        self.nodes: dict[str, list[str]] = {}
        self.ports: list[Port] = []
        self.pci: Pci | None = None


class Chosen:
    """A chosen device; `port` is 0 for all of its ports."""

    def __init__(self, device: Device, port: int = 0) -> None:
        self.device = device
        self.port = port


# --- what there is


def find(host: Host) -> list[Device]:
    """Return the RDMA devices, those on PCI by address first, then the rest by name."""
    found = []
    for name in host.names(CLASS):
        device = Device(name, 0)
        where = host.resolve(f"{device.place}/device")
        if host.exists(f"{device.place}/device"):
            device.pci = host.pci(where.rpartition("/")[2])
        for number in host.names(f"{device.place}/ports"):
            if number.isdecimal():
                device.ports.append(_port(host, f"{device.place}/ports/{number}", int(number)))
        found.append(device)
    found.sort(key=_order)
    by_name = {device.name: device for device in found}
    for index, device in enumerate(found):
        device.index = index
    for kind in KINDS:
        for node in host.names(f"/sys/class/{kind}"):
            owner = host.text(f"/sys/class/{kind}/{node}/ibdev")
            if owner in by_name:
                by_name[owner].nodes.setdefault(kind, []).append(node)
    return found


def driver(host: Host, device: Device) -> str:
    """Return the name of a device's driver (mlx5_core, efa); "" for one that is not on PCI."""
    if device.pci is None:
        return ""
    return os.path.basename(host.resolve(f"{device.pci.path}/driver"))


def _port(host: Host, path: str, number: int) -> Port:
    state = (host.text(f"{path}/state") or "").rpartition(" ")[2].lower()  # "4: ACTIVE"
    return Port(number, host.text(f"{path}/link_layer") or "InfiniBand", state)


def _order(device: Device) -> tuple[bool, list[int], list[object]]:
    address = device.pci.address.replace(".", ":").split(":") if device.pci else []
    stem = device.name.rstrip("0123456789")
    number = device.name[len(stem) :]
    return device.pci is None, [int(part, 16) for part in address], [stem, int(number or 0)]


# --- what is asked for


def choose(found: list[Device], names: Iterable[str], gpus: Iterable[Pci] = ()) -> list[Chosen]:
    """Return the devices that the names mean: all, none, nearest, NAME[:PORT], address, index.

    gpus: what `nearest` is near to; without any it means all.  ConfigError for an unknown name.
    """
    chosen: dict[tuple[str, int], Chosen] = {}
    for name in names:
        if name == "none":
            continue
        if name == "all":
            picked = [Chosen(device) for device in found]
        elif name == "nearest":
            picked = [Chosen(device) for device in _nearest(found, list(gpus))]
        else:
            picked = [_one(found, name)]
        for one in picked:
            chosen.setdefault((one.device.name, one.port), one)
    return list(chosen.values())


def _nearest(found: list[Device], gpus: list[Pci]) -> list[Device]:
    if not gpus:
        return found
    # A port without a link carries nothing, however near it is.
    there = [(device, device.pci) for device in found if device.pci is not None]
    linked = [(device, pci) for device, pci in there if any(port.active for port in device.ports)]
    names = {device.name for gpu in gpus for device in topology.nearest(gpu, linked or there)}
    return [device for device in found if device.name in names]


def _one(found: list[Device], name: str) -> Chosen:
    stem, colon, port = name.partition(":")
    for device in found:
        if device.name == name:
            return Chosen(device)
        if device.name == stem and colon and port.isascii() and port.isdecimal():
            if int(port) in (one.number for one in device.ports):
                return Chosen(device, int(port))
            raise ConfigError(f'RDMA device {stem} has no port "{port}"')
        if name.isascii() and name.isdecimal() and device.index == int(name):
            return Chosen(device)
        if name.count(":") == 2 and device.pci and device.pci.address == pci_address(name):
            return Chosen(device)
    there = ", ".join(f"{device.index} {device.name}" for device in found) or "none"
    raise ConfigError(f'there is no RDMA device "{name}" (have {there})')


# --- what a container needs


def nodes(host: Host, chosen: Iterable[Chosen], *, management: bool = False) -> list[Node]:
    """Return the device nodes, rdma_cm with them; ConfigError names a module that is missing.

    management: umad and issm as well.
    """
    found: dict[str, Node] = {}
    for one in chosen:
        if "infiniband_verbs" not in one.device.nodes:
            raise ConfigError(
                f"RDMA device {one.device.name} has no uverbs node;"
                " as root on the host: modprobe ib_uverbs"
            )
        for kind in KINDS if management else KINDS[:1]:
            for name in one.device.nodes.get(kind, ()):
                node = _node(host, f"/sys/class/{kind}/{name}/dev", f"{FOLDER}/{name}")
                found[node.path] = node
    if found and host.exists("/sys/class/misc/rdma_cm/dev"):
        node = _node(host, "/sys/class/misc/rdma_cm/dev", f"{FOLDER}/rdma_cm")
        found[node.path] = node
    return list(found.values())


def _node(host: Host, file: str, path: str) -> Node:
    major, _, minor = (host.text(file) or "").partition(":")
    if not major.isdecimal() or not minor.isdecimal():
        raise ConfigError(file, "names no device")
    there = host.node(path)
    if there is not None and (there.major, there.minor) == (int(major), int(minor)):
        return there
    return Node(path, int(major), int(minor))


def view_edits(host: Host, chosen: list[Chosen], found: list[Device], tree: Tree) -> dict[str, Any]:
    """Return the mounts by which sysfs lists the chosen devices alone; none if those are all.

    Programs look for devices in /sys/class; /sys/devices, whose paths tell the topology, stays.
    """
    names = {one.device.name for one in chosen}
    if names == {device.name for device in found}:
        return {}
    shown = {CLASS.rpartition("/")[2]: names}
    for kind in KINDS:
        shown[kind] = {node for one in chosen for node in one.device.nodes.get(kind, ())}
    mounts = []
    for kind, visible in shown.items():
        where = f"/sys/class/{kind}"
        if not host.exists(where):
            continue
        source = tree.folder(f"sys-class/{kind}")
        for name in host.names(where):
            target = host.resolve(f"{where}/{name}")
            if target == f"{where}/{name}":  # a file of the class itself: abi_version
                text = host.text(target)
                tree.file(f"sys-class/{kind}/{name}", f"{text}\n".encode())
            elif name in visible:
                tree.link(f"sys-class/{kind}/{name}", "../.." + target.removeprefix("/sys"))
        mounts.append({"containerPath": where, "hostPath": source, "options": OPTIONS})
    return {"mounts": mounts}


def memlock_edits(setting: str) -> dict[str, Any]:
    """Return the edit that lets programs pin memory: unlimited, keep (nothing), or bytes.

    Who may not raise a hard limit gets the soft one raised to it, and a warning if that is little.
    """
    if setting == "keep":
        return {}
    if setting != "unlimited" and not (setting.isascii() and setting.isdecimal()):
        raise ConfigError(
            "rdma.memlock in hpc.toml", f'"{setting}" is not unlimited, keep or a number of bytes'
        )
    wanted = UNLIMITED if setting == "unlimited" else int(setting)
    limit = min(wanted, highest("memlock"))
    if limit < min(wanted, ENOUGH):
        log.warning(
            f"programs can pin {limit} bytes for RDMA (hard RLIMIT_MEMLOCK), which is little;"
            " raise it for the engine or the user, in limits.conf or LimitMEMLOCK"
        )
    return {"rlimits": [{"type": "RLIMIT_MEMLOCK", "soft": limit, "hard": limit}]}


def limit_edits(
    chosen: Iterable[Chosen], asked: Mapping[str, int], site: Mapping[str, int]
) -> dict[str, Any]:
    """Return the limits of the rdma cgroup for each device, the lower of the two; 0 is no limit."""
    wanted = {
        field: min(value for value in (asked[field], site[field]) if value)
        for field in asked
        if asked[field] or site[field]
    }
    names = {one.device.name: None for one in chosen} if wanted else ()
    return {"rdmaLimits": [{"device": name, **wanted} for name in names]} if wanted else {}
