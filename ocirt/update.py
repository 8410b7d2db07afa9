"""Give a container other limits while it runs.

`merged` is what the new limits come to together with the old ones; `update` puts them into
force and keeps them for the verbs to come.  Only the sections of the change are written again:
what somebody else has set in the others since is his business.  Device rules stay as they were
made, since what a container has open cannot be taken back, and what was injected beside the
config would be lost.
"""

from __future__ import annotations

from ocirt import cgroup as groups
from ocirt import log, quick, state
from ocirt.cgroup.files import put, read
from ocirt.container import locked, processes
from ocirt.errors import Error, NotRunning, StateError
from ocirt.undo import Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ocirt.cgroup.fs import Manager
    from ocirt.state import Container

# 0 is a value of these, and not the old way of saying "leave it alone".
COUNT_AT_ZERO = (("cpu", "burst"), ("cpu", "idle"), ("memory", "swappiness"))

# What tells the items of a list apart.
NAMES = ("pageSize", "name", "major", "minor")


def update(
    root: str, container_id: str, change: dict[str, Any], rdt: dict[str, str] | None = None
) -> None:
    """Change limits; when one is refused, all are as they were before.

    rdt: fields of linux.intelRdt that change as well.
    """
    container = locked(root, container_id)
    if container.status() not in (state.CREATED, state.RUNNING, state.PAUSED):
        raise NotRunning
    config = container.config()
    linux = config.setdefault("linux", {})
    new = merged(linux.get("resources") or {}, change)
    touched = {name: new[name] for name in change if name in new and name != "devices"}
    _check(touched)
    record = container.record.get("cgroup")
    if not record and (touched or not rdt):
        raise StateError("cannot update resources: cgroups not configured for container")
    before = {name: (linux.get("resources") or {}).get(name) or {} for name in touched}
    undo = Undo()
    try:
        if rdt:
            undo.add(_share(container, linux, rdt))
        if record:
            undo.add(_put_in_force(groups.from_record(record), touched, before))
        linux["resources"] = new
        container.save_config(config)
        if rdt:
            container.save()
    except BaseException:
        undo.run()
        raise


def _share(container: Container, linux: dict[str, Any], rdt: dict[str, str]) -> Callable[[], None]:
    """Give a container another share of caches and bandwidth; return what takes that back."""
    from ocirt import resctrl

    section = {**(linux.get("intelRdt") or {}), **rdt}
    record = container.record.get("resctrl")
    group = resctrl.changed(record, section, container.id)
    linux["intelRdt"] = section
    if record:
        old = group.schemata()
        group.write(group.rows)
        return lambda: group.write(old)
    try:
        group.create()
        for pid in processes(container):
            group.attach_all(pid)
    except BaseException:
        group.undo()
        raise
    container.record["resctrl"] = group.record
    quick.forget(container)  # it knows of no such directory to remove
    return group.undo


def merged(old: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return `linux.resources` after a change.  Pure.

    What the change leaves out, or gives as 0 or "", stays as it was.
    """
    new = dict(old)
    for section, given in change.items():
        if section == "devices":
            continue
        if given.__class__ is list:
            new[section] = _merged_list(old.get(section) or [], given)
            continue
        part = dict(old.get(section) or {})
        for field, value in given.items():
            if value.__class__ is list:
                part[field] = _merged_list(part.get(field) or [], value)
            elif value.__class__ is bool or value or (section, field) in COUNT_AT_ZERO:
                part[field] = value
        new[section] = part
    memory, cpu = change.get("memory") or {}, change.get("cpu") or {}
    if memory.get("limit") == -1 and not memory.get("swap"):
        # Unlimited memory within a limit on memory and swap together makes no sense.
        new["memory"]["swap"] = -1
    if cpu.get("idle") == 1 and not cpu.get("shares"):
        new["cpu"].pop("shares", None)
    return new


def _merged_list(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    items = {tuple(item.get(name) for name in NAMES): item for item in (*old, *new)}
    return list(items.values())


def _check(resources: dict[str, Any]) -> None:
    """Refuse what `create` would refuse."""
    from ocirt import checks

    faults: list[tuple[str, str]] = []
    subject = checks.Subject({"linux": {"resources": resources}}, unprivileged=False)
    checks.resources(subject, lambda *fault: faults.append(fault))
    if faults:
        raise checks.Faults(faults)


def _put_in_force(manager: Manager, new: dict[str, Any], old: dict[str, Any]) -> Callable[[], None]:
    """Set limits, all or none; return what takes them back."""
    rows = manager.writes(new)  # all that can be refused on paper is refused here
    before = []
    for file, _, _ in rows:
        path = manager.path_of(file)
        text = read(path) if path and not file.startswith("devices.") else ""
        # Of a file with a line for each device the old lines are no answer to a new one.
        if path and text.count("\n") == 1 and ":" not in text and "=" not in text:
            before.append((path, text))

    def take_back() -> None:
        _put_back(manager, old, before)

    try:
        manager.set(new)
    except (Error, OSError):
        take_back()
        raise
    return take_back


def _put_back(manager: Manager, old: dict[str, Any], before: list[tuple[str, str]]) -> None:
    """Restore the limits as far as the kernel lets us; why we have to is about to be told."""
    try:
        manager.set(old)
    except (Error, OSError) as error:
        log.debug(f"putting back: {error}")
    # Twice, for pairs of limits that the kernel holds against each other.
    for path, text in [*reversed(before), *before]:
        try:
            if read(path) != text:
                put(path, text)
        except OSError as error:
            log.debug(f"putting back: {path}: {error}")
