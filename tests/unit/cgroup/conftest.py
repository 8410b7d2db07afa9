"""Fake cgroup trees under tmp_path: directories whose control files appear with mkdir."""

from __future__ import annotations

import os

import pytest

COMMON_V1 = {"tasks": "", "cgroup.procs": "", "cgroup.clone_children": "0\n"}
FILES_V1 = {
    "cpuset": {"cpuset.cpus": "\n", "cpuset.mems": "\n"},
    "cpu": dict.fromkeys(("cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us"), ""),
    "memory": dict.fromkeys(
        (
            "memory.limit_in_bytes",
            "memory.memsw.limit_in_bytes",
            "memory.usage_in_bytes",
            "memory.max_usage_in_bytes",
            "memory.oom_control",
        ),
        "",
    ),
    "devices": dict.fromkeys(("devices.allow", "devices.deny", "devices.list"), ""),
    "pids": {"pids.max": ""},
    "blkio": {"blkio.bfq.weight": ""},
    "freezer": {"freezer.state": "THAWED\n", "freezer.self_freezing": "0\n"},
}
FILES_V2 = dict.fromkeys(
    (
        "cgroup.procs",
        "cgroup.threads",
        "cgroup.controllers",
        "cgroup.subtree_control",
        "cgroup.freeze",
        "cgroup.events",
        "cgroup.type",
        "memory.max",
        "memory.events",
        "memory.current",
        "pids.max",
        "cpu.max",
        "io.weight",
    ),
    "",
)


class FakeTree:
    """A v1, hybrid or v2 tree at `root`, and a matching /proc/self at `proc`."""

    def __init__(self, tmp_path):
        self.root = str(tmp_path / "cgroup")
        self.proc = str(tmp_path / "proc")
        os.mkdir(self.proc)
        self._mkdir = os.mkdir
        self._rmdir = os.rmdir
        self._mkdir(self.root)

    def put(self, path, text):
        with open(os.path.join(self.root, path), "w") as file:
            file.write(text)

    def get(self, path):
        with open(os.path.join(self.root, path)) as file:
            return file.read()

    def say(self, own, mounts=()):
        """Fill /proc/self/cgroup with (controllers, path), mountinfo with whole lines."""
        with open(self.proc + "/cgroup", "w") as file:
            file.writelines(f"{i}:{names}:{path}\n" for i, (names, path) in enumerate(own))
        with open(self.proc + "/mountinfo", "w") as file:
            file.writelines(line + "\n" for line in mounts)

    def v1(self, *hierarchies, own="/", hybrid=False):
        for names in hierarchies:
            name = names.removeprefix("name=")
            self.mkdir(f"{self.root}/{name}")
            if name == "cpuset":
                self.put("cpuset/cpuset.cpus", "0-7\n")
                self.put("cpuset/cpuset.mems", "0\n")
        if hybrid:
            self._mkdir(self.root + "/unified")
            self.put("unified/cgroup.controllers", "")
        self.say([*((names, own) for names in hierarchies), *([("", own)] if hybrid else [])])
        return self

    def v2(self, controllers="cpu memory pids", own="/"):
        self.mkdir(self.root + "/.")
        self.put("cgroup.controllers", controllers + "\n")
        self.say([("", own)])
        return self

    def mkdir(self, path, mode=0o777):
        if not os.path.isdir(path):
            self._mkdir(path, mode)
        elif not path.endswith("/."):
            raise FileExistsError(17, "File exists", path)
        if not path.startswith(self.root):
            return
        relative = path[len(self.root) + 1 :]
        if relative == "." or os.path.exists(self.root + "/cgroup.controllers"):
            files = dict(FILES_V2)
            if relative != ".":
                files["cgroup.controllers"] = self.get(
                    os.path.dirname(relative) + "/cgroup.subtree_control"
                    if os.path.dirname(relative)
                    else "cgroup.subtree_control"
                ).replace("+", "")
        elif relative.startswith("unified"):
            files = {"cgroup.controllers": "", "cgroup.procs": ""}
        else:
            files = dict(COMMON_V1)
            for name in relative.split("/")[0].split(","):
                files |= FILES_V1.get(name, {})
        for name, text in files.items():
            with open(f"{path}/{name}", "w") as file:
                file.write(text)

    def rmdir(self, path):
        if path.startswith(self.root):
            with os.scandir(path) as entries:
                found = list(entries)
            if any(entry.is_dir() for entry in found):
                raise OSError(16, "Device or resource busy", path)
            for entry in found:
                os.unlink(entry.path)
        self._rmdir(path)

    def directories(self):
        """Every directory below the root, hierarchies themselves apart."""
        found = []
        for top, names, _ in os.walk(self.root):
            found += [os.path.join(top, name)[len(self.root) + 1 :] for name in names]
        return sorted(found)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    fake = FakeTree(tmp_path)
    monkeypatch.setattr(os, "mkdir", fake.mkdir)
    monkeypatch.setattr(os, "rmdir", fake.rmdir)
    return fake
