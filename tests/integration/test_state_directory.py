"""The state directory in other hands: half-written, damaged, tampered with, another's.

What cannot be read is refused in one sentence and removed only by force; what belongs to another
user, another runtime or another program is left alone; and no record, however it came about, makes
a verb reach a process or a directory that is not the container's.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess

import pytest

from tests.integration import engines
from tests.integration.support import PATIENCE, only_ocirt

pytestmark = only_ocirt("the files of the state are private")

# Every verb that looks for a container, as engines call it.
VERBS = (
    "state {}", "start {}", "kill {} KILL", "kill --all {} KILL", "delete {}", "pause {}",
    "resume {}", "update --pids-limit 9 {}", "exec {} true", "ps --format json {}",
    "events --stats {}",
)  # fmt: skip
FEW = ("state {}", "kill {} KILL", "delete {}", "exec {} true")
CHANGING = [verb for verb in VERBS if verb.split()[0] not in ("state", "ps", "events")]


def refused(runtime, container_id, saying, verbs=FEW):
    """Each verb says so, in one sentence."""
    for verb in verbs:
        words = verb.format(container_id).split()
        code = 255 if words[0] == "exec" else 1
        runtime.refuses(*words, saying=saying, code=code)


def folder_of(runtime, b):
    return os.path.join(runtime.root, b.id)


def litter(runtime, files):
    """Make a state directory by hand; return its id."""
    container_id = f"t{os.getpid()}-litter"
    folder = os.path.join(runtime.root, container_id)
    os.makedirs(folder)
    for name, text in files.items():
        with open(os.path.join(folder, name), "w") as file:
            file.write(text)
    return container_id


# --- what a crash or a full disk leaves

LITTER = {
    "empty-state": {"state.json": ""},
    "garbled-state": {"state.json": "{ no json"},
    "list-state": {"state.json": "[1, 2]"},
    "bare-state": {"state.json": '{"version": 1}'},
    "deep-state": {"state.json": "[" * 100_000},
    "wrong-types": {"state.json": '{"version": 1, "pid": "1", "hooks": 5}'},
    "garbled-record": {"quick": "OCQ1\0\1\2", "state.json": ""},
}


@pytest.mark.parametrize("name", LITTER)
def test_litter_is_refused_and_can_be_deleted_by_force(runtime, name):
    container_id = litter(runtime, LITTER[name])
    refused(runtime, container_id, "state.json")
    runtime.ok("delete", "--force", container_id)
    assert runtime.host.leftovers() == []


@pytest.mark.parametrize(
    "files", [{}, {".state.json.77": "{"}, {"exec.fifo": ""}], ids=["empty", "half", "gate"]
)
def test_a_directory_without_a_record_keeps_its_id_until_it_is_deleted(runtime, bundle, files):
    b = bundle("true", container_id=litter(runtime, files))
    runtime.refuses("state", b.id, saying="container does not exist")
    runtime.refuses("create", "-b", b.path, b.id, saying="container with given ID already exists")
    runtime.refuses("delete", b.id, saying="container does not exist")
    assert runtime.host.leftovers() == []
    assert runtime.finish(b) == 0


@pytest.mark.parametrize("part", [0.1, 0.9])
def test_a_record_that_was_cut_off(runtime, bundle, part):
    """A file system that was full, or lost power.  The container itself may still run."""
    b = bundle.sleeping()
    pid = runtime.started(b)
    folder = folder_of(runtime, b)
    for name in ("state.json", "quick"):
        path = os.path.join(folder, name)
        os.truncate(path, int(os.path.getsize(path) * part))
    refused(runtime, b.id, "state.json")
    assert os.path.exists(f"/proc/{pid}"), "nobody is killed by half a record"
    runtime.delete(b, "--force")
    os.kill(pid, signal.SIGKILL)
    runtime.wait(b, pid)
    runtime.host.sweep()  # the cgroup was known to the record alone


def lose(folder, how):
    path = os.path.join(folder, "state.json")
    if how == "gone":
        os.unlink(path)
    else:
        os.truncate(path, {"empty": 0, "half": 50}[how])


@pytest.mark.parametrize("paused", [False, True], ids=["running", "paused"])
@pytest.mark.parametrize("how", ["gone", "empty", "half"])
def test_what_runs_without_a_state_is_ended_by_force(runtime, bundle, how, paused):
    """The launcher's record still tells its init and its cgroup, both beyond doubt."""
    b = bundle.sh("sleep 1000 & exec sleep 1000")
    pid = runtime.started(b)
    if paused:
        runtime.ok("pause", b.id)
    lose(folder_of(runtime, b), how)
    result = runtime("delete", b.id)
    assert result.code == 1
    assert "does not exist" not in result.error, "engines would take it for deleted"
    assert os.path.exists(f"/proc/{pid}")
    runtime.ok("delete", "--force", b.id)
    runtime.wait(b, pid)
    assert runtime.host.leftovers() == []


@pytest.mark.parametrize("change", ["no record", "garbled", "another's"])
def test_what_runs_without_any_record_is_left_with_a_warning(runtime, bundle, change):
    b, other = bundle.sleeping(), bundle.sleeping()
    pid, living = runtime.started(b), runtime.started(other)
    folder = folder_of(runtime, b)
    path = os.path.join(folder, "quick")
    if change == "no record":
        os.unlink(path)
    elif change == "garbled":
        with open(path, "r+b") as file:
            file.seek(40)
            file.write(b"\xff")
    else:
        shutil.copy(os.path.join(folder_of(runtime, other), "quick"), path)
    lose(folder, "gone")
    result = runtime.ok("delete", "--force", b.id)
    assert "the state is lost" in result.log[-1]["msg"]
    assert not os.path.exists(folder)
    assert runtime.status(other) == "running"
    for each in (pid, living):
        os.kill(each, signal.SIGKILL)
        runtime.wait(b, each)
    runtime.delete(other)
    runtime.host.sweep()


def test_a_number_of_somebody_else_is_left_alone_without_a_state(runtime, bundle):
    b = bundle.sleeping()
    pid = runtime.started(b)
    os.kill(pid, signal.SIGKILL)
    runtime.wait(b, pid)
    lose(folder_of(runtime, b), "gone")
    runtime.refuses("delete", b.id, saying="container does not exist")
    assert runtime.host.leftovers() == []


@pytest.mark.parametrize("text", [b"", b"OCQ1" + b"\xff" * 200])
def test_without_the_launchers_record_python_does_the_verbs(runtime, bundle, text):
    b = bundle("true")
    runtime.create(b)
    with open(os.path.join(folder_of(runtime, b), "quick"), "wb") as file:
        file.write(text)
    assert runtime.status(b) == "created"
    runtime.start(b)
    assert runtime.wait(b) == 0
    runtime.refuses("kill", b.id, saying="container not running")
    runtime.delete(b)


@pytest.mark.parametrize("length", [20, 60, -1])
def test_a_launchers_record_that_was_cut_off(runtime, bundle, length):
    b = bundle("true")
    runtime.create(b)
    path = os.path.join(folder_of(runtime, b), "quick")
    size = os.path.getsize(path)
    os.truncate(path, length if length >= 0 else size + length)
    runtime.start(b)
    assert runtime.wait(b) == 0
    runtime.delete(b)


# --- what a foreign hand puts there

THINGS = {
    "fifo": os.mkfifo,
    "directory": os.mkdir,
    "zeros": lambda path: os.symlink("/dev/zero", path),
    "loop": lambda path: os.symlink(os.path.basename(path), path),
    "dangling": lambda path: os.symlink("/nowhere/at/all", path),
}


@pytest.mark.parametrize("name", THINGS)
def test_a_record_that_is_no_file_is_not_waited_for(runtime, bundle, name):
    b = bundle.sleeping()
    pid = runtime.started(b)
    state = os.path.join(folder_of(runtime, b), "state.json")
    for path in (state, os.path.join(folder_of(runtime, b), "quick")):
        os.rename(path, path + "-kept")
        THINGS[name](path)
    refused(runtime, b.id, "container does not exist" if name == "dangling" else "state.json")
    runtime.delete(b, "--force")
    if name == "dangling":  # as a directory of another program, it was left as it was
        shutil.rmtree(folder_of(runtime, b))
    assert os.path.exists("/dev/zero")
    os.kill(pid, signal.SIGKILL)
    runtime.wait(b, pid)
    runtime.host.sweep()


@pytest.mark.parametrize("name", THINGS)
def test_a_launchers_record_that_is_no_file(runtime, bundle, name):
    b = bundle("true")
    runtime.create(b)
    path = os.path.join(folder_of(runtime, b), "quick")
    os.unlink(path)
    THINGS[name](path)
    assert runtime.status(b) == "created"
    runtime.start(b)
    assert runtime.wait(b) == 0
    runtime.delete(b)
    assert runtime.host.leftovers() == []


@pytest.mark.parametrize("name", ["file", "link"])
def test_a_gate_that_is_no_fifo_is_not_written_to(runtime, bundle, workdir, name):
    b = bundle.sleeping()
    runtime.create(b)
    victim = os.path.join(workdir, "victim")
    with open(victim, "w") as file:
        file.write("precious")
    gate = os.path.join(folder_of(runtime, b), "exec.fifo")
    os.rename(gate, gate + "-kept")
    (os.link if name == "file" else os.symlink)(victim, gate)
    assert runtime("start", b.id).code == 1
    with open(victim) as file:
        assert file.read() == "precious"
    runtime.delete(b, "--force")
    with open(victim) as file:
        assert file.read() == "precious"


def test_an_id_that_is_a_link_is_no_container(runtime, bundle, workdir):
    b = bundle.sleeping()
    runtime.started(b)
    os.mkdir(f"{workdir}/precious")
    with open(f"{workdir}/precious/state.json", "w"):
        pass
    for name, target in (("alias", b.id), ("outside", f"{workdir}/precious")):
        os.symlink(target, os.path.join(runtime.root, name))
        refused(runtime, name, "container does not exist", VERBS)
        assert runtime.ok("delete", "--force", name).errors == []
        os.unlink(os.path.join(runtime.root, name))
    assert os.listdir(f"{workdir}/precious") == ["state.json"]
    assert runtime.status(b) == "running"


def test_a_directory_that_is_no_containers_is_left_alone(runtime):
    """The root of Slurm's containers is /run/user/UID, where other programs live too."""
    folder = os.path.join(runtime.root, "bus")
    os.makedirs(folder)
    with open(os.path.join(folder, "precious"), "w"):
        pass
    refused(runtime, "bus", "container does not exist")
    runtime("delete", "--force", "bus")
    assert os.listdir(folder) == ["precious"]
    shutil.rmtree(folder)


def test_what_another_user_may_write_gets_no_rights_of_root(runtime, bundle):
    """A record says whom to kill and what to remove: it can do no more than its author could.

    Containers that really are of users: test_foreign_state.py.
    """
    b = bundle.sleeping()
    runtime.started(b)
    folder = folder_of(runtime, b)
    for path in (folder, *(entry.path for entry in os.scandir(folder))):
        os.chown(path, 54321, 54321)
    for verb in CHANGING:
        assert runtime(*verb.format(b.id).split()).code != 0, verb
    assert runtime("delete", "--force", b.id).code != 0
    assert runtime.status(b) == "running"
    os.chown(folder, 0, 0)
    for entry in os.scandir(folder):
        os.chown(entry.path, 0, 0)
    runtime.delete(b, "--force")


@pytest.mark.parametrize("peer", ["runc", "crun"])
def test_a_container_of_another_runtime_is_left_to_it(runtime, bundle, peer):
    """Engines that are told another path for a runtime keep its state directory."""
    if reason := engines.missing(peer):
        pytest.skip(reason)
    if peer == "crun" and os.path.isdir("/sys/fs/cgroup/unified"):
        pytest.skip("crun refuses the hybrid layout of this machine's cgroups")
    b = bundle.sleeping()
    os.makedirs(runtime.root)
    command = [peer, "--root", runtime.root]
    with open(b.out, "w") as out:
        subprocess.run(
            [*command, "create", "-b", b.path, "--pid-file", b.pid_file, b.id],
            check=True, timeout=PATIENCE, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    before = sorted(os.listdir(folder_of(runtime, b)))
    saying = "written by another runtime" if peer == "runc" else "container does not exist"
    refused(runtime, b.id, saying)
    runtime("delete", "--force", b.id)
    runtime.refuses("create", "-b", b.path, b.id, saying="container with given ID already exists")
    assert sorted(os.listdir(folder_of(runtime, b))) == before
    assert os.path.exists(f"/proc/{runtime.pid(b)}")
    subprocess.run([*command, "delete", "--force", b.id], check=True, timeout=PATIENCE)


# --- whose process it is


def tampered(runtime, b, **changes):
    """Change fields of the record; the launcher's is gone."""
    path = os.path.join(folder_of(runtime, b), "state.json")
    with open(path) as file:
        record = json.load(file)
    with open(path, "w") as file:
        json.dump({**record, **changes}, file)
    os.unlink(os.path.join(folder_of(runtime, b), "quick"))


def test_a_record_that_names_the_process_of_somebody_else(runtime, bundle):
    """Its start time tells the two apart, in Python and in the launcher alike."""
    b = bundle.sleeping()
    pid = runtime.started(b)
    stranger = subprocess.Popen(["sleep", "1000"])
    runtime.host.known.add(stranger.pid)
    try:
        tampered(runtime, b, pid=stranger.pid)
        assert runtime.status(b) == "stopped"
        stopped = "cannot start a container that has stopped"
        runtime.refuses("start", b.id, saying=stopped)
        runtime.refuses("kill", b.id, "KILL", saying="container not running")
        runtime.refuses("exec", b.id, "true", saying="cannot exec in a stopped", code=255)
        os.kill(pid, signal.SIGKILL)
        runtime.wait(b, pid)
        runtime.delete(b)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def impostor(pid):
    """Return a process that has got the number `pid`, which was free; None if it was taken."""
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(pid - 1))
    process = subprocess.Popen(["sleep", "1000"])
    if process.pid == pid:
        return process
    process.kill()
    process.wait()
    return None


@pytest.mark.parametrize("python", [False, True], ids=["launcher", "python"])
def test_a_number_that_was_used_again(runtime, bundle, python):
    """The very same pid, of a process that was started later: nobody touches it."""
    if not os.access("/proc/sys/kernel/ns_last_pid", os.W_OK):
        pytest.skip("this kernel does not let the next pid be chosen")
    for _ in range(10):  # others take numbers too
        b = bundle.sleeping()
        pid = runtime.started(b)
        if python:
            os.unlink(os.path.join(folder_of(runtime, b), "quick"))
        os.kill(pid, signal.SIGKILL)
        runtime.wait(b, pid)
        stranger = impostor(pid)
        if stranger:
            break
        runtime.delete(b)
    else:
        pytest.skip("this machine is too busy to get a number again")
    runtime.host.known.add(pid)
    try:
        assert runtime.state(b)["status"] == "stopped"
        assert runtime.state(b)["pid"] == 0
        for number in ("KILL", "TERM"):
            runtime.refuses("kill", b.id, number, saying="container not running")
        runtime.refuses("start", b.id, saying="cannot start a container that has stopped")
        runtime.refuses("exec", b.id, "true", saying="cannot exec in a stopped", code=255)
        assert runtime.ok("ps", "--format", "json", b.id).json() in ([], None)
        runtime.delete(b, "--force")
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("damage", [{"version": 1}, {"version": 2}, {"places": 5}], ids=str)
def test_a_record_whose_cgroup_cannot_be_found(runtime, bundle, damage):
    b = bundle.sleeping()
    runtime.started(b)
    tampered(runtime, b, cgroup=damage)
    for words in (["pause", b.id], ["ps", b.id], ["delete", "--force", b.id]):
        runtime.refuses(*words, saying="the state's record of the cgroup is damaged")
    runtime.host.end("sleep")
    runtime.host.sweep()
