"""Our own stdout and stderr, written without waiting for who reads them.

Who waits in write(2) hears no signal and sees no rank fail.  So what there is no room for is kept,
and written when poll(2) says that there is.
"""

from __future__ import annotations

from _socket import MSG_DONTWAIT, socket

from ocirt import system as os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FULL = 1 << 20  # bytes kept; who has more to say has to wait
_CHUNK = 1 << 16
_PIPE_BUF = 4096  # what a pipe takes at once when it has room at all: pipe(7)


class Sink:
    """One of our descriptors, and what is still to be written to it.

    fd: the one to poll, whose file status flags others share only where there is no other way.
    error: the errno that it broke with, 0 while it works.
    """

    def __init__(self, target: int) -> None:
        from stat import S_ISFIFO, S_ISREG, S_ISSOCK

        self.fd = target
        self.error = 0
        self._kept = bytearray()
        self._own = False
        self._socket: socket | None = None
        self._send: Callable[[bytes], int] = self._carefully
        try:
            mode = os.fstat(target).st_mode
            if S_ISSOCK(mode):
                self._socket = held = socket(fileno=os.dup(target))
                self._send = lambda data: held.send(data, MSG_DONTWAIT)
            elif S_ISREG(mode):
                self._send = self._plainly
            elif S_ISFIFO(mode) or os.isatty(target):
                # O_NONBLOCK of a description that is ours alone: a shell has the other.
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                self.fd = os.open(f"/proc/self/fd/{target}", flags)
                self._own = True
                self._send = self._plainly
        except OSError:
            pass  # it is another's, or nobody reads it: writing will tell

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, data: bytes) -> None:
        """Take all of it; write as much of what there is as there is room for."""
        if self.error:
            return
        self._kept += data
        self.write()

    def write(self) -> None:
        """Write as much as there is room for."""
        try:
            while self._kept:
                del self._kept[: self._send(bytes(self._kept[:_CHUNK]))]
        except BlockingIOError:
            pass
        except OSError as error:
            self.error = error.errno or 0
            self._kept.clear()

    def close(self) -> None:
        """Drop what is left."""
        self._kept.clear()
        if self._socket:
            self._socket.close()
        if self._own:
            os.close(self.fd)
            self._own = False

    def _plainly(self, data: bytes) -> int:
        return os.write(self.fd, data)

    def _carefully(self, data: bytes) -> int:
        import select

        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        if not poll.poll(0):
            raise BlockingIOError
        return os.write(self.fd, data[:_PIPE_BUF])


def same(one: int, other: int) -> bool:
    """Whether two descriptors are of the same file, pipe or terminal."""
    try:
        return os.path.sameopenfile(one, other)
    except OSError:
        return False
