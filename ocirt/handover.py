"""What `create` and `exec` do alike around a new process: what it is handed, what it is bound by.

Descriptors on the way in (--preserve-fds, LISTEN_FDS), resource limits while it waits, and what
the caller gets in return: the terminal, a pidfd, the pid file.

sd_listen_fds(3); runc's docs/terminals.md; config-linux.md, "Seccomp", for the listener.
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.document import SPEC_VERSION
from ocirt.errors import At, Error

_KIND, _SOCKET = 0o170000, 0o140000  # of st_mode: inode(7)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ocirt.launch import Init
    from ocirt.state import Container


def listen_fds(environ: Mapping[str, str] = os.environ, pid: int = 0) -> int:
    """How many sockets a service manager handed to this very process (sd_listen_fds(3))."""
    if environ.get("LISTEN_PID") != str(pid or os.getpid()):
        return 0
    count = environ.get("LISTEN_FDS", "")
    return int(count) if count.isascii() and count.isdigit() else 0


def notify_socket(environ: Mapping[str, str] = os.environ) -> str:
    """Return where a service manager wants to hear that we are ready (sd_notify(3)), or nothing.

    A path, or a name that begins with @.  A vsock address is for a machine, not for a container.
    """
    name = environ.get("NOTIFY_SOCKET", "")
    return name if name[:1] in ("/", "@") and len(name) > 1 else ""


def check_preserved(count: int, listen: int = 0) -> None:
    """Refuse to preserve closed descriptors, before a file of ours takes such a number.

    It would leak into the container (CVE-2024-21626).
    """
    for fd in range(3, 3 + listen + count):
        try:
            os.fstat(fd)
        except OSError:
            option = "LISTEN_FDS" if fd < 3 + listen else "--preserve-fds"
            raise Error(f"{option}: descriptor {fd} is not open") from None


def pmi_fd(config: dict[str, Any]) -> int:
    """Return the descriptor that process.env names as PMI_FD; -1 unless it is a socket we got.

    Slurm's PMI-1 and PMI-2 talk through such a socket, whose number nobody can choose.  Only a
    caller who means it asks for this (--pmi-fd): an image has a say in its environment, too.
    """
    found = -1
    for item in (config.get("process") or {}).get("env") or ():
        name, _, value = item.partition("=")
        if name == "PMI_FD":
            found = int(value) if value.isascii() and value.isdigit() and len(value) < 8 else -1
    if found < 3:
        return -1
    try:
        # What we have opened ourselves is marked to be closed.
        ours = not os.get_inheritable(found)
        return -1 if ours or os.fstat(found).st_mode & _KIND != _SOCKET else found
    except OSError:
        return -1


def check_console(console_socket: str, detach: bool, terminal: bool) -> None:
    """Refuse a terminal that nobody would get, and a socket that would get none."""
    if terminal and detach and not console_socket:
        raise Error("cannot allocate tty if ocirt will detach without setting console socket")
    if console_socket and not (detach and terminal):
        raise Error("cannot use console socket if ocirt will not detach or allocate tty")


def rlimits(config: dict[str, Any]) -> list[tuple[int, int, int, str, str]]:
    """Return process.rlimits as (number, soft, hard, place, its text), ready for `set_rlimits`."""
    section = (config.get("process") or {}).get("rlimits")
    if not section:
        return []
    import resource  # noqa: F401  # now, while nobody waits

    from ocirt.plan import identity

    return [
        (*limit, f"{entry['type']} {limit[2]}")
        for entry, limit in zip(section, identity.rlimits(config), strict=True)
    ]


def set_rlimits(pid: int, limits: list[tuple[int, int, int, str, str]]) -> None:
    """Put what `rlimits` has found into force; the process waits meanwhile."""
    if not limits:
        return
    from resource import prlimit

    for number, soft, hard, where, text in limits:
        try:
            prlimit(pid, number, (soft, hard))
        except PermissionError:
            limit = prlimit(pid, number)[1]
            raise Error(
                where,
                f"error setting rlimit type {number}",
                f"{text} is above our own hard limit {limit}",
                "operation not permitted",
            ) from None
        except ValueError as error:
            raise Error(where, str(error)) from None


# crun's way to ask for a pidfd from within a config.
PIDFD_RECEIVER = "run.oci.pidfd_receiver"


def send_descriptors(init: Init, console_socket: str, pidfd_socket: str, word: bytes) -> None:
    """Hand over the terminal and the pidfd before the pid file tells the caller to go on.

    word: what the pidfd's receiver is told it belongs to.
    """
    if not (console_socket or pidfd_socket):
        return
    from ocirt import console

    if console_socket:
        console.send_fd(console_socket, init.console, b"/dev/ptmx")
    if pidfd_socket:
        pidfd = os.pidfd_open(init.pid)
        try:
            console.send_fd(pidfd_socket, pidfd, word)
        finally:
            os.close(pidfd)


def send_listener(
    container: Container, config: dict[str, Any], status: str, pid: int, number: int
) -> None:
    """Pass a seccomp listener to the agent that the config names.

    status: of the container.  pid, number: the process that holds the listener, and where.
    """
    from ocirt import console, jsonio
    from ocirt.launch import fetch_fd

    section = config["linux"]["seccomp"]
    fd = fetch_fd(pid, number)
    try:
        document = {
            "ociVersion": SPEC_VERSION,
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": section.get("listenerMetadata") or "",
            "state": {
                "ociVersion": SPEC_VERSION,
                "id": container.id,
                "status": status,
                # Of the container's init; while that is being made, it is the process itself.
                "pid": container.pid or pid,
                "bundle": container.record["bundle"],
                "annotations": container.record.get("annotations") or {},
            },
        }
        console.send_fd(section["listenerPath"], fd, jsonio.dumps(document).encode())
    finally:
        os.close(fd)


def write_pid_file(path: str, pid: int) -> None:
    """Write the pid file: whole, without a newline, and last of all, since callers wait for it."""
    if not path:
        return
    from ocirt.state import write_whole

    with At("--pid-file"):
        mask = os.umask(0o077)
        os.umask(mask)
        write_whole(os.path.abspath(path), str(pid), 0o666 & ~mask)
