"""The cgroups of a container: where they are, their limits, their processes, their end.

`open_manager` picks the driver and the version and answers with a `fs.Manager`.  It makes
nothing; `Manager.create` does.  Later verbs come back with `from_record`.

    fields.py         walks a table from config to files      pure
    v1.py, v2.py      the tables                              pure
    devices.py        the device rules, as lines and as eBPF  pure
    layout.py         what is mounted where                   reads /proc
    files.py          read, write, list, remove
    fs.py             the manager; fs_v1.py, fs_v2.py: what is special about each
    systemd.py        the same with a systemd that makes the cgroup: systemd_unit.py, its name;
                      systemd_props.py, its properties (both pure); systemd_bus.py, how to ask;
                      dbus.py, gvariant.py, in what language
"""

from __future__ import annotations

from ocirt.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.cgroup.fs import Manager

DRIVERS = ("fs", "systemd")  # who makes cgroups; `ocirt features` tells callers


def open_manager(
    cgroups_path: str,
    container_id: str,
    *,
    rootless: bool = False,
    root: str = "/sys/fs/cgroup",
    proc: str = "/proc/self",
    driver: str = "fs",
    annotations: dict[str, str] | None = None,
) -> Manager:
    """Return the manager for linux.cgroupsPath ("" for none), on whatever this machine mounts.

    annotations: the config's, of which driver `systemd` heeds some.
    """
    if driver not in DRIVERS:
        raise ConfigError(f"there is no cgroup driver {driver!r}")
    # Late, so that only what is in use is loaded.
    if driver == "systemd":
        from ocirt.cgroup import systemd

        return systemd.open_manager(
            cgroups_path, container_id, annotations or {}, rootless=rootless, root=root, proc=proc
        )
    from ocirt.cgroup import layout

    if layout.unified(root):
        from ocirt.cgroup.fs_v2 import V2

        return V2.open(cgroups_path, container_id, rootless=rootless, root=root, proc=proc)
    from ocirt.cgroup.fs_v1 import V1

    return V1.open(cgroups_path, container_id, rootless=rootless, root=root, proc=proc)


def from_record(record: dict[str, Any]) -> Manager:
    """Return the manager that `Manager.record` described."""
    manager = _from_record(record)
    manager.shared = bool(record.get("shared"))
    return manager


def _from_record(record: dict[str, Any]) -> Manager:
    try:
        if record["driver"] == "systemd":
            from ocirt.cgroup import systemd

            return systemd.from_record(record)
        if record["version"] == 2:
            from ocirt.cgroup.fs_v2 import V2

            return V2.from_record(record)
        from ocirt.cgroup.fs_v1 import V1

        return V1.from_record(record)
    except (KeyError, TypeError, ValueError):
        raise ConfigError("the state's record of the cgroup is damaged") from None
