"""Entering a container that exists: the steps of `exec` that making one does not have.

The namespaces are those that the container's init is in, taken from one descriptor of its /proc
directory, so that no config and no reused pid can lead elsewhere; which of them differ from our
own is a fact that the caller looks up.

runtime-spec, config.md, "Process"; config-linux.md, "Namespaces"; setns(2).
"""

from __future__ import annotations

from ocirt.errors import At
from ocirt.plan.identity import LARGEST_CPU, bits
from ocirt.plan.namespaces import TYPES
from ocirt.plan.ops import CHROOT, Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.plan import Context


def _affinity(config: dict[str, Any], field: str) -> list[Op]:
    text = ((config.get("process") or {}).get("execCPUAffinity") or {}).get(field)
    if not text:
        return []
    where = f"process.execCPUAffinity.{field}"
    with At(where):
        mask = bits(",".join([part for part in text.split(",") if part.strip()]), LARGEST_CPU)
    return [Op("affinity", (mask,), where, text)]


def outside(config: dict[str, Any], context: Context) -> list[Op]:
    """Set what the process inherits: CPUs until it is in its cgroups, OOM score."""
    from ocirt.plan.identity import outside as inherited

    reset, *rest = inherited(config, context.host)
    return [*(_affinity(config, "initial") or [reset]), *rest]


def join(config: dict[str, Any], context: Context) -> list[Op]:
    """Enter the namespaces of the init; the user namespace last, as `namespaces.join` does."""
    order = sorted(context.joins, key=lambda kind: kind == "user")
    may_retry = int("user" in context.joins)
    return [_join(kind, may_retry) for kind in order if kind != "cgroup" or not context.cgroup_late]


def _join(kind: str, may_retry: int) -> Op:
    return Op("join", (f"ns.{kind}", TYPES[kind][0], may_retry), "", f"{kind} namespace")


def clone(config: dict[str, Any], context: Context) -> list[Op]:
    """Make the process: only a child is in the pid namespace that its parent has joined."""
    return [Op("clone", (0, context.cgroup_word), "linux.cgroupsPath", "the process")]


def settle(config: dict[str, Any], context: Context) -> list[Op]:
    """Attach to the cgroups, and enter what can be entered only from within."""
    ops = [Op("attach", (word,), "linux.cgroupsPath", path) for word, path in context.attach_files]
    # In there the kernel would not let us come from a cgroup that lies outside (nsdelegate).
    if "cgroup" in context.joins and context.cgroup_late:
        ops.append(_join("cgroup", 0))
    ops += _affinity(config, "final")
    if "user" in context.joins and context.maps_root:
        where = "linux.uidMappings"
        ops.append(Op("root_ids", (), where, "become root of the user namespace"))
    if not context.no_new_keyring:
        # The name is known already, so this is the container's and no new one.
        ops.append(Op("keyring", (f"_ses.{context.container_id}",), "", "session keyring"))
    return ops


def root(config: dict[str, Any], context: Context) -> list[Op]:
    """Change the root where it is not that of the mount namespace (see `rootfs.pivot`)."""
    if "mount" in context.namespaces.new:
        return []
    return [
        Op("rootfs", (context.rootfs, 0), "root.path", context.rootfs),
        Op("pivot", (CHROOT,), "root.path", "chroot"),
    ]


def reopen_null(config: dict[str, Any], context: Context) -> list[Op]:
    """Leave no /dev/null of the host in the container, as far as the container still has one."""
    return [
        Op("try", (), "", ""),
        Op("reopen_null", (), "", "stdio on /dev/null"),
        Op("umask", (0,), "", "which it is already"),
    ]


def console(config: dict[str, Any], context: Context) -> list[Op]:
    """Make a terminal in the container's devpts; /dev/console stays the init's."""
    process = config["process"]
    if not process.get("terminal"):
        return []
    size = process.get("consoleSize") or {}
    uid = (process.get("user") or {}).get("uid") or 0
    args = (size.get("height") or 0, size.get("width") or 0, uid, -1, 0)
    return [Op("console", args, "process.terminal", "terminal")]
