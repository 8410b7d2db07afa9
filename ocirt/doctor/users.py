"""What a container of a user who is not root can be mapped to."""

from __future__ import annotations

from ocirt.doctor.machine import INFO, wanted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocirt.doctor.machine import Finding, Machine


def helpers(machine: Machine) -> Iterator[Finding]:
    """The programs that write the maps of users."""
    for name in ("newuidmap", "newgidmap"):
        path = machine.site.program(name)
        yield wanted(
            name, bool(path), path or "not found",
            "containers of users get one id only: install uidmap (Fedora, RHEL: shadow-utils)",
        )  # fmt: skip


def ranges(machine: Machine) -> Iterator[Finding]:
    """The ids that belong to this user besides his own."""
    names = _user_names(machine)
    for file in ("subuid", "subgid"):
        rows = [row.split(":") for row in machine.text(f"/etc/{file}").splitlines()]
        rows = [row for row in rows if len(row) == 3 and row[2].isdigit()]
        if machine.uid == 0:
            yield file, INFO, f"ranges of {len({row[0] for row in rows})} users", ""
            continue
        count = sum(int(row[2]) for row in rows if row[0] in names)
        yield wanted(
            file, count > 0, f"{count} ids of {names[0]}",
            f"as root: usermod --add-{file}s 100000-165535 {names[0]}, with a range of nobody else",
        )  # fmt: skip


def _user_names(machine: Machine) -> list[str]:
    """Return how /etc/subuid may call the user."""
    number = str(machine.uid)
    for row in machine.text("/etc/passwd").splitlines():
        fields = row.split(":")
        if fields[2:3] == [number]:
            return [fields[0], number]
    return [number]
