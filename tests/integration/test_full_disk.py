"""No room left where the runtime keeps its state: said in the kernel's words, and nothing remains.

What has to be written down is refused as a whole; what needs no room goes on, and so does
everything once there is room again.
"""

from __future__ import annotations

import contextlib
import os

import pytest

from tests.integration.support import cgroup_of, only_ocirt

NO_SPACE = "no space left on device"
PAGE = 4096


class Disk:
    """A small file system that holds the state directory."""

    def __init__(self, runtime, host_mount, workdir):
        self.path = os.path.join(workdir, "disk")
        os.mkdir(self.path)
        host_mount("-t", "tmpfs", "-o", "size=256k,nr_inodes=64,mode=755", "none", self.path)
        runtime.root = runtime.host.state = os.path.join(self.path, "state")
        os.mkdir(runtime.root, 0o700)
        runtime.host.before = runtime.host.look()
        self.filler = os.path.join(self.path, "filler")

    def fill(self, pages=0):
        """Leave room for so many pages."""
        free = os.statvfs(self.path).f_bavail
        with open(self.filler, "ab") as file, contextlib.suppress(OSError):
            file.write(bytes(PAGE * (free - pages)))
        assert os.statvfs(self.path).f_bavail == pages

    def take_names(self, left):
        """Leave room for so many files."""
        for number in range(os.statvfs(self.path).f_ffree - left):
            with open(f"{self.filler}-{number}", "w"):
                pass
        assert os.statvfs(self.path).f_ffree == left

    def empty(self):
        for name in os.listdir(self.path):
            if name.startswith("filler"):
                os.unlink(os.path.join(self.path, name))


@pytest.fixture
def disk(runtime, host_mount, workdir):
    before = runtime.host.before
    yield Disk(runtime, host_mount, workdir)
    runtime.host.before = before


def refused_until(runtime, bundle, make_room, most):
    """With ever more room `create` is refused, and leaves nothing, until it works."""
    for room in range(most):
        make_room(room)
        b = bundle.sleeping()
        result = runtime.try_create(b, "--pid-file", b.pid_file)
        if result.code == 0:
            runtime.delete(b, "--force")
            assert runtime.host.leftovers() == []
            return room
        runtime.check_refusal(result, NO_SPACE, runtime.root)
        assert runtime.host.leftovers() == [], f"room for {room}"
        assert not os.path.exists(b.pid_file)
    raise AssertionError("create never works")


@only_ocirt("runc leaves its directory behind, and does not say why")
def test_create_with_hardly_any_room(runtime, bundle, disk):
    def make_room(pages):
        disk.empty()
        disk.fill(pages)

    assert refused_until(runtime, bundle, make_room, 12) > 2


@only_ocirt("runc leaves its directory behind, and does not say why")
def test_create_with_hardly_any_names(runtime, bundle, disk):
    def make_room(names):
        disk.empty()
        disk.take_names(names)

    assert refused_until(runtime, bundle, make_room, 12) > 2


def test_a_container_lives_on_and_ends_on_a_full_disk(runtime, bundle, disk):
    b = bundle.sh("trap 'exit 6' TERM; while :; do usleep 9999; done")
    other = bundle("true")
    runtime.create(b)
    runtime.create(other)
    disk.fill()
    runtime.start(b)
    assert runtime.status(b) == "running"
    assert runtime.ok("exec", b.id, "echo", "in").out == "in\n"
    assert len(runtime.ok("ps", "--format", "json", b.id).json()) >= 1
    runtime.ok("pause", b.id)
    runtime.ok("resume", b.id)
    runtime.kill(b, "TERM")
    assert runtime.wait(b) == 6
    runtime.delete(b)
    runtime.delete(other, "--force")
    assert runtime.host.leftovers() == []


@only_ocirt("runc has changed the limit, and cannot remember that it did")
def test_an_update_that_cannot_be_written_down_changes_nothing(runtime, bundle, disk):
    b = bundle.sleeping(linux={"resources": {"pids": {"limit": 50}}})
    runtime.started(b)
    disk.fill()
    runtime.refuses("update", "--pids-limit", "60", b.id, saying=NO_SPACE)
    limit = f"{cgroup_of(b, 'pids')}/pids.max"
    with open(limit) as file:
        assert file.read() == "50\n"
    disk.empty()
    runtime.ok("update", "--pids-limit", "60", b.id)
    with open(limit) as file:
        assert file.read() == "60\n"
    runtime.delete(b, "--force")


@only_ocirt("runc leaves the process")
def test_a_pid_file_without_room(runtime, bundle, disk):
    runtime.root = runtime.host.state = runtime.root.replace("/disk/", "/")
    b = bundle.sleeping()
    disk.fill()
    pid_file = os.path.join(disk.path, "pid")
    runtime.refuses_to_create(b, NO_SPACE, options=["--pid-file", pid_file])
    runtime.started(b)
    before = runtime.ok("ps", "--format", "json", b.id).json()
    options = ["--detach", "--pid-file", pid_file]
    runtime.refuses("exec", *options, b.id, "sleep", "1000", saying=NO_SPACE, code=255)
    assert runtime.ok("ps", "--format", "json", b.id).json() == before
    assert sorted(os.listdir(disk.path)) == ["filler", "state"]


@only_ocirt("runc goes on in silence")
def test_a_log_without_room_is_no_reason_to_fail(runtime, bundle, disk):
    b = bundle.sleeping()
    runtime.create(b)
    disk.fill()
    log = os.path.join(disk.path, "log")
    argv = [runtime.path, "--root", runtime.root, "--log", log, "--log-format", "json"]
    for words, code in ((["state", b.id], 0), (["start", b.id], 0), (["start", b.id], 1)):
        result = runtime(*argv[1:], *words, prefix=False)
        assert result.code == code, str(result)
    assert "already running" in result.err
    disk.empty()
    runtime.delete(b, "--force")
