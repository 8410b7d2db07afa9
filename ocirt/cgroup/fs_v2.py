"""The cgroup manager on unified v2: one directory.

Of its parents only `cgroup.subtree_control` is written, and only where a controller is not yet
handed down: all of them are, not just those with a limit, because engines read the usage of
every container.
"""

from __future__ import annotations

import time
from errno import EACCES, EBUSY, ENOENT, EOPNOTSUPP, EPERM

from ocirt import system as os
from ocirt.cgroup import devices, fs, layout, v2
from ocirt.cgroup.files import put, read, word
from ocirt.errors import At, ConfigError, KernelError, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from ocirt.cgroup.fields import Write

PATIENCE = 10.0  # seconds for all processes to stand still

# Options that belong to the one superblock: a mount from the initial cgroup namespace that
# leaves one out takes it away from the whole machine.
SUPER_OPTIONS = (
    "favordynmods", "memory_hugetlb_accounting", "memory_localevents", "memory_recursiveprot",
    "nsdelegate", "pids_localevents",
)  # fmt: skip


class V2(fs.Manager):
    """`directory`: the container's own; None for an unprivileged caller that may have none."""

    version = 2
    ALIASES = v2.ALIASES
    OFF_AT_ZERO = v2.OFF_AT_ZERO
    IGNORED = v2.IGNORED

    def __init__(
        self,
        directory: str | None,
        *,
        rootless: bool = False,
        root: str = "/sys/fs/cgroup",
        proc: str = "/proc/self",
    ) -> None:
        super().__init__(rootless=rootless)
        self.directory = directory
        self.root = root
        self.proc = proc

    @classmethod
    def open(
        cls, cgroups_path: str, container_id: str, *, rootless: bool, root: str, proc: str
    ) -> Self:
        """Find the container's place; nothing is made yet."""
        directory: str | None = layout.v2_directory(cgroups_path, container_id, root, proc)
        if (
            rootless
            and not cgroups_path
            and not os.access(os.path.dirname(str(directory)), os.W_OK)
        ):
            directory = None
        return cls(directory, rootless=rootless, root=root, proc=proc)

    def record(self) -> dict[str, Any]:
        return {
            "driver": self.driver,
            "version": 2,
            "rootless": self.rootless,
            "shared": self.shared,
            "root": self.root,
            "directory": self.directory,
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        return cls(record["directory"], rootless=record["rootless"], root=record["root"])

    # --- where things are

    def directories(self) -> list[str]:
        return [self.directory] if self.directory else []

    def path_of(self, file: str) -> str | None:
        return f"{self.directory}/{file}" if self.directory else None

    def attach_files(self) -> list[tuple[str, str]]:
        return []

    def cgroup_dir(self) -> str | None:
        return self.directory

    def device_program(self, resources: dict[str, Any]) -> bytes | None:
        # An unprivileged caller may not attach one, and could not mknod either.
        if self.rootless or not self.directory:
            return None
        return devices.program(resources.get("devices") or ())

    def mounts(self, dest: str, private_ns: bool) -> list[fs.Mount]:
        """Return a cgroup2 mount, and what to do where a user namespace may not have it.

        With a cgroup namespace the mount is rooted at the container's cgroup by itself.  What
        shows cgroups that are not the container's is read-only for users: theirs could be
        written from inside (CVE-2023-25809).
        """
        read_only = "ro" if self.rootless and not (private_ns and self.directory) else ""
        if private_ns:
            data, instead = "", self.directory or self.root
        else:
            options = layout.v2_options(self.root, self.proc)
            data = ",".join([option for option in options if option in SUPER_OPTIONS])
            instead = self.root
        return [
            ("try", "", "", ""),
            ("cgroup2", "cgroup", dest, data),
            ("bind", instead, dest, read_only),
        ]

    # --- limits

    def offers(self, controller: str) -> bool:
        return controller in read(self.root + "/cgroup.controllers").split()

    def writes(self, resources: dict[str, Any]) -> list[Write]:
        return v2.writes(resources)

    def make(self, resources: dict[str, Any], waiting: int = 0) -> list[Write]:
        rows = self.writes(resources)
        try:
            if self.directory:
                with At("linux.cgroupsPath"):
                    if not self._make(self.directory):
                        self._refuse_used(self.directory)
                    self._enable(self.directory, rows)
        except BaseException:
            self._take_back()
            raise
        return rows

    def limit(self, rows: list[Write]) -> None:
        self._carry_out(rows)

    def set(self, resources: dict[str, Any]) -> None:
        memory = resources.get("memory") or {}
        if memory.get("checkBeforeUpdate"):
            self._refuse_below_usage(memory)
        super().set(resources)

    def delegate(self, config: dict[str, Any]) -> None:
        """Give the cgroup to the user of the process, who may then make cgroups of its own in it.

        The limits stay whose they are.  A user can give it to no other: without that the
        container has what it needs, it only cannot divide it.
        """
        uid = owner(config)
        if not self.directory or uid is None:
            return
        files = read("/sys/kernel/cgroup/delegate").split()
        for file in ("", *(files or ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads"))):
            try:
                os.chown(f"{self.directory}/{file}", uid, -1)
            except FileNotFoundError:
                pass  # the list names what this kernel could have
            except PermissionError:
                if not self.rootless:
                    raise
                return

    def _enable(self, directory: str, rows: list[Write]) -> None:
        """Have every controller of the root handed down to `directory`."""
        wanted = set(read(self.root + "/cgroup.controllers").split())
        if wanted <= set(read(directory + "/cgroup.controllers").split()):
            return
        parents = [self.root]
        for name in directory[len(self.root) + 1 :].split("/")[:-1]:
            parents.append(f"{parents[-1]}/{name}")
        for parent in parents:
            have = read(parent + "/cgroup.subtree_control").split()
            there = read(parent + "/cgroup.controllers").split()
            lacking = ["+" + name for name in there if name not in have]
            # All at once, or else one by one: a parent with processes of its own, or a caller
            # who may not, is no error until a limit needs what is missing.
            if lacking and not _put_quietly(parent, " ".join(lacking)):
                for one in lacking:
                    _put_quietly(parent, one)
        self._leave_invalid(directory, rows)

    def _leave_invalid(self, directory: str, rows: list[Write]) -> None:
        """Make a cgroup below a threaded one usable, as far as it can be."""
        kind = read(directory + "/cgroup.type").strip()
        if kind not in ("domain invalid", "threaded"):
            return
        for file, _, where in rows:
            if file.partition(".")[0] not in (*v2.THREADED, "cgroup"):
                raise ConfigError(
                    f"{directory} lies below a threaded cgroup, where {where} cannot be met"
                )
        if kind != "threaded":
            put(directory + "/cgroup.type", "threaded")

    def _refuse_below_usage(self, memory: dict[str, Any]) -> None:
        usage = read(f"{self.directory}/memory.current").strip()
        if not usage:
            return
        for field, name in (("swap", "memory+swap"), ("limit", "memory")):
            value = memory.get(field) or 0
            if 0 < value <= int(usage):
                raise StateError(
                    f"linux.resources.memory.{field}",
                    f"rejecting {name} limit {value} <= usage {usage}",
                )

    def _refused(self, row: Write, path: str, error: OSError) -> None:
        file, _, where = row
        controller = file.partition(".")[0]
        if error.errno in (ENOENT, EACCES, EPERM) and controller != "cgroup":
            have = read(f"{self.directory}/cgroup.controllers").split()
            if controller not in have and not self.lifts(*row[:2]) and not self.rootless:
                raise ConfigError(
                    where, f"the cgroup controller {controller} is not available"
                ) from error
        super()._refused(row, path, error)

    # --- processes

    def kill(self, signal: int) -> None:
        if signal == fs.SIGKILL and self.directory:
            try:
                put(self.directory + "/cgroup.kill", "1")  # Linux 5.14
                return
            except OSError as error:
                if error.errno not in (ENOENT, EOPNOTSUPP):  # EOPNOTSUPP: a threaded cgroup
                    raise
        super().kill(signal)

    def freeze_file(self) -> str | None:
        return self.path_of("cgroup.freeze")

    def freeze(self) -> None:
        path = self._freezer()
        put(path, "1")
        try:
            self._wait_frozen()
        except BaseException:
            put(path, "0")
            raise

    def thaw(self) -> None:
        put(self._freezer(), "0")

    def _freezer(self) -> str:
        path = self.freeze_file()
        if path is None:
            raise StateError("cannot toggle freezer: cgroups not configured for container")
        return path

    def _wait_frozen(self) -> None:
        import select

        fd = os.open(f"{self.directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        try:
            watch = select.poll()
            watch.register(fd, select.POLLPRI)  # the kernel says so when the file changes
            end = time.monotonic() + PATIENCE
            while word(os.pread(fd, 4096, 0).decode(), "frozen") != 1:
                left = end - time.monotonic()
                if left <= 0:
                    raise KernelError(EBUSY, "unable to freeze", str(self.directory))
                watch.poll(left * 1000)
        finally:
            os.close(fd)

    def oom_killed(self) -> bool:
        return word(read(f"{self.directory}/memory.events"), "oom_kill") > 0


def owner(config: dict[str, Any]) -> int | None:
    """Return the host's id of the user who is to own the cgroup; None leaves it with its maker.

    config-linux.md, "Cgroup ownership": with a cgroup namespace of its own, in which the tree is
    mounted for writing.
    """
    linux = config.get("linux") or {}
    spaces = {space["type"]: space.get("path") for space in linux.get("namespaces") or ()}
    if spaces.get("cgroup", "none"):
        return None
    for mount in config.get("mounts") or ():
        if (
            mount.get("type") == "cgroup"
            and os.path.normpath(mount["destination"]) == "/sys/fs/cgroup"
        ):
            if "ro" in (mount.get("options") or ()):
                return None
            break
    else:
        return None
    uid: int = ((config.get("process") or {}).get("user") or {}).get("uid") or 0
    if "user" not in spaces:
        return uid
    for mapping in linux.get("uidMappings") or ():
        if 0 <= uid - mapping["containerID"] < mapping["size"]:
            return int(mapping["hostID"] + uid - mapping["containerID"])
    return None


def _put_quietly(parent: str, value: str) -> bool:
    try:
        put(parent + "/cgroup.subtree_control", value)
    except OSError:
        return False
    return True
