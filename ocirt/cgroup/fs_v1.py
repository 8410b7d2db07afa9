"""The cgroup manager on v1 and hybrid: a directory in each hierarchy.

In a hybrid the container also gets a directory in the unified tree, as runc does: it has no
controllers, but systemd and `cgroup.kill` look there.

Of parents, only cpusets without cpus or memory nodes are filled: a child of such a one could
take no process.
"""

from __future__ import annotations

import time
from errno import EBUSY

from ocirt import system as os
from ocirt.cgroup import fs, layout, v1
from ocirt.cgroup.files import put, read, word
from ocirt.errors import At, ConfigError, KernelError, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from ocirt.cgroup.fields import Write

CPUSET = ("cpuset.cpus", "cpuset.mems")


class V1(fs.Manager):
    """`places`: the container's directory in each hierarchy, in the order of joining."""

    version = 1
    ALIASES = v1.ALIASES
    OFF_AT_ZERO = v1.OFF_AT_ZERO
    IGNORED = v1.IGNORED

    def __init__(
        self, places: list[layout.Place], unified: str | None, *, rootless: bool = False
    ) -> None:
        super().__init__(rootless=rootless)
        self.settle_in(places, unified)

    def settle_in(self, places: list[layout.Place], unified: str | None) -> None:
        """Take other directories for the container's own."""
        self.places = places
        self.unified = unified  # in a hybrid, the directory in its v2 tree
        self.paths = {name: directory for names, directory in places for name in names.split(",")}

    @classmethod
    def open(
        cls, cgroups_path: str, container_id: str, *, rootless: bool, root: str, proc: str
    ) -> Self:
        """Find the container's places; nothing is made yet."""
        places, unified = layout.v1_directories(cgroups_path, container_id, root, proc)
        if rootless and not cgroups_path:
            places = [place for place in places if os.access(os.path.dirname(place[1]), os.W_OK)]
            if unified and not os.access(os.path.dirname(unified), os.W_OK):
                unified = None
        manager = cls(places, unified, rootless=rootless)
        if "devices" not in manager.paths and not rootless:
            # Without it a container could use any device that it makes a node for.
            raise ConfigError("linux.resources.devices", _missing("devices"))
        return manager

    def record(self) -> dict[str, Any]:
        return {
            "driver": self.driver,
            "version": 1,
            "rootless": self.rootless,
            "shared": self.shared,
            "places": self.places,
            "unified": self.unified,
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        places = [(names, directory) for names, directory in record["places"]]
        return cls(places, record["unified"], rootless=record["rootless"])

    # --- where things are

    def directories(self) -> list[str]:
        found = [directory for _, directory in self.places]
        return [*found, self.unified] if self.unified else found

    def path_of(self, file: str) -> str | None:
        directory = self.paths.get(file.partition(".")[0])
        return None if directory is None else f"{directory}/{file}"

    def attach_files(self) -> list[tuple[str, str]]:
        # `tasks` rather than cgroup.procs: a single-threaded task that moves itself through it
        # takes no lock that waits for an RCU grace period.
        return [
            (f"cgroup.{names.removeprefix('name=')}", f"{directory}/tasks")
            for names, directory in self.places
        ]

    def cgroup_dir(self) -> str | None:
        return self.unified

    def device_program(self, resources: dict[str, Any]) -> bytes | None:
        return None

    def mounts(self, dest: str, private_ns: bool) -> list[fs.Mount]:
        """Return a tmpfs with a directory for each hierarchy, as every v1 host shows it.

        With a cgroup namespace each is a mount of its own, rooted at the container's cgroup;
        without one, a bind of that cgroup.
        """
        rows: list[fs.Mount] = [("tmpfs", "tmpfs", dest, "mode=755")]
        for names, directory in self.places:
            name = names.removeprefix("name=")
            if private_ns:
                rows.append(("cgroup", "cgroup", f"{dest}/{name}", names))
            else:
                rows.append(("bind", directory, f"{dest}/{name}", ""))
            if "," in names:
                rows += [("symlink", names, f"{dest}/{one}", "") for one in names.split(",")]
        return rows

    # --- limits

    def offers(self, controller: str) -> bool:
        return controller in self.paths

    def writes(self, resources: dict[str, Any]) -> list[Write]:
        rows = v1.writes(resources)
        # An unprivileged caller may not write device rules, and could not mknod either.
        return rows if self.rootless else v1.device_writes(resources) + rows

    def make(self, resources: dict[str, Any], waiting: int = 0) -> list[Write]:
        rows = self.writes(resources)
        if not self.rootless:
            for file, _, where in rows:
                if self.path_of(file) is None:
                    raise ConfigError(where, _missing(file.partition(".")[0]))
        try:
            with At("linux.cgroupsPath"):
                fresh = self._make_all()
                if "cpuset" in self.paths:
                    self._fill_cpuset(self.paths["cpuset"] in fresh, {row[0] for row in rows})
        except BaseException:
            self._take_back()
            raise
        return rows

    def limit(self, rows: list[Write]) -> None:
        limits = [row for row in rows if not row[0].startswith("devices.")]
        self._rule_devices(rows[: len(rows) - len(limits)])
        self._carry_out(limits)

    def _make_all(self) -> set[str]:
        """Make every directory; return those that were not there before."""
        fresh = set()
        for directory in self.directories():
            if self._make(directory):
                fresh.add(directory)
            else:
                self._refuse_used(directory)
        return fresh

    def _fill_cpuset(self, fresh: bool, asked: set[str]) -> None:
        """Give the cpuset what its parent has: an empty one can take no process."""
        directory = self.paths["cpuset"]
        for file in CPUSET:
            value = _inherited(os.path.dirname(directory), file)
            if file not in asked and (fresh or not read(f"{directory}/{file}").strip()):
                put(f"{directory}/{file}", value)

    def _rule_devices(self, rows: list[Write]) -> None:
        """Write the device rules, each with a write of its own, through one open file.

        They are not read back: unlike taking an exception away, which the kernel may silently
        not do, a reset or an exception that it does not accept is an error of that write.
        """
        opened, fd = "", -1
        try:
            for file, value, where in rows:
                try:
                    if file != opened:
                        if fd >= 0:
                            os.close(fd)
                            fd = -1
                        fd = os.open(f"{self.paths['devices']}/{file}", os.O_WRONLY | os.O_CLOEXEC)
                        opened = file
                    os.write(fd, value.encode())
                except OSError as error:
                    raise KernelError(error.errno or 0, where, f"{file} = {value}") from error
        finally:
            if fd >= 0:
                os.close(fd)

    def _refused(self, row: Write, path: str, error: OSError) -> None:
        file, value, where = row
        if file == "memory.limit_in_bytes" and error.errno == EBUSY:
            usage, peak = (
                read(f"{self.paths['memory']}/memory.{name}usage_in_bytes").strip()
                for name in ("", "max_")
            )
            what = f"unable to set memory limit to {value}"
            raise KernelError(
                EBUSY, where, f"{what} (current usage: {usage}, peak usage: {peak})"
            ) from error
        super()._refused(row, path, error)

    # --- processes

    def freeze_file(self) -> str | None:
        return self.path_of("freezer.self_freezing")

    def freeze(self) -> None:
        path = self._freezer_state()
        try:
            for attempt in range(1, 1001):
                # A task that keeps forking can stay ahead of the freezer; letting all go for a
                # moment and trying again catches it.
                if attempt % 50 == 0:
                    put(path, "THAWED")
                    time.sleep(0.01)
                put(path, "FROZEN")
                if read(path).startswith("FROZEN"):
                    return
                time.sleep(0.01 if attempt % 25 == 0 else 0.00001)
        except BaseException:
            self.thaw()
            raise
        self.thaw()
        raise KernelError(EBUSY, "unable to freeze", path)

    def thaw(self) -> None:
        put(self._freezer_state(), "THAWED")

    def _freezer_state(self) -> str:
        path = self.path_of("freezer.state")
        if path is None:
            raise StateError("cannot toggle freezer: cgroups not configured for container")
        return path

    def oom_killed(self) -> bool:
        path = self.path_of("memory.oom_control")
        return path is not None and word(read(path), "oom_kill") > 0


def _missing(controller: str) -> str:
    return f"the cgroup controller {controller} is not mounted"


def _inherited(directory: str, file: str) -> str:
    """Return a cpuset's value, filling it from its parents where it has none."""
    path = f"{directory}/{file}"
    value = read(path).strip()
    if not value and os.access(path, os.F_OK):
        value = _inherited(os.path.dirname(directory), file)
        put(path, value)
    return value
