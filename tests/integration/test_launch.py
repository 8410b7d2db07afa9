"""`ocirt launch`: the ranks of a job, as containers that all start or none."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
import time

import pytest

from tests.integration import mpi
from tests.integration.support import (
    DROP,
    PATIENCE,
    SLOWNESS,
    bind,
    cgroup_hierarchies,
    children,
    eventually,
    namespaces,
    needs_controllers,
    only_ocirt,
)

pytestmark = only_ocirt("launch is ours")


class Job:
    """A bundle and the launches of it."""

    def __init__(self, runtime, bundle):
        self.runtime, self.bundle = runtime, bundle

    def argv(self, size, *options, args=()):
        more = [] if "--name" in options else ["--name", self.bundle.id]
        return ["launch", "-n", str(size), *more, *options, self.bundle.path, *args]

    def __call__(self, size, *options, args=(), **popen):
        return self.runtime(*self.argv(size, *options, args=args), **popen)

    def spawn(self, size, *options, **popen):
        popen.setdefault("stdout", self.bundle.out)
        popen.setdefault("stderr", self.bundle.out)
        return self.runtime.spawn(*self.argv(size, *options), **popen)

    def refuses(self, size, *options, saying, code=1):
        self.runtime.refuses(*self.argv(size, *options), ours=saying, code=code)
        assert self.runtime.host.leftovers() == []

    def status(self, rank):
        return self.runtime.ok("state", f"{self.bundle.id}-{rank}").json()["status"]

    def run_all(self, size):
        """Wait until all ranks run."""
        for rank in range(size):
            eventually(lambda rank=rank: self.runs(f"{self.bundle.id}-{rank}"))

    def runs(self, container_id):
        """Whether there is such a container, and it runs."""
        done = self.runtime("state", container_id)
        return done.code == 0 and done.json()["status"] == "running"


@pytest.fixture
def job(runtime, bundle):
    """Make jobs: job("sh", "-c", "...") or job.sh("...")."""

    def make(*args, **patch):
        return Job(runtime, bundle(*args, **patch))

    make.sh = lambda script, **patch: Job(runtime, bundle.sh(script, **patch))
    return make


def ended(process):
    return process.wait(timeout=PATIENCE)


# --- who is who


@pytest.mark.parametrize("size", [1, 4, 16, 64])
def test_every_rank_runs_once_and_nothing_is_left(job, size, host):
    done = job.sh("echo $RANK of $WORLD_SIZE")(size)
    assert done.code == 0, str(done)
    assert sorted(done.lines) == sorted(f"[{n}] {n} of {size}" for n in range(size))
    assert host.leftovers() == []


def test_ranks_know_themselves_by_the_names_of_every_launcher(job):
    done = job("env")(2)
    said = {line.removeprefix("[1] ") for line in done.lines if line.startswith("[1] ")}
    assert {
        "RANK=1", "LOCAL_RANK=1", "WORLD_SIZE=2", "LOCAL_WORLD_SIZE=2",
        "SLURM_PROCID=1", "SLURM_LOCALID=1", "SLURM_NTASKS=2",
        "OMPI_COMM_WORLD_RANK=1", "OMPI_COMM_WORLD_SIZE=2", "OMPI_COMM_WORLD_LOCAL_RANK=1",
        "PMI_RANK=1", "PMI_SIZE=2", "MASTER_ADDR=127.0.0.1", "MASTER_PORT=29500",
    } <= said  # fmt: skip


def test_variables_of_ones_own_and_fewer_of_the_others(job):
    box = job("env", process={"env": ["PATH=/bin", "MASTER_PORT=4", "RANK=9"]})
    done = box(2, "--env-style", "torch", "-e", "CUDA_VISIBLE_DEVICES=%r", "-e", "OF=%n%%")
    said = {line.removeprefix("[1] ") for line in done.lines if line.startswith("[1] ")}
    assert {"CUDA_VISIBLE_DEVICES=1", "OF=2%", "MASTER_PORT=4", "RANK=1"} <= said
    assert not [item for item in said if item.startswith(("SLURM", "OMPI", "PMI"))]
    assert "RANK=9" not in said


def test_the_program_may_be_named_after_the_bundle(job):
    done = job("false")(2, args=["sh", "-c", "echo $0 $RANK -x", "-y"])
    assert sorted(done.lines) == ["[0] -y 0 -x", "[1] -y 1 -x"]
    assert done.code == 0


def test_ids_follow_the_pattern_and_every_verb_knows_them(job, runtime, host):
    box = job("sleep", "1000")
    name = f"{box.bundle.id}.%r.of.%n"
    process = box.spawn(3, "--name", name)
    one = f"{box.bundle.id}.1.of.3"
    eventually(lambda: box.runs(one))
    rows = runtime.ok("list", "--format", "json").json()
    assert {row["id"] for row in rows} == {f"{box.bundle.id}.{n}.of.3" for n in range(3)}
    assert runtime.ok("exec", one, "echo", "hi").out == "hi\n"
    runtime.ok("kill", one, "KILL")
    assert ended(process) == 128 + signal.SIGKILL
    assert host.leftovers() == []


# --- output and input


def test_lines_are_whole_and_streams_apart(job):
    script = "i=0; while [ $i -lt 50 ]; do echo out$i; echo err$i >&2; i=$((i+1)); done; printf end"
    done = job.sh(script)(4)
    for rank in range(4):
        mark = f"[{rank}] "
        mine = [line.removeprefix(mark) for line in done.lines if line.startswith(mark)]
        assert mine == [*[f"out{i}" for i in range(50)], "end"]
    assert len(done.lines) == 4 * 51
    errors = done.err.splitlines()
    assert sorted(errors) == sorted(f"[{n}] err{i}" for n in range(4) for i in range(50))


def test_output_goes_to_files(job, workdir):
    box = job.sh("echo out $RANK; echo err $RANK >&2")
    folder = os.path.join(workdir, "logs/new")
    done = box(3, "--output", f"{folder}/")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert sorted(os.listdir(folder)) == ["0", "1", "2"]
    with open(f"{folder}/2") as file:
        assert file.read() == "out 2\nerr 2\n"
    box(2, "--output", f"{folder}/out", "--error", f"{folder}/%r.err")
    with open(f"{folder}/out-1") as out, open(f"{folder}/1.err") as err:
        assert (out.read(), err.read()) == ("out 1\n", "err 1\n")


def test_raw_output_passes_through_nobody(job):
    done = job.sh("echo out; readlink /proc/self/fd/1")(1, "--raw")
    assert done.lines[0] == "out"
    assert done.lines[1].startswith("pipe:")


@pytest.mark.parametrize(("option", "reader"), [("0", 0), ("2", 2), ("none", None)])
def test_one_rank_reads_our_input(job, option, reader):
    done = job("cat")(3, "--stdin", option, input="hello\n")
    assert done.lines == ([] if reader is None else [f"[{reader}] hello"])


def test_a_reader_that_goes_away_ends_the_job(job):
    box = job.sh("trap '' PIPE; while echo y; do :; done; exit 3")
    ours, theirs = os.pipe()
    process = box.spawn(2, stdout=theirs, stderr=os.devnull)
    os.close(theirs)
    assert os.read(ours, 4) == b"[0] " or True
    os.close(ours)
    assert ended(process) == 3


# --- failure


def test_the_first_failure_ends_the_others(job, host):
    box = job.sh("[ $RANK = 1 ] && exit 7; sleep 1000")
    begin = time.monotonic()
    done = box(4)
    assert done.code == 7
    assert done.errors == [f"rank 1 ({box.bundle.id}-1): exit status 7; the others are ended"]
    # They do not catch SIGTERM, which the kernel keeps from the first of a pid namespace.
    assert time.monotonic() - begin < 4 * SLOWNESS
    assert host.leftovers() == []


def test_a_rank_that_handles_sigterm_gets_its_time(job):
    script = (
        "[ $RANK = 0 ] && { sleep 1; exit 3; }; trap 'sleep 0.3; echo saved; exit 0' TERM; "
        "while :; do sleep 0.1; done"
    )
    done = job.sh(script)(3)
    assert done.code == 3
    assert sorted(done.lines) == ["[1] saved", "[2] saved"]


def test_a_rank_that_ignores_sigterm_is_killed_after_the_grace_time(job, host):
    script = "trap '' TERM; [ $RANK = 0 ] && { sleep 0.5; exit 3; }; while :; do sleep 0.1; done"
    begin = time.monotonic()
    done = job.sh(script)(2, "--grace", "1")
    assert done.code == 3
    assert time.monotonic() - begin >= 1.4
    assert host.leftovers() == []


def test_keep_going_lets_the_others_finish(job):
    done = job.sh("[ $RANK = 0 ] && exit 5; sleep 0.5; echo done; exit $RANK")(3, "--keep-going")
    assert done.code == 5
    assert sorted(done.lines) == ["[1] done", "[2] done"]
    assert len(done.errors) == 3


def test_a_signal_that_ends_a_rank_is_its_exit_code(job):
    done = job.sh("[ $RANK = 1 ] && ulimit -c 0 && kill -SEGV $$; sleep 1000", **PLAIN)(2)
    assert done.code == 128 + signal.SIGSEGV
    assert "rank 1" in done.errors[0]
    assert "signal 11" in done.errors[0]


# Without a pid namespace a program has no kernel that keeps signals from it.
PLAIN = {"linux": {"namespaces": namespaces("ipc", "uts", "mount", "network")}}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("patch", [{}, PLAIN], ids=["pid-namespace", "plain"])
def test_a_signal_to_the_launcher_ends_the_job(job, host, number, patch):
    box = job("sleep", "1000", **patch)
    process = box.spawn(4)
    box.run_all(4)
    process.send_signal(number)
    assert ended(process) == 128 + number
    assert host.leftovers() == []


def test_other_signals_are_passed_on(job):
    box = job.sh("trap 'echo usr1; exit 0' USR1; while :; do sleep 0.1; done")
    process = box.spawn(3)
    box.run_all(3)
    time.sleep(0.5 * SLOWNESS)  # for the traps
    process.send_signal(signal.SIGUSR1)
    assert ended(process) == 0
    assert sorted(box.bundle.output().splitlines()) == ["[0] usr1", "[1] usr1", "[2] usr1"]


def test_a_second_sigint_is_meant_seriously(job):
    box = job.sh("trap '' INT; while :; do sleep 0.1; done")
    process = box.spawn(2, "--grace", "1000")
    box.run_all(2)
    time.sleep(0.5 * SLOWNESS)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert ended(process) == 128 + signal.SIGINT


# --- a reader that does not read


NOISY = (
    "[ $RANK = 1 ] && { sleep 1; exit 7; }; while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done"
)


@pytest.fixture
def stalled():
    """A pipe that nobody reads: (reader, writer)."""
    ours, theirs = os.pipe()
    yield ours, theirs
    os.close(ours)


def waiting(fd):
    """Return the bytes that can be read."""
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)


def full(fd):
    """Whether a pipe takes no more: how many bytes it holds then depends on how they came."""
    before = waiting(fd)
    time.sleep(0.1)
    return 0 < before == waiting(fd)


@contextlib.contextmanager
def launched(box, size, stalled, *options):
    """Have a job write to a pipe that nobody reads."""
    process = box.spawn(size, *options, stdout=stalled[1], stderr=stalled[1])
    os.close(stalled[1])
    assert eventually(lambda: full(stalled[0]))
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()


def test_a_failure_is_seen_though_nobody_reads(job, host, stalled):
    box = job.sh(NOISY)
    with launched(box, 3, stalled) as process:
        # The containers are gone, and all that is left to do is to write what there is.
        assert eventually(lambda: host.states() == set())
        assert host.leftovers() == []
        assert process.poll() is None
        text = b""
        while more := os.read(stalled[0], 1 << 16):
            text += more
        assert ended(process) == 7
    assert len(text) > 1 << 18
    message = f"rank 1 ({box.bundle.id}-1): exit status 7; the others are ended".encode()
    assert len([line for line in text.splitlines() if message in line]) == 1
    # Ours among theirs, in one pipe: no line is torn.
    assert [line for line in text.splitlines() if line[:3] not in (b"[0]", b"[2]")] == [message]


def test_a_signal_is_heard_though_nobody_reads(job, host, stalled):
    with launched(job.sh(NOISY.replace("exit 7", "sleep 1000")), 2, stalled, "--grace", "1") as it:
        time.sleep(0.5)
        it.send_signal(signal.SIGTERM)
        assert ended(it) == 128 + signal.SIGTERM
        assert host.leftovers() == []


def test_who_waits_for_the_reader_alone_may_be_ended(job, host, stalled):
    with launched(job.sh(NOISY), 2, stalled) as process:
        assert eventually(lambda: host.states() == set())
        assert host.leftovers() == []
        process.send_signal(signal.SIGINT)
        assert ended(process) in (-signal.SIGINT, 7)


def test_output_that_cannot_be_written_is_a_failure(job, host):
    box = job.sh("echo one; sleep 0.5; exit 0")
    with open("/dev/full", "w") as full:
        process = box.spawn(2, stdout=full, stderr=subprocess.PIPE, text=True)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert "our output: No space left on device" in err
    assert host.leftovers() == []


def test_files_that_are_full_are_the_ranks_own_failure(job, host, host_mount, workdir):
    logs = f"{workdir}/logs"
    os.mkdir(logs)
    host_mount("-t", "tmpfs", "-o", "size=64k", "none", logs)
    box = job.sh("dd if=/dev/zero bs=4096 count=64 || exit 4")
    done = box(2, "--output", f"{logs}/%r", "--error", f"{workdir}/error-%r")
    assert done.code == 4
    with open(f"{workdir}/error-0") as first, open(f"{workdir}/error-1") as second:
        assert "No space left on device" in first.read() + second.read()
    assert host.states() == set()


# --- stopped and continued


def state_of(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("patch", [{}, PLAIN], ids=["pid-namespace", "plain"])
def test_a_job_stops_and_goes_on_with_its_launcher(job, runtime, host, patch):
    box = job.sh("sleep 1000 & wait", **patch)
    # In a process group of its own, as a shell has it; that of an orphan cannot be stopped.
    process = box.spawn(2, process_group=0)
    box.run_all(2)
    pids = [runtime.ok("state", f"{box.bundle.id}-{n}").json()["pid"] for n in range(2)]
    assert eventually(lambda: all(children(pid) for pid in pids))
    pids += [child for pid in pids for child, _, _ in children(pid)]
    assert len(pids) == 4
    process.send_signal(signal.SIGTSTP)
    assert eventually(lambda: {state_of(pid) for pid in (process.pid, *pids)} == {"T"})
    process.send_signal(signal.SIGCONT)
    assert eventually(lambda: {state_of(pid) for pid in (process.pid, *pids)} == {"S"})
    process.send_signal(signal.SIGTSTP)
    assert eventually(lambda: state_of(process.pid) == "T")
    process.kill()  # who is stopped can be killed all the same
    process.wait()
    for rank in range(2):
        assert eventually(lambda rank=rank: box.status(rank) == "stopped")
        runtime.ok("delete", f"{box.bundle.id}-{rank}")
    assert host.leftovers() == []


@needs_controllers("memory")
def test_a_rank_out_of_memory_is_said_to_be(job, host):
    box = job.sh(
        "[ $RANK = 1 ] || exec sleep 1000; exec dd if=/dev/zero of=/dev/null bs=64M",
        linux={"resources": {"memory": {"limit": 16 << 20, "swap": 16 << 20}}},
    )
    done = box(2)
    assert done.code == 128 + signal.SIGKILL
    message = f"rank 1 ({box.bundle.id}-1): signal 9, out of memory; the others are ended"
    assert done.errors == [message]
    assert host.leftovers() == []


# --- all or none


def test_a_program_that_cannot_be_found_starts_nobody(job, host):
    box = job("nonsense")
    done = box(4)
    assert done.code == 1
    assert done.error.startswith(f"{box.bundle.id}-0: exec: ")
    assert "executable file not found in $PATH" in done.error
    assert host.leftovers() == []


def test_a_failure_in_the_middle_leaves_nothing_and_starts_nobody(job, host, workdir):
    # The hook of the rank with the number 5 fails; hooks read the state on stdin.
    marks = os.path.join(workdir, "marks")
    os.mkdir(marks)
    script = os.path.join(workdir, "hook")
    with open(script, "w") as file:
        file.write('#!/bin/sh\nstate=$(cat); case "$state" in *-5\\"*) exit 1;; esac\n')
    os.chmod(script, 0o755)
    mount = {"destination": "/marks", "type": "bind", "source": marks, "options": ["bind"]}
    box = job.sh(
        "echo > /marks/$RANK", more_mounts=[mount], hooks={"createRuntime": [{"path": script}]}
    )
    done = box(8)
    assert done.code == 1
    assert done.error.startswith(f"{box.bundle.id}-5: error running createRuntime hook #0")
    assert os.listdir(marks) == []
    assert host.leftovers() == []


def test_an_id_that_is_taken_starts_nobody(job, runtime, bundle, host):
    box = job.sh("echo ran")
    other = bundle.sleeping(container_id=f"{box.bundle.id}-2")
    runtime.create(other)
    done = box(4)
    assert done.code == 1
    assert done.error == f"{other.id}: container with given ID already exists"
    assert done.out == ""
    assert runtime.status(other) == "created"
    assert host.states() == {other.id}


def gated(workdir, line):
    """Return a FIFO, and hooks of one shell line in which GATE is its path."""
    fifo = os.path.join(workdir, "fifo")
    os.mkfifo(fifo)
    args = ["sh", "-c", line.replace("GATE", fifo)]
    return fifo, {"createRuntime": [{"path": "/bin/sh", "args": args}]}


def test_a_launcher_told_to_end_while_it_makes_containers_leaves_nothing(job, host, workdir):
    fifo, hooks = gated(workdir, "sleep 1 < GATE")
    box = job.sh("echo it is on", hooks=hooks)
    process = box.spawn(3)
    with open(fifo, "w"):  # the first hook runs
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        gate = os.open(fifo, os.O_RDWR)
    code = ended(process)
    os.close(gate)
    assert code == 128 + signal.SIGTERM
    assert box.bundle.output() == "SIGTERM: no rank has been started\n"
    assert host.leftovers() == []


def test_a_launcher_that_is_killed_takes_its_ranks_along(job, runtime, host):
    box = job("sleep", "1000")
    process = box.spawn(4)
    box.run_all(4)
    process.kill()
    process.wait()
    eventually(lambda: [box.status(rank) for rank in range(4)] == ["stopped"] * 4)
    for rank in range(4):
        runtime.ok("delete", f"{box.bundle.id}-{rank}")
    assert host.leftovers() == []


def test_a_launcher_that_is_killed_while_it_makes_containers_can_be_cleaned_up(
    job, runtime, host, workdir
):
    # The first container is made, the others wait in their hook.
    fifo, hooks = gated(workdir, 'case "$(cat)" in *-0\\"*) exit 0;; esac; read line < GATE')
    box = job.sh("echo it is on", hooks=hooks)
    process = box.spawn(20)
    gate = os.open(fifo, os.O_WRONLY)  # somebody reads
    process.kill()
    process.wait()
    os.close(gate)
    assert box.bundle.output() == ""
    for name in sorted(host.states()):
        eventually(lambda name=name: runtime.ok("state", name).json()["status"] == "stopped")
        runtime.ok("delete", name)
    assert host.leftovers() == []


def test_what_others_delete_is_no_fault(job, runtime, host):
    box = job("sleep", "1000")
    process = box.spawn(2, "--keep-going")
    box.run_all(2)
    runtime.ok("delete", "--force", f"{box.bundle.id}-0")
    runtime.ok("kill", f"{box.bundle.id}-1", "KILL")
    assert ended(process) == 137
    assert host.leftovers() == []


def test_containers_are_kept_on_request(job, runtime):
    box = job("true")
    assert box(2, "--keep").code == 0
    assert box.status(1) == "stopped"


# --- cgroups and CPUs


def test_each_rank_has_a_cgroup_of_its_own(job):
    box = job("cat", "/proc/self/cgroup")
    done = box(2)
    assert done.code == 0
    for rank in range(2):
        assert f"/ocirt-test/{box.bundle.id}-{rank}" in done.out


@needs_controllers("pids")
def test_a_shared_cgroup_holds_all_and_goes_with_the_last(job, runtime, host):
    box = job("sleep", "1000", linux={"resources": {"pids": {"limit": 40}}})
    process = box.spawn(3, "--cgroup", "shared")
    box.run_all(3)
    (folder,) = [
        path
        for top in cgroup_hierarchies()
        if os.path.exists(path := f"{top}/ocirt-test/{box.bundle.id}/pids.max")
    ]
    with open(folder) as file:
        assert file.read().strip() == "40"
    pids = {runtime.ok("state", f"{box.bundle.id}-{n}").json()["pid"] for n in range(3)}
    with open(os.path.join(os.path.dirname(folder), "cgroup.procs")) as file:
        assert pids == {int(line) for line in file}
    # Each alone, all the same.
    assert len(runtime.ok("ps", "--format", "json", f"{box.bundle.id}-1").json()) == 1
    runtime.refuses("pause", f"{box.bundle.id}-1", ours="other containers share the cgroup")
    runtime.ok("kill", "--all", f"{box.bundle.id}-2", "WINCH")
    assert runtime.ok("exec", f"{box.bundle.id}-1", "echo", "hi").out == "hi\n"
    process.kill()
    process.wait()
    for rank in range(3):
        eventually(lambda rank=rank: box.status(rank) == "stopped")
        runtime.ok("delete", f"{box.bundle.id}-{rank}")
    assert not os.path.exists(folder)
    assert host.leftovers() == []


def test_a_shared_cgroup_is_swept_in_the_end(job, host):
    # Without a pid namespace what a program leaves behind lives on.
    box = job.sh("(sleep 1000 < /dev/null > /dev/null 2>&1 &) ; echo ran", **PLAIN)
    done = box(3, "--cgroup", "shared")
    assert done.code == 0
    assert len(done.lines) == 3
    assert host.leftovers() == []


CPUS = sorted(os.sched_getaffinity(0))


@pytest.mark.skipif(len(CPUS) < 2, reason="needs two CPUs")
@pytest.mark.parametrize("whose", ["own", "shared"])
def test_ranks_are_bound_to_cpus(job, whose):
    box = job("grep", "Cpus_allowed_list", "/proc/self/status")
    done = box(2, "--bind", "thread", "--cgroup", whose)
    assert done.code == 0, str(done)
    said = sorted((line[1], line.split()[-1]) for line in done.lines)
    assert said == [("0", str(CPUS[0])), ("1", str(CPUS[1]))]


@needs_controllers("cpuset")
def test_a_bound_rank_cannot_leave_its_cpus(job, runtime):
    box = job("sleep", "1000")
    process = box.spawn(1, "--bind", "thread")
    box.run_all(1)
    done = runtime.ok(
        "exec", f"{box.bundle.id}-0", "grep", "Cpus_allowed_list", "/proc/self/status"
    )
    assert done.out.split()[-1] == str(CPUS[0])
    process.terminate()
    assert ended(process) == 143


# --- what is refused


@pytest.mark.parametrize(
    ("size", "options", "saying"),
    [
        (0, (), "-n: 0 ranks, not 1 to"),
        (-3, (), "-n: -3 ranks, not 1 to"),
        (10**9, (), "-n: 1000000000 ranks, not 1 to"),
        (2, ("--name", "a/b"), "invalid container ID format"),
        (2, ("--name", "a%x"), "--name: a%x: there is no %x, only %r"),
        (2, ("--output", "%"), "--output: %: there is no %, only %r"),
        (2, ("-e", "X=%q"), "--env: %q: there is no %q, only %r"),
        (2, ("-e", "X"), "--env: X: not NAME=VALUE"),
        (2, ("--env-style", "lam"), "--env-style: lam: not torch, slurm, ompi, pmi or none"),
        (2, ("--bind", "moon"), "--bind: moon: not thread, core, socket, numa or none"),
        (4096, ("--bind", "core"), "--bind core: 4096 ranks with a core each, and there are"),
        (4096, ("--bind", "numa"), "--bind numa: 4096 ranks, and there are"),
        (1, ("--bind", "thread", "-c", "4096"), "1 ranks with 4096 threads each"),
        (1, ("--bind", "numa", "-c", "2"), "--cpus-per-rank: goes with --bind thread or core"),
        (1, ("-c", "2"), "--cpus-per-rank: needs --bind"),
        (1, ("--bind", "core", "-c", "0"), "--cpus-per-rank: 0"),
        (2, ("--cgroup", "none"), "--cgroup: none: not own or shared"),
        (2, ("--cgroup", "shared", "--device", "acme.com/card=%r"), "have different devices"),
        (2, ("--stdin", "2"), "--stdin: 2: not a rank below 2, or none"),
        (2, ("--stdin", "all"), "--stdin: all: not a rank below 2, or none"),
        (2, ("--grace", "-1"), "--grace: -1 seconds"),
        (2, ("--device", "acme.com/card=%r"), "acme.com/card=0"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_with_one_sentence(job, size, options, saying):
    job("true").refuses(size, *options, saying=saying)


def test_a_config_without_a_program_is_refused(job):
    box = job("true")
    del box.bundle.config["process"]
    box.bundle.save()
    box.refuses(2, saying="process: missing: there is no program to launch")


def test_a_terminal_is_left_out(job):
    done = job.sh("tty; true", process={"terminal": True})(2)
    assert done.code == 0
    assert sorted(done.lines) == ["[0] not a tty", "[1] not a tty"]


def test_many_ranks_need_no_more_descriptors_than_there_may_be(job):
    box = job.sh("ulimit -n")
    limited = ["sh", "-c", 'ulimit -Sn 300; exec "$@"', "sh", *box.runtime.argv(*box.argv(64))]
    done = subprocess.run(
        limited,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # The programs have the limit that they would have had without us.
    assert sorted(done.stdout.splitlines()) == sorted(f"[{n}] 300" for n in range(64))


def test_progress_is_shown_on_a_terminal_and_taken_away(job):
    box = job.sh("echo ran")
    ours, theirs = pty.openpty()
    process = box.spawn(3, stderr=theirs)
    os.close(theirs)
    seen = b""
    while True:
        try:
            seen += os.read(ours, 4096)
        except OSError:
            break
    os.close(ours)
    assert ended(process) == 0
    assert b"ocirt: 3 of 3 made" in seen
    assert seen.endswith(b"\r\x1b[K")


def test_each_rank_gets_its_device(job, runtime, workdir):
    cards = os.path.join(workdir, "cdi")
    os.mkdir(cards)
    devices = [{"name": str(n), "containerEdits": {"env": [f"CARD={n}"]}} for n in range(3)]
    with open(f"{cards}/cards.json", "w") as file:
        json.dump({"cdiVersion": "0.5.0", "kind": "acme.com/card", "devices": devices}, file)
    box = job.sh("echo $CARD")
    argv = box.argv(3, "--device", "acme.com/card=%r")
    done = runtime("--cdi-spec-dir", cards, *argv)
    assert done.code == 0, str(done)
    assert sorted(done.lines) == ["[0] 0", "[1] 1", "[2] 2"]


# --- MPI


@pytest.fixture
def mpich(runtime, workdir, bundle):
    """A job whose ranks are an MPICH program of the host's, in the host's namespaces."""
    compiler = shutil.which("mpicc.mpich")
    if compiler is None:
        pytest.skip("needs mpicc of MPICH (Debian: libmpich-dev)")
    mpi.build(compiler, f"{workdir}/mpi")
    hosts = [name for name in ("/usr", "/etc", "/lib", "/lib64") if os.path.isdir(name)]
    box = bundle(
        f"{workdir}/mpi",
        mounts=[
            *[bind(name, name, "rbind", "ro") for name in hosts],
            bind("/dev", "/dev", "rbind"),
            bind("/proc", "/proc", "rbind"),
            bind("/sys", "/sys", "rbind", "ro"),
            bind(workdir, workdir),
        ],
        hostname=DROP,
        linux={"namespaces": namespaces("mount")},
    )
    return Job(runtime, box)


@pytest.mark.parametrize("size", [1, 4])
def test_ranks_of_mpich_find_each_other(mpich, host, size):
    done = mpich(size, "--pmi")
    assert done.code == 0, str(done)
    assert sorted(done.lines) == [f"[{n}] {line}" for n, line in enumerate(mpi.said(size))]
    assert host.leftovers() == []


def test_mpi_abort_ends_the_job_with_its_code(mpich, host):
    done = mpich(3, "--pmi", args=[mpich.bundle.config["process"]["args"][0], "abort"])
    assert done.code == 9
    assert done.errors == [
        f"rank 1 ({mpich.bundle.id}-1): MPI_Abort, exit status 9; the others are ended"
    ]
    assert host.leftovers() == []


def test_the_socket_of_pmi_is_the_only_one_more(job):
    done = job.sh("ls -l /proc/self/fd | grep -c socket; echo $PMI_FD $PMI_RANK")(2, "--pmi")
    assert sorted(done.lines) == ["[0] 1", "[0] 3 0", "[1] 1", "[1] 3 1"]
