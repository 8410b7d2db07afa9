"""Pass on that a container is ready: sd_notify(3), from its program to our caller's manager.

The container is not given the socket of the service manager, in which it could say anything
about anybody, but one of its own:

    ROOT/ID/notify/notify.sock, in the container /run/notify/notify.sock

`create` makes the directory and mounts it; whoever starts the program, `start` or `run`, listens,
and passes on READY=1 and nothing else, with the pid that the manager knows the program by.

sd_notify(3); systemd's src/libsystemd/sd-daemon for BARRIER, which is what keeps us from ending
before the manager has looked at who we are.
"""

from __future__ import annotations

from _socket import (
    AF_UNIX,
    SCM_RIGHTS,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOL_SOCKET,
    socket,
)
from _struct import pack

from ocirt import system as os
from ocirt.errors import At
from ocirt.handover import notify_socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.state import Container

INSIDE = "/run/notify"
NAME = "notify.sock"
LARGEST = 4096  # bytes of a datagram that anybody reads
BARRIER_TIME = 30_000  # ms


def folder(root: str, container_id: str) -> str:
    """Return the directory of the container's socket."""
    return os.path.join(root, container_id, "notify")


def configured(config: dict[str, Any], source: str) -> dict[str, Any]:
    """Return the config of a container that can reach the socket in `source`.  Pure."""
    mount = {
        "destination": INSIDE,
        "type": "bind",
        "source": source,
        "options": ["bind", "nosuid", "noexec", "nodev", "ro"],
    }
    process = dict(config["process"])
    process["env"] = [*(process.get("env") or ()), f"NOTIFY_SOCKET={INSIDE}/{NAME}"]
    return {**config, "process": process, "mounts": [*(config.get("mounts") or ()), mount]}


class Listener:
    """The container's socket while its program gets ready."""

    def __init__(self, directory: str, manager: str) -> None:
        self._manager = manager
        self._socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK)
        place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # By way of the descriptor, since the path may be too long for a socket's name.
            name = f"/proc/self/fd/{place}/{NAME}"
            try:
                os.unlink(name)  # of a `start` that was killed
            except FileNotFoundError:
                pass
            self._socket.bind(name)
            os.chmod(name, 0o777)
        finally:
            os.close(place)

    def fileno(self) -> int:
        """Descriptor to poll for what the container says."""
        return self._socket.fileno()

    def heard(self) -> bool:
        """Read what the container has said; tell whether it is ready."""
        while True:
            try:
                said = self._socket.recv(LARGEST)
            except BlockingIOError:
                return False
            if b"READY=1" in said.split(b"\n"):
                return True

    def wait(self, container: Container) -> None:
        """Wait until the container is ready, and pass that on, or until it has ended."""
        import select

        poll = select.poll()
        poll.register(self, select.POLLIN)
        try:
            end = os.pidfd_open(container.pid)
        except ProcessLookupError:
            end = -1
        else:
            poll.register(end, select.POLLIN)
        try:
            # Looked at with the pidfd in hand: the pid is not another's now.
            alive = end >= 0 and container.alive()
            while True:
                ended = not alive or end in [fd for fd, _ in poll.poll()]
                if self.heard():
                    self.tell(0 if ended else container.pid)
                    return
                if ended:
                    return
        finally:
            if end >= 0:
                os.close(end)
            self.close()

    def tell(self, pid: int, leaving: bool = True) -> None:
        """Tell the manager that we are ready, and that `pid` is now its process; 0: we still are.

        leaving: whether we shall end, so that the manager has to look at who we are before; it
        gets 30 seconds.
        """
        name = self._manager
        ready = b"READY=1" + (b"\nMAINPID=%d" % pid if pid else b"")
        manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)
        with At(f"NOTIFY_SOCKET: {name}"):
            try:
                # As bytes: an interpreter that is half started takes no NUL in a str for a name.
                place = "\0" + name[1:] if name[0] == "@" else name
                manager.connect(place.encode("utf-8", "surrogateescape"))
                manager.send(ready)
                if leaving:
                    _wait_until_read(manager)
            finally:
                manager.close()

    def close(self) -> None:
        """Stop listening; who writes later is told that nobody is there."""
        self._socket.close()


def _wait_until_read(manager: socket) -> None:
    """Send a descriptor, and wait until the manager has closed it."""
    import select

    ours, theirs = os.pipe2(os.O_CLOEXEC)
    try:
        manager.sendmsg([b"BARRIER=1"], [(SOL_SOCKET, SCM_RIGHTS, pack("=i", theirs))])
    finally:
        os.close(theirs)
    try:
        poll = select.poll()
        poll.register(ours, 0)
        poll.poll(BARRIER_TIME)
    finally:
        os.close(ours)


def listen(container: Container) -> Listener | None:
    """Listen to a container that was made with a socket, if a manager waits to hear of it."""
    manager = notify_socket()
    if not manager or not container.record.get("notify"):
        return None
    return Listener(os.path.join(container.directory, "notify"), manager)
