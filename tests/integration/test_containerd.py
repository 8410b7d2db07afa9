"""containerd drives the runtime by its shim: `ctr run`, task by task."""

from __future__ import annotations

import concurrent.futures
import json
import os
import subprocess

import pytest

from tests.integration import engines
from tests.integration.support import UNIFIED, eventually, find_runtime

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

    def command(self, name, *args, options=("--rm",), runtime=RUNTIME):
        """Return the arguments of `ctr run` for the plain root file system."""
        group = f"/{self.cgroups.name}/{name}"
        flags = ("--runc-binary", runtime, "--cgroup", group, "--env", "PATH=/bin", "--rootfs")
        return ("run", *flags, *options, self.rootfs, name, *args)

    def run(self, name, *args, options=("--rm",), **popen):
        return self(*self.command(name, *args, options=options), **popen)

    def ok(self, *args, **popen):
        """Run a command that must succeed; return its output, stripped."""
        result = self(*args, **popen)
        assert result.code == 0, str(result)
        return result.out.strip()

    def detached(self, name, *args, options=(), **how):
        self.ok(*self.command(name, *args, options=("--detach", *options), **how))

    def exec(self, name, *args, options=()):
        return self("tasks", "exec", "--exec-id", "x1", *options, name, *args)

    def status(self, name):
        """Return the status of a task in ctr's words."""
        rows = [row.split() for row in self.ok("tasks", "ls").splitlines()]
        return next((row[2] for row in rows if row[0] == name), None)


@pytest.fixture(scope="session")
def daemon(base):
    folder = os.path.join(base, "containerd")
    with engines.serving(Ctr(folder, "containerd", RUNTIME)) as containerd:
        yield containerd


ctr = engines.lent("daemon")


# ctr may lose what a program says that ends at once (engines.SAYS).
THERE = ("sh", "-c", "echo there; sleep 1")


def open_and_read(path):
    with open(path) as file:
        return file.read()


def word(text, field):
    """Return a field of /proc/PID/status."""
    return next(line.split()[1] for line in text.splitlines() if line.startswith(field + ":"))


# --- the program


def test_run_prints_what_the_program_prints(ctr):
    result = ctr.run("c1", "echo", "hi")
    assert (result.out, result.code) == ("hi\n", 0), str(result)
    assert engines.gone(ctr.cgroups.folders) == []


@pytest.mark.parametrize("code", [1, 42, 255])
def test_the_exit_code_is_the_programs(ctr, code):
    assert ctr.run("c1", "sh", "-c", f"exit {code}").code == code


def test_stdout_and_stderr_stay_apart(ctr):
    result = ctr.run("c1", "sh", "-c", "echo out; echo err >&2")
    assert (result.out, result.err) == ("out\n", "err\n")


def test_piped_stdin_reaches_the_program(ctr):
    assert ctr.run("c1", "head", "-n", "1", input="one\ntwo\n").out == "one\n"


def test_a_terminal_has_its_size_and_its_name(ctr):
    script = 'tty; until test "$(stty size 2> /dev/null)" = "33 111"; do :; done; exit 7'
    command = ctr.command("c1", "sh", "-c", script, options=("--rm", "--tty"))
    result = engines.on_terminal(ctr.argv(*command), env=ctr.env, rows=33, columns=111)
    assert result.out.split() == ["/dev/pts/0"]
    assert result.code == 7


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("/nosuch", 'exec: "/nosuch": stat /nosuch: no such file or directory'),
        ("nosuch", 'exec: "nosuch": executable file not found in $PATH'),
        ("/etc/passwd", 'exec: "/etc/passwd": permission denied'),
    ],
)
def test_a_program_that_cannot_start_is_named(ctr, program, text):
    result = ctr.run("c1", program)
    assert result.code == 1
    assert text in result.err
    assert engines.gone(ctr.leftovers) == []


# --- limits, devices, rights


def limit(ctr, name, v1, v2):
    controller, _, file = v1.partition("/")
    place = f"{ctr.cgroups.name}/{name}"
    path = f"{place}/{v2}" if UNIFIED else f"{controller}/{place}/{file}"
    return open_and_read(f"/sys/fs/cgroup/{path}").split()[0]


def test_limits_stand_in_the_containers_cgroup(ctr):
    options = ("--memory-limit", str(64 << 20), "--cpus", "0.5")
    ctr.detached("c1", "sleep", "1000", options=options)
    assert limit(ctr, "c1", "memory/memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert limit(ctr, "c1", "cpu/cpu.cfs_quota_us", "cpu.max") == "50000"


def test_stats_count_memory_and_processes(ctr):
    ctr.detached("c1", "sh", "-c", "sleep 1000 & sleep 1000")
    # A line for each below one of titles: the shell has become the second.
    assert eventually(lambda: len(ctr.ok("tasks", "ps", "c1").splitlines()) == 3)
    text = ctr.ok("tasks", "metrics", "--format", "json", "c1")
    pids = json.loads(text)["pids"]
    assert int(pids["current"]) == 2


def test_running_out_of_memory_is_reported(ctr, workdir):
    path = os.path.join(workdir, "events")
    with open(path, "w") as file:
        events = subprocess.Popen(ctr.argv("events"), stdout=file)
    try:
        # What it tells of another container is the sign that it listens.
        assert eventually(lambda: ctr.run("c1", "true") and open_and_read(path))
        options = ("--rm", "--memory-limit", str(16 << 20))
        command = ("dd", "if=/dev/zero", "of=/dev/null", "bs=64M")
        assert ctr.run("c2", *command, options=options).code == 137
        assert eventually(lambda: '/tasks/oom {"container_id":"c2"}' in open_and_read(path))
    finally:
        events.terminate()
        events.wait()


def test_a_volume_is_shared_with_the_host(ctr, workdir):
    mount = f"type=bind,src={workdir},dst=/mnt,options=rbind:rw"
    result = ctr.run("c1", "touch", "/mnt/file", options=("--rm", "--mount", mount))
    assert result.code == 0, str(result)
    assert os.path.exists(os.path.join(workdir, "file"))


def test_a_device_is_there_and_opens(ctr):
    if not os.path.exists("/dev/fuse"):
        pytest.skip("this machine has no /dev/fuse")
    script = "stat -c %t:%T /dev/fuse; exec 3<> /dev/fuse; echo ok"
    result = ctr.run("c1", "sh", "-c", script, options=("--rm", "--device", "/dev/fuse"))
    assert result.out == "a:e5\nok\n", str(result)


def test_privileged(ctr):
    result = ctr.run("c1", "cat", "/proc/self/status", options=("--rm", "--privileged"))
    assert word(result.out, "CapEff") == word(open_and_read("/proc/self/status"), "CapEff")


def test_capabilities_dropped_and_added(ctr):
    options = ("--rm", "--cap-drop", "CAP_CHOWN", "--cap-add", "CAP_SYS_PTRACE")
    found = int(word(ctr.run("c1", "cat", "/proc/self/status", options=options).out, "CapEff"), 16)
    assert (found & 1, found >> 19 & 1) == (0, 1)


def test_seccomp_by_default_and_unconfined(ctr):
    show = ("cat", "/proc/self/status")
    assert word(ctr.run("c1", *show).out, "Seccomp") == "0"
    assert word(ctr.run("c1", *show, options=("--rm", "--seccomp")).out, "Seccomp") == "2"


def test_a_container_joins_anothers_namespaces(ctr):
    ctr.detached("c1", "sleep", "1000")
    pid = next(row.split()[1] for row in ctr.ok("tasks", "ls").splitlines()[1:])
    options = ("--rm", "--with-ns", f"network:/proc/{pid}/ns/net")
    result = ctr.run("c2", "readlink", "/proc/self/ns/net", options=options)
    assert result.out.strip() == os.readlink(f"/proc/{pid}/ns/net")


# --- the life of a task


def test_a_task_is_started_killed_and_deleted(ctr):
    ctr.detached("c1", "sleep", "1000")
    assert ctr.status("c1") == "RUNNING"
    ctr.ok("tasks", "kill", "-s", "KILL", "c1")
    assert eventually(lambda: ctr.status("c1") == "STOPPED")
    ctr.ok("tasks", "delete", "c1")
    assert engines.gone(ctr.leftovers) == []


def test_pause_and_unpause(ctr):
    ctr.detached("c1", "sleep", "1000")
    ctr.ok("tasks", "pause", "c1")
    assert ctr.status("c1") == "PAUSED"
    ctr.ok("tasks", "resume", "c1")
    assert ctr.status("c1") == "RUNNING"
    assert ctr.exec("c1", *THERE).out == "there\n"


def test_top_lists_the_processes(ctr):
    ctr.detached("c1", "sleep", "1000")
    pid = next(row.split()[1] for row in ctr.ok("tasks", "ls").splitlines()[1:])
    assert ctr.ok("tasks", "ps", "c1").splitlines()[1].split()[0] == pid


def test_exec_runs_another_program(ctr):
    ctr.detached("c1", "sleep", "1000")
    result = ctr.exec("c1", "sh", "-c", "pwd; whoami; exit 6", options=("--cwd", "/tmp"))
    assert (result.out.split(), result.code) == (["/tmp", "root"], 6)
    assert ctr.exec("c1", "id", "-u", options=("--user", "1000")).out == "1000\n"
    result = ctr.exec("c1", "/nosuch")
    assert result.code == 1
    assert "no such file or directory" in result.err
    argv = ctr.argv("tasks", "exec", "--exec-id", "x2", "--tty", "c1", "tty")
    assert "/dev/pts/" in engines.on_terminal(argv, env=ctr.env).out


def test_a_container_is_removed_while_an_exec_runs(ctr):
    ctr.detached("c1", "sleep", "1000")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(ctr.exec, "c1", "sleep", "4711")
        assert eventually(lambda: "x1" in ctr.ok("tasks", "ps", "c1"))
        ctr.ok("tasks", "kill", "-s", "KILL", "c1")
        assert running.result().code == 137
    assert eventually(lambda: ctr.status("c1") == "STOPPED")
    ctr.ok("tasks", "delete", "c1")
    assert engines.gone(ctr.leftovers) == []


def test_the_engine_restarts_under_running_containers(ctr):
    ctr.detached("c1", "sleep", "1000")
    ctr.detached("c2", "sh", "-c", "usleep 500000; exit 7")
    ctr.crash()
    assert ctr.exec("c1", *THERE).out == "there\n"
    assert eventually(lambda: ctr.status("c2") == "STOPPED")
    assert "non-zero exit code 7" in ctr("tasks", "delete", "c2").err
    assert ctr.run("c3", "echo", "anew").out == "anew\n"


def test_fifty_at_once_leave_nothing(ctr, workdir):
    folder = f"{workdir}/var"
    options = ("--rm", "--mount", f"type=bind,src={folder},dst=/var,options=rbind")

    def argv(number, *program):
        return ctr.argv(*ctr.command(f"n{number}", *program, options=options))

    engines.at_once(50, folder, argv, ctr.env)
    assert engines.gone(ctr.leftovers) == []


# --- what the runtime is asked

ROOT = "--root /run/containerd/runc/default --log BUNDLE/log.json --log-format json "


def asked(ctr, name, root=ROOT):
    """Return the calls for a task without what all have in front."""
    bundle = ctr.path("state/io.containerd.runtime.v2.task/default", name)
    lines = ctr.recorder.lines(name, BUNDLE=bundle)
    assert {line.startswith(root) for line in lines} == {True}, lines
    return [line.removeprefix(root) for line in lines]


def test_what_each_action_asks_of_the_runtime(ctr):
    ctr.detached("task", "sleep", "1000", runtime=ctr.recorder.path)
    for action in ("pause", "resume", "ps", "metrics"):
        ctr.ok("tasks", action, "task")
    ctr.exec("task", "true")
    argv = ctr.argv("tasks", "exec", "--exec-id", "x2", "--tty", "task", "true")
    engines.on_terminal(argv, env=ctr.env)
    ctr.ok("tasks", "kill", "-s", "KILL", "task")
    assert eventually(lambda: ctr.status("task") == "STOPPED")
    ctr.ok("tasks", "delete", "task")
    process = "exec --process /tmp/runc-processN"
    lines = [line.replace("/tmp/ptyN/", "/tmp/pty/") for line in asked(ctr, "task")]
    assert lines == [
        "create --bundle BUNDLE --pid-file BUNDLE/init.pid task",
        "start task",
        "pause task",
        "resume task",
        "ps --format json task",
        f"{process} --detach --pid-file BUNDLE/x1.pid task",
        f"{process} --console-socket /tmp/pty/pty.sock --detach --pid-file BUNDLE/x2.pid task",
        "kill task 9",
        "delete task",
        "delete --force task",
    ]
    assert {call.code for call in ctr.recorder.calls("task")} == {0}


def test_a_state_directory_of_its_own(ctr):
    root = ctr.world.root("/run/elsewhere")
    options = ("--runc-root", "/run/elsewhere")
    ctr.detached("other", "sleep", "1000", options=options, runtime=ctr.recorder.path)
    assert "other" in os.listdir(f"{root}/default")
    front = ROOT.replace("/run/containerd/runc", "/run/elsewhere")
    assert asked(ctr, "other", front)[1] == "start other"
    ctr.ok("tasks", "kill", "-s", "KILL", "other")
    assert eventually(lambda: ctr.status("other") == "STOPPED")
    ctr.ok("tasks", "delete", "other")
    assert [name for name in os.listdir(f"{root}/default") if name[0] != "."] == []
