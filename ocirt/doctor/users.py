"""What a container of a user who is not root can be mapped to."""

from __future__ import annotations

from ocirt import system as os
from ocirt.doctor.machine import INFO, LACKS, wanted
from ocirt.kernel.consts import CLONE_NEWUSER
from ocirt.usermap import user_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocirt.doctor.machine import Finding, Machine


def helpers(machine: Machine) -> Iterator[Finding]:
    """The programs that write the maps of users."""
    for name in ("newuidmap", "newgidmap"):
        path = machine.site.program(name)
        if path and not _may_map(machine.site.at(path)):
            advice = f"it can map nothing as it is: chmod u+s {path}, or install uidmap again"
            yield name, LACKS, f"{path} without privileges", advice
            continue
        yield wanted(
            name, bool(path), path or "not found",
            "containers of users get one id only: install uidmap (Fedora, RHEL: shadow-utils)",
        )  # fmt: skip


def _may_map(path: str) -> bool:
    """Whether a helper is set-uid, or has capabilities of its own as on Fedora."""
    try:
        if os.stat(path).st_mode & 0o4000:
            return True
        return "security.capability" in os.listxattr(path)
    except OSError:
        return False


def namespace(machine: Machine) -> Iterator[Finding]:
    """Whether this user gets a user namespace, whatever the limits say."""
    if machine.uid == 0 or not machine.here:
        return
    child = os.fork()
    if not child:
        import ctypes

        os._exit(ctypes.CDLL(None).unshare(CLONE_NEWUSER) != 0)
    refused = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    yield wanted(
        "namespace", not refused, "refused" if refused else "granted",
        "no container of yours can be made here: see the namespaces above; inside of a container, "
        "its seccomp profile has to allow unshare and clone",
    )  # fmt: skip


def ranges(machine: Machine) -> Iterator[Finding]:
    """The ids that belong to this user besides his own."""
    number = str(machine.uid)
    user = user_name(number, machine.text("/etc/passwd"))
    for file in ("subuid", "subgid"):
        rows = [row.split(":") for row in machine.text(f"/etc/{file}").splitlines()]
        rows = [row for row in rows if len(row) == 3 and row[2].isdigit()]
        if machine.uid == 0:
            yield file, INFO, f"ranges of {len({row[0] for row in rows})} users", ""
            continue
        count = sum(int(row[2]) for row in rows if row[0] in (user, number))
        yield wanted(
            file, count > 0, f"{count} ids of {user}",
            f"as root: usermod --add-{file}s 100000-165535 {user}, with a range of nobody else",
        )  # fmt: skip
