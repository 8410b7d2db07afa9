"""Read, write and remove cgroups: the few calls under every manager.

A cgroup may vanish between any two calls, since its container may end at any time; what is
gone reads as empty and counts as removed.
"""

from __future__ import annotations

from errno import EBUSY, ENODEV, ENOENT, ENOTEMPTY, EOPNOTSUPP

from ocirt import system as os
from ocirt.errors import At
from ocirt.kernel import procfs


def read(path: str) -> str:
    """Return a control file's text; "" where it, or its cgroup, is gone."""
    try:
        return procfs.read(path).decode("utf-8", "surrogateescape")
    except OSError as error:
        if error.errno in (ENOENT, ENODEV, EOPNOTSUPP):  # the last one of a threaded cgroup
            return ""
        raise


def put(path: str, value: str) -> None:
    """Write a control file with one write: the kernel takes each write for a whole value."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def word(text: str, key: str) -> int:
    """Return the number after `key` in a flat keyed file such as memory.events; 0 if absent."""
    for row in text.splitlines():
        name, _, value = row.partition(" ")
        if name == key:
            return int(value)
    return 0


def children(path: str) -> list[str]:
    """Return the cgroups directly below `path`."""
    try:
        # cgroupfs counts sub-directories as other file systems do: 2 means none.
        if os.stat(path).st_nlink == 2:
            return []
        with os.scandir(path) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def pids_below(path: str) -> list[int]:
    """Return the processes of a cgroup and of all cgroups below it."""
    # Each once: a cgroup that has threaded ones below it counts their processes as its own.
    return list(dict.fromkeys(_pids_below(path)))


def _pids_below(path: str) -> list[int]:
    found = [int(line) for line in read(path + "/cgroup.procs").split()] or _threaded(path)
    for child in children(path):
        found += _pids_below(child)
    return found


def _threaded(path: str) -> list[int]:
    """Return the processes of a threaded cgroup (v2), which tells of its threads alone."""
    found = []
    for thread in read(path + "/cgroup.threads").split():
        try:
            found.append(int(procfs.field(thread, "Tgid")))
        except (FileNotFoundError, ProcessLookupError):
            pass  # ended meanwhile
    return found


def remove_tree(path: str) -> bool:
    """Remove a cgroup and those below it; False where the kernel says that one is busy."""
    for last in (False, True):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno not in (EBUSY, ENOTEMPTY):
                with At("unable to destroy cgroup"):
                    raise
        else:
            return True
        if last or not _remove_below(path):
            break
    return False


def _remove_below(path: str) -> bool:
    busy = 0
    for child in children(path):
        busy += not remove_tree(child)
    return busy == 0
