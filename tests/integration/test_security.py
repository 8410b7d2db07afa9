"""A hostile image must not get out while its container is set up: one test for each class of
escape that container runtimes have known.

Each test names the vulnerabilities it stands for.  Leaked descriptors and the inheritable set
are in test_process.py, what may be mounted over /proc in test_mounts.py, hooks and the image's
environment in test_hooks.py, the console in test_terminal.py.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import time

import pytest

from tests.integration.support import (
    EVERY_CAPABILITY,
    HOST_PIDS,
    MOUNTS,
    bind,
    eventually,
    namespaces,
    only_ocirt,
    tmpfs,
)

ALL = dict.fromkeys(("bounding", "effective", "permitted"), EVERY_CAPABILITY)
F_GET_SEALS = 1034
NODE = {"path": "/dev/deep/fuse", "type": "c", "major": 10, "minor": 229}


@pytest.fixture
def outside(workdir):
    """A directory of the host that nothing may be made in."""
    path = os.path.join(workdir, "outside")
    os.mkdir(path)
    os.chmod(path, 0o777)
    yield path
    assert os.listdir(path) == []


def without(*destinations):
    return [mount for mount in MOUNTS if mount["destination"] not in destinations]


# --- links in the way of mounts: CVE-2019-18837, CVE-2021-30465, CVE-2024-45310


@pytest.mark.parametrize("kind", ["absolute", "relative", "chain", "dangling"])
@pytest.mark.parametrize("what", ["bind", "file", "tmpfs"])
def test_a_link_at_a_mount_point_leads_nowhere_but_inside(
    runtime, bundle, outside, workdir, kind, what
):
    source = f"{workdir}/source"
    os.mkdir(source)
    with open(f"{source}/file", "w"):
        pass
    mount = {
        "bind": bind(source, "/mnt/deep/er"),
        "file": bind(f"{source}/file", "/mnt/deep/er"),
        "tmpfs": tmpfs("/mnt/deep/er"),
    }[what]
    b = bundle("true", more_mounts=[mount])
    inside = os.path.relpath(outside, b.rootfs)
    if kind == "absolute":
        os.symlink(outside, b.inside("/mnt"))
    elif kind == "relative":
        os.symlink(inside, b.inside("/mnt"))
    elif kind == "chain":
        os.symlink(f"../../{os.path.basename(b.path)}/rootfs/second", b.inside("/mnt"))
        os.symlink(outside, b.inside("/second"))
    else:
        os.symlink(f"{outside}/nothing", b.inside("/mnt"))
    runtime.run(b)  # whether it runs is a matter of taste
    assert os.listdir(outside) == []


def test_a_link_in_the_place_of_the_working_directory(runtime, bundle, outside):
    b = bundle("true", process={"cwd": "/work/deep"})
    os.symlink(outside, b.inside("/work"))
    runtime.run(b)
    assert os.listdir(outside) == []


# --- /proc and /sys that are not: CVE-2019-16884, CVE-2019-19921, CVE-2023-27561, CVE-2025-52881


@pytest.mark.parametrize("place", ["/proc", "/sys"])
@pytest.mark.parametrize("kind", ["absolute", "relative"])
def test_a_link_in_the_place_of_proc_or_sys_is_refused(runtime, bundle, place, kind):
    b = bundle("true")
    os.rmdir(b.inside(place))
    os.mkdir(b.inside("/elsewhere"))
    os.symlink("/elsewhere" if kind == "absolute" else "elsewhere", b.inside(place))
    runtime.refuses_to_create(b, place, ours="mounts[")


@pytest.mark.parametrize("what", ["bind", "tmpfs"])
def test_a_volume_over_proc_is_refused(runtime, bundle, outside, what):
    """A false /proc would swallow what is written to its attr/exec."""
    mount = bind(outside, "/proc") if what == "bind" else tmpfs("/proc")
    b = bundle("true", mounts=[mount, *without("/proc")])
    if what == "tmpfs" and not runtime.is_ocirt:
        pytest.skip("runc 1.1 looks at binds only")
    runtime.refuses_to_create(b, "/proc", ours="mounts[0]")


def test_the_proc_of_the_host_may_be_bound(runtime, bundle):
    """`--pid=host` of Podman with a bind of /proc: a real procfs is no false one."""
    b = bundle(
        "cat",
        "/proc/self/comm",
        mounts=[bind("/proc", "/proc", "rbind"), *without("/proc")],
        linux=HOST_PIDS,
    )
    assert runtime.prints(b) == "cat"


# --- /dev that is not: CVE-2026-41579, CVE-2026-47766, CVE-2025-31133


@only_ocirt("runc 1.1 makes its links at the end of the link (CVE-2026-41579)")
@pytest.mark.parametrize("kind", ["absolute", "relative"])
def test_a_link_in_the_place_of_dev_gets_no_nodes(runtime, bundle, outside, kind):
    b = bundle("true", mounts=without("/dev", "/dev/pts", "/dev/shm"))
    os.rmdir(b.inside("/dev"))
    target = outside if kind == "absolute" else os.path.relpath(outside, b.rootfs)
    os.symlink(target, b.inside("/dev"))
    result = runtime.run(b)
    assert os.listdir(outside) == []
    assert result.code == 1


@only_ocirt("runc 1.1 binds whatever lies at /dev/null over what is to be masked")
@pytest.mark.parametrize("kind", ["link", "file", "other-device"])
def test_a_false_null_device_masks_nothing(runtime, bundle, kind):
    b = bundle(
        *("cat", "/secret"),
        mounts=without("/dev", "/dev/pts", "/dev/shm"),
        linux={"maskedPaths": ["/secret"]},
    )
    b.put("/secret", "do not show")
    if kind == "link":
        os.symlink("/etc/passwd", b.inside("/dev/null"))
    elif kind == "file":
        b.put("/dev/null", "root:x:0:0")
    else:
        os.mknod(b.inside("/dev/null"), 0o20666, os.makedev(1, 5))
    result = runtime.run(b)
    assert result.out == ""
    assert result.code == 1


def test_a_link_at_a_device_node_is_not_followed(runtime, bundle, outside):
    b = bundle("true", mounts=without("/dev", "/dev/pts", "/dev/shm"), linux={"devices": [NODE]})
    os.symlink(os.path.relpath(outside, b.inside("/dev")), b.inside("/dev/deep"))
    runtime.run(b)
    assert os.listdir(outside) == []


# --- the runtime's own program: CVE-2019-5736


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_what_waits_in_the_container_cannot_be_written(runtime, bundle):
    pid = runtime.create(bundle.sleeping())
    with pytest.raises(OSError):  # noqa: PT011 - ETXTBSY, EPERM or EROFS, as the copy is protected
        os.close(os.open(f"/proc/{pid}/exe", os.O_RDWR))


@only_ocirt("runc may protect its copy by a read-only mount instead")
def test_what_waits_in_the_container_is_a_sealed_copy(runtime, bundle):
    pid = runtime.create(bundle.sleeping())
    assert os.readlink(f"/proc/{pid}/exe").startswith("/memfd:")
    with open(f"/proc/{pid}/exe", "rb") as file:
        assert fcntl.fcntl(file, F_GET_SEALS) & 0xF == 0xF


@pytest.mark.parametrize("how", ["argument", "script", "link"])
def test_a_program_that_is_the_runtime_itself(runtime, bundle, how):
    """An image whose entry point is /proc/self/exe runs the init once more, to no avail."""
    before = digest(os.path.realpath(runtime.path))
    b = bundle("/proc/self/exe" if how == "argument" else "/entry")
    if how == "script":
        b.put("/entry", "#!/proc/self/exe\n", 0o755)
    elif how == "link":
        os.symlink("/proc/self/exe", b.inside("/entry"))
    result = runtime.run(b)
    assert result.code != 0
    assert digest(os.path.realpath(runtime.path)) == before
    assert runtime.host.leftovers() == []


def test_the_waiting_init_cannot_be_looked_into_by_a_neighbour(runtime, bundle):
    """Same user, same capabilities, same pid namespace: what keeps them apart is `dumpable`."""
    first = runtime.started(bundle.sleeping())
    joined = namespaces("network", "ipc", "uts", "mount", pid=f"/proc/{first}/ns/pid")
    pid = runtime.create(bundle.sleeping(linux={"namespaces": joined}))
    with open(f"/proc/{pid}/status") as file:
        inner = next(line.split()[-1] for line in file if line.startswith("NSpid"))
    spy = bundle.sh(
        f"probe call ptrace 16 {inner} 0 0; probe open /proc/{inner}/mem rw; "
        f"readlink /proc/{inner}/fd/3",
        linux={"namespaces": joined},
    )
    assert set(runtime.run(spy).out.split()) <= {"EPERM", "EACCES"}


# --- the working directory: CVE-2024-21626


def test_no_descriptor_of_the_runtime_serves_as_working_directory(runtime, bundle):
    b = bundle("pwd")
    for number in range(3, 21):
        b.patch(process={"cwd": f"/proc/self/fd/{number}"})
        result = runtime.run(b)
        assert result.code == 1, str(result)
    assert runtime.host.leftovers() == []


def test_a_link_to_a_descriptor_serves_as_little(runtime, bundle):
    b = bundle("pwd", process={"cwd": "/work"})
    for number in range(3, 21):
        os.symlink(f"/proc/self/fd/{number}", b.inside("/work"))
        result = runtime.run(b)
        assert result.code == 1, str(result)
        os.unlink(b.inside("/work"))


# --- races on a shared volume: CVE-2019-19921, CVE-2021-30465, CVE-2024-45310


RACES = ["mount", "file", "cwd", "device", "mask"]
RUNC_LOSES = only_ocirt("runc 1.1 can be made to leave empty files outside (CVE-2024-45310)")


@pytest.mark.parametrize("what", [pytest.param(race, marks=RUNC_LOSES) for race in RACES])
def test_a_racer_that_swaps_a_directory_for_a_link_wins_nothing(
    runtime, bundle, outside, workdir, probe, host, what
):
    """Another container that shares the volume exchanges the two names without pause."""
    volume = f"{workdir}/volume"
    os.makedirs(f"{volume}/a")
    with open(f"{workdir}/file", "w"):
        pass
    b = bundle("true")
    patch = {
        "mount": {"more": [tmpfs("/vol/a/b/c")]},
        "file": {"more": [bind(f"{workdir}/file", "/vol/a/b/c")]},
        "cwd": {"process": {"cwd": "/vol/a/b/c"}},
        "device": {
            "linux": {"devices": [{"path": "/vol/a/b/c", "type": "c", "major": 1, "minor": 3}]}
        },
        "mask": {"linux": {"maskedPaths": ["/vol/a"], "readonlyPaths": ["/vol/a"]}},
    }[what]
    more = patch.pop("more", [])
    b.patch(mounts=[*b.config["mounts"], bind(volume, "/vol"), *more], **patch)
    # Up from the volume as it lies in the root file system, to the host's directory.
    os.symlink(os.path.relpath(outside, b.inside("/vol")), f"{volume}/link")
    racer = subprocess.Popen([probe, "swap", f"{volume}/a", f"{volume}/link", "30"])
    host.known.add(racer.pid)
    try:
        end = time.monotonic() + 2
        while time.monotonic() < end:
            runtime.run(b)
            assert os.listdir(outside) == []
            subprocess.run(["rm", "-rf", f"{volume}/a/b", f"{volume}/link/b"], check=False)
    finally:
        racer.kill()
        racer.wait()


# --- sysctl: CVE-2022-0811, CVE-2025-52881

SMUGGLED = [
    # key                                        value
    ("net.ipv4.ip_default_ttl", "64\nkernel.panic=1"),
    ("net.ipv4.ip_default_ttl", "64+kernel.core_pattern=|/evil"),
    ("net/../kernel/panic", "1"),
    ("net/ipv4/../../kernel/panic", "1"),
    ("net.ipv4.ip_default_ttl/../../../kernel/panic", "1"),
    ("net.", "1"),
    ("net", "1"),
    ("kernel.msgmax+kernel.panic", "1"),
    ("kernel/msgmax/../panic", "1"),
    ("/etc/passwd", "1"),
    ("", "1"),
]


@pytest.mark.parametrize(("key", "value"), SMUGGLED, ids=range(len(SMUGGLED)))
def test_a_sysctl_cannot_smuggle_another(runtime, bundle, key, value):
    def machine():
        seen = []
        for name in ("panic", "core_pattern"):
            with open(f"/proc/sys/kernel/{name}") as file:
                seen.append(file.read())
        return seen

    before = machine()
    b = bundle("true", linux={"sysctl": {key: value}})
    if value == "1":
        runtime.refuses_to_create(b)
    else:
        runtime.run(b)  # whether the kernel takes the value is its own affair
    assert machine() == before


# --- files of the image that the runtime reads


@only_ocirt("others open whatever lies there, and wait")
@pytest.mark.parametrize("kind", ["fifo", "device", "directory", "endless", "link-outside"])
def test_a_hostile_passwd_neither_blocks_nor_confuses(runtime, bundle, outside, workdir, kind):
    b = bundle.sh("echo $HOME")
    place = b.inside("/etc/passwd")
    os.unlink(place)
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "device":
        os.mknod(place, 0o20666, os.makedev(1, 5))
    elif kind == "directory":
        os.mkdir(place)
    elif kind == "endless":
        with open(place, "w") as file:
            file.truncate(1 << 40)
    else:
        with open(f"{workdir}/passwd", "w") as file:
            file.write("root:x:0:0::/host/home:/bin/sh\n")
        os.symlink(os.path.relpath(f"{workdir}/passwd", os.path.dirname(place)), place)
    assert runtime.prints(b) == "/"


# --- what is left open to others: CVE-2020-15257, CVE-2016-9962


def test_no_abstract_socket_is_listened_on(runtime, bundle):
    def abstract():
        with open("/proc/net/unix") as file:
            return {line.split()[7] for line in file if " @" in line}

    before = abstract()
    b = bundle.sleeping(linux={"namespaces": namespaces("pid", "ipc", "uts", "mount")})
    runtime.create(b)
    assert {name for name in abstract() - before if "ocirt" in name or "runc" in name} == set()


def test_the_state_directory_is_for_its_owner(runtime, bundle):
    b = bundle.sleeping()
    runtime.create(b)
    for folder, _, files in os.walk(os.path.join(runtime.root, b.id)):
        assert not os.stat(folder).st_mode & 0o066
        for name in files:
            mode = os.stat(os.path.join(folder, name)).st_mode
            assert not mode & 0o044, name


def test_a_container_with_every_capability_cannot_reach_its_old_root(runtime, bundle, outside):
    b = bundle.sh(
        "mkdir /x; chroot /x /bin/true 2>/dev/null; cd /proc/1/root && ls -d ../../../tmp/ocirt-*; "
        "ls /proc/1/cwd/../..; cat /proc/1/mountinfo | wc -l",
        process={"capabilities": ALL},
    )
    text = runtime.run(b).out
    assert "rootfs" not in text.split()
    assert int(text.split()[-1]) == 1 + len(MOUNTS)


OPEN_CGROUPS = (
    "find /sys/fs/cgroup -name cgroup.procs 2>/dev/null | head -3 | "
    "while read f; do probe open $f w; done"
)


def test_a_container_cannot_write_to_the_cgroups_of_others(runtime, bundle):
    """CVE-2023-25809: even with the tree in sight, it is not for writing."""
    mount = {
        "destination": "/sys/fs/cgroup",
        "type": "cgroup",
        "source": "cgroup",
        "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
    }
    b = bundle.sh(OPEN_CGROUPS, more_mounts=[mount])
    assert set(runtime.prints(b).split()) == {"EROFS"}


def test_a_bind_of_sys_in_a_user_namespace_gives_no_write_access(runtime, bundle):
    maps = [{"containerID": 0, "hostID": 100000, "size": 1000}]
    listed = namespaces("user", "pid", "ipc", "uts", "mount")
    mounts = [*without("/sys"), bind("/sys", "/sys", "rbind", "nosuid", "noexec", "nodev", "ro")]
    b = bundle.sh(
        OPEN_CGROUPS,
        mounts=mounts,
        linux={"namespaces": listed, "uidMappings": maps, "gidMappings": maps},
    )
    assert set(runtime.prints(b).split()) <= {"EROFS", "EACCES"}


def test_a_long_life_of_quick_containers_leaves_no_descriptor_behind(runtime, bundle):
    b = bundle("true")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        assert runtime.finish(b) == 0
    assert eventually(lambda: len(os.listdir("/proc/self/fd")) == before)
