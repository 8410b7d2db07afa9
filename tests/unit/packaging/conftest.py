"""The launcher, compiled once and laid out as a wheel lays it: BIN/ocirt beside lib/python3.N."""

from __future__ import annotations

import os
import runpy
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent.parent
MINOR = f"python3.{sys.version_info.minor}"

# Stands in for our package: tells what it was given, and ends with a code of its own.
STAND_IN = """
import os, sys, ocirt
def console():
    print(sys.argv[1:], ocirt.SITE, [p for p in sys.path if 'site-packages' in p])
    print([os.get_inheritable(fd) for fd in range(3)], sys.flags.isolated)
    sys.stdout.flush()
    os._exit(77)
"""


@pytest.fixture(scope="session")
def native():
    """packaging/native.py, which is no module of a package."""
    if not (shutil.which("musl-gcc") or shutil.which("cc")):
        pytest.skip("needs a C compiler")
    return runpy.run_path(str(ROOT / "packaging" / "native.py"))


@pytest.fixture(scope="session")
def launcher(native, tmp_path_factory):
    """The program; where it calls Python, the exit code is 77."""
    top = tmp_path_factory.mktemp("prefix")
    package = top / "lib" / MINOR / "site-packages" / "ocirt" / "cli"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(STAND_IN)
    (top / "bin").mkdir()
    (top / "bin" / MINOR).symlink_to(os.path.realpath(sys.executable))
    sources = [ROOT / "packaging" / name for name in native["LAUNCHER_SOURCES"]]
    native["compile_c"](top / "bin" / "ocirt", sources)
    return top / "bin" / "ocirt"
