"""The .deb: what is in it, and that dpkg takes it on a copy of this machine."""

from __future__ import annotations

import os
import runpy
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent.parent

# The machine's own files, with a layer above that takes whatever is written; all of it ends
# with the mount namespace.
COPY = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/up" "$1/work" "$1/top"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/up,workdir=$1/work" "$1/top"
cp "$2" "$1/top/ocirt.deb"
mount -t proc proc "$1/top/proc"
mount --bind /dev "$1/top/dev"
mount --rbind /sys "$1/top/sys"
exec chroot "$1/top" sh -ec "$3"
"""
INSIDE = """
dpkg --install /ocirt.deb >&2
test -n "$(find /usr/lib/ocirt -name '__init__.*.pyc')"
mkdir /new
cd /new
/usr/bin/ocirt --version
/usr/bin/ocirt spec
test -s config.json
/usr/bin/ocirt setup docker --root /new
grep -q '"/usr/bin/ocirt"' /new/etc/docker/daemon.json
/usr/bin/ocirt doctor >&2
dpkg --remove ocirt >&2
test ! -e /usr/lib/ocirt
test ! -e /usr/bin/ocirt
"""


def call(line, **more):
    return subprocess.run(line, capture_output=True, text=True, timeout=300, check=False, **more)


@pytest.fixture(scope="module")
def deb(tmp_path_factory):
    if not shutil.which("dpkg-deb"):
        pytest.skip("needs dpkg-deb")
    if not (shutil.which("musl-gcc") or shutil.which("cc")) or not shutil.which("make"):
        pytest.skip("needs a C compiler and make")
    recipe = runpy.run_path(str(ROOT / "packaging/deb/build.py"))
    return recipe["build"](tmp_path_factory.mktemp("deb"))


def test_what_a_package_holds(deb, tmp_path):
    assert deb.name.startswith("ocirt_0.")
    done = call(["dpkg-deb", "-x", deb, tmp_path])
    assert done.returncode == 0, done.stderr
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {
        "usr/bin/ocirt",
        "usr/lib/ocirt/ocirt/cli/__init__.py",
        "usr/lib/ocirt/ocirt/init/ocirt-init",
        "usr/lib/ocirt/oci_spec/config.py",
        "usr/share/doc/ocirt/copyright",
        "usr/share/man/man1/ocirt.1.gz",
    } <= found
    foreign = {".c", ".h", ".pyc", ".o"}
    assert [name for name in found if Path(name).suffix in foreign or "Makefile" in name] == []
    assert os.access(tmp_path / "usr/lib/ocirt/ocirt/init/ocirt-init", os.X_OK)


def test_everything_in_it_is_roots(deb):
    rows = call(["dpkg-deb", "-c", deb]).stdout.splitlines()
    assert rows
    assert [row for row in rows if " root/root " not in row] == []


def test_it_needs_what_the_runtime_needs(deb):
    fields = call(["dpkg-deb", "-f", deb, "Depends"]).stdout
    assert fields == "libc6, python3 (>= 3.11), libseccomp2 (>= 2.5)\n"


def test_it_is_installed_runs_and_goes(deb, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    probe = f"mount -t tmpfs t {shlex.quote(str(tmp_path))}"
    if call(["unshare", "--mount", "sh", "-c", probe]).returncode != 0:
        pytest.skip("needs mounts")
    line = ["unshare", "--mount", "sh", "-c", COPY, "sh", str(tmp_path), str(deb), INSIDE]
    done = call(line, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "teletype"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("ocirt version ")
    assert not os.listdir(tmp_path)
