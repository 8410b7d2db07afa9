"""The cgroup manager of one container: what v1 and v2, and the drivers, have in common.

A manager owns directories, "its own": it makes them and whatever parents are missing, and
removes them alone.  Nothing else in the tree is changed, apart from what each version says in
its module (`fs_v1.py`: empty cpusets of parents are filled; `fs_v2.py`: controllers enabled).

Kernel side: Documentation/admin-guide/cgroup-v1/cgroups.rst, cgroup-v2.rst
"""

from __future__ import annotations

import time
from errno import EACCES, EBUSY, EINVAL, ENOENT, EPERM, EROFS

from ocirt import system as os
from ocirt.cgroup.files import pids_below, put, read, remove_tree
from ocirt.errors import ConfigError, Error, KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from ocirt.cgroup.fields import Write

    # ("tmpfs" | "cgroup" | "cgroup2" | "bind" | "symlink" | "try", source, destination, data)
    Mount = tuple[str, str, str, str]

NOT_OURS = (EACCES, EPERM, EROFS)  # what an unprivileged caller hears where nothing is delegated
ROOTLESS_NEEDS = (
    "rootless needs no limits + no cgrouppath when no permission is granted for cgroups"
)
SIGKILL = 9


class Manager:
    """Looks after the cgroups of one container; see `ocirt.cgroup.open_manager`."""

    driver = "fs"
    version: int
    # file -> the same knob's other name, and its value worded for that
    ALIASES: Mapping[str, tuple[str, Callable[[str], str]]]
    OFF_AT_ZERO: tuple[str, ...]  # files that say by 0 that a feature is not wanted
    IGNORED: tuple[tuple[str, str], ...]  # sections and fields without a counterpart

    def __init__(self, *, rootless: bool) -> None:
        self.rootless = rootless
        self.shared = False  # whether other containers live in the same cgroup
        self._made: list[str] = []  # by this very process, parents included, oldest first

    # --- what a version answers

    def record(self) -> dict[str, Any]:
        """Return what the state file keeps, enough for `from_record` to find everything again."""
        raise NotImplementedError

    def directories(self) -> list[str]:
        """Return the container's own directories: what `remove` takes away."""
        raise NotImplementedError

    def path_of(self, file: str) -> str | None:
        """Return the full path of a control file, None where its controller is missing."""
        raise NotImplementedError

    def attach_files(self) -> list[tuple[str, str]]:
        """Return (word, path) of each file into which the init writes itself; [] on v2."""
        raise NotImplementedError

    def cgroup_dir(self) -> str | None:
        """Return the cgroup2 directory to clone the init into; None where there is none."""
        raise NotImplementedError

    def device_program(self, resources: dict[str, Any]) -> bytes | None:
        """Return the eBPF program to attach to `cgroup_dir`, None where none is needed."""
        raise NotImplementedError

    def mounts(self, dest: str, private_ns: bool) -> list[Mount]:
        """Return what a mount of type `cgroup` at `dest` consists of; "try" as in a plan.

        The data "ro" of a bind makes it read-only, whatever the config says.
        """
        raise NotImplementedError

    def writes(self, resources: dict[str, Any]) -> list[Write]:
        """Return (file, value, place in config.json) of all that `create` would write.  Pure."""
        raise NotImplementedError

    def offers(self, controller: str) -> bool:
        """Tell whether this machine has a controller for the cgroup that `create` would make."""
        raise NotImplementedError

    def asks(self, resources: dict[str, Any]) -> list[tuple[str, str]]:
        """Return (of whom, for what) of all that `create` would ask others for.  Pure."""
        return []

    def create(self, resources: dict[str, Any], waiting: int = 0) -> None:
        """Make the cgroup and put `resources` into force, or leave nothing behind."""
        rows = self.make(resources, waiting)
        try:
            self.limit(rows)
        except BaseException:
            self._take_back()
            raise

    def make(self, resources: dict[str, Any], waiting: int = 0) -> list[Write]:
        """Make the cgroup, or leave nothing behind; return what `limit` is to put into force.

        waiting: the pid of the process that is to make the init; it may be put in there.
        """
        raise NotImplementedError

    def limit(self, rows: list[Write]) -> None:
        """Put limits into force in a cgroup just made; its first process may be there already."""
        raise NotImplementedError

    def delegate(self, config: dict[str, Any]) -> None:
        """Give the cgroup to the container's user, where a config asks for that; v1 cannot."""

    def settle(self) -> None:
        """Do what had to wait until the init is there and the process that made it has gone."""

    def attach(self, pid: int) -> None:
        """Put in a process that may not go in by itself; an Error where nobody can do that."""
        raise KernelError(EACCES, "cgroup")

    def freeze_file(self) -> str | None:
        """Return the file that starts with "1" while this very cgroup is told to freeze."""
        raise NotImplementedError

    def freeze(self) -> None:
        """Stop every process, and return once they stand still."""
        raise NotImplementedError

    def thaw(self) -> None:
        """Let the processes go on."""
        raise NotImplementedError

    def oom_killed(self) -> bool:
        """Tell whether the kernel has killed one of the processes for want of memory."""
        raise NotImplementedError

    # --- what they share

    def ignored(self, resources: dict[str, Any]) -> list[str]:
        """Name the fields of `resources` that this cgroup version has nothing for."""
        return [
            f"linux.resources.{section}.{field}"
            for section, field in self.IGNORED
            if (resources.get(section) or {}).get(field)
        ]

    def set(self, resources: dict[str, Any]) -> None:
        """Put other limits into force; device rules stay as they were made."""
        rows = [row for row in self.writes(resources) if not row[0].startswith("devices.")]
        self._carry_out(rows)

    def frozen(self) -> bool:
        """Tell whether the container is paused (not: whether a parent of its cgroup is)."""
        path = self.freeze_file()
        return path is not None and read(path).startswith("1")

    def pids(self) -> list[int]:
        """Return every process in the container's cgroup and below."""
        directories = self.directories()
        return pids_below(directories[0]) if directories else []

    def kill(self, signal: int) -> None:
        """Send `signal` to every process, those that fork meanwhile included."""
        if not self.pids():
            return
        still = self.frozen()
        freezer = self.freeze_file()
        try:
            if freezer and not still:
                self.freeze()
        except (Error, OSError):
            pass  # a task that cannot be stopped: we signal what we see
        try:
            for pid in self.pids():
                try:
                    os.kill(pid, signal)
                except ProcessLookupError:
                    pass
        finally:
            if freezer and (not still or signal == SIGKILL):
                try:
                    self.thaw()
                except FileNotFoundError:
                    pass  # ended, and removed by somebody else

    def remove(self) -> None:
        """Remove the container's directories and what it made below them.

        The kernel says EBUSY for a while after the last process has been killed, so there are
        10 tries, 1 ms, 2 ms, 4 ms … apart.
        """
        left = self.directories()
        for attempt in range(10):
            left = [path for path in left if not remove_tree(path)]
            if not left:
                return
            time.sleep(0.001 * 2**attempt)
        raise KernelError(EBUSY, "unable to destroy cgroup", left[0])

    def leave(self) -> None:
        """Remove the directories of a shared cgroup, unless others are still in there."""
        for attempt in range(8):
            if self.pids():
                return
            left = [path for path in self.directories() if not remove_tree(path)]
            if not left:
                return
            time.sleep(0.001 * 2**attempt)  # the last process may be on its way out

    def undo(self) -> None:
        """Take back `create`, in the process that called it: also the parents that it made."""
        try:
            self.remove()
        finally:
            self._take_back()

    def _take_back(self) -> None:
        """Remove what this process made, as far as nobody else has come to use it."""
        for path in reversed(self._made):
            try:
                os.rmdir(path)
            except OSError:
                pass
        self._made.clear()

    def _make(self, path: str) -> bool:
        """Make a directory and its missing parents; False where it was there before."""
        for _ in range(5):
            try:
                os.mkdir(path, 0o755)
            except FileExistsError:
                return False
            except FileNotFoundError:
                # Again, since another runtime may remove an empty parent under our hands.
                self._make(os.path.dirname(path))
                continue
            self._made.append(path)
            return True
        raise KernelError(ENOENT, path)

    def _refuse_used(self, path: str) -> None:
        """Refuse a directory that was there before and is in use."""
        count = len(pids_below(path))
        if count:
            raise ConfigError(f"container's cgroup is not empty: {count} process(es) found")
        if self.frozen():
            raise ConfigError("container's cgroup unexpectedly frozen")

    def _carry_out(self, rows: Iterable[Write]) -> None:
        """Write limits.

        The kernel checks some pairs of files against each other on every write (period and
        quota, memory with and without swap, weight and idle), so the right order depends on
        the old values.  What is refused with EINVAL is therefore tried once more after the
        rest: then its partner has its new value.
        """
        again = [row for row in rows if not self._write(row, EINVAL)]
        for row in again:
            self._write(row)

    def _write(self, row: Write, patient: int = 0) -> bool:
        """Write one limit; False where the kernel refused it with errno `patient`."""
        file, value, where = row
        path = self.path_of(file)
        if path is None:
            controller = file.partition(".")[0]
            if self.rootless:
                raise ConfigError(where, ROOTLESS_NEEDS)
            raise ConfigError(where, f"the cgroup controller {controller} is not available")
        try:
            put(path, value)
        except OSError as error:
            if error.errno == patient:
                return False
            self._refused(row, path, error)
        return True

    def _refused(self, row: Write, path: str, error: OSError) -> None:
        """Find a way round a refused write, or word the refusal."""
        file, value, where = row
        if error.errno == ENOENT:
            if ".rsvd." in file or self.lifts(file, value):
                return  # nothing there to lift
            if file in self.ALIASES:
                other, reworded = self.ALIASES[file]
                self._write((other, reworded(value), where))
                return
            # Not in errno's words: callers take "no such file" for a missing program.
            raise ConfigError(where, f"this kernel offers no {file}") from error
        if self.rootless and error.errno in NOT_OURS:
            raise KernelError(error.errno, where, ROOTLESS_NEEDS) from error
        raise KernelError(error.errno or 0, where, f"{file} = {value}") from error

    def lifts(self, file: str, value: str) -> bool:
        """Tell whether this write asks for nothing that a kernel without the file lacks."""
        return value in ("-1", "max") or (value == "0" and file in self.OFF_AT_ZERO)
