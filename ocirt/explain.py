"""What the kernel's "permission denied" means here, worked out once it has been said.

Loaded for a failure alone: it looks at the file system as it is by then, to word a sentence and
for nothing else.
"""

from __future__ import annotations

from errno import EACCES, EPERM, EROFS

from ocirt import system as os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.plan.ops import Op

# op: which of its arguments is a path in the container
PLACES = {"bind": 2, "mkdir": 0, "mount": 2, "node": 0, "symlink": 1}


def explain(op: Op, errno: int, config: dict[str, Any], rootfs: str) -> str:
    """Return why `op` met with errno; "" when there is no more to say."""
    if errno == EPERM and op.name == "mount" and op.args[0] == "proc":
        return _masked()
    if errno not in (EACCES, EROFS):
        return ""
    if op.name == "rootfs":
        return closed(op.args[0], config)
    if op.name not in PLACES:
        return ""
    place = op.args[PLACES[op.name]]
    if not _mounted(place, config) and not os.path.lexists(rootfs + place):
        return f"{place} is missing and cannot be made in the root file system"
    if op.name == "bind" and not op.args[1]:
        return closed(op.args[0], config)
    return ""


def _masked() -> str:
    """Tell whether our own /proc hides something, as in a container: a new one would show it."""
    from ocirt.kernel import mounts

    hidden = mounts.below("/proc")
    return (
        f"a new procfs would show what is hidden from the runtime ({hidden[0]})" if hidden else ""
    )


def _mounted(place: str, config: dict[str, Any]) -> bool:
    """Whether the place is on a mount of the config, so that the rootfs tells nothing of it."""
    points = [
        os.path.normpath("/" + one["destination"].lstrip("/")) for one in config.get("mounts") or ()
    ]
    return any(place != point and place.startswith(f"{point}/") for point in points)


def closed(path: str, config: dict[str, Any]) -> str:
    """Name the first directory on the way to `path` that the container's root may not pass."""
    uid, gid = (_on_host(config, f"{kind}Mappings") for kind in ("uid", "gid"))
    if uid is None or gid is None:
        return ""
    way = os.path.realpath(path).split("/")
    for end in range(1, len(way)):
        folder = "/".join(way[:end]) or "/"
        try:
            status = os.stat(folder)
        except OSError:
            return ""
        shift = 6 if status.st_uid == uid else 3 if status.st_gid == gid else 0
        if not status.st_mode >> shift & 1:
            return f"{folder} is closed to uid {uid}, the container's root"
    return ""


def _on_host(config: dict[str, Any], field: str) -> int | None:
    """Return the host's number of the container's id 0, None where there is none."""
    for mapping in (config.get("linux") or {}).get(field) or ():
        if mapping["containerID"] == 0 and mapping["size"]:
            return int(mapping["hostID"])
    return None
