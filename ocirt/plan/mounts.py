"""Compile config.json's mounts, in their order, which the spec makes binding.

Binds are made with open_tree(2) and mount_setattr(2), so that options add to the source's own
flags and never take `nosuid` or `nodev` away unless they name it.  File systems are made with
mount(2) and its flags.

runtime-spec, config.md, "Mounts"; mount_setattr(2); for what may be mounted inside /proc:
CVE-2019-16884 and its relatives.
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.errors import At, ConfigError
from ocirt.kernel import consts as k
from ocirt.plan import mountopts
from ocirt.plan.namespaces import id_map
from ocirt.plan.ops import (
    ALL_OF_IT,
    COPY_UP,
    IN_PROC,
    MAKE_DIR,
    MAKE_FILE,
    NO_LINKS,
    VERIFY_PROC,
    VERIFY_SYS,
    Op,
)  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.plan import Context
    from ocirt.plan.mountopts import Options

# What may be covered inside /proc: files that lxcfs and its like replace for a container, and
# what the NVIDIA driver tells of GPUs.
IN_PROC_ALLOWED = frozenset({
    "/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps",
    "/proc/uptime", "/proc/loadavg", "/proc/slabinfo", "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled", "/proc/driver/nvidia", "/proc/driver/nvidia/params",
})  # fmt: skip


# What a user namespace may not mount anew unless it owns that other namespace (EPERM).  The host's
# own stands in, where that is the one the container is in; of sysfs in any case, wholly read-only:
# nothing in it but the network's part belongs to a namespace, and cgroups are mounted below.
INSTEAD = {
    # type     the host's     owner of its view    attributes, how
    "mqueue": ("/dev/mqueue", "ipc",               0, 0),
    "proc":   ("/proc",       "pid",               0, NO_LINKS | VERIFY_PROC),
    "sysfs":  ("/sys",        "network",           k.MOUNT_ATTR_RDONLY, ALL_OF_IT),
}  # fmt: skip


def _destination(mount: dict[str, Any]) -> str:
    """Return the destination as an absolute, lexically clean path; the root itself is refused."""
    path: str = mount["destination"]
    if "//" in path or "/." in path or path[-1:] == "/" or path[:1] != "/":
        path = os.path.normpath("/" + path)
        path = path[1:] if path.startswith("//") else path
    if path == "/":
        raise ConfigError(f"destination {mount['destination']} is the root itself")
    return path


def trees(config: dict[str, Any], context: Context) -> list[Op]:
    """Open, outside, the bind sources that the inside could not open or could not map ids on."""
    spaces = context.namespaces
    if spaces.has("user") and not context.unprivileged:
        hidden = _hidden_from_others
    elif any(mount.get("uidMappings") or _idmapped(mount) for mount in config.get("mounts") or ()):
        hidden = _never
    else:
        return []
    ops = []
    for index, mount in enumerate(config.get("mounts") or ()):
        where = f"mounts[{index}]"
        with At(where):
            options = mountopts.parse(mount.get("options") or [])
            mapped = options.idmap is not None or mount.get("uidMappings")
            binds = options.bind is not None or mount.get("type") == "bind"
            if not binds or options.flags & k.MS_REMOUNT:
                if mapped:
                    raise ConfigError("id mappings need a bind mount")
                continue
            source = _source(mount, context)
            if not mapped and not hidden(source):
                continue
            slot = context.new_slot(f"tree.{index}")
            recursive = int(options.bind or False)
            ops.append(Op("open_tree", (slot, source, recursive), where, source))
            if mapped:
                uids, gids = _mappings(mount, config)
                maps = (id_map(uids, "uidMappings"), id_map(gids, "gidMappings"))
                ops.append(Op("idmap", (slot, *maps, int(options.idmap or False)), where, source))
    return ops


def _idmapped(mount: dict[str, Any]) -> bool:
    options = mount.get("options") or ()
    return "idmap" in options or "ridmap" in options


def _never(source: str) -> bool:
    return False


def _hidden_from_others(source: str) -> bool:
    """Whether the container's root, a stranger on the host, could not walk to this path."""
    path = os.path.realpath(source)
    while path != "/":
        path = os.path.dirname(path)
        try:
            if not os.stat(path).st_mode & 0o001:
                return True
        except FileNotFoundError:  # such as the container's own directory, which is yet to come
            return True
    return False


def _mappings(
    mount: dict[str, Any], config: dict[str, Any]
) -> tuple[list[dict[str, int]], list[dict[str, int]]]:
    """The mount's own id mappings, or those of the container's user namespace."""
    uids, gids = mount.get("uidMappings"), mount.get("gidMappings")
    if bool(uids) != bool(gids):
        raise ConfigError("needs both uidMappings and gidMappings")
    if uids and gids:
        return uids, gids
    linux = config.get("linux") or {}
    uids, gids = linux.get("uidMappings"), linux.get("gidMappings")
    if not (uids and gids):
        raise ConfigError("idmap needs uidMappings and gidMappings, here or in linux")
    return uids, gids


def _source(mount: dict[str, Any], context: Context) -> str:
    source = mount.get("source") or ""
    if not source:
        raise ConfigError("a bind mount needs a source")
    return source if source[0] == "/" else os.path.join(context.bundle, source)


def make(config: dict[str, Any], context: Context) -> list[Op]:
    """Compile every mount of the config."""
    mounts = config.get("mounts") or ()
    ops: list[Op] = []
    label = (config.get("linux") or {}).get("mountLabel") or ""
    for index, mount in enumerate(mounts):
        where = f"mounts[{index}]"
        with At(where):
            given = (index, mount, where, label, config, context)
            own = mount.get("type") == "cgroup"
            ops += _one(*given) if own else context.once(where, _one, *given)
    return ops


def _one(
    index: int,
    mount: dict[str, Any],
    where: str,
    label: str,
    config: dict[str, Any],
    context: Context,
) -> list[Op]:
    kind = mount.get("type") or ""
    dest = _destination(mount)
    options = mountopts.parse(mount.get("options") or [])
    if options.flags & k.MS_REMOUNT:
        if options.bind is not None and context.in_user_namespace():
            # mount(2) would take away what is not named, which the kernel locks there (EPERM).
            return [Op("set_attr", (dest, options.set, options.clear, 0, 0), where, dest)]
        return [
            Op("remount", (dest, options.flags | _bind_flag(options), options.data), where, dest)
        ]
    if options.bind is not None or kind == "bind":
        ops = [_bind(index, mount, dest, options, where, context)]
    elif kind == "cgroup":
        ops = _cgroup(dest, options, where, context)
    else:
        ops = _file_system(kind, mount, dest, options, where, label, context)
    ops += [
        Op("set_attr", (dest, 0, 0, flag, int(recursive)), where, dest)
        for flag, recursive in options.propagation
    ]
    if options.rchange:
        ops.append(Op("set_attr", (dest, options.rset, options.rclear, 0, 1), where, dest))
    return ops


def _bind_flag(options: Options) -> int:
    return 0 if options.bind is None else k.MS_BIND


def _inside_proc(dest: str) -> int:
    """Return the permission to cover a file in /proc, or refuse."""
    if not dest.startswith("/proc/"):
        return 0
    if dest not in IN_PROC_ALLOWED:
        raise ConfigError(f"{dest} is inside /proc, and must not be covered")
    return IN_PROC


def _bind(
    index: int, mount: dict[str, Any], dest: str, options: Options, where: str, context: Context
) -> Op:
    how = MAKE_DIR | MAKE_FILE | _inside_proc(dest)
    if dest == "/proc":
        how |= NO_LINKS | VERIFY_PROC
    elif dest in context.no_links:
        how |= NO_LINKS
    source = _source(mount, context)
    tree = f"tree.{index}" if f"tree.{index}" in context.slots else ""
    recursive = int(options.bind or False)
    args = (source, tree, dest, recursive, options.set, options.clear, how)
    return Op("bind", args, where, f"{source} on {dest}")


def _file_system(
    kind: str,
    mount: dict[str, Any],
    dest: str,
    options: Options,
    where: str,
    label: str,
    context: Context,
) -> list[Op]:
    if not kind:
        raise ConfigError(f"{dest}: needs a type, or the option bind or rbind")
    how = MAKE_DIR | _inside_proc(dest)
    flags, data = options.flags, options.data
    if kind == "proc":
        how |= NO_LINKS | VERIFY_PROC
    elif kind == "sysfs":
        how |= NO_LINKS | VERIFY_SYS
    elif dest == "/proc":
        raise ConfigError('"/proc" cannot be mounted because it is not of type proc')
    elif label and kind != "mqueue":  # mqueue refuses a context option
        data += f'{"," if data else ""}context="{label}"'
    if options.copy_up:
        if kind != "tmpfs":
            raise ConfigError(f"tmpcopyup is for tmpfs, not for {kind}")
        how |= COPY_UP
    if dest == "/dev":
        flags &= ~k.MS_RDONLY  # nodes are still to come; see `seal`
    source = mount.get("source") or kind
    op = Op("mount", (kind, source, dest, flags, data, how), where, f"{kind} on {dest}")
    if (
        kind in INSTEAD
        and context.in_user_namespace()
        and (kind == "sysfs" or not context.namespaces.has(INSTEAD[kind][1]))
        and context.host.exists(INSTEAD[kind][0])
    ):
        host, _, attributes, how = INSTEAD[kind]
        clear = options.clear & ~attributes
        args = (host, "", dest, 1, options.set | attributes, clear, how | MAKE_DIR)
        return [Op("try", (), where, ""), op, Op("bind", args, where, f"{host} on {dest}")]
    return [op]


def _cgroup(dest: str, options: Options, where: str, context: Context) -> list[Op]:
    """Mount the container's own cgroups: one file system on v2, a tmpfs full of them on v1."""
    flags = options.flags & ~k.MS_RDONLY
    read_only = options.flags & k.MS_RDONLY
    private = context.namespaces.has("cgroup")
    ops: list[Op] = []
    steps = context.cgroup_mounts(dest, private)
    attributes = options.set & ~k.MOUNT_ATTR_RDONLY
    for kind, source, target, data in steps:
        if kind == "bind":
            attr = attributes | (k.MOUNT_ATTR_RDONLY if read_only or data == "ro" else 0)
            args = (source, "", target, 1, attr, options.clear & ~attr, MAKE_DIR)
            ops.append(Op("bind", args, where, f"{source} on {target}"))
        elif kind == "symlink":
            ops.append(Op("symlink", (source, target, 0), where, f"{target} -> {source}"))
        elif kind == "try":
            ops.append(Op("try", (), where, ""))
        else:
            own = flags if kind == "tmpfs" else options.flags
            made = (kind, source, target, own, data, MAKE_DIR)
            ops.append(Op("mount", made, where, f"{kind} on {target}"))
    if read_only and steps[0][0] == "tmpfs":
        ops.append(Op("set_attr", (dest, k.MOUNT_ATTR_RDONLY, 0, 0, 0), where, f"{dest} read-only"))
    return ops


def seal(config: dict[str, Any], context: Context) -> list[Op]:
    """Make a read-only /dev read-only, now that its nodes exist."""
    ops = []
    for index, mount in enumerate(config.get("mounts") or ()):
        options = mount.get("options") or ()
        if mount["destination"] == "/dev" and "ro" in options and "bind" not in options:
            args = ("/dev", k.MOUNT_ATTR_RDONLY, 0, 0, 0)
            ops.append(Op("set_attr", args, f"mounts[{index}]", "/dev read-only"))
    return ops
