"""Fixtures of the integration tests: they need root, a kernel and a runtime.

OCIRT_TEST_RUNTIME names the runtime (default: the `ocirt` beside this Python, then of PATH).

The session runs in a mount namespace of its own, in which everything is shared as systemd
leaves it: mounts that leak from a container show up here, and nothing that we do shows up
elsewhere.  It is also the subreaper, as a shim is: containers become its children.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import runpy
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.integration.support")

from tests.integration.support import (  # noqa: E402
    UNIFIED,
    Bundle,
    Host,
    Runtime,
    base_config,
    cgroup_hierarchies,
    find_runtime,
    patched,
)

HERE = os.path.dirname(os.path.abspath(__file__))
TREE = os.path.dirname(os.path.dirname(HERE))
APPLETS = [
    "[",
    "awk",
    "basename",
    "cat",
    "chgrp",
    "chmod",
    "chown",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "dirname",
    "echo",
    "env",
    "expr",
    "false",
    "find",
    "grep",
    "head",
    "hostname",
    "id",
    "ifconfig",
    "ip",
    "kill",
    "ln",
    "ls",
    "md5sum",
    "mkdir",
    "mkfifo",
    "mknod",
    "mount",
    "mv",
    "nproc",
    "nslookup",
    "printf",
    "ps",
    "pwd",
    "readlink",
    "realpath",
    "rm",
    "rmdir",
    "route",
    "sed",
    "seq",
    "setsid",
    "sh",
    "sleep",
    "sort",
    "stat",
    "stty",
    "sync",
    "tail",
    "tee",
    "test",
    "timeout",
    "touch",
    "tr",
    "true",
    "tty",
    "umount",
    "uname",
    "uniq",
    "usleep",
    "wc",
    "which",
    "whoami",
    "xargs",
    "yes",
]

_libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE, MS_SHARED = 0x4000, 1 << 18, 1 << 20
MNT_DETACH = 2
PR_SET_CHILD_SUBREAPER = 36


def _call(name, *args):
    if getattr(_libc, name)(*args) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


RUNTIME = find_runtime()


def _flavour():
    """Return the first word of `--version`: runc, crun, ocirt."""
    text = subprocess.run(
        [RUNTIME, "--version"], capture_output=True, text=True, timeout=20, check=False
    ).stdout
    return (text.split() or ["unknown"])[0]


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "only_ocirt(reason): other runtimes fail this, or do it otherwise on purpose"
    )


def pytest_collection_modifyitems(config, items):
    ours = [item for item in items if str(item.path).startswith(HERE + os.sep)]
    if not ours:
        return
    reason = None
    if os.geteuid() != 0:
        reason = "integration tests need root"
    elif RUNTIME is None:
        reason = "no runtime: install ocirt, or set OCIRT_TEST_RUNTIME"
    elif shutil.which("busybox") is None:
        reason = "integration tests need a static busybox"
    flavour = _flavour() if reason is None else "none"
    for item in ours:
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
        for mark in item.iter_markers("only_ocirt"):
            if flavour not in ("ocirt", "none"):
                item.add_marker(pytest.mark.skip(reason=f"only ocirt: {mark.args[0]}"))


def pytest_report_header(config):
    return f"runtime: {RUNTIME}, cgroup {'v2' if UNIFIED else 'v1'}"


@pytest.fixture(scope="session")
def machine():
    """Make this process a subreaper in a mount namespace of its own."""
    _call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _call("unshare", CLONE_NEWNS)
    _call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
    _call("mount", None, b"/", None, MS_REC | MS_SHARED, None)
    if _flavour() == "crun" and os.path.ismount("/sys/fs/cgroup/unified"):
        # crun refuses the hybrid layout, and without it makes plain directories there.
        _call("umount2", b"/sys/fs/cgroup/unified", MNT_DETACH)
        _call("mount", b"none", b"/sys/fs/cgroup/unified", b"tmpfs", 0, None)
    yield
    for top in cgroup_hierarchies():
        # Not there, or others use it: both are fine.
        with contextlib.suppress(OSError):
            os.rmdir(f"{top}/ocirt-test")


@pytest.fixture(scope="session")
def base(machine):
    """A directory that every user may pass through: mapped roots have to reach the rootfs."""
    path = tempfile.mkdtemp(prefix="ocirt-")
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def probe(base):
    """The static test program, built on the spot."""
    path = os.path.join(base, "probe")
    compiler = shutil.which("musl-gcc") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    subprocess.run(
        [compiler, "-static", "-Os", "-o", path, os.path.join(HERE, "probe.c")], check=True
    )
    return path


@pytest.fixture(scope="session")
def rootfs(base, probe):
    """A root filesystem of busybox and probe; bundles get a copy made of hard links."""
    path = os.path.join(base, "rootfs")
    for folder in ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "usr/bin", "var"):
        os.makedirs(os.path.join(path, folder))
    os.chmod(os.path.join(path, "tmp"), 0o1777)
    shutil.copy(shutil.which("busybox"), os.path.join(path, "bin/busybox"))
    shutil.copy(probe, os.path.join(path, "bin/probe"))
    for applet in APPLETS:
        os.symlink("busybox", os.path.join(path, "bin", applet))
    with open(os.path.join(path, "etc/passwd"), "w") as file:
        file.write("root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n")
    with open(os.path.join(path, "etc/group"), "w") as file:
        file.write("root:x:0:\nalice:x:1000:\n")
    return path


@pytest.fixture(scope="session")
def public_runtime(base):
    """This tree's ocirt, in a place and with an interpreter that every user may use."""
    python = "/usr/bin/python3"
    probe = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    if not os.path.exists(python) or subprocess.run(probe, check=False).returncode != 0:
        pytest.skip(f"needs {python} of version 3.11 or later, for every user")
    native = runpy.run_path(f"{TREE}/packaging/native.py")
    native["compile_init"]()
    home = f"{base}/public"
    for package in ("ocirt", "spec/oci_spec", "hooks/ocirt_hpc"):
        target = os.path.join(home, os.path.basename(package))
        shutil.copytree(f"{TREE}/{package}", target, ignore=shutil.ignore_patterns("__pycache__"))
    program = Path(home, "bin", "ocirt")
    native["compile_launcher"](home=home, python=python, output=program)
    subprocess.run(["chmod", "-R", "go=u-w", home], check=True)
    subprocess.run([python, "-m", "compileall", "-q", home], check=True)
    return str(program)


_numbers = itertools.count(1)


@pytest.fixture
def workdir(base):
    """A short-named directory for one test (socket paths are limited to 107 bytes)."""
    path = os.path.join(base, str(next(_numbers)))
    os.mkdir(path)
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def host(workdir):
    """The machine before the test; afterwards nothing may have been added to it."""
    host = Host(f"t{os.getpid()}-", workdir)
    yield host
    found = host.leftovers()
    if found:
        host.sweep()
    assert found == [], "left behind"


@pytest.fixture
def runtime(host, workdir):
    """The runtime under test; at the end each of its containers is deleted by force."""
    runtime = Runtime(RUNTIME, _flavour(), workdir, host)
    yield runtime
    runtime.close()


class Builder:
    """Makes bundles: `bundle("id", "-u", process={...})`, `bundle.sh("id -u")`."""

    def __init__(self, workdir, rootfs):
        self.workdir, self.template = workdir, rootfs

    def __call__(self, *args, more_mounts=(), container_id=None, **patch):
        number = next(_numbers)
        container_id = container_id or f"t{os.getpid()}-{number}"
        path = os.path.join(self.workdir, f"b{number}")
        os.mkdir(path)
        os.chmod(path, 0o755)
        shutil.copytree(
            self.template, os.path.join(path, "rootfs"), symlinks=True, copy_function=os.link
        )
        config = base_config(container_id)
        if args:
            config["process"]["args"] = list(args)
        patched(config, patch)
        config["mounts"] = [*config["mounts"], *more_mounts]
        return Bundle(path, container_id, config)

    def sh(self, script, **patch):
        return self("sh", "-c", script, **patch)

    def sleeping(self, **patch):
        """A program that lives until it is killed, and takes any signal's default."""
        return self("sleep", "1000", **patch)


@pytest.fixture
def bundle(workdir, rootfs):
    return Builder(workdir, rootfs)


@pytest.fixture
def host_mount(runtime):
    """Mount on the machine: `host_mount("-t", "tmpfs", "none", path)`; undone afterwards."""
    made = []

    def mount(*args):
        subprocess.run(["mount", *args], check=True, timeout=20)
        made.append(args[-1])
        return args[-1]

    yield mount
    for path in reversed(made):
        subprocess.run(["umount", "-l", path], check=True, timeout=20)
