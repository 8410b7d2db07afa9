"""Namespaces: which are new, which are joined, and what each wants on the way in.

runtime-spec, config-linux.md, "Namespaces", "User namespace mappings", "Offset for Time
Namespace", "Network Devices"; namespaces(7).
"""

from __future__ import annotations

from ocirt.errors import At, ConfigError
from ocirt.kernel import consts as k
from ocirt.plan.ops import ASK_MAPS, ASK_NETWORK, ASK_RDMA, Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.plan import Context

# type in config.json: (flag of clone(2), name below /proc/PID/ns)
TYPES: dict[str, tuple[int, str]] = {
    "cgroup":  (k.CLONE_NEWCGROUP, "cgroup"),
    "ipc":     (k.CLONE_NEWIPC, "ipc"),
    "mount":   (k.CLONE_NEWNS, "mnt"),
    "network": (k.CLONE_NEWNET, "net"),
    "pid":     (k.CLONE_NEWPID, "pid"),
    "time":    (k.CLONE_NEWTIME, "time"),
    "user":    (k.CLONE_NEWUSER, "user"),
    "uts":     (k.CLONE_NEWUTS, "uts"),
}  # fmt: skip

# Entered by the child itself: a cgroup namespace is rooted where its maker stands, so the child
# must be in its cgroup first; a time namespace takes offsets only while nobody lives in it.
LATE = k.CLONE_NEWCGROUP | k.CLONE_NEWTIME


class Namespaces:
    """The namespaces of one container: `new` {type}, `joined` {type: path}, both may be empty."""

    __slots__ = ("joined", "new", "where")

    def __init__(self, config: dict[str, Any]) -> None:
        self.new: set[str] = set()
        self.joined: dict[str, str] = {}
        self.where: dict[str, str] = {}
        for index, entry in enumerate((config.get("linux") or {}).get("namespaces") or ()):
            kind = entry["type"]
            self.where[kind] = f"linux.namespaces[{index}]"
            if entry.get("path"):
                self.joined[kind] = entry["path"]
            else:
                self.new.add(kind)

    def has(self, kind: str) -> bool:
        """Whether the container is in a namespace of this kind other than the runtime's."""
        return kind in self.new or kind in self.joined


def join(config: dict[str, Any], context: Context) -> list[Op]:
    """Enter the namespaces that are given by path; the user namespace last.

    Those that the user namespace owns refuse a caller outside of it (EPERM) and are tried again
    from within; those of the runtime's own refuse a caller inside of it.  Trying from both sides
    needs no knowledge of the owner.
    """
    spaces = context.namespaces
    order = sorted(spaces.joined, key=lambda kind: kind == "user")
    may_retry = int("user" in spaces.joined)
    return [
        Op(
            "join",
            (f"ns.{kind}", TYPES[kind][0], may_retry),
            spaces.where[kind],
            spaces.joined[kind],
        )
        for kind in order
    ]


def clone(config: dict[str, Any], context: Context) -> list[Op]:
    """Make the container's first process, in its new namespaces and, on v2, in its cgroup."""
    flags = 0
    for kind in context.namespaces.new:
        flags |= TYPES[kind][0]
    names = " ".join(sorted(context.namespaces.new)) or "no namespace"
    return [Op("clone", (flags & ~LATE, context.cgroup_word), "linux.namespaces", names)]


def settle(config: dict[str, Any], context: Context) -> list[Op]:
    """Attach to the cgroups, wait for the id maps, then enter what has to be entered late."""
    spaces = context.namespaces
    linux = config.get("linux") or {}
    ops = [Op("attach", (word,), "linux.cgroupsPath", path) for word, path in context.attach_files]
    if "user" in spaces.new:
        # Only the outside may write the maps; the runtime does, or newuidmap for it.
        ops.append(Op("ask", (ASK_MAPS,), "linux.uidMappings", "write uid_map and gid_map"))
    if spaces.has("user") and context.maps_root:
        ops.append(Op("root_ids", (), "linux.uidMappings", "become root of the user namespace"))
    if "cgroup" in spaces.new:
        ops.append(Op("unshare", (k.CLONE_NEWCGROUP,), spaces.where["cgroup"], "cgroup namespace"))
    if "time" in spaces.new:
        offsets = "".join(
            f"{clock} {value.get('secs') or 0} {value.get('nanosecs') or 0}\n"
            for clock, value in sorted((linux.get("timeOffsets") or {}).items())
        )
        ops.append(Op("time_offsets", (offsets,), "linux.timeOffsets", offsets.replace("\n", "; ")))
    if not context.no_new_keyring:
        ops.append(Op("keyring", (f"_ses.{context.container_id}",), "", "session keyring"))
    if "network" in spaces.new:
        ops.append(Op("loopback", (), spaces.where["network"], "lo up"))
    return ops + _net_devices(linux, context) + _rdma_devices(context)


def _net_devices(linux: dict[str, Any], context: Context) -> list[Op]:
    """Wait for the runtime to move network devices in."""
    devices = linux.get("netDevices")
    if not devices:
        return []
    path = context.namespaces.joined.get("network")
    if path and context.host.is_own_namespace("net", path):
        raise ConfigError(
            "linux.netDevices", "unable to move network devices without a private NET namespace"
        )
    what = ", ".join(
        f"{name} as {device['name']}" if device.get("name") else name
        for name, device in devices.items()
    )
    return [Op("ask", (ASK_NETWORK,), "linux.netDevices", f"move in {what}")]


def _rdma_devices(context: Context) -> list[Op]:
    """Wait for the runtime to move RDMA devices in, all at once."""
    devices = context.rdma_devices
    path = context.namespaces.joined.get("network")
    if not devices or (path and context.host.is_own_namespace("net", path)):
        return []
    where = next(iter(devices.values()))
    return [Op("ask", (ASK_RDMA,), where, f"move in RDMA {', '.join(devices)}")]


def names(config: dict[str, Any], context: Context) -> list[Op]:
    """Set the host and domain name."""
    ops = []
    if config.get("hostname"):
        ops.append(Op("hostname", (config["hostname"],), "hostname", config["hostname"]))
    if config.get("domainname"):
        ops.append(Op("domainname", (config["domainname"],), "domainname", config["domainname"]))
    return ops


def id_map(mappings: list[dict[str, int]], where: str) -> str:
    """Word a list of mappings as the kernel reads it: a line `container host size` for each."""
    with At(where):
        if len(mappings) > 340:
            raise ConfigError(f"has {len(mappings)} entries, the kernel takes 340")
    return "".join(f"{m['containerID']} {m['hostID']} {m['size']}\n" for m in mappings)


def own_group_only(gids: list[dict[str, int]], group: int) -> bool:
    """Whether `group`, the caller's own, is all that is mapped.

    Such a map an unprivileged caller may write, once setgroups(2) is denied for good: by dropping
    a group a process could get at what that group is refused.  user_namespaces(7).
    """
    return len(gids) == 1 and gids[0]["size"] == 1 and gids[0]["hostID"] == group


def maps_zero(mappings: list[dict[str, int]]) -> bool:
    """Whether id 0 exists in a namespace with these mappings (the spec reads size 0 as nothing)."""
    return any(m["containerID"] == 0 and m["size"] > 0 for m in mappings)
