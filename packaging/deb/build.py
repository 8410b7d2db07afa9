"""Build ocirt_VERSION_ARCH.deb with nothing but dpkg-deb: `python3 packaging/deb/build.py [DIR]`.

    /usr/bin/ocirt              the launcher, which knows the next line and /usr/bin/python3
    /usr/lib/ocirt/ocirt/...    the package with the init, and oci_spec and ocirt_hpc beside it
    /usr/share/                 manual pages, completions, copyright, changelog

No debhelper and no setuptools: the tree is laid out here, so that what a package holds can be
read on one screen.  Bytecode depends on the Python that is installed, so the package's scripts
make it: on installation, and when the system's Python changes.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import native
import share

LIB = "usr/lib/ocirt"
PACKAGES = ("ocirt", "spec/oci_spec", "hooks/ocirt_hpc")
SKIPPED = ("*.c", "*.h", "*.o", "Makefile", ".gitignore", ".clang-format", "__pycache__", "*.new*",
           "fuzz_decode", "check_decode")  # fmt: skip
PYTHON = "/usr/bin/python3"

CONTROL = """\
Package: ocirt
Version: {version}
Architecture: {architecture}
Maintainer: {maintainer}
Section: admin
Priority: optional
Installed-Size: {size}
Depends: python3 (>= 3.11), libseccomp2 (>= 2.5)
Suggests: uidmap, criu, python3-pydantic (>= 2.12)
Description: OCI container runtime for HPC and AI
 A container runtime with the command line, exit codes, JSON and error
 sentences of runc, so that containerd, Docker, Podman and CRI-O can call
 it. Python decides what has to be done, and a small static program does it.
 .
 "ocirt setup" registers it with an engine, "ocirt doctor" tells what the
 machine can do.
"""

COMPILE = f"{PYTHON} -I -S -m compileall -q /{LIB} || true"
CLEAN = f"find /{LIB} -name __pycache__ -prune -exec rm -rf {{}} +"
SCRIPTS = {
    # file                                        when             what
    "DEBIAN/postinst":                            ("configure",    COMPILE),
    "DEBIAN/prerm":                               ("",             CLEAN),
    # /usr/share/doc/python3, "rtupdate": called when the default version changes
    "usr/share/python3/runtime.d/ocirt.rtupdate": ("rtupdate",     f"{CLEAN}; {COMPILE}"),
}  # fmt: skip

COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: ocirt

Files: *
Copyright: the authors of ocirt
License: Apache-2.0
 On Debian systems the text of the Apache License, version 2.0, is in
 /usr/share/common-licenses/Apache-2.0.
"""


def build(output: Path) -> Path:
    """Build the package into a directory; return its path."""
    if not shutil.which("dpkg-deb"):
        raise SystemExit("no dpkg-deb found: install dpkg")
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output) as top:
        tree = Path(top) / "tree"
        lay_out(tree)
        facts = {"version": version(), "architecture": architecture()}
        size = sum(path.lstat().st_size for path in tree.rglob("*")) // 1024 + 1
        maintainer = os.environ.get("DEBFULLNAME", "nobody")
        maintainer += f" <{os.environ.get('DEBEMAIL', 'nobody@localhost')}>"
        control = CONTROL.format(**facts, size=size, maintainer=maintainer)
        put(tree / "DEBIAN/control", control)
        for name, (when, what) in SCRIPTS.items():
            case = f'[ "$1" = {when} ] || exit 0\n' if when else ""
            put(tree / name, f"#!/bin/sh\nset -e\n{case}{what}\n", 0o755)
        package = output / "ocirt_{version}_{architecture}.deb".format(**facts)
        line = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(tree), str(package)]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    return package


def lay_out(tree: Path) -> None:
    """Put everything but the package's own files where it will be on a machine."""
    init = native.compile_init()
    for package in PACKAGES:
        source = native.ROOT / package
        if (source / "__init__.py").exists():
            target = tree / LIB / source.name
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(*SKIPPED))
    for path in tree.rglob("*"):
        path.chmod(0o755 if path.is_dir() or path.name == init.name else 0o644)
    if commit := native.head():
        put(tree / LIB / "ocirt/COMMIT", commit)
    program = tree / "usr/bin/ocirt"
    native.compile_launcher(home=f"/{LIB}", python=PYTHON, output=program)
    program.chmod(0o755)
    for page in share.write(tree / "usr/share"):
        if page.suffix == ".1":
            squeeze(page)
    # Debian keeps site-functions for the machine's own.
    (tree / "usr/share/zsh/site-functions").rename(tree / "usr/share/zsh/vendor-completions")
    doc = tree / "usr/share/doc/ocirt"
    put(doc / "copyright", COPYRIGHT)
    put(doc / "changelog", (native.ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    squeeze(doc / "changelog")
    for path in [tree, *tree.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)


def put(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file, and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def squeeze(path: Path) -> None:
    """Compress a file in its place, the same way at any time."""
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    path.unlink()


def version() -> str:
    """Return our version, read off the source."""
    text = (native.ROOT / "ocirt" / "version.py").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("VERSION = ")]
    return line.split('"')[1]


def architecture() -> str:
    """Return Debian's name of this machine's architecture."""
    line = ["dpkg", "--print-architecture"]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    print(build(Path(sys.argv[1] if sys.argv[1:] else native.ROOT / "dist")))
