"""One `criu swrk`: CRIU as a child of ours that serves one request over a socket, then exits.

    runtime                           criu
    fork ---------------------------> waits
    go -----------------------------> enters what it has to, sends a socket, is executed
    request ----------------------->  works
                             <------  NOTIFY script [descriptor]     (as often as it likes)
    notify_success ---------------->
                             <------  the answer, of the request's type

What it says is not believed further than it goes: an answer that is none, or its end without
one, is a failure like a refusal.

CRIU: "RPC" and "Action scripts" of its documentation.
"""

from __future__ import annotations

from _socket import (
    AF_UNIX,
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    MSG_DONTWAIT,
    MSG_TRUNC,
    SCM_RIGHTS,
    SOCK_SEQPACKET,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
    socketpair,
)
from _struct import Struct
from errno import EIO

from ocirt import log
from ocirt import system as os
from ocirt.criu import rpc
from ocirt.errors import Error, KernelError, strerror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LARGEST = 1 << 16  # bytes of an answer; the longest that there is holds a few names

# Where CRIU and what it calls are kept, for callers whose PATH is that of a user.
FALLBACK = "/usr/local/sbin:/usr/sbin:/sbin"

_FD = Struct("=i")

# How the last of CRIU's complaints ends, and what it complains of in every run, the good ones too.
_GIVEN_UP = "FAILED."
_IDLE_WORDS = (_GIVEN_UP, "Can't setup RLIMIT_NOFILE")


def find(program: str) -> str:
    """Return the path of CRIU: `program` itself, or where PATH leads to."""
    if "/" in program:
        if not _executable(program):
            raise Error("--criu", program, "no such program")
        return os.path.abspath(program)
    for folder in f"{_path()}:{FALLBACK}".split(":"):
        path = f"{folder}/{program}"
        if folder and _executable(path):
            return path
    what = f'"{program}": executable file not found in $PATH'
    raise Error(what, "install CRIU, or name it with --criu")


def _executable(path: str) -> bool:
    return os.access(path, os.X_OK) and not os.path.isdir(path)


def _path() -> str:
    return os.environ.get("PATH") or "/usr/bin:/bin"


class Service:
    """A CRIU that waits for its one request.

    enter: what the child does before it becomes CRIU; an OSError or Error there is ours.  keep:
    descriptors that it inherits; a request means CRIU's own when it gives a number.  before: what
    we do to the child, whose pid it gets, before it does anything.
    """

    def __init__(
        self,
        path: str,
        enter: Callable[[], None] | None = None,
        keep: tuple[int, ...] = (),
        before: Callable[[int], None] | None = None,
    ) -> None:
        self.fds: list[int] = []  # descriptors that came with the last notification
        self.pid, fd = _spawn(path, enter, keep, before)
        self._socket = socket(AF_UNIX, SOCK_SEQPACKET, 0, fd)
        self._watch = os.pidfd_open(self.pid)

    def ask(
        self, request: dict[str, Any], notified: Callable[[str, int], None] | None = None
    ) -> dict[str, Any]:
        """Send the request, see to what CRIU notifies of, return the answer.

        notified: gets the script's name and the pid that comes with it, 0 if none does.  When
        it raises, CRIU is told of no success; `close` then waits for it to take everything back.
        """
        self._send(request)
        while True:
            answer = self._receive()
            kind = answer.get("type", 0)
            if not answer.get("success"):
                raise Error(_refusal(answer))
            if kind == rpc.NOTIFY and notified is not None:
                notice = answer.get("notify", {})
                try:
                    notified(notice.get("script", ""), notice.get("pid", 0))
                except BaseException:
                    self._send({"type": rpc.NOTIFY, "notify_success": False})
                    raise
                finally:
                    self._drop_fds()
                self._send({"type": rpc.NOTIFY, "notify_success": True})
            elif kind == request["type"]:
                return answer
            else:
                raise Error(f"criu answered {_name(request['type'])} with {_name(kind)}")

    def _send(self, request: dict[str, Any]) -> None:
        log.debug(f"criu: {_name(request['type'])} {request}")
        try:
            self._socket.send(rpc.encode("criu_req", request))
        except (BrokenPipeError, ConnectionResetError):
            pass  # it died; what is received next says so

    def _wait(self) -> None:
        """Wait until there is an answer, or nobody any more to give one."""
        import select

        # Its end is not that of the socket: what it was about to restore may hold that as well.
        poll = select.poll()
        for fd in (self._socket.fileno(), self._watch):
            poll.register(fd, select.POLLIN)
        poll.poll()

    def _receive(self) -> dict[str, Any]:
        self._wait()
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(
                LARGEST, CMSG_SPACE(4 * _FD.size), MSG_CMSG_CLOEXEC | MSG_DONTWAIT
            )
        except (BlockingIOError, ConnectionResetError):
            data, ancillary, flags = b"", [], 0
        self.fds += _descriptors(ancillary)
        if not data:
            raise ended(self.close(), "unexpected EOF")
        if flags & MSG_TRUNC:
            raise Error("criu sent what is no message", f"longer than {LARGEST} bytes")
        answer = rpc.decode("criu_resp", data)
        log.debug(f"criu: {_name(answer.get('type', 0))} {answer}")
        return answer

    def take_fd(self) -> int:
        """Return the descriptor that came with the notification, to be closed by the caller."""
        if not self.fds:
            raise Error("criu sent no descriptor")
        return self.fds.pop(0)

    def _drop_fds(self) -> None:
        while self.fds:
            os.close(self.fds.pop())

    def close(self) -> int:
        """End the conversation, which ends CRIU; return its exit status, -number for a signal."""
        self._socket.close()
        self._drop_fds()
        if not self.pid:
            return 0
        pid, self.pid = self.pid, 0
        os.close(self._watch)
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)


def _spawn(
    path: str,
    enter: Callable[[], None] | None,
    keep: tuple[int, ...],
    before: Callable[[int], None] | None,
) -> tuple[int, int]:
    """Start CRIU with our stdio; return its pid and our end of its socket, once it is CRIU."""
    # By fork, since what has to be entered has to be entered by the child: we stay where we are
    # and run the caller's hooks there.
    ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    pid = os.fork()
    if not pid:
        ours.close()
        _become(path, enter, keep, theirs)
    theirs.close()
    try:
        if before is not None:
            before(pid)
        said, fds = b"", []
        ours.send(_GO)
        while True:
            data, ancillary, _, _ = ours.recvmsg(1 << 12, CMSG_SPACE(_FD.size), MSG_CMSG_CLOEXEC)
            fds += _descriptors(ancillary)
            said += data
            if not data:
                break
    except BaseException:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        raise
    finally:
        ours.close()
    number, _, where = said.removeprefix(_SOCKET).decode("utf-8", "surrogateescape").partition("\n")
    if fds and not number:
        return pid, fds[0]
    for fd in fds:
        os.close(fd)
    os.waitpid(pid, 0)
    raise Error(where) if number == "0" else KernelError(int(number or EIO), where or path)


_GO, _SOCKET = b"\1", b"\0"


def _become(
    path: str, enter: Callable[[], None] | None, keep: tuple[int, ...], mouth: socket
) -> None:
    """Be CRIU, having sent the other end of its socket; or say why not; never return."""
    try:
        try:
            import _signal

            for number in (13, 25):  # SIGPIPE and SIGXFSZ, which Python ignores
                _signal.signal(number, _signal.SIG_DFL)
            _signal.pthread_sigmask(_signal.SIG_SETMASK, [])
            if mouth.recv(1) != _GO:  # the runtime is gone
                os._exit(127)
            if enter is not None:
                enter()
            # Made here: CRIU looks for descriptors in the process that made its socket, and
            # those of ours may lead to a mount namespace that it is not in.
            ours, far = socketpair(AF_UNIX, SOCK_SEQPACKET)
            packed = _FD.pack(far.fileno())
            mouth.sendmsg([_SOCKET], [(SOL_SOCKET, SCM_RIGHTS, packed)])
            far.close()
            for fd in (*keep, ours.fileno()):
                os.set_inheritable(fd, True)
            # It calls iptables, ip and tar by name.
            env = {**os.environ, "PATH": f"{_path()}:{FALLBACK}"}
            os.execve(path, [path, "swrk", str(ours.fileno())], env)
        except OSError as error:
            # The strerror stays out: KernelError words it.
            where = os.fsdecode(error.filename or path)
            mouth.send(f"{error.errno or EIO}\n{where}".encode("utf-8", "surrogateescape"))
        except Error as error:
            mouth.send(f"0\n{error}".encode("utf-8", "surrogateescape"))
    finally:
        os._exit(127)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = []
    for level, kind, packed in ancillary:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            whole = len(packed) // _FD.size * _FD.size
            found += [fd for (fd,) in _FD.iter_unpack(packed[:whole])]
    return found


def mute() -> None:
    """Be heard by nobody, and hear nobody; to be done by the child."""
    null = os.open("/dev/null", os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)


def ended(code: int, *what: str) -> Error:
    """Return the failure of a CRIU that exited with `code`, -number for a signal."""
    how = f"signal {-code}" if code < 0 else f"exit {code}"
    return Error("criu failed", *what, how)


def _name(kind: int) -> str:
    return rpc.TYPES[kind] if 0 <= kind < len(rpc.TYPES) else str(kind)


def _refusal(answer: dict[str, Any]) -> str:
    number = answer.get("cr_errno", 0)
    words = f"criu failed: type {_name(answer.get('type', 0))} errno {number}"
    return f"{words} ({strerror(number)})" if number > 0 else words


def complaint(path: str) -> str:
    """Return the name of a log of CRIU's with the first and the last error in it, if any.

    The first is mostly the cause, and the last what CRIU was at; what it says after it has
    given up is about cleaning up.
    """
    errors: list[str] = []
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                # "(00.127768) Error (criu/files-reg.c:1790): Can't …": the time tells nothing.
                _, found, text = line.strip().partition("Error (")
                if found and text.endswith(_GIVEN_UP) and errors:
                    break
                if found and not any(words in text for words in _IDLE_WORDS):
                    errors.append(found + text)
    except OSError:
        return f"no log file {path}"
    words = "; ".join(dict.fromkeys([*errors[:1], *errors[-1:]]))
    return f"log file {path}: {words}" if words else f"log file {path}"
