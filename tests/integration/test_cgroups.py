"""`linux.resources`: each field reaches its file, and the limits bite.

runtime-spec, config-linux.md, "Control groups"; for the files the kernel's
Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst.
"""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.integration.support import (
    CONTROLLERS,
    UNIFIED,
    cgroup_of,
    needs_controllers,
    needs_v1,
    needs_v2,
    only_ocirt,
)

MB = 1 << 20


def disk():
    """Return (major, minor) of a whole disk of this machine, or None."""
    for name in sorted(os.listdir("/sys/block")):
        if not name.startswith(("loop", "ram", "zram", "dm-", "md", "nbd", "fd", "sr")):
            with open(f"/sys/block/{name}/dev") as file:
                return tuple(map(int, file.read().split(":")))
    return None


DISK = disk() or (0, 0)
RATE = {"major": DISK[0], "minor": DISK[1], "rate": 1000000}
DEVICE = f"{DISK[0]}:{DISK[1]}"
MEMORY_AND_SWAP = {"memory": {"limit": 64 * MB, "swap": 96 * MB}}


def throttle(kind):
    return {"blockIO": {f"throttle{kind}Device": [RATE]}}


newer = only_ocirt("runc 1.1 does not know it")

V1 = [
    # resources                                       file                             value
    ({"memory": {"limit": 64 * MB}}, "memory/memory.limit_in_bytes", str(64 * MB)),
    ({"memory": {"limit": -1}}, "memory/memory.limit_in_bytes", str((1 << 63) - 4096)),
    ({"memory": {"reservation": 32 * MB}}, "memory/memory.soft_limit_in_bytes", str(32 * MB)),
    (MEMORY_AND_SWAP, "memory/memory.memsw.limit_in_bytes", str(96 * MB)),
    ({"memory": {"swappiness": 7}}, "memory/memory.swappiness", "7"),
    ({"cpu": {"shares": 512}}, "cpu/cpu.shares", "512"),
    ({"cpu": {"quota": 50000, "period": 200000}}, "cpu/cpu.cfs_quota_us", "50000"),
    ({"cpu": {"quota": 50000, "period": 200000}}, "cpu/cpu.cfs_period_us", "200000"),
    ({"cpu": {"quota": -1}}, "cpu/cpu.cfs_quota_us", "-1"),
    ({"cpu": {"cpus": "0", "mems": "0"}}, "cpuset/cpuset.cpus", "0"),
    ({"cpu": {"cpus": "0", "mems": "0"}}, "cpuset/cpuset.mems", "0"),
    ({"pids": {"limit": 20}}, "pids/pids.max", "20"),
    ({"pids": {"limit": -1}}, "pids/pids.max", "max"),
    (throttle("ReadBps"), "blkio/blkio.throttle.read_bps_device", f"{DEVICE} 1000000"),
    (throttle("WriteBps"), "blkio/blkio.throttle.write_bps_device", f"{DEVICE} 1000000"),
    (throttle("ReadIOPS"), "blkio/blkio.throttle.read_iops_device", f"{DEVICE} 1000000"),
    (throttle("WriteIOPS"), "blkio/blkio.throttle.write_iops_device", f"{DEVICE} 1000000"),
    ({"blockIO": {"weight": 500}}, "blkio/blkio.bfq.weight", "500"),
    ({"cpu": {"burst": 10000, "quota": 50000, "period": 100000}}, "cpu/cpu.cfs_burst_us", "10000"),
    ({"cpu": {"idle": 1}}, "cpu/cpu.idle", "1"),
]  # fmt: skip
V2 = [
    ({"memory": {"limit": 64 * MB}}, "memory.max", str(64 * MB)),
    ({"memory": {"limit": -1}}, "memory.max", "max"),
    ({"memory": {"reservation": 32 * MB}}, "memory.low", str(32 * MB)),
    (MEMORY_AND_SWAP, "memory.swap.max", str(32 * MB)),
    ({"memory": {"limit": 64 * MB, "swap": -1}}, "memory.swap.max", "max"),
    ({"cpu": {"shares": 2}}, "cpu.weight", "1"),
    ({"cpu": {"shares": 262144}}, "cpu.weight", "10000"),
    ({"cpu": {"quota": 50000, "period": 200000}}, "cpu.max", "50000 200000"),
    ({"cpu": {"quota": -1, "period": 200000}}, "cpu.max", "max 200000"),
    ({"cpu": {"cpus": "0", "mems": "0"}}, "cpuset.cpus", "0"),
    ({"cpu": {"cpus": "0", "mems": "0"}}, "cpuset.mems", "0"),
    ({"pids": {"limit": 20}}, "pids.max", "20"),
    ({"pids": {"limit": -1}}, "pids.max", "max"),
    (throttle("ReadBps"), "io.max", f"{DEVICE} rbps=1000000 wbps=max riops=max wiops=max"),
    ({"unified": {"memory.high": "50331648"}}, "memory.high", "50331648"),
    ({"unified": {"pids.max": "7", "cpu.weight": "321"}}, "cpu.weight", "321"),
    ({"pids": {"limit": 20}, "unified": {"pids.max": "7"}}, "pids.max", "7"),
    ({"cpu": {"shares": 1024}}, "cpu.weight", "100"),
    ({"cpu": {"burst": 10000, "quota": 50000, "period": 100000}}, "cpu.max.burst", "10000"),
    ({"cpu": {"idle": 1}}, "cpu.idle", "1"),
]  # fmt: skip
NEWER = {"cpu.cfs_burst_us", "cpu.idle", "cpu.max.burst"}


def rows(table):
    """Mark the rows that only a newer runtime knows, and name them."""
    for resources, file, value in table:
        is_new = os.path.basename(file) in NEWER or (file, value) == ("cpu.weight", "100")
        section, fields = next(iter(resources.items()))
        name = f"{section}-{'-'.join(fields)}-{os.path.basename(file)}-{value.split()[-1]}"
        yield pytest.param(resources, file, value, id=name, marks=[newer] if is_new else [])


@pytest.mark.parametrize(("resources", "file", "value"), [*rows(V2 if UNIFIED else V1)])
def test_a_limit_reaches_its_file(runtime, bundle, resources, file, value):
    b = bundle.sleeping(linux={"resources": resources})
    controller, _, name = file.rpartition("/")
    top = os.path.dirname(os.path.dirname(cgroup_of(b, controller)))
    if controller and not os.path.exists(f"{top}/{name}") and not os.path.isdir(top):
        pytest.skip(f"no controller {controller} here")
    if UNIFIED and name.partition(".")[0] not in CONTROLLERS:
        pytest.skip(f"no controller {name.partition('.')[0]} here")
    if DEVICE == "0:0" and "throttle" in str(resources):
        pytest.skip("no disk here")
    path = os.path.join(cgroup_of(b, controller), name)
    result = runtime.try_create(b)
    if result.code and not os.path.exists(os.path.dirname(path)) and lacks(controller, name):
        assert name in result.error or controller in result.error
        pytest.skip(f"this kernel has no {name}")
    assert result.code == 0, str(result)
    with open(path) as text:
        assert value in text.read().rstrip("\n").split("\n")


def lacks(controller, name):
    """Make a cgroup to see whether the kernel offers the file."""
    top = "/sys/fs/cgroup" if UNIFIED else f"/sys/fs/cgroup/{controller}"
    path = f"{top}/ocirt-test/look"
    os.makedirs(path, exist_ok=True)
    try:
        return not os.path.exists(f"{path}/{name}")
    finally:
        os.rmdir(path)


@needs_v1
def test_the_oom_killer_can_be_switched_off(runtime, bundle):
    b = bundle.sleeping(linux={"resources": {"memory": {"disableOOMKiller": True}}})
    runtime.create(b)
    with open(f"{cgroup_of(b, 'memory')}/memory.oom_control") as file:
        assert "oom_kill_disable 1" in file.read()


@needs_controllers("memory")
def test_zero_leaves_a_limit_alone(runtime, bundle):
    """Engines send whole objects with zeros for what nobody asked for."""
    zeros = {
        "memory": {"limit": 64 * MB, "reservation": 0, "swap": 0, "kernel": 0},
        "cpu": {"shares": 0, "quota": 0, "period": 0},
        "blockIO": {"weight": 0},
    }
    b = bundle("true", linux={"resources": zeros})
    assert runtime.run(b).code == 0


# --- the limits bite


@needs_controllers("pids")
def test_too_many_processes_cannot_be_forked(runtime, bundle):
    b = bundle.sh(
        "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; echo done",
        linux={"resources": {"pids": {"limit": 4}}},
    )
    result = runtime.run(b)
    assert result.code != 0
    assert "can't fork" in result.err


@needs_controllers("memory")
def test_too_much_memory_is_punished(runtime, bundle):
    limits = {"memory": {"limit": 16 * MB, "swap": 16 * MB}}
    b = bundle.sh("tail /dev/zero; echo $?", linux={"resources": limits})
    assert runtime.prints(b).splitlines()[-1] == "137"


@needs_controllers("memory")
@needs_v2
def test_want_of_memory_may_end_all_of_the_container(runtime, bundle):
    limits = {"memory": {"limit": 16 * MB, "swap": 16 * MB}, "unified": {"memory.oom.group": "1"}}
    b = bundle.sh("tail /dev/zero; echo survived", linux={"resources": limits})
    result = runtime.run(b)
    assert (result.code, result.out) == (137, "")


@needs_controllers("memory")
@only_ocirt("runc's own init needs more")
def test_two_megabytes_are_enough_for_a_small_program(runtime, bundle):
    b = bundle("echo", "small", linux={"resources": {"memory": {"limit": 2 * MB}}})
    assert runtime.prints(b) == "small"


@needs_controllers("cpuset")
def test_the_program_runs_on_the_cpus_of_its_cpuset(runtime, bundle):
    b = bundle(
        "grep",
        "Cpus_allowed_list",
        "/proc/self/status",
        linux={"resources": {"cpu": {"cpus": "0"}}},
    )
    assert runtime.prints(b).split() == ["Cpus_allowed_list:", "0"]


# --- refusals

REFUSED = [
    ({"cpu": {"cpus": "4000"}}, "cpuset.cpus", "linux.resources.cpu.cpus"),
    ({"cpu": {"cpus": "zero"}}, "", "linux.resources.cpu.cpus"),
    ({"cpu": {"quota": 10}}, "", "linux.resources.cpu.quota"),
]


@needs_controllers("cpu", "cpuset")
@pytest.mark.parametrize(("resources", "saying", "ours"), REFUSED, ids=[r[2] for r in REFUSED])
def test_a_value_that_the_kernel_refuses_fails_create(runtime, bundle, resources, saying, ours):
    b = bundle("true", linux={"resources": resources})
    runtime.refuses_to_create(b, saying, ours=ours)


@needs_v1
def test_unified_needs_cgroup_v2(runtime, bundle):
    b = bundle("true", linux={"resources": {"unified": {"memory.max": "1000000"}}})
    runtime.refuses_to_create(b, ours="linux.resources.unified")


@needs_v2
@pytest.mark.parametrize("name", ["../memory.max", "/etc/passwd", "nothing.max", "memory.nothing"])
def test_unified_names_files_of_the_cgroup_only(runtime, bundle, name):
    b = bundle("true", linux={"resources": {"unified": {name: "1"}}})
    runtime.refuses_to_create(b, ours="linux.resources.unified")


def has_hugetlb():
    if not UNIFIED:
        return os.path.isdir("/sys/fs/cgroup/hugetlb")
    with open("/sys/fs/cgroup/cgroup.controllers") as file:
        return "hugetlb" in file.read().split()


@pytest.mark.skipif(has_hugetlb(), reason="needs a machine without the hugetlb controller")
@only_ocirt("runc 1.1 passes over a limit that nobody enforces")
def test_a_limit_without_its_controller_is_an_error(runtime, bundle):
    limits = [{"pageSize": "2MB", "limit": 0}]
    b = bundle("true", linux={"resources": {"hugepageLimits": limits}})
    runtime.refuses_to_create(b, "hugetlb", ours="linux.resources.hugepageLimits")


def test_an_empty_cgroup_that_exists_already_is_used(runtime, bundle):
    b = bundle.sh("exit 3")
    os.makedirs(cgroup_of(b, "pids"))
    assert runtime.finish(b) == 3
    assert runtime.host.leftovers() == []


@only_ocirt("runc 1.1 only warns of a cgroup with foreign processes")
def test_a_cgroup_with_processes_is_refused(runtime, bundle, host):
    b = bundle.sleeping()
    path = cgroup_of(b, "pids")
    os.makedirs(path)
    intruder = subprocess.Popen(["sleep", "1000"])
    host.known.add(intruder.pid)
    try:
        with open(f"{path}/cgroup.procs", "w") as file:
            file.write(str(intruder.pid))
        result = runtime.try_create(b)
        runtime.check_refusal(result, "cgroup is not empty", "")
        assert intruder.poll() is None, "others' processes are not ours to kill"
    finally:
        intruder.kill()
        intruder.wait()
        if os.path.isdir(path):
            os.rmdir(path)


# --- devices: nobody serves major 200, so an open that is allowed brings ENXIO

NODE = {"path": "/dev/test", "type": "c", "major": 200, "minor": 7}
OTHER = {"path": "/dev/other", "type": "c", "major": 200, "minor": 8}
BLOCK = {"path": "/dev/block", "type": "b", "major": 200, "minor": 7}
DENY_ALL = {"allow": False, "access": "rwm"}


def allow(kind="c", major=200, minor=7, access="rwm"):
    found = {"allow": True, "type": kind, "major": major, "minor": minor, "access": access}
    return {key: value for key, value in found.items() if value is not None}


def deny(**fields):
    return {**allow(**fields), "allow": False}


EVERYTHING = {"allow": True, "access": "rwm"}
RULES = [
    # name        rules                                     what opening the four nodes brings
    ("deny-all",  [DENY_ALL],                               "EPERM EPERM EPERM EPERM"),
    ("one",       [DENY_ALL, allow()],                      "ENXIO ENXIO EPERM EPERM"),
    ("read",      [DENY_ALL, allow(access="r")],            "ENXIO EPERM EPERM EPERM"),
    ("write",     [DENY_ALL, allow(access="w")],            "EPERM ENXIO EPERM EPERM"),
    ("both",      [DENY_ALL, allow(access="r"), allow(access="w")], "ENXIO ENXIO EPERM EPERM"),
    ("block",     [DENY_ALL, allow("b")],                   "EPERM EPERM EPERM ENXIO"),
    ("any-minor", [DENY_ALL, allow(minor=None)],            "ENXIO ENXIO ENXIO EPERM"),
    ("minus-one", [DENY_ALL, allow(minor=-1)],              "ENXIO ENXIO ENXIO EPERM"),
    ("any-char",  [DENY_ALL, allow(major=None, minor=None)], "ENXIO ENXIO ENXIO EPERM"),
    ("all",       [DENY_ALL, EVERYTHING],                   "ENXIO ENXIO ENXIO ENXIO"),
    ("but-one",   [EVERYTHING, deny()],                     "EPERM EPERM ENXIO ENXIO"),
    ("undone",    [DENY_ALL, allow(), deny()],              "EPERM EPERM EPERM EPERM"),
    ("half",      [DENY_ALL, allow(), deny(access="w")],    "ENXIO EPERM EPERM EPERM"),
    ("reset",     [DENY_ALL, allow(), DENY_ALL],            "EPERM EPERM EPERM EPERM"),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "shown"), [r[1:] for r in RULES], ids=[r[0] for r in RULES])
def test_the_last_device_rule_that_fits_decides(runtime, bundle, rules, shown):
    b = bundle.sh(
        "probe open /dev/test r; probe open /dev/test w; probe open /dev/other r; "
        "probe open /dev/block r",
        linux={"devices": [NODE, OTHER, BLOCK], "resources": {"devices": rules}},
    )
    assert runtime.prints(b) == shown.replace(" ", "\n")


def test_the_default_nodes_are_always_allowed(runtime, bundle):
    b = bundle.sh("for n in null zero full random urandom ptmx; do probe open /dev/$n rw; done")
    assert runtime.prints(b).split() == ["ok"] * 6


def test_tun_is_allowed(runtime, bundle):
    """Virtual private networks depend on it; taking it away broke them (runc 1.2)."""
    tun = {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200}
    b = bundle("probe", "open", "/dev/net/tun", "rw", linux={"devices": [tun]})
    assert runtime.prints(b) in ("ok", "ENODEV", "ENXIO")


def test_a_node_in_linux_devices_is_not_allowed_by_that(runtime, bundle):
    b = bundle("probe", "open", "/dev/test", "r", linux={"devices": [NODE]})
    assert runtime.prints(b) == "EPERM"


def test_any_node_may_be_made_and_only_allowed_ones_opened(runtime, bundle):
    names = ["CAP_MKNOD"]
    b = bundle.sh(
        "mknod /tmp/x c 200 7 && probe open /tmp/x r",
        process={"capabilities": dict.fromkeys(("bounding", "effective", "permitted"), names)},
    )
    assert runtime.prints(b) == "EPERM"


def test_a_hole_in_a_wildcard_is_refused_or_obeyed(runtime, bundle):
    """v1 cannot express it.  Never may the denied node be open in silence."""
    linux = {"devices": [NODE], "resources": {"devices": [DENY_ALL, allow(minor=None), deny()]}}
    result = runtime.run(bundle("probe", "open", "/dev/test", "r", linux=linux))
    assert result.code == 1 or result.out == "EPERM\n"
    assert runtime.host.leftovers() == []


DEVICE_REFUSED = [
    ({"type": "x"}, "linux.resources.devices[1].type"),
    pytest.param(
        *({"access": "rwx"}, "linux.resources.devices[1].access"),
        marks=only_ocirt("runc 1.1 passes over letters that it does not know"),
    ),
]


@pytest.mark.parametrize(("change", "ours"), DEVICE_REFUSED, ids=["type", "access"])
def test_a_device_rule_that_makes_no_sense_is_refused(runtime, bundle, change, ours):
    b = bundle("true", linux={"resources": {"devices": [DENY_ALL, {**allow(), **change}]}})
    runtime.refuses_to_create(b, ours=ours)


@needs_v2
@pytest.mark.parametrize(("mapped", "options"), [(True, []), (False, []), (True, ["ro"])])
def test_the_cgroup_belongs_to_the_containers_user(runtime, bundle, mapped, options):
    """Where it can be written from within a cgroup namespace (Cgroup ownership)."""
    mount = {"destination": "/sys/fs/cgroup", "type": "cgroup", "options": options}
    script = "cd /sys/fs/cgroup; mkdir part 2>/dev/null && echo made; stat -c %u . cgroup.freeze"
    b = bundle.sh(script, more_mounts=[mount], process={"user": {"uid": 1000, "gid": 1000}})
    b.config["linux"]["namespaces"].append({"type": "cgroup"})
    if mapped:
        b.config["linux"]["namespaces"].append({"type": "user"})
        maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
        b.patch(linux={"uidMappings": maps, "gidMappings": maps})
    b.save()
    *made, owner, freezer = runtime.prints(b).split()
    nobody = "65534" if mapped else "0"
    if options or not runtime.is_ocirt:  # runc does it by way of systemd alone
        assert (made, owner) == ([], nobody)
    else:
        assert (made, owner) == (["made"], "1000")
    assert freezer == nobody
