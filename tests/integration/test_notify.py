"""sd-notify and socket activation: what a service manager hears from a container, and hands it.

sd_notify(3), sd_listen_fds(3).
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import threading
import time

import pytest

from tests.integration.support import PATIENCE, SLOWNESS, eventually, namespaces, only_ocirt

pytestmark = only_ocirt(
    "runc 1.1 passes on any READY=, waits for zombies, and cannot start what it made without"
)

SAY = "probe notify "


class Manager(threading.Thread):
    """A service manager's end of NOTIFY_SOCKET: keeps what is said, lets go of descriptors."""

    def __init__(self, name):
        super().__init__(daemon=True)
        self.name_in_environment = name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + name[1:] if name[0] == "@" else name)
        self.said, self.barriers, self.ended = [], 0, False
        self.start()

    def run(self):
        while not self.ended:
            if not select.select([self.socket], [], [], 0.1)[0]:
                continue
            text, fds, _, _ = socket.recv_fds(self.socket, 4096, 4)
            self.said += text.decode().split("\n")
            self.barriers += len(fds)
            for fd in fds:
                os.close(fd)

    @property
    def env(self):
        return {**os.environ, "NOTIFY_SOCKET": self.name_in_environment}

    def hears(self, line):
        return eventually(lambda: line in self.said)

    def end(self):
        self.ended = True
        self.join()
        self.socket.close()


@pytest.fixture
def manager(workdir):
    made = Manager(os.path.join(workdir, "manager"))
    yield made
    made.end()


def ready(*more):
    """Return a script that gets ready, and then waits."""
    return "; ".join([*more, SAY + "READY=1", "sleep 1000"])


def test_start_waits_until_the_program_is_ready(runtime, manager, bundle):
    b = bundle.sh(ready("sleep 0.5"))
    pid = runtime.create(b, env=manager.env)
    assert manager.said == []
    begin = time.monotonic()
    runtime.ok("start", b.id, env=manager.env)
    assert time.monotonic() - begin > 0.4
    assert manager.hears("READY=1")
    assert manager.hears(f"MAINPID={pid}")
    assert eventually(lambda: manager.barriers == 1)
    assert runtime.status(b) == "running"


def test_the_container_has_a_socket_of_its_own(runtime, manager, bundle):
    script = "echo $NOTIFY_SOCKET; touch /run/notify/x 2>&1; " + ready("ls -l /run/notify")
    b = bundle.sh(script)
    runtime.create(b, env=manager.env)
    runtime.ok("start", b.id, env=manager.env)
    lines = b.output().splitlines()
    assert lines[0] == "/run/notify/notify.sock"
    assert "Read-only" in lines[1]
    assert lines[-1].startswith("srwxrwxrwx")


def test_nothing_but_readiness_is_passed_on(runtime, manager, bundle):
    b = bundle.sh(f"{SAY} STATUS=x 'MAINPID=1\nWATCHDOG=1' READY=10; " + ready())
    pid = runtime.create(b, env=manager.env)
    runtime.ok("start", b.id, env=manager.env)
    assert manager.hears(f"MAINPID={pid}")
    assert set(manager.said) == {"READY=1", f"MAINPID={pid}", "BARRIER=1"}


def test_readiness_may_come_among_other_lines(runtime, manager, bundle):
    b = bundle.sh(f"{SAY} 'STATUS=fine\nREADY=1\n'; sleep 1000")
    runtime.create(b, env=manager.env)
    runtime.ok("start", b.id, env=manager.env)
    assert manager.hears("READY=1")


def test_start_waits_no_longer_than_the_container_lives(runtime, manager, bundle):
    b = bundle.sh("sleep 0.2; exit 3")
    runtime.create(b, env=manager.env)
    runtime.ok("start", b.id, env=manager.env)
    assert manager.said == []
    assert runtime.wait(b) == 3


def test_a_container_may_be_ended_while_start_waits(runtime, manager, bundle):
    b = bundle.sleeping()
    runtime.create(b, env=manager.env)
    start = runtime.spawn("start", b.id, env=manager.env)
    assert eventually(lambda: runtime.status(b) == "running")
    assert start.poll() is None
    runtime.delete(b, "--force")
    assert start.wait(PATIENCE) == 0
    assert manager.said == []


def test_a_detached_run_waits_as_start_does(runtime, manager, bundle):
    b = bundle.sh(ready("sleep 0.5"))
    begin = time.monotonic()
    pid = runtime.run_detached(b, env=manager.env)
    assert time.monotonic() - begin > 0.4
    assert manager.hears(f"MAINPID={pid}")


def test_a_foreground_run_stays_the_process_of_the_service(runtime, manager, bundle):
    b = bundle.sh(SAY + "READY=1; exit 7")
    assert runtime.run(b, env=manager.env).code == 7
    assert manager.hears("READY=1")
    assert manager.said == ["READY=1"]


def test_a_start_that_nobody_waits_for_does_not_wait(runtime, manager, bundle):
    b = bundle.sleeping()
    runtime.create(b, env=manager.env)
    runtime.start(b)
    assert runtime.status(b) == "running"


def test_a_container_made_without_a_manager_gets_none_at_start(runtime, manager, bundle):
    b = bundle.sh("echo ${NOTIFY_SOCKET-none}; sleep 1000")
    runtime.create(b)
    runtime.ok("start", b.id, env=manager.env)
    assert eventually(lambda: b.output() == "none\n")


def test_a_socket_may_have_an_abstract_name(runtime, bundle):
    manager = Manager(f"@ocirt-test-{os.getpid()}-{time.monotonic_ns()}")
    try:
        b = bundle.sh(ready())
        runtime.create(b, env=manager.env)
        runtime.ok("start", b.id, env=manager.env)
        assert manager.hears("READY=1")
    finally:
        manager.end()


def test_root_of_a_user_namespace_reaches_its_socket(runtime, manager, bundle):
    mapped = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    b = bundle.sh(
        ready(),
        linux={
            "namespaces": namespaces("user", "pid", "network", "ipc", "uts", "mount"),
            "uidMappings": mapped,
            "gidMappings": mapped,
        },
    )
    os.makedirs(b.inside("/run/notify"))  # the rootfs is not that root's
    runtime.create(b, env=manager.env)
    runtime.ok("start", b.id, env=manager.env)
    assert manager.hears("READY=1")


def test_a_socket_that_finds_no_place_is_named(runtime, manager, bundle):
    b = bundle.sleeping()
    b.put("/run/notify", "a file")
    runtime.refuses_to_create(b, ours="NOTIFY_SOCKET: ", env=manager.env)


def test_a_container_that_cannot_be_made_leaves_no_socket(runtime, manager, bundle):
    b = bundle("/nosuch")
    runtime.refuses_to_create(b, env=manager.env)
    runtime.refuses_to_create(b, verb="run", env=manager.env)


def test_sockets_are_handed_over_and_readiness_comes_back(runtime, manager, bundle, workdir):
    """Both at once, as a unit with a socket unit and Type=notify has it."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(os.path.join(workdir, "listening"))
        listening.listen()
        b = bundle.sh("echo $LISTEN_FDS $LISTEN_PID; ls -l /proc/self/fd/3; " + ready())
        script = 'export LISTEN_PID=$$ LISTEN_FDS=1; exec "$0" "$@"'
        argv = runtime.argv("create", "--bundle", b.path, "--pid-file", b.pid_file, b.id)
        with open(b.out, "w") as out:
            subprocess.run(
                ["sh", "-c", script, *argv], env=manager.env, stdout=out, stderr=out, check=True,
                timeout=PATIENCE, pass_fds=[3], preexec_fn=lambda: os.dup2(listening.fileno(), 3),
            )  # fmt: skip
        runtime.ok("start", b.id, env=manager.env)
        assert manager.hears("READY=1")
        first, second = b.output().splitlines()[:2]
        assert first == "1 1"
        assert "socket:" in second


def test_an_impatient_manager_that_is_gone_is_named(runtime, bundle, workdir):
    env = {**os.environ, "NOTIFY_SOCKET": os.path.join(workdir, "nobody")}
    b = bundle.sh(ready())
    runtime.create(b, env=env)
    begin = time.monotonic()
    runtime.refuses("start", b.id, env=env, ours=f"NOTIFY_SOCKET: {workdir}/nobody: ")
    assert time.monotonic() - begin < 10 * SLOWNESS
