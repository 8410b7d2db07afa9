"""The id maps of a container's user namespace: write those of a new one, compare a joined one's.

The kernel lets a privileged writer map anything, an unprivileged one only its own id; for ranges
the latter needs the set-uid helpers and lines in /etc/subuid and /etc/subgid.  Whether a range
is granted is for the helpers to say (it may come from a directory service); what the files hold
is read only to word a refusal.

user_namespaces(7), "User and group ID mappings"; newuidmap(1); subuid(5).
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.errors import At, ConfigError, Error
from ocirt.plan.namespaces import id_map, own_group_only

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# map in /proc/PID, field of config.json, helper, file that grants ranges, option of usermod(8)
MAPS = (
    ("uid_map", "uidMappings", "newuidmap", "/etc/subuid", "--add-subuids"),
    ("gid_map", "gidMappings", "newgidmap", "/etc/subgid", "--add-subgids"),
)


def write(pid: int, linux: dict[str, Any]) -> None:
    """Write both maps of the process's user namespace from linux.uidMappings and gidMappings."""
    unprivileged = os.geteuid() != 0
    for name, field, helper, file, option in MAPS:
        mappings = linux.get(field) or []
        with At(f"linux.{field}"):
            if name == "gid_map" and unprivileged and own_group_only(mappings, os.getegid()):
                _direct(f"/proc/{pid}/setgroups", "deny")
            if _direct(f"/proc/{pid}/{name}", id_map(mappings, field)):
                continue
            if not unprivileged:
                raise _unmapped(name, mappings)
            _help(helper, file, option, pid, mappings)


def check(pid: int, linux: dict[str, Any]) -> None:
    """Refuse mappings that a joined user namespace does not have.

    Engines write the mappings of the namespace beside its path; others would be about somebody
    else's ids.  pid: of a process in it.
    """
    for name, field, *_ in MAPS:
        mappings = linux.get(field)
        if mappings and _parsed(_read(f"/proc/{pid}/{name}")) != _sorted(mappings):
            raise ConfigError(
                f"linux.{field}",
                "user namespaces enabled, but both namespace path and non-matching mapping "
                "specified -- you may only provide one",
            )


def _sorted(mappings: list[dict[str, int]]) -> list[tuple[int, int, int]]:
    rows = [(m["containerID"], m["hostID"], m["size"]) for m in mappings if m["size"]]
    return sorted(rows)


def _parsed(text: str) -> list[tuple[int, int, int]]:
    numbers = [int(word) for word in text.split()]
    return sorted(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True))


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _direct(path: str, text: str) -> bool:
    """Write a map in one write, as the kernel wants it; False when we are not entitled to."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except PermissionError:
        return False
    finally:
        os.close(fd)
    return True


def _unmapped(name: str, mappings: list[dict[str, int]]) -> Error:
    """Word why root was refused: as root of a user namespace it can map what that one has."""
    own = [(inside, inside + size) for inside, _, size in _parsed(_read(f"/proc/self/{name}"))]
    for mapping in mappings:
        first, end = mapping["hostID"], mapping["hostID"] + mapping["size"]
        if not any(low <= first and end <= high for low, high in own):
            have = ", ".join([_range(low, high) for low, high in own])
            return Error(
                f"{_range(first, end)} are not all in the runtime's own user namespace ({have})",
                "operation not permitted",
            )
    return Error("operation not permitted")


def _range(first: int, end: int) -> str:
    return f"ids {first}-{end - 1}" if end - first > 1 else f"id {first}"


def _help(helper: str, file: str, option: str, pid: int, mappings: list[dict[str, int]]) -> None:
    """Have the set-uid helper write the map."""
    words = [str(m[key]) for m in mappings for key in ("containerID", "hostID", "size")]
    reader, writer = os.pipe()
    try:
        child = os.posix_spawnp(
            helper,
            [helper, str(pid), *words],
            dict(os.environ),
            file_actions=[(os.POSIX_SPAWN_DUP2, writer, 2)],
        )
    except FileNotFoundError:
        os.close(reader)
        raise Error(
            f"more than one's own id needs {helper} (install uidmap, or shadow-utils) and a "
            f"range in {file}",
            "operation not permitted",
        ) from None
    finally:
        os.close(writer)
    said = b""
    while some := os.read(reader, 4096):
        said += some
    os.close(reader)
    _, status = os.waitpid(child, 0)
    if status:
        reason = said.decode(errors="replace").strip().partition("\n")[0]
        raise Error(reason or helper, _advice(helper, file, option, reason))


def _advice(helper: str, file: str, option: str, reason: str) -> str:
    """Tell what to do about a refusal, as far as the machine's files explain it."""
    from ocirt.kernel import procfs

    if "not allowed" not in reason:
        if procfs.field("self", "NoNewPrivs") == "1":
            return f"{helper} has no privileges: its caller has given up gaining any"
        return f"has {helper} its set-uid bit or capabilities?"
    number = str(os.geteuid())
    name = user_name(number, _read("/etc/passwd"))
    rows = [row.split(":") for row in _read(file).splitlines()]
    granted = [
        _range(int(row[1]), int(row[1]) + int(row[2]))
        for row in rows
        if len(row) == 3 and row[0] in (name, number) and row[1].isdigit() and row[2].isdigit()
    ]
    if granted:
        return f"{file} grants {name} {', '.join(granted)}"
    return f"{file} grants {name} nothing; as root: usermod {option} 100000-165535 {name}"


def user_name(number: str, passwd: str) -> str:
    """Return what the text of /etc/passwd calls a user; the number when it does not know it."""
    rows = (row.split(":") for row in passwd.splitlines())
    return next((row[0] for row in rows if row[2:3] == [number]), number)
