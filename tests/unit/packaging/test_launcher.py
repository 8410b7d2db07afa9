"""The launcher finds its way without help from the environment."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent.parent
MINOR = f"python3.{sys.version_info.minor}"

pytestmark = pytest.mark.skipif(
    not (shutil.which("musl-gcc") or shutil.which("cc")), reason="needs a C compiler"
)


@pytest.fixture(scope="module")
def native():
    return runpy.run_path(str(ROOT / "packaging" / "native.py"))


@pytest.fixture(scope="module")
def launcher(native, tmp_path_factory):
    """The program as a wheel carries it, in a tree laid out as pip lays it."""
    top = tmp_path_factory.mktemp("prefix")
    package = top / "lib" / MINOR / "site-packages" / "ocirt" / "cli"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "import os, sys, ocirt\n"
        "def console():\n"
        "    print(sys.argv[1:], ocirt.SITE, [p for p in sys.path if 'site-packages' in p])\n"
        "    print([os.get_inheritable(fd) for fd in range(3)], sys.flags.isolated)\n"
        "    sys.stdout.flush()\n"
        "    os._exit(7)\n"
    )
    (top / "bin").mkdir()
    (top / "bin" / MINOR).symlink_to(os.path.realpath(sys.executable))
    native["compile_c"](top / "bin" / "ocirt", [ROOT / "packaging" / "launcher.c"])
    return top / "bin" / "ocirt"


def call(line, **more):
    return subprocess.run(line, capture_output=True, text=True, timeout=30, check=False, **more)


def test_words_arrive_as_they_were_given(launcher):
    words = ["", "a b", "--", "-c", "ü", "-x=\n"]
    done = call([launcher, *words])
    assert done.returncode == 7, done.stderr
    site = launcher.parent.parent / "bin/../lib" / MINOR / "site-packages"
    assert (
        done.stdout.splitlines()[0]
        == f"{words!r} {launcher.parent}/../lib/{MINOR}/site-packages []"
    )
    assert site.exists()


def test_the_environment_has_no_say(launcher, tmp_path):
    (tmp_path / "os.py").write_text("raise SystemExit(99)")
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit(99)")
    environment = {"PYTHONPATH": str(tmp_path), "PYTHONHOME": "/nowhere", "PYTHONSTARTUP": "/x"}
    assert call([launcher], env=environment, cwd=tmp_path).returncode == 7
    assert call([launcher], env={}).returncode == 7


def test_a_link_leads_to_it(launcher, tmp_path):
    (tmp_path / "web").symlink_to(launcher)
    assert call([tmp_path / "web"]).returncode == 7
    found = call(["/bin/sh", "-c", "web"], env={"PATH": str(tmp_path)})
    assert found.returncode == 7


def test_closed_standard_streams_are_opened(launcher, tmp_path):
    out = tmp_path / "out"
    line = f"exec '{launcher}' 0<&- 2>&- >'{out}'"
    assert call(["/bin/sh", "-c", line]).returncode == 7
    assert out.read_text().endswith("[True, True, True] 1\n")


def test_a_moved_program_says_so(launcher, tmp_path):
    shutil.copy(launcher, tmp_path / "ocirt")
    done = call([tmp_path / "ocirt"])
    assert done.returncode == 1
    assert done.stderr.startswith("ocirt: cannot find its own package")


def test_an_editable_one_knows_its_tree(native, tmp_path):
    out = tmp_path / "ocirt"
    flags = [f'-DOCIRT_DIR="{ROOT}"', f'-DOCIRT_PYTHON="{os.path.realpath(sys.executable)}"']
    native["compile_c"](out, [ROOT / "packaging" / "launcher.c"], *flags)
    done = call([out, "--version"], env={}, cwd="/")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ocirt version ")
