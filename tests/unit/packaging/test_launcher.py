"""The launcher finds its way without help from the environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent.parent
MINOR = f"python3.{sys.version_info.minor}"


def call(line, **more):
    return subprocess.run(line, capture_output=True, text=True, timeout=30, check=False, **more)


def test_words_arrive_as_they_were_given(launcher):
    words = ["", "a b", "--", "-c", "ü", "-x=\n"]
    done = call([launcher, *words])
    assert done.returncode == 77, done.stderr
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
    assert call([launcher], env=environment, cwd=tmp_path).returncode == 77
    assert call([launcher], env={}).returncode == 77


def test_a_link_leads_to_it(launcher, tmp_path):
    (tmp_path / "web").symlink_to(launcher)
    assert call([tmp_path / "web"]).returncode == 77
    found = call(["/bin/sh", "-c", "web"], env={"PATH": str(tmp_path)})
    assert found.returncode == 77


def test_closed_standard_streams_are_opened(launcher, tmp_path):
    out = tmp_path / "out"
    line = f"exec '{launcher}' 0<&- 2>&- >'{out}'"
    assert call(["/bin/sh", "-c", line]).returncode == 77
    assert out.read_text().endswith("[True, True, True] 1\n")


def test_a_moved_program_says_so(launcher, tmp_path):
    shutil.copy(launcher, tmp_path / "ocirt")
    done = call([tmp_path / "ocirt"])
    assert done.returncode == 1
    assert done.stderr.startswith("ocirt: cannot find its own package")


def test_an_editable_one_knows_its_tree(native, tmp_path):
    out = tmp_path / "ocirt"
    flags = [f'-DOCIRT_DIR="{ROOT}"', f'-DOCIRT_PYTHON="{os.path.realpath(sys.executable)}"']
    sources = [ROOT / "packaging" / name for name in native["LAUNCHER_SOURCES"]]
    native["compile_c"](out, sources, *flags)
    done = call([out, "--version"], env={}, cwd="/")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ocirt version ")
