"""The init's ops on the process: namespaces, identity, limits, and the program itself."""

from __future__ import annotations

import array
import ctypes
import errno
import os
import shutil
import socket
import struct
import subprocess
import time
from pathlib import Path

import pytest

from ocirt.plan import ops
from tests.integration.init_driver import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    ISOLATED,
    PIVOT,
    PROC,
    Init,
    asks,
    build,
    contained,
    make_rootfs,
    mount,
    op,
    output,
    program,
    refused,
)

ALLOW, ERRNO, NOTIFY = 0x7FFF0000, 0x00050000, 0x7FC00000
UNIFIED = next(
    (p for p in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup") if Path(p, "cgroup.procs").exists()),
    None,
)


@pytest.fixture
def rootfs(machine, tmp_path):
    return make_rootfs(tmp_path / "rootfs")


@pytest.fixture
def fifo(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    yield path, fd
    os.close(fd)


def status(rootfs, *inside, field: str, **more) -> str:
    """Return a field of /proc/self/status as the program has it."""
    text = output(rootfs, PROC, PIVOT, *inside, *program("cat", "/proc/self/status"), **more)
    return next(line.split(":\t")[1] for line in text.splitlines() if line.startswith(field))


# --- namespaces


def test_names_and_loopback(rootfs):
    plan = [op("hostname", "boxy"), op("domainname", "example"), op("loopback"), PROC]
    files = "/proc/sys/kernel/hostname /proc/sys/kernel/domainname /proc/net/if_inet6"
    text = output(rootfs, *plan, PIVOT, *program("sh", "-c", f"cat {files}"))
    assert text.split()[:2] == ["boxy", "example"]
    assert text.split()[-1] == "lo"


def test_clocks_of_a_time_namespace(rootfs):
    plan = [op("time_offsets", "boottime 1000000 0\n"), PROC, PIVOT]
    text = output(rootfs, *plan, *program("cat", "/proc/uptime"))
    assert float(text.split()[0]) > 1000000


def test_a_keyring_of_its_own(rootfs):
    text = output(rootfs, op("keyring", "_ses.test"), PROC, PIVOT, *program("cat", "/proc/keys"))
    assert "_ses.test" in text
    key = next(line for line in text.splitlines() if "_ses.test" in line)
    assert int(key.split()[4], 16) & 0x00080000


def test_unshare(rootfs):
    plan = [op("unshare", CLONE_NEWUTS), op("hostname", "other"), PROC, PIVOT]
    text = output(
        rootfs, *plan, *program("cat", "/proc/sys/kernel/hostname"), flags=ISOLATED & ~CLONE_NEWUTS
    )
    assert text == "other\n"
    assert socket.gethostname() != "other"


def test_joining_a_container_and_leaving_the_host(rootfs):
    with contained(rootfs, PROC, op("hostname", "joined"), mount("tmpfs", "/tmp")) as there:
        types = {"net": CLONE_NEWNET, "uts": CLONE_NEWUTS, "pid": CLONE_NEWPID, "mnt": CLONE_NEWNS}
        files = {n: os.open(f"/proc/{there.pid}/ns/{n}", os.O_RDONLY) for n in types}
        with Init(stdout=subprocess.PIPE, text=True) as init:
            joins = [op("join", name, flag, 1) for name, flag in types.items()]
            init.clone(*joins, flags=0, files=files)
            script = "cat /proc/sys/kernel/hostname /proc/self/comm; ls /; readlink /proc/1/exe"
            init.send(op("home", 0), op("chdir", "/tmp", 1), *program("sh", "-c", script))
            assert init.reply().kind == ops.ASK
            init.answer()
            assert init.reply() is None
            text = init.stage0.stdout.read().split()
            assert text[:2] == ["joined", "cat"]
            assert set(text[2:8]) == {"bin", "dev", "etc", "proc", "sys", "tmp"}
            assert init.wait() == 0
        for fd in files.values():
            os.close(fd)


def unprivileged_namespaces() -> subprocess.Popen:
    """A process of uid 1000 in a user namespace and a network namespace that belongs to it."""
    script = "import ctypes; print(ctypes.CDLL(None).unshare(0x50000000), flush=True); input()"
    process = subprocess.Popen(
        ["python3", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        user=1000,
        group=1000,
        cwd="/",
    )
    if process.stdout.readline() != b"0\n":
        pytest.skip("users may not make user namespaces")
    return process


@pytest.fixture
def there():
    process = unprivileged_namespaces()
    yield process
    process.stdin.close()
    process.wait(10)
    process.stdout.close()


@pytest.fixture
def open_binary(base):
    """A copy of the init that every user may execute."""
    path = Path(base) / "ocirt-init"
    shutil.copy(build(), path)
    path.chmod(0o755)
    return path


def test_a_join_is_retried_in_the_user_namespace_that_owns_it(there, open_binary):
    names = {"net": CLONE_NEWNET, "user": CLONE_NEWUSER}
    files = {n: os.open(f"/proc/{there.pid}/ns/{n}", os.O_RDONLY) for n in names}
    with Init(open_binary, user=1000, group=1000) as init:
        init.send(*(op("join", n, t, 1) for n, t in names.items()), op("clone", 0, ""), files=files)
        reply = init.reply()
        assert reply.kind == ops.CLONED, reply
        init.pid = reply.value
        # Who is not dumpable belongs to root, and can be traced by no container (CVE-2016-9962).
        assert os.stat(f"/proc/{init.pid}/mem").st_uid == 0
        for name in names:
            assert os.readlink(f"/proc/{init.pid}/ns/{name}") == os.readlink(
                f"/proc/{there.pid}/ns/{name}"
            )
    for fd in files.values():
        os.close(fd)


@pytest.mark.parametrize("retry", [0, 1], ids=["at once", "at the clone"])
def test_a_join_that_stays_refused_is_the_one_to_blame(there, open_binary, retry):
    fd = os.open(f"/proc/{there.pid}/ns/net", os.O_RDONLY)
    with Init(open_binary, user=1000, group=1000) as init:
        plan = [op("affinity", b""), op("join", "net", CLONE_NEWNET, retry), op("clone", 0, "")]
        init.send(*plan, files={"net": fd})
        assert init.reply()[:3] == (ops.FAIL, 1, errno.EPERM)
    os.close(fd)


def test_maps_are_written_from_outside(rootfs):
    with Init() as init:
        init.clone(flags=CLONE_NEWUSER | CLONE_NEWNS)
        init.send(asks("maps"), op("root_ids"), asks())
        assert init.reply()[:3] == (ops.ASK, 1, ops.ASK_MAPS)
        Path(f"/proc/{init.pid}/uid_map").write_text("0 1000 10\n")
        Path(f"/proc/{init.pid}/gid_map").write_text("0 2000 10\n")
        init.answer()
        assert init.reply().value == ops.ASK_READY
        info = Path(f"/proc/{init.pid}/status").read_text().split("\n")
        assert next(line for line in info if line.startswith("Uid")).split()[1:] == ["1000"] * 4


def test_affinity_and_files_of_the_host(tmp_path):
    (tmp_path / "file").write_text("")
    mask = struct.pack("=Q", 1)
    with Init() as init:
        init.clone(op("affinity", mask), op("write", str(tmp_path / "file"), "text"), flags=0)
        assert os.sched_getaffinity(init.pid) == {0}
        assert (tmp_path / "file").read_text() == "text"
    with Init() as init:
        init.send(op("write", str(tmp_path / "missing" / "file"), "text"))
        assert init.reply()[:3] == (ops.FAIL, 0, errno.ENOENT)


# --- cgroups


@pytest.fixture
def unified():
    if not UNIFIED:
        pytest.skip("no cgroup v2 hierarchy")
    path = Path(UNIFIED, f"ocirt-init-{os.getpid()}")
    path.mkdir()
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    yield path, fd
    os.close(fd)
    for _ in range(100):
        try:
            path.rmdir()
        except OSError:
            time.sleep(0.05)
        else:
            return


def test_a_child_is_born_into_its_cgroup(unified):
    path, fd = unified
    with Init() as init:
        init.clone(flags=CLONE_NEWCGROUP, files={"cgroup": fd})
        assert (path / "cgroup.procs").read_text().split() == [str(init.pid)]


def instruction(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("=BBhi", code, dst | src << 4, off, imm)


DENY_ALL = instruction(0xB7) + instruction(0x95)
ALLOW_ALL = instruction(0xB7, imm=1) + instruction(0x95)


def test_device_programs_replace_each_other(unified):
    _, fd = unified
    null = Path("/dev/null")
    for plan, allowed in ((DENY_ALL, False), (ALLOW_ALL, True), (DENY_ALL, False)):
        with Init(stdout=subprocess.PIPE) as init:
            reply = None
            init.send(op("devices", "cgroup", plan), op("clone", 0, "cgroup"), files={"cgroup": fd})
            reply = init.reply()
            assert reply.kind == ops.CLONED, (reply, os.strerror(reply.value))
            init.pid = reply.value
            init.send(*program("/bin/sh", "-c", f": < {null} && echo yes"))
            assert init.reply().kind == ops.ASK
            init.answer()
            assert (init.stage0.stdout.read() == b"yes\n") is allowed
            init.wait()


def test_a_program_that_the_verifier_refuses_is_an_error(unified):
    _, fd = unified
    with Init() as init:
        init.send(op("devices", "cgroup", instruction(0xB7)), files={"cgroup": fd})
        reply = init.reply()
        assert reply[:2] == (ops.FAIL, 0)
        assert reply.value in (errno.EINVAL, errno.EACCES)


def test_a_task_moves_itself():
    top = Path("/sys/fs/cgroup/pids")
    if not (top / "tasks").exists():
        pytest.skip("no cgroup v1 hierarchy")
    path = top / f"ocirt-init-{os.getpid()}"
    path.mkdir()
    fd = os.open(path / "tasks", os.O_WRONLY)
    try:
        with Init() as init:
            init.clone(flags=0)
            init.send(op("attach", "tasks"), asks(), files={"tasks": fd})
            assert init.reply().kind == ops.ASK
            assert (path / "tasks").read_text().split() == [str(init.pid)]
    finally:
        os.close(fd)
        path.rmdir()


# --- sysctl, lsm


def test_sysctls_of_the_containers_namespaces(rootfs):
    plan = [op("sysctl", "net/ipv4/ip_forward", "1"), op("sysctl", "kernel/msgmax", "4242")]
    names = "/proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax"
    text = output(rootfs, *plan, PROC, PIVOT, *program("sh", "-c", f"cat {names}"))
    assert text.split() == ["1", "4242"]
    assert Path("/proc/sys/kernel/msgmax").read_text().strip() != "4242"


@pytest.mark.parametrize(
    ("key", "number"),
    [
        ("kernel/nothing", errno.ENOENT),
        ("../../etc/hostname", errno.EXDEV),
        ("net", errno.EISDIR),
        ("x" * 5000, errno.ENAMETOOLONG),
    ],
)
def test_a_sysctl_is_one_file_of_procfs(rootfs, key, number):
    assert refused(rootfs, op("sysctl", key, "1"))[:2] == (0, number)


def test_a_sysctl_under_a_mount_is_written_through_a_procfs_of_our_own(rootfs):
    # As in a container, where /proc/sys is a read-only mount.
    hide = 'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec "$@"'
    plan = [op("sysctl", "net/ipv4/ip_forward", "1"), PROC, PIVOT]
    text = output(
        rootfs,
        *plan,
        *program("cat", "/proc/sys/net/ipv4/ip_forward"),
        prefix=("unshare", "--mount", "sh", "-c", hide, "-"),
    )
    assert text == "1\n"


# --- identity and rights


def test_identity(rootfs):
    plan = [op("identity", 7, 8, struct.pack("=3I", 8, 20, 21), 1)]
    assert output(rootfs, PIVOT, *plan, *program("id")) == "uid=7 gid=8 groups=8,20,21\n"


def test_groups_go_unless_they_are_to_be_kept(rootfs):
    for set_groups, groups in ((1, ""), (0, "33 44")):
        plan = [op("identity", 7, 8, b"", set_groups)]
        assert status(rootfs, *plan, field="Groups", extra_groups=(33, 44)).strip() == groups


@pytest.mark.parametrize(
    ("field", "value"),
    [("CapBnd", 0x21), ("CapPrm", 0x21), ("CapEff", 1), ("CapInh", 0x20), ("CapAmb", 0x20)],
)
def test_capabilities(rootfs, field, value):
    plan = [
        op("bounding", 0x21),
        op("identity", 1000, 1000, b"", 1),
        op("capabilities", 0x1, 0x21, 0x20, 0x20),
    ]
    with contained(rootfs, PIVOT, *plan, asks(), pivot=False) as init:
        assert init.last.kind == ops.ASK
        lines = Path(f"/proc/{init.pid}/status").read_text().splitlines()
        assert next(int(x.split()[1], 16) for x in lines if x.startswith(field)) == value
    # Of an execve by a user only what is ambient comes out.
    kept = {"CapPrm": 0x20, "CapEff": 0x20}.get(field, value)
    assert int(status(rootfs, *plan, field=field), 16) == kept


def test_an_ambient_capability_that_cannot_be_is_a_warning(rootfs):
    plan = [op("capabilities", 0x21, 0x21, 0, 0x20)]
    with contained(rootfs, PIVOT, *plan, asks(), pivot=False) as init:
        assert init.last[:3] == (ops.WARN, init.first + 1, errno.EPERM)
        assert init.reply().kind == ops.ASK


def test_effective_beyond_permitted_is_refused(rootfs):
    plan = [op("bounding", 1), op("identity", 0, 0, b"", 1), op("capabilities", 3, 1, 0, 0)]
    assert refused(rootfs, *plan)[:2] == (2, errno.EPERM)


def test_no_new_privileges(rootfs):
    assert status(rootfs, op("no_new_privs"), field="NoNewPrivs") == "1"


def test_umask(rootfs):
    assert status(rootfs, op("umask", 0o27), field="Umask") == "0027"


def test_personality(rootfs):
    text = output(
        rootfs, PROC, PIVOT, op("personality", 8), *program("cat", "/proc/self/personality")
    )
    assert int(text, 16) == 8


def test_scheduling(rootfs):
    attr = struct.pack("=IIQiIQQQ", 48, 3, 0, 0, 0, 0, 0, 0)  # SCHED_BATCH
    plan = [op("scheduler", attr), op("io_priority", 2 << 13 | 7)]
    with contained(rootfs, PROC, PIVOT, *plan, asks(), pivot=False) as init:
        assert init.last.kind == ops.ASK
        assert os.sched_getscheduler(init.pid) == os.SCHED_BATCH
        ioprio = ctypes.CDLL(None).syscall(
            252 if os.uname().machine == "x86_64" else 31, 1, init.pid
        )
        assert ioprio == 2 << 13 | 7
    assert refused(rootfs, op("scheduler", b"short"))[:2] == (0, errno.EINVAL)


def test_memory_policy(rootfs):
    plan = [PROC, PIVOT, op("mempolicy", 2, b"\x01")]
    text = output(rootfs, *plan, *program("cat", "/proc/self/numa_maps"))
    assert "bind:0" in text


def test_stdio_belongs_to_the_user_except_null(rootfs, tmp_path):
    path = tmp_path / "out"
    owner = os.stat("/dev/null").st_uid
    with (
        open(path, "w") as out,
        open("/dev/null") as null,
        contained(rootfs, op("stdio", 1234), stdin=null, stdout=out, stderr=out) as init,
    ):
        assert init.last.kind == ops.ASK
    assert path.stat().st_uid == 1234
    assert path.stat().st_gid == os.getgid()
    assert os.stat("/dev/null").st_uid == owner


# --- seccomp


def bpf(*instructions: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("=HBBI", *each) for each in instructions)


def on_call(number: int, action: int) -> bytes:
    """A filter that takes `action` on one system call and allows the rest."""
    return bpf((0x20, 0, 0, 0), (0x15, 0, 1, number), (6, 0, 0, action), (6, 0, 0, ALLOW))


GETUID = {"x86_64": 102, "aarch64": 174}[os.uname().machine]


def test_a_filter_is_in_force(rootfs):
    nnp = op("no_new_privs")
    filtered = op("seccomp", 0, on_call(GETUID, ERRNO | errno.ENOSYS), 0)
    text = output(rootfs, PROC, PIVOT, nnp, filtered, *program("cat", "/proc/self/status"))
    assert "Seccomp:\t2" in text
    assert refused(rootfs, op("seccomp", 0, b"12345", 0))[:2] == (0, errno.EINVAL)
    assert refused(rootfs, op("seccomp", 0, bpf((0x20, 0, 0, 0)), 0))[:2] == (0, errno.EINVAL)


def test_the_last_steps_need_no_sockets(rootfs):
    send = {"x86_64": (44, 46), "aarch64": (206, 211)}[os.uname().machine]
    plan = [op("seccomp", 0, on_call(number, ERRNO | 1), 0) for number in send]
    assert output(rootfs, PIVOT, *plan, *program("true")) == ""


def test_a_profile_older_than_the_newest_calls_is_enough(rootfs, fifo):
    """Without no_new_privs the filter comes before our last steps: no close_range, faccessat2."""
    old = bpf((0x20, 0, 0, 0), (0x35, 0, 1, 424), (6, 0, 0, ERRNO | 1), (6, 0, 0, ALLOW))
    hook = ("/bin/sh", ["sh", "-c", ": > /tmp/hooked"], [], "{", "}", "startContainer", 0, 5000)
    plan = [
        *(PROC, PIVOT, op("close_fds", 0, -1), op("seccomp", 0, old, 0)),
        *(op("program", "sh", ["sh", "-c", "ls /proc/self/fd"], ["PATH=/bin"]), asks()),
        *(op("gate", "fifo", 0, -1), op("hook", *hook), op("exec")),
    ]
    with contained(
        rootfs, *plan, pivot=False, files={"fifo": fifo[1]}, stdout=subprocess.PIPE, text=True
    ) as init:
        assert init.last.kind == ops.ASK
        init.answer()
        assert init.reply().kind == ops.DONE
        assert init.reply() is None
        assert set(os.listdir(f"/proc/{init.pid}/fd")) == {"0", "1", "2", "3"}
        os.write(fifo[1], b"x")
        assert init.stage0.stdout.read().split() == ["0", "1", "2", "3"]
        assert init.wait() == 0
    assert (rootfs / "tmp/hooked").exists()


def test_the_listener_waits_to_be_fetched(rootfs):
    plan = [PIVOT, op("seccomp", 0, on_call(GETUID, NOTIFY), 1), asks()]
    with contained(rootfs, *plan, pivot=False) as init:
        assert init.last.kind == ops.ASK
        assert init.last.value == ops.ASK_SECCOMP
        pidfd = os.pidfd_open(init.pid)
        fd = ctypes.CDLL(None, use_errno=True).syscall(438, pidfd, init.last.index, 0)
        os.close(pidfd)
        assert fd >= 0
        assert "seccomp notify" in os.readlink(f"/proc/self/fd/{fd}")
        os.close(fd)
        init.answer()
        assert init.reply().value == ops.ASK_READY
        assert not Path(f"/proc/{init.pid}/fd/{init.last.index}").exists()


# --- working directory, home


def test_the_working_directory(rootfs):
    assert output(rootfs, PIVOT, op("chdir", "/tmp", 1), *program("pwd")) == "/tmp\n"
    assert refused(rootfs, PIVOT, op("chdir", "/missing", 1))[:2] == (1, errno.ENOENT)


def test_a_directory_that_only_the_user_may_enter(rootfs):
    (rootfs / "home").mkdir(mode=0o700)
    os.chown(rootfs / "home", 1000, 1000)
    lines = Path("/proc/self/status").read_text().split("\n")
    have = next(int(line.split()[1], 16) for line in lines if line.startswith("CapPrm"))
    have &= ~0b110  # neither CAP_DAC_OVERRIDE nor CAP_DAC_READ_SEARCH
    plan = [
        PIVOT,
        op("capabilities", have, have, 0, 0),
        op("chdir", "/home", 1),
        op("identity", 1000, 1000, b"", 1),
        op("chdir", "/home", 0),
    ]
    assert output(rootfs, *plan, *program("pwd")) == "/home\n"
    plan[3] = op("identity", 1001, 1001, b"", 1)
    assert refused(rootfs, *plan)[:2] == (4, errno.EACCES)


def test_a_leaked_directory_is_no_way_out(rootfs):
    """CVE-2024-21626: the init still holds descriptors of the host when it changes directory."""
    leaked = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    with contained(rootfs, files={"leak": leaked}, pivot=True) as init:
        assert init.last.kind == ops.ASK
        fd = next(
            int(p.name)
            for p in Path(f"/proc/{init.pid}/fd").iterdir()
            if int(p.name) > 2 and p.is_dir() and p.stat().st_ino == os.fstat(leaked).st_ino
            and p.stat().st_dev == os.fstat(leaked).st_dev
        )  # fmt: skip
    plan = [PROC, PIVOT, op("chdir", f"/proc/self/fd/{fd}", 1)]
    reply = refused(rootfs, *plan, files={"leak": leaked})
    os.close(leaked)
    assert reply == (
        2,
        0,
        "current working directory is outside of container mount namespace root -- "
        "possible container breakout detected",
    )


PASSWD = "root:x:0:0:root:/root:/bin/sh\n#\n\n7:x:8:8::/wrong:\nuser:x:7:7:,,,:/home/user:/bin/sh\n"


@pytest.mark.parametrize(
    ("passwd", "uid", "home"),
    [
        (PASSWD, 7, "/home/user"),
        (PASSWD, 0, "/root"),
        (PASSWD, 70, "/"),
        ("x" * 10000 + ":x:7:7::/long:\n" + PASSWD, 7, "/home/user"),
        ("user:x:7:7::" + "/h" * 2000 + ":\n", 7, "/"),
        ("\0\0\n" * 100 + PASSWD, 7, "/home/user"),
        (PASSWD.rstrip("\n"), 7, "/home/user"),
        ("", 7, "/"),
        (None, 7, "/"),
    ],
)
def test_home(rootfs, passwd, uid, home):
    if passwd is not None:
        (rootfs / "etc/passwd").write_text(passwd)
    plan = [PIVOT, op("home", uid), *program("env", env=("PATH=/bin", "A=b"))]
    found = output(rootfs, *plan).split("\n")
    assert f"HOME={home}" in found
    assert "A=b" in found


@pytest.mark.parametrize("what", ["fifo", "dir", "device", "outside"])
def test_a_passwd_that_is_no_file_is_not_read(rootfs, tmp_path, what):
    path = rootfs / "etc/passwd"
    (tmp_path / "passwd").write_text("x:x:7:7::/outside:\n")
    if what == "fifo":
        os.mkfifo(path)
    elif what == "dir":
        path.mkdir()
    elif what == "device":
        os.mknod(path, 0o20666, os.makedev(1, 5))
    else:
        path.symlink_to(tmp_path / "passwd")
    plan = [PIVOT, op("home", 7), *program("env")]
    assert "HOME=/" in output(rootfs, *plan).split("\n")


# --- the program


def found(rootfs, name: str, *env: str, who: int = 0) -> int:
    """0, or the errno that op program gives."""
    plan = [op("chdir", "/", 1), op("identity", who, who, b"", 1), op("program", name, [name], env)]
    with contained(rootfs, PIVOT, *plan, asks(), pivot=False) as init:
        return init.last.value if init.last.kind == ops.FAIL else 0


def test_what_can_be_executed(rootfs):
    script = rootfs / "tmp" / "script"
    script.write_text("#!/bin/sh\n")
    (rootfs / "tmp" / "dir").mkdir()
    os.mkfifo(rootfs / "tmp" / "fifo", 0o777)
    assert found(rootfs, "/bin/sh") == 0
    assert found(rootfs, "bin/sh") == 0
    assert found(rootfs, "/bin/nothing") == errno.ENOENT
    assert found(rootfs, "/bin/sh/x") == errno.ENOTDIR
    assert found(rootfs, "/tmp/dir") == errno.EISDIR
    assert found(rootfs, "/tmp/fifo") == errno.EACCES
    assert found(rootfs, "/tmp/script") == errno.EACCES
    assert found(rootfs, "") == errno.ENOENT
    assert found(rootfs, "/" + "x" * 5000) == errno.ENAMETOOLONG
    script.chmod(0o700)
    assert found(rootfs, "/tmp/script") == 0
    assert found(rootfs, "/tmp/script", who=1000) == errno.EACCES


def test_where_a_program_is_looked_for(rootfs):
    (rootfs / "tmp/sh").write_text("no program")
    (rootfs / "tmp/dir").mkdir()
    assert found(rootfs, "sh", "PATH=/nowhere:/tmp:/bin") == 0
    assert found(rootfs, "sh", "PATH=/tmp") == errno.ENOENT
    assert found(rootfs, "sh", "PATH=" + "/x" * 5000 + ":/bin") == 0
    assert found(rootfs, "sh") == errno.ENOENT
    assert found(rootfs, "sh", "PATH=") == errno.ENOENT
    assert found(rootfs, "sh", "PATH=bin:./bin::.") == errno.ENOENT
    assert found(rootfs, "dir", "PATH=/tmp:/") == errno.ENOENT


def test_argv_and_env_are_exactly_those_of_the_plan(rootfs):
    env = ("PATH=/bin", "EMPTY=", "ODD=\udcff", "A=1", "A=2")
    argv = ["-sh", "-c", "cat /proc/$$/environ /proc/$$/cmdline; true", "", "last arg"]
    plan = [op("program", "sh", argv, env), asks(), op("close_fds", 0, -1), op("exec")]
    with contained(rootfs, PROC, PIVOT, *plan, pivot=False, stdout=subprocess.PIPE) as init:
        init.answer()
        assert init.reply() is None
        words = init.stage0.stdout.read().split(b"\0")
    assert words[:5] == [b"PATH=/bin", b"EMPTY=", b"ODD=\xff", b"A=1", b"A=2"]
    assert [os.fsdecode(word) for word in words[5:-1]] == argv


def test_an_execve_that_fails_says_so_on_stderr(rootfs):
    bad = rootfs / "bin/bad"
    bad.write_text("#!/no/such/interpreter\n")
    bad.chmod(0o755)
    text = output(rootfs, PIVOT, *program("bad"), status=255)
    assert text == "exec /bin/bad: no such file or directory\n"
    bad.write_text("\x7fELF nonsense")
    assert (
        output(rootfs, PIVOT, *program("bad"), status=255) == "exec /bin/bad: exec format error\n"
    )


def test_the_program_inherits_preserved_descriptors_only(rootfs):
    read, write = os.pipe()
    os.dup2(write, 60)
    plan = [PROC, PIVOT, op("program", "sh", ["sh", "-c", "ls /proc/self/fd"], ["PATH=/bin"])]
    plan += [asks(), op("close_fds", 0, -1), op("exec")]
    text = output(rootfs, *plan, pass_fds=(60,))
    for fd in (read, write, 60):
        os.close(fd)
    assert text.split() == ["0", "1", "2", "3"]  # 3: ls reading its directory


def test_more_descriptors_than_one_message_takes(rootfs):
    null = os.open("/dev/null", os.O_RDONLY)
    with Init() as init:
        init.clone(flags=0)
        data = ops.encode([asks()], init.next, {})
        for at, end, count in ((0, 4, 253), (4, 8, 253), (8, None, 50)):
            rights = array.array("i", [null] * count)
            init.socket.sendmsg([data[at:end]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        assert init.reply().kind == ops.ASK
        assert len(os.listdir(f"/proc/{init.pid}/fd")) > 550
    os.close(null)


def test_signals_are_as_in_a_fresh_process(rootfs):
    # This Python ignores SIGPIPE and SIGXFSZ, and Popen does not restore all of it for us.
    plan = [PROC, PIVOT, *program("cat", "/proc/self/status")]
    text = output(rootfs, *plan, restore_signals=False)
    lines = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    assert int(lines["SigIgn"], 16) == 0
    assert int(lines["SigBlk"], 16) == 0


def test_ipc_and_the_rest_are_new(rootfs):
    with contained(rootfs) as init:
        for name in ("ipc", "mnt", "net", "pid", "uts"):
            ours, theirs = (os.readlink(f"/proc/{p}/ns/{name}") for p in ("self", init.pid))
            assert ours != theirs
        assert CLONE_NEWIPC & ISOLATED
