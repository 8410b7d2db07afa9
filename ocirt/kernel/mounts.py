"""What is mounted, and taking away what a container without a mount namespace leaves behind.

Rare, and so allowed to import ctypes when it comes to it.

proc(5), "/proc/pid/mountinfo"; umount2(2).
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.kernel import consts as k
from ocirt.kernel import procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Of statvfs(3)'s flags, those that mount(2) gives the same numbers.
_KEPT = k.MS_NOSUID | k.MS_NODEV | k.MS_NOEXEC | k.MS_NOATIME | k.MS_NODIRATIME

MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8  # linux/fs.h


def table(pid: int | str = "self") -> list[tuple[str, str]]:
    """Return (mount id, mount point as the process sees it), in the order of mounting."""
    text = procfs.read(f"/proc/{pid}/mountinfo").decode("utf-8", "surrogateescape")
    rows = [line.split(" ", 5) for line in text.split("\n") if line]
    return [(row[0], procfs.unescape(row[4])) for row in rows]


def below(path: str, pid: int | str = "self") -> list[str]:
    """Return the mount points strictly below a directory, in the order they were mounted."""
    inside = path.rstrip("/") + "/"
    return [point for _, point in table(pid) if point.startswith(inside)]


def detach(path: str, kept: list[str]) -> None:
    """Take away what is mounted below a directory, newest first, but for the points `kept`."""
    for point in reversed(below(path)):
        if point not in kept:
            _call("umount2", point, os.fsencode(point), MNT_DETACH | UMOUNT_NOFOLLOW)


def unshare() -> None:
    """Move this process into a mount namespace of its own, from which nothing gets out."""
    _call("unshare", "mount namespace", k.CLONE_NEWNS)
    _call("mount", "/", None, b"/", None, k.MS_REC | k.MS_SLAVE, None)


def bind(source: str, target: str, *, read_only: bool = False) -> None:
    """Show a directory at another one, with what is mounted below it."""
    flags = k.MS_BIND | k.MS_REC
    _call("mount", target, os.fsencode(source), os.fsencode(target), None, flags, None)
    if read_only:
        # The kernel wants the flags that the mount has from its source, or refuses to drop them.
        found = os.statvfs(target).f_flag & _KEPT
        flags = k.MS_BIND | k.MS_REMOUNT | k.MS_RDONLY | found
        _call("mount", target, None, os.fsencode(target), None, flags, None)


def _call(name: str, about: str, *arguments: Any) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), about)
