#!/usr/bin/env python3
"""Make a bundle from the machine's own files, without a network.

    python3 examples/make_bundle.py DIR [-- COMMAND [ARG ...]]

The root file system holds one static busybox where there is one, otherwise a shell and some
tools with the libraries they need.  config.json is what `ocirt spec` writes, without a
terminal, with a cgroup of its own (/ocirt-NAME, NAME being the last part of DIR) and with
COMMAND, if given, in place of a script that looks around.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from ocirt.cli.spec import example

FOLDERS = ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "usr/bin", "var")
TOOLS = "sh cat env head hostname id ls mkdir mount ps rm sleep touch uname wc".split()
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost\n",
}
SCRIPT = """\
echo "hello from $(hostname), process $$ of $(ls -d /proc/[0-9]* | wc -l) that I can see"
id
echo "root: $(cd / && echo *)"
echo "mounts:"; mount | head -n 4
touch /new 2>/dev/null || echo "and the root file system is read-only"
"""


def static_busybox() -> str | None:
    """Return the path of a busybox that needs no libraries."""
    path = shutil.which("busybox")
    return path if path and not libraries(path) else None


def libraries(program: str) -> list[str]:
    """Return the shared libraries that `program` loads, the loader included."""
    done = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    words = [word for line in done.stdout.splitlines() for word in line.split()]
    return sorted({word for word in words if word.startswith("/")})


def fill(rootfs: Path) -> None:
    """Make a root file system in the empty directory `rootfs`."""
    for folder in FOLDERS:
        (rootfs / folder).mkdir(parents=True)
    (rootfs / "tmp").chmod(0o1777)
    for name, text in FILES.items():
        (rootfs / name).write_text(text)
    if busybox := static_busybox():
        shutil.copy(busybox, rootfs / "bin/busybox")
        done = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
        for applet in done.stdout.split():
            if applet != "busybox":
                (rootfs / "bin" / applet).symlink_to("busybox")
        return
    for tool in TOOLS:
        if path := shutil.which(tool):
            shutil.copy(path, rootfs / "bin" / tool)
            for library in libraries(path):
                target = rootfs / library[1:]
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(library, target)


def configure(name: str, command: list[str]) -> dict[str, Any]:
    """Return config.json for the bundle `name`."""
    config = example(unified=os.path.exists("/sys/fs/cgroup/cgroup.controllers"))
    config["process"]["terminal"] = False
    config["process"]["args"] = command or ["sh", "-c", SCRIPT]
    config["hostname"] = name
    # Absolute: a relative path would lie below the cgroup of whoever calls ocirt.  One level, since
    # the parents that `create` makes stay, as with runc: others may be about to use them.
    config["linux"]["cgroupsPath"] = f"/ocirt-{name}"
    return config


def make(folder: Path, command: list[str]) -> None:
    """Make the bundle; one that is there is replaced."""
    if folder.exists():
        if not (folder / "config.json").exists() and any(folder.iterdir()):
            raise SystemExit(f"{folder}: there, and no bundle; remove it first")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    fill(folder / "rootfs")
    config = configure(folder.resolve().name, command)
    (folder / "config.json").write_text(json.dumps(config, indent="\t") + "\n")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Make a bundle from the machine's own files.")
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("command", nargs="*", metavar="COMMAND")
    given = parser.parse_args()
    make(given.folder, given.command)
    print(given.folder)


if __name__ == "__main__":
    main()
