"""Write the id maps of a new user namespace: directly, or through newuidmap and newgidmap.

The kernel lets a privileged writer map anything, an unprivileged one only its own id; for ranges
the latter needs the set-uid helpers and lines in /etc/subuid and /etc/subgid.

user_namespaces(7), "User and group ID mappings"; newuidmap(1).
"""

from __future__ import annotations

import os

from ocirt.errors import At, Error
from ocirt.plan.namespaces import id_map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def write(pid: int, linux: dict[str, Any]) -> None:
    """Write both maps of the process's user namespace from linux.uidMappings and gidMappings."""
    uids, gids = linux.get("uidMappings") or [], linux.get("gidMappings") or []
    privileged = os.geteuid() == 0
    with At("linux.uidMappings"):
        if not _direct(f"/proc/{pid}/uid_map", id_map(uids, "uidMappings")):
            _helper("newuidmap", "/etc/subuid", pid, uids)
    with At("linux.gidMappings"):
        if not privileged and _own_group_only(gids):
            # Without this an unprivileged process could drop a group that denies it access.
            _direct(f"/proc/{pid}/setgroups", "deny")
        if not _direct(f"/proc/{pid}/gid_map", id_map(gids, "gidMappings")):
            _helper("newgidmap", "/etc/subgid", pid, gids)


def _own_group_only(gids: list[dict[str, int]]) -> bool:
    return len(gids) == 1 and gids[0]["size"] == 1 and gids[0]["hostID"] == os.getegid()


def _direct(path: str, text: str) -> bool:
    """Write a map in one write, as the kernel wants it; False when we are not entitled to."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except PermissionError:
        return False
    finally:
        os.close(fd)
    return True


def _helper(name: str, file: str, pid: int, mappings: list[dict[str, int]]) -> None:
    words = [str(m[key]) for m in mappings for key in ("containerID", "hostID", "size")]
    try:
        child = os.posix_spawnp(name, [name, str(pid), *words], dict(os.environ))
    except FileNotFoundError:
        raise Error(f"operation not permitted, and {name} (package uidmap) is missing") from None
    _, status = os.waitpid(child, 0)
    if status:
        raise Error(f"{name} refused the mapping: see {file}")
