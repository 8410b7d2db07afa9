"""containerd drives the runtime by its shim: `ctr run`, task by task."""

from __future__ import annotations

import os

import pytest

from tests.integration import engines
from tests.integration.support import eventually, find_runtime

IMAGE = "localhost/busybox:test"
RUNTIME = find_runtime()
MISSING = engines.missing("containerd", "ctr", "containerd-shim-runc-v2", "nsenter")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]

CONFIG = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{folder}/sock"
"""


class Containerd:
    """A containerd with its own roots, and ctr to talk to it."""

    def __init__(self, folder):
        self.folder = folder
        self.address = os.path.join(folder, "sock")
        self.cgroups = engines.Cgroups(f"ocirt-ctr-{os.getpid()}")
        self.world = engines.World()
        self.daemon = None

    def start(self):
        config = os.path.join(self.folder, "config.toml")
        with open(config, "w") as file:
            file.write(CONFIG.format(folder=self.folder))
        log = os.path.join(self.folder, "log")
        self.daemon = self.world.spawn("containerd", "--config", config, log=log)
        assert eventually(lambda: self("version").code == 0), "containerd does not answer"
        self.rootfs = os.path.join(self.folder, "rootfs")
        archive = os.path.join(self.folder, "image.tar")
        engines.make_image(archive)
        os.mkdir(self.rootfs)
        assert engines.call(["tar", "-C", self.rootfs, "-xf", archive]).code == 0

    def __call__(self, *args, **popen):
        return engines.call(["ctr", "--address", self.address, *args], **popen)

    def run(self, name, *args, options=("--rm",)):
        """Run a container from the plain root file system."""
        group = f"/{self.cgroups.name}/{name}"
        flags = ("--runc-binary", RUNTIME, "--cgroup", group, "--rootfs", *options)
        return self("run", *flags, self.rootfs, name, *args)

    def close(self):
        if self.daemon:
            for name in self("tasks", "ls", "-q").out.split():
                self("tasks", "kill", "-s", "KILL", name)
                self("tasks", "rm", "--force", name)
            engines.stop(self.daemon)
        left = engines.gone(self.world.processes)
        self.world.close()
        self.cgroups.remove()
        assert left == {}, "processes outlived containerd"


@pytest.fixture(scope="session")
def ctr(base):
    folder = os.path.join(base, "ctr")
    os.mkdir(folder)
    daemon = Containerd(folder)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()


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
    result = ctr.run("c4", "/bin/sleep", "1000", options=("--detach",))
    assert result.code == 0, str(result)
    try:
        assert "RUNNING" in ctr("tasks", "ls").out
        assert ctr("tasks", "kill", "-s", "KILL", "c4").code == 0
        assert eventually(lambda: "STOPPED" in ctr("tasks", "ls").out)
        assert ctr("tasks", "delete", "c4").code == 0
    finally:
        ctr("tasks", "delete", "--force", "c4")
        ctr("containers", "delete", "c4")
    assert engines.gone(ctr.cgroups.folders) == []
