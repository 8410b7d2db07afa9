"""`checkpoint` and `restore`, by the CRIU of PATH or the one that OCIRT_TEST_CRIU names.

Each program counts: what was saved and brought back goes on from where it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

from tests.integration.support import (
    PATIENCE,
    UNIFIED,
    bind,
    cgroup_of,
    eventually,
    mount_table,
    namespaces,
    needs_controllers,
    needs_sys_resource,
    only_ocirt,
    tmpfs,
)
from tests.integration.test_terminal import ConsoleSocket

# Renamed into place: it may be stopped between any two steps, for good.
NOTE = "echo $i > /tmp/next; mv /tmp/next /tmp/count; usleep 20000"
COUNT = f"while :; do i=$((i+1)); {NOTE}; done"
ECHO = f"while :; do i=$((i+1)); echo $i; {NOTE}; done"

# As engines ask for it: the paths that the kernel shows and a container should not see.
HIDDEN = {
    "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/nowhere", "/sys/firmware"],
    "readonlyPaths": ["/proc/bus", "/proc/irq", "/proc/sys"],
}


def find_criu():
    """Return (path, None), or (None, why there is no CRIU that works)."""
    path = shutil.which(os.environ.get("OCIRT_TEST_CRIU", "criu"))
    if path is None:
        return None, "CRIU is not installed"
    done = subprocess.run(
        [path, "check"], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    if done.returncode:
        return None, "criu check: " + (errors or [f"exit {done.returncode}"])[0]
    return path, None


CRIU, REASON = find_criu() if os.geteuid() == 0 else (None, "CRIU needs root")

pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


def has(feature):
    """Whether CRIU and the kernel can do this together."""
    argv = [CRIU, "check", "--feature", feature]
    return (
        CRIU is not None and not subprocess.run(argv, capture_output=True, check=False).returncode
    )


@pytest.fixture(autouse=True)
def criu(workdir, monkeypatch):
    """Every runtime looks for `criu` on its PATH."""
    folder = os.path.join(workdir, "criu")
    os.mkdir(folder)
    os.symlink(CRIU, os.path.join(folder, "criu"))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return CRIU


class Life:
    """One container that counts, and what is done to it.  Its output is a pipe of ours."""

    def __init__(self, runtime, bundle):
        self.runtime, self.bundle, self.id = runtime, bundle, bundle.id
        self.images = os.path.join(bundle.path, "images")
        self.work = os.path.join(bundle.path, "work")
        self.reading, writing = os.pipe()
        self.stdio = {"stdin": subprocess.DEVNULL, "stdout": writing, "stderr": writing}

    def close(self):
        os.close(self.reading)
        os.close(self.stdio["stdout"])

    def output(self):
        """Return what there is in the pipe."""
        os.set_blocking(self.reading, False)
        with contextlib.suppress(BlockingIOError):
            return os.read(self.reading, 1 << 16).decode()
        return ""

    def count(self):
        """Return how far it has counted."""
        path = self.bundle.inside("tmp/count")
        assert eventually(lambda: os.path.exists(path)), "it does not count"
        with open(path) as file:
            return int(file.read())

    def counts_on(self):
        """Wait until it has counted further; return how far."""
        before = self.count()
        assert eventually(lambda: self.count() > before), f"it stopped at {before}"
        return self.count()

    def into(self):
        return ("--bundle", self.bundle.path, "--pid-file", self.bundle.pid_file)

    def folders(self):
        return ("--image-path", self.images, "--work-path", self.work)

    def start(self):
        self.runtime.ok("run", "--detach", *self.into(), self.id, **self.stdio)
        self.counts_on()
        return self

    def checkpoint(self, *options):
        return self.runtime.ok("checkpoint", *self.folders(), *options, self.id)

    def restore(self, *options):
        """Restore it detached; return its pid."""
        result = self.try_restore(*options)
        assert result.code == 0, str(result) + self.output() + self.log("restore.log")
        return self.runtime.pid(self.bundle)

    def try_restore(self, *options, **popen):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.bundle.pid_file)
        verb = ("restore", *self.folders(), "--detach", *self.into(), *options, self.id)
        return self.runtime(*verb, **{**self.stdio, **popen})

    def log(self, name):
        with open(os.path.join(self.work, name)) as file:
            return file.read()

    def is_gone(self):
        self.runtime.refuses("state", self.id, saying="does not exist")


@pytest.fixture
def life(runtime, bundle):
    """`life(program, **config)`: a container that is not started yet."""
    made = []

    def make(script=COUNT, **patch):
        made.append(Life(runtime, bundle.sh(script, **patch)))
        return made[-1]

    yield make
    for box in made:
        box.close()


# --- there and back


def test_a_container_goes_on_from_where_it_was(runtime, host, life):
    box = life(linux=HIDDEN).start()
    box.checkpoint()
    box.is_gone()
    assert host.leftovers() == [], "a saved container leaves nothing but its images"
    saved = box.count()
    pid = box.restore()
    assert box.counts_on() > saved
    assert box.count() < saved + 10_000, "it began anew"
    state = runtime.state(box.bundle)
    assert (state["status"], state["pid"]) == ("running", pid)
    runtime.kill(box.bundle, "KILL")
    assert runtime.wait(box.bundle, pid) == 137
    runtime.delete(box.bundle)
    assert host.leftovers() == []


def test_it_can_be_saved_again_and_brought_back_again(life):
    box = life().start()
    seen = box.count()
    for _ in range(2):
        box.checkpoint()
        box.restore()
        before, seen = seen, box.counts_on()
        assert seen > before


def test_one_that_is_left_running_goes_on_and_its_images_are_whole(runtime, life):
    box = life().start()
    box.checkpoint("--leave-running")
    then = box.counts_on()
    assert runtime.status(box.bundle) == "running"
    runtime.delete(box.bundle, "--force")
    box.restore()
    assert box.counts_on() < then + 10_000


def test_a_paused_container_can_be_saved_and_comes_back_running(runtime, life):
    box = life().start()
    runtime.ok("pause", box.id)
    box.checkpoint()
    box.is_gone()
    box.restore()
    assert runtime.status(box.bundle) == "running"
    box.counts_on()


def test_a_paused_container_that_is_left_running_stays_paused(runtime, life):
    box = life().start()
    runtime.ok("pause", box.id)
    box.checkpoint("--leave-running")
    assert runtime.status(box.bundle) == "paused"
    runtime.ok("resume", box.id)
    box.counts_on()


def test_all_verbs_work_on_what_was_restored(runtime, life):
    box = life().start()
    box.checkpoint()
    box.restore()
    assert runtime.ok("exec", box.id, "cat", "/proc/1/comm").out.strip() == "sh"
    assert runtime.ok("ps", "--format", "json", box.id).json()
    runtime.ok("pause", box.id)
    assert runtime.status(box.bundle) == "paused"
    still = box.count()
    time.sleep(0.2)
    assert box.count() == still
    runtime.ok("resume", box.id)
    box.counts_on()
    runtime.refuses("start", box.id, saying="cannot start")
    runtime.delete(box.bundle, "--force")
    box.is_gone()


def test_the_foreground_sees_the_program_to_its_end(runtime, life):
    script = f"until [ -e /tmp/stop ]; do i=$((i+1)); {NOTE}; done;"
    box = life(f"{script} echo over; exit 7").start()
    box.checkpoint()
    verb = ("restore", *box.folders(), "--bundle", box.bundle.path, box.id)
    waiting = runtime.spawn(*verb, **box.stdio)
    box.counts_on()
    box.bundle.put("tmp/stop")
    assert waiting.wait(PATIENCE) == 7
    assert box.output() == "over\n"
    box.is_gone()


# --- what surrounds it


def test_a_pipe_is_replaced_by_the_one_at_hand(runtime, life):
    box = life(ECHO).start()
    box.counts_on()
    box.checkpoint()
    first = list(map(int, box.output().split()))
    reading, writing = os.pipe()
    with os.fdopen(reading) as pipe:
        result = box.try_restore(stdout=writing, stderr=writing)
        os.close(writing)
        assert result.code == 0, str(result) + box.log("restore.log")
        box.counts_on()
        runtime.delete(box.bundle, "--force")
        second = list(map(int, pipe.read().split()))
    assert second
    assert first + second == list(range(1, second[-1] + 1))
    assert box.output() == ""


def test_a_pipe_of_the_programs_own_stays_its_own(life):
    # Its stdout leads to a process in the container, which writes to the pipe of ours.
    reader = "mkfifo /tmp/p; while read x; do echo got $x; done < /tmp/p"
    box = life(f"{reader} & until [ -e /tmp/p ]; do :; done; exec > /tmp/p; {ECHO}").start()
    box.checkpoint()
    assert box.output().startswith("got 1\n")
    box.restore()
    box.counts_on()
    assert "got" in box.output()


@only_ocirt("runc refuses a container whose output is a file")
def test_a_file_has_to_be_as_long_as_it_was(runtime, host, life):
    box = life(f"echo hello; {COUNT}")
    with open(box.bundle.out, "w") as out:
        verb = ("run", "--detach", *box.into(), box.id)
        runtime.ok(*verb, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    box.counts_on()
    box.checkpoint()
    with open(f"{box.bundle.out}.other", "w") as out:
        result = box.try_restore(stdout=out, stderr=out)
    assert result.code == 1
    assert "has bad size 0 (expect 6)" in result.error
    assert host.leftovers() == []
    with open(box.bundle.out, "a") as out:
        result = box.try_restore(stdout=out, stderr=out)
    assert result.code == 0, str(result) + box.log("restore.log")
    box.counts_on()


def test_a_terminal_goes_to_the_console_socket(runtime, life, workdir):
    script = "echo ready; while read word; do echo got $word; done"
    box = life(script, process={"terminal": True})
    before = ConsoleSocket(os.path.join(workdir, "before"))
    runtime.started(box.bundle, "--console-socket", before.path)
    screen = before.master
    assert screen.until("ready")
    box.checkpoint()
    after = ConsoleSocket(os.path.join(workdir, "after"))
    box.restore("--console-socket", after.path)
    screen = after.master
    os.write(screen.fd, b"again\n")
    assert screen.until("got again")


def test_a_terminal_needs_somebody_to_take_it(runtime, life, workdir):
    box = life(process={"terminal": True})
    console = ConsoleSocket(os.path.join(workdir, "before"))
    runtime.started(box.bundle, "--console-socket", console.path)
    assert console.master
    box.checkpoint()
    result = box.try_restore()
    assert result.code == 1
    assert "without setting console socket" in result.error
    assert runtime.host.leftovers() == []


def points(runtime, box):
    """Return what is mounted in the container: point → file system and options."""
    table = mount_table(runtime.ok("exec", box.id, "cat", "/proc/self/mountinfo").out)
    return {point: (m.fstype, m.root, sorted(m.options)) for point, m in table.items()}


def test_everything_is_mounted_as_it_was(runtime, life, workdir):
    source = os.path.join(workdir, "data")
    os.makedirs(os.path.join(source, "deep"))
    with open(os.path.join(source, "note"), "w") as file:
        file.write("from the host\n")
    mounts = [
        bind(source, "/plain"),
        bind(source, "/guarded", "ro", "nosuid", "nodev", "noexec", "rprivate"),
        bind(os.path.join(source, "note"), "/etc/note", "ro"),
        bind(source, "/linked/data"),
        tmpfs("/scratch", "size=1m", "nosuid"),
        bind(source, "/scratch/deep/data"),
    ]
    box = life(
        "ln -s plain /tmp/link; echo kept > /scratch/file;" + COUNT,
        more_mounts=mounts,
        linux=HIDDEN,
    )
    os.mkdir(box.bundle.inside("real"))
    os.symlink("/real", box.bundle.inside("linked"))
    box.start()
    before = points(runtime, box)
    assert before["/real/data"][0]
    box.checkpoint()
    box.restore()
    assert points(runtime, box) == before
    read = runtime.ok("exec", box.id, "cat", "/real/data/note", "/etc/note", "/scratch/file")
    assert read.lines == ["from the host", "from the host", "kept"]


def test_what_is_mounted_below_a_bound_directory_comes_along(runtime, life, workdir, host_mount):
    source = os.path.join(workdir, "data")
    os.makedirs(os.path.join(source, "below"))
    host_mount("-t", "tmpfs", "none", os.path.join(source, "below"))
    with open(os.path.join(source, "below/note"), "w") as file:
        file.write("here\n")
    box = life(more_mounts=[bind(source, "/data", "rbind")]).start()
    box.checkpoint()
    box.restore()
    assert runtime.ok("exec", box.id, "cat", "/data/below/note").out == "here\n"


def test_mount_points_that_the_rootfs_lacks_are_made_again(runtime, life, workdir):
    source = os.path.join(workdir, "data")
    os.mkdir(source)
    file = os.path.join(workdir, "file")
    with open(file, "w") as there:
        there.write("text\n")
    mounts = [bind(source, "/mnt/data"), bind(file, "/mnt/file"), tmpfs("/var/scratch")]
    box = life(more_mounts=mounts).start()
    box.checkpoint()
    shutil.rmtree(box.bundle.inside("mnt"))
    os.rmdir(box.bundle.inside("var/scratch"))
    box.restore()
    assert runtime.ok("exec", box.id, "cat", "/mnt/file").out == "text\n"


@pytest.mark.parametrize(
    "user",
    [
        {"uid": 0, "gid": 0},
        # CRIU has to read the limits of a process that is not root's.
        pytest.param({"uid": 1000, "gid": 1000, "additionalGids": [5]}, marks=needs_sys_resource),
    ],
    ids=["root", "alice"],
)
def test_what_the_process_may_do(runtime, life, user):
    limits = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]
    box = life(
        process={"user": user, "rlimits": limits},
        root={"readonly": True},
        more_mounts=[tmpfs("/tmp", "mode=1777")],
    )
    runtime.ok("run", "--detach", *box.into(), box.id, **box.stdio)
    script = (
        "grep -E '^(Uid|Gid|Groups|Cap|NoNew|Seccomp)' /proc/1/status; grep files /proc/1/limits;"
        "cat /tmp/count; ! touch /new 2> /dev/null"
    )
    assert eventually(lambda: runtime("exec", box.id, "test", "-s", "/tmp/count").code == 0)
    *before, count = runtime.ok("exec", box.id, "sh", "-c", script).lines
    box.checkpoint()
    box.restore()
    *after, later = runtime.ok("exec", box.id, "sh", "-c", script).lines
    assert after == before
    assert int(later) >= int(count)


@contextlib.contextmanager
def a_network(host):
    """Hold a network namespace; its path."""
    with subprocess.Popen(["unshare", "--net", "sleep", "1000"]) as holder:
        host.known.add(holder.pid)
        path = f"/proc/{holder.pid}/ns/net"
        own = os.stat("/proc/self/ns/net").st_ino
        try:
            assert eventually(lambda: os.stat(path).st_ino != own)
            yield path
        finally:
            holder.kill()


def test_a_network_namespace_of_others_is_joined_again(runtime, life):
    with a_network(runtime.host) as path:
        spaces = namespaces("pid", "ipc", "uts", "mount", network=path)
        box = life(linux={"namespaces": spaces}).start()
        box.checkpoint()
        pid = box.restore()
        assert os.stat(f"/proc/{pid}/ns/net").st_ino == os.stat(path).st_ino
        box.counts_on()
        runtime.delete(box.bundle, "--force")


def test_a_namespace_that_has_gone_is_named(runtime, life):
    with a_network(runtime.host) as path:
        spaces = namespaces("pid", "ipc", "uts", "mount", network=path)
        box = life(linux={"namespaces": spaces}).start()
        box.checkpoint()
    result = box.try_restore()
    assert result.code == 1
    assert "linux.namespaces[4]" in result.error
    assert runtime.host.leftovers() == []


@only_ocirt("runc leaves the loopback device of a new network namespace down")
def test_the_loopback_device_is_up_again(runtime, life):
    box = life().start()
    box.checkpoint()
    box.restore()
    address = runtime.ok("exec", box.id, "ip", "-o", "addr", "show", "lo").out
    assert "127.0.0.1/8" in address


@needs_controllers("memory", "pids")
def test_limits_are_those_of_the_config(runtime, life):
    limits = {"pids": {"limit": 77}, "memory": {"limit": 128 << 20}}
    box = life(linux={"resources": limits}).start()
    box.checkpoint()
    assert not os.path.exists(cgroup_of(box.bundle, "pids"))
    box.bundle.patch(linux={"resources": {"pids": {"limit": 88}}})
    pid = box.restore()
    memory = "memory.max" if UNIFIED else "memory.limit_in_bytes"
    for controller, file, value in (("pids", "pids.max", 88), ("memory", memory, 128 << 20)):
        folder = cgroup_of(box.bundle, controller)
        with open(f"{folder}/{file}") as limit, open(f"{folder}/cgroup.procs") as procs:
            assert int(limit.read()) == value
            assert str(pid) in procs.read().split()
    # The device rules, too: /dev/full is allowed to all, what is not listed to none.
    allowed = runtime("exec", box.id, "sh", "-c", "cat /dev/full | head -c1 >/dev/null")
    assert allowed.code == 0
    refused = runtime("exec", box.id, "sh", "-c", "mknod /tmp/mem c 1 1 && cat /tmp/mem")
    assert refused.code != 0


def test_a_private_cgroup_namespace(runtime, life):
    spaces = namespaces("pid", "network", "ipc", "uts", "mount", "cgroup")
    mount = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["ro", "nosuid", "noexec", "nodev"]}  # fmt: skip
    box = life(linux={"namespaces": spaces}, more_mounts=[mount]).start()
    before = runtime.ok("exec", box.id, "cat", "/proc/1/cgroup").lines
    box.checkpoint()
    box.restore()
    after = runtime.ok("exec", box.id, "cat", "/proc/1/cgroup").lines
    assert sorted(after) == sorted(before)
    assert all(line.endswith(":/") for line in after)


def test_hooks_of_a_restore(runtime, life, workdir):
    notes = os.path.join(workdir, "notes")
    kinds = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart",
             "poststop")  # fmt: skip
    hooks = {
        kind: [
            {
                "path": "/bin/sh",
                "args": ["sh", "-c", f"cat > {notes}.state; echo {kind} >> {notes}"],
                "env": ["PATH=/usr/bin:/bin"],
            }
        ]
        for kind in kinds
        if kind != "startContainer"
    }
    box = life(hooks=hooks).start()
    os.unlink(notes)
    box.checkpoint()
    with open(notes) as file:
        assert file.read().split() == ["poststop"]
    os.unlink(notes)
    box.restore()
    with open(notes) as file:
        assert file.read().split() == ["prestart", "createRuntime"]
    with open(f"{notes}.state") as file:
        state = json.load(file)
    assert (state["id"], state["bundle"]) == (box.id, box.bundle.path)
    assert state["pid"] == runtime.pid(box.bundle)


def test_a_hook_that_fails_ends_the_restore(runtime, life):
    box = life().start()
    box.checkpoint()
    failing = {"path": "/bin/sh", "args": ["sh", "-c", "echo no way; exit 3"]}
    box.bundle.patch(hooks={"createRuntime": [failing]})
    result = box.try_restore()
    assert result.code == 1
    if runtime.is_ocirt:
        assert "createRuntime hook #0: exit status 3, stdout: no way" in result.error
    assert runtime.host.leftovers() == []


# --- more of CRIU's own


def test_settings_of_crius_own_win(runtime, life, workdir):
    settings = os.path.join(workdir, "criu.conf")
    with open(settings, "w") as file:
        file.write("log-file elsewhere.log\n")
    box = life(annotations={"org.criu.config": settings})
    box.start()
    box.checkpoint()
    assert os.path.exists(os.path.join(box.work, "elsewhere.log"))


@pytest.mark.skipif(not has("mem_dirty_track"), reason="this kernel does not track dirty memory")
def test_a_pre_dump_makes_the_dump_after_it_smaller(runtime, life):
    # A megabyte that never changes.
    box = life(f"big=$(head -c 1000000 /dev/zero | tr '\\0' x); {COUNT}").start()
    first = os.path.join(box.bundle.path, "first")
    runtime.ok("checkpoint", "--pre-dump", "--image-path", first, "--work-path", box.work, box.id)
    assert runtime.status(box.bundle) == "running"
    box.counts_on()
    box.checkpoint("--parent-path", "../first")

    def pages(folder):
        return sum(e.stat().st_size for e in os.scandir(folder) if e.name.startswith("pages-"))

    assert pages(box.images) < pages(first) / 2
    saved = box.count()
    box.restore()
    assert box.counts_on() > saved


@pytest.mark.skipif(not has("uffd-noncoop"), reason="this kernel lacks userfaultfd for CRIU")
def test_a_dump_waits_until_its_memory_is_fetched(runtime, life):
    # No further: the page server of CRIU 4.1.1 fails at this machine's first request, whoever
    # started it ("page-pipe: splice: -1: Bad file descriptor").
    box = life().start()
    with socket.socket() as spare:
        spare.bind(("127.0.0.1", 0))
        port = spare.getsockname()[1]
    reading, writing = os.pipe()
    verb = ["checkpoint", *box.folders(), "--lazy-pages", "--page-server", f"127.0.0.1:{port}",
            "--status-fd", str(writing), box.id]  # fmt: skip
    dumping = runtime.spawn(
        *verb, pass_fds=[writing], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(writing)
    with os.fdopen(reading, "rb") as ready:
        assert ready.read(1) == b"\0"
    assert dumping.poll() is None
    saved = box.count()
    time.sleep(0.2)
    assert box.count() == saved
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.sendall(bytes(64))  # of which it can make nothing
    assert dumping.wait(PATIENCE) == 1
    assert runtime.status(box.bundle) == "running"
    box.counts_on()


# --- refusals


@pytest.mark.parametrize("status", ["created", "stopped"])
def test_only_what_runs_can_be_saved(runtime, life, status):
    box = life("exit 0")
    runtime.create(box.bundle)
    if status == "stopped":
        runtime.start(box.bundle)
        runtime.wait(box.bundle)
    saying = f"Container cannot be checkpointed in {status} state"
    runtime.refuses("checkpoint", "--image-path", box.images, box.id, saying=saying)
    assert not os.path.exists(box.images) or os.listdir(box.images) == []


def test_an_unknown_container(runtime, workdir):
    runtime.refuses("checkpoint", "--image-path", f"{workdir}/i", "nobody", saying="does not exist")


@pytest.mark.parametrize(
    ("option", "value", "saying"),
    [
        ("--manage-cgroups-mode", "sideways", "invalid manage-cgroups-mode value"),
        ("--empty-ns", "mount", 'namespace "mount" is not supported'),
        ("--page-server", "nowhere", "Use --page-server ADDRESS:PORT to specify page server"),
        ("--page-server", "host:port", "Invalid port number"),
        ("--parent-path", "/absolute", "--parent-path must be relative"),
        ("--parent-path", "../nowhere", "invalid --parent-path"),
    ],
)
def test_wrong_options_are_refused_before_anything_happens(runtime, life, option, value, saying):
    box = life().start()
    runtime.refuses("checkpoint", *box.folders(), option, value, box.id, saying=saying)
    box.counts_on()


def test_a_dump_that_fails_leaves_the_container_running_and_no_images(runtime, host, life):
    # A file of the machine that is none of the container's: CRIU cannot say where it is.
    box = life()
    with open(os.path.join(box.bundle.path, "stray"), "w") as stray:
        code = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.execv(sys.argv[2], sys.argv[2:])"
        argv = runtime.argv("create", "--bundle", box.bundle.path, "--preserve-fds", "1", box.id)
        with open(box.bundle.out, "w") as out:
            subprocess.run(
                [sys.executable, "-c", code, str(stray.fileno()), *argv],
                pass_fds=[stray.fileno()], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                check=True, timeout=PATIENCE,
            )  # fmt: skip
    runtime.start(box.bundle)
    box.counts_on()
    before = host.look()
    result = runtime("checkpoint", *box.folders(), box.id)
    assert result.code == 1
    assert "criu failed: type DUMP" in result.error
    assert f"log file {box.work}/dump.log: Error (" in result.error
    assert "\n" not in result.error
    assert runtime.status(box.bundle) == "running"
    box.counts_on()
    assert host.look() == before
    assert not os.path.exists(box.images), "half a checkpoint looks like a whole one"
    assert os.listdir(box.work)


@pytest.mark.parametrize(
    ("broken", "how"),
    [
        ("inventory.img", "missing"),
        ("inventory.img", "cut"),
        ("core-1.img", "cut"),
        ("mm-1.img", "missing"),
        # Cut, it would keep CRIU 4.1.1 busy for ever.
        ("pages-1.img", "missing"),
        ("descriptors.json", "missing"),
        ("descriptors.json", "cut"),
    ],
)
def test_images_that_are_not_whole(runtime, host, life, broken, how):
    box = life().start()
    box.checkpoint()
    path = os.path.join(box.images, broken)
    if how == "missing":
        os.unlink(path)
    else:
        os.truncate(path, os.path.getsize(path) // 2)
    result = box.try_restore()
    assert result.code == 1, str(result)
    assert len(result.errors) == 1
    if broken != "descriptors.json":
        assert f"log file {box.work}/restore.log: Error (" in result.error
    assert host.leftovers() == []
    assert not os.path.exists(box.bundle.pid_file)


def test_no_images_at_all(runtime, host, life, workdir):
    box = life()
    result = box.try_restore()
    assert result.code == 1
    assert "--image-path" in result.error
    assert "no such file or directory" in result.error
    assert host.leftovers() == []


def test_an_id_that_is_taken(runtime, life):
    box = life().start()
    box.checkpoint("--leave-running")
    result = box.try_restore()
    assert result.code == 1
    assert "container with given ID already exists" in result.error
    box.counts_on()


def test_a_pid_file_that_cannot_be_written_ends_the_container(runtime, host, life):
    box = life().start()
    box.checkpoint()
    box.bundle.pid_file = os.path.join(box.bundle.path, "nowhere/pid")
    result = box.try_restore()
    assert result.code == 1
    assert "no such file or directory" in result.error
    assert host.leftovers() == []


# --- CRIU that is not there, or not as it should be


@only_ocirt("runc finds CRIU by PATH alone")
def test_the_program_may_be_named(runtime, life, monkeypatch):
    box = life().start()
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    missing = ("--criu", "/nowhere/criu", "checkpoint", *box.folders(), box.id)
    runtime.refuses(*missing, ours="--criu: /nowhere/criu: no such program")
    runtime.ok("--criu", CRIU, "checkpoint", *box.folders(), box.id)
    box.is_gone()


@only_ocirt("runc's advice is go's")
def test_no_criu_at_all(runtime, life):
    box = life().start()
    runtime.refuses(
        "--criu", "no-such-criu", "checkpoint", *box.folders(), box.id,
        ours='"no-such-criu": executable file not found in $PATH: install CRIU, or name it',
    )  # fmt: skip
    box.counts_on()
    assert not os.path.exists(box.images)


def test_help_is_the_probe_for_support(runtime):
    assert runtime("checkpoint", "--help").code == 0
    probe = runtime("restore", "--lsm-mount-context")
    assert probe.code == 1
    assert "flag needs an argument" in probe.out + probe.err
