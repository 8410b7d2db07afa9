"""RDMA devices on a host that keeps each in one network namespace (`rdma system`: exclusive).

There a container with a network of its own can use a device only once it has moved in, and nobody
else, the host included, can use it meanwhile.  So the site decides who may ask for that.  The
runtime moves them (ocirt/rdmadevices.py).

Source: rdma-system(8); Linux, drivers/infiniband/core/device.c.
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.errors import ConfigError
from ocirt_hpc import rdma

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ocirt_hpc.edits import Section
    from ocirt_hpc.host import Host
    from ocirt_hpc.rdma import Device
    from ocirt_hpc.request import Asked

PATIENCE, PAUSE = 2.0, 0.02  # seconds


def active(host: Host) -> bool:
    """Whether the host is in this mode; a machine that is only a directory is not."""
    if host.root or not host.exists(rdma.CLASS):
        return False
    from ocirt.kernel.rdmanetlink import Rdma

    socket = Rdma()
    try:
        return socket.exclusive()
    finally:
        socket.close()


def find(host: Host, asked: Asked) -> list[Device]:
    """Return the host's RDMA devices; wait a moment for named ones on their way back.

    The kernel brings a device home some time after the last process of its container has ended.
    """
    found = rdma.find(host)
    if not asked.explicit or not _missing(found, asked.names) or not active(host):
        return found
    from time import monotonic, sleep

    deadline = monotonic() + PATIENCE
    while _missing(found, asked.names) and monotonic() < deadline:
        sleep(PAUSE)
        found = rdma.find(host)
    return found


def _missing(found: list[Device], names: list[str]) -> bool:
    try:
        rdma.choose(found, names)
    except ConfigError:
        return True
    return False


def own_network(config: dict[str, Any], more: Iterable[Section]) -> bool:
    """Whether the container has a network namespace of its own, with these further edits."""
    if any("network" in section.get("dropNamespaces", ()) for _, section in more):
        return False
    for space in (config.get("linux") or {}).get("namespaces") or ():
        if space["type"] == "network":
            path = space.get("path")
            return not path or not _same(path, "/proc/self/ns/net")
    return False


def _same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False  # the plan says so, and better


def refusal(asked: Asked, setting: str, *, rootless: bool, foreign: bool = False) -> str:
    """Return why no device moves into the container, or nothing if it may.

    foreign: whether another runtime makes the container.
    """
    if foreign:
        why = "another runtime moves none: use the host's network"
    elif rootless:
        why = "only root can move one: use the host's network"
    elif setting == "never":
        why = "the site has none moved (rdma.move in hpc.toml)"
    elif setting == "caller" and asked.where.startswith("process.env"):
        why = "variables do not have one moved here (rdma.move in hpc.toml)"
    else:
        return ""
    return f"RDMA devices are the host's network namespace's alone (rdma system), and {why}"
