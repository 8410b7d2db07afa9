"""Podman drives the runtime, through conmon: the calls differ from Docker's.

No plain `delete`, no `--root`, error texts read from the log as one JSON object.  What flags
mean inside is the matter of test_docker.py; here it is the way there.
"""

from __future__ import annotations

import os

import pytest

from tests.integration import engines
from tests.integration.support import eventually, find_runtime

RUNTIME = find_runtime()
MISSING = engines.missing("podman", "conmon", "nsenter")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]


@pytest.fixture(scope="session")
def engine(base):
    with engines.serving(engines.Podman(os.path.join(base, "podman"), RUNTIME)) as podman:
        yield podman


@pytest.fixture
def podman(engine):
    with engines.used(engine):
        yield engine


def test_run_prints_and_returns_the_status(podman):
    assert podman.run("", "echo", "hi") == "hi"
    assert podman.try_run("", "sh", "-c", "exit 42").code == 42


def test_piped_stdin_reaches_the_program(podman):
    assert podman.run("-i", "cat", input="one\ntwo") == "one\ntwo"


def test_a_terminal(podman):
    result = podman.on_terminal(*podman.command("--rm -it", ("sh", "-c", "tty; exit 7")))
    assert "/dev/pts/0" in result.out
    assert result.code == 7


def test_limits_users_and_capabilities(podman):
    result = podman.try_run(
        "--memory 64m --pids-limit 20 --user alice --cap-drop ALL --read-only --hostname box",
        "sh",
        "-c",
        "id -un; hostname; grep CapEff /proc/self/status; touch /x 2>&1",
    )
    user, name, capabilities, refusal = result.out.splitlines()
    assert (user, name, capabilities.split()[1]) == ("alice", "box", "0" * 16)
    assert "Read-only file system" in refusal


def test_a_volume_and_a_device(podman, workdir):
    text = podman.run(
        f"-v {workdir}:/mnt --device /dev/fuse", "sh", "-c", "echo x > /mnt/y; ls /dev/fuse"
    )
    assert text == "/dev/fuse"
    assert os.path.exists(os.path.join(workdir, "y"))


@pytest.mark.skipif(
    RUNTIME is not None and os.geteuid() == 0 and engines.flavour(RUNTIME) == "crun",
    reason="crun words it in its own way",
)
@pytest.mark.parametrize(
    ("program", "code"), [("/nosuch", 127), ("nosuch", 127), ("/etc/passwd", 126)]
)
def test_a_program_that_cannot_start(podman, program, code):
    result = podman.try_run("", program)
    assert result.code == code, str(result)


def test_stop_start_and_remove(podman):
    container = podman.detached("", "sh", "-c", "trap 'exit 5' TERM; while :; do usleep 9999; done")
    container.do("stop", "-t", "10")
    assert container.wait() == 5
    container.do("start")
    container.do("kill", "-s", "KILL")
    assert container.wait() == 137
    container.do("rm", "-f", "-t", "0")
    assert engines.gone(podman.leftovers) == []


def test_stop_kills_when_the_time_is_up(podman):
    container = podman.detached("", "sh", "-c", "trap '' TERM; sleep 100")
    container.do("stop", "-t", "1")
    assert container.wait() == 137


def test_init_now_and_start_later(podman):
    _, *command = podman.command("", ("echo", "x"))
    container = podman.ok("create", *command)
    podman.ok("init", container)
    assert podman.ok("start", "--attach", container) == "x"


def test_members_of_a_pod_share_namespaces(podman):
    options = ("--infra-image", podman.IMAGE, "--infra-command", "/bin/sleep 1000")
    parent = f"--cgroup-parent=/{podman.cgroups.name}"
    podman.ok(
        "pod", "create", parent, "--name", "pd", *options, "--share", "ipc,uts", "--network=none"
    )
    try:
        argv = ("run", "-d", "--pod", "pd", podman.IMAGE)
        podman.ok(*argv, "sh", "-c", "trap 'exit 0' TERM; while :; do usleep 9999; done")
        one = podman.ok("run", "--rm", "--pod", "pd", podman.IMAGE, "readlink", "/proc/self/ns/ipc")
        two = podman.ok("run", "--rm", "--pod", "pd", podman.IMAGE, "readlink", "/proc/self/ns/ipc")
        assert one == two
        podman.ok("pod", "stop", "-t", "1", "pd")
    finally:
        podman.ok("pod", "rm", "-f", "-t", "0", "pd")


def test_exec_runs_another_program(podman):
    container = podman.detached("-e A=1", "sleep", "1000")
    show = "echo $A$B; pwd; whoami"
    how = ("-e", "B=2", "-w", "/tmp", "-u", "alice")
    assert container.exec("sh", "-c", show, options=how).split() == ["12", "/tmp", "alice"]
    name = container.id
    assert podman("exec", name, "sh", "-c", "exit 6").code == 6
    assert podman.ok("exec", "-i", name, "cat", input="piped") == "piped"
    assert podman("exec", name, "nosuch").code == 127
    assert podman("exec", name, "/etc/passwd").code == 126
    assert "/dev/pts/" in podman.on_terminal("exec", "-it", name, "tty").out
    assert container.exec("sh", "-c", "echo done > /tmp/done", options=("--detach",)) != ""
    assert eventually(lambda: podman("exec", name, "cat", "/tmp/done").out == "done\n")
