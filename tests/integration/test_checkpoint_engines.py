"""Docker and Podman save containers and bring them back, by the CRIU that test_checkpoint.py finds.

With Docker `checkpoint` is an experiment of the daemon's, so this daemon is one of its own.
"""

from __future__ import annotations

import os

import pytest

from tests.integration import engines
from tests.integration.support import eventually, find_runtime
from tests.integration.test_checkpoint import CRIU, REASON

RUNTIME = find_runtime()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
]

# Prints, so that what the engine keeps of the output shows it all.
COUNT = "i=0; while :; do i=$((i+1)); echo $i; usleep 50000; done"


def with_criu(engine):
    """Let the engine, and so the runtime, find our CRIU first."""
    folder = engine.path("bin")
    os.mkdir(folder)
    os.symlink(CRIU, os.path.join(folder, "criu"))
    engine.env["PATH"] = f"{folder}:{engine.env['PATH']}"
    return engine


def counted(box):
    """Return the numbers that the container has printed so far."""
    return [int(line) for line in box.logs.split()]


def counts_on(box):
    before = len(counted(box))
    assert eventually(lambda: len(counted(box)) > before + 3), "it does not go on"
    return counted(box)


def running(box):
    return box.inspect("State.Running")


# --- Docker


needs_docker = pytest.mark.skipif(
    engines.missing("dockerd", "docker", "containerd") is not None,
    reason=str(engines.missing("dockerd", "docker", "containerd")),
)


@pytest.fixture(scope="module")
def daemon(base):
    folder = os.path.join(base, "docker-criu")
    engine = engines.Docker(folder, RUNTIME, "docker-criu", experimental=True)
    with engines.serving(with_criu(engine)) as docker:
        yield docker


docker = engines.lent("daemon")


# Docker's own filter, which has calls of the kernel's that CRIU has to make for a process.
OPEN = "--security-opt seccomp=unconfined"


@needs_docker
def test_docker_checkpoint_and_start_from_it(docker):
    box = docker.detached(f"{OPEN} --runtime recorded", "sh", "-c", COUNT)
    before = counts_on(box)
    docker.ok("checkpoint", "create", box.id, "one")
    assert eventually(lambda: not running(box))
    docker.ok("start", "--checkpoint", "one", box.id)
    assert running(box)
    after = counts_on(box)
    assert after[: len(before)] == before
    assert after == list(range(1, len(after) + 1)), "a line is missing, or it began anew"
    found = {call.verb: call for call in docker.recorder.calls(box.id)}
    assert found["checkpoint"].code == found["restore"].code == 0
    # One dash: so it has always been written there.
    assert "-no-subreaper" in found["restore"].argv


@needs_docker
def test_docker_checkpoint_that_leaves_it_running(docker):
    box = docker.detached(OPEN, "sh", "-c", COUNT)
    counts_on(box)
    docker.ok("checkpoint", "create", "--leave-running", box.id, "one")
    assert running(box)
    counts_on(box)


@needs_docker
def test_docker_pause_exec_and_stop_after_a_restore(docker):
    box = docker.detached(f"{OPEN} --memory 64m --pids-limit 50", "sh", "-c", COUNT)
    counts_on(box)
    docker.ok("checkpoint", "create", box.id, "one")
    docker.ok("start", "--checkpoint", "one", box.id)
    assert box.exec("cat", "/proc/1/comm") == "sh"
    box.do("pause")
    box.do("unpause")
    counts_on(box)
    box.do("stop", "-t", "1")
    assert not running(box)


@needs_docker
def test_docker_says_why_a_checkpoint_failed(docker):
    # A connection, which CRIU leaves alone unless it is told that the other end will wait.
    wait = "tail -f /dev/null | busybox nc"
    script = f"{wait} -l -p 99 & usleep 300000; {wait} 127.0.0.1 99 & echo up; wait"
    box = docker.detached(OPEN, "sh", "-c", script)
    assert box.says("up")
    assert eventually(lambda: ":0063 " in box.exec("cat", "/proc/net/tcp"))
    assert eventually(lambda: " 01 " in box.exec("cat", "/proc/net/tcp")), "not connected"
    result = docker("checkpoint", "create", box.id, "one")
    assert result.code != 0
    assert "criu failed" in result.err
    assert running(box)


# --- Podman


needs_podman = pytest.mark.skipif(
    engines.missing("podman", "conmon") is not None,
    reason=str(engines.missing("podman", "conmon")),
)


@pytest.fixture(scope="module")
def engine(base):
    engine = engines.Podman(os.path.join(base, "podman-criu"), RUNTIME)
    with engines.serving(with_criu(engine)) as podman:
        yield podman


podman = engines.lent("engine")


@needs_podman
def test_podman_checkpoint_and_restore(podman):
    box = podman.detached(OPEN, "sh", "-c", COUNT)
    before = counts_on(box)
    podman.ok("container", "checkpoint", box.id)
    assert not running(box)
    podman.ok("container", "restore", box.id)
    assert running(box)
    after = counts_on(box)
    assert after[: len(before)] == before
    # Its log loses what was on the way when conmon ended, but nobody begins anew.
    assert after[-1] > before[-1]
    assert sorted(set(after)) == after


@needs_podman
def test_podman_takes_a_container_elsewhere_in_a_file(podman):
    box = podman.detached(OPEN, "sh", "-c", COUNT)
    before = counts_on(box)
    archive = podman.path("saved.tar.gz")
    podman.ok("container", "checkpoint", "--export", archive, box.id)
    podman.ok("rm", "--force", box.id)
    name = podman.ok("container", "restore", "--import", archive, "--name", "other")
    other = engines.Container(podman, name)
    after = counts_on(other)
    assert after[-1] > before[-1]
    assert sorted(set(after)) == after, "it began anew"


@needs_podman
def test_podman_checkpoint_that_leaves_it_running(podman):
    box = podman.detached(OPEN, "sh", "-c", COUNT)
    counts_on(box)
    podman.ok("container", "checkpoint", "--leave-running", box.id)
    assert running(box)
    counts_on(box)
