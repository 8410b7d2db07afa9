"""Device nodes and links in /dev.

The default nodes and links are always there, as the spec asks, unless /dev is the host's own,
bound.  Inside a user namespace mknod(2) is refused and the host's nodes are bound instead.

runtime-spec, config-linux.md, "Devices", "Default Devices"; config.md, "Dev symbolic links".
"""

from __future__ import annotations

from ocirt.bundle import dev_mount
from ocirt.errors import At, ConfigError
from ocirt.kernel import consts as k
from ocirt.plan.ops import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.plan import Context

DEFAULT_NODES = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/tty", 5, 0),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
)

LINKS = (
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
)

TYPES = {"b": k.S_IFBLK, "c": k.S_IFCHR, "u": k.S_IFCHR, "p": k.S_IFIFO}


def make(config: dict[str, Any], context: Context) -> list[Op]:
    """Make linux.devices, then the default nodes and links that it does not name."""
    linux = config.get("linux") or {}
    bind = int(context.namespaces.has("user"))
    ops = []
    named = set()
    bound = dev_mount(config) is not None
    for index, device in enumerate(linux.get("devices") or ()):
        where = f"linux.devices[{index}]"
        path = device["path"]
        named.add(path)
        if bound and path.startswith("/dev/"):
            continue
        with At(where):
            source = context.node_sources.get(path, path)
            if not context.host.exists(source) and context.in_user_namespace():
                # Not to be made there but to be bound, under whatever name the host has it.
                kind = "block" if device["type"] == "b" else "char"
                numbers = f"{device.get('major') or 0}:{device.get('minor') or 0}"
                source = context.host.node(kind, numbers) or source
            ops.append(_node(device, path, source, where, bind))
    if bound:
        return ops
    for path, major, minor in DEFAULT_NODES:
        if path not in named:
            args = (path, k.S_IFCHR | 0o666, major, minor, 0, 0, path, bind)
            ops.append(Op("node", args, "default devices", f"{path} c {major}:{minor}"))
    for target, path in LINKS:
        ops.append(Op("symlink", (target, path, 0), "default links", f"{path} -> {target}"))
    if context.host.exists("/proc/kcore"):
        what = "/dev/core -> /proc/kcore"
        ops.append(Op("symlink", ("/proc/kcore", "/dev/core", 0), "default links", what))
    return ops


def links(config: dict[str, Any], context: Context) -> list[Op]:
    """Make the links that edits of devices ask for, but none in a /dev that is the host's."""
    bound = context.links and dev_mount(config) is not None
    return [
        Op("symlink", (target, path, 1), origin, f"{path} -> {target}")
        for path, target, origin in context.links
        if not (bound and path.startswith("/dev/"))
    ]


def _node(device: dict[str, Any], path: str, source: str, where: str, bind: int) -> Op:
    kind = TYPES.get(device["type"])
    if kind is None:
        raise ConfigError(f'invalid device type "{device["type"]}"')
    if not path.startswith("/"):
        raise ConfigError(f"path {path} is not absolute")
    mode = device.get("fileMode")
    # podman writes the type bits too (8630 = 0o20666): the permissions are ours, the type is not.
    mode = 0o666 if mode is None else mode & 0o7777
    major, minor = device.get("major") or 0, device.get("minor") or 0
    uid, gid = device.get("uid") or 0, device.get("gid") or 0
    args = (path, kind | mode, major, minor, uid, gid, source, bind and kind != k.S_IFIFO)
    return Op("node", args, where, f"{path} {device['type']} {major}:{minor}")
