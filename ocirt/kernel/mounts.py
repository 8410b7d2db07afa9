"""Mounts that a container without a mount namespace leaves in its caller's.

Rare, and so allowed to import ctypes when it comes to it.

proc(5), "/proc/pid/mountinfo"; umount2(2).
"""

from __future__ import annotations

from ocirt.kernel.procfs import unescape

MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8  # linux/fs.h


def below(path: str) -> list[str]:
    """Return the mount points strictly below a directory, in the order they were mounted."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            point = unescape(line.split(" ", 5)[4])
            if point.startswith(path.rstrip("/") + "/"):
                found.append(point)
    return found


def detach(path: str, kept: list[str]) -> None:
    """Take away what is mounted below a directory, newest first, but for the points `kept`."""
    import ctypes
    import os

    libc = ctypes.CDLL(None, use_errno=True)
    for point in reversed(below(path)):
        if point not in kept and libc.umount2(os.fsencode(point), MNT_DETACH | UMOUNT_NOFOLLOW):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), point)
