"""`process.terminal`: consoles handed over a socket, and the terminal of a foreground run.

runtime-spec, config.md, "Process"; the console socket is runc's interface, docs/terminals.md
of runc.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import pty
import select
import signal
import socket
import struct
import termios
import threading
import time

import pytest

from tests.integration.support import MOUNTS, PATIENCE, eventually, namespaces, only_ocirt

TERMINAL = {"terminal": True}
FOREVER = "while :; do usleep 9999; done"


class ConsoleSocket(threading.Thread):
    """What a shim does: listen, take one message, keep the descriptor."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path, self.data, self.fds = path, b"", []
        self.listener = socket.socket(socket.AF_UNIX)
        # A path of more than 107 bytes fits only through a descriptor of its directory.
        folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
        self.listener.bind(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
        os.close(folder)
        self.listener.listen()
        self.listener.settimeout(PATIENCE)
        self.start()

    def run(self):
        with self.listener, contextlib.suppress(TimeoutError), self.listener.accept()[0] as peer:
            self.data, ancillary, _, _ = peer.recvmsg(8192, socket.CMSG_SPACE(16))
            for level, kind, content in ancillary:
                assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
                self.fds += array.array("i", content)

    @property
    def master(self):
        self.join(PATIENCE)
        assert len(self.fds) == 1
        return Screen(self.fds[0])


class Screen:
    """The master side of a terminal; collects what is written on it."""

    def __init__(self, fd):
        self.fd, self.seen = fd, ""

    def read(self):
        """Take in what there is; False at the end."""
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # EIO: the last slave is closed
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)

    def until(self, text, patience=PATIENCE):
        """Read until `text` has been seen; return everything so far."""
        end = time.monotonic() + patience
        while text not in self.seen and time.monotonic() < end:
            if select.select([self.fd], [], [], 0.1)[0] and not self.read():
                break
        assert text in self.seen, self.seen
        return self.seen

    def rest(self):
        while select.select([self.fd], [], [], 5)[0] and self.read():
            pass
        return self.seen

    def type(self, text):
        os.write(self.fd, text.encode())

    def size(self):
        return struct.unpack("HHHH", fcntl.ioctl(self.fd, termios.TIOCGWINSZ, bytes(8)))[:2]

    def resize(self, rows, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@pytest.fixture
def console(workdir):
    made = []

    def console(path=None):
        made.append(ConsoleSocket(path or f"{workdir}/console"))
        return made[-1]

    yield console
    for each in made:
        for fd in each.fds:
            with contextlib.suppress(OSError):
                os.close(fd)


@pytest.fixture
def attached(runtime, bundle, console):
    """Create and start a container with a console; return it and the screen."""

    def attached(script, **patch):
        listener = console()
        process = {**TERMINAL, **patch.pop("process", {})}
        b = bundle.sh(script, process=process, **patch)
        runtime.create(b, "--console-socket", listener.path)
        screen = listener.master
        runtime.start(b)
        return b, screen

    return attached


# --- the console socket


def test_the_console_socket_gets_one_descriptor_and_a_name(runtime, bundle, console):
    listener = console()
    b = bundle.sleeping(process=TERMINAL)
    runtime.create(b, "--console-socket", listener.path)
    screen = listener.master
    assert os.isatty(screen.fd)
    assert 0 < len(listener.data) < 4096
    os.fstat(screen.fd)


def test_what_is_typed_and_what_is_printed_pass_through(attached):
    _, screen = attached("echo ready; read line; echo got $line")
    screen.until("ready")
    screen.type("some words\n")
    assert "got some words\r\n" in screen.rest()


def test_the_streams_are_the_controlling_terminal(attached):
    _, screen = attached(
        "tty; for n in 0 1 2; do test -t $n && echo tty $n; done; echo via > /dev/tty; "
        "stat -c '%F' /dev/console; echo console > /dev/console; stat -c %a /dev/console; echo end"
    )
    words = screen.until("end").split()
    assert words[0] in ("/dev/pts/0", "/dev/console")
    assert "tty 0 tty 1 tty 2 via character special file console".split() == words[1:12]


def test_without_a_terminal_there_is_no_console(runtime, bundle):
    b = bundle.sh("test -e /dev/console || echo none; tty; probe open /dev/tty r")
    assert runtime.run(b).out.split() == ["none", "not", "a", "tty", "ENXIO"]


def test_the_terminal_belongs_to_the_user(attached):
    _, screen = attached(
        "stat -L -c '%u %g' /proc/self/fd/0; echo end", process={"user": {"uid": 1000, "gid": 1000}}
    )
    assert "1000 5" in screen.until("end")


@pytest.mark.parametrize(("height", "width"), [(10, 20), (24, 80), (200, 300)])
def test_the_console_has_the_size_asked_for(attached, height, width):
    _, screen = attached(
        "stty size; echo end", process={"consoleSize": {"height": height, "width": width}}
    )
    assert f"{height} {width}\r\n" in screen.until("end")
    assert screen.size() == (height, width)


def test_control_c_interrupts_the_program(attached, runtime):
    b, screen = attached(
        "trap 'echo caught; exit 5' INT; echo ready; while :; do usleep 9999; done"
    )
    screen.until("ready")
    screen.type("\x03")
    screen.until("caught")
    assert runtime.wait(b) == 5


def test_a_resize_reaches_the_program(attached):
    _, screen = attached("trap 'stty size; exit' WINCH; echo ready; " + FOREVER)
    screen.until("ready")
    screen.resize(33, 44)
    assert "33 44" in screen.rest()


def test_hanging_up_ends_the_program(attached, runtime):
    b, screen = attached("trap 'exit 6' HUP; echo ready; " + FOREVER)
    screen.until("ready")
    os.close(screen.fd)
    assert runtime.wait(b) == 6


def test_a_terminal_in_a_user_namespace(attached):
    maps = [{"containerID": 0, "hostID": 100000, "size": 1000}]
    _, screen = attached(
        "tty; echo end",
        linux={
            "namespaces": namespaces("user", "pid", "network", "ipc", "uts", "mount"),
            "uidMappings": maps,
            "gidMappings": maps,
        },
    )
    assert "/dev/" in screen.until("end")


def test_run_detached_hands_the_console_over_too(runtime, bundle, console):
    listener = console()
    b = bundle.sh("echo hello", process=TERMINAL)
    runtime.run_detached(b, "--console-socket", listener.path)
    assert "hello" in listener.master.rest()


def test_the_path_of_the_socket_may_be_long(runtime, bundle, console, workdir):
    folder = f"{workdir}/{'x' * 150}"
    os.mkdir(folder)
    if not runtime.is_ocirt:
        pytest.skip("runc and crun cannot")
    listener = console(f"{folder}/console")
    b = bundle.sleeping(process=TERMINAL)
    runtime.create(b, "--console-socket", listener.path)
    assert os.isatty(listener.master.fd)


def test_the_console_is_there_before_the_pid_file(runtime, bundle, console):
    listener = console()
    b = bundle.sleeping(process=TERMINAL)
    process = runtime.spawn(
        "create", "-b", b.path, "--pid-file", b.pid_file, "--console-socket", listener.path, b.id,
        stdout=b.out,
    )  # fmt: skip
    assert eventually(lambda: os.path.exists(b.pid_file))
    listener.join(0.5)
    assert len(listener.fds) == 1
    assert process.wait(PATIENCE) == 0


SOCKET = ("--console-socket", "/nowhere")
MISFITS = [
    # terminal  verb      options                          sentence
    (True, "create", (), "cannot allocate tty if {} will detach without setting console socket"),
    (True, "run -d", (), "cannot allocate tty if {} will detach without setting console socket"),
    (False, "create", SOCKET, "cannot use console socket if {} will not detach or allocate tty"),
    (True, "run", SOCKET, "cannot use console socket if {} will not detach or allocate tty"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("terminal", "verb", "options", "sentence"), MISFITS, ids=[f"{m[1]}-{m[0]}" for m in MISFITS]
)
def test_a_terminal_and_a_socket_must_fit(runtime, bundle, terminal, verb, options, sentence):
    b = bundle("true", process={"terminal": terminal})
    verb, *flags = verb.split()
    result = runtime(verb, *flags, "-b", b.path, *options, b.id)
    assert result.code == 1
    if runtime.flavour != "crun":
        assert result.error.endswith((sentence.format("runc"), sentence.format("ocirt")))
    assert runtime.host.leftovers() == []


@pytest.mark.parametrize("what", ["missing", "file", "deaf"])
def test_a_console_socket_that_nobody_serves_fails_create(runtime, bundle, workdir, what):
    path = f"{workdir}/console"
    with contextlib.ExitStack() as stack:
        if what == "file":
            stack.enter_context(open(path, "w"))
        elif what == "deaf":
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(path)
        b = bundle("true", process=TERMINAL)
        runtime.refuses_to_create(
            b,
            "no such file or directory" if what == "missing" else "connection refused",
            options=["--console-socket", path],
        )


@only_ocirt("the console of runc 1.1 follows the link")
def test_a_link_in_the_place_of_the_console_is_not_followed(runtime, bundle, console, workdir):
    """CVE-2025-52565 and its kin: what lies in the image's /dev is hostile."""
    target = f"{workdir}/target"
    with open(target, "w") as file:
        file.write("precious")
    listener = console()
    mounts = [mount for mount in MOUNTS if mount["destination"] != "/dev"]
    b = bundle.sh("echo spoiled > /dev/console", process=TERMINAL, mounts=mounts)
    os.symlink(f"../../../{os.path.basename(target)}", b.inside("/dev/console"))
    result = runtime.try_create(b, "--console-socket", listener.path, "--pid-file", b.pid_file)
    if result.code == 0:
        runtime.start(b)
        runtime.wait(b)
    with open(target) as file:
        assert file.read() == "precious"


# --- in the foreground


class Foreground:
    """`run` on a terminal of ours."""

    def __init__(self, runtime, b, rows=24, columns=80):
        self.master, self.slave = pty.openpty()
        self.screen = Screen(self.master)
        self.screen.resize(rows, columns)
        self.before = termios.tcgetattr(self.slave)

        def become_controlling():
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = runtime.spawn(
            "run", "-b", b.path, b.id,
            stdin=self.slave, stdout=self.slave, stderr=self.slave,
            start_new_session=True, preexec_fn=become_controlling,
        )  # fmt: skip

    def wait(self):
        while self.process.poll() is None:
            if select.select([self.master], [], [], 0.05)[0]:
                self.screen.read()
        while select.select([self.master], [], [], 0)[0] and self.screen.read():
            pass
        return self.process.returncode

    def close(self):
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def foreground(runtime, bundle):
    made = []

    def foreground(script, process=TERMINAL, **size):
        made.append(Foreground(runtime, bundle.sh(script, process=process), **size))
        return made[-1]

    yield foreground
    for each in made:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()
        each.close()


def test_a_foreground_run_shows_the_terminal_and_passes_on_the_status(foreground):
    run = foreground("tty; echo hello; exit 7")
    assert run.wait() == 7
    assert "hello\r\n" in run.screen.seen


def test_a_foreground_run_takes_input(foreground):
    run = foreground("echo ready; read line; echo got $line")
    run.screen.until("ready")
    run.screen.type("words\r")
    assert run.wait() == 0
    assert "got words" in run.screen.seen


def test_the_size_of_our_terminal_is_the_containers(foreground):
    run = foreground("usleep 200000; stty size", rows=17, columns=71)
    assert run.wait() == 0
    assert "17 71" in run.screen.seen


def test_a_resize_of_our_terminal_reaches_the_container(foreground):
    run = foreground("trap 'stty size' WINCH; trap 'exit 3' INT; echo ready; " + FOREVER)
    run.screen.until("ready")
    run.screen.resize(31, 41)
    run.screen.until("31 41")
    run.screen.type("\x03")
    assert run.wait() == 3


def test_our_terminal_is_raw_while_the_container_runs_and_then_as_before(foreground):
    run = foreground("echo ready; read line")
    run.screen.until("ready")
    during = termios.tcgetattr(run.slave)
    assert not during[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
    run.screen.type("\r")
    assert run.wait() == 0
    assert termios.tcgetattr(run.slave) == run.before


def test_control_c_goes_to_the_container_and_not_to_the_runtime(foreground):
    run = foreground("trap 'echo caught; exit 9' INT; echo ready; " + FOREVER)
    run.screen.until("ready")
    run.screen.type("\x03")
    assert run.wait() == 9
    assert "caught" in run.screen.seen


def test_our_terminal_is_restored_when_create_fails(foreground, runtime):
    run = foreground("true", process={**TERMINAL, "args": ["/nosuch"]})
    assert run.wait() == 1
    assert termios.tcgetattr(run.slave) == run.before
    assert "no such file or directory" in run.screen.seen or runtime.flavour == "crun"


def test_a_terminal_without_a_terminal_of_ours_is_refused(runtime, bundle):
    b = bundle("true", process=TERMINAL)
    result = runtime.run(b, start_new_session=True)
    assert result.code == 1
    if runtime.flavour != "crun":
        assert "open /dev/tty: no such device or address" in result.error
    assert runtime.host.leftovers() == []


@only_ocirt("an option that runc 1.1 does not have, and an annotation of later cruns")
@pytest.mark.parametrize("way", ["option", "annotation"])
def test_a_pidfd_of_the_init_goes_to_its_socket(runtime, bundle, workdir, way):
    listener = ConsoleSocket(f"{workdir}/pidfd")
    options = ["--pidfd-socket", listener.path] if way == "option" else []
    annotations = {} if options else {"run.oci.pidfd_receiver": listener.path}
    b = bundle.sleeping(annotations=annotations)
    pid = runtime.create(b, *options)
    listener.join(PATIENCE)
    assert listener.data == b"standard"
    (pidfd,) = listener.fds
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    assert runtime.wait(b, pid) == 137
