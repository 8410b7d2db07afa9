"""The managers on fake trees; tests/integration/test_cgroup_fs.py meets the kernel's."""

from __future__ import annotations

import json
import os

import pytest

from ocirt import cgroup
from ocirt.cgroup import files, fs, fs_v2
from ocirt.errors import ConfigError, Error, KernelError

ALL_V1 = ("cpuset", "devices", "memory", "cpu,cpuacct", "pids", "blkio", "freezer", "name=systemd")


def opened(tree, path="/grp/web1", **options):
    return cgroup.open_manager(path, "web1", root=tree.root, proc=tree.proc, **options)


# --- v1


def test_create_makes_a_directory_in_each_hierarchy_and_writes_the_limits(tree):
    manager = opened(tree.v1(*ALL_V1, hybrid=True))
    manager.create({"memory": {"limit": 4096}, "pids": {"limit": 5}})
    assert tree.get("memory/grp/web1/memory.limit_in_bytes") == "4096"
    assert tree.get("pids/grp/web1/pids.max") == "5"
    assert [d for d in tree.directories() if d.endswith("web1")] == sorted(
        f"{name.removeprefix('name=')}/grp/web1" for name in (*ALL_V1, "unified")
    )


def test_an_empty_cpuset_is_filled_from_its_parents(tree):
    manager = opened(tree.v1(*ALL_V1))
    manager.create({"cpu": {"cpus": "3"}})
    assert tree.get("cpuset/grp/cpuset.cpus") == "0-7"
    assert tree.get("cpuset/grp/web1/cpuset.cpus").strip() == "3"
    assert tree.get("cpuset/grp/web1/cpuset.mems") == "0"


def test_device_rules_are_written_first_reset_then_exceptions(tree):
    manager = opened(tree.v1(*ALL_V1))
    manager.create({"devices": [{"allow": False, "access": "rwm"}]})
    assert tree.get("devices/grp/web1/devices.deny") == "a"
    assert tree.get("devices/grp/web1/devices.allow").startswith("c *:* mb *:* mc 1:3 rwm")


def test_an_init_attaches_itself_by_the_tasks_files(tree):
    manager = opened(tree.v1("cpuset", "devices", "cpu,cpuacct", "name=systemd", hybrid=True))
    assert manager.attach_files() == [
        ("cgroup.cpuset", f"{tree.root}/cpuset/grp/web1/tasks"),
        ("cgroup.devices", f"{tree.root}/devices/grp/web1/tasks"),
        ("cgroup.cpu,cpuacct", f"{tree.root}/cpu,cpuacct/grp/web1/tasks"),
        ("cgroup.systemd", f"{tree.root}/systemd/grp/web1/tasks"),
    ]
    assert manager.cgroup_dir() == f"{tree.root}/unified/grp/web1"
    assert manager.device_program({}) is None


def test_a_limit_without_its_controller_is_refused_before_anything_is_made(tree):
    manager = opened(tree.v1("devices", "memory"))
    before = tree.directories()
    with pytest.raises(ConfigError) as caught:
        manager.create({"pids": {"limit": 5}})
    message = "linux.resources.pids.limit: the cgroup controller pids is not mounted"
    assert str(caught.value) == message
    assert tree.directories() == before


def test_the_devices_controller_must_be_there(tree):
    with pytest.raises(ConfigError, match="the cgroup controller devices is not mounted"):
        opened(tree.v1("memory"))


def test_a_missing_file_is_not_worded_as_a_missing_program(tree):
    manager = opened(tree.v1(*ALL_V1))
    with pytest.raises(ConfigError) as caught:
        manager.create({"cpu": {"idle": 1}})
    assert str(caught.value) == "linux.resources.cpu.idle: this kernel offers no cpu.idle"


def test_lifting_what_the_kernel_does_not_limit_is_no_error(tree):
    manager = opened(tree.v1(*ALL_V1))
    manager.create({"cpu": {"idle": 0, "burst": 0}, "memory": {"limit": -1}})


def test_an_io_weight_goes_to_the_scheduler_that_is_there(tree):
    manager = opened(tree.v1(*ALL_V1))
    manager.create({"blockIO": {"weight": 300}})
    assert tree.get("blkio/grp/web1/blkio.bfq.weight") == "300"


def test_failure_takes_back_every_directory_that_was_made(tree):
    tree.v1(*ALL_V1, hybrid=True)
    os.mkdir(f"{tree.root}/memory/grp")
    before = tree.directories()
    with pytest.raises(Error):
        opened(tree).create({"cpu": {"idle": 1}})
    assert tree.directories() == before


def test_undo_also_removes_the_parents_that_create_made_and_remove_does_not(tree):
    tree.v1(*ALL_V1)
    os.mkdir(f"{tree.root}/memory/grp")
    before = tree.directories()
    manager = opened(tree)
    manager.create({})
    manager.undo()
    assert tree.directories() == before
    manager = opened(tree)
    manager.create({})
    manager.remove()
    assert "pids/grp" in tree.directories()
    assert "pids/grp/web1" not in tree.directories()


def test_a_cgroup_with_processes_is_refused_and_left_alone(tree):
    tree.v1(*ALL_V1)
    for path in ("pids/grp", "pids/grp/web1", "pids/grp/web1/inner"):
        os.mkdir(f"{tree.root}/{path}")
    tree.put("pids/grp/web1/cgroup.procs", "12\n13\n")
    tree.put("pids/grp/web1/inner/cgroup.procs", "14\n")
    before = tree.directories()
    with pytest.raises(ConfigError) as caught:
        opened(tree).create({})
    message = "linux.cgroupsPath: container's cgroup is not empty: 3 process(es) found"
    assert str(caught.value) == message
    assert tree.directories() == before


def test_a_frozen_cgroup_is_refused(tree):
    tree.v1(*ALL_V1)
    for path in ("freezer/grp", "freezer/grp/web1"):
        os.mkdir(f"{tree.root}/{path}")
    tree.put("freezer/grp/web1/freezer.self_freezing", "1\n")
    with pytest.raises(ConfigError, match="container's cgroup unexpectedly frozen"):
        opened(tree).create({})


def test_a_write_that_comes_too_early_is_tried_again_after_the_rest(tree, monkeypatch):
    manager = opened(tree.v1(*ALL_V1))
    manager.create({})
    seen = []

    def put(path, value):
        seen.append((os.path.basename(path), value))
        if path.endswith("memory.limit_in_bytes") and len(seen) == 1:
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(fs, "put", put)
    manager.set({"memory": {"limit": 100, "swap": 200}})
    assert seen == [
        ("memory.limit_in_bytes", "100"),
        ("memory.memsw.limit_in_bytes", "200"),
        ("memory.limit_in_bytes", "100"),
    ]


def test_a_write_that_stays_refused_names_field_file_and_value(tree, monkeypatch):
    manager = opened(tree.v1(*ALL_V1))

    def put(path, value):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(fs, "put", put)
    with pytest.raises(KernelError) as caught:
        manager.set({"cpu": {"quota": 5}})
    message = "linux.resources.cpu.quota: cpu.cfs_quota_us = 5: invalid argument"
    assert str(caught.value) == message


def test_a_memory_limit_below_usage_says_how_much_is_used(tree, monkeypatch):
    manager = opened(tree.v1(*ALL_V1))
    manager.create({})
    tree.put("memory/grp/web1/memory.usage_in_bytes", "4096\n")
    tree.put("memory/grp/web1/memory.max_usage_in_bytes", "8192\n")

    def put(path, value):
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(fs, "put", put)
    with pytest.raises(KernelError) as caught:
        manager.set({"memory": {"limit": 5}})
    assert str(caught.value) == (
        "linux.resources.memory.limit: unable to set memory limit to 5"
        " (current usage: 4096, peak usage: 8192): device or resource busy"
    )


def test_update_leaves_device_rules_alone(tree):
    manager = opened(tree.v1(*ALL_V1))
    manager.create({"devices": [{"allow": False, "access": "rwm"}]})
    tree.put("devices/grp/web1/devices.deny", "")
    manager.set({"devices": [{"allow": True, "access": "rwm"}], "pids": {"limit": 9}})
    assert tree.get("devices/grp/web1/devices.allow").count("a") == 0
    assert tree.get("devices/grp/web1/devices.deny") == ""


def test_mounts_with_a_cgroup_namespace_are_mounts_and_otherwise_binds(tree):
    manager = opened(tree.v1("devices", "cpu,cpuacct", "name=systemd"))
    assert manager.mounts("/c", private_ns=True) == [
        ("tmpfs", "tmpfs", "/c", "mode=755"),
        ("cgroup", "cgroup", "/c/devices", "devices"),
        ("cgroup", "cgroup", "/c/cpu,cpuacct", "cpu,cpuacct"),
        ("symlink", "cpu,cpuacct", "/c/cpu", ""),
        ("symlink", "cpu,cpuacct", "/c/cpuacct", ""),
        ("cgroup", "cgroup", "/c/systemd", "name=systemd"),
    ]
    assert ("bind", f"{tree.root}/devices/grp/web1", "/c/devices", "") in manager.mounts(
        "/c", private_ns=False
    )


def test_rootless_without_permission_goes_without_cgroups(tree, monkeypatch):
    tree.v1(*ALL_V1, own="/user")
    lines = [
        f"3 2 0:2 / {tree.root}/{name.removeprefix('name=')} rw - cgroup cgroup rw,{name}"
        for name in ALL_V1
    ]
    tree.say([(name, "/user") for name in ALL_V1], lines)
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    monkeypatch.setattr("ocirt.cgroup.layout.unified", lambda root: False)
    manager = opened(tree, "", rootless=True)
    assert manager.attach_files() == []
    assert manager.pids() == []
    assert not manager.frozen()
    manager.create({"devices": [{"allow": False, "access": "rwm"}]})
    with pytest.raises(ConfigError) as caught:
        manager.create({"pids": {"limit": 5}})
    assert str(caught.value) == f"linux.resources.pids.limit: {fs.ROOTLESS_NEEDS}"


@pytest.mark.parametrize("mode", ["v1", "hybrid", "v2"])
def test_a_record_brings_the_manager_back(tree, mode):
    if mode == "v2":
        tree.v2()
    else:
        tree.v1(*ALL_V1, hybrid=mode == "hybrid")
    manager = opened(tree)
    manager.create({})
    again = cgroup.from_record(json.loads(json.dumps(manager.record())))
    assert again.version == manager.version
    assert again.directories() == manager.directories()
    assert again.freeze_file() == manager.freeze_file()
    again.remove()
    assert not any(d.endswith("web1") for d in tree.directories())


def test_fields_without_a_counterpart_are_named(tree):
    manager = opened(tree.v1("devices"))
    assert manager.ignored({"memory": {"kernel": 1, "limit": 1}}) == [
        "linux.resources.memory.kernel"
    ]
    assert manager.ignored({"memory": None}) == []


# --- v2


def test_every_controller_is_handed_down(tree):
    manager = opened(tree.v2("cpu memory pids"))
    manager.create({"memory": {"limit": 4096}})
    assert tree.get("cgroup.subtree_control") == "+cpu +memory +pids"
    assert tree.get("grp/web1/memory.max") == "4096"


def test_controllers_already_handed_down_are_not_written_again(tree):
    tree.v2("cpu memory")
    tree.put("cgroup.subtree_control", "cpu memory")
    os.mkdir(tree.root + "/grp")
    tree.put("grp/cgroup.subtree_control", "cpu memory")
    opened(tree).create({})
    assert tree.get("cgroup.subtree_control") == "cpu memory"


def test_controllers_that_cannot_go_together_are_tried_one_by_one(tree, monkeypatch):
    manager = opened(tree.v2("cpu memory"), "/web1")
    seen = []

    def put(path, value):
        seen.append(value)
        if value != "+cpu":
            raise OSError(16, "Device or resource busy")

    monkeypatch.setattr("ocirt.cgroup.fs_v2.put", put)
    manager.create({})
    assert seen == ["+cpu +memory", "+cpu", "+memory"]


def test_a_missing_controller_is_named(tree, monkeypatch):
    manager = opened(tree.v2("cpu"))

    def put(path, value):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(fs, "put", put)
    with pytest.raises(ConfigError) as caught:
        manager.create({"unified": {"memory.high": "1"}})
    assert str(caught.value) == (
        "linux.resources.unified.memory.high: the cgroup controller memory is not available"
    )


def test_an_io_weight_goes_to_the_general_file_without_bfq(tree):
    tree.v2("io")
    tree.put("cgroup.subtree_control", "io")
    opened(tree, "/web1").create({"blockIO": {"weight": 1000}})
    assert tree.get("web1/io.weight") == "10000"


def test_v2_joins_by_cloning_and_has_a_device_program(tree):
    manager = opened(tree.v2())
    assert manager.attach_files() == []
    assert manager.cgroup_dir() == f"{tree.root}/grp/web1"
    assert len(manager.device_program({})) % 8 == 0
    assert manager.device_program({"devices": [{"allow": True}]}) is None
    assert opened(tree, rootless=True).device_program({}) is None


def test_a_v2_mount_has_a_bind_in_reserve(tree):
    tree.v2()
    own = f"{tree.root}/grp/web1"
    assert opened(tree).mounts("/c", private_ns=True) == [
        ("try", "", "", ""),
        ("cgroup2", "cgroup", "/c", ""),
        ("bind", own, "/c", ""),
    ]
    options = "rw,nsdelegate,memory_recursiveprot"
    tree.say([("", "/")], [f"3 2 0:2 / {tree.root} rw - cgroup2 cgroup2 {options}"])
    assert opened(tree).mounts("/c", private_ns=False)[1:] == [
        ("cgroup2", "cgroup", "/c", "nsdelegate,memory_recursiveprot"),
        ("bind", tree.root, "/c", ""),
    ]


def test_a_user_may_not_write_to_cgroups_that_are_not_the_containers(tree):
    tree.v2()
    tree.say([("", "/")], [])
    for cgroups_path, private_ns, options in (("", True, ""), ("", False, "ro")):
        mounts = opened(tree, cgroups_path, rootless=True).mounts("/c", private_ns)
        assert mounts[-1][0] == "bind"
        assert mounts[-1][3] == options
    nothing = fs_v2.V2(None, rootless=True, root=tree.root, proc=tree.proc)
    assert nothing.mounts("/c", private_ns=True)[-1] == ("bind", tree.root, "/c", "ro")


MAPPED = [
    {"containerID": 0, "hostID": 1000, "size": 1},
    {"containerID": 1, "hostID": 100000, "size": 10},
]
WRITABLE = [{"destination": "/sys/fs//cgroup/", "type": "cgroup"}]
OWNERS = [
    # namespaces, mounts, user of the process, who owns the cgroup
    (["cgroup"], WRITABLE, 0, 0),
    (["cgroup"], WRITABLE, 7, 7),
    (["cgroup", "user"], WRITABLE, 0, 1000),
    (["cgroup", "user"], WRITABLE, 7, 100006),
    (["cgroup", "user"], WRITABLE, 70, None),
    (["user"], WRITABLE, 0, None),
    (["cgroup"], [{**WRITABLE[0], "options": ["ro"]}], 0, None),
    (["cgroup"], [{"destination": "/sys/fs/cgroup", "type": "bind"}], 0, None),
    (["cgroup"], [], 0, None),
]


@pytest.mark.parametrize(("spaces", "mounts", "uid", "owner"), OWNERS)
def test_who_owns_a_cgroup(spaces, mounts, uid, owner):
    config = {
        "process": {"user": {"uid": uid}},
        "mounts": mounts,
        "linux": {"namespaces": [{"type": one} for one in spaces], "uidMappings": MAPPED},
    }
    assert fs_v2.owner(config) == owner
    config["linux"]["namespaces"].append({"type": "cgroup", "path": "/proc/1/ns/cgroup"})
    assert fs_v2.owner(config) is None


def test_an_update_below_usage_is_refused_when_asked_to_check(tree):
    manager = opened(tree.v2())
    manager.create({})
    tree.put("grp/web1/memory.current", "5000\n")
    with pytest.raises(Error) as caught:
        manager.set({"memory": {"limit": 4096, "checkBeforeUpdate": True}})
    assert str(caught.value) == (
        "linux.resources.memory.limit: rejecting memory limit 4096 <= usage 5000"
    )
    manager.set({"memory": {"limit": 4096}})


def test_below_a_threaded_cgroup_only_threaded_controllers_work(tree):
    tree.v2("cpu memory")
    tree.put("cgroup.subtree_control", "cpu")
    mkdir = os.mkdir

    def threaded(path, mode=0o777):
        mkdir(path, mode)
        tree.put("web1/cgroup.type", "domain invalid\n")

    os.mkdir = threaded  # the fixture's monkeypatch puts the real one back
    with pytest.raises(ConfigError, match="lies below a threaded cgroup"):
        opened(tree, "/web1").create({"memory": {"limit": 1}})
    assert tree.directories() == []
    opened(tree, "/web1").create({"cpu": {"quota": 1000}})
    assert tree.get("web1/cgroup.type").startswith("threaded")


def test_oom_is_read_from_the_events(tree):
    manager = opened(tree.v2())
    manager.create({})
    assert not manager.oom_killed()
    tree.put("grp/web1/memory.events", "low 0\noom 1\noom_kill 1\n")
    assert manager.oom_killed()


# --- both


def test_an_unknown_driver_is_refused(tree):
    with pytest.raises(ConfigError, match="there is no cgroup driver 'runes'"):
        opened(tree.v2(), driver="runes")


def test_processes_are_counted_below_as_well(tree):
    manager = opened(tree.v2())
    manager.create({})
    os.mkdir(f"{tree.root}/grp/web1/inner")
    tree.put("grp/web1/cgroup.procs", "5\n")
    tree.put("grp/web1/inner/cgroup.procs", "7\n8\n")
    assert manager.pids() == [5, 7, 8]


def test_removal_reaches_below_and_gives_up_on_what_stays_busy(tree, monkeypatch):
    manager = opened(tree.v2())
    manager.create({})
    os.mkdir(f"{tree.root}/grp/web1/inner")
    monkeypatch.setattr(fs.time, "sleep", lambda seconds: None)
    rmdir, busy = os.rmdir, [True] * 8

    def stubborn(path):
        if path.endswith("inner") and busy and busy.pop():
            raise OSError(16, "Device or resource busy", path)
        rmdir(path)

    monkeypatch.setattr(os, "rmdir", stubborn)
    manager.remove()
    assert tree.directories() == ["grp"]
    manager.create({})
    os.mkdir(f"{tree.root}/grp/web1/inner")
    busy += [True] * 100
    with pytest.raises(KernelError) as caught:
        manager.remove()
    assert str(caught.value) == (
        f"unable to destroy cgroup: {tree.root}/grp/web1: device or resource busy"
    )
    busy.clear()


def test_what_is_gone_counts_as_removed(tree):
    manager = opened(tree.v2())
    manager.remove()
    manager.kill(9)
    manager.kill(15)
    assert manager.pids() == []
    assert not manager.frozen()
    assert files.read(tree.root + "/nothing") == ""
