"""What a config must not ask for, each refusal with its place, all of them at once."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from ocirt import checks, shape
from ocirt.errors import At, ConfigError
from tests.unit.documents import engine, put, valid

MAP = [{"containerID": 0, "hostID": 100000, "size": 65536}]
HALF = [
    {"containerID": 0, "hostID": 0, "size": 10},
    {"containerID": 5, "hostID": 100, "size": 1},
]


def faults(changes, **options):
    config = engine()
    for place, value in changes.items():
        put(config, place, value)
    shape.check(config)
    return [": ".join(fault) for fault in checks.faults(config, **options)]


def user(**fields):
    """Changes that put the container into a new user namespace."""
    spaces = [{"type": kind} for kind in ("user", "pid", "mount", "uts", "time")]
    return {"linux.namespaces": spaces, "mounts": [], "linux.uidMappings": MAP,
            "linux.gidMappings": MAP, **fields}  # fmt: skip


def test_a_config_as_engines_write_it_has_no_fault():
    assert faults({}) == []
    assert faults(user()) == []
    checks.run(engine())


NO_UTS = [{"type": "mount"}, {"type": "time"}]
CASES = [
    # changes, the only fault
    ({"ociVersion": "1.0"}, 'ociVersion: "1.0" is not a semantic version'),
    ({"ociVersion": ""}, 'ociVersion: "" is not a semantic version'),
    ({"ociVersion": "1.01.0"}, 'ociVersion: "1.01.0" is not a semantic version'),
    ({"ociVersion": "2.0.0"}, "ociVersion: 2.0.0 is not supported, only 1.x is"),
    ({"ociVersion": "10.0.0"}, "ociVersion: 10.0.0 is not supported, only 1.x is"),
    ({"root": ...}, "root: root must be specified"),
    ({"root.path": ""}, "root.path: is empty"),
    ({"process.cwd": ""}, "process.cwd: Cwd property must not be empty"),
    ({"process.cwd": "../srv"}, "process.cwd: Cwd must be an absolute path"),
    ({"process.args": ...}, "process.args: args must not be empty"),
    ({"process.args": []}, "process.args: args must not be empty"),
    ({"process.args": [""]}, "process.args[0]: is empty"),
    ({"process.env[1]": "HOME"}, "process.env[1]: invalid environment variable: missing '='"),
    ({"process.env[1]": "=x"},
     "process.env[1]: invalid environment variable: name cannot be empty"),
    ({"process.oomScoreAdj": 1001}, "process.oomScoreAdj: 1001 is not within -1000 and 1000"),
    ({"process.rlimits[0].hard": 1},
     "process.rlimits[0].soft: 1024 is above the hard limit 1"),
    ({"process.scheduler.nice": 20},
     "process.scheduler.nice: invalid scheduler.nice: 20 when scheduler.policy is SCHED_BATCH"),
    ({"process.scheduler.priority": 1},
     "process.scheduler.priority: scheduler.priority can only be specified for SchedFIFO or "
     "SchedRR policy"),
    ({"process.scheduler.period": 1},
     "process.scheduler.period: scheduler runtime/deadline/period can only be specified for "
     "SchedDeadline policy"),
    ({"process.ioPriority.priority": 8},
     "process.ioPriority.priority: invalid ioPriority.Priority: 8"),
    ({"process.execCPUAffinity.final": "1-"},
     'process.execCPUAffinity.final: bad CPUAffinity.Final: "1-" is not a list such as 0-3,7'),
    ({"process.execCPUAffinity.initial": "65536"},
     'process.execCPUAffinity.initial: bad CPUAffinity.Initial: "65536" is not a list such as '
     "0-3,7"),
    ({"linux.memoryPolicy.nodes": "0-x"},
     'linux.memoryPolicy.nodes: invalid memory policy nodes "0-x"'),
    ({"linux.memoryPolicy.nodes": ""},
     "linux.memoryPolicy.nodes: memory policy mode requires at least one node but got 0"),
    ({"linux.memoryPolicy.mode": "MPOL_LOCAL", "linux.memoryPolicy.nodes": "0-2,7"},
     "linux.memoryPolicy.nodes: memory policy mode requires 0 nodes but got 4"),
    ({"linux.namespaces[1].type": "pid", "linux.maskedPaths": [], "linux.readonlyPaths": []},
     'linux.namespaces[1]: malformed spec file: duplicated ns "pid"'),
    ({"linux.namespaces[4].path": "run/netns/x"},
     "linux.namespaces[4].path: run/netns/x is not absolute"),
    ({"linux.namespaces": NO_UTS},
     "hostname: unable to set hostname without a private UTS namespace"),
    ({"linux.namespaces": NO_UTS, "hostname": "", "domainname": "x"},
     "domainname: unable to set domainname without a private UTS namespace"),
    ({"linux.namespaces": [{"type": "uts"}, {"type": "time"}], "linux.readonlyPaths": ...},
     "linux.maskedPaths: unable to restrict sys entries without a private MNT namespace"),
    ({"linux.namespaces": [{"type": "uts"}, {"type": "mount"}]},
     "linux.timeOffsets: time namespace offsets specified, but time namespace isn't enabled in "
     "the config"),
    ({"linux.namespaces[5].path": "/proc/1/ns/time"},
     "linux.timeOffsets: time namespace enabled, but both namespace path and time offsets "
     "specified -- you may only provide one"),
    ({"linux.timeOffsets.realtime": {}},
     "linux.timeOffsets.realtime: not a clock of a namespace (monotonic boottime)"),
    ({"linux.timeOffsets.monotonic.nanosecs": 10**9},
     "linux.timeOffsets.monotonic.nanosecs: not below one second"),
    ({"linux.uidMappings": MAP},
     "linux.uidMappings: user namespace mappings specified, but user namespace isn't enabled in "
     "the config"),
    (user(**{"linux.uidMappings": [], "linux.gidMappings": []}),
     "linux.uidMappings: user namespaces enabled, but no namespace path to join nor mappings to "
     "apply specified"),
    (user(**{"linux.gidMappings": []}),
     "linux.gidMappings: user namespaces enabled, but no gid mappings found"),
    (user(**{"process.user.uid": 65536}),
     "process.user.uid: user namespaces enabled, but no mapping found for uid 65536"),
    (user(**{"process.user.additionalGids": [1, 70000]}),
     "process.user.additionalGids[1]: user namespaces enabled, but no mapping found for gid "
     "70000"),
    (user(**{"process.user": {}, "linux.uidMappings": HALF}),
     "linux.uidMappings[1].containerID: 5 lies in the range of another mapping"),
    (user(**{"linux.gidMappings": [{"containerID": 0, "hostID": 2**32 - 2, "size": 65536}]}),
     "linux.gidMappings[0].hostID: 4294967294 and 65536 ids go beyond 32 bits"),
    ({"mounts[0].destination": ""}, "mounts[0].destination: is empty"),
    ({"mounts[0].destination": "/a/../../b"},
     "mounts[0].destination: /a/../../b climbs by .."),
    ({"mounts[1].gidMappings": []},
     "mounts[1]: id-mapped mounts must have both uid and gid mappings specified"),
    ({"mounts[1].type": "tmpfs", "mounts[1].options": ["ro"]},
     "mounts[1]: id-mapped mounts are only supported for bind-mounts"),
    ({"linux.maskedPaths": ["proc/kcore"]}, "linux.maskedPaths[0]: proc/kcore is not absolute"),
    ({"linux.maskedPaths": ["/a", ""]}, "linux.maskedPaths[1]: is empty"),
    ({"linux.readonlyPaths": ["/x/.."]}, "linux.readonlyPaths[0]: /x/.. climbs by .."),
    ({"linux.devices[0].path": "fuse"}, "linux.devices[0].path: fuse is not absolute"),
    ({"linux.devices[0].path": "/dev/../x"}, "linux.devices[0].path: /dev/../x climbs by .."),
    ({"linux.devices[0].major": ...}, "linux.devices[0].major: missing"),
    ({"linux.devices[0].minor": -1}, "linux.devices[0].minor: -1 is not a device number"),
    ({"linux.resources.devices[1].access": ""},
     "linux.resources.devices[1].access: device access at 1 field cannot be empty"),
    ({"linux.resources.devices[1].access": "rx"},
     "linux.resources.devices[1].access: rx has more than r, w and m"),
    ({"linux.resources.devices[1].major": -2},
     "linux.resources.devices[1].major: -2 is not a device number"),
    ({"linux.resources.memory.swappiness": 101},
     "linux.resources.memory.swappiness: 101 is not within 0 and 100"),
    ({"linux.resources.blockIO.weight": 9},
     "linux.resources.blockIO.weight: 9 is not within 10 and 1000"),
    ({"linux.resources.blockIO.weightDevice": [{"major": 8, "minor": 0, "weight": 1001}]},
     "linux.resources.blockIO.weightDevice[0].weight: 1001 is not within 10 and 1000"),
    ({"linux.resources.hugepageLimits[0].pageSize": "2M"},
     "linux.resources.hugepageLimits[0].pageSize: 2M is not like 64KB, 2MB, 1GB"),
    ({"linux.resources.hugepageLimits[0].pageSize": "64kB"},
     "linux.resources.hugepageLimits[0].pageSize: 64kB is not like 64KB, 2MB, 1GB"),
    ({"linux.resources.unified": {"../x": "1"}},
     "linux.resources.unified.../x: not the name of a file in a cgroup"),
    ({"linux.seccomp.defaultErrnoRet": 4096},
     "linux.seccomp.defaultErrnoRet: 4096 is not an errno"),
    ({"linux.seccomp.syscalls[0].action": "SCMP_ACT_NOTIFY", "linux.seccomp.listenerPath": "/s"},
     "linux.seccomp.syscalls[0].names: SCMP_ACT_NOTIFY cannot be used for the write syscall"),
    ({"linux.seccomp.syscalls[1].action": "SCMP_ACT_NOTIFY"},
     "linux.seccomp.listenerPath: SCMP_ACT_NOTIFY needs a listener"),
    ({"linux.seccomp.defaultAction": "SCMP_ACT_NOTIFY", "linux.seccomp.listenerPath": "/s"},
     "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be used as default action"),
    ({"linux.seccomp.syscalls[0].names": [""]},
     "linux.seccomp.syscalls[0].names: empty string is not a valid syscall"),
    ({"linux.seccomp.syscalls[1].args[0].index": 6},
     "linux.seccomp.syscalls[1].args[0].index: 6 is not within 0 and 5"),
    ({"hooks.createRuntime[0].path": "true"}, "hooks.createRuntime[0].path: true is not absolute"),
    ({"hooks.createRuntime[0].timeout": 0},
     "hooks.createRuntime[0].timeout: 0 is not above zero"),
    ({"hooks.createRuntime[0].env": ["A"]},
     "hooks.createRuntime[0].env[0]: invalid environment variable: missing '='"),
    ({"process.terminal": True, "process.consoleSize.width": 65536},
     "process.consoleSize.width: 65536 is more than 65535"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "fault"), CASES, ids=range(len(CASES)))
def test_a_fault_is_named_with_its_place(changes, fault):
    assert faults(changes) == [fault]


def test_every_check_has_a_case_that_it_refuses():
    refused = set()
    for changes, _ in CASES:
        config = engine()
        for place, value in changes.items():
            put(config, place, value)
        for check in checks.CHECKS:
            found = []
            check(checks.Subject(config, False), lambda *fault, found=found: found.append(fault))
            if found:
                refused.add(check.__name__)
    own_tests = {"unsupported", "net_devices", "intel_rdt", "rootless"}
    assert {check.__name__ for check in checks.CHECKS} - refused == own_tests


FINE = [
    {"ociVersion": "1.0.0-rc.5+build.01"},
    {"ociVersion": "1.3.0-dev"},
    {"process.scheduler": {"policy": "SCHED_FIFO", "priority": 1, "nice": 40}},
    {"linux.memoryPolicy": {"mode": "MPOL_PREFERRED"}},
    {"linux.memoryPolicy.nodes": " 0-1 , 5"},
    {"mounts[0].destination": "relative/is/deprecated..but/..fine"},
    {"linux.devices": [{"path": "/run/fifo", "type": "p"}]},
    {"linux.resources.blockIO.weight": 0},
    {"linux.resources.memory.swappiness": 2**64 - 1},
    {"linux.resources.devices[1].major": -1},
    {"process.consoleSize.width": 2**20},
    user(**{"linux.uidMappings": [
        {"containerID": 1000, "hostID": 5, "size": 1},
        {"containerID": 0, "hostID": 6, "size": 1000},
        {"containerID": 2000, "hostID": 6, "size": 0},
    ]}),
    {"linux.namespaces": [{"type": "user", "path": "/proc/1/ns/user"}, {"type": "mount"},
                          {"type": "uts"}, {"type": "time"}]},
    {"process": ...},
    {"linux.intelRdt": None, "linux.netDevices": None},
]  # fmt: skip


@pytest.mark.parametrize("changes", FINE, ids=range(len(FINE)))
def test_what_may_look_odd_and_is_allowed(changes):
    assert faults(changes) == []


@pytest.mark.parametrize(("place", "reason"), checks.UNSUPPORTED)
def test_a_known_field_that_we_cannot_do_is_never_passed_over(place, reason):
    config = engine()
    *_, last = place.split(".")
    value = ["X"] if last == "flags" else {}
    put(config, place, value)
    assert (place, reason) in checks.faults(config)


def test_other_platforms_are_passed_over():
    assert faults({"windows": {"layerFolders": []}, "vm": {}, "freebsd": {}}) == []


def test_network_devices_need_a_namespace_and_names_the_kernel_takes():
    def said(devices, **options):
        config = engine()
        config["linux"]["netDevices"] = devices
        found = []
        subject = checks.Subject(config, options.get("unprivileged", False))
        checks.net_devices(subject, lambda *fault: found.append(": ".join(fault)))
        return found

    assert said({"eth0": {"name": "a" * 15}}) == []
    assert said({"eth0": {"name": "eth1"}, "eth1": {"name": "eth0"}}) == []
    assert said({"eth0": {}, "eth1": {"name": "eth0"}}) == [
        'linux.netDevices.eth1: network device name "eth0" is given twice'
    ]
    for name in ("a" * 16, "", ".", "..", "a/b", "a:b", "a b", "a\tb", "eth%d"):
        sentence = f'linux.netDevices.{name}: invalid network device name "{name}"'
        assert said({name: {}}) == [sentence]
    assert said({"eth0": {"name": "a/b"}}) == [
        'linux.netDevices.eth0.name: invalid network device name "a/b"'
    ]
    assert said({"eth0": {}}, unprivileged=True) == [
        "linux.netDevices: network devices are not supported for rootless containers"
    ]


@pytest.mark.parametrize("name", [".", "..", "a/b", "a\nb"])
def test_a_class_of_service_is_one_directory(name):
    found = []
    config = {"ociVersion": "1.3.0", "linux": {"intelRdt": {"closID": name}}}
    checks.intel_rdt(checks.Subject(config, False), lambda *fault: found.append(fault))
    assert found == [("linux.intelRdt.closID", f'invalid intelRdt.ClosID "{name}"')]


ROOTLESS = [
    ({"mounts": []}, "linux.namespaces: rootless container requires user namespaces"),
    (user(**{"process.user": {}, "linux.uidMappings": []}),
     "linux.uidMappings: rootless containers requires at least one UID mapping"),
    (user(**{"process.user": {}, "linux.gidMappings": []}),
     "linux.gidMappings: rootless containers requires at least one GID mapping"),
    (user(**{"process.user": {}, "mounts": [{"destination": "/t", "type": "tmpfs",
                                             "options": ["mode=1", "gid=70000"]}]}),
     "mounts[0].options[1]: cannot specify gid=70000 mount option for rootless container"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "fault"), ROOTLESS)
def test_without_privileges(changes, fault):
    assert fault in faults(changes, unprivileged=True)


def test_a_rootless_config_as_engines_write_it_has_no_fault():
    mounts = [{"destination": "/t", "type": "tmpfs", "options": ["uid=0", "gid=5", "gid=x"]}]
    assert faults(user(**{"process.user": {}, "mounts": mounts}), unprivileged=True) == []


def test_all_faults_come_at_once_on_the_one_line_that_callers_expect():
    config = engine()
    put(config, "ociVersion", "1")
    put(config, "process.cwd", "x")
    put(config, "linux.maskedPaths", ["x"])
    with pytest.raises(ConfigError) as caught, At("web1"):
        checks.run(config)
    assert str(caught.value) == (
        'web1: ociVersion: "1" is not a semantic version; linux.maskedPaths[0]: x is not '
        "absolute; process.cwd: Cwd must be an absolute path"
    )


def test_one_fault_is_a_plain_error():
    config = engine()
    put(config, "process.cwd", "x")
    with pytest.raises(ConfigError) as caught:
        checks.run(config)
    assert caught.value.segments == ["process.cwd", "Cwd must be an absolute path"]


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck), database=None)
@given(valid())
def test_any_config_of_the_right_shape_can_be_checked(config):
    shape.check(config)
    for unprivileged in (False, True):
        for place, sentence in checks.faults(config, unprivileged=unprivileged):
            assert place
            assert sentence
            assert "does not exist" not in sentence
