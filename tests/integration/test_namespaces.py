"""`linux.namespaces`: new ones, joined ones, mappings, clocks, names, sysctl.

runtime-spec, config-linux.md, "Namespaces", "User namespace mappings", "Offset for Time
Namespace", "Sysctl".
"""

from __future__ import annotations

import os

import pytest

from tests.integration.support import DROP, UNIFIED, eventually, mount_table, namespaces, only_ocirt

FILES = {  # type in the spec → name below /proc/PID/ns
    "pid": "pid",
    "network": "net",
    "mount": "mnt",
    "ipc": "ipc",
    "uts": "uts",
    "user": "user",
    "cgroup": "cgroup",
    "time": "time",
}
MAPPED = [{"containerID": 0, "hostID": 100000, "size": 65536}]
USERNS = {
    "namespaces": namespaces("user", "pid", "network", "ipc", "uts", "mount"),
    "uidMappings": MAPPED,
    "gidMappings": MAPPED,
}


def links(pid="self"):
    return {kind: os.readlink(f"/proc/{pid}/ns/{file}") for kind, file in FILES.items()}


# --- new


@pytest.mark.parametrize("absent", ["pid", "network", "ipc", "uts"])
def test_a_listed_namespace_is_new_and_any_other_is_the_runtimes(runtime, bundle, absent):
    listed = {"pid", "network", "ipc", "uts", "mount"} - {absent}
    patch = {"hostname": DROP} if absent == "uts" else {}
    b = bundle.sleeping(linux={"namespaces": namespaces(*sorted(listed))}, **patch)
    pid = runtime.create(b)
    mine, its = links(), links(pid)
    assert {kind for kind in FILES if mine[kind] != its[kind]} == listed


def test_a_new_cgroup_namespace_has_the_containers_cgroup_as_its_root(runtime, bundle):
    listed = namespaces("pid", "network", "ipc", "uts", "mount", "cgroup")
    b = bundle("cat", "/proc/self/cgroup", linux={"namespaces": listed})
    named = [line.split(":", 2) for line in runtime.prints(b).splitlines()]
    wanted = {""} if UNIFIED else {"memory", "pids", "devices"}
    assert {path for _, name, path in named if name in wanted} == {"/"}


def test_the_loopback_device_of_a_new_network_is_up(runtime, bundle):
    b = bundle.sh("ip -o addr show lo; ls /sys/class/net")
    text = runtime.prints(b)
    assert "127.0.0.1/8" in text
    assert text.splitlines()[-1] == "lo" or "lo" in text.split()


def test_pid_1_sees_only_its_own_processes(runtime, bundle):
    b = bundle.sh("sleep 5 & sleep 5 & ls -d /proc/[0-9]* | wc -l; echo $$")
    count, first = map(int, runtime.prints(b).split())
    assert first == 1
    assert count <= 6


# --- joined


@pytest.fixture
def other(runtime, bundle):
    """A running container whose namespaces may be joined; the value is its pid."""
    return runtime.started(bundle.sleeping())


@pytest.mark.parametrize("kind", ["network", "ipc", "uts", "pid"])
def test_a_namespace_with_a_path_is_joined(runtime, bundle, other, kind):
    new = {"pid", "network", "ipc", "uts", "mount"} - {kind}
    path = f"/proc/{other}/ns/{FILES[kind]}"
    b = bundle.sleeping(
        hostname=DROP, linux={"namespaces": namespaces(*sorted(new), **{kind: path})}
    )
    pid = runtime.create(b)
    joined, its, mine = links(other), links(pid), links()
    assert {k for k in FILES if its[k] == joined[k] and its[k] != mine[k]} == {kind}
    runtime.start(b)
    assert runtime.status(b) == "running"


def test_a_container_in_a_joined_pid_namespace_ends_with_its_init(runtime, bundle, other):
    listed = namespaces("network", "ipc", "uts", "mount", pid=f"/proc/{other}/ns/pid")
    b = bundle.sh("sleep 1000 & echo $$", linux={"namespaces": listed})
    runtime.started(b)
    assert runtime.wait(b) == 0
    assert int(b.output()) > 1
    assert runtime.status(b) == "stopped"
    runtime.delete(b)


def test_a_user_namespace_can_be_joined(runtime, bundle):
    first = runtime.started(bundle.sleeping(linux=USERNS))
    listed = namespaces("pid", "network", "ipc", "uts", "mount", user=f"/proc/{first}/ns/user")
    linux = {"namespaces": listed}
    if not runtime.is_ocirt:
        linux |= {"uidMappings": MAPPED, "gidMappings": MAPPED}  # runc 1.1 wants them repeated
    b = bundle.sleeping(linux=linux)
    pid = runtime.create(b)
    assert links(pid)["user"] == links(first)["user"] != links()["user"]
    runtime.start(b)
    assert runtime.status(b) == "running"


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/proc/self/ns/uts", ""),
        ("/nowhere/net", "no such file or directory"),
        ("/etc/passwd", ""),
        ("relative/net", ""),
    ],
    ids=["another-type", "missing", "no-namespace", "relative"],
)
def test_a_path_that_is_not_that_namespace_is_refused(runtime, bundle, path, sentence):
    b = bundle.sleeping(linux={"namespaces": namespaces("pid", "mount", "uts", network=path)})
    runtime.refuses_to_create(b, sentence, ours="linux.namespaces[3]")


def test_a_namespace_listed_twice_is_refused(runtime, bundle):
    b = bundle.sleeping(linux={"namespaces": namespaces("pid", "mount", "uts", "pid")})
    runtime.refuses_to_create(b, ours="linux.namespaces[3]")


def test_an_unknown_namespace_is_refused(runtime, bundle):
    b = bundle.sleeping(linux={"namespaces": namespaces("pid", "mount", "uts", "moon")})
    result = runtime.refuses_to_create(b, "moon", ours="linux.namespaces[3]")
    if runtime.is_ocirt:
        # Engines would take it for a container that is gone.
        assert "does not exist" not in result.error


# --- user namespaces


def test_root_of_a_user_namespace_is_the_mapped_user_outside(runtime, bundle):
    b = bundle.sh("cat /proc/self/uid_map; id -u; id -g; exec sleep 1000", linux=USERNS)
    pid = runtime.started(b)
    with open(f"/proc/{pid}/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    assert status["Uid"].split() == ["100000"] * 4
    assert status["Gid"].split() == ["100000"] * 4
    assert eventually(lambda: b.output().count("\n") == 3)
    assert b.output().split() == ["0", "100000", "65536", "0", "0"]


def test_maps_of_several_lines_arrive_as_written(runtime, bundle):
    maps = [
        {"containerID": 0, "hostID": 100000, "size": 10},
        {"containerID": 10, "hostID": 0, "size": 5},
        {"containerID": 1000, "hostID": 200000, "size": 1},
    ]
    b = bundle.sh(
        "cat /proc/self/uid_map /proc/self/gid_map; id -u",
        linux={**USERNS, "uidMappings": maps, "gidMappings": maps},
        process={"user": {"uid": 1000, "gid": 11}},
    )
    lines = [line.split() for line in runtime.prints(b).splitlines()]
    rows = [["0", "100000", "10"], ["10", "0", "5"], ["1000", "200000", "1"]]
    assert lines == [*rows, *rows, ["1000"]]


def test_the_default_devices_work_in_a_user_namespace(runtime, bundle):
    b = bundle.sh(
        "echo x > /dev/null && head -c4 /dev/zero | wc -c && stat -c '%F %t:%T' /dev/null; "
        "readlink /dev/stdin",
        linux=USERNS,
    )
    assert runtime.prints(b).splitlines() == [
        "4",
        "character special file 1:3",
        "/proc/self/fd/0",
    ]


def test_root_of_a_user_namespace_has_the_capabilities_asked_for(runtime, bundle):
    names = ["CAP_CHOWN", "CAP_SETUID", "CAP_SYS_ADMIN"]
    b = bundle.sh(
        "mount -t tmpfs none /tmp && touch /tmp/x && chown 5 /tmp/x && stat -c %u /tmp/x",
        process={"capabilities": dict.fromkeys(("bounding", "effective", "permitted"), names)},
        linux=USERNS,
    )
    assert runtime.prints(b) == "5"


def test_a_bind_mount_that_mapped_root_cannot_reach_still_works(runtime, bundle, workdir):
    """The source is opened outside: a home of mode 0700 is no obstacle to the runtime."""
    secret = os.path.join(workdir, "secret")
    os.mkdir(secret)
    os.chmod(secret, 0o700)
    os.mkdir(f"{secret}/open")
    with open(f"{secret}/open/file", "w") as file:
        file.write("seen")
    mount = {
        "destination": "/mnt",
        "type": "bind",
        "source": f"{secret}/open",
        "options": ["rbind"],
    }
    b = bundle("cat", "/mnt/file", linux=USERNS, more_mounts=[mount])
    os.mkdir(b.inside("/mnt"))
    assert runtime.prints(b) == "seen"


def test_a_new_user_namespace_needs_maps(runtime, bundle):
    b = bundle.sleeping(linux={"namespaces": USERNS["namespaces"]})
    runtime.refuses_to_create(b, ours="linux.uidMappings")


@only_ocirt("runc 1.1 passes over maps that nothing will use")
def test_maps_need_a_user_namespace(runtime, bundle):
    b = bundle.sleeping(linux={"uidMappings": MAPPED, "gidMappings": MAPPED})
    runtime.refuses_to_create(b, ours="linux.uidMappings")


def test_a_user_that_is_not_mapped_is_refused(runtime, bundle):
    b = bundle.sleeping(linux=USERNS, process={"user": {"uid": 70000, "gid": 0}})
    runtime.refuses_to_create(b)


# --- time


@only_ocirt("runc 1.1 knows no time namespace")
def test_a_time_namespace_has_clocks_of_its_own(runtime, bundle):
    listed = namespaces("pid", "network", "ipc", "uts", "mount", "time")
    b = bundle.sh(
        "cut -d. -f1 /proc/uptime; cat /proc/self/timens_offsets",
        linux={
            "namespaces": listed,
            "timeOffsets": {
                "boottime": {"secs": 10_000_000, "nanosecs": 5},
                "monotonic": {"secs": 20_000_000},
            },
        },
    )
    uptime, *offsets = runtime.prints(b).splitlines()
    with open("/proc/uptime") as file:
        mine = float(file.read().split()[0])
    assert 10_000_000 <= int(uptime) - mine + 1 < 10_000_100
    assert [line.split() for line in offsets] == [
        ["monotonic", "20000000", "0"],
        ["boottime", "10000000", "5"],
    ]


@only_ocirt("runc 1.1 knows no time namespace")
def test_time_offsets_need_a_new_time_namespace(runtime, bundle):
    b = bundle.sleeping(linux={"timeOffsets": {"boottime": {"secs": 1}}})
    runtime.refuses_to_create(b, ours="linux.timeOffsets")


# --- names


def test_the_hostname_is_set(runtime, bundle):
    assert runtime.prints(bundle("hostname", hostname="a-name.example")) == "a-name.example"


@only_ocirt("runc 1.1 does not know domainname")
def test_the_domainname_is_set(runtime, bundle):
    b = bundle("cat", "/proc/sys/kernel/domainname", domainname="example.org")
    assert runtime.prints(b) == "example.org"


@pytest.mark.parametrize(
    "field", ["hostname", pytest.param("domainname", marks=only_ocirt("runc 1.1 does not know it"))]
)
def test_a_name_needs_a_uts_namespace(runtime, bundle, field):
    b = bundle.sleeping(
        hostname=DROP, linux={"namespaces": namespaces("pid", "network", "ipc", "mount")}
    ).patch(**{field: "box"})
    runtime.refuses_to_create(b, ours=field)


# --- sysctl

SYSCTL = [
    # key                                 value        file
    ("net.ipv4.ip_unprivileged_port_start", "80", "net/ipv4/ip_unprivileged_port_start"),
    ("net/ipv4/ip_default_ttl", "42", "net/ipv4/ip_default_ttl"),
    ("kernel.msgmax", "8193", "kernel/msgmax"),
    ("kernel.shm_rmid_forced", "1", "kernel/shm_rmid_forced"),
    ("kernel/msgmnb", "16385", "kernel/msgmnb"),
    ("fs.mqueue.msg_max", "11", "fs/mqueue/msg_max"),
    ("kernel.domainname", "example.net", "kernel/domainname"),
]


@pytest.mark.parametrize(("key", "value", "file"), SYSCTL, ids=[key for key, *_ in SYSCTL])
def test_a_sysctl_of_a_namespace_is_set(runtime, bundle, key, value, file):
    if not os.path.exists(f"/proc/sys/{file}"):
        pytest.skip("this kernel lacks it")
    b = bundle("cat", f"/proc/sys/{file}", linux={"sysctl": {key: value}})
    assert runtime.prints(b) == value


def test_a_key_with_a_dot_in_an_interface_name_is_written_with_slashes(runtime, bundle):
    b = bundle.sh(
        "cat /proc/sys/net/ipv4/conf/lo/forwarding",
        linux={"sysctl": {"net/ipv4/conf/lo/forwarding": "1"}},
    )
    assert runtime.prints(b) == "1"


WITHOUT = namespaces("pid", "mount")
REFUSED = [
    # key                         namespaces that are missing
    ("kernel.panic", None),
    ("vm.swappiness", None),
    ("kernel.core_pattern", None),
    ("kernel.hostname", None),
    ("kernel.msgmax", WITHOUT),
    ("fs.mqueue.msg_max", WITHOUT),
    ("net.ipv4.ip_default_ttl", WITHOUT),
    ("kernel.domainname", WITHOUT),
]


@pytest.mark.parametrize(
    ("key", "listed"), REFUSED, ids=[f"{k}{'-' * bool(n)}" for k, n in REFUSED]
)
def test_a_sysctl_of_the_whole_machine_is_refused(runtime, bundle, key, listed):
    b = bundle.sleeping(hostname=DROP, linux={"sysctl": {key: "1"}})
    if listed:
        b.patch(linux={"namespaces": listed})
    runtime.refuses_to_create(b, key, ours="linux.sysctl")


def test_the_network_of_the_host_is_no_network_of_its_own(runtime, bundle):
    listed = namespaces("pid", "mount", "ipc", network=f"/proc/{os.getpid()}/ns/net")
    b = bundle.sleeping(
        hostname=DROP, linux={"namespaces": listed, "sysctl": {"net.ipv4.ip_default_ttl": "1"}}
    )
    runtime.refuses_to_create(b, "net.ipv4.ip_default_ttl")


def test_a_sysctl_that_the_kernel_refuses_is_an_error(runtime, bundle):
    b = bundle.sleeping(linux={"sysctl": {"net.ipv4.ip_default_ttl": "not a number"}})
    runtime.refuses_to_create(b, "invalid argument", ours="net.ipv4.ip_default_ttl")


def test_without_a_user_namespace_the_mount_table_is_all_ours(runtime, bundle):
    table = mount_table(runtime.prints(bundle("cat", "/proc/self/mountinfo")))
    assert set(table) == {"/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/sys"}
