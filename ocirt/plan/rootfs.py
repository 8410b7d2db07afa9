"""The root file system: how it is detached from the host's mounts, and how it becomes `/`.

runtime-spec, config.md, "Root"; config-linux.md, "Rootfs Mount Propagation"; pivot_root(2).
"""

from __future__ import annotations

from ocirt.errors import ConfigError
from ocirt.kernel import consts as k
from ocirt.plan.mountopts import PROPAGATION
from ocirt.plan.ops import CHROOT, MOVE, PIVOT, Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.plan import Context


def _wanted(config: dict[str, Any]) -> tuple[int, bool] | None:
    wanted = (config.get("linux") or {}).get("rootfsPropagation")
    if not wanted:
        return None
    if wanted not in PROPAGATION:
        raise ConfigError("linux.rootfsPropagation", f"unknown propagation {wanted}")
    return PROPAGATION[wanted]


def prepare(config: dict[str, Any], context: Context) -> list[Op]:
    """Cut the new mount namespace off from the host, then make the rootfs a mount of its own."""
    if not context.namespaces.has("mount"):
        return [Op("rootfs", (context.rootfs, 0), "root.path", context.rootfs)]
    ops = []
    if "mount" in context.namespaces.new:
        # rslave: what the host mounts later still arrives, nothing of ours goes back.  A config
        # that asks for `shared` wants its own mounts seen by the host, so there the mounts stay
        # peers and only the rootfs is made private (by the rootfs op).
        kind, recursive = _wanted(config) or (k.MS_SLAVE, True)
        if kind == k.MS_UNBINDABLE:  # would forbid the bind that follows; applied after the pivot
            kind, recursive = k.MS_PRIVATE, True
        flags = kind | (k.MS_REC if recursive else 0)
        ops.append(Op("propagation", (flags,), "linux.rootfsPropagation", "/"))
    ops.append(Op("rootfs", (context.rootfs, 1), "root.path", context.rootfs))
    return ops


def pivot(config: dict[str, Any], context: Context) -> list[Op]:
    """Make the rootfs `/`, and give it the propagation that the config asks for."""
    if not context.namespaces.has("mount"):
        how = CHROOT
    elif context.no_pivot:
        how = MOVE
    elif "mount" in context.namespaces.joined:
        how = CHROOT  # others live in that namespace: their root is not ours to change
    else:
        how = PIVOT
    ops = [Op("pivot", (how,), "root.path", ("pivot_root", "move and chroot", "chroot")[how])]
    wanted = _wanted(config)
    if wanted and how != CHROOT:
        kind, recursive = wanted
        where = "linux.rootfsPropagation"
        ops.append(Op("set_attr", ("/", 0, 0, kind, int(recursive)), where, "/"))
    return ops


def seal(config: dict[str, Any], context: Context) -> list[Op]:
    """Make a read-only root read-only, once nothing needs to be created in it any more."""
    if not (config.get("root") or {}).get("readonly"):
        return []
    if not context.namespaces.has("mount"):
        raise ConfigError("root.readonly", "needs a mount namespace")
    return [Op("set_attr", ("/", k.MOUNT_ATTR_RDONLY, 0, 0, 0), "root.readonly", "/")]
