"""What is handed out: the .deb, the .rpm, the sdist and the wheel, each installed and used.

The packages go into a clean root, which holds what they declare to need and no more.  mmdebstrap
makes it from the sources that the machine's apt has; about a minute, on demand: where mmdebstrap
(and rpm, for the .rpm) is installed.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration import engines
from tests.integration.support import base_config, only_ocirt

pytestmark = [only_ocirt("is what the packages hold"), pytest.mark.slow]

TREE = Path(__file__).resolve().parent.parent.parent
SOURCES = (
    "/etc/apt/sources.list.d/debian.sources",
    "/etc/apt/sources.list.d/ubuntu.sources",
    "/etc/apt/sources.list",
)

# $1: an empty directory, $2: the clean root, $3: what to bring, $4, $6: what to do from outside,
# $5: within.  A real root, since containers are started within; all of it ends with us.
COPY = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/up" "$1/work" "$1/top"
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/up,workdir=$1/work" "$1/top"
cd "$1/top"
cp -a "$3" brought
for name in proc sys dev; do mount --rbind "/$name" "$name"; done
mount -t tmpfs -o mode=755 tmpfs run
export TOP="$1/top"
sh -ec "$4"
unshare --mount sh -ec '
    mkdir old
    pivot_root . old
    cd /
    python3 -c "import ctypes; ctypes.CDLL(None).umount2(b\\"/old\\", 2)"
    rmdir old
    exec sh -ec "$1"
' sh "$5"
sh -ec "$6"
"""

RUN = """
ocirt --version
ocirt doctor --format json > /dev/null
ocirt run --bundle /brought/hello t{pid}-hello
ocirt create --bundle /brought/sleep t{pid}-waits > /dev/null 2>&1 < /dev/null
ocirt create --bundle /brought/sleep t{pid}-runs > /dev/null 2>&1 < /dev/null
ocirt start t{pid}-runs
{upgrade}
ocirt list --quiet
ocirt exec t{pid}-runs /bin/busybox echo entered
ocirt pause t{pid}-runs
ocirt resume t{pid}-runs
ocirt start t{pid}-waits
ocirt kill t{pid}-runs KILL
ocirt delete --force t{pid}-waits
ocirt delete --force t{pid}-runs
ls -A /run/ocirt
"""
DEB = """
dpkg --install /brought/old.deb >&2
{run}
dpkg --remove ocirt >&2
"""
UPGRADE = "dpkg --install /brought/new.deb >&2; dpkg-query -W -f '${Version}\\n' ocirt"
NOTHING_LEFT = """
cd "$TOP"
find usr etc var -name '*ocirt*' -not -path 'usr/lib/python3*'
"""


def recipe(kind):
    return runpy.run_path(str(TREE / "packaging" / kind / "build.py"))["build"]


@pytest.fixture(scope="module")
def clean_root(base):
    if reason := engines.missing("mmdebstrap"):
        pytest.skip(reason)
    sources = next(filter(os.path.exists, SOURCES), None)
    if sources is None:
        pytest.skip("apt has no sources")
    with open("/etc/os-release") as file:
        facts = dict(line.strip().split("=", 1) for line in file if "=" in line)
    line = [
        "mmdebstrap", "--quiet", "--variant=apt", "--include=python3,libseccomp2",
        "--aptopt=APT::Install-Recommends \"false\"", facts["VERSION_CODENAME"], f"{base}/clean",
        sources,
    ]  # fmt: skip
    done = engines.call(line, patience=600)
    assert done.code == 0, done
    yield f"{base}/clean"
    shutil.rmtree(f"{base}/clean", ignore_errors=True)


@pytest.fixture
def brought(workdir, rootfs):
    """A directory with two bundles: what is brought into the root."""
    path = f"{workdir}/brought"
    for name, args in (("hello", ["echo", "hello"]), ("sleep", ["sleep", "1000"])):
        shutil.copytree(rootfs, f"{path}/{name}/rootfs", symlinks=True)
        config = base_config(f"t{os.getpid()}-{name}")
        config["process"]["args"] = args
        config["linux"].pop("cgroupsPath", None)
        with open(f"{path}/{name}/config.json", "w") as file:
            json.dump(config, file)
    return path


def within(root, brought, script, before=":", after=":"):
    """Run a script in a copy of the root; return its Result."""
    place = f"{os.path.dirname(brought)}/copy"
    os.mkdir(place)
    line = ["unshare", "--mount", "sh", "-c", COPY, "sh", place, root, brought]
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"}
    done = engines.call([*line, before, script, after], patience=300, env=env)
    assert not os.listdir(place)
    return done


def test_the_deb_is_installed_upgraded_and_removed(host, clean_root, brought):
    shutil.copy(recipe("deb")(Path(brought), version="0.0.1~old"), f"{brought}/old.deb")
    shutil.move(recipe("deb")(Path(brought)), f"{brought}/new.deb")
    script = DEB.format(run=RUN.format(pid=os.getpid(), upgrade=UPGRADE))
    done = within(clean_root, brought, script, after=NOTHING_LEFT)
    assert done.code == 0, done
    lines = done.out.splitlines()
    version = next(line for line in lines if line.startswith("ocirt version ")).split()[2]
    rest = lines[lines.index("hello") :]
    names = [f"t{os.getpid()}-runs", f"t{os.getpid()}-waits"]
    assert rest == ["hello", version, *names, "entered"], done


def test_the_rpm_is_installed_and_removed(host, clean_root, brought):
    if reason := engines.missing("rpm", "rpmbuild"):
        pytest.skip(reason)
    shutil.move(recipe("rpm")(Path(brought)), f"{brought}/ocirt.rpm")
    # The root's own packages are .debs, of which rpm knows nothing.
    rpm = 'rpm --root "$TOP" --dbpath /var/lib/rpm'
    before = f'{rpm} --nodeps --install "$TOP/brought/ocirt.rpm" >&2'
    script = RUN.format(pid=os.getpid(), upgrade=":")
    done = within(clean_root, brought, script, before, f"{rpm} --erase ocirt >&2; {NOTHING_LEFT}")
    assert done.code == 0, done
    rest = done.out.splitlines()
    assert rest[rest.index("hello") :] == [
        "hello", f"t{os.getpid()}-runs", f"t{os.getpid()}-waits", "entered",
    ]  # fmt: skip


def test_lintian_has_nothing_to_say(workdir, monkeypatch):
    if reason := engines.missing("lintian", "dpkg-deb"):
        pytest.skip(reason)
    monkeypatch.setenv("DEBFULLNAME", "A Maintainer")
    monkeypatch.setenv("DEBEMAIL", "maintainer@debian.org")
    package = recipe("deb")(Path(workdir))
    done = engines.call(["lintian", "--allow-root", "--fail-on=error,warning", package], 120)
    assert (done.code, done.out) == (0, ""), done


@pytest.mark.parametrize("kind", ["deb", "rpm"])
def test_the_same_source_makes_the_same_package(workdir, kind):
    if reason := engines.missing({"deb": "dpkg-deb", "rpm": "rpmbuild"}[kind]):
        pytest.skip(reason)
    packages = [recipe(kind)(Path(workdir, name)) for name in ("one", "two")]
    sums = {subprocess.check_output(["sha256sum", package]).split()[0] for package in packages}
    assert len(sums) == 1


# --- sdist and wheel


def hatch(folder, *words, **more):
    line = [sys.executable, "-m", "hatchling", "build", *words]
    return engines.call(line, patience=300, cwd=folder, **more)


@pytest.fixture(scope="module")
def sdist(base):
    """The unpacked sdist, made from a copy of the tree: a build leaves things there."""
    pytest.importorskip("hatchling", reason="needs hatchling")
    tree = f"{base}/tree"
    os.mkdir(tree)
    unwanted = shutil.ignore_patterns("__pycache__", "*.new*")
    for name in ("ocirt", "spec", "hooks", "packaging"):
        shutil.copytree(TREE / name, f"{tree}/{name}", ignore=unwanted)
    for name in ("pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md"):
        shutil.copy(TREE / name, tree)
    Path(tree, "packaging/ocirt").unlink(missing_ok=True)
    done = hatch(tree, "-t", "sdist")
    assert done.code == 0, done
    (archive,) = Path(tree, "dist").glob("*.tar.gz")
    assert engines.call(["tar", "-xf", archive, "-C", base]).code == 0
    yield f"{base}/{archive.name.removesuffix('.tar.gz')}"
    shutil.rmtree(tree)


@pytest.fixture(scope="module")
def wheel(sdist):
    done = hatch(sdist, "-t", "wheel")
    assert done.code == 0, done
    (path,) = Path(sdist, "dist").glob("*.whl")
    return path


def test_the_wheel_of_the_sdist_runs_a_container(runtime, bundle, wheel, workdir):
    venv = f"{workdir}/venv"
    assert engines.call([sys.executable, "-m", "venv", venv], patience=120).code == 0
    pip = [f"{venv}/bin/python", "-m", "pip", "install", "--no-index", "--no-deps", "--quiet"]
    done = engines.call([*pip, wheel], patience=120)
    assert done.code == 0, done
    assert os.path.exists(f"{venv}/share/man/man1/ocirt.1")
    b = bundle("echo", "hello")
    root = ["--root", f"{workdir}/root"]
    # Neither a compiler nor the virtual environment is needed on PATH.
    env = {"PATH": "/nowhere"}
    done = engines.call([f"{venv}/bin/ocirt", *root, "run", "-b", b.path, b.id], env=env)
    assert (done.code, done.out) == (0, "hello\n"), done


def test_the_same_source_makes_the_same_wheel(sdist, wheel):
    first = wheel.read_bytes()
    done = hatch(sdist, "-t", "wheel")
    assert done.code == 0, done
    assert wheel.read_bytes() == first


def test_a_wheel_that_cannot_be_compiled_says_what_is_missing(sdist):
    done = hatch(sdist, "-t", "wheel", env={"PATH": "/nowhere"})
    assert done.code != 0
    assert "install make" in done.err
