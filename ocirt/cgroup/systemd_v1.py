"""The cgroup manager for scopes on v1 and hybrid.

systemd knows some of the hierarchies; in the others we make the same path.
"""

from __future__ import annotations

from ocirt.cgroup import fs_v1, layout
from ocirt.cgroup.systemd import Systemd


class V1(Systemd, fs_v1.V1):
    """`places`: as of the base; `root`: where all hierarchies are mounted."""

    root = "/sys/fs/cgroup"

    def find(self, path: str) -> None:
        self.settle_in(*layout.v1_directories(path, "", self.root, "/proc/self"))

    def path_in(self, own: dict[str, str]) -> str:
        return own.get("name=systemd", "")
