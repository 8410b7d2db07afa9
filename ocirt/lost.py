"""End a container whose state.json is lost, by the record that the launcher has of it.

A hand, a full disk or a crash took the state away, and the program runs on without a name.  The
record (quick.py) names its init by pid and start time, which nothing else has, and the cgroup that
was made for it; it is believed only whole, of our own user and of that very id.
"""

from __future__ import annotations

import time
from errno import EBUSY

from ocirt import jsonio, log, quick
from ocirt import system as os
from ocirt.cgroup.files import pids_below, put, remove_tree
from ocirt.errors import Error, StateError, strerror
from ocirt.kernel import procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 10.0  # seconds for a killed process to be gone: its pid namespace ends with it
_SIGKILL = 9
_LOST = "the state is lost, and with it what was made for the container"


class _Record:
    """What of the record is of use here."""

    def __init__(self, flags: int, pid: int, start_time: int, texts: list[str]) -> None:
        self.flags, self.pid, self.start_time = flags, pid, start_time
        self.freezer, self.directories = texts[4], texts[5:]

    def alive(self) -> bool:
        return procfs.alive(self.pid, self.start_time)


def end(directory: str, container_id: str, force: bool) -> bool:
    """End the init of a container without a state and remove its cgroup; warn of what is left.

    Return whether there was a record, so that the directory is a container's for sure.

    Without `force` one that lives is left alone, and is an error, so that its id is not lost too.
    """
    found = _read(directory, container_id)
    if found is None:
        if os.path.exists(os.path.join(directory, "config.json")):
            log.warning(f"{directory}: {_LOST}: its processes, if there are any, were not ended")
        return False
    if found.alive():
        if not force:
            raise StateError(f"{directory}: the state is lost, and process {found.pid} runs")
        _kill(found)
    if found.flags & quick.DELETE:
        _remove(found)
    elif found.directories:
        log.warning(f"{directory}: {_LOST}: its init was ended, its cgroup and hooks were left")
    return True


def _read(directory: str, container_id: str) -> _Record | None:
    """Return the record, None where there is none that is whole and ours."""
    path = os.path.join(directory, quick.NAME)
    try:
        if os.lstat(path).st_uid != os.geteuid():
            return None
        data = jsonio.read(path)
    except (OSError, Error):
        return None
    found = quick.parse(data)
    if found is None or found[3][0] != container_id:
        return None
    return _Record(*found)


def _kill(found: _Record) -> None:
    from _signal import pidfd_send_signal

    try:
        pidfd = os.pidfd_open(found.pid)
        try:
            if found.alive():  # with the pidfd in hand: the number cannot be another's now
                pidfd_send_signal(pidfd, _SIGKILL)
        finally:
            os.close(pidfd)
    except ProcessLookupError:
        return
    folder, name = os.path.split(found.freezer)
    if name == "freezer.self_freezing":  # v1, where even SIGKILL waits for the thaw
        try:
            put(f"{folder}/freezer.state", "THAWED")
        except FileNotFoundError:
            pass
    if not _until(lambda: not found.alive()):
        raise StateError("container init still running")


def _remove(found: _Record) -> None:
    """Remove the cgroup, which is this container's alone, with whatever still runs in it."""

    def gone() -> bool:
        for path in found.directories:
            for pid in pids_below(path):
                try:
                    os.kill(pid, _SIGKILL)
                except ProcessLookupError:
                    pass
        # Every one is tried, and none is left out because another is still busy.
        return False not in [remove_tree(path) for path in found.directories]

    if not _until(gone):
        raise StateError("unable to destroy cgroup", strerror(EBUSY))


def _until(done: Callable[[], bool]) -> bool:
    """Wait for something; return whether it came true in time."""
    limit = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > limit:
            return False
        time.sleep(0.01)
    return True
