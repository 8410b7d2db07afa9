"""What of a container is not its own: mounts and descriptors that lead to the outside.

CRIU does not save these.  At a checkpoint it is told where they are, at a restore what to put
there.  Which mounts they are follows from the plan, so that it is said once how a config is
mounted.

CRIU: "External bind mounts", "Inheriting FDs on restore" of its documentation.
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.errors import Error
from ocirt.kernel import mounts, procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

MOST_LINKS = 40  # as the kernel

NULL = "/dev/null"


def resolve(root: str, path: str) -> str:
    """Return where `path` of a container leads to by its symbolic links, none of which leaves it.

    A name for CRIU to compare, not to open: whoever lives below `root` may change it any time.
    """
    rest = path.split("/")[::-1]
    done: list[str] = []
    links = 0
    while rest:
        name = rest.pop()
        if name in ("", "."):
            continue
        if name == "..":
            done[-1:] = []
            continue
        try:
            target = os.readlink("/".join([root, *done, name]))
        except OSError:  # no link, or not there yet
            done.append(name)
            continue
        links += 1
        if links > MOST_LINKS:
            raise Error(path, "too many levels of symbolic links")
        if target[:1] == "/":
            done = []
        rest += target.split("/")[::-1]
    return "/" + "/".join(done)


def _performed(plan: Iterable[Any]) -> Iterator[Any]:
    """Leave out what a plan falls back to: CRIU sees to the file systems themselves."""
    countdown = 0
    for op in plan:
        if op.name == "try":
            countdown = 2
        elif countdown == 1:
            countdown = 0
        else:
            countdown = max(0, countdown - 1)
            yield op


def _binds(plan: Iterable[Any], root: str) -> Iterator[tuple[str, str, bool]]:
    """Return (place in the container, source on the host, with what is mounted below it)."""
    for op in plan:
        if op.name == "bind":
            source, _, dest, recursive, *_ = op.args
            yield resolve(root, dest), source, bool(recursive)
        elif op.name == "node" and op.args[7]:
            yield resolve(root, op.args[0]), op.args[6], False


def _mounted(plan: Iterable[Any], root: str) -> set[str]:
    """Return the places at which the plan itself mounts something."""
    return {resolve(root, op.args[2]) for op in plan if op.name in ("bind", "mount")}


def saved(plan: Iterable[Any], pid: int) -> list[dict[str, str]]:
    """Return the ext_mnt of a checkpoint: the places in this process's root, each its own key."""
    ops = list(_performed(plan))
    root = f"/proc/{pid}/root"
    known = _mounted(ops, root)
    places: dict[str, str] = {}
    for place, _, recursive in _binds(ops, root):
        places[place] = place
        if recursive:
            places.update({p: p for p in mounts.below(place, pid) if p not in known})
    for op in ops:
        if op.name == "mask":
            place = resolve(root, op.args[0])
            # A directory is hidden behind a tmpfs of its own, which CRIU can save.
            if os.path.exists(root + place) and not os.path.isdir(root + place):
                places[place] = NULL
    return [{"key": key, "val": value} for key, value in places.items()]


def given(plan: Iterable[Any], rootfs: str) -> list[dict[str, str]]:
    """Return the ext_mnt of a restore: for each key of the checkpoint a path on the host."""
    ops = list(_performed(plan))
    known = _mounted(ops, rootfs)
    sources: dict[str, str] = {}
    for place, source, recursive in _binds(ops, rootfs):
        sources[place] = source
        if recursive:
            real = os.path.realpath(source)
            for point in mounts.below(real):
                if place + point[len(real) :] not in known:
                    sources[place + point[len(real) :]] = point
    if any(op.name == "mask" for op in ops):
        sources[NULL] = NULL
    return [{"key": key, "val": value} for key, value in sources.items()]


def files(pid: int) -> list[str]:
    """Return, as CRIU names them, which of descriptors 0 to 2 are regular files of the outside.

    "" for one that is not.  A file on a mount of the container CRIU finds by itself.
    """
    own = {mount for mount, _ in mounts.table(pid)}
    found = []
    for number in range(3):
        name = ""
        try:
            status = os.stat(f"/proc/{pid}/fd/{number}")
            mount = procfs.field(pid, "mnt_id", f"fdinfo/{number}")
        except OSError:
            status, mount = None, ""
        if status is not None and status.st_mode >> 12 == 0o10 and mount not in own:
            name = f"file[{int(mount):x}:{status.st_ino:x}]"
        found.append(name)
    return found
