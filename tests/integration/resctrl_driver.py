"""Run ocirt on a machine whose root is a directory of ours: `resctrl_driver.py ROOT ARG...`.

Few machines have resctrl.  Here os.mkdir and os.rmdir do what the kernel does: a new group is
full of files, and a removed one goes with them.  What it would refuse, ROOT/refuse names.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys

HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [HOME, f"{HOME}/hooks", f"{HOME}/spec"]

from ocirt import cli, resctrl  # noqa: E402

ROOT = sys.argv[1]
TREE = f"{ROOT}/sys/fs/resctrl"
_mkdir, _rmdir, _write, _open = os.mkdir, os.rmdir, os.write, os.open
_names = {}


def fill(path):
    """Put into a group what the kernel puts there."""
    with open(f"{path}/tasks", "w"):
        pass
    domain = f"{path}/mon_data/mon_L3_00"
    for folder in (f"{path}/mon_data", domain):
        _mkdir(folder)
    for number, name in enumerate(("llc_occupancy", "mbm_total_bytes", "mbm_local_bytes")):
        with open(f"{domain}/{name}", "w") as file:
            file.write(f"{1000 + number}\n")
    if os.path.basename(os.path.dirname(path)) != "mon_groups":
        _mkdir(f"{path}/mon_groups")
        shutil.copy(f"{TREE}/schemata", path)


def mkdir(path, *args, **kwargs):
    _mkdir(path, *args, **kwargs)
    if os.path.dirname(str(path)) == TREE or "/mon_groups/" in str(path):
        fill(str(path))


def rmdir(path, *args, **kwargs):
    for folder, _, files in os.walk(path, topdown=False) if str(path).startswith(TREE) else ():
        for name in files:
            os.unlink(f"{folder}/{name}")
        if folder != str(path):
            _rmdir(folder)
    _rmdir(path, *args, **kwargs)


def open_(path, *args, **kwargs):
    fd = _open(path, *args, **kwargs)
    _names[fd] = str(path)
    return fd


def write(fd, data):
    name = _names.get(fd, "")
    if name.startswith(TREE):
        if os.path.exists(f"{ROOT}/refuse"):
            with open(f"{ROOT}/refuse", "rb") as file:
                if file.read() in data:
                    raise OSError(errno.EINVAL, "as told")
        os.ftruncate(fd, 0)  # each write is a whole value
    return _write(fd, data)


if __name__ == "__main__":
    os.mkdir, os.rmdir, os.open, os.write = mkdir, rmdir, open_, write
    resctrl.draft.__defaults__ = resctrl.changed.__defaults__ = (ROOT,)
    sys.exit(cli.main(sys.argv[2:]))
