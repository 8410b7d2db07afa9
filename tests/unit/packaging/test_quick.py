"""Plain verbs without Python: the same answers, and every surprise handed on."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from ocirt import jsonio, quick, state
from ocirt.kernel import procfs

PYTHON = 77  # the exit code of the stand-in for our package: the launcher did not do it itself


class FakeManager:
    """As much of a cgroup manager as the record asks for, on plain files."""

    driver = "fs"
    shared = False

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


def test_what_is_unknown_is_no_error_to_delete_by_force(ocirt, tmp_path):
    log = str(tmp_path / "log")
    assert ocirt("--log", log, "delete", "--force", "web").returncode == 0  # no root either
    (tmp_path / "root").mkdir()
    assert ocirt("--log", log, "delete", "--force", "web").returncode == 0
    assert os.path.getsize(log) == 0
    for argv in (["delete", "web"], ["kill", "web"], ["delete", "--force", "../web"]):
        assert ocirt(*argv).returncode == PYTHON
    (tmp_path / "root" / "web").symlink_to("nowhere")
    assert ocirt("delete", "--force", "web").returncode == PYTHON
    (tmp_path / "root" / "file").touch()
    assert ocirt("delete", "--force", "file").returncode == PYTHON


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


# --- records that are not what was written

VERBS = {
    "state": ("state", "web"),
    "start": ("start", "web"),
    "kill": ("kill", "web", "KILL"),
    "delete": ("delete", "web"),
    "delete by force": ("delete", "--force", "web"),
}


def rewritten(change):
    """Return a damage that changes the bytes of the record."""

    def damage(container, _folder):
        path = os.path.join(container.directory, quick.NAME)
        with open(path, "rb") as file:
            whole = file.read()
        with open(path, "wb") as file:
            file.write(change(whole))

    return damage


def flipped(place):
    """Return a change of one bit, `place` of the way through."""

    def change(whole):
        at = min(int(len(whole) * place), len(whole) - 1)
        return whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]

    return rewritten(change)


def resummed(change):
    """Return a damage that a careful hand did: the sum at the end fits."""

    def again(whole):
        body = change(whole[:-4])
        size = len(body) + 4
        body = body[:4] + size.to_bytes(4, sys.byteorder) + body[8:]
        number = int.from_bytes(body, "big") % quick.SUM
        return body + number.to_bytes(4, sys.byteorder)

    return rewritten(again)


def stale(container, _folder):
    """The state has been written anew since, as `update` does."""
    container.save()


def touched(container, _folder):
    os.utime(container.state_file, ns=(1, 1))


def of_another(container, folder):
    """The record of another container, with its state as it belongs to it."""
    other = state.claim(str(folder / "root"), "other", {**container.record, "id": "other"})
    other.save()
    quick.write(other, None)
    other.unlock()
    os.replace(f"{other.directory}/quick", f"{container.directory}/quick")


def with_its_state(container, folder):
    of_another(container, folder)
    os.replace(f"{folder}/root/other/state.json", container.state_file)


def given_away(name):
    def damage(container, _folder):
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        os.chown(os.path.join(container.directory, name), 12345, -1)

    return damage


def open_to_all(name):
    return lambda container, _folder: os.chmod(os.path.join(container.directory, name), 0o777)


def removed(name):
    return lambda container, _folder: os.unlink(os.path.join(container.directory, name))


def linked(container, folder):
    os.rename(container.state_file, folder / "elsewhere")
    os.symlink(folder / "elsewhere", container.state_file)


DAMAGES = {
    **{f"cut to {part}": rewritten(lambda w, part=part: w[: int(len(w) * part)])
       for part in (0, 0.01, 0.1, 0.5, 0.9, 0.999)},
    **{f"a bit at {place}": flipped(place)
       for place in (0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.99, 1)},
    "one byte more": rewritten(lambda whole: whole + b"\0"),
    "zeros": rewritten(lambda whole: bytes(len(whole))),
    "zeros from the middle": rewritten(lambda w: w[: len(w) // 2] + bytes(len(w) - len(w) // 2)),
    "twice": rewritten(lambda whole: whole * 2),
    "noise": rewritten(lambda whole: random.Random(3).randbytes(len(whole))),
    "the version before": resummed(lambda whole: b"OCQ1" + whole[4:]),
    "the version after": resummed(lambda whole: b"OCQ3" + whole[4:]),
    "no texts": resummed(lambda whole: whole[:12] + bytes(4) + whole[16:]),
    "a text more": resummed(lambda whole: whole[:12] + b"\x09\0\0\0" + whole[16:]),
    "a text that is too long": resummed(lambda w: w[:56] + b"\xff\xff\xff\x7f" + w[60:]),
    "no pid": resummed(lambda whole: whole[:16] + bytes(8) + whole[24:]),
    "another id": resummed(lambda whole: whole.replace(b"web\0", b"wec\0", 1)),
    "stale": stale,
    "a touched state": touched,
    "no state": removed("state.json"),
    "a linked state": linked,
    "of another container": of_another,
    "of another, with its state": with_its_state,
    **{f"{name} of another owner": given_away(name) for name in ("quick", "state.json", ".")},
    **{f"{name} that others may write": open_to_all(name) for name in ("quick", "state.json", ".")},
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_record_that_is_not_what_was_written_is_pythons(made, ocirt, process, tmp_path, damage):
    container, manager = made()
    DAMAGES[damage](container, tmp_path)
    before = sorted(os.listdir(container.directory))
    with held(container):
        for verb, words in VERBS.items():
            if verb == "delete":
                assert process.poll() is None
                process.kill()
                process.wait()
            assert ocirt(*words).returncode == PYTHON, verb
    assert sorted(os.listdir(container.directory)) == before
    assert all(path.exists() for path in manager.own)


@pytest.mark.parametrize("verb", VERBS)
def test_an_unharmed_record_is_not_pythons(made, ocirt, process, verb):
    container, _ = made()
    if verb.startswith("delete"):
        process.kill()
        process.wait()
    gate = os.open(container.fifo, os.O_RDWR)
    opener = threading.Timer(0.3, os.close, [gate])  # the program takes over
    opener.start()
    assert ocirt(*VERBS[verb]).returncode == 0
    opener.join()


def test_no_change_of_one_byte_is_believed(made, ocirt):
    container, _ = made()
    path = f"{container.directory}/quick"
    with open(path, "rb") as file:
        whole = file.read()
    dice = random.Random(7)
    for at in range(0, len(whole), 13):
        noisy = bytearray(whole)
        noisy[at] ^= dice.randint(1, 255)
        with open(path, "wb") as file:
            file.write(noisy)
        assert ocirt("state", "web").returncode == PYTHON, at


def test_a_link_is_not_followed(made, ocirt, tmp_path):
    container, _ = made()
    os.rename(f"{container.directory}/quick", tmp_path / "quick")
    os.symlink(tmp_path / "quick", f"{container.directory}/quick")
    assert ocirt("state", "web").returncode == PYTHON
