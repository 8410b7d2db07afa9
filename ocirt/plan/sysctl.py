"""Kernel parameters: which ones belong to the container alone, and where they are written.

A parameter that is not tied to a namespace of the container would change the whole machine, so
what is not in the table is refused.  Values are opaque: each is written to its one file as it
stands, whatever it looks like (CVE-2022-0811).

runtime-spec, config-linux.md, "Sysctl"; sysctl.d(5) for the two ways to spell a key.
"""

from __future__ import annotations

from ocirt.errors import ConfigError
from ocirt.plan.ops import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.plan.host import Host

# first parts of the path below /proc/sys, namespace that keeps the parameter apart, its /proc name
NAMESPACED = (
    (("kernel", "msgmax"), "ipc"),
    (("kernel", "msgmnb"), "ipc"),
    (("kernel", "msgmni"), "ipc"),
    (("kernel", "sem"), "ipc"),
    (("kernel", "shmall"), "ipc"),
    (("kernel", "shmmax"), "ipc"),
    (("kernel", "shmmni"), "ipc"),
    (("kernel", "shm_rmid_forced"), "ipc"),
    (("kernel", "domainname"), "uts"),
    (("fs", "mqueue"), "ipc"),
    (("net",), "network"),
    (("user",), "user"),
)
PROC_NAMES = {"ipc": "ipc", "uts": "uts", "network": "net", "user": "user"}

# below these, one directory per network interface, whose name may hold dots: eth0.100
BY_INTERFACE = (
    ("net", "ipv4", "conf"),
    ("net", "ipv4", "neigh"),
    ("net", "ipv6", "conf"),
    ("net", "ipv6", "neigh"),
    ("net", "mpls", "conf"),
)


def split(key: str) -> list[str]:
    """Return the parts of a key's path below /proc/sys.

    The first separator tells how the key is spelt: `net/ipv4/conf/eth0.1/forwarding` is a path;
    `net.ipv4.conf.eth0/1.forwarding` has dots and slashes swapped.  A dotted key that writes the
    interface plainly, `net.ipv4.conf.eth0.1.forwarding`, has one reading only, and gets it.
    """
    slash, dot = key.find("/"), key.find(".")
    if slash >= 0 and (dot < 0 or slash < dot):
        return key.split("/")
    parts = [part.replace("/", ".") for part in key.split(".")]
    if tuple(parts[:3]) in BY_INTERFACE and len(parts) > 5:
        parts[3:-1] = [".".join(parts[3:-1])]
    return parts


def write(config: dict[str, Any], host: Host) -> list[Op]:
    """Write linux.sysctl, each parameter into the container's own namespace or not at all."""
    linux = config.get("linux") or {}
    given = linux.get("sysctl")
    if not given:
        return []
    spaces = {space["type"]: space.get("path") for space in linux.get("namespaces") or ()}
    ops = []
    for key, value in given.items():
        where = f"linux.sysctl[{key}]"
        parts = split(key)
        if any(part in ("", ".", "..") or "/" in part or "\0" in part for part in parts):
            raise ConfigError(where, "is not the name of a kernel parameter")
        if parts == ["kernel", "hostname"]:
            raise ConfigError(where, 'conflicts with the OCI "hostname" field')
        if not _is_apart(parts, spaces, host):
            raise ConfigError(where, f'sysctl "{key}" is not in a separate kernel namespace')
        what = f"{key}={value}"
        if parts == ["kernel", "domainname"]:  # the file is no longer root's in a user namespace
            ops.append(Op("domainname", (value,), where, what))
        else:
            ops.append(Op("sysctl", ("/".join(parts), value), where, what))
    return ops


def _is_apart(parts: list[str], spaces: dict[str, str | None], host: Host) -> bool:
    """Whether the parameter belongs to a namespace that the container does not share with us."""
    for start, kind in NAMESPACED:
        if tuple(parts[: len(start)]) == start:
            path = spaces.get(kind)
            return kind in spaces and not (path and host.is_own_namespace(PROC_NAMES[kind], path))
    return False
