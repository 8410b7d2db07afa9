"""Drive ocirt-init by hand: encode ops, send them, answer its questions, read its replies.

The tests of the init need no config.json and no runtime; a plan is written down op by op.
"""

from __future__ import annotations

import array
import contextlib
import os
import shutil
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

    def __init__(self, binary: Path | None = None, prefix: tuple[str, ...] = (), **popen) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(20)
        self.stage0 = subprocess.Popen(
            [*prefix, str(binary or build()), str(theirs.fileno())],
            pass_fds=[theirs.fileno(), *popen.pop("pass_fds", ())],
            **popen,
        )
        theirs.close()
        self.pid = 0
        self.next = 0
        self.fds: list[int] = []
        self.slots: dict[str, int] = {}
        self.last: Reply | None = None
        self.first = 0
        self.view = Path("/")

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

    def clone(
        self, *outside: Op, flags: int = ISOLATED, files: dict[str, int] | None = None
    ) -> int:
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


def op(name: str, *args) -> Op:
    return Op(name, args)


def asks(kind: str = "ready") -> Op:
    return op("ask", ops.ASKS[kind])


# Arguments that hardly any test is about
def mount(fstype: str, dest: str, flags: int = 0, data: str = "", how: int = ops.MAKE_DIR) -> Op:
    return op("mount", fstype, fstype, dest, flags, data, how)


def bind(source, dest: str, *, recursive=0, attr=0, clear=0, how=ops.MAKE_DIR, tree="") -> Op:
    return op("bind", str(source), tree, dest, recursive, attr, clear, how)


PROC = mount("proc", "/proc", how=ops.MAKE_DIR | ops.NO_LINKS | ops.VERIFY_PROC)
PIVOT = op("pivot", ops.PIVOT)


def program(*argv: str, env: tuple[str, ...] = ("PATH=/bin",)) -> tuple[Op, ...]:
    """The ops that end in a program, without a gate."""
    return op("program", argv[0], argv, env), asks(), op("close_fds", 0, -1), op("exec")


def make_rootfs(path: Path) -> Path:
    """Make a root file system of little more than busybox."""
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        (path / name).mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox
    shutil.copy(busybox, path / "bin" / "busybox")
    for name in ("cat", "env", "id", "ls", "pwd", "readlink", "sh", "sleep", "stat", "true"):
        (path / "bin" / name).symlink_to("busybox")
    path.chmod(0o755)
    return path


@contextlib.contextmanager
def contained(
    rootfs: Path, *inside: Op, outside=(), pivot=True, files=None, flags=ISOLATED, **more
):
    """Perform `inside` in fresh namespaces; yields the init, in `init.last` its first reply.

    When all goes well that is the question at the end, and `init.view` is the rootfs as the
    container sees it.
    """
    enter = [op("propagation", MS_SLAVE | MS_REC), op("rootfs", str(rootfs), 1)]
    leave = [PIVOT, asks()] if pivot else []
    with Init(**more) as init:
        init.clone(*outside, flags=flags)
        init.send(*enter, *inside, *leave, files=files)
        init.last = init.reply()
        init.first = len(outside) + 1 + len(enter)
        init.view = Path(f"/proc/{init.pid}/root")
        yield init


def refused(rootfs: Path, *inside: Op, **more) -> tuple[int, int, str]:
    """Perform ops that fail: index in `inside`, errno and text; the init is gone afterwards."""
    with contained(rootfs, *inside, **more) as init:
        assert init.last, "no reply"
        assert init.last.kind == ops.FAIL, init.last
        assert init.wait() == 1
        return init.last.index - init.first, init.last.value, init.last.text


def output(rootfs: Path, *inside: Op, status: int = 0, **more) -> str:
    """Perform ops that end in a program; return what it prints, stderr too."""
    more.setdefault("pivot", False)
    with contained(
        rootfs, *inside, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more
    ) as init:
        while init.last and init.last.kind == ops.ASK:
            init.answer()
            init.last = init.reply()
        assert init.last is None, init.last
        text = init.stage0.stdout.read()
        assert init.wait() == status, text
        return text
