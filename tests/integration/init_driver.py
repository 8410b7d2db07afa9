"""Drive ocirt-init by hand: encode ops, send them, answer its questions, read its replies.

The tests of the init need no config.json and no runtime; a plan is written down op by op.
"""

from __future__ import annotations

import array
import contextlib
import os
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

from ocirt.plan import ops
from ocirt.plan.ops import Op

ROOT = Path(__file__).resolve().parents[2]
BINARY = ROOT / "ocirt" / "init" / "ocirt-init"

CLONE_NEWTIME, CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = (
    0x80, 0x20000, 0x02000000, 0x04000000, 0x08000000,
)  # fmt: skip
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_SLAVE, MS_PRIVATE, MS_SHARED = (
    1, 2, 4, 8, 1 << 14, 1 << 19, 1 << 18, 1 << 20,
)  # fmt: skip
ISOLATED = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET


def build() -> Path:
    """Return the init, built when a source is newer."""
    subprocess.run(["make", "-s", "-C", str(BINARY.parent)], check=True)
    return BINARY


class Reply(tuple):
    """type, index, value, text of one reply."""

    kind = property(lambda self: self[0])
    index = property(lambda self: self[1])
    value = property(lambda self: self[2])
    text = property(lambda self: self[3])


class Init:
    """One init and both ends of its life: `send` parts, take `replies`, `finish`."""

    def __init__(self, binary: Path | None = None, **popen) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(20)
        self.stage0 = subprocess.Popen(
            [str(binary or build()), str(theirs.fileno())],
            pass_fds=[theirs.fileno(), *popen.pop("pass_fds", ())],
            **popen,
        )
        theirs.close()
        self.pid = 0
        self.next = 0
        self.fds: list[int] = []
        self.slots: dict[str, int] = {}

    def __enter__(self) -> Init:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        for fd in self.fds:
            os.close(fd)
        for stream in (self.stage0.stdout, self.stage0.stderr):
            if stream:
                stream.close()
        if self.stage0.poll() is None:
            self.stage0.kill()
            self.stage0.wait()
        if self.pid:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)

    def send(self, *plan: Op, files: dict[str, int] | None = None) -> None:
        """Send one part; `files` are the descriptors that go along, by word."""
        words = files or {}
        for word in words:
            self.slots[word] = len(self.slots)
        data = ops.encode(list(plan), self.next, self.slots)
        self.next += len(plan)
        if words:
            rights = array.array("i", words.values())
            sent = self.socket.sendmsg(
                [data[:16]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
            )
            data = data[sent:]
        self.socket.sendall(data)

    def reply(self) -> Reply | None:
        """Return the next reply, None at the end; a descriptor of it goes to `fds`."""
        try:
            head, rights, _, _ = self.socket.recvmsg(16, socket.CMSG_SPACE(4))
        except ConnectionResetError:
            return None
        if not head:
            return None
        while len(head) < 16:
            head += self.socket.recv(16 - len(head))
        for _, _, data in rights:
            self.fds += array.array("i", data)
        kind, index, value, length = struct.unpack("=IIiI", head)
        text = b""
        while len(text) < length:
            text += self.socket.recv(length - len(text))
        return Reply((kind, index, value, text.decode("utf-8", "replace")))

    def answer(self, word: int = 0) -> None:
        self.socket.sendall(struct.pack("=I", word))

    def clone(self, *outside: Op, flags: int = ISOLATED, files: dict[str, int] | None = None) -> int:
        """Perform the outside part; return the child's pid."""
        cgroup = "cgroup" if files and "cgroup" in files else ""
        self.send(*outside, Op("clone", (flags, cgroup)), files=files)
        reply = self.reply()
        assert reply, "stage 0 died"
        assert reply.kind == ops.CLONED, reply
        self.pid = reply.value
        assert self.stage0.wait(10) == 0
        return self.pid

    def wait(self) -> int:
        """Return the exit status of the child, negative for a signal."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        raise TimeoutError("the init does not end")


def asks(kind: str = "ready") -> Op:
    return Op("ask", (ops.ASKS[kind],))
