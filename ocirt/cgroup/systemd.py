"""The cgroup manager that leaves the making to systemd: a transient scope for each container.

systemd starts no scope without a process, so it is given the one that waits for its orders and
then makes the init (stage 0 in launch.py); the init is born into the scope.  Limits are told to
systemd as properties, so that it keeps them, and then written into the files as well, which can
say more.  What is done inside the cgroup is done as by driver `fs`: systemd has handed it over
(Delegate).

Device rules are both in our own program and in DeviceAllow: a `systemctl daemon-reload` makes
systemd attach its program again, and a device that it was not told of would be lost by that.

systemd.scope(5); docs/CGROUP_DELEGATION.md of systemd.
"""

from __future__ import annotations

from ocirt import log
from ocirt import system as os
from ocirt.cgroup import fs, layout
from ocirt.cgroup.files import pids_below
from ocirt.errors import At, ConfigError, Error
from ocirt.kernel.procfs import owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.cgroup.fields import Write
    from ocirt.cgroup.systemd_bus import Bus
    from ocirt.cgroup.systemd_props import Properties


class Systemd(fs.Manager):
    """What systemd_v1.py and systemd_v2.py have in common.

    unit: the scope's name.  user: it belongs to the manager of the user who runs us.
    """

    driver = "systemd"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.unit = ""
        self.slice = ""
        self.description = ""
        self.extra: list[tuple[str, tuple[str, Any]]] = []  # properties that annotations ask for
        self._waiting = 0  # the process that the scope is made with
        self._held: dict[str, Any] = {}  # limits that this one would break

    @property
    def user(self) -> bool:
        """Whether the scope is the affair of a user's own systemd."""
        return self.rootless

    def record(self) -> dict[str, Any]:
        return {**super().record(), "unit": self.unit}

    def find(self, path: str) -> None:
        """Take the cgroup `path` for that of the scope."""
        raise NotImplementedError

    def path_in(self, own: dict[str, str]) -> str:
        """Return the path in what layout.own_paths found that systemd looks after."""
        raise NotImplementedError

    # --- the scope

    def make(self, resources: dict[str, Any], waiting: int = 0) -> list[Write]:
        """Make the scope with its limits."""
        if waiting <= 0:  # systemd would take 0 for us
            raise ConfigError(f"{self._who()}: {self.unit} needs a process to start with")
        self._waiting = waiting
        self.writes(resources)  # what can be refused on paper is refused before systemd hears of it
        now = self._without_held(resources)
        with At(self._who()), self._talk() as bus:
            try:
                bus.start(self.unit, lambda version: self.properties(now, waiting, version))
            except Error:
                # After a connection that broke, systemd may have done it all the same.
                if not self._is_in(waiting):
                    raise
        try:
            if not self._is_in(waiting):
                raise Error(f"{self._who()}: {self.unit} was started without process {waiting}")
            self.find(self.path_in(layout.own_paths(f"/proc/{waiting}")))
            super().limit(super().make(now, waiting))
        except BaseException:
            self._take_back()
            self._stop()
            raise
        return []

    def properties(self, resources: dict[str, Any], waiting: int, version: int) -> Properties:
        """Return what the scope is made of, for a systemd of `version`.  Pure."""
        from ocirt.cgroup import systemd_props

        found = systemd_props.scope(self.slice, self.description, waiting, self.version, version)
        found.update(systemd_props.limits(self.writes(resources), self.version, version))
        if not self.user:
            rules = resources.get("devices") or ()
            found.update(systemd_props.device_rules(rules, self.version))
        found.update(self.extra)
        return found

    def asks(self, resources: dict[str, Any]) -> list[tuple[str, str]]:
        newest = 1 << 16
        found = self.properties(resources, 0, newest)
        del found["PIDs"]
        return [(self.unit, f"{name} = {_words(value)}") for name, (_, value) in found.items()]

    def settle(self) -> None:
        if self._held:
            held, self._held = self._held, {}
            self.set(held)

    def _without_held(self, resources: dict[str, Any]) -> dict[str, Any]:
        """Keep back a limit of one process: the one that waits has to make another."""
        if not any(row[:2] == ("pids.max", "1") for row in self.writes(resources)):
            return resources
        unified = resources.get("unified") or {}
        self._held = {"pids": resources.get("pids") or {}}
        if "pids.max" in unified:
            self._held["unified"] = {"pids.max": unified["pids.max"]}
            unified = {file: value for file, value in unified.items() if file != "pids.max"}
        return {**resources, "pids": {}, "unified": unified}

    def _is_in(self, pid: int) -> bool:
        return os.path.basename(self.path_in(layout.own_paths(f"/proc/{pid}"))) == self.unit

    def _refuse_used(self, path: str) -> None:
        if set(pids_below(path)) - {self._waiting}:
            super()._refuse_used(path)

    def set(self, resources: dict[str, Any]) -> None:
        super().set(resources)  # first, so that systemd is not told of what the kernel refuses
        rows = [row for row in self.writes(resources) if not row[0].startswith("devices.")]
        from ocirt.cgroup import systemd_props

        with At(self._who()), self._talk() as bus:
            # On v1 systemd closes every device for a moment when it writes its files again.
            still = self.version == 2 or self.frozen()
            if not still:
                self.freeze()
            try:
                bus.set(
                    self.unit,
                    lambda version: systemd_props.limits(rows, self.version, version),
                )
            finally:
                if not still:
                    self.thaw()
        self._carry_out(rows)  # systemd rounds

    def attach(self, pid: int) -> None:
        """Have systemd put a process into the scope, where we may not do it ourselves."""
        with At(self._who()), self._talk() as bus:
            bus.attach(self.unit, pid)

    def remove(self) -> None:
        self._stop()
        super().remove()

    def _stop(self) -> None:
        """Stop the scope; without a systemd to talk to, an empty cgroup is all that counts."""
        try:
            with self._talk() as bus:
                bus.stop(self.unit)
        except Error as error:
            log.debug(f"stopping {self.unit}: {error}")

    def _talk(self) -> Bus:
        from ocirt.cgroup.systemd_bus import Bus

        return Bus(self.user)

    def _who(self) -> str:
        return "systemd of the user" if self.user else "systemd"


def open_manager(
    cgroups_path: str,
    container_id: str,
    annotations: dict[str, str],
    *,
    rootless: bool,
    root: str,
    proc: str,
) -> Systemd:
    """Return the manager of a scope that is yet to be made."""
    from ocirt.cgroup import systemd_unit

    parent, unit = systemd_unit.parse(cgroups_path, container_id, user=rootless)
    base = user_manager(proc) if rootless else ""
    path = f"{base}{systemd_unit.expand(parent)}/{unit}"
    manager: Systemd
    if layout.unified(root):
        from ocirt.cgroup.systemd_v2 import V2

        manager = V2(root + path, rootless=rootless, root=root, proc=proc)
    elif rootless:
        raise ConfigError("the systemd of a user makes no cgroups on v1: boot with cgroup v2")
    else:
        from ocirt.cgroup.systemd_v1 import V1

        manager = V1.open(path, container_id, rootless=False, root=root, proc=proc)
    manager.slice, manager.unit = parent, unit
    manager.description = f"ocirt container {container_id}"
    manager.extra = systemd_unit.annotated(annotations)
    return manager


def from_record(record: dict[str, Any]) -> Systemd:
    """Return the manager that `Systemd.record` described."""
    manager: Systemd
    if record["version"] == 2:
        from ocirt.cgroup.systemd_v2 import V2

        manager = V2.from_record(record)
    else:
        from ocirt.cgroup.systemd_v1 import V1

        manager = V1.from_record(record)
    manager.unit = record["unit"]
    return manager


def user_manager(proc: str) -> str:
    """Return the path of the cgroup in which the systemd of our user makes others.

    Where we live in it ourselves, ours tells; elsewhere it is where every system has it.  What
    counts in the end is where the scope's first process is.
    """
    own = layout.own_paths(proc).get("", "")
    parts = own.split("/")
    for i, part in enumerate(parts):
        if part.startswith("user@") and part.endswith(".service"):
            return "/".join(parts[: i + 1])
    uid = owner()
    return f"/user.slice/user-{uid}.slice/user@{uid}.service"


def _words(value: Any) -> str:
    """Word a property for people: lists by commas, what belongs together by blanks."""
    if value.__class__ is list:
        return ", ".join([_words(item) for item in value])
    return " ".join([_words(item) for item in value]) if value.__class__ is tuple else str(value)
