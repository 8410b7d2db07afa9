"""Plain verbs without Python: the same answers, and every surprise handed on."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time

import pytest

from ocirt import jsonio, quick, state
from ocirt.kernel import procfs

PYTHON = 77  # the exit code of the stand-in for our package: the launcher did not do it itself


class FakeManager:
    """As much of a cgroup manager as the record asks for, on plain files."""

    driver = "fs"

    def __init__(self, folder):
        self.frozen = folder / "freeze"
        self.frozen.write_text("0")
        self.own = [folder / "cg-one", folder / "cg-two"]
        for path in self.own:
            path.mkdir()

    def freeze_file(self):
        return str(self.frozen)

    def directories(self):
        return [str(path) for path in self.own]


@pytest.fixture
def process():
    """Something that lives, and may be killed."""
    child = subprocess.Popen(["sleep", "60"])
    yield child
    child.kill()
    child.wait()


@pytest.fixture
def made(tmp_path, process):
    """A container as `create` leaves it, in tmp_path/root."""

    def make(*, hooks=(), own_pid_namespace=True, annotations=None, notify=False):
        record = {
            "version": state.VERSION,
            "id": "web",
            "bundle": "/b ü\n",
            "rootfs": "/b/rootfs",
            "created": state.now(),
            "annotations": annotations or {},
            "phase": state.CREATED,
            "cgroup": None,
            "own_pid_namespace": own_pid_namespace,
            "notify": notify,
            "host_mounts": None,
            "hooks": list(hooks),
            "pid": process.pid,
            "start_time": procfs.stat(process.pid)[1],
        }
        container = state.claim(str(tmp_path / "root"), "web", record)
        container.save()
        container.save_config({})
        container.make_gate()
        manager = FakeManager(tmp_path)
        quick.write(container, manager)
        container.unlock()
        return container, manager

    return make


@pytest.fixture
def ocirt(launcher, tmp_path):
    def call(*argv, root=True):
        line = [launcher, *(["--root", str(tmp_path / "root")] if root else []), *argv]
        return subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)

    return call


@contextlib.contextmanager
def held(container):
    """Hold the gate open, as the init does until it executes the program."""
    gate = os.open(container.fifo, os.O_RDWR)
    try:
        yield
    finally:
        os.close(gate)


def test_state_is_what_python_prints(made, ocirt):
    container, _ = made(annotations={'pid": 1': "\\ \x01 ü", "a": ""})
    with held(container):
        done = ocirt("state", "web")
        assert done.returncode == 0
        assert done.stdout == jsonio.dumps(container.document(), indent=2)
    assert json.loads(done.stdout)["status"] == "created"


def test_every_status(made, ocirt, process):
    container, manager = made()

    def status():
        found = json.loads(ocirt("state", "web").stdout)
        return found["status"], found["pid"]

    with held(container):
        assert status() == ("created", process.pid)
    # Nobody holds it: `start` was killed between opening the gate and taking it away.
    assert status() == ("running", process.pid)
    assert container.status() == "running"
    os.unlink(container.fifo)
    assert status() == ("running", process.pid)
    manager.frozen.write_text("1\n")
    assert status() == ("paused", process.pid)
    manager.frozen.unlink()
    assert status() == ("running", process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert status() == ("stopped", 0)  # a zombie
    process.wait()
    assert status() == ("stopped", 0)


def test_another_process_with_the_same_pid_is_not_the_container(made, ocirt, tmp_path):
    container, manager = made()
    os.unlink(f"{container.directory}/quick")
    container.record["start_time"] += 1
    quick.write(container, manager)
    assert json.loads(ocirt("state", "web").stdout)["status"] == "stopped"
    assert ocirt("kill", "web", "KILL").returncode == PYTHON


def test_start_opens_the_gate_and_waits_for_the_exec(made, ocirt):
    container, _ = made()
    gate = os.open(container.fifo, os.O_RDONLY | os.O_NONBLOCK)
    pid = os.fork()
    if pid == 0:  # the init: reads its byte, then takes a while to execute the program
        os.set_blocking(gate, True)
        while not os.read(gate, 1):
            time.sleep(0.01)
        time.sleep(0.3)
        os._exit(0)
    os.close(gate)
    began = time.monotonic()
    assert ocirt("start", "web").returncode == 0
    assert time.monotonic() - began > 0.2
    assert not os.path.exists(container.fifo)
    os.waitpid(pid, 0)
    assert ocirt("start", "web").returncode == PYTHON  # which says that it runs already


def test_start_without_an_init_at_the_gate_is_pythons(made, ocirt):
    container, _ = made()
    assert ocirt("start", "web").returncode == PYTHON
    assert os.path.exists(container.fifo)


@pytest.mark.parametrize("word", ["USR1", "usr1", "SIGUSR1", "10", "sigusr1"])
def test_kill_sends_the_signal(made, ocirt, process, word):
    made()
    assert ocirt("kill", "web", word).returncode == 0
    assert process.wait() == -signal.SIGUSR1


def test_the_default_signal_is_term(made, ocirt, process):
    made()
    assert ocirt("kill", "web").returncode == 0
    assert process.wait() == -signal.SIGTERM


@pytest.mark.parametrize(
    "argv",
    [
        ("kill", "web", "RTMIN+1"),
        ("kill", "web", "0"),
        ("kill", "web", "65"),
        ("kill", "web", "9x"),
        ("kill", "web", ""),
        ("kill", "--all", "web"),
        ("kill", "-a", "web", "9"),
        ("kill", "web", "TERM", "more"),
        ("kill",),
        ("state", "web", "more"),
        ("state", "nobody"),
        ("state", "../root/web"),
        ("state", ".."),
        ("state", ""),
        ("state", "--help"),
        ("start", "-h", "web"),
        ("delete", "--nope", "web"),
        ("delete", "web"),
        ("delete", "-f", "web"),
        ("list",),
        ("--debug", "state", "web"),
        ("--log-format", "xml", "state", "web"),
        ("--log-format",),
        ("--root", "/", "state", "web"),
        ("--root=root", "state", "web"),
        ("--log", "/no/such/log", "state", "web"),
        ("--rootless=maybe", "state", "web"),
        ("--version",),
    ],
)
def test_what_is_not_plain_is_pythons(made, ocirt, process, argv):
    container, _ = made()
    before = sorted(os.listdir(container.directory))
    assert ocirt(*argv).returncode == PYTHON
    assert sorted(os.listdir(container.directory)) == before
    assert process.poll() is None


@pytest.mark.parametrize(
    "more",
    [
        ("--log-format=json",),
        ("-log-format", "json"),
        ("--systemd-cgroup",),
        ("--rootless", "false"),
        ("--rootless=true",),
    ],
)
def test_the_global_options_of_engines_are_plain(made, ocirt, tmp_path, more):
    made()
    log = tmp_path / "log"
    assert ocirt("--log", str(log), *more, "state", "web").returncode == 0
    assert log.read_text() == ""


def test_what_is_not_allowed_in_the_record_is_pythons(made, ocirt, process):
    made(hooks=["poststart", "poststop"], own_pid_namespace=False)
    assert ocirt("start", "web").returncode == PYTHON
    assert ocirt("kill", "web", "9").returncode == PYTHON
    process.kill()
    process.wait()
    assert ocirt("delete", "web").returncode == PYTHON


def test_a_container_with_a_notify_socket_is_pythons_to_start(made, ocirt, process):
    made(notify=True)
    assert ocirt("start", "web").returncode == PYTHON
    process.kill()
    process.wait()
    assert ocirt("delete", "web").returncode == PYTHON


def test_a_frozen_container_is_pythons_to_kill(made, ocirt, process):
    _, manager = made()
    manager.frozen.write_text("1")
    assert ocirt("kill", "web", "KILL").returncode == PYTHON
    assert process.poll() is None
    assert ocirt("kill", "web", "TERM").returncode == 0


@pytest.mark.parametrize(
    "argv", [("delete", "web"), ("delete", "--force", "web"), ("delete", "web", "-f")]
)
def test_delete_leaves_nothing(made, ocirt, process, tmp_path, argv):
    container, manager = made()
    process.kill()
    process.wait()
    assert ocirt(*argv).returncode == 0
    assert not os.path.exists(container.directory)
    assert not any(path.exists() for path in manager.own)
    assert manager.frozen.exists()


@pytest.mark.parametrize("kind", ["in the cgroup", "in the directory"])
def test_delete_leaves_to_python_what_it_does_not_know(made, ocirt, process, kind):
    container, manager = made()
    process.kill()
    process.wait()
    if kind == "in the cgroup":
        (manager.own[1] / "below").mkdir()
    else:
        os.mkdir(f"{container.directory}/notify")
    assert ocirt("delete", "web").returncode == PYTHON
    assert os.path.exists(f"{container.directory}/state.json")


def test_a_broken_record_is_never_believed(made, ocirt, process):
    """Cut short, filled up or with bytes changed: Python's turn, or the truth, but no crash."""
    container, _ = made()
    path = f"{container.directory}/quick"
    with open(path, "rb") as file:
        whole = file.read()
    truth = ocirt("state", "web").stdout
    dice = random.Random(7)
    variants = [whole[:length] for length in range(0, len(whole), 29)]
    variants += [whole + b"\0", b"", b"OCQ1" * 20, bytes(len(whole))]
    for _ in range(60):
        noisy = bytearray(whole)
        for _ in range(dice.randint(1, 3)):
            noisy[dice.randrange(24)] = dice.randrange(256)
        variants.append(bytes(noisy))
    for variant in variants:
        with open(path, "wb") as file:
            file.write(variant)
        done = ocirt("state", "web")
        assert done.returncode in (0, PYTHON), variant
        if done.returncode == 0:
            assert json.loads(done.stdout)["id"] == json.loads(truth)["id"]


def test_a_record_of_somebody_else_is_not_read(made, ocirt):
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    container, _ = made()
    os.chown(f"{container.directory}/quick", 12345, -1)
    assert ocirt("state", "web").returncode == PYTHON


def test_a_link_is_not_followed(made, ocirt, tmp_path):
    container, _ = made()
    os.rename(f"{container.directory}/quick", tmp_path / "quick")
    os.symlink(tmp_path / "quick", f"{container.directory}/quick")
    assert ocirt("state", "web").returncode == PYTHON
