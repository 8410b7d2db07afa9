"""Who waits while `run` and `exec` are in the foreground: the launcher, or Python without one.

Every behaviour is tried both ways (`foreground`): through the launcher, whose packaging/attend.c
takes the place of Python, and through `python3 -m ocirt`, where Python itself waits.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time

import pytest

from tests.integration.conftest import TREE
from tests.integration.support import HOST_PIDS, PATIENCE, children, eventually, only_ocirt
from tests.integration.test_terminal import TERMINAL, Foreground

pytestmark = only_ocirt("looks at who waits")

LARGEST_RSS = 500  # KiB of what waits; measured with musl: 112, of which 60 are shared
ENOUGH = 300_000  # bytes: more than terminals and pipes hold


@pytest.fixture(params=["launcher", "python"])
def runner(request, runtime, workdir):
    """The runtime, waiting in one of the two ways."""
    if request.param == "python":
        path = f"{workdir}/ocirt"
        with open(path, "w") as file:
            file.write(f'#!/bin/sh\nPYTHONPATH={TREE} exec {sys.executable} -B -m ocirt "$@"\n')
        os.chmod(path, 0o755)
        runtime.path = path
    runtime.waits_in_python = request.param == "python"
    return runtime


def waiting(runtime, b, *options, verb="run", **popen):
    """Start `run`, or `exec` of a program that says "ready"; return the process once it did."""
    if verb == "run":
        options = (*options, "--bundle", b.path, b.id)
    path = f"{b.path}/waiting-out"
    process = runtime.spawn(verb, *options, stdout=path, **popen)
    assert eventually(lambda: "ready" in read(path) or process.poll() is not None)
    assert process.poll() is None, read(path)
    return process


def read(path):
    with open(path) as file:
        return file.read()


def end(process):
    """Kill the program."""
    (child,) = [pid for pid, _, _ in children(process.pid)]
    os.kill(child, signal.SIGKILL)


def smaps(pid):
    """Return {field: KiB} of all that a process has mapped; nothing for a zombie."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        lines = [line.split() for line in file][1:]
    return {name.rstrip(":"): int(value) for name, value, *_ in lines}


def descriptors(pid):
    return sorted(int(name) for name in os.listdir(f"/proc/{pid}/fd"))


def settled(process, runtime):
    """Wait until the process is the one that waits."""
    with open(f"/proc/{process.pid}/cmdline", "rb") as file:
        first = file.read().split(b"\0")[0]
    return runtime.waits_in_python or first in (b"ocirt run", b"ocirt exec")


SAYS = "echo ready; trap 'exit 5' TERM; while :; do usleep 9999; done"


# --- what it costs


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_what_waits_is_small_and_holds_nothing(runtime, bundle, verb):
    runtime.waits_in_python = False
    if verb == "run":
        b = bundle.sh(SAYS)
        process = waiting(runtime, b)
    else:
        b = bundle.sleeping()
        runtime.started(b)
        process = waiting(runtime, b, b.id, "sh", "-c", SAYS, verb="exec")
    assert eventually(lambda: settled(process, runtime))
    time.sleep(0.1)
    with open(f"/proc/{process.pid}/status") as file:
        resident = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
    assert resident < LARGEST_RSS
    assert smaps(process.pid)["Pss"] < LARGEST_RSS
    assert len(children(process.pid)) == 1, "there is somebody besides the program"
    # The three streams, and the one that signals arrive by.
    assert len(descriptors(process.pid)) == 4
    process.terminate()
    assert process.wait(PATIENCE) == 5


def test_a_terminal_adds_two_descriptors_and_little_memory(runtime, bundle):
    runtime.waits_in_python = False
    run = Foreground(runtime, bundle.sh("echo ready; read line; exit 4", process=TERMINAL))
    try:
        run.screen.until("ready")
        assert eventually(lambda: settled(run.process, runtime))
        assert len(descriptors(run.process.pid)) == 6
        assert smaps(run.process.pid)["Rss"] < LARGEST_RSS
        run.screen.type("\r")
        assert run.wait() == 4
    finally:
        run.close()


# --- what it does, whoever it is


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGRTMIN + 3, 25, 64])
def test_signals_are_forwarded(runner, bundle, number):
    b = bundle.sh(f"trap 'exit 5' {int(number)}; echo ready; while :; do usleep 9999; done")
    process = waiting(runner, b)
    process.send_signal(number)
    assert process.wait(PATIENCE) == 5


@pytest.mark.parametrize("number", [signal.SIGURG, signal.SIGWINCH, signal.SIGPIPE])
def test_signals_about_the_runtime_itself_are_not(runner, bundle, number):
    b = bundle.sh(f"trap 'exit 6' {int(number)}; {SAYS}")
    process = waiting(runner, b)
    process.send_signal(number)
    time.sleep(0.2)
    process.terminate()
    assert process.wait(PATIENCE) == 5


def test_a_signal_that_comes_during_a_hook_is_not_lost(runner, bundle, workdir):
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"touch {workdir}/hook; sleep 1"]}
    b = bundle.sh(SAYS, hooks={"poststart": [hook]})
    process = runner.spawn("run", "--bundle", b.path, b.id, stdout=b.out)
    assert eventually(lambda: os.path.exists(f"{workdir}/hook"))
    assert eventually(lambda: "ready" in b.output())
    process.terminate()
    assert process.wait(PATIENCE) == 5


def test_the_signal_that_ended_the_program_is_told(runner, bundle):
    process = waiting(runner, bundle.sh(SAYS), "--pid-file", pid_file := f"{runner.root}.pid")
    assert eventually(lambda: os.path.exists(pid_file)), "the program may be quicker"
    with open(pid_file) as file:
        os.kill(int(file.read()), signal.SIGKILL)
    assert process.wait(PATIENCE) == 128 + signal.SIGKILL


def test_children_of_others_are_reaped(runner, bundle):
    """Whoever became this process by exec has left it his children."""
    b = bundle.sh(SAYS)
    line = f"sleep 0.2 & exec {' '.join(runner.argv('run', '--bundle', b.path, b.id))}"
    with open(b.out, "w") as out:
        process = subprocess.Popen(["sh", "-c", line], stdout=out)
    runner.background.append(process)
    runner.host.known.add(process.pid)
    assert eventually(lambda: "ready" in b.output())
    if not runner.waits_in_python:
        assert eventually(lambda: len(children(process.pid)) == 1)
    process.terminate()
    assert process.wait(PATIENCE) == 5


def test_streams_pass_through(runner, bundle):
    b = bundle.sh("cat; echo err >&2")
    result = runner.run(b, input="x" * ENOUGH)
    assert (result.code, result.out, result.err) == (0, "x" * ENOUGH, "err\n")


def test_much_data_passes_a_terminal_both_ways(runner, bundle):
    """Neither side may wait for the other: the program prints while it is typed to."""
    run = Foreground(runner, bundle.sh("stty raw -echo; echo ready; cat", process=TERMINAL))
    try:
        run.screen.until("ready")
        sent = 0
        while sent < ENOUGH:
            sent += os.write(run.master, b"x" * 512)
            run.screen.until("x" * (sent - 2048))
        run.screen.until("x" * ENOUGH)
        end(run.process)
        assert run.wait() == 137
        assert run.screen.seen.count("x") == sent
    finally:
        run.close()


def test_our_terminal_is_as_before_whatever_the_end(runner, bundle):
    run = Foreground(runner, bundle.sh("echo ready; read line", process=TERMINAL))
    try:
        run.screen.until("ready")
        assert not termios.tcgetattr(run.slave)[3] & termios.ECHO
        run.screen.resize(31, 41)
        end(run.process)
        assert run.wait() == 137
        assert termios.tcgetattr(run.slave) == run.before
    finally:
        run.close()


@pytest.mark.parametrize("source", ["/dev/null", "closed"])
def test_a_terminal_without_input_gets_its_end(runner, bundle, source):
    if source == "closed" and runner.waits_in_python:
        pytest.skip("it is the launcher that opens what is closed")
    b = bundle.sh("echo ready; read line || exit 3", process=TERMINAL)
    master, slave = pty.openpty()
    redirect = "</dev/null" if source == "/dev/null" else "<&-"
    line = f"exec {' '.join(runner.argv('run', '-b', b.path, b.id))} {redirect}"
    process = subprocess.Popen(
        ["sh", "-c", line],
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    runner.background.append(process)
    runner.host.known.add(process.pid)
    try:
        assert process.wait(PATIENCE) == 3
    finally:
        os.close(master)
        os.close(slave)


# --- the end


def test_nothing_is_left_of_a_plain_container(runner, bundle, host):
    assert runner.run(bundle.sh("exit 9")).code == 9
    assert host.leftovers() == []


@pytest.mark.parametrize("code", [0, 7, 255])
def test_poststop_hooks_run_and_the_code_is_the_programs(runner, bundle, host, workdir, code):
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"cat > {workdir}/hook"]}
    assert runner.run(bundle.sh(f"exit {code}", hooks={"poststop": [hook]})).code == code
    with open(f"{workdir}/hook") as file:
        assert '"status":"stopped"' in file.read()
    assert host.leftovers() == []


def test_a_failing_poststop_hook_is_a_warning(runner, bundle):
    result = runner.run(bundle.sh("exit 2", hooks={"poststop": [{"path": "/bin/false"}]}))
    assert result.code == 2
    assert [line["level"] for line in result.log] == ["warning"]
    assert "poststop" in result.log[0]["msg"]


def test_what_is_left_out_is_told_once(runner, bundle):
    b = bundle("true", linux={"resources": {"rdma": {"mlx5_99": {"hcaHandles": 3}}}})
    result = runner("--cgroup-manager", "disabled", "run", "--bundle", b.path, b.id)
    assert (result.code, [line["level"] for line in result.log]) == (0, ["warning"])


def test_processes_that_outlived_the_program_are_ended(runner, bundle, host):
    b = bundle.sh(
        "sleep 1000 & exit 3",
        linux=HOST_PIDS,
    )
    assert runner.run(b, stdout=subprocess.DEVNULL).code == 3
    assert host.leftovers() == []


def test_keep_leaves_the_stopped_container(runner, bundle):
    b = bundle.sh("exit 3")
    assert runner.run(b, "--keep").code == 3
    assert runner.status(b) == "stopped"
    runner.delete(b)


def test_a_container_that_others_delete_is_no_error(runner, bundle):
    b = bundle.sh(SAYS)
    process = waiting(runner, b)
    runner.delete(b, "--force")
    assert process.wait(PATIENCE) == 137


def test_exec_leaves_the_container_alone(runner, bundle):
    b = bundle.sleeping()
    runner.started(b)
    assert runner("exec", b.id, "sh", "-c", "exit 4").code == 4
    assert runner.status(b) == "running"


def test_without_the_launcher_python_waits(runtime, bundle, workdir):
    """What took our place may have been removed by an upgrade of ocirt."""
    program = f"{workdir}/gone"
    with open(program, "w") as file:
        file.write(f"""#!{sys.executable} -IB
import sys
sys.path.insert(0, {TREE!r})
import ocirt
ocirt.PROGRAM = "/no/such/ocirt"
from ocirt.cli import console
console()
""")
    os.chmod(program, 0o755)
    runtime.path = program
    runtime.waits_in_python = True
    process = waiting(runtime, bundle.sh(SAYS))
    process.terminate()
    assert process.wait(PATIENCE) == 5
    with contextlib.suppress(FileNotFoundError):
        assert os.listdir(runtime.root) == []


# --- where the time goes


@pytest.mark.parametrize("verb", ["create", "run", "exec"])
def test_the_phases_of_a_verb_are_printed(runtime, bundle, verb):
    hook = {"path": "/bin/sleep", "args": ["sleep", "0.2"]}
    b = bundle("true", hooks={"createRuntime": [hook]}) if verb != "exec" else bundle.sleeping()
    words = ["--bundle", b.path, b.id]
    if verb == "exec":
        runtime.started(b)
        words = [b.id, "true"]
    with open(f"{b.path}/times", "w") as times:
        assert runtime("--trace-time", verb, *words, stdout=times, stderr=times).code == 0
    lines = read(f"{b.path}/times").splitlines()
    assert lines[0] == f"ocirt: {verb}: where the time went"
    found = {line[:14].strip(): int(line[14:].split()[0]) for line in lines[1:]}
    assert found.keys() >= {
        "exec",
        "interpreter",
        "modules",
        "check",
        "compile",
        "init ops",
        "total",
    }
    assert sum(found.values()) == 2 * found["total"]
    if verb != "exec":
        assert found["hooks"] >= 200_000
        assert found.keys() >= {"read", "cgroup", "state"}
