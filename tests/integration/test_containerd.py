"""containerd drives the runtime by its shim: `ctr run`, task by task."""

from __future__ import annotations

import os

import pytest

from tests.integration import engines
from tests.integration.support import eventually, find_runtime

RUNTIME = find_runtime()
MISSING = engines.missing("containerd", "ctr", "containerd-shim-runc-v2", "nsenter")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]


class Ctr(engines.Containerd):
    """containerd without its CRI plugin, where containers run from a plain directory."""

    def start(self):
        super().start()
        self.rootfs = self.path("rootfs")
        if not os.path.isdir(self.rootfs):
            os.mkdir(self.rootfs)
            assert engines.call(["tar", "-C", self.rootfs, "-xf", self.archive()]).code == 0

    def command(self, name, *args, options=("--rm",)):
        """Return the arguments of `ctr run` for the plain root file system."""
        group = f"/{self.cgroups.name}/{name}"
        flags = ("--runc-binary", RUNTIME, "--cgroup", group, "--rootfs", *options)
        return ("run", *flags, self.rootfs, name, *args)

    def run(self, name, *args, options=("--rm",), **popen):
        return self(*self.command(name, *args, options=options), **popen)

    def ok(self, *args, **popen):
        """Run a command that must succeed; return its output, stripped."""
        result = self(*args, **popen)
        assert result.code == 0, str(result)
        return result.out.strip()

    def detached(self, name, *args, options=()):
        self.ok(*self.command(name, *args, options=("--detach", *options)))

    def status(self, name):
        """Return the status of a task in ctr's words."""
        rows = [row.split() for row in self.ok("tasks", "ls").splitlines()]
        return next((row[2] for row in rows if row[0] == name), None)


@pytest.fixture(scope="session")
def daemon(base):
    folder = os.path.join(base, "containerd")
    with engines.serving(Ctr(folder, "containerd", RUNTIME)) as containerd:
        yield containerd


@pytest.fixture
def ctr(daemon):
    with engines.used(daemon):
        yield daemon


def test_run_prints_and_returns_the_status(ctr):
    result = ctr.run("c1", "/bin/sh", "-c", "echo hi; exit 3")
    assert (result.out, result.code) == ("hi\n", 3), str(result)
    assert engines.gone(ctr.cgroups.folders) == []


def test_limits_and_mounts(ctr, workdir):
    mount = f"type=bind,src={workdir},dst=/mnt,options=rbind:rw"
    options = ("--rm", "--memory-limit", str(64 << 20), "--mount", mount, "--env", "A=b")
    result = ctr.run("c2", "/bin/sh", "-c", "echo $A > /mnt/file", options=options)
    assert result.code == 0, str(result)
    with open(os.path.join(workdir, "file")) as file:
        assert file.read() == "b\n"


def test_a_program_that_is_missing(ctr):
    result = ctr.run("c3", "/nosuch")
    assert result.code == 1
    assert "/nosuch" in result.err
    assert "o such file or directory" in result.err
    assert engines.gone(ctr.cgroups.folders) == []


def test_a_task_is_started_killed_and_deleted(ctr):
    ctr.detached("c4", "/bin/sleep", "1000")
    assert ctr.status("c4") == "RUNNING"
    assert ctr("tasks", "kill", "-s", "KILL", "c4").code == 0
    assert eventually(lambda: ctr.status("c4") == "STOPPED")
    assert ctr("tasks", "delete", "c4").code == 0
    assert engines.gone(ctr.cgroups.folders) == []
