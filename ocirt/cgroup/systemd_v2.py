"""The cgroup manager for scopes on unified v2."""

from __future__ import annotations

from ocirt.cgroup import fs_v2
from ocirt.cgroup.systemd import Systemd


class V2(Systemd, fs_v2.V2):
    """`directory`: the scope's cgroup."""

    def find(self, path: str) -> None:
        self.directory = self.root + path

    def path_in(self, own: dict[str, str]) -> str:
        return own.get("", "")
