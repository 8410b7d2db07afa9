"""Start the init, feed it the plan, answer its questions, word its failure.

    runtime                    stage 0                     init (the container's first process)
    posix_spawn ------------->
    part 1, descriptors ----->  performs the outside ops
                      <-------  CLONED pid, exits  ------>
    part 2, descriptors ------------------------------->   performs the inside ops (part 2 may be
                                                           sent before there is a child)
                      <---------------------------------   ASK maps, hooks, ready; FD console
    four zero bytes ------------------------------------>
                      <---------------------------------   DONE at the gate (create)
                                                           or end of file at the exec (run)

The init runs from a sealed copy in memory, so that /proc/self/exe in a container is never a file
of the host (CVE-2019-5736).  It is cloned with CLONE_PARENT: our own child, to be waited for in
the foreground, or to pass to the nearest subreaper when `create` exits.  Should the runtime die,
the init reads end of file and exits.
"""

from __future__ import annotations

import fcntl
from _socket import CMSG_SPACE, SCM_RIGHTS, SOL_SOCKET, socketpair
from _struct import Struct

from ocirt import system as os
from ocirt.errors import Error, HookError, InitError, KernelError, strerror
from ocirt.kernel import consts as k
from ocirt.plan import ops as vocabulary
from ocirt.plan import split
from ocirt.plan.ops import Op
from ocirt.plan.program import lookup_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Generator
    from typing import TypeVar

    Result = TypeVar("Result")
    Answers = dict[int, Callable[[int], Callable[[], None] | None]]

INIT = os.path.join(os.path.dirname(__file__), "init", "ocirt-init")

_REPLY = Struct("=IIiI")
_GO = bytes(4)
_FDS_PER_MESSAGE = 253  # SCM_MAX_FD


def sealed_copy(path: str = INIT) -> int:
    """Return a descriptor of a copy of the init that nobody can write to any more."""
    try:
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise InitError(f"{path} is missing: build it with `make init`") from None
    fd = os.memfd_create("ocirt-init", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        size = os.fstat(source).st_size
        sent = 0
        while sent < size:
            sent += os.sendfile(fd, source, None, size - sent)
        os.fchmod(fd, 0o700)
        fcntl.fcntl(fd, k.F_ADD_SEALS, k.F_SEAL_ALL)
    except BaseException:
        os.close(fd)
        raise
    finally:
        os.close(source)
    return fd


def finish(steps: Generator[int, None, Result]) -> Result:
    """Take the steps of a conversation one after the other; return what they come to.

    Steps yield the descriptor that they would next wait for; who has but one init just waits.
    """
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: Result = end.value
            return found


class Init:
    """The conversation with one init.

    pid: of the container's first process, 0 until stage 0 has cloned it.
    explain: adds what is known outside about the op that failed with an errno.
    again: whether ops of the plan are those of other inits, too.
    """

    def __init__(self, plan: list[Op], slots: dict[str, int], *, again: bool = False) -> None:
        self.plan = plan
        self.again = again
        self.pid = 0
        self.console = -1
        self._handed = -1  # the descriptor that came last
        self._early: list[tuple[int, int, int, str]] = []  # what the child has said so far
        self.warnings: list[str] = []
        self.explain: Callable[[Op, int], str] | None = None
        self._outside = split(plan)
        self._slots = slots
        self._sent = 0  # descriptors sent so far: the next one's slot
        self._stage0 = 0
        self._socket: socket | None = None

    @property
    def stage0(self) -> int:
        """The pid of the process that waits for part 1 and then makes the init; 0 afterwards."""
        return self._stage0

    def fileno(self) -> int:
        """Return the socket, which can be read once the init has something to say or has ended."""
        assert self._socket is not None
        return self._socket.fileno()

    def spawn(self, stdio: tuple[int, ...] = (0, 1, 2), program: int = -1) -> None:
        """Start stage 0 with these descriptors from 0 on, stdio first; it waits for part 1.

        program: a sealed copy of the init; without it one is made for this init alone.
        """
        self._socket, theirs = socketpair()
        assert theirs.fileno() >= len(stdio)
        moved = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(stdio)]
        copy = -1
        try:
            copy = sealed_copy() if program < 0 else program
            os.set_inheritable(theirs.fileno(), True)
            # With no signal blocked; the init itself resets the dispositions.
            self._stage0 = os.posix_spawn(
                f"/proc/self/fd/{copy}",
                ["ocirt-init", str(theirs.fileno())],
                {},
                file_actions=[action for action in moved if action[1] != action[2]],
                setsigmask=[],
            )
        finally:
            theirs.close()
            if copy >= 0 and copy != program:
                os.close(copy)

    def send_outside(self, fds: list[tuple[str, int]]) -> None:
        """Send part 1 with the descriptors it calls by these words; wait until the child exists."""
        self._send(self.plan[: self._outside], 0, fds)

    def send_inside(self, fds: list[tuple[str, int]]) -> None:
        """Send part 2 with the descriptors it calls by these words."""
        self._send(self.plan[self._outside :], self._outside, fds)

    def _send(self, ops: list[Op], first: int, fds: list[tuple[str, int]]) -> None:
        for word, _ in fds:
            self._slots[word] = self._sent
            self._sent += 1
        data = vocabulary.encode(ops, first, self._slots, again=self.again)
        if len(fds) > _FDS_PER_MESSAGE:
            raise Error(f"the plan needs {len(fds)} descriptors, more than {_FDS_PER_MESSAGE}")
        ancillary = []
        if fds:
            packed = Struct(f"={len(fds)}i").pack(*[fd for _, fd in fds])
            ancillary = [(SOL_SOCKET, SCM_RIGHTS, packed)]
        assert self._socket is not None
        try:
            sent = self._socket.sendmsg([data], ancillary)
            if sent < len(data):
                self._socket.sendall(memoryview(data)[sent:])
        except (BrokenPipeError, ConnectionResetError):
            pass  # it died; its last words, or their absence, are read next

    def cloned(self) -> int:
        """Wait for stage 0 to make the child; return the child's pid."""
        while True:
            kind, index, value, text = self._receive()
            if kind == vocabulary.CLONED:
                break
            # The child, whose part may have been there before it was, can be the first to speak.
            if kind == 0 or (kind == vocabulary.FAIL and index < self._outside):
                raise self._failure(kind, index, value, text)
            self._early.append((kind, index, value, text))
        self.pid = value
        os.waitpid(self._stage0, 0)
        self._stage0 = 0
        return value

    def converse(self, answers: Answers) -> bool:
        """Answer what the init asks until it is at the gate (True) or its socket closes (False).

        answers: what to do for each ASK kind; it gets the index that the question carries, and may
        return what is to be done once the init has its answer.
        Raises what a failing op means in words.
        """
        return finish(self.talk(answers))

    def talk(self, answers: Answers) -> Generator[int, None, bool]:
        """Converse in steps (see `finish`)."""
        while True:
            if self._early:
                kind, index, value, text = self._early.pop(0)
            else:
                yield self.fileno()
                kind, index, value, text = self._receive()
            if kind == vocabulary.ASK:
                after = answers[value](index) if value in answers else None
                self._answer()
                if after:
                    after()
            elif kind == vocabulary.WARN:
                self.warnings.append(self._words(index, value, text))
            elif kind == vocabulary.DONE:
                return True
            elif kind == 0:
                return False
            elif kind == vocabulary.FD and value == vocabulary.FD_CONSOLE:
                self.console, self._handed = self._handed, -1
            else:
                raise self._failure(kind, index, value, text)

    def netlink(self) -> int:
        """Wait for the socket that the `netlink` op makes; return its descriptor."""
        kind, index, value, text = self._receive()
        if kind != vocabulary.FD:
            raise self._failure(kind, index, value, text)
        fd, self._handed = self._handed, -1
        return fd

    def _answer(self) -> None:
        assert self._socket is not None
        try:
            self._socket.sendall(_GO)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it died meanwhile; what is received next says so

    def _receive(self) -> tuple[int, int, int, str]:
        """Return the next reply as (type, index, value, text); type 0 is end of file."""
        assert self._socket is not None
        try:
            head, ancillary, _, _ = self._socket.recvmsg(_REPLY.size, CMSG_SPACE(4))
        except ConnectionResetError:
            head, ancillary = b"", []
        for level, kind, data in ancillary:
            if level == SOL_SOCKET and kind == SCM_RIGHTS:
                fd = int.from_bytes(data[:4], "little" if _LITTLE else "big")
                os.set_inheritable(fd, False)
                if self._handed >= 0:
                    os.close(self._handed)
                self._handed = fd
        head = self._rest(head, _REPLY.size)
        if len(head) < _REPLY.size:
            return 0, 0, 0, ""
        kind, index, value, length = _REPLY.unpack(head)
        text = self._rest(b"", min(length, 1 << 20)).decode("utf-8", "replace")
        return kind, index, value, text

    def _rest(self, data: bytes, size: int) -> bytes:
        assert self._socket is not None
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                break
            data += more
        return data

    def _words(self, index: int, value: int, text: str) -> str:
        op = self.plan[index] if index < len(self.plan) else None
        segments = [op.where, op.what] if op else []
        return ": ".join([s for s in (*segments, text, strerror(value) if value else "") if s])

    def _refusal(self, index: int, value: int, text: str) -> Error:
        if not value:
            return Error(self._words(index, value, text))
        return KernelError(value, *[s for s in [self._words(index, 0, text)] if s])

    def _failure(self, kind: int, index: int, value: int, text: str) -> Error:
        if kind != vocabulary.FAIL:
            return self.died()
        op = self.plan[index]
        if op.name == "program":
            return Error(lookup_error(value, op.args[0]))
        if op.name == "hook":
            stage, number = op.args[5], op.args[6]
            if not text:
                text = f"{op.what}: {strerror(value)}"
            return HookError(stage, number, text)
        if not text and self.explain:
            text = self.explain(op, value)
        return self._refusal(index, value, text)

    def died(self) -> InitError:
        """Word the end of an init that said nothing: how it ended, as far as waitpid tells."""
        pid = self.pid or self._stage0
        how = "container init ended unexpectedly"
        if pid:
            try:
                _, status = os.waitpid(pid, 0)
            except ChildProcessError:
                return InitError(how)
            self._forget(pid)
            code = os.waitstatus_to_exitcode(status)
            how += f": signal {-code}" if code < 0 else f": exit status {code}"
        return InitError(how)

    def _forget(self, pid: int) -> None:
        if pid == self.pid:
            self.pid = 0
        else:
            self._stage0 = 0

    def close(self) -> None:
        """End the conversation; an init that still waits for an answer exits."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        for fd in (self.console, self._handed):
            if fd >= 0:
                os.close(fd)
        self.console = self._handed = -1

    def kill(self) -> None:
        """End the init and reap it, whatever it is doing."""
        if self._stage0:
            self._end(self._stage0)
            self.pid = self._left_behind()
        self.close()
        if self.pid:
            self._end(self.pid)

    def _end(self, pid: int) -> None:
        try:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        self._forget(pid)

    def _left_behind(self) -> int:
        """Return the child of which stage 0, now gone, has told, though nobody has listened yet.

        One that it had no time to tell of reads end of file and exits.
        """
        if self._socket is None:
            return 0
        self._socket.setblocking(False)
        kind, value = -1, 0
        while kind not in (0, vocabulary.CLONED):
            try:
                kind, _, value, _ = self._receive()
            except BlockingIOError:
                return 0
        return value


def netlink_socket(namespace: int, protocol: int, home: int = -1, index: int = 0) -> int:
    """Return a netlink socket of a network namespace (both descriptors).

    home: another namespace, which gets the RDMA device of that index first.

    Stage 0 of an init of its own makes it, with our rights and no further part to perform.  A
    socket of the container's would be refused what belongs to the host: the kernel looks at who
    made it, too.
    """
    join = Op("join", ("ns.network", k.CLONE_NEWNET, 0), "network", "network namespace")
    plan = [join, Op("netlink", (protocol,), "network", "netlink socket")]
    outside = [("ns.network", namespace)]
    if home >= 0:
        plan.insert(1, Op("rdma_move", ("home", index), "network", "RDMA device"))
        outside.append(("home", home))
    init = Init(plan, {})
    try:
        init.spawn()
        init.send_outside(outside)
        return init.netlink()
    finally:
        init.kill()


_LITTLE = Struct("=H").pack(1) == b"\1\0"


def fetch_fd(pid: int, number: int) -> int:
    """Duplicate descriptor `number` of a process into this one (pidfd_getfd(2), Linux 5.6).

    Only a seccomp listener comes this way: its init may not be able to send it any more.
    """
    import ctypes

    pidfd = os.pidfd_open(pid)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        fd: int = libc.syscall(438, pidfd, number, 0)
        if fd < 0:
            raise OSError(ctypes.get_errno(), "pidfd_getfd")
    finally:
        os.close(pidfd)
    os.set_inheritable(fd, False)
    return fd
