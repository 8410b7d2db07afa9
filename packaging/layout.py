"""Lay out what a distribution's package holds: `python3 packaging/layout.py DIRECTORY`.

    /usr/bin/ocirt              the launcher, which knows the next line and /usr/bin/python3
    /usr/lib/ocirt/ocirt/...    the package with the init, and oci_spec and ocirt_hpc beside it
    /usr/share/                 manual pages, completions

The .deb and the .rpm are made of this, each adding what is its own.  Bytecode depends on the
Python that is installed, so the packages' scripts make it.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import native
import share

LIB = "usr/lib/ocirt"
PACKAGES = ("ocirt", "spec/oci_spec", "hooks/ocirt_hpc")
SKIPPED = ("*.c", "*.h", "*.o", "Makefile", ".gitignore", ".clang-format", "__pycache__", "*.new*",
           "fuzz_decode", "check_decode", "ocirt-python*")  # fmt: skip
PYTHON = "/usr/bin/python3"


def lay_out(tree: Path, *, embed: bool = False) -> None:
    """Put everything below `tree` where it will be on a machine.

    embed: with this machine's own PYTHON, for machines that have the very same one.
    """
    init = native.compile_init()
    for package in PACKAGES:
        source = native.ROOT / package
        shutil.copytree(source, tree / LIB / source.name, ignore=shutil.ignore_patterns(*SKIPPED))
    for path in tree.rglob("*"):
        path.chmod(0o755 if path.is_dir() or path.name == init.name else 0o644)
    if commit := native.head():
        put(tree / LIB / "ocirt/COMMIT", commit)
    program = tree / "usr/bin/ocirt"
    folder = tree / LIB / "ocirt"
    found = embed and native.compile_embedded(f"/{LIB}", PYTHON, folder, sealed=True)
    native.compile_launcher(home=f"/{LIB}", python=PYTHON, output=program, embedded=found or None)
    for made in (program, *folder.glob("ocirt-python*")):
        made.chmod(0o755)
    share.write(tree / "usr/share")
    for path in [tree, *tree.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)


def put(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file, and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def version() -> str:
    """Return our version, read off the source."""
    text = (native.ROOT / "ocirt" / "version.py").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("VERSION = ")]
    return line.split('"')[1]


def fixed_time() -> dict[str, str]:
    """Return the environment by which the same source makes the same package at any time."""
    return {"SOURCE_DATE_EPOCH": native.commit_time() or "0", **os.environ}


if __name__ == "__main__":
    (name,) = sys.argv[1:]
    lay_out(Path(name))
