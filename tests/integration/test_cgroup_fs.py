"""The cgroup manager against the kernel, without a container around it.

These need no runtime: a test forks a process, which attaches itself as the init does.  What the
kernel makes of it is read by other eyes: /proc, psutil, and what the process may still do.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import json
import os
import select
import signal
import stat
import struct
import subprocess
import time

import psutil
import pytest

from ocirt import cgroup
from ocirt.cgroup import devices
from ocirt.errors import ConfigError, Error, KernelError
from tests.integration.support import UNIFIED, needs_controllers, needs_v1, needs_v2
from tests.unit.cgroup.rules import ALLOW_ALL, DENY_ALL, meant

pytestmark = pytest.mark.skipif(
    not os.access("/sys/fs/cgroup", os.W_OK), reason="needs a writable /sys/fs/cgroup"
)
NUMBERS = itertools.count(1)
TOP = f"/ocirt-test-fs-{os.getpid()}"  # of this session alone
MEMORY = 64 << 20
HYBRID = os.path.exists("/sys/fs/cgroup/unified/cgroup.procs")


class Group:
    """A manager, and the processes that live in its cgroup."""

    def __init__(self, name):
        self.name = name
        self.manager = cgroup.open_manager(f"{TOP}/{name}", "unused")
        self.children = []

    def create(self, **resources):
        self.manager.create(resources)
        return self

    def attach(self):
        """Move the calling, single-threaded process into the cgroup."""
        for _, path in self.manager.attach_files():
            put(path, "0")
        if self.manager.cgroup_dir():
            put(self.manager.cgroup_dir() + "/cgroup.procs", "0")

    def spawn(self, function=None):
        """Fork a process that attaches itself, says so, and then runs `function` or sleeps."""
        ready, told = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                os.close(ready)
                self.attach()
                os.write(told, b"1")
                if function:
                    function()
                    os._exit(0)
                while True:
                    signal.pause()
            finally:
                os._exit(1)
        os.close(told)
        self.children.append(pid)
        assert os.read(ready, 1) == b"1", "could not attach"
        os.close(ready)
        return pid

    def ask(self, function):
        """Return the answer of a function that runs inside the cgroup."""
        answer, told = os.pipe()
        pid = self.spawn(lambda: os.write(told, json.dumps(function()).encode()))
        os.close(told)
        with open(answer, "rb") as pipe:
            text = pipe.read()
        self.reap(pid)
        return json.loads(text)

    def reap(self, pid):
        """Return the wait status of a process that ends within ten seconds."""
        fd = os.pidfd_open(pid)
        try:
            assert select.select([fd], [], [], 10)[0], "still running"
        finally:
            os.close(fd)
        self.children.remove(pid)
        return os.waitpid(pid, 0)[1]

    def read(self, file):
        with open(self.manager.path_of(file)) as text:
            return text.read().strip()

    def close(self):
        for directory in self.manager.directories():
            if not os.path.isdir(directory):
                return
        self.manager.kill(9)
        for pid in list(self.children):
            self.reap(pid)
        self.manager.undo()


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.01)


def put(path, value):
    with open(path, "w") as file:
        file.write(value)


@pytest.fixture
def group():
    group = Group(f"t{os.getpid()}-{next(NUMBERS)}")
    yield group
    group.close()
    assert [d for d in group.manager.directories() if os.path.exists(d)] == []


def test_a_process_that_attaches_itself_is_in_every_hierarchy(group):
    pid = group.create().spawn()
    with open(f"/proc/{pid}/cgroup") as file:
        lines = [line.strip().split(":", 2) for line in file]
    # On v2 a hybrid machine's v1 hierarchies may be there and out of sight.
    paths = {path for _, names, path in lines if not UNIFIED or not names}
    assert paths == {f"{TOP}/{group.name}"}
    assert group.manager.pids() == [pid]


def test_create_and_undo_leave_the_tree_as_it_was(group):
    group.create()
    assert all(os.path.isdir(d) for d in group.manager.directories())
    parents = {os.path.dirname(d) for d in group.manager.directories()}
    group.manager.undo()
    assert not any(os.path.exists(parent) for parent in parents)


@needs_controllers("cpuset")
def test_a_failing_limit_leaves_nothing(group):
    with pytest.raises(Error) as caught:
        group.create(cpu={"cpus": "9999"})
    assert str(caught.value).startswith("linux.resources.cpu.cpus: cpuset.cpus = 9999: ")
    assert not any(os.path.exists(d) for d in group.manager.directories())


@needs_controllers("cpuset")
def test_cpus_limit_where_a_process_runs(group):
    pid = group.create(cpu={"cpus": "0"}).spawn()
    assert psutil.Process(pid).cpu_affinity() == [0]


@needs_controllers("cpuset")
def test_a_cpuset_without_limits_has_what_its_parent_has(group):
    expected = sorted(psutil.Process().cpu_affinity())
    assert sorted(psutil.Process(group.create().spawn()).cpu_affinity()) == expected


@needs_controllers("pids")
def test_a_pids_limit_stops_forks(group):
    def forks():
        made, refused = [], 0
        while len(made) < 10 and not refused:
            try:
                made.append(os.fork())
            except OSError as error:
                refused = error.errno
            if made and not made[-1]:
                signal.pause()
        for pid in made:
            os.kill(pid, signal.SIGKILL)
        return len(made), refused

    assert group.create(pids={"limit": 4}).ask(forks) == [3, errno.EAGAIN]


@needs_controllers("memory")
def test_more_memory_than_allowed_is_an_oom_kill(group):
    group.create(memory={"limit": 16 << 20, "swap": 16 << 20})
    assert not group.manager.oom_killed()
    pid = group.spawn(lambda: bytearray(MEMORY))
    assert os.WTERMSIG(group.reap(pid)) == signal.SIGKILL
    assert group.manager.oom_killed()


@needs_controllers("memory")
@pytest.mark.parametrize(
    "steps",
    [
        [(1, 2), (4, 8), (1, 1), (-1, -1), (2, 3)],
        [(8, 8), (2, 2), (8, -1), (1, 4), (-1, None), (3, 6)],
    ],
)
def test_memory_and_swap_go_up_and_down(group, steps):
    group.create()
    for limit, swap in steps:
        section = {"limit": limit * MEMORY if limit > 0 else -1}
        if swap is not None:
            section["swap"] = swap * MEMORY if swap > 0 else -1
        group.manager.set({"memory": section})
        if group.manager.version == 1:
            total = int(group.read("memory.memsw.limit_in_bytes"))
            found = int(group.read("memory.limit_in_bytes"))
            unlimited = 1 << 60
            assert found == limit * MEMORY if limit > 0 else found > unlimited
            assert total == swap * MEMORY if (swap or 0) > 0 else total > unlimited
        else:
            assert group.read("memory.max") == (str(limit * MEMORY) if limit > 0 else "max")


@needs_controllers("memory")
def test_a_limit_below_what_is_used_is_refused_by_v1_and_checked_on_v2(group):
    group.create()

    def hold():
        held = b"x" * (32 << 20)
        os.write(told, held[:1])
        signal.pause()

    ready, told = os.pipe()
    group.spawn(hold)
    assert os.read(ready, 1)
    os.close(ready)
    os.close(told)
    section = {"limit": 1 << 20, "swap": 1 << 20, "checkBeforeUpdate": True}
    with pytest.raises(Error, match=r"unable to set memory limit to|rejecting memory"):
        group.manager.set({"memory": section})


@needs_controllers("cpu")
def test_quota_and_period_go_up_and_down(group):
    group.create(cpu={"quota": 50000, "period": 100000, "shares": 512})
    for quota, period in ((10000, 20000), (200000, 100000), (-1, 50000), (5000, 10000)):
        group.manager.set({"cpu": {"quota": quota, "period": period}})
        if group.manager.version == 1:
            found = group.read("cpu.cfs_quota_us"), group.read("cpu.cfs_period_us")
            assert found == (str(quota), str(period))
        else:
            assert group.read("cpu.max") == f"{quota if quota > 0 else 'max'} {period}"


@needs_controllers("cpu")
def test_idle_and_shares_take_turns(group):
    group.create(cpu={"shares": 512})
    group.manager.set({"cpu": {"idle": 1, "shares": 512}})
    assert group.read("cpu.idle") == "1"
    group.manager.set({"cpu": {"idle": 0, "shares": 256}})
    assert group.read("cpu.idle") == "0"
    if group.manager.version == 1:
        assert group.read("cpu.shares") == "256"


@needs_controllers("cpu")
def test_a_quota_above_the_parents_is_refused_with_the_field(group):
    group.create()
    file = "cpu.cfs_quota_us" if group.manager.version == 1 else "cpu.max"
    parent = os.path.dirname(os.path.dirname(group.manager.path_of(file)))
    put(f"{parent}/{file}", "20000")
    try:
        if group.manager.version == 1:
            with pytest.raises(KernelError) as caught:
                group.manager.set({"cpu": {"quota": 90000}})
            assert str(caught.value) == (
                "linux.resources.cpu.quota: cpu.cfs_quota_us = 90000: invalid argument"
            )
        else:
            group.manager.set({"cpu": {"quota": 90000}})  # v2 takes the smaller of both
    finally:
        put(f"{parent}/{file}", "-1" if group.manager.version == 1 else "max")


def test_frozen_processes_stand_still_until_thawed(group):
    ready, told = os.pipe()

    def count():
        while True:
            os.write(told, b"x")
            time.sleep(0.001)

    group.create().spawn(count)
    os.set_blocking(ready, False)
    assert not group.manager.frozen()
    group.manager.freeze()
    assert group.manager.frozen()
    drain(ready)
    time.sleep(0.1)
    assert drain(ready) == 0
    group.manager.thaw()
    assert not group.manager.frozen()
    assert select.select([ready], [], [], 10)[0]
    os.close(ready)
    os.close(told)


def drain(fd):
    count = 0
    try:
        while some := len(os.read(fd, 1 << 16)):
            count += some
    except BlockingIOError:
        pass
    return count


def test_a_child_of_a_frozen_cgroup_does_not_count_as_paused_itself(group):
    group.create()
    inner = cgroup.open_manager(f"{TOP}/{group.name}/inner", "unused")
    inner.create({})
    group.manager.freeze()
    assert group.manager.frozen()
    assert not inner.frozen()
    group.manager.thaw()
    inner.remove()


@needs_controllers("pids")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_processes_that_keep_forking_are_all_killed(group, number):
    def breed():
        while True:
            try:
                if not os.fork():
                    os.setsid()
            except OSError:
                time.sleep(0.001)

    pid = group.create(pids={"limit": 20}).spawn(breed)
    wait_until(lambda: len(group.manager.pids()) > 10)
    group.manager.kill(number)
    assert os.WTERMSIG(group.reap(pid)) == number
    wait_until(lambda: not group.manager.pids())
    group.manager.remove()


def test_sigkill_reaches_a_paused_container(group):
    pid = group.create().spawn()
    group.manager.freeze()
    group.manager.kill(signal.SIGKILL)
    assert os.WTERMSIG(group.reap(pid)) == signal.SIGKILL


def test_another_signal_leaves_a_paused_container_paused(group):
    group.create().spawn()
    group.manager.freeze()
    group.manager.kill(signal.SIGUSR1)
    assert group.manager.frozen()
    group.manager.thaw()


def test_a_cgroup_in_use_is_refused_and_left_alone(group):
    pid = group.create().spawn()
    with pytest.raises(ConfigError) as caught:
        Group(group.name).create()
    message = "linux.cgroupsPath: container's cgroup is not empty: 1 process(es) found"
    assert str(caught.value) == message
    assert group.manager.pids() == [pid]


@needs_controllers("pids")
def test_a_cgroup_left_over_is_used_again(group):
    group.create(pids={"limit": 5})
    again = Group(group.name).create(pids={"limit": 6})
    assert again.manager.pids() == []
    assert group.read("pids.max") == "6"


def test_removal_includes_cgroups_made_inside(group):
    group.create()
    for directory in group.manager.directories():
        os.makedirs(f"{directory}/a/b")
    group.manager.remove()


def test_removal_waits_for_processes_that_are_still_ending(group):
    group.create()
    pids = [group.spawn() for _ in range(5)]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    group.manager.remove()


def test_a_busy_cgroup_is_reported(group, monkeypatch):
    group.create().spawn()
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(
        KernelError, match=r"^unable to destroy cgroup: /sys/.*: device or resource"
    ):
        group.manager.remove()


# --- devices: nodes of any number, opened inside; the kernel asks the cgroup before the driver

RULES = [
    [],
    [DENY_ALL],
    [ALLOW_ALL],
    [DENY_ALL, {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}],
    [DENY_ALL, {"allow": True, "type": "c", "major": 250, "access": "rw"}],
    [DENY_ALL, {"allow": True, "type": "b", "minor": 5, "access": "rwm"}],
    [{"allow": True, "type": "b", "access": "r"}],
    [ALLOW_ALL, {"allow": False, "type": "b", "major": 250, "minor": 5, "access": "w"}],
    [ALLOW_ALL, {"allow": False, "type": "c", "major": 250, "minor": 5, "access": "rwm"}],
    [ALLOW_ALL, {"allow": False, "type": "b", "access": "rwm"}, DENY_ALL],
]
NODES = [
    (kind, major, minor)
    for kind in "bc"
    for major, minor in ((1, 3), (1, 5), (1, 11), (10, 200), (136, 77), (250, 5), (250, 6))
]
FLAGS = {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR}


@pytest.fixture
def nodes(tmp_path):
    if os.statvfs(tmp_path).f_flag & os.ST_NODEV:
        pytest.skip(f"{tmp_path} is mounted nodev")
    for kind, major, minor in NODES:
        mode = stat.S_IFBLK if kind == "b" else stat.S_IFCHR
        os.mknod(tmp_path / f"{kind}{major}:{minor}", mode | 0o600, os.makedev(major, minor))
    return tmp_path


def verdicts(nodes):
    """Try everything with every node; return what was not refused by permission."""
    found = []
    for kind, major, minor in NODES:
        path = f"{nodes}/{kind}{major}:{minor}"
        for access, flags in FLAGS.items():
            try:
                os.close(os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY))
            except PermissionError:
                continue
            except OSError:
                pass  # nobody at this number: but we were let through to find out
            found.append([kind, major, minor, access])
        try:
            mode = stat.S_IFBLK if kind == "b" else stat.S_IFCHR
            os.mknod(path + ".new", mode | 0o600, os.makedev(major, minor))
        except PermissionError:
            continue
        os.unlink(path + ".new")
        found.append([kind, major, minor, "m"])
    return found


def expected(rules):
    return [
        [*node, access] for node in NODES for access in (*FLAGS, "m") if meant(rules, *node, access)
    ]


@needs_v1
@pytest.mark.parametrize("rules", RULES)
def test_v1_lets_through_what_the_rules_allow(group, nodes, rules):
    group.create(devices=rules)
    assert group.ask(lambda: verdicts(nodes)) == expected(rules)


@pytest.mark.skipif(
    not HYBRID and not os.path.exists("/sys/fs/cgroup/cgroup.procs"), reason="needs cgroup2"
)
@pytest.mark.parametrize("rules", RULES)
def test_the_program_lets_through_what_the_rules_allow(group, nodes, rules):
    group.create(devices=[ALLOW_ALL])
    program = devices.program(rules)
    if program is not None:
        attach(load(program), group.manager.cgroup_dir())
    assert group.ask(lambda: verdicts(nodes)) == expected(rules)


def test_the_verifier_takes_hundreds_of_rules():
    rules = [
        {"allow": True, "type": "bc"[i % 2], "major": 100 + i, "minor": i, "access": "rw"}
        for i in range(400)
    ]
    os.close(load(devices.program(rules)))


BPF_PROG_LOAD, BPF_PROG_ATTACH = 5, 8
BPF_PROG_TYPE_CGROUP_DEVICE, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI = 15, 6, 2
SYS_BPF = {"x86_64": 321, "aarch64": 280}.get(os.uname().machine)


def bpf(command, attributes):
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, 160)
    result = libc.syscall(SYS_BPF, command, buffer, 160)
    if result < 0:
        raise OSError(ctypes.get_errno(), "bpf")
    return result


def load(program):
    if SYS_BPF is None:
        pytest.skip("the number of bpf(2) is not known here")
    code = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"Apache")
    head = struct.pack(
        "=IIQQIIQ", BPF_PROG_TYPE_CGROUP_DEVICE, len(program) // 8,
        ctypes.addressof(code), ctypes.addressof(licence), 0, 0, 0,
    )  # fmt: skip
    return bpf(BPF_PROG_LOAD, head)


def attach(program, directory):
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        bpf(
            BPF_PROG_ATTACH,
            struct.pack("=IIII", fd, program, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI),
        )
    finally:
        os.close(fd)
        os.close(program)


# --- without privileges

USER = 4711


def owned_by(uid):
    """A config whose cgroup is to be that user's."""
    return {
        "process": {"user": {"uid": uid}},
        "mounts": [{"destination": "/sys/fs/cgroup", "type": "cgroup"}],
        "linux": {"namespaces": [{"type": "cgroup"}]},
    }


def as_user(function):
    """Return the answer of a function that runs as an ordinary user, in the caller's cgroups."""
    answer, told = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setgid(USER)
            os.setuid(USER)
            os.write(told, json.dumps(function()).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(told)
    with open(answer, "rb") as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(text)


def attempt(path, **resources):
    """Make and remove a cgroup as an unprivileged caller; return its directories, or the error."""
    manager = cgroup.open_manager(path, "ocirt-test-user", rootless=True)
    try:
        manager.create(resources)
    except Error as error:
        return str(error)
    made = [directory for directory in manager.directories() if os.path.isdir(directory)]
    manager.undo()
    return made


def test_nothing_delegated_and_nothing_asked_for_is_fine():
    assert as_user(lambda: attempt("", devices=[DENY_ALL])) == []


def test_nothing_delegated_and_a_limit_asked_for_is_refused():
    assert as_user(lambda: attempt("", pids={"limit": 5})) == (
        "linux.resources.pids.limit: rootless needs no limits + no cgrouppath"
        " when no permission is granted for cgroups"
    )


def test_nothing_delegated_and_a_path_asked_for_is_refused():
    error = as_user(lambda: attempt("/ocirt-test-user/x"))
    assert error.startswith("linux.cgroupsPath: /sys/fs/cgroup/")
    assert error.endswith(": permission denied")


@needs_v2
@needs_controllers("pids")
def test_a_delegated_cgroup_takes_limits(group):
    group.create()
    directory = group.manager.cgroup_dir()
    group.manager.delegate(owned_by(USER))
    shell = directory + "/shell"
    os.mkdir(shell)
    os.chown(shell, USER, -1)
    os.chown(shell + "/cgroup.procs", USER, -1)

    def inside():
        manager = cgroup.open_manager("", "box", rootless=True)
        manager.create({"pids": {"limit": 5}})
        with open(manager.path_of("pids.max")) as file:
            limit = file.read().strip()
        return manager.cgroup_dir(), limit

    def enter():
        put(shell + "/cgroup.procs", "0")
        return as_user(inside)

    pid = os.fork()
    if not pid:
        try:
            os._exit(0 if enter() == [directory + "/box", "5"] else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0


# --- v2 alone


@needs_v2
def test_every_controller_of_the_root_reaches_the_container(group):
    group.create()
    with open("/sys/fs/cgroup/cgroup.controllers") as file:
        assert group.read("cgroup.controllers") == file.read().strip()


@needs_v2
def test_an_unknown_controller_in_unified_is_named(group):
    with pytest.raises(ConfigError) as caught:
        group.create(unified={"warp.max": "9"})
    assert str(caught.value) == (
        "linux.resources.unified.warp.max: the cgroup controller warp is not available"
    )


@needs_v2
@needs_controllers("memory")
def test_unified_wins(group):
    group.create(
        memory={"limit": MEMORY}, unified={"memory.max": str(2 * MEMORY), "memory.high": "max"}
    )
    assert group.read("memory.max") == str(2 * MEMORY)


@needs_v2
@needs_controllers("hugetlb")
def test_huge_pages_are_limited(group):
    group.create(hugepageLimits=[{"pageSize": "2MB", "limit": 4 << 20}])
    assert group.read("hugetlb.2MB.max") == str(4 << 20)
    assert group.read("hugetlb.2MB.rsvd.max") == str(4 << 20)


@needs_v2
@needs_controllers("rdma")
def test_rdma_handles_are_limited(group):
    try:
        name = os.listdir("/sys/class/infiniband")[0]
    except (FileNotFoundError, IndexError):
        pytest.skip("no RDMA device")
    group.create(rdma={name: {"hcaHandles": 3, "hcaObjects": 10000}})
    assert group.read("rdma.max") == f"{name} hca_handle=3 hca_object=10000"


@needs_v2
@needs_controllers("io")
def test_io_is_limited(group):
    disk = next(
        (
            tuple(int(n) for n in number.split(":"))
            for number in (read_number(name) for name in sorted(os.listdir("/sys/block")))
            if number
        ),
        None,
    )
    if disk is None:
        pytest.skip("no block device")
    major, minor = disk
    group.create(
        blockIO={
            "weight": 500,
            "throttleReadBpsDevice": [{"major": major, "minor": minor, "rate": 1 << 20}],
            "throttleWriteIOPSDevice": [{"major": major, "minor": minor, "rate": 100}],
        }
    )
    assert group.read("io.max") == f"{major}:{minor} rbps=1048576 wbps=max riops=max wiops=100"


def read_number(name):
    with open(f"/sys/block/{name}/dev") as file:
        return file.read().strip()


@needs_v2
@needs_controllers("pids")
def test_a_cgroup_below_a_threaded_one(group):
    group.create()
    directory = group.manager.cgroup_dir()
    os.mkdir(directory + "/threads")
    put(directory + "/threads/cgroup.type", "threaded")
    inner = cgroup.open_manager(f"{TOP}/{group.name}/beside", "unused")
    with pytest.raises(ConfigError, match="lies below a threaded cgroup"):
        inner.create({"memory": {"limit": MEMORY}})
    inner.create({"pids": {"limit": 5}})
    with open(inner.cgroup_dir() + "/cgroup.type") as file:
        assert file.read().strip() == "threaded"


@needs_v2
def test_the_processes_of_a_threaded_cgroup_are_found_frozen_and_killed(group):
    top = group.create().manager.cgroup_dir()
    os.mkdir(top + "/threads")
    put(top + "/threads/cgroup.type", "threaded")
    inner = Group(f"{group.name}/beside").create()
    try:
        pids = [group.spawn(), inner.spawn(), inner.spawn()]
        assert sorted(inner.manager.pids()) == pids[1:]
        assert sorted(group.manager.pids()) == pids
        inner.manager.freeze()
        assert inner.manager.frozen()
        inner.manager.kill(9)
        assert [inner.reap(pid) for pid in pids[1:]] == [9, 9]
    finally:
        inner.close()


@needs_v2
@needs_controllers("pids")
def test_a_cgroup_is_handed_over_with_its_delegated_files(group):
    group.create()
    group.manager.delegate(owned_by(4711))
    directory = group.manager.cgroup_dir()
    assert os.stat(directory).st_uid == 4711
    assert os.stat(directory + "/cgroup.procs").st_uid == 4711
    assert os.stat(directory + "/pids.max").st_uid == 0


# --- v1 alone


@needs_v1
def test_parents_are_not_removed_with_the_container(group):
    group.create()
    parents = [os.path.dirname(d) for d in group.manager.directories()]
    group.manager.remove()
    assert all(os.path.isdir(parent) for parent in parents)
    for parent in parents:
        os.rmdir(parent)


@needs_v1
def test_the_device_list_reads_as_it_was_written(group):
    rule = {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}
    group.create(devices=[DENY_ALL, rule])
    expected = {value for file, value, _ in group.manager.writes({"devices": [DENY_ALL, rule]})}
    assert set(group.read("devices.list").splitlines()) == expected - {"a"}


@needs_v1
def test_a_limit_that_needs_a_missing_controller_is_refused(group):
    present = subprocess.run(["cat", "/proc/self/cgroup"], capture_output=True, text=True).stdout
    if "hugetlb" in present:
        pytest.skip("has the hugetlb controller")
    with pytest.raises(ConfigError) as caught:
        group.create(hugepageLimits=[{"pageSize": "2MB", "limit": 0}])
    assert str(caught.value) == (
        "linux.resources.hugepageLimits[0]: the cgroup controller hugetlb is not mounted"
    )
