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


def end(directory: str, container_id: str, force: bool) -> bool:
    """End the init of a container without a state and remove its cgroup; warn of what is left.

    Return whether there was a record, so that the directory is a container's for sure.

    Without `force` one that lives is left alone, and is an error, so that its id is not lost too.
    """
    record = _read(directory)
    if record is None or record[0] != container_id:
        if os.path.exists(os.path.join(directory, "config.json")):
            log.warning(f"{directory}: {_LOST}: its processes, if there are any, were not ended")
        return False
    _, flags, pid, start_time, freezer, cgroups = record
    if procfs.alive(pid, start_time):
        if not force:
            raise StateError(f"{directory}: the state is lost, and process {pid} runs")
        _kill(pid, start_time, freezer)
    if flags & quick.DELETE:
        _remove(cgroups)
    elif cgroups:
        log.warning(f"{directory}: {_LOST}: its init was ended, its cgroup and hooks were left")
    return True


def _read(directory: str) -> tuple[str, int, int, int, str, list[str]] | None:
    """Return the record, None where there is none that is whole and ours."""
    path = os.path.join(directory, quick.NAME)
    try:
        if os.lstat(path).st_uid != os.geteuid():
            return None
        return quick.parse(jsonio.read(path))
    except (OSError, Error):
        return None


def _kill(pid: int, start_time: int, freezer: str) -> None:
    procfs.send(pid, start_time, _SIGKILL)
    folder, name = os.path.split(freezer)
    if name == "freezer.self_freezing":  # v1, where even SIGKILL waits for the thaw
        try:
            put(f"{folder}/freezer.state", "THAWED")
        except FileNotFoundError:
            pass
    if not _until(lambda: not procfs.alive(pid, start_time)):
        raise StateError("container init still running")


def _remove(cgroups: list[str]) -> None:
    """Remove the cgroup, which is this container's alone, with whatever still runs in it."""

    def gone() -> bool:
        for path in cgroups:
            for pid in pids_below(path):
                try:
                    os.kill(pid, _SIGKILL)
                except ProcessLookupError:
                    pass
        # Every one is tried, and none is left out because another is still busy.
        return False not in [remove_tree(path) for path in cgroups]

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
