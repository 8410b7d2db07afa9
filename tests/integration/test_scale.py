"""Many containers: no verb costs more for their number, and none gets in another's way.

How many live at once: OCIRT_TEST_ALIVE (100; `make performance` measures with 1000).  What is
compared are user instructions, which a busy machine does not change, and CPU time with a wide
margin for the kernel's part.
"""

from __future__ import annotations

import concurrent.futures
import ctypes
import json
import os
import platform
import shutil
import statistics
import struct
import time

import pytest

from tests.integration.support import (
    PATIENCE,
    SLOWNESS,
    cgroup_hierarchies,
    eventually,
    namespaces,
    only_ocirt,
)

pytestmark = only_ocirt("what others cost is not our concern")

ALIVE = int(os.environ.get("OCIRT_TEST_ALIVE", "100"))
CROWD = 64
ROUNDS = 5
VERBS = ("create", "start", "state", "kill", "delete")

# More instructions, with all the others alive, than alone.
GROWTH = 1.05
CPU_GROWTH = 2.0

PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241, "ppc64le": 319, "s390x": 331, "riscv64": 241}
# perf_event_open(2): instructions; disabled, inherited, user space alone, enabled at exec.
ATTRIBUTES = struct.pack("=IIQQQQQ", 0, 64, 1, 0, 0, 0, 1 << 0 | 1 << 1 | 1 << 5 | 1 << 12)


def measured(argv, output):
    """Run a command; return (user instructions or None, CPU seconds) of it and its children."""
    libc = ctypes.CDLL(None, use_errno=True)
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 1)
            os.dup2(1, 2)
            os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
            os.read(ready, 1)
            os.execv(argv[0], argv)
        finally:
            os._exit(99)
    number = PERF_EVENT_OPEN.get(platform.machine(), -1)
    counter = libc.syscall(number, ATTRIBUTES, pid, -1, -1, 0) if number > 0 else -1
    os.write(go, b"x")
    _, status, usage = os.wait4(pid, 0)
    os.close(ready)
    os.close(go)
    count = None
    if counter >= 0:
        count = struct.unpack("=Q", os.read(counter, 8))[0] or None
        os.close(counter)
    with open(output, errors="replace") as file:
        assert os.waitstatus_to_exitcode(status) == 0, f"{argv}: {file.read()}"
    return count, usage.ru_utime + usage.ru_stime


@pytest.fixture
def crowd(runtime, bundle):
    """Make containers that wait at the gate; return their bundles."""

    def make(number):
        # Without a network namespace, which is the kernel's dearest.
        linux = {"namespaces": namespaces("pid", "ipc", "uts", "mount")}
        bundles = [bundle.sleeping(linux=linux) for _ in range(number)]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(runtime.create, bundles))
        return bundles

    made = []
    yield lambda number: made.extend(make(number)) or made
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda b: runtime("delete", "--force", b.id), made))


def life(runtime, bundle):
    """Lead a container through its life; return {verb: (instructions, CPU seconds)}."""
    b = bundle.sleeping()
    words = {
        "create": ("--bundle", b.path, "--pid-file", b.pid_file, b.id),
        "kill": (b.id, "KILL"),
    }
    found = {}
    for verb in VERBS:
        if verb == "delete":
            runtime.wait(b)
        found[verb] = measured(runtime.argv(verb, *words.get(verb, (b.id,))), b.out)
    return found


def lives(runtime, bundle):
    """Return the lowest costs of each verb in a few lives."""
    life(runtime, bundle)  # fills caches
    each = [life(runtime, bundle) for _ in range(ROUNDS)]
    instructions, cpu = {}, {}
    for verb in VERBS:
        counts = [one[verb][0] for one in each]
        instructions[verb] = None if None in counts else min(counts)
        cpu[verb] = statistics.median(one[verb][1] for one in each)
    return instructions, cpu


def test_no_verb_costs_more_among_many(runtime, bundle, crowd):
    crowd(1)
    alone, alone_cpu = lives(runtime, bundle)
    crowd(ALIVE - 1)
    among, among_cpu = lives(runtime, bundle)
    for verb in VERBS:
        if alone[verb]:
            assert among[verb] < alone[verb] * GROWTH + 20_000, (verb, alone, among)
    assert sum(among_cpu.values()) < sum(alone_cpu.values()) * CPU_GROWTH + 0.02


def rename(folder, container_id):
    """Make a copied state that of a container of this name."""
    path = os.path.join(folder, "state.json")
    with open(path) as file:
        record = json.load(file)
    with open(path, "w") as file:
        json.dump({**record, "id": container_id}, file)


def test_list_costs_as_much_per_container_with_a_thousand(runtime, bundle, crowd, workdir):
    """The thousand are the directories of a few that live, each under a name of its own."""
    made = crowd(4)

    def copies(first, last):
        for number in range(first, last):
            source = os.path.join(runtime.root, made[number % 4].id)
            target = os.path.join(runtime.root, f"copy{number}")
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("exec.fifo"))
            rename(target, f"copy{number}")

    def cost():
        argv = runtime.argv("list", "--format", "json")
        best = min((measured(argv, f"{workdir}/list") for _ in range(3)), key=str)
        with open(f"{workdir}/list") as file:
            return *best, json.load(file)

    try:
        few, _, _ = cost()
        copies(0, 96)
        hundred, hundred_cpu, found = cost()
        assert len(found) == 100
        copies(96, 996)
        thousand, thousand_cpu, found = cost()
        assert len(found) == 1000
        assert {one["status"] for one in found} == {"created", "running"}
        if few:
            assert (thousand - few) / 996 < (hundred - few) / 96 * 1.2
        assert thousand_cpu < hundred_cpu * 15 + 0.1
    finally:
        for name in os.listdir(runtime.root):
            if name.startswith("copy"):
                shutil.rmtree(os.path.join(runtime.root, name))


def spawned(runtime, bundles, *words, verb):
    """Start one verb for every bundle at once; return the exit codes and what was said."""
    processes = []
    for b in bundles:
        argv = [each.format(b=b) for each in words]
        path = f"{b.path}/{verb}-said"
        processes.append((runtime.spawn(verb, *argv, b.id, stdout=path, stderr=path), path))
    ends = []
    for process, path in processes:
        code = process.wait(PATIENCE * 6)
        with open(path, errors="replace") as file:
            ends.append((code, file.read()))
    return [end for end in ends if end[0] != 0]


def test_of_64_creates_at_once_none_fails_and_none_leaves_anything(runtime, bundle, host):
    bundles = [bundle.sleeping() for _ in range(CROWD)]
    make = ("--bundle", "{b.path}", "--pid-file", "{b.pid_file}")
    assert spawned(runtime, bundles, *make, verb="create") == []
    found = {one["id"]: one for one in runtime.ok("list", "--format", "json").json()}
    assert found.keys() == {b.id for b in bundles}
    assert {one["status"] for one in found.values()} == {"created"}
    assert all(found[b.id]["pid"] == runtime.pid(b) for b in bundles)
    assert spawned(runtime, bundles, verb="start") == []
    assert spawned(runtime, bundles, "--force", verb="delete") == []
    assert eventually(lambda: host.leftovers() == [], PATIENCE)


def test_those_who_look_see_whole_states_while_64_come_and_go(runtime, bundle, host):
    """Without a lock, and while each record is made, changed and removed."""
    bundles = [bundle("true") for _ in range(CROWD)]
    running = [
        runtime.spawn("run", "--bundle", b.path, b.id, stdout=b.out, stderr=b.out) for b in bundles
    ]
    seen = set()
    end = time.monotonic() + PATIENCE * 6
    while any(process.poll() is None for process in running) and time.monotonic() < end:
        result = runtime("list", "--format", "json")
        assert result.code == 0, str(result)
        for one in (result.json() or [])[:1]:
            seen.add(one["status"])
            looked = runtime("state", one["id"])
            if looked.code == 0:
                seen.add(looked.json()["status"])
            else:
                assert "container does not exist" in looked.err, str(looked)
        time.sleep(0.01 * SLOWNESS)
    assert [(p.wait(PATIENCE), b.output()) for p, b in zip(running, bundles, strict=True)] == [
        (0, "")
    ] * CROWD
    assert seen <= {"creating", "created", "running", "stopped"}
    assert host.leftovers() == []
    for top in cgroup_hierarchies():
        assert not any(os.path.isdir(f"{top}/ocirt-test/{b.id}") for b in bundles)
