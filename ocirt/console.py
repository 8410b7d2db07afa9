"""Terminals and descriptors on their way to the caller: console socket, pidfd socket, foreground.

The foreground proxy copies between our own terminal, set raw, and the container's; it is also the
loop that waits for the container, forwarding signals meanwhile.

runtime-spec, config.md, "Process"; console sockets: the protocol of runc's docs/terminals.md.
"""

from __future__ import annotations

from _socket import AF_UNIX, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET, socket
from _struct import pack

from ocirt import log
from ocirt import system as os
from ocirt.errors import At, Error, KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.aside import Aside
    from ocirt.notify import Listener

LONGEST = 107  # bytes of a path in struct sockaddr_un


def send_fd(path: str, fd: int, payload: bytes) -> None:
    """Connect to a stream socket and send one descriptor along with the payload."""
    folder = -1
    with At(path):
        try:
            sock = socket(AF_UNIX, SOCK_STREAM)
            try:
                name = path
                if len(os.fsencode(path)) > LONGEST:
                    parent, base = os.path.split(os.path.abspath(path))
                    folder = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                    name = f"/proc/self/fd/{folder}/{base}"
                sock.connect(name)
                sent = sock.sendmsg([payload], [(SOL_SOCKET, SCM_RIGHTS, pack("=i", fd))])
                if sent < len(payload):
                    sock.sendall(payload[sent:])
            finally:
                sock.close()
        except OSError as error:
            raise KernelError(error.errno or 0) from error
        finally:
            if folder >= 0:
                os.close(folder)


def write_all(fd: int, data: bytes) -> bool:
    """Write everything, however long it takes; False where nobody reads any more."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            import select

            select.select([], [fd], [])
        except OSError:
            return False
    return True


class Signals:
    """Every signal that is sent to us, to be read when its descriptor can be.

    So none of them ends us and leaves containers behind.
    """

    # SIGKILL, SIGSTOP, glibc's own two; SIGPIPE, which is about our own output: stays ignored; and
    # what a fault of our own raises: SIGILL, SIGBUS, SIGFPE, SIGSEGV would come again without end
    UNCAUGHT = frozenset({4, 7, 8, 9, 11, 13, 19, 32, 33})

    def __init__(self) -> None:
        import _signal

        self._wake, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        _signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
        self._ignored: list[int] = []
        for number in range(1, 65):
            if number not in self.UNCAUGHT:
                try:
                    if _signal.signal(number, _ignore) == _signal.SIG_IGN:
                        self._ignored.append(number)
                except (OSError, ValueError):
                    pass

    def fileno(self) -> int:
        """Return the descriptor that can be read when signals have come."""
        return self._wake

    def read(self) -> bytes:
        """Return the numbers of those that came since; nothing if none did."""
        try:
            return os.read(self._wake, 512)
        except BlockingIOError:
            return b""

    def release(self, *numbers: int) -> None:
        """Let these do again what they did before we came; those that came stay to be read."""
        import _signal

        for number in numbers:
            if number not in self._ignored:
                _signal.signal(number, _signal.SIG_DFL)

    def stand_still(self, number: int) -> None:
        """Do as a signal that stops a process says; return when told to go on."""
        import _signal

        self.release(number)
        os.kill(os.getpid(), number)
        _signal.signal(number, _ignore)

    @staticmethod
    def block() -> None:
        """Keep signals waiting, also for the program that this process is about to become."""
        import _signal

        _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())

    @staticmethod
    def unblock() -> None:
        """Let them in again."""
        import _signal

        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _signal.valid_signals())


class Foreground:
    """Wait for a container's init from the foreground, and be its terminal if it has one.

    Signals are forwarded, except those that are about ourselves.  Make the object before the
    container: signals that come early are kept.  master: the terminal's master side, or -1.

    Where the launcher is there, packaging/attend.c does the waiting, in the same way.
    """

    OURS = frozenset({17, 23, 28})  # SIGCHLD, SIGURG, SIGWINCH

    def __init__(self) -> None:
        self._signals = Signals()
        self._master = -1
        self._tty = -1
        self._saved = b""
        self._aside: Aside | None = None

    def wait(
        self,
        pid: int,
        master: int = -1,
        listener: Listener | None = None,
        aside: Aside | None = None,
    ) -> int:
        """Copy and forward until the process ends; return its exit status, or 128 + signal.

        listener: who hears when the program is ready; we stay the process that a manager knows.
        aside: who waits in our place once nobody is to hear; then this does not return.
        """
        import select

        self._aside = aside
        if master >= 0:
            self._take_terminal(master)
        if listener is None:
            self._step_aside(pid)
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        if master >= 0:
            os.set_blocking(master, True)
            poll.register(master, select.POLLIN)
            poll.register(0, select.POLLIN)
        self._listener = listener
        if listener:
            poll.register(listener, select.POLLIN)
        try:
            status = self._loop(pid, poll)
            if self._listener:  # it may have said so right before its end
                self._pass_on(self._listener, poll)
            if self._master >= 0:
                self._drain()
        finally:
            self._restore_terminal()
        return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)

    def _loop(self, pid: int, poll: object) -> int:
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return status
            for fd, _ in poll.poll():  # type: ignore[attr-defined]
                if fd == self._signals.fileno():
                    self._forward(pid)
                elif self._listener and fd == self._listener.fileno():
                    self._pass_on(self._listener, poll)
                    if self._listener is None:
                        self._step_aside(pid)
                elif fd == self._master:
                    if not self._copy(self._master, 1):
                        poll.unregister(self._master)  # type: ignore[attr-defined]
                elif not self._copy(0, self._master):
                    poll.unregister(0)  # type: ignore[attr-defined]
                    write_all(self._master, b"\x04")  # what Ctrl-D would send

    def _step_aside(self, pid: int) -> None:
        """Let the waiter take over; on return there is none, and it is us who wait."""
        if self._aside is None:
            return
        self._signals.block()  # from here on they wait for the waiter
        self._forward(pid)
        self._aside.become(pid, self._master, self._tty, self._saved)
        self._signals.unblock()

    def _forward(self, pid: int) -> None:
        for number in self._signals.read():
            if number == 28 and self._tty >= 0:
                self._resize()
            if number not in self.OURS:
                try:
                    os.kill(pid, number)  # our own child, not yet reaped: the pid is its own
                except ProcessLookupError:
                    pass

    def _pass_on(self, listener: Listener, poll: object) -> None:
        if listener.heard():
            poll.unregister(listener)  # type: ignore[attr-defined]
            self._listener = None
            listener.close()
            try:
                listener.tell(0, leaving=False)
            except Error as error:
                log.warning(str(error))

    def _copy(self, source: int, target: int) -> bool:
        try:
            data = os.read(source, 65536)
        except BlockingIOError:
            return True
        except OSError:  # EIO: every copy of the terminal's other side is closed
            return False
        return bool(data) and write_all(target, data)

    def _drain(self) -> None:
        """Copy what the program wrote last."""
        os.set_blocking(self._master, False)
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:
                return
            if not data or not write_all(1, data):
                return

    def _take_terminal(self, master: int) -> None:
        import fcntl
        import termios

        self._master = master
        try:
            self._tty = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError as error:
            raise Error("open /dev/tty", str(KernelError(error.errno or 0))) from None
        self._resize()
        # As the kernel has it, for it goes back there, whoever gives it back.
        self._saved = fcntl.ioctl(self._tty, termios.TCGETS, bytes(64))
        raw = termios.tcgetattr(self._tty)
        raw[0] &= ~(
            termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
            | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
        )  # fmt: skip
        raw[1] &= ~termios.OPOST
        raw[2] = raw[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        raw[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._tty, termios.TCSANOW, raw)

    def _resize(self) -> None:
        import fcntl
        import termios

        try:
            size = fcntl.ioctl(self._tty, termios.TIOCGWINSZ, bytes(8))
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)
        except OSError:
            pass  # a terminal without a size keeps the config's

    def _restore_terminal(self) -> None:
        if self._saved:
            import fcntl
            import termios

            fcntl.ioctl(self._tty, termios.TCSETS, self._saved)
            self._saved = b""
        if self._tty >= 0:
            os.close(self._tty)
            self._tty = -1


def _ignore(number: int, frame: object) -> None:
    """Handle a signal by doing nothing: its number arrives through the wake-up pipe."""
