"""`exec`: one more process in a container.

runtime-spec says nothing of exec; its command line is runc's, its process the document of
config.md, "Process".
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import termios
import time

import pytest

from tests.integration.support import (
    DROP,
    EVERY_CAPABILITY,
    MOUNTS,
    UNIFIED,
    cgroup_of,
    eventually,
    namespaces,
    needs_v1,
    needs_v2,
    only_ocirt,
    patched,
)
from tests.integration.test_seccomp import EHWPOISON, Agent
from tests.integration.test_terminal import ConsoleSocket, Screen

MAPS = {
    "uidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
    "gidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
}


class Exec:
    """A running container, and `exec` into it."""

    def __init__(self, runtime, bundle, workdir):
        self.runtime, self.bundle, self.workdir = runtime, bundle, workdir
        self.b = None

    def container(self, start=True, agent=None, **patch):
        first = Agent(agent) if agent else None
        self.b = self.bundle.sleeping(**patch)
        self.pid = self.runtime.create(self.b)
        if start:
            self.runtime.start(self.b)
        if first:
            assert eventually(lambda: first.state)
        return self.b

    def __call__(self, *args, options=(), **popen):
        if self.b is None:
            self.container()
        return self.runtime("exec", *options, self.b.id, *args, **popen)

    def prints(self, *args, options=(), **popen):
        result = self(*args, options=options, **popen)
        assert result.code == 0, str(result)
        return result.out.strip()

    def sh(self, script, *options, **popen):
        return self.prints("sh", "-c", script, options=options, **popen)

    def refuses(self, *args, options=(), saying="", ours="", **popen):
        """It must fail to start, with 255 and one sentence, and no process may be left."""
        if self.b is None:
            self.container()
        return self.runtime.refuses(
            "exec", *options, self.b.id, *args, saying=saying, ours=ours, code=255, **popen
        )

    def document(self, *args, **patch):
        """Write a process document: that of the config with `args`, patched; return its path."""
        if self.b is None:
            self.container()
        process = json.loads(json.dumps(self.b.config["process"]))
        if args:
            process["args"] = list(args)
        path = os.path.join(self.workdir, "process.json")
        with open(path, "w") as file:
            json.dump(patched(process, patch), file)
        return path

    def described(self, *args, options=(), **patch):
        """Run a process document; return the result."""
        path = self.document(*args, **patch)
        return self.runtime("exec", "--process", path, *options, self.b.id)

    def detached(self, *args, options=(), **popen):
        """exec --detach; return the pid, of a child of ours by now."""
        if self.b is None:
            self.container()
        path = os.path.join(self.workdir, "exec.pid")
        with open(self.out, "w") as out:
            result = self.runtime(
                "exec", "--detach", "--pid-file", path, *options, self.b.id, *args,
                stdout=out, stderr=out, **popen,
            )  # fmt: skip
        assert result.code == 0, str(result) + self.output()
        with open(path) as file:
            text = file.read()
        assert text == text.strip()
        return int(text)

    def orphans(self):
        """Reap what was left to us and has ended; return what still runs besides the init."""
        return {one for one in self.runtime.host.processes() if not one.startswith(f"{self.pid} ")}

    @property
    def out(self):
        return os.path.join(self.workdir, "exec.out")

    def output(self):
        with open(self.out) as file:
            return file.read()


@pytest.fixture
def execute(runtime, bundle, workdir):
    return Exec(runtime, bundle, workdir)


@pytest.fixture
def console(workdir):
    made = ConsoleSocket(f"{workdir}/console")
    yield made
    for fd in made.fds:
        with contextlib.suppress(OSError):
            os.close(fd)


def status_field(text, name):
    return next(line.split()[1] for line in text.splitlines() if line.startswith(name + ":"))


def mask(*names):
    numbers = {"CHOWN": 0, "KILL": 5, "SETUID": 7, "NET_BIND_SERVICE": 10, "AUDIT_WRITE": 29}
    return sum(1 << numbers[name] for name in names)


# --- streams and status


@pytest.mark.parametrize("code", [0, 1, 7, 126, 255])
def test_the_exit_code_is_the_programs(execute, code):
    assert execute("sh", "-c", f"exit {code}").code == code


@pytest.mark.parametrize("number", [9, 11, 15])
def test_a_signal_that_ended_the_program_is_told_by_the_exit_code(execute, number):
    assert execute("probe", "kill", str(number)).code == 128 + number


def test_the_streams_are_passed_on(execute):
    result = execute("sh", "-c", "cat; echo err >&2", input="some\ntext")
    assert (result.out, result.err) == ("some\ntext", "err\n")


def test_options_end_at_the_id(execute):
    assert execute.prints("echo", "-t", "--cwd", "/x", "-d") == "-t --cwd /x -d"


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        ("/nosuch", 'exec: "/nosuch": stat /nosuch: no such file or directory'),
        ("nosuch", 'exec: "nosuch": executable file not found in $PATH'),
        ("/etc/passwd", 'exec: "/etc/passwd": permission denied'),
        ("/etc", 'exec: "/etc": '),
    ],
)
def test_a_program_that_cannot_run_is_told_in_the_words_that_engines_know(
    execute, program, sentence
):
    result = execute.refuses(program, saying=sentence)
    if execute.runtime.is_ocirt:
        assert result.error.startswith("exec failed: ")


def test_an_unknown_container_is_told(runtime):
    result = runtime("exec", "nobody", "true")
    assert result.code in (1, 255)
    assert runtime.flavour == "crun" or "container does not exist" in result.error


def test_without_a_command_nothing_is_run(execute):
    execute.refuses(saying="args cannot be empty", ours="exec args")


def test_many_at_once(execute):
    execute.container()
    running = [
        subprocess.Popen(
            [execute.runtime.path, "--root", execute.runtime.root, "exec", execute.b.id,
             "sh", "-c", f"exit {number}"]
        )
        for number in range(8)
    ]  # fmt: skip
    assert [process.wait(20) for process in running] == list(range(8))


# --- where it is


def links(pid):
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
    return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in kinds}


NAMESPACES = {
    "usual": {"namespaces": namespaces("pid", "network", "ipc", "uts", "mount")},
    "every": {
        "namespaces": namespaces("pid", "network", "ipc", "uts", "mount", "cgroup", "user"),
        **MAPS,
    },
    "few": {"namespaces": namespaces("mount", "uts")},
    "cgroup": {"namespaces": namespaces("mount", "uts", "pid", "cgroup")},
}


@pytest.mark.parametrize("which", NAMESPACES)
def test_it_is_in_the_namespaces_and_cgroups_of_the_init(execute, which):
    execute.container(linux=NAMESPACES[which])
    pid = execute.detached("sleep", "1000")
    assert links(pid) == links(execute.pid)

    def cgroups(of):
        with open(f"/proc/{of}/cgroup") as file:
            return file.read()

    assert cgroups(pid) == cgroups(execute.pid)
    assert execute.b.id in cgroups(pid)
    os.kill(pid, signal.SIGKILL)
    execute.runtime.wait(execute.b, pid)


@only_ocirt("runc 1.1 and crun 1.8 have no time namespace")
def test_it_is_in_the_time_namespace_of_the_init(execute):
    spaces = namespaces("pid", "mount", "uts", "time", "ipc", "network")
    execute.container(linux={"namespaces": spaces, "timeOffsets": {"boottime": {"secs": 1 << 20}}})
    pid = execute.detached("sleep", "1000")
    assert links(pid) == links(execute.pid)
    os.kill(pid, signal.SIGKILL)
    execute.runtime.wait(execute.b, pid)
    assert float(execute.prints("cat", "/proc/uptime").split()[0]) > 1 << 20


def test_in_a_user_namespace_root_is_the_mapped_one(execute):
    execute.container(linux=NAMESPACES["every"])
    assert execute.sh("id -u; id -g; cat /proc/self/uid_map").split()[:3] == ["0", "0", "0"]
    pid = execute.detached("sleep", "1000")
    assert os.stat(f"/proc/{pid}").st_uid == 100000
    os.kill(pid, signal.SIGKILL)
    execute.runtime.wait(execute.b, pid)
    assert execute.sh("id -u", "--user", "1000:1000") == "1000"


@only_ocirt("runc and crun leave the process in the root of the machine")
def test_without_a_mount_namespace_it_is_in_the_root_filesystem(execute):
    execute.container(mounts=[], linux={"namespaces": namespaces("pid", "ipc", "uts")})
    execute.b.put("/only-here", "yes")
    assert execute.prints("cat", "/only-here") == "yes"
    assert execute("cat", "/proc/1/root/etc/shadow").code == 1


@only_ocirt("runc and crun do not change the root in a mount namespace that was joined")
def test_in_a_joined_mount_namespace_it_is_in_the_root_filesystem(execute, host):
    process = subprocess.Popen(["unshare", "-m", "sleep", "1000"])
    host.known.add(process.pid)
    try:
        own = os.readlink("/proc/self/ns/mnt")
        path = f"/proc/{process.pid}/ns/mnt"
        assert eventually(lambda: os.readlink(path) != own)
        execute.container(linux={"namespaces": namespaces("pid", mount=path)}, hostname=DROP)
        execute.b.put("/only-here", "yes")
        assert execute.prints("cat", "/only-here") == "yes"
        assert execute.sh("test -e /proc/self/root/etc/shadow || echo inside") == "inside"
    finally:
        execute.runtime("delete", "--force", execute.b.id)
        process.kill()
        process.wait()


def test_without_pivot_root_it_is_in_the_root_filesystem(runtime, bundle):
    b = bundle.sleeping()
    b.put("/only-here", "yes")
    runtime.started(b, "--no-pivot")
    assert runtime.ok("exec", b.id, "cat", "/only-here").out == "yes"


def test_the_session_keyring_is_the_containers(execute):
    lines = execute.prints("probe", "call", "keyctl", "6", "-3", "#80", "80").splitlines()
    if lines[0] in ("ENOSYS", "EPERM"):
        pytest.skip("no keyrings here")
    described = bytes.fromhex(lines[1]).rstrip(b"\0").decode()
    assert described.endswith(f";_ses.{execute.b.id}"), described


# --- options


def test_the_working_directory(execute):
    assert execute.prints("pwd") == "/"
    assert execute.prints("pwd", options=["--cwd", "/tmp"]) == "/tmp"


def test_a_working_directory_that_is_not_there_is_refused(execute):
    execute.refuses("pwd", options=["--cwd", "/nosuch"], saying="no such file or directory")
    assert not os.path.exists(execute.b.inside("/nosuch"))


def test_a_relative_working_directory_is_refused(execute):
    execute.refuses("pwd", options=["--cwd", "tmp"], saying="Cwd must be an absolute path")


@pytest.mark.parametrize("number", [3, 4, 5, 6, 7, 8, 9, 12, 15, 20])
def test_a_working_directory_through_a_descriptor_is_refused(execute, number):
    """CVE-2024-21626."""
    for path in (f"/proc/self/fd/{number}", f"/proc/self/fd/{number}/../.."):
        result = execute("true", options=["--cwd", path])
        assert result.code == 255, str(result)


def test_the_environment_is_the_configs_and_the_options(execute):
    execute.container(process={"env": ["PATH=/bin", "A=1", "B=1"]})
    found = execute.prints("probe", "self", options=["-e", "B=2", "-e", "C=3=3", "-e", "HOME=/h"])
    env = sorted(line[4:] for line in found.splitlines() if line.startswith("env "))
    assert env == ["A=1", "B=2", "C=3=3", "HOME=/h", "PATH=/bin"]


@pytest.mark.parametrize(("user", "home"), [("0", "/root"), ("1000", "/home/alice"), ("7", "/")])
def test_home_is_looked_up_in_the_container(execute, user, home):
    assert execute.sh("echo $HOME", "--user", user) == home


@only_ocirt("runc 1.1 takes a variable without a value from nowhere")
def test_a_variable_without_a_value_is_refused(execute):
    execute.refuses("true", options=["-e", "NOVALUE"], ours="invalid environment variable")


def test_the_user_and_the_groups(execute):
    execute.container(process={"user": {"uid": 0, "gid": 0, "additionalGids": [44]}})
    show = "id -u; id -g; id -G"
    assert execute.sh(show).split() == ["0", "0", "0", "44"]
    assert execute.sh(show, "--user", "1000").split() == ["1000", "0", "0", "44"]
    assert execute.sh(show, "-u", "1000:100").split() == ["1000", "100", "100", "44"]
    more = execute.sh(show, "-u", "5:6", "-g", "7", "-g", "8").split()
    assert more[:3] == ["5", "6", "6"]
    assert sorted(more[3:]) == ["44", "7", "8"]


@pytest.mark.parametrize("user", ["1000:", ":5", "abc", "1:b", "4294967295", "-1", "1:-1"])
def test_a_user_that_is_no_number_is_refused(execute, user):
    """CVE-2026-30892: nobody may become root by a slip of the pen."""
    execute.container()
    result = execute("id", options=[f"--user={user}"])
    assert result.code == 255, str(result)
    assert "uid=" not in result.out


@only_ocirt("runc 1.1 takes such a number for another one")
@pytest.mark.parametrize("user", ["4294967296", "0x10", "+5", " 5", "1_000", "1:2:3"])
def test_a_user_that_is_nearly_a_number_is_refused(execute, user):
    execute.refuses("id", options=[f"--user={user}"], ours="is not a number")


def test_a_user_whom_a_config_calls_minus_one_is_refused(runtime, bundle):
    """setresuid(2) would leave such a user as it is: root."""
    for field in ("uid", "gid"):
        b = bundle("id", process={"user": {"uid": 1, "gid": 1, field: (1 << 32) - 1}})
        result = runtime.run(b)
        assert result.code != 0, str(result)
        assert "uid=" not in result.out


def test_capabilities_are_the_configs(execute):
    text = execute.prints("cat", "/proc/self/status")
    usual = mask("AUDIT_WRITE", "KILL", "NET_BIND_SERVICE")
    for name, expected in (
        ("CapInh", 0), ("CapPrm", usual), ("CapEff", usual), ("CapBnd", usual), ("CapAmb", 0)
    ):  # fmt: skip
        assert int(status_field(text, name), 16) == expected, name


def test_a_capability_is_added_and_never_inheritable(execute):
    """CVE-2022-29162."""
    text = execute.prints("cat", "/proc/self/status", options=["--cap", "CAP_CHOWN"])
    more = mask("AUDIT_WRITE", "KILL", "NET_BIND_SERVICE", "CHOWN")
    for name, expected in (
        ("CapInh", 0), ("CapPrm", more), ("CapEff", more), ("CapBnd", more), ("CapAmb", 0)
    ):  # fmt: skip
        assert int(status_field(text, name), 16) == expected, name


def test_with_inheritable_ones_in_the_config_it_is_ambient_as_far_as_it_can(execute):
    few = ["CAP_KILL"]
    sets = dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), few)
    execute.container(process={"capabilities": sets})
    text = execute.prints(
        "cat", "/proc/self/status", options=["--cap", "CAP_CHOWN", "--user", "1000"]
    )
    assert int(status_field(text, "CapInh"), 16) == mask("KILL")
    assert int(status_field(text, "CapEff"), 16) == mask("KILL")
    assert int(status_field(text, "CapBnd"), 16) == mask("KILL", "CHOWN")


@only_ocirt("runc warns")
def test_an_unknown_capability_is_refused(execute):
    execute.refuses("true", options=["--cap", "CAP_FOO"], ours="unknown capability CAP_FOO")


@pytest.mark.parametrize("words", [(), ("--nope", "id", "true")], ids=["no words", "unknown flag"])
def test_a_wrong_command_line_is_no_failure_to_start(execute, words):
    """1, as for every verb: 255 tells callers that the process could not be started."""
    execute.container()
    assert execute.runtime("exec", *words).code == 1


def test_no_new_privileges(execute):
    execute.container(process={"noNewPrivileges": False})
    show = "grep NoNewPrivs /proc/self/status"
    assert execute.sh(show).split() == ["NoNewPrivs:", "0"]
    assert execute.sh(show, "--no-new-privs").split() == ["NoNewPrivs:", "1"]


def test_labels_that_nobody_would_enforce_are_refused(execute):
    if os.path.exists("/sys/fs/selinux/enforce"):
        pytest.skip("SELinux is on")
    execute.refuses("true", options=["--process-label", "a:b:c:s0"], saying="selinux")
    if not os.path.exists("/sys/kernel/security/apparmor"):
        execute.refuses("true", options=["--apparmor", "some"], saying="apparmor")


def test_limits_umask_score_and_scheduling_are_the_configs(execute):
    execute.container(
        process={
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 111, "hard": 222}],
            "oomScoreAdj": 321,
        }
    )
    found = execute.sh("ulimit -n; umask; cat /proc/self/oom_score_adj")
    assert found.split() == ["111", "0022", "321"]


@pytest.mark.parametrize("nnp", [False, True])
def test_the_filter_of_the_container_holds(execute, nnp):
    rule = {"names": ["mkdirat", "mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
    execute.container(
        process={"noNewPrivileges": nnp},
        linux={"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}},
    )
    assert execute.prints("probe", "call", "mkdirat", "-100", "@/x", "0755") == "ENOSYS"
    assert status_field(execute.prints("cat", "/proc/self/status"), "Seccomp") == "2"


def test_the_listener_of_the_container_gets_the_calls(execute, workdir):
    execute.container(
        linux={
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "listenerPath": f"{workdir}/agent",
                "listenerMetadata": "for the agent",
                "syscalls": [{"names": ["acct"], "action": "SCMP_ACT_NOTIFY"}],
            }
        },
        agent=f"{workdir}/agent",
    )
    os.unlink(f"{workdir}/agent")
    agent = Agent(f"{workdir}/agent")
    path = os.path.join(workdir, "exec.pid")
    result = execute("probe", "call", "acct", "0", options=["--pid-file", path])
    assert result.out.strip() == f"E{EHWPOISON}", str(result)
    agent.join(5)
    with open(path) as file:
        assert agent.state["pid"] == int(file.read())
    assert agent.state["state"]["id"] == execute.b.id
    assert agent.state["state"]["status"] == "running"
    if execute.runtime.is_ocirt:
        assert agent.state["state"]["pid"] == execute.pid


@only_ocirt("runc 1.1 knows no such field")
def test_the_affinity_of_the_config(execute):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs")
    execute.container(process={"execCPUAffinity": {"initial": "0", "final": "1"}})
    show = "grep Cpus_allowed_list /proc/self/status"
    assert execute.sh(show).split()[1] == "1"
    path = execute.document("sh", "-c", show, execCPUAffinity={"initial": "0", "final": DROP})
    assert execute.runtime.ok("exec", "-p", path, execute.b.id).out.split()[1] == "0"


@only_ocirt("runc 1.1 keeps the runtime's affinity")
def test_all_cpus_are_allowed_however_the_runtime_is_pinned(execute):
    execute.container()
    mine = os.sched_getaffinity(0)
    if len(mine) < 2:
        pytest.skip("needs two CPUs")
    os.sched_setaffinity(0, {min(mine)})
    try:
        text = execute.prints("cat", "/proc/self/status")
    finally:
        os.sched_setaffinity(0, mine)
    allowed = status_field(text, "Cpus_allowed").replace(",", "")
    assert int(allowed, 16).bit_count() >= len(mine)


def test_no_signal_is_blocked_or_ignored(execute):
    assert execute.prints("probe", "signals") == ""


# --- descriptors


def numbers(text):
    return [int(line.split()[0]) for line in text.splitlines()]


def test_only_the_three_streams_are_open(execute):
    with open("/etc/passwd") as file:
        os.set_inheritable(file.fileno(), True)
        if execute.runtime.flavour == "crun":
            pytest.skip("crun 1.8 passes on what it inherits beyond the preserved ones")
        assert numbers(execute.prints("probe", "fds", close_fds=False)) == [0, 1, 2]


@pytest.mark.parametrize("count", [1, 2])
def test_preserved_descriptors_are_passed_on_and_no_others(execute, workdir, count):
    execute.container()

    def place():
        for number in (3, 4, 5):
            fd = os.open("/etc/passwd", os.O_RDONLY)
            if fd != number:
                os.dup2(fd, number)
                os.close(fd)
            os.set_inheritable(number, True)

    found = execute.prints(
        "probe", "fds", options=["--preserve-fds", str(count)], close_fds=False, preexec_fn=place
    )
    assert numbers(found) == [0, 1, 2, *range(3, 3 + count)]


@only_ocirt("runc leaks descriptors of its own in this case")
def test_preserving_a_closed_descriptor_is_refused(execute):
    execute.refuses("true", options=["--preserve-fds", "1"], ours="descriptor 3 is not open")


@only_ocirt("runc leaves the machine's /dev/null open")
def test_the_null_device_is_the_containers(execute):
    device = execute.prints("stat", "-L", "-c", "%d", "/proc/self/fd/0")
    assert device == execute.prints("stat", "-c", "%d", "/dev/null")


def test_a_container_without_a_null_device_can_be_entered(execute):
    execute.sh("rm /dev/null; ln -s /etc/passwd /dev/null")
    assert execute.sh("echo in") == "in"


# --- detached


def test_detached_it_is_left_to_the_subreaper(execute):
    pid = execute.detached("sh", "-c", "echo hello; exit 5")
    assert execute.runtime.wait(execute.b, pid) == 5
    assert execute.output() == "hello\n"


def test_detached_the_program_runs_on(execute):
    pid = execute.detached("sleep", "1000")
    with open(f"/proc/{pid}/stat") as file:
        assert file.read().rpartition(")")[2].split()[1] == str(os.getpid())
    assert execute.runtime.status(execute.b) == "running"
    os.kill(pid, signal.SIGTERM)
    assert execute.runtime.wait(execute.b, pid) == 128 + signal.SIGTERM


def test_detached_a_program_that_cannot_run_fails_and_leaves_no_pid_file(execute, workdir):
    path = os.path.join(workdir, "exec.pid")
    execute.refuses("/nosuch", options=["--detach", "--pid-file", path], saying="no such file")
    assert not os.path.exists(path)


def test_in_the_foreground_there_is_a_pid_file_too(execute, workdir):
    path = os.path.join(workdir, "exec.pid")
    execute.container()
    process = execute.runtime.spawn(
        "exec", "--pid-file", path, execute.b.id, "sh", "-c", "exec sleep 1000"
    )
    assert eventually(lambda: os.path.exists(path))
    with open(path) as file:
        pid = int(file.read())
    assert links(pid) == links(execute.pid)
    os.kill(pid, signal.SIGKILL)
    assert process.wait(20) == 137


@only_ocirt("runc leaves the process")
def test_a_pid_file_that_cannot_be_written_ends_the_process(execute):
    before = None
    execute.container()
    before = sorted(os.listdir("/proc"))
    execute.refuses(
        "sleep", "1000", options=["--detach", "--pid-file", "/nosuch/pid"], ours="--pid-file"
    )
    assert before
    assert execute.sh("ps | grep -c '[s]leep 1000'") == "1"


def test_when_the_container_ends_so_does_the_process(execute):
    pid = execute.detached("sleep", "1000")
    execute.runtime.kill(execute.b, "KILL")
    assert execute.runtime.wait(execute.b, pid) == 137
    execute.runtime.wait(execute.b)
    execute.runtime.delete(execute.b)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_signals_are_forwarded_in_the_foreground(execute, number):
    execute.container()
    name = number.name.removeprefix("SIG")
    process = execute.runtime.spawn(
        "exec", execute.b.id, "sh", "-c",
        f"trap 'echo caught; exit 9' {name}; echo ready; while :; do usleep 9999; done",
        stdout=execute.out,
    )  # fmt: skip
    assert eventually(lambda: "ready" in execute.output())
    process.send_signal(number)
    assert process.wait(20) == 9
    assert "caught" in execute.output()


@only_ocirt("runc leaves the process behind")
def test_when_the_runtime_is_killed_the_process_ends(execute):
    execute.container()
    process = execute.runtime.spawn("exec", execute.b.id, "sleep", "4321")
    assert eventually(lambda: "sleep 4321" in execute.sh("ps"))
    process.kill()
    process.wait()
    assert eventually(lambda: not execute.orphans())


def test_the_pidfd_goes_to_its_socket(execute, workdir):
    if execute.runtime.flavour != "ocirt":
        pytest.skip("runc 1.1 and crun have no such option")
    listener = ConsoleSocket(f"{workdir}/pidfd")
    pid = execute.detached("sleep", "1000", options=["--pidfd-socket", listener.path])
    listener.join(20)
    assert listener.data == b"setns"
    (pidfd,) = listener.fds
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    assert execute.runtime.wait(execute.b, pid) == 137


# --- terminals


def test_a_terminal_over_the_console_socket(execute, console):
    pid = execute.detached(
        "sh", "-c", "tty; read line; echo got $line; stty size",
        options=["--tty", "--console-socket", console.path],
    )  # fmt: skip
    screen = console.master
    screen.type("words\n")
    assert "got words" in screen.rest()
    assert "/dev/pts/" in screen.seen
    assert execute.runtime.wait(execute.b, pid) == 0


def test_a_terminal_of_a_user_belongs_to_that_user(execute, console):
    pid = execute.detached(
        "sh", "-c", "stat -L -c '%u %g' /proc/self/fd/0; echo via > /dev/tty",
        options=["-t", "-u", "1000:1000", "--console-socket", console.path],
    )  # fmt: skip
    seen = console.master.rest()
    assert "1000 5" in seen
    assert "via" in seen
    execute.runtime.wait(execute.b, pid)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["-t", "-d"], "cannot allocate tty if {} will detach without setting console socket"),
        (["--console-socket", "/x", "-d"],
         "cannot use console socket if {} will not detach or allocate tty"),
        (["--console-socket", "/x", "-t"],
         "cannot use console socket if {} will not detach or allocate tty"),
    ],
)  # fmt: skip
def test_a_terminal_and_a_socket_must_fit(execute, options, sentence):
    result = execute.refuses("true", options=options)
    if execute.runtime.flavour != "crun":
        assert result.error.endswith((sentence.format("runc"), sentence.format("ocirt")))


def on_terminal(execute, *args):
    """Run `exec -t` on a terminal of ours; return (exit code, what was seen)."""
    execute.container()
    master, slave = pty.openpty()
    screen = Screen(master)
    screen.resize(21, 61)
    before = termios.tcgetattr(slave)
    process = execute.runtime.spawn(
        "exec", "-t", execute.b.id, *args,
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    end = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < end:
        if select.select([master], [], [], 0.05)[0]:
            screen.read()
    while select.select([master], [], [], 0)[0] and screen.read():
        pass
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)
    return process.returncode, screen.seen


def test_a_terminal_in_the_foreground(execute):
    code, seen = on_terminal(execute, "sh", "-c", "tty; usleep 100000; stty size; exit 4")
    assert code == 4
    assert "/dev/pts/0" in seen
    assert "21 61" in seen


def test_a_terminal_is_put_back_when_the_program_cannot_run(execute):
    code, seen = on_terminal(execute, "/nosuch")
    assert code == 255
    assert "no such file or directory" in seen or execute.runtime.flavour == "crun"


@only_ocirt("runc 1.1 asks for a terminal of its own only after the process was made")
def test_a_terminal_without_a_terminal_of_ours_is_refused(execute):
    execute.refuses(
        "sleep", "4321", options=["-t"], ours="open /dev/tty: no such device or address",
        start_new_session=True,
    )  # fmt: skip
    assert "4321" not in execute.sh("ps")


# --- the process document


def test_a_document_replaces_the_process(execute):
    result = execute.described(
        "sh", "-c", "id -u; id -g; pwd; echo $A; umask",
        user={"uid": 1000, "gid": 100, "umask": 0o77}, cwd="/tmp", env=["PATH=/bin", "A=b"],
    )  # fmt: skip
    assert result.code == 0, str(result)
    assert result.out.split()[:4] == ["1000", "100", "/tmp", "b"]
    if execute.runtime.is_ocirt:
        assert result.out.split()[4] == "0077"


def test_a_document_may_ask_for_more_than_the_container_has(execute):
    """docker exec --privileged."""
    sets = dict.fromkeys(("bounding", "effective", "permitted"), EVERY_CAPABILITY)
    result = execute.described("cat", "/proc/self/status", capabilities=sets)
    full = int(status_field(result.out, "CapEff"), 16)
    assert full.bit_count() == len(EVERY_CAPABILITY)
    assert int(status_field(result.out, "CapInh"), 16) == 0


def test_a_document_without_capabilities_has_the_containers(execute):
    result = execute.described("cat", "/proc/self/status", capabilities=DROP)
    assert int(status_field(result.out, "CapEff"), 16) == mask(
        "AUDIT_WRITE", "KILL", "NET_BIND_SERVICE"
    )


def test_a_document_that_asks_for_a_terminal(execute, console):
    path = execute.document("tty", terminal=True)
    pid_file = os.path.join(execute.workdir, "exec.pid")
    options = ["--process", path, "--detach", "--pid-file", pid_file]
    options += ["--console-socket", console.path]
    execute.runtime.ok("exec", *options, execute.b.id)
    assert "/dev/pts/" in console.master.rest()
    with open(pid_file) as file:
        execute.runtime.wait(execute.b, int(file.read()))


@pytest.mark.parametrize(
    ("patch", "saying"),
    [
        ({"cwd": "tmp"}, "Cwd must be an absolute path"),
        ({"args": []}, "args must not be empty"),
        ({"args": DROP}, "args must not be empty"),
    ],
)
def test_a_document_that_makes_no_sense_is_refused(execute, patch, saying):
    path = execute.document(**patch)
    execute.runtime.refuses("exec", "-p", path, execute.b.id, saying=saying, code=255)


@only_ocirt("runc reads what is not there as nothing")
@pytest.mark.parametrize(
    ("patch", "ours"),
    [
        ({"cwd": ""}, "process.cwd: Cwd property must not be empty"),
        ({"cwd": DROP}, "process.cwd: missing"),
        ({"args": [""]}, "process.args[0]: is empty"),
        ({"user": {"uid": "0"}}, "process.user.uid: expected an integer"),
        ({"user": {"uid": (1 << 32) - 1}}, "process.user.uid: 4294967295 is no uid"),
        ({"noNewPrivileges": "false"}, "process.noNewPrivileges: expected true or false"),
        ({"env": ["A"]}, "process.env[0]: invalid environment variable"),
        ({"env": ["A=\0"]}, "holds a NUL"),
        ({"rlimits": [{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}]}, "above the hard limit"),
        ({"oomScoreAdj": 1001}, "process.oomScoreAdj"),
        ({"execCPUAffinity": {"final": "x"}}, "process.execCPUAffinity.final"),
        ({"capabilities": {"effective": ["CAP_X"]}}, "unknown capability CAP_X"),
    ],
)
def test_a_document_with_a_fault_is_refused_by_its_place(execute, patch, ours):
    path = execute.document("id", **patch)
    execute.runtime.refuses("exec", "-p", path, execute.b.id, ours=ours, code=255)


@pytest.mark.parametrize("text", ["", "{", "[]", "nonsense", '{"args": ['])
def test_a_document_that_is_none_is_refused(execute, text):
    path = execute.document()
    with open(path, "w") as file:
        file.write(text)
    assert execute.runtime("exec", "-p", path, execute.b.id).code == 255


HOSTILE = {
    "fifo": os.mkfifo,
    "directory": os.mkdir,
    "zeros": lambda path: os.symlink("/dev/zero", path),
    "loop": lambda path: os.symlink(os.path.basename(path), path),
    "huge": lambda path: write(path, b'{"x": "' + b"y" * (20 << 20) + b'"}'),
    "deep": lambda path: write(path, b'{"args":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "not-utf-8": lambda path: write(path, b'{"args": ["\xff\xfe"]}'),
    "huge-number": lambda path: write(path, b'{"user": {"uid": 1' + b"0" * 5000 + b"}}"),
}


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)


@only_ocirt("runc waits for a writer, reads zeros until memory is full, and takes bytes for text")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_document_is_refused(execute, workdir, name):
    execute.container()
    path = os.path.join(workdir, "hostile")
    HOSTILE[name](path)
    result = execute.runtime.refuses("exec", "-p", path, execute.b.id, ours=path, code=255)
    assert len(result.error) < 1000
    assert execute.sh("echo alive") == "alive"


def test_a_document_may_come_through_a_pipe(execute):
    """As a shell makes one of <(...)."""
    with open(execute.document("echo", "through"), "rb") as file:
        text = file.read()
    read, end = os.pipe()
    os.write(end, text)
    os.close(end)
    argv = ["exec", "-p", f"/dev/fd/{read}", execute.b.id]
    result = execute.runtime(*argv, pass_fds=[read])
    os.close(read)
    assert result.code == 0, str(result)
    assert result.out == "through\n"


WRONG = [
    ("args", "true"),
    ("args", [1]),
    ("args", {"0": "true"}),
    ("env", "A=b"),
    ("cwd", 1),
    ("cwd", ["/"]),
    ("user", "root"),
    ("user.uid", -1),
    ("user.uid", 1.5),
    ("user.gid", 1 << 32),
    ("user.additionalGids", "5"),
    ("user.additionalGids", [-5]),
    ("terminal", "true"),
    ("noNewPrivileges", 1),
    ("capabilities", ["CAP_KILL"]),
    ("rlimits", {}),
    ("consoleSize", [24, 80]),
]


@pytest.mark.parametrize(("place", "value"), WRONG, ids=[f"{p}={v}" for p, v in WRONG])
def test_a_wrong_type_in_a_document_is_refused(execute, place, value):
    first, _, rest = place.partition(".")
    path = execute.document("true", **{first: {rest: value} if rest else value})
    execute.runtime.refuses("exec", "-p", path, execute.b.id, ours=f"process.{place}", code=255)


def test_a_document_with_odd_but_honest_values(execute):
    execute.container()
    result = execute.described(
        "sh", "-c", 'echo "$A"; echo $HOME; id -u; pwd',
        env=["PATH=/bin", "A==b=c\n"], user={"uid": 54321, "gid": 0}, cwd="/../../tmp/../tmp",
    )  # fmt: skip
    assert result.code == 0, str(result)
    assert result.out == "=b=c\n\n/\n54321\n/tmp\n"


def test_a_document_that_is_missing_is_refused(execute):
    execute.container()
    execute.runtime.refuses(
        "exec", "-p", "/nosuch.json", execute.b.id, saying="no such file or directory", code=255
    )


# --- states


def test_a_created_container_can_be_entered(execute):
    execute.container(start=False)
    assert execute.sh("echo in; hostname").split() == ["in", "box"]
    assert execute.runtime.status(execute.b) == "created"
    execute.runtime.start(execute.b)
    assert execute.runtime.status(execute.b) == "running"


def test_a_stopped_container_cannot_be_entered(execute):
    execute.container()
    execute.runtime.kill(execute.b, "KILL")
    execute.runtime.wait(execute.b)
    execute.refuses("true", saying="cannot exec in a stopped container")


def test_an_init_that_is_a_zombie_cannot_be_entered(execute):
    execute.container()
    execute.runtime.kill(execute.b, "KILL")
    assert eventually(lambda: execute.runtime.status(execute.b) == "stopped")
    execute.refuses("true", saying="cannot exec in a stopped container")
    execute.runtime.wait(execute.b)


def freeze(b, yes):
    if UNIFIED:
        path, text = f"{cgroup_of(b, '')}/cgroup.freeze", "1" if yes else "0"
    else:
        path, text = f"{cgroup_of(b, 'freezer')}/freezer.state", "FROZEN" if yes else "THAWED"
    with open(path, "w") as file:
        file.write(text)


@pytest.fixture
def frozen(execute):
    execute.container()
    freeze(execute.b, True)
    assert eventually(lambda: execute.runtime.status(execute.b) == "paused")
    yield execute
    freeze(execute.b, False)


def test_a_paused_container_cannot_be_entered(frozen):
    sentence = "cannot exec in a paused container"
    frozen.refuses("true", saying=sentence, ours="use --ignore-paused to override")


def test_a_paused_container_can_be_entered_by_who_waits(frozen):
    if frozen.runtime.flavour == "crun":
        pytest.skip("crun has no such option")
    process = frozen.runtime.spawn(
        "exec", "--ignore-paused", frozen.b.id, "echo", "through", stdout=frozen.out
    )
    time.sleep(0.5)
    assert process.poll() is None
    assert frozen.output() == ""
    freeze(frozen.b, False)
    assert process.wait(20) == 0
    assert frozen.output() == "through\n"


@only_ocirt("runc 1.1 waits for the thaw")
def test_who_waits_for_a_paused_container_may_give_up(frozen):
    process = frozen.runtime.spawn("exec", "--ignore-paused", frozen.b.id, "sleep", "4321")
    time.sleep(0.5)
    process.terminate()
    assert process.wait(20) == -signal.SIGTERM
    freeze(frozen.b, False)
    assert eventually(lambda: not frozen.orphans())


# --- cgroups


@pytest.fixture
def nested(execute):
    """A container with a cgroup `sub/below` in each hierarchy."""
    execute.container()
    tops = ["/sys/fs/cgroup"] if UNIFIED else [
        f"/sys/fs/cgroup/{name}" for name in os.listdir("/sys/fs/cgroup")
    ]  # fmt: skip
    for top in tops:
        path = f"{top}/ocirt-test/{execute.b.id}"
        if os.path.isdir(path):
            os.makedirs(f"{path}/sub/below", exist_ok=True)
            for each in ("sub", "sub/below"):
                for name in ("cpuset.cpus", "cpuset.mems"):
                    if os.path.exists(f"{path}/{each}/{name}") and not UNIFIED:
                        with open(f"{path}/{name}") as source:
                            value = source.read()
                        with open(f"{path}/{each}/{name}", "w") as file:
                            file.write(value)
    return execute


def cgroups_of(text):
    found = dict(line.split(":", 2)[1:] for line in text.splitlines())
    # A hybrid machine's v1 hierarchies may be there and out of sight.
    return {"": found[""]} if UNIFIED else found


@pytest.mark.parametrize("path", ["sub", "/sub", "sub/below/", "sub/../sub", "/"])
def test_a_cgroup_below_the_containers(nested, path):
    found = cgroups_of(nested.prints("cat", "/proc/self/cgroup", options=["--cgroup", path]))
    own = f"/ocirt-test/{nested.b.id}"
    expected = os.path.normpath(f"{own}/{path}")
    assert set(found.values()) == {expected}


@needs_v1
def test_a_cgroup_for_single_controllers(nested):
    options = ["--cgroup", "pids,memory:sub", "--cgroup", "cpu:/sub/below"]
    found = cgroups_of(nested.prints("cat", "/proc/self/cgroup", options=options))
    own = f"/ocirt-test/{nested.b.id}"
    for controllers, path in found.items():
        names = set(controllers.split(","))
        expected = own
        if names & {"pids", "memory"}:
            expected += "/sub"
        elif "cpu" in names:
            expected += "/sub/below"
        assert path == expected, controllers


@pytest.mark.parametrize("path", ["..", "../x", "sub/../.."])
def test_a_cgroup_outside_is_refused(nested, path):
    nested.refuses("true", options=["--cgroup", path], saying="is not a sub cgroup path")


def test_a_cgroup_that_is_not_there_is_refused(nested):
    nested.refuses("true", options=["--cgroup", "nosuch"], saying="no such file or directory")


def test_a_misworded_cgroup_is_refused(nested):
    nested.refuses("true", options=["--cgroup", "whaaat:/"], saying="unknown controller")
    nested.refuses("true", options=["--cgroup", "a", "--cgroup", "b"], saying="--cgroup")
    if nested.runtime.is_ocirt:
        nested.refuses("true", options=["--cgroup", ":/sub"], ours="empty <controller> prefix")


@needs_v2
def test_where_the_cgroup_hands_controllers_down_it_goes_where_the_init_went(nested):
    own = cgroup_of(nested.b, "")
    with open(f"{own}/sub/cgroup.procs", "w") as file:
        file.write(str(nested.pid))
    with open("/sys/fs/cgroup/cgroup.controllers") as file:
        one = file.read().split()[-1]
    with open(f"{own}/cgroup.subtree_control", "w") as file:
        file.write(f"+{one}")
    found = cgroups_of(nested.prints("cat", "/proc/self/cgroup"))
    assert found[""].endswith("/sub")
    nested.refuses("true", options=["--cgroup", "/"], saying="device or resource busy")


@needs_v2
@only_ocirt("runc 1.1 leaves the cgroup to the machine's root")
@pytest.mark.parametrize("divided", [False, True], ids=["whole", "divided"])
def test_a_cgroup_that_belongs_to_the_containers_root(execute, divided):
    mount = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}
    execute.container(linux=NAMESPACES["every"], more_mounts=[mount])
    own = cgroup_of(execute.b, "")
    assert os.stat(own).st_uid == 100000
    if divided:
        with open("/sys/fs/cgroup/cgroup.controllers") as file:
            one = file.read().split()[-1]
        move = "for pid in 1 0; do echo $pid > i/cgroup.procs; done"
        execute.sh(f"cd /sys/fs/cgroup; mkdir i; {move}; echo +{one} > cgroup.subtree_control")
    found = cgroups_of(execute.prints("cat", "/proc/self/cgroup"))
    assert found[""] == ("/i" if divided else "/")


# --- the escapes that runtimes have known


def blocked(path):
    """Listen at a socket, and fill its queue: who connects next has to wait."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(0)
    first = socket.socket(socket.AF_UNIX)
    first.connect(path)
    return listener, first


def started_halfway(execute, path, *options):
    """Spawn an exec that its caller holds by a blocked socket, once the process is inside."""
    process = execute.runtime.spawn(
        "exec", "--pidfd-socket", path, *options, execute.b.id, "sleep", "4321"
    )
    assert eventually(lambda: execute.runtime.host.grandchildren(process.pid))
    return process


@only_ocirt("needs --pidfd-socket to hold the process half-way")
@pytest.mark.parametrize("options", [(), ("--detach",)], ids=["foreground", "detached"])
def test_when_the_runtime_dies_halfway_no_process_is_left(execute, workdir, options):
    execute.container()
    listener, first = blocked(f"{workdir}/pidfd")
    with listener, first:
        process = started_halfway(execute, f"{workdir}/pidfd", *options)
        process.kill()
        process.wait()
        assert eventually(lambda: not execute.orphans())


@only_ocirt("needs --pidfd-socket to hold the process half-way")
def test_when_the_container_ends_halfway_exec_says_so(execute, workdir):
    execute.container()
    listener, first = blocked(f"{workdir}/pidfd")
    with listener, first:
        process = started_halfway(execute, f"{workdir}/pidfd")
        os.kill(execute.pid, signal.SIGKILL)
        listener.setblocking(False)

        def ended():
            # It may see the end before it comes to the socket.
            with contextlib.suppress(BlockingIOError):
                listener.accept()[0].close()
            return process.poll() is not None

        assert eventually(ended)
        assert process.returncode in (137, 255)


@only_ocirt("needs --pidfd-socket to hold the process half-way")
@pytest.mark.parametrize("which", ["usual", "every"])
def test_a_process_on_its_way_in_gives_nothing_away(execute, workdir, which):
    """CVE-2016-9962, CVE-2019-5736: what the container sees of it before it has become its own."""
    few = ["CAP_KILL", "CAP_SETUID"]
    sets = {"bounding": few, "effective": few, "permitted": few}
    execute.container(linux=NAMESPACES[which], process={"capabilities": sets})
    path = f"{workdir}/pidfd"
    listener, first = blocked(path)
    with listener, first:
        # In there already, with all the rights that it will lose, and held there by us.
        process = execute.runtime.spawn("exec", "--pidfd-socket", path, execute.b.id, "sleep", "0")

        def held():
            text = execute.sh(
                "for d in /proc/[0-9]*; do"
                " grep -q [o]cirt-init $d/cmdline 2>/dev/null && echo ${d#/proc/}; done; true"
            )
            return text.split()

        pids = eventually(held)
        assert len(pids) == 1, pids
        pid = pids[0]
        attack = execute.sh(
            f"cd /proc/{pid}; "
            "for f in fdinfo map_files; do ls $f 2>/dev/null | grep . && echo seen; done; "
            "for f in exe root cwd fd/0 fd/3 fd/4 ns/mnt; do readlink $f && echo followed; done; "
            "for f in mem environ auxv maps io; do cat $f 2>/dev/null | grep -q . && echo read $f;"
            " done; "
            f"probe open /proc/{pid}/exe w; probe open /proc/{pid}/exe rw; "
            f"probe open /proc/{pid}/mem rw; "
            f"probe call ptrace 16 {pid} 0 0; probe call ptrace 16902 {pid} 0 0"
        )
        assert set(attack.split()) <= {"EACCES", "EPERM", "EIO"}, attack
        assert attack.split().count("EPERM") >= 2
        listener.settimeout(20)
        for _ in range(2):
            listener.accept()[0].close()
        assert process.wait(20) in (0, 255)


def test_descriptors_of_the_machine_do_not_leak_while_it_enters(execute):
    """CVE-2016-9962: a container's root looks at every process that comes."""
    watch = (
        "while :; do for d in /proc/[0-9]*; do for n in 3 4 5 6 7 8 9 10 11 12; do"
        " t=$(readlink $d/fd/$n) && case $t in"
        " /proc*|/bin/*|/etc/*|*/exec.out) ;; *) echo $t $d;; esac; done; done; done 2>/dev/null"
    )
    execute.container()
    watcher = execute.detached("sh", "-c", watch)
    for _ in range(25):
        assert execute("sh", "-c", "exit 3").code == 3
    os.kill(watcher, signal.SIGKILL)
    execute.runtime.wait(execute.b, watcher)
    assert [line for line in execute.output().splitlines() if line.startswith("/")] == []


@pytest.mark.parametrize("program", ["/proc/self/exe", "/evil"])
def test_the_runtime_cannot_be_reached_by_what_it_executes(execute, program):
    """CVE-2019-5736: the container makes its program a link to, or an interpreter of, us."""
    execute.container()
    if program == "/evil":
        execute.b.put("/evil", "#!/proc/self/exe\n", 0o755)
    before = os.stat(execute.runtime.path).st_mtime_ns
    result = execute(program)
    assert result.code != 0 or execute.runtime.flavour != "ocirt"
    assert os.stat(execute.runtime.path).st_mtime_ns == before


@only_ocirt("runc cannot do without a /proc")
def test_a_proc_that_is_none_does_not_swallow_the_labels(execute):
    """CVE-2019-16884, CVE-2025-52881: what the container mounts on its /proc is not asked."""
    mounts = [mount for mount in MOUNTS if mount["destination"] != "/proc"]
    execute.container(mounts=mounts)
    execute.b.put("/proc/self/attr/exec", "")
    assert execute.sh("echo in") == "in"
    with open(execute.b.inside("/proc/self/attr/exec")) as file:
        assert file.read() == ""


def test_a_pts_that_is_none_is_not_taken_for_a_terminal(execute, console):
    """CVE-2025-52565's kin: the multiplexer must be that of a devpts."""
    mounts = [mount for mount in MOUNTS if mount["destination"] not in ("/dev/pts", "/dev")]
    execute.container(mounts=mounts)
    os.makedirs(execute.b.inside("/dev/pts"), exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.symlink("/etc/passwd", execute.b.inside("/dev/pts/ptmx"))
    result = execute("true", options=["-t", "-d", "--console-socket", console.path])
    assert result.code == 255, str(result)


@only_ocirt("the test knows our state")
def test_another_process_with_the_inits_number_is_not_entered(execute):
    """A record whose pid has been given to somebody else."""
    execute.container()
    path = os.path.join(execute.runtime.root, execute.b.id, "state.json")
    with open(path) as file:
        text = file.read()
    record = json.loads(text)
    with open(path, "w") as file:
        json.dump({**record, "pid": os.getpid()}, file)
    execute.refuses("true", saying="cannot exec in a stopped container")
    with open(path, "w") as file:
        file.write(text)


def test_a_resize_is_an_ioctl_away(execute, console):
    pid = execute.detached(
        "sh", "-c", "trap 'stty size; exit 0' WINCH; echo ready; while :; do usleep 9999; done",
        options=["-t", "--console-socket", console.path],
    )  # fmt: skip
    screen = console.master
    screen.until("ready")
    fcntl.ioctl(screen.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 34, 0, 0))
    assert "12 34" in screen.rest()
    execute.runtime.wait(execute.b, pid)
