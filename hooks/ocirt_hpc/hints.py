"""Variables by which libraries find the fabric; what is set already stays as it is.

    UCX_NET_DEVICES, NCCL_IB_HCA            the ports of the devices
    UCX_IB_GID_INDEX, NCCL_IB_GID_INDEX     where RoCE ports have their address of version 2
    NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME  the network device of the ports, if it has an address
    FI_PROVIDER, FI_EFA_*                   EFA, which libfabric alone can use

One value has to be right for all ports: where it is not, nothing is set, and `ocirt hpc explain`
tells what each port has.  Addresses are those of the host's network namespace, so that a container
with a network of its own gets nothing that depends on them.

Source: NCCL, "Environment Variables", and src/transport/net_ib; UCX, src/uct/ib/base/ib_device.c;
PyTorch, "Common environment variables" of torch.distributed; libfabric, fi_efa(7) and
prov/efa/src/rdm; Linux, Documentation/ABI/testing/sysfs-class-infiniband.
"""

from __future__ import annotations

from ocirt.errors import KernelError
from ocirt_hpc import rdma
from ocirt_hpc.request import variables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ocirt_hpc.edits import Section
    from ocirt_hpc.host import Host
    from ocirt_hpc.image import Image
    from ocirt_hpc.notes import Notes
    from ocirt_hpc.rdma import Chosen, Port

SOCKETS = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")
GIDS = {
    # variable           others that choose an address by themselves: with these it would be wrong
    "NCCL_IB_GID_INDEX": ("NCCL_IB_ADDR_FAMILY", "NCCL_IB_ADDR_RANGE", "NCCL_IB_ROCE_VERSION_NUM"),
    "UCX_IB_GID_INDEX":  ("UCX_IB_ROCE_SUBNET_LIST", "UCX_IB_ROCE_LOCAL_SUBNET"),
}  # fmt: skip

NCCL_SETTINGS = "/etc/nccl.conf"  # of the image; a variable would count for more
LARGEST_SETTINGS = 1 << 16

MOST_GIDS = 256  # of a port
GAP = 8  # free places in a row: what comes after them is not looked for
NO_GID = "0000:0000:0000:0000:0000:0000:0000:0000"
LOCAL = "fe80:"
IPV4 = "0000:0000:0000:0000:0000:ffff:"

EFA = "efa"  # the driver
EFA_READS = 0xEFA2  # number of the first model all of whose devices read remote memory
PAGES = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"


def edits(
    host: Host,
    chosen: list[Chosen],
    notes: Notes,
    origin: str,
    image: Image,
    config: dict[str, Any],
    more: Iterable[Section],
    *,
    own_network: bool,
) -> dict[str, Any]:
    """Return the variables for the chosen devices.

    more: edits that come after these.  own_network: whether the container has none of the host's.
    """
    there = {name for name, value in variables(config).items() if value}
    for _, section in more:
        for kind in ("env", "envDefault"):
            there |= {item.partition("=")[0] for item in section.get(kind) or ()}
    efa = [one for one in chosen if rdma.driver(host, one.device) == EFA]
    rest = [one for one in chosen if one not in efa]
    made = _ports(rest)
    if rest and not own_network:
        there |= _in_settings(image)
        made += _gids(host, rest, there, notes, origin)
        made += _sockets(host, rest, there, notes, origin)
    if efa and not rest:
        made += _efa(host, efa, config)
    return {"envDefault": made} if made else {}


def _of(chosen: Iterable[Chosen]) -> list[tuple[str, Port, str]]:
    """Return name, port and place in sysfs of all ports of the devices that were asked for."""
    return [
        (f"{one.device.name}:{port.number}", port, f"{one.device.place}/ports/{port.number}")
        for one in chosen
        for port in one.device.ports
        if one.port in (0, port.number)
    ]


def _ports(chosen: Iterable[Chosen]) -> list[str]:
    names = ",".join(name for name, _, _ in _of(chosen))
    # "=" has NCCL compare whole names: mlx5_1 must not mean mlx5_10 too.
    return [f"UCX_NET_DEVICES={names}", f"NCCL_IB_HCA=={names}"] if names else []


# --- RoCE: which of a port's addresses


def _gids(
    host: Host, chosen: Iterable[Chosen], there: set[str], notes: Notes, origin: str
) -> list[str]:
    ports = [one for one in _of(chosen) if one[1].active]
    # An index counts for InfiniBand as well, where it means something else.
    if not ports or any(port.layer != "Ethernet" for _, port, _ in ports):
        return []
    wanted = [name for name, others in GIDS.items() if not there.intersection((name, *others))]
    if not wanted:
        return []
    found = {name: _version_2(host, place) for name, _, place in ports}
    same = {tuple(indices) for indices in found.values()}
    if len(same) == 1 and len(one := same.pop()) == 1:
        return [f"{name}={one[0]}" for name in wanted]
    if any(found.values()):
        told = ", ".join(
            f"{name} has {' and '.join(map(str, held)) or 'none'}" for name, held in found.items()
        )
        notes.suggest(origin, f"no index of an address fits all ports ({' '.join(wanted)}): {told}")
    return []


def _version_2(host: Host, place: str) -> list[int]:
    """Return the indices of a port's routable RoCE v2 addresses: of IPv4, or else of IPv6."""
    by_family: dict[bool, list[int]] = {True: [], False: []}
    free = 0
    for index in range(MOST_GIDS):
        gid = host.text(f"{place}/gids/{index}")
        if gid is None:
            break
        if gid == NO_GID:
            free += 1
            if free == GAP:
                break
            continue
        free = 0
        if not gid.startswith(LOCAL) and _attribute(host, place, "types", index) == "RoCE v2":
            by_family[gid.startswith(IPV4)].append(index)
    return by_family[True] or by_family[False]


def _attribute(host: Host, place: str, kind: str, index: int) -> str:
    try:
        return host.text(f"{place}/gid_attrs/{kind}/{index}") or ""
    except KernelError:
        return ""  # EINVAL: an address that has gone since


# --- sockets, by which processes find each other first


def _sockets(
    host: Host, chosen: list[Chosen], named: set[str], notes: Notes, origin: str
) -> list[str]:
    wanted = [name for name in SOCKETS if name not in named]
    if not wanted:
        return []
    devices: dict[str, None] = {}
    for one in chosen:
        for _, port, place in _of([one]):
            if port.active:
                devices.update(dict.fromkeys(_network(host, one, port, place)))
    there = _with_address(host) if devices else set()
    used = [name for name in devices if name in there]
    if len(used) == 1:
        return [f"{name}={'=' if name.startswith('NCCL') else ''}{used[0]}" for name in wanted]
    if used:
        notes.suggest(
            origin,
            f"the ports have several network devices ({' '.join(wanted)}): {', '.join(used)}",
        )
    return []


def _network(host: Host, chosen: Chosen, port: Port, place: str) -> list[str]:
    """Return the network devices of a port: RoCE's are in its table of addresses."""
    if port.layer == "Ethernet":
        names = []
        for index in range(MOST_GIDS):
            gid = host.text(f"{place}/gids/{index}")
            if gid is None or gid == NO_GID:
                break
            names.append(_attribute(host, place, "ndevs", index))
        return [name for name in names if name]
    return chosen.device.pci.names("net") if chosen.device.pci is not None else []


def _with_address(host: Host) -> set[str]:
    """Return the network devices that have an address beyond their own link."""
    routes = (host.text("/proc/net/route") or "").splitlines()[1:]
    names = {line.split()[0] for line in routes if line.strip()}
    for line in (host.text("/proc/net/if_inet6") or "").splitlines():
        fields = line.split()  # address, index, length of the prefix, scope, flags, name
        if len(fields) == 6 and fields[3] == "00":
            names.add(fields[5])
    return names


def _in_settings(image: Image) -> set[str]:
    held = image.read(NCCL_SETTINGS, LARGEST_SETTINGS) or b""
    lines = held.decode("utf-8", "replace").splitlines()
    return {line.partition("=")[0].strip() for line in lines if not line.startswith("#")} - {""}


# --- EFA


def _efa(host: Host, chosen: Iterable[Chosen], config: dict[str, Any]) -> list[str]:
    made = ["FI_PROVIDER=efa"]
    models = [one.device.pci.number("device") or 0 for one in chosen if one.device.pci is not None]
    # libfabric aborts where a device of an older model is told to, and cannot.
    if min(models) >= EFA_READS:
        made.append("FI_EFA_USE_DEVICE_RDMA=1")
    if not pages(host, config):
        made.append("FI_EFA_USE_HUGE_PAGE=0")
    return made


def pages(host: Host, config: dict[str, Any]) -> bool:
    """Whether a container can have huge pages of 2 MiB: the host has some, and no limit is 0."""
    resources = (config.get("linux") or {}).get("resources") or {}
    limits = {one["pageSize"]: one["limit"] for one in resources.get("hugepageLimits") or ()}
    return bool(host.number(PAGES)) and limits.get("2MB", 1) != 0
