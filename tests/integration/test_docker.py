"""Docker drives the runtime: a real dockerd of our own, from `docker run` to what it leaves.

OCIRT_TEST_RUNTIME chooses the runtime, as everywhere; what a flag of Docker means is seen
from inside the container, and after each test nothing of it may be left: no cgroup, no
mount in dockerd's namespace, no state directory.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import shlex
import subprocess

import pytest

from tests.integration import engines
from tests.integration.support import (
    CAP_SYS_RESOURCE,
    UNIFIED,
    bounding_set,
    eventually,
    find_runtime,
    needs_v1,
    only_ocirt,
)

IMAGE = "busybox:test"
RUNTIME = find_runtime()
VERBS = engines.verbs(RUNTIME) if RUNTIME and os.geteuid() == 0 else set()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        engines.missing("dockerd", "docker", "containerd", "ip", "nsenter") is not None,
        reason=str(engines.missing("dockerd", "docker", "containerd", "ip", "nsenter")),
    ),
]


def needs_verb(verb):
    return pytest.mark.skipif(verb not in VERBS, reason=f"the runtime has no verb {verb}")


class Docker:
    """A dockerd with its own roots, and the client to talk to it."""

    def __init__(self, folder, runtime):
        self.folder = folder
        self.exec_root = os.path.join(folder, "exec")
        self.data_root = os.path.join(folder, "data")
        self.log = os.path.join(folder, "dockerd.log")
        self.cgroups = engines.Cgroups(f"ocirt-docker-{os.getpid()}")
        self.env = {
            **os.environ,
            "DOCKER_HOST": f"unix://{folder}/docker.sock",
            "DOCKER_CONFIG": os.path.join(folder, "client"),
            "DOCKER_CLI_HINTS": "false",
        }
        self.world = engines.World()
        self.daemon = None
        self.runtime = runtime

    def start(self):
        config = {
            "data-root": self.data_root,
            "exec-root": self.exec_root,
            "pidfile": os.path.join(self.folder, "dockerd.pid"),
            "hosts": [self.env["DOCKER_HOST"]],
            "storage-driver": "overlay2",
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "cgroup-parent": f"/{self.cgroups.name}",
            "default-runtime": "hpc",
            "runtimes": {
                "hpc": {"path": self.runtime},
                "hpc-debug": {"path": self.runtime, "runtimeArgs": ["--debug"]},
            },
        }
        path = os.path.join(self.folder, "daemon.json")
        with open(path, "w") as file:
            json.dump(config, file)
        self.daemon = self.world.spawn("dockerd", "--config-file", path, log=self.log)
        if not eventually(lambda: self("version").code == 0 or self.daemon.poll() is not None):
            pytest.fail(f"dockerd does not answer:\n{self.tail()}")
        archive = os.path.join(self.folder, "image.tar")
        engines.make_image(archive)
        self.ok("import", "-c", 'CMD ["/bin/sh"]', "-c", "ENV PATH=/bin", archive, IMAGE)
        os.unlink(archive)
        self.mounts = self.world.mounts()

    def tail(self):
        with open(self.log) as file:
            return "".join(file.readlines()[-20:])

    def close(self):
        left = []
        try:
            self.sweep()
        finally:
            if self.daemon:
                engines.stop(self.daemon)
            self.cgroups.remove()
            left = self.world.close()
        assert left == {}, "processes outlived dockerd"

    # -- the client

    def __call__(self, *args, **popen):
        return engines.call(["docker", *args], env=self.env, **popen)

    def ok(self, *args, **popen):
        """Run a command that must succeed; return its output, stripped."""
        result = self(*args, **popen)
        assert result.code == 0, str(result)
        return result.out.strip()

    @staticmethod
    def command(options, program):
        """`docker run` without a network, which costs time, unless `options` name one."""
        network = () if "--network" in options else ("--network", "none")
        return ("run", *network, *shlex.split(options), IMAGE, *program)

    def try_run(self, options, *program, **popen):
        return self(*self.command(f"--rm {options}", program), **popen)

    def run(self, options, *program, **popen):
        """Run to the end, which must be a good one; return the output, stripped."""
        return self.ok(*self.command(f"--rm {options}", program), **popen)

    def sh(self, options, script, **popen):
        return self.run(options, "sh", "-c", script, **popen)

    def detached(self, options, *program):
        return Container(self, self.ok(*self.command(f"-d {options}", program)))

    # -- what is left

    def leftovers(self):
        state = os.path.join(self.exec_root, "runtime-runc/moby")
        names = os.listdir(state) if os.path.isdir(state) else ()
        mounts = self.world.mounts()
        # Docker's handle for the network of the host, made once and kept.
        kept = os.path.join(self.exec_root, "netns/default")
        for mount in (*self.mounts, kept):
            if mount in mounts:
                mounts.remove(mount)
        return [
            *(f"cgroup: {path}" for path in self.cgroups.folders()),
            *(f"mount: {path}" for path in mounts),
            # A name with a dot is something that the runtime keeps for all containers.
            *(f"state: {name}" for name in names if not name.startswith(".")),
        ]

    def sweep(self):
        containers = self.ok("ps", "--all", "--quiet").split()
        if containers:
            self.ok("rm", "--force", "--volumes", *containers)


class Container:
    """A container that runs on its own."""

    def __init__(self, docker, container_id):
        self.docker, self.id = docker, container_id

    def inspect(self, path):
        text = self.docker.ok("inspect", "--format", f"{{{{json .{path}}}}}", self.id)
        return json.loads(text)

    @property
    def pid(self):
        return self.inspect("State.Pid")

    @property
    def logs(self):
        return self.docker.ok("logs", self.id)

    def says(self, text):
        """Wait until the program has printed `text`."""
        return eventually(lambda: text in self.logs)

    def do(self, verb, *args):
        return self.docker.ok(verb, *args, self.id)

    def wait(self):
        return int(self.do("wait"))


@pytest.fixture(scope="session")
def daemon(base):
    folder = os.path.join(base, "docker")
    os.mkdir(folder)
    docker = Docker(folder, RUNTIME)
    try:
        docker.start()
        yield docker
    finally:
        docker.close()


@pytest.fixture
def docker(daemon):
    yield daemon
    daemon.sweep()
    assert engines.gone(daemon.leftovers) == [], "left behind"


def status(text, field):
    """Return a field of /proc/PID/status."""
    return next(line.split()[1] for line in text.splitlines() if line.startswith(field + ":"))


# --- the program: output, status, streams


def test_run_prints_what_the_program_prints(docker):
    assert docker.run("", "echo", "hi") == "hi"


def test_arguments_of_the_runtime_are_passed_on(docker):
    assert docker.run("--runtime hpc-debug", "echo", "hi") == "hi"


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_the_exit_code_is_the_programs(docker, code):
    assert docker.try_run("", "sh", "-c", f"exit {code}").code == code


def test_stdout_and_stderr_stay_apart(docker):
    result = docker.try_run("", "sh", "-c", "echo out; echo err >&2")
    assert (result.out, result.err) == ("out\n", "err\n")


def test_piped_stdin_reaches_the_program(docker):
    assert docker.run("-i", "cat", input="one\ntwo") == "one\ntwo"


def test_a_megabyte_passes_through_both_ways(docker):
    text = "0123456789abcde\n" * (1 << 16)
    assert docker.run("-i", "cat", input=text) == text.strip()


def test_a_terminal_has_its_size_and_its_name(docker):
    # The size comes once the program runs: Docker's client resizes the terminal then.
    script = 'tty; until size=$(stty size) && [ "$size" ]; do :; done; echo $size; exit 7'
    argv = ["docker", *docker.command("--rm -it", ("sh", "-c", script))]
    result = engines.on_terminal(argv, env=docker.env, rows=33, columns=111)
    lines = result.out.splitlines()
    assert (lines[0], lines[-1]) == ("/dev/pts/0", "33 111")
    assert result.code == 7


def test_keys_reach_the_program_on_its_terminal(docker):
    script = "trap 'echo interrupted; exit 4' INT; echo ready; while :; do usleep 9999; done"
    argv = ["docker", *docker.command("--rm -it", ("sh", "-c", script))]
    result = engines.on_terminal(argv, env=docker.env, typed="\x03")
    assert "interrupted" in result.out
    assert result.code == 4


def test_the_terminal_is_the_console(docker):
    script = "test -c /dev/console && ls -l /dev/console | cut -c1; echo x > /dev/console"
    argv = ["docker", *docker.command("--rm -t", ("sh", "-c", script))]
    assert engines.on_terminal(argv, env=docker.env).out.split() == ["c", "x"]


def test_environment_and_home(docker):
    text = docker.sh("-e GREETING=hello", "echo $GREETING $PATH $HOME")
    assert text == "hello /bin /root"
    assert docker.sh("--user alice", "echo $HOME") == "/home/alice"


def test_a_missing_working_directory_is_made(docker):
    assert docker.sh("-w /x/y", "pwd; stat -c %u:%a .") == "/x/y\n0:755"


def test_hostname_and_domainname(docker):
    text = docker.sh(
        "--hostname box --domainname example.org", "hostname; cat /proc/sys/kernel/domainname"
    )
    assert text.splitlines() == ["box", "example.org"]


# --- errors: Docker decides by their words

in_our_words = pytest.mark.skipif(
    bool(VERBS) and engines.flavour(RUNTIME) == "crun",
    reason="crun words it in its own way, which this Docker does not know",
)


@in_our_words
@pytest.mark.parametrize(
    ("program", "code", "text"),
    [
        ("/nosuch", 127, 'exec: "/nosuch": stat /nosuch: no such file or directory'),
        ("nosuch", 127, 'exec: "nosuch": executable file not found in $PATH'),
        ("/etc/passwd", 126, 'exec: "/etc/passwd": permission denied'),
    ],
)
def test_a_program_that_cannot_start_is_named(docker, program, code, text):
    result = docker.try_run("", program)
    assert result.code == code, str(result)
    assert text in result.err


@in_our_words
def test_a_directory_is_no_program(docker):
    result = docker.try_run("", "/etc")
    assert result.code == 126, str(result)
    assert 'exec: "/etc": ' in result.err


def test_any_other_failure_to_create_is_125(docker):
    result = docker.try_run("--sysctl net.ipv4.no_such_thing=1", "true")
    assert result.code in (125, 126, 127), str(result)
    assert "no_such_thing" in result.err
    assert engines.gone(docker.leftovers) == []


# --- limits

LIMITS = [
    ("--memory 64m", "memory/memory.limit_in_bytes", "memory.max", "67108864"),
    ("--memory-reservation 32m", "memory/memory.soft_limit_in_bytes", "memory.low", "33554432"),
    ("--cpus 0.5", "cpu/cpu.cfs_quota_us", "cpu.max", "50000"),
    ("--cpu-shares 512", "cpu/cpu.shares", "cpu.weight", "512"),
    ("--pids-limit 20", "pids/pids.max", "pids.max", "20"),
    ("--cpuset-cpus 0", "cpuset/cpuset.cpus", "cpuset.cpus", "0"),
]


@pytest.mark.parametrize(("option", "v1", "v2", "value"), LIMITS)
def test_limits_stand_in_the_containers_cgroup(docker, option, v1, v2, value):
    text = docker.run(option, "cat", f"/sys/fs/cgroup/{v2 if UNIFIED else v1}")
    if UNIFIED and "shares" in option:
        assert int(text) < 100
    else:
        assert text.split()[0] == value


def test_cpuset_counts(docker):
    assert docker.run("--cpuset-cpus 0", "nproc") == "1"


def test_too_many_processes_are_refused(docker):
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; wait"
    result = docker.try_run("--pids-limit 4", "sh", "-c", script)
    assert "fork" in result.err, str(result)


def test_running_out_of_memory_is_reported(docker):
    container = docker.detached(
        "--memory 16m --memory-swap 16m", "dd", "if=/dev/zero", "of=/dev/null", "bs=64M"
    )
    assert container.wait() == 137
    assert eventually(lambda: container.inspect("State.OOMKilled"))


def test_ulimits(docker):
    text = docker.sh(
        "--ulimit nofile=1024:2048 --ulimit core=0", "ulimit -n; ulimit -Hn; ulimit -c"
    )
    assert text.split() == ["1024", "2048", "0"]


def test_the_oom_score_can_be_raised(docker):
    assert docker.run("--oom-score-adj 500", "cat", "/proc/self/oom_score_adj") == "500"


@needs_v1
def test_the_cgroup_mount_is_read_only_and_shows_only_its_own(docker):
    script = "ls -d /sys/fs/cgroup/pids/pids.max; mkdir /sys/fs/cgroup/pids/x 2>&1"
    result = docker.try_run("", "sh", "-c", script)
    assert "/sys/fs/cgroup/pids/pids.max" in result.out
    assert "Read-only file system" in result.out


# --- files


def test_a_read_only_root(docker):
    result = docker.try_run("--read-only", "touch", "/x")
    assert "Read-only file system" in result.err


def test_tmpfs_on_a_read_only_root(docker):
    script = "touch /new/x && stat -c %a /new && df -k /new | tail -1"
    mode, size = docker.sh("--read-only --tmpfs /new:size=1m,mode=1770", script).splitlines()
    assert mode == "1770"
    assert size.split()[1] == "1024"


def test_a_volume_is_shared_with_the_host(docker, workdir):
    folder = os.path.join(workdir, "volume")
    docker.sh(f"-v {folder}:/mnt", "echo from inside > /mnt/file")
    with open(os.path.join(folder, "file")) as file:
        assert file.read() == "from inside\n"
    result = docker.try_run(f"-v {folder}:/mnt:ro", "touch", "/mnt/other")
    assert "Read-only file system" in result.err
    assert docker.run(f"-v {folder}/file:/etc/one:ro", "cat", "/etc/one") == "from inside"


def test_a_named_volume_begins_as_a_copy_and_lasts(docker):
    try:
        assert docker.run("-v ocirt-test:/home/alice", "cat", "/home/alice/note")
        docker.run("-v ocirt-test:/home/alice", "touch", "/home/alice/more")
        text = docker.run("-v ocirt-test:/home/alice", "ls", "/home/alice")
        assert text.split() == ["more", "note"]
    finally:
        docker("volume", "rm", "ocirt-test")


def test_a_mount_that_the_container_makes_later_is_seen_only_there(docker, workdir):
    folder = os.path.join(workdir, "slave")
    os.mkdir(folder)
    before = docker.world.mounts()
    docker.sh(
        f"--cap-add SYS_ADMIN --security-opt seccomp=unconfined -v {folder}:/mnt:rslave",
        "mount -t tmpfs none /mnt && touch /mnt/x",
    )
    assert os.listdir(folder) == []
    assert docker.world.mounts() == before


def test_shm_size(docker):
    text = docker.sh("--shm-size 32m", "df -k /dev/shm | tail -1; stat -c %a /dev/shm")
    size, mode = text.splitlines()
    assert size.split()[1] == "32768"
    assert mode == "1777"


def test_masked_and_read_only_paths(docker):
    script = """
        cat /proc/keys /proc/timer_list 2> /dev/null | wc -c
        ls -A /sys/firmware | wc -l
        echo 1 2> /dev/null > /proc/sys/kernel/domainname || echo refused"""
    assert docker.sh("", script).split() == ["0", "0", "refused"]


def test_sysctls(docker):
    text = docker.sh(
        "--sysctl net.ipv4.ip_forward=1 --sysctl kernel.msgmax=4321",
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax",
    )
    assert text.split() == ["1", "4321"]


# --- devices


def test_the_default_devices(docker):
    names = docker.run("", "ls", "/dev").split()
    wanted = [
        "fd",
        "full",
        "mqueue",
        "null",
        "ptmx",
        "pts",
        "random",
        "shm",
        "stderr",
        "stdin",
        "stdout",
        "tty",
        "urandom",
        "zero",
    ]
    assert set(wanted) <= set(names)
    assert docker.sh("", "stat -c %t:%T:%a /dev/null; readlink /dev/ptmx") == "1:3:666\npts/ptmx"


def test_a_device_is_there_and_opens(docker):
    if not os.path.exists("/dev/fuse"):
        pytest.skip("this machine has no /dev/fuse")
    text = docker.sh("--device /dev/fuse", "stat -c %t:%T /dev/fuse; exec 3<> /dev/fuse; echo ok")
    assert text == "a:e5\nok"


def test_a_device_under_another_name_read_only(docker):
    text = docker.sh("--device /dev/zero:/dev/nought:r", "head -c 3 /dev/nought | wc -c")
    assert text == "3"


def test_a_device_that_was_not_given_does_not_open(docker):
    script = "mknod /fuse c 10 229 && cat < /fuse"
    result = docker.try_run("", "sh", "-c", script)
    assert "Operation not permitted" in result.err, str(result)


# --- who the program is, and what it may


def test_user_by_number_and_by_name(docker):
    assert docker.run("--user 12345:23456", "id").split()[:2] == ["uid=12345", "gid=23456"]
    text = docker.run("--user alice --group-add 4242", "id")
    assert text.startswith("uid=1000(alice) gid=1000(alice)")
    assert "4242" in text
    assert "63(audio)" in text


def test_default_capabilities(docker):
    text = docker.run("", "cat", "/proc/self/status")
    assert int(status(text, "CapEff"), 16) == 0xA80425FB & available()
    assert int(status(text, "CapBnd"), 16) == 0xA80425FB & available()
    assert int(status(text, "CapAmb"), 16) == 0


def available():
    return sum(1 << number for number in bounding_set())


def test_capabilities_dropped_and_added(docker):
    def effective(options):
        return int(status(docker.run(options, "cat", "/proc/self/status"), "CapEff"), 16)

    assert effective("--cap-drop ALL") == 0
    assert effective("--cap-drop ALL --cap-add SYS_PTRACE") == 1 << 19
    assert effective("--cap-drop MKNOD") == 0xA80425FB & ~(1 << 27)
    assert effective("--user 1000") == 0


def test_no_new_privileges(docker):
    text = docker.run("--security-opt no-new-privileges", "cat", "/proc/self/status")
    assert status(text, "NoNewPrivs") == "1"
    assert status(docker.run("", "cat", "/proc/self/status"), "NoNewPrivs") == "0"


def test_seccomp_by_default_and_unconfined(docker):
    assert status(docker.run("", "cat", "/proc/self/status"), "Seccomp") == "2"
    text = docker.run("--security-opt seccomp=unconfined", "cat", "/proc/self/status")
    assert status(text, "Seccomp") == "0"


def test_the_default_profile_refuses_what_it_should(docker):
    assert docker.try_run("", "unshare", "-U", "true").code == 1
    assert docker.try_run("--security-opt seccomp=unconfined", "unshare", "-U", "true").code == 0


def test_seccomp_profile_of_a_file(docker, workdir):
    profile = os.path.join(workdir, "seccomp.json")
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122}
    with open(profile, "w") as file:
        json.dump({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}, file)
    result = docker.try_run(f"--security-opt seccomp={profile}", "mkdir", "/x")
    assert "Disk quota exceeded" in result.err, str(result)


@pytest.mark.skipif(CAP_SYS_RESOURCE not in bounding_set(), reason="needs CAP_SYS_RESOURCE")
def test_privileged(docker):
    check_privileged(docker)


@only_ocirt("gives what the machine has, where others fail for want of CAP_SYS_RESOURCE")
def test_privileged_with_fewer_capabilities_than_all(docker):
    check_privileged(docker)


def check_privileged(docker):
    text = docker.sh("--privileged", "cat /proc/self/status; touch /sys/x 2>&1; ls /dev/fuse")
    known = (1 << 38) - 1  # Docker 20.10 asks for no newer ones
    assert int(status(text, "CapEff"), 16) & known == available() & known
    assert status(text, "Seccomp") == "0"
    assert "Read-only" not in text


# --- namespaces


def inode(pid, kind):
    return os.readlink(f"/proc/{pid}/ns/{kind}")


@pytest.mark.parametrize(
    ("option", "kind"), [("--pid=host", "pid"), ("--ipc=host", "ipc"), ("--uts=host", "uts")]
)
def test_namespaces_of_the_host(docker, option, kind):
    text = docker.sh(option, "for n in pid ipc uts net mnt; do readlink /proc/self/ns/$n; done")
    inside = dict(line.split(":") for line in text.splitlines())
    for name, number in inside.items():
        same = inode(docker.daemon.pid, name) == f"{name}:{number}"
        assert same == (name == kind), name


def test_the_last_process_of_a_container_on_the_hosts_pids_takes_the_rest_along(docker):
    result = docker.try_run("--pid=host", "sh", "-c", "sleep 4711 & echo $!")
    pid = int(result.out)
    assert eventually(lambda: not os.path.exists(f"/proc/{pid}"))


def test_a_container_joins_anothers_namespaces(docker):
    first = docker.detached("--ipc shareable", "sleep", "100")
    options = f"--pid container:{first.id} --ipc container:{first.id}"
    text = docker.sh(f"{options} --network container:{first.id}", "readlink /proc/1/exe; pwd")
    for kind in ("pid", "ipc", "net"):
        inside = docker.run(
            f"{options} --network container:{first.id}", "readlink", f"/proc/self/ns/{kind}"
        )
        assert inside == inode(first.pid, kind)
    assert "/" in text


@needs_v1
def test_a_private_cgroup_namespace(docker):
    text = docker.run("--cgroupns private", "cat", "/proc/self/cgroup")
    assert {line.rpartition(":")[2] for line in text.splitlines()} == {"/"}


def test_an_init_of_dockers(docker):
    missing = engines.missing("docker-init")
    if missing:
        pytest.skip(missing)
    assert "docker-init" in docker.sh("--init", "cat /proc/1/cmdline | tr '\\0' ' '")


# --- network


def test_no_network(docker):
    assert docker.run("--network none", "ls", "/sys/class/net") == "lo"
    assert "127.0.0.1" in docker.run("--network none", "ip", "addr")


def test_two_containers_meet_on_the_bridge(docker):
    first = docker.detached("--network bridge", "sleep", "100")
    address = first.inspect("NetworkSettings.Networks.bridge.IPAddress")
    assert docker.run("--network bridge", "ls", "/sys/class/net").split() == ["eth0", "lo"]
    text = docker.run("--network bridge", "ping", "-c", "1", "-w", "5", address)
    assert "1 packets received" in text


def test_containers_find_each_other_by_name(docker):
    docker.ok("network", "create", "ocirt-test")
    try:
        docker.detached("--network ocirt-test --name ocirt-first", "sleep", "100")
        text = docker.run("--network ocirt-test", "ping", "-c", "1", "-w", "5", "ocirt-first")
        assert "1 packets received" in text
    finally:
        docker.sweep()
        docker.ok("network", "rm", "ocirt-test")


def test_the_network_of_the_host(docker):
    text = docker.run("--network host", "readlink", "/proc/self/ns/net")
    assert text == inode(docker.daemon.pid, "net")


# --- the life of a container

TRAPS = """
trap 'echo term; exit 5' TERM; trap 'echo usr1' USR1
echo up; while :; do usleep 9999; done"""


def test_logs(docker):
    container = docker.detached("", "sh", "-c", "echo one; echo two; sleep 100")
    assert container.says("two")
    assert container.logs.split() == ["one", "two"]


def test_stop_asks_first(docker):
    container = docker.detached("", "sh", "-c", TRAPS)
    assert container.says("up")
    container.do("stop", "-t", "10")
    assert container.wait() == 5
    assert container.logs.split() == ["up", "term"]


def test_stop_kills_when_the_time_is_up(docker):
    container = docker.detached("", "sh", "-c", "trap '' TERM; echo up; sleep 100")
    assert container.says("up")
    container.do("stop", "-t", "1")
    assert container.wait() == 137


def test_kill_sends_the_signal_that_was_asked_for(docker):
    container = docker.detached("", "sh", "-c", TRAPS)
    assert container.says("up")
    container.do("kill", "-s", "USR1")
    assert container.says("usr1")
    container.do("kill")
    assert container.wait() == 137


def test_restart_begins_anew_with_the_same_id(docker):
    container = docker.detached("", "sh", "-c", f"echo x >> /count; wc -l < /count{TRAPS}")
    assert container.says("up")
    first = container.pid
    container.do("restart", "-t", "0")
    assert container.says("2\n")
    assert container.pid != first
    assert container.says("2\nup")
    assert container.logs.startswith("1\nup\n")


def test_a_restart_policy_tries_again(docker):
    container = docker.detached("--restart on-failure:2", "sh", "-c", "echo x; exit 3")
    assert eventually(lambda: container.logs.split() == ["x"] * 3)
    assert eventually(lambda: container.inspect("State.Status") == "exited")
    assert container.inspect("RestartCount") == 2


def test_create_now_and_start_later(docker):
    container = docker.ok("create", "--network", "none", IMAGE, "echo", "later")
    assert docker.ok("start", "--attach", container) == "later"


def test_a_running_container_is_removed_by_force(docker):
    container = docker.detached("", "sleep", "1000")
    pid = container.pid
    container.do("rm", "--force")
    assert not os.path.exists(f"/proc/{pid}")
    assert engines.gone(docker.leftovers) == []


def test_wait_returns_the_status(docker):
    container = docker.detached("", "sh", "-c", "usleep 300000; exit 9")
    assert container.wait() == 9


def test_twenty_at_once_leave_nothing(docker):
    def one(number):
        return docker.try_run("", "sh", "-c", f"echo {number}; exit {number}", patience=60)

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        results = list(pool.map(one, range(20)))
    assert [(result.out.strip(), result.code) for result in results] == [
        (str(number), number) for number in range(20)
    ]
    assert engines.gone(docker.leftovers) == []


def test_the_daemon_knows_the_runtime(docker):
    info = json.loads(docker.ok("info", "--format", "{{json .}}"))
    assert info["DefaultRuntime"] == "hpc"
    assert info["Runtimes"]["hpc"]["path"] == RUNTIME


# --- later work of the runtime under test


@needs_verb("exec")
def test_exec_runs_another_program(docker):
    container = docker.detached("-e A=1", "sleep", "100")
    assert docker.ok("exec", "-e", "B=2", container.id, "sh", "-c", "echo $A$B $$") != ""
    assert docker("exec", container.id, "sh", "-c", "exit 6").code == 6
    assert docker.ok("exec", "-i", container.id, "cat", input="piped") == "piped"
    assert docker.ok("exec", "-u", "alice", "-w", "/tmp", container.id, "whoami") == "alice"
    assert docker("exec", container.id, "/nosuch").code in (126, 127)
    argv = ["docker", "exec", "-it", container.id, "tty"]
    assert "/dev/pts/" in engines.on_terminal(argv, env=docker.env).out


@needs_verb("exec")
def test_a_health_check(docker):
    container = docker.detached("--health-cmd true --health-interval 1s", "sleep", "100")
    assert eventually(lambda: container.inspect("State.Health.Status") == "healthy")


@needs_verb("pause")
def test_pause_and_unpause(docker):
    container = docker.detached("", "sleep", "100")
    container.do("pause")
    assert container.inspect("State.Status") == "paused"
    container.do("unpause")
    assert container.inspect("State.Status") == "running"


@needs_verb("update")
def test_update_changes_limits(docker):
    container = docker.detached("--memory 64m --memory-swap 64m", "sleep", "100")
    container.do("update", "--memory", "32m", "--memory-swap", "32m", "--pids-limit", "33")
    folder = next(path for path in docker.cgroups.folders() if UNIFIED or "/memory/" in path)
    name = "memory.max" if UNIFIED else "memory.limit_in_bytes"
    with open(os.path.join(folder, name)) as file:
        assert file.read().strip() == str(32 << 20)


@needs_verb("ps")
def test_top_lists_the_processes(docker):
    container = docker.detached("", "sleep", "4321")
    assert "sleep 4321" in container.do("top")


def test_build_runs_its_steps_through_the_runtime(docker, workdir):
    with open(os.path.join(workdir, "Dockerfile"), "w") as file:
        file.write(f"FROM {IMAGE}\nRUN echo built > /made\n")
    env = {**docker.env, "DOCKER_BUILDKIT": "0"}
    argv = ["docker", "build", "--network", "none", "-q", workdir]
    image = subprocess.run(argv, env=env, capture_output=True, text=True, check=True, timeout=60)
    name = image.stdout.strip()
    try:
        assert docker.ok("run", "--rm", "--network", "none", name, "cat", "/made") == "built"
    finally:
        docker("rmi", name)
