"""Podman drives the runtime, through conmon: the calls differ from Docker's.

No plain `delete`, no `--root`, error texts read from the log as one JSON object.  What flags
mean inside is the matter of test_docker.py; here it is the way there.
"""

from __future__ import annotations

import os
import resource
import shlex

import pytest

from tests.integration import engines
from tests.integration.support import eventually, find_runtime

IMAGE = "localhost/busybox:test"
RUNTIME = find_runtime()
MISSING = engines.missing("podman", "conmon", "nsenter")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]

CONTAINERS = """
[containers]
# Podman 4 asks for 1048576 files; that needs CAP_SYS_RESOURCE where the limit is lower.
default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "tested"
runtime_supports_json = ["tested"]
tmp_dir = "{folder}/tmp"
[engine.runtimes]
tested = ["{runtime}"]
"""

STORAGE = """
[storage]
driver = "overlay"
graphroot = "{folder}/root"
runroot = "{folder}/run"
"""


def limit(name, wanted):
    """Return `wanted`, or our own hard limit where that is lower."""
    hard = resource.getrlimit(name)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


class Podman:
    """Podman with its own storage, run in a world of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.cgroups = engines.Cgroups(f"ocirt-podman-{os.getpid()}")
        self.world = engines.World()
        values = {
            "folder": folder,
            "runtime": RUNTIME,
            "files": limit(resource.RLIMIT_NOFILE, 20000),
            "processes": limit(resource.RLIMIT_NPROC, 32768),
        }
        self.env = {**os.environ}
        for variable, name, text in (
            ("CONTAINERS_CONF", "containers.conf", CONTAINERS),
            ("CONTAINERS_STORAGE_CONF", "storage.conf", STORAGE),
        ):
            self.env[variable] = os.path.join(folder, name)
            with open(self.env[variable], "w") as file:
                file.write(text.format(**values))

    def start(self):
        archive = os.path.join(self.folder, "image.tar")
        engines.make_image(archive)
        changes = ("-c", 'CMD ["/bin/sh"]', "-c", "ENV PATH=/bin")
        self.ok("import", "-q", *changes, archive, IMAGE)
        os.unlink(archive)

    def __call__(self, *args, **popen):
        popen.setdefault("patience", 60)
        return engines.call(self.world.enter("podman", *args), env=self.env, **popen)

    def ok(self, *args, **popen):
        result = self(*args, **popen)
        assert result.code == 0, str(result)
        return result.out.strip()

    def command(self, options, program):
        network = () if "--network" in options else ("--network", "none")
        parent = f"--cgroup-parent=/{self.cgroups.name}"
        return ("run", parent, *network, *shlex.split(options), IMAGE, *program)

    def try_run(self, options, *program, **popen):
        return self(*self.command(f"--rm {options}", program), **popen)

    def run(self, options, *program, **popen):
        return self.ok(*self.command(f"--rm {options}", program), **popen)

    def detached(self, options, *program):
        return self.ok(*self.command(f"-d {options}", program))

    def leftovers(self):
        # Not those of conmon and of pods: Podman makes them, and keeps some.
        found = {path: os.path.basename(path) for path in self.cgroups.folders()}
        return [
            path
            for path, name in found.items()
            if name.startswith("libpod-") and name.count("-") == 1
        ]

    def sweep(self):
        self.ok("rm", "--all", "--force", "--time", "0")

    def close(self):
        left = {}
        try:
            self.sweep()
        finally:
            eventually(lambda: not self.world.processes(), 5)
            left = self.world.close()
            self.cgroups.remove()
        assert left == {}, "processes outlived Podman"


@pytest.fixture(scope="session")
def engine(base):
    folder = os.path.join(base, "podman")
    os.mkdir(folder)
    podman = Podman(folder)
    try:
        podman.start()
        yield podman
    finally:
        podman.close()


@pytest.fixture
def podman(engine):
    yield engine
    engine.sweep()
    assert engines.gone(engine.leftovers) == [], "left behind"


def test_run_prints_and_returns_the_status(podman):
    assert podman.run("", "echo", "hi") == "hi"
    assert podman.try_run("", "sh", "-c", "exit 42").code == 42


def test_piped_stdin_reaches_the_program(podman):
    assert podman.run("-i", "cat", input="one\ntwo") == "one\ntwo"


def test_a_terminal(podman):
    argv = podman.world.enter("podman", *podman.command("--rm -it", ("sh", "-c", "tty; exit 7")))
    result = engines.on_terminal(argv, env=podman.env, patience=60)
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
    podman.ok("stop", "-t", "10", container)
    assert podman.ok("wait", container) == "5"
    podman.ok("start", container)
    podman.ok("kill", "-s", "KILL", container)
    assert podman.ok("wait", container) == "137"
    podman.ok("rm", "-f", "-t", "0", container)
    assert engines.gone(podman.leftovers) == []


def test_stop_kills_when_the_time_is_up(podman):
    container = podman.detached("", "sh", "-c", "trap '' TERM; sleep 100")
    podman.ok("stop", "-t", "1", container)
    assert podman.ok("wait", container) == "137"


def test_init_now_and_start_later(podman):
    container = podman.ok(
        "create", f"--cgroup-parent=/{podman.cgroups.name}", "--network", "none", IMAGE, "echo", "x"
    )
    podman.ok("init", container)
    assert podman.ok("start", "--attach", container) == "x"


def test_members_of_a_pod_share_namespaces(podman):
    options = ("--infra-image", IMAGE, "--infra-command", "/bin/sleep 1000")
    parent = f"--cgroup-parent=/{podman.cgroups.name}"
    podman.ok(
        "pod", "create", parent, "--name", "pd", *options, "--share", "ipc,uts", "--network=none"
    )
    try:
        argv = ("run", "-d", "--pod", "pd", IMAGE)
        podman.ok(*argv, "sh", "-c", "trap 'exit 0' TERM; while :; do usleep 9999; done")
        one = podman.ok("run", "--rm", "--pod", "pd", IMAGE, "readlink", "/proc/self/ns/ipc")
        two = podman.ok("run", "--rm", "--pod", "pd", IMAGE, "readlink", "/proc/self/ns/ipc")
        assert one == two
        podman.ok("pod", "stop", "-t", "1", "pd")
    finally:
        podman.ok("pod", "rm", "-f", "-t", "0", "pd")


@pytest.mark.skipif("exec" not in engines.verbs(RUNTIME), reason="the runtime has no verb exec")
def test_exec_runs_another_program(podman):
    name = podman.detached("-e A=1", "sleep", "1000")
    show = "echo $A$B; pwd; whoami"
    words = podman.ok("exec", "-e", "B=2", "-w", "/tmp", "-u", "alice", name, "sh", "-c", show)
    assert words.split() == ["12", "/tmp", "alice"]
    assert podman("exec", name, "sh", "-c", "exit 6").code == 6
    assert podman.ok("exec", "-i", name, "cat", input="piped") == "piped"
    assert podman("exec", name, "nosuch").code == 127
    assert podman("exec", name, "/etc/passwd").code == 126
    argv = podman.world.enter("podman", "exec", "-it", name, "tty")
    assert "/dev/pts/" in engines.on_terminal(argv, env=podman.env).out
    assert podman.ok("exec", "--detach", name, "sh", "-c", "echo done > /tmp/done") != ""
    assert eventually(lambda: podman.ok("exec", name, "cat", "/tmp/done") == "done")
