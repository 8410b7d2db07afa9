"""Build ocirt_VERSION_ARCH.deb with nothing but dpkg-deb: `python3 packaging/deb/build.py [DIR]`.

What it holds is laid out by packaging/layout.py; here is what Debian wants besides.  No debhelper
and no setuptools, so that all of it can be read on one screen.  Bytecode is made on installation,
and when the system's Python changes.  DEBFULLNAME and DEBEMAIL name the maintainer.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import layout
import native

CONTROL = """\
Package: ocirt
Version: {version}
Architecture: {architecture}
Maintainer: {maintainer}
Section: admin
Priority: optional
Installed-Size: {size}
Depends: libc6, python3 (>= 3.11), libseccomp2 (>= 2.5)
Suggests: uidmap, criu, python3-pydantic (>= 2.12), python3-yaml
Description: OCI container runtime for HPC and AI
 A container runtime with the command line, exit codes, JSON and error
 sentences of runc, so that containerd, Docker, Podman and CRI-O can call
 it. Python decides what has to be done, and a small static program does it.
 .
 "ocirt setup" registers it with an engine, "ocirt doctor" tells what the
 machine can do.
"""

COMPILE = f"python3 -I -S -m compileall -q /{layout.LIB} || true"
CLEAN = f"find /{layout.LIB} -name __pycache__ -prune -exec rm -rf {{}} +"
SCRIPTS = {
    # file                                        when             what
    "DEBIAN/postinst":                            ("configure",    f"{CLEAN}; {COMPILE}"),
    "DEBIAN/prerm":                               ("",             CLEAN),
    # /usr/share/doc/python3, "rtupdate": called when the default version changes
    "usr/share/python3/runtime.d/ocirt.rtupdate": ("rtupdate",     f"{CLEAN}; {COMPILE}"),
}  # fmt: skip

CHANGELOG = """\
ocirt ({version}) unstable; urgency=medium

  * See CHANGELOG.md.gz.

 -- {maintainer}  {date}
"""

COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: ocirt

Files: *
Copyright: 2026 the authors of ocirt
License: Apache-2.0
 On Debian systems the text of the Apache License, version 2.0, is in
 /usr/share/common-licenses/Apache-2.0.
"""

# The init must not load anything next to hostile files, and both have to start fast.  The embedded
# interpreter is not position-independent, as python3 itself, and each shared library would cost
# every start: zlib and expat, which only verbs off the hot path use, are inside.
OVERRIDES = """\
ocirt: statically-linked-binary [usr/*]
ocirt: hardening-no-pie [usr/lib/ocirt/ocirt/ocirt-python*]
ocirt: embedded-library expat [usr/lib/ocirt/ocirt/ocirt-python*]
ocirt: embedded-library zlib [usr/lib/ocirt/ocirt/ocirt-python*]
"""


def build(output: Path, version: str = "") -> Path:
    """Build the package into a directory; return its path.  version: instead of the source's."""
    if not shutil.which("dpkg-deb"):
        raise SystemExit("no dpkg-deb found: install dpkg")
    output.mkdir(parents=True, exist_ok=True)
    maintainer = os.environ.get("DEBFULLNAME", "nobody")
    maintainer += f" <{os.environ.get('DEBEMAIL', 'nobody@localhost')}>"
    environment = layout.fixed_time()
    date = time.gmtime(int(environment["SOURCE_DATE_EPOCH"]))
    facts = {
        "version": version or layout.version(),
        "architecture": architecture(),
        "maintainer": maintainer,
        "date": time.strftime("%a, %d %b %Y %H:%M:%S +0000", date),
    }
    with tempfile.TemporaryDirectory(dir=output) as top:
        tree = Path(top) / "tree"
        layout.lay_out(tree, embed=True)
        adapt(tree, facts)
        size = sum(path.lstat().st_size for path in tree.rglob("*")) // 1024 + 1
        layout.put(tree / "DEBIAN/control", CONTROL.format(**facts, size=size))
        for name, (when, what) in SCRIPTS.items():
            case = f'[ "$1" = {when} ] || exit 0\n' if when else ""
            layout.put(tree / name, f"#!/bin/sh\nset -e\n{case}{what}\n", 0o755)
        for path in tree.rglob("*"):
            if path.is_dir():
                path.chmod(0o755)
        package = output / "ocirt_{version}_{architecture}.deb".format(**facts)
        line = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(tree), str(package)]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL, env=environment)
    return package


def adapt(tree: Path, facts: dict[str, str]) -> None:
    """Put things where Debian's policy has them, and add what it asks for."""
    for page in (tree / "usr/share/man").rglob("*.1"):
        squeeze(page)
    # Debian keeps site-functions for the machine's own.
    (tree / "usr/share/zsh/site-functions").rename(tree / "usr/share/zsh/vendor-completions")
    doc = tree / "usr/share/doc/ocirt"
    layout.put(doc / "copyright", COPYRIGHT)
    layout.put(doc / "changelog", CHANGELOG.format(**facts))
    layout.put(doc / "CHANGELOG.md", (native.ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    squeeze(doc / "changelog")
    squeeze(doc / "CHANGELOG.md")
    layout.put(tree / "usr/share/lintian/overrides/ocirt", OVERRIDES)


def squeeze(path: Path) -> None:
    """Compress a file in its place, the same way at any time."""
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    path.unlink()


def architecture() -> str:
    """Return Debian's name of this machine's architecture."""
    line = ["dpkg", "--print-architecture"]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    print(build(Path(sys.argv[1] if sys.argv[1:] else native.ROOT / "dist")))
