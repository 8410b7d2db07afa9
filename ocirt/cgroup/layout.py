"""Find out what is mounted where, and which directories are the container's.

The mode is told by two files that only cgroupfs has: `cgroup.controllers` in the root means
unified v2; otherwise it is v1, and a cgroup2 mount at `unified` beside the controllers is the
hybrid form, one more hierarchy without controllers.

Pure apart from reading mountinfo and /proc/self/cgroup.  Each function takes `root` (where
cgroups are mounted) and `proc` (the runtime's own /proc directory), so that tests bring theirs.
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.cgroup import v1
from ocirt.cgroup.files import read
from ocirt.errors import ConfigError
from ocirt.kernel.procfs import unescape

TYPE_CHECKING = False
if TYPE_CHECKING:
    # Controllers are named as in /proc/self/cgroup: "cpu,cpuacct", "name=systemd".
    Hierarchy = tuple[str, str, str]  # controllers, mount point, the root of that mount
    Place = tuple[str, str]  # controllers, the container's directory


def unified(root: str) -> bool:
    """Tell whether `root` is one cgroup2 file system."""
    return os.access(root + "/cgroup.controllers", os.F_OK)


def clean(cgroups_path: str, container_id: str) -> tuple[bool, str]:
    """Return (absolute?, path with a leading slash) for linux.cgroupsPath; `..` cannot escape."""
    if "\0" in cgroups_path:
        raise ConfigError("linux.cgroupsPath", "holds a NUL character")
    # normpath keeps a double slash at the start, so there is never more than one.
    path = os.path.normpath("/" + (cgroups_path or container_id).lstrip("/"))
    if path == "/":
        raise ConfigError("linux.cgroupsPath", f"{cgroups_path!r} leaves no cgroup of its own")
    return cgroups_path.startswith("/"), path


def v2_directory(cgroups_path: str, container_id: str, root: str, proc: str) -> str:
    """Return the container's directory on cgroup v2."""
    absolute, path = clean(cgroups_path, container_id)
    if absolute:
        return root + path
    # Beside the runtime's own cgroup, not below it: with processes inside, that one could
    # hand no controllers down.
    return os.path.normpath(root + os.path.dirname(own_paths(proc).get("", "/")) + path)


def v1_directories(
    cgroups_path: str, container_id: str, root: str, proc: str
) -> tuple[list[Place], str | None]:
    """Return the container's directory in each hierarchy, and in the v2 tree of a hybrid."""
    absolute, path = clean(cgroups_path, container_id)
    own = own_paths(proc)
    wanted = [names for names in own if names in v1.CONTROLLERS or _wanted(names)]
    mounts = _usual_places(wanted, root) if absolute else {}
    if len(mounts) < len(wanted):
        mounts = _mounted_places(wanted, root, proc)
    found = []
    for names, (mount, mount_root) in mounts.items():
        base = "" if absolute else _below(mount_root, own[names])
        found.append((names, mount + base + path))
    found.sort(key=_rank)
    hybrid = root + "/unified"
    if not unified(hybrid):
        return found, None
    base = "" if absolute else own.get("", "/").rstrip("/")
    return found, hybrid + base + path


def own_paths(proc: str) -> dict[str, str]:
    """Return {controllers: path} of the runtime's own cgroups; "" is v2."""
    found = {}
    for row in read(proc + "/cgroup").splitlines():
        _, names, path = row.split(":", 2)
        # In a cgroup namespace a path may start with /.. : outside of what we can see.
        found[names] = os.path.normpath(path) if "/.." in path else path
    return found


def v2_options(root: str, proc: str) -> list[str]:
    """Return the options of the cgroup2 superblock that is mounted at `root`."""
    for row in read(proc + "/mountinfo").splitlines():
        head, _, tail = row.partition(" - ")
        if tail.startswith("cgroup2 ") and unescape(head.split(" ")[4]) == root:
            return tail.rsplit(" ", 1)[1].split(",")
    return []


def v1_mounts(root: str, proc: str) -> list[Hierarchy]:
    """Return the v1 hierarchies that are mounted, in mountinfo's order."""
    found = []
    known = {frozenset(names.split(",")): names for names in own_paths(proc) if names}
    for row in read(proc + "/mountinfo").splitlines():
        head, _, tail = row.partition(" - ")
        if not tail.startswith("cgroup "):
            continue
        fields = head.split(" ")
        options = set(tail.rsplit(" ", 1)[1].split(","))
        for controllers, names in known.items():
            if controllers <= options:
                found.append((names, unescape(fields[4]), unescape(fields[3])))
    # A second mount of a hierarchy elsewhere (a chroot, a container's view) comes after ours.
    found.sort(key=lambda item: not item[1].startswith(root + "/"))
    return found


def _wanted(names: str) -> bool:
    return any(name in v1.CONTROLLERS for name in names.split(","))


def _usual_places(wanted: list[str], root: str) -> dict[str, tuple[str, str]]:
    """Look where everybody mounts v1, which spares reading a mountinfo of hundreds of lines.

    The root of such a mount is not known, so this serves absolute paths only.
    """
    found = {}
    for names in wanted:
        mount = f"{root}/{names.removeprefix('name=')}"
        if os.access(mount + "/tasks", os.F_OK):
            found[names] = (mount, "/")
    return found


def _mounted_places(wanted: list[str], root: str, proc: str) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for names, mount, mount_root in v1_mounts(root, proc):
        if names in wanted:
            found.setdefault(names, (mount, mount_root))
    return found


def _below(mount_root: str, own: str) -> str:
    """Return `own` as seen below a mount whose root is `mount_root` (a container's own view)."""
    if mount_root != "/" and (own + "/").startswith(mount_root + "/"):
        own = own[len(mount_root) :]
    return own.rstrip("/")


def _rank(place: Place) -> int:
    if place[0] in v1.CONTROLLERS:
        return v1.CONTROLLERS.index(place[0])
    return min(v1.CONTROLLERS.index(n) for n in place[0].split(",") if n in v1.CONTROLLERS)
