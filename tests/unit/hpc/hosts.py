"""Machines as directories: tests/hosts/NAME is the root, its nodes.txt says what its devices are.

A line of nodes.txt: path, type (b, c, p; - for a plain file), major:minor, permissions.
"""

from __future__ import annotations

import os
from pathlib import Path

HOSTS = Path(__file__).resolve().parent.parent.parent / "hosts"
MODES = {"b": 0o060000, "c": 0o020000, "p": 0o010000, "-": 0o100000}


class Host:
    """A fake machine: `root`, and `lstat`, which knows its device nodes."""

    def __init__(self, name):
        self.root = str(HOSTS / name)
        self.nodes = {}
        for line in (HOSTS / name / "nodes.txt").read_text().splitlines():
            path, kind, numbers, mode = line.split()
            major, minor = map(int, numbers.split(":"))
            self.nodes[path] = (MODES[kind] | int(mode, 8), os.makedev(major, minor))

    def lstat(self, path):
        mode, rdev = self.nodes.get(path.removeprefix(self.root), (None, 0))
        if mode is None:
            raise FileNotFoundError(2, "No such file or directory", path)
        # st_rdev is the field after the ten of the tuple and the three times.
        return os.stat_result([mode, *[0] * 9], {"st_rdev": rdev})
