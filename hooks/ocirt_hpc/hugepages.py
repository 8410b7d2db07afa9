"""Huge pages for fabrics: a file system of them at /dev/hugepages.

    rdma.hugepages = "caller"   for who asks by the annotation ocirt.hpc/hugepages=true
                     "always"   for every container with RDMA devices, too
                     "never"    for nobody

It is a file system of the container's own: DPDK and others share memory by the names of files, and
the host's would show those of everybody.  Only where the container has a user namespace, in which
the kernel mounts none, or is made without root, it is the host's that lies there.

How many pages a container can have is for linux.resources.hugepageLimits to say, which is left
alone: Kubernetes and AWS ask for them there.

Source: Linux, Documentation/admin-guide/mm/hugetlbpage.rst; Amazon EKS, "Manage EFA devices".
"""

from __future__ import annotations

from ocirt.errors import ConfigError
from ocirt_hpc import request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt_hpc.edits import Section
    from ocirt_hpc.host import Host
    from ocirt_hpc.notes import Notes

PLACE = "/dev/hugepages"
SIZES = "/sys/kernel/mm/hugepages"
PROTECTED = ["nosuid", "nodev", "noexec"]


def sections(
    config: dict[str, Any],
    host: Host,
    notes: Notes,
    setting: str,
    *,
    rdma: bool,
    rootless: bool,
) -> list[Section]:
    """Return the mount, if it is asked for; ConfigError when it cannot be had.

    rdma: whether the container has RDMA devices.
    """
    asked = request.flag(config, request.HUGEPAGES)
    if asked is None and rdma and setting == "always":
        asked = request.Asked("true", "rdma.hugepages=always", "rdma.hugepages in hpc.toml")
    if asked is None or asked.names == ["false"]:
        return []
    if setting == "never":
        raise ConfigError(asked.where, "the site gives none (rdma.hugepages in hpc.toml)")
    notes.allow(asked)
    if not any(host.number(f"{SIZES}/{size}/nr_hugepages") for size in host.names(SIZES)):
        why = "this host has set no huge pages aside (vm.nr_hugepages)"
        if asked.where.startswith("annotations"):
            raise ConfigError(asked.where, why)
        notes.skip(asked.origin, why)
        return []
    if rootless or request.has_namespace(config, "user"):
        if not host.exists(PLACE):
            raise ConfigError(asked.where, f"this host has no {PLACE}")
        source = {"hostPath": host.root + PLACE, "options": ["bind", "rw", *PROTECTED]}
    else:
        user = (config.get("process") or {}).get("user") or {}
        owner = [f"uid={user.get('uid', 0)}", f"gid={user.get('gid', 0)}"]
        source = {
            "hostPath": "hugetlbfs",
            "type": "hugetlbfs",
            "options": [*PROTECTED, "mode=0770", *owner],
        }
    return [(asked.origin, {"mounts": [{"containerPath": PLACE, **source}]})]
